// SPDX-License-Identifier: MIT
// Whole products of the layout I8S32 for baseline x86-64.
#include "kernels.h"

#include "half.h"

enum { BLOCKS = TERN_I8S_SUPER_K / TERN_I8S_BLOCK, SCALE_BYTES = 2 };

// Feature i of `packed` times one token. |sum| <= 32 * 128 * 128.
static float product(const uint8_t *packed, size_t i, size_t k, const int8_t *x, const float *x_scales) {
    const size_t supers = tern_i8s_supers(k);
    const uint8_t *scales = packed + tern_i8s_upper_at(i, k), *high = scales + supers * TERN_I8S_SCALES;
    const uint8_t *low = packed + tern_i8s_lower_at(i, k);
    float y = 0;
    for (size_t b = 0; b < supers * BLOCKS; b++, x += TERN_I8S_BLOCK) {
        const size_t at = b / BLOCKS * TERN_I8S_CODES;
        const unsigned shift = b % BLOCKS ? 4 : 0;
        int32_t sum = 0;
        for (size_t j = 0; j < TERN_I8S_BLOCK; j++) {
            const unsigned u = (high[at + j] >> shift & 15U) << 4 | (low[at + j] >> shift & 15U);
            sum += ((int32_t)u - TERN_I8S_ZERO) * x[j];
        }
        y += (float)sum * (half_to_float(scales + b * SCALE_BYTES) * x_scales[b]);
    }
    return y;
}

void tern_split_gemm_b32_scalar(const tern_gemm_b32_args *args) {
    for (size_t i = 0; i < args->n; i++)
        for (size_t t = 0; t < args->m; t++)
            args->y[t * args->ld_y + i] =
                product(args->packed, i, args->k, args->x + t * args->ldx, args->x_scales + t * args->ld_x_blocks);
}

void tern_screen_rows_scalar(const tern_screen_rows_args *args) {
    for (size_t i = 0; i < args->n; i++) args->y[i] = product(args->packed, args->rows[i], args->k, args->x, args->x_scales);
}
