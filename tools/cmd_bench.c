// SPDX-License-Identifier: MIT
// tern bench: this machine's limits, measured now, and how near each kernel comes to the one that binds it.
#include "bench_measure.h"
#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench_options {
    cli_options base;
    bool quick, all;
} bench_options;

enum { KEY_QUICK = CLI_KEY_OWN, KEY_ALL };

static error_t parse(int key, char *arg, struct argp_state *state) {
    (void)arg;
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
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"quick", KEY_QUICK, NULL, 0, "Ternary kernels on two shapes only: a few seconds", 1},
    {"all", KEY_ALL, NULL, 0, "Every variant this CPU can run, not only the chosen ones: some minutes", 1},
    {0}};
static const struct argp_child children[] = {{&cli_machine_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .children = children,
    .doc =
        "Measures how fast this machine reads memory and multiplies INT8 numbers, and in turn with that each ternary and INT8 "
        "kernel on the layer shapes of BitNet-2B. Takes under a minute.\v"
        "Columns: `dram' cycles through 320 MB or more of weights, `hot' repeats one matrix; m is the number of tokens; bits "
        "are those "
        "of a packed weight; GOP/s = 2 m n k / time; GB/s are packed bytes / time; the last column is the fraction of the "
        "limit that "
        "binds (reading DRAM or L3, or INT8 multiply-adds). It can pass 100 % where a matrix fits L2 or a lookup beats a "
        "multiply.\n"
        "\n"
        "Examples:\n"
        "  tern bench --quick\n"
        "  tern bench -t 1 --json >bench.json\n"
        "  tern bench --isa avx2\n"
        "\n" CLI_ENVIRONMENT};

// BitNet-2B's layers, then a square one that other libraries report.
static const bench_shape all_shapes[] = {{2560, 2560}, {640, 2560}, {6912, 2560}, {2560, 6912}, {4096, 4096}};
static const bench_shape quick_shapes[] = {{6912, 2560}, {4096, 4096}};
enum { ALL_SHAPES = sizeof all_shapes / sizeof *all_shapes, QUICK_SHAPES = sizeof quick_shapes / sizeof *quick_shapes };
enum { RESULTS_PER_SHAPE = 3, ROUNDS = 5, QUICK_ROUNDS = 3 };

typedef struct report {
    bench_result *results;
    size_t n, room;
    bool complete; // everything could be measured
} report;

// ---- Which products to measure --------------------------------------------------------------------------------

static int measure(bench *b, bench_op op, report *r) {
    const size_t n = b->n_shapes * RESULTS_PER_SHAPE;
    if (r->room - r->n < n) {
        const size_t room = 2 * r->room + n;
        bench_result *larger = realloc(r->results, room * sizeof *larger);
        if (!larger) return cli_fail("no memory for the results");
        r->results = larger;
        r->room = room;
    }
    const tern_status status = bench_measure(b, op, r->results + r->n);
    r->n += n;
    if (status != TERN_OK) {
        r->complete = false;
        const char *message = tern_context_error(b->ctx);
        (void)cli_fail("%s not measured: %s", bench_op_names[op], *message ? message : tern_status_string(status));
    }
    return CLI_OK;
}

static int measure_chosen(bench *b, bool quick, report *r) {
    const double start = cli_seconds();
    const int ops = quick ? BENCH_INT8 : BENCH_OPS;
    int rc = CLI_OK;
    for (int op = 0; op < ops && rc == CLI_OK; op++) {
        cli_progress("measuring", start, 100 * op / ops);
        rc = measure(b, (bench_op)op, r);
    }
    cli_progress("", start, -1);
    return rc;
}

static int measure_all(bench *b, report *r) {
    const double start = cli_seconds();
    int rc = CLI_OK;
    for (size_t i = 0; i < tern_variant_count() && rc == CLI_OK; i++) {
        cli_progress("measuring", start, (int)(100 * i / tern_variant_count()));
        tern_variant_info v = {.struct_size = sizeof v};
        if (tern_variant_get(b->ctx, i, &v) != TERN_OK || !v.usable) continue;
        for (int op = 0; op < BENCH_OPS && rc == CLI_OK; op++) {
            if (strcmp(v.stage, bench_op_names[op]) != 0) continue;
            const tern_status status = tern_force_variant(b->ctx, v.symbol);
            rc = status == TERN_OK ? measure(b, (bench_op)op, r) : cli_fail_status(b->ctx, status);
        }
    }
    (void)tern_force_variant(b->ctx, NULL);
    cli_progress("", start, -1);
    return rc;
}

// ---- Output -----------------------------------------------------------------------------------------------------

static double limit_giga(const bench *b, bench_limit limit) {
    static const double giga = 1e9;
    return bench_median(b->limit[limit].value, b->limit[limit].n) / giga;
}

static json_t *report_json(const bench *b, const report *r, bool complete) {
    static const double nano = 1e-9;
    json_t *results = json_array();
    for (size_t i = 0; i < r->n; i++) {
        const bench_result *x = &r->results[i];
        (void)json_array_append_new(
            results,
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:o, s:o, s:o, s:o, s:o, s:I}", "op", x->op, "variant",
                      x->variant, "layout", x->layout, "residency", x->residency, "m", (json_int_t)x->m, "n", (json_int_t)x->n,
                      "k", (json_int_t)x->k, "threads", tern_context_threads(b->ctx), "bits_per_weight",
                      cli_real_json(x->bits_per_weight), "gops", cli_real_json(x->gops), "gbps", cli_real_json(x->gbps),
                      "fraction", cli_real_json(x->fraction), "bound",
                      x->rounds ? json_string(bench_limit_names[x->bound]) : json_null(), "rounds", (json_int_t)x->rounds));
    }
    return json_pack("{s:s, s:s, s:b, s:{s:i, s:o, s:o, s:o, s:I, s:I, s:s, s:o}, s:o}", "schema", "tern.bench/1", "version",
                     tern_version(), "complete", complete, "roofline", "threads", tern_context_threads(b->ctx), "dram_gbps",
                     cli_real_json(limit_giga(b, BENCH_DRAM)), "l3_gbps", cli_real_json(limit_giga(b, BENCH_L3)), "vnni_gops",
                     cli_real_json(limit_giga(b, BENCH_INT8_PEAK)), "dram_bytes", (json_int_t)b->dram_bytes, "l3_bytes",
                     (json_int_t)b->l3_bytes, "int8_peak_variant", tern_stage_variant(b->ctx, "int8_peak"), "clock_ghz",
                     cli_real_json(nano / tern_cycle_seconds()), "results", results);
}

static void print_limit(const char *name, double value, const char *unit) {
    if (isfinite(value)) {
        (void)printf("   %s %.1f %s", name, value, unit);
    } else {
        (void)printf("   %s not measured", name);
    }
}

static void print_table(const bench *b, const report *r) {
    static const double percent = 100;
    (void)printf("limits (measured between the products, with %d threads):\n", tern_context_threads(b->ctx));
    print_limit("DRAM", limit_giga(b, BENCH_DRAM), "GB/s");
    print_limit("L3", limit_giga(b, BENCH_L3), "GB/s");
    print_limit("INT8", limit_giga(b, BENCH_INT8_PEAK), "GOP/s");
    (void)printf(" (%s)\n\n", tern_stage_variant(b->ctx, "int8_peak"));
    (void)printf("%-13s %-10s %-4s %3s %5s %5s %4s %7s %6s  %s\n", "kernel", "variant", "where", "m", "n", "k", "bits", "GOP/s",
                 "GB/s", "of the limit");
    for (size_t i = 0; i < r->n; i++) {
        const bench_result *x = &r->results[i];
        (void)printf("%-13s %-10s %-4s %3zu %5zu %5zu ", x->op, x->variant, x->residency, x->m, x->n, x->k);
        if (x->rounds == 0) {
            (void)printf("not measured\n");
            continue;
        }
        (void)printf("%4.2f %7.1f %6.2f  ", x->bits_per_weight, x->gops, x->gbps);
        if (isfinite(x->fraction)) {
            (void)printf("%3.0f %% of %s\n", x->fraction * percent, bench_limit_names[x->bound]);
        } else {
            (void)printf("not measured\n");
        }
    }
}

int cmd_bench(int argc, char **argv) {
    bench_options options = {.quick = false};
    cli_parse(&argp, argc, argv, &options);
    if (options.quick && options.all) cli_usage("--quick and --all exclude each other; give one");
    tern_context *ctx = NULL;
    bench b = {.ctx = NULL};
    report r = {.complete = true};
    const char *what = NULL;
    int rc = cli_open_context(&options.base, &ctx);
    if (rc == CLI_OK) {
        const tern_status status =
            bench_create(&b, ctx, options.quick ? quick_shapes : all_shapes, options.quick ? QUICK_SHAPES : ALL_SHAPES,
                         options.quick ? QUICK_ROUNDS : ROUNDS, &what);
        if (what)
            rc = cli_fail("no memory for %s; close other programs", what);
        else if (status != TERN_OK)
            rc = cli_fail_status(ctx, status);
    }
    if (rc == CLI_OK) rc = options.all ? measure_all(&b, &r) : measure_chosen(&b, options.quick, &r);
    if (rc == CLI_OK) {
        bool complete = r.complete;
        for (size_t i = 0; i < r.n; i++) complete = complete && isfinite(r.results[i].fraction);
        for (int limit = 0; limit < BENCH_LIMITS; limit++) complete = complete && b.limit[limit].n > 0;
        if (options.base.json) {
            rc = cli_print_json(report_json(&b, &r, complete));
        } else {
            print_table(&b, &r);
            rc = cli_flush();
        }
        if (rc == CLI_OK && !complete)
            rc = cli_fail("some figures could not be measured: memory is short, or the caches are not known (see tern info)");
    }
    free(r.results);
    if (ctx) bench_destroy(&b);
    tern_context_destroy(ctx);
    return rc;
}
