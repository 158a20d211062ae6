// SPDX-License-Identifier: MIT
// Proves that this CPU, real or emulated, runs the AVX-512 instructions our kernels are built on: each against scalar
// arithmetic.
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { BYTES = 64, DWORDS = BYTES / 4 };

static uint8_t a[BYTES], b[BYTES], c[BYTES];

static int report(const char *instruction, const void *got, const void *expected) {
    const int wrong = memcmp(got, expected, BYTES) != 0;
    const uint8_t *g = got;
    printf("%-20s %s  first bytes %02x %02x %02x %02x\n", instruction, wrong ? "WRONG" : "right", g[0], g[1], g[2], g[3]);
    return wrong;
}

// vpermi2b: byte i of the result is byte (idx & 127) of the 128-byte table a:b.
static int check_vpermi2b(void) {
    uint8_t got[BYTES], expected[BYTES];
    for (int i = 0; i < BYTES; i++) expected[i] = (c[i] & 64) ? b[c[i] & 63] : a[c[i] & 63];
    _mm512_storeu_si512(got, _mm512_permutex2var_epi8(_mm512_loadu_si512(a), _mm512_loadu_si512(c), _mm512_loadu_si512(b)));
    return report("vpermi2b zmm", got, expected);
}

// vpdpbusd: each int32 adds four products of unsigned bytes of a and signed bytes of b.
static int check_vpdpbusd(void) {
    int32_t got[DWORDS], expected[DWORDS];
    memcpy(expected, c, BYTES);
    for (int i = 0; i < BYTES; i++) expected[i / 4] = (int32_t)((uint32_t)expected[i / 4] + (uint32_t)(a[i] * (int8_t)b[i]));
    _mm512_storeu_si512(got, _mm512_dpbusd_epi32(_mm512_loadu_si512(c), _mm512_loadu_si512(a), _mm512_loadu_si512(b)));
    return report("vpdpbusd zmm", got, expected);
}

// vpmovb2m and a masked vpsubb: bytes of b, negated where a byte of a has its sign bit set.
static int check_masked_vpsubb(void) {
    uint8_t got[BYTES], expected[BYTES];
    for (int i = 0; i < BYTES; i++) expected[i] = (uint8_t)(a[i] & 128 ? -b[i] : b[i]);
    const __mmask64 negative = _mm512_movepi8_mask(_mm512_loadu_si512(a));
    const __m512i bytes = _mm512_loadu_si512(b);
    _mm512_storeu_si512(got, _mm512_mask_sub_epi8(bytes, negative, _mm512_setzero_si512(), bytes));
    return report("vpsubb zmm {k}", got, expected);
}

int main(void) {
    if (!__builtin_cpu_supports("avx512vbmi") || !__builtin_cpu_supports("avx512vnni")) {
        printf("CPUID and XCR0 do not offer AVX-512 VBMI and VNNI\n");
        return 2;
    }
    uint32_t state = 1;
    for (int i = 0; i < 3 * BYTES; i++) {
        state = state * 1664525u + 1013904223u;
        (i < BYTES ? a : i < 2 * BYTES ? b : c)[i % BYTES] = (uint8_t)(state >> 24);
    }
    return (check_vpermi2b() | check_vpdpbusd() | check_masked_vpsubb()) ? 1 : 0;
}
