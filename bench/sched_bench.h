// SPDX-License-Identifier: MIT
// What the parts of tern_sched_bench share: the machine, small statistics, and the list of measured cases.
#ifndef TERN_BENCH_SCHED_BENCH_H
#define TERN_BENCH_SCHED_BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include <tern/diagnostics.h>

enum {
    SCHED_PAIR = 2,
    SCHED_HOT_LINE = 128
}; // most cases are about two workers; two cache lines, which a core may prefetch together

typedef struct sched_bench {
    bool quick;           // few samples: shows that everything runs, not how fast
    int cpus[SCHED_PAIR]; // of the two workers
    json_t *cases;        // array of what sched_add_case made
} sched_bench;

// The parts. Each adds its cases; false: it failed, and said so on stderr.
bool sched_measure_latency(sched_bench *b); // empty regions, stages, waking, beside OpenMP and a mutex/condvar pool
bool sched_measure_scaling(sched_bench *b); // products with two workers against one
bool sched_measure_idle(sched_bench *b);    // what the workers burn when there is nothing to do
bool sched_measure_crowd(sched_bench *b);   // more workers than CPUs, and a stranger on one of them

// Prints "PROGRAM: ..." on stderr and returns false.
bool sched_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
// A context with so many workers, or NULL with the error printed.
tern_context *sched_open(int threads);

// ---- Statistics -------------------------------------------------------------------------------------------------------

double sched_seconds(void);                                             // monotonic
double sched_quantile(const double *values, size_t n, double quantile); // NaN where n is 0
double sched_median(const double *values, size_t n);

// A new case: name, who was measured ("tern", "openmp", ...), unit, and of the values median, quartiles, p99 and number. What
// has no values says null: not measured. The object belongs to the list; further keys may be set in it.
json_t *sched_add_case(sched_bench *b, const char *name, const char *who, const char *unit, const double *values, size_t n);
void sched_set_real(json_t *object, const char *key, double value); // null where not finite

// ---- Work of known length -----------------------------------------------------------------------------------------------

// Dependent additions, one per clock cycle: no memory, no unit that two threads of a core would share.
void sched_work(size_t additions);
size_t sched_additions(double seconds); // how many take so long, at the clock found now

#endif
