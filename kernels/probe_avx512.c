// SPDX-License-Identifier: MIT
// Roofline probe for AVX-512: a read sweep.
#include "kernels.h"

#include <immintrin.h>

#include "compiler.h"

enum { VECTOR = sizeof(__m512i), STREAMS = 4 };

uint64_t tern_read_sweep_avx512(const void *p, size_t bytes) {
    // sum[s]: eight 64-bit lanes, independent chains; 256 bytes a round
    __m512i sum[STREAMS];
    TERN_UNROLL
    for (size_t s = 0; s < STREAMS; s++) sum[s] = _mm512_setzero_si512();
    const __m512i *from = p;
    for (size_t i = 0; i < bytes / VECTOR; i += STREAMS) {
        TERN_UNROLL
        for (size_t s = 0; s < STREAMS; s++) sum[s] = _mm512_add_epi64(sum[s], _mm512_load_si512(from + i + s));
    }
    return (uint64_t)_mm512_reduce_add_epi64(
        _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3])));
}
