// SPDX-License-Identifier: MIT
// Half products of a screened head for AVX2: a row at a time, its blocks' sums in eight lanes.
#include "kernels.h"

#include <immintrin.h>

#include "compiler.h"
#include "sum8_avx2.h"

enum {
    LANES = 8,
    BLOCKS = TERN_I8S_SUPER_K / TERN_I8S_BLOCK,
    TURN_SUPERS = LANES / BLOCKS, // whose scales fill a vector
    FETCH_ROWS = 8,               // ahead; the last ones of a panel fetch the next panel's first
    LINE_BYTES = 64
};

#define ROW_INLINE static inline __attribute__((always_inline))

// Products of 32 nibbles (of a byte each) with x: lane l = sum over k = 4 l .. 4 l + 3, as float. |sum| <= 4 * 15 * 128
ROW_INLINE __m256 dot32(__m256i nibbles, const int8_t *x) {
    const __m256i pairs = _mm256_maddubs_epi16(nibbles, _mm256_load_si256((const __m256i *)x)); // |sum of 2| <= 3840
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// The scales of a turn's blocks; those behind the row's last super are 0.
ROW_INLINE __m256 turn_scales(const uint8_t *scales, size_t supers) {
    __m128i halves;
    if (supers >= TURN_SUPERS) {
        halves = _mm_loadu_si128((const __m128i *)(const void *)scales);
    } else {
        const __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32((int)supers), _mm_setr_epi32(0, 1, 2, 3));
        halves = _mm_maskload_epi32((const int *)(const void *)scales, mask);
    }
    return _mm256_cvtph_ps(halves);
}

// The lanes of a half product, even + odd.
ROW_INLINE __m256 half_product(const uint8_t *scales, const uint8_t *codes, const tern_half_token *token, size_t supers) {
    const __m256i low_nibbles = _mm256_set1_epi8(15);
    const int8_t *x = token->x;
    __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    for (size_t s = 0; s < supers; s += TURN_SUPERS) {
        __attribute__((aligned(32))) float factors[LANES];
        const __m256 f =
            _mm256_mul_ps(turn_scales(scales + s * TERN_I8S_SCALES, supers - s), _mm256_loadu_ps(token->scales + s * BLOCKS));
        _mm256_store_ps(factors, f);
        even = _mm256_add_ps(even, _mm256_mul_ps(f, _mm256_loadu_ps(token->shifts + s * BLOCKS)));
        const size_t turn = supers - s < TURN_SUPERS ? supers - s : TURN_SUPERS;
        for (size_t i = 0; i < turn; i++, codes += TERN_I8S_CODES, x += TERN_I8S_SUPER_K) {
            const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)codes);
            const __m256 a = dot32(_mm256_and_si256(both, low_nibbles), x);
            const __m256 b = dot32(_mm256_and_si256(_mm256_srli_epi16(both, 4), low_nibbles), x + TERN_I8S_BLOCK);
            even = _mm256_add_ps(even, _mm256_mul_ps(a, _mm256_broadcast_ss(factors + i * BLOCKS)));
            odd = _mm256_add_ps(odd, _mm256_mul_ps(b, _mm256_broadcast_ss(factors + i * BLOCKS + 1)));
        }
    }
    return _mm256_add_ps(even, odd);
}

ROW_INLINE __m256 load_codes(const uint8_t *codes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)codes)));
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
    const __m256 along[2] = {_mm256_loadu_ps(args->along), _mm256_loadu_ps(args->along + LANES)};
    for (size_t i = 0; i < args->n; i += TERN_SCREEN_GROUP) {
        const uint8_t *marks = args->marks + i / TERN_SCREEN_GROUP * TERN_SCREEN_GROUP_BYTES;
        const uint8_t *row = upper_row(args, i), *ahead = upper_row(args, i + FETCH_ROWS);
        __attribute__((aligned(32))) float steps[TERN_SCREEN_GROUP];
        const __m256 step = widen(marks + TERN_SCREEN_STEPS);
        _mm256_store_ps(steps, step);
        __m256 lanes[TERN_SCREEN_GROUP];
        for (size_t r = 0; r < TERN_SCREEN_GROUP; r++, row += row_bytes, ahead += row_bytes) {
            fetch_row(ahead, row_bytes);
            const __m256 half = half_product(row, row + supers * TERN_I8S_SCALES, &args->token, supers);
            const uint8_t *codes = marks + r * TERN_SCREEN_DIRECTIONS;
            const __m256 rest =
                _mm256_add_ps(_mm256_mul_ps(load_codes(codes), along[0]), _mm256_mul_ps(load_codes(codes + LANES), along[1]));
            lanes[r] = _mm256_add_ps(half, _mm256_mul_ps(rest, _mm256_broadcast_ss(steps + r)));
        }
        const __m256 spread = _mm256_add_ps(_mm256_mul_ps(step, _mm256_set1_ps(args->spread)), _mm256_set1_ps(args->least));
        const __m256 bound = _mm256_add_ps(_mm256_mul_ps(widen(marks + TERN_SCREEN_NORMS), _mm256_set1_ps(args->rest)), spread);
        _mm256_storeu_ps(args->upper + i, _mm256_add_ps(sum8_ps(lanes), bound));
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
