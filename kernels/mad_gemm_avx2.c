// SPDX-License-Identifier: MIT
// Multiply-add product of M2 with AVX2: few tokens decode in registers, many tokens share decoded panels in L1.
#include <immintrin.h>
#include <string.h>

#include "compiler.h"
#include "kernels.h"

enum {
    HALF = 8,                       // features of a vector: 32 bytes of a group
    LANE = 4,                       // consecutive k of a feature in a 32-bit lane
    PARTS = TERN_M2_GROUP_K / LANE, // codes in a byte
    PREFETCH = 4096
};

static inline __m256i load(const void *p) { return _mm256_load_si256((const __m256i *)p); }
static inline void store(void *p, __m256i v) { _mm256_store_si256((__m256i *)p, v); }
// Every 32-bit lane holds the four activations at p.
static inline __m256i load_lane(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

// *sum += v, 16-bit lanes.
static inline void add_in_place(__m256i *sum, __m256i v) {
    TERN_IN_PLACE(__asm__ volatile("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(v)), *sum = _mm256_add_epi16(*sum, v));
}

// ---- one or two tokens: one forward stream of weights ------------------------------------------------------------

enum {
    // Codes of parts 1 and 3 are scaled by 4: vpmaddubsw gives 4 * (c0 x0 + c1 x1) with c <= 2, in -2048..2032. At most 16 of
    // them
    // are added to one sum: -32768 just fits. For one token each of the two parts has its own sum.
    STREAM_ADDITIONS = 16,
    STREAM_TOKENS = 2
};

// 16 features of one panel for `tokens` tokens.
static inline __attribute__((always_inline)) void stream_panel(const tern_gemm_args *args, size_t t0, const uint8_t *panel,
                                                               size_t f, const size_t tokens) {
    const __m256i mask1 = _mm256_set1_epi8(0x03), mask4 = _mm256_set1_epi8(0x0C);
    const __m256i ones = _mm256_set1_epi16(1), fours = _mm256_set1_epi16(4);
    const size_t groups = tern_m2_groups(args->k);
    __m256i total[STREAM_TOKENS][2]; // lane f: 4 * dot product of codes. 4 * 2 * 128 * K_MAX < 2^27
    for (size_t t = 0; t < tokens; t++) total[t][0] = total[t][1] = _mm256_setzero_si256();
    const int8_t *x = args->x + t0 * args->ldx;
    const size_t spill = tokens == 1 ? STREAM_ADDITIONS : STREAM_ADDITIONS / 2;
    for (size_t g = 0; g < groups; g += spill) {
        const size_t n = groups - g < spill ? groups - g : spill;
        // int16 pairs of a feature: 0 of parts 0 and 2; 1 and 2 of parts 1 and 3, scaled by 4
        __m256i sum[STREAM_TOKENS][2][3];
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            TERN_UNROLL
            for (size_t h = 0; h < 2; h++) sum[t][h][0] = sum[t][h][1] = sum[t][h][2] = _mm256_setzero_si256();
        }
        TERN_NO_UNROLL
        for (size_t i = 0; i < n; i++) {
            const uint8_t *group = panel + (g + i) * TERN_M2_GROUP_BYTES;
            const int8_t *xg = x + (g + i) * TERN_M2_GROUP_K;
            _mm_prefetch((const char *)group + PREFETCH, _MM_HINT_T0);
            TERN_UNROLL
            for (size_t h = 0; h < 2; h++) {
                const __m256i low = load(group + h * HALF * LANE), high = _mm256_srli_epi16(low, 4);
                const __m256i code0 = _mm256_and_si256(low, mask1), code1 = _mm256_and_si256(low, mask4);
                const __m256i code2 = _mm256_and_si256(high, mask1), code3 = _mm256_and_si256(high, mask4);
                TERN_UNROLL
                for (size_t t = 0; t < tokens; t++) {
                    const int8_t *xt = xg + t * args->ldx;
                    const __m256i dot0 = _mm256_maddubs_epi16(code0, load_lane(xt));
                    const __m256i dot1 = _mm256_maddubs_epi16(code1, load_lane(xt + LANE));
                    const __m256i dot2 = _mm256_maddubs_epi16(code2, load_lane(xt + (size_t)2 * LANE));
                    const __m256i dot3 = _mm256_maddubs_epi16(code3, load_lane(xt + (size_t)3 * LANE));
                    if (tokens == 1) {
                        add_in_place(&sum[t][h][0], dot0);
                        add_in_place(&sum[t][h][1], dot1);
                        add_in_place(&sum[t][h][0], dot2);
                        add_in_place(&sum[t][h][2], dot3);
                    } else {
                        sum[t][h][0] = _mm256_add_epi16(sum[t][h][0], _mm256_add_epi16(dot0, dot2));
                        sum[t][h][1] = _mm256_add_epi16(sum[t][h][1], _mm256_add_epi16(dot1, dot3));
                    }
                }
            }
        }
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            TERN_UNROLL
            for (size_t h = 0; h < 2; h++) {
                const __m256i by1 = _mm256_madd_epi16(sum[t][h][0], fours);
                const __m256i by4 =
                    _mm256_add_epi32(_mm256_madd_epi16(sum[t][h][1], ones), _mm256_madd_epi16(sum[t][h][2], ones));
                total[t][h] = _mm256_add_epi32(total[t][h], _mm256_add_epi32(by1, by4));
            }
        }
    }
    for (size_t t = 0; t < tokens; t++) {
        const __m256i x_sum = _mm256_set1_epi32(args->x_sums[(t0 + t) * args->ld_x_sums]); // codes are t + 1
        for (size_t h = 0; h < 2; h++)
            store(args->acc + (t0 + t) * args->ld_acc + f + h * HALF,
                  _mm256_sub_epi32(_mm256_srai_epi32(total[t][h], 2), x_sum));
    }
}

static void stream(const tern_gemm_args *args, size_t t0, size_t tokens) {
    const size_t panel_bytes = tern_m2_bytes(TERN_M2_PANEL, args->k);
    for (size_t f = 0; f < args->n; f += TERN_M2_PANEL) {
        const uint8_t *panel = args->packed + f / TERN_M2_PANEL * panel_bytes;
        if (tokens == STREAM_TOKENS)
            stream_panel(args, t0, panel, f, STREAM_TOKENS);
        else
            stream_panel(args, t0, panel, f, 1);
    }
}

// ---- more tokens: decode a block of panels once -----------------------------------------------------------------------

enum {
    // Plain codes: a pair is c0 x0 + c1 x1 with c <= 2, in -512..508. 16 groups make 64 additions: -32768 just fits.
    CHUNK_GROUPS = 16,
    CHUNK_LANES = CHUNK_GROUPS * PARTS,
    BLOCK_PANELS = 4, // 4 panels * 64 lanes * 64 bytes = 16 KiB of codes
    BLOCK = BLOCK_PANELS * TERN_M2_PANEL,
    TILE_TOKENS = 6 // 6 tokens * 2 vectors = 12 sums; 2 code vectors, 1 of activations, 1 product
};

// codes: CHUNK_LANES steps of 64 bytes, byte 4f + j of step s = code of feature f, k = 4s + j of the chunk.
static void decode(uint8_t *restrict codes, const uint8_t *restrict groups, size_t n) {
    const __m256i mask = _mm256_set1_epi8(0x03);
    for (size_t g = 0; g < n; g++)
        for (size_t h = 0; h < TERN_M2_GROUP_BYTES; h += sizeof(__m256i)) {
            __m256i v = load(groups + g * TERN_M2_GROUP_BYTES + h);
            for (size_t p = 0; p < PARTS; p++, v = _mm256_srli_epi16(v, 2))
                store(codes + (g * PARTS + p) * TERN_M2_GROUP_BYTES + h, _mm256_and_si256(v, mask));
        }
}

// Adds the dot products of one chunk (lanes steps of 4 k) for 16 features and `tokens` tokens.
static inline __attribute__((always_inline)) void tile(int32_t *restrict acc, size_t ld_acc, const uint8_t *restrict codes,
                                                       const int8_t *restrict x, size_t ldx, size_t lanes,
                                                       const size_t tokens) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[TILE_TOKENS][2]; // int16 pairs of a feature, features 0..7 and 8..15
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    TERN_NO_UNROLL
    for (size_t s = 0; s < lanes; s++) {
        const __m256i code0 = load(codes + s * TERN_M2_GROUP_BYTES), code1 = load(codes + s * TERN_M2_GROUP_BYTES + 32);
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const __m256i four = load_lane(x + t * ldx + s * LANE);
            add_in_place(&sum[t][0], _mm256_maddubs_epi16(code0, four));
            add_in_place(&sum[t][1], _mm256_maddubs_epi16(code1, four));
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++)
        for (size_t h = 0; h < 2; h++) {
            int32_t *out = acc + t * ld_acc + h * HALF;
            store(out, _mm256_add_epi32(load(out), _mm256_madd_epi16(sum[t][h], ones)));
        }
}

static void any_tile(int32_t *restrict acc, size_t ld_acc, const uint8_t *restrict codes, const int8_t *restrict x, size_t ldx,
                     size_t lanes, size_t tokens) {
    switch (tokens) {
    case 1:
        tile(acc, ld_acc, codes, x, ldx, lanes, 1);
        break;
    case 2:
        tile(acc, ld_acc, codes, x, ldx, lanes, 2);
        break;
    case 3:
        tile(acc, ld_acc, codes, x, ldx, lanes, 3);
        break;
    case 4:
        tile(acc, ld_acc, codes, x, ldx, lanes, 4);
        break;
    case 5:
        tile(acc, ld_acc, codes, x, ldx, lanes, 5);
        break;
    default:
        tile(acc, ld_acc, codes, x, ldx, lanes, TILE_TOKENS);
        break;
    }
}

// All tokens, one chunk of K of up to BLOCK_PANELS panels.
static void chunk(const tern_gemm_args *args, size_t f0, size_t panels, size_t g, size_t n) {
    _Alignas(64) uint8_t codes[BLOCK_PANELS][CHUNK_LANES * TERN_M2_GROUP_BYTES];
    const size_t panel_bytes = tern_m2_bytes(TERN_M2_PANEL, args->k);
    for (size_t p = 0; p < panels; p++)
        decode(codes[p], args->packed + (f0 / TERN_M2_PANEL + p) * panel_bytes + g * TERN_M2_GROUP_BYTES, n);
    for (size_t t = 0; t < args->m; t += TILE_TOKENS) {
        const size_t tokens = args->m - t < TILE_TOKENS ? args->m - t : TILE_TOKENS;
        for (size_t p = 0; p < panels; p++)
            any_tile(args->acc + t * args->ld_acc + f0 + p * TERN_M2_PANEL, args->ld_acc, codes[p],
                     args->x + t * args->ldx + g * TERN_M2_GROUP_K, args->ldx, n * PARTS, tokens);
    }
}

static void blocked(const tern_gemm_args *args) {
    const size_t groups = tern_m2_groups(args->k);
    for (size_t t = 0; t < args->m; t++) // codes are t + 1: start from minus the sum of activations
        for (size_t f = 0; f < args->n; f += HALF)
            store(args->acc + t * args->ld_acc + f, _mm256_set1_epi32(-args->x_sums[t * args->ld_x_sums]));
    for (size_t f = 0; f < args->n; f += BLOCK) {
        const size_t left = (args->n - f) / TERN_M2_PANEL, panels = left < BLOCK_PANELS ? left : BLOCK_PANELS;
        for (size_t g = 0; g < groups; g += CHUNK_GROUPS)
            chunk(args, f, panels, g, groups - g < CHUNK_GROUPS ? groups - g : CHUNK_GROUPS);
    }
}

void tern_mad_gemm_m2_avx2(const tern_gemm_args *args) {
    if (args->m <= STREAM_TOKENS)
        stream(args, 0, args->m);
    else
        blocked(args);
}
