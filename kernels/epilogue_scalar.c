// SPDX-License-Identifier: MIT
// The epilogue for baseline x86-64.
#define TERN_VF_BYTES 16
#define TERN_VF_NAME(stage) tern_##stage##_scalar
#include "epilogue_body.h"
