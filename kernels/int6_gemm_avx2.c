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
    PAIR_TOKENS = 2,   // of the widest tile on packed codes, of one panel
    FEW_PANELS = 2,    // of that of one token
    INT6_AHEAD = 1280, // bytes, Zen 3, from DRAM: 1 to 1.75 KB are alike, 2 KB are slower by a twentieth, 4 KB by a sixth
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

// One panel and run of K, or two of one token: they share the broadcast activations, and two forward streams come from DRAM
// faster than one.
typedef struct few_panels {
    const uint8_t *super; // of the first panel
    size_t apart;         // bytes to the next panel
    const float *of_row;  // D of the first panel
    float *y;             // of the first panel
    size_t y_apart, ld_y;
} few_panels;

TILE_INLINE const float *row_scales(const few_panels *p, size_t i, size_t h) {
    return (const float *)(const void *)((const uint8_t *)p->of_row + i * p->apart) + h * HALF;
}

TILE_INLINE float *sums_of(const few_panels *p, size_t i, size_t h, size_t t) {
    return p->y + i * p->y_apart + t * p->ld_y + h * HALF;
}

// y of one half and all tokens += the terms of block b of a super; `block` counts from the start of the run.
TILE_INLINE void add_terms(const few_panels *p, size_t i, size_t h, const __m256i *dot, const uint8_t *super, size_t b,
                           const x_few *x, size_t block, size_t tokens) {
    const __m256 dw = load_scales(super, b, h, _mm256_load_ps(row_scales(p, i, h)));
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        float *y = sums_of(p, i, h, t); // stays in L1 between blocks
        _mm256_store_ps(y, add_term(_mm256_load_ps(y), dot[t], dw, _mm256_broadcast_ss(x->scales + t * x->ld_blocks + block)));
    }
}

// 16 k of one half. kept: the activations of one token, or NULL.
TILE_INLINE void dot_sixteen(__m256i *dot, const uint8_t *lines, size_t h, const x_few *x, size_t at, const __m256i *kept,
                             size_t tokens) {
    __m256i sum[PAIR_TOKENS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) sum[t] = _mm256_set1_epi32(x->less[t * x->ld_less + at]);
    const sixteen_codes u = load_codes(lines, h);
    TERN_UNROLL
    for (size_t g = 0; g < SIXTEEN_GROUPS; g++) {
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const int8_t *from = x->codes + t * x->ldx + at * TERN_I6_LINES_K + g * GROUP_K;
            sum[t] = add_products(sum[t], u.group[g], kept ? kept[g] : broadcast_four(from));
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) dot[t] = _mm256_madd_epi16(sum[t], _mm256_set1_epi16(1));
}

TILE_INLINE void narrow_block(const few_panels *p, const uint8_t *super, size_t b, const x_few *x, size_t block, size_t panels,
                              size_t tokens) {
    __m256i dot[FEW_PANELS][HALVES][PAIR_TOKENS]; // int32 lane f
    TERN_UNROLL
    for (size_t sixteen = 0; sixteen < SIXTEENS; sixteen++) {
        const size_t at = SIXTEENS * block + sixteen;
        __m256i kept[SIXTEEN_GROUPS];
        if (tokens == 1) {
            TERN_UNROLL
            for (size_t g = 0; g < SIXTEEN_GROUPS; g++) kept[g] = broadcast_four(x->codes + at * TERN_I6_LINES_K + g * GROUP_K);
        }
        TERN_UNROLL
        for (size_t i = 0; i < panels; i++) {
            const uint8_t *lines = super + i * p->apart + TERN_I6_SCALES + b * TERN_I6_BLOCK_BYTES + sixteen * SIXTEEN_BYTES;
            fetch(lines + INT6_AHEAD);
            fetch(lines + 2 * TERN_I6_LINE_BYTES + INT6_AHEAD);
            TERN_UNROLL
            for (size_t h = 0; h < HALVES; h++) {
                if (h == 1) fetch(lines + TERN_I6_LINE_BYTES + INT6_AHEAD);
                __m256i part[PAIR_TOKENS];
                dot_sixteen(part, lines, h, x, at, tokens == 1 ? kept : NULL, tokens);
                TERN_UNROLL
                for (size_t t = 0; t < tokens; t++) {
                    dot[i][h][t] = sixteen == 0 ? part[t] : _mm256_add_epi32(dot[i][h][t], part[t]);
                    // One after the other: else gcc moves the prefetches of a block together, which is a sixth slower, and
                    // spills.
                    __asm__ volatile("" : "+x"(dot[i][h][t]) : : "memory");
                }
            }
        }
    }
    TERN_UNROLL
    for (size_t i = 0; i < panels; i++) {
        TERN_UNROLL
        for (size_t h = 0; h < HALVES; h++) add_terms(p, i, h, dot[i][h], super + i * p->apart, b, x, block, tokens);
    }
}

TILE_INLINE void wide_block(const few_panels *p, size_t i, const uint8_t *super, size_t b, const x_few *x, size_t block,
                            size_t tokens) {
    __m256i sum[HALVES * FEW_TOKENS];
    TERN_UNROLL
    for (size_t v = 0; v < HALVES * tokens; v++) sum[v] = _mm256_setzero_si256();
    add_groups(sum, super + TERN_I6_SCALES + b * TERN_I6_WIDE_BLOCK_BYTES, x->wide + block * BLOCK, FEW_K, BLOCK_GROUPS,
               INT6_AHEAD, tokens);
    TERN_UNROLL
    for (size_t h = 0; h < HALVES; h++) add_terms(p, i, h, sum + h * tokens, super, b, x, block, tokens);
}

// A run of K: y += the terms of its blocks, those of `wide` supers first.
typedef void few_fn(const few_panels *p, const x_few *x, size_t wide, size_t supers);

TILE_INLINE void few_tile(const few_panels p, const x_few x, size_t wide, size_t supers, size_t panels, size_t tokens) {
    const uint8_t *super = p.super;
    size_t block = 0;
    for (size_t s = 0; s < wide; s++, super += TERN_I6_WIDE_BYTES) {
        TERN_NO_UNROLL
        for (size_t b = 0; b < BLOCKS; b++, block++) {
            TERN_UNROLL
            for (size_t i = 0; i < panels; i++) wide_block(&p, i, super + i * p.apart, b, &x, block, tokens);
        }
    }
    for (size_t s = wide; s < supers; s++, super += TERN_I6_SUPER_BYTES) {
        TERN_NO_UNROLL
        for (size_t b = 0; b < BLOCKS; b++, block++) {
            TERN_COST_LOOP("6-bit blocks", panels * TERN_I6_PANEL, tokens, TERN_I6_BLOCK);
            narrow_block(&p, super, b, &x, block, panels, tokens);
        }
    }
}

#define FEW_TILE(panels, tokens)                                                                                               \
    TILE_OWN void few_##panels##x##tokens(const few_panels *p, const x_few *x, size_t wide, size_t supers) {                   \
        few_tile(*p, *x, wide, supers, panels, tokens);                                                                        \
    }
FEW_TILE(2, 1)
FEW_TILE(1, 1)
FEW_TILE(1, 2)

// The activations of few tokens for a run of K.
typedef struct run_x {
    __attribute__((aligned(64))) int16_t wide[FEW_TOKENS][FEW_K];
    int32_t less[FEW_TOKENS][SIXTEENS * FEW_BLOCKS];
} run_x;

// `supers` supers from s on, of the panel of feature i and of that `apart` features behind it, or of one panel; tokens from t
// on.
static void run_few(few_fn *run, const tern_gemm_b32_args *args, const run_x *of_run, size_t i, size_t apart, size_t t,
                    size_t s, size_t supers) {
    const size_t wide_supers = tern_i6_wide_supers(args->k);
    const uint8_t *panel = args->packed + tern_i6_bytes(i, args->k);
    const few_panels p = {.super = panel + tern_i6_super_at(args->k, s),
                          .apart = tern_i6_bytes(apart, args->k),
                          .of_row = (const float *)(const void *)panel,
                          .y = args->y + t * args->ld_y + i,
                          .y_apart = apart,
                          .ld_y = args->ld_y};
    const x_few x = {.codes = args->x + t * args->ldx + s * TERN_I6_SUPER_K,
                     .ldx = args->ldx,
                     .wide = of_run->wide[t],
                     .less = of_run->less[t],
                     .ld_less = SIXTEENS * FEW_BLOCKS,
                     .scales = args->x_scales + t * args->ld_x_blocks + s * BLOCKS,
                     .ld_blocks = args->ld_x_blocks};
    run(&p, &x, s == 0 ? wide_supers : 0, supers);
}

static void gemm_few(const tern_gemm_b32_args *args) {
    run_x x;
    const size_t all_supers = tern_i6_supers(args->k), step = FEW_K / TERN_I6_SUPER_K;
    const size_t wide = tern_i6_wide_supers(args->k); // at most `step`: TERN_K_MAX / 1024 = 128
    const size_t half = args->m == 1 ? args->n / PANEL / FEW_PANELS * PANEL : 0;
    for (size_t t = 0; t < args->m; t++) memset(args->y + t * args->ld_y, 0, args->n * sizeof *args->y);
    for (size_t s = 0; s < all_supers; s += step) {
        const size_t supers = all_supers - s < step ? all_supers - s : step;
        for (size_t t = 0; t < args->m; t++) {
            const int8_t *from = args->x + t * args->ldx + s * TERN_I6_SUPER_K;
            if (s == 0) (void)widen_row(x.wide[t], from, wide * TERN_I6_SUPER_K);
            for (size_t i = 0; i < supers * BLOCKS * SIXTEENS; i++) x.less[t][i] = start_sums(from + i * sizeof(__m128i));
        }
        for (size_t i = 0; i < half; i += PANEL) run_few(few_2x1, args, &x, i, half, 0, s, supers);
        for (size_t i = FEW_PANELS * half; i < args->n; i += PANEL)
            for (size_t t = 0, tokens; t < args->m; t += tokens) {
                tokens = args->m - t >= PAIR_TOKENS ? PAIR_TOKENS : 1;
                run_few(tokens == PAIR_TOKENS ? few_1x2 : few_1x1, args, &x, i, 0, t, s, supers);
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
