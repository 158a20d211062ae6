// SPDX-License-Identifier: MIT
// float16 and bfloat16 in vectors of the including tier (see vector_types.h); integer arithmetic where it has no instruction.
#ifndef TERN_KERNELS_HALF_VECTOR_H
#define TERN_KERNELS_HALF_VECTOR_H

#include "vector_types.h"

// WIDTH 16-bit floats, as bits.
typedef uint16_t vh __attribute__((vector_size(TERN_VF_BYTES / 2)));

static inline TERN_VF_INLINE vh load_halves(const uint16_t *p) {
    vh v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline TERN_VF_INLINE void store_halves(uint16_t *p, vh v) { memcpy(p, &v, sizeof v); }

enum {
    F32_MAGNITUDE = 0x7fffffff,
    F32_INF = 0x7f800000,
    F32_QUIET = 0x00400000,
    F16_SIGN = 0x8000,
    F16_MAGNITUDE = 0x7fff,
    F16_INF = 0x7c00,
    F16_MIN_NORMAL = 0x0400,
    F16_QUIET = 0x0200,
    F16_SHIFT = 13,         // 23 - 10 bits of mantissa
    F16_REBIAS = 112 << 23, // exponent bias of float32 less that of float16, in place
    BF16_SHIFT = 16
};

static inline TERN_VF_INLINE vu pick_bits(vi mask, vu yes, vu no) { return ((vu)mask & yes) | (~(vu)mask & no); }

static inline TERN_VF_INLINE vf bfloat_to_float(vh h) { return (vf)(__builtin_convertvector(h, vu) << BF16_SHIFT); }

// Rounds to nearest even by adding just under half a unit, plus one where the result would be odd; a NaN stays one, quiet.
static inline TERN_VF_INLINE vh float_to_bfloat(vf v) {
    const vu bits = (vu)v;
    const vu rounded = bits + ((1u << (BF16_SHIFT - 1)) - 1) + (bits >> BF16_SHIFT & 1);
    const vi nan = (vi)(bits & F32_MAGNITUDE) > F32_INF;
    return __builtin_convertvector(pick_bits(nan, bits | F32_QUIET, rounded) >> BF16_SHIFT, vh);
}

#if TERN_VF_BYTES == 16
// Baseline x86-64 has no conversion. The same steps as src/format/half.h, without branches.
static inline TERN_VF_INLINE vf half_to_float(vh h) {
    const vu bits = __builtin_convertvector(h, vu);
    const vu magnitude = bits & F16_MAGNITUDE;
    const vu normal = (magnitude << F16_SHIFT) + F16_REBIAS;
    const vu special = (normal + F16_REBIAS) | ((vu)((vi)magnitude > F16_INF) & F32_QUIET);
    // m * 2^-24 as the mantissa of 2^-14 * (1 + m / 1024), less 2^-14: the difference is exact
    const vu one_up = (vu){0} + F16_REBIAS + (1u << 23);
    const vu subnormal = (vu)((vf)((magnitude << F16_SHIFT) + one_up) - (vf)one_up);
    const vu finite = pick_bits((vi)magnitude < F16_MIN_NORMAL, subnormal, normal);
    return (vf)(pick_bits((vi)magnitude >= F16_INF, special, finite) | (bits & F16_SIGN) << 16);
}

static inline TERN_VF_INLINE vh float_to_half(vf v) {
    const float half = 0.5f; // its last mantissa bit is the unit of a half subnormal, 2^-24: adding it rounds to even
    const vu bits = (vu)v, magnitude = bits & F32_MAGNITUDE;
    const vu overflow = (vu){0} + F16_REBIAS + (31u << 23); // 2^16: infinity, whatever its mantissa
    const vu rounded = magnitude - F16_REBIAS + ((1u << (F16_SHIFT - 1)) - 1) + (magnitude >> F16_SHIFT & 1);
    const vu subnormal = (vu)((vf)magnitude + half) - (vu)(splat(half));
    const vu nan = F16_INF | F16_QUIET | (magnitude >> F16_SHIFT & (F16_MIN_NORMAL - 1));
    vu out = pick_bits((vi)magnitude < F16_REBIAS + (1 << 23), subnormal, rounded >> F16_SHIFT);
    out = pick_bits((vi)magnitude >= (vi)overflow, (vu){0} + F16_INF, out);
    out = pick_bits((vi)magnitude > F32_INF, nan, out);
    return __builtin_convertvector(out | (bits >> 16 & F16_SIGN), vh);
}
#elif TERN_VF_BYTES == 32
#include <immintrin.h>
static inline TERN_VF_INLINE vf half_to_float(vh h) { return (vf)_mm256_cvtph_ps((__m128i)h); }
static inline TERN_VF_INLINE vh float_to_half(vf v) {
    return (vh)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
#include <immintrin.h>
static inline TERN_VF_INLINE vf half_to_float(vh h) { return (vf)_mm512_cvtph_ps((__m256i)h); }
static inline TERN_VF_INLINE vh float_to_half(vf v) {
    return (vh)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#endif

#endif
