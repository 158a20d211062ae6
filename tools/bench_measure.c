// SPDX-License-Identifier: MIT
// Measures products against this machine's limits, both in turn (A B A B), so that a fraction is a ratio inside one run.
#include "bench_measure.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

const char *const bench_limit_names[BENCH_LIMITS] = {"dram", "l3", "int8"};

// L3_SHARE: a sweep reads this part of the cache. A virtual machine often owns only a part of it: of the 32 MB that one tells,
// 8 read at full speed and 16 at half of it. L2_TIMES: but so much more than the L2 caches that they hold nothing of it.
enum { DRAM_BYTES = 320 << 20, L3_SHARE = 8, L2_TIMES = 4, L3_SWEEPS = 4 };

// ---- Small statistics -----------------------------------------------------------------------------------------

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(const double *values, size_t n) {
    double sorted[BENCH_SAMPLES_MAX];
    if (n == 0) return (double)NAN;
    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, by_value);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double bench_macs_per_second(const bench_result *r, double seconds) {
    return (double)r->m * (double)r->n * (double)r->k / seconds;
}

double bench_macs_per_cycle(const bench_result *r, double seconds, int threads) {
    return bench_macs_per_second(r, seconds) / r->clock / threads;
}

// ---- Set-up ---------------------------------------------------------------------------------------------------

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }
static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

static tern_status create_probes(bench *b) {
    tern_topology_info topology = {.struct_size = sizeof topology};
    const tern_status status = tern_get_topology_info(b->ctx, &topology);
    if (status != TERN_OK) return status;
    const size_t l2_bytes = L2_TIMES * topology.l2_bytes * (size_t)topology.threads;
    const size_t l3_bytes = min_size(max_size(topology.l3_bytes / L3_SHARE, l2_bytes), topology.l3_bytes / 2);
    const size_t dram_bytes = max_size(topology.l3_bytes * 2, DRAM_BYTES);
    // A probe that cannot be had leaves its limit, and what hangs on it, not measured.
    if (tern_read_probe_create(b->ctx, &b->dram, dram_bytes) == TERN_OK) b->dram_bytes = dram_bytes;
    if (l3_bytes > 0 && tern_read_probe_create(b->ctx, &b->l3, l3_bytes) == TERN_OK) b->l3_bytes = l3_bytes;
    return TERN_OK;
}

tern_status bench_create(bench *b, tern_context *ctx, const bench_plan *plan, size_t rounds, const char **what) {
    *b = (bench){.ctx = ctx, .rounds = rounds};
    *what = NULL;
    size_t n_max = 1, k_max = 1;
    for (size_t i = 0; i < plan->n_matrices; i++) {
        n_max = max_size(n_max, plan->matrices[i].n);
        k_max = max_size(k_max, plan->matrices[i].k);
    }
    b->x = malloc(BENCH_M_MAX * k_max * sizeof *b->x);
    b->y = malloc(BENCH_M_MAX * n_max * sizeof *b->y);
    if (!bench_data_create(&b->data, plan->matrices, plan->n_matrices) || !b->x || !b->y) {
        *what = "the weights to multiply";
        return TERN_ERR_MEMORY;
    }
    enum { X_PERIOD = 251 }; // -125..125: any values will do, no kernel's speed depends on them
    for (size_t i = 0; i < BENCH_M_MAX * k_max; i++) b->x[i] = (float)(i % X_PERIOD) - (float)(X_PERIOD / 2);

    tern_status status = tern_activations_create(ctx, &b->one, 1, k_max);
    if (status == TERN_OK) status = tern_activations_create(ctx, &b->many, BENCH_M_MAX, k_max);
    return status == TERN_OK ? create_probes(b) : status;
}

void bench_destroy(bench *b) {
    tern_read_probe_destroy(b->dram);
    tern_read_probe_destroy(b->l3);
    tern_activations_destroy(b->one);
    tern_activations_destroy(b->many);
    bench_data_destroy(&b->data);
    free(b->x);
    free(b->y);
    *b = (bench){0};
}

// ---- Limits -----------------------------------------------------------------------------------------------------

static double keep(bench_samples *samples, double value) {
    if (isfinite(value) && samples->n < BENCH_SAMPLES_MAX) samples->value[samples->n++] = value;
    return value;
}

// Bytes per second of the fastest of some sweeps.
static double read_rate(bench *b, tern_read_probe *probe, size_t bytes, int sweeps) {
    double best = (double)INFINITY;
    for (int i = 0; i < sweeps; i++) {
        double seconds = 0;
        if (!probe || tern_read_probe_sweep(b->ctx, probe, &seconds) != TERN_OK) return (double)NAN;
        best = fmin(best, seconds);
    }
    return (double)bytes / best;
}

static double dram_rate(bench *b) { return keep(&b->limit[BENCH_DRAM], read_rate(b, b->dram, b->dram_bytes, 1)); }

// How fast as many bytes are read as a hot matrix has, wherever this machine keeps them. What ran before has left other data in
// the cache: the first sweep brings the memory back.
static double cache_rate(bench *b, tern_read_probe *same, size_t bytes) {
    (void)keep(&b->limit[BENCH_L3], read_rate(b, b->l3, b->l3_bytes, L3_SWEEPS));
    return read_rate(b, same, bytes, L3_SWEEPS);
}

static double int8_peak(bench *b) {
    double ops = 0, seconds = 0;
    if (tern_int8_peak(b->ctx, &ops, &seconds) != TERN_OK) return (double)NAN;
    return keep(&b->limit[BENCH_INT8_PEAK], ops / seconds);
}

static double clock_rate(bench *b) { return keep(&b->clock, 1 / tern_cycle_seconds()); }

// ---- One product --------------------------------------------------------------------------------------------------

// One matrix of one kernel, ready to be multiplied.
typedef struct subject {
    const tern_weights *w;
    tern_weights_info info;
} subject;

static tern_status create_subject(bench *b, bench_source source, bench_matrix matrix, size_t m, tern_weights **w, subject *s) {
    const tern_status status = bench_source_create(b->ctx, w, source, &b->data, matrix, m);
    if (status != TERN_OK) return status;
    *s = (subject){*w, {.struct_size = sizeof s->info}};
    return tern_weights_get_info(b->ctx, *w, &s->info);
}

static tern_status quantize(bench *b, const subject *s, size_t m) {
    return tern_activations_set_f32(b->ctx, m == 1 ? b->one : b->many, b->x, m, s->info.k, s->info.k, s->info.act_block);
}

static tern_status end_to_end(bench *b, const subject *s, size_t m, double *seconds) {
    const double start = cli_seconds();
    tern_status status = quantize(b, s, m);
    if (status == TERN_OK) status = tern_matmul_f32(b->ctx, s->w, m == 1 ? b->one : b->many, b->y, s->info.n, NULL);
    *seconds = cli_seconds() - start;
    return status;
}

// The activations are as the last product on the same weights left them. Y is as large in int32 as in float32.
static tern_status kernel(bench *b, const subject *s, size_t m, double *seconds) {
    tern_activations *a = m == 1 ? b->one : b->many;
    const double start = cli_seconds();
    const tern_status status = s->info.scale_block && s->info.scale_block < s->info.k
                                   ? tern_matmul_f32(b->ctx, s->w, a, b->y, s->info.n, NULL)
                                   : tern_matmul_s32(b->ctx, s->w, a, (int32_t *)b->y, s->info.n);
    *seconds = cli_seconds() - start;
    return status;
}

typedef tern_status product_fn(bench *b, const subject *s, size_t m, double *seconds);

// The mean of as many products as a few milliseconds hold, after one that brings the weights back into cache; or that one, if
// it is so long that this does not matter.
static tern_status repeat(bench *b, product_fn *product, const subject *s, size_t m, double *seconds) {
    static const double round_seconds = 5e-3;
    enum { REPEATS_MAX = 256 };
    double total = 0, one = 0;
    size_t n = 0;
    tern_status status = product(b, s, m, &one);
    if (one > round_seconds) total += one, n++;
    while (status == TERN_OK && n < REPEATS_MAX && (n == 0 || total < round_seconds)) {
        status = product(b, s, m, &one);
        total += one;
        n++;
    }
    *seconds = total / (double)n;
    return status;
}

// ---- Traces: apart from what is measured -------------------------------------------------------------------------

enum { TRACE_PRODUCTS = 3, TRACE_EVENTS = 1 << 12 };

// A few products of a case, end to end, with copy 0, `step`, 2 * step ... of n: the first one still feels that the trace was
// prepared.
static tern_status trace_products(bench *b, const subject *copies, size_t n, size_t step, size_t m) {
    if (!b->trace || b->trace_failed) return TERN_OK;
    tern_status status = TERN_OK;
    int rc = trace_begin(b->trace, b->ctx, TRACE_EVENTS);
    for (size_t i = 0; i < TRACE_PRODUCTS && rc == CLI_OK && status == TERN_OK; i++) {
        const subject *s = &copies[i * step % n];
        double seconds = 0;
        const double begin = cli_seconds();
        status = end_to_end(b, s, m, &seconds);
        trace_mark(b->trace, begin, begin + seconds, "%s %zux%zu m%zu %s", s->info.kernel, s->info.n, s->info.k, m,
                   n > 1 ? "dram" : "hot");
    }
    if (rc == CLI_OK) rc = trace_end(b->trace, b->ctx);
    if (rc == CLI_OK) rc = trace_append(b->trace, b->ctx);
    b->trace_failed = rc != CLI_OK; // its error line stands already
    return status;
}

// ---- Rounds ---------------------------------------------------------------------------------------------------------

// Seconds of one product, and in the same round the limits: memory (dram or l3) and arithmetic, and the clock.
typedef struct rounds {
    double seconds[BENCH_ROUNDS_MAX], kernel_seconds[BENCH_ROUNDS_MAX];
    double memory[BENCH_ROUNDS_MAX], arithmetic[BENCH_ROUNDS_MAX], clock[BENCH_ROUNDS_MAX];
    size_t n;
    tern_worker_counters *workers; // see bench_result
} rounds;

// ---- What each worker did -------------------------------------------------------------------------------------------

static tern_worker_counters *create_counters(const bench *b) {
    return calloc((size_t)tern_context_threads(b->ctx), sizeof(tern_worker_counters));
}

// sum = now - sum. Called before and after a stretch of work, it adds to the sum what came to be in between.
static void count_since(const bench *b, tern_worker_counters *sum) {
    for (int i = 0; sum && i < tern_context_threads(b->ctx); i++) {
        tern_worker_counters now = {.struct_size = sizeof now};
        if (tern_get_worker_counters(b->ctx, i, &now) != TERN_OK) continue;
        sum[i] = (tern_worker_counters){.struct_size = sizeof now,
                                        .tiles = now.tiles - sum[i].tiles,
                                        .regions = now.regions - sum[i].regions,
                                        .parks = now.parks - sum[i].parks,
                                        .stolen = now.stolen - sum[i].stolen,
                                        .spin_ns = now.spin_ns - sum[i].spin_ns,
                                        .wakes = now.wakes - sum[i].wakes};
    }
}

static tern_worker_counters *copy_counters(const bench *b, const tern_worker_counters *counters) {
    tern_worker_counters *copy = counters ? create_counters(b) : NULL;
    if (copy) memcpy(copy, counters, (size_t)tern_context_threads(b->ctx) * sizeof *copy);
    return copy;
}

void bench_release(bench_result *results, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(results[i].workers);
        results[i].workers = NULL;
    }
}

static void describe(const bench *b, const char *symbol, bench_result *result) {
    for (size_t i = 0; i < tern_variant_count(); i++) {
        tern_variant_info v = {.struct_size = sizeof v};
        if (tern_variant_get(b->ctx, i, &v) != TERN_OK || strcmp(v.symbol, symbol) != 0) continue;
        result->op = v.stage;
        result->variant = v.tier;
        result->layout = v.layout;
        result->symbol = v.symbol;
    }
}

// Medians of what each round took of the limit `work` per second.
static double fraction(const double *limit, const double *seconds, size_t n, double work) {
    double values[BENCH_ROUNDS_MAX];
    for (size_t i = 0; i < n; i++) values[i] = work / limit[i] / seconds[i];
    return bench_median(values, n);
}

static void finish(const bench *b, const tern_weights_info *info, bench_limit memory, const rounds *r, bench_result *result) {
    static const double giga = 1e9;
    const double bytes = (double)info->bytes, ops = 2.0 * (double)result->m * (double)info->n * (double)info->k;
    const double by_memory = fraction(r->memory, r->seconds, r->n, bytes);
    const double by_arithmetic = fraction(r->arithmetic, r->seconds, r->n, ops);
    const bool arithmetic = by_arithmetic > by_memory, known = isfinite(by_memory) && isfinite(by_arithmetic);
    describe(b, info->kernel, result);
    result->rounds = r->n;
    result->workers = copy_counters(b, r->workers);
    result->bits_per_weight = info->bits_per_weight;
    result->bytes = bytes;
    result->huge_page_bytes = (double)info->huge_page_bytes;
    result->clock = bench_median(r->clock, r->n);
    result->seconds = bench_median(r->seconds, r->n);
    result->kernel_seconds = bench_median(r->kernel_seconds, r->n);
    result->gbps = bytes / result->seconds / giga;
    // Both fractions are known, or the binding one is not.
    result->bound = arithmetic ? BENCH_INT8_PEAK : memory;
    result->fraction = known ? fmax(by_memory, by_arithmetic) : (double)NAN;
    result->kernel_fraction =
        fraction(arithmetic ? r->arithmetic : r->memory, r->kernel_seconds, r->n, arithmetic ? ops : bytes);
}

// ---- One copy, in cache as far as it fits ---------------------------------------------------------------------------

static const double case_seconds = 1.5;                  // slow kernels stop after fewer rounds, but never before three
enum { ROUNDS_MIN = 3, M_LARGE = 512, SAME_MIN = 4096 }; // SAME_MIN: a probe reads whole units

// The largest power of two up to 512 whose product takes a quarter of a second at most.
static tern_status choose_m(bench *b, const subject *s, size_t *m) {
    static const double seconds_max = 0.25;
    double seconds = 0;
    const tern_status status = repeat(b, end_to_end, s, 1, &seconds);
    for (*m = M_LARGE; *m > 2 && (double)*m * seconds > seconds_max;) *m /= 2;
    return status;
}

static tern_status measure_hot(bench *b, bench_source source, bench_matrix matrix, bench_result *result) {
    tern_weights *w = NULL;
    subject s;
    rounds r = {.workers = create_counters(b)};
    tern_status status = create_subject(b, source, matrix, result->m ? result->m : M_LARGE, &w, &s);
    if (status == TERN_OK && result->m == BENCH_M_LARGE) status = choose_m(b, &s, &result->m);
    tern_read_probe *same = NULL; // without it the fraction is not measured
    const size_t same_bytes = status == TERN_OK ? max_size(s.info.bytes, SAME_MIN) : SAME_MIN;
    if (status == TERN_OK) (void)tern_read_probe_create(b->ctx, &same, same_bytes);
    const double start = cli_seconds();
    while (status == TERN_OK && r.n < b->rounds) {
        r.memory[r.n] = cache_rate(b, same, same_bytes);
        r.arithmetic[r.n] = int8_peak(b);
        r.clock[r.n] = clock_rate(b);
        count_since(b, r.workers);
        status = repeat(b, end_to_end, &s, result->m, &r.seconds[r.n]);
        if (status == TERN_OK) status = repeat(b, kernel, &s, result->m, &r.kernel_seconds[r.n]);
        count_since(b, r.workers);
        if (++r.n >= ROUNDS_MIN && cli_seconds() - start > case_seconds) break;
    }
    if (status == TERN_OK) finish(b, &s.info, BENCH_L3, &r, result);
    if (status == TERN_OK) status = trace_products(b, &s, 1, 0, result->m);
    tern_read_probe_destroy(same);
    tern_weights_destroy(w);
    free(r.workers);
    return status;
}

// ---- Copies of all matrices, more than any cache holds ---------------------------------------------------------------

typedef struct ring {
    tern_weights **w; // copy c of matrix i at [c * n_matrices + i]
    subject *copies;
    size_t n, n_matrices;
    size_t matrices[BENCH_MATRICES_MAX]; // the plan's
} ring;

static void destroy_ring(ring *r) {
    for (size_t i = 0; i < r->n; i++) tern_weights_destroy(r->w[i]);
    free(r->w);
    free(r->copies);
}

static bool grow_ring(ring *r, size_t room) {
    tern_weights **w = realloc(r->w, room * sizeof(tern_weights *));
    if (w) r->w = w;
    subject *copies = realloc(r->copies, room * sizeof *copies);
    if (copies) r->copies = copies;
    return w && copies;
}

static tern_status create_ring(bench *b, bench_source source, const bench_plan *plan, ring *r) {
    for (size_t i = 0; i < plan->n_matrices; i++) {
        bool wanted = false;
        for (size_t c = 0; c < plan->n_cases; c++) wanted |= plan->cases[c].dram && plan->cases[c].matrix == i;
        if (wanted) r->matrices[r->n_matrices++] = i;
    }
    size_t bytes = 0, room = 0;
    while (r->n_matrices > 0 && bytes < b->dram_bytes) {
        if (room - r->n < r->n_matrices) {
            room = 2 * room + r->n_matrices;
            if (!grow_ring(r, room)) return TERN_ERR_MEMORY;
        }
        for (size_t i = 0; i < r->n_matrices; i++) {
            r->w[r->n] = NULL;
            const tern_status status =
                create_subject(b, source, plan->matrices[r->matrices[i]], 1, &r->w[r->n], &r->copies[r->n]);
            r->n++;
            if (status != TERN_OK) return status;
            bytes += r->copies[r->n - 1].info.bytes;
        }
    }
    return TERN_OK;
}

// All cases of one m: each round multiplies every copy once, between two sweeps of the probe.
static tern_status measure_ring(bench *b, const ring *copies, size_t m, rounds r[BENCH_MATRICES_MAX]) {
    const double copies_of_each = (double)copies->n / (double)copies->n_matrices; // a whole number
    const double start = cli_seconds();
    double before = dram_rate(b);
    for (size_t round = 0; round <= b->rounds; round++) { // round 0 warms up
        double total[BENCH_MATRICES_MAX] = {0};
        for (size_t i = 0; i < copies->n; i++) {
            double seconds = 0;
            count_since(b, r[i % copies->n_matrices].workers);
            const tern_status status = end_to_end(b, &copies->copies[i], m, &seconds);
            count_since(b, r[i % copies->n_matrices].workers);
            if (status != TERN_OK) return status;
            total[i % copies->n_matrices] += seconds;
        }
        const double after = dram_rate(b), arithmetic = int8_peak(b), clock = clock_rate(b);
        for (size_t i = 0; round > 0 && i < copies->n_matrices; i++) {
            r[i].seconds[r[i].n] = total[i] / copies_of_each;
            r[i].kernel_seconds[r[i].n] = (double)NAN;
            r[i].memory[r[i].n] = (before + after) / 2;
            r[i].clock[r[i].n] = clock;
            r[i].arithmetic[r[i].n++] = arithmetic;
        }
        before = after;
        if (round >= ROUNDS_MIN && cli_seconds() - start > case_seconds) break;
    }
    return TERN_OK;
}

static tern_status measure_dram(bench *b, bench_source source, const bench_plan *plan, bench_result *results) {
    ring copies = {.n = 0};
    tern_status status = b->dram ? create_ring(b, source, plan, &copies) : TERN_ERR_MEMORY;
    bool done[BENCH_CASES_MAX] = {false};
    for (size_t first = 0; status == TERN_OK && first < plan->n_cases; first++) {
        if (!plan->cases[first].dram || done[first]) continue;
        rounds r[BENCH_MATRICES_MAX] = {{.n = 0}};
        for (size_t i = 0; i < copies.n_matrices; i++) r[i].workers = create_counters(b);
        const size_t m = plan->cases[first].m;
        status = measure_ring(b, &copies, m, r);
        for (size_t c = first; status == TERN_OK && c < plan->n_cases; c++) {
            if (!plan->cases[c].dram || plan->cases[c].m != m) continue;
            size_t i = 0;
            while (copies.matrices[i] != plan->cases[c].matrix) i++;
            assert(copies.copies); // of each matrix that a case wants
            finish(b, &copies.copies[i].info, BENCH_DRAM, &r[i], &results[c]);
            status = trace_products(b, &copies.copies[i], copies.n - i, copies.n_matrices, m);
            done[c] = true;
        }
        for (size_t i = 0; i < copies.n_matrices; i++) free(r[i].workers);
    }
    destroy_ring(&copies);
    return status;
}

tern_status bench_measure(bench *b, bench_source source, const bench_plan *plan, bench_result *results) {
    const double unknown = (double)NAN;
    tern_status failed = TERN_OK;
    bool any_dram = false;
    for (size_t c = 0; c < plan->n_cases; c++) {
        const bench_case *wanted = &plan->cases[c];
        const bench_matrix matrix = plan->matrices[wanted->matrix];
        results[c] = (bench_result){.op = "-",
                                    .variant = "-",
                                    .layout = "-",
                                    .symbol = "-",
                                    .source = bench_source_name(source),
                                    .dram = wanted->dram,
                                    .m = wanted->m,
                                    .n = matrix.n,
                                    .k = matrix.k,
                                    .block = matrix.block,
                                    .bits_per_weight = unknown,
                                    .clock = unknown,
                                    .seconds = unknown,
                                    .fraction = unknown,
                                    .kernel_seconds = unknown,
                                    .kernel_fraction = unknown,
                                    .gbps = unknown};
        any_dram |= wanted->dram;
        const tern_status status = wanted->dram ? TERN_OK : measure_hot(b, source, matrix, &results[c]);
        if (failed == TERN_OK) failed = status;
    }
    const tern_status status = any_dram ? measure_dram(b, source, plan, results) : TERN_OK;
    return failed != TERN_OK ? failed : status;
}
