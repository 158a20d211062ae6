// SPDX-License-Identifier: MIT
// Weights to measure products with: every way of making them that leads to kernels of its own. For tern bench and tern_bench.
#include "bench_source.h"

#include <stdint.h>
#include <stdlib.h>

enum { SCALE_BLOCK = 32 };

static const struct {
    const char *name;
    int ternary;
    tern_form form;
} sources[BENCH_SOURCES] = {[BENCH_TERNARY_LUT] = {"ternary", 1, TERN_FORM_LUT},
                            [BENCH_TERNARY_MAD] = {"ternary", 1, TERN_FORM_MAD},
                            [BENCH_INT8] = {"int8", 0, TERN_FORM_AUTO},
                            [BENCH_INT8_B32] = {"int8", 0, TERN_FORM_AUTO}};

const char *bench_source_name(bench_source source) { return sources[source].name; }
int bench_source_ternary(bench_source source) { return sources[source].ternary; }

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

int bench_data_create(bench_data *data, const bench_matrix *matrices, size_t n_matrices) {
    enum { TRITS = 3, SCALE_PERIOD = 7, SCALE_FIRST = 64 };
    *data = (bench_data){.n_weights = 1, .n_scales = 1};
    for (size_t i = 0; i < n_matrices; i++) {
        const bench_matrix *matrix = &matrices[i];
        const size_t block = matrix->block && matrix->block < SCALE_BLOCK ? matrix->block : SCALE_BLOCK;
        data->n_weights = max_size(data->n_weights, matrix->n * matrix->k);
        data->n_scales = max_size(data->n_scales, matrix->n * (matrix->k / block + 1));
    }
    data->codes = malloc(data->n_weights);
    data->trits = malloc(data->n_weights);
    data->scales = malloc(data->n_scales * sizeof *data->scales);
    if (!data->codes || !data->trits || !data->scales) return 0;
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < data->n_weights; i++) {
        state ^= state << 13; // xorshift64
        state ^= state >> 7;
        state ^= state << 17;
        data->codes[i] = (int8_t)(state & 0xFF);
        data->trits[i] = (int8_t)((int)(((state >> 32) * TRITS) >> 32) - 1);
    }
    for (size_t i = 0; i < data->n_scales; i++) data->scales[i] = 1.0F / (float)(SCALE_FIRST + i % SCALE_PERIOD);
    return 1;
}

void bench_data_destroy(bench_data *data) {
    free(data->codes);
    free(data->trits);
    free(data->scales);
    *data = (bench_data){.codes = NULL};
}

tern_status bench_source_create(tern_context *ctx, tern_weights **w, bench_source source, const bench_data *data,
                                bench_matrix s, size_t m) {
    const tern_weights_params params = {.struct_size = sizeof params, .form = sources[source].form, .expect_m = m};
    if (sources[source].ternary)
        return tern_weights_from_trits(ctx, w, data->trits, data->scales, s.block, s.n, s.k, s.k, &params);
    const size_t block = source == BENCH_INT8 ? s.k : SCALE_BLOCK;
    return tern_weights_from_s8(ctx, w, data->codes, data->scales, block, s.n, s.k, s.k, &params);
}

const char *bench_source_kernel(tern_context *ctx, bench_source source) {
    enum { SMALL = 64 };
    static int8_t codes[SMALL];
    static float scales[SMALL / SCALE_BLOCK] = {1, 1};
    const bench_data data = {.codes = codes, .trits = codes, .scales = scales};
    tern_weights *w = NULL;
    tern_weights_info info = {.struct_size = sizeof info};
    tern_status status = bench_source_create(ctx, &w, source, &data, (bench_matrix){.n = 1, .k = SMALL}, 1);
    if (status == TERN_OK) status = tern_weights_get_info(ctx, w, &info);
    tern_weights_destroy(w);
    return status == TERN_OK ? info.kernel : NULL;
}
