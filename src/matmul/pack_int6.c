// SPDX-License-Identifier: MIT
// Packing of 6-bit rows: four codes of a feature in three bytes, scales ahead of the codes.
#include "matmul/pack_int6.h"

#include <math.h>
#include <string.h>

#include "kernels/int6_codes.h"

static void put_code(uint8_t *super, bool wide, size_t k, size_t f, int8_t code) {
    if (wide) {
        super[tern_i6_wide_at(k, f)] = (uint8_t)code;
        return;
    }
    uint8_t *at = super + tern_i6_narrow_at(k, f);
    const unsigned u = (unsigned)(code + TERN_I6_ZERO);
    const size_t line = tern_i6_line_of(k);
    if (line < TERN_I6_LINES) {
        at[line * TERN_I6_LINE_BYTES] = (uint8_t)(at[line * TERN_I6_LINE_BYTES] | u);
        return;
    }
    for (unsigned i = 0; i < TERN_I6_LINES; i++, at += TERN_I6_LINE_BYTES)
        *at = (uint8_t)(*at | (u >> TERN_I6_TOP_BITS * i & TERN_I6_TOP_MASK) << TERN_I6_BITS);
}

static void put_row(uint8_t *panel, const int8_t *row, const float *scales, size_t f, size_t k) {
    memcpy(panel + f * sizeof(float), scales, sizeof(float));
    for (size_t k0 = 0, s = 0; k0 < k; k0 += TERN_I6_SUPER_K, s++) {
        uint8_t *super = panel + tern_i6_super_at(k, s);
        const bool wide = s < tern_i6_wide_supers(k);
        for (size_t b = 0; b < TERN_I6_BLOCKS && k0 + b * TERN_I6_BLOCK < k; b++)
            super[tern_i6_scale_at(b, f)] = (uint8_t)scales[1 + s * TERN_I6_BLOCKS + b];
        for (size_t j = 0; j < TERN_I6_SUPER_K && k0 + j < k; j++) put_code(super, wide, j, f, row[k0 + j]);
    }
}

bool tern_pack_i6(uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc, const float *restrict scales, size_t lds,
                  size_t first_row, size_t n_rows, size_t n_written, size_t k) {
    bool finite = true;
    for (size_t at = 0; at < n_written; at += TERN_I6_PANEL) {
        uint8_t *panel = unit + tern_i6_bytes(first_row + at, k);
        memset(panel, 0, tern_i6_panel_bytes(k));
        for (size_t f = 0; f < TERN_I6_PANEL && at + f < n_rows; f++) {
            const float *row_scales = scales + (at + f) * lds;
            finite &= isfinite(row_scales[0]) != 0;
            put_row(panel, codes + (at + f) * ldc, row_scales, f, k);
        }
    }
    return finite;
}

void tern_unpack_i6(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict unit, size_t row, size_t k) {
    const size_t f = row % TERN_I6_PANEL;
    const uint8_t *panel = unit + tern_i6_bytes(row - f, k);
    if (scales) memcpy(scales, panel + f * sizeof(float), sizeof(float));
    for (size_t j = 0; j < k; j++) {
        const size_t s = j / TERN_I6_SUPER_K;
        const uint8_t *super = panel + tern_i6_super_at(k, s);
        codes[j] = (int8_t)tern_i6_code(super, s < tern_i6_wide_supers(k), j % TERN_I6_SUPER_K, f);
        if (scales && j % TERN_I6_BLOCK == 0)
            scales[1 + j / TERN_I6_BLOCK] = (float)super[tern_i6_scale_at(j / TERN_I6_BLOCK % TERN_I6_BLOCKS, f)];
    }
}
