// SPDX-License-Identifier: MIT
// Dot products of four bytes, added to sums that stay in their registers.
#ifndef TERN_KERNELS_DOT_AVX512VNNI_H
#define TERN_KERNELS_DOT_AVX512VNNI_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

enum { DOT_BYTES = 4 };

// The four activations at x in every 32-bit lane.
static inline __m512i broadcast_four(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

// Lane f of *sum += dot product of the four codes in lane f (unsigned) with four activations (signed).
static inline void add_dots(__m512i *sum, __m512i codes, __m512i four) {
    TERN_IN_PLACE(__asm__ volatile("vpdpbusd %2, %1, %0"
                                   : "+v"(*sum)
                                   : "v"(codes), "v"(four)),
                  *sum = _mm512_dpbusd_epi32(*sum, codes, four));
}

// The same, with the activations of every lane at x: for one use of them.
static inline void add_dots_at(__m512i *sum, __m512i codes, const int8_t *x) {
    const int8_t(*four)[DOT_BYTES] = (const int8_t(*)[DOT_BYTES])x;
    TERN_IN_PLACE(__asm__ volatile("vpdpbusd %2%{1to16%}, %1, %0"
                                   : "+v"(*sum)
                                   : "v"(codes), "m"(*four)),
                  *sum = _mm512_dpbusd_epi32(*sum, codes, broadcast_four(*four)));
}

#endif
