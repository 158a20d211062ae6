// SPDX-License-Identifier: MIT
// Activations to int8, baseline x86-64: the operations that every tier repeats in the same order.
#include <string.h>

#define TERN_VF_BYTES 16
#include "half_vector.h"
#include "quantize.h"

enum { STEP = 16 };

// 1.5 * 2^23: adding it rounds |v| < 2^22 to the nearest integer (ties to even), which then stands in the low mantissa bits.
static const float ROUND_MAGIC = 12582912.0f;

static inline int32_t float_bits(float v) {
    int32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

// `count` elements from x[at] on: where they stand if they are float32, else (count <= STEP) widened in `room`.
static inline TERN_VF_INLINE const float *elements(float room[STEP], const void *restrict x, tern_float_type type, size_t at,
                                                   size_t count) {
    if (type == TERN_FLOAT_F32) return (const float *)x + at;
    uint16_t halves[STEP] = {0};
    memcpy(halves, (const uint16_t *)x + at, count * sizeof *halves);
    for (size_t i = 0; i < STEP; i += WIDTH) {
        const vh h = load_halves(halves + i);
        store(room + i, type == TERN_FLOAT_F16 ? half_to_float(h) : bfloat_to_float(h));
    }
    return room;
}

static inline TERN_VF_INLINE int quantize(int8_t *restrict q, float *restrict scale, int32_t *restrict sums,
                                          const void *restrict x, tern_float_type type, size_t k, size_t block, float floor) {
    float room[STEP];
    for (size_t start = 0, b = 0; start < k; start += block, b++) {
        const size_t end = k - start < block ? k : start + block;
        const size_t step = type == TERN_FLOAT_F32 ? end - start : STEP; // a whole block makes the longest loops
        int32_t top = 0; // bits of non-negative floats order like the floats; infinities and NaN come last
        for (size_t at = start; at < end; at += step) {
            const size_t count = end - at < step ? end - at : step;
            const float *restrict v = elements(room, x, type, at, count);
            for (size_t i = 0; i < count; i++) {
                const int32_t bits = float_bits(v[i]) & TERN_QUANTIZE_ABS_MASK;
                top = bits > top ? bits : top;
            }
        }
        if (top >= TERN_QUANTIZE_INF_BITS) return 1;
        const float inverse = tern_quantize_scale(&scale[b], top, floor);
        int32_t sum = 0;
        for (size_t at = start; at < end; at += step) {
            const size_t count = end - at < step ? end - at : step;
            const float *restrict v = elements(room, x, type, at, count);
            for (size_t i = 0; i < count; i++) {
                const int32_t code = float_bits(v[i] * inverse + ROUND_MAGIC) - float_bits(ROUND_MAGIC);
                q[at + i] = (int8_t)code;
                sum += code;
            }
        }
        sums[b] = sum;
    }
    memset(q + k, 0, tern_round_up(k, TERN_X_ALIGN) - k);
    return 0;
}

TERN_QUANTIZE_VARIANTS(scalar)
