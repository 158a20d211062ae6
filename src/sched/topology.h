// SPDX-License-Identifier: MIT
// What this process may run on, by hwloc. The only file pair that knows hwloc.
#ifndef TERN_SCHED_TOPOLOGY_H
#define TERN_SCHED_TOPOLOGY_H

#include "base/base.h"

typedef struct tern_topology {
    int packages, numa_nodes, cores, pus; // inside the allowed cpuset
    size_t l1d_bytes, l2_bytes, l3_bytes; // of one cache of each level, 0 if unknown
    int n_order;                          // PUs in the order workers should take them: first one PU of each core, then siblings
    int order[TERN_THREADS_MAX];          // OS CPU numbers
} tern_topology;

tern_status tern_topology_detect(tern_topology *topology, tern_error *err);

#endif
