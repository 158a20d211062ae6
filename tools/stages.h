// SPDX-License-Identifier: MIT
// Where the time of an answer goes: the stages of the forward pass in a few groups.
#ifndef TERN_TOOLS_STAGES_H
#define TERN_TOOLS_STAGES_H

#include "cli.h"

typedef enum stage_group {
    STAGE_NORM, // norms, and quantizing what they make
    STAGE_QKV,
    STAGE_ATTENTION, // rope, KV cache, scores and values, the product behind them
    STAGE_FFN,
    STAGE_HEAD,
    STAGE_SAMPLE, // choosing the token
    STAGE_OTHER,  // embedding, lookup tables
    STAGE_GROUPS
} stage_group;

// Milliseconds, in sum.
typedef struct stage_times {
    double ms[STAGE_GROUPS];
} stage_times;

// Sums up the stages of ctx from now on.
int stages_begin(tern_context *ctx);
// Those since stages_begin, which it then ends, and what the caller measured of sampling.
int stages_end(tern_context *ctx, double sample_s, stage_times *times);

// {"norm": ms / per, ...}
json_t *stages_json(const stage_times *times, size_t per);
// A line on stderr: milliseconds / per of each group, and its share.
void stages_print(const char *what, const stage_times *times, size_t per);

#endif
