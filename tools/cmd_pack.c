// SPDX-License-Identifier: MIT
// tern pack: writes a model as a packed file, or verifies one.
#include "cli.h"

#include <signal.h>
#include <stdio.h>

typedef struct pack_options {
    cli_options base; // its model is the GGUF file
    const char *target;
    bool verify;
} pack_options;

enum { PACK_KEY_VERIFY = CLI_KEY_OWN };

static error_t parse(int key, char *arg, struct argp_state *state) {
    pack_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        for (size_t i = 0; i < 3; i++) state->child_inputs[i] = &o->base;
        return 0;
    case PACK_KEY_VERIFY:
        o->verify = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->target) return ARGP_ERR_UNKNOWN;
        *(o->base.model ? &o->target : &o->base.model) = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"verify", PACK_KEY_VERIFY, NULL, 0, "Read all of a packed file and compare its checksums, instead of writing one", 0},
    {0}};
static const struct argp_child children[] = {
    {&cli_kernel_argp, 0, NULL, 0}, {&cli_head_argp, 0, NULL, 0}, {&cli_machine_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .children = children,
    .args_doc = "IN.gguf OUT.tern",
    .doc =
        "Writes a model as it lies in memory, so that later starts pack nothing. The file is for this machine and others of "
        "its "
        "kind: elsewhere it is refused, and packed again there.\vEvery command but tune takes a packed file after -m. It keeps "
        "the form of its head and of its kernels, and its blocks of activations.\n\n"
        "Examples:\n"
        "  tern pack model.gguf model.tern\n"
        "  tern pack model.gguf model.tern --isa avx2 -t 8 --head int4\n"
        "  tern pack --verify model.tern\n"
        "\n"
        "Ctrl-C leaves the target as it was.\n"
        "\n" CLI_ENVIRONMENT};

static int show(const pack_options *o, const char *path, const char *done, double seconds, tern_context *ctx) {
    static const double mega = 1e6;
    FILE *file = fopen(path, "rb");
    const long bytes = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (file) (void)fclose(file);
    tern_cpu_info cpu = {.struct_size = sizeof cpu};
    const tern_status status = tern_get_cpu_info(ctx, &cpu);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    if (o->base.json)
        return cli_print_json(json_pack("{s:s, s:o, s:s, s:I, s:o, s:s, s:i}", "schema", "tern.pack/1", "path",
                                        cli_text_json(path), "done", done, "bytes", (json_int_t)bytes, "seconds",
                                        cli_real_json(seconds), "tier", cpu.tier, "threads", tern_context_threads(ctx)));
    (void)printf("%s %s: %.1f MB in %.1f s\n", path, done, (double)bytes / mega, seconds);
    return cli_flush();
}

static int verify(const pack_options *o, tern_context *ctx) {
    const double start = cli_seconds();
    const tern_status status = tern_packed_check(ctx, o->base.model);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    return show(o, o->base.model, "verified", cli_seconds() - start, ctx);
}

// ---- Ctrl-C --------------------------------------------------------------------------------------------------

// While a file is being written: the model whose save a signal cancels, so that nothing half-written stays. Before that a
// signal ends the program as it does any. Workers block SIGINT, and a handler in one of them does no harm.
static const int watched[] = {SIGINT, SIGTERM, SIGHUP};
enum { N_WATCHED = sizeof watched / sizeof *watched };
static tern_model *saving;
static volatile sig_atomic_t stopped_by;

static void on_signal(int signal) {
    stopped_by = signal;
    tern_model_cancel_save(saving);
}

// What is ignored stays so: nohup, and commands that a shell put into the background.
static void watch(tern_model *model, struct sigaction before[N_WATCHED]) {
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    saving = model;
    for (size_t i = 0; i < N_WATCHED; i++)
        if (sigaction(watched[i], NULL, &before[i]) == 0 && before[i].sa_handler != SIG_IGN)
            (void)sigaction(watched[i], &action, NULL);
}

static void unwatch(const struct sigaction before[N_WATCHED]) {
    for (size_t i = 0; i < N_WATCHED; i++) (void)sigaction(watched[i], &before[i], NULL);
}

static int pack(const pack_options *o, tern_context *ctx) {
    tern_model *model = NULL;
    const double start = cli_seconds();
    tern_status status = tern_model_save_check(ctx, o->target); // packing takes long
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    int rc = cli_open_model(&o->base, ctx, &model);
    if (rc != CLI_OK) return rc;
    struct sigaction before[N_WATCHED];
    watch(model, before);
    status = tern_model_save(model, o->target);
    unwatch(before);
    if (status == TERN_ERR_CANCELLED && stopped_by == SIGINT)
        rc = CLI_INTERRUPTED;
    else
        rc = status == TERN_OK ? show(o, o->target, "written", cli_seconds() - start, ctx) : cli_fail_status(ctx, status);
    tern_model_destroy(model);
    if (status == TERN_ERR_CANCELLED && stopped_by != SIGINT) (void)raise(stopped_by); // as without a file to remove
    return rc;
}

int cmd_pack(int argc, char **argv) {
    pack_options options = {.target = NULL};
    cli_parse(&argp, argc, argv, &options);
    if (options.verify && (!options.base.model || options.target)) cli_usage("pack --verify takes one packed file");
    if (!options.verify && !options.target) cli_usage("pack takes a GGUF file and the file to write: IN.gguf OUT.tern");
    tern_context *ctx = NULL;
    int rc = cli_open_context(&options.base, &ctx);
    if (rc == CLI_OK) rc = options.verify ? verify(&options, ctx) : pack(&options, ctx);
    tern_context_destroy(ctx);
    return rc;
}
