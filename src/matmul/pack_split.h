// SPDX-License-Identifier: MIT
// Rows of int8 codes to and from the layout I8S32 of kernels/layout.h: pure functions, safe to run in parallel.
#ifndef TERN_MATMUL_PACK_SPLIT_H
#define TERN_MATMUL_PACK_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/layout.h"

// As tern_pack_i8b32 and tern_unpack_i8b32; scales may be NULL in the latter.
void tern_pack_i8s32(uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc, const uint16_t *restrict scales,
                     size_t lds, size_t first_row, size_t n_rows, size_t n_written, size_t k);
void tern_unpack_i8s32(int8_t *restrict codes, uint16_t *restrict scales, const uint8_t *restrict unit, size_t row, size_t k);

#endif
