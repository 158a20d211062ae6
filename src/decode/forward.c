// SPDX-License-Identifier: MIT
// The forward pass, of every architecture in arch.c. tern_forward reads as the maths; each step appends stages to one region.
#include <math.h>
#include <string.h>

#include "decode/model.h"

enum { ATTENTION_TOKENS_PER_TILE = 4, SHARED_INPUT_MAX = 3 }; // Q, K and V share one

typedef struct forward {
    tern_model *m;
    const tern_hyper *h;
    const tern_kernels *kernels;
    tern_region region;
    size_t n; // tokens
} forward;

// What the tiles of one layer get.
typedef struct layer_args {
    const forward *f;
    size_t layer;
} layer_args;

// ---- embedding: x = E[token], and the rotation of each position -------------------------------------------------

static void embed_tile(void *arg, size_t t) {
    const forward *f = ((const layer_args *)arg)->f;
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

static void embed(forward *f) {
    const layer_args args = {f, 0};
    tern_region_add(&f->region, "embed", embed_tile, &args, sizeof args, f->n);
}

// ---- linear: quantize rows (after an optional element-wise step), multiply ----------------------------------------

// Where a row comes from: norm(gate(in, up)), either part or none.
typedef struct row_args {
    const tern_kernels *kernels;
    const float *in;   // rows of view.k
    const float *up;   // rows that the gate multiplies, or NULL: no gate
    const float *norm; // weights of RMSNorm, or NULL
    tern_gate gate;
    float rms_eps;
} row_args;
_Static_assert(sizeof(row_args) <= TERN_SET_ROW_ARG_MAX, "the arguments of a row fit");

typedef struct prepare_args {
    tern_act_view view;
    row_args row;
    float *out; // where the element-wise steps write their rows
    size_t n_tiles;
} prepare_args;

static const char *prepare_name(const row_args *a) {
    static const char *const gates[] = {[TERN_GATE_SILU] = "silu, quantize", [TERN_GATE_RELU2] = "relu2, quantize"};
    static const char *const normed_gates[] = {
        [TERN_GATE_SILU] = "silu, norm, quantize", [TERN_GATE_RELU2] = "relu2, norm, quantize"};
    if (a->up) return (a->norm ? normed_gates : gates)[a->gate];
    return a->norm ? "norm, quantize" : "quantize";
}

static void prepare_row(const tern_act_view *view, const row_args *a, float *out, size_t t) {
    const size_t k = view->k;
    const float *x = a->in + t * k;
    if (a->up) {
        if (a->gate == TERN_GATE_RELU2)
            TERN_KERNEL(a->kernels, relu2_mul, TERN_LAYOUT_NONE)(out, x, a->up + t * k, k);
        else
            TERN_KERNEL(a->kernels, silu_mul, TERN_LAYOUT_NONE)(out, x, a->up + t * k, k);
        x = out;
    }
    if (a->norm) {
        TERN_KERNEL(a->kernels, rmsnorm, TERN_LAYOUT_NONE)(out, x, a->norm, k, a->rms_eps);
        x = out;
    }
    const tern_act_source row = {.x = x, .type = TERN_TYPE_F32};
    tern_act_set_row(view, a->kernels, t, &row, 0);
}

static void prepare_tile(void *arg, size_t tile) {
    const prepare_args *a = arg;
    const size_t end = tern_line_cut(a->view.m, a->n_tiles, tile + 1);
    for (size_t t = tern_line_cut(a->view.m, a->n_tiles, tile); t < end; t++)
        prepare_row(&a->view, &a->row, a->out + t * a->view.k, t);
}

static void prepare_own_row(const tern_act_view *view, const void *arg, float *x) { prepare_row(view, arg, x, 0); }

// Products of one input. Each activation block that the weights ask for is quantized once.
static void linear(forward *f, size_t tokens, size_t k, prepare_args prepare, const tern_product *products, size_t n_products) {
    bool done[SHARED_INPUT_MAX] = {false};
    for (size_t i = 0; i < n_products; i++) {
        if (done[i]) continue;
        const size_t block = tern_weights_act_block(products[i].w);
        tern_product group[SHARED_INPUT_MAX];
        size_t n_group = 0;
        for (size_t j = i; j < n_products; j++)
            if (!done[j] && tern_weights_act_block(products[j].w) == block) {
                group[n_group++] = products[j];
                done[j] = true;
            }
        prepare.view = tern_act_begin(f->m->act, tokens, k, block);
        if (tern_products_add_own_rows(&f->region, &prepare.view, group, n_group, prepare_own_row, &prepare.row,
                                       sizeof prepare.row))
            continue;
        prepare.n_tiles = tern_act_tiles(tokens, k, (size_t)f->m->ctx->threads);
        tern_region_add(&f->region, prepare_name(&prepare.row), prepare_tile, &prepare, sizeof prepare, prepare.n_tiles);
        tern_products_add(&f->region, &prepare.view, group, n_group, false);
    }
}

static prepare_args normed(const forward *f, const float *x, const float *weight, float *out) {
    return (prepare_args){.row = {.kernels = f->kernels, .in = x, .norm = weight, .rms_eps = f->h->rms_eps}, .out = out};
}
static prepare_args gated(const forward *f, const float *gate, const float *up, const float *sub_norm, float *out) {
    prepare_args p = normed(f, gate, sub_norm, out);
    p.row.up = up;
    p.row.gate = f->h->arch->gate;
    return p;
}

static tern_product to(const char *name, const tern_linear *l, float *y) {
    return (tern_product){.w = l->w, .y = y, .ldy = l->w->n, .bias = l->bias, .name = name};
}
static tern_product add_to(const char *name, const tern_linear *l, float *y) {
    tern_product product = to(name, l, y);
    product.residual = y;
    product.ld_residual = l->w->n;
    return product;
}

// ---- rope: rotate q and k by their position, append k and v to the cache -------------------------------------------

// Pair i: elements 2i and 2i + 1, or (NeoX) i and i + dim / 2.
static void rotate(float *x, const float *cs, const tern_hyper *h) {
    const size_t pairs = h->rope.dim / 2, step = h->arch->neox ? 1 : 2, apart = h->arch->neox ? pairs : 1;
    for (size_t i = 0; i < pairs; i++) {
        float *first = x + i * step, *second = first + apart;
        const float a = *first, b = *second;
        *first = a * cs[2 * i] - b * cs[2 * i + 1];
        *second = a * cs[2 * i + 1] + b * cs[2 * i];
    }
}

static void norm_and_rotate(const forward *f, float *heads, size_t n, const float *norm, const float *cs) {
    const size_t dim = f->h->head_dim;
    for (float *x = heads; x < heads + n * dim; x += dim) {
        if (norm) TERN_KERNEL(f->kernels, rmsnorm, TERN_LAYOUT_NONE)(x, x, norm, dim, f->h->rms_eps);
        rotate(x, cs, f->h);
    }
}

// Where a key or value of a layer and head stands: [layer][kv head][position][head_dim].
static size_t cache_offset(const tern_session *s, size_t layer, size_t kv_head, size_t position) {
    const tern_hyper *h = &s->model->hyper;
    return ((layer * h->n_kv_heads + kv_head) * s->n_ctx + position) * h->head_dim;
}

static void rope_tile(void *arg, size_t t) {
    const layer_args *a = arg;
    const tern_hyper *h = a->f->h;
    const tern_buffers *buf = &a->f->m->buf;
    const tern_row *row = &buf->rows[t];
    const tern_layer *layer = &a->f->m->layers[a->layer];
    const float *cs = buf->cos_sin + t * h->rope.dim;
    const size_t kv = tern_kv_width(h), dim = h->head_dim;
    float *q = buf->q + t * tern_q_width(h), *k = buf->k + t * kv;
    norm_and_rotate(a->f, q, h->n_heads, layer->q_norm, cs);
    norm_and_rotate(a->f, k, h->n_kv_heads, layer->k_norm, cs);
    for (size_t head = 0; head < h->n_kv_heads; head++) {
        const size_t at = cache_offset(row->session, a->layer, head, row->position);
        TERN_KERNEL(a->f->kernels, to_half, TERN_LAYOUT_NONE)(row->session->keys + at, k + head * dim, dim);
        TERN_KERNEL(a->f->kernels, to_half, TERN_LAYOUT_NONE)(row->session->values + at, buf->v + t * kv + head * dim, dim);
    }
}

static void rope_and_cache(forward *f, size_t layer) {
    const layer_args args = {f, layer};
    tern_region_add(&f->region, "rope, cache", rope_tile, &args, sizeof args, f->n);
}

// ---- attention: a few query heads that share keys and values, over blocks of the context -----------------------------

// Up to TERN_ATTN_QUERIES neighbouring query heads of one key and value head.
typedef struct head_run {
    size_t kv_head, first, count;
} head_run;

static size_t runs_per_kv_head(const tern_hyper *h) { return tern_ceil_div(h->n_heads / h->n_kv_heads, TERN_ATTN_QUERIES); }
static size_t head_runs(const tern_hyper *h) { return h->n_kv_heads * runs_per_kv_head(h); }

static head_run head_run_at(const tern_hyper *h, size_t index) {
    const size_t runs = runs_per_kv_head(h), queries = h->n_heads / h->n_kv_heads;
    const size_t kv_head = index / runs, begin = queries * (index % runs) / runs, end = queries * (index % runs + 1) / runs;
    return (head_run){kv_head, kv_head * queries + begin, end - begin};
}

static size_t context_blocks(const tern_row *row) { return row->position / TERN_ATTN_BLOCK + 1; }

// One block of the context of token t: partial sums and what they are to be scaled by.
typedef struct block_sums {
    float *acc; // [run.count][ld]
    size_t ld;
    float *most, *total; // [run.count]
} block_sums;

static void attend_block(const layer_args *a, size_t t, head_run run, size_t block, const block_sums *sums) {
    const tern_hyper *h = a->f->h;
    const tern_buffers *buf = &a->f->m->buf;
    const tern_row *row = &buf->rows[t];
    const size_t first = block * TERN_ATTN_BLOCK, left = row->position + 1 - first;
    const size_t at = cache_offset(row->session, a->layer, run.kv_head, first);
    const tern_attention_args args = {
        .acc = sums->acc,
        .ld_acc = sums->ld,
        .most = sums->most,
        .total = sums->total,
        .q = buf->q + t * tern_q_width(h) + run.first * h->head_dim,
        .ld_q = h->head_dim,
        .n_queries = run.count,
        .keys = row->session->keys + at,
        .values = row->session->values + at,
        .n_keys = left < TERN_ATTN_BLOCK ? left : TERN_ATTN_BLOCK,
        .head_dim = h->head_dim,
        .scale = 1.0f / sqrtf((float)h->head_dim),
    };
    TERN_KERNEL(a->f->kernels, attention, TERN_LAYOUT_NONE)(&args);
}

// Blocks merged so far, of one run of heads.
typedef struct merged {
    float acc[TERN_ATTN_QUERIES][TERN_HEAD_DIM_MAX], most[TERN_ATTN_QUERIES], total[TERN_ATTN_QUERIES];
} merged;

static void merge_begin(merged *m, size_t count, size_t dim) {
    for (size_t i = 0; i < count; i++) {
        memset(m->acc[i], 0, dim * sizeof(float));
        m->most[i] = -INFINITY;
        m->total[i] = 0;
    }
}

static void merge_block(const forward *f, merged *m, const block_sums *sums, size_t count) {
    for (size_t i = 0; i < count; i++) TERN_KERNEL(f->kernels, attention_merge, TERN_LAYOUT_NONE)
    (m->acc[i], &m->most[i], &m->total[i], sums->acc + i * sums->ld, sums->most[i], sums->total[i], f->h->head_dim);
}

static void merge_end(const layer_args *a, const merged *m, size_t t, head_run run) {
    const size_t dim = a->f->h->head_dim;
    float *out = a->f->m->buf.att + t * tern_q_width(a->f->h) + run.first * dim;
    for (size_t i = 0; i < run.count; i++) {
        const float norm = 1.0f / m->total[i];
        for (size_t d = 0; d < dim; d++) out[i * dim + d] = m->acc[i][d] * norm;
    }
}

// All blocks of a few tokens.
static void attention_tile(void *arg, size_t tile) {
    const layer_args *a = arg;
    const tern_hyper *h = a->f->h;
    const head_run run = head_run_at(h, tile % head_runs(h));
    const size_t t0 = tile / head_runs(h) * ATTENTION_TOKENS_PER_TILE;
    for (size_t t = t0; t < t0 + ATTENTION_TOKENS_PER_TILE && t < a->f->n; t++) {
        float acc[TERN_ATTN_QUERIES][TERN_HEAD_DIM_MAX], most[TERN_ATTN_QUERIES], total[TERN_ATTN_QUERIES];
        const block_sums sums = {acc[0], TERN_HEAD_DIM_MAX, most, total};
        merged m;
        merge_begin(&m, run.count, h->head_dim);
        for (size_t block = 0; block < context_blocks(&a->f->m->buf.rows[t]); block++) {
            attend_block(a, t, run, block, &sums);
            merge_block(a->f, &m, &sums, run.count);
        }
        merge_end(a, &m, t, run);
    }
}

// One token and a long context: blocks in tiles of their own, and their merging in a second stage. The same sums.
static block_sums sums_in_session(const tern_session *s, head_run run, size_t block) {
    const tern_hyper *h = &s->model->hyper;
    const size_t at = block * h->n_heads + run.first;
    return (block_sums){s->block_acc + at * h->head_dim, h->head_dim, s->block_most + at, s->block_total + at};
}

static void attention_block_tile(void *arg, size_t tile) {
    const layer_args *a = arg;
    const size_t blocks = context_blocks(a->f->m->buf.rows);
    const head_run run = head_run_at(a->f->h, tile / blocks);
    const block_sums sums = sums_in_session(a->f->m->buf.rows[0].session, run, tile % blocks);
    attend_block(a, 0, run, tile % blocks, &sums);
}

static void attention_merge_tile(void *arg, size_t tile) {
    const layer_args *a = arg;
    const tern_row *row = a->f->m->buf.rows;
    const head_run run = head_run_at(a->f->h, tile);
    merged m;
    merge_begin(&m, run.count, a->f->h->head_dim);
    for (size_t block = 0; block < context_blocks(row); block++) {
        const block_sums sums = sums_in_session(row->session, run, block);
        merge_block(a->f, &m, &sums, run.count);
    }
    merge_end(a, &m, 0, run);
}

static void attention(forward *f, size_t layer) {
    const layer_args args = {f, layer};
    const size_t runs = head_runs(f->h), blocks = context_blocks(f->m->buf.rows);
    if (f->n == 1 && blocks > 1) {
        tern_region_add(&f->region, "attention", attention_block_tile, &args, sizeof args, runs * blocks);
        tern_region_add(&f->region, "attention merge", attention_merge_tile, &args, sizeof args, runs);
        return;
    }
    const size_t tiles = tern_ceil_div(f->n, ATTENTION_TOKENS_PER_TILE) * runs;
    tern_region_add(&f->region, "attention", attention_tile, &args, sizeof args, tiles);
}

// ---- head: logits of the rows that want them ----------------------------------------------------------------------------

typedef struct copy_args {
    float *to;
    const float *from;
    size_t count;
} copy_args;

static void copy_tile(void *arg, size_t tile) {
    (void)tile;
    const copy_args *c = arg;
    memcpy(c->to, c->from, c->count * sizeof *c->to);
}

static void copy(forward *f, float *target, const float *from, size_t count) {
    const copy_args args = {target, from, count};
    tern_region_add(&f->region, "copy rows", copy_tile, &args, sizeof args, 1);
}

static void head(forward *f) {
    const tern_model *m = f->m;
    const size_t d = f->h->n_embd, vocab = f->h->n_vocab;
    const tern_row *rows = m->buf.rows;
    for (size_t t = 0; t < f->n;) {
        const tern_row *wanted[TERN_HEAD_ROWS];
        size_t count = 0;
        for (; t < f->n && count < TERN_HEAD_ROWS; t++)
            if (rows[t].logits) {
                if (count != t) copy(f, m->buf.x + count * d, m->buf.x + t * d, d); // count < t: rows before it are done with
                wanted[count++] = &rows[t];
            }
        if (count == 0) return;
        float *logits = count == 1 ? wanted[0]->logits : m->buf.logits;
        const tern_product product = to("head", &(tern_linear){.w = m->head}, logits);
        linear(f, count, d, normed(f, m->buf.x, m->output_norm, m->buf.h), &product, 1);
        if (count > 1)
            for (size_t i = 0; i < count; i++) copy(f, wanted[i]->logits, logits + i * vocab, vocab);
    }
}

// ---- the model ------------------------------------------------------------------------------------------------------------

static void transformer_layer(forward *f, size_t l) {
    const tern_layer *w = &f->m->layers[l];
    const tern_buffers *b = &f->m->buf;
    const size_t d = f->h->n_embd, q = tern_q_width(f->h), ff = f->h->n_ff;
    linear(f, f->n, d, normed(f, b->x, w->attn_norm, b->h),
           (tern_product[]){to("qkv", &w->q, b->q), to("qkv", &w->k, b->k), to("qkv", &w->v, b->v)}, 3);
    rope_and_cache(f, l);
    attention(f, l);
    linear(f, f->n, q, normed(f, b->att, w->attn_sub_norm, b->att), (tern_product[]){add_to("attention out", &w->o, b->x)}, 1);
    linear(f, f->n, d, normed(f, b->x, w->ffn_norm, b->h),
           (tern_product[]){to("gate, up", &w->gate, b->gate), to("gate, up", &w->up, b->up)}, 2);
    linear(f, f->n, ff, gated(f, b->gate, b->up, w->ffn_sub_norm, b->gate), (tern_product[]){add_to("down", &w->down, b->x)},
           1);
}

tern_status tern_forward(tern_model *model, size_t n) {
    forward f = {.m = model, .h = &model->hyper, .kernels = &model->ctx->kernels, .n = n};
    tern_region_init(&f.region, model->ctx, model->buf.stages, TERN_FORWARD_STAGES, model->buf.stage_args,
                     TERN_FORWARD_ARG_BYTES);
    atomic_store_explicit(&model->act->not_finite, 0, memory_order_relaxed); // relaxed: no region is running
    embed(&f);
    for (size_t l = 0; l < model->hyper.n_layers; l++) transformer_layer(&f, l);
    head(&f);
    const tern_status status = tern_region_run(&f.region);
    if (status == TERN_OK && atomic_load_explicit(&model->act->not_finite, memory_order_relaxed))
        return tern_fail(&model->ctx->error, TERN_ERR_FORMAT,
                         "%s: the forward pass met a NaN or an infinity; the weights are damaged", tern_gguf_path(model->gguf));
    return status;
}
