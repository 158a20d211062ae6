// SPDX-License-Identifier: MIT
// The stages of a layer between its projections: rope, KV cache, attention.
#ifndef TERN_DECODE_ATTENTION_H
#define TERN_DECODE_ATTENTION_H

#include "decode/linear.h"

// Appends the stage that norms and rotates q and k by their positions and writes k and v to the caches of their sessions.
void tern_rope_and_cache_add(tern_pass *f, size_t layer);

// Appends the stages of attention: buf.att from buf.q and the caches. Every query head of a token sees the blocks of
// TERN_ATTN_BLOCK keys one by one, merged in key order, so that its result does not depend on how tiles are cut.
void tern_attention_add(tern_pass *f, size_t layer);

#endif
