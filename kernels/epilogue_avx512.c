// SPDX-License-Identifier: MIT
// The epilogue for AVX-512.
#define TERN_VF_BYTES 64
#define TERN_VF_NAME(stage) tern_##stage##_avx512
#include "epilogue_body.h"
