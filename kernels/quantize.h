// SPDX-License-Identifier: MIT
// What the quantize variants share: the scale of one block from its largest magnitude.
#ifndef TERN_KERNELS_QUANTIZE_H
#define TERN_KERNELS_QUANTIZE_H

#include <string.h>

#include "kernels.h"

enum { TERN_QUANTIZE_ABS_MASK = 0x7fffffff, TERN_QUANTIZE_INF_BITS = 0x7f800000, TERN_QUANTIZE_MAX = 127 };

#define INLINE __attribute__((always_inline))

// Below this magnitude (2^-120) 127 / a would overflow: the block counts as zero.
#define TERN_QUANTIZE_TINY 0x1p-120f

// top_bits: bits of max|x|. Writes a / 127 and returns 127 / a, a = max(max|x|, floor); 0 and 0 if a is tiny.
// |x * (127 / a)| <= 127 * (1 + 2^-23) < 127.5, so a rounded code never leaves -127..127 and needs no clamp.
static inline float tern_quantize_scale(float *scale, int32_t top_bits, float floor) {
    float a;
    memcpy(&a, &top_bits, sizeof a);
    a = a > floor ? a : floor;
    const int tiny = a < TERN_QUANTIZE_TINY;
    *scale = tiny ? 0.0f : a / (float)TERN_QUANTIZE_MAX;
    return tiny ? 0.0f : (float)TERN_QUANTIZE_MAX / a;
}

// The variants of one tier, each a copy of the file's `quantize` for one type of x.
#define TERN_QUANTIZE_VARIANT(name, x_type, type)                                                                              \
    int name(int8_t *restrict q, float *restrict scale, int32_t *restrict sums, const x_type *restrict x, size_t k,            \
             size_t block, float floor) {                                                                                      \
        return quantize(q, scale, sums, x, type, k, block, floor);                                                             \
    }
#define TERN_QUANTIZE_VARIANTS(isa)                                                                                            \
    TERN_QUANTIZE_VARIANT(tern_quantize_##isa, float, TERN_FLOAT_F32)                                                          \
    TERN_QUANTIZE_VARIANT(tern_quantize_f16_##isa, uint16_t, TERN_FLOAT_F16)                                                   \
    TERN_QUANTIZE_VARIANT(tern_quantize_bf16_##isa, uint16_t, TERN_FLOAT_BF16)

#endif
