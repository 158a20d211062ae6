// SPDX-License-Identifier: MIT
// Where a 4-bit layout keeps its scales, for the scalar kernel and for packing.
#ifndef TERN_KERNELS_INT4_SCALES_H
#define TERN_KERNELS_INT4_SCALES_H

#include "layout.h"

// Byte offsets in a head of the float16 scale and min of block b (I4K: of all blocks) and feature f.
static inline size_t tern_i4_scale_at(tern_layout layout, size_t block, size_t f) {
    return ((layout == TERN_LAYOUT_I4K ? 0 : block * TERN_I4_PANEL) + f) * sizeof(uint16_t);
}
static inline size_t tern_i4_min_at(tern_layout layout, size_t block, size_t f) { // I4M32 and I4K only
    return tern_i4_scale_at(layout, block, f) + (size_t)(layout == TERN_LAYOUT_I4K ? TERN_I4K_MINS : TERN_I4M_MINS);
}

// The code of k (in its super) and feature f: its byte, and the shift of its nibble.
static inline size_t tern_i4_code_at(tern_layout layout, size_t k, size_t f) {
    enum { LANE = 4 };
    const size_t block = k / TERN_I4_BLOCK, line = k % TERN_I4_BLOCK / TERN_I4_LINE_K;
    return tern_i4_head(layout) + block * TERN_I4_BLOCK_BYTES + line * TERN_I4_LINE_BYTES + f * LANE + k % LANE;
}
static inline unsigned tern_i4_shift(size_t k) { return k & 4; }

// I4K: the 6-bit scale s and min t of one block and feature.
typedef struct tern_i4k_six {
    uint8_t s, t;
} tern_i4k_six;

static inline tern_i4k_six tern_i4k_get(const uint8_t *super, size_t block, size_t f) {
    const uint8_t *pair = super + TERN_I4K_PAIRS + block / 2 * TERN_I4K_PAIR_BYTES + f;
    const uint8_t a = pair[0], b = pair[TERN_I4_PANEL], c = pair[(size_t)2 * TERN_I4_PANEL];
    if (block % 2 == 0) return (tern_i4k_six){a & TERN_I4K_SIX_MAX, c & TERN_I4K_SIX_MAX};
    return (tern_i4k_six){b & TERN_I4K_SIX_MAX, (uint8_t)(a >> 6 | b >> 6 << 2 | c >> 6 << 4)};
}

static inline void tern_i4k_put(uint8_t *super, size_t pair_index, size_t f, tern_i4k_six even, tern_i4k_six odd) {
    uint8_t *pair = super + TERN_I4K_PAIRS + pair_index * TERN_I4K_PAIR_BYTES + f;
    pair[0] = (uint8_t)(even.s | odd.t << 6);
    pair[TERN_I4_PANEL] = (uint8_t)(odd.s | (odd.t >> 2 & 3) << 6);
    pair[(size_t)2 * TERN_I4_PANEL] = (uint8_t)(even.t | odd.t >> 4 << 6);
}

#endif
