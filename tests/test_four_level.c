// SPDX-License-Identifier: MIT
// Four-level weights (-1, 0, +1, +2) through the public API: exact products on every tier, the exact way back, GGUF Q2_0 in
// both of its block sizes, and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu_tiers.h"
#include "kernels/kernels.h"
#include "tern/diagnostics.h"
#include "tern/matmul.h"
#include "test_random.h"
#include "test_scale.h"

enum { Q2_0 = 42, N_MAX = 150, M_MAX = 20, K_LONG = 1100, F16_BYTES = 2 };

static const char *const tiers[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};

static tern_context *create(const char *isa, int threads) {
    const tern_context_params params = {.struct_size = sizeof params, .threads = threads, .isa = isa, .no_pinning = 1};
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, &params), TERN_OK);
    return ctx;
}

static void fill_codes(int8_t *codes, size_t count, int levels) {
    for (size_t i = 0; i < count; i++) codes[i] = (int8_t)((int)random_below((size_t)levels) - 1);
}

static const char *layout_of(tern_context *ctx, const tern_weights *w) {
    tern_weights_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
    return info.layout;
}

static void check_product(tern_context *ctx, size_t n, size_t m, size_t k) {
    static int8_t codes[N_MAX * K_LONG], back[N_MAX * K_LONG], x[M_MAX * K_LONG];
    static int32_t want[M_MAX * N_MAX], got[M_MAX * N_MAX];
    const float one = 1;
    fill_codes(codes, n * k, 4);
    codes[random_below(n * k)] = 2;
    for (size_t i = 0; i < m * k; i++) x[i] = (int8_t)(next_random() & 0xFF);
    tern_oracle_s32(want, codes, x, m, n, k, n, k, k);
    tern_weights *w = NULL;
    tern_activations *a = NULL;
    assert_int_equal(tern_weights_from_q2(ctx, &w, codes, &one, 0, n, k, k, NULL), TERN_OK);
    assert_string_equal(layout_of(ctx, w), "m2");
    assert_int_equal(tern_weights_unpack(ctx, w, back, k), TERN_OK);
    assert_memory_equal(back, codes, n * k);
    assert_int_equal(tern_activations_create(ctx, &a, m, k), TERN_OK);
    assert_int_equal(tern_activations_set_s8(ctx, a, x, NULL, m, k, k, 0), TERN_OK);
    assert_int_equal(tern_matmul_s32(ctx, w, a, got, n), TERN_OK);
    assert_memory_equal(got, want, m * n * sizeof *got);
    tern_activations_destroy(a);
    tern_weights_destroy(w);
}

static void products_are_exact_on_every_tier(void **state) {
    (void)state;
    enum { CASES = 60 };
    for (int tier = 0; tier < TERN_TIER_COUNT; tier++) {
        if (!test_cpu_has_tier((tern_tier)tier)) continue;
        tern_context *ctx = create(tiers[tier], 1 + tier % 2);
        test_begin_group();
        for (int i = 0; i < CASES; i++)
            if (test_takes_case(next_random()))
                check_product(ctx, 1 + random_below(N_MAX), 1 + random_below(M_MAX), 1 + random_below(K_LONG));
        tern_context_destroy(ctx);
    }
}

static void codes_without_a_two_are_ternary_weights(void **state) {
    (void)state;
    enum { N = 64, K = 128 };
    int8_t codes[N * K];
    fill_codes(codes, sizeof codes, 3);
    const float one = 1;
    tern_context *ctx = create(NULL, 1);
    for (int form = TERN_FORM_AUTO; form <= TERN_FORM_MAD; form++) {
        const tern_weights_params params = {.struct_size = sizeof params, .form = (tern_form)form};
        tern_weights *trits = NULL, *q2 = NULL;
        assert_int_equal(tern_weights_from_trits(ctx, &trits, codes, &one, 0, N, K, K, &params), TERN_OK);
        assert_int_equal(tern_weights_from_q2(ctx, &q2, codes, &one, 0, N, K, K, &params), TERN_OK);
        assert_string_equal(layout_of(ctx, q2), layout_of(ctx, trits));
        tern_weights_destroy(trits);
        tern_weights_destroy(q2);
    }
    tern_context_destroy(ctx);
}

static void lookup_of_a_two_and_codes_out_of_range_are_refused(void **state) {
    (void)state;
    const int8_t two[] = {0, 2}, three[] = {0, 3}, minus_two[] = {-2, 1};
    const float one = 1;
    const tern_weights_params lut = {.struct_size = sizeof lut, .form = TERN_FORM_LUT};
    tern_context *ctx = create(NULL, 1);
    tern_weights *w = NULL;
    assert_int_equal(tern_weights_from_q2(ctx, &w, two, &one, 0, 1, 2, 2, &lut), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(tern_context_error(ctx), "TERN_FORM_MAD"));
    assert_int_equal(tern_weights_from_q2(ctx, &w, three, &one, 0, 1, 2, 2, NULL), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "-1, 0, +1 or +2"));
    assert_int_equal(tern_weights_from_q2(ctx, &w, minus_two, &one, 0, 1, 2, 2, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_trits(ctx, &w, two, &one, 0, 1, 2, 2, NULL), TERN_ERR_ARG);
    assert_null(w);
    tern_context_destroy(ctx);
}

// ---- GGUF Q2_0 ------------------------------------------------------------------------------------------------------------

// Rows in blocks: a float16 scale, then element j of a block at bits 2 (j % 4) of byte j / 4, as code + 1.
static void put_blocks(uint8_t *out, const int8_t *codes, const uint16_t *halves, size_t count, size_t block) {
    for (size_t b = 0; b < count / block; b++) {
        memcpy(out, &halves[b], F16_BYTES);
        memset(out + F16_BYTES, 0, block / 4);
        for (size_t j = 0; j < block; j++)
            out[F16_BYTES + j / 4] = (uint8_t)(out[F16_BYTES + j / 4] | (unsigned)(codes[b * block + j] + 1) << 2 * (j % 4));
        out += F16_BYTES + block / 4;
    }
}

enum { GGUF_N = 37, GGUF_K = 384, GGUF_M = 3, GGUF_BLOCKS_MAX = GGUF_N * GGUF_K / 64 };

static void float_product(tern_context *ctx, const tern_weights *w, const float *x, float *y) {
    tern_weights_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
    tern_activations *a = NULL;
    assert_int_equal(tern_activations_create(ctx, &a, GGUF_M, GGUF_K), TERN_OK);
    assert_int_equal(tern_activations_set_f32(ctx, a, x, GGUF_M, GGUF_K, GGUF_K, info.act_block), TERN_OK);
    assert_int_equal(tern_matmul_f32(ctx, w, a, y, GGUF_N, NULL), TERN_OK);
    tern_activations_destroy(a);
}

// One scale for all blocks, or one for each: halves[i] and the same as floats.
static void fill_scales(uint16_t *halves, float *scales, size_t count, int equal) {
    enum { HALF_ONE = 0x3C00, MANTISSA = 0x3FF };
    for (size_t i = 0; i < count; i++) {
        const unsigned mantissa = equal ? 0x155 : (unsigned)random_below(MANTISSA + 1);
        halves[i] = (uint16_t)(HALF_ONE | mantissa);
        scales[i] = 1 + (float)mantissa / (MANTISSA + 1);
    }
}

static void q2_0_blocks_of_both_sizes_equal_their_codes_and_scales(void **state) {
    (void)state;
    static const size_t block_sizes[] = {64, 128};
    static int8_t codes[GGUF_N * GGUF_K], back[GGUF_N * GGUF_K];
    static uint8_t packed[GGUF_BLOCKS_MAX * (F16_BYTES + 16)];
    static uint16_t halves[GGUF_BLOCKS_MAX];
    static float scales[GGUF_BLOCKS_MAX], x[GGUF_M * GGUF_K], want[GGUF_M * GGUF_N], got[GGUF_M * GGUF_N];
    tern_context *ctx = create(NULL, 2);
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++) x[i] = random_float();
    for (int levels = 3; levels <= 4; levels++)
        for (int equal = 0; equal <= 1; equal++)
            for (size_t i = 0; i < 2; i++) {
                const size_t block = block_sizes[i], blocks = sizeof codes / block, bytes = blocks * (F16_BYTES + block / 4);
                fill_codes(codes, sizeof codes, levels);
                fill_scales(halves, scales, blocks, equal);
                put_blocks(packed, codes, halves, sizeof codes, block);
                tern_weights *w = NULL, *same = NULL;
                assert_int_equal(tern_weights_from_gguf(ctx, &w, Q2_0, packed, bytes, GGUF_N, GGUF_K, NULL), TERN_OK);
                assert_int_equal(tern_weights_from_q2(ctx, &same, codes, scales, block, GGUF_N, GGUF_K, GGUF_K, NULL), TERN_OK);
                assert_string_equal(layout_of(ctx, w), layout_of(ctx, same));
                assert_int_equal(tern_weights_unpack(ctx, w, back, GGUF_K), TERN_OK);
                assert_memory_equal(back, codes, sizeof codes);
                float_product(ctx, w, x, got);
                float_product(ctx, same, x, want);
                assert_memory_equal(got, want, sizeof got);
                tern_weights_destroy(w);
                tern_weights_destroy(same);
            }
    tern_context_destroy(ctx);
}

static void damaged_q2_0_is_refused(void **state) {
    (void)state;
    enum { K = 128, BYTES = 2 * 18, OLD_BYTES = 34, NAN_HALF = 0x7E00 };
    uint8_t packed[BYTES] = {0};
    const uint16_t nan_half = NAN_HALF;
    tern_context *ctx = create(NULL, 1);
    tern_weights *w = NULL;
    for (size_t size = 0; size <= BYTES; size++)
        if (size != BYTES && size != OLD_BYTES)
            assert_int_equal(tern_weights_from_gguf(ctx, &w, Q2_0, packed, size, 1, K, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_gguf(ctx, &w, Q2_0, packed, BYTES, 1, K + 1, NULL), TERN_ERR_ARG);
    memcpy(packed + 18, &nan_half, sizeof nan_half);
    assert_int_equal(tern_weights_from_gguf(ctx, &w, Q2_0, packed, BYTES, 1, K, NULL), TERN_ERR_FORMAT);
    assert_null(w);
    tern_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_exact_on_every_tier),
        cmocka_unit_test(codes_without_a_two_are_ternary_weights),
        cmocka_unit_test(lookup_of_a_two_and_codes_out_of_range_are_refused),
        cmocka_unit_test(q2_0_blocks_of_both_sizes_equal_their_codes_and_scales),
        cmocka_unit_test(damaged_q2_0_is_refused),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
