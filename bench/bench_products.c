// SPDX-License-Identifier: MIT
// Products of every GEMM variant through the public API: one token (hot, and cycling through copies in DRAM) and a batch.
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_shim.h"

enum {
    N_MAX = 6912,
    K_MAX = 6912,
    WEIGHTS_MAX = N_MAX * 2560,
    M_MAX = 512,
    SCALE_BLOCK = 32,
    COPIES_MAX = 1024,
    DRAM_BYTES = 320 << 20
};

typedef struct product_case {
    const char *symbol; // of the variant
    int int8;           // int8 codes, else trits
    size_t scale_block; // 0, or SCALE_BLOCK
    tern_form form;
    size_t m, n, k;
    size_t bytes; // of copies to cycle through; 0: one copy
} product_case;

static const struct { size_t n, k; } shapes[] = {{2560, 2560}, {640, 2560}, {6912, 2560}, {2560, 6912}, {4096, 4096}};
static const struct {
    const char *stage;
    size_t scale_block;
    int int8;
    tern_form form;
} stages[] = {{"lut_gemm", 0, 0, TERN_FORM_LUT},
              {"mad_gemm", 0, 0, TERN_FORM_MAD},
              {"int8_gemm", 0, 1, TERN_FORM_AUTO},
              {"int8_gemm_b32", SCALE_BLOCK, 1, TERN_FORM_AUTO}};
static const struct {
    const char *name;
    size_t m, bytes;
} residencies[] = {{"hot", 1, 0}, {"dram", 1, DRAM_BYTES}, {"hot", M_MAX, 0}};
enum {
    N_SHAPES = sizeof shapes / sizeof *shapes,
    N_STAGES = sizeof stages / sizeof *stages,
    N_RESIDENCIES = sizeof residencies / sizeof *residencies
};

// What the running case uses. Google Benchmark calls a benchmark several times to find its number of iterations: weights stay
// packed until another case comes.
static struct {
    tern_context *ctx;
    product_case *cases;
    const product_case *packed;
    tern_weights *copies[COPIES_MAX];
    size_t n_copies, copy_bytes;
    tern_activations *one, *many;
    int8_t *codes, *trits, *x;
    float *scales, *y;
} bench;

static void release_copies(void) {
    for (size_t i = 0; i < bench.n_copies; i++) tern_weights_destroy(bench.copies[i]);
    bench.n_copies = 0;
    bench.packed = NULL;
}

// Random codes, activations and unit scales, made when the first benchmark runs.
static int make_data(void) {
    if (bench.y) return 1;
    bench.codes = malloc(WEIGHTS_MAX);
    bench.trits = malloc(WEIGHTS_MAX);
    bench.x = malloc((size_t)M_MAX * K_MAX);
    bench.scales = malloc(WEIGHTS_MAX / SCALE_BLOCK * sizeof(float));
    float *y = malloc((size_t)M_MAX * N_MAX * sizeof(float));
    if (!bench.codes || !bench.trits || !bench.x || !bench.scales || !y) {
        free(y);
        return 0;
    }
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < WEIGHTS_MAX; i++) {
        state ^= state << 13; // xorshift64
        state ^= state >> 7;
        state ^= state << 17;
        bench.codes[i] = (int8_t)(state & 0xFF);
        bench.trits[i] = (int8_t)((int)(((state >> 32) * 3) >> 32) - 1);
        if (i < (size_t)M_MAX * K_MAX) bench.x[i] = (int8_t)((state >> 8) & 0xFF);
    }
    for (size_t i = 0; i < WEIGHTS_MAX / SCALE_BLOCK; i++) bench.scales[i] = 1.0F;
    bench.y = y;
    return tern_activations_create(bench.ctx, &bench.one, 1, K_MAX) == TERN_OK &&
           tern_activations_create(bench.ctx, &bench.many, M_MAX, K_MAX) == TERN_OK;
}

static tern_status pack_one(const product_case *c, tern_weights **w) {
    const tern_weights_params params = {.struct_size = sizeof params, .form = c->form};
    if (c->int8)
        return tern_weights_from_s8(bench.ctx, w, bench.codes, bench.scales, c->scale_block, c->n, c->k, c->k, &params);
    return tern_weights_from_trits(bench.ctx, w, bench.trits, bench.scales, 0, c->n, c->k, c->k, &params);
}

static tern_status pack(const product_case *c) {
    if (bench.packed == c) return TERN_OK;
    release_copies();
    tern_status status = tern_force_variant(bench.ctx, c->symbol);
    size_t bytes = 0;
    do {
        tern_weights_info info = {.struct_size = sizeof info};
        if (status == TERN_OK) status = pack_one(c, &bench.copies[bench.n_copies]);
        if (status != TERN_OK) return status;
        status = tern_weights_get_info(bench.ctx, bench.copies[bench.n_copies++], &info);
        bench.copy_bytes = info.bytes;
        bytes += info.bytes;
    } while (bytes < c->bytes && bench.n_copies < COPIES_MAX);
    bench.packed = c;
    return status;
}

static void run_product(bench_state *state, const void *arg) {
    const product_case *c = arg;
    if (!make_data()) {
        bench_fail(state, "no memory for the data");
        return;
    }
    tern_status status = pack(c);
    tern_activations *a = c->m == 1 ? bench.one : bench.many;
    if (status != TERN_OK) {
        bench_fail(state, tern_context_error(bench.ctx));
        return;
    }
    for (size_t i = 0; bench_next(state); i = i + 1 < bench.n_copies ? i + 1 : 0) {
        // set anew outside the clock, so that deriving tables from them is part of each product
        status = tern_activations_set_s8(bench.ctx, a, bench.x, NULL, c->m, c->k, c->k, c->scale_block);
        const double start = bench_seconds();
        if (status == TERN_OK) status = tern_matmul_f32(bench.ctx, bench.copies[i], a, bench.y, c->n, NULL);
        bench_add_time(state, bench_seconds() - start);
        if (status != TERN_OK) {
            bench_fail(state, tern_context_error(bench.ctx));
            break;
        }
    }
    bench_bytes_per_iteration(state, (double)bench.copy_bytes);
    bench_macs_per_iteration(state, (double)c->m * (double)c->n * (double)c->k);
}

static void register_variant(const tern_variant_info *v, size_t stage, product_case *next) {
    for (size_t s = 0; s < N_SHAPES; s++) {
        for (size_t r = 0; r < N_RESIDENCIES; r++) {
            char name[BENCH_NAME_MAX], shape[BENCH_NAME_MAX];
            product_case *c = next++;
            *c = (product_case){.symbol = v->symbol,
                                .int8 = stages[stage].int8,
                                .scale_block = stages[stage].scale_block,
                                .form = stages[stage].form,
                                .m = residencies[r].m,
                                .n = shapes[s].n,
                                .k = shapes[s].k,
                                .bytes = residencies[r].bytes};
            (void)snprintf(shape, sizeof shape, "m%zu_n%zu_k%zu", c->m, c->n, c->k);
            bench_name(name, v, shape, residencies[r].name);
            bench_register(name, run_product, c, BENCH_CLOCK_MANUAL);
        }
    }
}

void bench_register_products(tern_context *ctx) {
    bench.ctx = ctx;
    const size_t per_variant = (size_t)N_SHAPES * N_RESIDENCIES;
    bench.cases = calloc(tern_variant_count() * per_variant, sizeof *bench.cases);
    if (!bench.cases) {
        (void)fprintf(stderr, "tern_bench: no memory for the list of products\n");
        exit(1);
    }
    for (size_t i = 0; i < tern_variant_count(); i++) {
        tern_variant_info v = {.struct_size = sizeof v};
        if (tern_variant_get(ctx, i, &v) != TERN_OK || !v.usable) continue;
        for (size_t stage = 0; stage < N_STAGES; stage++) {
            if (strcmp(stages[stage].stage, v.stage) == 0) register_variant(&v, stage, bench.cases + i * per_variant);
        }
    }
}

void bench_release_products(void) {
    release_copies();
    tern_activations_destroy(bench.one);
    tern_activations_destroy(bench.many);
    free(bench.cases);
    free(bench.codes);
    free(bench.trits);
    free(bench.x);
    free(bench.scales);
    free(bench.y);
}
