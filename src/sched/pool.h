// SPDX-License-Identifier: MIT
// The worker pool: fixed pinned threads that run regions (lists of dependent stages) with one wake-up and no locks.
#ifndef TERN_SCHED_POOL_H
#define TERN_SCHED_POOL_H

#include "base/base.h"
#include "sched/plan.h"
#include "sched/stage_times.h"
#include "sched/trace.h"

typedef struct tern_pool tern_pool;

// Starts the workers of a plan (copied); the caller is worker 0, and no thread is created for it. The calling thread keeps its
// own affinity, with one exception: when a region starts while it runs on the CPU of another worker, it moves to worker 0's CPU
// for that region (if its mask allows).
// Where the system refuses a thread, the pool has only the workers before it (at least the caller); where it refuses a binding,
// the worker is not bound. Then *warning says so and what to do; else it is left alone. Errors: MEMORY.
tern_status tern_pool_create(tern_pool **pool, const tern_worker_plan *plan, const tern_allocator *allocator,
                             tern_error *warning, tern_error *err);

// Accepts NULL. No region may be running. In a process forked from the creator it only frees the memory.
void tern_pool_destroy(tern_pool *pool);

int tern_pool_threads(const tern_pool *pool);

// CPU that a worker is bound to (worker 0: moves to), or TERN_CPU_NONE.
int tern_pool_cpu(const tern_pool *pool, int worker);

// How the workers divide units among them: see share.h. [tern_pool_threads + 1] entries, constant.
const uint64_t *tern_pool_bounds(const tern_pool *pool);

// Runs the stages in order; every tile exactly once; a stage starts when the stage before has finished. Returns when all is
// done. n_tiles <= INT64_MAX. STATE if called from inside a region of the same pool, or in a process forked from its creator.
tern_status tern_pool_run(tern_pool *pool, const tern_stage *stages, size_t n_stages, tern_error *err);

// Outside regions: records the regions that follow in `trace`, which has as many lanes as the pool has threads; NULL: in none.
void tern_pool_set_trace(tern_pool *pool, tern_trace *trace);

// Outside regions: sums up the time of the stages that follow in `times`; NULL: no longer.
void tern_pool_set_times(tern_pool *pool, tern_stage_times *times);

// tiles, stolen and regions are exact for every region that has returned; the others may lag.
typedef struct tern_pool_counters {
    uint64_t tiles;   // run
    uint64_t stolen;  // of them, of another worker's share
    uint64_t regions; // taken part in (ran a tile of)
    uint64_t spin_ns; // waited awake, inside regions and before it went to sleep
    uint64_t parks;   // times it went to sleep
    uint64_t wakes;   // sleeping workers it woke
} tern_pool_counters;
tern_pool_counters tern_pool_worker_counters(const tern_pool *pool, int worker);

#endif
