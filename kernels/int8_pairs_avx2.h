// SPDX-License-Identifier: MIT
// What the AVX2 kernels of I8 and I8B32 share: int8 on both sides, exact for every value, -128 included.
//
// Four consecutive k of a feature (one 32-bit lane of a group) are widened to int16 as two pairs, even (k = 0, 2) and odd
// (k = 1, 3). Up to three tokens take even * even + odd * odd, two vpmaddwd. More tokens halve the multiplications (Winograd,
// "A New Algorithm for Inner Products", 1968):
//
//   (w_even + x_odd) * (w_odd + x_even) = w_even * x_even + w_odd * x_odd + w_even * w_odd + x_even * x_odd
//
// The last two products depend on one side only, so their sums are taken once per chunk and subtracted. Four instructions for
// 32 products, of which one multiplies: additions have four ports on Zen 3, multiplications two.
// |w + x| <= 256 fits int16; sums may wrap on the way (modulo 2^32), the final value fits int32.
#ifndef TERN_KERNELS_INT8_PAIRS_AVX2_H
#define TERN_KERNELS_INT8_PAIRS_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "compiler.h"
#include "layout.h"

#define TILE_INLINE static inline __attribute__((always_inline))
// A tile is a function of its own, with constant tokens: so gcc 12 keeps its sums in registers.
#define TILE_OWN static __attribute__((noinline))

enum {
    PANEL = 16,
    HALF = 8, // features of one ymm, half a panel
    HALVES = PANEL / HALF,
    GROUP_K = TERN_I8_GROUP_K,
    HALF_BYTES = HALF * GROUP_K, // of packed codes
    FEW_TOKENS = 3,              // of the widest tile on packed codes
    FEW_K = 8192,                // K is cut so that the widened activations of a few tokens stay on the stack: 48 KB
    TOKENS = 4,      // of the widest tile on widened codes: 8 sums, 4 vectors of codes and 4 others fit the registers
    TOKENS_MAX = 64, // whose activations are widened at once
    CHUNK_K = 512,   // K is cut so that a panel's widened chunk (16 KB) stays in L1 while all tokens pass
    GROUP_WIDE = PANEL * GROUP_K,
    INT8_AHEAD = 2048 // bytes, of a few tokens
};

// Two pairs of int16: even and odd, in each 32-bit lane.
typedef struct pairs {
    __m256i even, odd;
} pairs;

TILE_INLINE pairs widen(__m256i codes) {
    return (pairs){_mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 8), _mm256_srai_epi16(codes, 8)};
}

// sum + v, in place.
TILE_INLINE __m256i add(__m256i sum, __m256i v) {
    TERN_IN_PLACE(__asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(v)), sum = _mm256_add_epi32(sum, v));
    return sum;
}

// ---- activations ------------------------------------------------------------------------------------------------

TILE_INLINE int32_t sum_lanes(__m128i v) {
    v = _mm_add_epi32(v, _mm_unpackhi_epi64(v, v));
    return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 1)));
}

// wide: for each group its even pair, then its odd pair. Reads x up to tern_round_up(k, 16). Returns the sum of even * odd.
static inline int32_t widen_row(int16_t *restrict wide, const int8_t *restrict x, size_t k) {
    __m128i products = _mm_setzero_si128();
    for (size_t i = 0; i < k; i += sizeof(__m128i)) {
        const __m128i codes = _mm_load_si128((const __m128i *)(x + i));
        const __m128i even = _mm_srai_epi16(_mm_slli_epi16(codes, 8), 8), odd = _mm_srai_epi16(codes, 8);
        products = _mm_add_epi32(products, _mm_madd_epi16(even, odd));
        _mm_store_si128((__m128i *)(wide + i), _mm_unpacklo_epi32(even, odd));
        _mm_store_si128((__m128i *)(wide + i) + 1, _mm_unpackhi_epi32(even, odd));
    }
    return sum_lanes(products);
}

// One pair of one token in every 32-bit lane.
TILE_INLINE __m256i broadcast_pair(const int16_t *x) {
    int32_t pair;
    memcpy(&pair, x, sizeof pair);
    return _mm256_set1_epi32(pair);
}

// ---- few tokens: packed codes -----------------------------------------------------------------------------------

// A few tokens wait for memory; past the end of the weights this does nothing.
TILE_INLINE void fetch(const uint8_t *line) { _mm_prefetch((const char *)line, _MM_HINT_T0); }

// sum[h * tokens + t] += products of `groups` >= 1 groups. w: first group of a panel; x: rows of widen_row, ldx apart.
// What stands `ahead` bytes further on is fetched.
TILE_INLINE void add_groups(__m256i sum[HALVES * FEW_TOKENS], const uint8_t *w, const int16_t *x, size_t ldx, size_t groups,
                            size_t ahead, size_t tokens) {
    TERN_NO_UNROLL
    do {
        TERN_COST_LOOP("groups", PANEL, tokens, GROUP_K);
        fetch(w + ahead);
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) {
            const pairs codes = widen(_mm256_load_si256((const __m256i *)(w + h * HALF_BYTES)));
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) {
                __m256i *to = &sum[h * tokens + t];
                *to = add(*to, _mm256_madd_epi16(codes.even, broadcast_pair(x + t * ldx)));
                *to = add(*to, _mm256_madd_epi16(codes.odd, broadcast_pair(x + t * ldx + 2)));
            }
        }
        w += TERN_I8_GROUP_BYTES;
        x += GROUP_K;
    } while (--groups);
}

// ---- many tokens: widened codes -----------------------------------------------------------------------------------

// wide: for each group even and odd of features 0..7, then of 8..15. less[h]: lane f -= the sum of even * odd.
TILE_INLINE void widen_groups(int16_t *restrict wide, __m256i less[HALVES], const uint8_t *restrict w, size_t groups) {
    for (size_t g = 0; g < groups; g++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) {
            const pairs codes = widen(_mm256_load_si256((const __m256i *)(w + g * TERN_I8_GROUP_BYTES + h * HALF_BYTES)));
            __m256i *to = (__m256i *)(wide + g * GROUP_WIDE) + h * 2;
            _mm256_store_si256(to, codes.even);
            _mm256_store_si256(to + 1, codes.odd);
            less[h] = _mm256_sub_epi32(less[h], _mm256_madd_epi16(codes.even, codes.odd));
        }
    }
}

// sum[h * tokens + t] += (w_even + x_odd) * (w_odd + x_even) of one group.
TILE_INLINE void add_wide_group(__m256i sum[HALVES * TOKENS], const int16_t *w, const int16_t *x, size_t ldx, size_t tokens) {
    const __m256i *codes = (const __m256i *)w;
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        const __m256i even = broadcast_pair(x + t * ldx), odd = broadcast_pair(x + t * ldx + 2);
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) {
            const __m256i first = _mm256_add_epi16(_mm256_load_si256(codes + 2 * h), odd);
            const __m256i second = _mm256_add_epi16(_mm256_load_si256(codes + 2 * h + 1), even);
            sum[h * tokens + t] = add(sum[h * tokens + t], _mm256_madd_epi16(first, second));
        }
    }
    TERN_UNROLL
    for (size_t i = 0; i < HALVES * tokens; i++) __asm__("" : "+x"(sum[i])); // one group after the other
}

#endif
