// SPDX-License-Identifier: MIT
// Products as stages: lookup tables, then tiles of features x tokens.
#include "matmul/product.h"

#include <assert.h>
#include <stdalign.h>
#include <string.h>

#include "matmul/tables.h"

enum {
    TILES_PER_WORKER = 4, // where the work allows, so that an unequal share does not leave a worker idle for long
    LONG_TILES_PER_WORKER = 16,
    WORTH_A_WORKER = 1 << 17,  // multiply-adds, about 1.5 us: less is done sooner than another worker is
    WORTH_A_TILE = 1 << 18,    // less is not cut any further once each worker has a tile
    LONG_TILE = 1 << 21,       // stages of longer tiles get more of them: about 25 us that others may have to wait
    PANELS_MIN = 2,            // kernels take panels in pairs; a slab is worth a tile
    TABLE_ROWS_PER_TILE = 256, // about 0.7 us
    CHUNK_TOKENS = 64,         // tokens of a tile, at most
    OWN_ROW_K_MAX = 8192,      // a row that each worker quantizes for itself, on its stack
    OWN_ROW_WORK = 1 << 20,    // multiply-adds of a worker, about 11 us: up to here that is worth it
    OWN_ROW_BLOCKS = OWN_ROW_K_MAX / 8,
    L2_SHARE = 2 // a tile's weights take at most this part of L2, and stay there for all chunks of tokens
};

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

// A few tiles more, so that all workers have as many; fewer tiles than workers stay apart.
static size_t even_out(size_t tiles, size_t workers) { return tiles < workers ? tiles : tern_round_up(tiles, workers); }

// ---- products ---------------------------------------------------------------------------------------------------

// Tokens token0 .. token0 + n_tokens - 1 of a group of products whose units stand in one line (line.h). A tile is an equal
// piece of the line times a chunk of tokens; a worker goes through its piece of the line once, with all chunks for each tile's
// rows.
typedef struct gemm_args {
    tern_act_view view;
    const tern_kernels *kernels;
    tern_sharing sharing;
    size_t token0, n_tokens;
    size_t chunk;             // tokens of one tile
    size_t n_chunks;          // tiles along M
    size_t tiles;             // along the line
    size_t length;            // of the line
    tern_set_row_fn *set_row; // by each worker for itself, or NULL: the rows are there
    size_t set_row_arg;       // offset in these arguments
    size_t n_products;
    tern_product products[]; // and behind them the units of each
} gemm_args;

static size_t *units_of(gemm_args *g) { return (size_t *)(void *)&g->products[g->n_products]; }

static void run_tile(gemm_args *g, const tern_act_view *view, size_t tile) {
    const size_t *units = units_of(g);
    const size_t along = tile / g->n_chunks, t0 = tile % g->n_chunks * g->chunk;
    const size_t m = min_size(g->chunk, g->n_tokens - t0);
    const size_t end = tern_line_cut(g->length, g->tiles, along + 1);
    for (size_t at = tern_line_cut(g->length, g->tiles, along), count; at < end; at += count) {
        const tern_line_run run = tern_line_at(&g->sharing, units, g->n_products, at);
        const tern_product *p = &g->products[run.weight];
        const tern_weights *w = p->w;
        count = min_size(run.count, end - at);
        const size_t n1 = min_size((run.unit + count) * w->unit_rows, w->n_padded), step = tern_tile_rows_max(w, m);
        for (size_t n0 = run.unit * w->unit_rows; n0 < n1; n0 += step)
            tern_tile_run(view, g->kernels, p, n0, min_size(step, n1 - n0), g->token0 + t0, m, g->token0);
    }
}

static void gemm_tile(void *arg, size_t tile) {
    gemm_args *g = arg;
    run_tile(g, &g->view, tile);
}

static void own_row_tile(void *arg, size_t tile) {
    gemm_args *g = arg;
    alignas(TERN_CACHE_LINE) int8_t q[OWN_ROW_K_MAX];
    alignas(TERN_CACHE_LINE) float x[OWN_ROW_K_MAX];
    float scales[OWN_ROW_BLOCKS];
    int32_t sums[OWN_ROW_BLOCKS], shift = 0;
    uint8_t flags = 0;
    tern_act_view view = g->view;
    view.q = q;
    view.scales = scales;
    view.sums = sums;
    view.shifts = &shift;
    view.flags = &flags;
    g->set_row(&view, (const unsigned char *)g + g->set_row_arg, x);
    run_tile(g, &view, tile);
}

static size_t gemm_args_bytes(size_t n_products) {
    return sizeof(gemm_args) + n_products * (sizeof(tern_product) + sizeof(size_t));
}

// Tiles along the line: by the work of the stage, the workers, and what L2 holds.
static size_t tiles_along(const tern_context *ctx, const gemm_args *g) {
    size_t rows = 0, bytes = 0;
    for (size_t i = 0; i < g->n_products; i++) {
        rows += g->products[i].w->n_padded;
        bytes += g->products[i].w->packed_bytes;
    }
    const size_t workers = (size_t)ctx->threads, work = rows * g->view.k * g->n_tokens;
    const size_t few = min_size(work / WORTH_A_WORKER, workers);
    const size_t several = min_size(work / WORTH_A_TILE, TILES_PER_WORKER * workers);
    const size_t many = min_size(work / LONG_TILE, LONG_TILES_PER_WORKER * workers);
    size_t tiles = tern_ceil_div(max_size(max_size(few, several), max_size(many, 1)), g->n_chunks);
    if (g->n_chunks > 1 && ctx->topology.l2_bytes)
        tiles = max_size(tiles, tern_ceil_div(bytes, ctx->topology.l2_bytes / L2_SHARE));
    const size_t units_min = g->products[0].w->traits->table_bytes ? 1 : PANELS_MIN;
    return min_size(even_out(tiles, workers), max_size(1, g->length / units_min));
}

// Room for the arguments of a stage and `more` bytes behind them, all but `tiles` filled in.
static gemm_args *reserve_gemm(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                               size_t token0, size_t n_tokens, size_t more) {
    const tern_context *ctx = region->ctx;
    gemm_args *g = tern_region_reserve(region, gemm_args_bytes(n_products) + more);
    *g = (gemm_args){.view = *view,
                     .kernels = &ctx->kernels,
                     .sharing = tern_context_sharing(ctx),
                     .token0 = token0,
                     .n_tokens = n_tokens,
                     .n_chunks = tern_ceil_div(n_tokens, (size_t)CHUNK_TOKENS),
                     .n_products = n_products};
    g->chunk = tern_ceil_div(n_tokens, g->n_chunks);
    for (size_t i = 0; i < n_products; i++) {
        g->products[i] = products[i];
        units_of(g)[i] = products[i].w->n_units;
        g->length += products[i].w->n_units;
    }
    return g;
}

static void commit_gemm(tern_region *region, const gemm_args *g, tern_tile_fn fn) {
    tern_region_commit(region, g->products->name ? g->products->name : "product", fn, g->tiles * g->n_chunks);
}

static void add_gemm(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                     size_t token0, size_t n_tokens) {
    gemm_args *g = reserve_gemm(region, view, products, n_products, token0, n_tokens, 0);
    g->tiles = tiles_along(region->ctx, g);
    commit_gemm(region, g, gemm_tile);
}

bool tern_products_add_own_rows(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                                tern_set_row_fn *set_row, const void *arg, size_t arg_size) {
    size_t rows = 0;
    for (size_t i = 0; i < n_products; i++) {
        if (products[i].w->traits->table_bytes) return false;
        rows += products[i].w->n_padded;
    }
    const size_t workers = (size_t)region->ctx->threads;
    if (view->m > 1 || view->k > OWN_ROW_K_MAX || view->ld_blocks > OWN_ROW_BLOCKS || rows * view->k > workers * OWN_ROW_WORK)
        return false;
    assert(arg_size <= TERN_SET_ROW_ARG_MAX);
    gemm_args *g = reserve_gemm(region, view, products, n_products, 0, 1, TERN_SET_ROW_ARG_MAX);
    g->tiles = max_size(1, min_size(min_size(rows * view->k / WORTH_A_WORKER, workers), g->length / PANELS_MIN));
    g->set_row = set_row;
    g->set_row_arg = gemm_args_bytes(n_products);
    memset((unsigned char *)g + g->set_row_arg, 0, TERN_SET_ROW_ARG_MAX);
    memcpy((unsigned char *)g + g->set_row_arg, arg, arg_size);
    commit_gemm(region, g, own_row_tile);
    return true;
}

// ---- lookup tables ----------------------------------------------------------------------------------------------

typedef struct table_args {
    tern_act_view view;
    const tern_kernels *kernels;
    const tern_weights *w;
    size_t token0, tiles_per_token;
} table_args;

// Tile = a run of table rows of one token.
static void table_tile(void *arg, size_t tile) {
    const table_args *a = arg;
    const size_t token = tile / a->tiles_per_token, part = tile % a->tiles_per_token, rows = tern_tables_rows(a->w);
    tern_tables_build(a->kernels, a->w, a->view.tables + token * a->view.ld_tables,
                      a->view.q + (a->token0 + token) * a->view.ldq, tern_line_cut(rows, a->tiles_per_token, part),
                      tern_line_cut(rows, a->tiles_per_token, part + 1));
}

static void add_tables(tern_region *region, const tern_act_view *view, const tern_weights *w, size_t token0, size_t n_tokens) {
    const tern_context *ctx = region->ctx;
    const size_t tiles = even_out(tern_ceil_div(n_tokens * tern_tables_rows(w), TABLE_ROWS_PER_TILE), (size_t)ctx->threads);
    const table_args args = {
        .view = *view, .kernels = &ctx->kernels, .w = w, .token0 = token0, .tiles_per_token = tern_ceil_div(tiles, n_tokens)};
    tern_region_add(region, "tables", table_tile, &args, sizeof args, n_tokens * args.tiles_per_token);
}

// ---- grouping -----------------------------------------------------------------------------------------------------

// Tokens whose tables are built together, in equal shares.
static size_t round_tokens(const tern_weights *w, size_t m) {
    return w->traits->table_bytes ? tern_ceil_div(m, tern_ceil_div(m, (size_t)TERN_LUT_TOKENS)) : m;
}

void tern_products_add(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                       bool tables_ready) {
    assert(view->m > 0);
    for (size_t first = 0; first < n_products;) {
        // A run of products that share tables (or need none) becomes one stage.
        const tern_weights *w = products[first].w;
        const bool lut = w->traits->table_bytes != 0;
        size_t end = first + 1;
        while (end < n_products && (lut ? tern_tables_shared(w, products[end].w) : !products[end].w->traits->table_bytes))
            end++;
        const size_t round = round_tokens(w, view->m);
        for (size_t t = 0; t < view->m; t += round) {
            const size_t n_tokens = min_size(round, view->m - t);
            if (lut && !tables_ready) add_tables(region, view, w, t, n_tokens);
            add_gemm(region, view, products + first, end - first, t, n_tokens);
        }
        first = end;
    }
}

size_t tern_products_stages(size_t n_products, size_t m) { return 2 * n_products * tern_ceil_div(m, (size_t)TERN_LUT_TOKENS); }

size_t tern_products_arg_bytes(size_t n_products, size_t m) {
    const size_t round = n_products * tern_round_up(sizeof(table_args), TERN_REGION_ARG_ALIGN) +
                         n_products * tern_round_up(gemm_args_bytes(1), TERN_REGION_ARG_ALIGN);
    // See tern_region_reserve.
    const size_t scratch = tern_round_up(gemm_args_bytes(n_products) + TERN_SET_ROW_ARG_MAX, TERN_REGION_ARG_ALIGN);
    return round * tern_ceil_div(m, (size_t)TERN_LUT_TOKENS) + scratch;
}
