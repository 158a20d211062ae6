// SPDX-License-Identifier: MIT
// The oracle: the product as one readable loop. Every integer kernel is compared with it.
#include "tern/diagnostics.h"

void tern_oracle_s32(int32_t *y, const int8_t *w, const int8_t *x, size_t m, size_t n, size_t k, size_t ldy, size_t ldw,
                     size_t ldx) {
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            int32_t sum = 0; // |sum| <= TERN_K_MAX * 128 * 128 < 2^31
            for (size_t d = 0; d < k; d++) sum += (int32_t)x[i * ldx + d] * (int32_t)w[j * ldw + d];
            y[i * ldy + j] = sum;
        }
    }
}
