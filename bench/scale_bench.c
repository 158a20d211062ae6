// SPDX-License-Identifier: MIT
// Measures, in one run, what tools/simulate_scaling.py predicts from, and the times it is checked against. JSON.
#include "scale_bench.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS_LIST_MAX = 8, MODELS_MAX = 8, DRAM_TURNS = 15, QUICK_TURNS = 3, DRAM_MB = 192, QUICK_DRAM_MB = 8 };
static const double giga = 1e9;

typedef struct options {
    bool quick;
    int workers[WORKERS_LIST_MAX];
    size_t n_workers;
    const char *models[MODELS_MAX];
    size_t n_models;
} options;

static bool parse_workers(options *o, const char *text) {
    o->n_workers = 0;
    for (char *end = NULL;; text = end + 1) {
        const long value = strtol(text, &end, 10);
        if (end == text || value < 1 || value > TERN_THREADS_MAX || o->n_workers == WORKERS_LIST_MAX) return false;
        o->workers[o->n_workers++] = (int)value;
        if (*end == '\0') return true;
        if (*end != ',') return false;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    options *o = state->input;
    switch (key) {
    case 'q':
        o->quick = true;
        return 0;
    case 'w':
        if (!parse_workers(o, arg))
            argp_error(state, "--workers %s: give up to %d numbers, comma-separated", arg, WORKERS_LIST_MAX);
        return 0;
    case ARGP_KEY_ARG:
        if (o->n_models == MODELS_MAX) argp_error(state, "at most %d models", MODELS_MAX);
        o->models[o->n_models++] = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// ---- memory -------------------------------------------------------------------------------------------------------------

// Bytes per nanosecond that one core, and two, read from DRAM; in turn.
static bool measure_dram(json_t *dram, bool quick) {
    double rates[SCHED_PAIR][DRAM_TURNS];
    tern_context *ctx[SCHED_PAIR] = {NULL};
    tern_read_probe *probe[SCHED_PAIR] = {NULL};
    const size_t turns = quick ? QUICK_TURNS : DRAM_TURNS, bytes = (size_t)(quick ? QUICK_DRAM_MB : DRAM_MB) << 20;
    bool ok = true;
    for (int p = 0; p < SCHED_PAIR && ok; p++) {
        ctx[p] = sched_open(p + 1);
        ok = ctx[p] && tern_read_probe_create(ctx[p], &probe[p], bytes) == TERN_OK;
    }
    for (size_t i = 0; i < turns * SCHED_PAIR && ok; i++) {
        double seconds = 0;
        const size_t p = i % SCHED_PAIR;
        ok = tern_read_probe_sweep(ctx[p], probe[p], &seconds) == TERN_OK;
        rates[p][i / SCHED_PAIR] = (double)bytes / seconds / giga;
    }
    if (ok) {
        sched_set_real(dram, "one_gbs", sched_median(rates[0], turns));
        sched_set_real(dram, "two_gbs", sched_median(rates[1], turns));
    }
    for (int p = 0; p < SCHED_PAIR; p++) {
        tern_read_probe_destroy(probe[p]);
        tern_context_destroy(ctx[p]);
    }
    return ok || sched_fail("the memory could not be measured");
}

// ---- main ---------------------------------------------------------------------------------------------------------------

static bool measure_constants(json_t *out, bool quick) {
    tern_context *ctx = sched_open(SCHED_PAIR);
    if (!ctx) return false;
    const int cpus[SCHED_PAIR] = {tern_worker_cpu(ctx, 0), tern_worker_cpu(ctx, 1)};
    tern_cpu_info info = {.struct_size = sizeof info};
    tern_topology_info topology = {.struct_size = sizeof topology};
    scale_lines l = {.visible = (double)NAN};
    bool ok = tern_get_cpu_info(ctx, &info) == TERN_OK && tern_get_topology_info(ctx, &topology) == TERN_OK;
    (void)json_object_set_new(out, "cpu", json_string(ok ? info.model : ""));
    (void)json_object_set_new(out, "l2_bytes", json_integer((json_int_t)topology.l2_bytes));
    (void)json_object_set_new(out, "l3_bytes", json_integer((json_int_t)topology.l3_bytes));
    tern_context_destroy(ctx);
    ok = ok && (cpus[1] >= 0 || sched_fail("two CPUs are needed")) && scale_measure_lines(cpus, quick, &l);
    const struct {
        const char *name;
        double value;
    } list[] = {{"visible", l.visible},
                {"own_rmw", l.own_rmw},
                {"other_rmw", l.other_rmw},
                {"other_load", l.other_load},
                {"other_store", l.other_store},
                {"wake_call", l.wake_call},
                {"wake", l.wake}};
    json_t *constants = json_object();
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) sched_set_real(constants, list[i].name, list[i].value);
    (void)json_object_set_new(out, "constants_ns", constants);
    return ok;
}

int main(int argc, char **argv) {
    static const struct argp_option option_list[] = {
        {"quick", 'q', NULL, 0, "Few runs: shows that everything works, not how fast", 0},
        {"workers", 'w', "LIST", 0, "Lay the work out for so many workers (default 1,2,8,64,192)", 0},
        {0}};
    static const struct argp argp = {.options = option_list,
                                     .parser = parse,
                                     .args_doc = "MODEL.gguf...",
                                     .doc = "Measures what tools/simulate_scaling.py predicts from. Prints JSON."};
    options o = {.workers = {1, 2, 8, 64, 192}, .n_workers = 5};
    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    json_t *out = json_pack("{s:s, s:s, s:b}", "schema", "tern.scale/1", "version", tern_version(), "quick", o.quick);
    json_t *workloads = json_array(), *dram = json_object();
    // Regions of no work right after the prices that they are judged by: a virtual machine's cores move about.
    bool ok = measure_constants(out, o.quick) && scale_measure_empty(workloads, o.quick) && measure_dram(dram, o.quick) &&
              scale_measure_gemm(workloads, o.workers, o.n_workers, o.quick);
    for (size_t i = 0; i < o.n_models && ok; i++)
        ok = scale_measure_model(workloads, o.models[i], o.workers, o.n_workers, o.quick);
    (void)json_object_set_new(out, "dram", dram);
    (void)json_object_set_new(out, "workloads", workloads);
    enum { DIGITS = 6 };
    if (ok && (json_dumpf(out, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(DIGITS)) != 0 || puts("") < 0))
        ok = sched_fail("stdout cannot be written");
    json_decref(out);
    return ok && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
