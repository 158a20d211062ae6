// SPDX-License-Identifier: MIT
// The only chooser: which variant runs for each stage and layout.
#ifndef TERN_CPU_DISPATCH_H
#define TERN_CPU_DISPATCH_H

#include "cpu/cpuid.h"
#include "tern/matmul.h"

typedef void tern_any_fn(void);

typedef struct tern_variant {
    tern_stage_id stage;
    tern_tier tier;
    tern_layout layout;
    const char *symbol;
    tern_any_fn *fn; // cast back to the stage's type before the call
} tern_variant;

extern const tern_variant tern_variants[];
extern const size_t tern_variants_count;

// One chosen variant for each (stage, layout), NULL where none exists.
typedef struct tern_kernels {
    tern_tier tier; // nothing above it is chosen
    const tern_variant *chosen[TERN_STAGE_COUNT][TERN_LAYOUT_COUNT];
    tern_layout lut_layout;    // preferred layout of new LUT weights
    tern_form ternary_form;    // the built-in meaning of TERN_FORM_AUTO: LUT or MAD
    tern_layout forced_layout; // of a forced ternary GEMM: new weights get it; else NONE
} tern_kernels;

void tern_kernels_choose(tern_kernels *kernels, tern_tier tier);

// Replaces the choice for the variant's stage and layout; a ternary GEMM also becomes the form and layout of new weights.
void tern_kernels_force(tern_kernels *kernels, const tern_variant *variant);

const tern_variant *tern_variant_find(const char *symbol); // NULL: no such symbol

// The variant that runs a stage on its default layout (new weights'), NULL where none exists.
const tern_variant *tern_kernels_default(const tern_kernels *kernels, tern_stage_id stage);

bool tern_stage_parse(const char *name, tern_stage_id *stage); // exact names only

const char *tern_stage_name(tern_stage_id stage);
bool tern_layout_parse(const char *name, tern_layout *layout); // exact names only, not "-"
const char *tern_layout_name(tern_layout layout);              // "-", "t5", "t2n", "t3", "b1", "m2", "i8", "i8b32", "i4b32", ...

// The chosen function of a stage, with its real type: TERN_KERNEL(kernels, lut_gemm, layout)(&args)
#define TERN_KERNEL(kernels, stage, layout) ((tern_##stage##_fn *)(kernels)->chosen[TERN_STAGE_##stage][layout]->fn)

#endif
