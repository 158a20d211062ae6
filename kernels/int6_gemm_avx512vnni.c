// SPDX-License-Identifier: MIT
// 6-bit products for AVX-512 VNNI: tiles of 16 features by up to 4 tokens, features in lanes, four k per 32-bit lane.
#include "kernels.h"

#include "dot_avx512vnni.h"

#define TILE_INLINE static inline __attribute__((always_inline))
// A tile is a function of its own, with constant tokens: so gcc 12 keeps its sums in registers.
#define TILE_OWN static __attribute__((noinline))

enum {
    BLOCKS = TERN_I6_SUPER_K / TERN_I6_BLOCK, // of a super
    TOKENS = 4,
    SIXTEENS = TERN_I6_BLOCK / TERN_I6_LINES_K, // of a block: k that share three lines
    SIXTEEN_GROUPS = TERN_I6_LINES_K / DOT_BYTES,
    WIDE_GROUPS = TERN_I6_BLOCK / TERN_I8_GROUP_K,
    WIDE_ZERO_SHIFT = 7, // int8 + 128 is unsigned
    ZERO_SHIFT = 5,      // TERN_I6_ZERO = 1 << 5
    CHUNK_SUPERS = 24    // K is cut so that a panel's chunk of weights (19-25 KB) stays in L1 while all tokens pass
};

// The activations of a tile's tokens from its chunk of K on.
typedef struct x_tile {
    const int8_t *codes;
    size_t ldx;
    const float *scales; // [t * ld + block]
    const int32_t *sums;
    size_t ld;
} x_tile;

// Codes u of 16 k: byte 4f + j of group g = feature f, k = 4g + j, 1..63.
typedef struct sixteen_codes {
    __m512i group[SIXTEEN_GROUPS];
} sixteen_codes;

TILE_INLINE __m512i masked(__m512i bytes, char bits) { return _mm512_and_si512(bytes, _mm512_set1_epi8(bits)); }

// lines: the first of their three.
TILE_INLINE sixteen_codes load_codes(const uint8_t *lines) {
    const __m512i a = _mm512_loadu_si512(lines), b = _mm512_loadu_si512(lines + TERN_I6_LINE_BYTES);
    const __m512i c = _mm512_loadu_si512(lines + 2 * TERN_I6_LINE_BYTES);
    const __m512i last =
        _mm512_or_si512(_mm512_or_si512(masked(_mm512_srli_epi16(a, 6), 0x03), masked(_mm512_srli_epi16(b, 4), 0x0c)),
                        masked(_mm512_srli_epi16(c, 2), 0x30));
    return (sixteen_codes){{masked(a, 0x3f), masked(b, 0x3f), masked(c, 0x3f), last}};
}

// y plus the terms of one block: |sum| <= 32 * 255 * 128 fits int32.
TILE_INLINE void add_block(__m512 y[TOKENS], const uint8_t *super, int wide, size_t b, __m512 of_row, const x_tile *x,
                           size_t block, size_t tokens) {
    const uint8_t *codes = super + TERN_I6_SCALES + b * (wide ? TERN_I6_WIDE_BLOCK_BYTES : TERN_I6_BLOCK_BYTES);
    const int8_t *from = x->codes + block * TERN_I6_BLOCK;
    const unsigned shift = wide ? WIDE_ZERO_SHIFT : ZERO_SHIFT;
    __m512i sum[TOKENS]; // int32 lane f, less the zero of its codes
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++)
        sum[t] =
            _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(_mm512_set1_epi32(x->sums[t * x->ld + block]), shift));
    if (wide) {
        TERN_UNROLL
        for (size_t g = 0; g < WIDE_GROUPS; g++) {
            const __m512i u =
                _mm512_xor_si512(_mm512_loadu_si512(codes + g * TERN_I8_GROUP_BYTES), _mm512_set1_epi8((char)0x80));
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) add_dots_at(&sum[t], u, from + t * x->ldx + g * TERN_I8_GROUP_K);
        }
    } else {
        TERN_UNROLL
        for (size_t sixteen = 0; sixteen < SIXTEENS; sixteen++) {
            const sixteen_codes u = load_codes(codes + sixteen * TERN_I6_LINES * TERN_I6_LINE_BYTES);
            TERN_UNROLL
            for (size_t g = 0; g < SIXTEEN_GROUPS; g++) {
                TERN_UNROLL
                for (size_t t = 0; t < tokens; t++)
                    add_dots_at(&sum[t], u.group[g], from + t * x->ldx + (sixteen * SIXTEEN_GROUPS + g) * DOT_BYTES);
            }
        }
    }
    const __m128i s = _mm_load_si128((const __m128i *)(super + b * TERN_I6_PANEL));
    const __m512 dw = _mm512_mul_ps(of_row, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(s)));
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        const __m512 both = _mm512_mul_ps(dw, _mm512_set1_ps(x->scales[t * x->ld + block]));
        y[t] = _mm512_add_ps(y[t], _mm512_mul_ps(_mm512_cvtepi32_ps(sum[t]), both));
    }
}

// A tile computes one chunk of K: y (+)= the terms of its blocks, those of `wide` supers first. first: y is written without
// being read.
typedef void tile_fn(float *y, size_t ld_y, const uint8_t *panel, const uint8_t *super, const x_tile *x, size_t wide,
                     size_t supers, int first);

TILE_INLINE void run_tile(float *y, size_t ld_y, const uint8_t *panel, const uint8_t *super, const x_tile *x, size_t wide,
                          size_t supers, int first, size_t tokens) {
    const __m512 of_row = _mm512_loadu_ps(panel);
    __m512 part[TOKENS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) part[t] = first ? _mm512_setzero_ps() : _mm512_load_ps(y + t * ld_y);
    size_t block = 0;
    for (size_t s = 0; s < wide; s++, super += TERN_I6_WIDE_BYTES) {
        TERN_NO_UNROLL
        for (size_t b = 0; b < BLOCKS; b++, block++) add_block(part, super, 1, b, of_row, x, block, tokens);
    }
    for (size_t s = wide; s < supers; s++, super += TERN_I6_SUPER_BYTES) {
        TERN_NO_UNROLL
        for (size_t b = 0; b < BLOCKS; b++, block++) {
            TERN_COST_LOOP("6-bit blocks", TERN_I6_PANEL, tokens, TERN_I6_BLOCK);
            add_block(part, super, 0, b, of_row, x, block, tokens);
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) _mm512_store_ps(y + t * ld_y, part[t]);
}

#define TILE(tokens)                                                                                                           \
    TILE_OWN void tile_##tokens(float *y, size_t ld_y, const uint8_t *panel, const uint8_t *super, const x_tile *x,            \
                                size_t wide, size_t supers, int first) {                                                       \
        run_tile(y, ld_y, panel, super, x, wide, supers, first, tokens);                                                       \
    }
TILE(4)
TILE(2)
TILE(1)

// Widest first; the last takes one token.
static const struct {
    size_t tokens;
    tile_fn *run;
} tiles[] = {{4, tile_4}, {2, tile_2}, {1, tile_1}};

void tern_int6_gemm_avx512vnni(const tern_gemm_b32_args *args) {
    const size_t all_supers = tern_i6_supers(args->k), wide_supers = tern_i6_wide_supers(args->k);
    for (size_t i = 0; i < args->n; i += TERN_I6_PANEL) {
        const uint8_t *panel = args->packed + tern_i6_bytes(i, args->k);
        for (size_t s = 0; s < all_supers; s += CHUNK_SUPERS) {
            const size_t supers = all_supers - s < CHUNK_SUPERS ? all_supers - s : CHUNK_SUPERS;
            const size_t left = s < wide_supers ? wide_supers - s : 0, wide = left < supers ? left : supers;
            for (size_t t = 0, tile = 0; t < args->m; t += tiles[tile].tokens) {
                while (tiles[tile].tokens > args->m - t) tile++;
                const size_t at = t * args->ld_x_blocks + s * BLOCKS;
                const x_tile x = {args->x + t * args->ldx + s * TERN_I6_SUPER_K, args->ldx, args->x_scales + at,
                                  args->x_sums + at, args->ld_x_blocks};
                tiles[tile].run(args->y + t * args->ld_y + i, args->ld_y, panel, panel + tern_i6_super_at(args->k, s), &x, wide,
                                supers, s == 0);
            }
        }
    }
}
