// SPDX-License-Identifier: MIT
// The inside of tern_activations: int8 rows with block scales and sums, and room for lookup tables.
#ifndef TERN_MATMUL_ACTIVATIONS_H
#define TERN_MATMUL_ACTIVATIONS_H

#include <stdatomic.h>

#include "matmul/weights.h"

enum {
    TERN_ACT_BLOCK_MIN = 16, // smallest block of activation scales
    TERN_LUT_TOKENS = 8      // tokens whose tables are built together; more tokens take several rounds
};

// One quantized batch, by value: what stages keep while the tern_activations goes on to the next batch.
typedef struct tern_act_view {
    int8_t *q; // row t at q + t * ldq, zero past k
    size_t ldq, m, k;
    size_t block;     // elements per scale, k for one scale per row
    float *scales;    // [t * ld_blocks + b], 0 past the last block
    int32_t *sums;    // the same shape
    size_t ld_blocks; //
    bool has_min;     // some q may be -128
    int8_t *tables;   // TERN_LUT_TOKENS sets of ld_tables bytes
    size_t ld_tables; //
    atomic_int *not_finite;
} tern_act_view;

struct tern_activations {
    tern_context *ctx;
    size_t max_m, max_k;
    int8_t *q;
    float *scales;
    int32_t *sums;
    int8_t *tables;
    size_t q_bytes, n_blocks, tables_bytes;
    atomic_int not_finite;     // set by a quantizing tile that met NaN or infinity
    tern_act_view view;        // of the last tern_activations_set_*; m = 0 before
    tern_layout tables_layout; // tables hold view's first tokens for this layout and slice depth, or NONE
    size_t tables_slice_k;
};

// Shapes a batch of m x k with this block (0: whole rows). m, k within the maxima.
tern_act_view tern_act_begin(tern_activations *a, size_t m, size_t k, size_t block);

// Quantizes one row (from inside a tile): x[k] into row t of the view.
void tern_act_set_row(const tern_act_view *view, const tern_kernels *kernels, size_t t, const float *x);

#endif
