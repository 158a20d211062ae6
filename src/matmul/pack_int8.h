// SPDX-License-Identifier: MIT
// Rows of int8 codes to and from the layouts I8 and I8B32 of kernels/layout.h: pure functions, safe to run in parallel.
#ifndef TERN_MATMUL_PACK_INT8_H
#define TERN_MATMUL_PACK_INT8_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/layout.h"

// A unit is one K-slice or any run of its panels. Rows first_row .. first_row + n_written - 1 of the unit are written (both
// multiples of the panel): the first n_rows <= n_written come from codes[i * ldc + 0..k-1], the others are zero.
void tern_pack_i8(uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc, size_t first_row, size_t n_rows,
                  size_t n_written, size_t k);
void tern_unpack_i8(int8_t *restrict codes, size_t ldc, const uint8_t *restrict unit, size_t first_row, size_t n_rows,
                    size_t k);

// scales[i * lds + b]: float16 bits of block b = 0 .. ceil(k / 32) - 1 of row i; padding gets zero codes and zero scales.
void tern_pack_i8b32(uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc, const uint16_t *restrict scales,
                     size_t lds, size_t first_row, size_t n_rows, size_t n_written, size_t k);
void tern_unpack_i8b32(int8_t *restrict codes, size_t ldc, uint16_t *restrict scales, size_t lds, const uint8_t *restrict unit,
                       size_t first_row, size_t n_rows, size_t k);

#endif
