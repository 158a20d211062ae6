// SPDX-License-Identifier: MIT
// How a worker waits for work: it spins, then yields, then sleeps on its own futex word; and how it is woken.
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sched/pool_state.h"

enum { POLLS_PER_CLOCK = 64, POLLS_PER_YIELD = 8 }; // a poll is one load and one pause: 20 to 60 ns

static void futex_wait(_Atomic uint32_t *word, uint32_t expected) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

static bool ready(int64_t ticket, bool until_over) {
    if (tern_ticket_open(ticket)) return true;
    return until_over ? tern_ticket_over(ticket) : tern_ticket_stop(ticket);
}

// Polls `polls` times. acquire: pairs with the advancer's store; a caller that sees OVER also sees what every tile wrote.
static bool poll(tern_pool *pool, bool until_over, int polls, int64_t *ticket) {
    for (int i = 0; i < polls; i++) {
        *ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
        if (ready(*ticket, until_over)) return true;
        __builtin_ia32_pause();
    }
    return false;
}

// Takes back `parked`. True: it was still 1, so this thread is the one that must account for it.
static bool unpark(tern_pool *pool, tern_worker *worker) {
    // acq_rel: orders what the waker did before it with what the sleeper does after it.
    if (atomic_exchange_explicit(&worker->parked, 0, memory_order_acq_rel) == 0) return false;
    atomic_fetch_sub_explicit(&pool->sleepers, 1, memory_order_relaxed); // a count of flags: it guards no data
    return true;
}

// Sleeps until woken. No wake-up is lost: this side stores parked and sleepers, then loads ticket; the other side stores
// ticket, then loads sleepers (a new stage) or parked (end of region, stop). All are seq_cst, so at least one side sees the
// other.
static void park(tern_pool *pool, tern_worker *self, bool until_over) {
    atomic_store_explicit(&self->parked, 1, memory_order_seq_cst);
    atomic_fetch_add_explicit(&pool->sleepers, 1, memory_order_seq_cst);
    if (ready(atomic_load_explicit(&pool->ticket, memory_order_seq_cst), until_over)) {
        unpark(pool, self);
        return;
    }
    // relaxed: only this worker writes its counters.
    const uint64_t parks = atomic_load_explicit(&self->parks, memory_order_relaxed);
    atomic_store_explicit(&self->parks, parks + 1, memory_order_relaxed);
    // acquire: pairs with the waker's exchange. The loop absorbs signals and late wakes of an earlier sleep.
    self->sleep.begin_ns = tern_now_ns();
    while (atomic_load_explicit(&self->parked, memory_order_acquire) == 1) futex_wait(&self->parked, 1);
    self->sleep.end_ns = tern_now_ns();
}

int64_t tern_pool_wait(tern_pool *pool, tern_worker *self, bool until_over) {
    int64_t ticket;
    for (;;) {
        if (poll(pool, until_over, POLLS_PER_CLOCK, &ticket)) return ticket;
        const int64_t start = tern_now_ns();
        for (int64_t waited = 0; waited < pool->spin_ns + pool->yield_ns; waited = tern_now_ns() - start) {
            const bool yielding = waited >= pool->spin_ns;
            if (poll(pool, until_over, yielding ? POLLS_PER_YIELD : POLLS_PER_CLOCK, &ticket)) return ticket;
            if (yielding) sched_yield();
        }
        park(pool, self, until_over);
    }
}

void tern_pool_wake_one(tern_pool *pool, tern_worker *worker) {
    // seq_cst: see park(). A plain load first, so that waking nobody does not take the worker's cache line.
    if (atomic_load_explicit(&worker->parked, memory_order_seq_cst) == 0) return;
    if (unpark(pool, worker)) futex_wake(&worker->parked);
}

void tern_pool_wake(tern_pool *pool, int64_t count) {
    if (atomic_load_explicit(&pool->sleepers, memory_order_seq_cst) <= 0) return; // seq_cst: see park()
    for (int i = 0; i < pool->n_threads && count > 0; i++) {
        // relaxed: a sleeper missed here is only a helper missed; whoever published the stage works on it anyway.
        if (atomic_load_explicit(&pool->workers[i].parked, memory_order_relaxed) == 0) continue;
        if (!unpark(pool, &pool->workers[i])) continue;
        futex_wake(&pool->workers[i].parked);
        count--;
    }
}
