// SPDX-License-Identifier: MIT
// LUT product of T2N with AVX-512 BW: byte shuffles as table lookups, for CPUs without VBMI.
#include "lut_slab_avx512.h"

enum { VECTOR = SLAB_VECTOR, BLOCK_VECTORS = TERN_T2N_BLOCK / VECTOR, PREFETCH = 4096 };

// `vectors` vectors of features for `tokens` tokens.
static inline __attribute__((always_inline)) void block(int16_t *restrict sums, slab_tile a, const size_t vectors,
                                                        const size_t tokens) {
    const __m512i nibble = _mm512_set1_epi8(15);
    // byte f: sums of the planes for feature f. |lo| <= 12 and |hi| <= 11, so the 10 groups of a K-tile stay within int8: 120,
    // 110.
    __m512i lo[SLAB_TOKENS][BLOCK_VECTORS], hi[SLAB_TOKENS][BLOCK_VECTORS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) lo[t][v] = hi[t][v] = _mm512_setzero_si512();
    }
    TERN_NO_UNROLL
    for (size_t r = 0; r < a.rows; r++) {
        TERN_COST_LOOP("T2N rows", vectors * VECTOR, tokens, TERN_T2N_TRITS);
        __m512i low[BLOCK_VECTORS], high[BLOCK_VECTORS]; // byte f: codes of feature f
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            _mm_prefetch((const char *)a.codes + v * VECTOR + PREFETCH, _MM_HINT_T0);
            const __m512i both = _mm512_load_si512(a.codes + v * VECTOR);
            low[v] = _mm512_and_si512(both, nibble);
            high[v] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
        }
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const int8_t *table = a.tables + t * a.ld_tables;
            const __m512i lo0 = load_plane(table), hi0 = load_plane(table + SLAB_LOOKUP);
            const __m512i lo1 = load_plane(table + 2 * SLAB_LOOKUP), hi1 = load_plane(table + 3 * SLAB_LOOKUP);
            TERN_UNROLL
            for (size_t v = 0; v < vectors; v++) {
                add_in_place(&lo[t][v], _mm512_shuffle_epi8(lo0, low[v]));
                add_in_place(&hi[t][v], _mm512_shuffle_epi8(hi0, low[v]));
                add_in_place(&lo[t][v], _mm512_shuffle_epi8(lo1, high[v]));
                add_in_place(&hi[t][v], _mm512_shuffle_epi8(hi1, high[v]));
            }
        }
        a.tables += TERN_T2N_TABLE_BYTES;
        a.codes += a.width;
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++)
            slab_add_planes(sums + t * TERN_SLAB_MAX + v * VECTOR, a.kept, lo[t][v], hi[t][v], TERN_T2N_STEP);
    }
}

static inline __attribute__((always_inline)) void block_of(int16_t *restrict sums, slab_tile a, const size_t tokens) {
    if (a.width == TERN_T2N_BLOCK)
        block(sums, a, BLOCK_VECTORS, tokens);
    else
        block(sums, a, 1, tokens);
}

static void any_block(int16_t *restrict sums, slab_tile a, size_t tokens) {
    switch (tokens) {
    case 1:
        block_of(sums, a, 1);
        break;
    case 2:
        block_of(sums, a, 2);
        break;
    case 3:
        block_of(sums, a, 3);
        break;
    default:
        block_of(sums, a, SLAB_TOKENS);
        break;
    }
}

void tern_lut_gemm_t2n_avx512(const tern_gemm_args *args) {
    const slab_shape t2n = {tern_t2n_rows(args->k), TERN_T2N_TILE_ROWS, TERN_T2N_BLOCK, TERN_T2N_TILE_ROWS * TERN_T2N_TRITS,
                            TERN_T2N_TILE_ROWS * TERN_T2N_TABLE_BYTES};
    slab_product(args, t2n, any_block);
}
