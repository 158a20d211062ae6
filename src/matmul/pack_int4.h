// SPDX-License-Identifier: MIT
// Rows of 4-bit codes to and from the layouts I4B32, I4M32 and I4K of kernels/layout.h: pure functions, safe to run in
// parallel.
#ifndef TERN_MATMUL_PACK_INT4_H
#define TERN_MATMUL_PACK_INT4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/layout.h"

// The scales of a row, as many floats as tern_i4_scales says:
//   I4B32: d of each block of 32;  I4M32: d and m of each block;
//   I4K: for each 256 k the 18 floats D, M, s[8], t[8], s and t whole numbers 0..63.
// d, m, D and M are rounded to float16.
enum { TERN_I4K_BLOCKS = TERN_I4K_SUPER_K / TERN_I4_BLOCK, TERN_I4K_SCALES = 2 + 2 * TERN_I4K_BLOCKS };
size_t tern_i4_scales(tern_layout layout, size_t k);

// Rows first_row .. first_row + n_written - 1 of the unit are written (both multiples of the panel): the first n_rows come from
// codes[i * ldc + 0..k-1], 0..15 each, and scales[i * lds]; the others are zero. False if a scale is not finite in float16.
bool tern_pack_i4(tern_layout layout, uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc,
                  const float *restrict scales, size_t lds, size_t first_row, size_t n_rows, size_t n_written, size_t k);

// One row: codes[k], and scales as above (exactly what packing kept) unless NULL.
void tern_unpack_i4(tern_layout layout, int8_t *restrict codes, float *restrict scales, const uint8_t *restrict unit,
                    size_t row, size_t k);

#endif
