// SPDX-License-Identifier: MIT
// INT8 attention for baseline x86-64.
#define TERN_VF_BYTES 16
#define TERN_VF_NAME(stage) tern_##stage##_scalar
#include <emmintrin.h>

#include "attention_int8.h"

static inline TERN_VF_INLINE v4f fold_lanes(const vf *sum) { return (sum[0] + sum[2]) + (sum[1] + sum[3]); }

static inline void store_codes(uint8_t *codes, const vi *rounded) {
    const __m128i low = _mm_packs_epi32((__m128i)rounded[0], (__m128i)rounded[1]);
    const __m128i high = _mm_packs_epi32((__m128i)rounded[2], (__m128i)rounded[3]);
    _mm_storeu_si128((__m128i *)codes, _mm_packus_epi16(low, high));
}

static inline void add_products(int32_t *sums, const int8_t *four, int k0, int k1, int k2, int k3) {
    for (size_t f = 0; f < TERN_I8_PANEL; f++, four += TERN_I8_GROUP_K)
        sums[f] += four[0] * k0 + four[1] * k1 + four[2] * k2 + four[3] * k3;
}

static inline void score_panel(int32_t *dots, const int8_t *keys, size_t groups, const tern_attention_int8_args *a,
                               ahead next) {
    (void)next; // bound by its multiplications
    for (size_t i = 0; i < a->n_queries; i++, dots += TERN_ATTN_BLOCK) {
        const int8_t *q = a->q + i * a->ld_q;
        int32_t sum[TERN_I8_PANEL] = {0};
        for (size_t g = 0; g < groups; g++, q += TERN_I8_GROUP_K)
            add_products(sum, keys + g * TERN_I8_GROUP_BYTES, q[0], q[1], q[2], q[3]);
        memcpy(dots, sum, sizeof sum);
    }
}

static inline void value_panel(int32_t *sums, const int8_t *values, size_t groups, const uint8_t *codes, size_t queries,
                               ahead next) {
    (void)next;
    for (size_t i = 0; i < queries; i++, sums += TERN_ATTN_BLOCK) {
        const uint8_t *p = codes + i * TERN_ATTN_BLOCK;
        int32_t sum[TERN_I8_PANEL] = {0};
        for (size_t g = 0; g < groups; g++, p += TERN_I8_GROUP_K)
            add_products(sum, values + g * TERN_I8_GROUP_BYTES, p[0], p[1], p[2], p[3]);
        memcpy(sums, sum, sizeof sum);
    }
}

#include "attention_int8_body.h"
