// SPDX-License-Identifier: MIT
// INT8 attention for baseline x86-64.
#define TERN_VF_BYTES 16
#define TERN_VF_NAME(stage) tern_##stage##_scalar
#include <emmintrin.h>

#include "vector_types.h"

static inline TERN_VF_INLINE v4f fold_lanes(const vf *sum) { return (sum[0] + sum[2]) + (sum[1] + sum[3]); }

static inline void store_codes(int8_t *codes, const vi *rounded) {
    const __m128i low = _mm_packs_epi32((__m128i)rounded[0], (__m128i)rounded[1]);
    const __m128i high = _mm_packs_epi32((__m128i)rounded[2], (__m128i)rounded[3]);
    _mm_storeu_si128((__m128i *)codes, _mm_packs_epi16(low, high));
}

typedef struct rows {
    const int8_t *codes;
    size_t ld;
} rows;

static inline void set_queries(rows *x, const tern_attention_int8_args *a) { *x = (rows){a->q, a->ld_q}; }
static inline void set_weights(rows *x, const int8_t *codes, size_t ld) { *x = (rows){codes, ld}; }

static inline void add_panel(int32_t *sums, size_t ld, const int8_t *panel, size_t groups, const rows *x, size_t queries) {
    for (size_t i = 0; i < queries; i++) {
        int32_t sum[TERN_I8_PANEL] = {0}; // |sum| <= 256 * 127 * 127
        for (size_t g = 0; g < groups; g++) {
            const int8_t *w = panel + g * TERN_I8_GROUP_BYTES, *row = x->codes + i * x->ld + g * TERN_I8_GROUP_K;
            for (size_t f = 0; f < TERN_I8_PANEL; f++)
                for (size_t k = 0; k < TERN_I8_GROUP_K; k++) sum[f] += w[f * TERN_I8_GROUP_K + k] * row[k];
        }
        memcpy(sums + i * ld, sum, sizeof sum);
    }
}

#include "attention_int8_body.h"
