// SPDX-License-Identifier: MIT
// LUT product of T3 with AVX2: byte shuffles as table lookups of non-negative codes, signs put on by vpsignb.
#include "lut_slab_avx2.h"

enum {
    VECTORS = TERN_T3_BLOCK / LUT_VECTOR,
    HALVES = 2, // nibbles of a byte row: even and odd groups
    GROUP_TABLE_BYTES = TERN_T3_TABLE_BYTES / HALVES,
    SIGN_BYTES = TERN_T3_SIGN_ROWS * TERN_T3_BLOCK,
    PREFETCH = 4096, // into L2: measured ahead of L1 and of other distances
    // A group's value is a dot product of three activations, |value| <= 384; a K-tile has 14 of them, |sum| <= 5376;
    // 6 * 5376 = 32256 <= 32767.
    SPILL_TILES = 6
};

// lo[v], hi[v]: byte f = sum of a plane for feature f of vector v over the even or the odd groups of a K-tile. |lo| <= 15 and
// |hi| <= 12, so seven groups stay within int8: 105, 84.
typedef struct plane_sums {
    __m256i lo[VECTORS], hi[VECTORS];
} plane_sums;

// Adds the entries lo0, hi0 of `code`, with the sign of the bytes of `sign`, which are never 0.
static inline __attribute__((always_inline)) void add_group(plane_sums *s, size_t v, __m256i lo0, __m256i hi0, __m256i code,
                                                            __m256i sign) {
    add_in_place(&s->lo[v], _mm256_sign_epi8(_mm256_shuffle_epi8(lo0, code), sign));
    add_in_place(&s->hi[v], _mm256_sign_epi8(_mm256_shuffle_epi8(hi0, code), sign));
}

static inline __attribute__((always_inline)) void clear(plane_sums *s) {
    TERN_UNROLL
    for (size_t v = 0; v < VECTORS; v++) s->lo[v] = s->hi[v] = _mm256_setzero_si256();
}

static inline __attribute__((always_inline)) void fold_all(int16_t *sums, const plane_sums *s) {
    TERN_UNROLL
    for (size_t v = 0; v < VECTORS; v++) fold(sums + v * LUT_VECTOR, s->lo[v], s->hi[v], TERN_T3_STEP);
}

// A K-tile taken apart for further tokens: for each half, group and vector, the codes of 32 features, then bytes with their
// signs.
enum { PART_BYTES = 2 * LUT_VECTOR, HALF_BYTES = TERN_T3_TILE_PAIRS * VECTORS * PART_BYTES };

// The first token: the even (half = 0) or odd groups of a K-tile with `pairs` byte rows of nibbles. Fills parts if `keep`.
static inline __attribute__((always_inline)) void stream_half(int16_t *restrict sums, uint8_t *restrict parts,
                                                              const uint8_t *restrict codes, const int8_t *restrict tables,
                                                              size_t pairs, const size_t half, const int keep) {
    const __m256i nibble = _mm256_set1_epi8(15);
    plane_sums s;
    clear(&s);
    __m256i sign[VECTORS]; // bit 7 of byte f: sign of feature f in the group at hand
    TERN_UNROLL
    for (size_t v = 0; v < VECTORS; v++) sign[v] = load(codes + half * TERN_T3_BLOCK + v * LUT_VECTOR);
    _mm_prefetch((const char *)codes + half * TERN_T3_BLOCK + PREFETCH, _MM_HINT_T1);
    codes += SIGN_BYTES;
    tables += half * GROUP_TABLE_BYTES;
    TERN_NO_UNROLL
    for (const int8_t *end = tables + pairs * TERN_T3_TABLE_BYTES; tables < end; tables += TERN_T3_TABLE_BYTES) {
        TERN_COST_LOOP("T3 rows", TERN_T3_BLOCK, 1, TERN_T3_TRITS);
        if (half == 0) _mm_prefetch((const char *)codes + PREFETCH, _MM_HINT_T1);
        const __m256i lo0 = load_plane(tables), hi0 = load_plane(tables + LUT_PLANE);
        TERN_UNROLL
        for (size_t v = 0; v < VECTORS; v++) {
            const __m256i both = load(codes + v * LUT_VECTOR);
            const __m256i code = _mm256_and_si256(half ? _mm256_srli_epi16(both, 4) : both, nibble);
            if (keep) {
                store(parts + v * PART_BYTES, code);
                store(parts + v * PART_BYTES + LUT_VECTOR, sign[v]);
            }
            add_group(&s, v, lo0, hi0, code, sign[v]);
            sign[v] = _mm256_add_epi8(sign[v], sign[v]);
        }
        codes += TERN_T3_BLOCK;
        parts += keep ? VECTORS * PART_BYTES : 0;
    }
    fold_all(sums, &s);
}

// A further token, one half: codes and signs come from L1.
static inline __attribute__((always_inline)) void look_up_half(int16_t *restrict sums, const uint8_t *restrict parts,
                                                               const int8_t *restrict tables, size_t pairs) {
    plane_sums s;
    clear(&s);
    TERN_NO_UNROLL
    for (const int8_t *end = tables + pairs * TERN_T3_TABLE_BYTES; tables < end; tables += TERN_T3_TABLE_BYTES) {
        TERN_COST_LOOP("T3 split rows", TERN_T3_BLOCK, 1, TERN_T3_TRITS);
        const __m256i lo0 = load_plane(tables), hi0 = load_plane(tables + LUT_PLANE);
        TERN_UNROLL
        for (size_t v = 0; v < VECTORS; v++, parts += PART_BYTES) {
            __m256i code = load(parts), sign = load(parts + LUT_VECTOR);
            TERN_LOADED(code);
            TERN_LOADED(sign);
            add_group(&s, v, lo0, hi0, code, sign);
        }
    }
    fold_all(sums, &s);
}

static inline __attribute__((always_inline)) void one(int16_t *restrict sums, const uint8_t *restrict codes,
                                                      const int8_t *restrict tables, size_t ld_tables, size_t rows,
                                                      size_t width, size_t tokens) {
    (void)ld_tables, (void)width, (void)tokens;
    const size_t pairs = rows - TERN_T3_SIGN_ROWS;
    stream_half(sums, NULL, codes, tables, pairs, 0, 0);
    stream_half(sums, NULL, codes, tables, pairs, 1, 0);
}

static __attribute__((noinline)) void several(int16_t *restrict sums, const uint8_t *restrict codes,
                                              const int8_t *restrict tables, size_t ld_tables, size_t rows, size_t width,
                                              size_t tokens) {
    (void)width;
    _Alignas(64) uint8_t parts[HALVES * HALF_BYTES];
    const size_t pairs = rows - TERN_T3_SIGN_ROWS;
    stream_half(sums, parts, codes, tables, pairs, 0, 1);
    stream_half(sums, parts + HALF_BYTES, codes, tables, pairs, 1, 1);
    for (size_t t = 1; t < tokens; t++) {
        look_up_half(sums + t * LUT_SUMS, parts, tables + t * ld_tables, pairs);
        look_up_half(sums + t * LUT_SUMS, parts + HALF_BYTES, tables + t * ld_tables + GROUP_TABLE_BYTES, pairs);
    }
}

void tern_lut_gemm_t3_avx2(const tern_gemm_args *args) {
    const lut_shape shape = {.rows = tern_t3_rows(args->k),
                             .tile_rows = TERN_T3_TILE_ROWS,
                             .block = TERN_T3_BLOCK,
                             .tile_table_bytes = TERN_T3_TILE_PAIRS * TERN_T3_TABLE_BYTES,
                             .spill_tiles = SPILL_TILES};
    lut_slab(args, shape, one, several);
}
