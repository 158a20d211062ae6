// SPDX-License-Identifier: MIT
// Topology, quota and workers as text and as JSON.
#include "info_topology.h"

#include <stdio.h>

static tern_worker_info worker_of(tern_context *ctx, int worker) {
    tern_worker_info info = {.struct_size = sizeof info};
    (void)tern_get_worker_info(ctx, worker, &info); // cannot fail: worker is one of the context's
    return info;
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

// What is numbered from 0; null where there is none.
static json_t *number_or_null(int number) { return number < 0 ? json_null() : json_integer(number); }

static json_t *worker_json(const tern_worker_info *w) {
    return json_pack("{s:o, s:o, s:o, s:o, s:i, s:i, s:o}", "cpu", number_or_null(w->cpu), "core", number_or_null(w->core),
                     "core_kind", number_or_null(w->core_kind), "last_level_cache", number_or_null(w->cache), "group", w->group,
                     "node", w->node, "share", cli_real_json(w->share));
}

json_t *info_topology_json(tern_context *ctx, const tern_topology_info *t) {
    json_t *cpus = json_array(), *workers = json_array();
    for (int i = 0; i < t->threads; i++) {
        const tern_worker_info w = worker_of(ctx, i);
        (void)json_array_append_new(cpus, json_integer(w.cpu));
        (void)json_array_append_new(workers, worker_json(&w));
    }
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:o, s:i, s:b, s:s, s:o, s:o}", //
                     "packages", t->packages, "numa_nodes", t->numa_nodes, "last_level_caches", t->last_level_caches,
                     "l2_caches", t->l2_caches, "cores", t->cores, "core_kinds", t->core_kinds, "cpus", t->pus, "l1d_bytes",
                     (json_int_t)t->l1d_bytes, "l2_bytes", (json_int_t)t->l2_bytes, "l3_bytes", (json_int_t)t->l3_bytes,
                     "quota_cpus", t->quota_cpus > 0 ? cli_real_json(t->quota_cpus) : json_null(), //
                     "threads", t->threads, "pinned", t->pinned, "pin", t->pin, "worker_cpus", cpus, "workers", workers);
}

// ---- text -----------------------------------------------------------------------------------------------------------

static void print_cache(const char *name, size_t bytes) {
    if (bytes) (void)printf(", %s %zu KiB", name, bytes >> 10);
}

// "0-3, 8": the numbers, of a CPU or of its core, of workers first .. end - 1, each run of neighbours once.
static void print_numbers(tern_context *ctx, int first, int end, bool of_core) {
    const char *separator = "";
    for (int i = first; i < end;) {
        const tern_worker_info w = worker_of(ctx, i);
        const int from = of_core ? w.core : w.cpu;
        int to = from;
        for (i++; i < end; i++) {
            const tern_worker_info next = worker_of(ctx, i);
            const int number = of_core ? next.core : next.cpu;
            if (number != to && number != to + 1) break;
            to = number;
        }
        (void)printf(to == from ? "%s%d" : "%s%d-%d", separator, from, to);
        separator = ", ";
    }
}

static bool alike(const tern_worker_info *a, const tern_worker_info *b) {
    return a->group == b->group && a->node == b->node && a->cache == b->cache && a->core_kind == b->core_kind;
}

// Workers that differ in nothing but their CPUs, in one line.
static void print_alike(tern_context *ctx, const tern_topology_info *t, int first, int end) {
    static const double percent = 100;
    const tern_worker_info w = worker_of(ctx, first);
    double share = 0;
    for (int i = first; i < end; i++) share += worker_of(ctx, i).share;
    (void)printf(end - first == 1 ? "\n          worker %d" : "\n          workers %d-%d", first, end - 1);
    if (w.cpu < 0) {
        (void)printf(": not bound");
    } else {
        const bool one = end - first == 1;
        (void)printf(one ? ": CPU " : ": CPUs ");
        print_numbers(ctx, first, end, false);
        (void)printf(one ? " of core " : " of cores ");
        print_numbers(ctx, first, end, true);
        if (t->core_kinds > 1) (void)printf(" of kind %d", w.core_kind);
        (void)printf(", last-level cache %d, NUMA node %d", w.cache, w.node);
    }
    (void)printf(", group %d: %.1f %% of the rows", w.group, percent * share);
}

void info_topology_print(tern_context *ctx, const tern_topology_info *t) {
    (void)printf(
        "topology  packages %d, NUMA nodes %d, last-level caches %d, L2 caches %d, cores %d, CPUs %d (that Tern may use)\n",
        t->packages, t->numa_nodes, t->last_level_caches, t->l2_caches, t->cores, t->pus);
    if (t->core_kinds > 1) (void)printf("          kinds of cores %d, 0 is the most efficient one\n", t->core_kinds);
    (void)printf("          caches%s", t->l1d_bytes + t->l2_bytes + t->l3_bytes ? "" : " unknown");
    print_cache("L1d", t->l1d_bytes);
    print_cache("L2", t->l2_bytes);
    print_cache("L3", t->l3_bytes);
    if (t->quota_cpus > 0)
        (void)printf("\nquota     %g CPUs of time, by cgroup", t->quota_cpus);
    else
        (void)printf("\nquota     none");
    (void)printf("\nthreads   %d, pin %s", t->threads, t->pin);
    for (int first = 0, end; first < t->threads; first = end) {
        const tern_worker_info w = worker_of(ctx, first);
        for (end = first + 1; end < t->threads; end++) {
            const tern_worker_info next = worker_of(ctx, end);
            if (!alike(&w, &next)) break;
        }
        print_alike(ctx, t, first, end);
    }
    (void)putchar('\n');
}
