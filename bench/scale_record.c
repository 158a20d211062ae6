// SPDX-License-Identifier: MIT
// The recording parallel_for, and how it tells products from the other stages: by the functions that products alone run.
#include "scale_record.h"

#include <math.h>
#include <stdlib.h>
#include <tern/matmul.h>

enum { CLOCK_READS = 1000, PROBE_N = 2048, PROBE_K = 2048 };
static const double nano = 1e9;

static bool is_product(const scale_record *r, tern_tile_fn fn) {
    for (size_t i = 0; i < r->n_products; i++)
        if (r->products[i] == fn) return true;
    return false;
}

static void record_for(void *user, tern_tile_fn fn, void *arg, size_t n_tiles) {
    scale_record *r = user;
    const size_t at = r->n_stages++;
    if (r->pass == SCALE_PASS_IDLE || at >= SCALE_STAGES_MAX) {
        for (size_t tile = 0; tile < n_tiles; tile++) fn(arg, tile);
        return;
    }
    scale_stage *stage = &r->stages[at];
    const bool twice = r->pass == SCALE_PASS_HOT && is_product(r, fn);
    double all = 0, squares = 0;
    for (size_t tile = 0; tile < n_tiles; tile++) {
        if (twice) fn(arg, tile);
        const double start = sched_seconds();
        fn(arg, tile);
        const double seconds = fmax(0, sched_seconds() - start - r->clock);
        all += seconds, squares += seconds * seconds;
    }
    stage->fn = fn;
    stage->n_tiles = n_tiles;
    if (r->pass == SCALE_PASS_HOT) {
        if (stage->n_hot < SCALE_RUNS_MAX) stage->hot[stage->n_hot++] = all;
    } else if (stage->n_cold < SCALE_RUNS_MAX) {
        const double mean = all / (double)n_tiles, variance = fmax(0, squares / (double)n_tiles - mean * mean);
        stage->spread[stage->n_cold] = mean > 0 ? sqrt(variance) / mean : 0;
        stage->cold[stage->n_cold++] = all;
    }
}

void scale_record_begin(scale_record *r, scale_pass pass) {
    r->pass = pass;
    r->n_stages = 0;
}

void scale_record_end(scale_record *r) {
    if (r->n_stages > r->most) r->most = r->n_stages;
    r->pass = SCALE_PASS_IDLE;
}

// The longest stage of a product is the product.
static void learn(scale_record *r) {
    size_t longest = 0;
    for (size_t i = 1; i < r->most; i++)
        if (r->stages[i].cold[0] > r->stages[longest].cold[0]) longest = i;
    if (r->most && !is_product(r, r->stages[longest].fn) && r->n_products < SCALE_PRODUCTS_MAX)
        r->products[r->n_products++] = r->stages[longest].fn;
    for (size_t i = 0; i < r->most; i++) r->stages[i] = (scale_stage){.n_tiles = 0};
    r->most = 0;
}

// One product of each kind of weight.
static bool learn_products(scale_record *r, tern_context *ctx) {
    static int8_t codes[PROBE_N * PROBE_K];
    static float x[PROBE_K], y[PROBE_N], scales[PROBE_N * PROBE_K / 32];
    const struct {
        bool int8;
        tern_form form;
        size_t block;
    } kinds[] = {{false, TERN_FORM_LUT, 0}, {false, TERN_FORM_MAD, 0}, {true, TERN_FORM_AUTO, 32}};
    tern_activations *a = NULL;
    bool ok = tern_activations_create(ctx, &a, 1, PROBE_K) == TERN_OK;
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) scales[i] = 1;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && ok; i++) {
        const tern_weights_params params = {.struct_size = sizeof params, .form = kinds[i].form};
        tern_weights *w = NULL;
        ok = (kinds[i].int8 ? tern_weights_from_s8 : tern_weights_from_trits)(ctx, &w, codes, scales, kinds[i].block, PROBE_N,
                                                                              PROBE_K, PROBE_K, &params) == TERN_OK &&
             tern_activations_set_f32(ctx, a, x, 1, PROBE_K, PROBE_K, kinds[i].block) == TERN_OK;
        scale_record_begin(r, SCALE_PASS_COLD);
        ok = ok && tern_matmul_f32(ctx, w, a, y, PROBE_N, NULL) == TERN_OK;
        scale_record_end(r);
        learn(r);
        tern_weights_destroy(w);
    }
    tern_activations_destroy(a);
    return ok || sched_fail("a product to learn from failed: %s", tern_context_error(ctx));
}

static double clock_seconds(void) {
    double values[CLOCK_READS];
    for (size_t i = 0; i < CLOCK_READS; i++) {
        const double start = sched_seconds();
        values[i] = sched_seconds() - start;
    }
    return sched_median(values, CLOCK_READS);
}

tern_context *scale_record_open(scale_record *r, int workers) {
    *r = (scale_record){.clock = clock_seconds(), .stages = calloc(SCALE_STAGES_MAX, sizeof(scale_stage))};
    const tern_context_params params = {
        .struct_size = sizeof params, .threads = workers, .parallel_for = record_for, .parallel_for_user = r, .tune = "off"};
    tern_context *ctx = NULL;
    if (!r->stages || tern_context_create(&ctx, &params) != TERN_OK) {
        (void)sched_fail("no recording context of %d workers", workers);
    } else if (learn_products(r, ctx)) {
        return ctx;
    }
    scale_record_close(r, ctx);
    return NULL;
}

void scale_record_close(scale_record *r, tern_context *ctx) {
    tern_context_destroy(ctx);
    free(r->stages);
    r->stages = NULL;
}

json_t *scale_record_stages(const scale_record *r) {
    json_t *list = json_array();
    for (size_t i = 0; i < r->most; i++) {
        const scale_stage *s = &r->stages[i];
        json_t *stage = json_pack("{s:b, s:I}", "product", is_product(r, s->fn), "tiles", (json_int_t)s->n_tiles);
        sched_set_real(stage, "ns", nano * sched_median(s->cold, s->n_cold));
        sched_set_real(stage, "hot_ns", nano * sched_median(s->hot, s->n_hot));
        sched_set_real(stage, "spread", sched_median(s->spread, s->n_cold));
        (void)json_array_append_new(list, stage);
    }
    return list;
}
