// SPDX-License-Identifier: MIT
// The figures of tern bench as a table for people and as JSON for scripts.
#include "bench_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double giga = 1e9, percent = 100;

static const char *residency(const bench_result *x) { return x->dram ? "dram" : "hot"; }
static double limit_giga(const bench *b, bench_limit limit) {
    return bench_median(b->limit[limit].value, b->limit[limit].n) / giga;
}
static double huge_share(const bench_result *x) { return x->rounds ? x->huge_page_bytes / x->bytes : (double)NAN; }
static double clock_giga(const bench *b) { return bench_median(b->clock.value, b->clock.n) / giga; }

// ---- JSON: keys are only ever added ---------------------------------------------------------------------------

// One object for each worker, in order; null where they could not be counted.
static json_t *workers_json(const tern_worker_counters *workers, int n) {
    json_t *array = workers ? json_array() : json_null();
    for (int i = 0; workers && i < n; i++) {
        const tern_worker_counters *c = &workers[i];
        (void)json_array_append_new(array, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "tiles", (json_int_t)c->tiles, "stolen",
                                                     (json_int_t)c->stolen, "regions", (json_int_t)c->regions, "spin_ns",
                                                     (json_int_t)c->spin_ns, "parks", (json_int_t)c->parks, "wakes",
                                                     (json_int_t)c->wakes));
    }
    return array;
}

static json_t *result_json(const bench *b, const bench_result *x) {
    const int threads = tern_context_threads(b->ctx);
    const double rate = bench_macs_per_second(x, x->seconds) / giga,
                 kernel = bench_macs_per_second(x, x->kernel_seconds) / giga;
    json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:I}", "op", x->op, "variant",
                               x->variant, "layout", x->layout, "symbol", x->symbol, "source", x->source, "residency",
                               residency(x), "m", (json_int_t)x->m, "n", (json_int_t)x->n, "k", (json_int_t)x->k, "scale_block",
                               (json_int_t)x->block, "threads", threads, "rounds", (json_int_t)x->rounds);
    json_t *figures = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "workers", workers_json(x->workers, threads),
        "huge_page_share", cli_real_json(huge_share(x)), "bits_per_weight", cli_real_json(x->bits_per_weight), "seconds",
        cli_real_json(x->seconds), "gops", cli_real_json(2 * rate), "gmacs", cli_real_json(rate), "gbps",
        cli_real_json(x->gbps), "mac_per_cycle", cli_real_json(bench_macs_per_cycle(x, x->seconds, threads)), "fraction",
        cli_real_json(x->fraction), "bound", x->rounds ? json_string(bench_limit_names[x->bound]) : json_null(), "kernel_gmacs",
        cli_real_json(kernel), "kernel_mac_per_cycle", cli_real_json(bench_macs_per_cycle(x, x->kernel_seconds, threads)),
        "kernel_fraction", cli_real_json(x->kernel_fraction), "clock_ghz", cli_real_json(x->clock / giga));
    const bool whole = object && figures && json_object_update(object, figures) == 0;
    json_decref(figures);
    if (whole) return object;
    json_decref(object);
    return NULL;
}

json_t *bench_report_json(const bench *b, const bench_report *r) {
    json_t *results = json_array();
    for (size_t i = 0; i < r->n; i++) (void)json_array_append_new(results, result_json(b, &r->results[i]));
    tern_cpu_info cpu = {.struct_size = sizeof cpu};
    (void)tern_get_cpu_info(b->ctx, &cpu);
    return json_pack("{s:s, s:s, s:b, s:o, s:s, s:{s:i, s:o, s:o, s:o, s:I, s:I, s:s, s:o}, s:o}", "schema", "tern.bench/1",
                     "version", tern_version(), "complete", r->complete, "cpu", cli_text_json(cpu.model), "tier", cpu.tier,
                     "roofline", "threads", tern_context_threads(b->ctx), "dram_gbps", cli_real_json(limit_giga(b, BENCH_DRAM)),
                     "l3_gbps", cli_real_json(limit_giga(b, BENCH_L3)), "vnni_gops",
                     cli_real_json(limit_giga(b, BENCH_INT8_PEAK)), "dram_bytes", (json_int_t)b->dram_bytes, "l3_bytes",
                     (json_int_t)b->l3_bytes, "int8_peak_variant", tern_stage_variant(b->ctx, "int8_peak"), "clock_ghz",
                     cli_real_json(clock_giga(b)), "results", results);
}

// ---- Table ------------------------------------------------------------------------------------------------------

static void print_limit(const char *name, double value, const char *unit) {
    if (isfinite(value)) {
        (void)printf("   %s %.1f %s", name, value, unit);
    } else {
        (void)printf("   %s not measured", name);
    }
}

static void print_fraction(double fraction, bench_limit bound) {
    if (isfinite(fraction)) {
        (void)printf("%4.0f %% of %-4s", fraction * percent, bench_limit_names[bound]);
    } else {
        (void)printf("%14s", "-");
    }
}

static void print_result(const bench *b, const bench_result *x) {
    const int threads = tern_context_threads(b->ctx);
    const char *symbol = strncmp(x->symbol, "tern_", strlen("tern_")) == 0 ? x->symbol + strlen("tern_") : x->symbol;
    (void)printf("%-10s %-26s %-4s %4zu %6zu %5zu", x->source, symbol, residency(x), x->m, x->n, x->k);
    if (x->rounds == 0) {
        (void)printf("  not measured\n");
        return;
    }
    if (x->block) {
        (void)printf(" %5zu", x->block);
    } else {
        (void)printf(" %5s", "-");
    }
    (void)printf(" %5.2f | %6.2f %7.1f %6.1f ", x->bits_per_weight, x->gbps, bench_macs_per_second(x, x->seconds) / giga,
                 bench_macs_per_cycle(x, x->seconds, threads));
    print_fraction(x->fraction, x->bound);
    if (isfinite(x->kernel_seconds)) {
        (void)printf(" | %7.1f %6.1f ", bench_macs_per_second(x, x->kernel_seconds) / giga,
                     bench_macs_per_cycle(x, x->kernel_seconds, threads));
        print_fraction(x->kernel_fraction, x->bound);
    }
    (void)printf("\n");
}

static void print_huge_pages(const bench_report *r) {
    double bytes = 0, huge = 0;
    for (size_t i = 0; i < r->n; i++) {
        bytes += r->results[i].bytes;
        huge += r->results[i].huge_page_bytes;
    }
    if (bytes > 0) (void)printf("   %.0f %% of the packed bytes lie on huge pages\n\n", percent * huge / bytes);
}

// What each worker did, over all products.
static void print_workers(const bench *b, const bench_report *r) {
    static const double milli = 1e3, nano = 1e-9;
    (void)printf("\n%-8s %12s %9s %10s %10s %8s %8s\n", "worker", "tiles", "stolen", "regions", "spin ms", "parks", "wakes");
    for (int worker = 0; worker < tern_context_threads(b->ctx); worker++) {
        tern_worker_counters sum = {.struct_size = sizeof sum};
        for (size_t i = 0; i < r->n; i++) {
            if (!r->results[i].workers) continue;
            const tern_worker_counters *c = &r->results[i].workers[worker];
            sum.tiles += c->tiles;
            sum.stolen += c->stolen;
            sum.regions += c->regions;
            sum.spin_ns += c->spin_ns;
            sum.parks += c->parks;
            sum.wakes += c->wakes;
        }
        (void)printf("%-8d %12llu %7.2f %% %10llu %10.1f %8llu %8llu\n", worker, (unsigned long long)sum.tiles,
                     sum.tiles ? percent * (double)sum.stolen / (double)sum.tiles : 0, (unsigned long long)sum.regions,
                     (double)sum.spin_ns * nano * milli, (unsigned long long)sum.parks, (unsigned long long)sum.wakes);
    }
}

void bench_report_print(const bench *b, const bench_report *r) {
    (void)printf("limits (measured between the products, with %d threads):\n", tern_context_threads(b->ctx));
    print_limit("DRAM", limit_giga(b, BENCH_DRAM), "GB/s");
    print_limit("L3", limit_giga(b, BENCH_L3), "GB/s");
    print_limit("INT8", limit_giga(b, BENCH_INT8_PEAK), "GOP/s");
    (void)printf(" (%s)", tern_stage_variant(b->ctx, "int8_peak"));
    print_limit("clock", clock_giga(b), "GHz");
    (void)printf("\n");
    print_huge_pages(r);
    (void)printf("%77s | %-36s | %s\n", "", "end to end, float32 to float32", "kernel");
    (void)printf("%-10s %-26s %-4s %4s %6s %5s %5s %5s | %6s %7s %6s %-14s | %7s %6s %s\n", "weights", "kernel", "from", "m",
                 "n", "k", "block", "bits", "GB/s", "GMAC/s", "MAC/cy", "  of the limit", "GMAC/s", "MAC/cy", "  of the limit");
    for (size_t i = 0; i < r->n; i++) print_result(b, &r->results[i]);
    print_workers(b, r);
}
