// SPDX-License-Identifier: MIT
// INT8 products for baseline x86-64: the readable meaning of the I8 and I8B32 layouts.
#include "kernels.h"

#include <string.h>

#include "half.h"

// Adds `groups` groups of 4 k to the 16 sums of a panel.
// |sum| <= 131071 * 128 * 128 < 2^31 for the largest k that the library accepts.
static void add_groups(int32_t sum[TERN_I8_PANEL], const uint8_t *codes, const int8_t *x, size_t groups) {
    for (size_t g = 0; g < groups; g++) {
        const int8_t *w = (const int8_t *)codes + g * TERN_I8_GROUP_BYTES;
        const int32_t x0 = x[g * 4], x1 = x[g * 4 + 1], x2 = x[g * 4 + 2], x3 = x[g * 4 + 3];
        for (size_t f = 0; f < TERN_I8_PANEL; f++)
            sum[f] += x0 * w[4 * f] + x1 * w[4 * f + 1] + x2 * w[4 * f + 2] + x3 * w[4 * f + 3];
    }
}

void tern_int8_gemm_scalar(const tern_gemm_args *args) {
    const size_t groups = tern_i8_groups(args->k);
    for (size_t i = 0; i < args->n; i += TERN_I8_PANEL) {
        const uint8_t *panel = args->packed + i * groups * TERN_I8_GROUP_K;
        for (size_t t = 0; t < args->m; t++) {
            int32_t sum[TERN_I8_PANEL] = {0};
            add_groups(sum, panel, args->x + t * args->ldx, groups);
            memcpy(args->acc + t * args->ld_acc + i, sum, sizeof sum);
        }
    }
}

void tern_int8_gemm_b32_scalar(const tern_gemm_b32_args *args) {
    enum { BLOCKS = TERN_I8B_SUPER_K / TERN_I8B_BLOCK, GROUPS = TERN_I8B_BLOCK / TERN_I8_GROUP_K, SCALE_BYTES = 2 };
    const size_t supers = tern_i8b_supers(args->k);
    for (size_t i = 0; i < args->n; i += TERN_I8B_PANEL) {
        const uint8_t *panel = args->packed + i / TERN_I8B_PANEL * supers * TERN_I8B_SUPER_BYTES;
        for (size_t t = 0; t < args->m; t++) {
            float y[TERN_I8B_PANEL] = {0};
            for (size_t b = 0; b < supers * BLOCKS; b++) {
                const uint8_t *super = panel + b / BLOCKS * TERN_I8B_SUPER_BYTES;
                const uint8_t *scales = super + b % BLOCKS * TERN_I8B_PANEL * SCALE_BYTES;
                const uint8_t *codes = super + TERN_I8B_CODES + b % BLOCKS * GROUPS * TERN_I8_GROUP_BYTES;
                const float da = args->x_scales[t * args->ld_x_blocks + b];
                int32_t sum[TERN_I8B_PANEL] = {0};
                add_groups(sum, codes, args->x + t * args->ldx + b * TERN_I8B_BLOCK, GROUPS);
                for (size_t f = 0; f < TERN_I8B_PANEL; f++)
                    y[f] += (float)sum[f] * (half_to_float(scales + f * SCALE_BYTES) * da);
            }
            memcpy(args->y + t * args->ld_y + i, y, sizeof y);
        }
    }
}
