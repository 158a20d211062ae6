// SPDX-License-Identifier: MIT
// Packing of int8 rows: four consecutive k of a feature form one 32-bit lane.
#include "matmul/pack_int8.h"

#include <string.h>

// Copies codes [k0, k0 + 4) of a row of k into a lane, zero past the end.
static inline void put_lane(uint8_t *lane, const int8_t *row, size_t k0, size_t k) {
    if (k0 + TERN_I8_GROUP_K <= k) {
        memcpy(lane, row + k0, TERN_I8_GROUP_K);
        return;
    }
    memset(lane, 0, TERN_I8_GROUP_K);
    if (k0 < k) memcpy(lane, row + k0, k - k0);
}

static inline void get_lane(int8_t *row, const uint8_t *lane, size_t k0, size_t k) {
    memcpy(row + k0, lane, k - k0 < TERN_I8_GROUP_K ? k - k0 : TERN_I8_GROUP_K);
}

void tern_pack_i8(uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc, size_t first_row, size_t n_rows,
                  size_t n_written, size_t k) {
    const size_t groups = tern_i8_groups(k);
    for (size_t at = 0; at < n_written; at += TERN_I8_PANEL) {
        uint8_t *panel = unit + (first_row + at) / TERN_I8_PANEL * groups * TERN_I8_GROUP_BYTES;
        for (size_t g = 0; g < groups; g++)
            for (size_t f = 0; f < TERN_I8_PANEL; f++) {
                uint8_t *lane = panel + g * TERN_I8_GROUP_BYTES + f * TERN_I8_GROUP_K;
                if (at + f < n_rows)
                    put_lane(lane, codes + (at + f) * ldc, g * TERN_I8_GROUP_K, k);
                else
                    memset(lane, 0, TERN_I8_GROUP_K);
            }
    }
}

void tern_unpack_i8(int8_t *restrict codes, size_t ldc, const uint8_t *restrict unit, size_t first_row, size_t n_rows,
                    size_t k) {
    const size_t groups = tern_i8_groups(k);
    for (size_t i = 0; i < n_rows; i++) {
        const size_t row = first_row + i;
        const uint8_t *lanes =
            unit + row / TERN_I8_PANEL * groups * TERN_I8_GROUP_BYTES + row % TERN_I8_PANEL * TERN_I8_GROUP_K;
        for (size_t g = 0; g < groups; g++) get_lane(codes + i * ldc, lanes + g * TERN_I8_GROUP_BYTES, g * TERN_I8_GROUP_K, k);
    }
}

// Where the scale of (block, feature) and the lane of (group, feature) lie in a super-group.
static inline size_t scale_at(size_t block, size_t f) { return (block * TERN_I8B_PANEL + f) * sizeof(uint16_t); }
static inline size_t lane_at(size_t g, size_t f) { return TERN_I8B_CODES + g * TERN_I8_GROUP_BYTES + f * TERN_I8_GROUP_K; }
enum { SUPER_BLOCKS = TERN_I8B_SUPER_K / TERN_I8B_BLOCK, SUPER_GROUPS = TERN_I8B_SUPER_K / TERN_I8_GROUP_K };

static void pack_super(uint8_t *restrict super, const int8_t *restrict row, const uint16_t *restrict scales, size_t s, size_t f,
                       size_t k) {
    for (size_t b = 0; b < SUPER_BLOCKS; b++) {
        const size_t block = s * SUPER_BLOCKS + b;
        const uint16_t scale = block * TERN_I8B_BLOCK < k ? scales[block] : 0;
        memcpy(super + scale_at(b, f), &scale, sizeof scale);
    }
    for (size_t g = 0; g < SUPER_GROUPS; g++)
        put_lane(super + lane_at(g, f), row, s * TERN_I8B_SUPER_K + g * TERN_I8_GROUP_K, k);
}

void tern_pack_i8b32(uint8_t *restrict unit, const int8_t *restrict codes, size_t ldc, const uint16_t *restrict scales,
                     size_t lds, size_t first_row, size_t n_rows, size_t n_written, size_t k) {
    const size_t supers = tern_i8b_supers(k);
    for (size_t at = 0; at < n_written; at += TERN_I8B_PANEL) {
        uint8_t *panel = unit + (first_row + at) / TERN_I8B_PANEL * supers * TERN_I8B_SUPER_BYTES;
        for (size_t s = 0; s < supers; s++) {
            uint8_t *super = panel + s * TERN_I8B_SUPER_BYTES;
            if (n_rows < at + TERN_I8B_PANEL) memset(super, 0, TERN_I8B_SUPER_BYTES);
            for (size_t f = 0; f < TERN_I8B_PANEL && at + f < n_rows; f++)
                pack_super(super, codes + (at + f) * ldc, scales + (at + f) * lds, s, f, k);
        }
    }
}

void tern_unpack_i8b32(int8_t *restrict codes, size_t ldc, uint16_t *restrict scales, size_t lds, const uint8_t *restrict unit,
                       size_t first_row, size_t n_rows, size_t k) {
    const size_t supers = tern_i8b_supers(k);
    for (size_t i = 0; i < n_rows; i++) {
        const size_t row = first_row + i, f = row % TERN_I8B_PANEL;
        const uint8_t *panel = unit + row / TERN_I8B_PANEL * supers * TERN_I8B_SUPER_BYTES;
        for (size_t k0 = 0; k0 < k; k0 += TERN_I8_GROUP_K)
            get_lane(codes + i * ldc,
                     panel + k0 / TERN_I8B_SUPER_K * TERN_I8B_SUPER_BYTES + lane_at(k0 % TERN_I8B_SUPER_K / TERN_I8_GROUP_K, f),
                     k0, k);
        for (size_t b = 0; b * TERN_I8B_BLOCK < k; b++)
            memcpy(&scales[i * lds + b], panel + b / SUPER_BLOCKS * TERN_I8B_SUPER_BYTES + scale_at(b % SUPER_BLOCKS, f),
                   sizeof scales[0]);
    }
}
