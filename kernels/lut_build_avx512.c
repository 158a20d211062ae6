// SPDX-License-Identifier: MIT
// Tables of partial dot products with AVX-512 BW: entries as sums of vpmaddubsw over biased activations, split into byte
// planes.
#include <immintrin.h>
#include <string.h>

#include "kernels.h"
#include "lut_patterns.h"

enum { CHUNK_ROWS = 64, STAGED_MAX = CHUNK_ROWS * TERN_T5_TRITS + 1, LANES = 32, VECTOR = 64 }; // one more byte: T5 reads pairs

static inline __m512i load(const void *p) { return _mm512_load_si512(p); }

// staged[j] = q[first + j] + 128 for j < n, zeros past k.
static void stage(uint8_t *restrict staged, const int8_t *restrict q, size_t k, size_t first, size_t n) {
    const size_t given = first < k ? (k - first < n ? k - first : n) : 0;
    memset(staged + given, TERN_X_ZERO, n - given);
    for (size_t j = 0; j < given; j++) staged[j] = (uint8_t)q[first + j] ^ TERN_X_ZERO;
}

// Every 16-bit lane holds the two activations at p.
static inline __m512i pair(const uint8_t *p) {
    int16_t both;
    memcpy(&both, p, sizeof both);
    return _mm512_set1_epi16(both);
}

// Lane i: dot product of five activations with entry i of a vector of 32 entries.
static inline __m512i t5_values(__m512i x01, __m512i x23, __m512i x4, size_t at) {
    const __m512i v01 = _mm512_maddubs_epi16(x01, load(tern_t5_pairs[0] + 2 * at));
    const __m512i v23 = _mm512_maddubs_epi16(x23, load(tern_t5_pairs[1] + 2 * at));
    const __m512i v4 = _mm512_maddubs_epi16(x4, load(tern_t5_pairs[2] + 2 * at));
    return _mm512_add_epi16(_mm512_add_epi16(v01, v23), _mm512_add_epi16(v4, load(tern_t5_offsets + at)));
}

// The planes of values: value = low + TERN_T5_STEP * high.
static inline __m512i t5_high(__m512i value) { return _mm512_mulhrs_epi16(value, _mm512_set1_epi16(TERN_T5_RECIPROCAL)); }
static inline __m512i t5_low(__m512i value, __m512i high) {
    return _mm512_sub_epi16(value, _mm512_mullo_epi16(high, _mm512_set1_epi16(TERN_T5_STEP)));
}

static inline void t5_table(int8_t *restrict table, const uint8_t *restrict x) {
    const __m512i x01 = pair(x), x23 = pair(x + 2), x4 = pair(x + 4);
    for (size_t i = 0; i < TERN_T5_PLANE; i += VECTOR) {
        const __m512i v0 = t5_values(x01, x23, x4, i), v1 = t5_values(x01, x23, x4, i + LANES);
        const __m512i hi0 = t5_high(v0), hi1 = t5_high(v1);
        _mm512_store_si512(table + i, _mm512_packs_epi16(t5_low(v0, hi0), t5_low(v1, hi1)));
        _mm512_store_si512(table + TERN_T5_PLANE + i, _mm512_packs_epi16(hi0, hi1));
    }
}

void tern_lut_build_t5_avx512(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    uint8_t staged[STAGED_MAX];
    for (size_t r = row0; r < row1; r += CHUNK_ROWS) {
        const size_t n = row1 - r < CHUNK_ROWS ? row1 - r : CHUNK_ROWS;
        stage(staged, q, k, r * TERN_T5_TRITS, n * TERN_T5_TRITS + 1);
        for (size_t i = 0; i < n; i++) t5_table(tables + (r + i) * TERN_T5_TABLE_BYTES, staged + i * TERN_T5_TRITS);
    }
}

// Both groups of a byte row at once: the low 256 bits belong to the low nibble.
static inline void t2n_table(int8_t *restrict table, const uint8_t *restrict x) {
    const __m512i x01_x23 = _mm512_inserti64x4(pair(x), _mm512_castsi512_si256(pair(x + 2)), 1);
    // lane e: value of entry e plus half a step plus 11 steps, 20..532
    const __m512i v = _mm512_add_epi16(_mm512_maddubs_epi16(x01_x23, load(tern_t2n_pairs)), load(tern_t2n_offsets));
    const __m512i hi = _mm512_mulhi_epu16(v, _mm512_set1_epi16(TERN_T2N_RECIPROCAL));
    const __m512i lo = _mm512_sub_epi16(v, _mm512_mullo_epi16(hi, _mm512_set1_epi16(TERN_T2N_STEP)));
    const __m512i both = _mm512_permutex_epi64(_mm512_packs_epi16(lo, hi), _MM_SHUFFLE(3, 1, 2, 0)); // 16 lo, 16 hi per group
    const __m512i zero =
        _mm512_mask_blend_epi64(0xCC, _mm512_set1_epi8(TERN_T2N_HALF_STEP), _mm512_set1_epi8(TERN_T2N_HI_OFFSET));
    _mm512_store_si512(table, _mm512_sub_epi8(both, zero));
}

void tern_lut_build_t2n_avx512(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    uint8_t staged[STAGED_MAX];
    for (size_t r = row0; r < row1; r += CHUNK_ROWS) {
        const size_t n = row1 - r < CHUNK_ROWS ? row1 - r : CHUNK_ROWS;
        stage(staged, q, k, r * TERN_T2N_TRITS, n * TERN_T2N_TRITS);
        for (size_t i = 0; i < n; i++) t2n_table(tables + (r + i) * TERN_T2N_TABLE_BYTES, staged + i * TERN_T2N_TRITS);
    }
}
