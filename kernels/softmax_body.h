// SPDX-License-Identifier: MIT
// The softmax of a block of scores, for the tier that includes this (see vector_types.h).
#ifndef TERN_KERNELS_SOFTMAX_BODY_H
#define TERN_KERNELS_SOFTMAX_BODY_H

#include "vector_types.h"

// Of n >= 1 scores; what follows up to a multiple of LANES must not be larger.
static inline TERN_VF_INLINE float largest(const float *scores, size_t n) {
    vf top[PARTS]; // chains of their own
    for (size_t p = 0; p < PARTS; p++) top[p] = load(scores + p * WIDTH);
    for (size_t j = LANES; j < n; j += LANES) {
        for (size_t p = 0; p < PARTS; p++) top[p] = larger(top[p], load(scores + j + p * WIDTH));
    }
    for (size_t p = 1; p < PARTS; p++) top[0] = larger(top[0], top[p]);
    float most = top[0][0];
    for (size_t i = 1; i < WIDTH; i++) most = most > top[0][i] ? most : top[0][i];
    return most;
}

// scores[j] = e^(scores[j] - most) for j < n, zeros up to a multiple of LANES. Returns their sum, over 16 lanes.
static inline TERN_VF_INLINE float exponentiate(float *scores, size_t n, float most) {
    const size_t padded = tern_round_up(n, LANES);
    for (size_t j = 0; j < padded; j += WIDTH) store(scores + j, exponential(load(scores + j) - most));
    memset(scores + n, 0, (padded - n) * sizeof *scores);
    vf sum[PARTS] = {{0}};
    for (size_t j = 0; j < padded; j += LANES) {
        for (size_t p = 0; p < PARTS; p++) sum[p] += load(scores + j + p * WIDTH);
    }
    return fold_four(fold_lanes(sum));
}

#endif
