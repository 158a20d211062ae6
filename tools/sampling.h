// SPDX-License-Identifier: MIT
// Options of an answer that generate and chat share: which model, how its tokens are chosen, and where it ends.
#ifndef TERN_TOOLS_SAMPLING_H
#define TERN_TOOLS_SAMPLING_H

#include "cli.h"

enum { SAMPLING_MAX_TOKENS = 1 << 30, SAMPLING_MAX_DRAFT = 64, SAMPLING_MAX_STOPS = 16, SAMPLING_MAX_BIASES = 256 };

typedef struct sampling_options {
    tern_sampler_params params; // its biases are set by answer_open
    tern_logit_bias biases[SAMPLING_MAX_BIASES];
    size_t n_predict, n_ctx;               // 0: the command's default
    size_t n_draft;                        // tokens guessed at a time; 0: none
    const char *stops[SAMPLING_MAX_STOPS]; // text that ends an answer, and is no part of it
    size_t n_stops;
} sampling_options;

// All options that generate and chat share. A command's struct begins with this.
typedef struct answer_options {
    cli_options base;
    sampling_options sampling;
} answer_options;
extern const struct argp answer_argp;

#endif
