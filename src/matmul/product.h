// SPDX-License-Identifier: MIT
// Stages of one or several products that share their activations.
#ifndef TERN_MATMUL_PRODUCT_H
#define TERN_MATMUL_PRODUCT_H

#include "matmul/activations.h"
#include "matmul/region.h"

enum { TERN_PRODUCTS_MAX = 4 };

// One output of a group. Exactly one of y and y_s32 is given.
typedef struct tern_product {
    const tern_weights *w;
    float *y;
    int32_t *y_s32;
    size_t ldy;
    const float *bias;
    const float *residual; // may be y
    size_t ld_residual;
} tern_product;

// Appends the stages that compute 1..TERN_PRODUCTS_MAX products of one quantized batch. All weights have the view's k and need
// its block; s32 outputs need weights of one K-slice. tables_ready: the tables of the first tokens exist already (one LUT
// layout, m <= TERN_LUT_TOKENS).
void tern_products_add(tern_region *region, const tern_act_view *view, const tern_product *products, size_t n_products,
                       bool tables_ready);

#endif
