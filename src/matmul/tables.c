// SPDX-License-Identifier: MIT
// Cuts a run of table rows at the K-slices.
#include "matmul/tables.h"

void tern_tables_build(const tern_kernels *kernels, const tern_weights *w, int8_t *tables, const int8_t *q, size_t first,
                       size_t last) {
    tern_lut_build_fn *build = TERN_KERNEL(kernels, lut_build, w->layout);
    const size_t per_slice = w->traits->table_rows(w->slice_k);
    while (first < last) {
        const size_t slice = first / per_slice, row0 = first % per_slice, depth = tern_slice_depth(w, slice);
        const size_t wanted = row0 + (last - first) < per_slice ? row0 + (last - first) : per_slice;
        const size_t rows = w->traits->table_rows(depth); // of the last slice: maybe fewer
        const size_t row1 = wanted < rows ? wanted : rows;
        if (row0 < row1) build(tables + slice * per_slice * w->traits->table_bytes, q + slice * w->slice_k, depth, row0, row1);
        first += wanted - row0;
    }
}
