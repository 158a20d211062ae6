// SPDX-License-Identifier: MIT
// Sequences of products through plans: one large product, or those of one token through all layers of a model.
#include "sched_products.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Q, K and V; the attention's output; gate and up; down.
const sched_step sched_layer_bitnet_2b[4] = {
    {2560, 3, {2560, 640, 640}}, {2560, 1, {2560}}, {2560, 2, {6912, 6912}}, {6912, 1, {2560}}};
const sched_step sched_layer_smollm2_135m[4] = {
    {576, 3, {576, 192, 192}}, {576, 1, {576}}, {576, 2, {1536, 1536}}, {1536, 1, {576}}};

enum { STEP_STAGES = 3 }; // quantize, tables, multiply: all weights of a step have one layout

typedef struct step {
    tern_weights *w[SCHED_FAN_MAX];
    tern_plan *plan;
    tern_plan_input input;
    tern_plan_output outputs[SCHED_FAN_MAX];
} step;

struct sched_products {
    tern_context *ctx;
    step *steps;
    size_t n_steps, m, bytes;
    bool borrowed; // its weights are another's
    bool cached;
    float *x, *y[SCHED_FAN_MAX];
    tern_stage *stages; // of the one region
};

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

// Trits for the largest matrix of the sequence; all matrices begin with the same.
static int8_t *random_trits(size_t n) {
    enum { TRITS = 3 };
    int8_t *trits = malloc(n);
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; trits && i < n; i++) {
        state ^= state << 13; // xorshift64
        state ^= state >> 7;
        state ^= state << 17;
        trits[i] = (int8_t)((int)(((state >> 32) * TRITS) >> 32) - 1);
    }
    return trits;
}

static tern_status pack(sched_products *p, step *s, const sched_step *shape, const int8_t *trits) {
    static const float scale = 1;
    const tern_weights_params params = {.struct_size = sizeof params, .expect_m = p->m, .expect_cached = p->cached};
    tern_status status = TERN_OK;
    for (size_t i = 0; status == TERN_OK && i < shape->n_weights; i++)
        status = tern_weights_from_trits(p->ctx, &s->w[i], trits, &scale, 0, shape->n[i], shape->k, shape->k, &params);
    return status;
}

// Its weights are there.
static tern_status plan(sched_products *p, step *s, const sched_step *shape) {
    s->input = (tern_plan_input){.struct_size = sizeof s->input, .x = p->x, .ldx = shape->k, .m = p->m};
    for (size_t i = 0; i < shape->n_weights; i++)
        s->outputs[i] = (tern_plan_output){.struct_size = sizeof s->outputs[i], .y = p->y[i], .ldy = shape->n[i]};
    const tern_plan_params params = {.struct_size = sizeof params,
                                     .weights = (const tern_weights *const *)s->w,
                                     .n_weights = shape->n_weights,
                                     .max_m = p->m,
                                     .x_type = TERN_TYPE_F32,
                                     .y_type = TERN_TYPE_F32};
    return tern_plan_create(p->ctx, &s->plan, &params);
}

// Of the weights of a step. tern_weights_get_info looks where the system has put them, which takes a while.
static tern_status add_bytes(sched_products *p, const step *s, const sched_step *shape, size_t layers) {
    for (size_t i = 0; i < shape->n_weights; i++) {
        tern_weights_info info = {.struct_size = sizeof info};
        const tern_status status = tern_weights_get_info(p->ctx, s->w[i], &info);
        if (status != TERN_OK) return status;
        p->bytes += layers * info.bytes;
    }
    return TERN_OK;
}

static bool allocate(sched_products *p, const sched_sequence *q, size_t n_max, size_t k_max) {
    enum { X_PERIOD = 251 };
    p->steps = calloc(q->n_steps * q->layers, sizeof *p->steps);
    p->x = malloc(p->m * k_max * sizeof *p->x);
    bool ok = p->steps && p->x;
    for (size_t i = 0; i < SCHED_FAN_MAX; i++) ok &= (p->y[i] = malloc(p->m * n_max * sizeof *p->y[i])) != NULL;
    for (size_t i = 0; ok && i < p->m * k_max; i++) p->x[i] = (float)(i % X_PERIOD) - (float)(X_PERIOD / 2);
    return ok;
}

bool sched_products_run_plans(sched_products *p) {
    for (size_t i = 0; i < p->n_steps; i++) {
        const step *s = &p->steps[i];
        if (tern_plan_run(s->plan, &s->input, s->outputs) != TERN_OK) return sched_fail("%s", tern_context_error(p->ctx));
    }
    return true;
}

static tern_status make_steps(sched_products *p, const sched_sequence *q, const sched_products *weights_of,
                              const int8_t *trits) {
    tern_status status = TERN_OK;
    while (status == TERN_OK && p->n_steps < q->n_steps * q->layers) {
        const sched_step *shape = &q->steps[p->n_steps % q->n_steps];
        step *s = &p->steps[p->n_steps++];
        if (weights_of) {
            memcpy(s->w, weights_of->steps[p->n_steps - 1].w, sizeof s->w);
        } else {
            status = pack(p, s, shape, trits);
        }
        if (status == TERN_OK) status = plan(p, s, shape);
        if (status == TERN_OK && p->n_steps <= q->n_steps) status = add_bytes(p, s, shape, q->layers);
    }
    return status;
}

sched_products *sched_products_create(tern_context *ctx, const sched_sequence *q, const sched_products *weights_of) {
    size_t n_max = 1, k_max = 1;
    for (size_t i = 0; i < q->n_steps; i++) {
        k_max = larger(k_max, q->steps[i].k);
        for (size_t j = 0; j < q->steps[i].n_weights; j++) n_max = larger(n_max, q->steps[i].n[j]);
    }
    sched_products *p = calloc(1, sizeof *p);
    int8_t *trits = weights_of ? NULL : random_trits(n_max * k_max);
    tern_status status = TERN_ERR_MEMORY;
    if (p && (trits || weights_of)) {
        *p = (sched_products){.ctx = ctx, .m = q->m, .borrowed = weights_of != NULL, .cached = q->cached};
        if (allocate(p, q, n_max, k_max)) status = make_steps(p, q, weights_of, trits);
    }
    free(trits);
    if (status == TERN_OK && !(p->stages = malloc(STEP_STAGES * p->n_steps * sizeof *p->stages))) status = TERN_ERR_MEMORY;
    if (status == TERN_OK) return p;
    sched_products_destroy(p);
    (void)sched_fail("%s is not ready: %s", q->name, status == TERN_ERR_MEMORY ? "no memory" : tern_context_error(ctx));
    return NULL;
}

void sched_products_destroy(sched_products *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n_steps; i++) {
        tern_plan_destroy(p->steps[i].plan);
        for (size_t j = 0; j < SCHED_FAN_MAX && !p->borrowed; j++) tern_weights_destroy(p->steps[i].w[j]);
    }
    free(p->steps);
    free(p->stages);
    free(p->x);
    for (size_t i = 0; i < SCHED_FAN_MAX; i++) free(p->y[i]);
    free(p);
}

bool sched_products_run_one_region(sched_products *p) {
    size_t n = 0;
    tern_status status = TERN_OK;
    for (size_t i = 0; status == TERN_OK && i < p->n_steps; i++) {
        const step *s = &p->steps[i];
        size_t more = 0;
        status = tern_plan_stages(s->plan, &s->input, s->outputs, p->stages + n, STEP_STAGES, &more);
        n += more;
    }
    if (status == TERN_OK) status = tern_run_region(p->ctx, p->stages, n);
    return status == TERN_OK || sched_fail("%s", tern_context_error(p->ctx));
}

size_t sched_products_bytes(const sched_products *p) { return p->bytes; }
