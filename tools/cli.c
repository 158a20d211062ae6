// SPDX-License-Identifier: MIT
// What the subcommands of tern share: options, error lines, opening a context and a model, JSON output.
#include "cli.h"
#include "utf8.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// ---- Errors -----------------------------------------------------------------------------------------------

static void begin_error(void) {
    (void)fflush(stdout); // text so far stands before the error
    (void)fputs("tern: ", stderr);
}

void cli_error(const char *format, ...) {
    va_list args;
    va_start(args, format);
    begin_error();
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
}

_Noreturn void cli_usage(const char *format, ...) {
    va_list args;
    va_start(args, format);
    begin_error();
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    exit(CLI_USAGE);
}

// ---- Options ----------------------------------------------------------------------------------------------

long long cli_integer(const char *option, const char *text, long long min, long long max) {
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < min || value > max) {
        cli_usage("%s %s: give a whole number within %lld..%lld", option, *text ? text : "''", min, max);
    }
    return value;
}

void cli_shape(const char *option, const char *text, size_t *n, size_t *k) {
    enum { ROWS_MAX = 1 << 20, TEXT_MAX = 64 };
    char rows[TEXT_MAX];
    const char *cross = strchr(text, 'x');
    if (!cross || cross == text || !cross[1] || cross - text >= TEXT_MAX)
        cli_usage("%s %s: give features x depth, e.g. 4096x2560", option, text);
    (void)snprintf(rows, sizeof rows, "%.*s", (int)(cross - text), text);
    *n = (size_t)cli_integer(option, rows, 1, ROWS_MAX);
    *k = (size_t)cli_integer(option, cross + 1, 1, TERN_K_MAX);
}

double cli_real(const char *option, const char *text, double min, double max) {
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end || !(value >= min && value <= max)) {
        cli_usage("%s %s: give a number within %g..%g", option, *text ? text : "''", min, max);
    }
    return value;
}

static const char *tier_name(const char *option, const char *text) {
    static const char *const names[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) return text;
    cli_usage("%s %s: give scalar, avx2, avx512, avx512vnni or avx512vbmi", option, *text ? text : "''");
}

static error_t parse_machine(int key, char *arg, struct argp_state *state) {
    cli_options *options = state->input;
    switch (key) {
    case 't':
        options->threads = (int)cli_integer("-t", arg, 1, TERN_THREADS_MAX);
        return 0;
    case CLI_KEY_ISA:
        options->isa = tier_name("--isa", arg);
        return 0;
    case CLI_KEY_JSON:
        options->json = true;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    case ARGP_KEY_ERROR: // argp_parse's own index is set on success only
        options->stopped_at = state->next;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option machine_options[] = {
    {"threads", 't', "THREADS", 0, "Threads to use (default: one per physical core, no more than a CPU quota pays for)", 1},
    {"isa", CLI_KEY_ISA, "TIER", 0,
     "Highest instruction set to use: scalar, avx2, avx512, avx512vnni or avx512vbmi (default: the CPU's best)", 1},
    {"json", CLI_KEY_JSON, NULL, 0, "Print one JSON object on stdout and nothing else there", 2},
    {"help", 'h', NULL, 0, "Print this help", 2},
    {0},
};
const struct argp cli_machine_argp = {.options = machine_options, .parser = parse_machine};

static error_t parse_model(int key, char *arg, struct argp_state *state) {
    cli_options *options = state->input;
    if (key != 'm') return ARGP_ERR_UNKNOWN;
    options->model = arg;
    return 0;
}
static const struct argp_option model_options[] = {{"model", 'm', "FILE", 0, "Model, a GGUF file or one of tern pack", 0}, {0}};
const struct argp cli_model_argp = {.options = model_options, .parser = parse_model};

static error_t parse_kernel(int key, char *arg, struct argp_state *state) {
    static const char *const names[] = {[TERN_FORM_AUTO] = "auto", [TERN_FORM_LUT] = "lut", [TERN_FORM_MAD] = "mad"};
    cli_options *options = state->input;
    if (key != CLI_KEY_KERNEL) return ARGP_ERR_UNKNOWN;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(arg, names[i]) == 0) {
            options->form = (tern_form)i;
            return 0;
        }
    }
    cli_usage("--kernel %s: give auto, lut or mad", arg);
}
static const struct argp_option kernel_options[] = {
    {"kernel", CLI_KEY_KERNEL, "FORM", 0,
     "Kernels for ternary weights: lut (table lookup), mad (multiply-add) or auto (default)", 1},
    {0}};
const struct argp cli_kernel_argp = {.options = kernel_options, .parser = parse_kernel};

tern_head_form cli_head_form(const char *option, const char *text) {
    static const char *const names[] = {
        [TERN_HEAD_AUTO] = "auto", [TERN_HEAD_EXACT] = "exact", [TERN_HEAD_INT8] = "int8",
        [TERN_HEAD_INT4] = "int4", [TERN_HEAD_INT6] = "int6",   [TERN_HEAD_SCREENED] = "screened"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) return (tern_head_form)i;
    cli_usage("%s %s: give auto, exact, int8, screened, int6 or int4", option, text);
}

static tern_load load_of(const char *option, const char *text) {
    static const char *const names[] = {[TERN_LOAD_AUTO] = "auto", [TERN_LOAD_MAP] = "map", [TERN_LOAD_COPY] = "copy"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) return (tern_load)i;
    cli_usage("%s %s: give auto, map or copy", option, text);
}

size_t cli_act_block(const char *option, const char *text) {
    static const char *const names[] = {"auto", "32", "64", "128", "256"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) return i ? (size_t)strtoul(text, NULL, 10) : 0;
    cli_usage("%s %s: give auto, 32, 64, 128 or 256", option, text);
}

static error_t parse_head(int key, char *arg, struct argp_state *state) {
    cli_options *options = state->input;
    switch (key) {
    case CLI_KEY_HEAD:
        options->head = cli_head_form("--head", arg);
        return 0;
    case CLI_KEY_ACT_BLOCK:
        options->act_block = cli_act_block("--act-block", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option head_options[] = {
    {"head", CLI_KEY_HEAD, "FORM", 0,
     "Form of the output head: exact (as in the file), int8, screened (int8 that reads only what may win), int6, int4 or auto "
     "(default)",
     1},
    {"act-block", CLI_KEY_ACT_BLOCK, "SIZE", 0,
     "Elements of a row that get a scale of their own where activations are quantized: 32, 64, 128, 256 or auto (default: as "
     "the "
     "weights ask for, whole rows where they have one scale); smaller is more exact and slower",
     1},
    {0}};
const struct argp cli_head_argp = {.options = head_options, .parser = parse_head};

static error_t parse_load(int key, char *arg, struct argp_state *state) {
    if (key != CLI_KEY_LOAD) return ARGP_ERR_UNKNOWN;
    ((cli_options *)state->input)->load = load_of("--load", arg);
    return 0;
}
static const struct argp_option load_options[] = {
    {"load", CLI_KEY_LOAD, "HOW", 0,
     "Weights of a packed model (tern pack): map (used in the file's pages: quick start), copy (read into memory of their own: "
     "quick tokens) or auto (default)",
     1},
    {0}};
const struct argp cli_load_argp = {.options = load_options, .parser = parse_load};

tern_kv_type cli_kv_type(const char *option, const char *text) {
    static const char *const names[] = {[TERN_KV_F16] = "f16", [TERN_KV_INT8] = "int8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) return (tern_kv_type)i;
    cli_usage("%s %s: give f16 or int8", option, text);
}

static error_t parse_kv(int key, char *arg, struct argp_state *state) {
    if (key != CLI_KEY_KV) return ARGP_ERR_UNKNOWN;
    ((cli_options *)state->input)->kv = cli_kv_type("--kv", arg);
    return 0;
}
static const struct argp_option kv_options[] = {
    {"kv", CLI_KEY_KV, "TYPE", 0, "Keys and values of the context: f16 (default) or int8, which takes half the memory", 1},
    {0}};
const struct argp cli_kv_argp = {.options = kv_options, .parser = parse_kv};

void cli_parse(const struct argp *argp, int argc, char **argv, void *input) {
    int next = argc;
    // argp's own errors take two lines, and its own --help needs its errors
    const error_t error = argp_parse(argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP | ARGP_IN_ORDER, &next, input);
    if (error == EINVAL) {
        // one past the option, or still on it where letters share one dash
        const int at = ((const cli_options *)input)->stopped_at;
        const bool past = at > 1 && argv[at - 1][0] == '-';
        cli_usage("%s: unknown or ambiguous option, or no value after it; see %s --help",
                  argv[past || at >= argc ? at - 1 : at], argv[0]);
    }
    if (error) cli_usage("%s", strerror(error));
    if (next < argc) cli_usage("%s: not an option; see %s --help", argv[next], argv[0]);
    if (((const cli_options *)input)->help) {
        (void)setenv("ARGP_HELP_FMT", "no-dup-args-note", 0); // argp's only way to leave that note out
        argp_help(argp, stdout, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, argv[0]);
        exit(cli_flush());
    }
}

// ---- Context, model ---------------------------------------------------------------------------------------

int cli_open_context(const cli_options *options, tern_context **ctx) {
    char message[512] = "";
    const tern_context_params params = {.struct_size = sizeof params,
                                        .threads = options->threads,
                                        .isa = options->isa,
                                        .tune = options->no_tune ? "off" : NULL,
                                        .error = message,
                                        .error_size = sizeof message};
    // Workers inherit the mask, so that handlers run in this thread only (interrupt.c).
    sigset_t keyboard, before;
    (void)sigemptyset(&keyboard);
    (void)sigaddset(&keyboard, SIGINT);
    (void)sigaddset(&keyboard, SIGWINCH);
    (void)pthread_sigmask(SIG_BLOCK, &keyboard, &before);
    const tern_status status = tern_context_create(ctx, &params);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status == TERN_OK && !options->no_warning && *tern_context_warning(*ctx))
        cli_error("warning: %s", tern_context_warning(*ctx));
    if (status == TERN_OK) return CLI_OK;
    return cli_fail("%s", *message ? message : tern_status_string(status));
}

typedef struct loading {
    const char *path;
    double start;
} loading;

static void show_loading(void *user, uint64_t done, uint64_t total) {
    const loading *l = user;
    if (total) cli_progress(l->path, l->start, (int)(100.0 * (double)done / (double)total));
}

// What was asked for changes nothing then: said, as the model is as good as without it.
static void warn_without_ternary(const cli_options *options, const tern_model *model) {
    tern_model_info info = {.struct_size = sizeof info};
    const bool block = options->act_block, form = options->form != TERN_FORM_AUTO;
    if (options->no_warning || !(block || form) || tern_model_get_info(model, &info) != TERN_OK || info.n_ternary > 0) return;
    cli_error("warning: %s has no ternary matrices, and %s for those alone", options->model,
              block && form ? "--kernel and --act-block are"
              : block       ? "--act-block is"
                            : "--kernel is");
}

int cli_open_model(const cli_options *options, tern_context *ctx, tern_model **model) {
    loading l = {options->model, cli_seconds()};
    const tern_model_params params = {.struct_size = sizeof params,
                                      .form = options->form,
                                      .head = options->head,
                                      .load = options->load,
                                      .act_block = options->act_block,
                                      .progress = show_loading,
                                      .progress_user = &l};
    const tern_status status = tern_model_load(ctx, model, options->model, &params);
    cli_progress(options->model, l.start, -1);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    warn_without_ternary(options, *model);
    return CLI_OK;
}

int cli_tokenize(tern_context *ctx, const tern_model *model, const char *text, size_t size, const tern_tokenize_params *params,
                 int32_t **tokens, size_t *n) {
    size_t need = 0;
    // ARG with the number needed: there is no room yet
    tern_status status = tern_tokenize(model, text, size, params, NULL, 0, &need);
    if (status != TERN_OK && !(status == TERN_ERR_ARG && need > 0)) return cli_fail_status(ctx, status);
    *n = need;
    *tokens = calloc(need + 1, sizeof **tokens);
    if (!*tokens) return cli_fail("no memory for %zu tokens; give a shorter text", need);
    if (need == 0) return CLI_OK;
    status = tern_tokenize(model, text, size, params, *tokens, need, n);
    if (status == TERN_OK) return CLI_OK;
    free(*tokens);
    *tokens = NULL;
    return cli_fail_status(ctx, status);
}

int cli_tokenize_turn(const cli_options *options, tern_context *ctx, const tern_model *model, const tern_chat_turn *turn,
                      int32_t **tokens, size_t *n) {
    tern_status status = tern_chat_tokenize(model, turn, NULL, 0, n);
    if (status == TERN_ERR_UNSUPPORTED && !tern_chat_format_name(model) && !turn->format)
        return cli_fail("%s: the model has no chat template that tern knows; use tern generate without --chat", options->model);
    if (status != TERN_ERR_ARG || *n == 0)
        return cli_fail_status(ctx, status); // every turn has tokens, for which there is no room yet
    *tokens = calloc(*n, sizeof **tokens);
    if (!*tokens) return cli_fail("no memory for %zu tokens; give a shorter text", *n);
    status = tern_chat_tokenize(model, turn, *tokens, *n, n);
    if (status == TERN_OK) return CLI_OK;
    free(*tokens);
    *tokens = NULL;
    return cli_fail_status(ctx, status);
}

// ---- Output -----------------------------------------------------------------------------------------------

double cli_seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_progress(const char *what, double start_seconds, int percent) {
    static int shown = -1; // what stands on the terminal now; -1: nothing
    static const double quiet_seconds = 1;
    if (percent == shown || (percent >= 0 && cli_seconds() - start_seconds < quiet_seconds) || !isatty(STDERR_FILENO)) return;
    if (percent >= 0) {
        (void)fprintf(stderr, "\r%s: %d %%\033[K", what, percent);
    } else {
        (void)fputs("\r\033[K", stderr);
    }
    (void)fflush(stderr);
    shown = percent;
}

json_t *cli_kernels_json(tern_context *ctx) {
    json_t *kernels = json_object();
    for (size_t i = 0; i < tern_variant_count(); i++) {
        tern_variant_info v = {.struct_size = sizeof v};
        if (tern_variant_get(ctx, i, &v) != TERN_OK || json_object_get(kernels, v.stage)) continue;
        const char *variant = tern_stage_variant(ctx, v.stage);
        if (variant) (void)json_object_set_new(kernels, v.stage, json_string(variant));
    }
    return kernels;
}

json_t *cli_text_json(const char *text) {
    char *clean = utf8_clean(text, strlen(text));
    json_t *string = clean ? json_string(clean) : NULL;
    free(clean);
    return string;
}

json_t *cli_real_json(double value) { return isfinite(value) ? json_real(value) : json_null(); }

int cli_flush(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return CLI_OK;
    return cli_fail("cannot write to stdout: %s; check the disk or the program it is piped to", strerror(errno));
}

int cli_print_json(json_t *object) {
    static const int significant_digits = 7;
    if (!object) return cli_fail("no memory for the JSON output");
    const int error = json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(significant_digits));
    json_decref(object);
    if (!error) (void)putchar('\n');
    return cli_flush();
}

int cli_read_text(const char *path, char **text, size_t *size) {
    enum { FIRST_ROOM = 1 << 16 };
    const bool is_file = path && strcmp(path, "-") != 0;
    const char *name = is_file ? path : "stdin";
    FILE *in = is_file ? fopen(path, "rb") : stdin;
    if (!in) return cli_fail("cannot open %s: %s; check its path and permissions", name, strerror(errno));
    size_t room = FIRST_ROOM;
    *size = 0;
    *text = malloc(room);
    while (*text) {
        *size += fread(*text + *size, 1, room - *size, in);
        if (*size < room) break;
        char *larger = room <= SIZE_MAX / 2 ? realloc(*text, room * 2) : NULL;
        if (!larger) free(*text);
        *text = larger;
        room *= 2;
    }
    const int error = *text && ferror(in) ? errno : 0;
    if (is_file) (void)fclose(in);
    if (!*text) return cli_fail("no memory for the text in %s; give a shorter one", name);
    if (!error) return CLI_OK;
    free(*text);
    *text = NULL;
    return cli_fail("cannot read %s: %s; give a text file", name, strerror(error));
}
