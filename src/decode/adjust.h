// SPDX-License-Identifier: MIT
// Changes of logits before a token is chosen: biases of single tokens, and the penalty for repeating what was said lately.
#ifndef TERN_DECODE_ADJUST_H
#define TERN_DECODE_ADJUST_H

#include "base/base.h"
#include "tern/decode.h"

typedef struct tern_adjust tern_adjust;

// *out is NULL where the params change nothing. The biases are copied; all memory is allocated here. Errors: ARG, MEMORY.
tern_status tern_adjust_create(tern_adjust **out, const tern_sampler_params *params, size_t n_vocab,
                               const tern_allocator *allocator, tern_error *err);
void tern_adjust_destroy(tern_adjust *adjust); // NULL is fine

void tern_adjust_accept(tern_adjust *adjust, int32_t token);
void tern_adjust_forget(tern_adjust *adjust);

// The changed logits [n_vocab], valid until the next call: first biases are added, then the logit of each token said is divided
// by the penalty if it is positive and multiplied by it if not, once, however often the token was said.
const float *tern_adjust_apply(tern_adjust *adjust, const float *logits);

#endif
