// SPDX-License-Identifier: MIT
// The last step of a product of B1: what the halved table entries dropped comes back.
#ifndef TERN_KERNELS_LUT_B1_H
#define TERN_KERNELS_LUT_B1_H

#include "kernels.h"

// Entries are floor(value / 2), and a group's values are all even or all odd; entry 15 is that of minus the sum of entry 0, so
// the two halves add up to 0 in an even group and to -1 in an odd one.
static inline int32_t tern_b1_odd_groups(const int8_t *restrict tables, size_t rows) {
    enum { GROUP_BYTES = TERN_B1_TABLE_BYTES / 2, PLANE = GROUP_BYTES / 2, LAST = PLANE - 1 };
    int32_t odd = 0;
    for (size_t g = 0; g < 2 * rows; g++, tables += GROUP_BYTES)
        odd -= tables[0] + tables[LAST] + TERN_T2N_STEP * (tables[PLANE] + tables[PLANE + LAST]);
    return odd;
}

// acc: sums of halved entries, in; exact dot products, out.
static inline void tern_b1_finish(const tern_gemm_args *args) {
    for (size_t t = 0; t < args->m; t++) {
        const int32_t odd = tern_b1_odd_groups(args->tables + t * args->ld_tables, tern_b1_rows(args->k));
        int32_t *acc = args->acc + t * args->ld_acc;
        for (size_t i = 0; i < args->n; i++) acc[i] = 2 * acc[i] + odd;
    }
}

#endif
