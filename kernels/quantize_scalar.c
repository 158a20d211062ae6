// SPDX-License-Identifier: MIT
// Activations to int8, baseline x86-64: the operations that every tier repeats in the same order.
#include "kernels.h"

#include <string.h>

#include "quantize.h"

// 1.5 * 2^23: adding it rounds |v| < 2^22 to the nearest integer (ties to even), which then stands in the low mantissa bits.
static const float ROUND_MAGIC = 12582912.0f;

static int32_t float_bits(float v) {
    int32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

int tern_quantize_scalar(int8_t *restrict q, float *restrict scale, int32_t *restrict sums, const float *restrict x, size_t k,
                         size_t block, float floor) {
    for (size_t start = 0, b = 0; start < k; start += block, b++) {
        const size_t len = k - start < block ? k - start : block;
        int32_t top = 0; // bits of non-negative floats order like the floats; infinities and NaN come last
        for (size_t i = 0; i < len; i++) {
            const int32_t bits = float_bits(x[start + i]) & TERN_QUANTIZE_ABS_MASK;
            top = bits > top ? bits : top;
        }
        if (top >= TERN_QUANTIZE_INF_BITS) return 1;
        const float inverse = tern_quantize_scale(&scale[b], top, floor);
        int32_t sum = 0;
        for (size_t i = 0; i < len; i++) {
            const int32_t v = float_bits(x[start + i] * inverse + ROUND_MAGIC) - float_bits(ROUND_MAGIC);
            q[start + i] = (int8_t)v;
            sum += v;
        }
        sums[b] = sum;
    }
    memset(q + k, 0, tern_round_up(k, TERN_X_ALIGN) - k);
    return 0;
}
