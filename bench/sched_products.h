// SPDX-License-Identifier: MIT
// Sequences of products through plans: one large product, or those of one token through all layers of a model.
#ifndef TERN_BENCH_SCHED_PRODUCTS_H
#define TERN_BENCH_SCHED_PRODUCTS_H

#include "sched_bench.h"

enum { SCHED_FAN_MAX = 3 }; // weights that share an input: Q, K and V

// Weights of n[i] features that share an input of depth k: one plan, one region.
typedef struct sched_step {
    size_t k, n_weights;
    size_t n[SCHED_FAN_MAX];
} sched_step;

// All steps in order, `layers` times over, each layer with ternary weights of its own. A region for each step (tern_plan_run),
// or one for all of them (tern_plan_stages), which is how a decode loop runs a token.
typedef struct sched_sequence {
    const char *name;
    const sched_step *steps;
    size_t n_steps, layers, m;
    bool cached; // all weights fit the L2s, and packing is told so
} sched_sequence;

extern const sched_step sched_layer_bitnet_2b[4], sched_layer_smollm2_135m[4];

// A sequence ready to run in one context.
typedef struct sched_products sched_products;

// NULL, with the error printed, if it cannot be had. weights_of: made of the same sequence, whose weights are used, too, and
// which is destroyed later; NULL: packs its own.
sched_products *sched_products_create(tern_context *ctx, const sched_sequence *q, const sched_products *weights_of);
void sched_products_destroy(sched_products *p);
// The sequence once, in many regions or in one.
typedef bool sched_products_fn(sched_products *p);
sched_products_fn sched_products_run_plans, sched_products_run_one_region;
size_t sched_products_bytes(const sched_products *p); // of packed weights

#endif
