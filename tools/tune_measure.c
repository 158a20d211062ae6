// SPDX-License-Identifier: MIT
// Measures one ternary product in every layout that this context can multiply, the layouts in turn (A B A B).
#include "tune_measure.h"

#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { FEW = 8, MANY = 512 };
const tune_case tune_cases[TUNE_CASES] = {{1, true}, {1, false}, {FEW, false}, {MANY, true}};

enum {
    FEW_ROWS = 128,
    ROUNDS_MIN = 3,
    ROUNDS_MAX = 25,
    EVICT_BYTES_MIN = 64 << 20, // and at least twice the L3
    SCREEN = 3                  // a layout this many times slower than the best at one token is not measured further
};
static const double budget_seconds = 0.6;  // of one case, where ROUNDS_MIN allow
static const double sample_seconds = 2e-3; // of a sample from cache: many products

typedef struct bed {
    tern_context *ctx;
    tune_shape shape;
    int8_t *trits;
    float *scales, *x, *y;
    tern_activations *act;
    tern_read_probe *evict;
    size_t act_block;
    size_t n; // layouts
    tern_weights *w[TUNE_LAYOUTS_MAX], *few_rows[TUNE_LAYOUTS_MAX];
    const char *layouts[TUNE_LAYOUTS_MAX];
    double shortest[TUNE_LAYOUTS_MAX]; // seconds of a product in the last case
    bool slow[TUNE_LAYOUTS_MAX];
} bed;

// ---- set-up --------------------------------------------------------------------------------------------------------

static uint64_t next_random(uint64_t *state) { // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static bool fill(bed *b) {
    enum { TRITS = 3, SCALES = 7 };
    const tune_shape s = b->shape;
    const size_t per_row = s.scale_block ? (s.k + s.scale_block - 1) / s.scale_block : 0,
                 n_scales = per_row ? s.n * per_row : 1;
    b->trits = malloc(s.n * s.k);
    b->scales = malloc(n_scales * sizeof *b->scales);
    b->x = malloc(MANY * s.k * sizeof *b->x);
    b->y = malloc(MANY * s.n * sizeof *b->y);
    if (!b->trits || !b->scales || !b->x || !b->y) return false;
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < s.n * s.k; i++) b->trits[i] = (int8_t)((int)((next_random(&state) >> 33) % TRITS) - 1);
    for (size_t i = 0; i < n_scales; i++) b->scales[i] = 1.0F / (float)(64 + i % SCALES); // no two neighbours fold into one
    for (size_t i = 0; i < MANY * s.k; i++) b->x[i] = (float)(int8_t)next_random(&state);
    return true;
}

static tern_status pack(const bed *b, size_t n, const tern_weights_params *params, tern_weights **w) {
    const tune_shape s = b->shape;
    return tern_weights_from_trits(b->ctx, w, b->trits, b->scales, s.scale_block, n, s.k, s.k, params);
}

// One weight for each layout whose kernel this context runs.
static tern_status pack_layouts(bed *b) {
    tern_status status = TERN_OK;
    for (size_t i = 0; i < tern_variant_count() && status == TERN_OK && b->n < TUNE_LAYOUTS_MAX; i++) {
        tern_variant_info v = {.struct_size = sizeof v};
        status = tern_variant_get(b->ctx, i, &v);
        if (status != TERN_OK || !v.chosen || (strcmp(v.stage, "lut_gemm") != 0 && strcmp(v.stage, "mad_gemm") != 0)) continue;
        tern_weights_info info = {.struct_size = sizeof info};
        status = tern_force_variant(b->ctx, v.symbol);
        if (status == TERN_OK) status = pack(b, b->shape.n, NULL, &b->w[b->n]);
        if (status == TERN_OK) status = pack(b, b->shape.n < FEW_ROWS ? b->shape.n : FEW_ROWS, NULL, &b->few_rows[b->n]);
        if (status == TERN_OK) status = tern_weights_get_info(b->ctx, b->w[b->n], &info);
        if (status == TERN_OK) status = tern_force_variant(b->ctx, NULL);
        b->layouts[b->n++] = info.layout;
        b->act_block = info.act_block;
    }
    return status;
}

static tern_status create(bed *b, const char **failed) {
    if (!fill(b)) {
        *failed = "the weights and activations to multiply";
        return TERN_ERR_MEMORY;
    }
    tern_topology_info topology = {.struct_size = sizeof topology};
    tern_status status = tern_get_topology_info(b->ctx, &topology);
    const size_t evict = 2 * topology.l3_bytes > EVICT_BYTES_MIN ? 2 * topology.l3_bytes : EVICT_BYTES_MIN;
    if (status == TERN_OK) status = tern_read_probe_create(b->ctx, &b->evict, evict);
    if (status == TERN_OK) status = tern_activations_create(b->ctx, &b->act, MANY, b->shape.k);
    if (status == TERN_OK) status = pack_layouts(b);
    return status;
}

static void destroy(bed *b) {
    for (size_t i = 0; i < TUNE_LAYOUTS_MAX; i++) tern_weights_destroy(b->w[i]), tern_weights_destroy(b->few_rows[i]);
    tern_activations_destroy(b->act);
    tern_read_probe_destroy(b->evict);
    free(b->trits);
    free(b->scales);
    free(b->x);
    free(b->y);
}

// ---- one sample ----------------------------------------------------------------------------------------------------

// Quantizing is part of it: a layout's tables are built anew from each row.
static tern_status product(bed *b, const tern_weights *w, size_t m) {
    const tune_shape s = b->shape;
    const tern_status status = tern_activations_set_f32(b->ctx, b->act, b->x, m, s.k, s.k, b->act_block);
    return status == TERN_OK ? tern_matmul_f32(b->ctx, w, b->act, b->y, s.n, NULL) : status;
}

// Puts the weights out of every cache. Activations, tables and code, which a model's last layer would have left there, are
// brought back by a product with a few other rows.
static tern_status evict(bed *b, size_t layout, size_t m) {
    double swept;
    const tern_status status = tern_read_probe_sweep(b->ctx, b->evict, &swept);
    return status == TERN_OK ? product(b, b->few_rows[layout], m) : status;
}

static tern_status sample(bed *b, size_t layout, tune_case c, double *seconds) {
    tern_status status = c.cached ? product(b, b->w[layout], c.m) : evict(b, layout, c.m);
    const double start = cli_seconds();
    double total = 0;
    size_t products = 0;
    while (status == TERN_OK && (products == 0 || (c.cached && total < sample_seconds))) {
        status = product(b, b->w[layout], c.m);
        products++;
        total = cli_seconds() - start;
    }
    *seconds = total / (double)products;
    return status;
}

// ---- one case ------------------------------------------------------------------------------------------------------

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Layouts that are hopeless at one token are out of the other cases, where one product of theirs might take minutes. Shortest
// times: what another program does meanwhile must not throw a layout out.
static void screen(bed *b) {
    double best = b->shortest[0];
    for (size_t i = 1; i < b->n; i++)
        if (b->shortest[i] < best) best = b->shortest[i];
    for (size_t i = 0; i < b->n; i++) b->slow[i] = b->shortest[i] > SCREEN * best;
}

static tern_status measure_case(bed *b, tune_case c, tune_measurement *out) {
    double seconds[TUNE_LAYOUTS_MAX][ROUNDS_MAX];
    const double start = cli_seconds();
    size_t rounds = 0;
    tern_status status = TERN_OK;
    while (status == TERN_OK && rounds < ROUNDS_MAX && (rounds < ROUNDS_MIN || cli_seconds() - start < budget_seconds)) {
        for (size_t i = 0; i < b->n && status == TERN_OK; i++)
            if (!b->slow[i]) status = sample(b, i, c, &seconds[i][rounds]);
        rounds++;
    }
    if (status != TERN_OK) return status;
    out->n = b->n;
    for (size_t i = 0; i < b->n; i++) {
        out->speeds[i] = (tune_speed){b->layouts[i], 0};
        if (b->slow[i]) continue;
        qsort(seconds[i], rounds, sizeof *seconds[i], by_value);
        b->shortest[i] = seconds[i][0];
        out->speeds[i].multiply_adds_per_second =
            (double)c.m * (double)b->shape.n * (double)b->shape.k / seconds[i][rounds / 2];
    }
    const tern_weights_params params = {.struct_size = sizeof params, .expect_m = c.m, .expect_cached = c.cached};
    tern_weights *w = NULL;
    tern_weights_info info = {.struct_size = sizeof info};
    status = pack(b, b->shape.n, &params, &w);
    if (status == TERN_OK) status = tern_weights_get_info(b->ctx, w, &info);
    out->built_in = info.layout;
    tern_weights_destroy(w);
    return status;
}

tern_status tune_measure(tern_context *ctx, const tune_shape *shape, tune_measurement out[TUNE_CASES], const char **failed) {
    bed b = {.ctx = ctx, .shape = *shape};
    *failed = NULL;
    tern_status status = create(&b, failed);
    for (size_t c = 0; c < TUNE_CASES && status == TERN_OK; c++) {
        status = measure_case(&b, tune_cases[c], &out[c]);
        if (c == 0 && status == TERN_OK) screen(&b);
    }
    destroy(&b);
    return status;
}
