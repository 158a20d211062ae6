// SPDX-License-Identifier: MIT
// Principal directions: iterates on the small matrix of the rows' dot products, and takes what it finds back to the rows.
#include "decode/principal.h"

#include <math.h>
#include <string.h>

#include "decode/random.h"

enum { ROWS = TERN_PRINCIPAL_ROWS_MAX, ROUNDS = 24 };

typedef struct vectors {
    double v[TERN_PRINCIPAL_MAX][ROWS];
} vectors;

static double dot(const double *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// Orthonormal, in their order; what nothing is left of becomes 0.
static void orthonormalise(vectors *x, size_t n_out, size_t n) {
    static const double nothing = 1e-12;
    for (size_t i = 0; i < n_out; i++) {
        const double before = sqrt(dot(x->v[i], x->v[i], n));
        for (size_t twice = 0; twice < 2; twice++) // the second time takes what rounding left of the first
            for (size_t j = 0; j < i; j++) {
                const double along = dot(x->v[i], x->v[j], n);
                for (size_t l = 0; l < n; l++) x->v[i][l] -= along * x->v[j][l];
            }
        const double length = sqrt(dot(x->v[i], x->v[i], n));
        for (size_t l = 0; l < n; l++) x->v[i][l] = length > nothing * before ? x->v[i][l] / length : 0;
    }
}

static void multiply(vectors *x, size_t n_out, const double gram[ROWS][ROWS], size_t n) {
    for (size_t i = 0; i < n_out; i++) {
        double y[ROWS];
        for (size_t l = 0; l < n; l++) y[l] = dot(gram[l], x->v[i], n);
        memcpy(x->v[i], y, n * sizeof *y);
    }
}

static void set_gram(double gram[ROWS][ROWS], const float *rows, size_t n, size_t k) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = 0;
            for (size_t l = 0; l < k; l++) sum += (double)rows[i * k + l] * (double)rows[j * k + l];
            gram[i][j] = gram[j][i] = sum;
        }
}

void tern_principal_directions(float *out, size_t n_out, const float *rows, size_t n, size_t k) {
    double gram[ROWS][ROWS];
    vectors x;
    uint64_t random[4];
    set_gram(gram, rows, n, k);
    tern_random_seed(random, 0);
    for (size_t i = 0; i < n_out; i++)
        for (size_t l = 0; l < n; l++) x.v[i][l] = tern_random_unit(random) - 0.5;
    for (size_t round = 0; round < ROUNDS; round++) {
        orthonormalise(&x, n_out, n);
        multiply(&x, n_out, gram, n);
    }
    orthonormalise(&x, n_out, n);
    // A vector of coefficients x gives the vector sum x_l row_l, of length sqrt(x.gram x).
    for (size_t i = 0; i < n_out; i++) {
        double y[ROWS];
        for (size_t l = 0; l < n; l++) y[l] = dot(gram[l], x.v[i], n);
        const double squared = dot(y, x.v[i], n), scale = squared > 0 ? 1 / sqrt(squared) : 0;
        for (size_t j = 0; j < k; j++) {
            double sum = 0;
            for (size_t l = 0; l < n; l++) sum += x.v[i][l] * (double)rows[l * k + j];
            out[i * k + j] = (float)(sum * scale);
        }
    }
}
