// SPDX-License-Identifier: MIT
// The kernels of single stages, called directly on one thread with data in cache: every variant of kernels/variants.inc.
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_shim.h"
#include "kernels/kernels.h"

typedef void any_fn(void);
typedef struct stage_case {
    tern_stage_id stage;
    tern_layout layout;
    const char *symbol;
    any_fn *fn;
} stage_case;

static const stage_case cases[] = {
#define TERN_VARIANT(stage, TIER, LAYOUT, symbol) {TERN_STAGE_##stage, TERN_LAYOUT_##LAYOUT, #symbol, (any_fn *)(symbol)},
#include "kernels/variants.inc"
#undef TERN_VARIANT
};
enum { N_CASES = sizeof cases / sizeof *cases };

// One row of the largest hidden size of BitNet-2B; and heads over a full block of keys.
enum { ROW = 6912, BLOCK = 32, HEAD_DIM = 128, KEYS = TERN_ATTN_BLOCK, ALIGN = 64 };

typedef struct buffers {
    float *a, *b, *y;
    int8_t *q, *tables, *keys;
    float *scales; // of keys
    int32_t *sums;
    uint16_t *halves;
} buffers;

static void *allocate(size_t bytes) {
    void *p = aligned_alloc(ALIGN, tern_round_up(bytes, ALIGN));
    if (p) memset(p, 0, tern_round_up(bytes, ALIGN));
    return p;
}

static void release(buffers *d) {
    free(d->a);
    free(d->b);
    free(d->y);
    free(d->q);
    free(d->tables);
    free(d->sums);
    free(d->halves);
    free(d->keys);
    free(d->scales);
}

static int make_buffers(buffers *d) {
    const size_t floats = (size_t)KEYS * HEAD_DIM;
    const size_t t5 = tern_t5_table_bytes(ROW), t2n = tern_t2n_table_bytes(ROW);
    *d = (buffers){.a = allocate(floats * sizeof(float)),
                   .b = allocate(floats * sizeof(float)),
                   .y = allocate(floats * sizeof(float)),
                   .q = allocate(ROW + ALIGN),
                   .tables = allocate(t5 > t2n ? t5 : t2n),
                   .sums = allocate(ROW * sizeof(int32_t)),
                   .halves = allocate((size_t)KEYS * HEAD_DIM * sizeof(uint16_t)),
                   .keys = allocate(tern_kv_block_bytes(HEAD_DIM)),
                   .scales = allocate(KEYS * sizeof(float))};
    if (!d->a || !d->b || !d->y || !d->q || !d->tables || !d->sums || !d->halves || !d->keys || !d->scales) return 0;
    enum { PERIOD = 255, HALF = 127 }; // values in -1..1 that are no pattern of the vector length
    for (size_t i = 0; i < floats; i++) {
        d->a[i] = (float)(i % PERIOD) / (float)HALF - 1;
        d->b[i] = (float)(i * i % PERIOD) / (float)HALF - 1;
    }
    for (size_t i = 0; i < (size_t)KEYS * HEAD_DIM; i++) d->halves[i] = (uint16_t)(i % PERIOD << 5); // 0 .. 1
    for (size_t i = 0; i < tern_kv_block_bytes(HEAD_DIM); i++) d->keys[i] = (int8_t)(i * i % PERIOD - HALF);
    for (size_t i = 0; i < KEYS; i++) d->scales[i] = 1e-4F; // scores of a few units
    for (size_t i = 0; i < ROW; i++) d->q[i] = (int8_t)(i % PERIOD - HALF);
    return 1;
}

// n_queries heads over a block of keys.
static void attend(tern_attention_fn *fn, const buffers *d, size_t n_queries) {
    tern_attention_query queries[TERN_ATTN_QUERIES];
    for (size_t i = 0; i < n_queries; i++)
        queries[i] = (tern_attention_query){.q = d->a + i * HEAD_DIM, .acc = d->y + i * HEAD_DIM, .n_keys = KEYS};
    const tern_attention_args args = {.queries = queries,
                                      .n_queries = n_queries,
                                      .keys = d->halves,
                                      .values = d->halves,
                                      .head_dim = HEAD_DIM,
                                      .scale = 1.0F};
    fn(&args);
}

// The same over INT8 keys and values.
static void attend_int8(tern_attention_int8_fn *fn, const buffers *d, size_t n_queries) {
    static const float scales[TERN_ATTN_INT8_QUERIES] = {1, 1, 1, 1};
    static const int32_t no_sums[TERN_ATTN_INT8_QUERIES] = {0}; // right for no query, and as fast
    float most[TERN_ATTN_INT8_QUERIES], total[TERN_ATTN_INT8_QUERIES];
    const tern_attention_int8_args args = {.acc = d->y,
                                           .ld_acc = HEAD_DIM,
                                           .most = most,
                                           .total = total,
                                           .q = d->q,
                                           .ld_q = HEAD_DIM,
                                           .q_scales = scales,
                                           .q_sums = no_sums,
                                           .n_queries = n_queries,
                                           .keys = d->keys,
                                           .values = d->keys,
                                           .next_keys = d->keys,
                                           .key_scales = d->scales,
                                           .value_scales = d->scales,
                                           .n_keys = KEYS,
                                           .head_dim = HEAD_DIM,
                                           .scale = 1.0F};
    fn(&args);
}

// Runs one call of a case. Returns the bytes it reads, 0 for a stage that is not measured here.
static double call(const stage_case *c, const buffers *d, size_t k) {
    static const float eps = 1e-5F;
    switch (c->stage) {
    case TERN_STAGE_quantize:
        (void)((tern_quantize_fn *)c->fn)(d->q, d->y, d->sums, d->a, k, BLOCK, eps);
        return (double)(k * sizeof(float));
    case TERN_STAGE_lut_build:
        ((tern_lut_build_fn *)c->fn)(d->tables, d->q, k, 0,
                                     c->layout == TERN_LAYOUT_T5    ? tern_t5_rows(k)
                                     : c->layout == TERN_LAYOUT_T2N ? tern_t2n_rows(k)
                                                                    : tern_t3_pairs(k));
        return (double)k;
    case TERN_STAGE_rmsnorm:
        ((tern_rmsnorm_fn *)c->fn)(d->y, d->a, d->b, k, eps);
        return (double)(2 * k * sizeof(float));
    case TERN_STAGE_silu_mul:
        ((tern_silu_mul_fn *)c->fn)(d->y, d->a, d->b, k);
        return (double)(2 * k * sizeof(float));
    case TERN_STAGE_relu2_mul:
        ((tern_relu2_mul_fn *)c->fn)(d->y, d->a, d->b, k);
        return (double)(2 * k * sizeof(float));
    case TERN_STAGE_attention:
        attend((tern_attention_fn *)c->fn, d, k);
        return (double)(2 * KEYS * HEAD_DIM * sizeof(uint16_t));
    case TERN_STAGE_attention_int8:
        attend_int8((tern_attention_int8_fn *)c->fn, d, k);
        return (double)(2 * KEYS * (HEAD_DIM + sizeof(float)));
    default:
        return 0;
    }
}

typedef struct sized_case {
    const stage_case *c;
    size_t k; // elements, or query heads
} sized_case;

static void run_stage(bench_state *state, const void *arg) {
    const sized_case *s = arg;
    buffers d;
    if (make_buffers(&d)) {
        double bytes = 0;
        while (bench_next(state)) bytes = call(s->c, &d, s->k);
        bench_bytes_per_iteration(state, bytes);
    } else {
        bench_fail(state, "no memory for the data");
    }
    release(&d);
}

void bench_register_stages(tern_context *ctx) {
    enum { SIZES = 2 };
    static const size_t elements[SIZES] = {2560, ROW}, queries[SIZES] = {1, TERN_ATTN_INT8_QUERIES};
    static sized_case sized[N_CASES][SIZES];
    for (size_t i = 0; i < N_CASES; i++) {
        tern_variant_info v;
        const tern_stage_id stage = cases[i].stage;
        const int attention = stage == TERN_STAGE_attention || stage == TERN_STAGE_attention_int8;
        const int here = stage == TERN_STAGE_quantize || stage == TERN_STAGE_lut_build || stage == TERN_STAGE_rmsnorm ||
                         stage == TERN_STAGE_silu_mul || stage == TERN_STAGE_relu2_mul || attention;
        if (!here || !bench_find_variant(ctx, cases[i].symbol, &v)) continue;
        for (size_t j = 0; j < SIZES; j++) {
            char name[BENCH_NAME_MAX], shape[BENCH_NAME_MAX];
            sized[i][j] = (sized_case){&cases[i], attention ? queries[j] : elements[j]};
            if (attention)
                (void)snprintf(shape, sizeof shape, "q%zu_keys%d_d%d", queries[j], KEYS, HEAD_DIM);
            else
                (void)snprintf(shape, sizeof shape, "k%zu", elements[j]);
            bench_name(name, &v, shape, "hot");
            bench_register(name, run_stage, &sized[i][j], BENCH_CLOCK_WALL);
        }
    }
}
