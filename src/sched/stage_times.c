// SPDX-License-Identifier: MIT
// Time by name of stage.
#include "sched/stage_times.h"

#include "sched/trace.h"

// Names are compared as pointers: they are static strings.
static tern_stage_sum *find(tern_stage_times *t, const char *name) {
    const size_t from = t->last ? (size_t)(t->last - t->sums) + 1 : 0;
    for (size_t i = 0; i < t->n; i++) {
        tern_stage_sum *sum = &t->sums[(from + i) % t->n];
        if (sum->name == name) return sum;
    }
    if (t->n == TERN_STAGE_NAMES_MAX) return &t->sums[t->n - 1];
    tern_stage_sum *sum = &t->sums[t->n++];
    *sum = (tern_stage_sum){t->n == TERN_STAGE_NAMES_MAX ? NULL : name, 0, 0};
    return sum;
}

void tern_stage_times_next(tern_stage_times *t, const tern_stage *stage) {
    if (stage && stage->n_tiles == 0) return;
    const int64_t now = tern_now_ns();
    if (t->open) {
        t->open->ns += (uint64_t)(now - t->begin_ns);
        t->open->count++;
        t->last = t->open;
    }
    t->open = stage ? find(t, stage->name) : NULL;
    t->begin_ns = now;
}
