// SPDX-License-Identifier: MIT
// Attention of query heads over a block of float16 keys and values, for the tier that includes this (see vector_types.h).
#include "compiler.h"
#include "fused.h"
#include "half_vector.h"
#include "softmax_body.h"

// Queries that share each load of a key or a value, and vectors of sums for each that keep both multipliers busy.
enum { TOGETHER = 6, VALUE_VECTORS = 8 };
// Up to so many queries, those of one token, wait for memory; and the elements that keys are fetched ahead.
enum { WAITING_QUERIES = 4, KEYS_AHEAD = 1024 };

static inline TERN_VF_INLINE vf widen(const uint16_t *halves) { return half_to_float(load_halves(halves)); }

// ---- scores ---------------------------------------------------------------------------------------------------

// scores[i * TERN_ATTN_BLOCK + j] = scale * q_i.k_j for the keys of `panels` panels, a constant as `queries` is.
// q: [head_dim][queries]. values: those of the first key; they and the next keys are fetched meanwhile (past the end of the
// memory that does nothing).
static inline TERN_VF_INLINE void score_panels(float *scores, const float *q, const uint16_t *keys, const uint16_t *values,
                                               size_t head_dim, float scale, size_t queries, size_t panels) {
    vf sum[TOGETHER * PARTS];
    const size_t vectors = panels * PARTS;
    TERN_UNROLL
    for (size_t i = 0; i < queries * vectors; i++) sum[i] = splat(0.0f);
    TERN_NO_UNROLL
    for (size_t d = 0; d < head_dim; d++) {
        TERN_UNROLL
        for (size_t p = 0; p < panels && queries <= WAITING_QUERIES; p++) {
            const size_t at = (p * head_dim + d) * TERN_ATTN_PANEL;
            __builtin_prefetch(keys + at + KEYS_AHEAD);
            __builtin_prefetch(values + at);
        }
        vf key[TOGETHER * PARTS];
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++)
            key[v] = widen(keys + (v / PARTS * head_dim + d) * TERN_ATTN_PANEL + v % PARTS * WIDTH);
        TERN_UNROLL
        for (size_t i = 0; i < queries; i++) {
            const vf element = splat(q[d * queries + i]);
            TERN_UNROLL
            for (size_t v = 0; v < vectors; v++) sum[i * vectors + v] = fused(element, key[v], sum[i * vectors + v]);
        }
    }
    TERN_UNROLL
    for (size_t i = 0; i < queries; i++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) store(scores + i * TERN_ATTN_BLOCK + v * WIDTH, sum[i * vectors + v] * scale);
    }
}

// Of the panels that hold the first n keys. Few queries take several panels at once.
static inline TERN_VF_INLINE void score_keys(float *scores, const float *q, const uint16_t *keys, const uint16_t *values,
                                             size_t n, size_t head_dim, float scale, size_t queries) {
    const size_t wide = queries == 1 ? 4 : queries == 2 ? 2 : 1, panels = tern_ceil_div(n, TERN_ATTN_PANEL);
    size_t p = 0;
    for (; p + wide <= panels; p += wide)
        score_panels(scores + p * TERN_ATTN_PANEL, q, keys + p * TERN_ATTN_PANEL * head_dim,
                     values + p * TERN_ATTN_PANEL * head_dim, head_dim, scale, queries, wide);
    for (; p < panels; p++)
        score_panels(scores + p * TERN_ATTN_PANEL, q, keys + p * TERN_ATTN_PANEL * head_dim,
                     values + p * TERN_ATTN_PANEL * head_dim, head_dim, scale, queries, 1);
}

// ---- values ---------------------------------------------------------------------------------------------------

// acc_i[0 .. vectors * WIDTH) = sum_j weights[i][j] * values_j, keys in order. queries and vectors are constants.
static inline TERN_VF_INLINE void add_values(const tern_attention_query *of, size_t at, const float (*weights)[TERN_ATTN_BLOCK],
                                             const uint16_t *values, size_t stride, size_t n, size_t queries, size_t vectors) {
    vf sum[TOGETHER * VALUE_VECTORS];
    TERN_UNROLL
    for (size_t i = 0; i < queries * vectors; i++) sum[i] = splat(0.0f);
    TERN_NO_UNROLL
    for (size_t j = 0; j < n; j++) {
        vf value[VALUE_VECTORS];
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) value[v] = widen(values + j * stride + at + v * WIDTH);
        TERN_UNROLL
        for (size_t i = 0; i < queries; i++) {
            const vf weight = splat(weights[i][j]);
            TERN_UNROLL
            for (size_t v = 0; v < vectors; v++) sum[i * vectors + v] = fused(weight, value[v], sum[i * vectors + v]);
        }
    }
    TERN_UNROLL
    for (size_t i = 0; i < queries; i++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) store(of[i].acc + at + v * WIDTH, sum[i * vectors + v]);
    }
}

// The same for the last `rest` < WIDTH elements.
static inline TERN_VF_INLINE void add_value_tail(const tern_attention_query *of, size_t at,
                                                 const float (*weights)[TERN_ATTN_BLOCK], const uint16_t *values, size_t stride,
                                                 size_t n, size_t queries, size_t rest) {
    vf sum[TOGETHER];
    for (size_t i = 0; i < queries; i++) sum[i] = splat(0.0f);
    for (size_t j = 0; j < n; j++) {
        uint16_t padded[WIDTH] = {0};
        memcpy(padded, values + j * stride + at, rest * sizeof *padded);
        const vf value = widen(padded);
        for (size_t i = 0; i < queries; i++) sum[i] = fused(splat(weights[i][j]), value, sum[i]);
    }
    for (size_t i = 0; i < queries; i++) store_some(of[i].acc + at, sum[i], rest);
}

static inline TERN_VF_INLINE void sum_values(const tern_attention_args *a, const tern_attention_query *of,
                                             const float (*weights)[TERN_ATTN_BLOCK], size_t n, size_t queries) {
    const size_t wide = queries == 1 ? VALUE_VECTORS : queries == 2 ? VALUE_VECTORS / 2 : 2, dim = a->head_dim;
    size_t d = 0;
    for (; d + wide * WIDTH <= dim; d += wide * WIDTH) add_values(of, d, weights, a->values, dim, n, queries, wide);
    for (; d + WIDTH <= dim; d += WIDTH) add_values(of, d, weights, a->values, dim, n, queries, 1);
    if (d < dim) add_value_tail(of, d, weights, a->values, dim, n, queries, dim - d);
}

// ---- a few queries ----------------------------------------------------------------------------------------------

// Scores of one query to weights; zeros up to `end`, a multiple of LANES: keys that others see and this one does not.
static __attribute__((noinline)) void soften(float *scores, size_t end, tern_attention_query *of) {
    const size_t n = of->n_keys, padded = tern_round_up(n, LANES);
    for (size_t j = n; j < padded; j++) scores[j] = -INFINITY;
    of->most = largest(scores, n);
    of->total = exponentiate(scores, n, of->most);
    memset(scores + padded, 0, (end - padded) * sizeof *scores);
}

static inline TERN_VF_INLINE void attend(const tern_attention_args *a, tern_attention_query *of, size_t queries) {
    _Alignas(64) float scores[TOGETHER][TERN_ATTN_BLOCK];
    float q[TERN_HEAD_DIM_MAX * TOGETHER];
    size_t most_keys = 0;
    for (size_t i = 0; i < queries; i++) {
        most_keys = of[i].n_keys > most_keys ? of[i].n_keys : most_keys;
        for (size_t d = 0; d < a->head_dim; d++) q[d * queries + i] = of[i].q[d];
    }
    score_keys(scores[0], q, a->keys, a->values, most_keys, a->head_dim, a->scale, queries);
    for (size_t i = 0; i < queries; i++) soften(scores[i], tern_round_up(most_keys, LANES), &of[i]);
    sum_values(a, of, (const float(*)[TERN_ATTN_BLOCK])scores, most_keys, queries);
}

// A function of its own for each number of queries: so gcc 12 keeps the sums in registers.
#define ATTEND(queries)                                                                                                        \
    static __attribute__((noinline)) void attend_##queries(const tern_attention_args *a, tern_attention_query *of) {           \
        attend(a, of, queries);                                                                                                \
    }
ATTEND(1)
ATTEND(2)
ATTEND(3)
ATTEND(4)
ATTEND(5)
ATTEND(6)

void TERN_VF_NAME(attention)(const tern_attention_args *a) {
    static void (*const attend_some[TOGETHER + 1])(const tern_attention_args *, tern_attention_query *) = {
        NULL, attend_1, attend_2, attend_3, attend_4, attend_5, attend_6};
    const size_t parts = tern_ceil_div(a->n_queries, TOGETHER);
    for (size_t part = 0; part < parts; part++) {
        const size_t begin = a->n_queries * part / parts, end = a->n_queries * (part + 1) / parts;
        attend_some[end - begin](a, a->queries + begin);
    }
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
