// SPDX-License-Identifier: MIT
// The worker pool: fixed pinned threads that run regions (lists of dependent stages) with one wake-up and no locks.
#ifndef TERN_SCHED_POOL_H
#define TERN_SCHED_POOL_H

#include "base/base.h"
#include "sched/topology.h"

typedef struct tern_pool tern_pool;

// n_threads >= 1 workers, the caller is worker 0 (no thread is created for it). cpus[i]: OS CPU number to pin worker i to, or
// NULL: no pinning. Worker 0 (the caller) is pinned only while a region runs, and its affinity is restored: unless it is
// already allowed on that CPU only. Errors: THREADS (message says how many could be created), MEMORY.
tern_status tern_pool_create(tern_pool **pool, int n_threads, const int *cpus, const tern_allocator *allocator, tern_error *err);
void tern_pool_destroy(tern_pool *pool);

int tern_pool_threads(const tern_pool *pool);

// Runs the stages in order; every tile exactly once; a stage starts when the stage before has finished. Returns when all is done.
// STATE if called from inside a region of the same pool.
tern_status tern_pool_run(tern_pool *pool, const tern_stage *stages, size_t n_stages);

typedef struct tern_pool_counters {
    uint64_t tiles, regions, parks;
} tern_pool_counters;
tern_pool_counters tern_pool_worker_counters(const tern_pool *pool, int worker);

#endif
