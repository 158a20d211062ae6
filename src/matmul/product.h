// SPDX-License-Identifier: MIT
// Stages of one or several products that share their activations.
#ifndef TERN_MATMUL_PRODUCT_H
#define TERN_MATMUL_PRODUCT_H

#include "matmul/region.h"
#include "matmul/tile.h"

// Appends the stages that compute products of one quantized batch. All weights have the view's k and need its block; s32
// outputs need weights of one K-slice. tables_ready: the tables of the first tokens exist already (one LUT layout, m <=
// TERN_LUT_TOKENS). The products are copied.
void tern_products_add(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                       bool tables_ready);

// The same of one token whose row nobody has set yet: every worker sets it for itself, which takes as long as if one set it for
// all, and saves a stage and the way of the row from core to core (0.2 us for each line that the work waits for, on the
// reference machine). set_row: from inside a tile, row 0 of the view from arg; x: scratch of view->k floats, 64-byte aligned.
// arg is copied; what it points to must not be an output of these products. False, and nothing is added, where it does not pay:
// tables, many tokens, more work than a few us.
typedef void tern_set_row_fn(const tern_act_view *view, const void *arg, float *x);
enum { TERN_SET_ROW_ARG_MAX = 64 };
bool tern_products_add_own_rows(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                                tern_set_row_fn *set_row, const void *arg, size_t arg_size);

// Room that tern_products_add takes in a region's arena for n_products products of up to m tokens, and its stages.
size_t tern_products_arg_bytes(size_t n_products, size_t m);
size_t tern_products_stages(size_t n_products, size_t m);

#endif
