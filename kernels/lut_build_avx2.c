// SPDX-License-Identifier: MIT
// Tables of partial dot products with AVX2: entries as sums of vpmaddubsw over biased activations, split into byte planes.
#include <immintrin.h>
#include <string.h>

#include "kernels.h"
#include "lut_patterns.h"

enum { CHUNK_ROWS = 64, STAGED_MAX = CHUNK_ROWS * TERN_B1_SIGNS + 1 }; // one more byte: T5 and T3 read pairs

static inline __m256i load(const void *p) { return _mm256_load_si256((const __m256i *)p); }
static inline void store(void *p, __m256i v) { _mm256_store_si256((__m256i *)p, v); }

// staged[j] = q[first + j] + 128 for j < n, zeros past k.
static void stage(uint8_t *restrict staged, const int8_t *restrict q, size_t k, size_t first, size_t n) {
    const size_t given = first < k ? (k - first < n ? k - first : n) : 0;
    memset(staged + given, TERN_X_ZERO, n - given);
    for (size_t j = 0; j < given; j++) staged[j] = (uint8_t)q[first + j] ^ TERN_X_ZERO;
}

// Every 16-bit lane holds the two activations at p.
static inline __m256i pair(const uint8_t *p) {
    int16_t both;
    memcpy(&both, p, sizeof both);
    return _mm256_set1_epi16(both);
}

// Lane i: dot product of five activations with entry i of a vector of 16 entries.
static inline __m256i t5_values(__m256i x01, __m256i x23, __m256i x4, size_t at) {
    const __m256i v01 = _mm256_maddubs_epi16(x01, load(tern_t5_pairs[0] + 2 * at));
    const __m256i v23 = _mm256_maddubs_epi16(x23, load(tern_t5_pairs[1] + 2 * at));
    const __m256i v4 = _mm256_maddubs_epi16(x4, load(tern_t5_pairs[2] + 2 * at));
    return _mm256_add_epi16(_mm256_add_epi16(v01, v23), _mm256_add_epi16(v4, load(tern_t5_offsets + at)));
}

// The planes of values: value = low + TERN_T5_STEP * high.
static inline __m256i t5_high(__m256i value) { return _mm256_mulhrs_epi16(value, _mm256_set1_epi16(TERN_T5_RECIPROCAL)); }
static inline __m256i t5_low(__m256i value, __m256i high) {
    return _mm256_sub_epi16(value, _mm256_mullo_epi16(high, _mm256_set1_epi16(TERN_T5_STEP)));
}

static void t5_table(int8_t *restrict table, const uint8_t *restrict x) {
    const __m256i x01 = pair(x), x23 = pair(x + 2), x4 = pair(x + 4);
    for (size_t i = 0; i < TERN_T5_PLANE; i += 32) {
        const size_t at = i / 64 * 64 + i % 64 / 2; // 32 entries: two octets at `at`, the two between them at `at` + 32
        const __m256i v0 = t5_values(x01, x23, x4, at), v1 = t5_values(x01, x23, x4, at + 32);
        const __m256i hi0 = t5_high(v0), hi1 = t5_high(v1);
        store(table + i, _mm256_packs_epi16(t5_low(v0, hi0), t5_low(v1, hi1)));
        store(table + TERN_T5_PLANE + i, _mm256_packs_epi16(hi0, hi1));
    }
}

void tern_lut_build_t5_avx2(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    uint8_t staged[STAGED_MAX];
    for (size_t r = row0; r < row1; r += CHUNK_ROWS) {
        const size_t n = row1 - r < CHUNK_ROWS ? row1 - r : CHUNK_ROWS;
        stage(staged, q, k, r * TERN_T5_TRITS, n * TERN_T5_TRITS + 1);
        for (size_t i = 0; i < n; i++) t5_table(tables + (r + i) * TERN_T5_TABLE_BYTES, staged + i * TERN_T5_TRITS);
    }
}

// Stores the two planes of 16 values. Lane e of v: value of entry e + half_step + hi_offset * step, never negative.
static inline void store_group(int8_t *restrict table, __m256i v, int step, int half_step, int hi_offset, int reciprocal) {
    const __m256i hi = _mm256_mulhi_epu16(v, _mm256_set1_epi16((int16_t)reciprocal));
    const __m256i lo = _mm256_sub_epi16(v, _mm256_mullo_epi16(hi, _mm256_set1_epi16((int16_t)step)));
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi16(lo, hi), _MM_SHUFFLE(3, 1, 2, 0)); // 16 lo, 16 hi
    const __m256i zero = _mm256_set_m128i(_mm_set1_epi8((char)hi_offset), _mm_set1_epi8((char)half_step));
    store(table, _mm256_sub_epi8(both, zero));
}

static inline void t2n_group(int8_t *restrict table, const uint8_t *restrict x) {
    const __m256i v = _mm256_add_epi16(_mm256_maddubs_epi16(pair(x), load(tern_t2n_pairs)), load(tern_t2n_offsets));
    store_group(table, v, TERN_T2N_STEP, TERN_T2N_HALF_STEP, TERN_T2N_HI_OFFSET, TERN_T2N_RECIPROCAL);
}

void tern_lut_build_t2n_avx2(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    uint8_t staged[STAGED_MAX];
    for (size_t r = row0; r < row1; r += CHUNK_ROWS) {
        const size_t n = row1 - r < CHUNK_ROWS ? row1 - r : CHUNK_ROWS;
        stage(staged, q, k, r * TERN_T2N_TRITS, n * TERN_T2N_TRITS);
        for (size_t i = 0; i < n; i++) {
            int8_t *table = tables + (r + i) * TERN_T2N_TABLE_BYTES;
            t2n_group(table, staged + i * TERN_T2N_TRITS);
            t2n_group(table + TERN_T2N_TABLE_BYTES / 2, staged + i * TERN_T2N_TRITS + 2);
        }
    }
}

static inline void t3_group(int8_t *restrict table, const uint8_t *restrict x) {
    const __m256i v01 = _mm256_maddubs_epi16(pair(x), load(tern_t3_pairs01));
    const __m256i v2 = _mm256_maddubs_epi16(pair(x + 2), load(tern_t3_pairs2));
    const __m256i v = _mm256_add_epi16(_mm256_add_epi16(v01, v2), load(tern_t3_offsets));
    store_group(table, v, TERN_T3_STEP, TERN_T3_HALF_STEP, TERN_T3_HI_OFFSET, TERN_T3_RECIPROCAL);
}

void tern_lut_build_t3_avx2(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    uint8_t staged[STAGED_MAX];
    for (size_t r = row0; r < row1; r += CHUNK_ROWS) {
        const size_t n = row1 - r < CHUNK_ROWS ? row1 - r : CHUNK_ROWS;
        stage(staged, q, k, r * TERN_T3_PAIR_K, n * TERN_T3_PAIR_K + 1);
        for (size_t i = 0; i < n; i++) {
            int8_t *table = tables + (r + i) * TERN_T3_TABLE_BYTES;
            t3_group(table, staged + i * TERN_T3_PAIR_K);
            t3_group(table + TERN_T3_TABLE_BYTES / 2, staged + i * TERN_T3_PAIR_K + TERN_T3_TRITS);
        }
    }
}

static inline void b1_group(int8_t *restrict table, const uint8_t *restrict x) {
    const __m256i v01 = _mm256_maddubs_epi16(pair(x), load(tern_b1_pairs01));
    const __m256i v23 = _mm256_maddubs_epi16(pair(x + 2), load(tern_b1_pairs23));
    const __m256i v = _mm256_add_epi16(_mm256_add_epi16(v01, v23), load(tern_b1_biases)); // lane e: -512..512
    const __m256i positive = _mm256_set1_epi16(TERN_T2N_HI_OFFSET * TERN_T2N_STEP + TERN_T2N_HALF_STEP);
    store_group(table, _mm256_add_epi16(_mm256_srai_epi16(v, 1), positive), TERN_T2N_STEP, TERN_T2N_HALF_STEP,
                TERN_T2N_HI_OFFSET, TERN_T2N_RECIPROCAL);
}

void tern_lut_build_b1_avx2(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    uint8_t staged[STAGED_MAX];
    for (size_t r = row0; r < row1; r += CHUNK_ROWS) {
        const size_t n = row1 - r < CHUNK_ROWS ? row1 - r : CHUNK_ROWS;
        stage(staged, q, k, r * TERN_B1_SIGNS, n * TERN_B1_SIGNS);
        for (size_t i = 0; i < n; i++) {
            int8_t *table = tables + (r + i) * TERN_B1_TABLE_BYTES;
            b1_group(table, staged + i * TERN_B1_SIGNS);
            b1_group(table + TERN_B1_TABLE_BYTES / 2, staged + i * TERN_B1_SIGNS + TERN_B1_SIGNS / 2);
        }
    }
}
