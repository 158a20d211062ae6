// SPDX-License-Identifier: MIT
// What the second core brings to a product, beside what it brings to the machine's own limit in the same rounds.
//
// Each round: one worker, two workers, one worker again, and the same for the limit. The two runs of one worker tell how much
// the machine itself changed meanwhile (A/A): a round in which it changed much is dropped, whatever two workers did in it. The
// ratio of a round is taken inside it; reported are medians of ratios.
#include <math.h>
#include <stdio.h>

#include "sched_products.h"

enum { ROUNDS = 11, ROUNDS_MAX = ROUNDS, QUICK_ROUNDS = 2, REPEATS_MAX = 4096, M_GEMM = 512, DRAM_BYTES = 320 << 20 };
enum { TRIES = 2 }; // rounds at most, for each that is wanted
enum { QUICK_M = 32, QUICK_BYTES = 16 << 20 };
static const double run_seconds = 4e-3; // a shorter sequence is repeated
static const double case_seconds = 3;   // then a slow sequence has had its rounds
static const double noise_max = 0.1;    // A/A, of a round that counts

typedef enum limit { LIMIT_NONE, LIMIT_DRAM, LIMIT_INT8 } limit;
static const char *const limit_names[] = {[LIMIT_NONE] = "none", [LIMIT_DRAM] = "DRAM read", [LIMIT_INT8] = "INT8 peak"};

typedef struct scaling_case {
    sched_sequence sequence;
    limit limit;
} scaling_case;

static const sched_step gemm_2560x6912[] = {{6912, 1, {2560}}}, gemm_4096x4096[] = {{4096, 1, {4096}}};
// SmolLM2's proportions, made smaller.
static const sched_step layer_half[] = {{288, 3, {288, 96, 96}}, {288, 1, {288}}, {288, 2, {768, 768}}, {768, 1, {288}}};
static const sched_step layer_third[] = {{192, 3, {192, 64, 64}}, {192, 1, {192}}, {192, 2, {512, 512}}, {512, 1, {192}}};
enum { LAYER_STEPS = 4, LAYERS_2B = 30, LAYERS_135M = 30, LAYERS_HALF = 2, LAYERS_THIRD = 4 };

static const scaling_case cases[] = {
    {{"gemm_m512_2560x6912", gemm_2560x6912, 1, 1, M_GEMM, false}, LIMIT_INT8},
    {{"gemm_m512_4096x4096", gemm_4096x4096, 1, 1, M_GEMM, false}, LIMIT_INT8},
    {{"token_bitnet_2b", sched_layer_bitnet_2b, LAYER_STEPS, LAYERS_2B, 1, false}, LIMIT_DRAM},
    {{"token_smollm2_135m", sched_layer_smollm2_135m, LAYER_STEPS, LAYERS_135M, 1, false}, LIMIT_NONE},
    {{"token_smollm2_1_layer", sched_layer_smollm2_135m, LAYER_STEPS, 1, 1, true}, LIMIT_NONE},
    {{"token_288_768_2_layers", layer_half, LAYER_STEPS, LAYERS_HALF, 1, true}, LIMIT_NONE},
    {{"token_192_512_4_layers", layer_third, LAYER_STEPS, LAYERS_THIRD, 1, true}, LIMIT_NONE},
};
enum { CASES = sizeof cases / sizeof *cases };

// One side: a context of so many workers, what it multiplies, and its probe of the limit.
typedef struct side {
    tern_context *ctx;
    sched_products *products;
    sched_products_fn *run; // a way of running them
    tern_read_probe *probe;
    size_t probe_bytes;
} side;

static double seconds_of(side *s) {
    double total = 0;
    size_t n = 0;
    do {
        const double start = sched_seconds();
        if (!s->run(s->products)) return (double)NAN;
        total += sched_seconds() - start;
        n++;
    } while (total < run_seconds && n < REPEATS_MAX);
    return total / (double)n;
}

// Bytes or operations per second.
static double limit_of(const side *s, limit l) {
    double seconds = (double)NAN, ops = 0;
    if (l == LIMIT_DRAM && tern_read_probe_sweep(s->ctx, s->probe, &seconds) == TERN_OK)
        return (double)s->probe_bytes / seconds;
    if (l == LIMIT_INT8 && tern_int8_peak(s->ctx, &ops, &seconds) == TERN_OK) return ops / seconds;
    return (double)NAN;
}

typedef struct rounds {
    size_t n, dropped;
    double one[ROUNDS_MAX], two[ROUNDS_MAX], ratio[ROUNDS_MAX], noise[ROUNDS_MAX]; // noise: one worker against itself
    double limit_ratio[ROUNDS_MAX], of_limit[ROUNDS_MAX];
} rounds;

static bool measure_round(side *one, side *two, limit l, rounds *r) {
    const double limit_before = limit_of(one, l), before = seconds_of(one), both = seconds_of(two), after = seconds_of(one);
    const double limit_two = limit_of(two, l), limit_after = limit_of(one, l), alone = (before + after) / 2;
    if (!isfinite(alone) || !isfinite(both)) return false;
    if (fabs(after / before - 1) > noise_max) {
        r->dropped++;
        return true;
    }
    r->one[r->n] = alone;
    r->two[r->n] = both;
    r->ratio[r->n] = alone / both;
    r->noise[r->n] = fabs(after / before - 1);
    r->limit_ratio[r->n] = limit_two / ((limit_before + limit_after) / 2);
    r->of_limit[r->n] = r->ratio[r->n] / r->limit_ratio[r->n];
    r->n++;
    return true;
}

static void report(sched_bench *b, const char *name, limit l, size_t bytes, const rounds *r) {
    json_t *object = sched_add_case(b, name, "tern", "x", r->ratio, r->n);
    sched_set_real(object, "seconds_1", sched_median(r->one, r->n));
    sched_set_real(object, "seconds_2", sched_median(r->two, r->n));
    (void)json_object_set_new(object, "dropped", json_integer((json_int_t)r->dropped));
    sched_set_real(object, "noise", sched_median(r->noise, r->n));
    (void)json_object_set_new(object, "bytes", json_integer((json_int_t)bytes));
    (void)json_object_set_new(object, "limit", json_string(limit_names[l]));
    const size_t n = l == LIMIT_NONE ? 0 : r->n;
    sched_set_real(object, "limit_ratio", sched_median(r->limit_ratio, n));
    sched_set_real(object, "of_limit", sched_median(r->of_limit, n));
}

static bool measure_way(sched_bench *b, const scaling_case *c, const char *suffix, sched_products_fn *run, side *one,
                        side *two) {
    char name[BUFSIZ];
    rounds r = {.n = 0};
    (void)snprintf(name, sizeof name, "%s%s", c->sequence.name, suffix);
    one->run = two->run = run;
    bool ok = isfinite(seconds_of(one)) && isfinite(seconds_of(two)); // warms up
    const double end = sched_seconds() + case_seconds;
    const size_t wanted = b->quick ? QUICK_ROUNDS : ROUNDS;
    while (ok && r.n < wanted && r.n + r.dropped < TRIES * wanted && sched_seconds() < end)
        ok = measure_round(one, two, c->limit, &r);
    if (ok) report(b, name, c->limit, sched_products_bytes(two->products), &r);
    return ok;
}

static bool measure_case(sched_bench *b, const scaling_case *c, side *one, side *two) {
    sched_sequence sequence = c->sequence;
    if (b->quick) sequence.layers = 1;
    if (b->quick && sequence.m > QUICK_M) sequence.m = QUICK_M;
    two->products = sched_products_create(two->ctx, &sequence, NULL);
    one->products = two->products ? sched_products_create(one->ctx, &sequence, two->products) : NULL;
    bool ok = one->products && measure_way(b, c, "", sched_products_run_plans, one, two);
    if (ok && c->sequence.n_steps > 1) ok = measure_way(b, c, "/one_region", sched_products_run_one_region, one, two);
    sched_products_destroy(one->products);
    sched_products_destroy(two->products);
    return ok;
}

static bool open_side(const sched_bench *b, side *s, int threads) {
    s->probe_bytes = b->quick ? QUICK_BYTES : DRAM_BYTES;
    s->ctx = sched_open(threads);
    if (!s->ctx) return false;
    return tern_read_probe_create(s->ctx, &s->probe, s->probe_bytes) == TERN_OK ||
           sched_fail("no probe of the memory: %s", tern_context_error(s->ctx));
}

static void close_side(side *s) {
    tern_read_probe_destroy(s->probe);
    tern_context_destroy(s->ctx);
}

bool sched_measure_scaling(sched_bench *b) {
    side one = {.ctx = NULL}, two = {.ctx = NULL};
    bool ok = open_side(b, &one, 1) && open_side(b, &two, SCHED_PAIR);
    for (size_t i = 0; i < CASES && ok; i++) ok = measure_case(b, &cases[i], &one, &two);
    close_side(&one);
    close_side(&two);
    return ok;
}
