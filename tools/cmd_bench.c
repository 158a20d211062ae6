// SPDX-License-Identifier: MIT
// tern bench: this machine's limits, measured now, and how near each kernel comes to the one that binds it.
#include "bench_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MAX = 64, SHAPES_MAX = 8, BLOCK_STEP = 16 };

typedef struct size_list {
    size_t value[LIST_MAX], n;
} size_list;

typedef struct bench_options {
    cli_options base;
    bool quick, all;
    const char *op;      // part of a kernel's symbol; NULL: all
    size_list m, blocks; // empty: the usual ones
    bench_matrix shapes[SHAPES_MAX];
    size_t n_shapes;
    bool no_hot, no_dram;
    const char *trace; // file, or NULL
} bench_options;

enum { KEY_QUICK = CLI_KEY_OWN, KEY_ALL, KEY_OP, KEY_SHAPE, KEY_M, KEY_BLOCK, KEY_RESIDENCY, KEY_TRACE };

// ---- Options --------------------------------------------------------------------------------------------------

static void add_sizes(size_list *list, const char *option, const char *arg, long long min, long long max) {
    char text[BUFSIZ], *rest = NULL;
    const size_t length = strlen(arg);
    if (length >= sizeof text) cli_usage("%s: the list is too long", option);
    if (!length || arg[0] == ',' || arg[length - 1] == ',' || strstr(arg, ",,"))
        cli_usage("%s '%s': give numbers with one comma between them", option, arg);
    memcpy(text, arg, strlen(arg) + 1);
    for (const char *item = strtok_r(text, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        if (list->n == LIST_MAX) cli_usage("%s: give at most %d numbers", option, LIST_MAX);
        list->value[list->n++] = (size_t)cli_integer(option, item, min, max);
    }
}

static void add_shape(bench_options *options, const char *arg) {
    if (options->n_shapes == SHAPES_MAX) cli_usage("--shape: give at most %d shapes", SHAPES_MAX);
    size_t n, k;
    cli_shape("--shape", arg, &n, &k);
    options->shapes[options->n_shapes++] = (bench_matrix){.n = n, .k = k};
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    bench_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->base;
        return 0;
    case KEY_QUICK:
        options->quick = true;
        return 0;
    case KEY_ALL:
        options->all = true;
        return 0;
    case KEY_OP:
        options->op = arg;
        return 0;
    case KEY_SHAPE:
        add_shape(options, arg);
        return 0;
    case KEY_M:
        add_sizes(&options->m, "--m", arg, 1, BENCH_M_MAX);
        return 0;
    case KEY_BLOCK:
        add_sizes(&options->blocks, "--block", arg, 0, TERN_K_MAX);
        for (size_t i = 0; i < options->blocks.n; i++)
            if (options->blocks.value[i] % BLOCK_STEP)
                cli_usage("--block %zu: give 0 or a multiple of %d", options->blocks.value[i], BLOCK_STEP);
        return 0;
    case KEY_RESIDENCY:
        options->no_hot = strcmp(arg, "dram") == 0;
        options->no_dram = strcmp(arg, "hot") == 0;
        if (!options->no_hot && !options->no_dram) cli_usage("--residency %s: give hot or dram", arg);
        return 0;
    case KEY_TRACE:
        options->trace = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"quick", KEY_QUICK, NULL, 0, "Ternary kernels on two shapes only: a few seconds", 1},
    {"all", KEY_ALL, NULL, 0, "Every variant this CPU can run, not only the chosen ones: some minutes", 1},
    {"op", KEY_OP, "PART", 0, "Only kernels whose name contains this, e.g. lut_gemm or m2_avx2", 2},
    {"shape", KEY_SHAPE, "NxK", 0, "Only this shape, features x depth; may be given again", 2},
    {"m", KEY_M, "M[,M]", 0, "Only these numbers of tokens", 2},
    {"block", KEY_BLOCK, "B[,B]", 0, "Only ternary scales in blocks of this width; 0: one scale", 2},
    {"residency", KEY_RESIDENCY, "WHERE", 0, "Only weights that are hot, or that come from dram", 2},
    {"trace", KEY_TRACE, "FILE", 0, "Write what each thread did in three more products of each case, as JSON for Perfetto", 3},
    {0}};
static const struct argp_child children[] = {{&cli_machine_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .children = children,
    .doc =
        "Measures how fast this machine reads memory and multiplies INT8 numbers, and in turn with that each kernel of "
        "ternary, binary, INT8, 6-bit and 4-bit weights on the layer shapes of BitNet-2B. Takes about a minute.\v"
        "Columns: `dram' cycles through 320 MB or more of weights, `hot' repeats one matrix; m is the number of tokens; block "
        "is the width of ternary block scales; bits are those of a packed weight, scales included; GB/s are packed bytes / "
        "time; MAC/cy are multiply-adds per clock cycle of each thread; the fraction is of the limit that binds: reading DRAM, "
        "or as many bytes as the matrix has out of cache (l3), or INT8 multiply-adds (int8), each with a sum of its own: a "
        "kernel "
        "that adds up before it widens, or looks up, can pass 100 % of those. End to end goes "
        "from float32 X to float32 Y; kernel from ready activations (and tables) to int32 Y.\n"
        "\n"
        "Examples:\n"
        "  tern bench --quick\n"
        "  tern bench -t 1 --json >bench.json\n"
        "  tern bench --isa avx2\n"
        "  tern bench --op mad_gemm --shape 4096x4096 --m 1,2,4 --residency hot\n"
        "  tern bench --shape 2560x6912 --m 1 --trace trace.json\n"
        "\n" CLI_ENVIRONMENT};

// ---- Which products to measure --------------------------------------------------------------------------------

// BitNet-2B's layers, then a square one that other libraries report; that one is also measured with block scales and with few
// tokens.
static const bench_matrix all_shapes[] = {{2560, 2560, 0}, {640, 2560, 0}, {6912, 2560, 0}, {2560, 6912, 0}, {4096, 4096, 0}};
static const bench_matrix quick_shapes[] = {{6912, 2560, 0}, {4096, 4096, 0}};
static const size_t block_widths[] = {64, 128, 256}, few_tokens[] = {2, 4, 8, 16};
enum { ALL_SHAPES = sizeof all_shapes / sizeof *all_shapes, QUICK_SHAPES = sizeof quick_shapes / sizeof *quick_shapes };
enum { BLOCK_WIDTHS = sizeof block_widths / sizeof *block_widths, FEW_TOKENS = sizeof few_tokens / sizeof *few_tokens };
enum { ROUNDS = 5, QUICK_ROUNDS = 3 };

static void add_case(const bench_options *options, bench_plan *plan, size_t matrix, size_t m, bool dram) {
    if (dram ? options->no_dram : options->no_hot) return;
    if (plan->n_cases == BENCH_CASES_MAX)
        cli_usage("more than %d products for one kernel; give fewer --shape, --m or --block", BENCH_CASES_MAX);
    plan->cases[plan->n_cases++] = (bench_case){matrix, m, dram};
}

static void add_matrix(const bench_options *options, bench_plan *plan, bench_matrix matrix, bool sweep_tokens) {
    if (plan->n_matrices == BENCH_MATRICES_MAX)
        cli_usage("more than %d matrices for one kernel; give fewer --shape or --block", BENCH_MATRICES_MAX);
    const size_t i = plan->n_matrices++;
    plan->matrices[i] = matrix;
    for (size_t j = 0; j < options->m.n; j++) {
        add_case(options, plan, i, options->m.value[j], false);
        add_case(options, plan, i, options->m.value[j], true);
    }
    if (options->m.n) return;
    add_case(options, plan, i, 1, true);
    add_case(options, plan, i, 1, false);
    for (size_t j = 0; sweep_tokens && j < FEW_TOKENS; j++) {
        add_case(options, plan, i, few_tokens[j], true);
        add_case(options, plan, i, few_tokens[j], false);
    }
    if (!matrix.block) add_case(options, plan, i, BENCH_M_LARGE, false);
}

// Variations of a form that has been measured on all shapes get two.
static bool two_shapes(bench_source source) {
    return source == BENCH_FOUR_LEVEL || source == BENCH_BINARY || source == BENCH_U4_MINS || source == BENCH_Q4_K;
}

static bench_plan make_plan(const bench_options *options, bench_source source) {
    bench_plan plan = {.n_cases = 0};
    const bool few = options->quick || two_shapes(source), with_blocks = bench_source_ternary(source);
    const bool usual = !options->n_shapes, sweeps = usual && !few && with_blocks;
    const bench_matrix *shapes = !usual ? options->shapes : few ? quick_shapes : all_shapes;
    const size_t n_shapes = !usual ? options->n_shapes : few ? QUICK_SHAPES : ALL_SHAPES;
    for (size_t i = 0; i < n_shapes; i++) {
        const bool last = i + 1 == n_shapes;
        bench_matrix matrix = shapes[i];
        for (size_t j = 0; j < options->blocks.n; j++) {
            matrix.block = options->blocks.value[j];
            if (with_blocks || !matrix.block) add_matrix(options, &plan, matrix, false);
        }
        if (options->blocks.n) continue;
        add_matrix(options, &plan, matrix, last && sweeps);
        for (size_t j = 0; last && sweeps && j < BLOCK_WIDTHS; j++) {
            matrix.block = block_widths[j];
            add_matrix(options, &plan, matrix, false);
        }
    }
    return plan;
}

// ---- Measuring --------------------------------------------------------------------------------------------------

static int measure(bench *b, const bench_options *options, bench_source source, bench_report *r) {
    const bench_plan plan = make_plan(options, source);
    if (r->room - r->n < plan.n_cases) {
        const size_t room = 2 * r->room + plan.n_cases;
        bench_result *larger = realloc(r->results, room * sizeof *larger);
        if (!larger) return cli_fail("no memory for the results");
        r->results = larger;
        r->room = room;
    }
    const tern_status status = bench_measure(b, source, &plan, r->results + r->n);
    for (size_t i = 0; i < plan.n_cases; i++) r->complete = r->complete && isfinite(r->results[r->n + i].fraction);
    r->n += plan.n_cases;
    if (status != TERN_OK) {
        const char *message = tern_context_error(b->ctx);
        cli_error("some products were not measured: %s", *message ? message : tern_status_string(status));
    }
    return CLI_OK;
}

// Measures each source whose kernel is `symbol` (NULL: any) and contains options->op.
static int measure_sources(bench *b, const bench_options *options, const char *symbol, double start, bench_report *r) {
    const int n_sources = options->quick ? BENCH_FOUR_LEVEL : BENCH_SOURCES; // quick: ternary ones
    int rc = CLI_OK;
    for (int source = 0; source < n_sources && rc == CLI_OK; source++) {
        if (!symbol) cli_progress("measuring", start, 100 * source / n_sources);
        const char *kernel = bench_source_kernel(b->ctx, (bench_source)source);
        if (!kernel || (symbol && strcmp(kernel, symbol) != 0) || (options->op && !strstr(kernel, options->op))) continue;
        rc = measure(b, options, (bench_source)source, r);
    }
    return rc;
}

static int measure_all(bench *b, const bench_options *options, double start, bench_report *r) {
    int rc = CLI_OK;
    for (size_t i = 0; i < tern_variant_count() && rc == CLI_OK; i++) {
        cli_progress("measuring", start, (int)(100 * i / tern_variant_count()));
        tern_variant_info v = {.struct_size = sizeof v};
        if (tern_variant_get(b->ctx, i, &v) != TERN_OK || !v.usable) continue;
        const tern_status status = tern_force_variant(b->ctx, v.symbol);
        rc = status == TERN_OK ? measure_sources(b, options, v.symbol, start, r) : cli_fail_status(b->ctx, status);
    }
    (void)tern_force_variant(b->ctx, NULL);
    return rc;
}

static int run(bench *b, const bench_options *options, bench_report *r) {
    const double start = cli_seconds();
    const int rc = options->all ? measure_all(b, options, start, r) : measure_sources(b, options, NULL, start, r);
    cli_progress("", start, -1);
    if (rc == CLI_OK && r->n == 0)
        return cli_fail("no kernel that is measured fits these options; %s",
                        options->quick ? "leave out --quick, which takes ternary ones only"
                                       : "run tern bench without --op and --block to see all");
    return rc;
}

static int create(bench *b, tern_context *ctx, const bench_options *options) {
    const char *what = NULL;
    const bench_plan plan = make_plan(options, BENCH_TERNARY_LUT);
    const tern_status status = bench_create(b, ctx, &plan, options->quick ? QUICK_ROUNDS : ROUNDS, &what);
    if (what) return cli_fail("no memory for %s; close other programs, or give smaller shapes", what);
    return status == TERN_OK ? CLI_OK : cli_fail_status(ctx, status);
}

int cmd_bench(int argc, char **argv) {
    bench_options options = {.quick = false};
    cli_parse(&argp, argc, argv, &options);
    if (options.quick && options.all) cli_usage("--quick and --all exclude each other; give one");
    tern_context *ctx = NULL;
    bench b = {.ctx = NULL};
    bench_report r = {.complete = true};
    trace_file *trace = NULL;
    int rc = trace_open(&trace, options.trace);
    if (rc == CLI_OK) rc = cli_open_context(&options.base, &ctx);
    if (rc == CLI_OK) rc = create(&b, ctx, &options);
    b.trace = trace;
    if (rc == CLI_OK) rc = run(&b, &options, &r);
    if (rc == CLI_OK && options.base.json) {
        rc = cli_print_json(bench_report_json(&b, &r));
    } else if (rc == CLI_OK) {
        bench_report_print(&b, &r);
        rc = cli_flush();
    }
    if (rc == CLI_OK) rc = b.trace_failed ? CLI_FAILED : trace_finish(&trace, options.base.json);
    trace_discard(&trace); // where something failed
    if (rc == CLI_OK && !r.complete)
        rc = cli_fail("some figures could not be measured: memory is short, or the caches are not known (see tern info)");
    bench_release(r.results, r.n);
    free(r.results);
    if (ctx) bench_destroy(&b);
    tern_context_destroy(ctx);
    return rc;
}
