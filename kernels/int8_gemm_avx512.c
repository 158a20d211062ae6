// SPDX-License-Identifier: MIT
// INT8 product with AVX-512 BW, for CPUs without VNNI: bytes widened to 16 bits, exact for every operand.
//
// Each 32-bit lane holds four consecutive k of a feature (codes) or of a token (activations). Its even and its odd bytes are
// widened into two vectors of int16 pairs, in the same way on both sides, and multiplied pair by pair.
#include <immintrin.h>

#include "compiler.h"
#include "kernels.h"

enum {
    TILE_TOKENS = 4,
    CHUNK_GROUPS = 128, // K-chunk: 4 KB of widened activations and 8 KB of codes stay in L1
    LANES = 16,
    PREFETCH = 4096
};

static inline __m512i even_bytes(__m512i v) { return _mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8); }
static inline __m512i odd_bytes(__m512i v) { return _mm512_srai_epi16(v, 8); }

// The widened activations of one token: lane g of even and odd belongs to group g of the chunk.
typedef struct wide_x {
    _Alignas(64) int32_t even[CHUNK_GROUPS], odd[CHUNK_GROUPS];
} wide_x;

static inline void widen(wide_x *restrict wide, const int8_t *restrict x, size_t groups) {
    for (size_t g = 0; g < groups; g += LANES) {
        const __mmask16 given = (__mmask16)(groups - g < LANES ? (1u << (groups - g)) - 1 : UINT16_MAX);
        const __m512i v = _mm512_maskz_loadu_epi32(given, x + g * TERN_I8_GROUP_K);
        _mm512_store_si512(wide->even + g, even_bytes(v));
        _mm512_store_si512(wide->odd + g, odd_bytes(v));
    }
}

// *sum += the dot product of each pair of codes with the pair of activations at x; |pair| <= 2 * 128 * 128 = 2^15.
static inline void add_pairs(__m512i *sum, __m512i codes, const int32_t *x) {
    const __m512i products = _mm512_madd_epi16(codes, _mm512_set1_epi32(*x));
    TERN_IN_PLACE(__asm__ volatile("vpaddd %1, %0, %0" : "+v"(*sum) : "v"(products)), *sum = _mm512_add_epi32(*sum, products));
}

// 16 features of one panel for `tokens` tokens. Sums fit int32 for k <= TERN_K_MAX.
static inline __attribute__((always_inline)) void tile(const tern_gemm_args *args, size_t t0, const uint8_t *panel, size_t f,
                                                       const size_t tokens) {
    wide_x wide[TILE_TOKENS];
    __m512i even[TILE_TOKENS], odd[TILE_TOKENS]; // lane f: the dot product of feature f over the even and the odd k
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) even[t] = odd[t] = _mm512_setzero_si512();
    const size_t groups = tern_i8_groups(args->k);
    for (size_t g0 = 0; g0 < groups; g0 += CHUNK_GROUPS) {
        const size_t n = groups - g0 < CHUNK_GROUPS ? groups - g0 : CHUNK_GROUPS;
        for (size_t t = 0; t < tokens; t++) widen(&wide[t], args->x + (t0 + t) * args->ldx + g0 * TERN_I8_GROUP_K, n);
        TERN_NO_UNROLL
        for (size_t g = 0; g < n; g++, panel += TERN_I8_GROUP_BYTES) {
            TERN_COST_LOOP("INT8 groups", TERN_I8_PANEL, tokens, TERN_I8_GROUP_K);
            _mm_prefetch((const char *)panel + PREFETCH, _MM_HINT_T0);
            const __m512i codes = _mm512_load_si512(panel);
            const __m512i even_codes = even_bytes(codes), odd_codes = odd_bytes(codes);
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) {
                add_pairs(&even[t], even_codes, wide[t].even + g);
                add_pairs(&odd[t], odd_codes, wide[t].odd + g);
            }
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++)
        _mm512_store_si512(args->acc + (t0 + t) * args->ld_acc + f, _mm512_add_epi32(even[t], odd[t]));
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

void tern_int8_gemm_avx512(const tern_gemm_args *args) {
    for (size_t f = 0; f < args->n; f += TERN_I8_PANEL)
        for (size_t t = 0; t < args->m; t += TILE_TOKENS)
            any_tile(args, t, args->packed + tern_i8_bytes(f, args->k), f,
                     args->m - t < TILE_TOKENS ? args->m - t : TILE_TOKENS);
}
