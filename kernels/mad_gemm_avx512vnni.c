// SPDX-License-Identifier: MIT
// Multiply-add product of M2 with AVX-512 VNNI: codes are masked in place and never shifted.
//
// Part p of a byte is 4^p times its code. Few tokens: 16 features at a time, a sum for each part, one pass over the codes. Many
// tokens: 64 features at a time, one sum, the parts one after the other from the highest, with the sum divided by 4 in between.
#include "dot_avx512vnni.h"
#include "kernels.h"

enum {
    LANE = 4,                       // consecutive k of a feature in a 32-bit lane
    PARTS = TERN_M2_GROUP_K / LANE, // codes in a byte
    TILE_TOKENS = 6,                // 24 sums: of 4 parts, or of 4 panels
    TILE_PANELS = 4,                //
    CHUNK_GROUPS = 64,              // K-chunk of many tokens: 16 KB of codes of 4 panels stay in L1, beside 6 KB of activations
    PREFETCH = 4096
};

// Every lane: the sum of the activations of token t, which codes t + 1 count once too often.
static inline __m512i x_sum(const tern_gemm_args *args, size_t t) {
    return _mm512_set1_epi32(args->x_sums[t * args->ld_x_sums]);
}

// ---- few tokens ---------------------------------------------------------------------------------------------------------

// 16 features of one panel for `tokens` tokens.
static inline __attribute__((always_inline)) void tile(const tern_gemm_args *args, size_t t0, const uint8_t *panel, size_t f,
                                                       const size_t tokens) {
    // lane f of sum[t][p]: dot product of part p, scaled by 4^p. Codes are at most 3, so a group adds at most 4 * 3 * 64 * 128
    // < 2^17 (p = 3), and there are at most 2^13 groups: < 2^30.
    __m512i sum[TILE_TOKENS][PARTS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t p = 0; p < PARTS; p++) sum[t][p] = _mm512_setzero_si512();
    }
    const size_t groups = tern_m2_groups(args->k);
    const int8_t *x[TILE_TOKENS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) x[t] = args->x + (t0 + t) * args->ldx;
    TERN_NO_UNROLL
    for (size_t g = 0; g < groups; g++) {
        TERN_COST_LOOP("M2 groups", TERN_M2_PANEL, tokens, TERN_M2_GROUP_K);
        _mm_prefetch((const char *)panel + g * TERN_M2_GROUP_BYTES + PREFETCH, _MM_HINT_T0);
        const __m512i codes = _mm512_load_si512(panel + g * TERN_M2_GROUP_BYTES);
        TERN_UNROLL
        for (size_t p = 0; p < PARTS; p++) {
            const __m512i part = _mm512_and_si512(codes, _mm512_set1_epi8((char)(0x03 << 2 * p)));
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) add_dots_at(&sum[t][p], part, x[t] + g * TERN_M2_GROUP_K + p * LANE);
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        // Exact: every sum is a multiple of its scale.
        const __m512i low = _mm512_add_epi32(sum[t][0], _mm512_srai_epi32(sum[t][1], 2));
        const __m512i high = _mm512_add_epi32(_mm512_srai_epi32(sum[t][2], 4), _mm512_srai_epi32(sum[t][3], 6));
        _mm512_store_si512(args->acc + (t0 + t) * args->ld_acc + f,
                           _mm512_sub_epi32(_mm512_add_epi32(low, high), x_sum(args, t0 + t)));
    }
}

static void any_panel(const tern_gemm_args *args, size_t t0, const uint8_t *panel, size_t f, size_t tokens) {
    switch (tokens) {
    case 1:
        tile(args, t0, panel, f, 1);
        break;
    case 2:
        tile(args, t0, panel, f, 2);
        break;
    case 3:
        tile(args, t0, panel, f, 3);
        break;
    case 4:
        tile(args, t0, panel, f, 4);
        break;
    case 5:
        tile(args, t0, panel, f, 5);
        break;
    default:
        tile(args, t0, panel, f, TILE_TOKENS);
        break;
    }
}

// ---- many tokens --------------------------------------------------------------------------------------------------------

// A K-chunk of four panels, from group g0 on.
typedef struct chunk {
    const uint8_t *panels; // the first of them
    size_t panel_bytes, f; // distance of panels; first feature
    size_t g0, groups;
} chunk;

static inline __attribute__((always_inline)) void chunk_tile(const tern_gemm_args *args, chunk c, size_t t0,
                                                             const size_t tokens) {
    // lane f of sum[t][i]: dot product of panel i so far, scaled by 4^p during part p: at most 4 * 3 * 64 * 128 *
    // CHUNK_GROUPS, where all codes are 3 and p = 3; the parts after it reach half of that.
    __m512i sum[TILE_TOKENS][TILE_PANELS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t i = 0; i < TILE_PANELS; i++) sum[t][i] = _mm512_setzero_si512();
    }
    TERN_NO_UNROLL
    for (size_t p = PARTS; p-- > 0;) {
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            TERN_UNROLL
            for (size_t i = 0; i < TILE_PANELS; i++) sum[t][i] = _mm512_srai_epi32(sum[t][i], 2); // exact: 4^(p + 1) divides it
        }
        const __m512i mask = _mm512_set1_epi8((char)(0x03 << 2 * p));
        const uint8_t *codes = c.panels + c.g0 * TERN_M2_GROUP_BYTES;
        const int8_t *x = args->x + t0 * args->ldx + c.g0 * TERN_M2_GROUP_K + p * LANE;
        TERN_NO_UNROLL
        for (size_t g = 0; g < c.groups; g++) {
            TERN_COST_LOOP("M2 groups of a part", TILE_PANELS * TERN_M2_PANEL, tokens, LANE);
            __m512i part[TILE_PANELS];
            TERN_UNROLL
            for (size_t i = 0; i < TILE_PANELS; i++)
                part[i] = _mm512_and_si512(mask, _mm512_load_si512(codes + i * c.panel_bytes));
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) {
                const __m512i four = broadcast_four(x + t * args->ldx);
                TERN_UNROLL
                for (size_t i = 0; i < TILE_PANELS; i++) add_dots(&sum[t][i], part[i], four);
            }
            codes += TERN_M2_GROUP_BYTES;
            x += TERN_M2_GROUP_K;
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t i = 0; i < TILE_PANELS; i++) {
            int32_t *out = args->acc + (t0 + t) * args->ld_acc + c.f + i * TERN_M2_PANEL;
            const __m512i before =
                c.g0 ? _mm512_load_si512(out) : _mm512_sub_epi32(_mm512_setzero_si512(), x_sum(args, t0 + t));
            _mm512_store_si512(out, _mm512_add_epi32(before, sum[t][i]));
        }
    }
}

static void any_chunk_tile(const tern_gemm_args *args, chunk c, size_t t0, size_t tokens) {
    switch (tokens) {
    case TILE_TOKENS / 2:
        chunk_tile(args, c, t0, TILE_TOKENS / 2);
        break;
    case TILE_TOKENS - 2:
        chunk_tile(args, c, t0, TILE_TOKENS - 2);
        break;
    case TILE_TOKENS - 1:
        chunk_tile(args, c, t0, TILE_TOKENS - 1);
        break;
    default:
        chunk_tile(args, c, t0, TILE_TOKENS);
        break;
    }
}

// Four panels for all tokens, in equal tiles: more than TILE_TOKENS tokens make tiles of at least half as many.
static void many_tokens(const tern_gemm_args *args, const uint8_t *panels, size_t f) {
    const size_t groups = tern_m2_groups(args->k), tiles = tern_ceil_div(args->m, TILE_TOKENS);
    chunk c = {panels, tern_m2_bytes(TERN_M2_PANEL, args->k), f, 0, 0};
    for (; c.g0 < groups; c.g0 += c.groups) {
        c.groups = groups - c.g0 < CHUNK_GROUPS ? groups - c.g0 : CHUNK_GROUPS;
        for (size_t i = 0, t = 0; i < tiles; i++) {
            const size_t end = (i + 1) * args->m / tiles;
            any_chunk_tile(args, c, t, end - t);
            t = end;
        }
    }
}

void tern_mad_gemm_m2_avx512vnni(const tern_gemm_args *args) {
    const size_t panel_bytes = tern_m2_bytes(TERN_M2_PANEL, args->k);
    size_t f = 0;
    if (args->m > TILE_TOKENS)
        for (; args->n - f >= TILE_PANELS * TERN_M2_PANEL; f += TILE_PANELS * TERN_M2_PANEL)
            many_tokens(args, args->packed + f / TERN_M2_PANEL * panel_bytes, f);
    for (; f < args->n; f += TERN_M2_PANEL)
        for (size_t t = 0; t < args->m; t += TILE_TOKENS)
            any_panel(args, t, args->packed + f / TERN_M2_PANEL * panel_bytes, f,
                      args->m - t < TILE_TOKENS ? args->m - t : TILE_TOKENS);
}
