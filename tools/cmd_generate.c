// SPDX-License-Identifier: MIT
// tern generate: text from a prompt, streamed, and how fast it came.
#include "generate_report.h"
#include "interrupt.h"
#include "prompt_cache.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct generate_options {
    answer_options common;
    const char *prompt; // NULL: read it from `file`
    const char *file;   // NULL or "-": stdin
    const char *system;
    bool chat;
    const char *trace; // file, or NULL
    size_t trace_steps;
    bool trace_steps_given;
    size_t n_parallel; // sequences; 0: one, and no word of that
    double timeout_s;  // INFINITY: none
    bool stats;
    const char *prompt_cache; // file, or NULL
} generate_options;

enum { DEFAULT_PREDICT = 128, DEFAULT_TRACE_STEPS = 4, MAX_TRACE_STEPS = 100 };
enum { KEY_CHAT = CLI_KEY_OWN, KEY_SYSTEM, KEY_TRACE, KEY_TRACE_STEPS, KEY_PARALLEL, KEY_TIMEOUT, KEY_STATS, KEY_PROMPT_CACHE };

static const double max_timeout = 1e6, min_timeout = 1e-3;

static error_t parse(int key, char *arg, struct argp_state *state) {
    generate_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->common;
        return 0;
    case 'p':
        o->prompt = arg;
        return 0;
    case 'f':
        o->file = arg;
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
    case KEY_PARALLEL:
        o->n_parallel = (size_t)cli_integer("--parallel", arg, 1, PARALLEL_MAX);
        return 0;
    case KEY_TIMEOUT:
        o->timeout_s = cli_real("--timeout", arg, min_timeout, max_timeout);
        return 0;
    case KEY_STATS:
        o->stats = true;
        return 0;
    case KEY_PROMPT_CACHE:
        o->prompt_cache = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"prompt", 'p', "TEXT", 0,
     "Text to continue, or with --chat the message to answer; - reads stdin, as does a pipe without -p and -f", 0},
    {"file", 'f', "FILE", 0, "Read the prompt from FILE", 0},
    {"chat", KEY_CHAT, NULL, 0, "Wrap the prompt in the model's chat template (default: continue the prompt as it is)", 0},
    {"system", KEY_SYSTEM, "TEXT", 0,
     "System message before the prompt, with --chat (default: that of the model's template, if it has one)", 0},
    {"prompt-cache", KEY_PROMPT_CACHE, "FILE", 0,
     "Take from FILE what was read before of the prompt's beginning, and keep there what is read and written", 0},
    {"parallel", KEY_PARALLEL, "N", 0,
     "Write N texts at once, with seeds S, S + 1, ...: each token of all costs little more than one; a text is printed when it "
     "is "
     "done",
     1},
    {"timeout", KEY_TIMEOUT, "SECONDS", 0, "Stop SECONDS after the model began to read the prompt, with the text so far", 0},
    {"stats", KEY_STATS, NULL, 0, "Print where the time goes, by groups of stages (--json always has it)", 2},
    {"trace", KEY_TRACE, "FILE", 0, "Write what each thread did, for the prompt and the first tokens, as JSON for Perfetto", 2},
    {"trace-steps", KEY_TRACE_STEPS, "N", 0, "Trace the prompt and N tokens after the first (default: 4)", 2},
    {0}};
static const struct argp_child children[] = {{&answer_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {.options = own_options,
                                 .parser = parse,
                                 .children = children,
                                 .doc = "Writes text with a model: the text on stdout as it comes, then speeds on stderr.\v"
                                        "Examples:\n"
                                        "  tern generate -m model.gguf -p 'Once upon a time' -n 64\n"
                                        "  tern generate -m model.gguf --chat -p 'What is a tern?'\n"
                                        "  tern generate -m model.gguf -p 'Dear' --temp 0.8 --top-p 0.95 --seed 7\n"
                                        "  tern generate -m model.gguf -p Hello --json | jq .decode_tok_per_s\n"
                                        "  tern generate -m model.gguf -p 'My name is' -n 16 --temp 0.8 --parallel 4\n"
                                        "  tern generate -m model.gguf -p Hello -n 8 --trace trace.json\n"
                                        "\n"
                                        "Ctrl-C ends with the text so far (exit code 130); a second one ends at once.\n"
                                        "\n" CLI_ENVIRONMENT};

// ---- The prompt -----------------------------------------------------------------------------------------------

static int tokenize_prompt(const generate_options *o, tern_context *ctx, const tern_model *model, const char *text, size_t size,
                           int32_t **tokens, size_t *n) {
    if (size == 0) return cli_fail("the prompt is empty; give some text with -p, with -f or on stdin");
    if (o->chat) {
        const tern_chat_turn turn = {.struct_size = sizeof turn,
                                     .system = o->system,
                                     .system_size = o->system ? strlen(o->system) : 0,
                                     .user = text,
                                     .user_size = size};
        return cli_tokenize_turn(&o->common.base, ctx, model, &turn, tokens, n);
    }
    const tern_tokenize_params params = {.struct_size = sizeof params, .add_bos = 1};
    return cli_tokenize(ctx, model, text, size, &params, tokens, n);
}

// The newline that ends a file or a pipe's last line is not what the model is to go on from.
static int read_prompt(const generate_options *o, tern_context *ctx, const tern_model *model, int32_t **tokens, size_t *n) {
    if (o->prompt) return tokenize_prompt(o, ctx, model, o->prompt, strlen(o->prompt), tokens, n);
    char *text = NULL;
    size_t size = 0;
    int rc = cli_read_text(o->file, &text, &size);
    if (rc == CLI_OK && size > 0 && text[size - 1] == '\n') size--;
    if (rc == CLI_OK) rc = tokenize_prompt(o, ctx, model, text, size, tokens, n);
    free(text);
    return rc;
}

// ---- Putting it together -----------------------------------------------------------------------------------------

// How many tokens the session must hold; an error where the prompt does not fit.
static int plan_context(const generate_options *o, tern_context *ctx, const tern_model *model, size_t n_prompt, size_t *n_ctx) {
    tern_model_info info = {.struct_size = sizeof info};
    const tern_status status = tern_model_get_info(model, &info);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    const size_t most = info.n_ctx_train;
    if (o->common.sampling.n_ctx > most)
        return cli_fail("--ctx %zu: the model was trained on %zu tokens; give at most that", o->common.sampling.n_ctx, most);
    *n_ctx = o->common.sampling.n_ctx ? o->common.sampling.n_ctx : most;
    if (n_prompt == 0) return cli_fail("the prompt is empty and the model begins with no token of its own; give some text");
    if (n_prompt > *n_ctx) {
        return cli_fail("the prompt has %zu tokens, the context holds %zu; shorten the prompt%s", n_prompt, *n_ctx,
                        *n_ctx < most ? " or raise --ctx" : "");
    }
    const size_t needed = n_prompt + o->common.sampling.n_predict - 1; // the last token is shown, not decoded
    if (needed < *n_ctx) *n_ctx = needed;
    return CLI_OK;
}

// The trace of the steps, and the file.
static int finish_trace(const generate_options *o, answer *a, trace_file **trace) {
    int rc = trace_end(a->trace, a->ctx);
    if (rc == CLI_OK && a->n_generated > 0 && o->trace_steps > 0) rc = trace_append(a->trace, a->ctx);
    return rc == CLI_OK ? trace_finish(trace, o->common.base.json) : rc;
}

static generate_report report_of(const generate_options *o) {
    return (generate_report){
        .model = o->common.base.model, .json = o->common.base.json, .stats = o->stats, .prompt_cache = o->prompt_cache};
}

static int begin_stages(const generate_options *o, tern_context *ctx) {
    return o->common.base.json || o->stats ? stages_begin(ctx) : CLI_OK;
}

static int end_stages(const generate_options *o, tern_context *ctx, double sample_s, stage_times *times) {
    return o->common.base.json || o->stats ? stages_end(ctx, sample_s, times) : CLI_OK;
}

static int set_timeout(const generate_options *o, const answer *a) {
    const tern_status status = tern_session_set_deadline(a->session, o->timeout_s);
    return status == TERN_OK ? CLI_OK : cli_fail_status(a->ctx, status);
}

static int run_one(const generate_options *o, tern_context *ctx, tern_model *model, const int32_t *tokens, size_t n_prompt,
                   size_t n_ctx, trace_file **trace) {
    answer a = {.n_ctx = 0};
    generate_report report = report_of(o);
    int rc = answer_open(&a, ctx, model, &o->common.sampling, n_ctx, o->common.base.kv);
    if (rc == CLI_OK) {
        a.stream = !o->common.base.json;
        a.trace = *trace;
        a.trace_steps = o->trace_steps;
        interrupt_watch_once();
        rc = begin_stages(o, ctx);
    }
    if (rc == CLI_OK) rc = set_timeout(o, &a);
    if (rc == CLI_OK) rc = prompt_cache_load(&a, o->prompt_cache, tokens, n_prompt, &report.n_reused);
    if (rc == CLI_OK) rc = answer_read(&a, tokens + report.n_reused, n_prompt - report.n_reused);
    if (rc == CLI_OK) rc = end_stages(o, ctx, 0, &report.prompt);
    const bool read = rc == CLI_OK && !a.stop;
    if (rc == CLI_OK && !a.stop) {
        rc = begin_stages(o, ctx);
        if (rc == CLI_OK) rc = answer_write(&a);
        if (rc == CLI_OK) rc = end_stages(o, ctx, a.sample_s, &report.write);
    }
    if (rc == CLI_OK) rc = report_answer(&report, &a);
    if (rc == CLI_OK && read) rc = prompt_cache_save(&a, o->prompt_cache);
    if (rc == CLI_OK) rc = finish_trace(o, &a, trace);
    if (rc == CLI_OK && strcmp(a.stop, "interrupt") == 0) rc = CLI_INTERRUPTED;
    answer_close(&a);
    return rc;
}

// ---- Several sequences --------------------------------------------------------------------------------------------

static int print_sequence(void *user, parallel *p, size_t index) {
    const generate_options *o = user;
    const answer *a = &p->answers[index];
    if (o->common.base.json) return CLI_OK;
    (void)printf("--- %zu of %zu, seed %llu, %zu tokens, stopped by: %s\n", index + 1, p->n,
                 (unsigned long long)p->options[index].params.seed, a->n_generated, a->stop);
    (void)fwrite(a->text.text, 1, a->text.size, stdout);
    if (a->text.size == 0 || a->text.text[a->text.size - 1] != '\n') (void)putchar('\n');
    return cli_flush();
}

static int run_parallel(const generate_options *o, tern_context *ctx, tern_model *model, const int32_t *tokens, size_t n_prompt,
                        size_t n_ctx) {
    parallel p;
    generate_report report = report_of(o);
    int rc = parallel_open(&p, ctx, model, &o->common.sampling, n_ctx, o->common.base.kv, o->n_parallel);
    interrupt_watch_once();
    if (rc == CLI_OK) rc = begin_stages(o, ctx);
    for (size_t i = 0; rc == CLI_OK && i < p.n; i++) rc = set_timeout(o, &p.answers[i]);
    if (rc == CLI_OK) rc = parallel_read(&p, tokens, n_prompt);
    if (rc == CLI_OK) rc = end_stages(o, ctx, 0, &report.prompt);
    if (rc == CLI_OK) rc = begin_stages(o, ctx);
    if (rc == CLI_OK) rc = parallel_write(&p, print_sequence, (void *)o);
    double sample_s = 0;
    for (size_t i = 0; rc == CLI_OK && i < p.n; i++) sample_s += p.answers[i].sample_s;
    if (rc == CLI_OK) rc = end_stages(o, ctx, sample_s, &report.write);
    if (rc == CLI_OK) rc = report_parallel(&report, &p);
    if (rc == CLI_OK && interrupted()) rc = CLI_INTERRUPTED;
    parallel_close(&p);
    return rc;
}

static int run_session(const generate_options *o, tern_context *ctx, tern_model *model, const int32_t *tokens, size_t n_prompt,
                       trace_file **trace) {
    size_t n_ctx = 0;
    const int rc = plan_context(o, ctx, model, n_prompt, &n_ctx);
    if (rc != CLI_OK) return rc;
    if (o->n_parallel) return run_parallel(o, ctx, model, tokens, n_prompt, n_ctx);
    return run_one(o, ctx, model, tokens, n_prompt, n_ctx, trace);
}

int cmd_generate(int argc, char **argv) {
    generate_options o = {
        .common.sampling = {.n_predict = DEFAULT_PREDICT, .params.struct_size = sizeof o.common.sampling.params},
        .trace_steps = DEFAULT_TRACE_STEPS,
        .timeout_s = INFINITY};
    cli_parse(&argp, argc, argv, &o);
    if (!o.common.base.model) cli_usage("generate needs a model: -m FILE");
    if (o.prompt && o.file) cli_usage("-p and -f are two prompts; give one of them");
    if (o.prompt && strcmp(o.prompt, "-") == 0) o.prompt = NULL, o.file = "-";
    if (!o.prompt && !o.file && isatty(STDIN_FILENO)) cli_usage("generate needs a prompt: -p TEXT, -f FILE, or text on stdin");
    if (o.system && !o.chat) cli_usage("--system is part of a chat; add --chat");
    if (o.n_parallel && o.common.sampling.n_draft) cli_usage("--draft is for one sequence; leave out --parallel, or --draft");
    if (o.n_parallel && o.trace) cli_usage("--trace is for one sequence; leave out --parallel, or --trace");
    if (o.n_parallel && o.prompt_cache)
        cli_usage("--prompt-cache is for one sequence; leave out --parallel, or --prompt-cache");
    if (o.trace_steps_given && !o.trace) cli_usage("--trace-steps is part of a trace; add --trace FILE");
    if (o.prompt && !*o.prompt) return cli_fail("the prompt is empty; give some text with -p, with -f or on stdin");
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    int32_t *tokens = NULL;
    size_t n = 0;
    trace_file *trace = NULL;
    int rc = trace_open(&trace, o.trace);
    if (rc == CLI_OK) rc = cli_open_context(&o.common.base, &ctx);
    if (rc == CLI_OK) rc = cli_open_model(&o.common.base, ctx, &model);
    if (rc == CLI_OK) rc = read_prompt(&o, ctx, model, &tokens, &n);
    if (rc == CLI_OK) rc = run_session(&o, ctx, model, tokens, n, &trace);
    trace_discard(&trace); // where something failed
    free(tokens);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
    return rc;
}
