// SPDX-License-Identifier: MIT
// Where the layout I6B32 keeps its scales and codes, for the scalar kernel and for packing.
#ifndef TERN_KERNELS_INT6_CODES_H
#define TERN_KERNELS_INT6_CODES_H

#include "layout.h"

enum { TERN_I6_BLOCKS = TERN_I6_SUPER_K / TERN_I6_BLOCK };

// Byte offsets in a super, k counted within it.
static inline size_t tern_i6_scale_at(size_t block, size_t f) { return block * TERN_I6_PANEL + f; }
static inline size_t tern_i6_wide_at(size_t k, size_t f) {
    return TERN_I6_SCALES + k / TERN_I8_GROUP_K * TERN_I8_GROUP_BYTES + f * TERN_I8_GROUP_K + k % TERN_I8_GROUP_K;
}

// The first of the three lines that hold k, at feature f and k % 4; the code's own line of them, 3 for the one split over all.
static inline size_t tern_i6_narrow_at(size_t k, size_t f) {
    enum { LANE = 4 };
    return TERN_I6_SCALES + k / TERN_I6_LINES_K * TERN_I6_LINES * TERN_I6_LINE_BYTES + f * LANE + k % LANE;
}
static inline size_t tern_i6_line_of(size_t k) { return k % TERN_I6_LINES_K / 4; }
enum { TERN_I6_BITS = 6, TERN_I6_MASK = 63, TERN_I6_TOP_BITS = 2, TERN_I6_TOP_MASK = 3 };

// The code of k and feature f in a super, k counted within it.
static inline int tern_i6_code(const uint8_t *super, int wide, size_t k, size_t f) {
    if (wide) return (int8_t)super[tern_i6_wide_at(k, f)];
    const uint8_t *at = super + tern_i6_narrow_at(k, f);
    const size_t line = tern_i6_line_of(k);
    if (line < TERN_I6_LINES) return (at[line * TERN_I6_LINE_BYTES] & TERN_I6_MASK) - TERN_I6_ZERO;
    unsigned u = 0;
    for (unsigned i = 0; i < TERN_I6_LINES; i++)
        u |= (unsigned)(at[i * TERN_I6_LINE_BYTES] >> TERN_I6_BITS) << TERN_I6_TOP_BITS * i;
    return (int)u - TERN_I6_ZERO;
}

#endif
