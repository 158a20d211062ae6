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

typedef enum tern_act_flag {
    TERN_ACT_HAS_MIN = 1, // some q may be -128
    TERN_ACT_SHIFTED = 2  // u8 with a zero point other than 128
} tern_act_flag;

// A batch as the caller has it.
typedef struct tern_act_source {
    const void *x;
    tern_type type; // all but S32
    size_t ldx;
    const float *scales;        // S8, U8: [m][blocks], or NULL: all 1
    const uint8_t *zero_points; // U8: [m], or NULL: all 128
} tern_act_source;

// One quantized batch, by value: what stages keep while the tern_activations goes on to the next batch.
typedef struct tern_act_view {
    int8_t *q; // row t at q + t * ldq, zero past k
    size_t ldq, m, k;
    size_t block;     // elements per scale, k for one scale per row
    float *scales;    // [t * ld_blocks + b], 0 past the last block
    int32_t *sums;    // the same shape
    size_t ld_blocks; //
    uint8_t *flags;   // per token: tern_act_flag
    int32_t *shifts;  // per token with TERN_ACT_SHIFTED: x = (q + shift) * scale
    int8_t *tables;   // TERN_LUT_TOKENS sets of ld_tables bytes
    size_t ld_tables; //
    atomic_int *not_finite;
} tern_act_view;

struct tern_activations {
    tern_context *ctx;
    size_t max_m, max_k;
    int8_t *q;
    float *scales;
    int32_t *sums, *shifts;
    uint8_t *flags;
    int8_t *tables;
    size_t q_bytes, n_blocks, tables_bytes;
    atomic_int not_finite;     // set by a quantizing tile that met NaN or infinity
    tern_act_view view;        // of the last tern_activations_set_*; m = 0 before
    tern_layout tables_layout; // tables hold view's first tokens for this layout and slice depth, or NONE
    size_t tables_slice_k;
};

// Strides of a batch of m x k with this block (0: whole rows), without memory.
tern_act_view tern_act_shape(size_t m, size_t k, size_t block);

// The same with the memory of `a`. m, k within the maxima.
tern_act_view tern_act_begin(tern_activations *a, size_t m, size_t k, size_t block);

// Quantizes, or takes over, row t of the source into row `to` of the view (from inside a tile). False, and not_finite set where
// the view has one, if it holds a NaN or an infinity.
bool tern_act_set_row(const tern_act_view *view, const tern_kernels *kernels, size_t to, const tern_act_source *source,
                      size_t t);

// Tiles of a stage that goes once over m rows of k elements: each of whole rows, and of enough elements to be worth a worker's
// attention. Tile t has the rows from tern_line_cut(m, tiles, t) on.
size_t tern_act_tiles(size_t m, size_t k, size_t workers);

// The stage that sets all rows of a view.
typedef struct tern_act_prepare {
    tern_act_view view;
    const tern_kernels *kernels;
    tern_act_source source;
    size_t n_tiles; // tern_act_tiles
} tern_act_prepare;
void tern_act_prepare_tile(void *prepare, size_t tile);

// Some of m tokens from t0 on has this flag.
static inline bool tern_act_any(const tern_act_view *view, size_t t0, size_t m, tern_act_flag flag) {
    unsigned any = 0;
    for (size_t t = 0; t < m; t++) any |= view->flags[t0 + t];
    return (any & flag) != 0;
}

#endif
