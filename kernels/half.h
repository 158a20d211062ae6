// SPDX-License-Identifier: MIT
// float16 without F16C, for the scalar kernels.
#ifndef TERN_KERNELS_HALF_H
#define TERN_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

// float16 bits to float32: exact, except that a signalling NaN becomes quiet (as vcvtph2ps does).
static inline float half_to_float(const uint8_t *p) {
    enum { MANTISSA_BITS = 10, EXP_MASK = 31, EXP_REBIAS = 127 - 15, F32_EXP_ALL = 0xff, F32_QUIET = 1 << 22 };
    const uint32_t h = (uint32_t)p[0] | (uint32_t)p[1] << 8;
    const uint32_t sign = h >> 15 << 31, exponent = h >> MANTISSA_BITS & EXP_MASK, mantissa = h & ((1u << MANTISSA_BITS) - 1);
    if (exponent == 0) { // zero or subnormal: mantissa * 2^-24
        const float v = (float)mantissa * 0x1p-24f;
        return sign ? -v : v;
    }
    uint32_t bits = sign | (exponent + EXP_REBIAS) << 23 | mantissa << (23 - MANTISSA_BITS);
    if (exponent == EXP_MASK) bits |= (uint32_t)F32_EXP_ALL << 23 | (mantissa ? (uint32_t)F32_QUIET : 0);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

#endif
