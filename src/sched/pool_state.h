// SPDX-License-Identifier: MIT
// The memory that the workers of a pool share, and the invariants that make it safe without locks.
//
//   open (one copy per group, polled by its workers)      range (one per worker)
//   +------+-----------+------------+------------+        +----------+----------+-----------+
//   | STOP |     0     |   grains   |   epoch    |        |    hi    |    lo    |   epoch   |
//   +------+-----------+------------+------------+        +----------+----------+-----------+
//    63     62       48 47        32 31         0          63      48 47      32 31        0
//
//   share of worker w:   0 ... lo-1 | lo .............. hi-1 | hi ... size-1
//                         claimed   | unclaimed              |  claimed
//                         by w      | w takes lo, thieves hi-1  by thieves
//
// A stage is open when grains > 0. Its tiles are cut into `grains` grains, and the grains into a share per worker, both by pure
// functions (share.h), so `open` is all that a worker must know to try a claim. Publishing is one new value of `open` per
// group: ranges are not written. Epochs only grow, +1 per published stage and per end of a region, and
//
//   (1)  a range whose epoch is older than the open stage's means: the whole share is untouched.
//   (2)  a claim is a successful CAS on a range, from a value of (1) or from {the stage's epoch, lo < hi}. As each CAS moves lo
//        or hi by one within one epoch, a grain is claimed once.
//   (3)  a stage is closed by nobody before all its grains have been claimed, run and reported. So whoever claims a grain of
//        stage e proves by that very CAS that e is open, and e stays open until the claim is reported: a belief in an `open`
//        that was read long ago does no harm, because its CAS fails (the range has the epoch e and is empty, or a newer one).
//   (4)  the plain fields of the stage are written while no stage is open and read only between a claim and its report.
//
// Reports are counted in `finished` of the group that owns the share. Whoever completes a group counts it in `groups_done`, and
// whoever completes that (with one group: the group) is alone in the region. It, the advancer, runs stages of one tile itself,
// publishes the next wide stage, or ends the region. Nobody ever waits for a worker that holds no grain.
//
// With several groups the copies of `open` change one after the other, and all may be over with a stage before the last has
// changed. The first copy opens the stage; a publisher changes the others only while the first still has its value, so that
// one that comes late leaves a newer value alone.
//
// Epochs wrap. Whether one is older is asked of the difference, so no range may be left behind for 2^31 epochs: every 2^30 the
// advancer moves all ranges up. What remains is a thread held between two loads of one claim for a multiple of 2^32 epochs: a
// quarter of an hour of nothing but empty stages, and hours of real ones.
//
// tests/model has this protocol in Promela: every interleaving of small pools, and what breaks when a part is left out.
#ifndef TERN_SCHED_POOL_STATE_H
#define TERN_SCHED_POOL_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "sched/pool.h"
#include "sched/share.h"

// Between two steps of the protocol: the stress test sleeps here.
#ifndef TERN_POOL_STEP
#define TERN_POOL_STEP() ((void)0)
#endif

// Two cache lines: x86 prefetches lines in pairs, so hot words 64 bytes apart still disturb each other.
enum { TERN_HOT_ALIGN = 128 };

#define TERN_OPEN_STOP (UINT64_C(1) << 63) // the pool is being destroyed
#define TERN_EPOCHS_PER_REFRESH (UINT32_C(1) << 30)

static inline uint64_t tern_open_make(uint32_t epoch, uint32_t grains) { return (uint64_t)grains << 32 | epoch; }
static inline uint32_t tern_open_epoch(uint64_t open) { return (uint32_t)open; }
static inline uint32_t tern_open_grains(uint64_t open) { return (uint16_t)(open >> 32); }
static inline bool tern_epoch_older(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

typedef struct tern_range {
    uint32_t epoch;
    uint16_t lo, hi;
} tern_range;

static inline uint64_t tern_range_make(tern_range r) { return (uint64_t)r.hi << 48 | (uint64_t)r.lo << 32 | r.epoch; }
static inline tern_range tern_range_read(uint64_t word) {
    return (tern_range){(uint32_t)word, (uint16_t)(word >> 32), (uint16_t)(word >> 48)};
}

// Workers that share a last-level cache.
typedef struct tern_group {
    _Alignas(TERN_HOT_ALIGN) _Atomic uint64_t open;
    tern_stage stage; // the open one; see (4)

    // Grains of this group's shares that were reported. Set to 0 by the advancer before it publishes.
    _Alignas(TERN_HOT_ALIGN) _Atomic uint32_t finished;

    // Constant: workers first .. last - 1.
    _Alignas(TERN_HOT_ALIGN) int first, last;
} tern_group;

typedef struct tern_worker {
    _Alignas(TERN_HOT_ALIGN) _Atomic uint64_t range;

    // 1: asleep or about to be; its futex word. Set to 1 by the worker only. Whoever exchanges it from 1 to 0 (the worker
    // itself or a waker) also takes 1 off pool->sleepers, and a waker then owes the futex wake.
    _Alignas(TERN_HOT_ALIGN) _Atomic uint32_t parked;
    // Written by this worker alone, relaxed. The caller reads them after a region, whose end orders what tiles did.
    _Atomic uint64_t tiles, stolen, regions, spin_ns, parks, wakes;
    uint64_t last_region; // private to the worker: pool->region of its last claim
    uint64_t stint_end;   // private to the worker: when it is to give its CPU away, in TSC ticks
    tern_sleep sleep;     // private to the worker: its last one

    // Constant after creation.
    _Alignas(TERN_HOT_ALIGN) tern_pool *pool;
    tern_group *group;
    int index;
    pthread_t thread; // not for worker 0
} tern_worker;

struct tern_pool {
    // Groups of the open stage that are complete. Set to 0 by the advancer before it publishes. Used with several groups only.
    _Alignas(TERN_HOT_ALIGN) _Atomic uint32_t groups_done;

    // Workers that are asleep or about to be: never less than those whose parked is 1.
    _Alignas(TERN_HOT_ALIGN) _Atomic int32_t sleepers;

    // Patience of a waiting worker before it yields its CPU, and then before it sleeps; time of a poll; how long a worker keeps
    // its CPU. relaxed: set once, soon after the workers started.
    _Atomic int64_t spin_ns, yield_ns, poll_ns, stint_ticks;

    // The advancer's; the caller's before it publishes the first stage.
    _Alignas(TERN_HOT_ALIGN) const tern_stage *stages;
    size_t n_stages, next_stage;
    uint32_t epoch;       // of the last publication
    uint32_t busy_groups; // that have grains of the open stage; read before a group is counted, like the fields of (4)
    uint64_t region;      // number of the running region

    // Constant after creation.
    _Alignas(TERN_HOT_ALIGN) int n_threads;
    int n_groups;
    int crew;         // workers that are worth having awake: there are CPUs for so many
    unsigned forks;   // of the process at creation: see pool.c
    int *cpus;        // [n_threads], TERN_CPU_NONE where not bound
    uint64_t *bounds; // [n_threads + 1] of the shares
    tern_group *groups;
    bool in_region;          // written by the caller outside regions; read by anyone inside one
    tern_trace *trace;       // the same, but read only by whoever holds the region open; NULL: none runs
    tern_stage_times *times; // the same
    size_t bytes;
    tern_allocator allocator;
    tern_worker workers[];
};

static inline uint32_t tern_share_size(const tern_pool *pool, int first, int last, uint32_t grains) {
    return (uint32_t)(tern_share_first(grains, pool->bounds[last]) - tern_share_first(grains, pool->bounds[first]));
}

// Adds to a counter of the calling worker. relaxed: nobody else writes it.
static inline void tern_count(_Atomic uint64_t *counter, uint64_t n) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

// pool.c: true in a process forked after the pool was created, which has none of its threads.
bool tern_pool_is_forked(const tern_pool *pool);

// region.c: what a thread of the pool does until it is stopped; and the stop, when no region runs.
void tern_pool_work(tern_pool *pool, tern_worker *self);
void tern_pool_stop(tern_pool *pool);

// wait.c: returns the value of `open` when it is another one than `seen`. Spins, then yields, then sleeps.
uint64_t tern_pool_wait(tern_pool *pool, tern_worker *self, uint64_t seen);
// The same for a moment only: whether it changed.
bool tern_pool_changes_soon(tern_pool *pool, tern_worker *self, uint64_t seen);
// Called with no grain in hand: gives the CPU to a stranger that waits for it, if this worker has had it for long.
void tern_pool_share_cpu(tern_pool *pool, tern_worker *self);
// Measures what a sleep costs, and sets the patience of the pool by it.
void tern_pool_calibrate(tern_pool *pool);

// wait.c: waking for a stage of so many grains. Workers form a binary tree with the caller at its root. Whoever learns of the
// stage wakes its children; whoever published it sees to the root. A worker that is missed is only a helper missed.
void tern_pool_wake_root(tern_pool *pool, tern_worker *self, uint32_t grains);
void tern_pool_wake_children(tern_pool *pool, tern_worker *self, uint32_t grains);
// Not a hint: a sleeper that parked before the last publication wakes up.
void tern_pool_wake_one(tern_worker *self, tern_worker *sleeper);

#endif
