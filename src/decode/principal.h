// SPDX-License-Identifier: MIT
// Principal directions of a few vectors.
#ifndef TERN_DECODE_PRINCIPAL_H
#define TERN_DECODE_PRINCIPAL_H

#include <stddef.h>

enum { TERN_PRINCIPAL_ROWS_MAX = 64, TERN_PRINCIPAL_MAX = 16 };

// out[n_out][k]: about orthonormal vectors, near those that hold most of the squares of rows[n][k]; zeros where the rows have
// no more. The same on every machine. n_out <= TERN_PRINCIPAL_MAX, n_out <= n <= TERN_PRINCIPAL_ROWS_MAX; all rows finite.
void tern_principal_directions(float *out, size_t n_out, const float *rows, size_t n, size_t k);

#endif
