// SPDX-License-Identifier: MIT
// Which tiers this CPU runs, asked of the compiler's runtime and not of the library, so that tests of kernels stand alone.
#ifndef TERN_TESTS_CPU_TIERS_H
#define TERN_TESTS_CPU_TIERS_H

#include <stdbool.h>

#include "kernels/kernels.h"

static inline bool test_cpu_has_tier(tern_tier tier) {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    switch (tier) {
    case TERN_TIER_SCALAR:
        return true;
    case TERN_TIER_AVX2:
        return avx2;
    case TERN_TIER_AVX512:
        return avx512;
    case TERN_TIER_AVX512VNNI:
        return vnni;
    default:
        return vnni && __builtin_cpu_supports("avx512vbmi");
    }
}

#endif
