// SPDX-License-Identifier: MIT
// Calls each 6-bit GEMM variant that this CPU has, without the library around it: against the written float order over plain
// 64-bit sums, with unreadable pages around every buffer; and packing against the diagrams of kernels/layout.h.
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

#include "direct_b32.h"
#include "matmul/build.h"
#include "matmul/pack_int6.h"

enum { SUPER = 64, WIDE_SHARE = 1024 };

// k of the first supers have 8 bits, one super for each 1024 k that begin.
static bool is_wide(size_t k, size_t j) { return j / SUPER < (k + WIDE_SHARE - 1) / WIDE_SHARE; }

static int8_t code_of(pattern how, size_t k, size_t j) {
    const int most = is_wide(k, j) ? 127 : 31;
    switch (how) {
    case LARGEST:
    case LARGEST_TIMES_MIN:
        return (int8_t)most;
    case SMALLEST:
        return (int8_t)-most;
    case ALTERNATE:
        return (int8_t)(j % 2 ? most : -most);
    default:
        return (int8_t)((int)random_below(2 * (size_t)most + 1) - most);
    }
}
static float *random_scales(size_t n, size_t k) {
    const size_t count = tern_i6_scales(k);
    float *scales = malloc(n * count * sizeof *scales);
    assert_non_null(scales);
    for (size_t i = 0; i < n * count; i++)
        scales[i] = i % count ? (float)random_below(256) : ldexpf(random_float(), -(int)random_below(12));
    return scales;
}

static float expected(const int8_t *codes, const int8_t *x, const float *scales, const float *x_scales, size_t k) {
    float y = 0;
    for (size_t b = 0; b * BLOCK < k; b++) {
        int64_t dot = 0;
        for (size_t j = b * BLOCK; j < k && j < (b + 1) * BLOCK; j++) dot += (int64_t)codes[j] * x[j];
        const float d = scales[0] * scales[1 + b];
        const float both = d * x_scales[b];
        const float term = (float)dot * both;
        y = y + term;
    }
    return y;
}

static void check_product(size_t n, size_t m, size_t k, pattern how) {
    if (!test_takes_case(next_random())) return;
    const size_t count = tern_i6_scales(k);
    int8_t *codes = malloc(n * k);
    float *want = malloc(n * m * sizeof *want), *scales = random_scales(n, k);
    assert_true(codes && want);
    for (size_t i = 0; i < n * k; i++) codes[i] = code_of(how, k, i % k);
    uint8_t *packed = guard_buffer(GUARD_W, tern_i6_bytes(n, k));
    assert_true(tern_pack_i6(packed, codes, k, scales, count, 0, n, n, k));
    const tern_gemm_b32_args args = direct_args(packed, n, m, k, how);
    for (size_t t = 0; t < m; t++)
        for (size_t i = 0; i < n; i++)
            want[t * n + i] =
                expected(codes + i * k, args.x + t * args.ldx, scales + i * count, args.x_scales + t * args.ld_x_blocks, k);
    FOR_EACH_VARIANT(int6_gemm_b32, gemm) {
        direct_clear(&args);
        gemm(&args);
        direct_check(&args, want, how);
    }
    free(want), free(scales), free(codes);
}

// m sweeps past twice the widest token tile and past the 64 tokens whose activations are prepared at once, n past several
// panels, k past a chunk of 512, past 1024 (two wide supers) and past 8192 (one run of few tokens).
static void int6_gemm_variants_equal_the_written_float_order(void **unused) {
    (void)unused;
    enum { M_SWEEP = 13, K_SWEEP = 133, FEW = 3, RANDOM_CASES = 200 };
    const size_t some_n[FEW] = {16, 32, 48}, some_m[FEW] = {1, 2, 9}, some_k[FEW] = {1, 37, 192};
    test_begin_group();
    for (int how = 0; how < PATTERNS; how++) {
        for (size_t i = 0; i < FEW; i++) {
            for (size_t m = 1; m <= M_SWEEP; m++) check_product(some_n[i], m, some_k[(i + m) % FEW], (pattern)how);
            for (size_t n = 16; n <= 80; n += 16) check_product(n, some_m[i], some_k[(i + n / 16) % FEW], (pattern)how);
        }
        for (size_t k = 1; k <= K_SWEEP; k++) check_product(some_n[k % FEW], some_m[k / FEW % FEW], k, (pattern)how);
        check_product(16, 7, 2100, (pattern)how);
        check_product(32, 3, 1025, (pattern)how);
        check_product(32, 1, 8300, (pattern)how);
        check_product(16, 131, 140, (pattern)how);
    }
    for (size_t i = 0; i < RANDOM_CASES; i++)
        check_product(16 * (1 + random_below(3)), 1 + random_below(20), 1 + random_below(1600),
                      (pattern)random_below(PATTERNS));
}

static void int6_gemm_is_right_at_the_largest_depth(void **unused) {
    (void)unused;
    test_begin_group();
    for (size_t m = 1; m <= 6; m += 5) check_product(16, m, 131071, LARGEST_TIMES_MIN);
}

// The code of feature f and depth j as the diagrams in kernels/layout.h say.
static int diagram_code(const uint8_t *packed, size_t k, size_t f, size_t j) {
    const size_t supers = (k + SUPER - 1) / SUPER, wide = (k + WIDE_SHARE - 1) / WIDE_SHARE, s = j / SUPER;
    const size_t panel_bytes = 64 + wide * 1056 + (supers - wide) * 800;
    const uint8_t *super = packed + f / 16 * panel_bytes + 64 + (s < wide ? s * 1056 : wide * 1056 + (s - wide) * 800);
    if (s < wide) return (int8_t)super[32 + j % SUPER / 4 * 64 + f % 16 * 4 + j % 4];
    const uint8_t *lines = super + 32 + j % SUPER / 16 * 192 + f % 16 * 4 + j % 4;
    if (j % 16 < 12) return (lines[j % 16 / 4 * 64] & 63) - 32;
    return (lines[0] >> 6) + 4 * (lines[64] >> 6) + 16 * (lines[128] >> 6) - 32;
}

static void int6_panels_follow_their_diagram_and_unpack_exactly(void **unused) {
    (void)unused;
    static const size_t depths[] = {1, 31, 32, 33, 64, 65, 200, 1024, 1100};
    for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
        const size_t k = depths[d], count = tern_i6_scales(k);
        for (size_t n = 1; n <= 35; n += 17) {
            const size_t n_padded = tern_round_up(n, 16), bytes = tern_i6_bytes(n_padded, k);
            int8_t *codes = malloc(n * k), *back = malloc(k);
            uint8_t *packed = guard_buffer(GUARD_W, bytes);
            float *scales = random_scales(n, k), *scales_back = malloc(count * sizeof *scales_back);
            assert_true(codes && back && scales_back);
            memset(packed, OUT_FILL, bytes);
            for (size_t i = 0; i < n * k; i++) codes[i] = code_of(RANDOM, k, i % k);
            assert_true(tern_pack_i6(packed, codes, k, scales, count, 0, n, n_padded, k));
            for (size_t f = 0; f < n; f++) {
                for (size_t j = 0; j < k; j++) assert_int_equal(diagram_code(packed, k, f, j), codes[f * k + j]);
                tern_unpack_i6(back, scales_back, packed, f, k);
                assert_memory_equal(back, codes + f * k, k);
                for (size_t i = 0; i < count; i++) assert_true(scales_back[i] == scales[f * count + i]);
            }
            free(codes), free(back), free(scales), free(scales_back);
        }
    }
}

// ---- quantizing ---------------------------------------------------------------------------------------------------------

// Scales without a search, and without being rounded to D * s.
static double plain_error(const float *x, size_t n, float most) {
    float absmax = 0;
    for (size_t i = 0; i < n; i++) absmax = fmaxf(absmax, fabsf(x[i]));
    const float d = absmax / most;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += pow((double)(d > 0 ? d * rintf(x[i] / d) : 0) - (double)x[i], 2);
    return sum;
}

static void a_searched_scale_beats_that_of_the_largest_value(void **unused) {
    (void)unused;
    enum { K = 320, ROWS = 300 };
    double ours = 0, plain = 0;
    for (size_t r = 0; r < ROWS; r++) {
        float x[K], scales[1 + K / BLOCK];
        int8_t codes[K];
        for (size_t i = 0; i < K; i++) x[i] = random_float() + random_float() + random_float();
        assert_null(tern_quantize_row_int6(codes, scales, x, K));
        for (size_t i = 0; i < K; i++) {
            assert_true(abs(codes[i]) <= (i < SUPER ? 127 : 31));
            const double back = (double)scales[0] * (double)scales[1 + i / BLOCK] * codes[i];
            if (i < SUPER) assert_true(fabs(back - (double)x[i]) <= 0.02); // 8 bits of at most 3, and the rounding of s
            if (i >= SUPER) ours += pow(back - (double)x[i], 2);
        }
        for (size_t k0 = SUPER; k0 < K; k0 += BLOCK) plain += plain_error(x + k0, BLOCK, 31);
    }
    assert_true(ours < 0.97 * plain);
}

static void rows_of_equal_zero_tiny_and_huge_values_are_what_they_can_be(void **unused) {
    (void)unused;
    enum { K = 141 };
    static const float values[] = {0, 1.5f, -3, 3e38f, -60000, 1e-9f};
    int8_t codes[K];
    float x[K], scales[1 + (K + BLOCK - 1) / BLOCK];
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (size_t i = 0; i < K; i++) x[i] = values[v];
        assert_null(tern_quantize_row_int6(codes, scales, x, K));
        for (size_t i = 0; i < K; i++) {
            const float back = scales[0] * scales[1 + i / BLOCK] * (float)codes[i];
            assert_true(fabsf(back - x[i]) <= fabsf(x[i]) * 0.01f);
        }
    }
    for (size_t i = 0; i < K; i++) x[i] = 1e-44f; // below what a scale can hold
    assert_null(tern_quantize_row_int6(codes, scales, x, K));
    for (size_t i = 0; i < K; i++) assert_int_equal(codes[i], 0);
    x[140] = NAN;
    assert_non_null(tern_quantize_row_int6(codes, scales, x, K));
    x[140] = -INFINITY;
    assert_non_null(tern_quantize_row_int6(codes, scales, x, K));
}

static void int6_gemm_is_right_for_a_hundred_thousand_random_problems(void **unused) {
    (void)unused;
    enum { CASES = 100000, PANELS_BITS = 2, M_BITS = 4, K_BITS = 10 };
    test_begin_group();
    for (size_t i = 0; i < CASES; i++)
        check_product(16 * random_size(PANELS_BITS), random_size(M_BITS), random_size(K_BITS), (pattern)random_below(PATTERNS));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int6_panels_follow_their_diagram_and_unpack_exactly),
        cmocka_unit_test(int6_gemm_variants_equal_the_written_float_order),
        cmocka_unit_test(int6_gemm_is_right_at_the_largest_depth),
        cmocka_unit_test(a_searched_scale_beats_that_of_the_largest_value),
        cmocka_unit_test(rows_of_equal_zero_tiny_and_huge_values_are_what_they_can_be),
    };
    const struct CMUnitTest long_tests[] = {
        cmocka_unit_test(int6_gemm_is_right_for_a_hundred_thousand_random_problems),
    };
    if (argc > 1 && strcmp(argv[1], "long") == 0) return cmocka_run_group_tests(long_tests, start_kernel_test, NULL);
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
