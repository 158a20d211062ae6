// SPDX-License-Identifier: MIT
// The variants of kernels/variants.inc for tests that call kernels without the library around them.
#ifndef TERN_TESTS_KERNEL_VARIANTS_H
#define TERN_TESTS_KERNEL_VARIANTS_H

#include "cpu_tiers.h"
#include "kernels/kernels.h"
#include "test_random.h"
#include "test_scale.h"

typedef void any_fn(void);
typedef struct variant {
    tern_stage_id stage;
    tern_tier tier;
    tern_layout layout;
    const char *symbol;
    any_fn *fn; // cast back to the stage's type before the call
} variant;

static const variant variants[] = {
#define TERN_VARIANT(stage, TIER, LAYOUT, symbol)                                                                              \
    {TERN_STAGE_##stage, TERN_TIER_##TIER, TERN_LAYOUT_##LAYOUT, #symbol, (any_fn *)(symbol)},
#include "kernels/variants.inc"
#undef TERN_VARIANT
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

static const char *running = ""; // symbol of the variant under test, for messages

// The next variant from *at on of one of two stages that this CPU can run; NULL after the last.
static inline const variant *next_variant(size_t *at, tern_stage_id stage, tern_stage_id other_stage) {
    while (*at < N_VARIANTS) {
        const variant *v = &variants[(*at)++];
        if ((v->stage != stage && v->stage != other_stage) || !test_cpu_has_tier(v->tier)) continue;
        running = v->symbol;
        return v;
    }
    return NULL;
}

// The function of variant v, or NULL if it is of another stage or this CPU cannot run it.
static inline any_fn *use_variant(size_t v, tern_stage_id stage) {
    if (variants[v].stage != stage || !test_cpu_has_tier(variants[v].tier)) return NULL;
    running = variants[v].symbol;
    return variants[v].fn;
}

// Loops over the variants of a stage that this CPU can run; `function` is each in turn.
#define FOR_EACH_VARIANT(stage_name, function)                                                                                 \
    for (size_t v_ = 0; v_ < N_VARIANTS; v_++)                                                                                 \
        for (tern_##stage_name##_fn *function = (tern_##stage_name##_fn *)use_variant(v_, TERN_STAGE_##stage_name); function;  \
             function = NULL)

// A group setup of cmocka: seeds the test, and says what it does not cover here.
static inline int start_kernel_test(void **state) {
    const int status = start_random(state);
    print_message("not run on this CPU:");
    for (size_t v = 0; v < N_VARIANTS; v++) {
        if (!test_cpu_has_tier(variants[v].tier)) print_message(" %s", variants[v].symbol);
    }
    print_message("\n");
    return status;
}

#endif
