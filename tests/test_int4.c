// SPDX-License-Identifier: MIT
// 4-bit weights through the public API: the same bits on every tier and thread count, and as INT8 weights where both exist.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "format/blocks.h"
#include "tern/diagnostics.h"
#include "test_random.h"

enum { M = 9, N = 70, K = 512, BLOCKS = K / 32, GGUF_Q4_K_BYTES = 144, GGUF_Q4_1_BYTES = 20 };

static const char *const tiers[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};
static uint8_t codes[N * K];
static float scales[N * BLOCKS], mins[N * BLOCKS], x[M * K];

static int fill(void **state) {
    const int status = start_random(state);
    for (size_t i = 0; i < N * K; i++) codes[i] = (uint8_t)random_below(16);
    for (size_t i = 0; i < N * BLOCKS; i++) {
        scales[i] = ldexpf((float)(1024 + random_below(1024)), -16); // float16 values
        mins[i] = -ldexpf((float)(1024 + random_below(1024)), -13);
    }
    for (size_t i = 0; i < M * K; i++) x[i] = random_float() * 3.0f;
    return status;
}

static void multiply(tern_context *ctx, const tern_weights *w, float *y, size_t m) {
    tern_activations *a = NULL;
    tern_weights_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
    assert_int_equal(info.act_block, 32);
    assert_int_equal(tern_activations_create(ctx, &a, m, K), TERN_OK);
    assert_int_equal(tern_activations_set_f32(ctx, a, x, m, K, K, info.act_block), TERN_OK);
    assert_int_equal(tern_matmul_f32(ctx, w, a, y, N, NULL), TERN_OK);
    tern_activations_destroy(a);
}

typedef tern_status make_fn(tern_context *ctx, tern_weights **w);

static tern_status make_plain(tern_context *ctx, tern_weights **w) {
    return tern_weights_from_u4(ctx, w, codes, scales, NULL, N, K, K, NULL);
}
static tern_status make_with_mins(tern_context *ctx, tern_weights **w) {
    return tern_weights_from_u4(ctx, w, codes, scales, mins, N, K, K, NULL);
}
// The bytes of random blocks, with ordinary float16 scales in front.
static tern_status make_q4_k(tern_context *ctx, tern_weights **w) {
    static uint8_t blocks[N * K / 256 * GGUF_Q4_K_BYTES];
    uint32_t byte = 1;
    for (size_t i = 0; i < sizeof blocks; i++) {
        byte = byte * 1664525u + 1013904223u;
        blocks[i] = (uint8_t)(byte >> 24);
    }
    for (size_t i = 0; i < sizeof blocks; i += GGUF_Q4_K_BYTES) blocks[i + 1] = blocks[i + 3] = 0x20; // d, dmin: about 2^-7
    return tern_weights_from_gguf(ctx, w, TERN_GGML_Q4_K, blocks, sizeof blocks, N, K, NULL);
}

static void results_are_bit_identical_on_every_tier_and_thread_count(void **unused) {
    (void)unused;
    make_fn *const makes[] = {make_plain, make_with_mins, make_q4_k};
    static float want[M * N], got[M * N];
    for (size_t f = 0; f < sizeof makes / sizeof *makes; f++)
        for (size_t m = 1; m <= M; m += 4)
            for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++)
                for (int threads = 1; threads <= 2; threads++) {
                    tern_context *ctx = NULL;
                    const tern_context_params params = {.struct_size = sizeof params, .threads = threads, .isa = tiers[t]};
                    const tern_status status = tern_context_create(&ctx, &params);
                    if (status == TERN_ERR_CPU) continue; // this CPU has fewer tiers
                    assert_int_equal(status, TERN_OK);
                    tern_weights *w = NULL;
                    assert_int_equal(makes[f](ctx, &w), TERN_OK);
                    const int first = t == 0 && threads == 1;
                    multiply(ctx, w, first ? want : got, m);
                    if (!first) assert_memory_equal(got, want, m * N * sizeof *got);
                    tern_weights_destroy(w);
                    tern_context_destroy(ctx);
                }
}

static void without_mins_the_bits_are_those_of_int8_weights_less_8(void **unused) {
    (void)unused;
    static int8_t less_8[N * K];
    static float want[M * N], got[M * N];
    for (size_t i = 0; i < N * K; i++) less_8[i] = (int8_t)(codes[i] - 8);
    tern_context *ctx = NULL;
    tern_weights *u4 = NULL, *s8 = NULL;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    assert_int_equal(make_plain(ctx, &u4), TERN_OK);
    assert_int_equal(tern_weights_from_s8(ctx, &s8, less_8, scales, 32, N, K, K, NULL), TERN_OK);
    for (size_t m = 1; m <= M; m++) {
        multiply(ctx, u4, got, m);
        multiply(ctx, s8, want, m);
        assert_memory_equal(got, want, m * N * sizeof *got);
    }
    tern_weights_destroy(u4);
    tern_weights_destroy(s8);
    tern_context_destroy(ctx);
}

static void with_mins_the_product_is_that_of_scale_times_code_plus_min(void **unused) {
    (void)unused;
    static float y[M * N];
    tern_context *ctx = NULL;
    tern_weights *w = NULL;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    assert_int_equal(make_with_mins(ctx, &w), TERN_OK);
    multiply(ctx, w, y, M);
    double error = 0, norm = 0;
    for (size_t m = 0; m < M; m++)
        for (size_t n = 0; n < N; n++) {
            double exact = 0;
            for (size_t k = 0; k < K; k++) {
                const size_t b = n * BLOCKS + k / 32;
                exact += (double)x[m * K + k] * ((double)scales[b] * codes[n * K + k] + (double)mins[b]);
            }
            error += pow(exact - (double)y[m * N + n], 2);
            norm += exact * exact;
        }
    assert_true(sqrt(error / norm) < 0.01); // 8-bit activations
    tern_weights_destroy(w);
    tern_context_destroy(ctx);
}

static void codes_come_back_and_take_4_bits(void **unused) {
    (void)unused;
    make_fn *const makes[] = {make_plain, make_with_mins, make_q4_k};
    static const char *const names[] = {"i4b32", "i4m32", "i4k"};
    static const double bits[] = {4.5, 5, 4.5};
    static int8_t back[N * K];
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    for (size_t f = 0; f < sizeof makes / sizeof *makes; f++) {
        tern_weights *w = NULL;
        tern_weights_info info = {.struct_size = sizeof info};
        int32_t sums[M * N];
        tern_activations *a = NULL;
        assert_int_equal(makes[f](ctx, &w), TERN_OK);
        assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
        assert_string_equal(info.layout, names[f]);
        assert_true(info.bits_per_weight == bits[f] * 80 / N); // rows are padded to 80
        assert_int_equal(tern_weights_unpack(ctx, w, back, K), TERN_OK);
        if (f < 2) assert_memory_equal(back, codes, sizeof codes);
        assert_int_equal(tern_activations_create(ctx, &a, 1, K), TERN_OK);
        assert_int_equal(tern_activations_set_f32(ctx, a, x, 1, K, K, 32), TERN_OK);
        assert_int_equal(tern_matmul_s32(ctx, w, a, sums, N), TERN_ERR_UNSUPPORTED);
        tern_activations_destroy(a);
        tern_weights_destroy(w);
    }
    tern_context_destroy(ctx);
}

// One block and less: the activations then have one scale for the row.
static void depths_of_one_block_and_less_are_exact(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    for (size_t k = 1; k <= 33; k++) {
        tern_weights *w = NULL;
        tern_activations *a = NULL;
        int8_t q[33];
        float y[3];
        int32_t sums[3];
        const float one[] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f}, two[] = {2.0f, 2.0f, 2.0f, 2.0f, 2.0f, 2.0f};
        for (size_t i = 0; i < k; i++) q[i] = (int8_t)random_below(256);
        assert_int_equal(tern_weights_from_u4(ctx, &w, codes, one, two, 3, k, K, NULL), TERN_OK);
        assert_int_equal(tern_activations_create(ctx, &a, 1, k), TERN_OK);
        assert_int_equal(tern_activations_set_s8(ctx, a, q, NULL, 1, k, k, k > 32 ? 32 : 0), TERN_OK);
        assert_int_equal(tern_matmul_f32(ctx, w, a, y, 3, NULL), TERN_OK);
        assert_int_equal(tern_matmul_s32(ctx, w, a, sums, 3), TERN_ERR_UNSUPPORTED);
        for (size_t n = 0; n < 3; n++) {
            int want = 0;
            for (size_t i = 0; i < k; i++) want += q[i] * (codes[n * K + i] + 2);
            assert_true(y[n] == (float)want);
        }
        tern_activations_destroy(a);
        tern_weights_destroy(w);
    }
    tern_context_destroy(ctx);
}

static void wrong_codes_and_scales_are_refused(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    tern_weights *w = NULL;
    uint8_t row[32] = {0};
    float one = 1.0f, large = 65520.0f, nan = NAN;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    assert_int_equal(tern_weights_from_u4(ctx, &w, row, NULL, NULL, 1, 32, 32, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_u4(ctx, &w, row, &large, NULL, 1, 32, 32, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_u4(ctx, &w, row, &one, &nan, 1, 32, 32, NULL), TERN_ERR_ARG);
    row[31] = 16;
    assert_int_equal(tern_weights_from_u4(ctx, &w, row, &one, NULL, 1, 32, 32, NULL), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "outside 0..15"));
    uint8_t block[GGUF_Q4_1_BYTES] = {0x00, 0x7c}; // an infinite scale
    assert_int_equal(tern_weights_from_gguf(ctx, &w, TERN_GGML_Q4_1, block, sizeof block, 1, 32, NULL), TERN_ERR_FORMAT);
    assert_null(w);
    tern_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_bit_identical_on_every_tier_and_thread_count),
        cmocka_unit_test(without_mins_the_bits_are_those_of_int8_weights_less_8),
        cmocka_unit_test(with_mins_the_product_is_that_of_scale_times_code_plus_min),
        cmocka_unit_test(codes_come_back_and_take_4_bits),
        cmocka_unit_test(depths_of_one_block_and_less_are_exact),
        cmocka_unit_test(wrong_codes_and_scales_are_refused),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
