// SPDX-License-Identifier: MIT
// A plan of workers: how many, where each one runs and how fast it is there; a pure function of the topology and of what was
// asked for. The pool (pool.h) carries it out.
#ifndef TERN_SCHED_PLAN_H
#define TERN_SCHED_PLAN_H

#include "sched/topology.h"

enum { TERN_GROUP_WORKERS_MAX = 16, TERN_CPU_MILLIS = 1000 };

typedef struct tern_worker_place {
    int cpu;    // OS CPU number, or TERN_CPU_NONE: not bound
    int group;  // of workers that share a last-level cache, at most TERN_GROUP_WORKERS_MAX: 0, 1, ... ascending along the
                // workers
    int node;   // NUMA node: hwloc's logical index, ascending along the workers; 0 if unknown
    int weight; // relative speed, 1..TERN_WEIGHT_MAX; equal cores have equal weights
} tern_worker_place;

// Which PUs the workers take.
typedef enum tern_pin {
    TERN_PIN_DEFAULT, // compact; but none where a quota pays for fewer CPUs than there are cores: others run there, too
    TERN_PIN_COMPACT, // one per physical core, one cache filled after the other, fast cores first; then siblings
    TERN_PIN_SPREAD,  // one per physical core, NUMA nodes and caches in turn; then siblings
    TERN_PIN_ALL,     // every PU, siblings next to each other
    TERN_PIN_NONE     // workers are not bound
} tern_pin;

// Worker 0 is the calling thread. Neighbours in the plan are neighbours in the machine: the workers of one node, and of one
// cache, follow each other.
typedef struct tern_worker_plan {
    tern_pin pin; // never DEFAULT
    int n_cpus;   // that the workers have together: allowed PUs, or fewer by the quota, of which a part counts; 0: as many as
                  // bindings and mask leave
    int n_workers;
    tern_worker_place workers[TERN_THREADS_MAX];
} tern_worker_plan;

// threads: 1..TERN_THREADS_MAX, or 0: one per core (pin ALL: per PU), and no more than the quota pays for.
// quota_millis: CPUs that a container's quota pays for, in thousandths; 0: no quota. It is rounded to the nearest number of
// workers, at least 1: with a worker too many the kernel stops them all for a part of each period, with one too few more of the
// quota than that is left unused.
void tern_worker_plan_make(tern_worker_plan *plan, const tern_topology *topology, int threads, tern_pin pin, int quota_millis);

// "compact", "spread", "all", "none"; "cores" means compact, too.
const char *tern_pin_name(tern_pin pin);
bool tern_pin_parse(const char *text, tern_pin *pin);
#define TERN_PIN_NAMES "compact, spread, all, none"

#endif
