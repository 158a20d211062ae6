// SPDX-License-Identifier: MIT
// Plans in the threads of an engine: each part prepares, and later multiplies, a share that depends on nothing but its number.
#include "matmul/plan.h"

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

// Share `ith` of 0 .. count - 1 among n: first inclusive, last exclusive.
typedef struct share {
    size_t first, last;
} share;
static share share_of(size_t count, size_t ith, size_t n) {
    return (share){tern_line_cut(count, n, ith), tern_line_cut(count, n, ith + 1)};
}

// ---- preparing ----------------------------------------------------------------------------------------------------

// Tables of all tokens are built while preparing if they are few; else each part builds its own while it multiplies.
static bool tables_are_shared(size_t m) { return m <= TERN_LUT_TOKENS; }

// Enough tokens: each part prepares whole ones.
static bool prepare_tokens(const tern_plan *plan, const tern_plan_input *in, size_t ith, size_t n) {
    const tern_kernels *kernels = &plan->ctx->kernels;
    const tern_act_source source = tern_plan_source(plan, in);
    const share tokens = share_of(in->m, ith, n);
    bool finite = true;
    for (size_t g = 0; g < plan->n_groups; g++)
        for (size_t t = tokens.first; t < tokens.last; t++)
            finite &= tern_act_set_row(&plan->groups[g].view, kernels, t, &source, t);
    const tern_plan_forms *forms = tern_plan_forms_for(plan, in->m);
    for (size_t s = 0; s < forms->n_sets && tables_are_shared(in->m); s++) {
        const tern_plan_set *set = &forms->sets[s];
        const tern_act_view *view = &plan->groups[set->group].view;
        const tern_weights *w = forms->weights[set->first];
        for (size_t t = tokens.first; set->tables && t < tokens.last; t++)
            tern_tables_build(kernels, w, set->tables + t * set->ld_tables, view->q + t * view->ldq, 0, tern_tables_rows(w));
    }
    return finite;
}

// Fewer tokens than parts, and tables to build: each part builds a share of the tables of every token, from a row that it
// quantizes for itself (a row costs little beside its tables). One part per token also keeps the row for all.
static bool prepare_shares(const tern_plan *plan, const tern_plan_input *in, size_t ith, size_t n) {
    const tern_kernels *kernels = &plan->ctx->kernels;
    const tern_act_source source = tern_plan_source(plan, in);
    const tern_plan_forms *forms = tern_plan_forms_for(plan, in->m);
    bool finite = true;
    for (size_t g = 0; g < plan->n_groups; g++) {
        const tern_plan_group *group = &plan->groups[g];
        for (size_t t = 0; t < in->m; t++) {
            if (t % n == ith) finite &= tern_act_set_row(&group->view, kernels, t, &source, t);
            if (!group->has_tables) continue;
            finite &= tern_act_set_row(&group->private, kernels, ith, &source, t);
            for (size_t s = 0; s < forms->n_sets; s++) {
                const tern_plan_set *set = &forms->sets[s];
                if (set->group != g || !set->tables) continue;
                const tern_weights *w = forms->weights[set->first];
                const share rows = share_of(tern_tables_rows(w), ith, n);
                tern_tables_build(kernels, w, set->tables + t * set->ld_tables, group->private.q + ith * group->private.ldq,
                                  rows.first, rows.last);
            }
        }
    }
    return finite;
}

tern_status tern_prepare_part(tern_plan *plan, const tern_plan_input *input, size_t ith, size_t nth) {
    if (!plan || nth == 0 || ith >= nth) return TERN_ERR_ARG;
    tern_plan_input in;
    const tern_status status = tern_plan_check_input(plan, input, &in, NULL);
    // relaxed: every part writes the same, and the engine's barrier orders it before the products
    atomic_store_explicit(&plan->prepared_m, status == TERN_OK ? in.m : 0, memory_order_relaxed);
    if (status != TERN_OK) return status;
    const size_t n = min_size(nth, plan->max_parts);
    if (ith >= n) return TERN_OK;
    const bool few = in.m < n && tables_are_shared(in.m);
    const bool finite = few ? prepare_shares(plan, &in, ith, n) : prepare_tokens(plan, &in, ith, n);
    return finite ? TERN_OK : TERN_ERR_ARG;
}

// ---- multiplying --------------------------------------------------------------------------------------------------

// What a part multiplies: a run of m tokens of one set.
typedef struct set_run {
    const tern_plan *plan;
    const tern_plan_forms *forms;
    const tern_plan_set *set;
    const tern_plan_output *outputs;
    tern_act_view view;
    size_t ith, n;
} set_run;

static tern_product product_of(const set_run *r, size_t at) {
    tern_product product;
    (void)tern_plan_read_output(r->plan, r->forms, at, r->outputs, r->view.m, &product, NULL); // checked before
    return product;
}

// Some units of a weight, all tokens: one forward stream of codes.
static void run_units(const set_run *r, const tern_product *p, share units) {
    const tern_weights *w = p->w;
    const size_t end = min_size(units.last * w->unit_rows, w->n_padded), step = tern_tile_rows_max(w, r->view.m);
    for (size_t n0 = units.first * w->unit_rows; n0 < end; n0 += step)
        tern_tile_run(&r->view, &r->plan->ctx->kernels, p, n0, min_size(step, end - n0), 0, r->view.m, 0);
}

// The units of all weights of a set stand in one line, which is cut into equal shares.
static void multiply_units(const set_run *r) {
    const size_t *units = r->forms->units + r->set->first;
    const tern_sharing sharing = {.n = r->n};
    size_t length = 0;
    for (size_t i = 0; i < r->set->count; i++) length += units[i];
    const share mine = share_of(length, r->ith, r->n);
    for (size_t at = mine.first, count; at < mine.last; at += count) {
        const tern_line_run run = tern_line_at(&sharing, units, r->set->count, at);
        count = min_size(run.count, mine.last - at);
        const tern_product p = product_of(r, r->set->first + run.weight);
        run_units(r, &p, (share){run.unit, run.unit + count});
    }
}

// Many tokens and tables: parts take rounds of tokens in turn and build the tables of each round for themselves.
static void multiply_rounds(set_run *r) {
    const tern_kernels *kernels = &r->plan->ctx->kernels;
    const tern_weights *w = r->forms->weights[r->set->first];
    tern_act_view *view = &r->view;
    view->tables = r->set->private_tables + r->ith * TERN_LUT_TOKENS * r->set->ld_tables;
    for (size_t t0 = r->ith * TERN_LUT_TOKENS; t0 < view->m; t0 += r->n * TERN_LUT_TOKENS) {
        const size_t m = min_size(TERN_LUT_TOKENS, view->m - t0);
        for (size_t t = 0; t < m; t++)
            tern_tables_build(kernels, w, view->tables + t * view->ld_tables, view->q + (t0 + t) * view->ldq, 0,
                              tern_tables_rows(w));
        for (size_t i = 0; i < r->set->count; i++) {
            const tern_product p = product_of(r, r->set->first + i);
            for (size_t n0 = 0; n0 < p.w->n_padded; n0 += p.w->unit_rows)
                tern_tile_run(view, kernels, &p, n0, min_size(p.w->unit_rows, p.w->n_padded - n0), t0, m, t0);
        }
    }
}

tern_status tern_matmul_part(tern_plan *plan, size_t m, const tern_plan_output *outputs, size_t ith, size_t nth) {
    if (!plan || nth == 0 || ith >= nth) return TERN_ERR_ARG;
    const tern_plan_forms *forms = tern_plan_forms_for(plan, m);
    tern_product unused;
    for (size_t i = 0; i < plan->n_weights; i++) {
        const tern_status status = tern_plan_read_output(plan, forms, i, outputs, m, &unused, NULL);
        if (status != TERN_OK) return status;
    }
    if (m != atomic_load_explicit(&plan->prepared_m, memory_order_relaxed)) return TERN_ERR_STATE; // rows that nobody wrote
    for (size_t s = 0; s < forms->n_sets; s++) {
        const tern_plan_set *set = &forms->sets[s];
        set_run run = {plan, forms, set, outputs, plan->groups[set->group].view, ith, nth};
        run.view.m = m;
        run.view.tables = set->tables;
        run.view.ld_tables = set->ld_tables;
        if (!set->tables || tables_are_shared(m)) {
            multiply_units(&run);
            continue;
        }
        run.n = min_size(nth, plan->max_parts);
        if (ith < run.n) multiply_rounds(&run);
    }
    return TERN_OK;
}
