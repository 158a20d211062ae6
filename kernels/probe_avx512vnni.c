// SPDX-License-Identifier: MIT
// Roofline probe for AVX-512 VNNI: the peak of vpdpbusd.
#include "kernels.h"

#include <immintrin.h>

#include "compiler.h"

enum { PEAK_CHAINS = 12, MACS_PER_CHAIN = 64 };

uint64_t tern_int8_peak_avx512vnni(uint64_t iterations) {
    const __m512i x = _mm512_set1_epi8(5), w = _mm512_set1_epi8(3);
    __m512i sum[PEAK_CHAINS];
    TERN_UNROLL
    for (size_t c = 0; c < PEAK_CHAINS; c++) sum[c] = _mm512_setzero_si512();
    for (uint64_t i = 0; i < iterations; i++) {
        TERN_UNROLL
        for (size_t c = 0; c < PEAK_CHAINS; c++) {
            sum[c] = _mm512_dpbusd_epi32(sum[c], w, x);
            __asm__("" : "+v"(sum[c])); // a new sum each time, as far as the compiler knows
        }
    }
    TERN_UNROLL
    for (size_t c = 0; c < PEAK_CHAINS; c++) __asm__ volatile("" : : "v"(sum[c])); // keep the work
    return iterations * PEAK_CHAINS * MACS_PER_CHAIN;
}
