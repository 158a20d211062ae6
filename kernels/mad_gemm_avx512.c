// SPDX-License-Identifier: MIT
// Multiply-add product of M2 with AVX-512 BW, for CPUs without VNNI: bytes multiplied into pairs of int16.
#include <immintrin.h>
#include <string.h>

#include "compiler.h"
#include "kernels.h"

enum {
    LANE = 4,                       // consecutive k of a feature in a 32-bit lane
    PARTS = TERN_M2_GROUP_K / LANE, // codes in a byte
    TILE_TOKENS = 4,
    PREFETCH = 4096,
    // Codes are at most 3: a pair is at most 2 * 3 * 128 = 768, a group of four parts 3072; 10 * 3072 = 30720 <= 32767.
    SPILL_GROUPS = 10
};

// Every 32-bit lane holds the four activations at x.
static inline __m512i load_lane(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

// 16 features of one panel for `tokens` tokens.
static inline __attribute__((always_inline)) void tile(const tern_gemm_args *args, size_t t0, const uint8_t *panel, size_t f,
                                                       const size_t tokens) {
    const __m512i mask = _mm512_set1_epi8(0x03), ones = _mm512_set1_epi16(1);
    __m512i total[TILE_TOKENS]; // lane f: the dot product of feature f so far, less the sum of all activations
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) total[t] = _mm512_set1_epi32(-args->x_sums[(t0 + t) * args->ld_x_sums]);
    const size_t groups = tern_m2_groups(args->k);
    const int8_t *x[TILE_TOKENS];
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) x[t] = args->x + (t0 + t) * args->ldx;
    for (size_t g = 0; g < groups;) {
        const size_t end = groups - g < SPILL_GROUPS ? groups : g + SPILL_GROUPS;
        __m512i pairs[TILE_TOKENS]; // 16-bit lanes 2f, 2f + 1: pairs of k of feature f
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) pairs[t] = _mm512_setzero_si512();
        TERN_NO_UNROLL
        for (; g < end; g++) {
            TERN_COST_LOOP("M2 groups", TERN_M2_PANEL, tokens, TERN_M2_GROUP_K);
            _mm_prefetch((const char *)panel + g * TERN_M2_GROUP_BYTES + PREFETCH, _MM_HINT_T0);
            const __m512i codes = _mm512_load_si512(panel + g * TERN_M2_GROUP_BYTES);
            const __m512i part[PARTS] = {_mm512_and_si512(codes, mask), _mm512_and_si512(_mm512_srli_epi16(codes, 2), mask),
                                         _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask),
                                         _mm512_and_si512(_mm512_srli_epi16(codes, 6), mask)};
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) {
                const int8_t *at = x[t] + g * TERN_M2_GROUP_K;
                const __m512i p01 = _mm512_add_epi16(_mm512_maddubs_epi16(part[0], load_lane(at)),
                                                     _mm512_maddubs_epi16(part[1], load_lane(at + LANE)));
                const __m512i p23 = _mm512_add_epi16(_mm512_maddubs_epi16(part[2], load_lane(at + 2 * LANE)),
                                                     _mm512_maddubs_epi16(part[3], load_lane(at + 3 * LANE)));
                pairs[t] = _mm512_add_epi16(pairs[t], _mm512_add_epi16(p01, p23));
            }
        }
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) total[t] = _mm512_add_epi32(total[t], _mm512_madd_epi16(pairs[t], ones));
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) _mm512_store_si512(args->acc + (t0 + t) * args->ld_acc + f, total[t]);
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
    default:
        tile(args, t0, panel, f, TILE_TOKENS);
        break;
    }
}

void tern_mad_gemm_m2_avx512(const tern_gemm_args *args) {
    const size_t panel_bytes = tern_m2_bytes(TERN_M2_PANEL, args->k);
    for (size_t f = 0; f < args->n; f += TERN_M2_PANEL)
        for (size_t t = 0; t < args->m; t += TILE_TOKENS)
            any_tile(args, t, args->packed + f / TERN_M2_PANEL * panel_bytes, f,
                     args->m - t < TILE_TOKENS ? args->m - t : TILE_TOKENS);
}
