// SPDX-License-Identifier: MIT
// A region under construction: stages are appended in the order of the maths and run later with one wake-up.
#ifndef TERN_MATMUL_REGION_H
#define TERN_MATMUL_REGION_H

#include "matmul/context.h"

enum { TERN_REGION_ARG_ALIGN = TERN_CACHE_LINE };

// Stages run one after the other, so a region that fills up is simply run early and goes on empty.
typedef struct tern_region {
    tern_context *ctx;
    tern_stage *stages; // [max_stages]
    size_t n_stages, max_stages;
    unsigned char *args; // arena of max_args bytes, aligned to TERN_REGION_ARG_ALIGN: what stages point to until they have run
    size_t args_used, max_args;
    size_t reserved;    // bytes of what tern_region_reserve returned last
    tern_status status; // first failure; later stages are then dropped
} tern_region;

void tern_region_init(tern_region *region, tern_context *ctx, tern_stage *stages, size_t max_stages, void *args,
                      size_t max_args);

// Appends a stage; a copy of arg is kept in the arena, which must hold it twice. name: a static string, for traces.
//
// Most regions repeat the one before, token after token. Arguments that have not changed are not written again: so they stay in
// the caches of all workers, whose first loads in a stage wait for them.
void tern_region_add(tern_region *region, const char *name, tern_tile_fn fn, const void *arg, size_t arg_size, size_t n_tiles);

// The same in two steps, for arguments of variable size: room to write arg_size bytes, to be copied; then the stage that uses
// them, before anything else is appended.
void *tern_region_reserve(tern_region *region, size_t arg_size);
void tern_region_commit(tern_region *region, const char *name, tern_tile_fn fn, size_t n_tiles);

// From inside a stage of one tile, beside which nothing runs: the stages behind it, and those that are appended later, are
// skipped. tern_region_run returns `status`, not TERN_OK.
void tern_region_stop(tern_region *region, tern_status status);

// Runs what was appended and empties the region. Returns the first failure since tern_region_init.
tern_status tern_region_run(tern_region *region);

#endif
