// SPDX-License-Identifier: MIT
// Measures products against this machine's limits, both in turn (A B A B), so that a fraction is a ratio inside one run.
#ifndef TERN_TOOLS_BENCH_MEASURE_H
#define TERN_TOOLS_BENCH_MEASURE_H

#include <stdbool.h>

#include <tern/diagnostics.h>

typedef enum bench_op { BENCH_LUT, BENCH_MAD, BENCH_INT8, BENCH_INT8_B32, BENCH_OPS } bench_op;
extern const char *const bench_op_names[BENCH_OPS]; // the stages that run them

typedef struct bench_shape {
    size_t n, k;
} bench_shape;

enum { BENCH_SHAPES_MAX = 8, BENCH_ROUNDS_MAX = 9, BENCH_SAMPLES_MAX = 4096 };

typedef enum bench_limit { BENCH_DRAM, BENCH_L3, BENCH_INT8_PEAK, BENCH_LIMITS } bench_limit;
extern const char *const bench_limit_names[BENCH_LIMITS]; // "dram", "l3", "int8"

// Samples of one limit, taken between products: bytes, or operations, per second.
typedef struct bench_samples {
    double value[BENCH_SAMPLES_MAX];
    size_t n;
} bench_samples;

typedef struct bench {
    tern_context *ctx;
    const bench_shape *shapes;
    size_t n_shapes;
    size_t rounds;               // measured ones, at most BENCH_ROUNDS_MAX; a first one warms up
    size_t dram_bytes, l3_bytes; // read by one sweep of each probe; 0: not measured
    size_t l3_size;              // one cache
    tern_read_probe *dram, *l3;
    bench_samples limit[BENCH_LIMITS];
    int8_t *codes, *trits, *x; // random: weights of the largest shape, BENCH_M_MAX activations of the largest depth
    float *scales, *x_scales, *y;
    tern_activations *one, *many; // for M = 1 and for up to BENCH_M_MAX
} bench;

// The batch of the compute-bound case: smaller only where one product would take too long.
enum { BENCH_M_MAX = 512 };

typedef struct bench_result {
    const char *op, *residency;   // "dram": cycling through dram_bytes of copies; "hot": one copy
    const char *variant, *layout; // of the kernel that ran
    size_t m, n, k, rounds;       // rounds 0: not measured
    double bits_per_weight, seconds, gops, gbps, fraction;
    bench_limit bound; // the limit that allows the least speed; fraction is of this one
} bench_result;

// Allocates the probes and the random data. On failure the message is in the context, or `what` says what there was no memory
// for.
tern_status bench_create(bench *b, tern_context *ctx, const bench_shape *shapes, size_t n_shapes, size_t rounds,
                         const char **what);
void bench_destroy(bench *b);

// M = 1, hot and dram, and M = BENCH_M_MAX for every shape: 3 * n_shapes results. A result that could not be had has rounds 0;
// then the first failure is returned.
tern_status bench_measure(bench *b, bench_op op, bench_result *results);

double bench_median(const double *values, size_t n); // NaN where n is 0

#endif
