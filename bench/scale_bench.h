// SPDX-License-Identifier: MIT
// What the parts of tern_scale_bench share: it measures the constants, stage lists and times that tools/simulate_scaling.py
// reads.
#ifndef TERN_BENCH_SCALE_BENCH_H
#define TERN_BENCH_SCALE_BENCH_H

#include "sched_bench.h"

// Nanoseconds of what two cores do to each other's cache lines, and of sleeping; medians. NAN: not measured.
typedef struct scale_lines {
    double visible;     // from a store until a core that polls the line as the pool does sees it
    double own_rmw;     // compare-and-swap on a line that this core owns
    double other_rmw;   // fetch-add on a line that the other core wrote last
    double other_load;  // load of such a line
    double other_store; // plain stores to many such lines and a fence, per line
    double wake_call;   // the system call that wakes a sleeper
    double wake;        // from that call until the sleeper runs
} scale_lines;

// cpus: the two cores. false: it failed, and said so on stderr.
bool scale_measure_lines(const int cpus[SCHED_PAIR], bool quick, scale_lines *lines);

// Stage lists of real regions, seen by a parallel_for; and the same work timed with Tern's own pool. Both append to an array.
bool scale_measure_model(json_t *workloads, const char *path, const int *workers, size_t n_workers, bool quick);
bool scale_measure_gemm(json_t *workloads, const int *workers, size_t n_workers, bool quick);
bool scale_measure_empty(json_t *workloads, bool quick);

#endif
