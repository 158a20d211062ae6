// SPDX-License-Identifier: MIT
// 4-bit products for baseline x86-64: the readable meaning of the layouts I4B32, I4M32 and I4K.
#define TERN_VF_BYTES 16
#include "fused.h"
#include "half.h"
#include "int4_scales.h"

// Scales and mins of one block of a panel.
typedef struct block_scales {
    float d[TERN_I4_PANEL], m[TERN_I4_PANEL];
} block_scales;

static block_scales load_scales(tern_layout layout, const uint8_t *super, size_t block) {
    block_scales to = {{0}, {0}};
    for (size_t f = 0; f < TERN_I4_PANEL; f++) {
        to.d[f] = half_to_float(super + tern_i4_scale_at(layout, block, f));
        if (layout == TERN_LAYOUT_I4B32) continue;
        to.m[f] = half_to_float(super + tern_i4_min_at(layout, block, f));
        if (layout == TERN_LAYOUT_I4M32) continue;
        const tern_i4k_six six = tern_i4k_get(super, block, f);
        to.d[f] *= (float)six.s;
        to.m[f] *= (float)six.t;
    }
    return to;
}

// The 16 dot products of one block. |sum| <= 32 * 15 * 128 = 61440.
static void dot_block(int32_t sum[TERN_I4_PANEL], const uint8_t *codes, const int8_t *x) {
    memset(sum, 0, TERN_I4_PANEL * sizeof *sum);
    for (size_t p = 0; p < TERN_I4_BLOCK / TERN_I4_LINE_K; p++, codes += TERN_I4_LINE_BYTES, x += TERN_I4_LINE_K) {
        for (size_t f = 0; f < TERN_I4_PANEL; f++) {
            const uint8_t *w = codes + 4 * f;
            for (size_t j = 0; j < 4; j++) sum[f] += (w[j] & 15) * x[j] + (w[j] >> 4) * x[4 + j];
        }
    }
}

// y plus the terms of one block.
static void add_terms(float y[TERN_I4_PANEL], const int32_t sum[TERN_I4_PANEL], const block_scales *w, bool has_min, float da,
                      int32_t x_sum) {
    if (!has_min) {
        for (size_t f = 0; f < TERN_I4_PANEL; f++) y[f] += (float)(sum[f] - TERN_I4_ZERO * x_sum) * (w->d[f] * da);
        return;
    }
    for (size_t f = 0; f < TERN_I4_PANEL; f += WIDTH) {
        vf code_sum;
        for (size_t i = 0; i < WIDTH; i++) code_sum[i] = (float)sum[f + i];
        store(y + f, fused(fused(load(w->d + f), code_sum, load(w->m + f) * (float)x_sum), splat(da), load(y + f)));
    }
}

static void gemm(const tern_gemm_b32_args *args, tern_layout layout) {
    const size_t super_blocks = tern_i4_super_k(layout) / TERN_I4_BLOCK, panel_bytes = tern_i4_panel_bytes(layout, args->k);
    const size_t blocks = panel_bytes / tern_i4_super_bytes(layout) * super_blocks;
    for (size_t i = 0; i < args->n; i += TERN_I4_PANEL) {
        const uint8_t *panel = args->packed + i / TERN_I4_PANEL * panel_bytes;
        for (size_t t = 0; t < args->m; t++) {
            float y[TERN_I4_PANEL] = {0};
            for (size_t b = 0; b < blocks; b++) {
                const uint8_t *super = panel + b / super_blocks * tern_i4_super_bytes(layout);
                const block_scales w = load_scales(layout, super, b % super_blocks);
                const float da = args->x_scales[t * args->ld_x_blocks + b];
                const int32_t x_sum = args->x_sums[t * args->ld_x_blocks + b];
                int32_t sum[TERN_I4_PANEL];
                dot_block(sum, super + tern_i4_code_at(layout, b % super_blocks * TERN_I4_BLOCK, 0),
                          args->x + t * args->ldx + b * TERN_I4_BLOCK);
                add_terms(y, sum, &w, layout != TERN_LAYOUT_I4B32, da, x_sum);
            }
            memcpy(args->y + t * args->ld_y + i, y, sizeof y);
        }
    }
}

void tern_int4_gemm_i4b32_scalar(const tern_gemm_b32_args *args) { gemm(args, TERN_LAYOUT_I4B32); }
void tern_int4_gemm_i4m32_scalar(const tern_gemm_b32_args *args) { gemm(args, TERN_LAYOUT_I4M32); }
void tern_int4_gemm_i4k_scalar(const tern_gemm_b32_args *args) { gemm(args, TERN_LAYOUT_I4K); }
