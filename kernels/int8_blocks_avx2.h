// SPDX-License-Identifier: MIT
// Products of many tokens for AVX2, INT8 codes on both sides with scales per 32: the tiles over a chunk of K whose codes were
// widened once. The layouts differ in how they widen their codes.
#ifndef TERN_KERNELS_INT8_BLOCKS_AVX2_H
#define TERN_KERNELS_INT8_BLOCKS_AVX2_H

#include "int8_pairs_avx2.h"
#include "kernels.h"

enum {
    BLOCK = TERN_I8B_BLOCK,
    BLOCK_GROUPS = BLOCK / GROUP_K,
    BLOCK_BYTES = BLOCK_GROUPS * TERN_I8_GROUP_BYTES,
    CHUNK_BLOCKS = CHUNK_K / BLOCK,
    X_STRIDE = CHUNK_K + 32 // not a power of two: the rows of a tile spread over the sets of L1
};

// y + (float)sum * (dw * da)
TILE_INLINE __m256 add_term(__m256 y, __m256i sum, __m256 dw, __m256 da) {
    return _mm256_add_ps(y, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(dw, da)));
}

// ---- many tokens ------------------------------------------------------------------------------------------------

typedef struct w_chunk {
    int16_t codes[CHUNK_K * PANEL];
    int32_t less[CHUNK_BLOCKS * PANEL]; // what the sums of each block and feature start with
    float scales[CHUNK_BLOCKS * PANEL];
} w_chunk;

typedef struct x_block {
    float scale;
    int32_t less; // what the sums of the block start with
} x_block;

typedef struct x_chunk {
    int16_t codes[TOKENS_MAX][X_STRIDE];
    x_block blocks[TOKENS_MAX][CHUNK_BLOCKS];
} x_chunk;

typedef void many_fn(float *y, size_t ld_y, const w_chunk *w, const int16_t *x, const x_block *x_blocks, size_t blocks,
                     int first);

TILE_INLINE void many_tile(float *y, size_t ld_y, const w_chunk *w, const int16_t *x, const x_block *x_blocks, size_t blocks,
                           int first, size_t tokens) {
    if (first) {
        for (size_t t = 0; t < tokens; t++) {
            for (size_t h = 0; h < HALVES; h++) _mm256_store_ps(y + t * ld_y + h * HALF, _mm256_setzero_ps());
        }
    }
    const int16_t *codes = w->codes;
    const int32_t *w_less = w->less;
    const float *scales = w->scales;
    TERN_NO_UNROLL
    do {
        TERN_COST_LOOP("widened blocks", PANEL, tokens, BLOCK);
        __m256i sum[HALVES * TOKENS];
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const __m256i less = _mm256_set1_epi32(x_blocks[t * CHUNK_BLOCKS].less);
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++)
                sum[h * tokens + t] = _mm256_add_epi32(less, _mm256_load_si256((const __m256i *)(w_less + h * HALF)));
        }
        TERN_UNROLL
        for (size_t g = 0; g < BLOCK_GROUPS; g++)
            add_wide_group(sum, codes + g * GROUP_WIDE, x + g * GROUP_K, X_STRIDE, tokens);
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const __m256 da = _mm256_broadcast_ss(&x_blocks[t * CHUNK_BLOCKS].scale);
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++) {
                float *to = y + t * ld_y + h * HALF; // stays in L1 between blocks
                _mm256_store_ps(to, add_term(_mm256_load_ps(to), sum[h * tokens + t], _mm256_load_ps(scales + h * HALF), da));
            }
        }
        codes += BLOCK_GROUPS * GROUP_WIDE;
        w_less += PANEL;
        scales += PANEL;
        x += BLOCK;
        x_blocks++;
    } while (--blocks);
}

#define MANY_TILE(tokens)                                                                                                      \
    TILE_OWN void many_##tokens(float *y, size_t ld_y, const w_chunk *w, const int16_t *x, const x_block *x_blocks,            \
                                size_t blocks, int first) {                                                                    \
        many_tile(y, ld_y, w, x, x_blocks, blocks, first, tokens);                                                             \
    }
MANY_TILE(4)
MANY_TILE(2)
MANY_TILE(1)

// Widest first; the last takes one token.
static const struct {
    size_t tokens;
    many_fn *run;
} many_tiles[] = {{4, many_4}, {2, many_2}, {1, many_1}};

static void widen_activations(x_chunk *x, const tern_gemm_b32_args *args, size_t t0, size_t m, size_t k0, size_t blocks) {
    for (size_t t = 0; t < m; t++) {
        const int8_t *row = args->x + (t0 + t) * args->ldx + k0;
        const float *scales = args->x_scales + (t0 + t) * args->ld_x_blocks + k0 / BLOCK;
        for (size_t b = 0; b < blocks; b++)
            x->blocks[t][b] = (x_block){scales[b], -widen_row(x->codes[t] + b * BLOCK, row + b * BLOCK, BLOCK)};
    }
}

#endif
