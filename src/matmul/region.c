// SPDX-License-Identifier: MIT
// Regions under construction.
#include "matmul/region.h"

#include <assert.h>
#include <string.h>

void tern_region_init(tern_region *region, tern_context *ctx, tern_stage *stages, size_t max_stages, void *args,
                      size_t max_args) {
    *region = (tern_region){.ctx = ctx, .stages = stages, .max_stages = max_stages, .args = args, .max_args = max_args};
}

void *tern_region_reserve(tern_region *region, size_t arg_size) {
    const size_t need = tern_round_up(arg_size, TERN_REGION_ARG_ALIGN);
    assert(need <= region->max_args);
    if (region->n_stages == region->max_stages || region->max_args - region->args_used < need) tern_region_run(region);
    region->reserved = region->args + region->args_used;
    region->args_used += need;
    return region->reserved;
}

void tern_region_commit(tern_region *region, const char *name, tern_tile_fn fn, size_t n_tiles) {
    region->stages[region->n_stages++] = (tern_stage){fn, region->reserved, n_tiles, name};
}

void tern_region_add(tern_region *region, const char *name, tern_tile_fn fn, const void *arg, size_t arg_size, size_t n_tiles) {
    memcpy(tern_region_reserve(region, arg_size), arg, arg_size);
    tern_region_commit(region, name, fn, n_tiles);
}

tern_status tern_region_run(tern_region *region) {
    if (region->status == TERN_OK) region->status = tern_context_run(region->ctx, region->stages, region->n_stages);
    region->n_stages = 0;
    region->args_used = 0;
    return region->status;
}
