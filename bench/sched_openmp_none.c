// SPDX-License-Identifier: MIT
// Stands in for sched_openmp.c where the compiler has no OpenMP: that peer is then reported as not measured.
#include "sched_peers.h"

bool sched_openmp_prepare(char **argv) {
    (void)argv;
    return true;
}

const sched_peer *sched_openmp_peer(void) { return NULL; }
