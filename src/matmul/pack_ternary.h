// SPDX-License-Identifier: MIT
// Rows of trits to and from the ternary layouts of kernels/layout.h (T5, T2N, T3, B1, M2): pure functions, safe to run in parallel.
#ifndef TERN_MATMUL_PACK_TERNARY_H
#define TERN_MATMUL_PACK_TERNARY_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/layout.h"

// Rows are packed in strips of this many; calls on different strips of one unit write different bytes.
enum { TERN_PACK_STRIP = 16 };

// A unit is one slab of one K-slice (T5, T2N, T3, B1), or one K-slice, or any run of its panels (M2).
// n_padded: features of the slab, a multiple of 64 (M2: unused). k: depth of the K-slice.
// Writes rows first_row .. first_row + n_written - 1 of the unit (both multiples of TERN_PACK_STRIP): the first n_rows <=
// n_written come from trits[i * ldt + 0..k-1], each -1, 0 or 1 (M2: or 2), the others are zero weights. trits may be NULL if n_rows is 0.
// B1 has no zero: trits are -1 or 1, and the other rows hold -1.
void tern_pack_ternary(tern_layout layout, uint8_t *restrict unit, const int8_t *restrict trits, size_t ldt, size_t n_padded,
                       size_t first_row, size_t n_rows, size_t n_written, size_t k);

// The exact inverse for any rows: trits[i * ldt + 0..k-1] is row first_row + i of the unit.
void tern_unpack_ternary(tern_layout layout, int8_t *restrict trits, size_t ldt, const uint8_t *restrict unit, size_t n_padded,
                         size_t first_row, size_t n_rows, size_t k);

#endif
