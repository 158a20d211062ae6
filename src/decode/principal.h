// SPDX-License-Identifier: MIT
// Principal directions of some vectors.
#ifndef TERN_DECODE_PRINCIPAL_H
#define TERN_DECODE_PRINCIPAL_H

#include "cpu/dispatch.h"

// Floats of scratch that n_out directions of n rows take.
static inline size_t tern_principal_work(size_t n_out, size_t n) { return n * n + 2 * n_out * n; }

// a . b in float64, one element after the other.
double tern_principal_dot(const float *a, const float *b, size_t n);

// out[n_out][k]: orthonormal vectors, near those that hold most of the squares of rows[n][k]; zeros where the rows have no
// more. The same bits on every machine. n_out <= n; all rows finite.
void tern_principal_directions(const tern_kernels *kernels, float *out, size_t n_out, const float *rows, size_t n, size_t k,
                               float *work);

#endif
