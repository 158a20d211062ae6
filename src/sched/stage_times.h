// SPDX-License-Identifier: MIT
// Time by name of stage, summed over regions. Like a trace it is written by whoever is alone in the region, so nothing is
// atomic.
#ifndef TERN_SCHED_STAGE_TIMES_H
#define TERN_SCHED_STAGE_TIMES_H

#include "base/base.h"

enum { TERN_STAGE_NAMES_MAX = 64 }; // a forward pass has some 20; what has no room is summed up in the last entry

typedef struct tern_stage_sum {
    const char *name;
    uint64_t ns, count;
} tern_stage_sum;

typedef struct tern_stage_times {
    size_t n;
    tern_stage_sum sums[TERN_STAGE_NAMES_MAX];
    tern_stage_sum *open; // of the stage that runs, or NULL
    tern_stage_sum *last; // of the stage before: its neighbour is looked at first, because regions repeat
    int64_t begin_ns;     // of the stage that runs
} tern_stage_times;

// Whoever is alone in the region ends the stage before, if there is one, and begins the next of the list (NULL: none is left).
void tern_stage_times_next(tern_stage_times *times, const tern_stage *stage);

#endif
