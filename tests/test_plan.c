// SPDX-License-Identifier: MIT
// Plans: the bits of the single calls for every type and mixture of weights, in one region or in parts on foreign threads,
// without allocation, within their workspace.
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan_fixture.h"
#include "test_scale.h"

enum { PARTS_MAX = 11 };

// ---- one case: weights, a plan, and what it should give -------------------------------------------------------------

enum { WEIGHTS_MAX = 9 };

typedef struct plan_case {
    tern_type x_type, y_type;
    size_t m, n_weights;
    int kinds[WEIGHTS_MAX];
    size_t n[WEIGHTS_MAX];
    bool epilogue;
} plan_case;

static tern_weights *weights[WEIGHTS_MAX];
static uint32_t want[WEIGHTS_MAX][M_MAX * N_MAX], got[WEIGHTS_MAX][M_MAX * N_MAX];
static float bias[N_MAX], residual[M_MAX * N_MAX];

static size_t y_bytes(tern_type type) { return type == TERN_TYPE_F32 || type == TERN_TYPE_S32 ? 4 : 2; }

static uint16_t bfloat_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// By the single calls, which other tests compare with the oracle; half types by the scalar reference.
static void compute_want(tern_context *ctx, const plan_case *c) {
    static float y[M_MAX * N_MAX];
    tern_activations *a = NULL;
    assert_int_equal(tern_activations_create(ctx, &a, c->m, K), TERN_OK);
    for (size_t i = 0; i < c->n_weights; i++) {
        const size_t n = c->n[i];
        set_activations(ctx, a, c->x_type, c->m, act_block(ctx, weights[i]), c->kinds[i] != 6);
        if (c->y_type == TERN_TYPE_S32) {
            assert_int_equal(tern_matmul_s32(ctx, weights[i], a, (int32_t *)want[i], n), TERN_OK);
            continue;
        }
        const tern_epilogue e = {sizeof e, bias, residual, n};
        assert_int_equal(tern_matmul_f32(ctx, weights[i], a, y, n, c->epilogue ? &e : NULL), TERN_OK);
        for (size_t j = 0; j < c->m * n; j++) {
            if (c->y_type == TERN_TYPE_F32) memcpy(&want[i][j], &y[j], 4);
            if (c->y_type == TERN_TYPE_F16) ((uint16_t *)want[i])[j] = tern_f32_to_f16(y[j]);
            if (c->y_type == TERN_TYPE_BF16) ((uint16_t *)want[i])[j] = bfloat_of(y[j]);
        }
    }
    tern_activations_destroy(a);
}

static void fill_outputs(const plan_case *c, tern_plan_output *outputs) {
    memset(got, 0x5A, sizeof got);
    for (size_t i = 0; i < c->n_weights; i++)
        outputs[i] = (tern_plan_output){.struct_size = sizeof *outputs,
                                        .y = got[i],
                                        .ldy = c->n[i],
                                        .bias = c->epilogue ? bias : NULL,
                                        .residual = c->epilogue ? residual : NULL,
                                        .ld_residual = c->n[i]};
}

static void check_got(const plan_case *c, const char *how, size_t nth) {
    for (size_t i = 0; i < c->n_weights; i++)
        if (memcmp(got[i], want[i], c->m * c->n[i] * y_bytes(c->y_type)) != 0)
            fail_msg("%s, %zu parts: x type %d, y type %d, m %zu, weight %zu of kind %d, n %zu differs", how, nth,
                     (int)c->x_type, (int)c->y_type, c->m, i, c->kinds[i], c->n[i]);
}

// ---- parts on foreign threads -------------------------------------------------------------------------------------

typedef struct part {
    tern_plan *plan;
    const tern_plan_input *input;
    const tern_plan_output *outputs;
    pthread_barrier_t *barrier;
    size_t ith, nth;
    tern_status prepared, multiplied;
} part;

static void *run_part(void *arg) {
    part *p = arg;
    p->prepared = tern_prepare_part(p->plan, p->input, p->ith, p->nth);
    pthread_barrier_wait(p->barrier);
    p->multiplied = tern_matmul_part(p->plan, p->input->m, p->outputs, p->ith, p->nth);
    return NULL;
}

static void run_parts(tern_plan *plan, const tern_plan_input *input, const tern_plan_output *outputs, size_t nth) {
    pthread_barrier_t barrier;
    pthread_t threads[PARTS_MAX];
    part parts[PARTS_MAX];
    assert_int_equal(pthread_barrier_init(&barrier, NULL, (unsigned)nth), 0);
    for (size_t i = 0; i < nth; i++) {
        parts[i] = (part){plan, input, outputs, &barrier, i, nth, TERN_ERR_STATE, TERN_ERR_STATE};
        assert_int_equal(pthread_create(&threads[i], NULL, run_part, &parts[i]), 0);
    }
    for (size_t i = 0; i < nth; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(parts[i].prepared, TERN_OK);
        assert_int_equal(parts[i].multiplied, TERN_OK);
    }
    pthread_barrier_destroy(&barrier);
}

// ---- every case ---------------------------------------------------------------------------------------------------

static void check_case(tern_context *ctx, const plan_case *c) {
    if (!test_takes_case(next_random())) return;
    const bool u8 = c->x_type == TERN_TYPE_U8;
    for (size_t i = 0; i < c->n_weights; i++) weights[i] = make_weights(ctx, c->kinds[i], c->n[i], u8 && c->kinds[i] != 6);
    make_input(c->x_type);
    for (size_t i = 0; i < N_MAX; i++) bias[i] = random_float();
    for (size_t i = 0; i < M_MAX * N_MAX; i++) residual[i] = random_float();
    compute_want(ctx, c);
    tern_plan_params params = {.struct_size = sizeof params,
                               .weights = (const tern_weights *const *)weights,
                               .n_weights = c->n_weights,
                               .max_m = c->m + random_below(3),
                               .x_type = c->x_type,
                               .y_type = c->y_type,
                               .max_parts = random_below(2) ? random_below(5) : PARTS_MAX};
    assert_int_equal(tern_plan_workspace_bytes(ctx, &params, &params.workspace_bytes), TERN_OK);
    unsigned end = (unsigned)random_below(2); // the workspace ends, or begins, at an unmapped page
    params.workspace = random_below(4) ? guard_alloc(&end, params.workspace_bytes, 64) : NULL;
    tern_plan *plan = NULL;
    assert_int_equal(tern_plan_create(ctx, &plan, &params), TERN_OK);
    const bool codes_given = c->x_type >= TERN_TYPE_S8;
    const tern_plan_input input = {.struct_size = sizeof input,
                                   .x = &x,
                                   .ldx = K,
                                   .m = c->m,
                                   .scales = codes_given ? x_scales : NULL,
                                   .zero_points = u8 && c->kinds[0] != 6 ? zero_points : NULL};
    tern_plan_output outputs[WEIGHTS_MAX];
    const size_t before = allocations;
    fill_outputs(c, outputs);
    assert_int_equal(tern_plan_run(plan, &input, outputs), TERN_OK);
    check_got(c, "one region", 0);
    for (size_t nth = 1; nth <= PARTS_MAX; nth += nth < 5 ? 1 : 6) {
        fill_outputs(c, outputs);
        run_parts(plan, &input, outputs, nth);
        check_got(c, "parts", nth);
    }
    assert_int_equal(allocations, before);
    tern_plan_destroy(plan);
    if (params.workspace) guard_free(&end, params.workspace, params.workspace_bytes);
    for (size_t i = 0; i < c->n_weights; i++) tern_weights_destroy(weights[i]);
}

static void each_type(tern_context *ctx, int first_kind, int last_kind, bool s32) {
    static const size_t ms[] = {1, 2, 8, 9, M_MAX};
    static const tern_type y_types[] = {TERN_TYPE_F32, TERN_TYPE_F16, TERN_TYPE_BF16, TERN_TYPE_S32};
    for (int kind = first_kind; kind <= last_kind; kind++)
        for (int type = TERN_TYPE_F32; type <= TERN_TYPE_U8; type++)
            for (size_t y = 0; y < (s32 ? 4 : 3); y++)
                for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
                    const plan_case c = {.x_type = (tern_type)type,
                                         .y_type = y_types[y],
                                         .m = ms[i],
                                         .n_weights = 1,
                                         .kinds = {kind},
                                         .n = {1 + random_below(N_MAX)},
                                         .epilogue = i % 2 && y_types[y] != TERN_TYPE_S32};
                    check_case(ctx, &c);
                }
}

static void every_type_of_input_and_output_has_the_bits_of_the_single_calls(void **unused) {
    (void)unused;
    for (int threads = 1; threads <= 2; threads++) {
        tern_context *ctx = create_context(threads, NULL);
        test_begin_group();
        each_type(ctx, 0, 3, true);
        each_type(ctx, 4, KINDS - 1, false);
        tern_context_destroy(ctx);
    }
}

static void weights_of_every_kind_share_one_plan(void **unused) {
    (void)unused;
    static const char *const tiers[] = {"scalar", NULL};
    for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++) {
        tern_context *ctx = create_context(2, tiers[t]);
        test_begin_group();
        for (size_t m = 1; m <= M_MAX; m += 1 + random_below(9))
            for (int repeat = 0; repeat < 3; repeat++) {
                plan_case c = {.x_type = (tern_type)random_below(3),
                               .y_type = (tern_type)random_below(3),
                               .m = m,
                               .n_weights = 1 + random_below(WEIGHTS_MAX),
                               .epilogue = repeat > 0};
                for (size_t i = 0; i < c.n_weights; i++) {
                    c.kinds[i] = (int)random_below(KINDS);
                    c.n[i] = 1 + random_below(N_MAX);
                }
                check_case(ctx, &c);
            }
        tern_context_destroy(ctx);
    }
}

// A layer of two products, the second of the first one's output, with a stage of the caller's between them.
typedef struct halving {
    float *x;
    size_t n;
} halving;
static void halve(void *arg, size_t tile) {
    const halving *h = arg;
    (void)tile;
    for (size_t i = 0; i < h->n; i++) h->x[i] *= 0.5f;
}

static void stages_of_several_plans_in_one_region_have_the_bits_of_separate_runs(void **unused) {
    (void)unused;
    enum { M = 13, STAGES_MAX = 64, KIND_PAIRS = 2 };
    for (int threads = 1; threads <= 3; threads++)
        for (int pair = 0; pair < KIND_PAIRS; pair++) {
            tern_context *ctx = create_context(threads, NULL);
            tern_weights *w[2] = {make_weights(ctx, pair ? 5 : 0, N_MAX, false), make_weights(ctx, pair ? 1 : 0, N_MAX, false)};
            static float given[M * K], y[2][2][M * K]; // [region or runs][plan]; the outputs of plan 0 are as wide as its input
            for (size_t i = 0; i < (size_t)M * K; i++) given[i] = random_float();
            memset(y, 0, sizeof y);
            tern_plan *plans[2] = {NULL, NULL};
            for (int i = 0; i < 2; i++) {
                const tern_plan_params p = {
                    .struct_size = sizeof p, .weights = (const tern_weights *const[]){w[i]}, .n_weights = 1, .max_m = M};
                assert_int_equal(tern_plan_create(ctx, &plans[i], &p), TERN_OK);
            }
            const size_t m = 1 + random_below(M), before = allocations;
            tern_stage stages[STAGES_MAX];
            size_t n = 0;
            for (int way = 0; way < 2; way++) {
                halving h = {y[way][0], (size_t)M * K};
                const tern_stage between = {halve, &h, 1, "halve"};
                for (int i = 0; i < 2; i++) {
                    const tern_plan_input in = {.struct_size = sizeof in, .x = i ? y[way][0] : given, .ldx = K, .m = m};
                    const tern_plan_output out = {.struct_size = sizeof out, .y = y[way][i], .ldy = K};
                    if (way == 1) {
                        assert_int_equal(tern_plan_run(plans[i], &in, &out), TERN_OK);
                        if (i == 0) assert_int_equal(tern_run_region(ctx, &between, 1), TERN_OK);
                        continue;
                    }
                    size_t count = 0;
                    assert_int_equal(tern_plan_stages(plans[i], &in, &out, stages + n, STAGES_MAX - n, &count), TERN_OK);
                    n += count;
                    if (i == 0) stages[n++] = between;
                }
                if (way == 0) assert_int_equal(tern_run_region(ctx, stages, n), TERN_OK);
                for (int i = 0; i < 2; i++) assert_int_equal(tern_plan_check(plans[i]), TERN_OK);
            }
            assert_memory_equal(y[0], y[1], sizeof y[0]);
            assert_int_equal(allocations, before);
            for (int i = 0; i < 2; i++) {
                tern_plan_destroy(plans[i]);
                tern_weights_destroy(w[i]);
            }
            tern_context_destroy(ctx);
        }
}

// Workers quantize the row of a small product for themselves, unless an output is written over it.
static void an_output_may_be_written_over_the_input(void **unused) {
    (void)unused;
    enum { ROUNDS = 300, WIDE = 896 }; // so wide that two workers take part
    tern_context *ctx = create_context(2, NULL);
    static int8_t trits[WIDE * K];
    for (size_t i = 0; i < sizeof trits; i++) trits[i] = (int8_t)((int)random_below(3) - 1);
    const float scale = 1;
    const tern_weights_params wp = {.struct_size = sizeof wp, .form = TERN_FORM_MAD};
    tern_weights *w = NULL;
    assert_int_equal(tern_weights_from_trits(ctx, &w, trits, &scale, 0, WIDE, K, K, &wp), TERN_OK);
    const tern_plan_params p = {.struct_size = sizeof p, .weights = (const tern_weights *const[]){w}, .n_weights = 1};
    tern_plan *plan = NULL;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_OK);
    static float given[K], apart[WIDE], over[WIDE];
    for (int round = 0; round < ROUNDS; round++) {
        const size_t at = random_below(WIDE - K);
        for (size_t i = 0; i < K; i++) over[at + i] = given[i] = random_float();
        const tern_plan_output out[2] = {{.struct_size = sizeof out[0], .y = apart, .ldy = WIDE},
                                         {.struct_size = sizeof out[0], .y = over, .ldy = WIDE}};
        const tern_plan_input in[2] = {{.struct_size = sizeof in[0], .x = given, .ldx = K, .m = 1},
                                       {.struct_size = sizeof in[0], .x = over + at, .ldx = K, .m = 1}};
        for (int i = 0; i < 2; i++) assert_int_equal(tern_plan_run(plan, &in[i], &out[i]), TERN_OK);
        assert_memory_equal(apart, over, sizeof apart);
    }
    tern_plan_destroy(plan);
    tern_weights_destroy(w);
    tern_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_of_input_and_output_has_the_bits_of_the_single_calls),
        cmocka_unit_test(weights_of_every_kind_share_one_plan),
        cmocka_unit_test(stages_of_several_plans_in_one_region_have_the_bits_of_separate_runs),
        cmocka_unit_test(an_output_may_be_written_over_the_input),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
