// SPDX-License-Identifier: MIT
// INT8 products for AVX-512 VNNI: tiles of 32 features by 6 tokens, features in lanes, four k per 32-bit lane.
#include "dot_avx512vnni.h"
#include "kernels.h"

#define TILE_INLINE static inline __attribute__((always_inline))
// A tile is a function of its own, with constant panels and tokens: so gcc 12 keeps its sums in registers.
#define TILE_OWN static __attribute__((noinline))

enum {
    PANELS = 2,
    TOKENS = 6, // of the widest tile: 8 loads for 12 products; 12 sums cover latency 5 times 2 per cycle
    SUMS = PANELS * TOKENS,
    BIAS = 128,         // codes become unsigned by + 128, which adds 128 * (sum of x) to each sum
    CHUNK_GROUPS = 256, // K is cut so that a panel's chunk of weights (16 KB) stays in L1 while all tokens pass
    CHUNK_SUPERS = CHUNK_GROUPS * TERN_I8_GROUP_K / TERN_I8B_SUPER_K
};

// The sums' start: takes the bias away. x_sum: sum of x over the k that the sums will cover.
TILE_INLINE __m512i minus_bias(int32_t x_sum) { return _mm512_set1_epi32(-BIAS * x_sum); }

// 64 codes of one group, + 128: byte 4f + j is feature f, k = j.
TILE_INLINE __m512i biased_codes(const uint8_t *w) {
    return _mm512_xor_si512(_mm512_load_si512(w), _mm512_set1_epi8(INT8_MIN));
}

// sum[p * tokens + t] += products of `groups` >= 1 groups of 4 k: panels ld_panel bytes apart, tokens ldx apart.
// Each 32-bit lane holds one feature. Sums may wrap on the way (vpdpbusd does not saturate); the final value fits int32.
// `panels` and `tokens` are constants after inlining.
TILE_INLINE void add_groups(__m512i sum[SUMS], const uint8_t *w, size_t ld_panel, const int8_t *x, size_t ldx, size_t groups,
                            size_t panels, size_t tokens) {
    TERN_NO_UNROLL
    do {
        TERN_COST_LOOP("INT8 groups", panels * TERN_I8_PANEL, tokens, TERN_I8_GROUP_K);
        __m512i codes[PANELS];
        TERN_UNROLL
        for (size_t p = 0; p < panels; p++) codes[p] = biased_codes(w + p * ld_panel);
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            if (panels == 1) {
                add_dots_at(&sum[t], codes[0], x + t * ldx);
                continue;
            }
            const __m512i four = broadcast_four(x + t * ldx);
            TERN_UNROLL
            for (size_t p = 0; p < panels; p++) add_dots(&sum[p * tokens + t], codes[p], four);
        }
        TERN_UNROLL
        for (size_t i = 0; i < panels * tokens; i++) __asm__("" : "+v"(sum[i])); // keeps gcc 12 from copying them for the exit
        w += TERN_I8_GROUP_BYTES;
        x += TERN_I8_GROUP_K;
    } while (--groups);
}

// The same for one token, in independent chains: a single one would wait for the latency of vpdpbusd.
TILE_INLINE __m512i add_groups_of_one(__m512i sum, const uint8_t *w, const int8_t *x, size_t groups) {
    enum { CHAINS = 4 };
    __m512i chain[CHAINS] = {sum, _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    size_t g = 0;
    for (; g + CHAINS <= groups; g += CHAINS) {
        TERN_COST_LOOP("INT8 groups, one token", TERN_I8_PANEL, 1, CHAINS * TERN_I8_GROUP_K);
        TERN_UNROLL
        for (size_t c = 0; c < CHAINS; c++)
            add_dots_at(&chain[c], biased_codes(w + (g + c) * TERN_I8_GROUP_BYTES), x + (g + c) * TERN_I8_GROUP_K);
    }
    for (; g < groups; g++) add_dots_at(&chain[0], biased_codes(w + g * TERN_I8_GROUP_BYTES), x + g * TERN_I8_GROUP_K);
    return _mm512_add_epi32(_mm512_add_epi32(chain[0], chain[1]), _mm512_add_epi32(chain[2], chain[3]));
}

// A few tokens are bound by memory: then one panel after the other, so that the weights are one forward stream.
static inline size_t panels_at_once(size_t m, size_t panels_left) { return m >= TOKENS && panels_left >= PANELS ? PANELS : 1; }

// ---- int8_gemm ---------------------------------------------------------------------------------------------

// One tile of one chunk of K: acc (+)= sums. x_sums: not NULL for the first chunk, which then writes acc without reading it.
typedef void s32_tile_fn(int32_t *acc, size_t ld_acc, const uint8_t *w, size_t ld_panel, const int8_t *x, size_t ldx,
                         size_t groups, const int32_t *x_sums, size_t ld_x_sums);

TILE_INLINE void s32_tile(int32_t *acc, size_t ld_acc, const uint8_t *w, size_t ld_panel, const int8_t *x, size_t ldx,
                          size_t groups, const int32_t *x_sums, size_t ld_x_sums, size_t panels, size_t tokens) {
    __m512i sum[SUMS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t p = 0; p < panels; p++)
            sum[p * tokens + t] =
                x_sums ? minus_bias(x_sums[t * ld_x_sums]) : _mm512_load_si512(acc + t * ld_acc + p * TERN_I8_PANEL);
    }
    if (panels * tokens == 1)
        sum[0] = add_groups_of_one(sum[0], w, x, groups);
    else
        add_groups(sum, w, ld_panel, x, ldx, groups, panels, tokens);
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t p = 0; p < panels; p++) _mm512_store_si512(acc + t * ld_acc + p * TERN_I8_PANEL, sum[p * tokens + t]);
    }
}

#define S32_TILE(panels, tokens)                                                                                               \
    TILE_OWN void s32_tile_##panels##x##tokens(int32_t *acc, size_t ld_acc, const uint8_t *w, size_t ld_panel,                 \
                                               const int8_t *x, size_t ldx, size_t groups, const int32_t *x_sums,              \
                                               size_t ld_x_sums) {                                                             \
        s32_tile(acc, ld_acc, w, ld_panel, x, ldx, groups, x_sums, ld_x_sums, panels, tokens);                                 \
    }
S32_TILE(2, 6)
S32_TILE(1, 6)
S32_TILE(1, 4)
S32_TILE(1, 2)
S32_TILE(1, 1)

// Widest first: one for PANELS panels, then those for one panel down to one token.
static const struct {
    size_t panels, tokens;
    s32_tile_fn *run;
} s32_tiles[] = {
    {PANELS, TOKENS, s32_tile_2x6}, {1, 6, s32_tile_1x6}, {1, 4, s32_tile_1x4}, {1, 2, s32_tile_1x2}, {1, 1, s32_tile_1x1}};

// `panels` panels from feature i on.
static void s32_panels(const tern_gemm_args *args, size_t i, size_t panels) {
    const size_t groups = tern_i8_groups(args->k), ld_panel = groups * TERN_I8_GROUP_BYTES;
    for (size_t g = 0; g < groups; g += CHUNK_GROUPS) {
        const size_t chunk = groups - g < CHUNK_GROUPS ? groups - g : CHUNK_GROUPS;
        const uint8_t *w = args->packed + i / TERN_I8_PANEL * ld_panel + g * TERN_I8_GROUP_BYTES;
        for (size_t t = 0, tile = panels == PANELS ? 0 : 1; t < args->m; t += s32_tiles[tile].tokens) {
            while (s32_tiles[tile].tokens > args->m - t) tile++;
            for (size_t p = 0; p < panels; p += s32_tiles[tile].panels)
                s32_tiles[tile].run(args->acc + t * args->ld_acc + i + p * TERN_I8_PANEL, args->ld_acc, w + p * ld_panel,
                                    ld_panel, args->x + t * args->ldx + g * TERN_I8_GROUP_K, args->ldx, chunk,
                                    g == 0 ? args->x_sums + t * args->ld_x_sums : NULL, args->ld_x_sums);
        }
    }
}

void tern_int8_gemm_avx512vnni(const tern_gemm_args *args) {
    for (size_t i = 0; i < args->n;) {
        const size_t panels = panels_at_once(args->m, (args->n - i) / TERN_I8_PANEL);
        s32_panels(args, i, panels);
        i += panels * TERN_I8_PANEL;
    }
}

// ---- int8_gemm_b32 -----------------------------------------------------------------------------------------

enum {
    BLOCKS = TERN_I8B_SUPER_K / TERN_I8B_BLOCK,
    BLOCK_GROUPS = TERN_I8B_BLOCK / TERN_I8_GROUP_K,
    BLOCK_BYTES = BLOCK_GROUPS * TERN_I8_GROUP_BYTES,
    SCALES_STEP = TERN_I8B_PANEL * (int)sizeof(uint16_t)
};

// The activations of a tile's tokens from its chunk of K on.
typedef struct b32_x {
    const int8_t *codes;
    size_t ldx;
    const float *scales; // [t * ld + block]
    const int32_t *sums;
    size_t ld;
} b32_x;

// One tile of one chunk of K: y (+)= (float)s * (dw * da) block after block; y stays in L1 between blocks.
// first: y is written without being read.
typedef void b32_tile_fn(float *y, size_t ld_y, const uint8_t *super, size_t ld_panel, const b32_x *x, size_t supers,
                         int first);

TILE_INLINE void b32_tile(float *y, size_t ld_y, const uint8_t *super, size_t ld_panel, const b32_x x, size_t supers, int first,
                          size_t panels, size_t tokens) {
    if (first) {
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            TERN_UNROLL
            for (size_t p = 0; p < panels; p++) _mm512_store_ps(y + t * ld_y + p * TERN_I8B_PANEL, _mm512_setzero_ps());
        }
    }
    const uint8_t *scales = super, *codes = super + TERN_I8B_CODES;
    for (size_t b = 0; b < supers * BLOCKS; b++) {
        TERN_COST_LOOP("INT8 blocks, scales", panels * TERN_I8B_PANEL, tokens, TERN_I8B_BLOCK);
        __m512i sum[SUMS];
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            TERN_UNROLL
            for (size_t p = 0; p < panels; p++) sum[p * tokens + t] = minus_bias(x.sums[t * x.ld + b]);
        }
        if (panels * tokens == 1)
            sum[0] = add_groups_of_one(sum[0], codes, x.codes + b * TERN_I8B_BLOCK, BLOCK_GROUPS);
        else
            add_groups(sum, codes, ld_panel, x.codes + b * TERN_I8B_BLOCK, x.ldx, BLOCK_GROUPS, panels, tokens);
        TERN_UNROLL
        for (size_t p = 0; p < panels; p++) {
            const __m512 dw = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(scales + p * ld_panel)));
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) {
                const __m512 both = _mm512_mul_ps(dw, _mm512_set1_ps(x.scales[t * x.ld + b]));
                const __m512 term = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[p * tokens + t]), both);
                float *to = y + t * ld_y + p * TERN_I8B_PANEL;
                _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), term));
            }
        }
        // Block 1 of a super-group follows block 0; its end is the next super-group's scales.
        const size_t last = b % BLOCKS;
        scales += last ? TERN_I8B_SUPER_BYTES - SCALES_STEP : SCALES_STEP;
        codes += BLOCK_BYTES + last * TERN_I8B_CODES;
    }
}

#define B32_TILE(panels, tokens)                                                                                               \
    TILE_OWN void b32_tile_##panels##x##tokens(float *y, size_t ld_y, const uint8_t *super, size_t ld_panel, const b32_x *x,   \
                                               size_t supers, int first) {                                                     \
        b32_tile(y, ld_y, super, ld_panel, *x, supers, first, panels, tokens);                                                 \
    }
B32_TILE(2, 6)
B32_TILE(1, 6)
B32_TILE(1, 4)
B32_TILE(1, 2)
B32_TILE(1, 1)

static const struct {
    size_t panels, tokens;
    b32_tile_fn *run;
} b32_tiles[] = {
    {PANELS, TOKENS, b32_tile_2x6}, {1, 6, b32_tile_1x6}, {1, 4, b32_tile_1x4}, {1, 2, b32_tile_1x2}, {1, 1, b32_tile_1x1}};

// `panels` panels from feature i on.
static void b32_panels(const tern_gemm_b32_args *args, size_t i, size_t panels) {
    const size_t supers = tern_i8b_supers(args->k), ld_panel = supers * TERN_I8B_SUPER_BYTES;
    for (size_t s = 0; s < supers; s += CHUNK_SUPERS) {
        const size_t chunk = supers - s < CHUNK_SUPERS ? supers - s : CHUNK_SUPERS;
        const uint8_t *w = args->packed + i / TERN_I8B_PANEL * ld_panel + s * TERN_I8B_SUPER_BYTES;
        for (size_t t = 0, tile = panels == PANELS ? 0 : 1; t < args->m; t += b32_tiles[tile].tokens) {
            while (b32_tiles[tile].tokens > args->m - t) tile++;
            const size_t at = t * args->ld_x_blocks + s * BLOCKS;
            const b32_x x = {args->x + t * args->ldx + s * TERN_I8B_SUPER_K, args->ldx, args->x_scales + at, args->x_sums + at,
                             args->ld_x_blocks};
            for (size_t p = 0; p < panels; p += b32_tiles[tile].panels)
                b32_tiles[tile].run(args->y + t * args->ld_y + i + p * TERN_I8B_PANEL, args->ld_y, w + p * ld_panel, ld_panel,
                                    &x, chunk, s == 0);
        }
    }
}

void tern_int8_gemm_b32_avx512vnni(const tern_gemm_b32_args *args) {
    for (size_t i = 0; i < args->n;) {
        const size_t panels = panels_at_once(args->m, (args->n - i) / TERN_I8B_PANEL);
        b32_panels(args, i, panels);
        i += panels * TERN_I8B_PANEL;
    }
}
