// SPDX-License-Identifier: MIT
// What the subcommands of tern share: options, error lines, opening a context and a model, JSON output.
#ifndef TERN_TOOLS_CLI_H
#define TERN_TOOLS_CLI_H

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>

#include <tern/decode.h>
#include <tern/diagnostics.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

// Subcommands: argv[0] is "tern NAME". They return the exit code.
int cmd_info(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_tune(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_pack(int argc, char **argv);

// ---- Errors: one line on stderr, "tern: cause; fix" -------------------------------------------------------

void cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
// The same, and is CLI_FAILED, so that `return cli_fail(...)`. A macro: static analysis of a caller sees that it is not CLI_OK.
#define cli_fail(...) (cli_error(__VA_ARGS__), CLI_FAILED)
// Exits with CLI_USAGE.
_Noreturn void cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
// The context's message of its last error, or the status's name. Returns CLI_FAILED.
static inline int cli_fail_status(const tern_context *ctx, tern_status status) {
    const char *message = tern_context_error(ctx);
    return cli_fail("%s", *message ? message : tern_status_string(status));
}

// ---- Options ----------------------------------------------------------------------------------------------

// Keys of options without a short form; argp wants them outside the range of characters.
enum {
    CLI_KEY_ISA = 0x100,
    CLI_KEY_JSON,
    CLI_KEY_KERNEL,
    CLI_KEY_HEAD,
    CLI_KEY_LOAD,
    CLI_KEY_KV,
    CLI_KEY_ACT_BLOCK,
    CLI_KEY_OWN
};

// Options that several commands take. A command whose struct begins with this one puts the argps it wants among its children.
typedef struct cli_options {
    const char *model;
    const char *isa;
    int threads;
    int stopped_at; // where in argv an error ended the parsing
    bool json, help;
    bool no_tune;    // not an option: cli_open_context reads no tuning table
    bool no_warning; // not an option: opening a context or a model prints no warning
    tern_form form;
    tern_head_form head;
    tern_load load;
    tern_kv_type kv;
    size_t act_block;
} cli_options;
extern const struct argp cli_machine_argp; // -t, --isa, --json, --help
extern const struct argp cli_model_argp;   // -m
extern const struct argp cli_kernel_argp;  // --kernel
extern const struct argp cli_head_argp;    // --head, --act-block
extern const struct argp cli_load_argp;    // --load
extern const struct argp cli_kv_argp;      // --kv

#define CLI_ENVIRONMENT                                                                                                        \
    "Environment:\n"                                                                                                           \
    "  TERN_THREADS  number of threads where -t is not given\n"                                                                \
    "  TERN_ISA      highest instruction set to use where --isa is not given\n"                                                \
    "  TERN_TUNE     tuning table to choose by, or off (default: that of tern tune)\n"                                         \
    "  TERN_PIN      CPUs that threads are bound to: compact, spread, all or none\n"

// Parses argv into a struct that begins with cli_options. A wrong option, or an argument that is none, is a usage error of one
// line; --help prints and exits.
void cli_parse(const struct argp *argp, int argc, char **argv, void *input);

// Numbers of options: the whole text must be a number within min..max, else a usage error that names the option.
long long cli_integer(const char *option, const char *text, long long min, long long max);
// "4096x2560": rows (features) and depth of a weight.
void cli_shape(const char *option, const char *text, size_t *n, size_t *k);
tern_head_form cli_head_form(const char *option, const char *text);
tern_kv_type cli_kv_type(const char *option, const char *text);
size_t cli_act_block(const char *option, const char *text);
double cli_real(const char *option, const char *text, double min, double max);

// ---- Context, model ---------------------------------------------------------------------------------------

// On failure they print the error and return CLI_FAILED. A warning is printed, too, unless no_warning.
int cli_open_context(const cli_options *options, tern_context **ctx);
// Shows progress on stderr when it takes longer than a second and stderr is a terminal.
int cli_open_model(const cli_options *options, tern_context *ctx, tern_model **model);

// All of a file, or of stdin (path NULL or "-"), in a new array (free).
int cli_read_text(const char *path, char **text, size_t *size);
// Tokens of text in a new array (free). An empty text has no tokens.
int cli_tokenize(tern_context *ctx, const tern_model *model, const char *text, size_t size, const tern_tokenize_params *params,
                 int32_t **tokens, size_t *n);
// The same of a turn of a chat.
int cli_tokenize_turn(const cli_options *options, tern_context *ctx, const tern_model *model, const tern_chat_turn *turn,
                      int32_t **tokens, size_t *n);

// ---- Output -----------------------------------------------------------------------------------------------

// Progress on a terminal, from one second after start_seconds on; percent < 0 removes it.
void cli_progress(const char *what, double start_seconds, int percent);
double cli_seconds(void); // monotonic

// {stage: variant} of the context.
json_t *cli_kernels_json(tern_context *ctx);
// A text that may be any bytes (a path, a name out of a file): what is not UTF-8 becomes U+FFFD.
json_t *cli_text_json(const char *text);
// A number, or null for one that is not finite (not measured).
json_t *cli_real_json(double value);
// Prints and frees the object. CLI_FAILED if it is NULL (out of memory) or stdout cannot be written.
int cli_print_json(json_t *object);
// CLI_FAILED, with an error line, if what was printed did not reach stdout.
int cli_flush(void);

#endif
