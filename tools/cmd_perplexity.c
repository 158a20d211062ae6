// SPDX-License-Identifier: MIT
// tern perplexity: how well a model predicts a text.
#include "windows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static error_t parse(int key, char *arg, struct argp_state *state) {
    (void)arg;
    if (key != ARGP_KEY_INIT) return ARGP_ERR_UNKNOWN;
    for (size_t i = 0; i < 7; i++) state->child_inputs[i] = state->input;
    return 0;
}
static const struct argp_child children[] = {
    {&cli_model_argp, 0, NULL, 0}, {&windows_argp, 0, NULL, 0}, {&cli_kernel_argp, 0, NULL, 0},  {&cli_head_argp, 0, NULL, 0},
    {&cli_load_argp, 0, NULL, 0},  {&cli_kv_argp, 0, NULL, 0},  {&cli_machine_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    .parser = parse,
    .children = children,
    .doc = "Measures how well a model predicts a text: perplexity (e to the mean loss of a token) and bits per byte, which "
           "also compares "
           "models with different tokens.\vThe text is cut into windows that overlap; each token is predicted once, by the "
           "tokens of its "
           "window before it.\n\n"
           "Examples:\n"
           "  tern perplexity -m model.gguf -f book.txt\n"
           "  tern perplexity -m model.gguf -f book.txt --ctx 2048 --json | jq .perplexity\n"
           "\n" CLI_ENVIRONMENT};

typedef struct result {
    double loss, loss_squares; // sums over tokens, in nats
    size_t tokens;
    double seconds;
} result;

static int measure(windows *w, tern_context *ctx, tern_model *model, tern_kv_type kv, size_t n_vocab, result *r) {
    tern_session *session = NULL;
    float *logits = malloc(w->ctx * n_vocab * sizeof *logits);
    if (!logits) return cli_fail("no memory for the logits of a window of %zu tokens; give less with --ctx", w->ctx);
    const tern_session_params params = {.struct_size = sizeof params, .n_ctx = w->ctx, .kv = kv};
    tern_status status = tern_session_create(model, &session, &params);
    const double start = cli_seconds();
    while (status == TERN_OK && windows_next(w)) {
        tern_session_reset(session);
        status = tern_decode_logits(model, session, w->input, w->count, logits, n_vocab);
        for (size_t i = w->count - w->scored; status == TERN_OK && i < w->count; i++) {
            const double loss = -windows_log_softmax(logits + (i - 1) * n_vocab, n_vocab, (size_t)w->input[i]);
            r->loss += loss;
            r->loss_squares += loss * loss;
            r->tokens++;
        }
        cli_progress("perplexity", start, (int)(100 * w->end / w->n));
    }
    cli_progress("perplexity", start, -1);
    r->seconds = cli_seconds() - start;
    tern_session_destroy(session);
    free(logits);
    return status == TERN_OK ? CLI_OK : cli_fail_status(ctx, status);
}

static int show(const windows_options *o, const windows *w, const result *r) {
    const double n = (double)r->tokens, mean = r->loss / n;
    // Of the mean loss, taking tokens for independent.
    const double error = n > 1 ? sqrt(fmax(0, r->loss_squares / n - mean * mean) / (n - 1)) : NAN;
    const double ln2 = 0.69314718055994530942, bits = r->loss / ln2 / (double)w->bytes;
    if (o->base.json)
        return cli_print_json(json_pack("{s:s, s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "schema",
                                        "tern.perplexity/1", "model", cli_text_json(o->base.model), "ctx", (json_int_t)w->ctx,
                                        "stride", (json_int_t)w->stride, "tokens", (json_int_t)r->tokens, "bytes",
                                        (json_int_t)w->bytes, "perplexity", cli_real_json(exp(mean)), "loss_nats",
                                        cli_real_json(mean), "loss_standard_error", cli_real_json(error), "bits_per_byte",
                                        cli_real_json(bits), "seconds", cli_real_json(r->seconds)));
    (void)printf("perplexity %.4f +- %.4f (%zu tokens; loss %.5f nats a token), %.4f bits per byte\n", exp(mean),
                 exp(mean) * error, r->tokens, mean, bits);
    (void)fprintf(stderr, "windows of %zu tokens, %zu new ones each; %.1f s, %.0f tokens/s\n", w->ctx, w->stride, r->seconds,
                  n / r->seconds);
    return cli_flush();
}

int cmd_perplexity(int argc, char **argv) {
    windows_options options = {.file = NULL};
    cli_parse(&argp, argc, argv, &options);
    if (!options.base.model) cli_usage("perplexity needs a model: -m FILE");
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    windows w = {.n = 0};
    result r = {.tokens = 0};
    tern_model_info info = {.struct_size = sizeof info};
    int rc = cli_open_context(&options.base, &ctx);
    if (rc == CLI_OK) rc = cli_open_model(&options.base, ctx, &model);
    if (rc == CLI_OK) rc = windows_open(&w, &options, ctx, model);
    if (rc == CLI_OK && tern_model_get_info(model, &info) == TERN_OK)
        rc = measure(&w, ctx, model, options.base.kv, info.n_vocab, &r);
    if (rc == CLI_OK) rc = show(&options, &w, &r);
    windows_close(&w);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
    return rc;
}
