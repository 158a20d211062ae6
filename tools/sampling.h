// SPDX-License-Identifier: MIT
// Options of an answer that generate and chat share: how its tokens are chosen, and where it ends.
#ifndef TERN_TOOLS_SAMPLING_H
#define TERN_TOOLS_SAMPLING_H

#include "cli.h"

enum { SAMPLING_MAX_TOKENS = 1 << 30, SAMPLING_MAX_DRAFT = 64 };

typedef struct sampling_options {
    tern_sampler_params params;
    size_t n_predict, n_ctx; // 0: the command's default
    size_t n_draft;          // tokens guessed at a time; 0: none
} sampling_options;

extern const struct argp sampling_argp; // its input is a sampling_options

#endif
