// SPDX-License-Identifier: MIT
// The vectors of the vector stages: 16 float32 lanes held in PARTS registers of TERN_VF_BYTES, and the one exponential.
//
// A tier's file defines TERN_VF_BYTES and TERN_VF_NAME, includes this, defines
//   v4f fold_lanes(const vf sum[PARTS]): 16 lanes to 4: lane l + lane l + 8, then l + lane l + 4
// and includes the bodies. Only
// element-wise operations and one fixed order of sums are used, so every tier returns the same bits.
#ifndef TERN_KERNELS_VECTOR_TYPES_H
#define TERN_KERNELS_VECTOR_TYPES_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if TERN_VF_BYTES == 32
#include <immintrin.h>
#endif

#include "compiler.h"
#include "kernels.h"

#define TERN_VF_INLINE __attribute__((always_inline))

typedef float vf __attribute__((vector_size(TERN_VF_BYTES)));
typedef int32_t vi __attribute__((vector_size(TERN_VF_BYTES)));
typedef uint32_t vu __attribute__((vector_size(TERN_VF_BYTES)));
typedef float v4f __attribute__((vector_size(16)));

enum { LANES = 16, WIDTH = TERN_VF_BYTES / 4, PARTS = LANES / WIDTH };

// The rest of the fixed tree: 2 apart, then 1 apart.
static inline TERN_VF_INLINE float fold_four(v4f s) { return (s[0] + s[2]) + (s[1] + s[3]); }

static inline TERN_VF_INLINE vf load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline TERN_VF_INLINE void store(float *p, vf v) { memcpy(p, &v, sizeof v); }
static inline TERN_VF_INLINE vf splat(float v) { return v - (vf){0}; }

// Loads n < WIDTH floats, zeros after them.
static inline TERN_VF_INLINE vf load_some(const float *p, size_t n) {
    float padded[WIDTH] = {0};
    for (size_t i = 0; i < n; i++) padded[i] = p[i];
    return load(padded);
}
static inline TERN_VF_INLINE void store_some(float *p, vf v, size_t n) {
    float padded[WIDTH];
    store(padded, v);
    for (size_t i = 0; i < n; i++) p[i] = padded[i];
}

static inline TERN_VF_INLINE vf pick(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
// A NaN in b is kept.
#if TERN_VF_BYTES == 32
static inline TERN_VF_INLINE vf larger(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline TERN_VF_INLINE vf smaller(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#else
static inline TERN_VF_INLINE vf larger(vf a, vf b) { return pick(a > b, a, b); }
static inline TERN_VF_INLINE vf smaller(vf a, vf b) { return pick(a < b, a, b); }
#endif

// e^x for x in [EXP_MIN, EXP_MAX], relative error below 2^-22 (tests compare with libm); outside, x counts as the nearer end. A
// NaN stays. x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a polynomial of degree 7 (Cephes expf); 2^n is added to the exponent
// bits.
static const float EXP_MIN = -87.0f, EXP_MAX = 88.0f;
enum { EXP_TOGETHER = 4 };

// Of n vectors, a constant, each step of all before the next step of one: a step waits for the one before it.
static inline TERN_VF_INLINE void exponentials(vf *x, size_t n) {
    const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer that stands in the low mantissa bits
    const float log2_e = 1.44269504088896341f;
    const float ln2_high = 0.693359375f; // 9 bits after the point: n * ln2_high is exact
    const float ln2_low = -2.12194440e-4f;
    static const float coefficients[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                                         5.0000001201e-1f};
    enum { MANTISSA_BITS = 23, COEFFICIENTS = sizeof coefficients / sizeof *coefficients };
    vf shifted[EXP_TOGETHER], p[EXP_TOGETHER];
#define EACH_VECTOR(statement)                                                                                                 \
    TERN_UNROLL                                                                                                                \
    for (size_t i = 0; i < n; i++) { statement; }
    EACH_VECTOR(x[i] = larger(splat(EXP_MIN), smaller(splat(EXP_MAX), x[i])); TERN_LOADED(x[i]))
    EACH_VECTOR(shifted[i] = x[i] * log2_e + magic; TERN_LOADED(shifted[i]))
    EACH_VECTOR(x[i] = x[i] - (shifted[i] - magic) * ln2_high; TERN_LOADED(x[i]))
    EACH_VECTOR(x[i] = x[i] - (shifted[i] - magic) * ln2_low; TERN_LOADED(x[i]))
    EACH_VECTOR(p[i] = splat(1.9875691500e-4f))
    TERN_UNROLL
    for (size_t c = 0; c < COEFFICIENTS; c++) EACH_VECTOR(p[i] = p[i] * x[i] + coefficients[c]; TERN_LOADED(p[i]))
    // low bits of shifted = n (mod 2^9), the bits above them are shifted out; -126 <= n <= 127 keeps the result normal
    EACH_VECTOR(x[i] = (p[i] * (x[i] * x[i]) + x[i]) + 1.0f; x[i] = (vf)((vu)x[i] + ((vu)shifted[i] << MANTISSA_BITS)))
#undef EACH_VECTOR
}

static inline TERN_VF_INLINE vf exponential(vf x) {
    exponentials(&x, 1);
    return x;
}

#endif
