// SPDX-License-Identifier: MIT
// What this process may run on, by hwloc. The only file pair that knows hwloc.
#ifndef TERN_SCHED_TOPOLOGY_H
#define TERN_SCHED_TOPOLOGY_H

#include "base/base.h"

enum {
    TERN_CPU_NONE = -1,
    TERN_WEIGHT_MAX = 1024,
    TERN_NODES_MAX = 1024,              // of Linux
    TERN_PUS_MAX = 2 * TERN_THREADS_MAX // listed one by one; of a larger machine, the first so many
};

// A processing unit (PU: what Linux calls a CPU, one hardware thread of a core) that Tern may use.
typedef struct tern_pu {
    int cpu;     // OS number, or TERN_CPU_NONE if the system tells none
    int core;    // physical core: 0, 1, ...
    int sibling; // 0: first PU of its core, 1: the second, ...
    int cache;   // last-level cache it shares: 0, 1, ...
    int node;    // NUMA node: hwloc's logical index, below TERN_NODES_MAX
    int kind;    // of core: 0, or of a hybrid CPU 0 (the most efficient), 1, ... (the fastest)
    int weight;  // relative speed of its core, 1..TERN_WEIGHT_MAX; that of the fastest kind is TERN_WEIGHT_MAX
} tern_pu;

// A plain value: a plan (plan.h) is a function of it. Counts are of what lies inside the allowed CPUs: the calling thread's
// affinity mask and the cpuset cgroup, without what is offline.
typedef struct tern_topology {
    int packages, numa_nodes, l2_caches, last_caches, cores, pus, kinds;
    size_t l1d_bytes, l2_bytes, l3_bytes; // of one cache of each level, 0 if unknown
    int n_listed;                         // min(pus, TERN_PUS_MAX), at least 1
    tern_pu pu[TERN_PUS_MAX];             // neighbours are neighbours in the machine
} tern_topology;

// hwloc's view of a machine with several NUMA nodes, kept to bind memory. NULL: one node, nothing to bind.
typedef struct hwloc_topology tern_numa;

// Never fails: where hwloc cannot read the machine, or was told to describe another one (HWLOC_XMLFILE, HWLOC_SYNTHETIC), the
// allowed CPUs are taken for equal cores, and *warning says so; else it is left alone. *numa: NULL, or to be released.
void tern_topology_detect(tern_topology *topology, tern_numa **numa, tern_error *warning);

// The description of a loaded hwloc topology, as tern_topology_detect() makes it: for machines that only tests have.
void tern_topology_describe(tern_topology *topology, struct hwloc_topology *hw);

// Asks for the whole pages inside [memory, memory + bytes) to lie on a NUMA node (tern_pu.node), moving those in use. A wish:
// if the node is full, the system takes another. False if the system refuses. With numa NULL, does nothing and returns true.
bool tern_numa_bind(tern_numa *numa, void *memory, size_t bytes, int node);
void tern_numa_release(tern_numa *numa); // accepts NULL

#endif
