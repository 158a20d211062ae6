// SPDX-License-Identifier: MIT
// LUT product of T3 with AVX-512 BW: byte shuffles as table lookups of non-negative codes, signs put on by mask.
#include "lut_slab_avx512.h"

enum {
    VECTOR = SLAB_VECTOR, // features of a vector, and of a block
    PAIR_TOKENS = 2,
    PREFETCH = 4096
};

// One block of 64 features for `tokens` tokens.
static inline __attribute__((always_inline)) void block(int16_t *restrict sums, slab_tile a, const size_t tokens) {
    const __m512i nibble = _mm512_set1_epi8(15);
    // byte f: sums of the planes for feature f, of even groups [0] and odd groups [1]. |lo| <= 15 and |hi| <= 12, so the seven
    // groups of each stay within int8: 105, 84.
    __m512i lo[PAIR_TOKENS][2], hi[PAIR_TOKENS][2];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) lo[t][0] = hi[t][0] = lo[t][1] = hi[t][1] = _mm512_setzero_si512();
    // bit 7 of byte f: sign of feature f in the group at hand
    __m512i sign0 = _mm512_load_si512(a.codes), sign1 = _mm512_load_si512(a.codes + VECTOR);
    _mm_prefetch((const char *)a.codes + PREFETCH, _MM_HINT_T0);
    _mm_prefetch((const char *)a.codes + VECTOR + PREFETCH, _MM_HINT_T0);
    a.codes += TERN_T3_SIGN_ROWS * VECTOR;
    TERN_NO_UNROLL
    for (size_t r = TERN_T3_SIGN_ROWS; r < a.rows; r++) {
        TERN_COST_LOOP("T3 rows", VECTOR, tokens, TERN_T3_PAIR_K);
        _mm_prefetch((const char *)a.codes + PREFETCH, _MM_HINT_T0);
        const __m512i both = _mm512_load_si512(a.codes);
        const __m512i code0 = _mm512_and_si512(both, nibble), code1 = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
        const __mmask64 negative0 = _mm512_movepi8_mask(sign0), negative1 = _mm512_movepi8_mask(sign1);
        sign0 = _mm512_add_epi8(sign0, sign0), sign1 = _mm512_add_epi8(sign1, sign1);
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const int8_t *table = a.tables + t * a.ld_tables;
            add_signed(&lo[t][0], _mm512_shuffle_epi8(load_plane(table), code0), negative0);
            add_signed(&hi[t][0], _mm512_shuffle_epi8(load_plane(table + SLAB_LOOKUP), code0), negative0);
            add_signed(&lo[t][1], _mm512_shuffle_epi8(load_plane(table + 2 * SLAB_LOOKUP), code1), negative1);
            add_signed(&hi[t][1], _mm512_shuffle_epi8(load_plane(table + 3 * SLAB_LOOKUP), code1), negative1);
        }
        a.tables += TERN_T3_TABLE_BYTES;
        a.codes += VECTOR;
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        slab_add_planes(sums + t * TERN_SLAB_MAX, a.kept, lo[t][0], hi[t][0], TERN_T3_STEP);
        slab_add_planes(sums + t * TERN_SLAB_MAX, 0xFFFFFFFF, lo[t][1], hi[t][1], TERN_T3_STEP);
    }
}

static void any_block(int16_t *restrict sums, slab_tile a, size_t tokens) {
    for (; tokens >= PAIR_TOKENS; tokens -= PAIR_TOKENS) {
        block(sums, a, PAIR_TOKENS);
        sums += PAIR_TOKENS * TERN_SLAB_MAX;
        a.tables += PAIR_TOKENS * a.ld_tables;
    }
    if (tokens) block(sums, a, 1);
}

void tern_lut_gemm_t3_avx512(const tern_gemm_args *args) {
    const slab_shape t3 = {tern_t3_rows(args->k), TERN_T3_TILE_ROWS, TERN_T3_BLOCK, TERN_T3_TILE_K,
                           TERN_T3_TILE_PAIRS * TERN_T3_TABLE_BYTES};
    slab_product(args, t3, any_block);
}
