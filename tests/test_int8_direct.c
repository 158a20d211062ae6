// SPDX-License-Identifier: MIT
// Calls each INT8 GEMM variant that this CPU has, without the library around it: against plain 64-bit loops, with unreadable
// pages around every buffer.
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

#include "guard_buffer.h"
#include "kernel_variants.h"

typedef enum code_pattern { FULL_RANGE, NO_MIN_X, ALL_MIN, ALL_MAX, MIN_TIMES_MAX, MAX_TIMES_MIN, CODE_PATTERNS } code_pattern;

static int8_t weight_code(code_pattern pattern) {
    switch (pattern) {
    case ALL_MIN:
    case MIN_TIMES_MAX:
        return INT8_MIN;
    case ALL_MAX:
    case MAX_TIMES_MIN:
        return INT8_MAX;
    default:
        return (int8_t)(random_below(8) ? random_below(256) - 128 : random_below(2) * 255 - 128);
    }
}
static int8_t x_code(code_pattern pattern) {
    switch (pattern) {
    case ALL_MIN:
    case MAX_TIMES_MIN:
        return INT8_MIN;
    case ALL_MAX:
    case MIN_TIMES_MAX:
        return INT8_MAX;
    case NO_MIN_X:
        return (int8_t)(random_below(8) ? (int)random_below(255) - 127 : (int)random_below(2) * 254 - 127);
    default:
        return (int8_t)(random_below(8) ? random_below(256) - 128 : random_below(2) * 255 - 128);
    }
}

// One product: plain codes w[n][k], x[m][ldx] and what kernels take. Every buffer ends at an unreadable page.
typedef struct product {
    size_t n, m, k, ldx, blocks, ld_out;
    int has_min;
    int8_t *w, *x;
    uint8_t *packed;
    float *x_scales;
    int32_t *x_sums;
    void *out; // int32 or float32
} product;

enum { OUT_FILL = 0x5a };

static void fill_x(product *p, code_pattern pattern, size_t readable) {
    p->ldx = tern_round_up(p->k, TERN_X_ALIGN);
    // The last row ends at the guard page; readable: what the stage may read of it.
    p->x = guard_buffer(GUARD_X, (p->m - 1) * p->ldx + readable);
    p->has_min = 0;
    for (size_t t = 0; t < p->m; t++) {
        for (size_t i = 0; i < p->k; i++) {
            const int8_t code = x_code(pattern);
            p->x[t * p->ldx + i] = code;
            p->has_min |= code == INT8_MIN;
        }
    }
}

static product make_product(size_t n, size_t m, size_t k, code_pattern pattern, bool block_scaled) {
    product p = {.n = n, .m = m, .k = k, .ld_out = n + 16};
    p.w = malloc(n * k);
    assert_non_null(p.w);
    for (size_t i = 0; i < n * k; i++) p.w[i] = weight_code(pattern);
    fill_x(&p, pattern, block_scaled ? tern_round_up(k, TERN_X_ALIGN) : tern_round_up(k, 16));
    p.blocks = block_scaled ? 2 * tern_i8b_supers(k) : 1;
    p.packed = guard_buffer(GUARD_W, block_scaled ? tern_i8b_bytes(n, k) : tern_i8_bytes(n, k));
    p.x_scales = guard_buffer(GUARD_SCALES, m * p.blocks * sizeof(float));
    p.x_sums = guard_buffer(GUARD_SUMS, m * p.blocks * sizeof(int32_t));
    p.out = guard_buffer(GUARD_OUT, ((m - 1) * p.ld_out + n) * sizeof(int32_t));
    memset(p.out, OUT_FILL, ((m - 1) * p.ld_out + n) * sizeof(int32_t));
    const size_t depth = block_scaled ? (size_t)TERN_I8B_BLOCK : k;
    for (size_t t = 0; t < m; t++) {
        for (size_t i = 0; i < k; i++) p.x_sums[t * p.blocks + i / depth] += p.x[t * p.ldx + i];
        for (size_t b = 0; b < tern_ceil_div(k, depth); b++) p.x_scales[t * p.blocks + b] = fabsf(random_float()) + 1e-4f;
    }
    return p;
}

static void free_product(product *p) { free(p->w); }

static void pack_i8(product *p) {
    uint8_t *packed = p->packed;
    const size_t groups = tern_ceil_div(p->k, 4);
    for (size_t i = 0; i < p->n; i++) {
        for (size_t j = 0; j < p->k; j++)
            packed[(i / 16 * groups + j / 4) * 64 + i % 16 * 4 + j % 4] = (uint8_t)p->w[i * p->k + j];
    }
}

// A random finite float16: mostly ordinary scales, sometimes subnormal or negative.
static uint16_t random_half(void) {
    const size_t kind = random_below(16);
    const uint16_t exponent = (uint16_t)(kind == 0 ? 0 : kind == 1 ? random_below(31) : 8 + random_below(8));
    return (uint16_t)(random_below(8) == 0 ? 0x8000 : 0) | (uint16_t)(exponent << 10) | (uint16_t)random_below(1024);
}
static double half_value(uint16_t h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h >> 15 ? -v : v;
}

// Packs p->w with random scales; scales[i * blocks + b] gets their values.
static void pack_i8b32(product *p, double *scales) {
    uint8_t *packed = p->packed;
    const size_t supers = tern_ceil_div(p->k, 64);
    for (size_t i = 0; i < p->n; i++) {
        uint8_t *panel = packed + i / 16 * supers * 1088;
        for (size_t b = 0; b < tern_ceil_div(p->k, 32); b++) {
            const uint16_t h = random_half();
            memcpy(panel + b / 2 * 1088 + b % 2 * 32 + i % 16 * 2, &h, sizeof h);
            scales[i * p->blocks + b] = half_value(h);
        }
        for (size_t j = 0; j < p->k; j++)
            panel[j / 64 * 1088 + 64 + j % 64 / 4 * 64 + i % 16 * 4 + j % 4] = (uint8_t)p->w[i * p->k + j];
    }
}

static int64_t dot(const product *p, size_t t, size_t i, size_t from, size_t to) {
    int64_t sum = 0;
    for (size_t j = from; j < to && j < p->k; j++) sum += (int64_t)p->x[t * p->ldx + j] * p->w[i * p->k + j];
    return sum;
}

// No byte between the rows of the output was written.
static void check_gaps(const product *p) {
    for (size_t t = 0; t + 1 < p->m; t++) {
        const uint8_t *gap = (uint8_t *)p->out + (t * p->ld_out + p->n) * sizeof(int32_t);
        for (size_t i = 0; i < (p->ld_out - p->n) * sizeof(int32_t); i++) assert_int_equal(gap[i], OUT_FILL);
    }
}

static void check_int8_gemm(size_t n, size_t m, size_t k, code_pattern pattern) {
    if (!test_takes_case(next_random())) return;
    product p = make_product(n, m, k, pattern, false);
    pack_i8(&p);
    int32_t *want = malloc(n * m * sizeof *want);
    assert_non_null(want);
    for (size_t t = 0; t < m; t++) {
        for (size_t i = 0; i < n; i++) want[t * n + i] = (int32_t)dot(&p, t, i, 0, k);
    }
    const tern_gemm_args args = {.acc = p.out,
                                 .ld_acc = p.ld_out,
                                 .packed = p.packed,
                                 .n = n,
                                 .m = m,
                                 .k = k,
                                 .x = p.x,
                                 .ldx = p.ldx,
                                 .x_sums = p.x_sums,
                                 .ld_x_sums = 1,
                                 .x_has_min = p.has_min};
    FOR_EACH_VARIANT(int8_gemm, gemm) {
        memset(p.out, OUT_FILL, ((m - 1) * p.ld_out + n) * sizeof(int32_t));
        gemm(&args);
        for (size_t t = 0; t < m; t++) {
            if (memcmp((int32_t *)p.out + t * p.ld_out, want + t * n, n * sizeof *want))
                fail_msg("%s: n %zu, m %zu, k %zu, pattern %d: token %zu is wrong", running, n, m, k, (int)pattern, t);
        }
        check_gaps(&p);
    }
    free(want);
    free_product(&p);
}

static void check_int8_gemm_b32(size_t n, size_t m, size_t k, code_pattern pattern) {
    if (!test_takes_case(next_random())) return;
    product p = make_product(n, m, k, pattern, true);
    double *scales = malloc(n * p.blocks * sizeof *scales);
    float *want = malloc(n * m * sizeof *want);
    assert_non_null(scales);
    assert_non_null(want);
    pack_i8b32(&p, scales);
    for (size_t t = 0; t < m; t++) {
        for (size_t i = 0; i < n; i++) {
            double exact = 0, magnitude = 0;
            float y = 0; // the contract's order, each operation rounded on its own
            for (size_t b = 0; b < tern_ceil_div(k, 32); b++) {
                const int64_t s = dot(&p, t, i, b * 32, b * 32 + 32);
                const float da = p.x_scales[t * p.blocks + b], dw = (float)scales[i * p.blocks + b];
                exact += (double)s * (double)dw * (double)da;
                magnitude += fabs((double)s * (double)dw * (double)da);
                const float both = dw * da;
                const float term = (float)s * both;
                y = y + term;
            }
            assert_true(fabs(exact - (double)y) <= magnitude * (double)(p.blocks + 2) * 0x1p-24 + 1e-37);
            want[t * n + i] = y;
        }
    }
    const tern_gemm_b32_args args = {.y = p.out,
                                     .ld_y = p.ld_out,
                                     .packed = p.packed,
                                     .n = n,
                                     .m = m,
                                     .k = k,
                                     .x = p.x,
                                     .ldx = p.ldx,
                                     .x_scales = p.x_scales,
                                     .x_sums = p.x_sums,
                                     .ld_x_blocks = p.blocks};
    FOR_EACH_VARIANT(int8_gemm_b32, gemm) {
        memset(p.out, OUT_FILL, ((m - 1) * p.ld_out + n) * sizeof(float));
        gemm(&args);
        for (size_t t = 0; t < m; t++) {
            if (memcmp((float *)p.out + t * p.ld_out, want + t * n, n * sizeof *want))
                fail_msg("%s: n %zu, m %zu, k %zu, pattern %d: token %zu is wrong", running, n, m, k, (int)pattern, t);
        }
        check_gaps(&p);
    }
    free(want), free(scales);
    free_product(&p);
}

// m sweeps past twice the widest token tile, n past several panels, k past two super-groups; each against a few of the others.
static void sweep_int8(void (*check)(size_t n, size_t m, size_t k, code_pattern pattern)) {
    enum { M_SWEEP = 33, K_SWEEP = 261, FEW = 3 };
    test_begin_group();
    const size_t some_n[FEW] = {16, 32, 80}, some_m[FEW] = {1, 3, 9}, some_k[FEW] = {1, 37, 192};
    for (int pattern = 0; pattern < CODE_PATTERNS; pattern++) {
        for (size_t i = 0; i < FEW; i++) {
            for (size_t m = 1; m <= M_SWEEP; m++) check(some_n[i], m, some_k[(i + m) % FEW], (code_pattern)pattern);
            for (size_t n = 16; n <= 144; n += 16) check(n, some_m[i], some_k[(i + n / 16) % FEW], (code_pattern)pattern);
        }
        // past the tokens and the depths whose activations kernels prepare at once
        check(16, 67, 130, (code_pattern)pattern);
        check(32, 5, 1100, (code_pattern)pattern);
        check(16, 2, 8300, (code_pattern)pattern);
        for (size_t k = 1; k <= K_SWEEP; k++) check(some_n[k % FEW], some_m[k / FEW % FEW], k, (code_pattern)pattern);
    }
    for (size_t i = 0; i < 300; i++)
        check(16 * (1 + random_below(5)), 1 + random_below(20), 1 + random_below(500),
              (code_pattern)random_below(CODE_PATTERNS));
}

static void int8_gemm_variants_equal_the_int64_formula(void **unused) {
    (void)unused;
    sweep_int8(check_int8_gemm);
}
static void int8_gemm_b32_variants_equal_the_written_float_order(void **unused) {
    (void)unused;
    sweep_int8(check_int8_gemm_b32);
}

static void int8_gemm_is_exact_at_the_largest_depth(void **unused) {
    (void)unused;
    enum { LARGEST_K = 131071 }; // TERN_K_MAX
    test_begin_group();
    for (int pattern = ALL_MIN; pattern < CODE_PATTERNS; pattern++)
        for (size_t m = 2; m <= 5; m += 3) // summed as they are; and with products that are taken away again
            check_int8_gemm(16, m, LARGEST_K, (code_pattern)pattern);
}

static void check_random(void (*check)(size_t n, size_t m, size_t k, code_pattern pattern)) {
    enum { CASES = 100000, PANELS_BITS = 3, M_BITS = 5, K_BITS = 10 };
    test_begin_group();
    for (size_t i = 0; i < CASES; i++)
        check(16 * random_size(PANELS_BITS), random_size(M_BITS), random_size(K_BITS),
              (code_pattern)random_below(CODE_PATTERNS));
}
static void int8_gemm_is_exact_for_a_hundred_thousand_random_problems(void **unused) {
    (void)unused;
    check_random(check_int8_gemm);
}
static void int8_gemm_b32_is_right_for_a_hundred_thousand_random_problems(void **unused) {
    (void)unused;
    check_random(check_int8_gemm_b32);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int8_gemm_variants_equal_the_int64_formula),
        cmocka_unit_test(int8_gemm_b32_variants_equal_the_written_float_order),
        cmocka_unit_test(int8_gemm_is_exact_at_the_largest_depth),
    };
    const struct CMUnitTest long_tests[] = {
        cmocka_unit_test(int8_gemm_is_exact_for_a_hundred_thousand_random_problems),
        cmocka_unit_test(int8_gemm_b32_is_right_for_a_hundred_thousand_random_problems),
    };
    if (argc > 1 && strcmp(argv[1], "long") == 0) return cmocka_run_group_tests(long_tests, start_kernel_test, NULL);
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
