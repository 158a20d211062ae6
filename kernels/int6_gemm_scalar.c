// SPDX-License-Identifier: MIT
// 6-bit products for baseline x86-64: the readable meaning of the layout I6B32.
#include "kernels.h"

#include <string.h>

#include "int6_codes.h"

// The codes of one block, feature after feature, are read once for all tokens.
static void read_block(int8_t codes[TERN_I6_PANEL][TERN_I6_BLOCK], const uint8_t *super, int wide, size_t block) {
    for (size_t f = 0; f < TERN_I6_PANEL; f++)
        for (size_t j = 0; j < TERN_I6_BLOCK; j++)
            codes[f][j] = (int8_t)tern_i6_code(super, wide, block * TERN_I6_BLOCK + j, f);
}

// |sum| <= 32 * 128 * 128 = 2^19
static int32_t dot(const int8_t *codes, const int8_t *x) {
    int32_t sum = 0;
    for (size_t j = 0; j < TERN_I6_BLOCK; j++) sum += codes[j] * x[j];
    return sum;
}

void tern_int6_gemm_scalar(const tern_gemm_b32_args *args) {
    const size_t blocks = tern_i6_supers(args->k) * TERN_I6_BLOCKS, wide = tern_i6_wide_supers(args->k) * TERN_I6_BLOCKS;
    for (size_t i = 0; i < args->n; i += TERN_I6_PANEL) {
        const uint8_t *panel = args->packed + tern_i6_bytes(i, args->k);
        float d[TERN_I6_PANEL];
        memcpy(d, panel, sizeof d);
        for (size_t t = 0; t < args->m; t++) memset(args->y + t * args->ld_y + i, 0, TERN_I6_PANEL * sizeof *args->y);
        for (size_t b = 0; b < blocks; b++) {
            const uint8_t *super = panel + tern_i6_super_at(args->k, b / TERN_I6_BLOCKS);
            int8_t codes[TERN_I6_PANEL][TERN_I6_BLOCK];
            read_block(codes, super, b < wide, b % TERN_I6_BLOCKS);
            for (size_t t = 0; t < args->m; t++) {
                const int8_t *x = args->x + t * args->ldx + b * TERN_I6_BLOCK;
                const float da = args->x_scales[t * args->ld_x_blocks + b];
                float *y = args->y + t * args->ld_y + i;
                for (size_t f = 0; f < TERN_I6_PANEL; f++) {
                    const float dw = d[f] * (float)super[tern_i6_scale_at(b % TERN_I6_BLOCKS, f)];
                    y[f] += (float)dot(codes[f], x) * (dw * da);
                }
            }
        }
    }
}
