// SPDX-License-Identifier: MIT
// LUT product of T5 with AVX-512 VBMI: five trits a byte, 128-entry lookups, one forward stream of weights.
#include <immintrin.h>
#include <string.h>

#include "compiler.h"
#include "kernels.h"

enum {
    VECTOR = 64,                            // features of a vector
    BLOCK_VECTORS = TERN_T5_BLOCK / VECTOR, // 8 vectors * 2 planes = 16 sums for one token
    PAIR_VECTORS = BLOCK_VECTORS / 2,       // 4 vectors * 2 planes * 2 tokens = 16 sums for two, and 8 registers of tables
    TOKENS = 4,                             // tokens that share one pass over the slab: a block's codes stay in L1 meanwhile
    PLANE = TERN_T5_TABLE_BYTES / 2,
    PREFETCH = 4096,
    // A K-tile has 6 groups, |value| <= 5 * 128: |sum| <= 6 * 640 = 3840; 8 * 3840 = 30720 <= 32767.
    SPILL_TILES = 8
};

typedef struct planes {
    __m512i lo0, lo1, hi0, hi1; // entries 0..63 and 64..127 of each plane
} planes;

static inline planes load_planes(const int8_t *table) {
    return (planes){_mm512_load_si512(table), _mm512_load_si512(table + VECTOR), _mm512_load_si512(table + PLANE),
                    _mm512_load_si512(table + PLANE + VECTOR)};
}

// *sum += v, bytes.
static inline void add_in_place(__m512i *sum, __m512i v) {
    TERN_IN_PLACE(__asm__ volatile("vpaddb %1, %0, %0" : "+v"(*sum) : "v"(v)), *sum = _mm512_add_epi8(*sum, v));
}

// Adds lo + 32 * hi of 64 features to sums, which holds the 32 even features, then the 32 odd ones.
static inline void add_tile(int16_t *sums, __m512i lo, __m512i hi) {
    const __m512i odd_bytes = _mm512_set1_epi16((short)0xFF00);
    const __m512i lo_even = _mm512_srai_epi16(_mm512_slli_epi16(lo, 8), 8), lo_odd = _mm512_srai_epi16(lo, 8);
    // A byte at the top of its 16 bits, shifted right by 8 - 5, is 32 times its value.
    const __m512i hi_even = _mm512_srai_epi16(_mm512_slli_epi16(hi, 8), 3);
    const __m512i hi_odd = _mm512_srai_epi16(_mm512_and_si512(hi, odd_bytes), 3);
    const __m512i even = _mm512_add_epi16(_mm512_load_si512(sums), _mm512_add_epi16(lo_even, hi_even));
    const __m512i odd = _mm512_add_epi16(_mm512_load_si512(sums + VECTOR / 2), _mm512_add_epi16(lo_odd, hi_odd));
    _mm512_store_si512(sums, even);
    _mm512_store_si512(sums + VECTOR / 2, odd);
}

// One K-tile of `vectors` vectors of features for `tokens` tokens, whose sums are TERN_SLAB_MAX apart; byte rows are `stride`
// apart.
static inline __attribute__((always_inline)) void block(int16_t *restrict sums, const uint8_t *restrict codes,
                                                        const int8_t *restrict tables, size_t ld_tables, size_t rows,
                                                        size_t stride, const size_t vectors, const size_t tokens) {
    const __m512i zero = _mm512_setzero_si512();
    // byte f: sums of the planes for feature f. |lo| <= 16 and |hi| <= 20, so 6 groups stay within int8: 96, 120.
    __m512i lo[2][BLOCK_VECTORS], hi[2][BLOCK_VECTORS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) lo[t][v] = hi[t][v] = _mm512_setzero_si512();
    }
    TERN_NO_UNROLL
    for (size_t r = 0; r < rows; r++) {
        TERN_COST_LOOP("T5 rows", vectors * VECTOR, tokens, TERN_T5_TRITS);
        const planes first = load_planes(tables);
        const planes second = tokens == 2 ? load_planes(tables + ld_tables) : first;
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            _mm_prefetch((const char *)codes + v * VECTOR + PREFETCH, _MM_HINT_T0);
            const __m512i code = _mm512_load_si512(codes + v * VECTOR); // byte f: code of feature f
            const __mmask64 negative = _mm512_movepi8_mask(code);       // bit f: it is negative
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) {
                const planes *table = t == 0 ? &first : &second;
                const __m512i lo_part = _mm512_permutex2var_epi8(table->lo0, code, table->lo1); // bit 7 of the index is ignored
                const __m512i hi_part = _mm512_permutex2var_epi8(table->hi0, code, table->hi1);
                add_in_place(&lo[t][v], _mm512_mask_sub_epi8(lo_part, negative, zero, lo_part));
                add_in_place(&hi[t][v], _mm512_mask_sub_epi8(hi_part, negative, zero, hi_part));
            }
        }
        tables += TERN_T5_TABLE_BYTES;
        codes += stride;
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) add_tile(sums + t * TERN_SLAB_MAX + v * VECTOR, lo[t][v], hi[t][v]);
    }
}

// One K-tile of one block of the slab, one token.
static void block_one(int16_t *restrict sums, const uint8_t *restrict codes, const int8_t *restrict tables, size_t rows,
                      size_t width) {
    if (width == TERN_T5_BLOCK)
        block(sums, codes, tables, 0, rows, width, BLOCK_VECTORS, 1);
    else if (width == TERN_T5_BLOCK / 2)
        block(sums, codes, tables, 0, rows, width, BLOCK_VECTORS / 2, 1);
    else if (width == TERN_T5_BLOCK / 4)
        block(sums, codes, tables, 0, rows, width, BLOCK_VECTORS / 4, 1);
    else
        block(sums, codes, tables, 0, rows, width, BLOCK_VECTORS / 8, 1);
}

// The same for two tokens; the widest block in two halves.
static void block_two(int16_t *restrict sums, const uint8_t *restrict codes, const int8_t *restrict tables, size_t ld_tables,
                      size_t rows, size_t width) {
    if (width == TERN_T5_BLOCK) {
        block(sums, codes, tables, ld_tables, rows, width, PAIR_VECTORS, 2);
        const size_t half = TERN_T5_BLOCK / 2;
        block(sums + half, codes + half, tables, ld_tables, rows, width, PAIR_VECTORS, 2);
    } else if (width == TERN_T5_BLOCK / 2) {
        block(sums, codes, tables, ld_tables, rows, width, PAIR_VECTORS, 2);
    } else if (width == TERN_T5_BLOCK / 4) {
        block(sums, codes, tables, ld_tables, rows, width, PAIR_VECTORS / 2, 2);
    } else {
        block(sums, codes, tables, ld_tables, rows, width, PAIR_VECTORS / 4, 2);
    }
}

// 16-bit lane numbers that interleave even features (0..31) with odd ones (32..63): features 0..31, then 32..63.
#define PAIR(i) (i), (i) + VECTOR / 2
#define PAIRS(i)                                                                                                               \
    PAIR((i)), PAIR((i) + 1), PAIR((i) + 2), PAIR((i) + 3), PAIR((i) + 4), PAIR((i) + 5), PAIR((i) + 6), PAIR((i) + 7)
_Alignas(64) static const uint16_t interleave[2][VECTOR / 2] = {{PAIRS(0), PAIRS(8)}, {PAIRS(16), PAIRS(24)}};

// Moves the int16 sums of n features to acc, in natural order; adds unless this is the first time.
static void spill(int32_t *restrict acc, int16_t *restrict sums, size_t n, int first_time) {
    const __m512i first = _mm512_load_si512(interleave[0]), second = _mm512_load_si512(interleave[1]);
    for (size_t f = 0; f < n; f += VECTOR) {
        const __m512i even = _mm512_load_si512(sums + f), odd = _mm512_load_si512(sums + f + VECTOR / 2);
        const __m512i half[2] = {_mm512_permutex2var_epi16(even, first, odd), _mm512_permutex2var_epi16(even, second, odd)};
        for (size_t h = 0; h < 2; h++) {
            const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(half[h]));
            const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(half[h], 1));
            int32_t *out = acc + f + h * VECTOR / 2;
            _mm512_store_si512(out, first_time ? low : _mm512_add_epi32(_mm512_load_si512(out), low));
            _mm512_store_si512(out + 16, first_time ? high : _mm512_add_epi32(_mm512_load_si512(out + 16), high));
        }
        _mm512_store_si512(sums + f, _mm512_setzero_si512());
        _mm512_store_si512(sums + f + VECTOR / 2, _mm512_setzero_si512());
    }
}

// Tokens t0 .. t0 + tokens - 1.
static void pass(const tern_gemm_args *args, size_t t0, size_t tokens) {
    _Alignas(64) int16_t sums[TOKENS * TERN_SLAB_MAX]; // token t at t * TERN_SLAB_MAX
    const size_t n = args->n, rows = tern_t5_rows(args->k);
    const uint8_t *codes = args->packed;
    for (size_t t = 0; t < tokens; t++) memset(sums + t * TERN_SLAB_MAX, 0, n * sizeof sums[0]);
    for (size_t row = 0, tile = 1; row < rows; row += TERN_T5_TILE_ROWS, tile++) {
        const size_t in_tile = rows - row < TERN_T5_TILE_ROWS ? rows - row : TERN_T5_TILE_ROWS;
        const int8_t *tables = args->tables + t0 * args->ld_tables + row * TERN_T5_TABLE_BYTES;
        for (size_t f = 0, width; f < n; f += width) {
            width = tern_slab_block(n - f, TERN_T5_BLOCK);
            for (size_t t = 0; t < tokens; t += 2) {
                int16_t *out = sums + t * TERN_SLAB_MAX + f;
                const int8_t *table = tables + t * args->ld_tables;
                if (t + 1 < tokens)
                    block_two(out, codes, table, args->ld_tables, in_tile, width);
                else
                    block_one(out, codes, table, in_tile, width);
            }
            codes += in_tile * width;
        }
        if (tile % SPILL_TILES == 0 || row + in_tile == rows)
            for (size_t t = 0; t < tokens; t++)
                spill(args->acc + (t0 + t) * args->ld_acc, sums + t * TERN_SLAB_MAX, n, tile <= SPILL_TILES);
    }
}

void tern_lut_gemm_t5_avx512vbmi(const tern_gemm_args *args) {
    for (size_t t = 0; t < args->m; t += TOKENS) pass(args, t, args->m - t < TOKENS ? args->m - t : TOKENS);
}
