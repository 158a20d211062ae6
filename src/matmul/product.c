// SPDX-License-Identifier: MIT
// Products as stages: lookup tables, then tiles of features x tokens.
#include "matmul/product.h"

#include <assert.h>

#include "matmul/tables.h"

enum {
    TILES_PER_WORKER = 4,    // so that an unequal share does not leave a worker idle for long
    TILE_MACS_MIN = 1 << 17, // a worker is not called for less: about 2 us
    TABLE_ROWS_PER_TILE = 128,
    CHUNK_TOKENS = 64 // tokens of a tile, at most
};

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

// ---- products ---------------------------------------------------------------------------------------------------

typedef struct tiled_product {
    tern_product product;
    size_t tiles;      // along N, which share its units: a slab each, or several panels
    size_t first_tile; // of them, over all products
} tiled_product;

// Tokens token0 .. token0 + n_tokens - 1 of a group of products.
typedef struct gemm_args {
    tern_act_view view;
    const tern_kernels *kernels;
    size_t token0, n_tokens;
    size_t chunk;    // tokens of one tile
    size_t n_chunks; // tiles along M
    size_t n_tiles, streams;
    size_t n_products;
    tiled_product products[];
} gemm_args;

static void gemm_tile(void *arg, size_t claim) {
    const gemm_args *g = arg;
    const size_t tile = tern_stream_tile(claim, g->n_tiles, g->streams);
    const size_t along_n = tile / g->n_chunks, chunk = tile % g->n_chunks;
    size_t i = g->n_products - 1;
    while (along_n < g->products[i].first_tile) i--;
    const tiled_product *p = &g->products[i];
    const tern_weights *w = p->product.w;
    const size_t nth = along_n - p->first_tile;
    const size_t n0 = w->n_units * nth / p->tiles * w->unit_rows, n1 = w->n_units * (nth + 1) / p->tiles * w->unit_rows;
    const size_t n = min_size(n1, w->n_padded) - n0;
    const size_t t0 = chunk * g->chunk, m = min_size(g->chunk, g->n_tokens - t0);
    tern_tile_run(&g->view, g->kernels, &p->product, n0, n, g->token0 + t0, m, g->token0);
}

// Little work: not worth waking a worker.
static void gemm_alone(void *arg, size_t unused) {
    (void)unused;
    const gemm_args *g = arg;
    for (size_t claim = 0; claim < g->n_tiles; claim++) gemm_tile(arg, claim);
}

static size_t gemm_args_bytes(size_t n_products) { return sizeof(gemm_args) + n_products * sizeof(tiled_product); }

static void add_gemm(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                     size_t token0, size_t n_tokens) {
    gemm_args *g = tern_region_reserve(region, gemm_args_bytes(n_products));
    *g = (gemm_args){
        .view = *view, .kernels = &region->ctx->kernels, .token0 = token0, .n_tokens = n_tokens, .n_products = n_products};
    g->n_chunks = tern_ceil_div(n_tokens, (size_t)CHUNK_TOKENS);
    g->chunk = tern_ceil_div(n_tokens, g->n_chunks);
    size_t rows_total = 0;
    for (size_t i = 0; i < n_products; i++) rows_total += products[i].w->n_padded;
    const size_t worth = rows_total * view->k / TILE_MACS_MIN * n_tokens; // tiles
    const size_t want_tiles = max_size(1, min_size(worth, (size_t)TILES_PER_WORKER * (size_t)region->ctx->threads));
    size_t tiles = 0;
    for (size_t i = 0; i < n_products; i++) {
        const tern_weights *w = products[i].w;
        tiled_product *p = &g->products[i];
        p->product = products[i];
        p->tiles = w->n_units;
        if (!w->traits->table_bytes) {
            const size_t share = tern_ceil_div(want_tiles * w->n_padded, rows_total * g->n_chunks); // of the tiles wanted
            const size_t fewest = tern_ceil_div(w->n_units, tern_tile_rows_max(w, g->chunk) / w->unit_rows);
            p->tiles = min_size(w->n_units, max_size(share, fewest));
        }
        p->first_tile = tiles;
        tiles += p->tiles;
    }
    g->n_tiles = tiles * g->n_chunks;
    g->streams = worth <= 1 ? 1 : (size_t)region->ctx->threads;
    const char *name = products->name ? products->name : "product";
    if (worth <= 1)
        tern_region_commit(region, name, gemm_alone, 1);
    else
        tern_region_commit(region, name, gemm_tile, g->n_tiles);
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
    const size_t token = tile / a->tiles_per_token, first = tile % a->tiles_per_token * TABLE_ROWS_PER_TILE;
    tern_tables_build(a->kernels, a->w, a->view.tables + token * a->view.ld_tables,
                      a->view.q + (a->token0 + token) * a->view.ldq, first,
                      min_size(first + TABLE_ROWS_PER_TILE, tern_tables_rows(a->w)));
}

static void add_tables(tern_region *region, const tern_act_view *view, const tern_weights *w, size_t token0, size_t n_tokens) {
    const table_args args = {.view = *view,
                             .kernels = &region->ctx->kernels,
                             .w = w,
                             .token0 = token0,
                             .tiles_per_token = tern_ceil_div(tern_tables_rows(w), (size_t)TABLE_ROWS_PER_TILE)};
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
    return round * tern_ceil_div(m, (size_t)TERN_LUT_TOKENS);
}
