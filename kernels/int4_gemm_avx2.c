// SPDX-License-Identifier: MIT
// 4-bit products for AVX2: features in lanes, four k per 32-bit lane. Up to three tokens read the packed codes, more tokens
// read a chunk of them that was unpacked once into bytes and float32 scales.
#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#include "compiler.h"
#include "prefetch.h"

#define TILE_INLINE static inline __attribute__((always_inline))
// A tile is a function of its own, with constant layout and tokens: so gcc 12 keeps its sums in registers.
#define TILE_OWN static __attribute__((noinline))

enum {
    HALF = 8, // features of one ymm, half a panel
    HALVES = TERN_I4_PANEL / HALF,
    GROUP_K = 4, // k of one 32-bit lane
    GROUPS = TERN_I4_BLOCK / GROUP_K,
    GROUP_BYTES = TERN_I4_PANEL * GROUP_K, // unpacked
    HALF_BYTES = HALF * GROUP_K,
    HALF_SCALES = HALF * (int)sizeof(uint16_t),
    LINES = TERN_I4_BLOCK / TERN_I4_LINE_K,
    DIRECT_TOKENS = 2, // of the widest tile on packed codes, of one panel
    FEW_PANELS = 2,    // of that of one token
    SUMS_FEW = HALVES * DIRECT_TOKENS,
    TOKENS = 6, // of the widest tile on unpacked codes: 12 sums, 2 vectors of codes and 2 others fill the 16 registers
    SUMS = HALVES * TOKENS,
    UNPACK_TOKENS = 4, // from so many tokens on, unpacking pays
    CHUNK_K = 1024,    // K is cut so that an unpacked chunk (20 KB) stays in L1 while all tokens pass
    CHUNK_BLOCKS = CHUNK_K / TERN_I4_BLOCK,
    M_AT = CHUNK_BLOCKS * TERN_I4_PANEL, // of an unpacked chunk's mins behind its scales
    TOKENS_MAX = 64,                     // whose activations are copied at once
    X_STRIDE = CHUNK_K + 64,             // not a power of two: the rows of a tile spread over the sets of L1
    AHEAD_ONE = 1280, // bytes, Zen 3, from DRAM: 1 to 1.5 KB are alike, 512 are slower by a seventh, 2 KB by a twentieth
    AHEAD_TWO = 2048  // two tokens: 1280 are slower by a twentieth
};

// The activations of a tile's tokens from its chunk of K on.
typedef struct x_tile {
    const int8_t *codes;
    size_t ldx;
    const float *scales; // [t * ld + block]
    const int32_t *sums;
    size_t ld;
} x_tile;

// ---- scales: 8 features of one half in lanes ----------------------------------------------------------------

typedef struct block_scales {
    __m256 d, m;
} block_scales;

TILE_INLINE __m256 load_halves(const uint8_t *p) { return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)p)); }

// times[f] * (byte f of the half h of `bytes`)
TILE_INLINE __m256 times_bytes(__m256 times, __m128i bytes, size_t h) {
    const __m128i half = h ? _mm_unpackhi_epi64(bytes, bytes) : bytes;
    return _mm256_mul_ps(times, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(half)));
}

// I4K: the float16 scales of a super, else nothing. `layout` and h are constants after inlining.
TILE_INLINE block_scales load_super(tern_layout layout, const uint8_t *super, size_t h) {
    if (layout != TERN_LAYOUT_I4K) return (block_scales){_mm256_setzero_ps(), _mm256_setzero_ps()};
    return (block_scales){load_halves(super + h * HALF_SCALES), load_halves(super + TERN_I4K_MINS + h * HALF_SCALES)};
}

// block % 2 is a constant after inlining, too.
TILE_INLINE block_scales load_scales(tern_layout layout, const uint8_t *super, block_scales of_super, size_t block, size_t h) {
    if (layout != TERN_LAYOUT_I4K) {
        const uint8_t *at = super + (block * HALVES + h) * HALF_SCALES;
        return (block_scales){load_halves(at),
                              layout == TERN_LAYOUT_I4M32 ? load_halves(at + TERN_I4M_MINS) : _mm256_setzero_ps()};
    }
    const __m128i *pair = (const __m128i *)(super + TERN_I4K_PAIRS + block / 2 * TERN_I4K_PAIR_BYTES);
    const __m128i a = _mm_load_si128(pair), b = _mm_load_si128(pair + 1), c = _mm_load_si128(pair + 2);
    const __m128i six = _mm_set1_epi8(TERN_I4K_SIX_MAX);
    if (block % 2 == 0)
        return (block_scales){times_bytes(of_super.d, _mm_and_si128(a, six), h),
                              times_bytes(of_super.m, _mm_and_si128(c, six), h)};
    // byte f = t_o: two bits from the top of each vector
    const __m128i t01 = _mm_and_si128(_mm_srli_epi16(a, 6), _mm_set1_epi8(0x03));
    const __m128i t23 = _mm_and_si128(_mm_srli_epi16(b, 4), _mm_set1_epi8(0x0c));
    const __m128i t45 = _mm_and_si128(_mm_srli_epi16(c, 2), _mm_set1_epi8(0x30));
    return (block_scales){times_bytes(of_super.d, _mm_and_si128(b, six), h),
                          times_bytes(of_super.m, _mm_or_si128(t01, _mm_or_si128(t23, t45)), h)};
}

// ---- one block ------------------------------------------------------------------------------------------------

// Four activations of one token in every 32-bit lane.
TILE_INLINE __m256i broadcast_four(const void *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

// sum: int16 lanes 2f, 2f + 1 = products of feature f with k = 0, 1 and 2, 3 (mod 4). code: byte 4f + j, 0..15.
// |lane| <= 8 groups of 4 k * 2 products * 15 * 128 = 30720 over a block fits int16, x = -128 included.
TILE_INLINE __m256i add_group(__m256i sum, __m256i code, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(code, x);
    TERN_IN_PLACE(__asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(pairs)), sum = _mm256_add_epi16(sum, pairs));
    return sum;
}

// Low and high nibbles of half a line: byte 4f + j = codes of k = 8p + j and 8p + 4 + j.
TILE_INLINE void split_line(__m256i *low, __m256i *high, const uint8_t *line, size_t h) {
    const __m256i nibble = _mm256_set1_epi8(0x0f);
    const __m256i both = _mm256_load_si256((const __m256i *)(line + h * HALF_BYTES));
    *low = _mm256_and_si256(both, nibble);
    *high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
}

// y plus the term of one block, 8 features in lanes. dot: int32 lane f; less 8 * x_sum where the layout has no min.
TILE_INLINE __m256 add_term(__m256 y, __m256i dot, block_scales w, int has_min, __m256 da, __m256 x_sum) {
    const __m256 code_sum = _mm256_cvtepi32_ps(dot);
    if (!has_min) return _mm256_add_ps(y, _mm256_mul_ps(code_sum, _mm256_mul_ps(w.d, da)));
    return _mm256_fmadd_ps(_mm256_fmadd_ps(w.d, code_sum, _mm256_mul_ps(w.m, x_sum)), da, y);
}

// int32 lane f: the two int16 lanes of feature f together.
TILE_INLINE __m256i add_lanes(__m256i sum) { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }

// A few tokens wait for memory; past the end of the weights this does nothing.
TILE_INLINE void fetch_ahead(const uint8_t *line, size_t tokens) {
    _mm_prefetch((const char *)(line + (tokens == 1 ? AHEAD_ONE : AHEAD_TWO)), _MM_HINT_T0);
}

// ---- few tokens: packed codes -----------------------------------------------------------------------------------

// One panel and chunk of K, or two of one token: they share the broadcast activations, and two forward streams come from DRAM
// faster than one.
typedef struct few_panels {
    const uint8_t *super; // of the first panel
    size_t apart;         // bytes to the next panel
    float *y;             // of the first panel
    size_t y_apart, ld_y;
} few_panels;

// Products of one block of a few panels: dot[i][h * tokens + t] = int32 lane f.
TILE_INLINE void direct_dots(__m256i sum[FEW_PANELS][SUMS_FEW], const uint8_t *codes, size_t apart, const int8_t *from,
                             size_t ldx, size_t panels, size_t tokens) {
    TERN_UNROLL
    for (size_t i = 0; i < panels; i++) {
        TERN_UNROLL
        for (size_t v = 0; v < HALVES * tokens; v++) sum[i][v] = _mm256_setzero_si256();
    }
    TERN_UNROLL
    for (size_t p = 0; p < LINES; p++) {
        const int8_t *at = from + p * TERN_I4_LINE_K;
        __m256i kept[2]; // of one token
        if (tokens == 1) {
            kept[0] = broadcast_four(at);
            kept[1] = broadcast_four(at + GROUP_K);
        }
        TERN_UNROLL
        for (size_t i = 0; i < panels; i++) {
            const uint8_t *line = codes + i * apart + p * TERN_I4_LINE_BYTES;
            fetch_ahead(line, tokens);
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++) {
                __m256i low, high;
                split_line(&low, &high, line, h);
                TERN_UNROLL
                for (size_t t = 0; t < tokens; t++) {
                    __m256i *to = &sum[i][h * tokens + t];
                    *to = add_group(*to, low, tokens == 1 ? kept[0] : broadcast_four(at + t * ldx));
                    *to = add_group(*to, high, tokens == 1 ? kept[1] : broadcast_four(at + t * ldx + GROUP_K));
                }
            }
            // One after the other: else gcc moves the prefetches of a block together, which is a quarter slower.
            __asm__ volatile("" : "+x"(sum[i][0]) : : "memory");
        }
    }
}

TILE_INLINE void direct_block(tern_layout layout, __m256 y[FEW_PANELS][SUMS_FEW], const uint8_t *super, size_t apart,
                              const block_scales of_super[FEW_PANELS][HALVES], size_t block, const x_tile *x, size_t x_block,
                              size_t panels, size_t tokens) {
    const int has_min = layout != TERN_LAYOUT_I4B32;
    __m256i sum[FEW_PANELS][SUMS_FEW];
    direct_dots(sum, super + tern_i4_head(layout) + block * TERN_I4_BLOCK_BYTES, apart, x->codes + x_block * TERN_I4_BLOCK,
                x->ldx, panels, tokens);
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        const int32_t total = x->sums[t * x->ld + x_block];
        const __m256 da = _mm256_set1_ps(x->scales[t * x->ld + x_block]), x_sum = _mm256_set1_ps((float)total);
        const __m256i shift = _mm256_set1_epi32(TERN_I4_ZERO * total);
        TERN_UNROLL
        for (size_t i = 0; i < panels; i++) {
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++) {
                const block_scales w = load_scales(layout, super + i * apart, of_super[i][h], block, h);
                const __m256i dot = add_lanes(sum[i][h * tokens + t]);
                __m256 *to = &y[i][h * tokens + t];
                *to = add_term(*to, has_min ? dot : _mm256_sub_epi32(dot, shift), w, has_min, da, x_sum);
            }
        }
    }
}

// A tile computes one chunk of K: y (+)= the terms of its blocks. first: y is written without being read.
typedef void direct_fn(const few_panels *panels, const x_tile *x, size_t supers, int first);

TILE_INLINE void direct_tile(tern_layout layout, const few_panels p, const x_tile *x, size_t supers, int first, size_t panels,
                             size_t tokens) {
    const size_t super_blocks = tern_i4_super_k(layout) / TERN_I4_BLOCK;
    const uint8_t *super = p.super;
    __m256 part[FEW_PANELS][SUMS_FEW];
    TERN_UNROLL
    for (size_t i = 0; i < panels; i++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) {
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++)
                part[i][h * tokens + t] =
                    first ? _mm256_setzero_ps() : _mm256_load_ps(p.y + i * p.y_apart + t * p.ld_y + h * HALF);
        }
    }
    for (size_t s = 0; s < supers; s++, super += tern_i4_super_bytes(layout)) {
        block_scales of_super[FEW_PANELS][HALVES];
        TERN_UNROLL
        for (size_t i = 0; i < panels; i++) {
            for (size_t at = 0; at < tern_i4_head(layout); at += TERN_I4_LINE_BYTES)
                fetch_ahead(super + i * p.apart + at, tokens);
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++) of_super[i][h] = load_super(layout, super + i * p.apart, h);
        }
        TERN_NO_UNROLL
        for (size_t b = 0; b < super_blocks; b += 2) {
            TERN_COST_LOOP("4-bit pairs of blocks", panels * TERN_I4_PANEL, tokens, 2 * TERN_I4_BLOCK);
            direct_block(layout, part, super, p.apart, of_super, b, x, s * super_blocks + b, panels, tokens);
            direct_block(layout, part, super, p.apart, of_super, b + 1, x, s * super_blocks + b + 1, panels, tokens);
        }
    }
    TERN_UNROLL
    for (size_t i = 0; i < panels; i++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) {
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++)
                _mm256_store_ps(p.y + i * p.y_apart + t * p.ld_y + h * HALF, part[i][h * tokens + t]);
        }
    }
}

#define DIRECT_TILE(LAYOUT, panels, tokens)                                                                                    \
    TILE_OWN void direct_##LAYOUT##_##panels##x##tokens(const few_panels *p, const x_tile *x, size_t supers, int first) {      \
        direct_tile(TERN_LAYOUT_##LAYOUT, *p, x, supers, first, panels, tokens);                                               \
    }

// ---- many tokens: an unpacked chunk -------------------------------------------------------------------------------

typedef struct w_chunk {
    uint8_t codes[CHUNK_K * TERN_I4_PANEL]; // group after group: byte 4f + j = code of feature f, k = 4g + j
    float scales[2 * M_AT];                 // [block][feature] d, and from M_AT on m
} w_chunk;

// What a block of one token's activations adds beside its codes.
typedef struct x_block {
    float scale, sum;
    int16_t start[2]; // of the sums' int16 lanes 2f and 2f + 1: -8 * (the sum of x over the lane's k), or 0
} x_block;

// Rows at a fixed distance, so that a tile needs one pointer.
typedef struct x_chunk {
    int8_t codes[TOKENS_MAX][X_STRIDE];
    x_block blocks[TOKENS_MAX][CHUNK_BLOCKS];
} x_chunk;

TILE_INLINE void unpack_block(tern_layout layout, w_chunk *to, const uint8_t *super, size_t block, size_t to_block) {
    const uint8_t *codes = super + tern_i4_head(layout) + block * TERN_I4_BLOCK_BYTES;
    uint8_t *out = to->codes + to_block * GROUPS * GROUP_BYTES;
    for (size_t h = 0; h < HALVES; h++) {
        const block_scales w = load_scales(layout, super, load_super(layout, super, h), block, h);
        _mm256_store_ps(to->scales + to_block * TERN_I4_PANEL + h * HALF, w.d);
        if (layout != TERN_LAYOUT_I4B32) _mm256_store_ps(to->scales + M_AT + to_block * TERN_I4_PANEL + h * HALF, w.m);
        for (size_t p = 0; p < LINES; p++) {
            __m256i low, high;
            split_line(&low, &high, codes + p * TERN_I4_LINE_BYTES, h);
            _mm256_store_si256((__m256i *)(out + 2 * p * GROUP_BYTES + h * HALF_BYTES), low);
            _mm256_store_si256((__m256i *)(out + (2 * p + 1) * GROUP_BYTES + h * HALF_BYTES), high);
        }
    }
}

TILE_INLINE void unpack_weights(tern_layout layout, w_chunk *to, const uint8_t *super, size_t supers) {
    const size_t super_blocks = tern_i4_super_k(layout) / TERN_I4_BLOCK;
    for (size_t s = 0; s < supers; s++, super += tern_i4_super_bytes(layout)) {
        for (size_t b = 0; b < super_blocks; b += 2) {
            unpack_block(layout, to, super, b, s * super_blocks + b);
            unpack_block(layout, to, super, b + 1, s * super_blocks + b + 1);
        }
    }
}

// -8 * (sum of x over k = 0, 1 and over k = 2, 3 (mod 4)) of 32 activations. |sum| <= 8 * 16 * 128 = 16384 fits int16.
static void start_sums(int16_t start[2], const int8_t *x) {
    const __m256i codes = _mm256_load_si256((const __m256i *)x);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(TERN_I4_ZERO), codes); // int16 lanes: 8 * (two neighbours)
    __m128i sum = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    sum = _mm_add_epi16(sum, _mm_unpackhi_epi64(sum, sum));
    sum = _mm_add_epi16(sum, _mm_srli_epi64(sum, 32));
    const __m128i negative = _mm_sub_epi16(_mm_setzero_si128(), sum);
    memcpy(start, &negative, 2 * sizeof *start);
}

static void copy_activations(x_chunk *to, const x_tile *x, size_t tokens, size_t blocks, int has_min) {
    for (size_t t = 0; t < tokens; t++) {
        const int8_t *from = x->codes + t * x->ldx;
        for (size_t b = 0; b < blocks; b++) {
            const __m256i codes = _mm256_load_si256((const __m256i *)(from + b * TERN_I4_BLOCK));
            _mm256_store_si256((__m256i *)(to->codes[t] + b * TERN_I4_BLOCK), codes);
            x_block *block = &to->blocks[t][b];
            *block = (x_block){x->scales[t * x->ld + b], (float)x->sums[t * x->ld + b], {0, 0}};
            if (!has_min) start_sums(block->start, to->codes[t] + b * TERN_I4_BLOCK);
        }
    }
}

typedef void chunk_fn(float *y, size_t ld_y, const w_chunk *w, const int8_t *x, const x_block *x_blocks, size_t blocks,
                      int first);

TILE_INLINE void chunk_tile(float *y, size_t ld_y, const w_chunk *w, const int8_t *x, const x_block *x_blocks, size_t blocks,
                            int first, int has_min, size_t tokens) {
    if (first) {
        for (size_t t = 0; t < tokens; t++) {
            for (size_t h = 0; h < HALVES; h++) _mm256_store_ps(y + t * ld_y + h * HALF, _mm256_setzero_ps());
        }
    }
    const uint8_t *codes = w->codes;
    const float *d = w->scales;
    TERN_NO_UNROLL
    do {
        TERN_COST_LOOP("4-bit unpacked blocks", TERN_I4_PANEL, tokens, TERN_I4_BLOCK);
        __m256i sum[SUMS];
        TERN_UNROLL
        for (size_t t = 0; t < tokens && !has_min; t++)
            sum[t] = sum[tokens + t] = broadcast_four(x_blocks[t * CHUNK_BLOCKS].start);
        TERN_UNROLL
        for (size_t g = 0; g < GROUPS; g++) {
            const int is_first = has_min && g == 0;
            TERN_UNROLL
            for (size_t i = 0; i < HALVES * tokens; i++) {
                if (!is_first) __asm__("" : "+x"(sum[i])); // one group after the other
            }
            const __m256i low = _mm256_load_si256((const __m256i *)(codes + g * GROUP_BYTES)); // features 0..7
            const __m256i high = _mm256_load_si256((const __m256i *)(codes + g * GROUP_BYTES + HALF_BYTES));
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) {
                const __m256i four = broadcast_four(x + t * X_STRIDE + g * GROUP_K);
                sum[t] = is_first ? _mm256_maddubs_epi16(low, four) : add_group(sum[t], low, four);
                sum[tokens + t] = is_first ? _mm256_maddubs_epi16(high, four) : add_group(sum[tokens + t], high, four);
            }
        }
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const __m256 da = _mm256_broadcast_ss(&x_blocks[t * CHUNK_BLOCKS].scale);
            const __m256 x_sum = has_min ? _mm256_broadcast_ss(&x_blocks[t * CHUNK_BLOCKS].sum) : _mm256_setzero_ps();
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++) {
                const block_scales scales = {_mm256_load_ps(d + h * HALF),
                                             has_min ? _mm256_load_ps(d + M_AT + h * HALF) : _mm256_setzero_ps()};
                float *to = y + t * ld_y + h * HALF; // stays in L1 between blocks
                _mm256_store_ps(to, add_term(_mm256_load_ps(to), add_lanes(sum[h * tokens + t]), scales, has_min, da, x_sum));
            }
        }
        codes += GROUPS * GROUP_BYTES;
        d += TERN_I4_PANEL;
        x += TERN_I4_BLOCK;
        x_blocks++;
    } while (--blocks);
}

#define CHUNK_TILE(name, has_min, tokens)                                                                                      \
    TILE_OWN void name(float *y, size_t ld_y, const w_chunk *w, const int8_t *x, const x_block *x_blocks, size_t blocks,       \
                       int first) {                                                                                            \
        chunk_tile(y, ld_y, w, x, x_blocks, blocks, first, has_min, tokens);                                                   \
    }
CHUNK_TILE(plain_6, 0, 6)
CHUNK_TILE(plain_4, 0, 4)
CHUNK_TILE(plain_2, 0, 2)
CHUNK_TILE(plain_1, 0, 1)
CHUNK_TILE(min_6, 1, 6)
CHUNK_TILE(min_4, 1, 4)
CHUNK_TILE(min_2, 1, 2)
CHUNK_TILE(min_1, 1, 1)

typedef struct chunk_entry {
    size_t tokens;
    chunk_fn *run;
} chunk_entry;
static const chunk_entry plain_tiles[] = {{6, plain_6}, {4, plain_4}, {2, plain_2}, {1, plain_1}};
static const chunk_entry min_tiles[] = {{6, min_6}, {4, min_4}, {2, min_2}, {1, min_1}};

// ---- products ------------------------------------------------------------------------------------------------------

static x_tile x_from(const tern_gemm_b32_args *args, size_t t, size_t block) {
    const size_t at = t * args->ld_x_blocks + block;
    return (x_tile){args->x + t * args->ldx + block * TERN_I4_BLOCK, args->ldx, args->x_scales + at, args->x_sums + at,
                    args->ld_x_blocks};
}

// Panel i / TERN_I4_PANEL and the one `apart` features behind it, or one panel; all tokens, a chunk of K after the other, so
// that the third token finds it in L1. one, two: tiles of so many tokens.
TILE_INLINE void run_few(const tern_gemm_b32_args *args, tern_layout layout, size_t i, size_t apart, direct_fn *one,
                         direct_fn *two) {
    const size_t super_k = tern_i4_super_k(layout), supers = tern_ceil_div(args->k, super_k), step = CHUNK_K / super_k;
    const size_t panel_bytes = supers * tern_i4_super_bytes(layout);
    few_panels p = {.super = args->packed + i / TERN_I4_PANEL * panel_bytes,
                    .apart = apart / TERN_I4_PANEL * panel_bytes,
                    .y_apart = apart,
                    .ld_y = args->ld_y};
    for (size_t s = 0; s < supers; s += step, p.super += step * tern_i4_super_bytes(layout))
        for (size_t t = 0, tokens; t < args->m; t += tokens) {
            tokens = args->m - t >= DIRECT_TOKENS ? DIRECT_TOKENS : 1;
            const x_tile x = x_from(args, t, s * super_k / TERN_I4_BLOCK);
            p.y = args->y + t * args->ld_y + i;
            (tokens == DIRECT_TOKENS ? two : one)(&p, &x, supers - s < step ? supers - s : step, s == 0);
        }
}

// one: tiles of one token and a panel, or a pair of panels; two: of two tokens.
TILE_INLINE void few_tokens(const tern_gemm_b32_args *args, tern_layout layout, direct_fn *one, direct_fn *one_pair,
                            direct_fn *two) {
    const size_t half = args->m == 1 ? args->n / TERN_I4_PANEL / FEW_PANELS * TERN_I4_PANEL : 0;
    for (size_t i = 0; i < half; i += TERN_I4_PANEL) run_few(args, layout, i, half, one_pair, NULL);
    for (size_t i = FEW_PANELS * half; i < args->n; i += TERN_I4_PANEL) run_few(args, layout, i, 0, one, two);
}

// Up to TOKENS_MAX tokens from token t0 on.
TILE_INLINE void many_tokens(const tern_gemm_b32_args *args, tern_layout layout, size_t t0) {
    const size_t super_k = tern_i4_super_k(layout), supers = tern_ceil_div(args->k, super_k), step = CHUNK_K / super_k;
    const size_t super_blocks = super_k / TERN_I4_BLOCK, m = args->m - t0 < TOKENS_MAX ? args->m - t0 : TOKENS_MAX;
    const int has_min = layout != TERN_LAYOUT_I4B32;
    __attribute__((aligned(64))) w_chunk w;
    __attribute__((aligned(64))) x_chunk x;
    for (size_t s = 0; s < supers; s += step) {
        const size_t count = supers - s < step ? supers - s : step, blocks = count * super_blocks;
        const x_tile from = x_from(args, t0, s * super_blocks);
        copy_activations(&x, &from, m, blocks, has_min);
        for (size_t i = 0; i < args->n; i += TERN_I4_PANEL) {
            const uint8_t *super = args->packed + (i / TERN_I4_PANEL * supers + s) * tern_i4_super_bytes(layout);
            unpack_weights(layout, &w, super, count);
            const chunk_entry *tile = has_min ? min_tiles : plain_tiles;
            for (size_t t = 0; t < m; t += tile->tokens) {
                while (tile->tokens > m - t) tile++;
                tern_prefetch_share(super + supers * tern_i4_super_bytes(layout), count * tern_i4_super_bytes(layout), t,
                                    tile->tokens, m);
                tile->run(args->y + (t0 + t) * args->ld_y + i, args->ld_y, &w, x.codes[t], x.blocks[t], blocks, s == 0);
            }
        }
    }
}

#define GEMM(LAYOUT, name)                                                                                                     \
    DIRECT_TILE(LAYOUT, 1, 1)                                                                                                  \
    DIRECT_TILE(LAYOUT, 2, 1)                                                                                                  \
    DIRECT_TILE(LAYOUT, 1, 2)                                                                                                  \
    void name(const tern_gemm_b32_args *args) {                                                                                \
        if (args->m < UNPACK_TOKENS)                                                                                           \
            few_tokens(args, TERN_LAYOUT_##LAYOUT, direct_##LAYOUT##_1x1, direct_##LAYOUT##_2x1, direct_##LAYOUT##_1x2);       \
        else                                                                                                                   \
            for (size_t t = 0; t < args->m; t += TOKENS_MAX) many_tokens(args, TERN_LAYOUT_##LAYOUT, t);                       \
    }

GEMM(I4B32, tern_int4_gemm_i4b32_avx2)
GEMM(I4M32, tern_int4_gemm_i4m32_avx2)
GEMM(I4K, tern_int4_gemm_i4k_avx2)
