// SPDX-License-Identifier: MIT
// The calling thread's affinity mask, through the Linux calls (hwloc would allocate on every region).
#include "sched/affinity.h"

#include <limits.h>

int tern_affinity_count(void) {
    cpu_set_t mask;
    return sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : INT_MAX;
}

static bool contains(const int *cpus, int n, int cpu) {
    for (int i = 0; i < n; i++) {
        if (cpus[i] == cpu) return true;
    }
    return false;
}

bool tern_affinity_leave_workers(const int *cpus, int n, tern_saved_affinity *saved) {
    if (cpus[0] < 0 || cpus[0] >= CPU_SETSIZE) return false;
    const int here = sched_getcpu();
    if (here == cpus[0] || here < 0 || !contains(cpus + 1, n - 1, here)) return false;
    if (sched_getaffinity(0, sizeof saved->mask, &saved->mask) != 0 || !CPU_ISSET((size_t)cpus[0], &saved->mask)) return false;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET((size_t)cpus[0], &only);
    return sched_setaffinity(0, sizeof only, &only) == 0;
}

void tern_affinity_restore(const tern_saved_affinity *saved) { (void)sched_setaffinity(0, sizeof saved->mask, &saved->mask); }
