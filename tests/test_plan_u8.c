// SPDX-License-Identifier: MIT
// Exact products of u8 activations with zero points, and where they need the sums of rows.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan_fixture.h"

// sum (q - zero point) * code in 64 bits.
static void check_u8(tern_context *ctx, bool ternary, size_t n, size_t k, int8_t low, int8_t high, bool extreme) {
    enum { M = 3 };
    int8_t *w = malloc(n * k);
    uint8_t *q = malloc(M * k);
    assert_true(w && q);
    for (size_t i = 0; i < n * k; i++)
        w[i] = (int8_t)(extreme ? (i / k % 2 ? low : high) : low + (int)random_below((size_t)(high - low + 1)));
    const uint8_t zeros[M] = {0, 255, (uint8_t)random_below(256)};
    for (size_t i = 0; i < M * k; i++) q[i] = (uint8_t)(extreme ? (i / k ? 0 : 255) : next_random());
    const float one = 1.0f;
    for (int form = TERN_FORM_LUT; form <= TERN_FORM_MAD; form++) {
        const tern_weights_params params = {.struct_size = sizeof params, .form = (tern_form)form, .row_sums = 1};
        tern_weights *packed = NULL;
        tern_activations *a = NULL;
        int32_t y[M * 8];
        assert_int_equal(ternary ? tern_weights_from_trits(ctx, &packed, w, &one, 0, n, k, k, &params)
                                 : tern_weights_from_s8(ctx, &packed, w, &one, 0, n, k, k, &params),
                         TERN_OK);
        assert_int_equal(tern_activations_create(ctx, &a, M, k), TERN_OK);
        assert_int_equal(tern_activations_set_u8(ctx, a, q, NULL, zeros, M, k, k, 0), TERN_OK);
        assert_int_equal(tern_matmul_s32(ctx, packed, a, y, n), TERN_OK);
        for (size_t t = 0; t < M; t++)
            for (size_t i = 0; i < n; i++) {
                int64_t sum = 0;
                for (size_t j = 0; j < k; j++) sum += (q[t * k + j] - zeros[t]) * w[i * k + j];
                assert_true(sum == y[t * n + i]);
            }
        tern_activations_destroy(a);
        tern_weights_destroy(packed);
    }
    free(w);
    free(q);
}

static void u8_products_are_exact_for_every_zero_point_and_at_the_ends_of_int32(void **unused) {
    (void)unused;
    tern_context *ctx = create_context(2, NULL);
    for (size_t k = 1; k < 140; k += 7) {
        check_u8(ctx, true, 5, k, -1, 1, false);
        check_u8(ctx, false, 5, k, -128, 127, false);
    }
    check_u8(ctx, true, 2, TERN_K_MAX, -1, 1, true);
    check_u8(ctx, false, 2, TERN_K_MAX_U8, -128, 127, true);
    tern_context_destroy(ctx);
}

static void u8_without_row_sums_takes_zero_points_of_128_only(void **unused) {
    (void)unused;
    tern_context *ctx = create_context(1, NULL);
    tern_weights *w = make_weights(ctx, 1, 8, false);
    tern_activations *a = NULL;
    static int32_t y[8];
    const uint8_t q[K] = {0}, zero = 3;
    assert_int_equal(tern_activations_create(ctx, &a, 1, K), TERN_OK);
    assert_int_equal(tern_activations_set_u8(ctx, a, q, NULL, &zero, 1, K, K, 0), TERN_OK);
    assert_int_equal(tern_matmul_s32(ctx, w, a, y, 8), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(tern_context_error(ctx), "row_sums"));
    assert_int_equal(tern_activations_set_u8(ctx, a, q, NULL, NULL, 1, K, K, 0), TERN_OK);
    assert_int_equal(tern_matmul_s32(ctx, w, a, y, 8), TERN_OK);
    const tern_plan_params params = {.struct_size = sizeof params,
                                     .weights = (const tern_weights *const[]){w},
                                     .n_weights = 1,
                                     .x_type = TERN_TYPE_U8,
                                     .y_type = TERN_TYPE_S32};
    tern_plan *plan = NULL;
    assert_int_equal(tern_plan_create(ctx, &plan, &params), TERN_OK);
    tern_plan_input input = {.struct_size = sizeof input, .x = q, .ldx = K, .m = 1, .zero_points = &zero};
    const tern_plan_output output = {.struct_size = sizeof output, .y = y, .ldy = 8};
    assert_int_equal(tern_plan_run(plan, &input, &output), TERN_ERR_UNSUPPORTED);
    assert_int_equal(tern_prepare_part(plan, &input, 0, 1), TERN_ERR_UNSUPPORTED);
    input.zero_points = NULL;
    assert_int_equal(tern_plan_run(plan, &input, &output), TERN_OK);
    tern_plan_destroy(plan);
    tern_activations_destroy(a);
    tern_weights_destroy(w);
    const float one = 1.0f;
    const tern_weights_params sums = {.struct_size = sizeof sums, .row_sums = 1};
    int8_t *deep = calloc(1, TERN_K_MAX_U8 + 1);
    assert_non_null(deep);
    assert_int_equal(tern_weights_from_s8(ctx, &w, deep, &one, 0, 1, TERN_K_MAX_U8 + 1, TERN_K_MAX_U8 + 1, &sums),
                     TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_s8(ctx, &w, deep, block_scales, 32, 1, 64, 64, &sums), TERN_ERR_UNSUPPORTED);
    free(deep);
    tern_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(u8_products_are_exact_for_every_zero_point_and_at_the_ends_of_int32),
        cmocka_unit_test(u8_without_row_sums_takes_zero_points_of_128_only),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
