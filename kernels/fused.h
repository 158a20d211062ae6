// SPDX-License-Identifier: MIT
// a * b + c rounded once, in vectors of the including tier (see vector_types.h); in software where it has no instruction.
#ifndef TERN_KERNELS_FUSED_H
#define TERN_KERNELS_FUSED_H

#include "vector_types.h"

#if TERN_VF_BYTES == 16
#include <emmintrin.h>

// Baseline x86-64. A product of float32 is exact in float64, so only the sum is rounded twice: to float64, then to float32.
// The first time to odd (Boldo and Melquiond): what is not exact gets an odd last bit, never looks like a tie to the second,
// and comes out as if it had been rounded once.
static inline TERN_VF_INLINE __m128d fused_to_odd(__m128d a, __m128d b, __m128d c) {
    const __m128d magnitude = _mm_castsi128_pd(_mm_set1_epi64x(INT64_MAX));
    const __m128d product = _mm_mul_pd(a, b), sum = _mm_add_pd(product, c);
    const __m128d of_c = _mm_sub_pd(sum, product); // Knuth's two-sum: product + c = sum + error
    const __m128d error = _mm_add_pd(_mm_sub_pd(product, _mm_sub_pd(sum, of_c)), _mm_sub_pd(c, of_c));
    const __m128d inexact = _mm_cmpgt_pd(_mm_and_pd(error, magnitude), _mm_setzero_pd()); // not of infinities and NaNs
    const __m128i one = _mm_srli_epi64(_mm_castpd_si128(inexact), 63);
    const __m128i too_far = _mm_and_si128(one, _mm_srli_epi64(_mm_castpd_si128(_mm_xor_pd(error, sum)), 63));
    // towards zero where |sum| is too large, then odd: an odd sum stays, an even one becomes its neighbour
    return _mm_castsi128_pd(_mm_or_si128(_mm_sub_epi64(_mm_castpd_si128(sum), too_far), one));
}

static inline TERN_VF_INLINE vf fused(vf a, vf b, vf c) {
    const __m128 x = (__m128)a, y = (__m128)b, z = (__m128)c;
    const __m128d low = fused_to_odd(_mm_cvtps_pd(x), _mm_cvtps_pd(y), _mm_cvtps_pd(z));
    const __m128d high =
        fused_to_odd(_mm_cvtps_pd(_mm_movehl_ps(x, x)), _mm_cvtps_pd(_mm_movehl_ps(y, y)), _mm_cvtps_pd(_mm_movehl_ps(z, z)));
    return (vf)_mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}
#elif TERN_VF_BYTES == 32
#include <immintrin.h>
static inline TERN_VF_INLINE vf fused(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#else
#include <immintrin.h>
static inline TERN_VF_INLINE vf fused(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
#endif

#endif
