// SPDX-License-Identifier: MIT
// Attention of query heads over a block of INT8 keys and values, for the tier that includes this (see vector_types.h).
//
// The tier's file defines, besides fold_lanes,
//   void add_panel(int32_t *sums, size_t ld, const int8_t *panel, size_t groups, const rows *x, size_t queries)
//   sums[i * ld + f] = the exact dot product of row i < queries of x with feature f < 16 of an I8 panel, `groups` * 4 deep
//   void store_codes(int8_t *codes, const vi *rounded)
//   codes[0 .. LANES) = the integers of PARTS vectors, within 0..127
#include "softmax_body.h"

static const float CODE_MAX = 127.0f;

typedef struct block_of_queries {
    _Alignas(64) int32_t dots[TERN_ATTN_INT8_QUERIES][TERN_ATTN_BLOCK]; // of keys, then sums of values
    _Alignas(64) float weights[TERN_ATTN_INT8_QUERIES][TERN_ATTN_BLOCK];
    _Alignas(64) int8_t codes[TERN_ATTN_INT8_QUERIES][TERN_ATTN_BLOCK];
} block_of_queries;

static inline vf floats_of(const int32_t *p) {
    vi v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, vf);
}

// scores[j] = (float)dots[j] * q_scale * key_scales[j] for j < n; -infinity up to a multiple of LANES.
static inline TERN_VF_INLINE void scale_scores(float *scores, const int32_t *dots, float q_scale, const float *key_scales,
                                               size_t n) {
    const size_t padded = tern_round_up(n, LANES);
    for (size_t j = 0; j < padded; j += WIDTH) store(scores + j, floats_of(dots + j) * q_scale * load(key_scales + j));
    for (size_t j = n; j < padded; j++) scores[j] = -INFINITY;
}

// codes[j] = round_half_even(weights[j] * value_scales[j] * (127 / W)) for j < n, zeros up to a multiple of LANES. Returns W /
// 127.
static inline TERN_VF_INLINE float quantize_weights(int8_t *codes, float *weights, const float *value_scales, size_t n) {
    const size_t padded = tern_round_up(n, LANES);
    const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer that stands in the low mantissa bits
    for (size_t j = 0; j < padded; j += WIDTH) store(weights + j, load(weights + j) * load(value_scales + j));
    memset(weights + n, 0, (padded - n) * sizeof *weights); // scales behind n are anything
    const float top = largest(weights, padded), inverse = CODE_MAX / top;
    for (size_t j = 0; j < padded; j += LANES) {
        vi rounded[PARTS];
        for (size_t p = 0; p < PARTS; p++)
            rounded[p] = (vi)(load(weights + j + p * WIDTH) * inverse + magic) - (vi)splat(magic);
        store_codes(codes + j, rounded);
    }
    return top / CODE_MAX;
}

// Rows of x times n_panels panels that follow each other, `depth` deep, of which `groups` groups count.
static inline TERN_VF_INLINE void multiply(int32_t (*sums)[TERN_ATTN_BLOCK], const int8_t *panels, size_t n_panels,
                                           size_t depth, size_t groups, const rows *x, size_t queries) {
    for (size_t p = 0; p < n_panels; p++, panels += TERN_I8_PANEL * depth)
        add_panel(sums[0] + p * TERN_I8_PANEL, TERN_ATTN_BLOCK, panels, groups, x, queries);
}

void TERN_VF_NAME(attention_int8)(const tern_attention_int8_args *a) {
    block_of_queries b;
    const size_t n = a->n_keys, dims = tern_kv_dims(a->head_dim);
    rows x;
    set_queries(&x, a);
    multiply(b.dots, a->keys, tern_ceil_div(n, TERN_I8_PANEL), dims, dims / TERN_I8_GROUP_K, &x, a->n_queries);
    float unit[TERN_ATTN_INT8_QUERIES]; // of the sums of values
    for (size_t i = 0; i < a->n_queries; i++) {
        scale_scores(b.weights[i], b.dots[i], a->q_scales[i] * a->scale, a->key_scales, n);
        a->most[i] = largest(b.weights[i], n);
        a->total[i] = exponentiate(b.weights[i], n, a->most[i]);
        unit[i] = quantize_weights(b.codes[i], b.weights[i], a->value_scales, n);
    }
    set_weights(&x, b.codes[0], TERN_ATTN_BLOCK);
    multiply(b.dots, a->values, dims / TERN_I8_PANEL, TERN_ATTN_BLOCK, tern_ceil_div(n, TERN_I8_GROUP_K), &x, a->n_queries);
    for (size_t i = 0; i < a->n_queries; i++) {
        float *acc = a->acc + i * a->ld_acc;
        size_t d = 0;
        for (; d + WIDTH <= a->head_dim; d += WIDTH) store(acc + d, floats_of(b.dots[i] + d) * unit[i]);
        for (; d < a->head_dim; d++) acc[d] = (float)b.dots[i][d] * unit[i];
    }
}
