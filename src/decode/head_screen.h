// SPDX-License-Identifier: MIT
// The stages of a screened head (screen.h).
#ifndef TERN_DECODE_HEAD_SCREEN_H
#define TERN_DECODE_HEAD_SCREEN_H

#include "decode/linear.h"
#include "decode/loader.h"

// Makes head.screen, where head.w is in its layout. Errors: MEMORY.
tern_status tern_head_screen_create(tern_loader *ld);

// Takes hidden states of this pass as samples, while some are wanted; with enough of them, finds directions and makes the
// marks. Before anything moves the rows of buf.x.
void tern_head_screen_learn(tern_pass *f);

// Appends a screened product of row 0 of the input, if one is possible now: the `top` largest logits, -INFINITY in place of
// others. False, and nothing is added: all logits are to be computed.
bool tern_head_screen_add(tern_pass *f, tern_input input, size_t top, float *logits);

#endif
