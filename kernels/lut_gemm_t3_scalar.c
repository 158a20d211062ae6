// SPDX-License-Identifier: MIT
// LUT product of T3 in plain C: a table entry for each nibble, its sign from the K-tile's rows of signs.
#include <string.h>

#include "kernels.h"

enum { HALVES = 2, HALF_BYTES = TERN_T3_TABLE_BYTES / HALVES, PLANE = HALF_BYTES / 2 };

// value[e] = dot product of the three trits of entry e, |value| <= 384.
static void join(int16_t *restrict value, const int8_t *restrict table) {
    for (size_t e = 0; e < PLANE; e++) value[e] = (int16_t)(table[e] + TERN_T3_STEP * table[PLANE + e]);
}

// One K-tile of one block: byte rows of TERN_T3_BLOCK features.
static void block(int32_t *restrict acc, const uint8_t *restrict codes, const int8_t *restrict tables, size_t pairs) {
    for (size_t p = 0; p < pairs; p++, tables += TERN_T3_TABLE_BYTES) {
        const uint8_t *pair = codes + (TERN_T3_SIGN_ROWS + p) * TERN_T3_BLOCK;
        int16_t value[HALVES][PLANE];
        for (size_t half = 0; half < HALVES; half++) join(value[half], tables + half * HALF_BYTES);
        for (size_t f = 0; f < TERN_T3_BLOCK; f++) {
            const int even = value[0][pair[f] & (PLANE - 1)], odd = value[1][pair[f] / PLANE];
            acc[f] += codes[f] << p & TERN_T3_SIGN ? -even : even;
            acc[f] += codes[TERN_T3_BLOCK + f] << p & TERN_T3_SIGN ? -odd : odd;
        }
    }
}

void tern_lut_gemm_t3_scalar(const tern_gemm_args *args) {
    const size_t rows = tern_t3_rows(args->k);
    for (size_t t = 0; t < args->m; t++) {
        const uint8_t *codes = args->packed;
        const int8_t *tables = args->tables + t * args->ld_tables;
        int32_t *acc = args->acc + t * args->ld_acc;
        memset(acc, 0, args->n * sizeof *acc);
        for (size_t row = 0; row < rows; row += TERN_T3_TILE_ROWS, tables += TERN_T3_TILE_PAIRS * TERN_T3_TABLE_BYTES) {
            const size_t in_tile = rows - row < TERN_T3_TILE_ROWS ? rows - row : TERN_T3_TILE_ROWS;
            for (size_t f = 0; f < args->n; f += TERN_T3_BLOCK, codes += in_tile * TERN_T3_BLOCK)
                block(acc + f, codes, tables, in_tile - TERN_T3_SIGN_ROWS);
        }
    }
}
