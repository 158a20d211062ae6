// SPDX-License-Identifier: MIT
// A caller's parallel_for: the examples of docs/examples make no Tern thread and give the bits of Tern's own pool.
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "caller_loops.h"
#include "matmul/weights.h"
#include "test_random.h"

enum { K = 1024, N = 600, M = 5, KINDS = 6, PLAN_WEIGHTS = 3, N_COUNTS = 3 };
static const int thread_counts[N_COUNTS] = {1, 2, 5};

static int8_t codes[N * K];
static uint8_t nibbles[N * K];
static float scales[N * K / 16], x[M * K];

static int make_sources(void **state) {
    start_random(state);
    for (size_t i = 0; i < (size_t)N * K; i++)
        codes[i] = (int8_t)((int)random_below(3) - 1), nibbles[i] = (uint8_t)random_below(16);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) scales[i] = (float)(1 + random_below(500)) / 512;
    for (size_t i = 0; i < (size_t)M * K; i++) x[i] = random_float() * 4;
#ifndef _OPENMP
    print_message("built without OpenMP: its example is not tested here\n");
#endif
    return 0;
}

// ---- all that a context computes ----------------------------------------------------------------------------------

typedef struct results {
    tern_weights *weights[KINDS];
    int8_t unpacked[KINDS][N * K];
    float y[KINDS][2][M * N]; // of 1 token, of M
    int32_t sums[M * N];      // of the first kind
    float planned[PLAN_WEIGHTS][M * N];
} results;

static tern_status make_weights(tern_context *ctx, tern_weights **w, int kind) {
    const tern_weights_params params = {.struct_size = sizeof params,
                                        .form = kind == 0  ? TERN_FORM_LUT
                                                : kind < 3 ? TERN_FORM_MAD
                                                           : TERN_FORM_AUTO};
    switch (kind) {
    case 0:
    case 1:
        return tern_weights_from_trits(ctx, w, codes, scales, 0, N, K, K, &params);
    case 2:
        return tern_weights_from_trits(ctx, w, codes, scales, 64, N, K, K, &params);
    case 3:
        return tern_weights_from_s8(ctx, w, codes, scales, K, N, K, K, &params);
    case 4:
        return tern_weights_from_s8(ctx, w, codes, scales, 32, N, K, K, &params);
    default:
        return tern_weights_from_u4(ctx, w, nibbles, scales, scales, N, K, K, &params);
    }
}

static void run_plan(tern_context *ctx, results *r) {
    tern_plan_params params = {.struct_size = sizeof params,
                               .weights = (const tern_weights *const *)r->weights,
                               .n_weights = PLAN_WEIGHTS,
                               .max_m = M};
    tern_plan *plan = NULL;
    assert_int_equal(tern_plan_create(ctx, &plan, &params), TERN_OK);
    const tern_plan_input in = {.struct_size = sizeof in, .x = x, .ldx = K, .m = M};
    tern_plan_output out[PLAN_WEIGHTS];
    for (int i = 0; i < PLAN_WEIGHTS; i++)
        out[i] = (tern_plan_output){.struct_size = sizeof *out, .y = r->planned[i], .ldy = N};
    assert_int_equal(tern_plan_run(plan, &in, out), TERN_OK);
    tern_plan_destroy(plan);
}

static void compute(tern_context *ctx, results *r) {
    tern_activations *a = NULL;
    assert_int_equal(tern_activations_create(ctx, &a, M, K), TERN_OK);
    for (int kind = 0; kind < KINDS; kind++) {
        assert_int_equal(make_weights(ctx, &r->weights[kind], kind), TERN_OK);
        assert_int_equal(tern_weights_unpack(ctx, r->weights[kind], r->unpacked[kind], K), TERN_OK);
        const size_t block = tern_weights_act_block(r->weights[kind]), tokens[] = {1, M};
        for (int i = 0; i < 2; i++) {
            assert_int_equal(tern_activations_set_f32(ctx, a, x, tokens[i], K, K, block), TERN_OK);
            assert_int_equal(tern_matmul_f32(ctx, r->weights[kind], a, r->y[kind][i], N, NULL), TERN_OK);
        }
        if (kind == 0) assert_int_equal(tern_matmul_s32(ctx, r->weights[kind], a, r->sums, N), TERN_OK);
    }
    tern_activations_destroy(a);
    run_plan(ctx, r);
}

static void check_packed(const tern_weights *got, const tern_weights *want) {
    assert_int_equal(got->layout, want->layout);
    assert_int_equal(got->packed_bytes, want->packed_bytes);
    assert_memory_equal(got->packed, want->packed, want->packed_bytes);
    assert_int_equal(got->n_scales, want->n_scales);
    if (want->scales) assert_memory_equal(got->scales, want->scales, want->n_scales * tern_scale_bytes(want));
}

static void check_values(const results *got, const results *want) {
    for (int kind = 0; kind < KINDS; kind++) {
        const void *source = kind < KINDS - 1 ? (const void *)codes : nibbles;
        assert_memory_equal(got->unpacked[kind], source, (size_t)N * K);
        assert_memory_equal(got->y[kind][0], want->y[kind][0], N * sizeof(float));
        assert_memory_equal(got->y[kind][1], want->y[kind][1], sizeof want->y[kind][1]);
    }
    assert_memory_equal(got->sums, want->sums, sizeof want->sums);
    assert_memory_equal(got->planned, want->planned, sizeof want->planned);
}

static results *new_results(void) {
    results *r = calloc(1, sizeof *r);
    assert_non_null(r);
    return r;
}

static void free_results(results *r) {
    for (int kind = 0; kind < KINDS; kind++) tern_weights_destroy(r->weights[kind]);
    free(r);
}

static tern_context *created(const tern_context_params *params) {
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, params), TERN_OK);
    return ctx;
}

static results *compute_with_own_pool(int n_threads) {
    const tern_context_params params = {.struct_size = sizeof params, .threads = n_threads};
    results *r = new_results();
    tern_context *ctx = created(&params);
    compute(ctx, r);
    tern_context_destroy(ctx);
    return r;
}

// ---- the claims -----------------------------------------------------------------------------------------------------

static void packing_products_and_plans_have_the_bits_of_tern_s_own_pool(void **state) {
    (void)state;
    results *one = compute_with_own_pool(1);
    for (int i = 0; i < N_COUNTS; i++) {
        results *own = compute_with_own_pool(thread_counts[i]);
        check_values(own, one);
        for (int kind = 0; kind < N_LOOPS; kind++) {
            caller_loop loop;
            assert_true(caller_loop_open(&loop, kind, thread_counts[i]));
            const tern_context_params params = caller_loop_params(&loop);
            tern_context *ctx = created(&params);
            results *r = new_results();
            compute(ctx, r);
            check_values(r, one);
            for (int w = 0; w < KINDS; w++) check_packed(r->weights[w], own->weights[w]); // packed for as many threads
            tern_context_destroy(ctx);
            caller_loop_close(&loop);
            free_results(r);
        }
        free_results(own);
    }
    free_results(one);
}

static void a_context_with_the_caller_s_threads_makes_none(void **state) {
    (void)state;
    for (int kind = 0; kind < N_LOOPS; kind++)
        for (int i = 0; i < N_COUNTS; i++) {
            caller_loop loop;
            assert_true(caller_loop_open(&loop, kind, thread_counts[i]));
            const task_list before = list_tasks_without_tern();
            assert_true(before.n >= thread_counts[i]);
            const tern_context_params params = caller_loop_params(&loop);
            tern_context *ctx = created(&params);
            results *r = new_results();
            compute(ctx, r);
            const task_list during = list_tasks();
            assert_int_equal(tasks_not_in(&during, &before), 0);
            assert_int_equal(during.n_tern, 0);
            tern_context_destroy(ctx);
            caller_loop_close(&loop);
            free_results(r);
        }
    // The list shows threads of Tern where there are any.
    const tern_context_params own = {.struct_size = sizeof own, .threads = 3};
    const task_list before = list_tasks_without_tern();
    tern_context *ctx = created(&own);
    task_list during = list_tasks();
    assert_int_equal(tasks_not_in(&during, &before), 2);
    while (during.n_tern < 2) during = list_tasks(); // a thread may get its name after it has started
    tern_context_destroy(ctx);
}

enum { TILES = 1000 };

static void count_tile(void *arg, size_t tile) { atomic_fetch_add((atomic_int *)arg + tile, 1); }

static void the_examples_run_every_tile_once(void **state) {
    (void)state;
    static atomic_int runs[TILES];
    for (int kind = 0; kind < N_LOOPS; kind++)
        for (int i = 0; i < N_COUNTS; i++) {
            caller_loop loop;
            assert_true(caller_loop_open(&loop, kind, thread_counts[i]));
            for (size_t n_tiles = 0; n_tiles <= TILES; n_tiles += n_tiles < 7 ? 1 : 331) {
                memset(runs, 0, sizeof runs);
                caller_loop_run(&loop, count_tile, runs, n_tiles);
                for (size_t tile = 0; tile < TILES; tile++) assert_int_equal(runs[tile], tile < n_tiles);
            }
            caller_loop_close(&loop);
        }
}

// ---- misuse ---------------------------------------------------------------------------------------------------------

typedef struct nested {
    caller_loop *loop;
    tern_context *ctx;
    atomic_int refused, tiles;
} nested;

static void nested_tile(void *arg, size_t tile) {
    (void)tile;
    nested *call = arg;
    const tern_stage stage = {.fn = ignore_tile, .n_tiles = 1};
    atomic_fetch_add(&call->refused, tern_run_region(call->ctx, &stage, 1) == TERN_ERR_STATE);
    atomic_fetch_add(&call->tiles, 1);
}

static void nesting_loop(void *user, tern_tile_fn fn, void *arg, size_t n_tiles) {
    nested *call = user;
    nested_tile(call, 0); // the loop itself, not a tile
    caller_loop_run(call->loop, fn, arg, n_tiles);
}

static void a_nested_call_is_refused_from_a_tile_and_from_the_loop(void **state) {
    (void)state;
    for (int kind = 0; kind < N_LOOPS; kind++)
        for (int i = 0; i < N_COUNTS; i++) {
            caller_loop loop;
            assert_true(caller_loop_open(&loop, kind, thread_counts[i]));
            nested call = {.loop = &loop};
            tern_context_params params = caller_loop_params(&loop);
            params.parallel_for = nesting_loop;
            params.parallel_for_user = &call;
            call.ctx = created(&params);
            const tern_stage stage = {.fn = nested_tile, .arg = &call, .n_tiles = 8};
            assert_int_equal(tern_run_region(call.ctx, &stage, 1), TERN_OK);
            assert_int_equal(call.tiles, 9);
            assert_int_equal(call.refused, 9);
            assert_non_null(strstr(tern_context_error(call.ctx), "context of its own"));
            call.tiles = call.refused = 0;
            assert_int_equal(tern_run_region(call.ctx, &stage, 1), TERN_OK); // it still works
            assert_int_equal(call.refused, 9);
            tern_context_destroy(call.ctx);
            caller_loop_close(&loop);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packing_products_and_plans_have_the_bits_of_tern_s_own_pool),
        cmocka_unit_test(a_context_with_the_caller_s_threads_makes_none),
        cmocka_unit_test(the_examples_run_every_tile_once),
        cmocka_unit_test(a_nested_call_is_refused_from_a_tile_and_from_the_loop),
    };
    return cmocka_run_group_tests_name("callers_threads", tests, make_sources, NULL);
}
