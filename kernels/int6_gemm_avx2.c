// SPDX-License-Identifier: MIT
// 6-bit products for AVX2: features in lanes, four k per 32-bit lane. Up to three tokens read the packed codes, more tokens
// read a chunk of them that was widened once.
#include "int8_blocks_avx2.h"
#include "prefetch.h"

enum {
    BLOCKS = TERN_I6_SUPER_K / TERN_I6_BLOCK,   // of a super
    SIXTEENS = TERN_I6_BLOCK / TERN_I6_LINES_K, // of a block: k that share three lines, and whose products fit an int16
    SIXTEEN_GROUPS = TERN_I6_LINES_K / GROUP_K,
    SIXTEEN_BYTES = TERN_I6_LINES * TERN_I6_LINE_BYTES,
    DIRECT_TOKENS = 2, // of the widest tile on packed codes
    CHUNK_SUPERS = CHUNK_K / TERN_I6_SUPER_K,
    FEW_BLOCKS = FEW_K / TERN_I6_BLOCK
};

// ---- codes and scales: 8 features of one half in lanes ------------------------------------------------------------

// D * s of block b of a super.
TILE_INLINE __m256 load_scales(const uint8_t *super, size_t b, size_t h, __m256 of_row) {
    const __m128i s = _mm_loadl_epi64((const __m128i *)(super + b * TERN_I6_PANEL + h * HALF));
    return _mm256_mul_ps(of_row, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(s)));
}

// Codes u of one half and 16 k: byte 4f + j of group g = feature f, k = 4g + j, 1..63.
typedef struct sixteen_codes {
    __m256i group[SIXTEEN_GROUPS];
} sixteen_codes;

TILE_INLINE __m256i top_bits(__m256i line, int shift, char bits) {
    return _mm256_and_si256(_mm256_srli_epi16(line, shift), _mm256_set1_epi8(bits));
}

// lines: the first of their three.
TILE_INLINE sixteen_codes load_codes(const uint8_t *lines, size_t h) {
    const __m256i *at = (const __m256i *)(lines + h * HALF_BYTES);
    const __m256i a = _mm256_load_si256(at), b = _mm256_load_si256(at + HALVES), c = _mm256_load_si256(at + 2 * HALVES);
    const __m256i six = _mm256_set1_epi8(0x3f);
    const __m256i last = _mm256_or_si256(_mm256_or_si256(top_bits(a, 6, 0x03), top_bits(b, 4, 0x0c)), top_bits(c, 2, 0x30));
    return (sixteen_codes){{_mm256_and_si256(a, six), _mm256_and_si256(b, six), _mm256_and_si256(c, six), last}};
}

// ---- few tokens ---------------------------------------------------------------------------------------------------

// The activations of a few tokens, from the start of a run of K on.
typedef struct x_few {
    const int8_t *codes; // [t * ldx + k]
    size_t ldx;
    const int16_t *wide; // [t * FEW_K + k]: of widen_row
    const int32_t *less; // [t * ld_less + 2 * block + sixteen]: what the sums of 16 k start with, of start_sums
    size_t ld_less;
    const float *scales; // [t * ld_blocks + block]
    size_t ld_blocks;
} x_few;

// Two int16, -32 times the sums of x over k = 0, 1 and over k = 2, 3 (mod 4) of 16 activations. They wrap where they must:
// what they start fits again at the end.
static int32_t start_sums(const int8_t *x) {
    const __m128i codes = _mm_load_si128((const __m128i *)x);
    __m128i sum = _mm_maddubs_epi16(_mm_set1_epi8(TERN_I6_ZERO), codes); // int16 lanes: 32 * (two neighbours), at most 8192
    sum = _mm_add_epi16(sum, _mm_unpackhi_epi64(sum, sum));
    sum = _mm_add_epi16(sum, _mm_srli_epi64(sum, 32));
    return _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), sum));
}

// Four activations of one token in every 32-bit lane.
TILE_INLINE __m256i broadcast_four(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

// sum: int16 lanes 2f, 2f + 1 = sums over feature f and k = 0, 1 and 2, 3 (mod 4) of 16 k. They start with -32 * x and so end
// as sums of (u - 32) * x: |lane| <= 8 * 31 * 128 = 31744 fits int16, x = -128 included, whatever wraps on the way. A pair of
// products, 2 * 63 * 128 = 16128, does not saturate.
TILE_INLINE __m256i add_products(__m256i sum, __m256i code, __m256i x) {
    const __m256i two = _mm256_maddubs_epi16(code, x);
    TERN_IN_PLACE(__asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(two)), sum = _mm256_add_epi16(sum, two));
    return sum;
}

TILE_INLINE void narrow_half(__m256 *y, const uint8_t *super, size_t b, size_t h, __m256 of_row, const x_few *x, size_t block,
                             size_t tokens) {
    const uint8_t *codes = super + TERN_I6_SCALES + b * TERN_I6_BLOCK_BYTES;
    const int8_t *from = x->codes + block * TERN_I6_BLOCK;
    __m256i dot[DIRECT_TOKENS]; // int32 lane f
    TERN_UNROLL
    for (size_t sixteen = 0; sixteen < SIXTEENS; sixteen++) {
        __m256i sum[DIRECT_TOKENS];
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) sum[t] = _mm256_set1_epi32(x->less[t * x->ld_less + SIXTEENS * block + sixteen]);
        const sixteen_codes u = load_codes(codes + sixteen * SIXTEEN_BYTES, h);
        TERN_UNROLL
        for (size_t g = 0; g < SIXTEEN_GROUPS; g++) {
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++)
                sum[t] = add_products(sum[t], u.group[g],
                                      broadcast_four(from + t * x->ldx + (sixteen * SIXTEEN_GROUPS + g) * GROUP_K));
        }
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const __m256i part = _mm256_madd_epi16(sum[t], _mm256_set1_epi16(1));
            dot[t] = sixteen == 0 ? part : _mm256_add_epi32(dot[t], part);
        }
    }
    const __m256 dw = load_scales(super, b, h, of_row);
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++)
        y[t] = add_term(y[t], dot[t], dw, _mm256_broadcast_ss(x->scales + t * x->ld_blocks + block));
}

TILE_INLINE void wide_block(__m256 y[HALVES * DIRECT_TOKENS], const uint8_t *super, size_t b, const __m256 of_row[HALVES],
                            const x_few *x, size_t block, size_t tokens) {
    __m256i sum[HALVES * FEW_TOKENS];
    TERN_UNROLL
    for (size_t i = 0; i < HALVES * tokens; i++) sum[i] = _mm256_setzero_si256();
    add_groups(sum, super + TERN_I6_SCALES + b * TERN_I6_WIDE_BLOCK_BYTES, x->wide + block * BLOCK, FEW_K, BLOCK_GROUPS,
               tokens);
    TERN_UNROLL
    for (size_t h = 0; h < HALVES; h++) {
        const __m256 dw = load_scales(super, b, h, of_row[h]);
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++)
            y[h * tokens + t] =
                add_term(y[h * tokens + t], sum[h * tokens + t], dw, _mm256_broadcast_ss(x->scales + t * x->ld_blocks + block));
    }
}

// One panel and one run of K: y (+)= the terms of its blocks, those of `wide` supers first; first: y is written without being
// read.
typedef void direct_fn(float *y, size_t ld_y, const float *of_row, const uint8_t *super, const x_few *x, size_t wide,
                       size_t supers, int first);

TILE_INLINE void direct_tile(float *y, size_t ld_y, const float *d, const uint8_t *super, const x_few x, size_t wide,
                             size_t supers, int first, size_t tokens) {
    const __m256 of_row[HALVES] = {_mm256_load_ps(d), _mm256_load_ps(d + HALF)};
    __m256 part[HALVES * DIRECT_TOKENS];
    TERN_UNROLL
    for (size_t h = 0; h < HALVES; h++) {
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++)
            part[h * tokens + t] = first ? _mm256_setzero_ps() : _mm256_load_ps(y + t * ld_y + h * HALF);
    }
    size_t block = 0;
    for (size_t s = 0; s < wide; s++, super += TERN_I6_WIDE_BYTES) {
        TERN_NO_UNROLL
        for (size_t b = 0; b < BLOCKS; b++, block++) wide_block(part, super, b, of_row, &x, block, tokens);
    }
    for (size_t s = wide; s < supers; s++, super += TERN_I6_SUPER_BYTES) {
        TERN_NO_UNROLL
        for (size_t b = 0; b < BLOCKS; b++, block++) {
            TERN_COST_LOOP("6-bit blocks", TERN_I6_PANEL, tokens, TERN_I6_BLOCK);
            for (size_t at = 0; at < TERN_I6_BLOCK_BYTES; at += TERN_I6_LINE_BYTES)
                fetch_ahead(super + b * TERN_I6_BLOCK_BYTES + at);
            narrow_half(part, super, b, 0, of_row[0], &x, block, tokens);
            __asm__ volatile("" : : : "memory"); // one half after the other: else gcc keeps x of both, and spills
            narrow_half(part + tokens, super, b, 1, of_row[1], &x, block, tokens);
        }
    }
    TERN_UNROLL
    for (size_t h = 0; h < HALVES; h++) {
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) _mm256_store_ps(y + t * ld_y + h * HALF, part[h * tokens + t]);
    }
}

#define DIRECT_TILE(tokens)                                                                                                    \
    TILE_OWN void direct_##tokens(float *y, size_t ld_y, const float *d, const uint8_t *super, const x_few *x, size_t wide,    \
                                  size_t supers, int first) {                                                                  \
        direct_tile(y, ld_y, d, super, *x, wide, supers, first, tokens);                                                       \
    }
DIRECT_TILE(1)
DIRECT_TILE(2)

static void gemm_few(const tern_gemm_b32_args *args) {
    __attribute__((aligned(64))) int16_t wide_x[FEW_TOKENS][FEW_K];
    int32_t less[FEW_TOKENS][SIXTEENS * FEW_BLOCKS];
    const size_t all_supers = tern_i6_supers(args->k), step = FEW_K / TERN_I6_SUPER_K;
    const size_t wide_supers = tern_i6_wide_supers(args->k); // at most `step`: TERN_K_MAX / 1024 = 128
    for (size_t s = 0; s < all_supers; s += step) {
        const size_t supers = all_supers - s < step ? all_supers - s : step, wide = s == 0 ? wide_supers : 0;
        for (size_t t = 0; t < args->m; t++) {
            const int8_t *x = args->x + t * args->ldx + s * TERN_I6_SUPER_K;
            (void)widen_row(wide_x[t], x, wide * TERN_I6_SUPER_K);
            for (size_t i = 0; i < supers * BLOCKS * SIXTEENS; i++) less[t][i] = start_sums(x + i * sizeof(__m128i));
        }
        for (size_t i = 0; i < args->n; i += PANEL) {
            const uint8_t *panel = args->packed + tern_i6_bytes(i, args->k), *super = panel + tern_i6_super_at(args->k, s);
            for (size_t t = 0, tokens; t < args->m; t += tokens) {
                tokens = args->m - t >= DIRECT_TOKENS ? DIRECT_TOKENS : 1;
                const x_few x = {args->x + t * args->ldx + s * TERN_I6_SUPER_K,
                                 args->ldx,
                                 wide_x[t],
                                 less[t],
                                 SIXTEENS * FEW_BLOCKS,
                                 args->x_scales + t * args->ld_x_blocks + s * BLOCKS,
                                 args->ld_x_blocks};
                (tokens == DIRECT_TOKENS ? direct_2 : direct_1)(args->y + t * args->ld_y + i, args->ld_y,
                                                                (const float *)(const void *)panel, super, &x, wide, supers,
                                                                s == 0);
            }
        }
    }
}

// ---- many tokens --------------------------------------------------------------------------------------------------

// Block b of a 6-bit super, as widen_groups does it with bytes.
TILE_INLINE void widen_narrow(int16_t *restrict wide, __m256i less[HALVES], const uint8_t *super, size_t b) {
    const uint8_t *codes = super + TERN_I6_SCALES + b * TERN_I6_BLOCK_BYTES;
    const __m256i zero = _mm256_set1_epi8(TERN_I6_ZERO);
    for (size_t sixteen = 0; sixteen < SIXTEENS; sixteen++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) {
            const sixteen_codes u = load_codes(codes + sixteen * SIXTEEN_BYTES, h);
            TERN_UNROLL
            for (size_t g = 0; g < SIXTEEN_GROUPS; g++) {
                const pairs w = widen(_mm256_sub_epi8(u.group[g], zero));
                __m256i *to = (__m256i *)(wide + (sixteen * SIXTEEN_GROUPS + g) * GROUP_WIDE) + h * 2;
                _mm256_store_si256(to, w.even);
                _mm256_store_si256(to + 1, w.odd);
                less[h] = _mm256_sub_epi32(less[h], _mm256_madd_epi16(w.even, w.odd));
            }
        }
    }
}

// Supers s0 .. s0 + supers - 1 of a panel.
static void widen_weights(w_chunk *w, const uint8_t *panel, size_t k, size_t s0, size_t supers) {
    const __m256 of_row[HALVES] = {_mm256_load_ps((const float *)(const void *)panel),
                                   _mm256_load_ps((const float *)(const void *)panel + HALF)};
    const size_t wide_supers = tern_i6_wide_supers(k);
    for (size_t s = 0; s < supers; s++) {
        const uint8_t *super = panel + tern_i6_super_at(k, s0 + s);
        for (size_t b = 0; b < BLOCKS; b++) {
            const size_t to = s * BLOCKS + b;
            __m256i less[HALVES] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            if (s0 + s < wide_supers)
                widen_groups(w->codes + to * BLOCK * PANEL, less, super + TERN_I6_SCALES + b * BLOCK_BYTES, BLOCK_GROUPS);
            else
                widen_narrow(w->codes + to * BLOCK * PANEL, less, super, b);
            for (size_t h = 0; h < HALVES; h++) {
                _mm256_store_si256((__m256i *)(w->less + to * PANEL + h * HALF), less[h]);
                _mm256_store_ps(w->scales + to * PANEL + h * HALF, load_scales(super, b, h, of_row[h]));
            }
        }
    }
}

// Up to TOKENS_MAX tokens from token t0 on.
static void gemm_many(const tern_gemm_b32_args *args, size_t t0) {
    __attribute__((aligned(64))) w_chunk w;
    __attribute__((aligned(64))) x_chunk x;
    const size_t m = args->m - t0 < TOKENS_MAX ? args->m - t0 : TOKENS_MAX, all_supers = tern_i6_supers(args->k);
    for (size_t s = 0; s < all_supers; s += CHUNK_SUPERS) {
        const size_t supers = all_supers - s < CHUNK_SUPERS ? all_supers - s : CHUNK_SUPERS;
        const size_t bytes = tern_i6_super_at(args->k, s + supers) - tern_i6_super_at(args->k, s);
        widen_activations(&x, args, t0, m, s * TERN_I6_SUPER_K, supers * BLOCKS);
        for (size_t i = 0; i < args->n; i += PANEL) {
            const uint8_t *panel = args->packed + tern_i6_bytes(i, args->k);
            const uint8_t *next = panel + tern_i6_panel_bytes(args->k) + tern_i6_super_at(args->k, s);
            widen_weights(&w, panel, args->k, s, supers);
            for (size_t t = 0, tile = 0; t < m; t += many_tiles[tile].tokens) {
                while (many_tiles[tile].tokens > m - t) tile++;
                tern_prefetch_share(next, bytes, t, many_tiles[tile].tokens, m);
                many_tiles[tile].run(args->y + (t0 + t) * args->ld_y + i, args->ld_y, &w, x.codes[t], x.blocks[t],
                                     supers * BLOCKS, s == 0);
            }
        }
    }
}

void tern_int6_gemm_avx2(const tern_gemm_b32_args *args) {
    if (args->m <= FEW_TOKENS)
        gemm_few(args);
    else
        for (size_t t = 0; t < args->m; t += TOKENS_MAX) gemm_many(args, t);
}
