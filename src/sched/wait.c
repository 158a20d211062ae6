// SPDX-License-Identifier: MIT
// How a worker waits for work: it spins, then yields, then sleeps on its own futex word; and how it is woken.
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sched/pool_state.h"

// A poll is one load and one pause, 10 to 60 ns. A thief waits for MOMENT_POLLS: about what the end of a stage takes to be
// seen.
enum { POLLS_PER_CLOCK = 64, POLLS_PER_YIELD = 8, MOMENT_POLLS = 16 };

static int64_t load_relaxed(_Atomic int64_t *duration) { return atomic_load_explicit(duration, memory_order_relaxed); }

static void begin_stint(tern_pool *pool, tern_worker *self) {
    self->stint_end = __builtin_ia32_rdtsc() + (uint64_t)load_relaxed(&pool->stint_ticks);
}

// ---- waiting -----------------------------------------------------------------------------------------------------

static void futex_wait(_Atomic uint32_t *word, uint32_t expected) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

// Polls at most `polls` times for another value than `seen`; how often it polled in vain.
static int poll(tern_worker *self, uint64_t seen, int polls, uint64_t *open) {
    int i = 0;
    // acquire: pairs with publish() in region.c. The stage and the writes of all earlier tiles are visible after it.
    while ((*open = atomic_load_explicit(&self->group->open, memory_order_acquire)) == seen && i < polls) {
        __builtin_ia32_pause();
        i++;
    }
    return i;
}

bool tern_pool_changes_soon(tern_pool *pool, tern_worker *self, uint64_t seen) {
    uint64_t open;
    const int vain = poll(self, seen, MOMENT_POLLS, &open);
    tern_count(&self->spin_ns, (uint64_t)(vain * load_relaxed(&pool->poll_ns)));
    return open != seen;
}

// Takes back `parked`. True: it was still 1, so this thread is the one that must account for it.
static bool unpark(tern_pool *pool, tern_worker *worker) {
    // acq_rel: orders what the waker did before it with what the sleeper does after it.
    if (atomic_exchange_explicit(&worker->parked, 0, memory_order_acq_rel) == 0) return false;
    atomic_fetch_sub_explicit(&pool->sleepers, 1, memory_order_relaxed); // after the flag, so that it never counts too few
    return true;
}

// Sleeps until woken. No wake-up is lost: this side stores sleepers and parked, then loads open; the other side stores open,
// then loads sleepers (a new stage) or parked (end of region, stop). All are seq_cst, so at least one side sees the other.
static void park(tern_pool *pool, tern_worker *self, uint64_t seen) {
    atomic_fetch_add_explicit(&pool->sleepers, 1, memory_order_seq_cst);
    TERN_POOL_STEP();
    atomic_store_explicit(&self->parked, 1, memory_order_seq_cst);
    TERN_POOL_STEP();
    if (atomic_load_explicit(&self->group->open, memory_order_seq_cst) != seen) {
        unpark(pool, self);
        return;
    }
    tern_count(&self->parks, 1);
    self->sleep.begin_ns = tern_now_ns();
    // acquire: pairs with the waker's exchange. The loop absorbs signals and late wakes of an earlier sleep.
    while (atomic_load_explicit(&self->parked, memory_order_acquire) == 1) futex_wait(&self->parked, 1);
    self->sleep.end_ns = tern_now_ns();
    begin_stint(pool, self);
}

uint64_t tern_pool_wait(tern_pool *pool, tern_worker *self, uint64_t seen) {
    uint64_t open;
    for (;;) {
        const int vain = poll(self, seen, POLLS_PER_CLOCK, &open);
        if (open != seen) {
            if (vain > 0) tern_count(&self->spin_ns, (uint64_t)(vain * load_relaxed(&pool->poll_ns)));
            return open;
        }
        const int64_t start = tern_now_ns() - vain * load_relaxed(&pool->poll_ns), spin = load_relaxed(&pool->spin_ns);
        const int64_t patience = spin + load_relaxed(&pool->yield_ns);
        int64_t waited;
        while ((waited = tern_now_ns() - start) < patience && open == seen) {
            const bool yielding = waited >= spin;
            poll(self, seen, yielding ? POLLS_PER_YIELD : POLLS_PER_CLOCK, &open);
            if (yielding && open == seen) sched_yield();
        }
        tern_count(&self->spin_ns, (uint64_t)waited);
        if (open != seen) return open;
        park(pool, self, seen);
    }
}

void tern_pool_share_cpu(tern_pool *pool, tern_worker *self) {
    if (__builtin_ia32_rdtsc() < self->stint_end) return;
    sched_yield();
    begin_stint(pool, self);
}

// ---- waking ------------------------------------------------------------------------------------------------------

void tern_pool_wake_one(tern_worker *self, tern_worker *sleeper) {
    // seq_cst: see park(). A plain load first, so that waking nobody does not take the worker's cache line.
    if (atomic_load_explicit(&sleeper->parked, memory_order_seq_cst) == 0) return;
    if (!unpark(sleeper->pool, sleeper)) return;
    futex_wake(&sleeper->parked);
    tern_count(&self->wakes, 1);
}

// seq_cst: see park(). As many are awake as are worth it: the shares of the others will be stolen.
static bool enough_are_awake(tern_pool *pool) {
    return pool->n_threads - atomic_load_explicit(&pool->sleepers, memory_order_seq_cst) >= pool->crew;
}

// A worker that is awake sees to its children itself, and one that is woken too.
static void wake_tree(tern_pool *pool, tern_worker *self, int w, uint32_t grains) {
    if (w >= pool->n_threads || enough_are_awake(pool)) return;
    tern_worker *worker = &pool->workers[w];
    if (atomic_load_explicit(&worker->parked, memory_order_seq_cst) == 0) return; // seq_cst: see park()
    if (tern_share_size(pool, w, w + 1, grains) > 0) {
        tern_pool_wake_one(self, worker);
        return;
    }
    wake_tree(pool, self, 2 * w + 1, grains);
    wake_tree(pool, self, 2 * w + 2, grains);
}

void tern_pool_wake_root(tern_pool *pool, tern_worker *self, uint32_t grains) {
    if (self != &pool->workers[0]) wake_tree(pool, self, 0, grains);
}

void tern_pool_wake_children(tern_pool *pool, tern_worker *self, uint32_t grains) {
    if (enough_are_awake(pool)) return;
    wake_tree(pool, self, 2 * self->index + 1, grains);
    wake_tree(pool, self, 2 * self->index + 2, grains);
}

// ---- patience ----------------------------------------------------------------------------------------------------

// Waiting awake is worth it for about as long as a sleep and a wake-up take, which is measured; but at least for the pause in
// which an engine samples a token between two regions (50 to 150 us): where a wake-up takes 80 us at best and some milliseconds
// now and then, as in a virtual machine, sleeping then made the slowest tokens slower by a third. With more workers than CPUs,
// spinning takes the CPU from the worker that is waited for.
//
// A thread that is preempted with a grain in hand holds up all others for the time slice of a stranger, several milliseconds.
// One that gives its CPU away before its own slice ends, with no grain in hand, holds up nobody. Linux has slices of 3 ms by
// default.
enum {
    SPIN_MIN_NS = 200000,
    SPIN_MAX_NS = 400000,
    SPIN_CROWDED_NS = 2000,
    YIELD_NS = 30000,
    ROUNDS = 5,
    GIVE_UP_NS = 5000000,
    STINT_NS = 2000000,
    POLLS_TO_TIME = 512
};

// Waits until worker 1 has gone to sleep for the n-th time.
static bool sleeps(tern_worker *worker, uint64_t n, int64_t deadline) {
    while (atomic_load_explicit(&worker->parks, memory_order_relaxed) < n) { // relaxed: a count
        if (tern_now_ns() > deadline) return false;
        sched_yield();
    }
    return true;
}

// Until the patience is set, workers go to sleep at once: one wake-up and the next sleep is what is measured.
static int64_t sleep_ns(tern_pool *pool) {
    tern_worker *worker = &pool->workers[1];
    const int64_t deadline = tern_now_ns() + GIVE_UP_NS;
    int64_t least = SPIN_MAX_NS;
    for (uint64_t round = 1; round <= ROUNDS && sleeps(worker, round, deadline); round++) {
        const int64_t start = tern_now_ns();
        tern_pool_wake_one(&pool->workers[0], worker);
        if (!sleeps(worker, round + 1, deadline)) break;
        const int64_t took = tern_now_ns() - start;
        if (took < least) least = took;
    }
    return least < SPIN_MIN_NS ? SPIN_MIN_NS : least;
}

void tern_pool_calibrate(tern_pool *pool) {
    tern_worker *self = &pool->workers[0];
    uint64_t open = atomic_load_explicit(&self->group->open, memory_order_relaxed); // relaxed: nobody else writes it now
    const int64_t start = tern_now_ns();
    const uint64_t ticks = __builtin_ia32_rdtsc();
    poll(self, open, POLLS_TO_TIME, &open);
    const double took = (double)(tern_now_ns() - start);
    const double ticks_per_ns = (double)(__builtin_ia32_rdtsc() - ticks) / took;
    atomic_store_explicit(&pool->poll_ns, (int64_t)(took / POLLS_TO_TIME), memory_order_relaxed);
    atomic_store_explicit(&pool->stint_ticks, (int64_t)(ticks_per_ns * STINT_NS), memory_order_relaxed);
    const int64_t spin_ns = pool->crew < pool->n_threads ? SPIN_CROWDED_NS : sleep_ns(pool);
    atomic_store_explicit(&pool->spin_ns, spin_ns, memory_order_relaxed);
    atomic_store_explicit(&pool->yield_ns, YIELD_NS, memory_order_relaxed);
}
