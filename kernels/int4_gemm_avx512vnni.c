// SPDX-License-Identifier: MIT
// 4-bit products for AVX-512 VNNI: tiles of 16 features by up to 6 tokens, features in lanes, four k per 32-bit lane.
#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#include "compiler.h"

#define TILE_INLINE static inline __attribute__((always_inline))
// A tile is a function of its own, with constant layout and tokens: so gcc 12 keeps its sums in registers.
#define TILE_OWN static __attribute__((noinline))

enum {
    LANE = 4,   // k of one 32-bit lane
    TOKENS = 6, // of the widest tile: its 6 sums cover latency 5 of vpdpbusd at one per cycle; with 8, gcc 12 spills addresses
    LINES = TERN_I4_BLOCK / TERN_I4_LINE_K,
    CHUNK_K = 2048, // K is cut so that a panel's chunk of weights (18-20 KB) stays in L1 while all tokens pass
    ZERO_SHIFT = 3, // TERN_I4_ZERO = 1 << 3
    PREFETCH_BYTES = 2048
};

// The activations of a tile's tokens from its chunk of K on.
typedef struct x_tile {
    const int8_t *codes;
    size_t ldx;
    const float *scales; // [t * ld + block]
    const int32_t *sums;
    size_t ld;
} x_tile;

// ---- scales: lane f = feature f ---------------------------------------------------------------------------------

typedef struct block_scales {
    __m512 d, m;
} block_scales;

TILE_INLINE __m512 load_halves(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)p)); }

// times[f] * (byte f of bytes)
TILE_INLINE __m512 times_bytes(__m512 times, __m128i bytes) {
    return _mm512_mul_ps(times, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
}

// I4K: the float16 scales of a super, else nothing. `layout` is a constant after inlining.
TILE_INLINE block_scales load_super(tern_layout layout, const uint8_t *super) {
    if (layout != TERN_LAYOUT_I4K) return (block_scales){_mm512_setzero_ps(), _mm512_setzero_ps()};
    return (block_scales){load_halves(super), load_halves(super + TERN_I4K_MINS)};
}

// block % 2 is a constant after inlining, too.
TILE_INLINE block_scales load_scales(tern_layout layout, const uint8_t *super, block_scales of_super, size_t block) {
    if (layout != TERN_LAYOUT_I4K) {
        const uint8_t *at = super + block * TERN_I4_PANEL * sizeof(uint16_t);
        return (block_scales){load_halves(at),
                              layout == TERN_LAYOUT_I4M32 ? load_halves(at + TERN_I4M_MINS) : _mm512_setzero_ps()};
    }
    const __m128i *pair = (const __m128i *)(super + TERN_I4K_PAIRS + block / 2 * TERN_I4K_PAIR_BYTES);
    const __m128i a = _mm_load_si128(pair), b = _mm_load_si128(pair + 1), c = _mm_load_si128(pair + 2);
    const __m128i six = _mm_set1_epi8(TERN_I4K_SIX_MAX);
    if (block % 2 == 0)
        return (block_scales){times_bytes(of_super.d, _mm_and_si128(a, six)), times_bytes(of_super.m, _mm_and_si128(c, six))};
    // byte f = t_o: two bits from the top of each vector
    const __m128i t01 = _mm_and_si128(_mm_srli_epi16(a, 6), _mm_set1_epi8(0x03));
    const __m128i t23 = _mm_and_si128(_mm_srli_epi16(b, 4), _mm_set1_epi8(0x0c));
    const __m128i t45 = _mm_and_si128(_mm_srli_epi16(c, 2), _mm_set1_epi8(0x30));
    return (block_scales){times_bytes(of_super.d, _mm_and_si128(b, six)),
                          times_bytes(of_super.m, _mm_or_si128(t01, _mm_or_si128(t23, t45)))};
}

// ---- one block ------------------------------------------------------------------------------------------------

// Every 32-bit lane holds the four activations at x.
TILE_INLINE __m512i load_lane(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

// Lane f of *sum += dot product of the four codes of feature f (0..15) with the four activations at x.
TILE_INLINE void dot4(__m512i *sum, __m512i codes, const int8_t *x) {
    const int8_t(*four)[LANE] = (const int8_t(*)[LANE])x;
    TERN_IN_PLACE(__asm__ volatile("vpdpbusd %2%{1to16%}, %1, %0"
                                   : "+v"(*sum)
                                   : "v"(codes), "m"(*four)),
                  *sum = _mm512_dpbusd_epi32(*sum, codes, load_lane(*four)));
}

TILE_INLINE void add_block(tern_layout layout, __m512 y[TOKENS], const uint8_t *super, block_scales of_super, size_t block,
                           const x_tile *x, size_t x_block, size_t tokens) {
    const uint8_t *codes = super + tern_i4_head(layout) + block * TERN_I4_BLOCK_BYTES;
    const int8_t *from = x->codes + x_block * TERN_I4_BLOCK;
    const int has_min = layout != TERN_LAYOUT_I4B32;
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    __m512i sum[TOKENS]; // int32 lane f: |sum| <= 32 * 15 * 128, and 8 * 32 * 128 less without a min
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        const __m512i x_sum = _mm512_set1_epi32(x->sums[t * x->ld + x_block]);
        sum[t] =
            has_min ? _mm512_setzero_si512() : _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(x_sum, ZERO_SHIFT));
    }
    TERN_UNROLL
    for (size_t p = 0; p < LINES; p++) {
        const __m512i both = _mm512_load_si512(codes + p * TERN_I4_LINE_BYTES);
        const __m512i low = _mm512_and_si512(both, nibble); // byte 4f + j: codes of k = 8p + j, then of k = 8p + 4 + j
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) dot4(&sum[t], low, from + t * x->ldx + p * TERN_I4_LINE_K);
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) dot4(&sum[t], high, from + t * x->ldx + p * TERN_I4_LINE_K + LANE);
    }
    const block_scales w = load_scales(layout, super, of_super, block);
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        const __m512 da = _mm512_set1_ps(x->scales[t * x->ld + x_block]), code_sum = _mm512_cvtepi32_ps(sum[t]);
        const __m512 x_sum = _mm512_cvtepi32_ps(_mm512_set1_epi32(x->sums[t * x->ld + x_block]));
        y[t] = has_min ? _mm512_fmadd_ps(_mm512_fmadd_ps(w.d, code_sum, _mm512_mul_ps(w.m, x_sum)), da, y[t])
                       : _mm512_add_ps(y[t], _mm512_mul_ps(code_sum, _mm512_mul_ps(w.d, da)));
    }
}

// ---- tiles ------------------------------------------------------------------------------------------------------

// A tile computes one chunk of K: y (+)= the terms of its blocks. first: y is written without being read.
typedef void tile_fn(float *y, size_t ld_y, const uint8_t *super, const x_tile *x, size_t supers, int first);

TILE_INLINE void run_tile(tern_layout layout, float *y, size_t ld_y, const uint8_t *super, const x_tile *x, size_t supers,
                          int first, size_t tokens) {
    const size_t super_blocks = tern_i4_super_k(layout) / TERN_I4_BLOCK;
    __m512 part[TOKENS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) part[t] = first ? _mm512_setzero_ps() : _mm512_load_ps(y + t * ld_y);
    for (size_t s = 0; s < supers; s++, super += tern_i4_super_bytes(layout)) {
        const block_scales of_super = load_super(layout, super);
        TERN_NO_UNROLL
        for (size_t b = 0; b < super_blocks; b += 2) {
            TERN_COST_LOOP("4-bit pairs of blocks", TERN_I4_PANEL, tokens, 2 * TERN_I4_BLOCK);
            if (tokens == 1) { // waits for memory; past the end the prefetch does nothing
                for (size_t at = 0; at < 2 * TERN_I4_BLOCK_BYTES; at += TERN_I4_LINE_BYTES)
                    _mm_prefetch((const char *)(super + PREFETCH_BYTES + b * TERN_I4_BLOCK_BYTES + at), _MM_HINT_T0);
            }
            add_block(layout, part, super, of_super, b, x, s * super_blocks + b, tokens);
            add_block(layout, part, super, of_super, b + 1, x, s * super_blocks + b + 1, tokens);
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) _mm512_store_ps(y + t * ld_y, part[t]);
}

typedef struct tile_entry {
    size_t tokens;
    tile_fn *run;
} tile_entry;

TILE_INLINE void gemm(const tern_gemm_b32_args *args, tern_layout layout, const tile_entry *tiles) {
    const size_t super_k = tern_i4_super_k(layout), supers = tern_ceil_div(args->k, super_k), step = CHUNK_K / super_k;
    const uint8_t *super = args->packed;
    for (size_t i = 0; i < args->n; i += TERN_I4_PANEL) {
        for (size_t s = 0; s < supers; s += step) {
            const size_t count = supers - s < step ? supers - s : step;
            const tile_entry *tile = tiles;
            for (size_t t = 0; t < args->m; t += tile->tokens) {
                while (tile->tokens > args->m - t) tile++;
                const size_t at = t * args->ld_x_blocks + s * (super_k / TERN_I4_BLOCK);
                const x_tile x = {args->x + t * args->ldx + s * super_k, args->ldx, args->x_scales + at, args->x_sums + at,
                                  args->ld_x_blocks};
                tile->run(args->y + t * args->ld_y + i, args->ld_y, super, &x, count, s == 0);
            }
            super += count * tern_i4_super_bytes(layout);
        }
    }
}

#define TILE(LAYOUT, tokens)                                                                                                   \
    TILE_OWN void tile_##LAYOUT##_##tokens(float *y, size_t ld_y, const uint8_t *super, const x_tile *x, size_t supers,        \
                                           int first) {                                                                        \
        run_tile(TERN_LAYOUT_##LAYOUT, y, ld_y, super, x, supers, first, tokens);                                              \
    }
// Widest first; the last takes one token.
#define GEMM(LAYOUT, name)                                                                                                     \
    TILE(LAYOUT, 6)                                                                                                            \
    TILE(LAYOUT, 4)                                                                                                            \
    TILE(LAYOUT, 2)                                                                                                            \
    TILE(LAYOUT, 1)                                                                                                            \
    static const tile_entry tiles_##LAYOUT[] = {                                                                               \
        {6, tile_##LAYOUT##_6}, {4, tile_##LAYOUT##_4}, {2, tile_##LAYOUT##_2}, {1, tile_##LAYOUT##_1}};                       \
    void name(const tern_gemm_b32_args *args) { gemm(args, TERN_LAYOUT_##LAYOUT, tiles_##LAYOUT); }

GEMM(I4B32, tern_int4_gemm_i4b32_avx512vnni)
GEMM(I4M32, tern_int4_gemm_i4m32_avx512vnni)
GEMM(I4K, tern_int4_gemm_i4k_avx512vnni)
