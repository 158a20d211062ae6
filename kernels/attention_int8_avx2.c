// SPDX-License-Identifier: MIT
// INT8 attention for AVX2: 16 keys, or 16 elements of values, in two ymm; four k in each 32-bit lane.
//
// vpmaddubsw multiplies unsigned with signed bytes and adds pairs, with saturation. Codes lie within -127..127, so the
// magnitude of one side and the other side with its sign (vpsignb) give pairs within 2 * 127 * 127 = 32258 < 2^15: never
// saturated.
#include <immintrin.h>

#define TERN_VF_BYTES 32
#define TERN_VF_NAME(stage) tern_##stage##_avx2
#include "compiler.h"
#include "vector_types.h"

static inline TERN_VF_INLINE v4f fold_lanes(const vf *sum) {
    const vf s = sum[0] + sum[1];
    return __builtin_shufflevector(s, s, 0, 1, 2, 3) + __builtin_shufflevector(s, s, 4, 5, 6, 7);
}

static inline void store_codes(int8_t *codes, const vi *rounded) {
    // 16-bit lanes 0..3, 8..11, 4..7, 12..15, put in order
    const __m256i words =
        _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)rounded[0], (__m256i)rounded[1]), _MM_SHUFFLE(3, 1, 2, 0));
    _mm_storeu_si128((__m128i *)codes, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

enum { HALVES = 2, HALF = TERN_I8_PANEL / HALVES, HALF_BYTES = HALF * TERN_I8_GROUP_K, PREFETCH_BYTES = 2048 };

typedef struct rows {
    const int8_t *codes; // signs; NULL: none is negative
    size_t ld;
    const int8_t *magnitudes;
    size_t ld_magnitudes;
    _Alignas(64) int8_t queries[TERN_ATTN_INT8_QUERIES][TERN_HEAD_DIM_MAX]; // their magnitudes
} rows;

static inline void set_queries(rows *x, const tern_attention_int8_args *a) {
    for (size_t i = 0; i < a->n_queries; i++)
        for (size_t d = 0; d < tern_kv_dims(a->head_dim); d++) {
            const int8_t code = a->q[i * a->ld_q + d];
            x->queries[i][d] = (int8_t)(code < 0 ? -code : code);
        }
    x->codes = a->q;
    x->ld = a->ld_q;
    x->magnitudes = x->queries[0];
    x->ld_magnitudes = TERN_HEAD_DIM_MAX;
}

static inline void set_weights(rows *x, const int8_t *codes, size_t ld) {
    x->codes = NULL;
    x->magnitudes = codes;
    x->ld_magnitudes = ld;
}

// Four k of a row in every 32-bit lane.
static inline TERN_VF_INLINE __m256i four_codes(const int8_t *row) {
    int32_t four;
    memcpy(&four, row, sizeof four);
    return _mm256_set1_epi32(four);
}

static inline TERN_VF_INLINE __m256i add(__m256i sum, __m256i v) {
    TERN_IN_PLACE(__asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(v)), sum = _mm256_add_epi32(sum, v));
    return sum;
}

// queries and has_signs are constants after inlining.
static inline TERN_VF_INLINE void panel_of(int32_t *sums, size_t ld, const int8_t *w, size_t groups, const int8_t *codes,
                                           size_t ld_codes, const int8_t *magnitudes, size_t ld_magnitudes, size_t queries,
                                           bool has_signs) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[TERN_ATTN_INT8_QUERIES * HALVES]; // lane f: feature f of a half
    TERN_UNROLL
    for (size_t i = 0; i < queries * HALVES; i++) sum[i] = _mm256_setzero_si256();
    TERN_NO_UNROLL
    for (size_t g = 0; g < groups; g++) {
        TERN_COST_LOOP("INT8 attention", TERN_I8_PANEL, queries, TERN_I8_GROUP_K);
        _mm_prefetch((const char *)w + PREFETCH_BYTES, _MM_HINT_T0); // past the end this does nothing
        __m256i half[HALVES];
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) half[h] = _mm256_load_si256((const __m256i *)(w + h * HALF_BYTES));
        TERN_UNROLL
        for (size_t i = 0; i < queries; i++) {
            const __m256i magnitude = four_codes(magnitudes + i * ld_magnitudes);
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++) {
                const __m256i other = has_signs ? _mm256_sign_epi8(half[h], four_codes(codes + i * ld_codes)) : half[h];
                const __m256i products = _mm256_maddubs_epi16(magnitude, other); // of k = 0, 1 and of k = 2, 3
                sum[i * HALVES + h] = add(sum[i * HALVES + h], _mm256_madd_epi16(products, ones));
            }
        }
        w += TERN_I8_GROUP_BYTES;
        magnitudes += TERN_I8_GROUP_K;
        if (has_signs) codes += TERN_I8_GROUP_K;
    }
    TERN_UNROLL
    for (size_t i = 0; i < queries; i++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) _mm256_store_si256((__m256i *)(sums + i * ld + h * HALF), sum[i * HALVES + h]);
    }
}

// A function of its own for each number of queries: so gcc 12 keeps the sums in registers.
#define PANEL_OF(queries)                                                                                                      \
    static __attribute__((noinline)) void panel_of_##queries(int32_t *sums, size_t ld, const int8_t *w, size_t groups,         \
                                                             const rows *x) {                                                  \
        if (x->codes)                                                                                                          \
            panel_of(sums, ld, w, groups, x->codes, x->ld, x->magnitudes, x->ld_magnitudes, queries, true);                    \
        else                                                                                                                   \
            panel_of(sums, ld, w, groups, NULL, 0, x->magnitudes, x->ld_magnitudes, queries, false);                           \
    }
PANEL_OF(1)
PANEL_OF(2)
PANEL_OF(3)
PANEL_OF(4)

static inline void add_panel(int32_t *sums, size_t ld, const int8_t *panel, size_t groups, const rows *x, size_t queries) {
    static void (*const panels[TERN_ATTN_INT8_QUERIES])(int32_t *, size_t, const int8_t *, size_t,
                                                   const rows *) = {panel_of_1, panel_of_2, panel_of_3, panel_of_4};
    panels[queries - 1](sums, ld, panel, groups, x);
}

#include "attention_int8_body.h"
