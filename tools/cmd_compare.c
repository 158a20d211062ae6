// SPDX-License-Identifier: MIT
// tern compare: how far the predictions of two models with one vocabulary are apart, over a text.
#include "windows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct compare_options {
    windows_options windows; // the first model is base.model
    const char *other;
    tern_head_form other_head;
    bool other_head_given;
    tern_kv_type other_kv;
    bool other_kv_given;
    size_t other_act_block;
    bool other_act_block_given;
} compare_options;

enum { KEY_HEAD_B = CLI_KEY_OWN, KEY_KV_B, KEY_ACT_BLOCK_B };

static error_t parse(int key, char *arg, struct argp_state *state) {
    compare_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        for (size_t i = 0; i < 6; i++) state->child_inputs[i] = &o->windows;
        return 0;
    case ARGP_KEY_ARG:
        if (o->other) return ARGP_ERR_UNKNOWN;
        if (o->windows.base.model)
            o->other = arg;
        else
            o->windows.base.model = arg;
        return 0;
    case KEY_HEAD_B:
        o->other_head = cli_head_form("--head-b", arg);
        o->other_head_given = true;
        return 0;
    case KEY_KV_B:
        o->other_kv = cli_kv_type("--kv-b", arg);
        o->other_kv_given = true;
        return 0;
    case KEY_ACT_BLOCK_B:
        o->other_act_block = cli_act_block("--act-block-b", arg);
        o->other_act_block_given = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"head-b", KEY_HEAD_B, "FORM", 0, "Form of B's output head, where it is another one than A's", 1},
    {"kv-b", KEY_KV_B, "TYPE", 0, "Keys and values of B's context, where they are others than A's", 1},
    {"act-block-b", KEY_ACT_BLOCK_B, "SIZE", 0, "Blocks of B's activations, where they are others than A's", 1},
    {0}};
static const struct argp_child children[] = {{&windows_argp, 0, NULL, 0},
                                             {&cli_kernel_argp, 0, NULL, 0},
                                             {&cli_head_argp, 0, NULL, 0},
                                             {&cli_load_argp, 0, NULL, 0},
                                             {&cli_kv_argp, 0, NULL, 0},
                                             {&cli_machine_argp, 0, NULL, 0},
                                             {0}};
static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .children = children,
    .args_doc = "A B",
    .doc =
        "Measures how far the predictions of model file B are from those of A over a text: the Kullback-Leibler divergence of "
        "each next "
        "token's distribution, and how often the likeliest token is the same. A is the better one, say, before quantization.\v"
        "Both files must have the same tokens.\n\n"
        "Examples:\n"
        "  tern compare model-f16.gguf model-q4.gguf -f book.txt\n"
        "  tern compare model.gguf model.gguf --head exact --head-b int4 -f book.txt\n"
        "  tern compare model.gguf model.gguf --kv-b int8 -f book.txt\n"
        "  tern compare model.gguf model.gguf --act-block 32 --act-block-b auto -f book.txt\n"
        "  tern compare a.gguf b.gguf -f book.txt --json | jq .mean_kl_nats\n"
        "\n" CLI_ENVIRONMENT};

typedef struct side {
    tern_model *model;
    tern_kv_type kv;
    tern_session *session;
    float *logits;
    double loss;
} side;

typedef struct result {
    side a, b;
    double kl, kl_squares, kl_most;
    size_t tokens, same;
} result;

static size_t likeliest(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

// Logits of one position, and what makes log-probabilities of them: log p(v) = logits[v] - log_sum.
typedef struct prediction {
    const float *logits;
    size_t likeliest;
    double log_sum;
} prediction;

static prediction predicted(const float *logits, size_t n) {
    const size_t best = likeliest(logits, n);
    const double most = (double)logits[best];
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - most);
    return (prediction){logits, best, most + log(sum)};
}

static double log_probability(const prediction *p, size_t token) { return (double)p->logits[token] - p->log_sum; }

// sum_v p_a(v) (log p_a(v) - log p_b(v))
static double divergence(const prediction *a, const prediction *b, size_t n) {
    double kl = 0;
    for (size_t i = 0; i < n; i++) {
        const double log_a = log_probability(a, i);
        kl += exp(log_a) * (log_a - log_probability(b, i));
    }
    return kl;
}

static tern_status predict(side *s, const windows *w, size_t n_vocab) {
    tern_session_reset(s->session);
    return tern_decode_logits(s->model, s->session, w->input, w->count, s->logits, n_vocab);
}

static void add_token(result *r, const windows *w, size_t i, size_t n_vocab) {
    const prediction a = predicted(r->a.logits + (i - 1) * n_vocab, n_vocab);
    const prediction b = predicted(r->b.logits + (i - 1) * n_vocab, n_vocab);
    const double kl = divergence(&a, &b, n_vocab);
    r->kl += kl;
    r->kl_squares += kl * kl;
    r->kl_most = fmax(r->kl_most, kl);
    r->same += a.likeliest == b.likeliest;
    r->a.loss -= log_probability(&a, (size_t)w->input[i]);
    r->b.loss -= log_probability(&b, (size_t)w->input[i]);
    r->tokens++;
}

static int measure(result *r, windows *w, tern_context *ctx, size_t n_vocab) {
    side *sides[] = {&r->a, &r->b};
    tern_status status = TERN_OK;
    for (size_t i = 0; i < 2 && status == TERN_OK; i++) {
        sides[i]->logits = malloc(w->ctx * n_vocab * sizeof(float));
        if (!sides[i]->logits)
            return cli_fail("no memory for the logits of a window of %zu tokens; give less with --ctx", w->ctx);
        const tern_session_params params = {.struct_size = sizeof params, .n_ctx = w->ctx, .kv = sides[i]->kv};
        status = tern_session_create(sides[i]->model, &sides[i]->session, &params);
    }
    const double start = cli_seconds();
    while (status == TERN_OK && windows_next(w)) {
        status = predict(&r->a, w, n_vocab);
        if (status == TERN_OK) status = predict(&r->b, w, n_vocab);
        for (size_t i = w->count - w->scored; status == TERN_OK && i < w->count; i++) add_token(r, w, i, n_vocab);
        cli_progress("compare", start, (int)(100 * w->end / w->n));
    }
    cli_progress("compare", start, -1);
    return status == TERN_OK ? CLI_OK : cli_fail_status(ctx, status);
}

// The same tokens, so that the same ids mean the same text.
static int check_vocabularies(tern_context *ctx, const tern_model *a, const tern_model *b, size_t *n_vocab) {
    tern_model_info info_a = {.struct_size = sizeof info_a}, info_b = {.struct_size = sizeof info_b};
    tern_status status = tern_model_get_info(a, &info_a);
    if (status == TERN_OK) status = tern_model_get_info(b, &info_b);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    bool same = info_a.n_vocab == info_b.n_vocab;
    for (uint32_t i = 0; same && i < info_a.n_vocab; i++) {
        const char *x = "", *y = "";
        size_t nx = 0, ny = 0;
        (void)tern_token_bytes(a, (int32_t)i, 1, &x, &nx);
        (void)tern_token_bytes(b, (int32_t)i, 1, &y, &ny);
        same = nx == ny && memcmp(x, y, nx) == 0;
    }
    *n_vocab = info_a.n_vocab;
    return same ? CLI_OK : cli_fail("the two models have different tokens; compare them with tern perplexity (bits per byte)");
}

static int show(const compare_options *o, const windows *w, const result *r) {
    const double n = (double)r->tokens, kl = r->kl / n, same = (double)r->same / n;
    const double error = n > 1 ? sqrt(fmax(0, r->kl_squares / n - kl * kl) / (n - 1)) : NAN;
    const double ppl_a = exp(r->a.loss / n), ppl_b = exp(r->b.loss / n);
    if (o->windows.base.json)
        return cli_print_json(
            json_pack("{s:s, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "schema", "tern.compare/1", "a",
                      cli_text_json(o->windows.base.model), "b", cli_text_json(o->other), "ctx", (json_int_t)w->ctx, "stride",
                      (json_int_t)w->stride, "tokens", (json_int_t)r->tokens, "mean_kl_nats", cli_real_json(kl),
                      "kl_standard_error", cli_real_json(error), "max_kl_nats", cli_real_json(r->kl_most), "same_next_token",
                      cli_real_json(same), "perplexity_a", cli_real_json(ppl_a), "perplexity_b", cli_real_json(ppl_b)));
    (void)printf("KL divergence %.6f +- %.6f nats a token (largest %.4f), same next token %.2f %% of %zu\n", kl, error,
                 r->kl_most, 100 * same, r->tokens);
    (void)printf("perplexity %.4f and %.4f (%+.2f %%)\n", ppl_a, ppl_b, 100 * (ppl_b / ppl_a - 1));
    return cli_flush();
}

int cmd_compare(int argc, char **argv) {
    compare_options options = {.other = NULL};
    cli_parse(&argp, argc, argv, &options);
    if (!options.other) cli_usage("compare needs two models: tern compare A B -f FILE");
    cli_options second = options.windows.base;
    second.model = options.other;
    if (options.other_head_given) second.head = options.other_head;
    if (options.other_kv_given) second.kv = options.other_kv;
    if (options.other_act_block_given) second.act_block = options.other_act_block;
    const cli_options *first = &options.windows.base; // of one file one warning will do
    second.no_warning = strcmp(second.model, first->model) == 0 && (first->act_block || first->form != TERN_FORM_AUTO);
    tern_context *ctx = NULL;
    windows w = {.n = 0};
    result r = {.a.kv = options.windows.base.kv, .b.kv = second.kv};
    size_t n_vocab = 0;
    int rc = cli_open_context(&options.windows.base, &ctx);
    if (rc == CLI_OK) rc = cli_open_model(&options.windows.base, ctx, &r.a.model);
    if (rc == CLI_OK) rc = cli_open_model(&second, ctx, &r.b.model);
    if (rc == CLI_OK) rc = check_vocabularies(ctx, r.a.model, r.b.model, &n_vocab);
    if (rc == CLI_OK) rc = windows_open(&w, &options.windows, ctx, r.a.model);
    if (rc == CLI_OK) rc = measure(&r, &w, ctx, n_vocab);
    if (rc == CLI_OK) rc = show(&options, &w, &r);
    windows_close(&w);
    for (size_t i = 0; i < 2; i++) {
        side *s = i ? &r.b : &r.a;
        tern_session_destroy(s->session);
        tern_model_destroy(s->model);
        free(s->logits);
    }
    tern_context_destroy(ctx);
    return rc;
}
