// SPDX-License-Identifier: MIT
// Lookup tables of one token for the LUT layouts: all K-slices of a row, one after the other.
#ifndef TERN_MATMUL_TABLES_H
#define TERN_MATMUL_TABLES_H

#include "matmul/activations.h"

// Table rows of one token are numbered over its K-slices, each counted as deep as the first; bytes is what they take.
static inline size_t tern_tables_rows(const tern_weights *w) { return w->n_slices * w->traits->table_rows(w->slice_k); }
static inline size_t tern_tables_bytes(const tern_weights *w) { return tern_tables_rows(w) * w->traits->table_bytes; }

// Weights that can use the same tables.
static inline bool tern_tables_shared(const tern_weights *a, const tern_weights *b) {
    return a->layout == b->layout && a->slice_k == b->slice_k;
}

// Builds rows first .. last - 1 of the tables that w needs, from one quantized row of w->k.
void tern_tables_build(const tern_kernels *kernels, const tern_weights *w, int8_t *tables, const int8_t *q, size_t first,
                       size_t last);

#endif
