// SPDX-License-Identifier: MIT
// The memory that the workers of a pool share, and the invariants that make it safe without locks.
//
// One word, `ticket`, carries everything a worker must know before it may touch anything else:
//
//   high 32 bits: tiles of the open stage that have returned
//   low 32 bits:  OPEN + u    a stage is open and u > 0 of its tiles are unclaimed
//                 at OPEN     every tile of the open stage is claimed; some may still run
//                 at OVER     no region runs
//                 at STOP     the pool is being destroyed
//
// A worker claims a tile by subtracting 1; the claim holds if the old value was above OPEN. It is a claim of whatever stage is
// open at that moment, so it does not matter when the worker last looked: a worker that slept through a stage, or a whole
// region, either claims a tile of the present one or claims nothing. After its tile it adds one to the high half and claims the
// next tile in the same operation: one atomic operation per tile, and none more per barrier.
//
// A failed claim leaves the low half below the value published. Each worker fails at most once per published value (it tries
// again only after it saw an open stage), so the low half stays within TERN_THREADS_MAX of it: "at" above means that.
//
// A claimed tile keeps its stage open until it is reported, and an open stage keeps open_* and the caller's stage list
// unchanged. So a worker reads them only between a claim that holds and its report, and nobody ever waits for a worker that
// holds no tile. Whoever reports the last tile is alone in the region: it (the "advancer") runs stages of one tile itself,
// publishes the next wide stage with its first tile already claimed, or ends the region.
#ifndef TERN_SCHED_POOL_STATE_H
#define TERN_SCHED_POOL_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "sched/pool.h"

#define TERN_TICKET_OPEN (UINT32_C(1) << 31)
#define TERN_TICKET_OVER (UINT32_C(1) << 30)
#define TERN_TICKET_STOP (UINT32_C(1) << 29)
#define TERN_TICKET_FINISHED_ONE (UINT64_C(1) << 32)

// Unclaimed tiles of the open stage; <= 0: none to be had.
static inline int64_t tern_ticket_unclaimed(uint64_t ticket) { return (int64_t)(uint32_t)ticket - (int64_t)TERN_TICKET_OPEN; }
static inline uint32_t tern_ticket_finished(uint64_t ticket) { return (uint32_t)(ticket / TERN_TICKET_FINISHED_ONE); }
static inline bool tern_ticket_open(uint64_t ticket) { return tern_ticket_unclaimed(ticket) > 0; }
// Halfway between two states lies far from both: 2^27 against at most TERN_THREADS_MAX failed claims.
static inline bool tern_ticket_over(uint64_t ticket) { return (uint32_t)ticket < TERN_TICKET_OVER / 2 * 3; }
static inline bool tern_ticket_stop(uint64_t ticket) { return (uint32_t)ticket < TERN_TICKET_STOP / 2 * 3; }

// Two cache lines: x86 prefetches lines in pairs, so hot words 64 bytes apart still disturb each other.
enum { TERN_HOT_ALIGN = 128 };

typedef struct tern_worker {
    // 1: asleep or about to be; its futex word. Set to 1 by the worker only. Whoever exchanges it from 1 to 0 (the worker
    // itself or a waker) also takes 1 off pool->sleepers, and a waker then owes the futex wake.
    _Alignas(TERN_HOT_ALIGN) _Atomic uint32_t parked;
    // Written by this worker alone, relaxed; read by the caller after a region, ordered by ticket.
    _Atomic uint64_t tiles, regions, parks;
    uint64_t last_region; // private to the worker: pool->region of its last claim
    pthread_t thread;     // not for worker 0
    tern_pool *pool;
} tern_worker;

struct tern_pool {
    // The line of the ticket. Besides it: written by the advancer between the last report of a stage and the publication of the
    // next; see above for readers. Whoever claims a tile has just taken the line.
    _Alignas(TERN_HOT_ALIGN) _Atomic uint64_t ticket;
    tern_tile_fn open_fn;
    void *open_arg;
    uint32_t open_tiles;
    uint64_t region; // number of the running region; written by the caller before it publishes

    // The advancer's: handed on through the ticket.
    _Alignas(TERN_HOT_ALIGN) const tern_stage *stages;
    size_t n_stages, next_stage;

    // Workers whose parked is 1, approximately: exact whenever no park or wake is under way.
    _Alignas(TERN_HOT_ALIGN) _Atomic int32_t sleepers;

    // Constant after creation.
    _Alignas(TERN_HOT_ALIGN) int n_threads;
    int64_t spin_ns, yield_ns; // patience before a waiting worker yields, and then sleeps
    unsigned fork_generation;  // of the creator: threads do not survive fork()
    int *cpus;                 // [n_threads], TERN_CPU_NONE where not bound
    bool in_region;            // written by the caller outside regions; read by anyone inside one
    size_t bytes;
    tern_allocator allocator;
    tern_worker workers[];
};

// wait.c: returns when the ticket is open or stop, or (until_over) over; the value seen. Spins, then yields, then sleeps.
uint64_t tern_pool_wait(tern_pool *pool, tern_worker *self, bool until_over);
// Wakes up to `count` sleeping workers. Called after the ticket was stored with seq_cst.
void tern_pool_wake(tern_pool *pool, int64_t count);
void tern_pool_wake_one(tern_pool *pool, tern_worker *worker);

// region.c: what a thread of the pool does until STOP.
void tern_pool_work(tern_pool *pool, tern_worker *self);

#endif
