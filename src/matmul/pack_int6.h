// SPDX-License-Identifier: MIT
// Rows of 6-bit codes to and from the layout I6B32 of kernels/layout.h: pure functions, safe to run in parallel.
#ifndef TERN_MATMUL_PACK_INT6_H
#define TERN_MATMUL_PACK_INT6_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/layout.h"

// The scales of a row: D, then s of each block of 32, whole numbers 0..255.
static inline size_t tern_i6_scales(size_t k) { return 1 + tern_ceil_div(k, TERN_I6_BLOCK); }

// The largest code at depth k0 of a row of k.
static inline int tern_i6_code_max(size_t k, size_t k0) {
    return k0 < tern_i6_wide_supers(k) * TERN_I6_SUPER_K ? TERN_I6_WIDE_MAX : TERN_I6_CODE_MAX;
}

// Rows first_row .. first_row + n_written - 1 of the unit are written (both multiples of the panel): the first n_rows come from
// codes[i * ldc + 0..k-1], at most tern_i6_code_max in size, and scales[i * lds]; the others are padding. False if a D is not
// finite.
bool tern_pack_i6(uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc, const float *restrict scales, size_t lds,
                  size_t first_row, size_t n_rows, size_t n_written, size_t k);

// One row: codes[k], and scales as above (exactly what packing kept) unless NULL.
void tern_unpack_i6(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict unit, size_t row, size_t k);

#endif
