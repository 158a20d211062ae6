// SPDX-License-Identifier: MIT
// What the CPU and the operating system support: CPUID leaves checked against XCR0.
#ifndef TERN_CPU_CPUID_H
#define TERN_CPU_CPUID_H

#include "base/base.h"
#include "kernels/kernels.h"

typedef struct tern_cpu {
    char vendor[13];
    char model[49];
    char features[256]; // space-separated, only what CPU and OS both support
    tern_tier best;     // highest complete tier
} tern_cpu;

void tern_cpu_detect(tern_cpu *cpu);

const char *tern_tier_name(tern_tier tier);           // "scalar", "avx2", ...
bool tern_tier_parse(const char *name, tern_tier *t); // exact names only

#endif
