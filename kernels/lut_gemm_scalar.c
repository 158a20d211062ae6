// SPDX-License-Identifier: MIT
// LUT product in plain C: the planes of a K-tile are joined to one int16 table of 256 codes for each byte row.
#include <string.h>

#include "kernels.h"
#include "lut_b1.h"

enum { CODES = 256, TILE_ROWS_MAX = TERN_T5_TILE_ROWS };

// value[code] = dot product of one byte of codes. |value| <= 5 * 128.
typedef void join_fn(int16_t *restrict value, const int8_t *restrict table);

static void join_t5(int16_t *restrict value, const int8_t *restrict table) {
    for (int e = 0; e < TERN_T5_SIGN; e++) {
        const int v = table[e] + TERN_T5_STEP * table[e + TERN_T5_SIGN];
        value[e] = (int16_t)v;
        value[e + TERN_T5_SIGN] = (int16_t)-v;
    }
}

static void join_t2n(int16_t *restrict value, const int8_t *restrict table) {
    enum { NIBBLES = 16 };
    int part[2][NIBBLES];
    for (int e = 0; e < NIBBLES; e++)
        for (size_t half = 0; half < 2; half++) {
            const int8_t *lo = table + half * 2 * NIBBLES + e;
            part[half][e] = lo[0] + TERN_T2N_STEP * lo[NIBBLES];
        }
    for (int code = 0; code < CODES; code++) value[code] = (int16_t)(part[0][code % NIBBLES] + part[1][code / NIBBLES]);
}

typedef struct shape {
    size_t rows, tile_rows, block, table_bytes;
    join_fn *join;
} shape;

static void one_token(int32_t *restrict acc, const uint8_t *restrict packed, const int8_t *restrict tables, size_t n, shape s) {
    memset(acc, 0, n * sizeof *acc);
    for (size_t tile = 0; tile < s.rows; tile += s.tile_rows) {
        const size_t in_tile = s.rows - tile < s.tile_rows ? s.rows - tile : s.tile_rows;
        int16_t value[TILE_ROWS_MAX][CODES];
        for (size_t r = 0; r < in_tile; r++) s.join(value[r], tables + (tile + r) * s.table_bytes);
        for (size_t f0 = 0, width; f0 < n; f0 += width) {
            width = tern_slab_block(n - f0, s.block);
            for (size_t r = 0; r < in_tile; r++, packed += width)
                for (size_t f = 0; f < width; f++) acc[f0 + f] += value[r][packed[f]];
        }
    }
}

static void all_tokens(const tern_gemm_args *args, shape s) {
    for (size_t t = 0; t < args->m; t++)
        one_token(args->acc + t * args->ld_acc, args->packed, args->tables + t * args->ld_tables, args->n, s);
}

void tern_lut_gemm_t5_scalar(const tern_gemm_args *args) {
    all_tokens(args, (shape){tern_t5_rows(args->k), TERN_T5_TILE_ROWS, TERN_T5_BLOCK, TERN_T5_TABLE_BYTES, join_t5});
}

void tern_lut_gemm_t2n_scalar(const tern_gemm_args *args) {
    all_tokens(args, (shape){tern_t2n_rows(args->k), TERN_T2N_TILE_ROWS, TERN_T2N_BLOCK, TERN_T2N_TABLE_BYTES, join_t2n});
}

// A byte of B1 is looked up like one of T2N: two nibbles, two tables.
void tern_sign_gemm_b1_scalar(const tern_gemm_args *args) {
    all_tokens(args, (shape){tern_b1_rows(args->k), TERN_T2N_TILE_ROWS, TERN_T2N_BLOCK, TERN_B1_TABLE_BYTES, join_t2n});
    tern_b1_finish(args);
}
