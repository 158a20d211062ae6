// SPDX-License-Identifier: MIT
// OpenMP as one of the schedulers: one parallel region, a barrier between stages, threads that wait actively.
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sched_peers.h"

static sched_region region;

bool sched_openmp_prepare(char **argv) {
    const char *policy = getenv("OMP_WAIT_POLICY");
    if (policy && strcmp(policy, "active") == 0) return true;
    if (setenv("OMP_WAIT_POLICY", "active", 1) != 0) return sched_fail("OMP_WAIT_POLICY could not be set");
    (void)execv("/proc/self/exe", argv);
    return sched_fail("this program could not start itself anew; set OMP_WAIT_POLICY=active");
}

static bool start(const int cpus[SCHED_PAIR]) {
    int bound = 0, threads = 0;
    omp_set_dynamic(0);
#pragma omp parallel num_threads(SCHED_PAIR) reduction(+ : bound, threads)
    {
        threads++;
        bound += sched_bind(cpus[omp_get_thread_num()]); // the caller stands on cpus[0] already
    }
    return (threads == SCHED_PAIR && bound == SCHED_PAIR) || sched_fail("OpenMP gave no two bound threads");
}

static void set(const sched_region *r) { region = *r; }

static void run(void) {
#pragma omp parallel num_threads(SCHED_PAIR)
    {
        const size_t tile = (size_t)omp_get_thread_num(), last = region.n_stages - 1;
        for (size_t i = 0; i < last; i++) {
            region.fn(region.arg, tile);
#pragma omp barrier
        }
        region.fn(region.arg, tile); // the end of the parallel region is a barrier
    }
}

// Its threads would spin on beside the next peer.
static void stop(void) { (void)omp_pause_resource_all(omp_pause_hard); }

static const sched_peer peer = {"openmp", start, set, run, stop, false};
const sched_peer *sched_openmp_peer(void) { return &peer; }
