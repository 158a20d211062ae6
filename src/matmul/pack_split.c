// SPDX-License-Identifier: MIT
// Packing of int8 rows in two halves: high nibbles and scales, low nibbles.
#include "matmul/pack_split.h"

#include <string.h>

enum { NIBBLE_BITS = 4 };
static const unsigned nibble_mask = 15;

// Byte and shift of the nibble of k in the codes of either half.
static size_t nibble_at(size_t k) { return k / TERN_I8S_SUPER_K * TERN_I8S_CODES + k % TERN_I8S_BLOCK; }
static unsigned nibble_shift(size_t k) { return k % TERN_I8S_SUPER_K < TERN_I8S_BLOCK ? 0 : NIBBLE_BITS; }

static void pack_row(uint8_t *upper, uint8_t *low, const int8_t *codes, const uint16_t *scales, size_t k) {
    uint8_t *high = upper + tern_i8s_supers(k) * TERN_I8S_SCALES;
    memcpy(upper, scales, tern_ceil_div(k, TERN_I8S_BLOCK) * sizeof *scales);
    for (size_t j = 0; j < k; j++) {
        const size_t at = nibble_at(j);
        const unsigned u = (unsigned)(codes[j] + TERN_I8S_ZERO), shift = nibble_shift(j);
        high[at] = (uint8_t)(high[at] | (u >> NIBBLE_BITS) << shift);
        low[at] = (uint8_t)(low[at] | (u & nibble_mask) << shift);
    }
}

void tern_pack_i8s32(uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc, const uint16_t *restrict scales,
                     size_t lds, size_t first_row, size_t n_rows, size_t n_written, size_t k) {
    for (size_t at = 0; at < n_written; at++) {
        uint8_t *upper = unit + tern_i8s_upper_at(first_row + at, k), *lower = unit + tern_i8s_lower_at(first_row + at, k);
        memset(upper, 0, tern_i8s_upper_bytes(k));
        memset(lower, 0, tern_i8s_lower_bytes(k));
        if (at < n_rows) pack_row(upper, lower, codes + at * ldc, scales + at * lds, k);
    }
}

void tern_unpack_i8s32(int8_t *restrict codes, uint16_t *restrict scales, const uint8_t *restrict unit, size_t row, size_t k) {
    const uint8_t *upper = unit + tern_i8s_upper_at(row, k), *low = unit + tern_i8s_lower_at(row, k);
    const uint8_t *high = upper + tern_i8s_supers(k) * TERN_I8S_SCALES;
    if (scales) memcpy(scales, upper, tern_ceil_div(k, TERN_I8S_BLOCK) * sizeof *scales);
    for (size_t j = 0; j < k; j++) {
        const unsigned shift = nibble_shift(j);
        const size_t at = nibble_at(j);
        const unsigned u = (high[at] >> shift & nibble_mask) << NIBBLE_BITS | (low[at] >> shift & nibble_mask);
        codes[j] = (int8_t)((int)u - TERN_I8S_ZERO);
    }
}
