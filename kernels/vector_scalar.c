// SPDX-License-Identifier: MIT
// The vector stages for baseline x86-64: 16 lanes in four xmm.
#define TERN_VF_BYTES 16
#define TERN_VF_NAME(stage) tern_##stage##_scalar
#include "vector_types.h"

static inline TERN_VF_INLINE v4f fold_lanes(const vf *sum) { return (sum[0] + sum[2]) + (sum[1] + sum[3]); }

#include "attention_body.h"
#include "dot_body.h"
#include "vector_body.h"
