// SPDX-License-Identifier: MIT
// Slices for tensor parallelism: slices along N are the rows of the whole weight, slices along K add up to it, for every
// source; and the second form for many tokens, and what is reported of bytes.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/blocks.h"
#include "tern/diagnostics.h"
#include "test_random.h"

enum { N = 150, K = 768, M = 3 };

static tern_context *ctx;

// ---- sources ------------------------------------------------------------------------------------------------------

static int8_t codes[N * K];
static float floats[N * K], scales[N * (K / 16)];
static uint8_t blocks[N * K * sizeof(float)];

typedef struct source {
    const char *name;
    enum { TRITS, S8, F32_TERNARY, F32_INT8, GGUF } kind;
    size_t scale_block;
    uint32_t type;
    bool equal_scales;
    size_t step; // first_k is a multiple of it
} source;

static const source sources[] = {
    {"trits", TRITS, 0, 0, false, 1},
    {"trits per row", TRITS, K, 0, false, 1},
    {"trits per 64", TRITS, 64, 0, false, 64},
    {"trits per 16", TRITS, 16, 0, false, 16},
    {"trits per 256, folded", TRITS, 256, 0, true, 256},
    {"s8", S8, 0, 0, false, 1},
    {"s8 per row", S8, K, 0, false, 1},
    {"s8 per 32", S8, 32, 0, false, 32},
    {"f32 as trits", F32_TERNARY, 0, 0, false, 1},
    {"f32 as s8 per row", F32_INT8, K, 0, false, 1},
    {"f32 as s8 per 32", F32_INT8, 32, 0, false, 32},
    {"TQ2_0", GGUF, 0, TERN_GGML_TQ2_0, false, 256},
    {"TQ2_0 folded", GGUF, 0, TERN_GGML_TQ2_0, true, 1},
    {"TQ1_0", GGUF, 0, TERN_GGML_TQ1_0, false, 256},
    {"Q8_0", GGUF, 0, TERN_GGML_Q8_0, false, 32},
    {"Q4_0", GGUF, 0, TERN_GGML_Q4_0, false, 32},
    {"Q4_1", GGUF, 0, TERN_GGML_Q4_1, false, 32},
    {"Q4_K", GGUF, 0, TERN_GGML_Q4_K, false, 256},
    {"F16", GGUF, 0, TERN_GGML_F16, false, 32},
    {"BF16", GGUF, 0, TERN_GGML_BF16, false, 32},
    {"Q6_K", GGUF, 0, TERN_GGML_Q6_K, false, 32},
    {"Q2_0", GGUF, 0, TERN_GGML_Q2_0, false, 64},
    {"Q2_0 folded", GGUF, 0, TERN_GGML_Q2_0, true, 1},
    {"Q1_0", GGUF, 0, TERN_GGML_Q1_0, false, 128},
    {"Q1_0 folded", GGUF, 0, TERN_GGML_Q1_0, true, 1},
    {"Q5_0", GGUF, 0, TERN_GGML_Q5_0, false, 32},
    {"Q5_1", GGUF, 0, TERN_GGML_Q5_1, false, 32},
    {"Q5_K", GGUF, 0, TERN_GGML_Q5_K, false, 32},
    {"I2_S", GGUF, 0, TERN_GGML_I2_S, true, 1},
    {"IQ1_BN", GGUF, 0, TERN_GGML_IQ1_BN, false, 1},
    {"IQ1_BN folded", GGUF, 0, TERN_GGML_IQ1_BN, true, 1},
    {"IQ2_BN", GGUF, 0, TERN_GGML_IQ2_BN, false, 1},
    {"IQ2_BN folded", GGUF, 0, TERN_GGML_IQ2_BN, true, 1},
};
enum { N_SOURCES = sizeof sources / sizeof *sources };

static size_t gguf_bytes(const source *s) {
    size_t bytes;
    assert_true(tern_matrix_bytes(tern_block_type_find(s->type), N, K, &bytes));
    return bytes;
}

static bool has_code_3(uint32_t type) {
    return type == TERN_GGML_TQ2_0 || type == TERN_GGML_I2_S || type == TERN_GGML_IQ2_BN; // of trits in two bits
}

// Writes a sane scale, as a block or a row begins (or ends) with.
static void put_scale(uint8_t *at, const source *s, size_t bytes) {
    const float scale = s->equal_scales ? 0.5f : (float)(1 + random_below(900)) / 1024;
    const uint16_t half = tern_f32_to_f16(scale);
    memcpy(at, bytes == sizeof scale ? (const void *)&scale : &half, bytes);
}

// Random bytes with sane scales. TQ2_0, TQ1_0 and Q6_K end in their scale, the other blocks begin with it, or with a scale and
// a min; F16 is a scale throughout.
static void fill_blocks(const source *s) {
    const tern_block_type *type = tern_block_type_find(s->type);
    const bool last = s->type == TERN_GGML_TQ2_0 || s->type == TERN_GGML_TQ1_0 || s->type == TERN_GGML_Q6_K;
    const bool min =
        s->type == TERN_GGML_Q4_1 || s->type == TERN_GGML_Q4_K || s->type == TERN_GGML_Q5_1 || s->type == TERN_GGML_Q5_K;
    uint8_t *at = blocks;
    for (size_t n = 0; n < N; n++) {
        if (type->row_head) put_scale(at, s, type->row_head);
        at += type->row_head;
        for (size_t b = 0; b < K / type->block_elems; b++, at += type->block_bytes) {
            for (size_t i = 0; i < type->block_bytes; i++) {
                at[i] = (uint8_t)next_random();
                if (has_code_3(s->type)) at[i] &= (uint8_t) ~(at[i] >> 1 & 0x55);
            }
            if (type->row_head || type->tail_bytes) continue;
            put_scale(last ? at + type->block_bytes - sizeof(uint16_t) : at, s, sizeof(uint16_t));
            if (min) put_scale(at + sizeof(uint16_t), s, sizeof(uint16_t));
        }
    }
    if (type->tail_bytes) put_scale(at, s, sizeof(float));
}

static void fill(const source *s) {
    const bool ternary = s->kind == TRITS;
    for (size_t i = 0; i < N * K; i++) codes[i] = (int8_t)(ternary ? (int)random_below(3) - 1 : (int)random_below(256) - 128);
    for (size_t i = 0; i < N * K; i++) floats[i] = random_float();
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        scales[i] = s->equal_scales ? 0.25f : (float)(1 + random_below(900)) / 1024;
    if (s->kind == GGUF) fill_blocks(s);
}

static tern_weights *pack(const source *s, const tern_weights_params *params) {
    tern_weights *w = NULL;
    tern_status status = TERN_OK;
    if (s->kind == TRITS) status = tern_weights_from_trits(ctx, &w, codes, scales, s->scale_block, N, K, K, params);
    if (s->kind == S8) status = tern_weights_from_s8(ctx, &w, codes, scales, s->scale_block, N, K, K, params);
    if (s->kind == F32_TERNARY) status = tern_weights_from_f32_ternary(ctx, &w, floats, N, K, K, params);
    if (s->kind == F32_INT8) status = tern_weights_from_f32_int8(ctx, &w, floats, s->scale_block, N, K, K, params);
    if (s->kind == GGUF) status = tern_weights_from_gguf(ctx, &w, s->type, blocks, gguf_bytes(s), N, K, params);
    if (status != TERN_OK) fail_msg("%s: %s", s->name, tern_context_error(ctx));
    return w;
}

static tern_weights_info info_of(const tern_weights *w) {
    tern_weights_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
    return info;
}

// ---- slices -------------------------------------------------------------------------------------------------------

// Codes of rows first .. first + n - 1, columns k0 .. k0 + k - 1 of the whole weight are those of the slice.
static void check_codes(const source *s, const tern_weights *whole, const tern_weights *slice, size_t first, size_t k0) {
    static int8_t all[N * K], part[N * K];
    const tern_weights_info info = info_of(slice);
    assert_int_equal(tern_weights_unpack(ctx, whole, all, K), TERN_OK);
    assert_int_equal(tern_weights_unpack(ctx, slice, part, info.k), TERN_OK);
    for (size_t n = 0; n < info.n; n++)
        if (memcmp(part + n * info.k, all + (first + n) * K + k0, info.k) != 0)
            fail_msg("%s: row %zu of the slice at row %zu, column %zu differs", s->name, n, first, k0);
}

// y[M][n] of a weight for codes q (of depth k) with unit scales.
static void multiply(const tern_weights *w, const int8_t *q, size_t k, float *y) {
    const tern_weights_info info = info_of(w);
    tern_activations *a = NULL;
    assert_int_equal(tern_activations_create(ctx, &a, M, k), TERN_OK);
    assert_int_equal(tern_activations_set_s8(ctx, a, q, NULL, M, k, k, info.act_block), TERN_OK);
    assert_int_equal(tern_matmul_f32(ctx, w, a, y, info.n, NULL), TERN_OK);
    tern_activations_destroy(a);
}

static int8_t q[M * K], q_part[M * K];
static float y_all[M * N], y_part[M * N];

// Types that are packed without loss multiply as exactly as floats can; the others are re-quantized to steps of 1/127 of the
// largest weight of 32, so a weight is off by half of that.
static void gguf_weights_multiply_as_their_floats(void **unused) {
    (void)unused;
    for (size_t i = 0; i < N_SOURCES; i++) {
        const source *s = &sources[i];
        if (s->kind != GGUF) continue;
        const tern_block_type *type = tern_block_type_find(s->type);
        const double lossless = 1e-5, requantized = 0.5 / 127 * 2;
        const double tolerance = type->to_codes || type->to_u4 ? lossless : requantized;
        fill(s);
        if (s->type == TERN_GGML_IQ2_BN && !s->equal_scales) { // a scale that float16 does not hold
            const float third = 1.0f / 3;
            memcpy(blocks + 5 * tern_row_bytes(type, K), &third, sizeof third);
        }
        for (size_t j = 0; j < M * K; j++) q[j] = (int8_t)next_random();
        tern_weights *w = pack(s, NULL);
        multiply(w, q, K, y_all);
        for (size_t n = 0; n < N; n++) {
            float row[K];
            tern_row_to_f32(type, row, blocks, n, N, K);
            for (size_t t = 0; t < M; t++) {
                double want = 0, size = 0, largest = 0;
                for (size_t k = 0; k < K; k++) {
                    want += (double)row[k] * q[t * K + k];
                    size += fabs((double)row[k] * q[t * K + k]);
                    largest = fmax(largest, fabs((double)row[k]));
                }
                const double bound = type->to_codes || type->to_u4 ? size : largest * 128 * K;
                if (!(fabs((double)y_all[t * N + n] - want) <= tolerance * bound))
                    fail_msg("%s: y[%zu][%zu] = %g, its floats give %g", s->name, t, n, (double)y_all[t * N + n], want);
            }
        }
        tern_weights_destroy(w);
    }
}

static void slices_along_n_are_the_rows_of_the_whole(void **unused) {
    (void)unused;
    for (size_t i = 0; i < N_SOURCES; i++) {
        const source *s = &sources[i];
        fill(s);
        for (size_t j = 0; j < M * K; j++) q[j] = (int8_t)next_random();
        tern_weights *whole = pack(s, NULL);
        multiply(whole, q, K, y_all);
        for (size_t first = 0; first < N;) {
            const size_t n = 1 + random_below(N - first);
            const tern_weights_params params = {
                .struct_size = sizeof params, .first_row = first, .n_rows = first + n == N ? 0 : n}; // 0: the rest
            tern_weights *slice = pack(s, &params);
            assert_int_equal(info_of(slice).n, n);
            check_codes(s, whole, slice, first, 0);
            multiply(slice, q, K, y_part);
            for (size_t t = 0; t < M; t++) assert_memory_equal(y_part + t * n, y_all + t * N + first, n * sizeof *y_part);
            tern_weights_destroy(slice);
            first += n;
        }
        tern_weights_destroy(whole);
    }
}

// The product of a slice along K is that of the whole with activations that are zero elsewhere.
static void slices_along_k_add_up_to_the_whole(void **unused) {
    (void)unused;
    for (size_t i = 0; i < N_SOURCES; i++) {
        const source *s = &sources[i];
        fill(s);
        tern_weights *whole = pack(s, NULL);
        for (size_t k0 = 0; k0 < K;) {
            const size_t left = (K - k0 + s->step - 1) / s->step;
            const size_t k = (1 + random_below(left)) * s->step < K - k0 ? (1 + random_below(left)) * s->step : K - k0;
            const size_t depth = k < K - k0 ? k : K - k0;
            const tern_weights_params params = {
                .struct_size = sizeof params, .first_row = 7, .n_rows = 50, .first_k = k0, .depth = depth};
            tern_weights *slice = pack(s, &params);
            assert_int_equal(info_of(slice).k, depth);
            check_codes(s, whole, slice, 7, k0);
            memset(q, 0, sizeof q);
            for (size_t t = 0; t < M; t++)
                for (size_t j = 0; j < depth; j++) q[t * K + k0 + j] = q_part[t * depth + j] = (int8_t)(1 + random_below(127));
            multiply(whole, q, K, y_all);
            multiply(slice, q_part, depth, y_part);
            for (size_t t = 0; t < M; t++)
                for (size_t n = 0; n < 50; n++)
                    if (y_part[t * 50 + n] != y_all[t * N + 7 + n])
                        fail_msg("%s, columns %zu + %zu: y[%zu][%zu] = %a, the whole gives %a", s->name, k0, depth, t, n,
                                 (double)y_part[t * 50 + n], (double)y_all[t * N + 7 + n]);
            tern_weights_destroy(slice);
            k0 += depth;
        }
        tern_weights_destroy(whole);
    }
}

static void slices_outside_the_source_or_inside_a_block_are_refused(void **unused) {
    (void)unused;
    fill(&sources[2]);
    const tern_weights_params bad[] = {
        {.struct_size = sizeof *bad, .first_row = N},
        {.struct_size = sizeof *bad, .first_row = 1, .n_rows = N},
        {.struct_size = sizeof *bad, .first_row = SIZE_MAX, .n_rows = 2},
        {.struct_size = sizeof *bad, .first_k = K},
        {.struct_size = sizeof *bad, .first_k = 64, .depth = K},
        {.struct_size = sizeof *bad, .first_k = 64, .depth = SIZE_MAX},
        {.struct_size = sizeof *bad, .first_k = 32}, // of blocks of 64
        {.struct_size = sizeof *bad, .many_tokens_form = (tern_form)9},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tern_weights *w = NULL;
        assert_int_equal(tern_weights_from_trits(ctx, &w, codes, scales, 64, N, K, K, &bad[i]), TERN_ERR_ARG);
        assert_null(w);
    }
}

static void a_slice_of_Q4_K_ends_with_a_block_of_256(void **unused) {
    (void)unused;
    const source *s = &sources[17];
    assert_string_equal(s->name, "Q4_K");
    fill(s);
    for (size_t depth = 32; depth <= 512; depth += 32) { // more would read activations and scales that do not exist
        const tern_weights_params params = {.struct_size = sizeof params, .first_k = 256, .depth = depth};
        tern_weights *w = NULL;
        assert_int_equal(tern_weights_from_gguf(ctx, &w, s->type, blocks, gguf_bytes(s), N, K, &params),
                         depth % 256 ? TERN_ERR_ARG : TERN_OK);
        tern_weights_destroy(w);
    }
}

static void a_cut_of_the_only_4_bit_block_of_a_row_keeps_its_scale(void **unused) {
    (void)unused;
    enum { DEPTH = 20, FIRST = 9, LEFT = DEPTH - FIRST };
    fill(&sources[0]);
    static uint8_t u4[N * DEPTH];
    for (size_t i = 0; i < N * DEPTH; i++) u4[i] = (uint8_t)random_below(16);
    memset(q, 0, sizeof q);
    for (size_t t = 0; t < M; t++)
        for (size_t j = 0; j < LEFT; j++) q[t * DEPTH + FIRST + j] = q_part[t * LEFT + j] = (int8_t)next_random();
    const tern_weights_params params = {.struct_size = sizeof params, .first_k = FIRST};
    for (int with_mins = 0; with_mins < 2; with_mins++) {
        tern_weights *whole = NULL, *slice = NULL;
        const float *mins = with_mins ? scales + N : NULL;
        assert_int_equal(tern_weights_from_u4(ctx, &whole, u4, scales, mins, N, DEPTH, DEPTH, NULL), TERN_OK);
        assert_int_equal(tern_weights_from_u4(ctx, &slice, u4, scales, mins, N, DEPTH, DEPTH, &params), TERN_OK);
        multiply(whole, q, DEPTH, y_all);
        multiply(slice, q_part, LEFT, y_part);
        for (size_t i = 0; i < M * N; i++) assert_true(y_part[i] == y_all[i]);
        tern_weights_destroy(whole);
        tern_weights_destroy(slice);
    }
}

// Alone it needs no layout of blocks, and its scale is kept in another place.
static void one_block_of_int8_per_32_rounds_its_scales_as_the_whole_does(void **unused) {
    (void)unused;
    const source *s = &sources[7];
    assert_string_equal(s->name, "s8 per 32");
    fill(s);
    for (size_t i = 0; i < N * K / 32; i++) scales[i] = (float)(1 + i % 100) / 7; // no float16 values
    memset(q, 0, sizeof q);
    for (size_t t = 0; t < M; t++)
        for (size_t j = 0; j < 32; j++) q[t * K + 64 + j] = q_part[t * 32 + j] = (int8_t)next_random();
    const tern_weights_params params = {.struct_size = sizeof params, .first_k = 64, .depth = 32};
    tern_weights *whole = pack(s, NULL), *slice = pack(s, &params);
    multiply(whole, q, K, y_all);
    multiply(slice, q_part, 32, y_part);
    for (size_t i = 0; i < M * N; i++) assert_true(y_part[i] == y_all[i]);
    tern_weights_destroy(whole);
    tern_weights_destroy(slice);
    scales[2] = 1e6f; // of the block, and not finite in float16
    tern_weights *none = NULL;
    assert_int_equal(tern_weights_from_s8(ctx, &none, codes, scales, 32, N, K, K, &params), TERN_ERR_ARG);
    assert_null(none);
}

// ---- bytes --------------------------------------------------------------------------------------------------------

static void scales_that_float16_holds_take_two_bytes(void **unused) {
    (void)unused;
    enum { ROWS = 64, DEPTH = 1024 }; // whole slabs, so that nothing is padding
    static int8_t trits[ROWS * DEPTH];
    static float block_scales[ROWS * DEPTH / 64];
    tern_context *scalar = NULL;
    const tern_context_params params = {.struct_size = sizeof params, .isa = "scalar", .threads = 1, .tune = "off"};
    assert_int_equal(tern_context_create(&scalar, &params), TERN_OK);
    for (size_t block = 64; block <= 256; block *= 4)
        for (int half = 0; half < 2; half++) {
            for (size_t i = 0; i < ROWS * DEPTH / 64; i++)
                block_scales[i] = half ? (float)(1 + i % 9) / 8 : (float)(1 + i % 9) / 7;
            const tern_weights_params lut = {.struct_size = sizeof lut, .form = TERN_FORM_LUT};
            tern_weights *w = NULL;
            assert_int_equal(tern_weights_from_trits(scalar, &w, trits, block_scales, block, ROWS, DEPTH, DEPTH, &lut),
                             TERN_OK);
            tern_weights_info info = {.struct_size = sizeof info};
            assert_int_equal(tern_weights_get_info(scalar, w, &info), TERN_OK);
            const double groups = ceil((double)block / 5);
            if (strcmp(info.layout, "t5") == 0)
                assert_true(info.bits_per_weight == (groups * 8 + (half ? 16 : 32)) / (double)block);
            tern_weights_destroy(w);
        }
    tern_context_destroy(scalar);
}

static void a_second_form_is_reported_apart_and_gives_the_same_products(void **unused) {
    (void)unused;
    fill(&sources[2]);
    for (size_t j = 0; j < M * K; j++) q[j] = (int8_t)next_random();
    const tern_weights_params one = {.struct_size = sizeof one, .form = TERN_FORM_LUT, .expect_m = 1};
    const tern_weights_params two = {
        .struct_size = sizeof two, .form = TERN_FORM_LUT, .many_tokens = M, .many_tokens_form = TERN_FORM_MAD};
    tern_weights *few = pack(&sources[2], &one), *both = pack(&sources[2], &two);
    const tern_weights_info few_info = info_of(few), both_info = info_of(both);
    assert_int_equal(few_info.bytes, both_info.bytes);
    assert_int_equal(few_info.many_bytes, 0);
    assert_null(few_info.many_layout);
    assert_true(both_info.many_bytes > 0);
    assert_string_equal(both_info.many_layout, "m2");
    assert_string_not_equal(both_info.layout, "m2");
    multiply(few, q, K, y_all);
    multiply(both, q, K, y_part);
    assert_memory_equal(y_all, y_part, sizeof y_all);
    tern_weights_destroy(few);
    tern_weights_destroy(both);
}

static void huge_pages_are_never_more_than_the_codes(void **unused) {
    (void)unused;
    enum { ROWS = 2048, DEPTH = 8192 }; // 4 MiB and more: the default allocator asks for huge pages
    int8_t *trits = calloc(ROWS, DEPTH);
    assert_non_null(trits);
    const float one = 1.0f;
    tern_weights *w = NULL;
    assert_int_equal(tern_weights_from_trits(ctx, &w, trits, &one, 0, ROWS, DEPTH, DEPTH, NULL), TERN_OK);
    const tern_weights_info info = info_of(w);
    print_message("huge pages: %zu of %zu bytes\n", info.huge_page_bytes, info.bytes);
    assert_true(info.huge_page_bytes <= info.bytes);
    tern_weights_destroy(w);
    free(trits);
}

static int create(void **state) {
    const tern_context_params params = {.struct_size = sizeof params, .threads = 3, .no_pinning = 1};
    start_random(state);
    return tern_context_create(&ctx, &params) == TERN_OK ? 0 : -1;
}

static int destroy(void **unused) {
    (void)unused;
    tern_context_destroy(ctx);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_weights_multiply_as_their_floats),
        cmocka_unit_test(slices_along_n_are_the_rows_of_the_whole),
        cmocka_unit_test(slices_along_k_add_up_to_the_whole),
        cmocka_unit_test(slices_outside_the_source_or_inside_a_block_are_refused),
        cmocka_unit_test(a_slice_of_Q4_K_ends_with_a_block_of_256),
        cmocka_unit_test(a_cut_of_the_only_4_bit_block_of_a_row_keeps_its_scale),
        cmocka_unit_test(one_block_of_int8_per_32_rounds_its_scales_as_the_whole_does),
        cmocka_unit_test(scales_that_float16_holds_take_two_bytes),
        cmocka_unit_test(a_second_form_is_reported_apart_and_gives_the_same_products),
        cmocka_unit_test(huge_pages_are_never_more_than_the_codes),
    };
    return cmocka_run_group_tests(tests, create, destroy);
}
