// SPDX-License-Identifier: MIT
// LUT products of T2N and B1 with AVX2: byte shuffles as table lookups, one forward stream of weights.
#include "lut_b1.h"
#include "lut_slab_avx2.h"

enum {
    BLOCK_VECTORS = TERN_T2N_BLOCK / LUT_VECTOR,
    GROUPS = 2, // of a byte row
    GROUP_TABLE_BYTES = TERN_T2N_TABLE_BYTES / GROUPS,
    TILE_GROUPS = TERN_T2N_TILE_ROWS * GROUPS,
    PREFETCH = 4096, // into L2: measured ahead of L1 and of other distances
    // A nibble's value is a dot product of two activations (B1: half of one of four), |value| <= 256; a K-tile has 10 of them,
    // |sum| <= 2560; 12 * 2560 = 30720 <= 32767.
    SPILL_TILES = 12
};

// lo[v], hi[v]: byte f = sum of a plane for feature f of vector v. |lo| <= 12 and |hi| <= 11, so the 10 groups of a K-tile stay
// within int8: 120, 110.

// The first token: splits the codes. index, unless NULL, keeps them for further tokens: byte f of row g = code of group g of
// feature f.
static inline __attribute__((always_inline)) void stream(int16_t *restrict sums, uint8_t *restrict index,
                                                         const uint8_t *restrict codes, const int8_t *restrict tables,
                                                         size_t rows, const size_t vectors, const int keep) {
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i lo[BLOCK_VECTORS], hi[BLOCK_VECTORS];
    TERN_UNROLL
    for (size_t v = 0; v < vectors; v++) lo[v] = hi[v] = _mm256_setzero_si256();
    TERN_NO_UNROLL
    for (const uint8_t *end = codes + rows * vectors * LUT_VECTOR; codes < end; codes += vectors * LUT_VECTOR) {
        TERN_COST_LOOP("T2N rows", vectors * LUT_VECTOR, 1, TERN_T2N_TRITS);
        const __m256i lo0 = load_plane(tables), hi0 = load_plane(tables + LUT_PLANE);
        const __m256i lo1 = load_plane(tables + GROUP_TABLE_BYTES), hi1 = load_plane(tables + GROUP_TABLE_BYTES + LUT_PLANE);
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            if (v % (LUT_LINE / LUT_VECTOR) == 0) _mm_prefetch((const char *)codes + v * LUT_VECTOR + PREFETCH, _MM_HINT_T1);
            __m256i both = load(codes + v * LUT_VECTOR); // byte f: two codes of feature f
            TERN_LOADED(both);
            const __m256i code0 = _mm256_and_si256(both, nibble), code1 = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
            if (keep) {
                store(index + v * LUT_VECTOR, code0);
                store(index + (vectors + v) * LUT_VECTOR, code1);
            }
            add_in_place(&lo[v], _mm256_shuffle_epi8(lo0, code0));
            add_in_place(&hi[v], _mm256_shuffle_epi8(hi0, code0));
            add_in_place(&lo[v], _mm256_shuffle_epi8(lo1, code1));
            add_in_place(&hi[v], _mm256_shuffle_epi8(hi1, code1));
            TERN_IN_ORDER(lo[v], hi[v]);
        }
        tables += TERN_T2N_TABLE_BYTES;
        index += keep ? GROUPS * vectors * LUT_VECTOR : 0;
    }
    TERN_UNROLL
    for (size_t v = 0; v < vectors; v++) fold(sums + v * LUT_VECTOR, lo[v], hi[v], TERN_T2N_STEP);
}

// Adds one group of split codes: lo[v], hi[v] += entries of the codes in vector v.
static inline __attribute__((always_inline)) void add_group(__m256i *lo, __m256i *hi, const uint8_t *index,
                                                            const int8_t *tables, const size_t vectors) {
    const __m256i lo0 = load_plane(tables), hi0 = load_plane(tables + LUT_PLANE);
    TERN_UNROLL
    for (size_t v = 0; v < vectors; v++) {
        __m256i code = load(index + v * LUT_VECTOR);
        TERN_LOADED(code);
        add_in_place(&lo[v], _mm256_shuffle_epi8(lo0, code));
        add_in_place(&hi[v], _mm256_shuffle_epi8(hi0, code));
    }
}

// A further token: the split codes come from L1.
static inline __attribute__((always_inline)) void look_up(int16_t *restrict sums, const uint8_t *restrict index,
                                                          const int8_t *restrict tables, size_t rows, const size_t vectors) {
    __m256i lo[BLOCK_VECTORS], hi[BLOCK_VECTORS];
    TERN_UNROLL
    for (size_t v = 0; v < vectors; v++) lo[v] = hi[v] = _mm256_setzero_si256();
    TERN_NO_UNROLL
    for (const int8_t *end = tables + rows * TERN_T2N_TABLE_BYTES; tables < end; tables += TERN_T2N_TABLE_BYTES) {
        TERN_COST_LOOP("T2N split rows", vectors * LUT_VECTOR, 1, TERN_T2N_TRITS);
        add_group(lo, hi, index, tables, vectors);
        add_group(lo, hi, index + vectors * LUT_VECTOR, tables + GROUP_TABLE_BYTES, vectors);
        index += GROUPS * vectors * LUT_VECTOR;
    }
    TERN_UNROLL
    for (size_t v = 0; v < vectors; v++) fold(sums + v * LUT_VECTOR, lo[v], hi[v], TERN_T2N_STEP);
}

static inline __attribute__((always_inline)) void one(int16_t *restrict sums, const uint8_t *restrict codes,
                                                      const int8_t *restrict tables, size_t ld_tables, size_t rows,
                                                      size_t width, size_t tokens) {
    (void)ld_tables, (void)tokens;
    if (width == TERN_T2N_BLOCK)
        stream(sums, NULL, codes, tables, rows, BLOCK_VECTORS, 0);
    else
        stream(sums, NULL, codes, tables, rows, BLOCK_VECTORS / 2, 0);
}

static inline __attribute__((always_inline)) void several_of(int16_t *restrict sums, const uint8_t *restrict codes,
                                                             const int8_t *restrict tables, size_t ld_tables, size_t rows,
                                                             size_t tokens, const size_t vectors) {
    _Alignas(64) uint8_t index[TILE_GROUPS * TERN_T2N_BLOCK];
    stream(sums, index, codes, tables, rows, vectors, 1);
    for (size_t t = 1; t < tokens; t++) look_up(sums + t * LUT_SUMS, index, tables + t * ld_tables, rows, vectors);
}

static __attribute__((noinline)) void several(int16_t *restrict sums, const uint8_t *restrict codes,
                                              const int8_t *restrict tables, size_t ld_tables, size_t rows, size_t width,
                                              size_t tokens) {
    if (width == TERN_T2N_BLOCK)
        several_of(sums, codes, tables, ld_tables, rows, tokens, BLOCK_VECTORS);
    else
        several_of(sums, codes, tables, ld_tables, rows, tokens, BLOCK_VECTORS / 2);
}

static void all_rows(const tern_gemm_args *args, size_t rows) {
    const lut_shape shape = {.rows = rows,
                             .tile_rows = TERN_T2N_TILE_ROWS,
                             .block = TERN_T2N_BLOCK,
                             .tile_table_bytes = TERN_T2N_TILE_ROWS * TERN_T2N_TABLE_BYTES,
                             .spill_tiles = SPILL_TILES};
    lut_slab(args, shape, one, several);
}

void tern_lut_gemm_t2n_avx2(const tern_gemm_args *args) { all_rows(args, tern_t2n_rows(args->k)); }

void tern_sign_gemm_b1_avx2(const tern_gemm_args *args) {
    all_rows(args, tern_b1_rows(args->k));
    tern_b1_finish(args);
}
