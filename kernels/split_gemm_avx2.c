// SPDX-License-Identifier: MIT
// Whole products of the layout I8S32 for AVX2: eight features at a time, which may stand anywhere.
#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#include "compiler.h"
#include "sum8_avx2.h"

enum { ROWS = 8, BLOCKS = TERN_I8S_SUPER_K / TERN_I8S_BLOCK, NIBBLE = 16 };

typedef struct rows8 {
    const uint8_t *scales[ROWS], *high[ROWS], *low[ROWS];
} rows8;

static void find_row(rows8 *rows, size_t r, const uint8_t *packed, size_t i, size_t k) {
    rows->scales[r] = packed + tern_i8s_upper_at(i, k);
    rows->high[r] = rows->scales[r] + tern_i8s_supers(k) * TERN_I8S_SCALES;
    rows->low[r] = packed + tern_i8s_lower_at(i, k);
}

// Sums of 4 products each of 32 codes u = 16 high + low, of a byte each, with x. |sum| <= 4 * 255 * 128
static inline __m256i dot32(__m256i high, __m256i low, const int8_t *x) {
    const __m256i vx = _mm256_load_si256((const __m256i *)x);
    const __m256i upper = _mm256_madd_epi16(_mm256_maddubs_epi16(high, vx), _mm256_set1_epi16(NIBBLE)); // |pair| <= 3840
    return _mm256_add_epi32(upper, _mm256_madd_epi16(_mm256_maddubs_epi16(low, vx), _mm256_set1_epi16(1)));
}

// y + (float)(sum - 128 * X) * (dw * da)
static inline __m256 add_term(__m256 y, __m256i sum, int32_t x_sum, __m256i halves, float da) {
    const __m256i exact = _mm256_sub_epi32(sum, _mm256_set1_epi32(TERN_I8S_ZERO * x_sum));
    // halves: lane r = float16 of row r
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(halves, halves), 0x08);
    const __m256 dw = _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
    return _mm256_add_ps(y, _mm256_mul_ps(_mm256_cvtepi32_ps(exact), _mm256_mul_ps(dw, _mm256_set1_ps(da))));
}

static inline void fetch(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

// next: rows that will be asked for after these; fetched meanwhile.
static __m256 product8(const rows8 *rows, const rows8 *next, size_t supers, const int8_t *x, const float *x_scales,
                       const int32_t *x_sums) {
    const __m256i low_nibbles = _mm256_set1_epi8(15);
    __m256 y = _mm256_setzero_ps();
    for (size_t s = 0; s < supers; s++, x += TERN_I8S_SUPER_K, x_scales += BLOCKS, x_sums += BLOCKS) {
        TERN_COST_LOOP("rows of nibbles", ROWS, 1, TERN_I8S_SUPER_K);
        int32_t scales[ROWS];
        __m256i first[ROWS], second[ROWS]; // blocks of the super
        TERN_UNROLL
        for (size_t r = 0; r < ROWS; r++) {
            fetch(next->high[r] + s * TERN_I8S_CODES);
            fetch(next->low[r] + s * TERN_I8S_CODES);
            memcpy(&scales[r], rows->scales[r] + s * TERN_I8S_SCALES, sizeof scales[r]);
            const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(rows->high[r] + s * TERN_I8S_CODES));
            const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(rows->low[r] + s * TERN_I8S_CODES));
            first[r] = dot32(_mm256_and_si256(high, low_nibbles), _mm256_and_si256(low, low_nibbles), x);
            second[r] = dot32(_mm256_and_si256(_mm256_srli_epi16(high, 4), low_nibbles),
                              _mm256_and_si256(_mm256_srli_epi16(low, 4), low_nibbles), x + TERN_I8S_BLOCK);
        }
        enum { HALF_BITS = 16, HALF_MASK = 0xffff };
        const __m256i both = _mm256_setr_epi32(scales[0], scales[1], scales[2], scales[3], scales[4], scales[5], scales[6],
                                               scales[7]); // never through memory: eight stores forward to no load
        y = add_term(y, sum8_epi32(first), x_sums[0], _mm256_and_si256(both, _mm256_set1_epi32(HALF_MASK)), x_scales[0]);
        y = add_term(y, sum8_epi32(second), x_sums[1], _mm256_srli_epi32(both, HALF_BITS), x_scales[1]);
    }
    return y;
}

void tern_split_gemm_b32_avx2(const tern_gemm_b32_args *args) {
    const size_t supers = tern_i8s_supers(args->k);
    rows8 rows, next;
    for (size_t r = 0; r < ROWS; r++) find_row(&next, r, args->packed, r, args->k);
    for (size_t i = 0; i < args->n; i += ROWS) {
        rows = next;
        for (size_t r = 0; r < ROWS && i + ROWS < args->n; r++) {
            find_row(&next, r, args->packed, i + ROWS + r, args->k);
            fetch(next.scales[r]);
        }
        for (size_t t = 0; t < args->m; t++) {
            const __m256 y = product8(&rows, &next, supers, args->x + t * args->ldx, args->x_scales + t * args->ld_x_blocks,
                                      args->x_sums + t * args->ld_x_blocks);
            _mm256_store_ps(args->y + t * args->ld_y + i, y);
        }
    }
}

// Rows i .. i + 7 of those asked for; behind the last one that one again.
static void find_rows(rows8 *rows, const tern_screen_rows_args *args, size_t i) {
    for (size_t r = 0; r < ROWS; r++) {
        find_row(rows, r, args->packed, args->rows[i + r < args->n ? i + r : args->n - 1], args->k);
        fetch(rows->scales[r]);
    }
}

void tern_screen_rows_avx2(const tern_screen_rows_args *args) {
    rows8 rows, next;
    find_rows(&next, args, 0);
    for (size_t i = 0; i < args->n; i += ROWS) {
        rows = next;
        find_rows(&next, args, i + ROWS);
        __attribute__((aligned(32))) float y[ROWS];
        _mm256_store_ps(y, product8(&rows, &next, tern_i8s_supers(args->k), args->x, args->x_scales, args->x_sums));
        const size_t kept = args->n - i < ROWS ? args->n - i : ROWS;
        memcpy(args->y + i, y, kept * sizeof *y);
    }
}
