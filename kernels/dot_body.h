// SPDX-License-Identifier: MIT
// Dot products with rows of float32 or float16, for the tier that includes this (see vector_types.h).
#include "half_vector.h"

enum { DOT_TOKENS = 4 }; // tokens that share a row's conversion

// WIDTH weights from element i on. half: a constant after inlining.
static inline TERN_VF_INLINE vf load_weights(const unsigned char *row, size_t i, bool half) {
    if (half) {
        vh h;
        memcpy(&h, row + i * sizeof(uint16_t), sizeof h);
        return half_to_float(h);
    }
    vf v;
    memcpy(&v, row + i * sizeof(float), sizeof v);
    return v;
}

// One row with `tokens` vectors, a constant.
static inline TERN_VF_INLINE void dot_row(float *y, const tern_dot_args *a, const float *x, const unsigned char *row,
                                          size_t tokens, bool half) {
    const size_t bytes = half ? sizeof(uint16_t) : sizeof(float), k = a->k;
    vf sum[DOT_TOKENS][PARTS] = {{{0}}};
    size_t i = 0;
    for (; i + LANES <= k; i += LANES) {
        for (size_t p = 0; p < PARTS; p++) {
            const vf w = load_weights(row, i + p * WIDTH, half);
            for (size_t t = 0; t < tokens; t++) sum[t][p] += load(x + t * a->ldx + i + p * WIDTH) * w;
        }
    }
    if (i < k) {
        unsigned char tail[LANES * sizeof(float)] = {0};
        memcpy(tail, row + i * bytes, (k - i) * bytes);
        for (size_t t = 0; t < tokens; t++) {
            float last[LANES] = {0};
            memcpy(last, x + t * a->ldx + i, (k - i) * sizeof *last);
            for (size_t p = 0; p < PARTS; p++) sum[t][p] += load(last + p * WIDTH) * load_weights(tail, p * WIDTH, half);
        }
    }
    for (size_t t = 0; t < tokens; t++) y[t * a->ldy] = fold_four(fold_lanes(sum[t]));
}

static inline TERN_VF_INLINE void dot_rows(const tern_dot_args *a, bool half) {
    const size_t row_bytes = a->k * (half ? sizeof(uint16_t) : sizeof(float));
    for (size_t i = 0; i < a->n; i++) {
        const unsigned char *row = (const unsigned char *)a->rows + i * row_bytes;
        size_t t = 0;
        for (; t + DOT_TOKENS <= a->m; t += DOT_TOKENS)
            dot_row(a->y + t * a->ldy + i, a, a->x + t * a->ldx, row, DOT_TOKENS, half);
        for (; t < a->m; t++) dot_row(a->y + t * a->ldy + i, a, a->x + t * a->ldx, row, 1, half);
    }
}

void TERN_VF_NAME(dot_f32)(const tern_dot_args *a) { dot_rows(a, false); }
void TERN_VF_NAME(dot_f16)(const tern_dot_args *a) { dot_rows(a, true); }
