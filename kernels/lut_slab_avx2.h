// SPDX-License-Identifier: MIT
// What the AVX2 table-lookup products share: table loads, the way from byte sums to int16 to int32, and the walk over a slab.
#ifndef TERN_KERNELS_LUT_SLAB_AVX2_H
#define TERN_KERNELS_LUT_SLAB_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "compiler.h"
#include "kernels.h"

enum {
    LUT_VECTOR = 32, // features of a vector
    LUT_PLANE = 16,  // entries of a byte plane
    LUT_LINE = 64,
    LUT_TOKENS = 8,
    LUT_SUMS =
        TERN_SLAB_MAX + 96 // distance of two tokens: not a multiple of 4096 bytes, whose addresses share their sets in L1
};

static inline __m256i load(const void *p) { return _mm256_load_si256((const __m256i *)p); }
static inline void store(void *p, __m256i v) { _mm256_store_si256((__m256i *)p, v); }
// The 16 entries at p in both halves.
static inline __m256i load_plane(const int8_t *p) { return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)p)); }

// *sum += v, bytes.
static inline void add_in_place(__m256i *sum, __m256i v) {
    TERN_IN_PLACE(__asm__ volatile("vpaddb %1, %0, %0" : "+x"(*sum) : "x"(v)), *sum = _mm256_add_epi8(*sum, v));
}

// Adds lo + step * hi of 32 features to sums, which holds features 0..7, 16..23, then 8..15, 24..31.
static inline void fold(int16_t *sums, __m256i lo, __m256i hi, int step) {
    const __m256i weights = _mm256_set1_epi16((int16_t)(1 | step << 8));
    const __m256i first = _mm256_maddubs_epi16(weights, _mm256_unpacklo_epi8(lo, hi));
    const __m256i second = _mm256_maddubs_epi16(weights, _mm256_unpackhi_epi8(lo, hi));
    store(sums, _mm256_add_epi16(load(sums), first));
    store(sums + LUT_PLANE, _mm256_add_epi16(load(sums + LUT_PLANE), second));
}

// Moves the int16 sums of n features to acc, in natural order; adds unless this is the first time.
static inline void spill(int32_t *restrict acc, int16_t *restrict sums, size_t n, int first) {
    static const size_t feature[] = {0, 16, 8, 24}; // of each 8 sums of a vector
    for (size_t f = 0; f < n; f += LUT_VECTOR)
        for (size_t i = 0; i < 4; i++) {
            __m128i *eight = (__m128i *)(sums + f + 8 * i);
            int32_t *out = acc + f + feature[i];
            const __m256i wide = _mm256_cvtepi16_epi32(_mm_load_si128(eight));
            store(out, first ? wide : _mm256_add_epi32(load(out), wide));
            _mm_store_si128(eight, _mm_setzero_si128());
        }
}

// One K-tile (`rows` byte rows) of one block of `width` features for `tokens` tokens, added to their int16 sums.
typedef void lut_block_fn(int16_t *restrict sums, const uint8_t *restrict codes, const int8_t *restrict tables,
                          size_t ld_tables, size_t rows, size_t width, size_t tokens);

typedef struct lut_shape {
    size_t rows, tile_rows, block;
    size_t tile_table_bytes; // of the tables of a whole K-tile
    size_t spill_tiles;      // K-tiles whose sums fit int16
} lut_shape;

static inline __attribute__((always_inline)) void lut_pass(const tern_gemm_args *args, size_t t0, size_t tokens, lut_shape s,
                                                           lut_block_fn *block) {
    _Alignas(64) int16_t sums[LUT_TOKENS * LUT_SUMS];
    const uint8_t *codes = args->packed;
    const int8_t *tables = args->tables + t0 * args->ld_tables;
    for (size_t t = 0; t < tokens; t++) memset(sums + t * LUT_SUMS, 0, args->n * sizeof sums[0]);
    for (size_t row = 0, tile = 1; row < s.rows; row += s.tile_rows, tile++, tables += s.tile_table_bytes) {
        const size_t in_tile = s.rows - row < s.tile_rows ? s.rows - row : s.tile_rows;
        for (size_t f = 0, width; f < args->n; f += width) {
            width = tern_slab_block(args->n - f, s.block);
            block(sums + f, codes, tables, args->ld_tables, in_tile, width, tokens);
            codes += in_tile * width;
        }
        if (tile % s.spill_tiles == 0 || row + in_tile == s.rows)
            for (size_t t = 0; t < tokens; t++)
                spill(args->acc + (t0 + t) * args->ld_acc, sums + t * LUT_SUMS, args->n, tile <= s.spill_tiles);
    }
}

// All tokens: one alone, or passes of about the same size.
static inline __attribute__((always_inline)) void lut_slab(const tern_gemm_args *args, lut_shape s, lut_block_fn *one,
                                                           lut_block_fn *several) {
    if (args->m == 1) {
        lut_pass(args, 0, 1, s, one);
        return;
    }
    const size_t passes = tern_ceil_div(args->m, LUT_TOKENS);
    for (size_t pass = 0; pass < passes; pass++) {
        const size_t t0 = args->m * pass / passes;
        lut_pass(args, t0, args->m * (pass + 1) / passes - t0, s, several);
    }
}

#endif
