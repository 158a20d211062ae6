// SPDX-License-Identifier: MIT
// Weights to measure products with: every way of making them that leads to kernels of its own. For tern bench and tern_bench.
#ifndef TERN_TOOLS_BENCH_SOURCE_H
#define TERN_TOOLS_BENCH_SOURCE_H

#include <tern/diagnostics.h>

// What the weights are made from. A context runs for each the kernel that it chooses, or the variant that it is forced to.
typedef enum bench_source {
    BENCH_TERNARY_LUT, // trits, for table lookup
    BENCH_TERNARY_MAD, // trits, for multiply-add
    BENCH_FOUR_LEVEL,  // -1, 0, 1, 2
    BENCH_BINARY,      // -1, 1
    BENCH_INT8,        // int8, one scale per row
    BENCH_INT8_B32,    // int8, one scale per 32 (GGUF Q8_0)
    BENCH_INT6,        // float32, made 6-bit with scales per 32
    BENCH_U4,          // 0..15, one scale per 32 (GGUF Q4_0)
    BENCH_U4_MINS,     // the same with minima (GGUF Q4_1)
    BENCH_Q4_K,        // GGUF Q4_K
    BENCH_SOURCES
} bench_source;

typedef struct bench_matrix {
    size_t n, k;
    size_t block; // of ternary scales: 0 (one per matrix) or their width
} bench_matrix;

// Random codes and scales for matrices up to a size; no two neighbouring scales are equal, so that none fold into one.
typedef struct bench_data {
    int8_t *codes, *trits, *quads;
    uint8_t *nibbles, *q4_k;
    float *scales;
    size_t n_weights, n_scales;
} bench_data;

const char *bench_source_name(bench_source source); // e.g. "ternary", "int8", "q4_1"
int bench_source_ternary(bench_source source);      // whether bench_matrix.block may be other than 0

// Room for all of the matrices. Returns 0 if there is no memory.
int bench_data_create(bench_data *data, const bench_matrix *matrices, size_t n_matrices);
void bench_data_destroy(bench_data *data);

// m: how many tokens the weights are for.
tern_status bench_source_create(tern_context *ctx, tern_weights **w, bench_source source, const bench_data *data,
                                bench_matrix s, size_t m);

// The symbol of the kernel that the context runs for a source; NULL if it has none.
const char *bench_source_kernel(tern_context *ctx, bench_source source);

#endif
