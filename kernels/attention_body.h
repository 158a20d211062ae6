// SPDX-License-Identifier: MIT
// Attention of one query head for the tier that includes this (see vector_types.h): online softmax over blocks of keys.

enum { KEYS_AT_ONCE = 4, VALUE_VECTORS = 8 };

// Dot products of q with four keys, each over 16 lanes. q: zero-padded to a multiple of LANES. Reads head_dim floats of each
// key.
static inline TERN_VF_INLINE v4f four_dots(const float *q, const float *const key[KEYS_AT_ONCE], size_t head_dim) {
    vf sum[KEYS_AT_ONCE][PARTS] = {{{0}}};
    size_t d = 0;
    for (; d + LANES <= head_dim; d += LANES) {
        for (size_t p = 0; p < PARTS; p++) {
            const vf part = load(q + d + p * WIDTH);
            for (size_t j = 0; j < KEYS_AT_ONCE; j++) sum[j][p] += part * load(key[j] + d + p * WIDTH);
        }
    }
    if (d < head_dim) {
        float tail[KEYS_AT_ONCE][LANES] = {{0}};
        for (size_t j = 0; j < KEYS_AT_ONCE; j++) memcpy(tail[j], key[j] + d, (head_dim - d) * sizeof(float));
        for (size_t p = 0; p < PARTS; p++) {
            for (size_t j = 0; j < KEYS_AT_ONCE; j++) sum[j][p] += load(q + d + p * WIDTH) * load(tail[j] + p * WIDTH);
        }
    }
    const v4f a = fold_lanes(sum[0]), b = fold_lanes(sum[1]), c = fold_lanes(sum[2]), e = fold_lanes(sum[3]);
    // Columns of the 4x4 matrix with rows a, b, c, e: lane j = lane 0, 1, 2 or 3 of key j.
    const v4f ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const v4f ce_low = __builtin_shufflevector(c, e, 0, 4, 1, 5), ce_high = __builtin_shufflevector(c, e, 2, 6, 3, 7);
    const v4f lane0 = __builtin_shufflevector(ab_low, ce_low, 0, 1, 4, 5),
              lane1 = __builtin_shufflevector(ab_low, ce_low, 2, 3, 6, 7);
    const v4f lane2 = __builtin_shufflevector(ab_high, ce_high, 0, 1, 4, 5);
    const v4f lane3 = __builtin_shufflevector(ab_high, ce_high, 2, 3, 6, 7);
    return (lane0 + lane2) + (lane1 + lane3);
}

// scores[j] = scale * q.k_j for j < n; the rest up to a multiple of LANES is -infinity. Returns the largest.
static inline TERN_VF_INLINE float score_block(float *scores, const float *q, const float *keys, size_t stride, size_t n,
                                               size_t head_dim, float scale) {
    for (size_t j = 0; j < n; j += KEYS_AT_ONCE) {
        const float *key[KEYS_AT_ONCE]; // past the end: the last key again
        for (size_t i = 0; i < KEYS_AT_ONCE; i++) key[i] = keys + (j + i < n ? j + i : n - 1) * stride;
        const v4f dots = four_dots(q, key, head_dim) * scale;
        memcpy(scores + j, &dots, sizeof dots);
    }
    for (size_t j = n; j < tern_round_up(n, LANES); j++) scores[j] = -INFINITY;
    vf top = load(scores);
    for (size_t j = WIDTH; j < n; j += WIDTH) top = larger(top, load(scores + j));
    float most = top[0];
    for (size_t i = 1; i < WIDTH; i++) most = most > top[i] ? most : top[i];
    return most;
}

// scores[j] = e^(scores[j] - most) for j < n, zeros up to a multiple of LANES. Returns their sum, over 16 lanes.
static inline TERN_VF_INLINE float exponentiate_block(float *scores, size_t n, float most) {
    const size_t padded = tern_round_up(n, LANES);
    for (size_t j = 0; j < padded; j += WIDTH) store(scores + j, exponential(load(scores + j) - most));
    memset(scores + n, 0, (padded - n) * sizeof *scores);
    vf sum[PARTS] = {{0}};
    for (size_t j = 0; j < padded; j += LANES) {
        for (size_t p = 0; p < PARTS; p++) sum[p] += load(scores + j + p * WIDTH);
    }
    return fold_four(fold_lanes(sum));
}

// acc[0 .. vectors * WIDTH) = acc * keep + sum_j weights[j] * values_j, keys in order. vectors is a constant after inlining.
static inline TERN_VF_INLINE void add_values(float *acc, float keep, const float *weights, const float *values, size_t stride,
                                             size_t n, size_t vectors) {
    vf sum[VALUE_VECTORS];
    for (size_t i = 0; i < vectors; i++) sum[i] = load(acc + i * WIDTH) * keep;
    for (size_t j = 0; j < n; j++) {
        const vf weight = splat(weights[j]);
        for (size_t i = 0; i < vectors; i++) sum[i] += weight * load(values + j * stride + i * WIDTH);
    }
    for (size_t i = 0; i < vectors; i++) store(acc + i * WIDTH, sum[i]);
}

static inline TERN_VF_INLINE void add_value_block(float *acc, float keep, const float *weights, const float *values,
                                                  size_t stride, size_t n, size_t head_dim) {
    size_t d = 0;
    for (; d + VALUE_VECTORS * WIDTH <= head_dim; d += VALUE_VECTORS * WIDTH)
        add_values(acc + d, keep, weights, values + d, stride, n, VALUE_VECTORS);
    if (d + VALUE_VECTORS / 2 * WIDTH <= head_dim) {
        add_values(acc + d, keep, weights, values + d, stride, n, VALUE_VECTORS / 2);
        d += VALUE_VECTORS / 2 * WIDTH;
    }
    for (; d + WIDTH <= head_dim; d += WIDTH) add_values(acc + d, keep, weights, values + d, stride, n, 1);
    for (; d < head_dim; d++) {
        float sum = acc[d] * keep;
        for (size_t j = 0; j < n; j++) sum += weights[j] * values[j * stride + d];
        acc[d] = sum;
    }
}

void TERN_VF_NAME(attention)(float *out, const float *q, const float *keys, const float *values, size_t stride, size_t n_keys,
                             size_t head_dim, float scale) {
    _Alignas(64) float padded_q[TERN_HEAD_DIM_MAX], acc[TERN_HEAD_DIM_MAX], scores[TERN_ATTN_BLOCK];
    const size_t padded_dim = tern_round_up(head_dim, LANES);
    memcpy(padded_q, q, head_dim * sizeof *q);
    memset(padded_q + head_dim, 0, (padded_dim - head_dim) * sizeof *q);
    memset(acc, 0, padded_dim * sizeof *acc);
    // Invariant: acc and total are sums of e^(score - most) over the keys so far.
    float most = -INFINITY, total = 0.0f;
    for (size_t first = 0; first < n_keys; first += TERN_ATTN_BLOCK) {
        const size_t n = n_keys - first < TERN_ATTN_BLOCK ? n_keys - first : TERN_ATTN_BLOCK;
        const float block_most = score_block(scores, padded_q, keys + first * stride, stride, n, head_dim, scale);
        const float new_most = most > block_most ? most : block_most;
        const float keep = first == 0 ? 0.0f : exponential(splat(most - new_most))[0];
        total = total * keep + exponentiate_block(scores, n, new_most);
        add_value_block(acc, keep, scores, values + first * stride, stride, n, head_dim);
        most = new_most;
    }
    const float norm = 1.0f / total;
    for (size_t d = 0; d < head_dim; d++) out[d] = acc[d] * norm;
}
