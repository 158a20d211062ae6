// SPDX-License-Identifier: MIT
// tern generate: text from a prompt, streamed, and how fast it came.
#include "cli.h"
#include "draft.h"
#include "trace_file.h"
#include "utf8.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct generate_options {
    cli_options base;
    const char *prompt, *system;
    bool chat;
    size_t n_predict, n_ctx; // n_ctx 0: what prompt and n_predict need
    size_t n_draft;          // tokens guessed at a time; 0: none
    tern_sampler_params sampler;
    const char *trace; // file, or NULL
    size_t trace_steps;
    bool trace_steps_given;
} generate_options;

enum { DEFAULT_PREDICT = 128, MAX_PREDICT = 1 << 30, DEFAULT_TRACE_STEPS = 4, MAX_TRACE_STEPS = 100, MAX_DRAFT = 64 };
enum {
    KEY_TEMP = CLI_KEY_OWN,
    KEY_TOP_K,
    KEY_TOP_P,
    KEY_MIN_P,
    KEY_SEED,
    KEY_CHAT,
    KEY_SYSTEM,
    KEY_CTX,
    KEY_DRAFT,
    KEY_TRACE,
    KEY_TRACE_STEPS
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    static const double max_temperature = 100;
    generate_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->child_inputs[1] = state->child_inputs[2] = state->child_inputs[3] = &o->base;
        return 0;
    case 'p':
        o->prompt = arg;
        return 0;
    case 'n':
        o->n_predict = (size_t)cli_integer("-n", arg, 1, MAX_PREDICT);
        return 0;
    case KEY_CTX:
        o->n_ctx = (size_t)cli_integer("--ctx", arg, 1, MAX_PREDICT);
        return 0;
    case KEY_DRAFT:
        o->n_draft = (size_t)cli_integer("--draft", arg, 0, MAX_DRAFT);
        return 0;
    case KEY_TEMP:
        o->sampler.temperature = (float)cli_real("--temp", arg, 0, max_temperature);
        return 0;
    case KEY_TOP_K:
        o->sampler.top_k = (uint32_t)cli_integer("--top-k", arg, 0, INT32_MAX);
        return 0;
    case KEY_TOP_P:
        o->sampler.top_p = (float)cli_real("--top-p", arg, 0, 1);
        return 0;
    case KEY_MIN_P:
        o->sampler.min_p = (float)cli_real("--min-p", arg, 0, 1);
        return 0;
    case KEY_SEED:
        o->sampler.seed = (uint64_t)cli_integer("--seed", arg, 0, INT64_MAX);
        return 0;
    case KEY_CHAT:
        o->chat = true;
        return 0;
    case KEY_SYSTEM:
        o->system = arg;
        return 0;
    case KEY_TRACE:
        o->trace = arg;
        return 0;
    case KEY_TRACE_STEPS:
        o->trace_steps = (size_t)cli_integer("--trace-steps", arg, 0, MAX_TRACE_STEPS);
        o->trace_steps_given = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"prompt", 'p', "TEXT", 0, "Text to continue, or with --chat the message to answer", 0},
    {"predict", 'n', "N", 0, "Stop after N tokens at the latest (default: 128)", 0},
    {"chat", KEY_CHAT, NULL, 0, "Wrap the prompt in the model's chat template (default: continue the prompt as it is)", 0},
    {"system", KEY_SYSTEM, "TEXT", 0, "System message before the prompt (with --chat; default: none)", 0},
    {"ctx", KEY_CTX, "N", 0, "Tokens that prompt and answer may take together (default: as many as are needed)", 1},
    {"draft", KEY_DRAFT, "N", 0,
     "Guess up to N tokens from an earlier place of the text, and check them together: the same text, faster where it repeats "
     "itself (default: 0, no guesses)",
     1},
    {"temp", KEY_TEMP, "T", 0, "Sampling temperature; 0, the default, always takes the most likely token", 1},
    {"top-k", KEY_TOP_K, "K", 0, "Sample among the K most likely tokens (default: 0, all)", 1},
    {"top-p", KEY_TOP_P, "P", 0, "Sample among the most likely tokens that make up probability P (default: 0, all)", 1},
    {"min-p", KEY_MIN_P, "P", 0, "Sample among tokens at least P times as likely as the likeliest (default: 0, all)", 1},
    {"seed", KEY_SEED, "S", 0, "Seed of the sampling: same seed, same text (default: 0)", 1},
    {"trace", KEY_TRACE, "FILE", 0, "Write what each thread did, for the prompt and the first tokens, as JSON for Perfetto", 2},
    {"trace-steps", KEY_TRACE_STEPS, "N", 0, "Trace the prompt and N tokens after the first (default: 4)", 2},
    {0}};
static const struct argp_child children[] = {{&cli_model_argp, 0, NULL, 0},
                                             {&cli_kernel_argp, 0, NULL, 0},
                                             {&cli_head_argp, 0, NULL, 0},
                                             {&cli_machine_argp, 0, NULL, 0},
                                             {0}};
static const struct argp argp = {.options = own_options,
                                 .parser = parse,
                                 .children = children,
                                 .doc = "Writes text with a model: the text on stdout as it comes, then speeds on stderr.\v"
                                        "Examples:\n"
                                        "  tern generate -m model.gguf -p 'Once upon a time' -n 64\n"
                                        "  tern generate -m model.gguf --chat -p 'What is a tern?'\n"
                                        "  tern generate -m model.gguf -p 'Dear' --temp 0.8 --top-p 0.95 --seed 7\n"
                                        "  tern generate -m model.gguf -p Hello --json | jq .decode_tok_per_s\n"
                                        "  tern generate -m model.gguf -p Hello -n 8 --trace trace.json\n"
                                        "\n"
                                        "Ctrl-C ends with the text so far (exit code 130); a second one ends at once.\n"
                                        "\n" CLI_ENVIRONMENT};

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}
static void watch_interrupt(void) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    (void)sigaction(SIGINT, &action, NULL);
}

// ---- The prompt -----------------------------------------------------------------------------------------------

// The prompt in the model's chat template, in a new string.
static int wrap_chat(const generate_options *o, tern_context *ctx, const tern_model *model, char **text) {
    size_t size = 0;
    tern_status status = tern_chat_prompt(model, o->system, o->prompt, NULL, 0, &size); // ARG with the size: no room yet
    if (status == TERN_ERR_UNSUPPORTED)
        return cli_fail("%s: the model has no ChatML template; run without --chat", o->base.model);
    if (status != TERN_OK && !(status == TERN_ERR_ARG && size > 0)) return cli_fail_status(ctx, status);
    *text = malloc(size + 1);
    if (!*text) return cli_fail("no memory for the prompt; give a shorter one");
    status = tern_chat_prompt(model, o->system, o->prompt, *text, size + 1, &size);
    return status == TERN_OK ? CLI_OK : cli_fail_status(ctx, status);
}

static int read_prompt(const generate_options *o, tern_context *ctx, const tern_model *model, int32_t **tokens, size_t *n) {
    char *wrapped = NULL;
    int rc = o->chat ? wrap_chat(o, ctx, model, &wrapped) : CLI_OK;
    const char *text = wrapped ? wrapped : o->prompt;
    const tern_tokenize_params params = {.struct_size = sizeof params, .parse_special = o->chat, .add_bos = 1};
    if (rc == CLI_OK) rc = cli_tokenize(ctx, model, text, strlen(text), &params, tokens, n);
    free(wrapped);
    return rc;
}

// ---- The run --------------------------------------------------------------------------------------------------

typedef struct run {
    char *text; // bytes of all tokens so far
    size_t size, room;
    size_t shown;       // of them on stdout
    bool stream;        // text goes to stdout as it comes
    double *step_ms;    // of each decode step
    size_t n_steps;     //
    double prefill_s;   // prompt in, logits out
    double first_ms;    // prompt in, first token out
    size_t n_generated; // tokens of the text; the token that ends it not counted
    size_t n_drafted, n_accepted;
    int32_t *tokens;              // prompt and text
    size_t n_tokens;              //
    int32_t draft[MAX_DRAFT + 1]; // the last token, which is certain, and guesses
    float *logits;                // [n_draft + 1][n_vocab], with guesses
    size_t n_vocab;
    const char *stop;  // why it ended: end, length, context, interrupt
    trace_file *trace; // or NULL
} run;

// A step has as many events as its stages have tiles and waits, some 1000 for each worker.
enum { TRACE_STEP_EVENTS = 1 << 12, TRACE_PROMPT_EVENTS = 1 << 14 };

static int append(run *r, const char *bytes, size_t size) {
    enum { FIRST_ROOM = 4096 };
    if (!r->text || r->room - r->size < size) {
        const size_t room = 2 * (r->size + size) + FIRST_ROOM;
        char *larger = realloc(r->text, room);
        if (!larger) return cli_fail("no memory for %zu bytes of text; ask for fewer tokens with -n", room);
        r->text = larger;
        r->room = room;
    }
    memcpy(r->text + r->size, bytes, size);
    r->size += size;
    return CLI_OK;
}

// Shows what is whole; with `all`, also an unfinished character at the end.
static int show_text(run *r, bool all) {
    if (!r->stream) return CLI_OK;
    const size_t ready = r->shown + (all ? r->size - r->shown : utf8_ready(r->text + r->shown, r->size - r->shown));
    if (ready == r->shown) return CLI_OK;
    (void)fwrite(r->text + r->shown, 1, ready - r->shown, stdout);
    r->shown = ready;
    return cli_flush();
}

// The whole prompt, in slices so that Ctrl-C and the progress line are looked at now and then.
static int prefill(tern_context *ctx, tern_model *model, tern_session *session, const int32_t *tokens, size_t n, run *r) {
    enum { SLICE = 512 };
    tern_session *slots[SLICE];
    for (size_t i = 0; i < SLICE; i++) slots[i] = session;
    const int traced = trace_begin(r->trace, ctx, TRACE_PROMPT_EVENTS);
    if (traced != CLI_OK) return traced;
    const double start = cli_seconds();
    for (size_t done = 0; done < n && !interrupted;) {
        cli_progress("reading the prompt", start, (int)(100 * done / n));
        const size_t slice = n - done < SLICE ? n - done : SLICE;
        const tern_status status = tern_decode_batch(model, slots, tokens + done, slice);
        if (status != TERN_OK) return cli_fail_status(ctx, status);
        done += slice;
    }
    cli_progress("", start, -1);
    r->prefill_s = cli_seconds() - start;
    trace_mark(r->trace, start, start + r->prefill_s, "prompt of %zu tokens", n);
    const int ended = trace_end(r->trace, ctx);
    return ended == CLI_OK ? trace_append(r->trace, ctx) : ended;
}

// A step since `begin` is done. Right guesses make several tokens of one.
static int trace_step(const generate_options *o, tern_context *ctx, const run *r, double begin) {
    trace_mark(r->trace, begin, cli_seconds(), "token %zu", r->n_generated + 1);
    return r->n_generated >= o->trace_steps ? trace_end(r->trace, ctx) : CLI_OK;
}

// A token joins the text. Sets r->stop where the text ends with it; the token that ends an answer is no part of it.
static int take_token(const generate_options *o, tern_context *ctx, tern_model *model, size_t n_ctx, int32_t token, run *r) {
    if (tern_token_is_end(model, token)) {
        r->stop = "end";
        return CLI_OK;
    }
    const char *bytes = NULL;
    size_t size = 0;
    const tern_status status = tern_token_bytes(model, token, 0, &bytes, &size);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    const int rc = append(r, size ? bytes : "", size) == CLI_OK ? show_text(r, false) : CLI_FAILED;
    if (++r->n_generated == o->n_predict)
        r->stop = "length";
    else if (r->n_tokens == n_ctx)
        r->stop = "context";
    else
        r->tokens[r->n_tokens++] = token;
    return rc;
}

// Samples the token behind each row of logits as long as the token before it was guessed right.
static int take_row_tokens(const generate_options *o, tern_context *ctx, tern_model *model, size_t n_ctx, tern_sampler *sampler,
                           const float *logits, size_t n_rows, double step_ms, run *r) {
    for (size_t i = 0; i < n_rows; i++) {
        int32_t token;
        const double asked = cli_seconds();
        const tern_status status = tern_sample_logits(sampler, logits + i * r->n_vocab, &token);
        if (status != TERN_OK) return cli_fail_status(ctx, status);
        trace_mark(r->trace, asked, cli_seconds(), "sample");
        const double ms = step_ms + (cli_seconds() - asked) * 1e3;
        if (r->first_ms == 0)
            r->first_ms = r->prefill_s * 1e3 + ms;
        else
            r->step_ms[r->n_steps++] = ms;
        step_ms = 0; // the tokens of one step come together
        const int rc = take_token(o, ctx, model, n_ctx, token, r);
        if (rc != CLI_OK || r->stop) return rc;
        if (i + 1 == n_rows || token != r->draft[i + 1]) return CLI_OK;
        r->n_accepted++;
    }
    return CLI_OK;
}

// Decodes the last token, and guesses behind it. Sets how many rows of logits there are, and where.
static tern_status decode_step(const generate_options *o, tern_model *model, tern_session *session, size_t n_ctx, run *r,
                               const float **logits, size_t *n_rows) {
    const size_t length = r->n_tokens - 1;                 // before the last token, which is not decoded yet
    const size_t most = o->n_predict - r->n_generated - 1; // guesses that can be of use
    size_t max = n_ctx - r->n_tokens < o->n_draft ? n_ctx - r->n_tokens : o->n_draft;
    if (max > most) max = most;
    r->draft[0] = r->tokens[length];
    const size_t guessed = max ? draft_tokens(r->tokens, r->n_tokens, r->draft + 1, max) : 0;
    tern_status status = TERN_OK;
    if (tern_session_length(session) > length) status = tern_session_truncate(session, length); // wrong guesses
    *n_rows = guessed + 1;
    r->n_drafted += guessed;
    if (status == TERN_OK && guessed == 0) {
        status = tern_decode_batch(model, &session, r->draft, 1);
        *logits = tern_session_logits(session);
    } else if (status == TERN_OK) {
        status = tern_decode_logits(model, session, r->draft, guessed + 1, r->logits, r->n_vocab);
        *logits = r->logits;
    }
    return status;
}

static int generate(const generate_options *o, tern_context *ctx, tern_model *model, tern_session *session, size_t n_ctx,
                    tern_sampler *sampler, run *r) {
    int rc = o->trace_steps > 0 ? trace_begin(r->trace, ctx, o->trace_steps * TRACE_STEP_EVENTS) : CLI_OK;
    const float *logits = tern_session_logits(session);
    size_t n_rows = 1;
    double step_ms = 0;
    while (rc == CLI_OK && !interrupted) {
        rc = take_row_tokens(o, ctx, model, n_ctx, sampler, logits, n_rows, step_ms, r);
        if (rc != CLI_OK || r->stop) return rc;
        const double begin = cli_seconds();
        const tern_status status = decode_step(o, model, session, n_ctx, r, &logits, &n_rows);
        if (status != TERN_OK) return cli_fail_status(ctx, status);
        step_ms = (cli_seconds() - begin) * 1e3;
        rc = trace_step(o, ctx, r, begin);
    }
    r->stop = "interrupt";
    return rc;
}

// The trace of the steps, and the file.
static int finish_trace(const generate_options *o, tern_context *ctx, run *r, trace_file **trace) {
    int rc = trace_end(r->trace, ctx);
    if (rc == CLI_OK && r->n_generated > 0 && o->trace_steps > 0) rc = trace_append(r->trace, ctx);
    return rc == CLI_OK ? trace_finish(trace, o->base.json) : rc;
}

// ---- The report -----------------------------------------------------------------------------------------------

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Nearest rank of sorted values; NaN where there are none.
static double percentile(const double *sorted, size_t n, size_t percent) {
    return n ? sorted[(n * percent + 99) / 100 - 1] : (double)NAN;
}

typedef struct speeds {
    double prefill, decode; // tokens per second
    double first_ms, p50, p95, p99;
} speeds;

static speeds measure(run *r, size_t n_prompt) {
    static const double ms = 1e3;
    double total_ms = 0;
    for (size_t i = 0; i < r->n_steps; i++) total_ms += r->step_ms[i];
    qsort(r->step_ms, r->n_steps, sizeof *r->step_ms, by_value);
    return (speeds){.prefill = r->first_ms > 0 ? (double)n_prompt / r->prefill_s : (double)NAN,
                    .decode = r->n_steps ? (double)r->n_steps * ms / total_ms : (double)NAN,
                    .first_ms = r->first_ms > 0 ? r->first_ms : (double)NAN,
                    .p50 = percentile(r->step_ms, r->n_steps, 50),
                    .p95 = percentile(r->step_ms, r->n_steps, 95),
                    .p99 = percentile(r->step_ms, r->n_steps, 99)};
}

static int report_json(const generate_options *o, tern_context *ctx, const run *r, const speeds *s, size_t n_prompt) {
    char *text = utf8_clean(r->text, r->size);
    if (!text) return cli_fail("no memory for the text as JSON; ask for fewer tokens with -n");
    json_t *object = json_pack(
        "{s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:{s:o, s:o, s:o}, s:i, s:s, s:s, s:o}",       //
        "schema", "tern.generate/1", "model", cli_text_json(o->base.model), "text", text, "prompt_tokens", //
        (json_int_t)n_prompt, "generated_tokens", (json_int_t)r->n_generated, "drafted_tokens", (json_int_t)r->n_drafted,
        "accepted_tokens", (json_int_t)r->n_accepted, "prefill_tok_per_s", cli_real_json(s->prefill), "decode_tok_per_s",
        cli_real_json(s->decode), "first_token_ms", cli_real_json(s->first_ms), "token_ms", "p50", cli_real_json(s->p50), "p95",
        cli_real_json(s->p95), "p99", cli_real_json(s->p99), "threads", tern_context_threads(ctx), "stop", r->stop, "version",
        tern_version(), "kernels", cli_kernels_json(ctx));
    free(text);
    return cli_print_json(object);
}

// One name where all stages run the same tier, else each stage's.
static void print_kernels(tern_context *ctx) {
    json_t *kernels = cli_kernels_json(ctx), *variant;
    const json_t *first = json_object_iter_value(json_object_iter(kernels));
    const char *stage;
    bool same = true;
    json_object_foreach(kernels, stage, variant) same = same && json_equal(variant, first);
    if (same) (void)fprintf(stderr, " %s", json_string_value(first));
    json_object_foreach(kernels, stage, variant) {
        if (!same) (void)fprintf(stderr, " %s/%s", stage, json_string_value(variant));
    }
    (void)fputc('\n', stderr);
    json_decref(kernels);
}

static const char *plural(size_t n) { return n == 1 ? "" : "s"; }

static int report_text(tern_context *ctx, run *r, const speeds *s, size_t n_prompt) {
    int rc = show_text(r, true);
    if (r->size == 0 || r->text[r->size - 1] != '\n') (void)putchar('\n');
    if (rc == CLI_OK) rc = cli_flush();
    (void)fprintf(stderr, "\nprompt     %zu token%s", n_prompt, plural(n_prompt));
    if (isfinite(s->prefill)) (void)fprintf(stderr, ", %.1f tok/s, first token after %.1f ms", s->prefill, s->first_ms);
    (void)fprintf(stderr, "\ngenerated  %zu token%s (stopped by: %s)", r->n_generated, plural(r->n_generated), r->stop);
    if (isfinite(s->decode)) {
        (void)fprintf(stderr, ", %.1f tok/s; %s p50 %.2f ms, p95 %.2f ms, p99 %.2f ms", s->decode,
                      r->n_accepted ? "from token to token" : "per token", s->p50, s->p95, s->p99);
    }
    if (r->n_drafted)
        (void)fprintf(stderr, "\nguessed    %zu token%s, %zu of them right (%.0f %%)", r->n_drafted, plural(r->n_drafted),
                      r->n_accepted, 100 * (double)r->n_accepted / (double)r->n_drafted);
    (void)fprintf(stderr, "\nthreads    %d\nkernels   ", tern_context_threads(ctx));
    print_kernels(ctx);
    return rc;
}

// ---- Putting it together -----------------------------------------------------------------------------------------

// How many tokens the session must hold; an error where the prompt does not fit.
static int plan_context(const generate_options *o, tern_context *ctx, const tern_model *model, size_t n_prompt, size_t *n_ctx) {
    tern_model_info info = {.struct_size = sizeof info};
    const tern_status status = tern_model_get_info(model, &info);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    const size_t most = info.n_ctx_train;
    if (o->n_ctx > most) return cli_fail("--ctx %zu: the model was trained on %zu tokens; give at most that", o->n_ctx, most);
    *n_ctx = o->n_ctx ? o->n_ctx : most;
    if (n_prompt == 0)
        return cli_fail("the prompt is empty and the model begins with no token of its own; give some text with -p");
    if (n_prompt > *n_ctx) {
        return cli_fail("the prompt has %zu tokens, the context holds %zu; shorten the prompt%s", n_prompt, *n_ctx,
                        *n_ctx < most ? " or raise --ctx" : "");
    }
    const size_t needed = n_prompt + o->n_predict - 1; // the last token is shown, not decoded
    if (needed < *n_ctx) *n_ctx = needed;
    return CLI_OK;
}

static int make_room(const generate_options *o, tern_context *ctx, const tern_model *model, const int32_t *prompt,
                     size_t n_prompt, size_t n_ctx, run *r) {
    tern_model_info info = {.struct_size = sizeof info};
    const tern_status status = tern_model_get_info(model, &info);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    r->n_vocab = info.n_vocab;
    r->n_tokens = n_prompt;
    r->tokens = calloc(n_ctx, sizeof *r->tokens);
    r->step_ms = calloc(n_ctx - n_prompt + 1, sizeof *r->step_ms);
    if (o->n_draft) r->logits = malloc((o->n_draft + 1) * r->n_vocab * sizeof *r->logits);
    if (!r->tokens || !r->step_ms || (o->n_draft && !r->logits) || append(r, "", 0) != CLI_OK)
        return cli_fail("no memory for %zu tokens; lower -n or --ctx", n_ctx);
    memcpy(r->tokens, prompt, n_prompt * sizeof *prompt);
    return CLI_OK;
}

static int run_session(const generate_options *o, tern_context *ctx, tern_model *model, const int32_t *tokens, size_t n_prompt,
                       trace_file **trace) {
    tern_session *session = NULL;
    tern_sampler *sampler = NULL;
    run r = {.stream = !o->base.json, .trace = *trace};
    size_t n_ctx = 0;
    int rc = plan_context(o, ctx, model, n_prompt, &n_ctx);
    if (rc == CLI_OK) rc = make_room(o, ctx, model, tokens, n_prompt, n_ctx, &r);
    if (rc == CLI_OK) {
        tern_status status = tern_session_create(model, &session, n_ctx);
        if (status == TERN_OK) status = tern_sampler_create(model, &sampler, &o->sampler);
        if (status != TERN_OK) rc = cli_fail_status(ctx, status);
    }
    if (rc == CLI_OK) {
        watch_interrupt();
        rc = prefill(ctx, model, session, tokens, n_prompt, &r);
    }
    if (rc == CLI_OK && !interrupted) rc = generate(o, ctx, model, session, n_ctx, sampler, &r);
    if (!r.stop) r.stop = "interrupt";
    if (rc == CLI_OK) {
        const speeds s = measure(&r, n_prompt);
        rc = o->base.json ? report_json(o, ctx, &r, &s, n_prompt) : report_text(ctx, &r, &s, n_prompt);
        if (rc == CLI_OK) rc = finish_trace(o, ctx, &r, trace);
        if (rc == CLI_OK && strcmp(r.stop, "interrupt") == 0) rc = CLI_INTERRUPTED;
    }
    tern_sampler_destroy(sampler);
    tern_session_destroy(session);
    free(r.step_ms);
    free(r.text);
    free(r.tokens);
    free(r.logits);
    return rc;
}

int cmd_generate(int argc, char **argv) {
    generate_options o = {
        .n_predict = DEFAULT_PREDICT, .trace_steps = DEFAULT_TRACE_STEPS, .sampler = {.struct_size = sizeof o.sampler}};
    cli_parse(&argp, argc, argv, &o);
    if (!o.base.model) cli_usage("generate needs a model: -m FILE");
    if (!o.prompt) cli_usage("generate needs a prompt: -p TEXT");
    if (o.system && !o.chat) cli_usage("--system is part of a chat; add --chat");
    if (o.trace_steps_given && !o.trace) cli_usage("--trace-steps is part of a trace; add --trace FILE");
    if (!*o.prompt) return cli_fail("the prompt is empty; give some text with -p");
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    int32_t *tokens = NULL;
    size_t n = 0;
    trace_file *trace = NULL;
    int rc = trace_open(&trace, o.trace);
    if (rc == CLI_OK) rc = cli_open_context(&o.base, &ctx);
    if (rc == CLI_OK) rc = cli_open_model(&o.base, ctx, &model);
    if (rc == CLI_OK) rc = read_prompt(&o, ctx, model, &tokens, &n);
    if (rc == CLI_OK) rc = run_session(&o, ctx, model, tokens, n, &trace);
    trace_discard(&trace); // where something failed
    free(tokens);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
    return rc;
}
