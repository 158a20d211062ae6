// SPDX-License-Identifier: MIT
// Rotation of queries and keys, the KV cache, and attention in tiles of heads, tokens and blocks of the context.
#include "decode/attention.h"

#include <math.h>
#include <string.h>

enum { HEADS_TOGETHER = 4 }; // of one token, for one call of a kernel
_Static_assert((int)HEADS_TOGETHER <= (int)TERN_ATTN_INT8_QUERIES, "a run of heads fits the INT8 kernel");

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
    const size_t n = f->h->n_heads, dim = f->h->head_dim;
    const tern_buffers *buf = &f->m->buf;
    bool finite = true;
    for (size_t i = t * n; i < (t + 1) * n; i++, q += dim)
        finite &= tern_kv_quantize_query(buf->q_codes + i * tern_q_codes(f->h), buf->q_scales + i, buf->q_sums + i, q, dim);
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

// Up to HEADS_TOGETHER neighbouring query heads of one key and value head.
typedef struct head_run {
    size_t kv_head, first, count;
} head_run;

static size_t runs_per_kv_head(const tern_hyper *h) { return tern_ceil_div(h->n_heads / h->n_kv_heads, HEADS_TOGETHER); }
static size_t head_runs(const tern_hyper *h) { return h->n_kv_heads * runs_per_kv_head(h); }

static head_run head_run_at(const tern_hyper *h, size_t index) {
    const size_t runs = runs_per_kv_head(h), queries = h->n_heads / h->n_kv_heads;
    const size_t kv_head = index / runs, begin = queries * (index % runs) / runs, end = queries * (index % runs + 1) / runs;
    return (head_run){kv_head, kv_head * queries + begin, end - begin};
}

static size_t context_blocks(const tern_row *row) { return row->position / TERN_ATTN_BLOCK + 1; }

// Keys of a block that a token sees.
static size_t keys_of(const tern_row *row, size_t block) {
    const size_t first = block * TERN_ATTN_BLOCK;
    if (row->position < first) return 0;
    const size_t left = row->position + 1 - first;
    return left < TERN_ATTN_BLOCK ? left : TERN_ATTN_BLOCK;
}

// A run of heads of neighbouring tokens of one session: query i is head i % heads.count of token t0 + i / heads.count.
typedef struct group {
    head_run heads;
    size_t t0, n_tokens;
} group;

// One block of the context of a group's queries: partial sums, and what they are to be scaled by.
typedef struct block_sums {
    float *acc; // [query][ld]
    size_t ld;
    float *most, *total; // [query]
} block_sums;

static void attend_f16(const layer_args *a, const group *g, size_t block, const block_sums *sums) {
    const tern_hyper *h = a->f->h;
    const tern_buffers *buf = &a->f->m->buf;
    const tern_kv *kv = &buf->rows[g->t0].session->kv;
    const size_t count = g->heads.count, n = g->n_tokens * count;
    tern_attention_query queries[TERN_ATTN_QUERIES];
    size_t seen = 0; // queries from here on see the block
    for (size_t i = 0; i < n; i++) {
        const size_t t = g->t0 + i / count, head = g->heads.first + i % count;
        queries[i] = (tern_attention_query){.q = buf->q + t * tern_q_width(h) + head * h->head_dim,
                                            .acc = sums->acc + i * sums->ld,
                                            .n_keys = keys_of(&buf->rows[t], block)};
        if (queries[i].n_keys == 0) seen = i + 1;
    }
    const tern_attention_args args = {
        .queries = queries + seen,
        .n_queries = n - seen,
        .keys = tern_kv_at(kv, TERN_KV_KEYS, a->layer, g->heads.kv_head, block * TERN_ATTN_BLOCK),
        .values = tern_kv_at(kv, TERN_KV_VALUES, a->layer, g->heads.kv_head, block * TERN_ATTN_BLOCK),
        .head_dim = h->head_dim,
        .scale = 1.0f / sqrtf((float)h->head_dim),
    };
    TERN_KERNEL(a->f->kernels, attention, TERN_LAYOUT_NONE)(&args);
    for (size_t i = seen; i < n; i++) {
        sums->most[i] = queries[i].most;
        sums->total[i] = queries[i].total;
    }
}

// What is read after a block: the next one, then the next head.
static const void *keys_after(const layer_args *a, const group *g, size_t block) {
    const tern_row *row = &a->f->m->buf.rows[g->t0 + g->n_tokens - 1];
    const bool last = block + 1 == context_blocks(row);
    const size_t head = g->heads.kv_head + (last && g->heads.kv_head + 1 < a->f->h->n_kv_heads);
    return tern_kv_at(&row->session->kv, TERN_KV_KEYS, a->layer, head, last ? 0 : (block + 1) * TERN_ATTN_BLOCK);
}

// Token by token: the kernel takes queries that see the same keys.
static void attend_int8(const layer_args *a, const group *g, size_t block, const block_sums *sums) {
    const tern_hyper *h = a->f->h;
    const tern_buffers *buf = &a->f->m->buf;
    const tern_kv *kv = &buf->rows[g->t0].session->kv;
    const size_t first = block * TERN_ATTN_BLOCK, head = g->heads.kv_head;
    for (size_t t = 0; t < g->n_tokens; t++) {
        const size_t query = (g->t0 + t) * h->n_heads + g->heads.first, to = t * g->heads.count;
        const size_t n_keys = keys_of(&buf->rows[g->t0 + t], block);
        if (n_keys == 0) continue;
        const tern_attention_int8_args args = {
            .acc = sums->acc + to * sums->ld,
            .ld_acc = sums->ld,
            .most = sums->most + to,
            .total = sums->total + to,
            .q = buf->q_codes + query * tern_q_codes(h),
            .ld_q = tern_q_codes(h),
            .q_scales = buf->q_scales + query,
            .q_sums = buf->q_sums + query,
            .n_queries = g->heads.count,
            .keys = tern_kv_at(kv, TERN_KV_KEYS, a->layer, head, first),
            .values = tern_kv_at(kv, TERN_KV_VALUES, a->layer, head, first),
            .next_keys = keys_after(a, g, block),
            .key_scales = tern_kv_at(kv, TERN_KV_KEY_SCALES, a->layer, head, first),
            .value_scales = tern_kv_at(kv, TERN_KV_VALUE_SCALES, a->layer, head, first),
            .n_keys = n_keys,
            .head_dim = h->head_dim,
            .scale = 1.0f / sqrtf((float)h->head_dim),
        };
        TERN_KERNEL(a->f->kernels, attention_int8, TERN_LAYOUT_NONE)(&args);
    }
}

static void attend_block(const layer_args *a, const group *g, size_t block, const block_sums *sums) {
    const tern_kv *kv = &a->f->m->buf.rows[g->t0].session->kv;
    (kv->type == TERN_KV_INT8 ? attend_int8 : attend_f16)(a, g, block, sums);
}

// Blocks merged so far, of the queries of one group.
typedef struct merged {
    float acc[TERN_ATTN_QUERIES][TERN_HEAD_DIM_MAX], most[TERN_ATTN_QUERIES], total[TERN_ATTN_QUERIES];
} merged;

static void merge_begin(merged *m, const layer_args *a, const group *g) {
    for (size_t i = 0; i < g->n_tokens * g->heads.count; i++) {
        memset(m->acc[i], 0, a->f->h->head_dim * sizeof(float));
        m->most[i] = -INFINITY;
        m->total[i] = 0;
    }
}

static void merge_block(merged *m, const layer_args *a, const group *g, size_t block, const block_sums *sums) {
    for (size_t i = 0; i < g->n_tokens * g->heads.count; i++) {
        if (keys_of(&a->f->m->buf.rows[g->t0 + i / g->heads.count], block) == 0) continue;
        TERN_KERNEL(a->f->kernels, attention_merge, TERN_LAYOUT_NONE)
        (m->acc[i], &m->most[i], &m->total[i], sums->acc + i * sums->ld, sums->most[i], sums->total[i], a->f->h->head_dim);
    }
}

static void merge_end(const merged *m, const layer_args *a, const group *g) {
    const size_t dim = a->f->h->head_dim, count = g->heads.count;
    for (size_t i = 0; i < g->n_tokens * count; i++) {
        float *out = a->f->m->buf.att + (g->t0 + i / count) * tern_q_width(a->f->h) + (g->heads.first + i % count) * dim;
        const float norm = 1.0f / m->total[i];
        for (size_t d = 0; d < dim; d++) out[d] = m->acc[i][d] * norm;
    }
}

// All blocks of a group.
static void attend_group(const layer_args *a, const group *g) {
    float acc[TERN_ATTN_QUERIES][TERN_HEAD_DIM_MAX], most[TERN_ATTN_QUERIES], total[TERN_ATTN_QUERIES];
    const block_sums sums = {acc[0], TERN_HEAD_DIM_MAX, most, total};
    merged m;
    merge_begin(&m, a, g);
    for (size_t block = 0; block < context_blocks(&a->f->m->buf.rows[g->t0 + g->n_tokens - 1]); block++) {
        attend_block(a, g, block, &sums);
        merge_block(&m, a, g, block, &sums);
    }
    merge_end(&m, a, g);
}

// Tokens whose queries fit one call of the kernel.
static size_t tokens_per_tile(const tern_hyper *h) {
    const size_t queries = h->n_heads / h->n_kv_heads;
    return TERN_ATTN_QUERIES / (queries < HEADS_TOGETHER ? queries : HEADS_TOGETHER);
}

// A few tokens; those of one session together. Their positions ascend.
static void attention_tile(void *arg, size_t tile) {
    const layer_args *a = arg;
    const tern_row *rows = a->f->m->buf.rows;
    const size_t runs = head_runs(a->f->h), step = tokens_per_tile(a->f->h), first = tile / runs * step;
    const size_t end = first + step < a->f->n ? first + step : a->f->n;
    group g = {.heads = head_run_at(a->f->h, tile % runs), .t0 = first};
    for (; g.t0 < end; g.t0 += g.n_tokens) {
        g.n_tokens = 1;
        while (g.t0 + g.n_tokens < end && rows[g.t0 + g.n_tokens].session == rows[g.t0].session) g.n_tokens++;
        attend_group(a, &g);
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
    const tern_row *row = a->f->m->buf.rows;
    const size_t blocks = context_blocks(row);
    const group g = {head_run_at(a->f->h, tile / blocks), 0, 1};
    const block_sums sums = sums_in_session(row->session, g.heads, tile % blocks);
    attend_block(a, &g, tile % blocks, &sums);
}

static void attention_merge_tile(void *arg, size_t tile) {
    const layer_args *a = arg;
    const tern_row *row = a->f->m->buf.rows;
    const group g = {head_run_at(a->f->h, tile), 0, 1};
    merged m;
    merge_begin(&m, a, &g);
    for (size_t block = 0; block < context_blocks(row); block++) {
        const block_sums sums = sums_in_session(row->session, g.heads, block);
        merge_block(&m, a, &g, block, &sums);
    }
    merge_end(&m, a, &g);
}

void tern_attention_add(tern_pass *f, size_t layer) {
    const layer_args args = {f, layer};
    const size_t runs = head_runs(f->h), blocks = context_blocks(f->m->buf.rows);
    if (f->n == 1 && blocks > 1) {
        tern_region_add(&f->region, "attention", attention_block_tile, &args, sizeof args, runs * blocks);
        tern_region_add(&f->region, "attention merge", attention_merge_tile, &args, sizeof args, runs);
        return;
    }
    const size_t tiles = tern_ceil_div(f->n, tokens_per_tile(f->h)) * runs;
    tern_region_add(&f->region, "attention", attention_tile, &args, sizeof args, tiles);
}
