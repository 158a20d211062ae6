// SPDX-License-Identifier: MIT
// Weights to measure products with: every way of making them that leads to kernels of its own. For tern bench and tern_bench.
#include "bench_source.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// A GGUF block of Q4_K: two float16 (d, dmin), twelve bytes of 6-bit scales and minima, then the codes.
enum { SCALE_BLOCK = 32, Q4_K_ID = 12, Q4_K_WEIGHTS = 256, Q4_K_BYTES = 144 };

static const struct {
    const char *name;
    int ternary;
    tern_form form;
} sources[BENCH_SOURCES] = {[BENCH_TERNARY_LUT] = {"ternary", 1, TERN_FORM_LUT},
                            [BENCH_TERNARY_MAD] = {"ternary", 1, TERN_FORM_MAD},
                            [BENCH_FOUR_LEVEL] = {"four_level", 1, TERN_FORM_AUTO},
                            [BENCH_BINARY] = {"binary", 1, TERN_FORM_AUTO},
                            [BENCH_INT8] = {"int8", 0, TERN_FORM_AUTO},
                            [BENCH_INT8_B32] = {"q8_0", 0, TERN_FORM_AUTO},
                            [BENCH_INT6] = {"int6", 0, TERN_FORM_AUTO},
                            [BENCH_U4] = {"q4_0", 0, TERN_FORM_AUTO},
                            [BENCH_U4_MINS] = {"q4_1", 0, TERN_FORM_AUTO},
                            [BENCH_Q4_K] = {"q4_k", 0, TERN_FORM_AUTO}};

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
    const size_t n = data->n_weights, q4_k_bytes = n / Q4_K_WEIGHTS * Q4_K_BYTES;
    data->codes = malloc(n);
    data->trits = malloc(n);
    data->quads = malloc(n);
    data->nibbles = malloc(n);
    data->q4_k = malloc(q4_k_bytes + 1);
    data->scales = malloc(data->n_scales * sizeof *data->scales);
    if (!data->codes || !data->trits || !data->quads || !data->nibbles || !data->q4_k || !data->scales) return 0;
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < n; i++) {
        state ^= state << 13; // xorshift64
        state ^= state >> 7;
        state ^= state << 17;
        data->codes[i] = (int8_t)(state & 0xFF);
        data->nibbles[i] = (uint8_t)(state & 0x0F);
        data->quads[i] = (int8_t)((int)(state & 3) - 1);
        data->trits[i] = (int8_t)((int)(((state >> 32) * TRITS) >> 32) - 1);
    }
    for (size_t i = 0; i < data->n_scales; i++) data->scales[i] = 1.0F / (float)(SCALE_FIRST + i % SCALE_PERIOD);
    static const uint8_t d_and_dmin[] = {0x00, 0x24, 0x00, 0x24}; // 1/64 twice, as float16
    memcpy(data->q4_k, data->codes, q4_k_bytes);
    for (size_t i = 0; i < q4_k_bytes; i += Q4_K_BYTES) memcpy(data->q4_k + i, d_and_dmin, sizeof d_and_dmin);
    return 1;
}

void bench_data_destroy(bench_data *data) {
    free(data->codes);
    free(data->trits);
    free(data->quads);
    free(data->nibbles);
    free(data->q4_k);
    free(data->scales);
    *data = (bench_data){.codes = NULL};
}

static tern_status create_binary(tern_context *ctx, tern_weights **w, const bench_data *data, bench_matrix s,
                                 const tern_weights_params *params) {
    int8_t *signs = malloc(s.n * s.k);
    if (!signs) return TERN_ERR_MEMORY;
    for (size_t i = 0; i < s.n * s.k; i++) signs[i] = data->codes[i] < 0 ? -1 : 1;
    const tern_status status = tern_weights_from_signs(ctx, w, signs, data->scales, s.block, s.n, s.k, s.k, params);
    free(signs);
    return status;
}

static tern_status create_int6(tern_context *ctx, tern_weights **w, const bench_data *data, bench_matrix s,
                               const tern_weights_params *params) {
    float *values = malloc(s.n * s.k * sizeof *values);
    if (!values) return TERN_ERR_MEMORY;
    for (size_t i = 0; i < s.n * s.k; i++) values[i] = (float)data->codes[i];
    const tern_status status = tern_weights_from_f32_int6(ctx, w, values, s.n, s.k, s.k, params);
    free(values);
    return status;
}

tern_status bench_source_create(tern_context *ctx, tern_weights **w, bench_source source, const bench_data *data,
                                bench_matrix s, size_t m) {
    const tern_weights_params params = {.struct_size = sizeof params, .form = sources[source].form, .expect_m = m};
    const size_t q4_k_bytes = s.n * s.k / Q4_K_WEIGHTS * Q4_K_BYTES;
    switch (source) {
    case BENCH_FOUR_LEVEL:
        return tern_weights_from_q2(ctx, w, data->quads, data->scales, s.block, s.n, s.k, s.k, &params);
    case BENCH_BINARY:
        return create_binary(ctx, w, data, s, &params);
    case BENCH_INT8:
        return tern_weights_from_s8(ctx, w, data->codes, data->scales, s.k, s.n, s.k, s.k, &params);
    case BENCH_INT8_B32:
        return tern_weights_from_s8(ctx, w, data->codes, data->scales, SCALE_BLOCK, s.n, s.k, s.k, &params);
    case BENCH_INT6:
        return create_int6(ctx, w, data, s, &params);
    case BENCH_U4:
        return tern_weights_from_u4(ctx, w, data->nibbles, data->scales, NULL, s.n, s.k, s.k, &params);
    case BENCH_U4_MINS:
        return tern_weights_from_u4(ctx, w, data->nibbles, data->scales, data->scales, s.n, s.k, s.k, &params);
    case BENCH_Q4_K:
        return tern_weights_from_gguf(ctx, w, Q4_K_ID, data->q4_k, q4_k_bytes, s.n, s.k, &params);
    default:
        return tern_weights_from_trits(ctx, w, data->trits, data->scales, s.block, s.n, s.k, s.k, &params);
    }
}

const char *bench_source_kernel(tern_context *ctx, bench_source source) {
    static const bench_matrix smallest = {.n = 1, .k = Q4_K_WEIGHTS};
    bench_data data;
    tern_weights *w = NULL;
    tern_weights_info info = {.struct_size = sizeof info};
    tern_status status = bench_data_create(&data, &smallest, 1) ? TERN_OK : TERN_ERR_MEMORY;
    if (status == TERN_OK) status = bench_source_create(ctx, &w, source, &data, smallest, 1);
    if (status == TERN_OK) status = tern_weights_get_info(ctx, w, &info);
    tern_weights_destroy(w);
    bench_data_destroy(&data);
    return status == TERN_OK ? info.kernel : NULL;
}
