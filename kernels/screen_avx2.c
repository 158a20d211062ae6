// SPDX-License-Identifier: MIT
// Half products of a screened head for AVX2: a row at a time, lane l for its blocks l, l + 8, ...
#include "kernels.h"

#include <immintrin.h>

#include "compiler.h"
#include "sum8_avx2.h"

enum {
    LANES = 8,
    BLOCKS = TERN_I8S_SUPER_K / TERN_I8S_BLOCK,
    TURN_SUPERS = LANES / BLOCKS, // whose scales fill a vector
    FETCH_ROWS = 16,              // ahead; the last ones of a panel fetch the next panel's first
    LINE_BYTES = 64
};

#define ROW_INLINE static inline __attribute__((always_inline))

// The products of a super's two blocks with x: words of block 0 in the lanes of 32 bits 0, 2, .., of block 1 in 1, 3, ..
// |word| <= 4 * 15 * 128 = 7680
ROW_INLINE __m256i super_words(const uint8_t *codes, const int8_t *x) {
    const __m256i low_nibbles = _mm256_set1_epi8(15);
    const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)codes);
    const __m256i a = _mm256_maddubs_epi16(_mm256_and_si256(both, low_nibbles), _mm256_load_si256((const __m256i *)x));
    const __m256i b = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(both, 4), low_nibbles),
                                           _mm256_load_si256((const __m256i *)(x + TERN_I8S_BLOCK)));
    return _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}

// Of two supers, to lanes of blocks 0, 1, 2, 3, 0, 1, 2, 3. |word| <= 15360
ROW_INLINE __m256i pair_words(__m256i a, __m256i b) {
    return _mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

// Of four: lane l is the sum of block l. |word| <= 30720
ROW_INLINE __m256 turn_sums(__m256i a, __m256i b) {
    const __m256i words = _mm256_add_epi16(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(words, _mm256_set1_epi16(1)));
}

// y + (sums + z) * (dw * da)
ROW_INLINE __m256 add_turn(__m256 y, __m256 sums, __m128i halves, const float *da, const float *shifts) {
    const __m256 scales = _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_loadu_ps(da));
    return _mm256_add_ps(y, _mm256_mul_ps(_mm256_add_ps(sums, _mm256_loadu_ps(shifts)), scales));
}

// The lanes of a half product.
ROW_INLINE __m256 half_product(const uint8_t *scales, const uint8_t *codes, const tern_half_token *token, size_t supers) {
    enum { NEXT = TERN_I8S_CODES, NEXT_X = TERN_I8S_SUPER_K };
    const int8_t *x = token->x;
    const float *da = token->scales, *shifts = token->shifts;
    __m256 y = _mm256_setzero_ps();
    for (; supers >= TURN_SUPERS; supers -= TURN_SUPERS) {
        const __m256i a = pair_words(super_words(codes, x), super_words(codes + NEXT, x + NEXT_X));
        const __m256i b =
            pair_words(super_words(codes + 2 * NEXT, x + 2 * NEXT_X), super_words(codes + 3 * NEXT, x + 3 * NEXT_X));
        y = add_turn(y, turn_sums(a, b), _mm_loadu_si128((const __m128i *)(const void *)scales), da, shifts);
        scales += TURN_SUPERS * TERN_I8S_SCALES, codes += TURN_SUPERS * NEXT, x += TURN_SUPERS * NEXT_X;
        da += LANES, shifts += LANES;
    }
    if (supers == 0) return y;
    const __m256i zero = _mm256_setzero_si256();
    const __m256i a = pair_words(super_words(codes, x), supers > 1 ? super_words(codes + NEXT, x + NEXT_X) : zero);
    const __m256i b = supers > 2 ? pair_words(super_words(codes + 2 * NEXT, x + 2 * NEXT_X), zero) : zero;
    const __m128i there = _mm_cmpgt_epi32(_mm_set1_epi32((int)supers), _mm_setr_epi32(0, 1, 2, 3));
    return add_turn(y, turn_sums(a, b), _mm_maskload_epi32((const int *)(const void *)scales, there), da, shifts);
}

// float32 of the upper halves at p
ROW_INLINE __m256 widen(const uint8_t *p) {
    enum { UPPER = 16 };
    const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, UPPER));
}

// Where feature i of the tile lies, as if panels had no lower rows behind them: at the end, the next panel's first.
static const uint8_t *upper_row(const tern_screen_args *args, size_t i) { return args->packed + tern_i8s_upper_at(i, args->k); }

ROW_INLINE void fetch_row(const uint8_t *row, size_t bytes) {
    for (size_t at = 0; at < bytes; at += LINE_BYTES) _mm_prefetch((const char *)(row + at), _MM_HINT_T0);
}

void tern_screen_avx2(const tern_screen_args *args) {
    const size_t supers = tern_i8s_supers(args->k), row_bytes = tern_i8s_upper_bytes(args->k);
    const __m256i along = _mm256_loadu_si256((const __m256i *)(const void *)args->along);
    for (size_t i = 0; i < args->n; i += TERN_SCREEN_GROUP) {
        const uint8_t *marks = args->marks + i / TERN_SCREEN_GROUP * TERN_SCREEN_GROUP_BYTES;
        const uint8_t *row = upper_row(args, i), *ahead = upper_row(args, i + FETCH_ROWS);
        __attribute__((aligned(32))) float steps[TERN_SCREEN_GROUP];
        const __m256 step = widen(marks + TERN_SCREEN_STEPS);
        _mm256_store_ps(steps, _mm256_mul_ps(step, _mm256_set1_ps(args->along_scale)));
        __m256 lanes[TERN_SCREEN_GROUP];
        for (size_t r = 0; r < TERN_SCREEN_GROUP; r++, row += row_bytes, ahead += row_bytes) {
            fetch_row(ahead, row_bytes);
            const __m256 half = half_product(row, row + supers * TERN_I8S_SCALES, &args->token, supers);
            const __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)(marks + r * TERN_SCREEN_DIRECTIONS));
            const __m256i rest = _mm256_madd_epi16(_mm256_cvtepi8_epi16(codes), along); // |sum of 2| < 2^23: exact as float
            lanes[r] = _mm256_add_ps(half, _mm256_mul_ps(_mm256_cvtepi32_ps(rest), _mm256_broadcast_ss(steps + r)));
        }
        const __m256 spread = _mm256_add_ps(_mm256_mul_ps(step, _mm256_set1_ps(args->spread)), _mm256_set1_ps(args->least));
        const __m256 bound = _mm256_add_ps(_mm256_mul_ps(widen(marks + TERN_SCREEN_NORMS), _mm256_set1_ps(args->rest)), spread);
        const __m256 middle = sum8_ps(lanes);
        _mm256_storeu_ps(args->middle + i, middle);
        _mm256_storeu_ps(args->upper + i, _mm256_add_ps(middle, bound));
    }
}

void tern_screen_project_avx2(const tern_screen_project_args *args) {
    const size_t supers = tern_i8s_supers(args->k);
    for (size_t i = 0; i < args->n; i++) {
        const uint8_t *scales = args->packed + tern_i8s_upper_at(i, args->k);
        const uint8_t *codes = args->packed + tern_i8s_lower_at(i, args->k);
        for (size_t d0 = 0; d0 < TERN_SCREEN_DIRECTIONS; d0 += LANES) {
            __m256 lanes[LANES];
            for (size_t d = 0; d < LANES; d++) lanes[d] = half_product(scales, codes, &args->directions[d0 + d], supers);
            _mm256_storeu_ps(args->y + i * TERN_SCREEN_DIRECTIONS + d0, sum8_ps(lanes));
        }
    }
}
