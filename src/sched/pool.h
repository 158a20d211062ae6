// SPDX-License-Identifier: MIT
// The worker pool: fixed pinned threads that run regions (lists of dependent stages) with one wake-up and no locks.
#ifndef TERN_SCHED_POOL_H
#define TERN_SCHED_POOL_H

#include "base/base.h"
#include "sched/topology.h"

typedef struct tern_pool tern_pool;

enum { TERN_CPU_NONE = -1 };

// n_threads >= 1 workers; the caller is worker 0, and no thread is created for it. cpus[i]: OS CPU number worker i is bound to,
// or TERN_CPU_NONE: worker i is not bound; cpus NULL: none is. The calling thread keeps its own affinity, with one exception:
// when a region starts while it runs on the CPU of another worker, it moves to cpus[0] for that region (if its mask allows).
// Errors: THREADS (message says how many could be created), MEMORY.
tern_status tern_pool_create(tern_pool **pool, int n_threads, const int *cpus, const tern_allocator *allocator,
                             tern_error *err);

// Accepts NULL. No region may be running. In a process forked from the creator it only frees the memory.
void tern_pool_destroy(tern_pool *pool);

int tern_pool_threads(const tern_pool *pool);

// Runs the stages in order; every tile exactly once; a stage starts when the stage before has finished. Returns when all is
// done. n_tiles <= INT64_MAX. STATE if called from inside a region of the same pool, or in a process forked from its creator.
tern_status tern_pool_run(tern_pool *pool, const tern_stage *stages, size_t n_stages, tern_error *err);

// Exact for every region that has returned.
typedef struct tern_pool_counters {
    uint64_t tiles, regions, parks; // run; taken part in (ran a tile of); times it went to sleep
} tern_pool_counters;
tern_pool_counters tern_pool_worker_counters(const tern_pool *pool, int worker);

#endif
