// SPDX-License-Identifier: MIT
// What LUT products with AVX-512 share: the walk over a slab, and the way from byte planes to int16 and int32 sums.
//
// A K-tile's planes are sums of bytes (what holds them there is the kernel's to prove). They are widened into int16 sums of the
// whole slab, which stay in L1, and those are moved to acc before they could overflow.
#ifndef TERN_KERNELS_LUT_SLAB_AVX512_H
#define TERN_KERNELS_LUT_SLAB_AVX512_H

#include <immintrin.h>

#include "compiler.h"
#include "kernels.h"

enum {
    SLAB_VECTOR = 64, // features of a vector
    SLAB_LOOKUP = 16, // bytes that a byte shuffle looks up in
    SLAB_TOKENS = 4,  // tokens that share one pass over the slab: a block's codes stay in L1 meanwhile
    // |value| <= 128 per trit, or 127 where no activation is -128; that times these stays within int16: 32640, 32766. The
    // larger one takes a whole K-slice of 256.
    SLAB_SPILL_K = 255,
    SLAB_SPILL_K_NO_MIN = 258
};

// One K-tile of one block: `codes` has `rows` byte rows of `width` features.
typedef struct slab_tile {
    const uint8_t *codes;
    size_t rows, width;
    const int8_t *tables; // of the first token
    size_t ld_tables;
    __mmask32 kept; // see slab_add_planes
} slab_tile;

// Adds the products of `tokens` <= SLAB_TOKENS tokens to their sums, which are TERN_SLAB_MAX apart.
typedef void slab_block_fn(int16_t *restrict sums, slab_tile tile, size_t tokens);

typedef struct slab_shape {
    size_t rows, tile_rows, widest; // byte rows; of a K-tile (the last may have fewer); features of the widest block
    size_t tile_k, tile_tables;     // depth of a K-tile, bytes of its tables
} slab_shape;

// The 16 bytes at p in every lane of 128 bits.
static inline __m512i load_plane(const int8_t *p) { return _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)p)); }

// *sum += v, bytes.
static inline void add_in_place(__m512i *sum, __m512i v) {
    TERN_IN_PLACE(__asm__ volatile("vpaddb %1, %0, %0" : "+v"(*sum) : "v"(v)), *sum = _mm512_add_epi8(*sum, v));
}

// The same, with the sign turned where negative.
static inline void add_signed(__m512i *sum, __m512i v, __mmask64 negative) {
    add_in_place(sum, _mm512_mask_sub_epi8(v, negative, _mm512_setzero_si512(), v));
}

// sums (+)= lo + step * hi of 64 features: the octets of features 0, 2, 4, 6, then the octets 1, 3, 5, 7. kept: the sums that
// count, all or none.
static inline void slab_add_planes(int16_t *sums, __mmask32 kept, __m512i lo, __m512i hi, int step) {
    const __m512i weights = _mm512_set1_epi16((int16_t)(1 | step << 8));
    const __m512i even = _mm512_maddubs_epi16(weights, _mm512_unpacklo_epi8(lo, hi));
    const __m512i odd = _mm512_maddubs_epi16(weights, _mm512_unpackhi_epi8(lo, hi));
    _mm512_store_si512(sums, _mm512_add_epi16(_mm512_maskz_loadu_epi16(kept, sums), even));
    int16_t *second = sums + SLAB_VECTOR / 2;
    _mm512_store_si512(second, _mm512_add_epi16(_mm512_maskz_loadu_epi16(kept, second), odd));
}

// Quadwords (four features) of both halves of 64 sums, 0..7 and 8..15, in natural order of features 0..31 and 32..63.
_Alignas(64) static const uint64_t slab_order[2][8] = {{0, 1, 8, 9, 2, 3, 10, 11}, {4, 5, 12, 13, 6, 7, 14, 15}};

// Moves the int16 sums of n features to acc, in natural order; adds unless this is the first time.
static void slab_spill(int32_t *restrict acc, const int16_t *restrict sums, size_t n, int first_time) {
    const __m512i order[2] = {_mm512_load_si512(slab_order[0]), _mm512_load_si512(slab_order[1])};
    const __mmask16 kept = first_time ? 0 : 0xFFFF;
    for (size_t f = 0; f < n; f += SLAB_VECTOR) {
        const __m512i even = _mm512_load_si512(sums + f), odd = _mm512_load_si512(sums + f + SLAB_VECTOR / 2);
        for (size_t h = 0; h < 2; h++) {
            const __m512i half = _mm512_permutex2var_epi64(even, order[h], odd);
            const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(half));
            const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(half, 1));
            int32_t *out = acc + f + h * SLAB_VECTOR / 2;
            _mm512_store_si512(out, _mm512_add_epi32(_mm512_maskz_loadu_epi32(kept, out), low));
            _mm512_store_si512(out + 16, _mm512_add_epi32(_mm512_maskz_loadu_epi32(kept, out + 16), high));
        }
    }
}

// Tokens t0 .. t0 + tokens - 1.
static inline __attribute__((always_inline)) void slab_pass(const tern_gemm_args *args, size_t t0, size_t tokens,
                                                            const slab_shape shape, slab_block_fn *block) {
    _Alignas(64) int16_t sums[SLAB_TOKENS * TERN_SLAB_MAX]; // token t at t * TERN_SLAB_MAX
    const size_t n = args->n, spill_k = args->x_has_min ? SLAB_SPILL_K : SLAB_SPILL_K_NO_MIN;
    const uint8_t *codes = args->packed;
    size_t first_k = 0; // what lies before it is in acc, the rest in sums
    slab_tile tile = {.tables = args->tables + t0 * args->ld_tables, .ld_tables = args->ld_tables};
    for (size_t row = 0, k = 0, end_k; row < shape.rows; row += tile.rows, k = end_k) {
        end_k = args->k - k < shape.tile_k ? args->k : k + shape.tile_k;
        tile.rows = shape.rows - row < shape.tile_rows ? shape.rows - row : shape.tile_rows;
        tile.kept = k == first_k ? 0 : 0xFFFFFFFF;
        for (size_t f = 0; f < n; f += tile.width) {
            tile.width = tern_slab_block(n - f, shape.widest);
            tile.codes = codes;
            block(sums + f, tile, tokens);
            codes += tile.rows * tile.width;
        }
        tile.tables += shape.tile_tables;
        const size_t next_k = args->k - end_k < shape.tile_k ? args->k : end_k + shape.tile_k;
        if (end_k < args->k && next_k - first_k <= spill_k) continue;
        for (size_t t = 0; t < tokens; t++)
            slab_spill(args->acc + (t0 + t) * args->ld_acc, sums + t * TERN_SLAB_MAX, n, first_k == 0);
        first_k = end_k;
    }
}

static inline __attribute__((always_inline)) void slab_product(const tern_gemm_args *args, const slab_shape shape,
                                                               slab_block_fn *block) {
    for (size_t t = 0; t < args->m; t += SLAB_TOKENS)
        slab_pass(args, t, args->m - t < SLAB_TOKENS ? args->m - t : SLAB_TOKENS, shape, block);
}

#endif
