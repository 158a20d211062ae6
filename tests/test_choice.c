// SPDX-License-Identifier: MIT
// Which layout new ternary weights get, on synthetic tuning tables.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "cpu/choice.h"

static const tern_choice square = {.n = 4096, .k = 4096, .m = 1, .threads = 2};

static tern_kernels kernels_of(tern_tier tier) {
    tern_kernels kernels;
    tern_kernels_choose(&kernels, tier);
    return kernels;
}

static const tern_tune_table *table_of(const tern_tune_row *rows, size_t n) {
    static tern_tune_table table;
    table.n = n;
    for (size_t i = 0; i < n; i++) table.rows[i] = rows[i];
    return &table;
}
#define TABLE(...)                                                                                                             \
    table_of((const tern_tune_row[]){__VA_ARGS__}, sizeof((tern_tune_row[]){__VA_ARGS__}) / sizeof(tern_tune_row))

#define T5 TERN_LAYOUT_T5
#define T2N TERN_LAYOUT_T2N
#define M2 TERN_LAYOUT_M2

static void the_fastest_layout_of_the_measured_case_is_chosen(void **state) {
    (void)state;
    const tern_kernels kernels = kernels_of(TERN_TIER_AVX2);
    const tern_tune_table *table = TABLE({4096, 4096, 0, 1, false, M2, 100}, {4096, 4096, 0, 1, false, T2N, 101},
                                         {4096, 4096, 0, 512, true, M2, 900}, {4096, 4096, 0, 512, true, T2N, 300});
    tern_choice choice = square;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), T2N);
    choice.m = 1;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), T2N);
    choice.m = 512;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), M2);
}

static void residency_decides_among_cases_of_the_same_number_of_tokens(void **state) {
    (void)state;
    const tern_kernels kernels = kernels_of(TERN_TIER_AVX2);
    const tern_tune_table *table = TABLE({4096, 4096, 0, 1, false, T2N, 200}, {4096, 4096, 0, 1, false, M2, 100},
                                         {4096, 4096, 0, 1, true, T2N, 100}, {4096, 4096, 0, 1, true, M2, 200});
    tern_choice choice = square;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), T2N);
    choice.cached = true;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), M2);
    choice.cached = false; // only cached cases were measured: better than none
    assert_int_equal(tern_choose_layout(&kernels, &choice, TABLE({4096, 4096, 0, 1, true, T2N, 200})), T2N);
}

static void the_nearest_shape_and_number_of_tokens_are_used(void **state) {
    (void)state;
    const tern_kernels kernels = kernels_of(TERN_TIER_AVX2);
    const tern_tune_table *table = TABLE({1024, 1024, 0, 1, false, T2N, 9}, {4096, 4096, 0, 1, false, M2, 5},
                                         {8192, 8192, 0, 1, false, T2N, 9}, {4096, 4096, 0, 64, false, T2N, 9});
    tern_choice choice = square;
    choice.n = 4000, choice.k = 5000, choice.m = 3;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), M2);
    choice.n = 9000;
    choice.k = 9000;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), T2N);
    choice = square;
    choice.m = 30;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), T2N);
}

static void far_shapes_and_other_scale_blocks_fall_back_to_the_built_in_choice(void **state) {
    (void)state;
    const tern_kernels kernels = kernels_of(TERN_TIER_SCALAR);
    tern_choice choice = square;
    const tern_layout built_in = tern_choose_layout(&kernels, &choice, NULL);
    const tern_layout other = built_in == M2 ? T2N : M2;
    assert_int_equal(tern_choose_layout(&kernels, &choice, TABLE({4096, 4096, 0, 1, false, other, 1})), other);
    assert_int_equal(tern_choose_layout(&kernels, &choice, TABLE({4096, 1023, 0, 1, false, other, 1})), built_in);
    assert_int_equal(tern_choose_layout(&kernels, &choice, TABLE({16385, 4096, 0, 1, false, other, 1})), built_in);
    assert_int_equal(tern_choose_layout(&kernels, &choice, TABLE({4096, 4096, 256, 1, false, other, 1})), built_in);
    choice.scale_block = 256;
    assert_int_equal(tern_choose_layout(&kernels, &choice, TABLE({4096, 4096, 256, 1, false, other, 1})), other);
    static const tern_tune_table empty;
    assert_int_equal(tern_choose_layout(&kernels, &choice, &empty), tern_choose_layout(&kernels, &choice, NULL));
}

static void a_form_asked_for_restricts_the_choice(void **state) {
    (void)state;
    const tern_tune_table *table = TABLE({4096, 4096, 0, 1, false, M2, 300}, {4096, 4096, 0, 1, false, T2N, 200},
                                         {4096, 4096, 0, 1, false, T5, 100}, {2048, 4096, 0, 1, false, M2, 900});
    for (int tier = 0; tier < TERN_TIER_COUNT; tier++) {
        const tern_kernels kernels = kernels_of((tern_tier)tier);
        tern_choice choice = square;
        choice.form = TERN_FORM_LUT;
        assert_int_equal(tern_choose_layout(&kernels, &choice, table), T2N);
        assert_non_null(kernels.chosen[TERN_STAGE_lut_gemm][tern_choose_layout(&kernels, &choice, NULL)]);
        choice.form = TERN_FORM_MAD;
        assert_int_equal(tern_choose_layout(&kernels, &choice, table), M2);
        assert_int_equal(tern_choose_layout(&kernels, &choice, NULL), M2);
    }
}

static void a_forced_variant_wins_over_the_table_where_its_form_is_allowed(void **state) {
    (void)state;
    const tern_tune_table *table = TABLE({4096, 4096, 0, 1, false, M2, 300}, {4096, 4096, 0, 1, false, T2N, 200});
    tern_kernels kernels = kernels_of(TERN_TIER_AVX2);
    tern_choice choice = square;
    tern_kernels_force(&kernels, tern_variant_find("tern_lut_gemm_t5_scalar"));
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), T5);
    choice.form = TERN_FORM_MAD;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), M2);
    tern_kernels_force(&kernels, tern_variant_find("tern_quantize_scalar")); // another stage changes no layout
    choice.form = TERN_FORM_AUTO;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), T5);
    tern_kernels_choose(&kernels, TERN_TIER_AVX2);
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), M2);
}

static void without_expectations_the_layout_that_loses_least_is_chosen(void **state) {
    (void)state;
    const tern_kernels kernels = kernels_of(TERN_TIER_AVX2);
    const tern_tune_table *table = TABLE({4096, 4096, 0, 1, false, T2N, 105}, {4096, 4096, 0, 1, false, M2, 100},
                                         {4096, 4096, 0, 512, true, T2N, 100}, {4096, 4096, 0, 512, true, M2, 200});
    tern_choice choice = square;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), T2N);
    choice.m = 0;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), M2);
    choice.form = TERN_FORM_LUT;
    assert_int_equal(tern_choose_layout(&kernels, &choice, table), T2N);
    choice.form = TERN_FORM_AUTO;
    assert_int_equal(tern_choose_layout(&kernels, &choice, TABLE({4096, 4096, 0, 1, false, T2N, 105})), T2N);
}

static void few_bits_are_built_in_for_one_token_where_threads_share_dram_on_avx2(void **state) {
    (void)state;
    const tern_kernels kernels = kernels_of(TERN_TIER_AVX2);
    tern_choice choice = square;
    assert_int_equal(tern_choose_layout(&kernels, &choice, NULL), TERN_LAYOUT_T3);
    choice.threads = 1; // alone, a thread does not saturate it
    assert_int_equal(tern_choose_layout(&kernels, &choice, NULL), M2);
    choice.cached = true;
    assert_int_equal(tern_choose_layout(&kernels, &choice, NULL), T2N);
    choice.m = 0;
    assert_int_equal(tern_choose_layout(&kernels, &choice, NULL), M2);
    choice.m = 512;
    assert_int_equal(tern_choose_layout(&kernels, &choice, NULL), M2);
}

static void every_built_in_choice_is_a_ternary_layout_that_the_tier_reads(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 576, 4096, 131071}, tokens[] = {0, 1, 2, 16, 512};
    for (int tier = 0; tier < TERN_TIER_COUNT; tier++)
        for (size_t i = 0; i < 2 * 2 * 3 * 4 * 4 * 5; i++) {
            const tern_kernels kernels = kernels_of((tern_tier)tier);
            const tern_choice choice = {.cached = i % 2,
                                        .threads = 1 + (int)(i / 2 % 2),
                                        .form = (tern_form)(i / 4 % 3),
                                        .n = sizes[i / 12 % 4],
                                        .k = sizes[i / 48 % 4],
                                        .m = tokens[i / 192 % 5]};
            const tern_layout layout = tern_choose_layout(&kernels, &choice, NULL);
            const bool lut = kernels.chosen[TERN_STAGE_lut_gemm][layout], mad = kernels.chosen[TERN_STAGE_mad_gemm][layout];
            assert_true(lut != mad);
            if (choice.form == TERN_FORM_LUT) assert_true(lut);
            if (choice.form == TERN_FORM_MAD) assert_true(mad);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_layout_of_the_measured_case_is_chosen),
        cmocka_unit_test(residency_decides_among_cases_of_the_same_number_of_tokens),
        cmocka_unit_test(the_nearest_shape_and_number_of_tokens_are_used),
        cmocka_unit_test(far_shapes_and_other_scale_blocks_fall_back_to_the_built_in_choice),
        cmocka_unit_test(a_form_asked_for_restricts_the_choice),
        cmocka_unit_test(a_forced_variant_wins_over_the_table_where_its_form_is_allowed),
        cmocka_unit_test(without_expectations_the_layout_that_loses_least_is_chosen),
        cmocka_unit_test(few_bits_are_built_in_for_one_token_where_threads_share_dram_on_avx2),
        cmocka_unit_test(every_built_in_choice_is_a_ternary_layout_that_the_tier_reads),
    };
    return cmocka_run_group_tests_name("choice", tests, NULL, NULL);
}
