// SPDX-License-Identifier: MIT
// LUT product of T2N with AVX2: byte shuffles as table lookups, one forward stream of weights.
#include <immintrin.h>
#include <string.h>

#include "compiler.h"
#include "kernels.h"

enum {
    BLOCK = TERN_T2N_BLOCK,
    VECTOR = 32, // features of a vector
    TOKENS = 4,  // tokens that share one pass over the slab: a block's codes stay in L1 meanwhile
    PREFETCH = 4096,
    LINE = 64,
    // A nibble's value is a dot product of two activations, |value| <= 256; a K-tile has 10 of them, |sum| <= 2560;
    // 12 * 2560 = 30720 <= 32767.
    SPILL_TILES = 12
};

static inline __m256i load(const void *p) { return _mm256_load_si256((const __m256i *)p); }
static inline void store(void *p, __m256i v) { _mm256_store_si256((__m256i *)p, v); }
// The 16 bytes at p in both halves.
static inline __m256i load_plane(const int8_t *p) { return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)p)); }

// *sum += v, bytes.
static inline void add_in_place(__m256i *sum, __m256i v) {
    TERN_IN_PLACE(__asm__ volatile("vpaddb %1, %0, %0" : "+x"(*sum) : "x"(v)), *sum = _mm256_add_epi8(*sum, v));
}

// Adds lo + 24 * hi of 32 features to sums, which holds features 0..7, 16..23, then 8..15, 24..31.
static inline void add_tile(int16_t *sums, __m256i lo, __m256i hi) {
    const __m256i weights = _mm256_set1_epi16(1 | TERN_T2N_STEP << 8);
    const __m256i first = _mm256_maddubs_epi16(weights, _mm256_unpacklo_epi8(lo, hi));
    const __m256i second = _mm256_maddubs_epi16(weights, _mm256_unpackhi_epi8(lo, hi));
    store(sums, _mm256_add_epi16(load(sums), first));
    store(sums + VECTOR / 2, _mm256_add_epi16(load(sums + VECTOR / 2), second));
}

// One K-tile of one block of `vectors` vectors, for one token.
static inline __attribute__((always_inline)) void block(int16_t *restrict sums, const uint8_t *restrict codes,
                                                        const int8_t *restrict tables, size_t rows, const size_t vectors) {
    const __m256i nibble = _mm256_set1_epi8(15);
    // byte f of lo[v], hi[v]: sums of the planes for feature f. |lo| <= 12 and |hi| <= 11, so 10 groups stay within int8: 120,
    // 110.
    __m256i lo[BLOCK / VECTOR], hi[BLOCK / VECTOR];
    TERN_UNROLL
    for (size_t v = 0; v < vectors; v++) lo[v] = hi[v] = _mm256_setzero_si256();
    TERN_NO_UNROLL
    for (size_t r = 0; r < rows; r++) {
        const __m256i lo0 = load_plane(tables), hi0 = load_plane(tables + 16);
        const __m256i lo1 = load_plane(tables + 32), hi1 = load_plane(tables + 48);
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            if (v % (LINE / VECTOR) == 0) _mm_prefetch((const char *)codes + v * VECTOR + PREFETCH, _MM_HINT_T0);
            const __m256i both = load(codes + v * VECTOR); // byte f: two codes of feature f
            const __m256i code0 = _mm256_and_si256(both, nibble), code1 = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
            add_in_place(&lo[v], _mm256_shuffle_epi8(lo0, code0));
            add_in_place(&hi[v], _mm256_shuffle_epi8(hi0, code0));
            add_in_place(&lo[v], _mm256_shuffle_epi8(lo1, code1));
            add_in_place(&hi[v], _mm256_shuffle_epi8(hi1, code1));
        }
        tables += TERN_T2N_TABLE_BYTES;
        codes += vectors * VECTOR;
    }
    TERN_UNROLL
    for (size_t v = 0; v < vectors; v++) add_tile(sums + v * VECTOR, lo[v], hi[v]);
}

// Moves the int16 sums of n features to acc, in natural order; adds unless this is the first time.
static void spill(int32_t *restrict acc, int16_t *restrict sums, size_t n, int first) {
    static const size_t feature[] = {0, 16, 8, 24}; // of each 8 sums of a vector
    for (size_t f = 0; f < n; f += VECTOR)
        for (size_t i = 0; i < 4; i++) {
            __m128i *eight = (__m128i *)(sums + f + 8 * i);
            __m256i *out = (__m256i *)(acc + f + feature[i]);
            const __m256i wide = _mm256_cvtepi16_epi32(_mm_load_si128(eight));
            _mm256_store_si256(out, first ? wide : _mm256_add_epi32(_mm256_load_si256(out), wide));
            _mm_store_si128(eight, _mm_setzero_si128());
        }
}

// Tokens t0 .. t0 + tokens - 1.
static void pass(const tern_gemm_args *args, size_t t0, size_t tokens) {
    _Alignas(64) int16_t sums[TOKENS][TERN_SLAB_MAX];
    const size_t n = args->n, rows = tern_t2n_rows(args->k);
    const uint8_t *codes = args->packed;
    for (size_t t = 0; t < tokens; t++) memset(sums[t], 0, n * sizeof sums[t][0]);
    for (size_t row = 0, tile = 1; row < rows; row += TERN_T2N_TILE_ROWS, tile++) {
        const size_t in_tile = rows - row < TERN_T2N_TILE_ROWS ? rows - row : TERN_T2N_TILE_ROWS;
        const int8_t *tables = args->tables + t0 * args->ld_tables + row * TERN_T2N_TABLE_BYTES;
        for (size_t f = 0, width; f < n; f += width) {
            width = tern_slab_block(n - f, BLOCK);
            for (size_t t = 0; t < tokens; t++) {
                if (width == BLOCK)
                    block(sums[t] + f, codes, tables + t * args->ld_tables, in_tile, BLOCK / VECTOR);
                else
                    block(sums[t] + f, codes, tables + t * args->ld_tables, in_tile, BLOCK / VECTOR / 2);
            }
            codes += in_tile * width;
        }
        if (tile % SPILL_TILES == 0 || row + in_tile == rows)
            for (size_t t = 0; t < tokens; t++) spill(args->acc + (t0 + t) * args->ld_acc, sums[t], n, tile <= SPILL_TILES);
    }
}

void tern_lut_gemm_t2n_avx2(const tern_gemm_args *args) {
    for (size_t t = 0; t < args->m; t += TOKENS) pass(args, t, args->m - t < TOKENS ? args->m - t : TOKENS);
}
