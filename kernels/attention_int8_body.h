// SPDX-License-Identifier: MIT
// Attention of query heads over a block of INT8 keys and values, for the tier that includes this (see vector_types.h).
//
// The tier's file defines, besides fold_lanes,
//   void score_panel(int32_t *dots, const int8_t *keys, size_t groups, const tern_attention_int8_args *a, ahead next)
//   dots[i * TERN_ATTN_BLOCK + f] = the dot product of query i with key f < 16 of an I8 panel
//   void value_panel(int32_t *sums, const int8_t *values, size_t groups, const uint8_t *codes, size_t queries, ahead next)
//   the same of the codes of weights, TERN_ATTN_BLOCK apart, with element f of values; `groups` is a multiple of 4 in both
//   void store_codes(uint8_t *codes, const vi *rounded)
//   codes[0 .. LANES) = the integers of PARTS vectors, within 0..255
//
// Memory never rests: of the values, and of the keys of the block after this one, three quarters are fetched while keys, or
// values, are multiplied, and the last quarter during the softmax.
#include <xmmintrin.h>

#include "softmax_body.h"

static const float CODES_MAX = 248.0f; // of 8 weights that meet, before rounding

enum {
    LINE_BYTES = 64,
    SOFTMAX_SHARE = 4, // one of so many parts is left for the softmax
    FETCH_STEP = LINE_BYTES - LINE_BYTES / SOFTMAX_SHARE,
    SOFTMAX_LANES = EXP_TOGETHER * WIDTH // keys of a step
};

typedef struct block_of_queries {
    _Alignas(64) int32_t dots[TERN_ATTN_INT8_QUERIES][TERN_ATTN_BLOCK]; // of keys, then sums of values
    _Alignas(64) float weights[TERN_ATTN_INT8_QUERIES][TERN_ATTN_BLOCK];
    _Alignas(64) uint8_t codes[TERN_ATTN_INT8_QUERIES][TERN_ATTN_BLOCK];
} block_of_queries;

static inline TERN_VF_INLINE void fetch(const void *memory, size_t bytes) {
    enum { READ, INTO_L2 = 2 };
    for (size_t i = 0; i < bytes; i += LINE_BYTES) __builtin_prefetch((const char *)memory + i, READ, INTO_L2);
}

static inline vf floats_of(const int32_t *p) {
    vi v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, vf);
}

// v where its lane, the first of which is lane `at` of a row, is one of the row's first n; `rest` elsewhere.
static inline TERN_VF_INLINE vf first_lanes(vf v, size_t at, size_t n, float rest) {
    vi lane;
    for (int32_t i = 0; i < WIDTH; i++) lane[i] = i;
    return pick(lane < (int32_t)n - (int32_t)at, v, splat(rest));
}

static inline TERN_VF_INLINE float largest_lane(const vf *top) {
    vf most = top[0];
    for (size_t p = 1; p < PARTS; p++) most = larger(most, top[p]);
    float lane = most[0];
    for (size_t i = 1; i < WIDTH; i++) lane = lane > most[i] ? lane : most[i];
    return lane;
}

// Lanes 0 and 2: the larger of top's and of the sums of lanes 0, 1 and of lanes 2, 3.
static inline TERN_VF_INLINE v4f larger_sums(v4f top, v4f four) {
    return (v4f)_mm_max_ps((__m128)top, (__m128)(four + __builtin_shufflevector(four, four, 1, 0, 3, 2)));
}

// scores[j] = (float)dots[j] * q_scale * key_scales[j] for j < n, -infinity up to a multiple of SOFTMAX_LANES. Returns the
// largest.
static inline TERN_VF_INLINE float scale_scores(float *scores, const int32_t *dots, float q_scale, const float *key_scales,
                                                size_t n) {
    vf top[PARTS];
    for (size_t p = 0; p < PARTS; p++) top[p] = splat(-INFINITY);
    for (size_t j = 0; j < n; j += LANES) {
        for (size_t p = 0; p < PARTS; p++) {
            const size_t at = j + p * WIDTH;
            vf score = floats_of(dots + at) * q_scale * load(key_scales + at);
            if (n - j < LANES) score = first_lanes(score, at, n, -INFINITY);
            top[p] = larger(top[p], score);
            store(scores + at, score);
        }
    }
    for (size_t j = tern_round_up(n, LANES); j < tern_round_up(n, SOFTMAX_LANES); j += WIDTH)
        store(scores + j, splat(-INFINITY));
    return largest_lane(top);
}

// weights[j] = e^(weights[j] - most) * value_scales[j] for j < n, zeros up to a multiple of SOFTMAX_LANES. Returns the largest
// sum of eight (kernels.h). *total = the sum of the powers, over 16 lanes. values and keys: fetched, `bytes` of
// each with a step.
static inline TERN_VF_INLINE float exponentiate_and_scale(float *weights, float *total, float most, const float *value_scales,
                                                          size_t n, const int8_t *values, const int8_t *keys, size_t bytes) {
    v4f top = {0};
    vf sum[PARTS] = {{0}};
    for (size_t j = 0; j < n; j += SOFTMAX_LANES, values += bytes, keys += bytes) {
        fetch(values, bytes);
        fetch(keys, bytes);
        vf power[EXP_TOGETHER], weight[EXP_TOGETHER];
        TERN_UNROLL
        for (size_t i = 0; i < EXP_TOGETHER; i++) power[i] = load(weights + j + i * WIDTH) - most;
        exponentials(power, EXP_TOGETHER);
        TERN_UNROLL
        for (size_t i = 0; i < EXP_TOGETHER; i++) {
            const size_t at = j + i * WIDTH;
            weight[i] = power[i] * load(value_scales + at);
            if (n - j < SOFTMAX_LANES) {
                power[i] = first_lanes(power[i], at, n, 0);
                weight[i] = first_lanes(weight[i], at, n, 0); // scales behind n are anything
            }
            sum[i % PARTS] += power[i];
            store(weights + at, weight[i]);
        }
        TERN_UNROLL
        for (size_t i = 0; i < EXP_TOGETHER; i += PARTS) top = larger_sums(top, fold_lanes(weight + i));
    }
    *total = fold_four(fold_lanes(sum));
    return top[0] > top[2] ? top[0] : top[2];
}

// codes[j] = round_half_even(weights[j] * inverse), up to a multiple of LANES.
static inline TERN_VF_INLINE void quantize_weights(uint8_t *codes, const float *weights, float inverse, size_t n) {
    const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer that stands in the low mantissa bits
    for (size_t j = 0; j < n; j += LANES) {
        vi rounded[PARTS];
        for (size_t p = 0; p < PARTS; p++) {
            const vf shifted = load(weights + j + p * WIDTH) * inverse + magic;
            rounded[p] = (vi)((vu)shifted - (vu)splat(magic)); // unsigned: forged scales wrap
        }
        store_codes(codes + j, rounded);
    }
}

// Weights and their codes of all queries. A pass over all of them before the next pass, so that the end of one row, where all
// waits for its largest weight, overlaps the next row. unit[i]: what a code of query i is worth.
static inline TERN_VF_INLINE void soften(block_of_queries *b, float *unit, const tern_attention_int8_args *a) {
    const size_t n = a->n_keys, block = tern_kv_block_bytes(a->head_dim), left = block / SOFTMAX_SHARE;
    const size_t row = left / a->n_queries, step = row / (TERN_ATTN_BLOCK / SOFTMAX_LANES);
    const int8_t *values = a->values + block - left, *keys = a->next_keys + block - left;
    for (size_t i = 0; i < a->n_queries; i++)
        a->most[i] = scale_scores(b->weights[i], b->dots[i], a->q_scales[i] * a->scale, a->key_scales, n);
    for (size_t i = 0; i < a->n_queries; i++, values += row, keys += row)
        unit[i] = exponentiate_and_scale(b->weights[i], &a->total[i], a->most[i], a->value_scales, n, values, keys, step);
    for (size_t i = 0; i < a->n_queries; i++) {
        quantize_weights(b->codes[i], b->weights[i], CODES_MAX / unit[i], n);
        unit[i] /= CODES_MAX;
    }
}

void TERN_VF_NAME(attention_int8)(const tern_attention_int8_args *a) {
    block_of_queries b;
    const size_t n = a->n_keys, dims = tern_kv_dims(a->head_dim), key_groups = dims / TERN_I8_GROUP_K;
    const size_t value_groups = tern_round_up(n, LANES) / TERN_I8_GROUP_K;
    fetch(a->key_scales, n * sizeof(float));
    fetch(a->value_scales, n * sizeof(float));
    ahead next = {a->values, FETCH_STEP};
    for (size_t j = 0; j < n; j += TERN_I8_PANEL, next.at += key_groups * next.step)
        score_panel(b.dots[0] + j, a->keys + j * dims, key_groups, a, next);
    float unit[TERN_ATTN_INT8_QUERIES];
    soften(&b, unit, a);
    next = (ahead){a->next_keys, FETCH_STEP};
    for (size_t d = 0; d < dims; d += TERN_I8_PANEL, next.at += value_groups * next.step)
        value_panel(b.dots[0] + d, a->values + d * TERN_ATTN_BLOCK, value_groups, b.codes[0], a->n_queries, next);
    for (size_t i = 0; i < a->n_queries; i++) {
        float *acc = a->acc + i * a->ld_acc;
        size_t d = 0;
        for (; d + WIDTH <= a->head_dim; d += WIDTH) store(acc + d, floats_of(b.dots[i] + d) * unit[i]);
        for (; d < a->head_dim; d++) acc[d] = (float)b.dots[i][d] * unit[i];
    }
}
