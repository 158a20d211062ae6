// SPDX-License-Identifier: MIT
// Packing by transposed strips: 16 rows become vectors of 16 features, in which every layout's byte is a sum of shifted trits.
#include "matmul/pack_ternary.h"

#include <emmintrin.h>
#include <string.h>

enum {
    STRIP = TERN_PACK_STRIP,
    BAND = 64,      // rows whose strips are packed together, so that a cache line of a slab is filled at once
    CHUNK = 80,     // k per step: whole vectors of 16 and whole groups of 16 (M2), 5 (T5) and 4 (T2N)
    CHUNK_MAX = 96, // k per step of T3: whole vectors of 16 and whole pairs of 6
    CHUNK_T3 = CHUNK_MAX / TERN_T3_PAIR_K,
    CHUNK_T5 = CHUNK / TERN_T5_TRITS,
    CHUNK_T2N = CHUNK / TERN_T2N_TRITS,
    CHUNK_B1 = CHUNK / TERN_B1_SIGNS,
    CHUNK_M2 = CHUNK / TERN_M2_GROUP_K
};

// Trits of one strip: cols[k][i] = row i.
typedef struct strip {
    _Alignas(16) int8_t cols[CHUNK_MAX][STRIP];
} strip;

static inline __m128i load16(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline void store16(void *p, __m128i v) { _mm_storeu_si128((__m128i *)p, v); }
static inline __m128i twice(__m128i v) { return _mm_add_epi8(v, v); }
static inline __m128i thrice(__m128i v) { return _mm_add_epi8(v, twice(v)); }

// 16 x 16 bytes: four rounds that interleave vector i with vector i + 8.
static void transpose16(int8_t (*restrict out)[STRIP], const int8_t *restrict in, size_t ld) {
    __m128i a[STRIP], b[STRIP];
    for (size_t i = 0; i < STRIP; i++) a[i] = load16(in + i * ld);
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < STRIP / 2; i++) {
            b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + STRIP / 2]);
            b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + STRIP / 2]);
        }
        memcpy(a, b, sizeof a);
    }
    for (size_t i = 0; i < STRIP; i++) store16(out[i], a[i]);
}

// Loads n_rows <= STRIP rows of n_k <= `chunk` trits; what is missing up to `chunk`, a multiple of 16, is zero.
static void load_strip(strip *restrict s, size_t chunk, const int8_t *restrict trits, size_t ldt, size_t n_rows, size_t n_k) {
    for (size_t k = 0; k < chunk; k += STRIP) {
        if (n_rows == STRIP && k + STRIP <= n_k) {
            transpose16(&s->cols[k], trits + k, ldt);
            continue;
        }
        int8_t padded[STRIP][STRIP] = {{0}};
        const size_t width = k < n_k ? (n_k - k < STRIP ? n_k - k : STRIP) : 0;
        if (width)
            for (size_t i = 0; i < n_rows; i++) memcpy(padded[i], trits + i * ldt + k, width);
        transpose16(&s->cols[k], padded[0], STRIP);
    }
}

// 16 T5 codes of the five columns at c.
static inline __m128i encode_t5(const int8_t (*c)[STRIP]) {
    __m128i v = load16(c[4]); // Horner: |v| <= 121 after the last step
    for (int j = 3; j >= 0; j--) v = _mm_add_epi8(thrice(v), load16(c[j]));
    const __m128i negative = _mm_cmpgt_epi8(_mm_setzero_si128(), v); // 0xFF where it is
    const __m128i magnitude = _mm_sub_epi8(_mm_xor_si128(v, negative), negative);
    return _mm_or_si128(magnitude, _mm_and_si128(negative, _mm_set1_epi8((char)TERN_T5_SIGN)));
}

// 16 T3 groups of the three columns at c: |v|, and 0xFF in *negative where v < 0.
static inline __m128i encode_t3(const int8_t (*c)[STRIP], __m128i *negative) {
    const __m128i v = _mm_add_epi8(load16(c[0]), thrice(_mm_add_epi8(load16(c[1]), thrice(load16(c[2])))));
    *negative = _mm_cmpgt_epi8(_mm_setzero_si128(), v);
    return _mm_sub_epi8(_mm_xor_si128(v, *negative), *negative);
}

// 16 T2N codes: 0x44 + t0 + 3 t1 + 16 (t2 + 3 t3), each nibble 0..8.
static inline __m128i encode_t2n(const int8_t (*c)[STRIP]) {
    const __m128i low = _mm_add_epi8(load16(c[0]), thrice(load16(c[1])));
    const __m128i high = _mm_add_epi8(load16(c[2]), thrice(load16(c[3])));
    const __m128i high16 = twice(twice(twice(twice(high))));
    return _mm_add_epi8(_mm_set1_epi8(TERN_T2N_ZERO), _mm_add_epi8(low, high16));
}

// One M2 group: 64 bytes from 16 columns.
static inline void encode_m2(uint8_t *restrict out, const int8_t (*c)[STRIP]) {
    __m128i b[4]; // b[j]: byte f = 0x55 + t[j] + 4 t[4 + j] + 16 t[8 + j] + 64 t[12 + j] of feature f
    for (int j = 0; j < 4; j++) {
        __m128i v = load16(c[12 + j]);
        for (int p = 2; p >= 0; p--) v = _mm_add_epi8(twice(twice(v)), load16(c[4 * p + j]));
        b[j] = _mm_add_epi8(_mm_set1_epi8(TERN_M2_ZERO), v);
    }
    const __m128i b01l = _mm_unpacklo_epi8(b[0], b[1]), b01h = _mm_unpackhi_epi8(b[0], b[1]);
    const __m128i b23l = _mm_unpacklo_epi8(b[2], b[3]), b23h = _mm_unpackhi_epi8(b[2], b[3]);
    store16(out, _mm_unpacklo_epi16(b01l, b23l));
    store16(out + 16, _mm_unpackhi_epi16(b01l, b23l));
    store16(out + 32, _mm_unpacklo_epi16(b01h, b23h));
    store16(out + 48, _mm_unpackhi_epi16(b01h, b23h));
}

static void pack_t5(uint8_t *slab, const strip *s, size_t n_padded, size_t row, size_t g0, size_t rows) {
    for (size_t g = 0; g < CHUNK_T5 && g0 + g < rows; g++)
        store16(slab + tern_slab_offset(n_padded, rows, TERN_T5_TILE_ROWS, TERN_T5_BLOCK, g0 + g, row),
                encode_t5(&s->cols[g * TERN_T5_TRITS]));
}

static void pack_t2n(uint8_t *slab, const strip *s, size_t n_padded, size_t row, size_t b0, size_t rows) {
    for (size_t b = 0; b < CHUNK_T2N && b0 + b < rows; b++)
        store16(slab + tern_slab_offset(n_padded, rows, TERN_T2N_TILE_ROWS, TERN_T2N_BLOCK, b0 + b, row),
                encode_t2n(&s->cols[b * TERN_T2N_TRITS]));
}

// 16 bytes of B1 of the eight columns at c: bit j = column j is positive.
static inline __m128i encode_b1(const int8_t (*c)[STRIP]) {
    __m128i v = _mm_setzero_si128();
    for (int j = TERN_B1_SIGNS - 1; j >= 0; j--) v = _mm_sub_epi8(twice(v), _mm_cmpgt_epi8(load16(c[j]), _mm_setzero_si128()));
    return v;
}

static void pack_b1(uint8_t *slab, const strip *s, size_t n_padded, size_t row, size_t b0, size_t rows) {
    for (size_t b = 0; b < CHUNK_B1 && b0 + b < rows; b++)
        store16(slab + tern_slab_offset(n_padded, rows, TERN_T2N_TILE_ROWS, TERN_T2N_BLOCK, b0 + b, row),
                encode_b1(&s->cols[b * TERN_B1_SIGNS]));
}

// Adds bit `bit` of T3's row of signs where negative; the first bit of a K-tile starts the row.
static inline void add_signs(uint8_t *signs, __m128i negative, uint8_t bit) {
    const __m128i others = bit == TERN_T3_SIGN ? _mm_set1_epi8(TERN_T3_POSITIVE) : load16(signs);
    store16(signs, _mm_or_si128(others, _mm_and_si128(negative, _mm_set1_epi8((char)bit))));
}

static void pack_t3(uint8_t *slab, const strip *s, size_t n_padded, size_t row, size_t p0, size_t k) {
    const size_t rows = tern_t3_rows(k), pairs = tern_t3_pairs(k);
    for (size_t p = 0; p < CHUNK_T3 && p0 + p < pairs; p++) {
        const size_t tile_row = (p0 + p) / TERN_T3_TILE_PAIRS * TERN_T3_TILE_ROWS, in_tile = (p0 + p) % TERN_T3_TILE_PAIRS;
        uint8_t *at[TERN_T3_SIGN_ROWS + 1]; // signs of even groups, of odd groups, and this pair
        for (size_t i = 0; i <= TERN_T3_SIGN_ROWS; i++)
            at[i] = slab + tern_slab_offset(n_padded, rows, TERN_T3_TILE_ROWS, TERN_T3_BLOCK,
                                            tile_row + i + (i == TERN_T3_SIGN_ROWS ? in_tile : 0), row);
        __m128i negative[2];
        const __m128i even = encode_t3(&s->cols[p * TERN_T3_PAIR_K], &negative[0]);
        const __m128i odd = encode_t3(&s->cols[p * TERN_T3_PAIR_K + TERN_T3_TRITS], &negative[1]);
        for (size_t i = 0; i < TERN_T3_SIGN_ROWS; i++) add_signs(at[i], negative[i], (uint8_t)(TERN_T3_SIGN >> in_tile));
        store16(at[TERN_T3_SIGN_ROWS], _mm_add_epi8(even, twice(twice(twice(twice(odd))))));
    }
}

static void pack_m2(uint8_t *unit, const strip *s, size_t row, size_t g0, size_t groups) {
    uint8_t *panel = unit + row / TERN_M2_PANEL * groups * TERN_M2_GROUP_BYTES;
    for (size_t g = 0; g < CHUNK_M2 && g0 + g < groups; g++)
        encode_m2(panel + (g0 + g) * TERN_M2_GROUP_BYTES, &s->cols[g * TERN_M2_GROUP_K]);
}

void tern_pack_ternary(tern_layout layout, uint8_t *restrict unit, const int8_t *restrict trits, size_t ldt, size_t n_padded,
                       size_t first_row, size_t n_rows, size_t n_written, size_t k) {
    const size_t chunk = layout == TERN_LAYOUT_T3 ? CHUNK_MAX : CHUNK;
    for (size_t band = 0; band < n_written; band += BAND) {
        const size_t band_rows = n_written - band < BAND ? n_written - band : BAND;
        for (size_t step = 0; step * chunk < k; step++) {
            const size_t n_k = k - step * chunk < chunk ? k - step * chunk : chunk;
            for (size_t i = 0; i < band_rows; i += STRIP) {
                const size_t at = band + i, row = first_row + at;
                const size_t given = at < n_rows ? (n_rows - at < STRIP ? n_rows - at : STRIP) : 0;
                strip s;
                load_strip(&s, chunk, given ? trits + at * ldt + step * chunk : NULL, ldt, given, n_k);
                if (layout == TERN_LAYOUT_T5)
                    pack_t5(unit, &s, n_padded, row, step * CHUNK_T5, tern_t5_rows(k));
                else if (layout == TERN_LAYOUT_T2N)
                    pack_t2n(unit, &s, n_padded, row, step * CHUNK_T2N, tern_t2n_rows(k));
                else if (layout == TERN_LAYOUT_B1)
                    pack_b1(unit, &s, n_padded, row, step * CHUNK_B1, tern_b1_rows(k));
                else if (layout == TERN_LAYOUT_T3)
                    pack_t3(unit, &s, n_padded, row, step * CHUNK_T3, k);
                else
                    pack_m2(unit, &s, row, step * CHUNK_M2, tern_m2_groups(k));
            }
        }
    }
}

// ---- unpack -------------------------------------------------------------------------------------------------

// v = sum_j t_j * 3^j for n trits: adding (3^n - 1) / 2 gives digits 0..2 in base 3.
static void decode_base3(int8_t *restrict t, size_t n, int value_plus_half) {
    for (size_t j = 0; j < n; j++) {
        t[j] = (int8_t)(value_plus_half % 3 - 1);
        value_plus_half /= 3;
    }
}

static void unpack_t5(int8_t *restrict trits, const uint8_t *slab, size_t n_padded, size_t row, size_t k) {
    const size_t rows = tern_t5_rows(k);
    for (size_t g = 0; g < rows; g++) {
        const uint8_t code = slab[tern_slab_offset(n_padded, rows, TERN_T5_TILE_ROWS, TERN_T5_BLOCK, g, row)];
        const int magnitude = code & (TERN_T5_SIGN - 1);
        int8_t t[TERN_T5_TRITS];
        decode_base3(t, TERN_T5_TRITS, (code & TERN_T5_SIGN ? -magnitude : magnitude) + TERN_T5_ENTRIES - 1);
        for (size_t j = 0; j < TERN_T5_TRITS && g * TERN_T5_TRITS + j < k; j++) trits[g * TERN_T5_TRITS + j] = t[j];
    }
}

static void unpack_t2n(int8_t *restrict trits, const uint8_t *slab, size_t n_padded, size_t row, size_t k) {
    const size_t rows = tern_t2n_rows(k);
    for (size_t b = 0; b < rows; b++) {
        const uint8_t code = slab[tern_slab_offset(n_padded, rows, TERN_T2N_TILE_ROWS, TERN_T2N_BLOCK, b, row)];
        int8_t t[TERN_T2N_TRITS];
        decode_base3(t, 2, code & 15);
        decode_base3(t + 2, 2, code >> 4);
        for (size_t j = 0; j < TERN_T2N_TRITS && b * TERN_T2N_TRITS + j < k; j++) trits[b * TERN_T2N_TRITS + j] = t[j];
    }
}

static void unpack_b1(int8_t *restrict signs, const uint8_t *slab, size_t n_padded, size_t row, size_t k) {
    const size_t rows = tern_b1_rows(k);
    for (size_t i = 0; i < k; i++) {
        const size_t at = tern_slab_offset(n_padded, rows, TERN_T2N_TILE_ROWS, TERN_T2N_BLOCK, i / TERN_B1_SIGNS, row);
        signs[i] = slab[at] >> i % TERN_B1_SIGNS & 1 ? 1 : -1;
    }
}

static void unpack_t3(int8_t *restrict trits, const uint8_t *slab, size_t n_padded, size_t row, size_t k) {
    enum { HALF = TERN_T3_ENTRIES - 1 }; // v + 13 has digits 0..2 in base 3
    const size_t rows = tern_t3_rows(k), groups = tern_ceil_div(k, TERN_T3_TRITS);
    for (size_t g = 0; g < groups; g++) {
        const size_t tile_row = g / 2 / TERN_T3_TILE_PAIRS * TERN_T3_TILE_ROWS, in_tile = g / 2 % TERN_T3_TILE_PAIRS;
        const uint8_t signs = slab[tern_slab_offset(n_padded, rows, TERN_T3_TILE_ROWS, TERN_T3_BLOCK, tile_row + g % 2, row)];
        const uint8_t pair = slab[tern_slab_offset(n_padded, rows, TERN_T3_TILE_ROWS, TERN_T3_BLOCK,
                                                   tile_row + TERN_T3_SIGN_ROWS + in_tile, row)];
        const int magnitude = g % 2 ? pair >> 4 : pair & 15;
        int8_t t[TERN_T3_TRITS];
        decode_base3(t, TERN_T3_TRITS, (signs << in_tile & TERN_T3_SIGN ? -magnitude : magnitude) + HALF);
        for (size_t j = 0; j < TERN_T3_TRITS && g * TERN_T3_TRITS + j < k; j++) trits[g * TERN_T3_TRITS + j] = t[j];
    }
}

static void unpack_m2(int8_t *restrict trits, const uint8_t *unit, size_t row, size_t k) {
    const uint8_t *panel = unit + row / TERN_M2_PANEL * tern_m2_groups(k) * TERN_M2_GROUP_BYTES;
    for (size_t i = 0; i < k; i++) {
        const size_t in_group = i % TERN_M2_GROUP_K, shift = 2 * (in_group / 4);
        const uint8_t byte = panel[i / TERN_M2_GROUP_K * TERN_M2_GROUP_BYTES + 4 * (row % TERN_M2_PANEL) + in_group % 4];
        trits[i] = (int8_t)((byte >> shift & 3) - 1);
    }
}

void tern_unpack_ternary(tern_layout layout, int8_t *restrict trits, size_t ldt, const uint8_t *restrict unit, size_t n_padded,
                         size_t first_row, size_t n_rows, size_t k) {
    for (size_t i = 0; i < n_rows; i++) {
        int8_t *out = trits + i * ldt;
        if (layout == TERN_LAYOUT_T5)
            unpack_t5(out, unit, n_padded, first_row + i, k);
        else if (layout == TERN_LAYOUT_T2N)
            unpack_t2n(out, unit, n_padded, first_row + i, k);
        else if (layout == TERN_LAYOUT_B1)
            unpack_b1(out, unit, n_padded, first_row + i, k);
        else if (layout == TERN_LAYOUT_T3)
            unpack_t3(out, unit, n_padded, first_row + i, k);
        else
            unpack_m2(out, unit, first_row + i, k);
    }
}
