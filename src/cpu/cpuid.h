// SPDX-License-Identifier: MIT
// What the CPU and the operating system support: CPUID leaves checked against XCR0.
#ifndef TERN_CPU_CPUID_H
#define TERN_CPU_CPUID_H

#include "base/base.h"
#include "kernels/kernels.h"

// The registers that decide, as the CPU returned them; 0 where the CPU has no such leaf.
typedef struct tern_cpuid_raw {
    char vendor[13]; // leaf 0
    char brand[49];  // leaves 0x80000002..4, as they stand (may have leading blanks)
    uint32_t leaf1_ecx, leaf1_edx;
    uint32_t leaf7_ebx, leaf7_ecx; // subleaf 0
    uint32_t ext1_ecx;             // leaf 0x80000001
    uint64_t xcr0;                 // XGETBV(0); 0 if the OS has not enabled XSAVE
} tern_cpuid_raw;

typedef struct tern_cpu {
    char vendor[13];
    char model[49];
    char features[256];  // space-separated, only what CPU and OS both support
    uint32_t advertised; // one bit per feature of the table in cpuid.c: what CPUID says
    uint32_t usable;     // those of them whose registers the OS saves, too
    tern_tier best;      // highest complete tier
} tern_cpu;

void tern_cpu_detect(tern_cpu *cpu);

// The pure part of tern_cpu_detect: raw registers in, decision out.
void tern_cpuid_read(tern_cpuid_raw *raw);
void tern_cpu_decide(tern_cpu *cpu, const tern_cpuid_raw *raw);

// Why `tier` cannot run here, e.g. "the CPU lacks avx512f" or "the OS does not save the registers of avx2".
// text is left "" if the tier can run.
void tern_cpu_missing(const tern_cpu *cpu, tern_tier tier, char *text, size_t text_size);

const char *tern_tier_name(tern_tier tier);           // "scalar", "avx2", ...
bool tern_tier_parse(const char *name, tern_tier *t); // exact names only

// All tier names, for messages: "scalar, avx2, ..."
#define TERN_TIER_NAMES "scalar, avx2, avx512, avx512vnni, avx512vbmi"

#endif
