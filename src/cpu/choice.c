// SPDX-License-Identifier: MIT
// The choice of a layout for ternary weights: a tuning table's nearest case, or the built-in rules.
#include "cpu/choice.h"

// A measured shape says nothing of one that is more than this many times wider or deeper.
static const double shape_ratio_max = 4;

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
    return (distance){ratio(r->m, c->m ? c->m : 1), r->cached != c->cached, ratio(r->n, c->n) * ratio(r->k, c->k)};
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

// ---- built in ------------------------------------------------------------------------------------------------------

static tern_layout built_in(const tern_kernels *kernels, const tern_choice *c) {
    const tern_form form = c->form == TERN_FORM_AUTO ? kernels->ternary_form : c->form;
    return form == TERN_FORM_LUT ? kernels->lut_layout : TERN_LAYOUT_M2;
}

tern_layout tern_choose_layout(const tern_kernels *kernels, const tern_choice *choice, const tern_tune_table *table) {
    if (kernels->forced_layout != TERN_LAYOUT_NONE && allowed(kernels, kernels->forced_layout, choice->form))
        return kernels->forced_layout;
    const tern_tune_row *row = table ? best_row(kernels, choice, table) : NULL;
    return row ? row->layout : built_in(kernels, choice);
}
