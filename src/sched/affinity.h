// SPDX-License-Identifier: MIT
// Which CPUs the calling thread may run on, and moving it out of the way of bound workers.
#ifndef TERN_SCHED_AFFINITY_H
#define TERN_SCHED_AFFINITY_H

#include <sched.h>

#include "base/base.h"

// A cpu_set_t ends at CPU 1023; Linux for x86 can be built for so many:
enum { TERN_MASK_CPUS = 8192 };

typedef struct tern_cpu_mask {
    cpu_set_t sets[TERN_MASK_CPUS / CPU_SETSIZE];
} tern_cpu_mask;

static inline bool tern_mask_has(const tern_cpu_mask *mask, int cpu) {
    return cpu >= 0 && cpu < TERN_MASK_CPUS && CPU_ISSET_S((size_t)cpu, sizeof *mask, mask->sets);
}

// The calling thread's mask. False where the system does not tell.
bool tern_affinity_get(tern_cpu_mask *mask);

// Number of CPUs the calling thread may run on; INT_MAX where the system does not tell.
int tern_affinity_count(void);

typedef struct tern_saved_affinity {
    tern_cpu_mask mask;
} tern_saved_affinity;

// If the calling thread runs on one of cpus[1..n - 1] and may run on cpus[0], moves it there. True: restore afterwards.
bool tern_affinity_leave_workers(const int *cpus, int n, tern_saved_affinity *saved);
void tern_affinity_restore(const tern_saved_affinity *saved);

#endif
