// SPDX-License-Identifier: MIT
// Runs a region: claiming of tiles, the barrier between stages, and the hand-over from one stage to the next.
#include "sched/affinity.h"
#include "sched/pool_state.h"

// Counts tiles for a worker that holds the region open (or runs alone in it).
static void count_tiles(const tern_pool *pool, tern_worker *self, uint64_t tiles) {
    // relaxed: only this worker writes its counters; readers are ordered by the end of the region.
    atomic_store_explicit(&self->tiles, atomic_load_explicit(&self->tiles, memory_order_relaxed) + tiles, memory_order_relaxed);
    if (self->last_region == pool->region) return;
    self->last_region = pool->region;
    atomic_store_explicit(&self->regions, atomic_load_explicit(&self->regions, memory_order_relaxed) + 1, memory_order_relaxed);
}

static int number(const tern_pool *pool, const tern_worker *worker) { return (int)(worker - pool->workers); }

static void run_alone(const tern_pool *pool, tern_worker *self, const tern_stage *stage) {
    if (stage->n_tiles == 0) return;
    const int64_t begin_ns = pool->trace ? tern_now_ns() : 0;
    for (size_t tile = 0; tile < stage->n_tiles; tile++) stage->fn(stage->arg, tile);
    if (pool->trace) tern_trace_tiles(pool->trace, number(pool, self), 0, stage->n_tiles, false, begin_ns);
    count_tiles(pool, self, stage->n_tiles);
}

static void open_stage(tern_pool *pool, const tern_stage *stage) {
    const int64_t n = (int64_t)stage->n_tiles;
    pool->open_fn = stage->fn;
    pool->open_arg = stage->arg;
    pool->open_tiles = n;
    // relaxed: the store of ticket below publishes it.
    atomic_store_explicit(&pool->finished, 0, memory_order_relaxed);
    // seq_cst: as a release it publishes the fields above, and the writes of all earlier tiles, to whoever claims a tile;
    // as seq_cst it comes before the look for sleepers (see park() in wait.c). From here on the stage may end at any moment.
    atomic_store_explicit(&pool->ticket, n, memory_order_seq_cst);
    tern_pool_wake(pool, n - 1);
}

// The calling thread is alone in the region: every tile so far is finished, none is published.
static void advance(tern_pool *pool, tern_worker *self) {
    while (pool->next_stage < pool->n_stages) {
        const tern_stage *stage = &pool->stages[pool->next_stage++];
        if (pool->trace) tern_trace_next_stage(pool->trace, number(pool, self), stage);
        if (stage->n_tiles > 1) {
            open_stage(pool, stage);
            return;
        }
        run_alone(pool, self, stage);
    }
    if (pool->trace) tern_trace_next_stage(pool->trace, number(pool, self), NULL);
    // seq_cst: as a release it hands the writes of all tiles to the caller's poll; see also open_stage().
    atomic_store_explicit(&pool->ticket, TERN_TICKET_OVER, memory_order_seq_cst);
    if (self != &pool->workers[0]) tern_pool_wake_one(pool, &pool->workers[0]);
}

// Claims and runs tiles of the open stage until none is left, then reports them.
static void take_tiles(tern_pool *pool, tern_worker *self) {
    int64_t done = 0, total = 0, left;
    do {
        // acquire: pairs with the release in open_stage() (claims by others in between continue its release sequence), so the
        // open_* fields and all writes of earlier stages are visible.
        left = atomic_fetch_sub_explicit(&pool->ticket, 1, memory_order_acquire);
        if (!tern_ticket_open(left)) break;
        total = pool->open_tiles; // constant until this worker reports: its claims hold the stage open
        tern_trace *trace = pool->trace;
        if (trace && done == 0) tern_trace_end_wait(trace, number(pool, self), self->sleep);
        const int64_t begin_ns = trace ? tern_now_ns() : 0;
        pool->open_fn(pool->open_arg, (size_t)(total - left));
        if (trace) tern_trace_tiles(trace, number(pool, self), (size_t)(total - left), 1, false, begin_ns);
        done++;
    } while (left > 1);
    if (done == 0) return;
    count_tiles(pool, self, (uint64_t)done);
    // acq_rel: release hands this worker's writes to the advancer, acquire takes everybody's if this is the last report.
    // After a report that is not the last, nothing of the stage may be touched.
    if (atomic_fetch_add_explicit(&pool->finished, done, memory_order_acq_rel) + done == total) advance(pool, self);
}

void tern_pool_work(tern_pool *pool, tern_worker *self) {
    while (!tern_ticket_stop(tern_pool_wait(pool, self, false))) take_tiles(pool, self);
}

static void run_shared(tern_pool *pool, size_t first_wide) {
    tern_worker *self = &pool->workers[0];
    tern_saved_affinity saved;
    const bool moved = tern_affinity_leave_workers(pool->cpus, pool->n_threads, &saved);
    // Sleepers wake up while the caller runs the serial stages that come first.
    if (first_wide > 0) tern_pool_wake(pool, (int64_t)pool->stages[first_wide].n_tiles - 1);
    advance(pool, self);
    while (!tern_ticket_over(tern_pool_wait(pool, self, true))) take_tiles(pool, self);
    if (moved) tern_affinity_restore(&saved);
}

static void run_by_caller(tern_pool *pool) {
    for (size_t i = 0; i < pool->n_stages; i++) {
        if (pool->trace) tern_trace_next_stage(pool->trace, 0, &pool->stages[i]);
        run_alone(pool, &pool->workers[0], &pool->stages[i]);
    }
    if (pool->trace) tern_trace_next_stage(pool->trace, 0, NULL);
}

static size_t find_wide(const tern_stage *stages, size_t n_stages) {
    size_t i = 0;
    while (i < n_stages && stages[i].n_tiles <= 1) i++;
    return i;
}

tern_status tern_pool_run(tern_pool *pool, const tern_stage *stages, size_t n_stages, tern_error *err) {
    // No message: other threads of the region may be writing one.
    if (pool->in_region) return TERN_ERR_STATE;
    if (tern_pool_is_forked(pool)) {
        return tern_fail(err, TERN_ERR_STATE,
                         "this context was created before fork(), which does not copy its threads; create a new one");
    }
    const size_t first_wide = find_wide(stages, n_stages);
    pool->in_region = true;
    pool->region++;
    pool->stages = stages;
    pool->n_stages = n_stages;
    pool->next_stage = 0;
    if (pool->trace) tern_trace_begin_region(pool->trace, n_stages);
    if (pool->n_threads > 1 && first_wide < n_stages) {
        run_shared(pool, first_wide);
    } else {
        run_by_caller(pool);
    }
    if (pool->trace) tern_trace_end_region(pool->trace, pool->workers[0].sleep);
    pool->in_region = false;
    return TERN_OK;
}
