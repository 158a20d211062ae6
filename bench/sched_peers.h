// SPDX-License-Identifier: MIT
// Schedulers that run the same regions in turn: Tern's, OpenMP's, and a plain pool over a mutex and condition variables.
#ifndef TERN_BENCH_SCHED_PEERS_H
#define TERN_BENCH_SCHED_PEERS_H

#include "sched_bench.h"

enum { SCHED_STAGES_MAX = 128 };

// A region of n_stages equal stages, each of SCHED_PAIR tiles.
typedef struct sched_region {
    tern_tile_fn fn;
    void *arg;
    size_t n_stages; // 1..SCHED_STAGES_MAX
} sched_region;

typedef struct sched_peer {
    const char *name;
    // Makes the second thread ready, bound to cpus[1]; the caller is the first. False: failed.
    bool (*start)(const int cpus[SCHED_PAIR]);
    void (*set)(const sched_region *region); // what run() runs
    void (*run)(void);
    void (*stop)(void); // afterwards the peer burns no CPU time
    bool sleeps;        // its waiting threads go to sleep some time
} sched_peer;

extern const sched_peer sched_tern_peer, sched_condvar_peer;
// NULL where the compiler has no OpenMP. sched_openmp_prepare is called first thing in main: OpenMP reads how it shall wait
// from the environment before main begins, so the program starts itself anew once with OMP_WAIT_POLICY=active.
const sched_peer *sched_openmp_peer(void);
bool sched_openmp_prepare(char **argv);

tern_context *sched_tern_peer_context(void); // while started

// Binds the calling thread; cpu < 0: does nothing.
bool sched_bind(int cpu);

#endif
