// SPDX-License-Identifier: MIT
// Plans: weights sorted into groups and sets, one carved workspace, and a run of it all as one region.
#include "matmul/plan.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

// ---- sorting weights into sets ------------------------------------------------------------------------------------

static bool has_tables(const tern_weights *w) { return w->traits->table_bytes != 0; }

static bool same_set(const tern_weights *a, const tern_weights *b) {
    if (tern_weights_act_block(a) != tern_weights_act_block(b)) return false;
    return has_tables(a) ? has_tables(b) && tern_tables_shared(a, b) : !has_tables(b);
}

static size_t find_group(tern_plan *plan, const tern_weights *w) {
    const size_t block = tern_weights_act_block(w), elems = block ? block : w->k;
    size_t g = 0;
    while (g < plan->n_groups && plan->groups[g].view.block != elems) g++;
    if (g == plan->n_groups)
        plan->groups[plan->n_groups++] = (tern_plan_group){.view = tern_act_shape(plan->max_m, w->k, block)};
    plan->groups[g].has_tables |= has_tables(w);
    return g;
}

// The form for m tokens of each weight, in sets: one for each weight that no set before it takes.
static void sort_weights(tern_plan *plan, tern_plan_forms *forms, const tern_weights *const *weights, size_t m) {
    size_t placed = 0;
    for (size_t i = 0; i < plan->n_weights; i++) {
        const tern_weights *w = tern_weights_form(weights[i], m);
        bool taken = false;
        for (size_t s = 0; s < forms->n_sets; s++) taken |= same_set(forms->weights[forms->sets[s].first], w);
        if (taken) continue;
        tern_plan_set *set = &forms->sets[forms->n_sets++];
        *set = (tern_plan_set){.group = find_group(plan, w), .first = placed};
        for (size_t j = i; j < plan->n_weights; j++) {
            const tern_weights *other = tern_weights_form(weights[j], m);
            if (!same_set(w, other)) continue;
            forms->weights[placed] = other;
            forms->units[placed] = other->n_units;
            forms->index[placed++] = j;
        }
        set->count = placed - set->first;
    }
}

// ---- memory -------------------------------------------------------------------------------------------------------

// Cuts a block into 64-byte aligned pieces; with base NULL it only adds up their sizes.
typedef struct carver {
    unsigned char *base;
    size_t used;
    bool overflow;
} carver;

static void *carve(carver *c, size_t count, size_t size) {
    const size_t at = c->used;
    size_t bytes, end;
    if (!tern_mul_size(count, size, &bytes) || bytes > SIZE_MAX - (size_t)2 * TERN_CACHE_LINE ||
        !tern_add_size(at, tern_round_up(bytes, TERN_CACHE_LINE), &end)) {
        c->overflow = true;
        return NULL;
    }
    c->used = end;
    return c->base ? c->base + at : NULL;
}

static void carve_rows(carver *c, tern_act_view *view, size_t rows) {
    view->q = carve(c, rows, view->ldq);
    view->scales = carve(c, rows * view->ld_blocks, sizeof *view->scales);
    view->sums = carve(c, rows * view->ld_blocks, sizeof *view->sums);
    view->shifts = carve(c, rows, sizeof *view->shifts);
    view->flags = carve(c, rows, 1);
}

static void carve_tables(const tern_plan *plan, tern_plan_forms *forms, carver *c) {
    const size_t tokens = plan->max_m < TERN_LUT_TOKENS ? plan->max_m : TERN_LUT_TOKENS;
    for (size_t s = 0; s < forms->n_sets; s++) {
        tern_plan_set *set = &forms->sets[s];
        const tern_weights *w = forms->weights[set->first];
        if (!has_tables(w)) continue;
        set->ld_tables = tern_round_up(tern_tables_bytes(w), TERN_CACHE_LINE);
        set->tables = carve(c, tokens, set->ld_tables);
        if (plan->max_m > TERN_LUT_TOKENS) set->private_tables = carve(c, plan->max_parts * TERN_LUT_TOKENS, set->ld_tables);
    }
}

static void carve_workspace(tern_plan *plan, carver *c) {
    for (size_t g = 0; g < plan->n_groups; g++) {
        tern_plan_group *group = &plan->groups[g];
        carve_rows(c, &group->view, plan->max_m);
        group->private = group->view;
        if (group->has_tables) carve_rows(c, &group->private, plan->max_parts);
    }
    for (size_t f = 0; f < TERN_PLAN_FORMS; f++) carve_tables(plan, &plan->forms[f], c);
}

// The plan's own book-keeping, apart from the workspace.
static bool allocate(tern_plan *plan, bool any_tables) {
    const size_t n = plan->n_weights;
    const tern_allocator *a = &plan->allocator;
    const size_t rounds_m = any_tables ? plan->max_m : 1;
    plan->max_stages = n + tern_products_stages(n, rounds_m); // at most one group per weight
    plan->args_bytes =
        n * tern_round_up(sizeof(tern_act_prepare), TERN_REGION_ARG_ALIGN) + tern_products_arg_bytes(n, rounds_m);
    bool forms = true;
    for (size_t f = 0; f < TERN_PLAN_FORMS; f++) {
        tern_plan_forms *form = &plan->forms[f];
        form->weights = tern_alloc(a, n, sizeof(const tern_weights *));
        form->units = tern_alloc(a, n, sizeof *form->units);
        form->index = tern_alloc(a, n, sizeof *form->index);
        form->sets = tern_alloc(a, n, sizeof *form->sets);
        forms = forms && form->weights && form->units && form->index && form->sets;
    }
    plan->products = tern_alloc(a, n, sizeof *plan->products);
    plan->groups = tern_alloc(a, n, sizeof *plan->groups);
    plan->stages = tern_alloc(a, plan->max_stages, sizeof *plan->stages);
    plan->args = tern_alloc(a, plan->args_bytes, 1);
    return forms && plan->products && plan->groups && plan->stages && plan->args;
}

void tern_plan_destroy(tern_plan *plan) {
    if (!plan) return;
    const tern_allocator a = plan->allocator;
    const size_t n = plan->n_weights;
    for (size_t f = 0; f < TERN_PLAN_FORMS; f++) {
        const tern_plan_forms *form = &plan->forms[f];
        tern_free(&a, form->weights, n, sizeof(const tern_weights *));
        tern_free(&a, form->units, n, sizeof *form->units);
        tern_free(&a, form->index, n, sizeof *form->index);
        tern_free(&a, form->sets, n, sizeof *form->sets);
    }
    tern_free(&a, plan->products, n, sizeof *plan->products);
    tern_free(&a, plan->groups, n, sizeof *plan->groups);
    tern_free(&a, plan->stages, plan->max_stages, sizeof *plan->stages);
    tern_free(&a, plan->args, plan->args_bytes, 1);
    if (plan->owns_workspace) tern_free(&a, plan->workspace, plan->workspace_bytes, 1);
    tern_free(&a, plan, 1, sizeof *plan);
}

// ---- creation -----------------------------------------------------------------------------------------------------

static tern_status check_weight(tern_context *ctx, const tern_plan_params *p, size_t i) {
    tern_error *err = &ctx->error;
    const tern_weights *w = p->weights[i], *first = p->weights[0];
    if (!w) return tern_fail(err, TERN_ERR_ARG, "weights[%zu] of the plan is NULL", i);
    if (w->k != first->k)
        return tern_fail(err, TERN_ERR_ARG, "depths differ: weights[%zu] has k = %zu, weights[0] k = %zu", i, w->k, first->k);
    const size_t block = tern_weights_act_block(w);
    if (p->y_type == TERN_TYPE_S32 && (block || tern_scales_among_codes(w)))
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "weights[%zu] has block scales, so it has no single integer result", i);
    if ((p->x_type == TERN_TYPE_S8 || p->x_type == TERN_TYPE_U8) && block != tern_weights_act_block(first))
        return tern_fail(err, TERN_ERR_ARG, "weights[%zu] needs act_block = %zu, weights[0] %zu: s8 and u8 come with one", i,
                         block, tern_weights_act_block(first));
    for (const tern_weights *form = w; form; form = form->many)
        if (!ctx->kernels.chosen[form->traits->stage][form->layout])
            return tern_fail(err, TERN_ERR_CPU, "no kernel of tier %s reads layout %s of weights[%zu]",
                             tern_tier_name(ctx->kernels.tier), tern_layout_name(form->layout), i);
    return TERN_OK;
}

static tern_status read_params(tern_context *ctx, const tern_plan_params *params, tern_plan_params *p) {
    tern_error *err = &ctx->error;
    tern_status status = tern_params_read(p, sizeof *p, params, "tern_plan_params", err);
    if (status != TERN_OK) return status;
    if (!p->weights || p->n_weights == 0) return tern_fail(err, TERN_ERR_ARG, "a plan needs at least one weight");
    if (p->x_type < TERN_TYPE_F32 || p->x_type > TERN_TYPE_U8)
        return tern_fail(err, TERN_ERR_ARG, "x_type = %d is not a type of activations", (int)p->x_type);
    if (p->y_type < TERN_TYPE_F32 || p->y_type > TERN_TYPE_S32 || p->y_type == TERN_TYPE_S8 || p->y_type == TERN_TYPE_U8)
        return tern_fail(err, TERN_ERR_ARG, "y_type = %d is not a type of outputs", (int)p->y_type);
    if (p->max_m == 0) p->max_m = 1;
    if (p->max_m > TERN_PLAN_M_MAX) return tern_fail(err, TERN_ERR_ARG, "max_m = %zu is above %d", p->max_m, TERN_PLAN_M_MAX);
    if (p->max_parts == 0) p->max_parts = (size_t)ctx->threads;
    for (size_t i = 0; i < p->n_weights && status == TERN_OK; i++) status = check_weight(ctx, p, i);
    return status;
}

// A plan without workspace, whose need is in workspace_bytes.
static tern_status create(tern_context *ctx, tern_plan **out, const tern_plan_params *p) {
    tern_plan *plan = tern_alloc(&ctx->allocator, 1, sizeof *plan);
    if (!plan) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");
    plan->ctx = ctx;
    plan->allocator = ctx->allocator;
    plan->k = p->weights[0]->k;
    plan->max_m = p->max_m;
    plan->max_parts = p->max_parts;
    plan->x_type = p->x_type;
    plan->y_type = p->y_type;
    plan->act_block = tern_weights_act_block(p->weights[0]);
    plan->n_weights = p->n_weights;
    plan->row_sums = true;
    bool any_tables = false;
    for (size_t i = 0; i < p->n_weights; i++) {
        plan->row_sums &= p->weights[i]->row_sums != NULL;
        const tern_weights *w = p->weights[i];
        any_tables |= has_tables(w) || (w->many && has_tables(w->many));
        if (w->many && w->many_from > plan->many_from) plan->many_from = w->many_from;
    }
    carver measure = {0};
    if (allocate(plan, any_tables)) {
        sort_weights(plan, &plan->forms[0], p->weights, 1);
        if (plan->many_from == 0) plan->many_from = SIZE_MAX; // no second forms
        if (plan->many_from <= plan->max_m) sort_weights(plan, &plan->forms[1], p->weights, plan->many_from);
        carve_workspace(plan, &measure);
    } else {
        measure.overflow = true;
    }
    plan->workspace_bytes = measure.used;
    if (measure.overflow) {
        tern_plan_destroy(plan);
        return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory for a plan of %zu weights and %zu tokens", p->n_weights,
                         p->max_m);
    }
    *out = plan;
    return TERN_OK;
}

tern_status tern_plan_workspace_bytes(tern_context *ctx, const tern_plan_params *params, size_t *bytes) {
    if (!ctx) return TERN_ERR_ARG;
    if (!params || !bytes) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_plan_workspace_bytes needs params and an output");
    tern_plan_params p;
    tern_plan *plan = NULL;
    tern_status status = read_params(ctx, params, &p);
    if (status == TERN_OK) status = create(ctx, &plan, &p);
    if (status == TERN_OK) *bytes = plan->workspace_bytes;
    tern_plan_destroy(plan);
    return status;
}

static tern_status give_workspace(tern_context *ctx, tern_plan *plan, const tern_plan_params *p) {
    if (p->workspace) {
        if ((uintptr_t)p->workspace % TERN_CACHE_LINE)
            return tern_fail(&ctx->error, TERN_ERR_ARG, "the workspace is not aligned to %d bytes", TERN_CACHE_LINE);
        if (p->workspace_bytes < plan->workspace_bytes)
            return tern_fail(&ctx->error, TERN_ERR_ARG, "the workspace has %zu bytes, the plan needs %zu", p->workspace_bytes,
                             plan->workspace_bytes);
        plan->workspace = p->workspace;
    } else {
        plan->workspace = tern_alloc(&plan->allocator, plan->workspace_bytes, 1);
        plan->owns_workspace = true;
        if (!plan->workspace)
            return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory for a workspace of %zu bytes", plan->workspace_bytes);
    }
    carver cut = {.base = plan->workspace};
    carve_workspace(plan, &cut);
    return TERN_OK;
}

tern_status tern_plan_create(tern_context *ctx, tern_plan **out, const tern_plan_params *params) {
    if (!ctx) return TERN_ERR_ARG;
    if (!params || !out) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_plan_create needs params and an output");
    tern_plan_params p;
    tern_plan *plan = NULL;
    tern_status status = read_params(ctx, params, &p);
    if (status == TERN_OK) status = create(ctx, &plan, &p);
    if (status == TERN_OK) status = give_workspace(ctx, plan, &p);
    if (status != TERN_OK) {
        tern_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return TERN_OK;
}

// ---- a batch ------------------------------------------------------------------------------------------------------

tern_status tern_plan_check_input(const tern_plan *plan, const tern_plan_input *input, tern_plan_input *in, tern_error *err) {
    if (!input) return tern_fail(err, TERN_ERR_ARG, "the plan's input is NULL");
    const tern_status status = tern_params_read(in, sizeof *in, input, "tern_plan_input", err);
    if (status != TERN_OK) return status;
    if (!in->x) return tern_fail(err, TERN_ERR_ARG, "x is NULL");
    if (in->m == 0 || in->m > plan->max_m)
        return tern_fail(err, TERN_ERR_ARG, "m = %zu is outside 1..%zu (the plan's max_m)", in->m, plan->max_m);
    if (in->ldx < plan->k) return tern_fail(err, TERN_ERR_ARG, "ldx = %zu is smaller than k = %zu", in->ldx, plan->k);
    const bool codes = plan->x_type == TERN_TYPE_S8 || plan->x_type == TERN_TYPE_U8;
    if (in->scales && !codes) return tern_fail(err, TERN_ERR_ARG, "scales come with s8 and u8 activations only");
    if (in->zero_points && plan->x_type != TERN_TYPE_U8)
        return tern_fail(err, TERN_ERR_ARG, "zero points come with u8 activations only");
    enum { NO_SHIFT = 128 };
    for (size_t t = 0; in->zero_points && !plan->row_sums && t < in->m; t++)
        if (in->zero_points[t] != NO_SHIFT)
            return tern_fail(err, TERN_ERR_UNSUPPORTED,
                             "a zero point other than 128 needs weights packed with row_sums = 1 (token %zu has %d)", t,
                             in->zero_points[t]);
    return TERN_OK;
}

tern_status tern_plan_read_output(const tern_plan *plan, const tern_plan_forms *forms, size_t at,
                                  const tern_plan_output *outputs, size_t m, tern_product *product, tern_error *err) {
    const tern_weights *w = forms->weights[at];
    const size_t i = forms->index[at];
    if (!outputs) return tern_fail(err, TERN_ERR_ARG, "the plan's outputs are NULL");
    if (m == 0 || m > plan->max_m)
        return tern_fail(err, TERN_ERR_ARG, "m = %zu is outside 1..%zu (the plan's max_m)", m, plan->max_m);
    tern_plan_output o;
    const tern_plan_output *given = (const void *)((const unsigned char *)outputs + i * outputs->struct_size);
    const tern_status status = tern_params_read(&o, sizeof o, given, "tern_plan_output", err);
    if (status != TERN_OK) return status;
    if (o.struct_size != outputs->struct_size) return tern_fail(err, TERN_ERR_ARG, "outputs[%zu].struct_size differs", i);
    if (!o.y) return tern_fail(err, TERN_ERR_ARG, "outputs[%zu].y is NULL", i);
    if (o.ldy < w->n) return tern_fail(err, TERN_ERR_ARG, "outputs[%zu].ldy = %zu is smaller than n = %zu", i, o.ldy, w->n);
    if (o.residual && o.ld_residual < w->n)
        return tern_fail(err, TERN_ERR_ARG, "outputs[%zu].ld_residual = %zu is smaller than n = %zu", i, o.ld_residual, w->n);
    if (plan->y_type == TERN_TYPE_S32 && (o.bias || o.residual))
        return tern_fail(err, TERN_ERR_ARG, "outputs[%zu]: exact sums take no bias and no residual", i);
    *product = (tern_product){.w = w,
                              .y = o.y,
                              .y_type = plan->y_type,
                              .ldy = o.ldy,
                              .bias = o.bias,
                              .residual = o.residual,
                              .ld_residual = o.ld_residual};
    return TERN_OK;
}

tern_act_source tern_plan_source(const tern_plan *plan, const tern_plan_input *in) {
    return (tern_act_source){
        .x = in->x, .type = plan->x_type, .ldx = in->ldx, .scales = in->scales, .zero_points = in->zero_points};
}

// ---- one region ---------------------------------------------------------------------------------------------------

typedef struct row_source {
    const tern_kernels *kernels;
    tern_act_source source;
} row_source;
static_assert(sizeof(row_source) <= TERN_SET_ROW_ARG_MAX, "the source of a row fits");

static void set_own_row(const tern_act_view *view, const void *arg, float *unused) {
    const row_source *row = arg;
    (void)unused;
    tern_act_set_row(view, row->kernels, 0, &row->source, 0);
}

static bool is_first_of_group(const tern_plan_forms *forms, size_t s) {
    for (size_t i = 0; i < s; i++)
        if (forms->sets[i].group == forms->sets[s].group) return false;
    return true;
}
static bool is_only_of_group(const tern_plan_forms *forms, size_t s) {
    for (size_t i = s + 1; i < forms->n_sets; i++)
        if (forms->sets[i].group == forms->sets[s].group) return false;
    return is_first_of_group(forms, s);
}

// Some output of a one-token run is written over x, which is then quantized before.
static bool overlaps_input(const tern_plan *plan, const tern_plan_input *in) {
    enum { ELEM_MAX = sizeof(float) };
    const uintptr_t x = (uintptr_t)in->x, x_end = x + plan->k * ELEM_MAX;
    for (size_t i = 0; i < plan->n_weights; i++) {
        const uintptr_t y = (uintptr_t)plan->products[i].y, y_end = y + plan->products[i].w->n * ELEM_MAX;
        if (y < x_end && x < y_end) return true;
    }
    return false;
}

// Checks a run and appends its stages to an empty region over the plan's own storage, which has room for all of them.
static tern_status append_run(tern_plan *plan, tern_region *region, const tern_plan_input *input,
                              const tern_plan_output *outputs) {
    tern_plan_input in;
    tern_status status = tern_plan_check_input(plan, input, &in, &plan->ctx->error);
    if (status != TERN_OK) return status;
    const tern_plan_forms *forms = tern_plan_forms_for(plan, in.m);
    for (size_t i = 0; i < plan->n_weights && status == TERN_OK; i++)
        status = tern_plan_read_output(plan, forms, i, outputs, in.m, &plan->products[i], &plan->ctx->error);
    if (status != TERN_OK) return status;
    tern_region_init(region, plan->ctx, plan->stages, plan->max_stages, plan->args, plan->args_bytes);
    atomic_store_explicit(&plan->prepared_m, 0, memory_order_relaxed); // the region takes the rows and tables of the parts
    atomic_store_explicit(&plan->not_finite, 0, memory_order_relaxed); // relaxed: no region is running
    const row_source row = {&plan->ctx->kernels, tern_plan_source(plan, &in)};
    for (size_t s = 0; s < forms->n_sets; s++) {
        const tern_plan_set *set = &forms->sets[s];
        tern_act_view view = plan->groups[set->group].view;
        view.m = in.m;
        view.not_finite = &plan->not_finite;
        view.tables = set->tables;
        view.ld_tables = set->ld_tables;
        if (is_first_of_group(forms, s)) {
            const tern_product *products = plan->products + set->first;
            if (is_only_of_group(forms, s) && !overlaps_input(plan, &in) &&
                tern_products_add_own_rows(region, &view, products, set->count, set_own_row, &row, sizeof row))
                continue;
            const size_t tiles = tern_act_tiles(in.m, plan->k, (size_t)plan->ctx->threads);
            const tern_act_prepare prepare = {view, row.kernels, row.source, tiles};
            tern_region_add(region, "prepare", tern_act_prepare_tile, &prepare, sizeof prepare, tiles);
        }
        tern_products_add(region, &view, plan->products + set->first, set->count, false);
    }
    return TERN_OK;
}

static tern_status check_finite(const tern_plan *plan) {
    if (!atomic_load_explicit(&plan->not_finite, memory_order_relaxed)) return TERN_OK; // relaxed: no region is running
    return tern_fail(&plan->ctx->error, TERN_ERR_ARG, "x or its scales hold a NaN or an infinity; the outputs are not valid");
}

tern_status tern_plan_run(tern_plan *plan, const tern_plan_input *input, const tern_plan_output *outputs) {
    if (!plan) return TERN_ERR_ARG;
    tern_region region;
    tern_status status = append_run(plan, &region, input, outputs);
    if (status == TERN_OK) status = tern_region_run(&region);
    return status == TERN_OK ? check_finite(plan) : status;
}

tern_status tern_plan_stages(tern_plan *plan, const tern_plan_input *input, const tern_plan_output *outputs, tern_stage *stages,
                             size_t max_stages, size_t *n_stages) {
    if (!plan || !stages || !n_stages) return TERN_ERR_ARG;
    tern_region region;
    const tern_status status = append_run(plan, &region, input, outputs);
    if (status != TERN_OK) return status;
    if (region.n_stages > max_stages)
        return tern_fail(&plan->ctx->error, TERN_ERR_ARG, "max_stages = %zu is less than the %zu stages of this run",
                         max_stages, region.n_stages);
    memcpy(stages, region.stages, region.n_stages * sizeof *stages);
    *n_stages = region.n_stages;
    return TERN_OK;
}

tern_status tern_plan_check(const tern_plan *plan) { return plan ? check_finite(plan) : TERN_ERR_ARG; }
