// SPDX-License-Identifier: MIT
// Principal directions: iterates on the small matrix of the rows' dot products, and takes what it finds back to the rows.
#include "decode/principal.h"

#include <math.h>
#include <string.h>

#include "decode/random.h"

enum { ROUNDS = 16 };

double tern_principal_dot(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static void add(float *to, const float *x, size_t n, float factor) {
    for (size_t i = 0; i < n; i++) to[i] += factor * x[i];
}

// Makes x[count][n] orthonormal, each against those before it; what little is left of goes to 0.
static void orthonormalise(float *x, size_t count, size_t n) {
    static const double nothing = 1e-5; // of its length: rounding
    for (size_t i = 0; i < count; i++) {
        float *v = x + i * n;
        const double before = sqrt(tern_principal_dot(v, v, n));
        for (size_t twice = 0; twice < 2; twice++) // the second time takes what rounding left of the first
            for (size_t j = 0; j < i; j++) add(v, x + j * n, n, -(float)tern_principal_dot(v, x + j * n, n));
        const double length = sqrt(tern_principal_dot(v, v, n));
        const float scale = length > nothing * before ? (float)(1 / length) : 0;
        for (size_t l = 0; l < n; l++) v[l] *= scale;
    }
}

// y[i][j] = x_i . rows_j
static void multiply(const tern_kernels *kernels, float *y, const float *x, size_t m, const float *rows, size_t n, size_t k) {
    const tern_dot_args args = {.y = y, .ldy = n, .x = x, .ldx = k, .rows = rows, .n = n, .m = m, .k = k};
    TERN_KERNEL(kernels, dot_f32, TERN_LAYOUT_NONE)(&args);
}

void tern_principal_directions(const tern_kernels *kernels, float *out, size_t n_out, const float *rows, size_t n, size_t k,
                               float *work) {
    float *gram = work, *x = gram + n * n, *y = x + n_out * n;
    uint64_t random[4];
    multiply(kernels, gram, rows, n, rows, n, k);
    tern_random_seed(random, 0);
    for (size_t i = 0; i < n_out * n; i++) x[i] = (float)(tern_random_unit(random) - 0.5);
    for (size_t round = 0; round < ROUNDS; round++) {
        orthonormalise(x, n_out, n);
        multiply(kernels, y, x, n_out, gram, n, n);
        memcpy(x, y, n_out * n * sizeof *x);
    }
    orthonormalise(x, n_out, n); // coefficients of the rows
    memset(out, 0, n_out * k * sizeof *out);
    for (size_t i = 0; i < n_out; i++)
        for (size_t l = 0; l < n; l++) add(out + i * k, rows + l * k, k, x[i * n + l]);
    orthonormalise(out, n_out, k);
}
