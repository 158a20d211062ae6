// SPDX-License-Identifier: MIT
// LUT product of T5 with AVX-512 VBMI: five trits a byte, 128-entry lookups, one forward stream of weights.
#include "lut_slab_avx512.h"

enum {
    VECTOR = SLAB_VECTOR,
    BLOCK_VECTORS = TERN_T5_BLOCK / VECTOR, // one token: 8 vectors * 2 planes = 16 sums
    PAIR_VECTORS = BLOCK_VECTORS / 2,       // two tokens: 4 vectors * 2 planes * 2 = 16 sums
    PLANE = TERN_T5_TABLE_BYTES / 2,
    PREFETCH = 4096
};

// 64 codes. gcc would rather load them again for each use than copy a register: three loads where one is free.
static inline __m512i load_once(const uint8_t *codes) {
    __m512i v = _mm512_load_si512(codes);
    TERN_IN_PLACE(__asm__ volatile("" : "+v"(v)), );
    return v;
}

// Byte f of the result: entry codes[f] & 127 of the 128 in first and second. The result takes the place of the codes.
static inline __m512i lookup(__m512i first, __m512i codes, __m512i second) {
    TERN_IN_PLACE(__asm__ volatile("vpermi2b %2, %1, %0"
                                   : "+v"(codes)
                                   : "v"(first), "v"(second)),
                  codes = _mm512_permutex2var_epi8(first, codes, second));
    return codes;
}

// `vectors` vectors of features for `tokens` tokens, whose sums are TERN_SLAB_MAX apart.
static inline __attribute__((always_inline)) void block(int16_t *restrict sums, slab_tile a, const size_t vectors,
                                                        const size_t tokens) {
    // byte f: sums of the planes for feature f. Both planes lie within -18..18, so 7 groups stay within int8: 126.
    __m512i lo[2][BLOCK_VECTORS], hi[2][BLOCK_VECTORS];
    const size_t lag =
        tokens == 1 ? 2 : 1; // vectors whose lookups are under way before the sums of the first: what registers allow
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) lo[t][v] = hi[t][v] = _mm512_setzero_si512();
    }
    TERN_NO_UNROLL
    for (size_t r = 0; r < a.rows; r++) {
        TERN_COST_LOOP("T5 rows", vectors * VECTOR, tokens, TERN_T5_TRITS);
        __m512i lo0[2], lo1[2], hi0[2], hi1[2]; // entries 0..63 and 64..127 of each plane
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const int8_t *table = a.tables + t * a.ld_tables;
            lo0[t] = _mm512_load_si512(table), lo1[t] = _mm512_load_si512(table + VECTOR);
            hi0[t] = _mm512_load_si512(table + PLANE), hi1[t] = _mm512_load_si512(table + PLANE + VECTOR);
        }
        __m512i lo_part[2][BLOCK_VECTORS], hi_part[2][BLOCK_VECTORS];
        __mmask64 negative[BLOCK_VECTORS]; // bit f: the code of feature f is
        TERN_UNROLL
        for (size_t i = 0; i < vectors + lag; i++) {
            if (i < vectors) {
                _mm_prefetch((const char *)a.codes + i * VECTOR + PREFETCH, _MM_HINT_T0);
                const __m512i code = load_once(a.codes + i * VECTOR); // byte f: code of feature f
                negative[i] = _mm512_movepi8_mask(code);
                TERN_UNROLL
                for (size_t t = 0; t < tokens; t++) {
                    lo_part[t][i] = lookup(lo0[t], code, lo1[t]);
                    hi_part[t][i] = lookup(hi0[t], code, hi1[t]);
                }
            }
            if (i >= lag) {
                const size_t v = i - lag;
                TERN_UNROLL
                for (size_t t = 0; t < tokens; t++) {
                    add_signed(&lo[t][v], lo_part[t][v], negative[v]);
                    add_signed(&hi[t][v], hi_part[t][v], negative[v]);
                }
            }
        }
        a.tables += TERN_T5_TABLE_BYTES;
        a.codes += a.width;
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++)
            slab_add_planes(sums + t * TERN_SLAB_MAX + v * VECTOR, a.kept, lo[t][v], hi[t][v], TERN_T5_STEP);
    }
}

static void block_one(int16_t *restrict sums, slab_tile a) {
    switch (a.width / VECTOR) {
    case BLOCK_VECTORS:
        block(sums, a, BLOCK_VECTORS, 1);
        break;
    case BLOCK_VECTORS / 2:
        block(sums, a, BLOCK_VECTORS / 2, 1);
        break;
    case BLOCK_VECTORS / 4:
        block(sums, a, BLOCK_VECTORS / 4, 1);
        break;
    default:
        block(sums, a, 1, 1);
        break;
    }
}

// Two tokens; the widest block in two halves.
static void block_two(int16_t *restrict sums, slab_tile a) {
    slab_tile half = a;
    switch (a.width / VECTOR) {
    case BLOCK_VECTORS:
        block(sums, a, PAIR_VECTORS, 2);
        half.codes += PAIR_VECTORS * VECTOR;
        block(sums + PAIR_VECTORS * VECTOR, half, PAIR_VECTORS, 2);
        break;
    case BLOCK_VECTORS / 2:
        block(sums, a, PAIR_VECTORS, 2);
        break;
    case BLOCK_VECTORS / 4:
        block(sums, a, PAIR_VECTORS / 2, 2);
        break;
    default:
        block(sums, a, 1, 2);
        break;
    }
}

static void any_block(int16_t *restrict sums, slab_tile a, size_t tokens) {
    for (size_t t = 0; t < tokens; t += 2, a.tables += 2 * a.ld_tables) {
        if (t + 1 < tokens)
            block_two(sums + t * TERN_SLAB_MAX, a);
        else
            block_one(sums + t * TERN_SLAB_MAX, a);
    }
}

void tern_lut_gemm_t5_avx512vbmi(const tern_gemm_args *args) {
    const slab_shape t5 = {tern_t5_rows(args->k), TERN_T5_TILE_ROWS, TERN_T5_BLOCK, TERN_T5_TILE_ROWS * TERN_T5_TRITS,
                           TERN_T5_TILE_ROWS * TERN_T5_TABLE_BYTES};
    slab_product(args, t5, any_block);
}
