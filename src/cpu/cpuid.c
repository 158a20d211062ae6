// SPDX-License-Identifier: MIT
// Reads CPUID and XCR0, and decides from them which features and which tier can run.
#include "cpu/cpuid.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>

typedef enum { IN_LEAF1_ECX, IN_LEAF1_EDX, IN_LEAF7_EBX, IN_LEAF7_ECX, IN_EXT1_ECX } cpuid_register;

// XCR0 bits that the OS must set before instructions of a class may run.
enum {
    OS_NONE = 0,
    OS_YMM = 1 << 1 | 1 << 2,                  // XMM and YMM state
    OS_ZMM = OS_YMM | 1 << 5 | 1 << 6 | 1 << 7 // + opmask, upper halves of ZMM0-15, ZMM16-31
};

enum { LEAF1_ECX_OSXSAVE = 1 << 27 };
static const uint32_t BASIC_FEATURES = 1, STRUCTURED_FEATURES = 7; // leaves
static const uint32_t EXT_MAX = 0x80000000u, EXT_FEATURES = 0x80000001u, EXT_BRAND_FIRST = 0x80000002u,
                      EXT_BRAND_LAST = 0x80000004u;

// name, register, bit, OS state it needs, lowest tier that needs it (TERN_TIER_COUNT: reported only)
#define FEATURES(X)                                                                                                            \
    X("sse2", IN_LEAF1_EDX, 26, OS_NONE, TERN_TIER_SCALAR)                                                                     \
    X("ssse3", IN_LEAF1_ECX, 9, OS_NONE, TERN_TIER_COUNT)                                                                      \
    X("sse4.1", IN_LEAF1_ECX, 19, OS_NONE, TERN_TIER_COUNT)                                                                    \
    X("sse4.2", IN_LEAF1_ECX, 20, OS_NONE, TERN_TIER_COUNT)                                                                    \
    X("popcnt", IN_LEAF1_ECX, 23, OS_NONE, TERN_TIER_AVX2)                                                                     \
    X("avx", IN_LEAF1_ECX, 28, OS_YMM, TERN_TIER_AVX2)                                                                         \
    X("f16c", IN_LEAF1_ECX, 29, OS_YMM, TERN_TIER_AVX2)                                                                        \
    X("fma", IN_LEAF1_ECX, 12, OS_YMM, TERN_TIER_AVX2)                                                                         \
    X("lzcnt", IN_EXT1_ECX, 5, OS_NONE, TERN_TIER_AVX2)                                                                        \
    X("bmi1", IN_LEAF7_EBX, 3, OS_NONE, TERN_TIER_AVX2)                                                                        \
    X("bmi2", IN_LEAF7_EBX, 8, OS_NONE, TERN_TIER_AVX2)                                                                        \
    X("avx2", IN_LEAF7_EBX, 5, OS_YMM, TERN_TIER_AVX2)                                                                         \
    X("avx512f", IN_LEAF7_EBX, 16, OS_ZMM, TERN_TIER_AVX512)                                                                   \
    X("avx512bw", IN_LEAF7_EBX, 30, OS_ZMM, TERN_TIER_AVX512)                                                                  \
    X("avx512dq", IN_LEAF7_EBX, 17, OS_ZMM, TERN_TIER_AVX512)                                                                  \
    X("avx512vl", IN_LEAF7_EBX, 31, OS_ZMM, TERN_TIER_AVX512)                                                                  \
    X("avx512vnni", IN_LEAF7_ECX, 11, OS_ZMM, TERN_TIER_AVX512VNNI)                                                            \
    X("avx512vbmi", IN_LEAF7_ECX, 1, OS_ZMM, TERN_TIER_AVX512VBMI)

typedef struct cpu_feature {
    const char *name;
    cpuid_register where;
    uint32_t bit;
    uint64_t os_state;
    tern_tier tier;
} cpu_feature;

static const cpu_feature features[] = {
#define FEATURE_ROW(name, where, bit, os, tier) {name, where, bit, os, tier},
    FEATURES(FEATURE_ROW)
#undef FEATURE_ROW
};
enum { FEATURE_COUNT = sizeof features / sizeof features[0] };

static const char *const tier_names[TERN_TIER_COUNT] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};

static uint32_t register_of(const tern_cpuid_raw *raw, cpuid_register where) {
    switch (where) {
    case IN_LEAF1_ECX:
        return raw->leaf1_ecx;
    case IN_LEAF1_EDX:
        return raw->leaf1_edx;
    case IN_LEAF7_EBX:
        return raw->leaf7_ebx;
    case IN_LEAF7_ECX:
        return raw->leaf7_ecx;
    default:
        return raw->ext1_ecx;
    }
}

static bool needed_by(const cpu_feature *feature, tern_tier tier) {
    return feature->tier != TERN_TIER_COUNT && feature->tier <= tier;
}

static bool tier_complete(uint32_t usable, tern_tier tier) {
    for (size_t i = 0; i < FEATURE_COUNT; i++) {
        if (needed_by(&features[i], tier) && !(usable >> i & 1)) return false;
    }
    return true;
}

static void list_features(tern_cpu *cpu) {
    size_t used = 0;
    for (size_t i = 0; i < FEATURE_COUNT; i++) {
        if (!(cpu->usable >> i & 1)) continue;
        const int n = snprintf(cpu->features + used, sizeof cpu->features - used, "%s%s", used ? " " : "", features[i].name);
        used += (size_t)n;
    }
}

void tern_cpu_decide(tern_cpu *cpu, const tern_cpuid_raw *raw) {
    memset(cpu, 0, sizeof *cpu);
    memcpy(cpu->vendor, raw->vendor, sizeof cpu->vendor - 1);
    snprintf(cpu->model, sizeof cpu->model, "%s", raw->brand + strspn(raw->brand, " "));
    const uint64_t xcr0 = raw->leaf1_ecx & LEAF1_ECX_OSXSAVE ? raw->xcr0 : 0;
    for (size_t i = 0; i < FEATURE_COUNT; i++) {
        if (!(register_of(raw, features[i].where) >> features[i].bit & 1)) continue;
        cpu->advertised |= UINT32_C(1) << i;
        if ((xcr0 & features[i].os_state) == features[i].os_state) cpu->usable |= UINT32_C(1) << i;
    }
    list_features(cpu);
    cpu->best = TERN_TIER_SCALAR;
    for (int tier = TERN_TIER_AVX2; tier < TERN_TIER_COUNT; tier++) {
        if (tier_complete(cpu->usable, (tern_tier)tier)) cpu->best = (tern_tier)tier;
    }
}

void tern_cpu_missing(const tern_cpu *cpu, tern_tier tier, char *text, size_t text_size) {
    text[0] = '\0';
    for (size_t i = 0; i < FEATURE_COUNT; i++) {
        if (!needed_by(&features[i], tier) || cpu->usable >> i & 1) continue;
        const bool in_cpu = cpu->advertised >> i & 1;
        snprintf(text, text_size, in_cpu ? "the operating system does not save the registers of %s" : "the CPU lacks %s",
                 features[i].name);
        return;
    }
}

static uint64_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

// Copies four CPUID registers as text.
static void put_text(char *text, const uint32_t *regs, size_t count) { memcpy(text, regs, count * sizeof *regs); }

void tern_cpuid_read(tern_cpuid_raw *raw) {
    memset(raw, 0, sizeof *raw);
    uint32_t a, b, c, d;
    const uint32_t max_leaf = (uint32_t)__get_cpuid_max(0, NULL);
    if (max_leaf < BASIC_FEATURES) return;
    __cpuid(0, a, b, c, d);
    put_text(raw->vendor, (const uint32_t[]){b, d, c}, 3);
    __cpuid(BASIC_FEATURES, a, b, raw->leaf1_ecx, raw->leaf1_edx);
    if (raw->leaf1_ecx & LEAF1_ECX_OSXSAVE) raw->xcr0 = read_xcr0();
    if (max_leaf >= STRUCTURED_FEATURES) __cpuid_count(STRUCTURED_FEATURES, 0, a, raw->leaf7_ebx, raw->leaf7_ecx, d);
    const uint32_t max_ext = (uint32_t)__get_cpuid_max(EXT_MAX, NULL);
    if (max_ext >= EXT_FEATURES) __cpuid(EXT_FEATURES, a, b, raw->ext1_ecx, d);
    if (max_ext < EXT_BRAND_LAST) return;
    for (uint32_t leaf = EXT_BRAND_FIRST; leaf <= EXT_BRAND_LAST; leaf++) {
        __cpuid(leaf, a, b, c, d);
        put_text(raw->brand + (size_t)(leaf - EXT_BRAND_FIRST) * sizeof(uint32_t[4]), (const uint32_t[]){a, b, c, d}, 4);
    }
}

void tern_cpu_detect(tern_cpu *cpu) {
    tern_cpuid_raw raw;
    tern_cpuid_read(&raw);
    tern_cpu_decide(cpu, &raw);
}

const char *tern_tier_name(tern_tier tier) { return tier_names[tier]; }

bool tern_tier_parse(const char *name, tern_tier *t) {
    for (int tier = 0; tier < TERN_TIER_COUNT; tier++) {
        if (strcmp(name, tier_names[tier]) != 0) continue;
        *t = (tern_tier)tier;
        return true;
    }
    return false;
}
