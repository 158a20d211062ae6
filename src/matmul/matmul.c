// SPDX-License-Identifier: MIT
// The public products: argument checks around one region.
#include <stdalign.h>

#include "matmul/product.h"
#include "tern/matmul.h"

enum { TERN_MATMUL_STAGES = 16, TERN_MATMUL_ARGS = 4096 };

static tern_status check(tern_context *ctx, const tern_weights *w, const tern_activations *a, const void *y, size_t ldy,
                         bool s32) {
    if (!ctx) return TERN_ERR_ARG;
    tern_error *err = &ctx->error;
    if (!w || !a || !y) return tern_fail(err, TERN_ERR_ARG, "the product's weights, activations or output is NULL");
    if (a->ctx != ctx) return tern_fail(err, TERN_ERR_ARG, "the activations belong to another context");
    if (a->view.m == 0)
        return tern_fail(err, TERN_ERR_STATE,
                         "the activations hold nothing: call tern_activations_set_f32, _f16, _bf16, _s8 or _u8 first");
    if (a->view.k != w->k)
        return tern_fail(err, TERN_ERR_ARG, "depths differ: the activations have k = %zu, the weights k = %zu", a->view.k,
                         w->k);
    if (ldy < w->n) return tern_fail(err, TERN_ERR_ARG, "ldy = %zu is smaller than n = %zu", ldy, w->n);
    const size_t block = tern_weights_act_block(w);
    if (s32 && (block || tern_scales_among_codes(w)))
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "block-scaled weights have no single integer result; use tern_matmul_f32");
    if (a->view.block != (block ? block : w->k))
        return tern_fail(err, TERN_ERR_ARG,
                         "the activations have one scale per %zu, but these weights need act_block = %zu (0: whole rows)",
                         a->view.block, block);
    if (!w->row_sums && tern_act_any(&a->view, 0, a->view.m, TERN_ACT_SHIFTED))
        return tern_fail(err, TERN_ERR_UNSUPPORTED,
                         "u8 activations with a zero point other than 128 need weights packed with row_sums = 1");
    const tern_weights *form = tern_weights_form(w, a->view.m);
    if (!ctx->kernels.chosen[form->traits->stage][form->layout])
        return tern_fail(err, TERN_ERR_CPU, "no kernel of tier %s reads layout %s", tern_tier_name(ctx->kernels.tier),
                         tern_layout_name(form->layout));
    return TERN_OK;
}

static tern_status run(tern_context *ctx, tern_activations *a, const tern_product *product) {
    tern_stage stages[TERN_MATMUL_STAGES];
    alignas(TERN_REGION_ARG_ALIGN) unsigned char args[TERN_MATMUL_ARGS] = {0};
    tern_region region;
    tern_region_init(&region, ctx, stages, TERN_MATMUL_STAGES, args, sizeof args);
    const tern_weights *w = product->w;
    const bool lut = w->traits->table_bytes != 0;
    const bool ready = lut && a->tables_layout == w->layout && a->tables_slice_k == w->slice_k;
    tern_products_add(&region, &a->view, product, 1, ready);
    const tern_status status = tern_region_run(&region);
    if (lut && !ready) { // the tables of a batch that needs one round stay for the next product
        a->tables_layout = status == TERN_OK && a->view.m <= TERN_LUT_TOKENS ? w->layout : TERN_LAYOUT_NONE;
        a->tables_slice_k = w->slice_k;
    }
    return status;
}

tern_status tern_matmul_s32(tern_context *ctx, const tern_weights *w, tern_activations *a, int32_t *y, size_t ldy) {
    const tern_status status = check(ctx, w, a, y, ldy, true);
    if (status != TERN_OK) return status;
    const tern_product product = {.w = tern_weights_form(w, a->view.m), .y = y, .y_type = TERN_TYPE_S32, .ldy = ldy};
    return run(ctx, a, &product);
}

tern_status tern_matmul_f32(tern_context *ctx, const tern_weights *w, tern_activations *a, float *y, size_t ldy,
                            const tern_epilogue *epilogue) {
    tern_status status = check(ctx, w, a, y, ldy, false);
    if (status != TERN_OK) return status;
    tern_epilogue e;
    status = tern_params_read(&e, sizeof e, epilogue, "tern_epilogue", &ctx->error);
    if (status != TERN_OK) return status;
    if (e.residual && e.ld_residual < w->n)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "ld_residual = %zu is smaller than n = %zu", e.ld_residual, w->n);
    const tern_product product = {.w = tern_weights_form(w, a->view.m),
                                  .y = y,
                                  .ldy = ldy,
                                  .bias = e.bias,
                                  .residual = e.residual,
                                  .ld_residual = e.ld_residual};
    return run(ctx, a, &product);
}
