// SPDX-License-Identifier: MIT
// Multiply-add product of M2 with AVX-512 VNNI: codes are masked in place and never shifted.
#include <immintrin.h>
#include <string.h>

#include "compiler.h"
#include "kernels.h"

enum {
    LANE = 4,                       // consecutive k of a feature in a 32-bit lane
    PARTS = TERN_M2_GROUP_K / LANE, // codes in a byte
    TILE_TOKENS = 6,                // 6 tokens * 4 parts = 24 sums
    PREFETCH = 4096
};

// Every 32-bit lane holds the four activations at x.
static inline __m512i load_lane(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

// Lane f of *sum += dot product of the four codes of feature f (unsigned) with the four activations at x (signed).
static inline void dot4(__m512i *sum, __m512i codes, const int8_t *x) {
    const int8_t(*four)[LANE] = (const int8_t(*)[LANE])x;
    TERN_IN_PLACE(__asm__ volatile("vpdpbusd %2%{1to16%}, %1, %0"
                                   : "+v"(*sum)
                                   : "v"(codes), "m"(*four)),
                  *sum = _mm512_dpbusd_epi32(*sum, codes, load_lane(*four)));
}

// 16 features of one panel for `tokens` tokens.
static inline __attribute__((always_inline)) void tile(const tern_gemm_args *args, size_t t0, const uint8_t *panel, size_t f,
                                                       const size_t tokens) {
    // lane f of sum[t][p]: dot product of part p, scaled by 4^p. A group adds at most 4 * 2 * 64 * 128 = 2^16 (p = 3) and there
    // are at most 2^13 groups: 2^29.
    __m512i sum[TILE_TOKENS][PARTS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t p = 0; p < PARTS; p++) sum[t][p] = _mm512_setzero_si512();
    }
    const size_t groups = tern_m2_groups(args->k);
    const int8_t *x = args->x + t0 * args->ldx;
    TERN_NO_UNROLL
    for (size_t g = 0; g < groups; g++) {
        TERN_COST_LOOP("M2 groups", TERN_M2_PANEL, tokens, TERN_M2_GROUP_K);
        _mm_prefetch((const char *)panel + g * TERN_M2_GROUP_BYTES + PREFETCH, _MM_HINT_T0);
        const __m512i codes = _mm512_load_si512(panel + g * TERN_M2_GROUP_BYTES);
        TERN_UNROLL
        for (size_t p = 0; p < PARTS; p++) {
            const __m512i part = _mm512_and_si512(codes, _mm512_set1_epi8((char)(0x03 << 2 * p)));
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) dot4(&sum[t][p], part, x + t * args->ldx + g * TERN_M2_GROUP_K + p * LANE);
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        // Exact: every sum is a multiple of its scale. Codes are t + 1.
        const __m512i low = _mm512_add_epi32(sum[t][0], _mm512_srai_epi32(sum[t][1], 2));
        const __m512i high = _mm512_add_epi32(_mm512_srai_epi32(sum[t][2], 4), _mm512_srai_epi32(sum[t][3], 6));
        const __m512i x_sum = _mm512_set1_epi32(args->x_sums[(t0 + t) * args->ld_x_sums]);
        _mm512_store_si512(args->acc + (t0 + t) * args->ld_acc + f, _mm512_sub_epi32(_mm512_add_epi32(low, high), x_sum));
    }
}

static void any_tile(const tern_gemm_args *args, size_t t0, const uint8_t *panel, size_t f, size_t tokens) {
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

void tern_mad_gemm_m2_avx512vnni(const tern_gemm_args *args) {
    const size_t panel_bytes = tern_m2_bytes(TERN_M2_PANEL, args->k);
    for (size_t f = 0; f < args->n; f += TERN_M2_PANEL)
        for (size_t t = 0; t < args->m; t += TILE_TOKENS)
            any_tile(args, t, args->packed + f / TERN_M2_PANEL * panel_bytes, f,
                     args->m - t < TILE_TOKENS ? args->m - t : TILE_TOKENS);
}
