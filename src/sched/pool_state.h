// SPDX-License-Identifier: MIT
// The memory that the workers of a pool share, and the invariants that make it safe without locks.
//
// One word, `ticket`, carries everything a worker must know before it may touch anything else:
//
//   ticket > 0              a stage is open and `ticket` of its tiles are unclaimed
//   drained: around 0       every tile of the open stage is claimed; some may still run
//   over:    around OVER    no region runs
//   stop:    around STOP    the pool is being destroyed
//
// fetch_sub(1) claims a tile if the old value was > 0. The claim is of whatever stage is open at that moment, so it does not
// matter when the worker last looked: a worker that slept through a stage, or a whole region, either claims a tile of the
// present one or claims nothing. A failed claim leaves the word "around" its state: each worker fails at most once per
// published value (it tries again only after seeing a positive one), so the word stays within TERN_THREADS_MAX of the value
// published.
//
// A claimed tile keeps its stage open until it is reported in `finished`, and an open stage keeps `open` and the caller's
// stage list unchanged. So a worker reads them only between a successful claim and its report, and nobody ever waits for a
// worker that holds no tile. Whoever reports the last tile is alone in the region: it (the "advancer") runs stages of one tile
// itself, publishes the next wide stage, or ends the region.
#ifndef TERN_SCHED_POOL_STATE_H
#define TERN_SCHED_POOL_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "sched/pool.h"
#include "sched/share.h"

#define TERN_TICKET_OVER (-(INT64_C(1) << 60))
#define TERN_TICKET_STOP (-(INT64_C(1) << 61))

static inline bool tern_ticket_open(int64_t ticket) { return ticket > 0; }
static inline bool tern_ticket_over(int64_t ticket) { return ticket < TERN_TICKET_OVER / 2; }
static inline bool tern_ticket_stop(int64_t ticket) { return ticket < TERN_TICKET_STOP / 4 * 3; }

// Two cache lines: x86 prefetches lines in pairs, so hot words 64 bytes apart still disturb each other.
enum { TERN_HOT_ALIGN = 128 };

typedef struct tern_worker {
    // 1: asleep or about to be; its futex word. Set to 1 by the worker only. Whoever exchanges it from 1 to 0 (the worker
    // itself or a waker) also takes 1 off pool->sleepers, and a waker then owes the futex wake.
    _Alignas(TERN_HOT_ALIGN) _Atomic uint32_t parked;
    // Written by this worker alone, relaxed; read by the caller after a region, ordered by finished and ticket.
    _Atomic uint64_t tiles, regions, parks;
    uint64_t last_region; // private to the worker: pool->region of its last claim
    tern_sleep sleep;     // private to the worker: its last one
    pthread_t thread;     // not for worker 0
    tern_pool *pool;
} tern_worker;

struct tern_pool {
    // Written by the advancer, between the last report of a stage and the publication of the next; see above for readers.
    // They share the ticket's line: whoever claims has just taken it.
    _Alignas(TERN_HOT_ALIGN) _Atomic int64_t ticket;
    tern_tile_fn open_fn;
    void *open_arg;
    int64_t open_tiles;
    uint64_t region; // number of the running region; written by the caller before it publishes

    // Tiles of the open stage that have returned. Set to 0 by the advancer before it publishes.
    _Alignas(TERN_HOT_ALIGN) _Atomic int64_t finished;
    const tern_stage *stages; // advancer only, like next_stage
    size_t n_stages, next_stage;

    // Workers whose parked is 1, approximately: exact whenever no park or wake is under way.
    _Alignas(TERN_HOT_ALIGN) _Atomic int32_t sleepers;

    // Constant after creation.
    _Alignas(TERN_HOT_ALIGN) int n_threads;
    int64_t spin_ns, yield_ns; // patience before a waiting worker yields, and then sleeps
    unsigned forks;            // of the process at creation: see pool.c
    int *cpus;                 // [n_threads], TERN_CPU_NONE where not bound
    uint64_t *bounds;          // [n_threads + 1] of the shares
    bool in_region;            // written by the caller outside regions; read by anyone inside one
    tern_trace *trace;         // the same, but read only by whoever holds the region open; NULL: none runs
    size_t bytes;
    tern_allocator allocator;
    tern_worker workers[];
};

// pool.c: true in a process forked after the pool was created, which has none of its threads.
bool tern_pool_is_forked(const tern_pool *pool);

// wait.c: returns when the ticket is open or stop, or (until_over) over; the value seen. Spins, then yields, then sleeps.
int64_t tern_pool_wait(tern_pool *pool, tern_worker *self, bool until_over);
// Wakes up to `count` sleeping workers. Called after the ticket was stored with seq_cst.
void tern_pool_wake(tern_pool *pool, int64_t count);
void tern_pool_wake_one(tern_pool *pool, tern_worker *worker);

// region.c: what a thread of the pool does until STOP.
void tern_pool_work(tern_pool *pool, tern_worker *self);

#endif
