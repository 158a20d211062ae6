// SPDX-License-Identifier: MIT
// Inputs of projections: an optional element-wise step, then quantizing, as stages in front of the products.
#include "decode/linear.h"

#include <math.h>

_Static_assert(sizeof(tern_input_row) <= TERN_SET_ROW_ARG_MAX, "the arguments of a row fit");

typedef struct prepare_args {
    tern_act_view view; // of tern_rows_add: sizes and not_finite only
    tern_input input;
    size_t n_tiles;
} prepare_args;

static const char *prepare_name(const tern_input_row *a) {
    static const char *const gates[] = {[TERN_GATE_SILU] = "silu, quantize", [TERN_GATE_RELU2] = "relu2, quantize"};
    static const char *const normed_gates[] = {
        [TERN_GATE_SILU] = "silu, norm, quantize", [TERN_GATE_RELU2] = "relu2, norm, quantize"};
    if (a->up) return (a->norm ? normed_gates : gates)[a->gate];
    return a->norm ? "norm, quantize" : "quantize";
}

// Row t: `out`, or the input itself where it has no step. With an order `out` is not the input.
static const float *make_row(const tern_input_row *a, float *out, size_t k, size_t t) {
    const float *x = a->in + t * k;
    if (a->up) {
        if (a->gate == TERN_GATE_RELU2)
            TERN_KERNEL(a->kernels, relu2_mul, TERN_LAYOUT_NONE)(out, x, a->up + t * k, k);
        else
            TERN_KERNEL(a->kernels, silu_mul, TERN_LAYOUT_NONE)(out, x, a->up + t * k, k);
        x = out;
    }
    if (a->order) {
        for (size_t j = 0; j < k; j++) out[j] = x[a->order[j]];
        x = out;
    }
    if (a->norm) {
        TERN_KERNEL(a->kernels, rmsnorm, TERN_LAYOUT_NONE)(out, x, a->norm, k, a->rms_eps);
        x = out;
    }
    return x;
}

static void prepare_row(const tern_act_view *view, const tern_input_row *a, float *out, size_t t) {
    const tern_act_source row = {.x = make_row(a, out, view->k, t), .type = TERN_TYPE_F32};
    tern_act_set_row(view, a->kernels, t, &row, 0);
}

static void prepare_tile(void *arg, size_t tile) {
    const prepare_args *a = arg;
    const size_t end = tern_line_cut(a->view.m, a->n_tiles, tile + 1);
    for (size_t t = tern_line_cut(a->view.m, a->n_tiles, tile); t < end; t++)
        prepare_row(&a->view, &a->input.row, a->input.out + t * a->view.k, t);
}

static void prepare_own_row(const tern_act_view *view, const void *arg, float *x) { prepare_row(view, arg, x, 0); }

tern_act_view tern_input_add(tern_pass *f, size_t tokens, size_t k, tern_input input, size_t block) {
    const prepare_args prepare = {.view = tern_act_begin(f->m->act, tokens, k, block),
                                  .input = input,
                                  .n_tiles = tern_act_tiles(tokens, k, (size_t)f->m->ctx->threads)};
    tern_region_add(&f->region, prepare_name(&input.row), prepare_tile, &prepare, sizeof prepare, prepare.n_tiles);
    return prepare.view;
}

void tern_linear_add(tern_pass *f, size_t tokens, size_t k, tern_input input, const tern_product *products, size_t n_products) {
    bool done[TERN_SHARED_INPUT_MAX] = {false};
    for (size_t i = 0; i < n_products; i++) {
        if (done[i]) continue;
        const size_t block = tern_weights_act_block(products[i].w);
        tern_product group[TERN_SHARED_INPUT_MAX];
        size_t n_group = 0;
        for (size_t j = i; j < n_products; j++)
            if (!done[j] && tern_weights_act_block(products[j].w) == block) {
                group[n_group++] = products[j];
                done[j] = true;
            }
        tern_act_view view = tern_act_begin(f->m->act, tokens, k, block);
        if (tern_products_add_own_rows(&f->region, &view, group, n_group, prepare_own_row, &input.row, sizeof input.row))
            continue;
        view = tern_input_add(f, tokens, k, input, block);
        tern_products_add(&f->region, &view, group, n_group, false);
    }
}

static void rows_tile(void *arg, size_t tile) {
    const prepare_args *a = arg;
    const size_t k = a->view.k, end = tern_line_cut(a->view.m, a->n_tiles, tile + 1);
    for (size_t t = tern_line_cut(a->view.m, a->n_tiles, tile); t < end; t++) {
        const float *x = make_row(&a->input.row, a->input.out + t * k, k, t);
        for (size_t i = 0; i < k; i++)
            // relaxed: read after the region
            if (!isfinite(x[i])) atomic_store_explicit(a->view.not_finite, 1, memory_order_relaxed);
    }
}

void tern_rows_add(tern_pass *f, size_t tokens, size_t k, tern_input input) {
    const prepare_args prepare = {.view = {.m = tokens, .k = k, .not_finite = &f->m->act->not_finite},
                                  .input = input,
                                  .n_tiles = tern_act_tiles(tokens, k, (size_t)f->m->ctx->threads)};
    tern_region_add(&f->region, "norm", rows_tile, &prepare, sizeof prepare, prepare.n_tiles);
}

tern_input tern_input_normed(const tern_pass *f, const float *x, const float *weight, float *out) {
    return (tern_input){.row = {.kernels = f->kernels, .in = x, .norm = weight, .rms_eps = f->h->rms_eps}, .out = out};
}

tern_input tern_input_gated(const tern_pass *f, const float *gate, const float *up, const float *sub_norm, float *out) {
    tern_input input = tern_input_normed(f, gate, sub_norm, out);
    input.row.up = up;
    input.row.gate = f->h->arch->gate;
    return input;
}
