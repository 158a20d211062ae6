// SPDX-License-Identifier: MIT
// The epilogue for AVX2.
#define TERN_VF_BYTES 32
#define TERN_VF_NAME(stage) tern_##stage##_avx2
#include "epilogue_body.h"
