// SPDX-License-Identifier: MIT
// Rotation of queries and keys, the KV cache, and attention in tiles of heads, tokens and blocks of the context.
#include "decode/attention.h"

#include <math.h>
#include <string.h>

enum { ATTENTION_TOKENS_PER_TILE = 4 };

// What the tiles of one layer get.
typedef struct layer_args {
    const tern_pass *f;
    size_t layer;
} layer_args;

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

static void norm_and_rotate(const tern_pass *f, float *heads, size_t n, const float *norm, const float *cs) {
    const size_t dim = f->h->head_dim;
    for (float *x = heads; x < heads + n * dim; x += dim) {
        if (norm) TERN_KERNEL(f->kernels, rmsnorm, TERN_LAYOUT_NONE)(x, x, norm, dim, f->h->rms_eps);
        rotate(x, cs, f->h);
    }
}

// The codes of the query heads of token t, where its session's keys are INT8.
static bool quantize_queries(const tern_pass *f, size_t t, const float *q) {
    const size_t n = f->h->n_heads;
    const tern_buffers *buf = &f->m->buf;
    bool finite = true;
    for (size_t i = t * n; i < (t + 1) * n; i++, q += f->h->head_dim)
        finite &= tern_kv_quantize(f->kernels, buf->q_codes + i * tern_q_codes(f->h), buf->q_scales + i, buf->q_sums + i, q,
                                   f->h->head_dim);
    return finite;
}

static void rope_tile(void *arg, size_t t) {
    const layer_args *a = arg;
    const tern_hyper *h = a->f->h;
    const tern_buffers *buf = &a->f->m->buf;
    const tern_row *row = &buf->rows[t];
    const tern_layer *layer = &a->f->m->layers[a->layer];
    const float *cs = buf->cos_sin + t * h->rope.dim;
    const size_t kv = tern_kv_width(h), dim = h->head_dim;
    float *q = buf->q + t * tern_q_width(h), *k = buf->k + t * kv, *v = buf->v + t * kv;
    norm_and_rotate(a->f, q, h->n_heads, layer->q_norm, cs);
    norm_and_rotate(a->f, k, h->n_kv_heads, layer->k_norm, cs);
    bool finite = row->session->kv.type != TERN_KV_INT8 || quantize_queries(a->f, t, q);
    for (size_t head = 0; head < h->n_kv_heads; head++)
        finite &= tern_kv_put(&row->session->kv, a->f->kernels, a->layer, head, row->position, k + head * dim, v + head * dim);
    // relaxed: read after the region
    if (!finite) atomic_store_explicit(&a->f->m->act->not_finite, 1, memory_order_relaxed);
}

void tern_rope_and_cache_add(tern_pass *f, size_t layer) {
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

static void attend_f16(const layer_args *a, size_t t, head_run run, size_t first, size_t n_keys, const block_sums *sums) {
    const tern_hyper *h = a->f->h;
    const tern_kv *kv = &a->f->m->buf.rows[t].session->kv;
    const tern_attention_args args = {
        .acc = sums->acc,
        .ld_acc = sums->ld,
        .most = sums->most,
        .total = sums->total,
        .q = a->f->m->buf.q + t * tern_q_width(h) + run.first * h->head_dim,
        .ld_q = h->head_dim,
        .n_queries = run.count,
        .keys = tern_kv_at(kv, TERN_KV_KEYS, a->layer, run.kv_head, first),
        .values = tern_kv_at(kv, TERN_KV_VALUES, a->layer, run.kv_head, first),
        .n_keys = n_keys,
        .head_dim = h->head_dim,
        .scale = 1.0f / sqrtf((float)h->head_dim),
    };
    TERN_KERNEL(a->f->kernels, attention, TERN_LAYOUT_NONE)(&args);
}

static void attend_int8(const layer_args *a, size_t t, head_run run, size_t first, size_t n_keys, const block_sums *sums) {
    const tern_hyper *h = a->f->h;
    const tern_buffers *buf = &a->f->m->buf;
    const tern_kv *kv = &buf->rows[t].session->kv;
    const size_t query = t * h->n_heads + run.first;
    const tern_attention_int8_args args = {
        .acc = sums->acc,
        .ld_acc = sums->ld,
        .most = sums->most,
        .total = sums->total,
        .q = buf->q_codes + query * tern_q_codes(h),
        .ld_q = tern_q_codes(h),
        .q_scales = buf->q_scales + query,
        .q_sums = buf->q_sums + query,
        .n_queries = run.count,
        .keys = tern_kv_at(kv, TERN_KV_KEYS, a->layer, run.kv_head, first),
        .values = tern_kv_at(kv, TERN_KV_VALUES, a->layer, run.kv_head, first),
        .key_scales = tern_kv_at(kv, TERN_KV_KEY_SCALES, a->layer, run.kv_head, first),
        .value_scales = tern_kv_at(kv, TERN_KV_VALUE_SCALES, a->layer, run.kv_head, first),
        .n_keys = n_keys,
        .head_dim = h->head_dim,
        .scale = 1.0f / sqrtf((float)h->head_dim),
    };
    TERN_KERNEL(a->f->kernels, attention_int8, TERN_LAYOUT_NONE)(&args);
}

static void attend_block(const layer_args *a, size_t t, head_run run, size_t block, const block_sums *sums) {
    const tern_row *row = &a->f->m->buf.rows[t];
    const size_t first = block * TERN_ATTN_BLOCK, left = row->position + 1 - first;
    const size_t n_keys = left < TERN_ATTN_BLOCK ? left : TERN_ATTN_BLOCK;
    (row->session->kv.type == TERN_KV_INT8 ? attend_int8 : attend_f16)(a, t, run, first, n_keys, sums);
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

static void merge_block(const tern_pass *f, merged *m, const block_sums *sums, size_t count) {
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

void tern_attention_add(tern_pass *f, size_t layer) {
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
