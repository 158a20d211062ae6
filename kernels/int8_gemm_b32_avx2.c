// SPDX-License-Identifier: MIT
// INT8 products with scales per 32 for AVX2: tiles of 16 features by up to 4 tokens, features in lanes.
#include <assert.h>

#include "kernels.h"

#include "int8_blocks_avx2.h"
#include "prefetch.h"

enum {
    BLOCKS = TERN_I8B_SUPER_K / BLOCK, // of a super-group
    HALF_SCALES = HALF * (int)sizeof(uint16_t),
    TURN_SUPERS = 2
};

// 8 float16 weight scales of block b of a super-group.
TILE_INLINE __m256 load_scales(const uint8_t *super, size_t b, size_t h) {
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(super + (b * HALVES + h) * HALF_SCALES)));
}

// ---- few tokens -------------------------------------------------------------------------------------------------

// One tile of one run of K: y (+)= the terms of its blocks; first: y is written without being read.
typedef void few_fn(float *y, size_t ld_y, const uint8_t *super, const int16_t *x, const float *x_scales, size_t ld_x_blocks,
                    size_t supers, int first);

TILE_INLINE void few_tile(float *y, size_t ld_y, const uint8_t *super, const int16_t *x, const float *x_scales,
                          size_t ld_x_blocks, size_t supers, int first, size_t tokens) {
    __m256 part[HALVES * FEW_TOKENS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++)
            part[h * tokens + t] = first ? _mm256_setzero_ps() : _mm256_load_ps(y + t * ld_y + h * HALF);
    }
    for (size_t s = 0; s < supers; s++, super += TERN_I8B_SUPER_BYTES) {
        fetch(super + INT8_AHEAD);
        TERN_NO_UNROLL
        for (size_t b = 0; b < BLOCKS; b++, x += BLOCK, x_scales++) {
            __m256i sum[HALVES * FEW_TOKENS];
            TERN_UNROLL
            for (size_t i = 0; i < HALVES * tokens; i++) sum[i] = _mm256_setzero_si256();
            add_groups(sum, super + TERN_I8B_CODES + b * BLOCK_BYTES, x, FEW_K, BLOCK_GROUPS, INT8_AHEAD, tokens);
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) {
                const __m256 da = _mm256_broadcast_ss(x_scales + t * ld_x_blocks);
                TERN_UNROLL
                for (size_t h = 0; h < HALVES; h++)
                    part[h * tokens + t] = add_term(part[h * tokens + t], sum[h * tokens + t], load_scales(super, b, h), da);
            }
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) _mm256_store_ps(y + t * ld_y + h * HALF, part[h * tokens + t]);
    }
}

#define FEW_TILE(tokens)                                                                                                       \
    TILE_OWN void few_##tokens(float *y, size_t ld_y, const uint8_t *super, const int16_t *x, const float *x_scales,           \
                               size_t ld_x_blocks, size_t supers, int first) {                                                 \
        few_tile(y, ld_y, super, x, x_scales, ld_x_blocks, supers, first, tokens);                                             \
    }
FEW_TILE(1)
FEW_TILE(2)
FEW_TILE(3)

// n super-groups from `super` on, of the panel of feature i; x: the widened activations from k0 on.
static void few_run(const tern_gemm_b32_args *args, size_t i, size_t k0, size_t super, size_t n, const int16_t *x) {
    static few_fn *const tiles[FEW_TOKENS] = {few_1, few_2, few_3};
    assert(0 < args->m && args->m <= FEW_TOKENS);
    const size_t at = k0 / TERN_I8B_SUPER_K + super, panel = i / PANEL * tern_i8b_supers(args->k);
    tiles[args->m - 1](args->y + i, args->ld_y, args->packed + (panel + at) * TERN_I8B_SUPER_BYTES,
                       x + super * TERN_I8B_SUPER_K, args->x_scales + at * BLOCKS, args->ld_x_blocks, n, at == 0);
}

static void gemm_few(const tern_gemm_b32_args *args) {
    __attribute__((aligned(64))) int16_t x[FEW_TOKENS][FEW_K];
    const size_t half = args->n / PANEL / 2 * PANEL;
    for (size_t k0 = 0; k0 < args->k; k0 += FEW_K) {
        const size_t depth = args->k - k0 < FEW_K ? args->k - k0 : FEW_K, supers = tern_i8b_supers(depth);
        for (size_t t = 0; t < args->m; t++) (void)widen_row(x[t], args->x + t * args->ldx + k0, supers * TERN_I8B_SUPER_K);
        // Panels half a tile apart in turn: two forward streams come from DRAM faster than one.
        for (size_t i = 0; i < half; i += PANEL)
            for (size_t s = 0, n; s < supers; s += n) {
                n = supers - s < TURN_SUPERS ? supers - s : TURN_SUPERS;
                few_run(args, i, k0, s, n, x[0]);
                few_run(args, i + half, k0, s, n, x[0]);
            }
        if (2 * half < args->n) few_run(args, 2 * half, k0, 0, supers, x[0]);
    }
}

// ---- many tokens: widened codes ---------------------------------------------------------------------------------

static void widen_weights(w_chunk *w, const uint8_t *super, size_t supers) {
    for (size_t b = 0; b < supers * BLOCKS; b++) {
        const uint8_t *from = super + b / BLOCKS * TERN_I8B_SUPER_BYTES;
        __m256i less[HALVES] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        widen_groups(w->codes + b * BLOCK * PANEL, less, from + TERN_I8B_CODES + b % BLOCKS * BLOCK_BYTES, BLOCK_GROUPS);
        for (size_t h = 0; h < HALVES; h++) {
            _mm256_store_si256((__m256i *)(w->less + b * PANEL + h * HALF), less[h]);
            _mm256_store_ps(w->scales + b * PANEL + h * HALF, load_scales(from, b % BLOCKS, h));
        }
    }
}

// Up to TOKENS_MAX tokens from token t0 on.
static void gemm_many(const tern_gemm_b32_args *args, size_t t0) {
    __attribute__((aligned(64))) w_chunk w;
    __attribute__((aligned(64))) x_chunk x;
    const size_t m = args->m - t0 < TOKENS_MAX ? args->m - t0 : TOKENS_MAX, all_supers = tern_i8b_supers(args->k);
    for (size_t k0 = 0; k0 < args->k; k0 += CHUNK_K) {
        const size_t supers = tern_i8b_supers(args->k - k0 < CHUNK_K ? args->k - k0 : CHUNK_K);
        widen_activations(&x, args, t0, m, k0, supers * BLOCKS);
        for (size_t i = 0; i < args->n; i += PANEL) {
            const uint8_t *from = args->packed + (i / PANEL * all_supers + k0 / TERN_I8B_SUPER_K) * TERN_I8B_SUPER_BYTES;
            widen_weights(&w, from, supers);
            for (size_t t = 0, tile = 0; t < m; t += many_tiles[tile].tokens) {
                while (many_tiles[tile].tokens > m - t) tile++;
                tern_prefetch_share(from + all_supers * TERN_I8B_SUPER_BYTES, supers * TERN_I8B_SUPER_BYTES, t,
                                    many_tiles[tile].tokens, m);
                many_tiles[tile].run(args->y + (t0 + t) * args->ld_y + i, args->ld_y, &w, x.codes[t], x.blocks[t],
                                     supers * BLOCKS, k0 == 0);
            }
        }
    }
}

// Twice FEW_TOKENS at most, in two halves. Widening the weights, which gemm_many does first, pays for more tokens only; the
// second half finds the tile's codes in L2.
static void gemm_two_few(const tern_gemm_b32_args *args) {
    const size_t first = (args->m + 1) / 2;
    tern_gemm_b32_args half = *args;
    half.m = first;
    gemm_few(&half);
    half.m = args->m - first;
    half.y += first * args->ld_y;
    half.x += first * args->ldx;
    half.x_scales += first * args->ld_x_blocks;
    half.x_sums += first * args->ld_x_blocks;
    gemm_few(&half);
}

void tern_int8_gemm_b32_avx2(const tern_gemm_b32_args *args) {
    if (args->m <= FEW_TOKENS)
        gemm_few(args);
    else if (args->m <= 2 * FEW_TOKENS)
        gemm_two_few(args);
    else
        for (size_t t = 0; t < args->m; t += TOKENS_MAX) gemm_many(args, t);
}
