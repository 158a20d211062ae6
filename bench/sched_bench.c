// SPDX-License-Identifier: MIT
// Measures the scheduler through the public API: what regions and stages cost beside OpenMP and a mutex/condvar pool, what a
// second core brings, and how the pool behaves when it is idle or must share its CPUs. JSON or a table.
#include "sched_bench.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sched_peers.h"

// ---- Options ------------------------------------------------------------------------------------------------------------

typedef bool part_fn(sched_bench *b);
static const struct {
    const char *name;
    part_fn *measure;
} parts[] = {{"latency", sched_measure_latency},
             {"scaling", sched_measure_scaling},
             {"idle", sched_measure_idle},
             {"crowd", sched_measure_crowd}};
enum { PARTS = sizeof parts / sizeof *parts };

typedef struct options {
    bool json, quick;
    const char *only; // name of a part; NULL: all
} options;

enum { KEY_JSON = 0x100, KEY_QUICK, KEY_ONLY };
static const struct argp_option option_list[] = {
    {"json", KEY_JSON, NULL, 0, "Print one JSON object", 0},
    {"quick", KEY_QUICK, NULL, 0, "A few samples of everything: shows that it runs, not how fast", 0},
    {"only", KEY_ONLY, "PART", 0, "Only this part: latency, scaling, idle or crowd", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    options *o = state->input;
    switch (key) {
    case KEY_JSON:
        o->json = true;
        return 0;
    case KEY_QUICK:
        o->quick = true;
        return 0;
    case KEY_ONLY:
        o->only = arg;
        for (size_t i = 0; i < PARTS; i++) {
            if (strcmp(arg, parts[i].name) == 0) return 0;
        }
        argp_error(state, "--only %s: no such part", arg);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// ---- Report -------------------------------------------------------------------------------------------------------------

static void print_real(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (json_is_number(value)) {
        (void)printf(" %9.3f", json_number_value(value));
    } else {
        (void)printf(" %9s", "-");
    }
}

// What a case has beside the columns: "key value", in its order.
static void print_rest(json_t *object) {
    static const char *const columns[] = {"case", "who", "unit", "samples", "median", "q1", "q3", "p99"};
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        bool shown = false;
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) shown |= strcmp(key, columns[i]) == 0;
        if (shown) continue;
        if (json_is_integer(value)) {
            (void)printf("  %s %lld", key, (long long)json_integer_value(value));
        } else if (json_is_real(value)) {
            (void)printf("  %s %.3g", key, json_real_value(value));
        } else {
            (void)printf("  %s %s", key,
                         json_is_string(value)  ? json_string_value(value)
                         : json_is_true(value)  ? "yes"
                         : json_is_false(value) ? "NO"
                                                : "-");
        }
    }
}

static void print_table(const sched_bench *b) {
    size_t i;
    json_t *c;
    (void)printf("%-52s %-14s %-4s %9s %9s %9s %9s %8s\n", "case", "who", "unit", "median", "q1", "q3", "p99", "samples");
    json_array_foreach(b->cases, i, c) {
        (void)printf("%-52s %-14s %-4s", json_string_value(json_object_get(c, "case")),
                     json_string_value(json_object_get(c, "who")), json_string_value(json_object_get(c, "unit")));
        print_real(c, "median");
        print_real(c, "q1");
        print_real(c, "q3");
        print_real(c, "p99");
        (void)printf(" %8lld", (long long)json_integer_value(json_object_get(c, "samples")));
        print_rest(c);
        (void)printf("\n");
    }
}

static bool print_json(const sched_bench *b, const char *cpu, int pus) {
    static const double giga = 1e9;
    enum { DIGITS = 6 };
    json_t *object = json_pack("{s:s, s:s, s:s, s:i, s:o, s:b, s:b, s:O}", "schema", "tern.sched_bench/1", "version",
                               tern_version(), "cpu", cpu, "pus", pus, "clock_ghz", json_real(1 / tern_cycle_seconds() / giga),
                               "quick", b->quick, "openmp", sched_openmp_peer() != NULL, "cases", b->cases);
    const bool ok = object && json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(DIGITS)) == 0 && puts("") >= 0;
    json_decref(object);
    return ok || sched_fail("no memory for the JSON output, or stdout cannot be written");
}

// ---- Main ---------------------------------------------------------------------------------------------------------------

// Where the workers of a context stand. Two workers on one CPU would measure something else.
static bool look_around(sched_bench *b, char cpu[BUFSIZ], int *pus) {
    tern_context *ctx = sched_open(SCHED_PAIR);
    if (!ctx) return false;
    tern_cpu_info info = {.struct_size = sizeof info};
    tern_topology_info topology = {.struct_size = sizeof topology};
    const bool ok = tern_get_cpu_info(ctx, &info) == TERN_OK && tern_get_topology_info(ctx, &topology) == TERN_OK;
    (void)snprintf(cpu, BUFSIZ, "%s", ok ? info.model : "");
    *pus = topology.pus;
    for (int i = 0; i < SCHED_PAIR; i++) b->cpus[i] = tern_worker_cpu(ctx, i);
    tern_context_destroy(ctx);
    return ok || sched_fail("the machine could not be described");
}

int main(int argc, char **argv) {
    static const struct argp argp = {.options = option_list,
                                     .parser = parse,
                                     .doc =
                                         "Measures Tern's scheduler beside OpenMP and a mutex/condvar pool. About a minute."};
    options o = {.json = false};
    char cpu[BUFSIZ];
    int pus = 0;
    if (!sched_openmp_prepare(argv)) return EXIT_FAILURE;
    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    sched_bench b = {.quick = o.quick, .cases = json_array()};
    bool ok = b.cases && look_around(&b, cpu, &pus);
    for (size_t i = 0; i < PARTS && ok; i++) {
        if (!o.only || strcmp(o.only, parts[i].name) == 0) ok = parts[i].measure(&b);
    }
    if (ok && o.json) {
        ok = print_json(&b, cpu, pus);
    } else if (ok) {
        print_table(&b);
    }
    json_decref(b.cases);
    return ok && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
