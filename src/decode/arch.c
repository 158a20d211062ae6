// SPDX-License-Identifier: MIT
// The supported architectures. Their maths follow llama.cpp (llama-model.cpp) and the models' own papers and code.
#include "decode/arch.h"

#include <stdio.h>
#include <string.h>

static const tern_arch archs[] = {
    {.name = "llama"}, // Llama 1 to 3, Mistral, SmolLM2, Falcon3 and Llama3 at 1.58 bits, TriLM
    {.name = "bitnet-b1.58", .neox = true, .sub_norms = true, .gate = TERN_GATE_RELU2}, // BitNet b1.58 2B-4T
    {.name = "bitnet-25", .neox = true, .sub_norms = true, .gate = TERN_GATE_RELU2},    // its older name
    {.name = "bitnet", .neox = true, .sub_norms = true},                                // bitnet_b1_58 large, 3B
    {.name = "qwen2", .neox = true},
    {.name = "qwen3", .neox = true, .qk_norms = true},
    {.name = "phi3", .neox = true, .fused = true},
};
enum { N_ARCHS = sizeof archs / sizeof archs[0] };

const tern_arch *tern_arch_find(const char *name, size_t size) {
    for (size_t i = 0; i < N_ARCHS; i++)
        if (strlen(archs[i].name) == size && memcmp(archs[i].name, name, size) == 0) return &archs[i];
    return NULL;
}

void tern_arch_names(char *text, size_t size) {
    size_t at = 0;
    if (size > 0) text[0] = '\0';
    for (size_t i = 0; i < N_ARCHS && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "", archs[i].name);
}
