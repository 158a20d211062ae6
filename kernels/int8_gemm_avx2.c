// SPDX-License-Identifier: MIT
// INT8 products for AVX2: tiles of 16 features by up to 4 tokens, features in lanes, four k per 32-bit lane.
#include <assert.h>

#include "kernels.h"

#include "int8_pairs_avx2.h"
#include "prefetch.h"

enum { X_STRIDE = CHUNK_K + 32 }; // not a power of two: the rows of a tile spread over the sets of L1

// ---- few tokens -------------------------------------------------------------------------------------------------

// One tile of one run of K: acc (+)= sums; first: acc is written without being read.
typedef void few_fn(int32_t *acc, size_t ld_acc, const uint8_t *w, const int16_t *x, size_t groups, int first);

TILE_INLINE void few_tile(int32_t *acc, size_t ld_acc, const uint8_t *w, const int16_t *x, size_t groups, int first,
                          size_t tokens) {
    __m256i sum[HALVES * FEW_TOKENS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++)
            sum[h * tokens + t] =
                first ? _mm256_setzero_si256() : _mm256_load_si256((const __m256i *)(acc + t * ld_acc + h * HALF));
    }
    add_groups(sum, w, x, FEW_K, groups, INT8_AHEAD, tokens);
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) _mm256_store_si256((__m256i *)(acc + t * ld_acc + h * HALF), sum[h * tokens + t]);
    }
}

#define FEW_TILE(tokens)                                                                                                       \
    TILE_OWN void few_##tokens(int32_t *acc, size_t ld_acc, const uint8_t *w, const int16_t *x, size_t groups, int first) {    \
        few_tile(acc, ld_acc, w, x, groups, first, tokens);                                                                    \
    }
FEW_TILE(1)
FEW_TILE(2)
FEW_TILE(3)

static void gemm_few(const tern_gemm_args *args) {
    static few_fn *const tiles[FEW_TOKENS] = {few_1, few_2, few_3};
    assert(0 < args->m && args->m <= FEW_TOKENS);
    __attribute__((aligned(64))) int16_t x[FEW_TOKENS][FEW_K];
    const size_t all_groups = tern_i8_groups(args->k);
    for (size_t k0 = 0; k0 < args->k; k0 += FEW_K) {
        const size_t depth = args->k - k0 < FEW_K ? args->k - k0 : FEW_K;
        for (size_t t = 0; t < args->m; t++) (void)widen_row(x[t], args->x + t * args->ldx + k0, depth);
        for (size_t i = 0; i < args->n; i += PANEL)
            tiles[args->m - 1](args->acc + i, args->ld_acc, args->packed + (i * all_groups + k0 / GROUP_K * PANEL) * GROUP_K,
                               x[0], tern_i8_groups(depth), k0 == 0);
    }
}

// ---- many tokens ------------------------------------------------------------------------------------------------

typedef struct w_chunk {
    int16_t codes[CHUNK_K * PANEL];
    int32_t less[PANEL]; // what the sums of each feature start with
} w_chunk;

typedef struct x_chunk {
    int16_t codes[TOKENS_MAX][X_STRIDE];
    int32_t less[TOKENS_MAX]; // what the sums of each token start with
} x_chunk;

typedef void many_fn(int32_t *acc, size_t ld_acc, const w_chunk *w, const int16_t *x, const int32_t *x_less, size_t groups,
                     int first);

TILE_INLINE void many_tile(int32_t *acc, size_t ld_acc, const w_chunk *w, const int16_t *x, const int32_t *x_less,
                           size_t groups, int first, size_t tokens) {
    __m256i sum[HALVES * TOKENS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        const __m256i less = _mm256_set1_epi32(x_less[t]);
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) {
            const __m256i start = _mm256_add_epi32(less, _mm256_load_si256((const __m256i *)(w->less + h * HALF)));
            const __m256i *before = (const __m256i *)(acc + t * ld_acc + h * HALF);
            sum[h * tokens + t] = first ? start : _mm256_add_epi32(start, _mm256_load_si256(before));
        }
    }
    const int16_t *codes = w->codes;
    TERN_NO_UNROLL
    do {
        TERN_COST_LOOP("widened groups", PANEL, tokens, GROUP_K);
        add_wide_group(sum, codes, x, X_STRIDE, tokens);
        codes += GROUP_WIDE;
        x += GROUP_K;
    } while (--groups);
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) _mm256_store_si256((__m256i *)(acc + t * ld_acc + h * HALF), sum[h * tokens + t]);
    }
}

#define MANY_TILE(tokens)                                                                                                      \
    TILE_OWN void many_##tokens(int32_t *acc, size_t ld_acc, const w_chunk *w, const int16_t *x, const int32_t *x_less,        \
                                size_t groups, int first) {                                                                    \
        many_tile(acc, ld_acc, w, x, x_less, groups, first, tokens);                                                           \
    }
MANY_TILE(4)
MANY_TILE(2)
MANY_TILE(1)

// Widest first; the last takes one token.
static const struct {
    size_t tokens;
    many_fn *run;
} many_tiles[] = {{4, many_4}, {2, many_2}, {1, many_1}};

// Up to TOKENS_MAX tokens from token t0 on.
static void gemm_many(const tern_gemm_args *args, size_t t0) {
    __attribute__((aligned(64))) w_chunk w;
    __attribute__((aligned(64))) x_chunk x;
    const size_t m = args->m - t0 < TOKENS_MAX ? args->m - t0 : TOKENS_MAX, all_groups = tern_i8_groups(args->k);
    for (size_t k0 = 0; k0 < args->k; k0 += CHUNK_K) {
        const size_t depth = args->k - k0 < CHUNK_K ? args->k - k0 : CHUNK_K, groups = tern_i8_groups(depth);
        for (size_t t = 0; t < m; t++) x.less[t] = -widen_row(x.codes[t], args->x + (t0 + t) * args->ldx + k0, depth);
        for (size_t i = 0; i < args->n; i += PANEL) {
            const uint8_t *from = args->packed + (i * all_groups + k0 / GROUP_K * PANEL) * GROUP_K;
            __m256i less[HALVES] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            widen_groups(w.codes, less, from, groups);
            for (size_t h = 0; h < HALVES; h++) _mm256_store_si256((__m256i *)(w.less + h * HALF), less[h]);
            for (size_t t = 0, tile = 0; t < m; t += many_tiles[tile].tokens) {
                while (many_tiles[tile].tokens > m - t) tile++;
                tern_prefetch_share(from + all_groups * TERN_I8_GROUP_BYTES, groups * TERN_I8_GROUP_BYTES, t,
                                    many_tiles[tile].tokens, m);
                many_tiles[tile].run(args->acc + (t0 + t) * args->ld_acc + i, args->ld_acc, &w, x.codes[t], x.less + t, groups,
                                     k0 == 0);
            }
        }
    }
}

void tern_int8_gemm_avx2(const tern_gemm_args *args) {
    if (args->m <= FEW_TOKENS)
        gemm_few(args);
    else
        for (size_t t = 0; t < args->m; t += TOKENS_MAX) gemm_many(args, t);
}
