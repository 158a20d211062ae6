// SPDX-License-Identifier: MIT
// Activations to int8 with AVX-512: 16 elements at a time, the same operations as the scalar variant.
#include <immintrin.h>
#include <string.h>

#include "quantize.h"

enum { STEP = 16, BF16_SHIFT = 16 };

// Element at + l in lane l; elements from `left` on are zero and not read.
static inline INLINE __m512 load_step(const void *restrict x, tern_float_type type, size_t at, size_t left) {
    const __mmask16 wanted = (__mmask16)(left >= STEP ? UINT16_MAX : (1u << left) - 1);
    if (type == TERN_FLOAT_F32) return _mm512_maskz_loadu_ps(wanted, (const float *)x + at);
    const __m256i halves = _mm256_maskz_loadu_epi16(wanted, (const uint16_t *)x + at);
    if (type == TERN_FLOAT_F16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), BF16_SHIFT));
}

static inline INLINE int quantize(int8_t *restrict q, float *restrict scale, int32_t *restrict sums, const void *restrict x,
                                  tern_float_type type, size_t k, size_t block, float floor) {
    const __m512i magnitude = _mm512_set1_epi32(TERN_QUANTIZE_ABS_MASK);
    for (size_t start = 0, b = 0; start < k; start += block, b++) {
        const size_t len = k - start < block ? k - start : block;
        // Bits of the largest |x|: bits of non-negative floats order like the floats; infinities and NaN come last.
        __m512i tops = _mm512_setzero_si512();
        for (size_t i = 0; i < len; i += STEP)
            tops = _mm512_max_epi32(tops,
                                    _mm512_and_si512(_mm512_castps_si512(load_step(x, type, start + i, len - i)), magnitude));
        const int32_t top = _mm512_reduce_max_epi32(tops);
        if (top >= TERN_QUANTIZE_INF_BITS) return 1;
        const __m512 inverse = _mm512_set1_ps(tern_quantize_scale(&scale[b], top, floor));
        __m512i sum = _mm512_setzero_si512();
        for (size_t i = 0; i < len; i += STEP) {
            const __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(load_step(x, type, start + i, len - i), inverse));
            sum = _mm512_add_epi32(sum, codes);
            // past len: zeros, within the row's padding
            _mm_store_si128((__m128i *)(q + start + i), _mm512_cvtepi32_epi8(codes));
        }
        sums[b] = _mm512_reduce_add_epi32(sum);
    }
    const size_t written = tern_round_up(k, STEP);
    memset(q + written, 0, tern_round_up(k, TERN_X_ALIGN) - written);
    return 0;
}

TERN_QUANTIZE_VARIANTS(avx512)
