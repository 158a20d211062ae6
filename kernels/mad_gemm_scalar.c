// SPDX-License-Identifier: MIT
// Multiply-add product of 2-bit codes in plain C: the reader of M2 for every CPU.
#include "kernels.h"

enum { LANE = 4, PARTS = TERN_M2_GROUP_K / LANE }; // bytes of a feature in a group, codes in a byte

static void one_panel(int32_t *restrict acc, const uint8_t *restrict panel, const int8_t *restrict x, size_t groups,
                      int32_t x_sum) {
    for (size_t f = 0; f < TERN_M2_PANEL; f++) acc[f] = -x_sum; // codes are t + 1
    for (size_t g = 0; g < groups; g++)
        for (size_t f = 0; f < TERN_M2_PANEL; f++) {
            int32_t dot = 0;
            for (size_t j = 0; j < LANE; j++) {
                const unsigned codes = panel[g * TERN_M2_GROUP_BYTES + f * LANE + j];
                for (size_t p = 0; p < PARTS; p++) dot += (int32_t)(codes >> 2 * p & 3) * x[g * TERN_M2_GROUP_K + p * LANE + j];
            }
            acc[f] += dot;
        }
}

void tern_mad_gemm_m2_scalar(const tern_gemm_args *args) {
    const size_t groups = tern_m2_groups(args->k);
    for (size_t f = 0; f < args->n; f += TERN_M2_PANEL)
        for (size_t t = 0; t < args->m; t++)
            one_panel(args->acc + t * args->ld_acc + f, args->packed + f / TERN_M2_PANEL * groups * TERN_M2_GROUP_BYTES,
                      args->x + t * args->ldx, groups, args->x_sums[t * args->ld_x_sums]);
}
