// SPDX-License-Identifier: MIT
// Which CPUs the calling thread may run on, and moving it out of the way of bound workers.
#ifndef TERN_SCHED_AFFINITY_H
#define TERN_SCHED_AFFINITY_H

#include <sched.h>

#include "base/base.h"

typedef struct tern_saved_affinity {
    cpu_set_t mask;
} tern_saved_affinity;

// Number of CPUs the calling thread may run on; INT_MAX if the system has more than a cpu_set_t holds.
int tern_affinity_count(void);

// If the calling thread runs on one of cpus[1..n - 1] and may run on cpus[0], moves it there. True: restore afterwards.
bool tern_affinity_leave_workers(const int *cpus, int n, tern_saved_affinity *saved);
void tern_affinity_restore(const tern_saved_affinity *saved);

#endif
