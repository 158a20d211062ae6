// SPDX-License-Identifier: MIT
// INT8 products with scales per 32 for AVX2: tiles of 16 features by up to 4 tokens, features in lanes.
#include "kernels.h"

#include "int8_pairs_avx2.h"
#include "prefetch.h"

enum {
    BLOCK = TERN_I8B_BLOCK,
    BLOCKS = TERN_I8B_SUPER_K / BLOCK, // of a super-group
    BLOCK_GROUPS = BLOCK / GROUP_K,
    BLOCK_BYTES = BLOCK_GROUPS * TERN_I8_GROUP_BYTES,
    HALF_SCALES = HALF * (int)sizeof(uint16_t),
    CHUNK_BLOCKS = CHUNK_K / BLOCK,
    TURN_SUPERS = 2,
    X_STRIDE = CHUNK_K + 32 // not a power of two: the rows of a tile spread over the sets of L1
};

// 8 float16 weight scales of block b of a super-group.
TILE_INLINE __m256 load_scales(const uint8_t *super, size_t b, size_t h) {
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(super + (b * HALVES + h) * HALF_SCALES)));
}

// y + (float)sum * (dw * da)
TILE_INLINE __m256 add_term(__m256 y, __m256i sum, __m256 dw, __m256 da) {
    return _mm256_add_ps(y, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(dw, da)));
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
        fetch_ahead(super);
        TERN_NO_UNROLL
        for (size_t b = 0; b < BLOCKS; b++, x += BLOCK, x_scales++) {
            __m256i sum[HALVES * FEW_TOKENS];
            TERN_UNROLL
            for (size_t i = 0; i < HALVES * tokens; i++) sum[i] = _mm256_setzero_si256();
            add_groups(sum, super + TERN_I8B_CODES + b * BLOCK_BYTES, x, FEW_K, BLOCK_GROUPS, tokens);
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

static void widen_activations(x_chunk *x, const tern_gemm_b32_args *args, size_t t0, size_t m, size_t k0, size_t blocks) {
    for (size_t t = 0; t < m; t++) {
        const int8_t *row = args->x + (t0 + t) * args->ldx + k0;
        const float *scales = args->x_scales + (t0 + t) * args->ld_x_blocks + k0 / BLOCK;
        for (size_t b = 0; b < blocks; b++)
            x->blocks[t][b] = (x_block){scales[b], -widen_row(x->codes[t] + b * BLOCK, row + b * BLOCK, BLOCK)};
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
