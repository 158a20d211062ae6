// SPDX-License-Identifier: MIT
// INT8 attention for AVX2: 16 keys, or 16 elements of values, in two ymm; four k in each 32-bit lane.
//
// vpmaddubsw multiplies unsigned with signed bytes and adds pairs, with saturation. The bounds on codes (kernels.h) keep these
// sums, and those of 16 keys of values, within 16 bits.
#include <immintrin.h>

#define TERN_VF_BYTES 32
#define TERN_VF_NAME(stage) tern_##stage##_avx2
#include "attention_int8.h"

static inline TERN_VF_INLINE v4f fold_lanes(const vf *sum) {
    const vf s = sum[0] + sum[1];
    return __builtin_shufflevector(s, s, 0, 1, 2, 3) + __builtin_shufflevector(s, s, 4, 5, 6, 7);
}

static inline void store_codes(uint8_t *codes, const vi *rounded) {
    // 16-bit lanes 0..3, 8..11, 4..7, 12..15, put in order
    const __m256i words =
        _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)rounded[0], (__m256i)rounded[1]), _MM_SHUFFLE(3, 1, 2, 0));
    _mm_storeu_si128((__m128i *)codes, _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

enum {
    HALVES = 2,
    HALF = TERN_I8_PANEL / HALVES,
    HALF_BYTES = HALF * TERN_I8_GROUP_K,
    BIAS = 128,
    SCORE_GROUPS = 2,
    VALUE_GROUPS = 4
};

// Four k of a row in every 32-bit lane.
static inline TERN_VF_INLINE __m256i four_codes(const void *row) {
    int32_t four;
    memcpy(&four, row, sizeof four);
    return _mm256_set1_epi32(four);
}

static inline TERN_VF_INLINE __m256i add(__m256i sum, __m256i v) {
    TERN_IN_PLACE(__asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(v)), sum = _mm256_add_epi32(sum, v));
    return sum;
}

static inline TERN_VF_INLINE __m256i add_16(__m256i sum, __m256i v) {
    TERN_IN_PLACE(__asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(v)), sum = _mm256_add_epi16(sum, v));
    return sum;
}

// Keys are taken as codes + 128, which adds 128 * (sum of the query) to each sum. Two codes of a query that meet in a lane have
// magnitudes that add up to at most 128: |128 * 255| < 2^15. `queries` is a constant after inlining.
static inline TERN_VF_INLINE void score(int32_t *dots, const int8_t *w, size_t groups, const tern_attention_int8_args *a,
                                        ahead next, size_t queries) {
    const __m256i ones = _mm256_set1_epi16(1), bias = _mm256_set1_epi8(INT8_MIN);
    const int8_t *q = a->q;
    const size_t ld_q = a->ld_q;
    __m256i sum[TERN_ATTN_INT8_QUERIES * HALVES]; // lane f: key f of a half
    TERN_UNROLL
    for (size_t i = 0; i < queries * HALVES; i++) sum[i] = _mm256_set1_epi32(-BIAS * a->q_sums[i / HALVES]);
    TERN_NO_UNROLL
    for (size_t g = 0; g < groups; g += SCORE_GROUPS) {
        TERN_COST_LOOP("INT8 scores", TERN_I8_PANEL, queries, TERN_I8_GROUP_K * SCORE_GROUPS);
        TERN_UNROLL
        for (size_t u = 0; u < SCORE_GROUPS; u++) {
            _mm_prefetch((const char *)next.at + u * next.step, _MM_HINT_T1);
            __m256i half[HALVES];
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++) {
                half[h] =
                    _mm256_xor_si256(bias, _mm256_load_si256((const __m256i *)(w + u * TERN_I8_GROUP_BYTES + h * HALF_BYTES)));
                TERN_LOADED(half[h]);
            }
            TERN_UNROLL
            for (size_t i = 0; i < queries; i++) {
                const __m256i row = four_codes(q + i * ld_q + u * TERN_I8_GROUP_K);
                TERN_UNROLL
                for (size_t h = 0; h < HALVES; h++) {
                    const __m256i products = _mm256_maddubs_epi16(half[h], row); // of d = 0, 1 and of d = 2, 3
                    sum[i * HALVES + h] = add(sum[i * HALVES + h], _mm256_madd_epi16(products, ones));
                }
            }
        }
        w += SCORE_GROUPS * TERN_I8_GROUP_BYTES;
        q += SCORE_GROUPS * TERN_I8_GROUP_K;
        next.at += SCORE_GROUPS * next.step;
    }
    TERN_UNROLL
    for (size_t i = 0; i < queries * HALVES; i++)
        _mm256_store_si256((__m256i *)(dots + i / HALVES * TERN_ATTN_BLOCK + i % HALVES * HALF), sum[i]);
}

// Eight codes that meet in a 16-bit lane within 16 keys add up to at most 252 (kernels.h): |252 * 127| < 2^15. So products of
// 16 keys are added in 16 bits, in registers, and these sums to those of 32 bits in memory.
static inline TERN_VF_INLINE void sum_values(int32_t *sums, const int8_t *w, size_t groups, const uint8_t *codes, ahead next,
                                             size_t queries) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i wide[TERN_ATTN_INT8_QUERIES * HALVES]; // lane f: element f of a half
    TERN_UNROLL
    for (size_t i = 0; i < queries * HALVES; i++) wide[i] = _mm256_setzero_si256();
    TERN_NO_UNROLL
    for (size_t g = 0; g < groups; g += VALUE_GROUPS) {
        TERN_COST_LOOP("INT8 values", TERN_I8_PANEL, queries, TERN_I8_GROUP_K * VALUE_GROUPS);
        __m256i sum[TERN_ATTN_INT8_QUERIES * HALVES]; // 16-bit lanes 2f, 2f + 1
        TERN_UNROLL
        for (size_t u = 0; u < VALUE_GROUPS; u++) {
            _mm_prefetch((const char *)next.at + u * next.step, _MM_HINT_T1);
            __m256i half[HALVES];
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++) {
                half[h] = _mm256_load_si256((const __m256i *)(w + u * TERN_I8_GROUP_BYTES + h * HALF_BYTES));
                TERN_LOADED(half[h]);
            }
            TERN_UNROLL
            for (size_t i = 0; i < queries; i++) {
                const __m256i row = four_codes(codes + i * TERN_ATTN_BLOCK + u * TERN_I8_GROUP_K);
                TERN_UNROLL
                for (size_t h = 0; h < HALVES; h++) {
                    const __m256i products = _mm256_maddubs_epi16(row, half[h]);
                    sum[i * HALVES + h] = u == 0 ? products : add_16(sum[i * HALVES + h], products);
                }
            }
        }
        TERN_UNROLL
        for (size_t i = 0; i < queries * HALVES; i++) wide[i] = add(wide[i], _mm256_madd_epi16(sum[i], ones));
        w += VALUE_GROUPS * TERN_I8_GROUP_BYTES;
        codes += VALUE_GROUPS * TERN_I8_GROUP_K;
        next.at += VALUE_GROUPS * next.step;
    }
    TERN_UNROLL
    for (size_t i = 0; i < queries * HALVES; i++)
        _mm256_store_si256((__m256i *)(sums + i / HALVES * TERN_ATTN_BLOCK + i % HALVES * HALF), wide[i]);
}

#include "attention_int8_panels.h"

#include "attention_int8_body.h"
