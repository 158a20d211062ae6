// SPDX-License-Identifier: MIT
// The table of ggml tensor types, and their names for messages.
#include "format/ggml_types.h"

#include <stdio.h>

#include "format/blocks.h"

// Ids 31..33 and 36..38 are retired upstream; forks reuse 36, 38 and 39 for ternary types with a size of their own.
static const tern_ggml_type known[] = {
    {TERN_GGML_F32, 1, 4, "F32", "F32"},
    {TERN_GGML_F16, 1, 2, "F16", "F16"},
    {TERN_GGML_Q4_0, 32, 18, "Q4_0", "Q4_0"},
    {TERN_GGML_Q4_1, 32, 20, "Q4_1", "Q4_1"},
    {4, 0, 0, "Q4_2", "Q8_0"},
    {5, 0, 0, "Q4_3", "Q8_0"},
    {TERN_GGML_Q5_0, 32, 22, "Q5_0", "Q5_0"},
    {TERN_GGML_Q5_1, 32, 24, "Q5_1", "Q5_1"},
    {TERN_GGML_Q8_0, 32, 34, "Q8_0", "Q8_0"},
    {9, 32, 40, "Q8_1", "Q8_0"},
    {10, 256, 84, "Q2_K", "Q8_0"},
    {11, 256, 110, "Q3_K", "Q8_0"},
    {TERN_GGML_Q4_K, 256, 144, "Q4_K", "Q4_K"},
    {TERN_GGML_Q5_K, 256, 176, "Q5_K", "Q5_K"},
    {TERN_GGML_Q6_K, 256, 210, "Q6_K", "Q6_K"},
    {15, 256, 292, "Q8_K", "Q8_0"},
    {16, 256, 66, "IQ2_XXS", "Q8_0"},
    {17, 256, 74, "IQ2_XS", "Q8_0"},
    {18, 256, 98, "IQ3_XXS", "Q8_0"},
    {19, 256, 50, "IQ1_S", "Q8_0"},
    {20, 32, 18, "IQ4_NL", "Q8_0"},
    {21, 256, 110, "IQ3_S", "Q8_0"},
    {22, 256, 82, "IQ2_S", "Q8_0"},
    {23, 256, 136, "IQ4_XS", "Q8_0"},
    {24, 1, 1, "I8", "F32"},
    {25, 1, 2, "I16", "F32"},
    {26, 1, 4, "I32", "F32"},
    {27, 1, 8, "I64", "F32"},
    {28, 1, 8, "F64", "F32"},
    {29, 256, 56, "IQ1_M", "Q8_0"},
    {TERN_GGML_BF16, 1, 2, "BF16", "BF16"},
    {31, 0, 0, "Q4_0_4_4", "Q4_0"},
    {32, 0, 0, "Q4_0_4_8", "Q4_0"},
    {33, 0, 0, "Q4_0_8_8", "Q4_0"},
    {TERN_GGML_TQ1_0, 256, 54, "TQ1_0", "TQ1_0"},
    {TERN_GGML_TQ2_0, 256, 66, "TQ2_0", "TQ2_0"},
    {TERN_GGML_I2_S, 0, 0, "I2_S", "I2_S"},
    {37, 0, 0, "IQ4_NL_4_8", "Q8_0"},
    {38, 0, 0, "TL1", "TQ2_0"},
    {39, 0, 0, "MXFP4 or TL2", "Q8_0 (MXFP4) or TQ2_0 (TL2)"},
    {40, 64, 36, "NVFP4", "Q8_0"},
    {TERN_GGML_Q1_0, 128, 18, "Q1_0", "Q1_0"},
    {TERN_GGML_Q2_0, 0, 0, "Q2_0", "Q2_0"},
    {TERN_GGML_IQ1_BN, 0, 0, "IQ1_BN", "IQ1_BN"},
    {TERN_GGML_IQ2_BN, 0, 0, "IQ2_BN", "IQ2_BN"},
};

const tern_ggml_type *tern_ggml_type_find(uint32_t id) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].id == id) return &known[i];
    }
    return NULL;
}

const char *tern_ggml_type_name(uint32_t id, char buf[32]) {
    enum { NAME_BUF = 32 };
    const tern_ggml_type *type = tern_ggml_type_find(id);
    (void)snprintf(buf, NAME_BUF, "%s (%u)", type ? type->name : "unknown", (unsigned)id);
    return buf;
}
