// SPDX-License-Identifier: MIT
// Binary weights: each kernel of layout B1 against plain loops, with unreadable pages around every buffer; packing against the
// diagram of kernels/layout.h; the public API and GGUF Q1_0 against the oracle.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/blocks.h"
#include "guard_buffer.h"
#include "kernel_variants.h"
#include "matmul/pack_ternary.h"
#include "tern/diagnostics.h"

// ---- kernels -----------------------------------------------------------------------------------------------------

// EDGE: every group's half-sum is 252 = -12 + 24 * 11, which drives the byte sums to their bounds.
typedef enum pattern { RANDOM, ALL_MIN, ALL_MAX, MATCHED, OPPOSED, EDGE, EDGE_NEGATED, EVERY_CODE, PATTERNS } pattern;

static int8_t x_of(pattern how) {
    return how == ALL_MIN                       ? (int8_t)INT8_MIN
           : how == ALL_MAX                     ? (int8_t)INT8_MAX
           : how == EDGE || how == EDGE_NEGATED ? (int8_t)126
                                                : (int8_t)(next_random() & 0xFF);
}
static int8_t sign_of(pattern how, size_t i, size_t j, int8_t x) {
    switch (how) {
    case ALL_MIN:
    case ALL_MAX:
    case EDGE:
        return 1;
    case EDGE_NEGATED:
        return -1;
    case MATCHED:
        return x < 0 ? -1 : 1;
    case OPPOSED:
        return x < 0 ? 1 : -1;
    case EVERY_CODE:
        return i >> j % 8 & 1 ? 1 : -1; // rows 0..255 hold every byte
    default:
        return next_random() & 1 ? 1 : -1;
    }
}

static void check_product(tern_gemm_fn *gemm, size_t n, size_t m, size_t k, pattern how) {
    enum { GAP = 16, TABLES_GAP = 64, SENTINEL = 0x5A5A5A5A };
    if (!test_takes_case(next_random())) return;
    const size_t n_padded = tern_round_up(n, TERN_SLAB_ALIGN), ld_acc = n_padded + GAP, bytes = tern_b1_table_bytes(k);
    int8_t *w = malloc(n * k), *x = malloc(m * k);
    assert_true(w && x);
    for (size_t i = 0; i < m * k; i++) x[i] = x_of(how);
    for (size_t i = 0; i < n * k; i++) w[i] = sign_of(how, i / k, i % k, x[i % k]);
    uint8_t *packed = guard_buffer(GUARD_W, tern_b1_bytes(n_padded, k));
    tern_pack_ternary(TERN_LAYOUT_B1, packed, w, k, n_padded, 0, n, n_padded, k);
    int8_t *tables = guard_buffer(GUARD_TABLES, (m - 1) * (bytes + TABLES_GAP) + bytes);
    for (size_t t = 0; t < m; t++)
        tern_lut_build_b1_scalar(tables + t * (bytes + TABLES_GAP), x + t * k, k, 0, tern_b1_rows(k));
    const size_t total = (m - 1) * ld_acc + n_padded;
    int32_t *acc = guard_buffer(GUARD_OUT, tern_round_up(total * sizeof *acc, 64));
    for (size_t i = 0; i < total; i++) acc[i] = SENTINEL;
    const tern_gemm_args args = {.acc = acc,
                                 .ld_acc = ld_acc,
                                 .packed = packed,
                                 .n = n_padded,
                                 .m = m,
                                 .k = k,
                                 .tables = tables,
                                 .ld_tables = bytes + TABLES_GAP};
    gemm(&args);
    for (size_t t = 0; t < m; t++) {
        for (size_t i = 0; i < n; i++) {
            int32_t sum = 0;
            for (size_t j = 0; j < k; j++) sum += w[i * k + j] * x[t * k + j];
            if (acc[t * ld_acc + i] != sum)
                fail_msg("%s: n %zu, m %zu, k %zu, pattern %d: token %zu, feature %zu is %d, not %d (seed %llu)", running, n, m,
                         k, (int)how, t, i, acc[t * ld_acc + i], sum, (unsigned long long)random_seed);
        }
        for (size_t i = n_padded; i < ld_acc && t + 1 < m; i++) assert_int_equal(acc[t * ld_acc + i], SENTINEL);
    }
    free(w);
    free(x);
}

// Twice a block of 128 features, two passes of 8 tokens, and 12 K-tiles of 40 activations (one int16 spill), and some more.
enum { N_SWEEP = 2 * 128 + 1, M_SWEEP = 2 * 8 + 1, K_SWEEP = 2 * 480 + 1 };

static void products_are_exact_for_every_size(void **unused) {
    (void)unused;
    FOR_EACH_VARIANT(sign_gemm, gemm) {
        test_begin_group();
        for (size_t n = 1; n <= N_SWEEP; n += 5) check_product(gemm, n, 1 + n % 3, 41, RANDOM);
        for (size_t m = 1; m <= M_SWEEP; m++) check_product(gemm, 193, m, 87, RANDOM);
        for (size_t k = 1; k <= K_SWEEP; k += k < 99 ? 1 : 7) check_product(gemm, 64, 1 + k % 2, k, RANDOM);
        check_product(gemm, TERN_SLAB_MAX, 3, 130, RANDOM);
    }
}

static void products_are_exact_for_extreme_values_and_every_code(void **unused) {
    (void)unused;
    static const size_t depths[] = {1, 8, 40, 479, 480, 481, 2560, 131071};
    FOR_EACH_VARIANT(sign_gemm, gemm) {
        test_begin_group();
        for (int how = 0; how < PATTERNS; how++)
            for (size_t d = 0; d < sizeof depths / sizeof *depths; d++)
                for (size_t m = 1; m <= 3; m += 2)
                    check_product(gemm, how == EVERY_CODE && depths[d] < 131071 ? 256 : 2, m, depths[d], (pattern)how);
    }
}

static void tables_hold_every_half_sum(void **unused) {
    (void)unused;
    enum { K_LAST = 530, ENTRIES = 16, GROUP_BYTES = 32 };
    for (size_t k = 1; k <= K_LAST; k += k < 40 ? 1 : 61)
        for (int how = RANDOM; how <= ALL_MAX; how++) {
            const size_t bytes = tern_b1_table_bytes(k);
            int8_t *q = guard_buffer(GUARD_X, k), *expected = guard_buffer(GUARD_W, bytes);
            for (size_t j = 0; j < k; j++) q[j] = x_of((pattern)how);
            for (size_t g = 0; g < 2 * tern_b1_rows(k); g++)
                for (size_t e = 0; e < ENTRIES; e++) {
                    int value = 0;
                    for (size_t j = 0; j < 4; j++) value += (e >> j & 1 ? 1 : -1) * (4 * g + j < k ? q[4 * g + j] : 0);
                    const int half = (int)floor(value / 2.0), hi = (int)floor((half + 12) / 24.0);
                    expected[g * GROUP_BYTES + e] = (int8_t)(half - 24 * hi);
                    expected[g * GROUP_BYTES + ENTRIES + e] = (int8_t)hi;
                }
            for (size_t at = 0; next_variant(&at, TERN_STAGE_lut_build, TERN_STAGE_lut_build);) {
                if (variants[at - 1].layout != TERN_LAYOUT_B1) continue;
                int8_t *tables = guard_buffer(GUARD_TABLES, bytes);
                ((tern_lut_build_fn *)variants[at - 1].fn)(tables, q, k, 0, tern_b1_rows(k));
                assert_memory_equal(tables, expected, bytes);
            }
        }
}

// ---- packing -------------------------------------------------------------------------------------------------------

static void slabs_follow_their_diagram_and_unpack_exactly(void **unused) {
    (void)unused;
    enum { TILE_ROWS = 5, BLOCK = 128 };
    static const size_t slabs[] = {64, 192, 448, 1088}, depths[] = {1, 7, 8, 9, 39, 40, 41, 79, 80, 81, 128, 333};
    for (size_t s = 0; s < sizeof slabs / sizeof *slabs; s++)
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
            const size_t n = slabs[s], k = depths[d], rows = (k + 7) / 8;
            int8_t *w = malloc(n * k), *back = malloc(n * k);
            uint8_t *packed = malloc(n * rows), *p = packed;
            assert_true(w && back && packed);
            for (size_t i = 0; i < n * k; i++) w[i] = next_random() & 1 ? 1 : -1;
            tern_pack_ternary(TERN_LAYOUT_B1, packed, w, k, n, 0, n, n, k);
            for (size_t tile = 0; tile < rows; tile += TILE_ROWS)
                for (size_t f0 = 0, width; f0 < n; f0 += width) {
                    width = n - f0 < BLOCK ? BLOCK / 2 : BLOCK;
                    for (size_t r = tile; r < rows && r < tile + TILE_ROWS; r++)
                        for (size_t f = f0; f < f0 + width; f++) {
                            int byte = 0;
                            for (size_t j = 0; j < 8 && 8 * r + j < k; j++) byte |= (w[f * k + 8 * r + j] > 0) << j;
                            assert_int_equal(*p++, byte);
                        }
                }
            tern_unpack_ternary(TERN_LAYOUT_B1, back, k, packed, n, 0, n, k);
            assert_memory_equal(back, w, n * k);
            free(w);
            free(back);
            free(packed);
        }
}

// ---- the library -----------------------------------------------------------------------------------------------------

enum { M = 5, N = 150, K = 384, BLOCK = 128, BLOCKS = K / BLOCK, Q1_BYTES = 18 };
static int8_t signs[N * K];
static float scales[N * BLOCKS], x[M * K];
static uint8_t gguf[N * BLOCKS * Q1_BYTES];

static int fill(void **state) {
    const int status = start_kernel_test(state);
    for (size_t i = 0; i < N * K; i++) {
        signs[i] = next_random() & 1 ? 1 : -1;
        uint8_t *block = gguf + i / BLOCK * Q1_BYTES;
        if (i % BLOCK == 0) {
            const uint16_t d = (uint16_t)(i / BLOCK == 7 ? 0 : 0x3000 + random_below(0x400)); // one block of +-0
            memcpy(block, &d, sizeof d);
            scales[i / BLOCK] = tern_f16_to_f32(d);
        }
        block[2 + i % BLOCK / 8] |= (uint8_t)((signs[i] > 0) << i % 8);
    }
    for (size_t i = 0; i < M * K; i++) x[i] = random_float();
    return status;
}

static tern_context *open_tier(const char *tier) {
    const tern_context_params params = {.struct_size = sizeof params, .isa = tier, .threads = 2};
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, &params), TERN_OK);
    return ctx;
}

static void multiply(tern_context *ctx, const tern_weights *w, float *y, const char *layout) {
    tern_activations *a = NULL;
    tern_weights_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
    assert_string_equal(info.layout, layout);
    assert_int_equal(tern_activations_create(ctx, &a, M, K), TERN_OK);
    assert_int_equal(tern_activations_set_f32(ctx, a, x, M, K, K, info.act_block), TERN_OK);
    assert_int_equal(tern_matmul_f32(ctx, w, a, y, N, NULL), TERN_OK);
    tern_activations_destroy(a);
    static int8_t back[N * K];
    assert_int_equal(tern_weights_unpack(ctx, w, back, K), TERN_OK);
    assert_memory_equal(back, signs, sizeof signs);
}

static void signs_from_the_caller_and_from_q1_0_give_the_bits_of_multiply_add(void **unused) {
    (void)unused;
    static const char *const tiers[] = {"scalar", "avx2", NULL}; // NULL: the best
    static float expected[M * N], y[M * N];
    const tern_weights_params mad = {.struct_size = sizeof mad, .form = TERN_FORM_MAD};
    for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++) {
        if (tiers[i] && !test_cpu_has_tier(i == 0 ? TERN_TIER_SCALAR : TERN_TIER_AVX2)) continue;
        tern_context *ctx = open_tier(tiers[i]);
        tern_weights *trits, *lut, *from_file;
        assert_int_equal(tern_weights_from_signs(ctx, &trits, signs, scales, BLOCK, N, K, K, &mad), TERN_OK);
        assert_int_equal(tern_weights_from_signs(ctx, &lut, signs, scales, BLOCK, N, K, K, NULL), TERN_OK);
        assert_int_equal(tern_weights_from_gguf(ctx, &from_file, TERN_GGML_Q1_0, gguf, sizeof gguf, N, K, NULL), TERN_OK);
        multiply(ctx, trits, expected, "m2");
        multiply(ctx, lut, y, "b1");
        assert_memory_equal(y, expected, sizeof y);
        multiply(ctx, from_file, y, "b1");
        assert_memory_equal(y, expected, sizeof y);
        tern_weights_destroy(trits);
        tern_weights_destroy(lut);
        tern_weights_destroy(from_file);
        tern_context_destroy(ctx);
    }
}

static void one_scale_takes_one_bit_and_integers_are_exact(void **unused) {
    (void)unused;
    static int32_t expected[M * N], y[M * N];
    static int8_t q[M * K];
    const float one = 1.0f;
    tern_context *ctx = open_tier(NULL);
    tern_weights *w;
    tern_activations *a;
    tern_weights_info info = {.struct_size = sizeof info};
    for (size_t i = 0; i < M * K; i++) q[i] = (int8_t)(next_random() & 0xFF);
    assert_int_equal(tern_weights_from_signs(ctx, &w, signs, &one, 0, N, K, K, NULL), TERN_OK);
    assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
    assert_true(info.bits_per_weight < 1.3); // 150 rows are padded to 192
    assert_int_equal(tern_activations_create(ctx, &a, M, K), TERN_OK);
    assert_int_equal(tern_activations_set_s8(ctx, a, q, NULL, M, K, K, 0), TERN_OK);
    assert_int_equal(tern_matmul_s32(ctx, w, a, y, N), TERN_OK);
    tern_oracle_s32(expected, signs, q, M, N, K, N, K, K);
    assert_memory_equal(y, expected, sizeof y);
    tern_activations_destroy(a);
    tern_weights_destroy(w);
    tern_context_destroy(ctx);
}

static void a_zero_is_no_sign(void **unused) {
    (void)unused;
    static const int8_t bad[] = {1, 0, -1}, worse[] = {1, 2, -1};
    const float one = 1.0f;
    tern_context *ctx = open_tier(NULL);
    tern_weights *w = NULL;
    assert_int_equal(tern_weights_from_signs(ctx, &w, bad, &one, 0, 1, 3, 3, NULL), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "a value is not a sign"));
    assert_int_equal(tern_weights_from_signs(ctx, &w, worse, &one, 0, 1, 3, 3, NULL), TERN_ERR_ARG);
    assert_null(w);
    tern_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_exact_for_every_size),
        cmocka_unit_test(products_are_exact_for_extreme_values_and_every_code),
        cmocka_unit_test(tables_hold_every_half_sum),
        cmocka_unit_test(slabs_follow_their_diagram_and_unpack_exactly),
        cmocka_unit_test(signs_from_the_caller_and_from_q1_0_give_the_bits_of_multiply_add),
        cmocka_unit_test(one_scale_takes_one_bit_and_integers_are_exact),
        cmocka_unit_test(a_zero_is_no_sign),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
