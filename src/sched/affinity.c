// SPDX-License-Identifier: MIT
// The calling thread's affinity mask, through the Linux calls (hwloc would allocate on every region).
#include "sched/affinity.h"

#include <limits.h>

bool tern_affinity_get(tern_cpu_mask *mask) { return sched_getaffinity(0, sizeof *mask, mask->sets) == 0; }

int tern_affinity_count(void) {
    tern_cpu_mask mask;
    return tern_affinity_get(&mask) ? CPU_COUNT_S(sizeof mask, mask.sets) : INT_MAX;
}

static bool contains(const int *cpus, int n, int cpu) {
    for (int i = 0; i < n; i++) {
        if (cpus[i] == cpu) return true;
    }
    return false;
}

bool tern_affinity_leave_workers(const int *cpus, int n, tern_saved_affinity *saved) {
    const int here = sched_getcpu();
    if (here == cpus[0] || here < 0 || !contains(cpus + 1, n - 1, here)) return false;
    if (!tern_affinity_get(&saved->mask) || !tern_mask_has(&saved->mask, cpus[0])) return false;
    tern_cpu_mask only;
    CPU_ZERO_S(sizeof only, only.sets);
    CPU_SET_S((size_t)cpus[0], sizeof only, only.sets);
    return sched_setaffinity(0, sizeof only, only.sets) == 0;
}

void tern_affinity_restore(const tern_saved_affinity *saved) {
    (void)sched_setaffinity(0, sizeof saved->mask, saved->mask.sets);
}
