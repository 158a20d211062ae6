// SPDX-License-Identifier: MIT
// Stage lists of real regions: a parallel_for that runs a region's stages in one thread, and times their tiles.
#ifndef TERN_BENCH_SCALE_RECORD_H
#define TERN_BENCH_SCALE_RECORD_H

#include "sched_bench.h"

enum { SCALE_STAGES_MAX = 2048, SCALE_RUNS_MAX = 16, SCALE_PRODUCTS_MAX = 8 };

// What a run of the region does with the tiles of products. HOT times a second run of each, which finds its weights in cache:
// results are then wrong, times are not.
typedef enum scale_pass { SCALE_PASS_IDLE, SCALE_PASS_COLD, SCALE_PASS_HOT } scale_pass;

typedef struct scale_stage {
    tern_tile_fn fn;
    size_t n_tiles, n_cold, n_hot;
    double cold[SCALE_RUNS_MAX], hot[SCALE_RUNS_MAX]; // seconds of all its tiles
    double spread[SCALE_RUNS_MAX];                    // standard deviation of its tiles' times, by their mean
} scale_stage;

typedef struct scale_record {
    scale_pass pass;
    size_t n_stages; // of the run under way
    size_t most;     // of any run
    double clock;    // seconds of reading the clock
    tern_tile_fn products[SCALE_PRODUCTS_MAX];
    size_t n_products;
    scale_stage *stages;
} scale_record;

// A context that is laid out for so many workers, and records; NULL: it failed, and said so.
tern_context *scale_record_open(scale_record *r, int workers);
void scale_record_close(scale_record *r, tern_context *ctx);

// Runs of the region under record: begin, the call, end.
void scale_record_begin(scale_record *r, scale_pass pass);
void scale_record_end(scale_record *r);

// [{"product", "tiles", "ns", "hot_ns", "spread"}, ...], of the medians.
json_t *scale_record_stages(const scale_record *r);

#endif
