// SPDX-License-Identifier: MIT
// INT8 attention for AVX-512 VNNI: 16 keys, or 16 elements of values, in a zmm; four k in each 32-bit lane.
#define TERN_VF_BYTES 64
#define TERN_VF_NAME(stage) tern_##stage##_avx512vnni
#include "dot_avx512vnni.h"
#include "vector_types.h"

typedef float v8f __attribute__((vector_size(32)));

static inline TERN_VF_INLINE v4f fold_lanes(const vf *sum) {
    const v8f s = __builtin_shufflevector(sum[0], sum[0], 0, 1, 2, 3, 4, 5, 6, 7) +
                  __builtin_shufflevector(sum[0], sum[0], 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(s, s, 0, 1, 2, 3) + __builtin_shufflevector(s, s, 4, 5, 6, 7);
}

static inline void store_codes(int8_t *codes, const vi *rounded) {
    _mm_storeu_si128((__m128i *)codes, _mm512_cvtepi32_epi8((__m512i)rounded[0]));
}

enum { BIAS = 128, PREFETCH_BYTES = 2048 };

// vpdpbusd multiplies unsigned with signed bytes and does not saturate. Queries have signs, so keys are taken as codes + 128,
// which adds 128 * (sum of the query) to each sum; weights of values have none, so values are taken as they are.
typedef struct rows {
    const int8_t *codes;
    size_t ld;
    const int32_t *sums; // of signed rows; NULL: no code is negative
} rows;

static inline void set_queries(rows *x, const tern_attention_int8_args *a) { *x = (rows){a->q, a->ld_q, a->q_sums}; }
static inline void set_weights(rows *x, const int8_t *codes, size_t ld) { *x = (rows){codes, ld, NULL}; }

// queries and has_signs are constants after inlining. Sums may wrap on the way; the final value fits int32.
static inline TERN_VF_INLINE void panel_of(int32_t *to, size_t ld, const int8_t *w, size_t groups, const rows *x,
                                           size_t queries, bool has_signs) {
    __m512i sum[TERN_ATTN_INT8_QUERIES]; // lane f: feature f
    TERN_UNROLL
    for (size_t i = 0; i < queries; i++) sum[i] = _mm512_set1_epi32(has_signs ? -BIAS * x->sums[i] : 0);
    const int8_t *codes = x->codes;
    TERN_NO_UNROLL
    for (size_t g = 0; g < groups; g++) {
        TERN_COST_LOOP("INT8 attention", TERN_I8_PANEL, queries, TERN_I8_GROUP_K);
        _mm_prefetch((const char *)w + PREFETCH_BYTES, _MM_HINT_T0); // past the end this does nothing
        const __m512i panel = _mm512_load_si512(w), biased = _mm512_xor_si512(panel, _mm512_set1_epi8(INT8_MIN));
        TERN_UNROLL
        for (size_t i = 0; i < queries; i++) {
            if (has_signs)
                add_dots_at(&sum[i], biased, codes + i * x->ld);
            else
                add_dots(&sum[i], broadcast_four(codes + i * x->ld), panel);
        }
        w += TERN_I8_GROUP_BYTES;
        codes += TERN_I8_GROUP_K;
    }
    TERN_UNROLL
    for (size_t i = 0; i < queries; i++) _mm512_store_si512(to + i * ld, sum[i]);
}

// A function of its own for each number of queries: so gcc 12 keeps the sums in registers.
#define PANEL_OF(queries)                                                                                                      \
    static __attribute__((noinline)) void panel_of_##queries(int32_t *sums, size_t ld, const int8_t *w, size_t groups,         \
                                                             const rows *x) {                                                  \
        if (x->sums)                                                                                                           \
            panel_of(sums, ld, w, groups, x, queries, true);                                                                   \
        else                                                                                                                   \
            panel_of(sums, ld, w, groups, x, queries, false);                                                                  \
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
