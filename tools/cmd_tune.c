// SPDX-License-Identifier: MIT
// tern tune: measures the layouts of ternary weights on this machine and keeps a table by which contexts choose.
#include "cli.h"
#include "tune_measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tern/tune.h>

enum { SHAPES_MAX = 64, RESULTS_MAX = SHAPES_MAX * TUNE_CASES * TUNE_LAYOUTS_MAX };

typedef struct tune_options {
    cli_options base;
    bool dry_run, show, clear;
    tune_shape shapes[SHAPES_MAX];
    size_t n_shapes;
} tune_options;

enum { KEY_SHAPE = CLI_KEY_OWN, KEY_DRY_RUN, KEY_SHOW, KEY_CLEAR };

// ---- options -------------------------------------------------------------------------------------------------------

static void add_shape(tune_options *o, tune_shape s) {
    for (size_t i = 0; i < o->n_shapes; i++) {
        const tune_shape *have = &o->shapes[i];
        if (have->n == s.n && have->k == s.k && have->scale_block == s.scale_block) return;
    }
    if (o->n_shapes == SHAPES_MAX) cli_usage("more than %d shapes; give fewer", SHAPES_MAX);
    o->shapes[o->n_shapes++] = s;
}

static void parse_shape(tune_options *o, const char *text) {
    tune_shape s = {.scale_block = 0};
    cli_shape("--shape", text, &s.n, &s.k);
    add_shape(o, s);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    tune_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->child_inputs[1] = &o->base;
        return 0;
    case KEY_SHAPE:
        parse_shape(o, arg);
        return 0;
    case KEY_DRY_RUN:
        o->dry_run = true;
        return 0;
    case KEY_SHOW:
        o->show = true;
        return 0;
    case KEY_CLEAR:
        o->clear = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"shape", KEY_SHAPE, "NxK", 0, "Measure a weight of N features and depth K; may be given several times", 1},
    {"dry-run", KEY_DRY_RUN, NULL, 0, "Measure and print, but keep nothing", 1},
    {"show", KEY_SHOW, NULL, 0, "Print the kept table; measure nothing", 1},
    {"clear", KEY_CLEAR, NULL, 0, "Remove the kept table, that of other machines too", 1},
    {0}};
static const struct argp_child children[] = {{&cli_model_argp, 0, NULL, 0}, {&cli_machine_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .children = children,
    .doc =
        "Measures in which layout this machine multiplies ternary weights fastest, and keeps the figures: from then on every "
        "program that uses Tern chooses by them. Without --shape or -m it takes the layer shapes of common models: about a "
        "minute. Results of other shapes, tiers and numbers of threads stay.\v"
        "Columns: m is the number of tokens; a weight comes from `dram' or is in `cache'; then 10^9 multiply-adds per second "
        "in each layout, `-' where it is hopeless; * is the fastest; at last what Tern chooses without a table, and how much "
        "slower that is.\n"
        "The table is $TERN_TUNE, else $XDG_CACHE_HOME/tern/tune.txt, else ~/.cache/tern/tune.txt. One that is damaged or of "
        "another machine is ignored with a warning.\n"
        "\n"
        "Examples:\n"
        "  tern tune\n"
        "  tern tune -m model.gguf -t 4\n"
        "  tern tune --shape 8640x3200 --dry-run --json\n"
        "  tern tune --show\n"
        "\n" CLI_ENVIRONMENT};

// ---- shapes --------------------------------------------------------------------------------------------------------

// Layers of Llama-2-7B, BitNet-2B, BitNet-3B and SmolLM-135M.
static const tune_shape standard_shapes[] = {{4096, 4096, 0}, {11008, 4096, 0}, {4096, 11008, 0}, {2560, 2560, 0},
                                             {640, 2560, 0},  {6912, 2560, 0},  {2560, 6912, 0},  {8640, 3200, 0},
                                             {576, 576, 0},   {1536, 576, 0}};

// Ternary types of GGUF files, and whether one may have a scale for each block.
typedef struct ternary_type {
    const char *name;
    bool blocks;
} ternary_type;
static const ternary_type ternary_types[] = {
    {"TQ1_0", true}, {"TQ2_0", true}, {"I2_S", false}, {"IQ1_BN", false}, {"IQ2_BN", false}};

static const ternary_type *ternary_type_of(const char *name) {
    for (size_t i = 0; i < sizeof ternary_types / sizeof *ternary_types; i++)
        if (strcmp(name, ternary_types[i].name) == 0) return &ternary_types[i];
    return NULL;
}

// Ternary matrices of a model with one scale and, where the type may have them, once more with scales per block: which of the
// two a tensor has shows only when it is packed.
static void add_tensor_shapes(tune_options *o, const tern_model *model) {
    enum { TQ_BLOCK = 256 };
    tern_tensor_info t = {.struct_size = sizeof t};
    for (size_t i = 0; tern_model_get_tensor(model, i, &t) == TERN_OK; i++) {
        const ternary_type *type = t.n_dims == 2 ? ternary_type_of(t.type) : NULL;
        if (!type) continue;
        add_shape(o, (tune_shape){t.dims[1], t.dims[0], 0});
        if (type->blocks && t.dims[0] > TQ_BLOCK) add_shape(o, (tune_shape){t.dims[1], t.dims[0], TQ_BLOCK});
    }
}

static int add_model_shapes(tune_options *o, tern_context *ctx) {
    tern_model *model = NULL;
    tern_model_info info = {.struct_size = sizeof info};
    int rc = cli_open_model(&o->base, ctx, &model);
    if (rc != CLI_OK) return rc;
    const tern_status status = tern_model_get_info(model, &info);
    if (status != TERN_OK)
        rc = cli_fail_status(ctx, status);
    else if (info.packed_tier)
        rc = cli_fail("%s is packed, with layouts that stay; give the GGUF file that it was made from", o->base.model);
    else
        add_tensor_shapes(o, model);
    tern_model_destroy(model);
    if (rc == CLI_OK && o->n_shapes == 0) rc = cli_fail("%s has no ternary matrices; there is nothing to tune", o->base.model);
    return rc;
}

// ---- the report ----------------------------------------------------------------------------------------------------

typedef struct report {
    tern_tune_result results[RESULTS_MAX]; // the layouts of one case stand together
    const char *built_in[RESULTS_MAX];     // of the case; NULL: not known
    size_t n;
} report;

static void add_case(report *r, const tune_shape *s, tune_case c, const tune_measurement *m) {
    for (size_t i = 0; i < m->n; i++) {
        if (m->speeds[i].multiply_adds_per_second == 0) continue;
        r->built_in[r->n] = m->built_in;
        r->results[r->n++] = (tern_tune_result){.struct_size = sizeof(tern_tune_result),
                                                .n = s->n,
                                                .k = s->k,
                                                .scale_block = s->scale_block,
                                                .m = c.m,
                                                .cached = c.cached,
                                                .layout = m->speeds[i].layout,
                                                .multiply_adds_per_second = m->speeds[i].multiply_adds_per_second};
    }
}

static bool same_case(const tern_tune_result *a, const tern_tune_result *b) {
    return a->n == b->n && a->k == b->k && a->scale_block == b->scale_block && a->m == b->m && a->cached == b->cached;
}
static size_t case_end(const report *r, size_t first) {
    size_t end = first + 1;
    while (end < r->n && same_case(&r->results[first], &r->results[end])) end++;
    return end;
}

// Results of one case: the fastest, and how fast a layout is (0: not measured).
static const tern_tune_result *fastest(const report *r, size_t first, size_t end) {
    const tern_tune_result *best = &r->results[first];
    for (size_t i = first; i < end; i++)
        if (r->results[i].multiply_adds_per_second > best->multiply_adds_per_second) best = &r->results[i];
    return best;
}
static double speed_of(const report *r, size_t first, size_t end, const char *layout) {
    for (size_t i = first; i < end; i++)
        if (strcmp(r->results[i].layout, layout) == 0) return r->results[i].multiply_adds_per_second;
    return 0;
}

static size_t layouts_of(const report *r, const char *layouts[TUNE_LAYOUTS_MAX]) {
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        bool known = false;
        for (size_t j = 0; j < n; j++) known = known || strcmp(layouts[j], r->results[i].layout) == 0;
        if (!known && n < TUNE_LAYOUTS_MAX) layouts[n++] = r->results[i].layout;
    }
    return n;
}

static void print_table(const report *r) {
    static const double giga = 1e9, percent = 100;
    const char *layouts[TUNE_LAYOUTS_MAX];
    const size_t n_layouts = layouts_of(r, layouts);
    (void)printf("%6s %6s %5s %4s %-5s ", "n", "k", "block", "m", "where");
    for (size_t j = 0; j < n_layouts; j++) (void)printf("%8s ", layouts[j]);
    (void)printf("%s\n", r->n && r->built_in[0] ? "  built-in choice" : "");
    for (size_t i = 0, end; i < r->n; i = end) {
        end = case_end(r, i);
        const tern_tune_result *x = &r->results[i], *best = fastest(r, i, end);
        (void)printf("%6zu %6zu %5zu %4zu %-5s ", x->n, x->k, x->scale_block, x->m, x->cached ? "cache" : "dram");
        for (size_t j = 0; j < n_layouts; j++) {
            const double speed = speed_of(r, i, end, layouts[j]);
            if (speed > 0)
                (void)printf("%8.1f%c", speed / giga, strcmp(layouts[j], best->layout) == 0 ? '*' : ' ');
            else
                (void)printf("%8s ", "-");
        }
        if (r->built_in[i]) {
            const double chosen = speed_of(r, i, end, r->built_in[i]); // 0: too slow to be measured
            (void)printf("  %s", r->built_in[i]);
            if (chosen == 0)
                (void)printf(" (not measured)");
            else if (chosen < best->multiply_adds_per_second)
                (void)printf(" -%.0f %%", percent - percent * chosen / best->multiply_adds_per_second);
        }
        (void)printf("\n");
    }
}

static json_t *report_json(const report *r, tern_context *ctx, bool saved) {
    static const double giga = 1e9;
    json_t *results = json_array();
    for (size_t i = 0, end; i < r->n; i = end) {
        end = case_end(r, i);
        const tern_tune_result *best = fastest(r, i, end);
        for (size_t j = i; j < end; j++) {
            const tern_tune_result *x = &r->results[j];
            json_t *row = json_pack("{s:I, s:I, s:I, s:I, s:s, s:s, s:o, s:b}", "n", (json_int_t)x->n, "k", (json_int_t)x->k,
                                    "scale_block", (json_int_t)x->scale_block, "m", (json_int_t)x->m, "residency",
                                    x->cached ? "cache" : "dram", "layout", x->layout, "gmacs",
                                    cli_real_json(x->multiply_adds_per_second / giga), "fastest", x == best);
            if (r->built_in[j])
                (void)json_object_set_new(row, "built_in", json_boolean(strcmp(r->built_in[j], x->layout) == 0));
            (void)json_array_append_new(results, row);
        }
    }
    tern_cpu_info cpu = {.struct_size = sizeof cpu};
    (void)tern_get_cpu_info(ctx, &cpu);
    return json_pack("{s:s, s:s, s:o, s:b, s:o, s:s, s:i, s:o}", "schema", "tern.tune/1", "version", tern_version(), "path",
                     cli_text_json(tern_tune_path(ctx)), "saved", saved, "cpu", cli_text_json(cpu.model), "tier", cpu.tier,
                     "threads", tern_context_threads(ctx), "results", results);
}

// ---- what the command does -----------------------------------------------------------------------------------------

// On a context without a table, so that what it chooses by itself is the built-in choice.
static int measure(tune_options *o, report *r) {
    tern_context *ctx = NULL;
    o->base.no_tune = true;
    int rc = cli_open_context(&o->base, &ctx);
    if (rc == CLI_OK && o->base.model) rc = add_model_shapes(o, ctx);
    if (!o->base.model && o->n_shapes == 0)
        for (size_t i = 0; i < sizeof standard_shapes / sizeof *standard_shapes; i++) add_shape(o, standard_shapes[i]);
    const double start = cli_seconds();
    for (size_t i = 0; i < o->n_shapes && rc == CLI_OK; i++) {
        cli_progress("measuring", start, (int)(100 * i / o->n_shapes));
        tune_measurement m[TUNE_CASES];
        const char *failed = NULL;
        const tern_status status = tune_measure(ctx, &o->shapes[i], m, &failed);
        if (failed)
            rc = cli_fail("no memory for %s; close other programs, or give smaller shapes", failed);
        else if (status != TERN_OK)
            rc = cli_fail_status(ctx, status);
        for (size_t c = 0; c < TUNE_CASES && rc == CLI_OK; c++) add_case(r, &o->shapes[i], tune_cases[c], &m[c]);
    }
    cli_progress("", start, -1);
    tern_context_destroy(ctx);
    o->base.no_tune = false;
    return rc;
}

static int read_kept(tern_context *ctx, report *r) {
    for (size_t i = 0; i < tern_tune_count(ctx) && r->n < RESULTS_MAX; i++) {
        r->results[r->n].struct_size = sizeof *r->results;
        const tern_status status = tern_tune_get(ctx, i, &r->results[r->n++]);
        if (status != TERN_OK) return cli_fail_status(ctx, status);
    }
    return CLI_OK;
}

static int print_report(const tune_options *o, const report *r, tern_context *ctx, bool saved) {
    if (o->base.json) return cli_print_json(report_json(r, ctx, saved));
    if (r->n > 0) print_table(r);
    if (saved)
        (void)printf("kept in %s\n", tern_tune_path(ctx));
    else if (o->show && r->n == 0)
        (void)printf("no results for this machine in %s; run tern tune\n", tern_tune_path(ctx));
    return cli_flush();
}

static int clear(const tune_options *o, tern_context *ctx) {
    const tern_status status = tern_tune_clear(ctx);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    if (o->base.json)
        return cli_print_json(json_pack("{s:s, s:o}", "schema", "tern.tune/1", "removed", cli_text_json(tern_tune_path(ctx))));
    (void)printf("removed %s\n", tern_tune_path(ctx));
    return cli_flush();
}

static int show(const tune_options *o, report *r, tern_context *ctx) {
    if (!*tern_tune_path(ctx)) return cli_fail("there is no file for tuning results: TERN_TUNE is off, or HOME is not set");
    const int rc = read_kept(ctx, r);
    return rc == CLI_OK ? print_report(o, r, ctx, false) : rc;
}

// Figures that could not be kept are shown, too.
static int keep(const tune_options *o, const report *r, tern_context *ctx) {
    const tern_status status = o->dry_run ? TERN_OK : tern_tune_save(ctx, r->results, r->n);
    const int rc = status == TERN_OK ? CLI_OK : cli_fail_status(ctx, status);
    const int printed = print_report(o, r, ctx, !o->dry_run && status == TERN_OK);
    return rc == CLI_OK ? printed : rc;
}

static int run(tune_options *o, report *r) {
    int rc = o->show || o->clear ? CLI_OK : measure(o, r);
    tern_context *ctx = NULL;      // with the table
    o->base.no_warning = !o->show; // of a table that is replaced or removed
    if (rc == CLI_OK) rc = cli_open_context(&o->base, &ctx);
    if (rc != CLI_OK) return rc;
    rc = o->show ? show(o, r, ctx) : o->clear ? clear(o, ctx) : keep(o, r, ctx);
    tern_context_destroy(ctx);
    return rc;
}

int cmd_tune(int argc, char **argv) {
    tune_options options = {.dry_run = false};
    cli_parse(&argp, argc, argv, &options);
    const bool measuring = options.dry_run || options.n_shapes > 0 || options.base.model;
    if (options.show + options.clear + measuring > 1)
        cli_usage("--show, --clear and options of a measurement exclude each other; give one");
    report *r = calloc(1, sizeof *r);
    if (!r) return cli_fail("no memory for the results");
    const int rc = run(&options, r);
    free(r);
    return rc;
}
