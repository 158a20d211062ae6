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

// Room that tern_products_add takes in a region's arena for n_products products of up to m tokens, and its stages.
size_t tern_products_arg_bytes(size_t n_products, size_t m);
size_t tern_products_stages(size_t n_products, size_t m);

#endif
