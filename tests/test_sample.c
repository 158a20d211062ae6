// SPDX-License-Identifier: MIT
// Sampling: filters on examples computed by hand, distributions of draws, the same tokens for the same seed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "decode/random.h"
#include "decode/sample.h"

enum { N = 8, DRAWS = 40000 };

// Logits whose softmax at temperature 1 is 0.4 0.05 0.2 0.1 0.1 0.08 0.05 0.02; ids 3, 4 and ids 1, 6 tie.
static const double shares[N] = {0.4, 0.05, 0.2, 0.1, 0.1, 0.08, 0.05, 0.02};
static void example(float logits[N]) {
    for (int i = 0; i < N; i++) logits[i] = (float)log(shares[i]);
}

static tern_sample_state begin(tern_sampler_params params, size_t n) {
    tern_sample_state state;
    tern_error err = {""};
    if (tern_sample_init(&state, &params, n, &tern_default_allocator, &err) != TERN_OK) fail_msg("%s", err.text);
    return state;
}

// Draws with these parameters and compares the counts with the expected shares: chi-square, with a bound that a right sampler
// passes but once in 10^9 seeds (the seeds are fixed, so it passes always); what has no share is never drawn.
static void expect_shares(tern_sampler_params params, const double expected[N]) {
    float logits[N];
    example(logits);
    params.seed = 20240601;
    tern_sample_state state = begin(params, N);
    size_t counts[N] = {0};
    for (int i = 0; i < DRAWS; i++) {
        const int32_t id = tern_sample_next(&state, logits);
        assert_in_range(id, 0, N - 1);
        counts[id]++;
    }
    double sum = 0.0, chi_square = 0.0;
    for (int i = 0; i < N; i++) sum += expected[i];
    for (int i = 0; i < N; i++) {
        const double want = expected[i] / sum * DRAWS, off = (double)counts[i] - want;
        if (expected[i] == 0.0) {
            assert_int_equal(counts[i], 0);
        } else {
            chi_square += off * off / want;
        }
    }
    assert_true(chi_square < 55.0); // 7 degrees of freedom at most
    tern_sample_free(&state);
}

static void greedy_takes_the_highest_and_the_lowest_id_among_equals(void **unused) {
    (void)unused;
    tern_sample_state state = begin((tern_sampler_params){.temperature = 0.0f, .top_k = 3, .seed = 9}, N);
    assert_int_equal(tern_sample_next(&state, (const float[N]){1, 5, 2, 5, 5, 0, 0, 0}), 1);
    assert_int_equal(tern_sample_next(&state, (const float[N]){0, 0, 0, 0, 0, 0, 0, 0}), 0);
    assert_int_equal(tern_sample_next(&state, (const float[N]){-9, -8, -7, -6, -5, -4, -3, -2}), N - 1);
    assert_int_equal(tern_sample_next(&state, (const float[N]){-0.0f, 0.0f, -1, -1, -1, -1, -1, -1}), 0);
    tern_sample_free(&state);
}

static void temperature_one_draws_the_softmax(void **unused) {
    (void)unused;
    expect_shares((tern_sampler_params){.temperature = 1.0f}, shares);
}

static void temperature_raises_shares_to_its_inverse(void **unused) {
    (void)unused;
    double squares[N], roots[N];
    for (int i = 0; i < N; i++) squares[i] = shares[i] * shares[i];
    for (int i = 0; i < N; i++) roots[i] = sqrt(shares[i]);
    expect_shares((tern_sampler_params){.temperature = 0.5f}, squares);
    expect_shares((tern_sampler_params){.temperature = 2.0f}, roots);
}

static void top_k_keeps_the_k_highest_and_lower_ids_among_equals(void **unused) {
    (void)unused;
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_k = 1}, (const double[N]){1, 0, 0, 0, 0, 0, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_k = 3}, (const double[N]){0.4, 0, 0.2, 0.1, 0, 0, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_k = 6},
                  (const double[N]){0.4, 0.05, 0.2, 0.1, 0.1, 0.08, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_k = N}, shares);
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_k = UINT32_MAX}, shares);
}

static void top_p_keeps_the_fewest_that_reach_the_share(void **unused) {
    (void)unused;
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_p = 0.01f}, (const double[N]){1, 0, 0, 0, 0, 0, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_p = 0.39f}, (const double[N]){1, 0, 0, 0, 0, 0, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_p = 0.41f}, (const double[N]){0.4, 0, 0.2, 0, 0, 0, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_p = 0.65f}, (const double[N]){0.4, 0, 0.2, 0.1, 0, 0, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_p = 0.999f}, shares);
    expect_shares((tern_sampler_params){.temperature = 1.0f, .top_p = 1.0f}, shares);
}

static void min_p_keeps_what_is_near_the_most_probable(void **unused) {
    (void)unused;
    expect_shares((tern_sampler_params){.temperature = 1.0f, .min_p = 1.0f}, (const double[N]){1, 0, 0, 0, 0, 0, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .min_p = 0.49f}, (const double[N]){0.4, 0, 0.2, 0, 0, 0, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .min_p = 0.15f},
                  (const double[N]){0.4, 0, 0.2, 0.1, 0.1, 0.08, 0, 0});
}

static void filters_apply_top_k_then_temperature_then_top_p_then_min_p(void **unused) {
    (void)unused;
    // top-k 3 leaves 0.4 0.2 0.1; squared 16 4 1 of 21. A top-p of 0.9 takes the first two (20/21). Were top-p to come before
    // the temperature (4/7, 6/7, 1), it would keep all three.
    expect_shares((tern_sampler_params){.temperature = 0.5f, .top_k = 3, .top_p = 0.9f},
                  (const double[N]){16, 0, 4, 0, 0, 0, 0, 0});
    // A min-p of 0.2 sees 1 and 0.25; before the temperature it would have kept the third too (0.25), now 0.0625.
    expect_shares((tern_sampler_params){.temperature = 0.5f, .top_k = 3, .min_p = 0.2f},
                  (const double[N]){16, 0, 4, 0, 0, 0, 0, 0});
    expect_shares((tern_sampler_params){.temperature = 0.5f, .top_k = 3, .top_p = 0.9f, .min_p = 0.3f},
                  (const double[N]){1, 0, 0, 0, 0, 0, 0, 0});
}

static void filters_agree_with_a_sort_on_random_logits(void **unused) {
    (void)unused;
    enum { SIZE = 300, ROUNDS = 400, LEVELS = 40 };
    uint64_t random[4];
    tern_random_seed(random, 77);
    for (int round = 0; round < ROUNDS; round++) {
        float logits[SIZE];
        int order[SIZE]; // by logit, then id: selection sort, as plain as can be
        for (int i = 0; i < SIZE; i++) logits[i] = (float)(tern_random_next(random) % LEVELS) * 0.25f; // many ties
        for (int i = 0; i < SIZE; i++) order[i] = i;
        for (int i = 0; i < SIZE; i++) {
            for (int j = i + 1; j < SIZE; j++) {
                const int a = order[i], b = order[j];
                if (logits[b] > logits[a] || (logits[b] == logits[a] && b < a)) order[i] = b, order[j] = a;
            }
        }
        const uint32_t k = 1 + (uint32_t)(tern_random_next(random) % SIZE);
        const float p = (float)tern_random_unit(random);
        double total = 0.0, reached = 0.0;
        for (uint32_t i = 0; i < k; i++) total += exp((double)logits[order[i]] - (double)logits[order[0]]);
        uint32_t kept = 0;
        while (kept < k && (kept == 0 || reached < (double)p * total * (1 + 1e-12))) {
            reached += exp((double)logits[order[kept++]] - (double)logits[order[0]]);
        }
        tern_sample_state state =
            begin((tern_sampler_params){.temperature = 1.0f, .top_k = k, .top_p = p, .seed = (uint64_t)round}, SIZE);
        for (int i = 0; i < 50; i++) {
            const int32_t id = tern_sample_next(&state, logits);
            bool found = false;
            for (uint32_t j = 0; j < kept; j++) found = found || order[j] == id;
            assert_true(found);
        }
        tern_sample_free(&state);
    }
}

static void the_same_seed_gives_the_same_tokens_and_another_seed_others(void **unused) {
    (void)unused;
    enum { LENGTH = 64 };
    float logits[N];
    example(logits);
    int32_t runs[3][LENGTH];
    for (int run = 0; run < 3; run++) {
        tern_sample_state state =
            begin((tern_sampler_params){.temperature = 1.0f, .top_p = 0.95f, .seed = run == 2 ? 2 : 1}, N);
        for (int i = 0; i < LENGTH; i++) runs[run][i] = tern_sample_next(&state, logits);
        tern_sample_free(&state);
    }
    assert_memory_equal(runs[0], runs[1], sizeof runs[0]);
    assert_memory_not_equal(runs[0], runs[2], sizeof runs[0]);
}

static void tokens_of_a_seed_are_those_of_every_machine(void **unused) {
    (void)unused;
    // From a Python program that follows the steps in sample.h. They must never change, or saved seeds would lose their
    // meaning.
    static const int32_t expected[] = {2, 5, 3, 1, 6, 4, 3, 4, 4, 5, 3, 2, 4, 5, 3, 1, 5, 4, 3, 3, 2, 2, 5, 5};
    float logits[N];
    for (int i = 0; i < N; i++) logits[i] = (float)(i * i % 7) * 0.375f;
    tern_sample_state state =
        begin((tern_sampler_params){.temperature = 0.75f, .top_k = 7, .top_p = 0.9f, .min_p = 0.01f, .seed = 42}, N);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_int_equal(tern_sample_next(&state, logits), expected[i]);
    }
    tern_sample_free(&state);
}

// What a screened head does: of the others, any number are -INFINITY.
static void tokens_of_top_k_do_not_depend_on_the_logits_below(void **unused) {
    (void)unused;
    enum { SIZE = 300, TOP = 8, ROUNDS = 200 };
    uint64_t random[4];
    tern_random_seed(random, 78);
    const tern_sampler_params params = {.temperature = 1.0f, .top_k = TOP, .seed = 5};
    tern_sample_state all = begin(params, SIZE), few = begin(params, SIZE), only = begin(params, SIZE);
    for (int round = 0; round < ROUNDS; round++) {
        float logits[SIZE], screened[SIZE], alone[SIZE];
        for (int i = 0; i < SIZE; i++) logits[i] = screened[i] = alone[i] = -1 - (float)tern_random_unit(random);
        for (int i = 0; i < SIZE; i++) screened[i] = i % 9 ? -INFINITY : screened[i];
        for (int i = 0; i < SIZE; i++) alone[i] = -INFINITY;
        for (int i = 0; i < TOP; i++) {
            const size_t at = (size_t)i * (SIZE / TOP) + tern_random_next(random) % (SIZE / TOP);
            logits[at] = screened[at] = alone[at] = (float)tern_random_unit(random);
        }
        const int32_t token = tern_sample_next(&all, logits);
        assert_int_equal(tern_sample_next(&few, screened), token);
        assert_int_equal(tern_sample_next(&only, alone), token);
    }
    tern_sample_free(&all);
    tern_sample_free(&few);
    tern_sample_free(&only);
}

static void the_generator_is_xoshiro256_starstar(void **unused) {
    (void)unused;
    // First outputs for the state 1, 2, 3, 4, as other implementations print them.
    static const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240};
    uint64_t state[4] = {1, 2, 3, 4};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) assert_true(tern_random_next(state) == expected[i]);
    uint64_t seeded[4]; // splitmix64 from 1234567
    tern_random_seed(seeded, 1234567);
    assert_true(seeded[0] == UINT64_C(6457827717110365317) && seeded[1] == UINT64_C(3203168211198807973));
}

static void weights_are_those_of_libm_but_for_rounding(void **unused) {
    (void)unused;
    enum { STEPS = 70001 };
    static float logits[STEPS];
    for (int i = 0; i < STEPS; i++) logits[i] = (float)i * -0.01f; // down to exp(-700)
    tern_sample_state state = begin((tern_sampler_params){.temperature = 1.0f}, STEPS);
    assert_in_range(tern_sample_next(&state, logits), 0, STEPS - 1);
    double worst = 0.0;
    for (int i = 0; i < STEPS; i++) {
        const double exact = exp((double)logits[i]), error = fabs(state.candidates[i].weight - exact) / exact;
        worst = error > worst ? error : worst;
    }
    print_message("largest relative error of a weight: 2^%.2f\n", log2(worst));
    assert_true(worst < 0x1p-50);
    tern_sample_free(&state);
}

static void extreme_logits_and_temperatures_stay_defined(void **unused) {
    (void)unused;
    static const float temperatures[] = {1e-38f, 1e-6f, 1.0f, 1e6f, 3e38f};
    const float extreme[N] = {-3e38f, 3e38f, 0, -INFINITY, NAN, 1, -1, 2};
    for (size_t t = 0; t < sizeof temperatures / sizeof temperatures[0]; t++) {
        tern_sample_state state = begin((tern_sampler_params){.temperature = temperatures[t], .seed = t}, N);
        for (int i = 0; i < 200; i++) {
            const int32_t id = tern_sample_next(&state, extreme);
            assert_in_range(id, 0, N - 1);
            assert_true(id != 3 && id != 4);
            if (temperatures[t] < 2e6f) assert_int_equal(id, 1);
        }
        tern_sample_free(&state);
    }
}

static void logits_without_a_usable_number_give_no_token(void **unused) {
    (void)unused;
    for (int greedy = 0; greedy < 2; greedy++) {
        tern_sample_state state = begin((tern_sampler_params){.temperature = greedy ? 0.0f : 1.0f}, 3);
        assert_int_equal(tern_sample_next(&state, (const float[]){NAN, NAN, NAN}), -1);
        assert_int_equal(tern_sample_next(&state, (const float[]){-INFINITY, NAN, -INFINITY}), -1);
        assert_int_equal(tern_sample_next(&state, (const float[]){1, INFINITY, NAN}), -1);
        assert_int_equal(tern_sample_next(&state, (const float[]){NAN, -INFINITY, -5}), 2);
        tern_sample_free(&state);
    }
}

static void parameters_outside_their_range_are_refused_by_name(void **unused) {
    (void)unused;
    static const struct {
        tern_sampler_params params;
        size_t n_vocab;
        const char *name;
    } cases[] = {
        {{.temperature = -0.1f}, N, "temperature"},
        {{.temperature = NAN}, N, "temperature"},
        {{.temperature = INFINITY}, N, "temperature"},
        {{.top_p = -0.1f}, N, "top_p"},
        {{.top_p = 1.1f}, N, "top_p"},
        {{.top_p = NAN}, N, "top_p"},
        {{.min_p = -1.0f}, N, "min_p"},
        {{.min_p = 2.0f}, N, "min_p"},
        {{.min_p = NAN}, N, "min_p"},
        {{.temperature = 1.0f}, 0, "vocabulary"},
        {{.temperature = 1.0f}, (size_t)INT32_MAX + 1, "vocabulary"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tern_sample_state state = {.candidates = NULL};
        tern_error err = {""};
        assert_int_equal(tern_sample_init(&state, &cases[i].params, cases[i].n_vocab, &tern_default_allocator, &err),
                         TERN_ERR_ARG);
        assert_non_null(strstr(err.text, cases[i].name));
        assert_null(state.candidates);
    }
}

static size_t allocations;
static void *counting_alloc(void *user, size_t size, size_t align) {
    (void)user;
    allocations++;
    return tern_default_allocator.alloc(NULL, size, align);
}
static void counting_free(void *user, void *ptr, size_t size) {
    (void)user;
    tern_default_allocator.free(NULL, ptr, size);
}
static void *no_alloc(void *user, size_t size, size_t align) {
    (void)user, (void)size, (void)align;
    return NULL;
}

static void memory_is_taken_once_and_its_lack_is_reported(void **unused) {
    (void)unused;
    const tern_allocator counting = {counting_alloc, counting_free, NULL}, none = {no_alloc, counting_free, NULL};
    const tern_sampler_params params = {.temperature = 1.0f, .top_k = 5, .top_p = 0.5f};
    tern_sample_state state;
    assert_int_equal(tern_sample_init(&state, &params, N, &none, NULL), TERN_ERR_MEMORY);
    allocations = 0;
    assert_int_equal(tern_sample_init(&state, &params, N, &counting, NULL), TERN_OK);
    float logits[N];
    example(logits);
    for (int i = 0; i < 100; i++) assert_in_range(tern_sample_next(&state, logits), 0, N - 1);
    assert_int_equal(allocations, 1);
    tern_sample_free(&state);
    tern_sample_free(&state); // a freed state is empty
}

// ---- Changes of logits --------------------------------------------------------------------------------------

static void biases_are_added_before_anything_else_and_may_ban(void **unused) {
    (void)unused;
    const tern_logit_bias biases[] = {{3, 2.0f}, {0, -INFINITY}, {3, 1.0f}, {7, 2.5f}};
    for (int i = 0; i < 2; i++) { // greedy, and drawing among one
        tern_sample_state state =
            begin((tern_sampler_params){.temperature = (float)i, .top_k = 1, .biases = biases, .n_biases = 4}, N);
        assert_int_equal(tern_sample_next(&state, (const float[N]){9, 0, 1, 0, 0, 0, 0, 0}), 3);
        assert_int_equal(tern_sample_next(&state, (const float[N]){9, 4, 1, 0, 0, 0, 0, 0}), 1);
        assert_int_equal(tern_sample_next(&state, (const float[N]){0, 0, 1, -1, 0, 0, 0, 0}), 7);
        tern_sample_free(&state);
    }
    expect_shares(
        (tern_sampler_params){.temperature = 1.0f, .biases = (const tern_logit_bias[]){{0, -INFINITY}}, .n_biases = 1},
        (const double[N]){0, 0.05, 0.2, 0.1, 0.1, 0.08, 0.05, 0.02});
    expect_shares((tern_sampler_params){.temperature = 1.0f, .biases = (const tern_logit_bias[]){{1, logf(8)}}, .n_biases = 1},
                  (const double[N]){0.4, 0.4, 0.2, 0.1, 0.1, 0.08, 0.05, 0.02});
}

static void what_was_said_is_divided_or_multiplied_once(void **unused) {
    (void)unused;
    tern_sample_state state = begin((tern_sampler_params){.repeat_penalty = 2.0f, .repeat_last = 3}, N);
    const float positive[N] = {8, 5, 3, 1, 0, 0, 0, 0}, negative[N] = {-1, -1.5f, -1.75f, -3, -9, -9, -9, -9};
    assert_int_equal(tern_sample_next(&state, positive), 0);
    assert_int_equal(tern_sample_next(&state, positive), 1); // 4 5 3
    assert_int_equal(tern_sample_next(&state, positive), 0); // 4 2.5 3
    assert_int_equal(tern_sample_next(&state, positive), 0); // of the last three twice, but halved once
    assert_int_equal(tern_sample_next(&state, positive), 0); // the last three are 1 0 0
    assert_int_equal(tern_sample_next(&state, positive), 1); // 0 0 0: 4 5 3
    tern_sample_forget(&state);
    assert_int_equal(tern_sample_next(&state, negative), 0);
    assert_int_equal(tern_sample_next(&state, negative), 1); // -2 -1.5
    assert_int_equal(tern_sample_next(&state, negative), 2); // -2 -3 -1.75
    tern_sample_free(&state);
}

static void a_prompt_counts_as_said_and_old_tokens_are_forgotten(void **unused) {
    (void)unused;
    tern_sample_state state = begin((tern_sampler_params){.repeat_penalty = 4.0f}, N);
    const float logits[N] = {8, 7, 6, 5, 0, 0, 0, 0};
    const int32_t prompt[] = {0, 1, 2};
    tern_sample_accept(&state, prompt, 3);
    assert_int_equal(tern_sample_next(&state, logits), 3);
    const int32_t other = 7;
    for (int i = 0; i < 64; i++) tern_sample_accept(&state, &other, 1); // the default number of tokens
    assert_int_equal(tern_sample_next(&state, logits), 0);
    tern_sample_free(&state);
}

static void one_is_no_penalty(void **unused) {
    (void)unused;
    expect_shares((tern_sampler_params){.temperature = 1.0f, .repeat_penalty = 1.0f, .repeat_last = 5}, shares);
}

static void changes_that_make_no_sense_are_refused(void **unused) {
    (void)unused;
    const tern_sampler_params bad[] = {
        {.repeat_penalty = -1.0f},
        {.repeat_penalty = NAN},
        {.repeat_penalty = INFINITY},
        {.repeat_penalty = 2.0f, .repeat_last = UINT32_MAX},
        {.n_biases = 1},
        {.biases = (const tern_logit_bias[]){{-1, 0}}, .n_biases = 1},
        {.biases = (const tern_logit_bias[]){{N, 0}}, .n_biases = 1},
        {.biases = (const tern_logit_bias[]){{0, NAN}}, .n_biases = 1},
        {.biases = (const tern_logit_bias[]){{0, INFINITY}}, .n_biases = 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tern_sample_state state;
        tern_error err = {""};
        assert_int_equal(tern_sample_init(&state, &bad[i], N, &tern_default_allocator, &err), TERN_ERR_ARG);
        assert_true(strlen(err.text) > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_highest_and_the_lowest_id_among_equals),
        cmocka_unit_test(temperature_one_draws_the_softmax),
        cmocka_unit_test(temperature_raises_shares_to_its_inverse),
        cmocka_unit_test(top_k_keeps_the_k_highest_and_lower_ids_among_equals),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_the_share),
        cmocka_unit_test(min_p_keeps_what_is_near_the_most_probable),
        cmocka_unit_test(filters_apply_top_k_then_temperature_then_top_p_then_min_p),
        cmocka_unit_test(filters_agree_with_a_sort_on_random_logits),
        cmocka_unit_test(tokens_of_top_k_do_not_depend_on_the_logits_below),
        cmocka_unit_test(the_same_seed_gives_the_same_tokens_and_another_seed_others),
        cmocka_unit_test(tokens_of_a_seed_are_those_of_every_machine),
        cmocka_unit_test(the_generator_is_xoshiro256_starstar),
        cmocka_unit_test(weights_are_those_of_libm_but_for_rounding),
        cmocka_unit_test(extreme_logits_and_temperatures_stay_defined),
        cmocka_unit_test(logits_without_a_usable_number_give_no_token),
        cmocka_unit_test(parameters_outside_their_range_are_refused_by_name),
        cmocka_unit_test(memory_is_taken_once_and_its_lack_is_reported),
        cmocka_unit_test(biases_are_added_before_anything_else_and_may_ban),
        cmocka_unit_test(what_was_said_is_divided_or_multiplied_once),
        cmocka_unit_test(a_prompt_counts_as_said_and_old_tokens_are_forgotten),
        cmocka_unit_test(one_is_no_penalty),
        cmocka_unit_test(changes_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
