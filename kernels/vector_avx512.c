// SPDX-License-Identifier: MIT
// The vector stages for AVX-512: 16 lanes in one zmm.
#define TERN_VF_BYTES 64
#define TERN_VF_NAME(stage) tern_##stage##_avx512
#include "vector_types.h"

typedef float v8f __attribute__((vector_size(32)));

static inline TERN_VF_INLINE v4f fold_lanes(const vf *sum) {
    const v8f s = __builtin_shufflevector(sum[0], sum[0], 0, 1, 2, 3, 4, 5, 6, 7) +
                  __builtin_shufflevector(sum[0], sum[0], 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(s, s, 0, 1, 2, 3) + __builtin_shufflevector(s, s, 4, 5, 6, 7);
}

#include "attention_body.h"
#include "dot_body.h"
#include "vector_body.h"
