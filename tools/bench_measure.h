// SPDX-License-Identifier: MIT
// Measures products against this machine's limits, both in turn (A B A B), so that a fraction is a ratio inside one run.
#ifndef TERN_TOOLS_BENCH_MEASURE_H
#define TERN_TOOLS_BENCH_MEASURE_H

#include <stdbool.h>

#include <tern/diagnostics.h>

#include "bench_source.h"
#include "trace_file.h"

typedef struct bench_case {
    size_t matrix; // index
    size_t m;      // tokens; BENCH_M_LARGE: as many as a product of reasonable length takes
    bool dram;     // cycling through copies that no cache holds; else one copy
} bench_case;

enum {
    BENCH_MATRICES_MAX = 16,
    BENCH_CASES_MAX = 128,
    BENCH_ROUNDS_MAX = 9,
    BENCH_SAMPLES_MAX = 4096,
    BENCH_M_MAX = 1024,
    BENCH_M_LARGE = 0
};

// Which products to measure with one kernel.
typedef struct bench_plan {
    bench_matrix matrices[BENCH_MATRICES_MAX];
    bench_case cases[BENCH_CASES_MAX];
    size_t n_matrices, n_cases;
} bench_plan;

// l3: reading, again and again, as many bytes as a hot matrix has.
typedef enum bench_limit { BENCH_DRAM, BENCH_L3, BENCH_INT8_PEAK, BENCH_LIMITS } bench_limit;
extern const char *const bench_limit_names[BENCH_LIMITS]; // "dram", "l3", "int8"

// Samples of one limit, taken between products: bytes, or operations, per second.
typedef struct bench_samples {
    double value[BENCH_SAMPLES_MAX];
    size_t n;
} bench_samples;

typedef struct bench {
    tern_context *ctx;
    size_t rounds;               // measured ones, at most BENCH_ROUNDS_MAX; a first one warms up
    size_t dram_bytes, l3_bytes; // read by one sweep of each probe; 0: not measured
    tern_read_probe *dram, *l3;
    bench_samples limit[BENCH_LIMITS], clock; // clock: Hz
    bench_data data;
    float *x, *y;                 // x: random, BENCH_M_MAX rows of the largest depth
    tern_activations *one, *many; // for M = 1 and for up to BENCH_M_MAX
    trace_file *trace;            // or NULL: products of each case, traced after it was measured
    bool trace_failed;
} bench;

// Figures are medians of the rounds. End to end: from float32 X to float32 Y, quantizing and table building included. Kernel:
// from ready activations (and tables, where they all fit) to int32 Y, or to float32 Y where scales are per block; NaN for dram
// cases, which share tables with nothing.
typedef struct bench_result {
    const char *op;               // the stage that ran, e.g. "lut_gemm"
    const char *variant, *layout; // its tier, its byte layout
    const char *symbol;           // the kernel
    const char *source;           // "ternary" or "int8"
    bool dram;
    size_t m, n, k, block, rounds; // rounds 0: not measured
    double bits_per_weight, clock;
    double bytes, huge_page_bytes;          // of one copy; how many lie on huge pages
    double seconds, fraction;               // end to end; fraction of the limit `bound`
    double kernel_seconds, kernel_fraction; //
    double gbps;                            // packed bytes, end to end
    bench_limit bound;                      // the limit that allows the least speed
    tern_worker_counters *workers; // [threads], of the case's products, warm-up included; NULL: no memory, or not measured
} bench_result;

// Multiply-adds of one product per second, and per clock cycle of each thread.
double bench_macs_per_second(const bench_result *r, double seconds);
double bench_macs_per_cycle(const bench_result *r, double seconds, int threads);

// Allocates the probes, and random data for the largest of the plan's matrices. On failure the message is in the context, or
// `what` says what there was no memory for.
tern_status bench_create(bench *b, tern_context *ctx, const bench_plan *plan, size_t rounds, const char **what);
void bench_destroy(bench *b);

// Frees what the results own.
void bench_release(bench_result *results, size_t n);

// One result for each case of the plan, in its order. A result that could not be had has rounds 0; then the first failure is
// returned.
tern_status bench_measure(bench *b, bench_source source, const bench_plan *plan, bench_result *results);

double bench_median(const double *values, size_t n); // NaN where n is 0

#endif
