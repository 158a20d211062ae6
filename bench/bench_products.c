// SPDX-License-Identifier: MIT
// Products of every GEMM variant through the public API, end to end and from ready activations. The limits of the machine are
// measured between the products, so that `of_limit` is a ratio inside one run.
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_shim.h"
#include "tools/bench_source.h"

enum { M_MAX = 512, COPIES_MAX = 1024, DRAM_BYTES = 320 << 20, X_PERIOD = 251 };

typedef struct product_case {
    const char *symbol; // of the variant
    bench_source source;
    bench_matrix matrix;
    size_t m;
    int dram;   // cycling through copies that no cache holds; else one copy
    int kernel; // from ready activations and tables to int32 (block scales: float32); else from float32 to float32
} product_case;

// One token and many on every matrix; few tokens and block scales on the first.
static const bench_matrix matrices[] = {{4096, 4096, 0}, {2560, 2560, 0},  {640, 2560, 0},    {6912, 2560, 0},
                                        {2560, 6912, 0}, {4096, 4096, 64}, {4096, 4096, 128}, {4096, 4096, 256}};
static const struct {
    size_t m;
    int dram, kernel;
} ways[] = {{1, 0, 0}, {1, 0, 1}, {1, 1, 0}, {M_MAX, 0, 0}, {M_MAX, 0, 1}, // of every matrix
            {2, 0, 1}, {4, 0, 1}, {8, 0, 1}, {16, 0, 1},    {2, 1, 0},     {4, 1, 0}, {8, 1, 0}, {16, 1, 0}};
enum { N_MATRICES = sizeof matrices / sizeof *matrices, N_WAYS = sizeof ways / sizeof *ways, COMMON_WAYS = 5 };

// What the running case uses. Google Benchmark calls a benchmark several times to find its number of iterations: weights stay
// packed until another case comes.
static struct {
    tern_context *ctx;
    product_case *cases;
    size_t n_cases;
    const product_case *packed;
    tern_weights *copies[COPIES_MAX];
    size_t n_copies;
    tern_weights_info info;
    tern_activations *one, *many;
    bench_data data;
    float *x, *y;
    tern_read_probe *probe;
} bench;

static void release_copies(void) {
    for (size_t i = 0; i < bench.n_copies; i++) tern_weights_destroy(bench.copies[i]);
    bench.n_copies = 0;
    bench.packed = NULL;
}

// Made when the first benchmark runs.
static int make_data(void) {
    if (bench.y) return 1;
    size_t n_max = 1, k_max = 1;
    for (size_t i = 0; i < N_MATRICES; i++) {
        n_max = matrices[i].n > n_max ? matrices[i].n : n_max;
        k_max = matrices[i].k > k_max ? matrices[i].k : k_max;
    }
    bench.x = malloc(M_MAX * k_max * sizeof *bench.x);
    float *y = malloc(M_MAX * n_max * sizeof *y);
    if (!bench_data_create(&bench.data, matrices, N_MATRICES) || !bench.x || !y) {
        free(y);
        return 0;
    }
    for (size_t i = 0; i < M_MAX * k_max; i++) bench.x[i] = (float)(i % X_PERIOD) - (float)(X_PERIOD / 2);
    bench.y = y;
    return tern_activations_create(bench.ctx, &bench.one, 1, k_max) == TERN_OK &&
           tern_activations_create(bench.ctx, &bench.many, M_MAX, k_max) == TERN_OK;
}

static tern_status pack(const product_case *c) {
    if (bench.packed == c) return TERN_OK;
    release_copies();
    tern_status status = tern_force_variant(bench.ctx, c->symbol);
    size_t bytes = 0;
    do {
        if (status != TERN_OK) return status;
        status = bench_source_create(bench.ctx, &bench.copies[bench.n_copies], c->source, &bench.data, c->matrix, c->m);
        if (status != TERN_OK) return status;
        bench.info = (tern_weights_info){.struct_size = sizeof bench.info};
        status = tern_weights_get_info(bench.ctx, bench.copies[bench.n_copies++], &bench.info);
        bytes += bench.info.bytes;
    } while (c->dram && bytes < DRAM_BYTES && bench.n_copies < COPIES_MAX);
    bench.packed = c;
    return status;
}

// ---- One product ------------------------------------------------------------------------------------------------------

static tern_status quantize(const product_case *c) {
    const size_t k = c->matrix.k;
    return tern_activations_set_f32(bench.ctx, c->m == 1 ? bench.one : bench.many, bench.x, c->m, k, k, bench.info.act_block);
}

static tern_status multiply(const product_case *c, const tern_weights *w) {
    tern_activations *a = c->m == 1 ? bench.one : bench.many;
    const int sums = c->kernel && (bench.info.scale_block == 0 || bench.info.scale_block == c->matrix.k);
    return sums ? tern_matmul_s32(bench.ctx, w, a, (int32_t *)bench.y, c->matrix.n)
                : tern_matmul_f32(bench.ctx, w, a, bench.y, c->matrix.n, NULL);
}

static tern_status product(const product_case *c, const tern_weights *w, double *seconds) {
    const double start = bench_seconds();
    tern_status status = c->kernel ? TERN_OK : quantize(c);
    if (status == TERN_OK) status = multiply(c, w);
    *seconds = bench_seconds() - start;
    return status;
}

// ---- The limits, between products ---------------------------------------------------------------------------------------

// Medians would need every sample; the mean of rates taken at equal distances serves the same here.
typedef struct limits {
    double memory, arithmetic, clock; // sums of bytes, of operations, and of cycles per second
    size_t n;
} limits;

static tern_status measure_limits(int dram, limits *l) {
    double seconds = 1, ops = 0, peak_seconds = 1;
    tern_status status = TERN_OK;
    if (dram && !bench.probe) status = tern_read_probe_create(bench.ctx, &bench.probe, DRAM_BYTES);
    if (dram && status == TERN_OK) status = tern_read_probe_sweep(bench.ctx, bench.probe, &seconds);
    if (status == TERN_OK) status = tern_int8_peak(bench.ctx, &ops, &peak_seconds);
    l->memory += dram ? DRAM_BYTES / seconds : (double)INFINITY; // what a cache gives is not judged here
    l->arithmetic += ops / peak_seconds;
    l->clock += 1 / tern_cycle_seconds();
    l->n++;
    return status;
}

static void report(bench_state *state, const product_case *c, const limits *l, double seconds_per_product) {
    const double macs = (double)c->m * (double)c->matrix.n * (double)c->matrix.k, bytes = (double)bench.info.bytes;
    const double n = (double)l->n, ops = 2 * macs;
    const double by_memory = bytes / seconds_per_product / (l->memory / n);
    const double by_arithmetic = ops / seconds_per_product / (l->arithmetic / n);
    bench_bytes_per_iteration(state, bytes);
    bench_macs_per_iteration(state, macs);
    bench_value(state, "bits", bench.info.bits_per_weight);
    bench_value(state, "threads", tern_context_threads(bench.ctx));
    bench_value(state, "MAC_per_cycle", macs / seconds_per_product / (l->clock / n) / tern_context_threads(bench.ctx));
    bench_value(state, by_memory > by_arithmetic ? "of_dram" : "of_int8", fmax(by_memory, by_arithmetic));
}

static void run_product(bench_state *state, const void *arg) {
    static const double limits_every = 0.1; // seconds of products
    const product_case *c = arg;
    if (!make_data()) {
        bench_fail(state, "no memory for the data");
        return;
    }
    limits l = {.n = 0};
    double total = 0, since = 0, seconds = 0;
    size_t products = 0;
    tern_status status = pack(c);
    if (status == TERN_OK) status = quantize(c);
    if (status == TERN_OK) status = multiply(c, bench.copies[0]); // builds the tables
    if (status == TERN_OK) status = measure_limits(c->dram, &l);
    if (status != TERN_OK) {
        bench_fail(state, tern_context_error(bench.ctx));
        return;
    }
    for (size_t i = 0; bench_next(state); i = i + 1 < bench.n_copies ? i + 1 : 0) {
        status = product(c, bench.copies[i], &seconds);
        bench_add_time(state, seconds);
        total += seconds;
        since += seconds;
        products++;
        if (status == TERN_OK && since > limits_every) {
            status = measure_limits(c->dram, &l);
            since = 0;
        }
        if (status != TERN_OK) {
            bench_fail(state, tern_context_error(bench.ctx));
            break;
        }
    }
    report(state, c, &l, total / (double)products);
}

// ---- The list -----------------------------------------------------------------------------------------------------------

static void register_case(const tern_variant_info *v, bench_source source, bench_matrix matrix, size_t way) {
    char name[BENCH_NAME_MAX], shape[BENCH_NAME_MAX], block[sizeof "_b18446744073709551615"] = "";
    product_case *c = &bench.cases[bench.n_cases++];
    *c = (product_case){v->symbol, source, matrix, ways[way].m, ways[way].dram, ways[way].kernel};
    if (matrix.block) (void)snprintf(block, sizeof block, "_b%zu", matrix.block);
    const char *levels = source == BENCH_FOUR_LEVEL ? "_four_level" : ""; // shares its kernel with ternary weights
    (void)snprintf(shape, sizeof shape, "m%zu_n%zu_k%zu%s%s", c->m, matrix.n, matrix.k, block, levels);
    bench_name(name, v, shape, c->dram ? "dram" : c->kernel ? "hot/kernel" : "hot");
    bench_register(name, run_product, c, BENCH_CLOCK_MANUAL);
}

static void register_variant(const tern_variant_info *v, bench_source source) {
    for (size_t i = 0; i < N_MATRICES; i++) {
        if (matrices[i].block && !bench_source_ternary(source)) continue;
        for (size_t way = 0; way < (i == 0 ? N_WAYS : COMMON_WAYS); way++) register_case(v, source, matrices[i], way);
    }
}

void bench_register_products(tern_context *ctx) {
    bench.ctx = ctx;
    bench.cases = calloc(tern_variant_count() * BENCH_SOURCES * N_MATRICES * N_WAYS, sizeof *bench.cases);
    if (!bench.cases) {
        (void)fprintf(stderr, "tern_bench: no memory for the list of products\n");
        exit(1);
    }
    for (size_t i = 0; i < tern_variant_count(); i++) {
        tern_variant_info v = {.struct_size = sizeof v};
        if (tern_variant_get(ctx, i, &v) != TERN_OK || !v.usable || tern_force_variant(ctx, v.symbol) != TERN_OK) continue;
        for (int source = 0; source < BENCH_SOURCES; source++) {
            const char *kernel = bench_source_kernel(ctx, (bench_source)source);
            if (kernel && strcmp(kernel, v.symbol) == 0) register_variant(&v, (bench_source)source);
        }
    }
    (void)tern_force_variant(ctx, NULL);
}

void bench_release_products(void) {
    release_copies();
    tern_read_probe_destroy(bench.probe);
    tern_activations_destroy(bench.one);
    tern_activations_destroy(bench.many);
    bench_data_destroy(&bench.data);
    free(bench.cases);
    free(bench.x);
    free(bench.y);
}
