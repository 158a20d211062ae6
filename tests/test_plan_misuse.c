// SPDX-License-Identifier: MIT
// Wrong plans, batches, parts and stages are refused and leave outputs alone.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan_fixture.h"

static void wrong_plans_and_batches_are_refused_and_leave_outputs_alone(void **unused) {
    (void)unused;
    tern_context *ctx = create_context(2, NULL);
    tern_weights *w = make_weights(ctx, 1, 8, false), *blocks = make_weights(ctx, 4, 8, false);
    const int8_t code = 1;
    const float one = 1.0f;
    tern_weights *shallow = NULL;
    assert_int_equal(tern_weights_from_trits(ctx, &shallow, &code, &one, 0, 1, 1, 1, NULL), TERN_OK);
    tern_plan *plan = NULL;
    const tern_plan_params good = {
        .struct_size = sizeof good, .weights = (const tern_weights *const[]){w}, .n_weights = 1, .max_m = 2};
    tern_plan_params p = good;
    p.n_weights = 0;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_ERR_ARG);
    p = good;
    p.weights = (const tern_weights *const[]){w, shallow};
    p.n_weights = 2;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "depths differ"));
    p.weights = (const tern_weights *const[]){w, blocks};
    p.x_type = TERN_TYPE_S8; // one set of scales cannot serve two blocks
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_ERR_ARG);
    p.x_type = TERN_TYPE_F32;
    p.y_type = TERN_TYPE_S32;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_ERR_UNSUPPORTED);
    p = good;
    p.y_type = TERN_TYPE_S8;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_ERR_ARG);
    p = good;
    p.x_type = TERN_TYPE_S32;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_ERR_ARG);
    p = good;
    size_t bytes = 0;
    assert_int_equal(tern_plan_workspace_bytes(ctx, &p, &bytes), TERN_OK);
    assert_true(bytes > 0 && bytes % 64 == 0);
    p.workspace = aligned_alloc(64, bytes + 64);
    p.workspace_bytes = bytes - 1;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_ERR_ARG);
    void *const whole = p.workspace;
    p.workspace = (char *)whole + 4;
    p.workspace_bytes = bytes;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_ERR_ARG);
    assert_null(plan);
    free(whole);

    assert_int_equal(tern_plan_create(ctx, &plan, &good), TERN_OK);
    static float y[16], in[2 * K];
    y[0] = 77;
    tern_plan_output output = {.struct_size = sizeof output, .y = y, .ldy = 8};
    const tern_plan_input input = {.struct_size = sizeof input, .x = in, .ldx = K, .m = 2};
    tern_plan_input i = input;
    i.m = 3;
    assert_int_equal(tern_plan_run(plan, &i, &output), TERN_ERR_ARG);
    i = input;
    i.ldx = K - 1;
    assert_int_equal(tern_plan_run(plan, &i, &output), TERN_ERR_ARG);
    i = input;
    i.scales = &one;
    assert_int_equal(tern_plan_run(plan, &i, &output), TERN_ERR_ARG);
    output.ldy = 7;
    assert_int_equal(tern_plan_run(plan, &input, &output), TERN_ERR_ARG);
    assert_int_equal(tern_matmul_part(plan, 2, &output, 0, 1), TERN_ERR_ARG);
    output.ldy = 8;
    assert_int_equal(tern_plan_run(NULL, &input, &output), TERN_ERR_ARG);
    assert_int_equal(tern_plan_run(plan, NULL, &output), TERN_ERR_ARG);
    assert_int_equal(tern_plan_run(plan, &input, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_prepare_part(plan, &input, 1, 1), TERN_ERR_ARG);
    assert_int_equal(tern_matmul_part(plan, 3, &output, 0, 1), TERN_ERR_ARG);
    assert_true(y[0] == 77);
    in[K + 5] = NAN;
    assert_int_equal(tern_plan_run(plan, &input, &output), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "NaN"));
    assert_int_equal(tern_prepare_part(plan, &input, 0, 1), TERN_ERR_ARG);
    in[K + 5] = 0;
    assert_int_equal(tern_plan_run(plan, &input, &output), TERN_OK);
    tern_plan_destroy(plan);
    tern_plan_destroy(NULL);
    tern_weights_destroy(w);
    tern_weights_destroy(blocks);
    tern_weights_destroy(shallow);
    tern_context_destroy(ctx);
}

// Rows that were not prepared hold anything: a workspace of the caller's is not even zero.
static void parts_multiply_what_was_prepared_and_nothing_else(void **unused) {
    (void)unused;
    tern_context *ctx = create_context(1, NULL);
    tern_weights *w = make_weights(ctx, 1, 8, false);
    tern_plan_params p = {.struct_size = sizeof p, .weights = (const tern_weights *const[]){w}, .n_weights = 1, .max_m = 4};
    assert_int_equal(tern_plan_workspace_bytes(ctx, &p, &p.workspace_bytes), TERN_OK);
    p.workspace = aligned_alloc(64, p.workspace_bytes);
    assert_non_null(p.workspace);
    memset(p.workspace, 0xFF, p.workspace_bytes);
    tern_plan *plan = NULL;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_OK);
    static float in[4 * K], y[4 * 8];
    y[0] = 77;
    const tern_plan_output output = {.struct_size = sizeof output, .y = y, .ldy = 8};
    tern_plan_input input = {.struct_size = sizeof input, .x = in, .ldx = K, .m = 2};
    assert_int_equal(tern_matmul_part(plan, 2, &output, 0, 1), TERN_ERR_STATE);
    assert_int_equal(tern_prepare_part(plan, &input, 0, 1), TERN_OK);
    assert_int_equal(tern_matmul_part(plan, 3, &output, 0, 1), TERN_ERR_STATE);
    assert_int_equal(tern_matmul_part(plan, 1, &output, 0, 1), TERN_ERR_STATE);
    assert_true(y[0] == 77);
    assert_int_equal(tern_matmul_part(plan, 2, &output, 0, 1), TERN_OK);
    assert_true(y[0] == 0);
    assert_int_equal(tern_plan_run(plan, &input, &output), TERN_OK);
    assert_int_equal(tern_matmul_part(plan, 2, &output, 0, 1), TERN_ERR_STATE);
    assert_int_equal(tern_prepare_part(plan, &input, 0, 1), TERN_OK);
    input.m = 5;
    assert_int_equal(tern_prepare_part(plan, &input, 0, 1), TERN_ERR_ARG);
    assert_int_equal(tern_matmul_part(plan, 2, &output, 0, 1), TERN_ERR_STATE);
    tern_plan_destroy(plan);
    free(p.workspace);
    tern_weights_destroy(w);
    tern_context_destroy(ctx);
}

static void wrong_requests_for_stages_are_refused_and_nan_is_told_after_the_region(void **unused) {
    (void)unused;
    tern_context *ctx = create_context(2, NULL);
    const tern_weights_params lut = {.struct_size = sizeof lut, .form = TERN_FORM_LUT}; // one form: always three stages
    memset(codes, 1, sizeof codes);
    tern_weights *w = NULL;
    assert_int_equal(tern_weights_from_trits(ctx, &w, codes, &(const float){1}, 0, 8, K, K, &lut), TERN_OK);
    const tern_plan_params p = {.struct_size = sizeof p, .weights = (const tern_weights *const[]){w}, .n_weights = 1};
    tern_plan *plan = NULL;
    assert_int_equal(tern_plan_create(ctx, &plan, &p), TERN_OK);
    static float in[K], y[8];
    const tern_plan_output output = {.struct_size = sizeof output, .y = y, .ldy = 8};
    tern_plan_input input = {.struct_size = sizeof input, .x = in, .ldx = K, .m = 1};
    tern_stage stages[3];
    size_t n = 77;
    assert_int_equal(tern_plan_stages(plan, &input, &output, stages, 2, &n), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "max_stages = 2 is less than the 3 stages"));
    assert_int_equal(tern_plan_stages(NULL, &input, &output, stages, 3, &n), TERN_ERR_ARG);
    assert_int_equal(tern_plan_stages(plan, &input, &output, NULL, 3, &n), TERN_ERR_ARG);
    assert_int_equal(tern_plan_stages(plan, &input, &output, stages, 3, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_plan_stages(plan, NULL, &output, stages, 3, &n), TERN_ERR_ARG);
    assert_int_equal(n, 77);
    assert_int_equal(tern_plan_check(NULL), TERN_ERR_ARG);
    in[3] = INFINITY;
    assert_int_equal(tern_plan_stages(plan, &input, &output, stages, 3, &n), TERN_OK);
    assert_int_equal(tern_run_region(ctx, stages, n), TERN_OK);
    assert_int_equal(tern_plan_check(plan), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "infinity"));
    in[3] = 0;
    assert_int_equal(tern_plan_run(plan, &input, &output), TERN_OK);
    assert_int_equal(tern_plan_check(plan), TERN_OK);
    tern_plan_destroy(plan);
    tern_weights_destroy(w);
    tern_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_plans_and_batches_are_refused_and_leave_outputs_alone),
        cmocka_unit_test(parts_multiply_what_was_prepared_and_nothing_else),
        cmocka_unit_test(wrong_requests_for_stages_are_refused_and_nan_is_told_after_the_region),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
