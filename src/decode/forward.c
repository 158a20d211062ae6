// SPDX-License-Identifier: MIT
// The forward pass, of every architecture in arch.c. tern_forward reads as the maths; each step appends stages to one region.
#include <math.h>

#include "decode/attention.h"
#include "decode/head.h"
#include "decode/stop.h"

// ---- embedding: x = E[token], and the rotation of each position -------------------------------------------------

static void embed_tile(void *arg, size_t t) {
    const tern_pass *f = *(const tern_pass *const *)arg;
    const tern_model *m = f->m;
    const tern_row *row = &m->buf.rows[t];
    tern_row_to_f32(m->embd_type, m->buf.x + t * f->h->n_embd, m->token_embd->data, (size_t)row->token, f->h->n_vocab,
                    f->h->n_embd);
    const tern_rope_table *rope = row->session->n_ctx > m->long_from ? &m->long_rope : &m->rope;
    const size_t dim = f->h->rope.dim;
    float *cs = m->buf.cos_sin + t * dim;
    for (size_t i = 0; i < dim / 2; i++) {
        const double angle = (double)row->position * (double)rope->freq[i];
        cs[2 * i] = (float)cos(angle) * rope->magnitude;
        cs[2 * i + 1] = (float)sin(angle) * rope->magnitude;
    }
}

static void embed(tern_pass *f) {
    const tern_pass *const arg = f;
    tern_region_add(&f->region, "embed", embed_tile, &arg, sizeof arg, f->n);
}

// ---- products ------------------------------------------------------------------------------------------------------

static tern_product to(const char *name, const tern_linear *l, float *y) {
    return (tern_product){.w = l->w, .y = y, .ldy = l->w->n, .bias = l->bias, .name = name};
}
static tern_product add_to(const char *name, const tern_linear *l, float *y) {
    tern_product product = to(name, l, y);
    product.residual = y;
    product.ld_residual = l->w->n;
    return product;
}

// ---- the model ------------------------------------------------------------------------------------------------------------

static void transformer_layer(tern_pass *f, size_t l) {
    const tern_layer *w = &f->m->layers[l];
    const tern_buffers *b = &f->m->buf;
    tern_stop_add(f);
    const size_t d = f->h->n_embd, q = tern_q_width(f->h), ff = f->h->n_ff;
    tern_linear_add(f, f->n, d, tern_input_normed(f, b->x, w->attn_norm, b->h),
                    (tern_product[]){to("qkv", &w->q, b->q), to("qkv", &w->k, b->k), to("qkv", &w->v, b->v)}, 3);
    tern_rope_and_cache_add(f, l);
    tern_attention_add(f, l);
    tern_linear_add(f, f->n, q, tern_input_normed(f, b->att, w->attn_sub_norm, b->att),
                    (tern_product[]){add_to("attention out", &w->o, b->x)}, 1);
    tern_linear_add(f, f->n, d, tern_input_normed(f, b->x, w->ffn_norm, b->h),
                    (tern_product[]){to("gate, up", &w->gate, b->gate), to("gate, up", &w->up, b->up)}, 2);
    tern_linear_add(f, f->n, ff, tern_input_gated(f, b->gate, b->up, w->ffn_sub_norm, b->gate),
                    (tern_product[]){add_to("down", &w->down, b->x)}, 1);
}

// Weights are looked at when they are packed; keys and values of a file have its checksums only.
static tern_status fail_not_finite(const tern_model *model, size_t n) {
    bool restored = false;
    for (size_t t = 0; t < n; t++) restored |= model->buf.rows[t].session->restored;
    return tern_fail(&model->ctx->error, TERN_ERR_FORMAT, "%s: the forward pass met a NaN or an infinity; %s",
                     tern_gguf_path(model->gguf),
                     restored ? "the saved session that was restored is damaged, delete its file; or the weights are"
                              : "the weights are damaged");
}

tern_status tern_forward(tern_model *model, size_t n) {
    tern_pass f = {.m = model, .h = &model->hyper, .kernels = &model->ctx->kernels, .n = n};
    tern_region_init(&f.region, model->ctx, model->buf.stages, TERN_FORWARD_STAGES, model->buf.stage_args,
                     TERN_FORWARD_ARG_BYTES);
    atomic_store_explicit(&model->act->not_finite, 0, memory_order_relaxed); // relaxed: no region is running
    embed(&f);
    for (size_t l = 0; l < model->hyper.n_layers; l++) transformer_layer(&f, l);
    tern_stop_add(&f);
    tern_head_add(&f);
    const tern_status status = tern_region_run(&f.region);
    if (status == TERN_ERR_CANCELLED) return tern_fail(&model->ctx->error, status, "%s", tern_stop_message(f.stop));
    if (status == TERN_OK && atomic_load_explicit(&model->act->not_finite, memory_order_relaxed))
        return fail_not_finite(model, n);
    return status;
}
