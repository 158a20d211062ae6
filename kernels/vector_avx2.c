// SPDX-License-Identifier: MIT
// The vector stages for AVX2: 16 lanes in two ymm.
#define TERN_VF_BYTES 32
#define TERN_VF_NAME(stage) tern_##stage##_avx2
#include "vector_types.h"

static inline TERN_VF_INLINE v4f fold_lanes(const vf *sum) {
    const vf s = sum[0] + sum[1];
    return __builtin_shufflevector(s, s, 0, 1, 2, 3) + __builtin_shufflevector(s, s, 4, 5, 6, 7);
}

#include "attention_body.h"
#include "dot_body.h"
#include "vector_body.h"
