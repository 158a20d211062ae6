// SPDX-License-Identifier: MIT
// Runs a region: claiming and stealing of grains, the barrier between stages, and the hand-over from one stage to the next.
#include "sched/affinity.h"
#include "sched/pool_state.h"

// ---- claiming ----------------------------------------------------------------------------------------------------

// relaxed: only compared; what the value stands for was ordered by the first load or store of it.
static bool is_open(const tern_group *group, uint64_t open) {
    return atomic_load_explicit(&group->open, memory_order_relaxed) == open;
}

// Unclaimed grains of worker w's share of the stage that `open` names, as `range` tells it.
static uint32_t unclaimed(const tern_pool *pool, int w, uint64_t open, tern_range range) {
    if (range.epoch == tern_open_epoch(open)) return (uint32_t)(range.hi - range.lo);
    if (tern_epoch_older(tern_open_epoch(open), range.epoch)) return 0; // the stage is over
    return tern_share_size(pool, w, w + 1, tern_open_grains(open));
}

// Claims a grain of worker w's share: its owner the first, a thief the last one. False: none is left, or the stage is over.
static bool claim(tern_pool *pool, const tern_worker *self, int w, uint64_t open, uint32_t *grain) {
    _Atomic uint64_t *word = &pool->workers[w].range;
    // acquire: the look at `open` below comes after it. Without that look, a thread held between its load of `open` and this
    // one for 2^31 epochs would take a newer range for an older one.
    uint64_t old = atomic_load_explicit(word, memory_order_acquire);
    for (;;) {
        tern_range range = tern_range_read(old);
        if (unclaimed(pool, w, open, range) == 0) return false;
        if (range.epoch != tern_open_epoch(open)) {
            if (!is_open(self->group, open)) return false;
            range = (tern_range){tern_open_epoch(open), 0, (uint16_t)unclaimed(pool, w, open, range)};
        }
        const uint32_t at = w == self->index ? range.lo++ : --range.hi;
        TERN_POOL_STEP();
        // The claim itself needs no order: by (3) in pool_state.h it is enough that the CAS is atomic on this word, and what
        // the tiles read was ordered by the acquire load of `open`. release: whoever loads this range and then looks at `open`
        // sees one at least as new as this worker's. acquire: for the next try, as above.
        if (atomic_compare_exchange_weak_explicit(word, &old, tern_range_make(range), memory_order_acq_rel,
                                                  memory_order_acquire)) {
            *grain = (uint32_t)tern_share_first(tern_open_grains(open), pool->bounds[w]) + at;
            return true;
        }
    }
}

// ---- from stage to stage -----------------------------------------------------------------------------------------

// For a worker that holds a grain or is alone: the region cannot end meanwhile.
static void count_tiles(const tern_pool *pool, tern_worker *self, uint64_t tiles, bool stolen) {
    tern_count(&self->tiles, tiles);
    if (stolen) tern_count(&self->stolen, tiles);
    if (self->last_region == pool->region) return;
    self->last_region = pool->region;
    tern_count(&self->regions, 1);
}

static void run_tiles(const tern_pool *pool, const tern_worker *self, const tern_stage *stage, uint64_t first, uint64_t count,
                      bool stolen) {
    const int64_t begin_ns = pool->trace ? tern_now_ns() : 0;
    for (uint64_t i = 0; i < count; i++) stage->fn(stage->arg, first + i);
    if (pool->trace) tern_trace_tiles(pool->trace, self->index, first, count, stolen, begin_ns);
}

static void run_alone(const tern_pool *pool, tern_worker *self, const tern_stage *stage) {
    if (stage->n_tiles == 0) return;
    run_tiles(pool, self, stage, 0, stage->n_tiles, false);
    count_tiles(pool, self, stage->n_tiles, false);
}

// The first copy opens the stage; the others follow it: see pool_state.h.
static void publish(tern_pool *pool, uint64_t open) {
    const tern_group *first = &pool->groups[0];
    // seq_cst, here and below: as a release it publishes the stage, and the writes of all earlier tiles, to whoever claims a
    // grain, and at the end of a region to the caller; as seq_cst it comes before the look for sleepers (see park() in wait.c).
    atomic_store_explicit(&pool->groups[0].open, open, memory_order_seq_cst);
    for (int g = 1; g < pool->n_groups; g++) {
        TERN_POOL_STEP();
        _Atomic uint64_t *copy = &pool->groups[g].open;
        // acquire: whoever loads what a later publisher stored here also sees its store to the first copy. So a CAS that
        // succeeds replaces a value that was here while `open` was in the first copy: an earlier one.
        uint64_t old = atomic_load_explicit(copy, memory_order_acquire);
        while (is_open(first, open) &&
               !atomic_compare_exchange_weak_explicit(copy, &old, open, memory_order_seq_cst, memory_order_acquire)) {}
    }
}

void tern_pool_stop(tern_pool *pool) { publish(pool, tern_open_make(pool->epoch + 1, 0) | TERN_OPEN_STOP); }

// Nobody can claim now, so the ranges that were never touched for long may be moved up to the last epoch, empty.
static void refresh_ranges(tern_pool *pool) {
    // relaxed: the store of `open` that follows publishes them.
    for (int w = 0; w < pool->n_threads; w++)
        atomic_store_explicit(&pool->workers[w].range, tern_range_make((tern_range){pool->epoch, 0, 0}), memory_order_relaxed);
}

static uint32_t next_epoch(tern_pool *pool) {
    if (pool->epoch % TERN_EPOCHS_PER_REFRESH == 0) refresh_ranges(pool);
    return ++pool->epoch;
}

static void open_stage(tern_pool *pool, tern_worker *self, const tern_stage *stage) {
    const uint32_t grains = tern_grain_count(stage->n_tiles), epoch = next_epoch(pool);
    pool->busy_groups = 0;
    for (int g = 0; g < pool->n_groups; g++) {
        tern_group *group = &pool->groups[g];
        group->stage = *stage;
        pool->busy_groups += tern_share_size(pool, group->first, group->last, grains) > 0;
        // relaxed, like groups_done: publish() publishes them.
        atomic_store_explicit(&group->finished, 0, memory_order_relaxed);
    }
    atomic_store_explicit(&pool->groups_done, 0, memory_order_relaxed);
    publish(pool, tern_open_make(epoch, grains));
    // From the first copy on the stage, and the region, may end at any moment: nothing of them may be touched any more.
    tern_pool_wake_root(pool, self, grains);
}

// The stage before has ended; `stage` is about to begin, or NULL: none is left.
static void note_stage(const tern_pool *pool, const tern_worker *self, const tern_stage *stage) {
    if (pool->trace) tern_trace_next_stage(pool->trace, self->index, stage);
    if (pool->times) tern_stage_times_next(pool->times, stage);
}

// The calling thread is alone in the region: every tile so far is finished, none is published.
static void advance(tern_pool *pool, tern_worker *self) {
    while (pool->next_stage < pool->n_stages) {
        const tern_stage *stage = &pool->stages[pool->next_stage++];
        note_stage(pool, self, stage);
        if (stage->n_tiles > 1) {
            open_stage(pool, self, stage);
            return;
        }
        run_alone(pool, self, stage);
    }
    note_stage(pool, self, NULL);
    publish(pool, tern_open_make(next_epoch(pool), 0));
    if (self != &pool->workers[0]) tern_pool_wake_one(self, &pool->workers[0]);
}

// Reports grains of a group's shares that have run. Whoever reports the last of the stage goes on to the next.
static void report(tern_pool *pool, tern_worker *self, tern_group *group, uint32_t done, uint32_t grains) {
    const uint32_t all = tern_share_size(pool, group->first, group->last, grains);
    TERN_POOL_STEP();
    // acq_rel: release hands this worker's writes to the advancer, acquire takes everybody's if this is the last report.
    // After a report that is not the last, nothing of the stage may be touched.
    if (atomic_fetch_add_explicit(&group->finished, done, memory_order_acq_rel) + done != all) return;
    if (pool->n_groups > 1) {
        TERN_POOL_STEP();
        const uint32_t groups = pool->busy_groups; // this group is not counted yet, so the stage is still open
        if (atomic_fetch_add_explicit(&pool->groups_done, 1, memory_order_acq_rel) + 1 != groups) return; // acq_rel: as above
    }
    advance(pool, self);
}

// ---- a worker in a stage -----------------------------------------------------------------------------------------

static uint64_t run_grain(const tern_pool *pool, const tern_worker *self, uint32_t grain, bool stolen) {
    const tern_stage *stage = &self->group->stage;
    const uint64_t each = tern_grain_tiles(stage->n_tiles), first = grain * each;
    const uint64_t count = stage->n_tiles - first < each ? stage->n_tiles - first : each;
    run_tiles(pool, self, stage, first, count, stolen);
    return count;
}

// Claims and runs grains of worker w's share until none is left, then reports them.
static void take_share(tern_pool *pool, tern_worker *self, int w, uint64_t open) {
    const bool stolen = w != self->index;
    uint32_t grain, done = 0;
    uint64_t tiles = 0;
    while (claim(pool, self, w, open, &grain)) {
        if (pool->trace && done == 0) tern_trace_end_wait(pool->trace, self->index, self->sleep);
        tiles += run_grain(pool, self, grain, stolen);
        done++;
    }
    if (done == 0) return;
    count_tiles(pool, self, tiles, stolen);
    report(pool, self, pool->workers[w].group, done, tern_open_grains(open));
}

// The worker of a group with the most unclaimed grains, or -1.
static int fullest(const tern_pool *pool, const tern_group *group, uint64_t open) {
    uint32_t most = 0;
    int at = -1;
    for (int w = group->first; w < group->last; w++) {
        // relaxed: a hint; the claim decides.
        const uint64_t word = atomic_load_explicit(&pool->workers[w].range, memory_order_relaxed);
        const uint32_t left = unclaimed(pool, w, open, tern_range_read(word));
        if (left <= most) continue;
        most = left;
        at = w;
    }
    return at;
}

// Helps where the most is left to do: in the own group, then in the others.
static void steal(tern_pool *pool, tern_worker *self, uint64_t open) {
    const int own = (int)(self->group - pool->groups);
    for (int i = 0; i < pool->n_groups; i++) {
        const tern_group *group = &pool->groups[(own + i) % pool->n_groups];
        int victim;
        while (is_open(self->group, open) && (victim = fullest(pool, group, open)) >= 0) take_share(pool, self, victim, open);
    }
}

// Takes part in what others publish until the region ends (the caller) or the pool is destroyed (the others).
static void take_part(tern_pool *pool, tern_worker *self, uint64_t seen) {
    const bool is_caller = self == &pool->workers[0];
    for (;;) {
        const uint64_t open = tern_pool_wait(pool, self, seen);
        seen = open;
        if (tern_open_grains(open) == 0) {
            if (is_caller || (open & TERN_OPEN_STOP)) return;
            continue;
        }
        tern_pool_wake_children(pool, self, tern_open_grains(open));
        take_share(pool, self, self->index, open);
        tern_pool_share_cpu(pool, self);
        // In a balanced stage the others are about to be done: looking at their ranges would only hold them up.
        if (!tern_pool_changes_soon(pool, self, open)) steal(pool, self, open);
    }
}

void tern_pool_work(tern_pool *pool, tern_worker *self) { take_part(pool, self, tern_open_make(0, 0)); }

// ---- the caller --------------------------------------------------------------------------------------------------

static void run_shared(tern_pool *pool, size_t first_wide) {
    tern_worker *self = &pool->workers[0];
    tern_saved_affinity saved;
    const uint64_t before = atomic_load_explicit(&self->group->open, memory_order_relaxed); // relaxed: only compared
    // Sleepers wake up while the caller runs the serial stages that come first.
    if (first_wide > 0) tern_pool_wake_children(pool, self, tern_grain_count(pool->stages[first_wide].n_tiles));
    advance(pool, self);
    // After the first stage is published: on a CPU that a stranger keeps busy the caller may have to wait for its turn.
    const bool moved = tern_affinity_leave_workers(pool->cpus, pool->n_threads, &saved);
    take_part(pool, self, before);
    if (moved) tern_affinity_restore(&saved);
}

static void run_by_caller(tern_pool *pool) {
    for (size_t i = 0; i < pool->n_stages; i++) {
        note_stage(pool, &pool->workers[0], &pool->stages[i]);
        run_alone(pool, &pool->workers[0], &pool->stages[i]);
    }
    note_stage(pool, &pool->workers[0], NULL);
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
