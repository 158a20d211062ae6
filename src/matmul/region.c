// SPDX-License-Identifier: MIT
// Regions under construction.
#include "matmul/region.h"

#include <assert.h>
#include <string.h>

void tern_region_init(tern_region *region, tern_context *ctx, tern_stage *stages, size_t max_stages, void *args,
                      size_t max_args) {
    *region = (tern_region){.ctx = ctx, .stages = stages, .max_stages = max_stages, .args = args, .max_args = max_args};
}

void tern_region_add(tern_region *region, tern_tile_fn fn, const void *arg, size_t arg_size, size_t n_tiles) {
    const size_t need = tern_round_up(arg_size, TERN_REGION_ARG_ALIGN);
    assert(need <= region->max_args);
    if (region->n_stages == region->max_stages || region->max_args - region->args_used < need) tern_region_run(region);
    void *kept = region->args + region->args_used;
    memcpy(kept, arg, arg_size);
    region->args_used += need;
    region->stages[region->n_stages++] = (tern_stage){fn, kept, n_tiles};
}

tern_status tern_region_run(tern_region *region) {
    if (region->status == TERN_OK) region->status = tern_context_run(region->ctx, region->stages, region->n_stages);
    region->n_stages = 0;
    region->args_used = 0;
    return region->status;
}
