// SPDX-License-Identifier: MIT
// Activations to int8 with AVX2: 16 elements at a time, the same operations as the scalar variant.
#include <immintrin.h>
#include <string.h>

#include "quantize.h"

enum { STEP = 16, LANES = 8, BF16_SHIFT = 16 };

static inline INLINE __m256 widen(__m128i halves, tern_float_type type) {
    return type == TERN_FLOAT_F16 ? _mm256_cvtph_ps(halves)
                                  : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), BF16_SHIFT));
}

// 16 elements from x[at] on in two ymm, element l and l + 8 in lane l; elements from `left` on are zero and not read.
static inline INLINE void load_step(__m256 out[2], const void *from, tern_float_type type, size_t at, size_t left) {
    if (type != TERN_FLOAT_F32) {
        uint16_t some[STEP] = {0};
        const uint16_t *halves = (const uint16_t *)from + at;
        if (left < STEP) halves = memcpy(some, halves, left * sizeof *some);
        out[0] = widen(_mm_loadu_si128((const __m128i *)halves), type);
        out[1] = widen(_mm_loadu_si128((const __m128i *)(halves + LANES)), type);
        return;
    }
    float some[STEP] = {0}; // not a masked load: qemu faults on lanes that are masked out
    const float *x = (const float *)from + at;
    if (left < STEP) x = memcpy(some, x, left * sizeof *some);
    out[0] = _mm256_loadu_ps(x);
    out[1] = _mm256_loadu_ps(x + LANES);
}

static inline int32_t largest_lane(__m256i v) {
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_unpackhi_epi64(m, m));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 1)));
}

static inline int32_t sum_of_lanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
}

// Bits of the largest |x|: bits of non-negative floats order like the floats; infinities and NaN come last.
static inline INLINE int32_t largest_magnitude(const void *restrict x, tern_float_type type, size_t start, size_t len) {
    const __m256i magnitude = _mm256_set1_epi32(TERN_QUANTIZE_ABS_MASK);
    __m256i top = _mm256_setzero_si256();
    for (size_t i = 0; i < len; i += STEP) {
        __m256 v[2];
        load_step(v, x, type, start + i, len - i);
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(v[0]), magnitude));
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(v[1]), magnitude));
    }
    return largest_lane(top);
}

static inline INLINE int quantize(int8_t *restrict q, float *restrict scale, int32_t *restrict sums, const void *restrict x,
                                  tern_float_type type, size_t k, size_t block, float floor) {
    for (size_t start = 0, b = 0; start < k; start += block, b++) {
        const size_t len = k - start < block ? k - start : block;
        const int32_t top = largest_magnitude(x, type, start, len);
        if (top >= TERN_QUANTIZE_INF_BITS) return 1;
        const __m256 inverse = _mm256_set1_ps(tern_quantize_scale(&scale[b], top, floor));
        __m256i sum = _mm256_setzero_si256();
        for (size_t i = 0; i < len; i += STEP) {
            __m256 v[2];
            load_step(v, x, type, start + i, len - i);
            const __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(v[0], inverse)),
                          high = _mm256_cvtps_epi32(_mm256_mul_ps(v[1], inverse));
            sum = _mm256_add_epi32(sum, _mm256_add_epi32(low, high));
            // int16 lanes: elements 0..3, 8..11 | 4..7, 12..15; then in order
            const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), _MM_SHUFFLE(3, 1, 2, 0));
            const __m128i codes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
            _mm_store_si128((__m128i *)(q + start + i), codes); // past len: zeros, within the row's padding
        }
        sums[b] = sum_of_lanes(sum);
    }
    const size_t written = tern_round_up(k, STEP);
    memset(q + written, 0, tern_round_up(k, TERN_X_ALIGN) - written);
    return 0;
}

TERN_QUANTIZE_VARIANTS(avx2)
