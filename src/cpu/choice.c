// SPDX-License-Identifier: MIT
// The choice of a layout for ternary weights: a tuning table's nearest case, or the built-in rules.
#include "cpu/choice.h"

#include <math.h>

// A measured shape says nothing of one that is more than this many times wider or deeper.
static const double shape_ratio_max = 4;
enum { MANY_TOKENS = 512 };

static double ratio(size_t a, size_t b) { return a > b ? (double)a / (double)b : (double)b / (double)a; }

// Whether new weights of this form may have this layout here.
static bool allowed(const tern_kernels *kernels, tern_layout layout, tern_form form) {
    if (kernels->chosen[TERN_STAGE_lut_gemm][layout]) return form != TERN_FORM_MAD;
    return kernels->chosen[TERN_STAGE_mad_gemm][layout] && form != TERN_FORM_LUT;
}

// ---- from a table --------------------------------------------------------------------------------------------------

// How far a measured case is from the choice; less is nearer. Tokens weigh most, then residency, then the shape.
typedef struct distance {
    double tokens;
    bool residency;
    double shape;
} distance;

static bool comparable(const tern_choice *c, const tern_tune_row *r) {
    return r->scale_block == c->scale_block && ratio(r->n, c->n) <= shape_ratio_max && ratio(r->k, c->k) <= shape_ratio_max;
}
static distance distance_to(const tern_choice *c, const tern_tune_row *r) {
    return (distance){ratio(r->m, c->m), r->cached != c->cached, ratio(r->n, c->n) * ratio(r->k, c->k)};
}
static int compare(distance a, distance b) {
    if (a.tokens != b.tokens) return a.tokens < b.tokens ? -1 : 1;
    if (a.residency != b.residency) return a.residency ? 1 : -1;
    return (a.shape > b.shape) - (a.shape < b.shape);
}

// The fastest row of the nearest case, or NULL.
static const tern_tune_row *best_row(const tern_kernels *kernels, const tern_choice *c, const tern_tune_table *table) {
    const tern_tune_row *best = NULL;
    for (size_t i = 0; i < table->n; i++) {
        const tern_tune_row *r = &table->rows[i];
        if (!allowed(kernels, r->layout, c->form) || !comparable(c, r)) continue;
        const int order = best ? compare(distance_to(c, r), distance_to(c, best)) : -1;
        if (order < 0 || (order == 0 && r->speed > best->speed)) best = r;
    }
    return best;
}

static bool same_case(const tern_tune_row *a, const tern_tune_row *b) {
    return a->n == b->n && a->k == b->k && a->scale_block == b->scale_block && a->m == b->m && a->cached == b->cached;
}
static double speed_in_case(const tern_tune_table *table, const tern_tune_row *of, tern_layout layout) {
    for (size_t i = 0; i < table->n; i++)
        if (table->rows[i].layout == layout && same_case(&table->rows[i], of)) return (double)table->rows[i].speed;
    return 0;
}

// For a number of tokens that is not known: the layout that loses least against the fastest, where it loses most, with one
// token and with many.
static tern_layout balanced(const tern_kernels *kernels, const tern_choice *c, const tern_tune_table *table) {
    tern_choice one = *c, many = *c;
    one.m = 1;
    many.m = MANY_TOKENS;
    many.cached = true;
    const tern_tune_row *best_one = best_row(kernels, &one, table), *best_many = best_row(kernels, &many, table);
    if (!best_one || !best_many) return TERN_LAYOUT_NONE;
    tern_layout best = best_one->layout;
    double least = (double)INFINITY;
    for (int layout = 0; layout < TERN_LAYOUT_COUNT; layout++) {
        const double speed_one = speed_in_case(table, best_one, (tern_layout)layout),
                     speed_many = speed_in_case(table, best_many, (tern_layout)layout);
        if (speed_one == 0 || speed_many == 0 || !allowed(kernels, (tern_layout)layout, c->form)) continue;
        const double loss = fmax((double)best_one->speed / speed_one, (double)best_many->speed / speed_many);
        if (loss >= least) continue;
        least = loss;
        best = (tern_layout)layout;
    }
    return best;
}

static tern_layout from_table(const tern_kernels *kernels, const tern_choice *c, const tern_tune_table *table) {
    if (c->m == 0) return balanced(kernels, c, table);
    const tern_tune_row *row = best_row(kernels, c, table);
    return row ? row->layout : TERN_LAYOUT_NONE;
}

// ---- built in ------------------------------------------------------------------------------------------------------
// AVX2 and scalar rules are from `tern tune` on a Zen 3 (docs/data_flow.md has the figures); those of AVX-512 are from the
// instruction counts in kernels/.

enum {
    SCALAR_LUT_ROWS = 1024,  // narrower slabs leave the scalar lookup short of work between tables
    LARGE_WEIGHTS = 1 << 23, // n * k whose codes are far above L2: there the shuffles of T2N hide behind L3
    VBMI_LUT_TOKENS = 16     // up to here one pass over 1.6-bit codes serves all tokens; above, vpdpbusd needs no tables
};

static tern_form built_in_form(const tern_kernels *kernels, const tern_choice *c) {
    switch (kernels->tier) {
    case TERN_TIER_SCALAR:
        return c->n < SCALAR_LUT_ROWS ? TERN_FORM_MAD : TERN_FORM_LUT;
    case TERN_TIER_AVX2: // one token: fewer bits where several threads share DRAM; several: a panel is decoded once for all of
                         // them
        return c->m == 1 && (c->cached ? c->n * c->k >= LARGE_WEIGHTS : c->threads > 1) ? TERN_FORM_LUT : TERN_FORM_MAD;
    case TERN_TIER_AVX512VBMI:
        return c->m > VBMI_LUT_TOKENS ? TERN_FORM_MAD : TERN_FORM_LUT;
    default:
        return kernels->ternary_form;
    }
}

static tern_layout built_in(const tern_kernels *kernels, const tern_choice *c) {
    const tern_form form = c->form == TERN_FORM_AUTO ? built_in_form(kernels, c) : c->form;
    if (form == TERN_FORM_MAD) return TERN_LAYOUT_M2;
    return kernels->tier == TERN_TIER_AVX2 && c->m == 1 && !c->cached ? TERN_LAYOUT_T3 : kernels->lut_layout;
}

tern_layout tern_choose_layout(const tern_kernels *kernels, const tern_choice *choice, const tern_tune_table *table) {
    if (kernels->forced_layout != TERN_LAYOUT_NONE && allowed(kernels, kernels->forced_layout, choice->form))
        return kernels->forced_layout;
    const tern_layout measured = table ? from_table(kernels, choice, table) : TERN_LAYOUT_NONE;
    return measured != TERN_LAYOUT_NONE ? measured : built_in(kernels, choice);
}
