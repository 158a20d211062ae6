// SPDX-License-Identifier: MIT
// Regions under construction.
#include "matmul/region.h"

#include <assert.h>
#include <string.h>

void tern_region_init(tern_region *region, tern_context *ctx, tern_stage *stages, size_t max_stages, void *args,
                      size_t max_args) {
    *region = (tern_region){.ctx = ctx, .stages = stages, .max_stages = max_stages, .args = args, .max_args = max_args};
}

// Makes room for an argument, and for it once more at the end of the arena.
static void make_room(tern_region *region, size_t arg_size) {
    const size_t need = 2 * tern_round_up(arg_size, TERN_REGION_ARG_ALIGN);
    assert(need <= region->max_args);
    if (region->n_stages == region->max_stages || region->max_args - region->args_used < need) tern_region_run(region);
}

static void append(tern_region *region, const char *name, tern_tile_fn fn, const void *arg, size_t arg_size, size_t n_tiles) {
    unsigned char *kept = region->args + region->args_used;
    if (memcmp(kept, arg, arg_size) != 0) memcpy(kept, arg, arg_size);
    region->args_used += tern_round_up(arg_size, TERN_REGION_ARG_ALIGN);
    region->stages[region->n_stages++] = (tern_stage){.fn = fn, .arg = kept, .n_tiles = n_tiles, .name = name};
}

void tern_region_add(tern_region *region, const char *name, tern_tile_fn fn, const void *arg, size_t arg_size, size_t n_tiles) {
    make_room(region, arg_size);
    append(region, name, fn, arg, arg_size, n_tiles);
}

static unsigned char *scratch(const tern_region *region) {
    return region->args + region->max_args - tern_round_up(region->reserved, TERN_REGION_ARG_ALIGN);
}

void *tern_region_reserve(tern_region *region, size_t arg_size) {
    make_room(region, arg_size);
    region->reserved = arg_size;
    return scratch(region);
}

void tern_region_commit(tern_region *region, const char *name, tern_tile_fn fn, size_t n_tiles) {
    append(region, name, fn, scratch(region), region->reserved, n_tiles);
}

// Plain stores: a stage of one tile is run by whoever is alone in the region (in a caller's parallel_for, alone in its loop),
// and what it wrote is there for whoever reads the next stage.
void tern_region_stop(tern_region *region, tern_status status) {
    region->status = status;
    for (size_t i = 0; i < region->n_stages; i++) region->stages[i].n_tiles = 0; // a stage without tiles is skipped
}

tern_status tern_region_run(tern_region *region) {
    if (region->status == TERN_OK) {
        const tern_status status = tern_context_run(region->ctx, region->stages, region->n_stages);
        if (status != TERN_OK) region->status = status; // else it may have been stopped
    }
    region->n_stages = 0;
    region->args_used = 0;
    return region->status;
}
