// SPDX-License-Identifier: MIT
// The forms of the output head: the same bits on every tier and thread count and for every number of tokens, close to the exact
// one, and 4-bit codes that are no worse than rounding between a block's ends.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "matmul/build.h"
#include "tern/decode.h"
#include "test_random.h"

// Heads of Q8_0 rows, which become float32 first where they are read as they are, and of F16 and F32 rows.
static const char *const models[] = {TERN_TEST_MODELS "/tiny-gqa-q8_0.gguf", TERN_TEST_MODELS "/tiny-head-f16.gguf",
                                     TERN_TEST_MODELS "/tiny-head-f32.gguf"};
static const char *const tiers[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};
enum { N_MODELS = 3, N_TIERS = 5, TOKENS = 18 /* more than TERN_HEAD_ROWS */, FORMS = TERN_HEAD_SCREENED + 1 };

typedef struct logits {
    float *rows; // [TOKENS][n_vocab]; NULL: this CPU has no such tier
    size_t n_vocab;
    char layout[16];
    double bits; // of the head, per weight
} logits;

// at_once: in one call, else token by token.
static logits run(const char *path, const char *tier, int threads, tern_head_form head, bool at_once) {
    logits out = {.rows = NULL};
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    tern_session *session = NULL;
    const tern_context_params cp = {.struct_size = sizeof cp, .threads = threads, .isa = tier};
    const tern_status status = tern_context_create(&ctx, &cp);
    if (status == TERN_ERR_CPU) return out;
    assert_int_equal(status, TERN_OK);
    const tern_model_params mp = {.struct_size = sizeof mp, .head = head};
    if (tern_model_load(ctx, &model, path, &mp) != TERN_OK) fail_msg("%s", tern_context_error(ctx));
    tern_model_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_model_get_info(model, &info), TERN_OK);
    const tern_session_params sp = {.struct_size = sizeof sp, .n_ctx = TOKENS};
    assert_int_equal(tern_session_create(model, &session, &sp), TERN_OK);
    int32_t tokens[TOKENS];
    for (size_t i = 0; i < TOKENS; i++) tokens[i] = (int32_t)((i * 7919 + 13) % info.n_vocab);
    out.n_vocab = info.n_vocab;
    out.bits = (double)info.head_bytes * 8 / ((double)info.n_vocab * (double)info.n_embd);
    (void)strncpy(out.layout, info.head, sizeof out.layout - 1);
    out.rows = malloc(TOKENS * out.n_vocab * sizeof *out.rows);
    assert_non_null(out.rows);
    for (size_t i = 0, step = at_once ? TOKENS : 1; i < TOKENS; i += step)
        assert_int_equal(tern_decode_logits(model, session, tokens + i, step, out.rows + i * out.n_vocab, out.n_vocab),
                         TERN_OK);
    tern_session_destroy(session);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
    return out;
}

static void each_form_gives_the_same_bits_on_every_tier_and_thread_count(void **unused) {
    (void)unused;
    for (size_t m = 0; m < N_MODELS; m++)
        for (int form = TERN_HEAD_EXACT; form < FORMS; form++) { // AUTO is one of them
            const logits want = run(models[m], "scalar", 1, (tern_head_form)form, true);
            for (size_t t = 0; t < N_TIERS; t++)
                for (int threads = 1; threads <= 3; threads += 2) {
                    const logits got = run(models[m], tiers[t], threads, (tern_head_form)form, threads == 1);
                    if (!got.rows) continue;
                    if (memcmp(got.rows, want.rows, TOKENS * want.n_vocab * sizeof *want.rows))
                        fail_msg("%s, form %d: %s with %d threads differs from scalar", models[m], form, tiers[t], threads);
                    free(got.rows);
                }
            free(want.rows);
        }
}

static double distance(const logits *a, const logits *b) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < TOKENS * a->n_vocab; i++) {
        difference += pow((double)a->rows[i] - (double)b->rows[i], 2);
        size += pow((double)b->rows[i], 2);
    }
    return sqrt(difference / size);
}

static void each_form_is_as_near_to_the_exact_one_as_its_bits_allow(void **unused) {
    (void)unused;
    for (size_t m = 0; m < N_MODELS; m++) {
        const logits exact = run(models[m], NULL, 2, TERN_HEAD_EXACT, true);
        const logits int8 = run(models[m], NULL, 2, TERN_HEAD_INT8, true);
        const logits int4 = run(models[m], NULL, 2, TERN_HEAD_INT4, true);
        const logits int6 = run(models[m], NULL, 2, TERN_HEAD_INT6, true);
        const logits chosen = run(models[m], NULL, 2, TERN_HEAD_AUTO, true);
        assert_string_equal(int8.layout, "i8b32");
        assert_string_equal(int4.layout, "i4m32");
        assert_string_equal(int6.layout, "i6b32");
        assert_string_equal(chosen.layout, "i6b32");
        assert_true(int8.bits < 8.6 && int4.bits < 5.1 && exact.bits >= (m == 0 ? 8.5 : 16));
        assert_true(distance(&int8, &exact) > 0 && distance(&int8, &exact) < 0.02);
        assert_true(distance(&int4, &exact) > distance(&int8, &exact) && distance(&int4, &exact) < 0.12);
        assert_true(int6.bits < int8.bits);
        assert_true(distance(&int6, &exact) > distance(&int8, &exact) && distance(&int6, &exact) < 0.03);
        assert_memory_equal(chosen.rows, int6.rows, TOKENS * int6.n_vocab * sizeof *int6.rows);
        free(exact.rows), free(int8.rows), free(int6.rows), free(int4.rows), free(chosen.rows);
    }
}

static void a_form_that_does_not_exist_is_refused(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    const tern_model_params params = {.struct_size = sizeof params, .head = (tern_head_form)FORMS};
    assert_int_equal(tern_model_load(ctx, &model, models[0], &params), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "tern_head_form"));
    assert_null(model);
    tern_context_destroy(ctx);
}

// ---- 4-bit codes --------------------------------------------------------------------------------------------------------

static double plain_error(const float *x, size_t n) {
    float low = x[0], high = x[0];
    for (size_t i = 1; i < n; i++) low = fminf(low, x[i]), high = fmaxf(high, x[i]);
    const float d = tern_f16_to_f32(tern_f32_to_f16((high - low) / 15)), m = tern_f16_to_f32(tern_f32_to_f16(low));
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const float q = d > 0 ? fminf(15, fmaxf(0, rintf((x[i] - m) / d))) : 0;
        sum += pow((double)(d * q + m) - (double)x[i], 2);
    }
    return sum;
}

static void int4_codes_are_no_worse_than_plain_rounding_and_better_on_the_whole(void **unused) {
    (void)unused;
    enum { ROWS = 2000, BLOCK = 32 };
    double ours = 0, plain = 0;
    for (size_t r = 0; r < ROWS; r++) {
        float x[BLOCK], scales[2];
        int8_t codes[BLOCK];
        const float size = ldexpf(1, (int)random_below(12) - 6), shift = random_below(3) == 0 ? random_float() * 3 : 0;
        for (size_t i = 0; i < BLOCK; i++) x[i] = size * (random_float() + random_float() + random_float() + shift);
        assert_null(tern_quantize_row_int4(codes, scales, x, BLOCK));
        double error = 0, squares = 0;
        for (size_t i = 0; i < BLOCK; i++) {
            assert_true(codes[i] >= 0 && codes[i] <= 15);
            error += pow((double)(scales[0] * (float)codes[i] + scales[1]) - (double)x[i], 2);
            squares += pow((double)x[i], 2);
        }
        assert_true(error <= plain_error(x, BLOCK) * (1 + 1e-5) + squares * 1e-8); // ties and float32 sums apart
        ours += error / squares;
        plain += plain_error(x, BLOCK) / squares;
    }
    assert_true(ours < 0.92 * plain);
}

static void int4_codes_of_equal_zero_tiny_and_huge_values_are_what_they_can_be(void **unused) {
    (void)unused;
    enum { N = 45 }; // a block and a part of one
    static const float values[] = {0, 1.5f, -3, 60000, -60000, 1e-9f};
    int8_t codes[N];
    float x[N], scales[4];
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (size_t i = 0; i < N; i++) x[i] = values[v];
        assert_null(tern_quantize_row_int4(codes, scales, x, N));
        for (size_t i = 0; i < N; i++) {
            const float back = scales[i / 32 * 2] * (float)codes[i] + scales[i / 32 * 2 + 1];
            assert_true(fabsf(back - x[i]) <= fabsf(x[i]) * 0x1p-11f + 0x1p-25f);
        }
    }
    x[40] = NAN;
    assert_non_null(tern_quantize_row_int4(codes, scales, x, N));
    x[40] = INFINITY;
    assert_non_null(tern_quantize_row_int4(codes, scales, x, N));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form_gives_the_same_bits_on_every_tier_and_thread_count),
        cmocka_unit_test(each_form_is_as_near_to_the_exact_one_as_its_bits_allow),
        cmocka_unit_test(a_form_that_does_not_exist_is_refused),
        cmocka_unit_test(int4_codes_are_no_worse_than_plain_rounding_and_better_on_the_whole),
        cmocka_unit_test(int4_codes_of_equal_zero_tiny_and_huge_values_are_what_they_can_be),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
