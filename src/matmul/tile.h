// SPDX-License-Identifier: MIT
// One tile of a product: kernel and epilogue over some features and tokens, through sums on the worker's stack.
#ifndef TERN_MATMUL_TILE_H
#define TERN_MATMUL_TILE_H

#include "matmul/activations.h"

// One output of a group.
typedef struct tern_product {
    const tern_weights *w;
    void *y;
    tern_type y_type; // F32, F16, BF16 or S32 (weights of one K-slice)
    size_t ldy;
    const float *bias;     // NULL with S32
    const float *residual; // NULL with S32; may be y
    size_t ld_residual;
    const char *name; // of the stage in traces, a static string; NULL: "product"; products of one stage go by the first one's
} tern_product;

// Tokens t0 .. t0 + m - 1 and features n0 .. n0 + n - 1: whole units of the weight, n <= tern_tile_rows_max(w, m).
// view->tables (LUT layouts) holds the tables of tokens from tables_token on.
void tern_tile_run(const tern_act_view *view, const tern_kernels *kernels, const tern_product *p, size_t n0, size_t n,
                   size_t t0, size_t m, size_t tables_token);

// Features whose results for m tokens, taken in chunks of tern_tile_tokens(w, m), fit the buffers: whole units, at least one.
size_t tern_tile_rows_max(const tern_weights *w, size_t m);

// Tokens that are taken together out of m: at most m, in equal shares.
size_t tern_tile_tokens(const tern_weights *w, size_t m);

#endif
