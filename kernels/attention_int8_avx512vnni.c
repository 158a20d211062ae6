// SPDX-License-Identifier: MIT
// INT8 attention for AVX-512 VNNI: 16 keys, or 16 elements of values, in a zmm; four k in each 32-bit lane.
#define TERN_VF_BYTES 64
#define TERN_VF_NAME(stage) tern_##stage##_avx512vnni
#include "attention_int8.h"
#include "dot_avx512vnni.h"

typedef float v8f __attribute__((vector_size(32)));

static inline TERN_VF_INLINE v4f fold_lanes(const vf *sum) {
    const v8f s = __builtin_shufflevector(sum[0], sum[0], 0, 1, 2, 3, 4, 5, 6, 7) +
                  __builtin_shufflevector(sum[0], sum[0], 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(s, s, 0, 1, 2, 3) + __builtin_shufflevector(s, s, 4, 5, 6, 7);
}

static inline void store_codes(uint8_t *codes, const vi *rounded) {
    _mm_storeu_si128((__m128i *)codes, _mm512_cvtepi32_epi8((__m512i)rounded[0]));
}

enum { BIAS = 128 };

// vpdpbusd multiplies unsigned with signed bytes and does not saturate. Queries have signs, so keys are taken as codes + 128,
// which adds 128 * (sum of the query) to each sum. Sums may wrap on the way; the final value fits int32. `queries` is a
// constant after inlining.
static inline TERN_VF_INLINE void score(int32_t *dots, const int8_t *w, size_t groups, const tern_attention_int8_args *a,
                                        ahead next, size_t queries) {
    __m512i sum[TERN_ATTN_INT8_QUERIES]; // lane f: key f
    TERN_UNROLL
    for (size_t i = 0; i < queries; i++) sum[i] = _mm512_set1_epi32(-BIAS * a->q_sums[i]);
    const int8_t *q = a->q;
    TERN_NO_UNROLL
    for (size_t g = 0; g < groups; g++) {
        TERN_COST_LOOP("INT8 scores", TERN_I8_PANEL, queries, TERN_I8_GROUP_K);
        _mm_prefetch((const char *)next.at, _MM_HINT_T1);
        const __m512i keys = _mm512_xor_si512(_mm512_load_si512(w), _mm512_set1_epi8(INT8_MIN));
        TERN_UNROLL
        for (size_t i = 0; i < queries; i++) add_dots_at(&sum[i], keys, q + i * a->ld_q);
        w += TERN_I8_GROUP_BYTES;
        q += TERN_I8_GROUP_K;
        next.at += next.step;
    }
    TERN_UNROLL
    for (size_t i = 0; i < queries; i++) _mm512_store_si512(dots + i * TERN_ATTN_BLOCK, sum[i]);
}

// Weights have no signs: values are taken as they are.
static inline TERN_VF_INLINE void sum_values(int32_t *sums, const int8_t *w, size_t groups, const uint8_t *codes, ahead next,
                                             size_t queries) {
    __m512i sum[TERN_ATTN_INT8_QUERIES]; // lane f: element f
    TERN_UNROLL
    for (size_t i = 0; i < queries; i++) sum[i] = _mm512_setzero_si512();
    TERN_NO_UNROLL
    for (size_t g = 0; g < groups; g++) {
        TERN_COST_LOOP("INT8 values", TERN_I8_PANEL, queries, TERN_I8_GROUP_K);
        _mm_prefetch((const char *)next.at, _MM_HINT_T1);
        const __m512i values = _mm512_load_si512(w);
        TERN_UNROLL
        for (size_t i = 0; i < queries; i++)
            add_dots(&sum[i], broadcast_four((const int8_t *)codes + i * TERN_ATTN_BLOCK), values);
        w += TERN_I8_GROUP_BYTES;
        codes += TERN_I8_GROUP_K;
        next.at += next.step;
    }
    TERN_UNROLL
    for (size_t i = 0; i < queries; i++) _mm512_store_si512(sums + i * TERN_ATTN_BLOCK, sum[i]);
}

#include "attention_int8_panels.h"

#include "attention_int8_body.h"
