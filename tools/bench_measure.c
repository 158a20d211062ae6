// SPDX-License-Identifier: MIT
// Measures products against this machine's limits, both in turn (A B A B), so that a fraction is a ratio inside one run.
#include "bench_measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

const char *const bench_op_names[BENCH_OPS] = {"lut_gemm", "mad_gemm", "int8_gemm", "int8_gemm_b32"};
const char *const bench_limit_names[BENCH_LIMITS] = {"dram", "l3", "int8"};

enum { SCALE_BLOCK = 32, DRAM_BYTES = 320 << 20, L3_BYTES_MAX = 16 << 20 };

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

// ---- Set-up ---------------------------------------------------------------------------------------------------

static uint64_t next_random(uint64_t *state) { // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fill_random(bench *b, size_t weights, size_t activations) {
    enum { TRITS = 3 };
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < weights; i++) {
        const uint64_t r = next_random(&state);
        b->codes[i] = (int8_t)(r & 0xFF);
        b->trits[i] = (int8_t)((int)(((r >> 32) * TRITS) >> 32) - 1);
    }
    for (size_t i = 0; i < activations; i++) b->x[i] = (int8_t)(next_random(&state) & 0xFF);
}

tern_status bench_create(bench *b, tern_context *ctx, const bench_shape *shapes, size_t n_shapes, size_t rounds,
                         const char **what) {
    *b = (bench){.ctx = ctx, .shapes = shapes, .n_shapes = n_shapes, .rounds = rounds};
    *what = NULL;
    size_t weights = 1, n_max = 1, k_max = 1;
    for (size_t i = 0; i < n_shapes; i++) {
        if (shapes[i].n * shapes[i].k > weights) weights = shapes[i].n * shapes[i].k;
        if (shapes[i].n > n_max) n_max = shapes[i].n;
        if (shapes[i].k > k_max) k_max = shapes[i].k;
    }
    const size_t n_scales = weights / SCALE_BLOCK + n_max, n_x_scales = BENCH_M_MAX * (k_max / SCALE_BLOCK + 1);
    b->codes = malloc(weights);
    b->trits = malloc(weights);
    b->x = malloc(BENCH_M_MAX * k_max);
    b->scales = malloc(n_scales * sizeof *b->scales);
    b->x_scales = malloc(n_x_scales * sizeof *b->x_scales);
    b->y = malloc(BENCH_M_MAX * n_max * sizeof *b->y);
    if (!b->codes || !b->trits || !b->x || !b->scales || !b->x_scales || !b->y) {
        *what = "the weights to multiply";
        return TERN_ERR_MEMORY;
    }
    enum { SCALE_PERIOD = 7 }; // scales that differ from block to block, so that no two fold into one
    for (size_t i = 0; i < n_scales; i++) b->scales[i] = 1.0F / (float)(64 + i % SCALE_PERIOD);
    for (size_t i = 0; i < n_x_scales; i++) b->x_scales[i] = 1.0F / (float)(128 + i % SCALE_PERIOD);
    fill_random(b, weights, BENCH_M_MAX * k_max);

    tern_topology_info topology = {.struct_size = sizeof topology};
    tern_status status = tern_get_topology_info(ctx, &topology);
    if (status == TERN_OK) status = tern_activations_create(ctx, &b->one, 1, k_max);
    if (status == TERN_OK) status = tern_activations_create(ctx, &b->many, BENCH_M_MAX, k_max);
    if (status != TERN_OK) return status;
    b->l3_size = topology.l3_bytes;
    const size_t l3_bytes = topology.l3_bytes / 2 < L3_BYTES_MAX ? topology.l3_bytes / 2 : L3_BYTES_MAX;
    const size_t dram_bytes = topology.l3_bytes * 2 > DRAM_BYTES ? topology.l3_bytes * 2 : DRAM_BYTES;
    // A probe that cannot be had leaves its limit, and what hangs on it, not measured.
    if (tern_read_probe_create(ctx, &b->dram, dram_bytes) == TERN_OK) b->dram_bytes = dram_bytes;
    if (l3_bytes > 0 && tern_read_probe_create(ctx, &b->l3, l3_bytes) == TERN_OK) b->l3_bytes = l3_bytes;
    return TERN_OK;
}

void bench_destroy(bench *b) {
    tern_read_probe_destroy(b->dram);
    tern_read_probe_destroy(b->l3);
    tern_activations_destroy(b->one);
    tern_activations_destroy(b->many);
    free(b->codes);
    free(b->trits);
    free(b->x);
    free(b->scales);
    free(b->x_scales);
    free(b->y);
    *b = (bench){0};
}

static tern_status create_weights(bench *b, bench_op op, bench_shape s, tern_weights **w) {
    const tern_weights_params params = {.struct_size = sizeof params, .form = op == BENCH_LUT ? TERN_FORM_LUT : TERN_FORM_MAD};
    switch (op) {
    case BENCH_INT8:
        return tern_weights_from_s8(b->ctx, w, b->codes, b->scales, s.k, s.n, s.k, s.k, &params);
    case BENCH_INT8_B32:
        return tern_weights_from_s8(b->ctx, w, b->codes, b->scales, SCALE_BLOCK, s.n, s.k, s.k, &params);
    default:
        return tern_weights_from_trits(b->ctx, w, b->trits, b->scales, 0, s.n, s.k, s.k, &params);
    }
}

// ---- Limits -----------------------------------------------------------------------------------------------------

static double keep(bench_samples *samples, double value) {
    if (isfinite(value) && samples->n < BENCH_SAMPLES_MAX) samples->value[samples->n++] = value;
    return value;
}

static double sweep(bench *b, bench_limit which) {
    tern_read_probe *probe = which == BENCH_DRAM ? b->dram : b->l3;
    double seconds = 0;
    if (!probe || tern_read_probe_sweep(b->ctx, probe, &seconds) != TERN_OK) return (double)NAN;
    return keep(&b->limit[which], (double)(which == BENCH_DRAM ? b->dram_bytes : b->l3_bytes) / seconds);
}

static double int8_peak(bench *b) {
    double ops = 0, seconds = 0;
    if (tern_int8_peak(b->ctx, &ops, &seconds) != TERN_OK) return (double)NAN;
    return keep(&b->limit[BENCH_INT8_PEAK], ops / seconds);
}

// ---- One product --------------------------------------------------------------------------------------------------

// The activations are set anew each time, outside the clock: whatever a kernel derives from them is part of its product.
static tern_status product(bench *b, bench_op op, const tern_weights *w, bench_shape s, size_t m, double *seconds) {
    tern_activations *a = m == 1 ? b->one : b->many;
    const bool blocks = op == BENCH_INT8_B32;
    tern_status status =
        tern_activations_set_s8(b->ctx, a, b->x, blocks ? b->x_scales : NULL, m, s.k, s.k, blocks ? SCALE_BLOCK : 0);
    if (status != TERN_OK) return status;
    const double start = cli_seconds();
    status = tern_matmul_f32(b->ctx, w, a, b->y, s.n, NULL);
    *seconds = cli_seconds() - start;
    return status;
}

// Seconds of one product, and in the same round the limits: memory (dram or l3) and arithmetic.
typedef struct rounds {
    double seconds[BENCH_ROUNDS_MAX], memory[BENCH_ROUNDS_MAX], arithmetic[BENCH_ROUNDS_MAX];
    size_t n;
} rounds;

// The tier of a variant's symbol.
static const char *tier_of(const bench *b, const char *symbol) {
    for (size_t i = 0; i < tern_variant_count(); i++) {
        tern_variant_info v = {.struct_size = sizeof v};
        if (tern_variant_get(b->ctx, i, &v) == TERN_OK && strcmp(v.symbol, symbol) == 0) return v.tier;
    }
    return symbol;
}

static void finish(const bench *b, const tern_weights *w, bench_op op, bench_limit memory, const rounds *r,
                   bench_result *result) {
    static const double giga = 1e9;
    tern_weights_info info = {.struct_size = sizeof info};
    if (tern_weights_get_info(b->ctx, w, &info) != TERN_OK) return;
    const double ops = 2.0 * (double)result->m * (double)info.n * (double)info.k, bytes = (double)info.bytes;
    double memory_fraction[BENCH_ROUNDS_MAX], arithmetic_fraction[BENCH_ROUNDS_MAX];
    for (size_t i = 0; i < r->n; i++) {
        memory_fraction[i] = bytes / r->memory[i] / r->seconds[i];
        arithmetic_fraction[i] = ops / r->arithmetic[i] / r->seconds[i];
    }
    const double by_memory = bench_median(memory_fraction, r->n), by_arithmetic = bench_median(arithmetic_fraction, r->n);
    result->variant = tier_of(b, info.kernel);
    result->op = bench_op_names[op];
    result->layout = info.layout;
    result->rounds = r->n;
    result->bits_per_weight = info.bits_per_weight;
    result->seconds = bench_median(r->seconds, r->n);
    result->gops = ops / result->seconds / giga;
    result->gbps = bytes / result->seconds / giga;
    // Both fractions are known, or the binding one is not.
    result->bound = by_arithmetic > by_memory ? BENCH_INT8_PEAK : memory;
    result->fraction = isfinite(by_memory) && isfinite(by_arithmetic) ? fmax(by_memory, by_arithmetic) : (double)NAN;
}

// ---- One copy, in cache as far as it fits ---------------------------------------------------------------------------

static tern_status measure_hot(bench *b, bench_op op, bench_shape s, size_t m, bench_result *result) {
    static const double round_seconds = 5e-3;
    enum { REPEATS_MAX = 256 };
    tern_weights *w = NULL;
    tern_weights_info info = {.struct_size = sizeof info};
    rounds r = {.n = 0};
    tern_status status = create_weights(b, op, s, &w);
    if (status == TERN_OK) status = tern_weights_get_info(b->ctx, w, &info);
    const bench_limit memory = info.bytes > b->l3_size && b->l3_size ? BENCH_DRAM : BENCH_L3;
    for (size_t round = 0; status == TERN_OK && round < b->rounds; round++) {
        const double memory_limit = sweep(b, memory), arithmetic_limit = int8_peak(b);
        double seconds = 0, total = 0;
        status = product(b, op, w, s, m, &seconds); // brings the weights back into cache
        size_t repeats = 0;
        while (status == TERN_OK && repeats < REPEATS_MAX && (repeats == 0 || total < round_seconds)) {
            status = product(b, op, w, s, m, &seconds);
            total += seconds;
            repeats++;
        }
        if (status != TERN_OK) break;
        r.seconds[r.n] = total / (double)repeats;
        r.memory[r.n] = memory_limit;
        r.arithmetic[r.n++] = arithmetic_limit;
    }
    if (status == TERN_OK) finish(b, w, op, memory, &r, result);
    tern_weights_destroy(w);
    return status;
}

// The largest power of two up to BENCH_M_MAX whose product takes a quarter of a second at most.
static size_t choose_m(double seconds_of_one) {
    static const double seconds_max = 0.25;
    size_t m = BENCH_M_MAX;
    while (m > 2 && (double)m * seconds_of_one > seconds_max) m /= 2;
    return m;
}

// ---- Copies of all shapes, more than any cache holds -----------------------------------------------------------------

typedef struct ring {
    tern_weights **w; // copy c of shape s at [c * n_shapes + s]
    size_t n;
} ring;

static void destroy_ring(ring *r) {
    for (size_t i = 0; i < r->n; i++) tern_weights_destroy(r->w[i]);
    free(r->w);
}

static tern_status create_ring(bench *b, bench_op op, ring *r) {
    size_t bytes = 0, room = 0;
    while (bytes < b->dram_bytes) {
        if (room - r->n < b->n_shapes) {
            room = 2 * room + b->n_shapes + 1;
            tern_weights **larger = realloc(r->w, room * sizeof(tern_weights *));
            if (!larger) return TERN_ERR_MEMORY;
            r->w = larger;
        }
        for (size_t s = 0; s < b->n_shapes; s++) {
            tern_weights_info info = {.struct_size = sizeof info};
            tern_status status = create_weights(b, op, b->shapes[s], &r->w[r->n]);
            if (status != TERN_OK) return status;
            status = tern_weights_get_info(b->ctx, r->w[r->n++], &info);
            if (status != TERN_OK) return status;
            bytes += info.bytes;
        }
    }
    return TERN_OK;
}

static tern_status measure_dram(bench *b, bench_op op, bench_result *results) {
    static const double budget_seconds = 4; // slow tiers stop after fewer rounds, but never before three
    enum { ROUNDS_MIN = 3 };
    ring copies = {NULL, 0};
    rounds r[BENCH_SHAPES_MAX] = {{.n = 0}};
    tern_status status = b->dram ? create_ring(b, op, &copies) : TERN_ERR_MEMORY;
    const double copies_of_each = (double)copies.n / (double)b->n_shapes; // a whole number
    const double start = cli_seconds();
    double before = status == TERN_OK ? sweep(b, BENCH_DRAM) : (double)NAN;
    for (size_t round = 0; status == TERN_OK && round <= b->rounds; round++) { // round 0 warms up
        double total[BENCH_SHAPES_MAX] = {0};
        for (size_t i = 0; status == TERN_OK && i < copies.n; i++) {
            double seconds = 0;
            status = product(b, op, copies.w[i], b->shapes[i % b->n_shapes], 1, &seconds);
            total[i % b->n_shapes] += seconds;
        }
        const double after = sweep(b, BENCH_DRAM), arithmetic = int8_peak(b);
        for (size_t s = 0; round > 0 && s < b->n_shapes; s++) {
            r[s].seconds[r[s].n] = total[s] / copies_of_each;
            r[s].memory[r[s].n] = (before + after) / 2;
            r[s].arithmetic[r[s].n++] = arithmetic;
        }
        before = after;
        if (round >= ROUNDS_MIN && cli_seconds() - start > budget_seconds) break;
    }
    for (size_t s = 0; status == TERN_OK && s < b->n_shapes; s++) finish(b, copies.w[s], op, BENCH_DRAM, &r[s], &results[s]);
    destroy_ring(&copies);
    return status;
}

tern_status bench_measure(bench *b, bench_op op, bench_result *results) {
    bench_result *dram = results, *hot = dram + b->n_shapes, *compute = hot + b->n_shapes;
    tern_status failed = TERN_OK;
    for (size_t s = 0; s < b->n_shapes; s++) {
        const bench_result blank = {.op = bench_op_names[op],
                                    .residency = "hot",
                                    .variant = "-",
                                    .layout = "-",
                                    .m = 1,
                                    .n = b->shapes[s].n,
                                    .k = b->shapes[s].k,
                                    .bits_per_weight = (double)NAN,
                                    .seconds = (double)NAN,
                                    .gops = (double)NAN,
                                    .gbps = (double)NAN,
                                    .fraction = (double)NAN};
        dram[s] = hot[s] = compute[s] = blank;
        dram[s].residency = "dram";
        compute[s].m = BENCH_M_MAX;
        tern_status status = measure_hot(b, op, b->shapes[s], 1, &hot[s]);
        if (status == TERN_OK) {
            compute[s].m = choose_m(hot[s].seconds);
            status = measure_hot(b, op, b->shapes[s], compute[s].m, &compute[s]);
        }
        if (failed == TERN_OK) failed = status;
    }
    const tern_status status = measure_dram(b, op, dram);
    return failed != TERN_OK ? failed : status;
}
