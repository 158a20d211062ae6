// SPDX-License-Identifier: MIT
// Roofline probes for AVX2: a read sweep and the peak of vpmaddubsw + vpmaddwd, which int8 products need.
#include "kernels.h"

#include <immintrin.h>

#include "compiler.h"

enum { VECTOR = sizeof(__m256i), STREAMS = 8, PEAK_CHAINS = 8, MACS_PER_CHAIN = 32 };

uint64_t tern_read_sweep_avx2(const void *p, size_t bytes) {
    // sum[s]: four 64-bit lanes, independent chains; 256 bytes a round
    __m256i sum[STREAMS];
    TERN_UNROLL
    for (size_t s = 0; s < STREAMS; s++) sum[s] = _mm256_setzero_si256();
    const __m256i *from = p;
    for (size_t i = 0; i < bytes / VECTOR; i += STREAMS) {
        TERN_UNROLL
        for (size_t s = 0; s < STREAMS; s++) sum[s] = _mm256_add_epi64(sum[s], _mm256_load_si256(from + i + s));
    }
    TERN_UNROLL
    for (size_t s = 1; s < STREAMS; s++) sum[0] = _mm256_add_epi64(sum[0], sum[s]);
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sum[0]), _mm256_extracti128_si256(sum[0], 1));
    return (uint64_t)_mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

uint64_t tern_int8_peak_avx2(uint64_t iterations) {
    const __m256i ones = _mm256_set1_epi16(1), x = _mm256_set1_epi8(5);
    __m256i sum[PEAK_CHAINS], w = _mm256_set1_epi8(3);
    TERN_UNROLL
    for (size_t c = 0; c < PEAK_CHAINS; c++) sum[c] = _mm256_setzero_si256();
    for (uint64_t i = 0; i < iterations; i++) {
        TERN_UNROLL
        for (size_t c = 0; c < PEAK_CHAINS; c++) {
            __asm__("" : "+x"(w), "+x"(sum[c])); // new values each time, as far as the compiler knows
            sum[c] = _mm256_add_epi32(sum[c], _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), ones));
        }
    }
    TERN_UNROLL
    for (size_t c = 0; c < PEAK_CHAINS; c++) __asm__ volatile("" : : "x"(sum[c])); // keep the work
    return iterations * PEAK_CHAINS * MACS_PER_CHAIN;
}
