// SPDX-License-Identifier: MIT
// Attention of query heads over a block of float16 keys and values, for the tier that includes this (see vector_types.h).
#include "half_vector.h"
#include "softmax_body.h"

enum { KEYS_AT_ONCE = 4, VALUE_VECTORS = 8 };

// ---- scores ---------------------------------------------------------------------------------------------------

// A 4x4 dot product: sums of 16 lanes each of a, b, c, e, in lanes 0..3.
static inline TERN_VF_INLINE v4f fold_dots(const vf a[PARTS], const vf b[PARTS], const vf c[PARTS], const vf e[PARTS]) {
    const v4f fa = fold_lanes(a), fb = fold_lanes(b), fc = fold_lanes(c), fe = fold_lanes(e);
    // Columns of the matrix with rows fa, fb, fc, fe.
    const v4f ab_low = __builtin_shufflevector(fa, fb, 0, 4, 1, 5), ab_high = __builtin_shufflevector(fa, fb, 2, 6, 3, 7);
    const v4f ce_low = __builtin_shufflevector(fc, fe, 0, 4, 1, 5), ce_high = __builtin_shufflevector(fc, fe, 2, 6, 3, 7);
    const v4f lane0 = __builtin_shufflevector(ab_low, ce_low, 0, 1, 4, 5);
    const v4f lane1 = __builtin_shufflevector(ab_low, ce_low, 2, 3, 6, 7);
    const v4f lane2 = __builtin_shufflevector(ab_high, ce_high, 0, 1, 4, 5);
    const v4f lane3 = __builtin_shufflevector(ab_high, ce_high, 2, 3, 6, 7);
    return (lane0 + lane2) + (lane1 + lane3);
}

static inline TERN_VF_INLINE vf load_key(const uint16_t *key) { return half_to_float(load_halves(key)); }

// Dot products of one query with four keys. q is padded with zeros to a multiple of LANES; keys are read up to head_dim.
static inline TERN_VF_INLINE v4f dots_of_keys(const float *q, const uint16_t *const key[KEYS_AT_ONCE], size_t head_dim) {
    vf sum[KEYS_AT_ONCE][PARTS] = {{{0}}};
    size_t d = 0;
    for (; d + LANES <= head_dim; d += LANES) {
        for (size_t p = 0; p < PARTS; p++) {
            const vf part = load(q + d + p * WIDTH);
            for (size_t j = 0; j < KEYS_AT_ONCE; j++) sum[j][p] += part * load_key(key[j] + d + p * WIDTH);
        }
    }
    if (d < head_dim) {
        uint16_t tail[KEYS_AT_ONCE][LANES] = {{0}};
        for (size_t j = 0; j < KEYS_AT_ONCE; j++) memcpy(tail[j], key[j] + d, (head_dim - d) * sizeof **tail);
        for (size_t p = 0; p < PARTS; p++) {
            for (size_t j = 0; j < KEYS_AT_ONCE; j++) sum[j][p] += load(q + d + p * WIDTH) * load_key(tail[j] + p * WIDTH);
        }
    }
    return fold_dots(sum[0], sum[1], sum[2], sum[3]);
}

// Dot products of `queries` 2..4, a constant, with one key, which is converted once. The same sums in the same order.
static inline TERN_VF_INLINE v4f dots_of_queries(const float (*q)[TERN_HEAD_DIM_MAX], const uint16_t *key, size_t head_dim,
                                                 size_t queries) {
    vf sum[TERN_ATTN_QUERIES][PARTS] = {{{0}}};
    size_t d = 0;
    for (; d + LANES <= head_dim; d += LANES) {
        for (size_t p = 0; p < PARTS; p++) {
            const vf k = load_key(key + d + p * WIDTH);
            for (size_t i = 0; i < queries; i++) sum[i][p] += load(q[i] + d + p * WIDTH) * k;
        }
    }
    if (d < head_dim) {
        uint16_t tail[LANES] = {0};
        memcpy(tail, key + d, (head_dim - d) * sizeof *tail);
        for (size_t p = 0; p < PARTS; p++) {
            const vf k = load_key(tail + p * WIDTH);
            for (size_t i = 0; i < queries; i++) sum[i][p] += load(q[i] + d + p * WIDTH) * k;
        }
    }
    return fold_dots(sum[0], sum[1], sum[queries > 2 ? 2 : 0], sum[queries > 3 ? 3 : 0]); // unused lanes
}

static inline TERN_VF_INLINE void score_keys(float (*scores)[TERN_ATTN_BLOCK], const float (*q)[TERN_HEAD_DIM_MAX],
                                             const tern_attention_args *a, size_t queries) {
    for (size_t j = 0; j < a->n_keys; j++) {
        const v4f dots = dots_of_queries(q, a->keys + j * a->head_dim, a->head_dim, queries) * a->scale;
        for (size_t i = 0; i < queries; i++) scores[i][j] = dots[i];
    }
}

// scores[i][j] = scale * q_i.k_j for j < n; the rest up to a multiple of LANES is -infinity.
static inline TERN_VF_INLINE void score_block(float (*scores)[TERN_ATTN_BLOCK], const float (*q)[TERN_HEAD_DIM_MAX],
                                              const tern_attention_args *a) {
    const size_t n = a->n_keys, dim = a->head_dim;
    if (a->n_queries == 1) {
        for (size_t j = 0; j < n; j += KEYS_AT_ONCE) {
            const uint16_t *key[KEYS_AT_ONCE]; // past the end: the last key again
            for (size_t i = 0; i < KEYS_AT_ONCE; i++) key[i] = a->keys + (j + i < n ? j + i : n - 1) * dim;
            const v4f dots = dots_of_keys(q[0], key, dim) * a->scale;
            memcpy(scores[0] + j, &dots, sizeof dots);
        }
    } else if (a->n_queries == 2) {
        score_keys(scores, q, a, 2);
    } else if (a->n_queries == 3) {
        score_keys(scores, q, a, 3);
    } else {
        score_keys(scores, q, a, TERN_ATTN_QUERIES);
    }
    for (size_t i = 0; i < a->n_queries; i++)
        for (size_t j = n; j < tern_round_up(n, LANES); j++) scores[i][j] = -INFINITY;
}

// ---- values ---------------------------------------------------------------------------------------------------

// acc[i][0 .. vectors * WIDTH) = sum_j weights[i][j] * values_j, keys in order. queries and vectors are constants after
// inlining.
static inline TERN_VF_INLINE void add_values(float *acc, size_t ld_acc, const float (*weights)[TERN_ATTN_BLOCK],
                                             const uint16_t *values, size_t stride, size_t n, size_t queries, size_t vectors) {
    vf sum[VALUE_VECTORS];
    for (size_t i = 0; i < queries * vectors; i++) sum[i] = splat(0.0f);
    for (size_t j = 0; j < n; j++) {
        for (size_t v = 0; v < vectors; v++) {
            const vf value = load_key(values + j * stride + v * WIDTH);
            for (size_t i = 0; i < queries; i++) sum[i * vectors + v] += splat(weights[i][j]) * value;
        }
    }
    for (size_t i = 0; i < queries; i++)
        for (size_t v = 0; v < vectors; v++) store(acc + i * ld_acc + v * WIDTH, sum[i * vectors + v]);
}

// The same for the last `rest` < WIDTH elements.
static inline TERN_VF_INLINE void add_value_tail(float *acc, size_t ld_acc, const float (*weights)[TERN_ATTN_BLOCK],
                                                 const uint16_t *values, size_t stride, size_t n, size_t queries, size_t rest) {
    vf sum[TERN_ATTN_QUERIES];
    for (size_t i = 0; i < queries; i++) sum[i] = splat(0.0f);
    for (size_t j = 0; j < n; j++) {
        uint16_t padded[WIDTH] = {0};
        memcpy(padded, values + j * stride, rest * sizeof *padded);
        const vf value = load_key(padded);
        for (size_t i = 0; i < queries; i++) sum[i] += splat(weights[i][j]) * value;
    }
    for (size_t i = 0; i < queries; i++) store_some(acc + i * ld_acc, sum[i], rest);
}

// For queries that share values: `queries` of them, a constant.
static inline TERN_VF_INLINE void sum_values(const tern_attention_args *a, const float (*weights)[TERN_ATTN_BLOCK],
                                             size_t queries) {
    float *acc = a->acc;
    const size_t wide = VALUE_VECTORS / queries, dim = a->head_dim, n = a->n_keys;
    size_t d = 0;
    for (; d + wide * WIDTH <= dim; d += wide * WIDTH)
        add_values(acc + d, a->ld_acc, weights, a->values + d, dim, n, queries, wide);
    for (; d + WIDTH <= dim; d += WIDTH) add_values(acc + d, a->ld_acc, weights, a->values + d, dim, n, queries, 1);
    if (d < dim) add_value_tail(acc + d, a->ld_acc, weights, a->values + d, dim, n, queries, dim - d);
}

void TERN_VF_NAME(attention)(const tern_attention_args *a) {
    _Alignas(64) float q[TERN_ATTN_QUERIES][TERN_HEAD_DIM_MAX], scores[TERN_ATTN_QUERIES][TERN_ATTN_BLOCK];
    const size_t padded = tern_round_up(a->head_dim, LANES);
    for (size_t i = 0; i < TERN_ATTN_QUERIES; i++) {
        memset(q[i], 0, padded * sizeof **q);
        if (i < a->n_queries) memcpy(q[i], a->q + i * a->ld_q, a->head_dim * sizeof **q);
    }
    score_block(scores, q, a);
    for (size_t i = 0; i < a->n_queries; i++) {
        a->most[i] = largest(scores[i], a->n_keys);
        a->total[i] = exponentiate(scores[i], a->n_keys, a->most[i]);
    }
    if (a->n_queries == 1)
        sum_values(a, scores, 1);
    else if (a->n_queries == 2)
        sum_values(a, scores, 2);
    else if (a->n_queries == 3)
        sum_values(a, scores, 3);
    else
        sum_values(a, scores, TERN_ATTN_QUERIES);
}

void TERN_VF_NAME(attention_merge)(float *acc, float *most, float *total, const float *block_acc, float block_most,
                                   float block_total, size_t head_dim) {
    const float new_most = *most > block_most ? *most : block_most;
    const float keep = exponential(splat(*most - new_most))[0], gain = exponential(splat(block_most - new_most))[0];
    size_t d = 0;
    for (; d + WIDTH <= head_dim; d += WIDTH) store(acc + d, load(acc + d) * keep + load(block_acc + d) * gain);
    for (; d < head_dim; d++) acc[d] = acc[d] * keep + block_acc[d] * gain;
    *total = *total * keep + block_total * gain;
    *most = new_most;
}

void TERN_VF_NAME(to_half)(uint16_t *y, const float *x, size_t n) {
    const float largest_half = 65504.0f;
    size_t i = 0;
    for (; i < n; i += WIDTH) {
        const size_t count = n - i < WIDTH ? n - i : WIDTH;
        const vf v = count < WIDTH ? load_some(x + i, count) : load(x + i);
        const vh h = float_to_half(larger(splat(-largest_half), smaller(splat(largest_half), v))); // a NaN stays
        uint16_t halves[WIDTH];
        store_halves(halves, h);
        memcpy(y + i, halves, count * sizeof *y);
    }
}
