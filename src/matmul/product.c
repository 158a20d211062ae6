// SPDX-License-Identifier: MIT
// Products as stages: lookup tables, then tiles of features x tokens, each with its epilogue.
#include "matmul/product.h"

#include <assert.h>
#include <stdalign.h>
#include <string.h>

// A tile's results live on the worker's stack until the epilogue: 64 KiB of int32 sums and as much of float32.
enum {
    TERN_TILE_VALUES = 16384,
    TERN_TILE_TOKENS = 64,     // tokens of a panel tile
    TERN_TILE_ROWS_MAX = 1024, // features of a one-token panel tile
    TERN_LUT_TILE_TOKENS = 4,  // tokens of a slab tile: TERN_SLAB_MAX * 4 values fit
    TERN_TILES_PER_WORKER = 4, // so that an unequal share does not leave a worker idle for long
    TERN_TABLE_ROWS_PER_TILE = 128
};

// Tokens token0 .. token0 + n_tokens - 1 of a group of products.
typedef struct gemm_args {
    tern_act_view view;
    const tern_kernels *kernels;
    size_t token0, n_tokens;
    size_t chunk;    // tokens of one tile
    size_t n_chunks; // tiles along M
    size_t n_products;
    tern_product products[TERN_PRODUCTS_MAX];
    size_t tile_rows[TERN_PRODUCTS_MAX];  // features of one tile: one slab, or several panels
    size_t first_tile[TERN_PRODUCTS_MAX]; // along N, over all products
} gemm_args;

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

// ---- epilogue -------------------------------------------------------------------------------------------------

// Where a tile's results go: tokens t0 .. t0 + m - 1, features n0 .. n0 + n - 1 (without padding) of a product.
static tern_epilogue_args output_of(const tern_product *p, size_t n0, size_t n, size_t t0, size_t m) {
    return (tern_epilogue_args){
        .y = p->y + t0 * p->ldy + n0,
        .ldy = p->ldy,
        .y_type = TERN_FLOAT_F32,
        .n = n,
        .m = m,
        .bias = p->bias ? p->bias + n0 : NULL,
        .residual = p->residual ? p->residual + t0 * p->ld_residual + n0 : NULL,
        .ld_residual = p->ld_residual,
    };
}

// Sums of one K-slice, with their scales.
static void give_sums(tern_epilogue_args *e, const gemm_args *g, const tern_weights *w, size_t slice, size_t n0, size_t t0,
                      const int32_t *acc, size_t ld_acc) {
    e->acc = acc;
    e->ld_acc = ld_acc;
    e->x_scales = g->view.scales + t0 * g->view.ld_blocks + slice;
    e->ld_x_scales = g->view.ld_blocks;
    e->w_scales = tern_slice_scales(w, slice, n0);
    e->scale_kind = w->scale_kind;
}

// ---- tiles ----------------------------------------------------------------------------------------------------

static void run_s32_kernel(const gemm_args *g, const tern_weights *w, size_t slice, size_t n0, size_t n, size_t t0, size_t m,
                           int32_t *acc, size_t ld_acc) {
    const tern_act_view *v = &g->view;
    const size_t depth = tern_slice_depth(w, slice);
    const bool lut = w->traits->table_bytes != 0;
    // Every slice before this one was slice_k deep, so its tables lie at a fixed distance.
    const size_t slice_tables = lut ? w->traits->table_rows(w->slice_k) * w->traits->table_bytes : 0;
    const tern_gemm_args args = {
        .acc = acc,
        .ld_acc = ld_acc,
        .packed = tern_unit_codes(w, slice, n0 / w->unit_rows),
        .n = n,
        .m = m,
        .k = depth,
        .x = v->q + t0 * v->ldq + slice * w->slice_k,
        .ldx = v->ldq,
        .tables = v->tables + (t0 - g->token0) * v->ld_tables + slice * slice_tables,
        .ld_tables = v->ld_tables,
        .x_sums = v->sums + t0 * v->ld_blocks + slice,
        .ld_x_sums = v->ld_blocks,
        .x_has_min = v->has_min,
    };
    ((tern_gemm_fn *)g->kernels->chosen[w->traits->stage][w->layout]->fn)(&args);
}

static void gemm_tile_s32(const gemm_args *g, const tern_product *p, size_t n0, size_t n, size_t t0, size_t m) {
    alignas(TERN_CACHE_LINE) int32_t acc[TERN_TILE_VALUES];
    const size_t kept = min_size(n, p->w->n - n0); // the rest is padding
    run_s32_kernel(g, p->w, 0, n0, n, t0, m, acc, n);
    for (size_t t = 0; t < m; t++) memcpy(p->y_s32 + (t0 + t) * p->ldy + n0, acc + t * n, kept * sizeof *acc);
}

// One K-slice: from sums to outputs in one pass.
static void gemm_tile_scaled(const gemm_args *g, const tern_product *p, size_t n0, size_t n, size_t t0, size_t m) {
    alignas(TERN_CACHE_LINE) int32_t acc[TERN_TILE_VALUES];
    run_s32_kernel(g, p->w, 0, n0, n, t0, m, acc, n);
    tern_epilogue_args e = output_of(p, n0, min_size(n, p->w->n - n0), t0, m);
    give_sums(&e, g, p->w, 0, n0, t0, acc, n);
    TERN_KERNEL(g->kernels, epilogue, TERN_LAYOUT_NONE)(&e);
}

// Several K-slices: `value` holds the sum of those before, padding included; the last one goes to the outputs.
static void gemm_tile_sliced(const gemm_args *g, const tern_product *p, size_t n0, size_t n, size_t t0, size_t m) {
    alignas(TERN_CACHE_LINE) int32_t acc[TERN_TILE_VALUES];
    alignas(TERN_CACHE_LINE) float value[TERN_TILE_VALUES];
    const tern_weights *w = p->w;
    for (size_t s = 0; s < w->n_slices; s++) {
        run_s32_kernel(g, w, s, n0, n, t0, m, acc, n);
        tern_epilogue_args e = {.y = value, .ldy = n, .y_type = TERN_FLOAT_F32, .n = n, .m = m};
        if (s + 1 == w->n_slices) e = output_of(p, n0, min_size(n, w->n - n0), t0, m);
        give_sums(&e, g, w, s, n0, t0, acc, n);
        e.value = s > 0 ? value : NULL;
        e.ld_value = n;
        TERN_KERNEL(g->kernels, epilogue, TERN_LAYOUT_NONE)(&e);
    }
}

static void gemm_tile_b32(const gemm_args *g, const tern_product *p, size_t n0, size_t n, size_t t0, size_t m) {
    alignas(TERN_CACHE_LINE) float value[TERN_TILE_VALUES];
    const tern_weights *w = p->w;
    const tern_act_view *v = &g->view;
    const tern_gemm_b32_args args = {
        .y = value,
        .ld_y = n,
        .packed = tern_unit_codes(w, 0, n0 / w->unit_rows),
        .n = n,
        .m = m,
        .k = w->k,
        .x = v->q + t0 * v->ldq,
        .ldx = v->ldq,
        .x_scales = v->scales + t0 * v->ld_blocks,
        .x_sums = v->sums + t0 * v->ld_blocks,
        .ld_x_blocks = v->ld_blocks,
        .x_has_min = v->has_min,
    };
    TERN_KERNEL(g->kernels, int8_gemm_b32, TERN_LAYOUT_I8B32)(&args);
    tern_epilogue_args e = output_of(p, n0, min_size(n, w->n - n0), t0, m);
    e.value = value;
    e.ld_value = n;
    TERN_KERNEL(g->kernels, epilogue, TERN_LAYOUT_NONE)(&e);
}

static void gemm_tile(void *arg, size_t tile) {
    const gemm_args *g = arg;
    const size_t along_n = tile / g->n_chunks, chunk = tile % g->n_chunks;
    size_t i = g->n_products - 1;
    while (along_n < g->first_tile[i]) i--;
    const tern_product *p = &g->products[i];
    const size_t n0 = (along_n - g->first_tile[i]) * g->tile_rows[i];
    const size_t n = min_size(g->tile_rows[i], p->w->n_padded - n0);
    const size_t end = g->token0 + g->n_tokens;
    const size_t t0 = g->token0 + chunk * g->chunk, t1 = min_size(t0 + g->chunk, end);
    const size_t step = p->w->traits->table_bytes ? TERN_LUT_TILE_TOKENS : g->chunk;
    for (size_t t = t0; t < t1; t += step) {
        const size_t m = min_size(step, t1 - t);
        if (p->w->layout == TERN_LAYOUT_I8B32)
            gemm_tile_b32(g, p, n0, n, t, m);
        else if (p->y_s32)
            gemm_tile_s32(g, p, n0, n, t, m);
        else if (p->w->n_slices == 1)
            gemm_tile_scaled(g, p, n0, n, t, m);
        else
            gemm_tile_sliced(g, p, n0, n, t, m);
    }
}

// ---- lookup tables ----------------------------------------------------------------------------------------------

typedef struct table_args {
    tern_act_view view;
    tern_lut_build_fn *build;
    const tern_layout_traits *traits;
    size_t slice_k, token0;
    size_t tiles_per_slice, n_slices;
} table_args;

// Tile = a run of table rows of one K-slice of one token.
static void table_tile(void *arg, size_t tile) {
    const table_args *a = arg;
    const size_t part = tile % a->tiles_per_slice, slice = tile / a->tiles_per_slice % a->n_slices;
    const size_t token = tile / a->tiles_per_slice / a->n_slices;
    const size_t depth = min_size(a->slice_k, a->view.k - slice * a->slice_k);
    const size_t rows = a->traits->table_rows(depth);
    const size_t row0 = part * TERN_TABLE_ROWS_PER_TILE, row1 = min_size(row0 + TERN_TABLE_ROWS_PER_TILE, rows);
    if (row0 >= rows) return; // the last slice may be shorter
    int8_t *tables =
        a->view.tables + token * a->view.ld_tables + slice * a->traits->table_rows(a->slice_k) * a->traits->table_bytes;
    a->build(tables, a->view.q + (a->token0 + token) * a->view.ldq + slice * a->slice_k, depth, row0, row1);
}

static void add_tables(tern_region *region, const tern_act_view *view, const tern_weights *w, size_t token0, size_t n_tokens) {
    const tern_kernels *kernels = &region->ctx->kernels;
    const size_t rows = w->traits->table_rows(w->slice_k);
    const table_args args = {.view = *view,
                             .build = TERN_KERNEL(kernels, lut_build, w->layout),
                             .traits = w->traits,
                             .slice_k = w->slice_k,
                             .token0 = token0,
                             .tiles_per_slice = tern_ceil_div(rows, TERN_TABLE_ROWS_PER_TILE),
                             .n_slices = w->n_slices};
    tern_region_add(region, table_tile, &args, sizeof args, n_tokens * args.n_slices * args.tiles_per_slice);
}

// ---- grouping -----------------------------------------------------------------------------------------------------

static void add_gemm(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                     size_t token0, size_t n_tokens) {
    gemm_args args = {
        .view = *view, .kernels = &region->ctx->kernels, .token0 = token0, .n_tokens = n_tokens, .n_products = n_products};
    args.chunk = min_size(n_tokens, TERN_TILE_TOKENS);
    args.n_chunks = tern_ceil_div(n_tokens, args.chunk);
    size_t rows_total = 0;
    for (size_t i = 0; i < n_products; i++) rows_total += products[i].w->n_padded;
    const size_t want_tiles = TERN_TILES_PER_WORKER * (size_t)region->ctx->threads;
    const size_t fit = min_size(TERN_TILE_ROWS_MAX, TERN_TILE_VALUES / args.chunk);
    size_t tiles = 0;
    for (size_t i = 0; i < n_products; i++) {
        const tern_weights *w = products[i].w;
        size_t rows = w->unit_rows;
        if (!w->traits->table_bytes) {
            rows = tern_round_up(tern_ceil_div(rows_total * args.n_chunks, want_tiles), w->unit_rows);
            if (rows > fit) rows = fit / w->unit_rows * w->unit_rows;
        }
        args.products[i] = products[i];
        args.tile_rows[i] = rows;
        args.first_tile[i] = tiles;
        tiles += tern_ceil_div(w->n_padded, rows);
    }
    tern_region_add(region, gemm_tile, &args, sizeof args, tiles * args.n_chunks);
}

static bool same_tables(const tern_weights *a, const tern_weights *b) {
    return a->layout == b->layout && a->slice_k == b->slice_k;
}

void tern_products_add(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                       bool tables_ready) {
    assert(n_products >= 1 && n_products <= TERN_PRODUCTS_MAX);
    for (size_t first = 0; first < n_products;) {
        // A run of products that share tables (or need none) becomes one stage.
        const tern_weights *w = products[first].w;
        const bool lut = w->traits->table_bytes != 0;
        size_t end = first + 1;
        while (end < n_products && (lut ? same_tables(w, products[end].w) : !products[end].w->traits->table_bytes)) end++;
        const size_t round = lut ? TERN_LUT_TOKENS : view->m;
        for (size_t t = 0; t < view->m; t += round) {
            const size_t n_tokens = min_size(round, view->m - t);
            if (lut && !tables_ready) add_tables(region, view, w, t, n_tokens);
            add_gemm(region, view, products + first, end - first, t, n_tokens);
        }
        first = end;
    }
}
