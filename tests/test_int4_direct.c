// SPDX-License-Identifier: MIT
// Calls each 4-bit GEMM variant that this CPU has, without the library around it: against the written float order over plain
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
#include "matmul/pack_int4.h"

enum { SUPER_I4K = 256 };
static const tern_layout layouts[] = {TERN_LAYOUT_I4B32, TERN_LAYOUT_I4M32, TERN_LAYOUT_I4K};
enum { N_LAYOUTS = sizeof layouts / sizeof *layouts };

static int8_t code_of(pattern how, size_t k) {
    switch (how) {
    case LARGEST:
    case LARGEST_TIMES_MIN:
        return 15;
    case SMALLEST:
        return 0;
    case ALTERNATE:
        return k % 2 ? 15 : 0;
    default:
        return (int8_t)random_below(16);
    }
}
// A float16 value: mostly ordinary, sometimes tiny, negative or zero.
static float random_scale(void) {
    const float sign = random_below(4) ? 1.0f : -1.0f;
    const size_t kind = random_below(16);
    return kind == 0 ? 0.0f
                     : sign * ldexpf((float)(1024 + random_below(1024)),
                                     kind == 1 ? -24 - 10 + (int)random_below(10) : -16 - (int)random_below(6));
}

typedef struct row_scales {
    float *of; // [n][count], as tern_pack_i4 takes them
    size_t count;
} row_scales;

static row_scales random_scales(tern_layout layout, size_t n, size_t k) {
    const row_scales s = {malloc(n * tern_i4_scales(layout, k) * sizeof(float)), tern_i4_scales(layout, k)};
    assert_non_null(s.of);
    for (size_t i = 0; i < n * s.count; i++) {
        const bool six = layout == TERN_LAYOUT_I4K && i % s.count % TERN_I4K_SCALES >= 2;
        s.of[i] = six ? (float)random_below(64) : ldexpf(rintf(ldexpf(random_scale(), 24)), -24); // a float16 whatever its size
    }
    return s;
}

// The scale and min of block b, each operation rounded on its own.
static void scale_and_min(tern_layout layout, const float *row, size_t b, float *d, float *m) {
    switch (layout) {
    case TERN_LAYOUT_I4B32:
        *d = row[b], *m = 0;
        break;
    case TERN_LAYOUT_I4M32:
        *d = row[2 * b], *m = row[2 * b + 1];
        break;
    default: {
        const float *super = row + b / 8 * TERN_I4K_SCALES;
        *d = super[0] * super[2 + b % 8];
        *m = super[1] * super[10 + b % 8];
    }
    }
}

static float expected(tern_layout layout, const int8_t *codes, const int8_t *x, const float *row, const float *x_scales,
                      size_t k) {
    float y = 0;
    for (size_t b = 0; b * BLOCK < k; b++) {
        int64_t dot = 0, x_sum = 0;
        for (size_t j = b * BLOCK; j < k && j < (b + 1) * BLOCK; j++) {
            dot += (int64_t)codes[j] * x[j];
            x_sum += x[j];
        }
        float d, m;
        scale_and_min(layout, row, b, &d, &m);
        if (layout == TERN_LAYOUT_I4B32) {
            const float both = d * x_scales[b], term = (float)(dot - 8 * x_sum) * both;
            y = y + term;
        } else {
            const float mins_part = m * (float)x_sum;
            y = fmaf(fmaf(d, (float)dot, mins_part), x_scales[b], y);
        }
    }
    return y;
}

static void check_product(tern_layout layout, size_t n, size_t m, size_t k, pattern how) {
    if (!test_takes_case(next_random())) return;
    int8_t *codes = malloc(n * k);
    float *want = malloc(n * m * sizeof *want);
    assert_true(codes && want);
    const row_scales scales = random_scales(layout, n, k);
    for (size_t i = 0; i < n * k; i++) codes[i] = code_of(how, i % k);
    uint8_t *packed = guard_buffer(GUARD_W, n / 16 * tern_i4_panel_bytes(layout, k));
    assert_true(tern_pack_i4(layout, packed, codes, k, scales.of, scales.count, 0, n, n, k));
    const tern_gemm_b32_args args = direct_args(packed, n, m, k, how);
    for (size_t t = 0; t < m; t++)
        for (size_t i = 0; i < n; i++)
            want[t * n + i] = expected(layout, codes + i * k, args.x + t * args.ldx, scales.of + i * scales.count,
                                       args.x_scales + t * args.ld_x_blocks, k);
    FOR_EACH_VARIANT(int4_gemm_b32, gemm) {
        if (variants[v_].layout != layout) continue;
        direct_clear(&args);
        gemm(&args);
        direct_check(&args, want, how);
    }
    free(want), free(scales.of), free(codes);
}

// k of a case: any for blocks of 32, whole supers for Q4_K.
static size_t depth_for(tern_layout layout, size_t k) { return layout == TERN_LAYOUT_I4K ? tern_round_up(k, SUPER_I4K) : k; }

// m sweeps past twice the widest token tile and past the 64 tokens whose activations are prepared at once, n past several
// panels, k past a chunk of 1024.
static void int4_gemm_variants_equal_the_written_float_order(void **unused) {
    (void)unused;
    enum { M_SWEEP = 17, K_SWEEP = 133, FEW = 3, RANDOM_CASES = 200 };
    const size_t some_n[FEW] = {16, 32, 48}, some_m[FEW] = {1, 2, 9}, some_k[FEW] = {1, 37, 192};
    for (size_t l = 0; l < N_LAYOUTS; l++) {
        const tern_layout layout = layouts[l];
        test_begin_group();
        for (int how = 0; how < PATTERNS; how++) {
            for (size_t i = 0; i < FEW; i++) {
                for (size_t m = 1; m <= M_SWEEP; m++)
                    check_product(layout, some_n[i], m, depth_for(layout, some_k[(i + m) % FEW]), (pattern)how);
                for (size_t n = 16; n <= 80; n += 16)
                    check_product(layout, n, some_m[i], depth_for(layout, some_k[(i + n / 16) % FEW]), (pattern)how);
            }
            for (size_t k = 1; k <= K_SWEEP; k += layout == TERN_LAYOUT_I4K ? 44 : 1)
                check_product(layout, some_n[k % FEW], some_m[k / FEW % FEW], depth_for(layout, k), (pattern)how);
            check_product(layout, 16, 7, depth_for(layout, 2100), (pattern)how);
            check_product(layout, 32, 1, depth_for(layout, 2100), (pattern)how);
            check_product(layout, 16, 131, depth_for(layout, 70), (pattern)how);
        }
        for (size_t i = 0; i < RANDOM_CASES; i++)
            check_product(layout, 16 * (1 + random_below(3)), 1 + random_below(20), depth_for(layout, 1 + random_below(600)),
                          (pattern)random_below(PATTERNS));
    }
}

static void int4_gemm_is_right_at_the_largest_depth(void **unused) {
    (void)unused;
    test_begin_group();
    for (size_t l = 0; l < N_LAYOUTS; l++)
        for (size_t m = 1; m <= 6; m += 5)
            check_product(layouts[l], 16, m, layouts[l] == TERN_LAYOUT_I4K ? 130816 : 131071, LARGEST_TIMES_MIN);
}

// The code of feature f and depth j, and the scales, as the diagrams in kernels/layout.h say.
static int diagram_code(tern_layout layout, const uint8_t *packed, size_t k, size_t f, size_t j) {
    const size_t super_k = layout == TERN_LAYOUT_I4K ? 256 : 64;
    const size_t head = layout == TERN_LAYOUT_I4B32 ? 64 : layout == TERN_LAYOUT_I4M32 ? 128 : 256;
    const size_t super_bytes = head + super_k / 2 * 16, supers = (k + super_k - 1) / super_k;
    const uint8_t *super = packed + (f / 16 * supers + j / super_k) * super_bytes;
    const uint8_t byte = super[head + j % super_k / 8 * 64 + f % 16 * 4 + j % 4];
    return j % 8 < 4 ? byte & 15 : byte >> 4;
}

static void int4_panels_follow_their_diagram_and_unpack_exactly(void **unused) {
    (void)unused;
    static const size_t depths[] = {1, 31, 32, 33, 64, 65, 200, 256, 512};
    for (size_t l = 0; l < N_LAYOUTS; l++) {
        const tern_layout layout = layouts[l];
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
            const size_t k = depth_for(layout, depths[d]);
            for (size_t n = 1; n <= 35; n += 17) {
                const size_t n_padded = tern_round_up(n, 16), bytes = n_padded / 16 * tern_i4_panel_bytes(layout, k);
                int8_t *codes = malloc(n * k), *back = malloc(k);
                uint8_t *packed = guard_buffer(GUARD_W, bytes);
                const row_scales scales = random_scales(layout, n, k);
                float *scales_back = malloc(scales.count * sizeof *scales_back);
                assert_true(codes && back && scales_back);
                memset(packed, OUT_FILL, bytes);
                for (size_t i = 0; i < n * k; i++) codes[i] = code_of(RANDOM, i);
                assert_true(tern_pack_i4(layout, packed, codes, k, scales.of, scales.count, 0, n, n_padded, k));
                for (size_t f = 0; f < n_padded; f++)
                    for (size_t j = 0; j < k; j++)
                        assert_int_equal(diagram_code(layout, packed, k, f, j), f < n ? codes[f * k + j] : 0);
                for (size_t f = 0; f < n; f++) {
                    tern_unpack_i4(layout, back, scales_back, packed, f, k);
                    assert_memory_equal(back, codes + f * k, k);
                    for (size_t i = 0; i < scales.count; i++) assert_true(scales_back[i] == scales.of[f * scales.count + i]);
                }
                free(codes), free(back), free(scales.of), free(scales_back);
            }
        }
    }
}

static void a_scale_beyond_float16_is_refused(void **unused) {
    (void)unused;
    int8_t codes[16 * 256] = {0};
    uint8_t *packed = guard_buffer(GUARD_W, tern_i4k_bytes(16, 256));
    for (size_t l = 0; l < N_LAYOUTS; l++) {
        const size_t k = layouts[l] == TERN_LAYOUT_I4K ? SUPER_I4K : BLOCK;
        const float bad[] = {65520.0f, -65520.0f, INFINITY, NAN};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            float scales[TERN_I4K_SCALES] = {1.0f, 1.0f};
            assert_true(tern_pack_i4(layouts[l], packed, codes, k, scales, 0, 0, 16, 16, k));
            scales[l > 0] = bad[i]; // the min, where there is one
            assert_false(tern_pack_i4(layouts[l], packed, codes, k, scales, 0, 0, 16, 16, k));
        }
    }
}

static void int4_gemm_is_right_for_a_hundred_thousand_random_problems(void **unused) {
    (void)unused;
    enum { CASES = 100000, PANELS_BITS = 2, M_BITS = 4, K_BITS = 9 };
    for (size_t l = 0; l < N_LAYOUTS; l++) {
        test_begin_group();
        for (size_t i = 0; i < CASES; i++)
            check_product(layouts[l], 16 * random_size(PANELS_BITS), random_size(M_BITS),
                          depth_for(layouts[l], random_size(K_BITS)), (pattern)random_below(PATTERNS));
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int4_panels_follow_their_diagram_and_unpack_exactly),
        cmocka_unit_test(a_scale_beyond_float16_is_refused),
        cmocka_unit_test(int4_gemm_variants_equal_the_written_float_order),
        cmocka_unit_test(int4_gemm_is_right_at_the_largest_depth),
    };
    const struct CMUnitTest long_tests[] = {
        cmocka_unit_test(int4_gemm_is_right_for_a_hundred_thousand_random_problems),
    };
    if (argc > 1 && strcmp(argv[1], "long") == 0) return cmocka_run_group_tests(long_tests, start_kernel_test, NULL);
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
