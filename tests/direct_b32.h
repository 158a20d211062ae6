// SPDX-License-Identifier: MIT
// What tests share that call GEMM kernels over blocks of 32 directly: activations with a scale and a sum per block, outputs
// with gaps between tokens, each between unreadable pages. Include after cmocka.h.
#ifndef TERN_TESTS_DIRECT_B32_H
#define TERN_TESTS_DIRECT_B32_H

#include <math.h>
#include <string.h>

#include "guard_buffer.h"
#include "kernel_variants.h"
#include "kernels/kernels.h"

enum { BLOCK = 32, OUT_FILL = 0x5a, OUT_GAP = 16 };

typedef enum pattern { RANDOM, LARGEST, SMALLEST, LARGEST_TIMES_MIN, ALTERNATE, PATTERNS } pattern;

static inline int8_t x_of(pattern how, size_t k) {
    switch (how) {
    case LARGEST:
        return INT8_MAX;
    case SMALLEST:
    case LARGEST_TIMES_MIN:
        return INT8_MIN;
    case ALTERNATE:
        return k % 4 < 2 ? INT8_MIN : INT8_MAX;
    default:
        return (int8_t)(random_below(8) ? random_below(256) - 128 : random_below(2) * 255 - 128);
    }
}

// The product of m tokens with n packed features; activations are filled in.
static inline tern_gemm_b32_args direct_args(const uint8_t *packed, size_t n, size_t m, size_t k, pattern how) {
    const size_t ldx = tern_round_up(k, TERN_X_ALIGN), blocks = ldx / BLOCK, ld_y = n + OUT_GAP;
    int8_t *x = guard_buffer(GUARD_X, m * ldx);
    float *x_scales = guard_buffer(GUARD_SCALES, m * blocks * sizeof *x_scales);
    int32_t *x_sums = guard_buffer(GUARD_SUMS, m * blocks * sizeof *x_sums);
    for (size_t t = 0; t < m; t++) {
        for (size_t j = 0; j < k; j++) x_sums[t * blocks + j / BLOCK] += x[t * ldx + j] = x_of(how, j);
        for (size_t b = 0; b * BLOCK < k; b++) x_scales[t * blocks + b] = fabsf(random_float()) + 1e-4f;
    }
    return (tern_gemm_b32_args){.y = guard_buffer(GUARD_OUT, ((m - 1) * ld_y + n) * sizeof(float)),
                                .ld_y = ld_y,
                                .packed = packed,
                                .n = n,
                                .m = m,
                                .k = k,
                                .x = x,
                                .ldx = ldx,
                                .x_scales = x_scales,
                                .x_sums = x_sums,
                                .ld_x_blocks = blocks};
}

static inline void direct_clear(const tern_gemm_b32_args *a) {
    memset(a->y, OUT_FILL, ((a->m - 1) * a->ld_y + a->n) * sizeof *a->y);
}

// The bits of want[m][n], and nothing else written.
static inline void direct_check(const tern_gemm_b32_args *a, const float *want, pattern how) {
    for (size_t t = 0; t < a->m; t++) {
        if (memcmp(a->y + t * a->ld_y, want + t * a->n, a->n * sizeof *want))
            fail_msg("%s: n %zu, m %zu, k %zu, pattern %d: token %zu is wrong", running, a->n, a->m, a->k, (int)how, t);
        const uint8_t *gap = (const uint8_t *)(a->y + t * a->ld_y + a->n);
        for (size_t i = 0; t + 1 < a->m && i < OUT_GAP * sizeof *a->y; i++) assert_int_equal(gap[i], OUT_FILL);
    }
}

#endif
