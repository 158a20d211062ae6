// SPDX-License-Identifier: MIT
// bitnet.cpp's I2_S product as its ggml runs it, rows shared among OpenMP threads; tools/kernel_worker.py builds this with
// bitnet.cpp's own source file and never links it into Tern.
#include <stddef.h>
#include <stdint.h>

// bitnet.cpp's kernels: n columns, nrc rows (1x1, 1xN) or tokens (Nx1); bx in weights and by in bytes are the row strides.
void ggml_vec_dot_i2_i8_s_1x1(int n, float *s, size_t bs, const void *vx, size_t bx, const void *vy, size_t by, int nrc);
void ggml_vec_dot_i2_i8_s_1xN(int n, float *s, size_t bs, const void *vx, size_t bx, const void *vy, size_t by, int nrc);
void ggml_vec_dot_i2_i8_s_Nx1(int n, float *s, size_t bs, const void *vx, size_t bx, const void *vy, size_t by, int nrc);

enum { CODES_PER_BYTE = 4, ROWS = 64, TOKENS = 4 };

static void multiply_rows(float *y, const uint8_t *w, const int8_t *x, int m, int n, int k, int row, int rows) {
    const uint8_t *w_row = w + (size_t)row * (size_t)k / CODES_PER_BYTE;
    for (int t = 0; m % TOKENS == 0 && t < m; t += TOKENS) {
        for (int i = 0; i < rows; i++)
            ggml_vec_dot_i2_i8_s_Nx1(k, y + (size_t)t * (size_t)n + row + i, (size_t)n,
                                     w_row + (size_t)i * (size_t)k / CODES_PER_BYTE, (size_t)k, x + (size_t)t * (size_t)k,
                                     (size_t)k, TOKENS);
    }
    if (m % TOKENS == 0) return;
    for (int t = 0; t < m; t++)
        ggml_vec_dot_i2_i8_s_1xN(k, y + (size_t)t * (size_t)n + row, 1, w_row, (size_t)k, x + (size_t)t * (size_t)k, (size_t)k,
                                 rows);
}

// y = x * w for each of the copies of w in turn. n: a multiple of 4, k of 128. m == 1 or a multiple of 4 is its fast path.
void peer_i2s(float *y, const uint8_t *const *copies, int n_copies, const int8_t *x, int m, int n, int k, int threads) {
    for (int c = 0; c < n_copies; c++) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int row = 0; row < n; row += ROWS) multiply_rows(y, copies[c], x, m, n, k, row, n - row < ROWS ? n - row : ROWS);
    }
}
