// SPDX-License-Identifier: MIT
// Several answers to one prompt, written at once: the prompt is read once, and each step decodes one token of every answer.
#ifndef TERN_TOOLS_PARALLEL_H
#define TERN_TOOLS_PARALLEL_H

#include "answer.h"

enum { PARALLEL_MAX = 256 };

typedef struct parallel {
    tern_context *ctx;
    tern_model *model;
    size_t n;
    answer *answers;           // [n]; answer i has the seed of the options + i
    sampling_options *options; // [n]
    tern_session **sessions;   // [n], of each answer
    tern_session **batch;      // [n], those of a step
    double begin_s, seconds;   // of the first step, and from there to the end
    size_t n_steps, n_decoded; // steps, and tokens that they made
} parallel;

// All fail with an error line and CLI_FAILED. options must live until parallel_close, which takes one that was not opened, or
// not wholly, as well.
int parallel_open(parallel *p, tern_context *ctx, tern_model *model, const sampling_options *options, size_t n_ctx,
                  tern_kv_type kv, size_t n);
void parallel_close(parallel *p);

// As answer_read and answer_write; interrupted while reading, each answer has that stop.
int parallel_read(parallel *p, const int32_t *tokens, size_t n);
// `done` is called for each answer that has ended, in the order in which they do.
typedef int parallel_done_fn(void *user, parallel *p, size_t index);
int parallel_write(parallel *p, parallel_done_fn *done, void *user);

#endif
