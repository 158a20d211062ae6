// SPDX-License-Identifier: MIT
// What tells one supported architecture from another, as a table, so that the forward pass needs no forks.
#ifndef TERN_DECODE_ARCH_H
#define TERN_DECODE_ARCH_H

#include "base/base.h"

typedef enum tern_gate { TERN_GATE_SILU, TERN_GATE_RELU2 } tern_gate;

typedef struct tern_arch {
    const char *name; // general.architecture, and the prefix of the keys
    bool neox;        // rope rotates elements i and i + rope_dim / 2 of a head; else 2i and 2i + 1
    bool sub_norms;   // RMSNorm of the attention's output before attn_output, and of the gated rows before ffn_down
    bool qk_norms;    // RMSNorm of each query and key head before rope
    bool fused;       // attn_qkv holds the rows of q, k and v; ffn_up those of gate and up
    tern_gate gate;   // of ffn_gate, times ffn_up
} tern_arch;

const tern_arch *tern_arch_find(const char *name, size_t size); // NULL: not supported
void tern_arch_names(char *text, size_t size);                  // all of them, for messages: "llama, qwen2, ..."

#endif
