// SPDX-License-Identifier: MIT
// Expands kernels/variants.inc and chooses from it: the highest tier allowed, for each stage and layout.
#include "cpu/dispatch.h"

#include <string.h>

const tern_variant tern_variants[] = {
#define TERN_VARIANT(stage, TIER, LAYOUT, symbol)                                                                              \
    {TERN_STAGE_##stage, TERN_TIER_##TIER, TERN_LAYOUT_##LAYOUT, #symbol, (tern_any_fn *)(symbol)},
#include "kernels/variants.inc"
#undef TERN_VARIANT
};
const size_t tern_variants_count = sizeof tern_variants / sizeof tern_variants[0];

static const char *const stage_names[TERN_STAGE_COUNT] = {
#define STAGE_NAME(stage) #stage,
    TERN_STAGES(STAGE_NAME)
#undef STAGE_NAME
};

static const char *const layout_names[TERN_LAYOUT_COUNT] = {"-", "t5", "t2n", "t3", "b1", "m2", "i8", "i8b32", "i4b32", "i4m32", "i4k", "i6b32", "i8s32"};

const char *tern_stage_name(tern_stage_id stage) { return stage_names[stage]; }
const char *tern_layout_name(tern_layout layout) { return layout_names[layout]; }

bool tern_stage_parse(const char *name, tern_stage_id *stage) {
    for (int i = 0; i < TERN_STAGE_COUNT; i++) {
        if (strcmp(name, stage_names[i]) != 0) continue;
        *stage = (tern_stage_id)i;
        return true;
    }
    return false;
}

bool tern_layout_parse(const char *name, tern_layout *layout) {
    for (int i = TERN_LAYOUT_NONE + 1; i < TERN_LAYOUT_COUNT; i++) {
        if (strcmp(name, layout_names[i]) != 0) continue;
        *layout = (tern_layout)i;
        return true;
    }
    return false;
}

// The layout whose lut_gemm runs on the highest tier. T5 stands first, so it wins among equals: it has the fewest bits.
static tern_layout choose_lut_layout(const tern_kernels *kernels) {
    tern_layout best = TERN_LAYOUT_T5;
    const tern_variant *best_variant = kernels->chosen[TERN_STAGE_lut_gemm][TERN_LAYOUT_T5];
    for (int layout = TERN_LAYOUT_T5 + 1; layout < TERN_LAYOUT_COUNT; layout++) {
        const tern_variant *variant = kernels->chosen[TERN_STAGE_lut_gemm][layout];
        if (!variant || (best_variant && variant->tier <= best_variant->tier)) continue;
        best = (tern_layout)layout;
        best_variant = variant;
    }
    return best;
}

// What TERN_FORM_AUTO means on each tier.
//   scalar: a table lookup replaces five multiplications.
//   avx2, avx512, avx512vnni: multiply-add runs closer to memory bandwidth than 16-entry shuffles do.
//   avx512vbmi: one vpermi2b looks up 64 five-trit codes, so the 1.6-bit layout wins: memory binds, and it reads the least.
static const tern_form auto_form[TERN_TIER_COUNT] = {
    [TERN_TIER_SCALAR] = TERN_FORM_LUT,     [TERN_TIER_AVX2] = TERN_FORM_MAD,       [TERN_TIER_AVX512] = TERN_FORM_MAD,
    [TERN_TIER_AVX512VNNI] = TERN_FORM_MAD, [TERN_TIER_AVX512VBMI] = TERN_FORM_LUT,
};

void tern_kernels_choose(tern_kernels *kernels, tern_tier tier) {
    memset(kernels, 0, sizeof *kernels);
    kernels->tier = tier;
    for (size_t i = 0; i < tern_variants_count; i++) {
        const tern_variant *variant = &tern_variants[i];
        const tern_variant **chosen = &kernels->chosen[variant->stage][variant->layout];
        if (variant->tier <= tier && (!*chosen || variant->tier > (*chosen)->tier)) *chosen = variant;
    }
    kernels->lut_layout = choose_lut_layout(kernels);
    kernels->ternary_form = auto_form[tier];
}

void tern_kernels_force(tern_kernels *kernels, const tern_variant *variant) {
    kernels->chosen[variant->stage][variant->layout] = variant;
    if (variant->stage == TERN_STAGE_lut_gemm || variant->stage == TERN_STAGE_mad_gemm)
        kernels->forced_layout = variant->layout;
    if (variant->stage == TERN_STAGE_lut_gemm) {
        kernels->lut_layout = variant->layout;
        kernels->ternary_form = TERN_FORM_LUT;
    } else if (variant->stage == TERN_STAGE_mad_gemm) {
        kernels->ternary_form = TERN_FORM_MAD;
    }
}

const tern_variant *tern_variant_find(const char *symbol) {
    for (size_t i = 0; i < tern_variants_count; i++) {
        if (strcmp(symbol, tern_variants[i].symbol) == 0) return &tern_variants[i];
    }
    return NULL;
}

const tern_variant *tern_kernels_default(const tern_kernels *kernels, tern_stage_id stage) {
    tern_layout layout = TERN_LAYOUT_NONE;
    switch (stage) {
    case TERN_STAGE_lut_build:
    case TERN_STAGE_lut_gemm:
        layout = kernels->lut_layout;
        break;
    case TERN_STAGE_sign_gemm:
        layout = TERN_LAYOUT_B1;
        break;
    case TERN_STAGE_mad_gemm:
        layout = TERN_LAYOUT_M2;
        break;
    case TERN_STAGE_int8_gemm:
        layout = TERN_LAYOUT_I8;
        break;
    case TERN_STAGE_int8_gemm_b32:
        layout = TERN_LAYOUT_I8B32;
        break;
    case TERN_STAGE_split_gemm_b32:
    case TERN_STAGE_screen_rows:
    case TERN_STAGE_screen:
    case TERN_STAGE_screen_project:
        layout = TERN_LAYOUT_I8S32;
        break;
    case TERN_STAGE_int4_gemm_b32:
        layout = TERN_LAYOUT_I4B32;
        break;
    case TERN_STAGE_int6_gemm_b32:
        layout = TERN_LAYOUT_I6B32;
        break;
    default:
        break;
    }
    return kernels->chosen[stage][layout];
}
