// SPDX-License-Identifier: MIT
// A plan of workers: where each one runs and how fast it is, as the topology suggests it and the pool carries it out.
#ifndef TERN_SCHED_PLAN_H
#define TERN_SCHED_PLAN_H

#include "base/base.h"

enum { TERN_CPU_NONE = -1, TERN_GROUP_WORKERS_MAX = 16, TERN_WEIGHT_MAX = 1024 };

typedef struct tern_worker_place {
    int cpu;    // OS CPU number, or TERN_CPU_NONE: not bound
    int group;  // of workers that share a last-level cache, at most TERN_GROUP_WORKERS_MAX: 0, 1, ... ascending along the
                // workers
    int node;   // NUMA node, logical index; 0 if unknown
    int weight; // relative speed, 1..TERN_WEIGHT_MAX; equal cores have equal weights
} tern_worker_place;

// Worker 0 is the calling thread.
typedef struct tern_worker_plan {
    int n_workers;
    tern_worker_place workers[TERN_THREADS_MAX];
} tern_worker_plan;

#endif
