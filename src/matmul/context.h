// SPDX-License-Identifier: MIT
// The inside of a tern_context: CPU, chosen kernels, pool, allocator, last error.
#ifndef TERN_MATMUL_CONTEXT_H
#define TERN_MATMUL_CONTEXT_H

#include <stdatomic.h>

#include "base/base.h"
#include "cpu/dispatch.h"
#include "matmul/line.h"
#include "matmul/tune.h"
#include "sched/pool.h"
#include "tern/diagnostics.h"

enum { TERN_WARNINGS_MAX = 4 * TERN_ERROR_MAX }; // of the topology, the pool and the tuning table

struct tern_context {
    tern_cpu cpu;
    tern_topology topology;
    tern_numa *numa;            // to bind memory to NUMA nodes, or NULL
    int quota_millis;           // CPUs that the cgroups pay for, in thousandths; 0: no quota
    tern_worker_plan placement; // as the pool could be had; with a caller's parallel_for: threads that Tern knows nothing of
    tern_kernels kernels;
    const tern_variant *forced; // last variant forced through diagnostics.h, or NULL
    tern_pool *pool;            // NULL with a caller's parallel_for
    tern_parallel_for_fn parallel_for;
    void *parallel_for_user;
    tern_trace *trace; // running or stopped last, or NULL
    bool tracing;
    tern_stage_times *times; // &stage_times, or NULL: off
    tern_stage_times stage_times;
    int threads;
    bool in_region;              // written outside regions by the calling thread, read inside one by anyone
    atomic_flag nested_reported; // set by the first tile of a region that calls back: it alone may write the error then
    tern_allocator allocator;
    tern_error error;
    char warning[TERN_WARNINGS_MAX]; // reasons of creation, in one line
    tern_tuning tune;
};

// Runs a region on the pool or the caller's parallel_for. STATE (inside a region; after fork). Stages are trusted: fn not NULL
// where n_tiles > 0.
tern_status tern_context_run(tern_context *ctx, const tern_stage *stages, size_t n_stages);

// How the workers divide tiles, and so the rows of weights.
static inline tern_sharing tern_context_sharing(const tern_context *ctx) {
    return (tern_sharing){ctx->pool ? tern_pool_bounds(ctx->pool) : NULL, (size_t)ctx->threads};
}

#endif
