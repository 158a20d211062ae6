// SPDX-License-Identifier: MIT
// Measures one ternary product in every layout that this context can multiply, the layouts in turn (A B A B).
#ifndef TERN_TOOLS_TUNE_MEASURE_H
#define TERN_TOOLS_TUNE_MEASURE_H

#include <stdbool.h>

#include <tern/diagnostics.h>

typedef struct tune_shape {
    size_t n, k, scale_block;
} tune_shape;

// What is done with a shape: m tokens, the weight in cache or read from DRAM.
typedef struct tune_case {
    size_t m;
    bool cached;
} tune_case;

enum { TUNE_CASES = 4, TUNE_LAYOUTS_MAX = 16 };
extern const tune_case tune_cases[TUNE_CASES]; // one token in cache and from DRAM, few tokens, many

typedef struct tune_speed {
    const char *layout;              // static
    double multiply_adds_per_second; // median, end to end from float32 to float32; 0: far slower than others, not measured
} tune_speed;

typedef struct tune_measurement {
    tune_speed speeds[TUNE_LAYOUTS_MAX];
    size_t n;             // layouts
    const char *built_in; // the layout that this context chooses by itself
} tune_measurement;

// out[c] belongs to tune_cases[c]. *failed, where the status is MEMORY and the context has no message, says what there was no
// memory for.
tern_status tune_measure(tern_context *ctx, const tune_shape *shape, tune_measurement out[TUNE_CASES], const char **failed);

#endif
