// SPDX-License-Identifier: MIT
// Roofline probes for baseline x86-64: a read sweep and the peak of 16-bit multiply-add, the widest that SSE2 has for int8
// values.
#include "kernels.h"

#include <emmintrin.h>

#include "compiler.h"

enum { VECTOR = sizeof(__m128i), STREAMS = 4, PEAK_CHAINS = 8, MACS_PER_INSTRUCTION = 8 };

uint64_t tern_read_sweep_scalar(const void *p, size_t bytes) {
    // sum[s]: two 64-bit lanes, independent chains
    __m128i sum[STREAMS] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
    const __m128i *from = p;
    for (size_t i = 0; i < bytes / VECTOR; i += STREAMS) {
        TERN_UNROLL
        for (size_t s = 0; s < STREAMS; s++) sum[s] = _mm_add_epi64(sum[s], _mm_load_si128(from + i + s));
    }
    const __m128i all = _mm_add_epi64(_mm_add_epi64(sum[0], sum[1]), _mm_add_epi64(sum[2], sum[3]));
    return (uint64_t)_mm_cvtsi128_si64(_mm_add_epi64(all, _mm_unpackhi_epi64(all, all)));
}

uint64_t tern_int8_peak_scalar(uint64_t iterations) {
    __m128i sum[PEAK_CHAINS], w = _mm_set1_epi16(3), x = _mm_set1_epi16(5);
    TERN_UNROLL
    for (size_t c = 0; c < PEAK_CHAINS; c++) sum[c] = _mm_setzero_si128();
    for (uint64_t i = 0; i < iterations; i++) {
        TERN_UNROLL
        for (size_t c = 0; c < PEAK_CHAINS; c++) {
            __asm__("" : "+x"(w), "+x"(sum[c])); // new values each time, as far as the compiler knows
            sum[c] = _mm_add_epi32(sum[c], _mm_madd_epi16(w, x));
        }
    }
    TERN_UNROLL
    for (size_t c = 0; c < PEAK_CHAINS; c++) __asm__ volatile("" : : "x"(sum[c])); // keep the work
    return iterations * PEAK_CHAINS * MACS_PER_INSTRUCTION;
}
