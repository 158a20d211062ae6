// SPDX-License-Identifier: MIT
// Packing of 4-bit rows: two codes of a feature in a byte, scales ahead of the codes.
#include "matmul/pack_int4.h"

#include <math.h>
#include <string.h>

#include "format/blocks.h"
#include "kernels/int4_scales.h"

size_t tern_i4_scales(tern_layout layout, size_t k) {
    if (layout == TERN_LAYOUT_I4K) return tern_ceil_div(k, TERN_I4K_SUPER_K) * TERN_I4K_SCALES;
    return tern_ceil_div(k, TERN_I4_BLOCK) * (layout == TERN_LAYOUT_I4M32 ? 2 : 1);
}

static bool put_half(uint8_t *at, float value) {
    const uint16_t half = tern_f32_to_f16(value);
    memcpy(at, &half, sizeof half);
    return isfinite(tern_f16_to_f32(half));
}
static float get_half(const uint8_t *at) {
    uint16_t half;
    memcpy(&half, at, sizeof half);
    return tern_f16_to_f32(half);
}

// The scales of super `s` of feature f.
static bool put_scales(tern_layout layout, uint8_t *super, const float *scales, size_t s, size_t f, size_t k) {
    bool finite = true;
    if (layout == TERN_LAYOUT_I4K) {
        const float *from = scales + s * TERN_I4K_SCALES;
        finite &= put_half(super + tern_i4_scale_at(layout, 0, f), from[0]);
        finite &= put_half(super + tern_i4_min_at(layout, 0, f), from[1]);
        tern_i4k_six six[TERN_I4K_BLOCKS];
        for (size_t b = 0; b < TERN_I4K_BLOCKS; b++)
            six[b] = (tern_i4k_six){(uint8_t)from[2 + b], (uint8_t)from[2 + TERN_I4K_BLOCKS + b]};
        for (size_t p = 0; p < TERN_I4K_BLOCKS / 2; p++) tern_i4k_put(super, p, f, six[2 * p], six[2 * p + 1]);
        return finite;
    }
    const bool has_min = layout == TERN_LAYOUT_I4M32;
    const size_t super_blocks = TERN_I4_SUPER_K / TERN_I4_BLOCK;
    for (size_t b = 0; b < super_blocks; b++) {
        const size_t block = s * super_blocks + b;
        if (block * TERN_I4_BLOCK >= k) break;
        finite &= put_half(super + tern_i4_scale_at(layout, b, f), scales[has_min ? 2 * block : block]);
        if (has_min) finite &= put_half(super + tern_i4_min_at(layout, b, f), scales[2 * block + 1]);
    }
    return finite;
}

static void get_scales(tern_layout layout, float *scales, const uint8_t *super, size_t s, size_t f, size_t k) {
    if (layout == TERN_LAYOUT_I4K) {
        float *to = scales + s * TERN_I4K_SCALES;
        to[0] = get_half(super + tern_i4_scale_at(layout, 0, f));
        to[1] = get_half(super + tern_i4_min_at(layout, 0, f));
        for (size_t b = 0; b < TERN_I4K_BLOCKS; b++) {
            const tern_i4k_six six = tern_i4k_get(super, b, f);
            to[2 + b] = (float)six.s;
            to[2 + TERN_I4K_BLOCKS + b] = (float)six.t;
        }
        return;
    }
    const bool has_min = layout == TERN_LAYOUT_I4M32;
    const size_t super_blocks = TERN_I4_SUPER_K / TERN_I4_BLOCK;
    for (size_t b = 0; b < super_blocks; b++) {
        const size_t block = s * super_blocks + b;
        if (block * TERN_I4_BLOCK >= k) break;
        scales[has_min ? 2 * block : block] = get_half(super + tern_i4_scale_at(layout, b, f));
        if (has_min) scales[2 * block + 1] = get_half(super + tern_i4_min_at(layout, b, f));
    }
}

bool tern_pack_i4(tern_layout layout, uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc,
                  const float *restrict scales, size_t lds, size_t first_row, size_t n_rows, size_t n_written, size_t k) {
    const size_t panel_bytes = tern_i4_panel_bytes(layout, k), super_k = tern_i4_super_k(layout);
    const size_t super_bytes = tern_i4_super_bytes(layout);
    bool finite = true;
    for (size_t at = 0; at < n_written; at += TERN_I4_PANEL) {
        uint8_t *panel = unit + (first_row + at) / TERN_I4_PANEL * panel_bytes;
        memset(panel, 0, panel_bytes);
        for (size_t f = 0; f < TERN_I4_PANEL && at + f < n_rows; f++) {
            const int8_t *row = codes + (at + f) * ldc;
            for (size_t k0 = 0; k0 < k; k0 += super_k) {
                uint8_t *super = panel + k0 / super_k * super_bytes;
                finite &= put_scales(layout, super, scales + (at + f) * lds, k0 / super_k, f, k);
                for (size_t j = 0; j < super_k && k0 + j < k; j++) {
                    uint8_t *byte = super + tern_i4_code_at(layout, j, f);
                    *byte = (uint8_t)(*byte | row[k0 + j] << tern_i4_shift(j));
                }
            }
        }
    }
    return finite;
}

void tern_unpack_i4(tern_layout layout, int8_t *restrict codes, float *restrict scales, const uint8_t *restrict unit,
                    size_t row, size_t k) {
    const size_t super_k = tern_i4_super_k(layout), f = row % TERN_I4_PANEL;
    const uint8_t *super = unit + row / TERN_I4_PANEL * tern_i4_panel_bytes(layout, k);
    for (size_t k0 = 0; k0 < k; k0 += super_k, super += tern_i4_super_bytes(layout)) {
        if (scales) get_scales(layout, scales, super, k0 / super_k, f, k);
        for (size_t j = 0; j < super_k && k0 + j < k; j++)
            codes[k0 + j] = (int8_t)(super[tern_i4_code_at(layout, j, f)] >> tern_i4_shift(j) & TERN_I4_CODE_MAX);
    }
}
