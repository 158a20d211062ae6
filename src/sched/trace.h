// SPDX-License-Identifier: MIT
// A trace of what the workers of a pool do: slices of time, in memory that is allocated before.
//
// Nothing here is atomic. A worker writes to the trace only while it holds the region open (between a claim and its report, or
// alone in the region), and the pool's protocol orders that: what an advancer writes of a stage is published with the stage,
// and what workers write is reported with their tiles. So a worker that waits outside never touches a trace, and the caller may
// start, stop and read one between regions. A wait is recorded when it has ended, by the claim that ended it.
#ifndef TERN_SCHED_TRACE_H
#define TERN_SCHED_TRACE_H

#include <time.h>

#include "base/base.h"
#include "tern/diagnostics.h"

typedef struct tern_trace tern_trace;

// Room for `capacity` events of each of n_workers. Errors: MEMORY.
tern_status tern_trace_create(tern_trace **trace, int n_workers, size_t capacity, const tern_allocator *allocator,
                              tern_error *err);
void tern_trace_destroy(tern_trace *trace); // accepts NULL

// For the caller, outside regions.
size_t tern_trace_events(const tern_trace *trace);
uint64_t tern_trace_lost(const tern_trace *trace);
tern_trace_event tern_trace_event_at(const tern_trace *trace, size_t index); // index < tern_trace_events(trace)

// CLOCK_MONOTONIC: 30 ns through the vDSO, against 22 ns of a TSC reading that is ordered as it has to be (lfence), which would
// also have to be calibrated, and trusted to run alike on all cores.
static inline int64_t tern_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// ---- what the pool calls, each behind one test of its trace pointer ------------------------------------------------

// A worker's last sleep: the worker keeps it for itself while it must not touch the trace.
typedef struct tern_sleep {
    int64_t begin_ns, end_ns;
} tern_sleep;

// The caller, alone in the region: before its first stage, and after its last one.
void tern_trace_begin_region(tern_trace *trace, size_t n_stages);
void tern_trace_end_region(tern_trace *trace, tern_sleep sleep);

// Whoever is alone in the region ends the stage before, if there is one, and begins the next of the list (NULL: none is left).
void tern_trace_next_stage(tern_trace *trace, int worker, const tern_stage *stage);

// A worker that was waiting holds a tile now, and begins to run it. `sleep` may lie long ago.
void tern_trace_end_wait(tern_trace *trace, int worker, tern_sleep sleep);

// A worker has run tiles first .. first + count - 1 of the open stage since begin_ns, and not reported them yet.
void tern_trace_tiles(tern_trace *trace, int worker, size_t first, size_t count, bool stolen, int64_t begin_ns);

#endif
