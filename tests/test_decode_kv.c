// SPDX-License-Identifier: MIT
// The KV cache in each of its types: logits do not depend on how the context was filled, on what stood there before, on threads
// or tiers, over several blocks of keys.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tern/decode.h"
#include "test_random.h"

// LENGTH: two blocks of 256 keys, of which the second is not full.
enum { CTX = 448, LENGTH = 401, PIECE_MAX = 7 };
static const char *const models[] = {TERN_TEST_MODELS "/tiny-tq2_0.gguf", TERN_TEST_MODELS "/tiny-gqa-q8_0.gguf"};
static const tern_kv_type types[] = {TERN_KV_F16, TERN_KV_INT8};
enum { N_MODELS = 2, N_TYPES = 2 };

typedef struct rig {
    tern_context *ctx;
    tern_model *model;
    tern_session *session, *other;
    size_t n_vocab;
} rig;

static tern_session *new_session(tern_model *model, tern_kv_type kv) {
    const tern_session_params params = {.struct_size = sizeof params, .n_ctx = CTX, .kv = kv};
    tern_session *s = NULL;
    assert_int_equal(tern_session_create(model, &s, &params), TERN_OK);
    return s;
}

static bool set_up(rig *r, const char *path, tern_kv_type kv, const char *tier, int threads) {
    *r = (rig){0};
    const tern_context_params params = {.struct_size = sizeof params, .threads = threads, .isa = tier};
    const tern_status status = tern_context_create(&r->ctx, &params);
    if (status == TERN_ERR_CPU) return false; // this CPU has fewer tiers
    assert_int_equal(status, TERN_OK);
    if (tern_model_load(r->ctx, &r->model, path, NULL) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
    r->session = new_session(r->model, kv);
    r->other = new_session(r->model, kv);
    tern_model_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_model_get_info(r->model, &info), TERN_OK);
    r->n_vocab = info.n_vocab;
    return true;
}

static void tear_down(rig *r) {
    tern_session_destroy(r->session);
    tern_session_destroy(r->other);
    tern_model_destroy(r->model);
    tern_context_destroy(r->ctx);
}

static int32_t token_at(const rig *r, size_t text, size_t i) { return (int32_t)((text * 104729 + i * 7919 + 13) % r->n_vocab); }

// Appends the next n tokens of a text.
static void append(rig *r, tern_session *s, size_t text, size_t n) {
    tern_session *sessions[CTX];
    int32_t tokens[CTX];
    const size_t from = tern_session_length(s);
    for (size_t i = 0; i < n; i++) {
        sessions[i] = s;
        tokens[i] = token_at(r, text, from + i);
    }
    if (tern_decode_batch(r->model, sessions, tokens, n) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
}

static void check(const rig *r, const tern_session *s, const float *want) {
    assert_int_equal(tern_session_length(s), LENGTH);
    assert_memory_equal(tern_session_logits(s), want, r->n_vocab * sizeof *want);
}

// Logits after text 0, in one call.
static float *at_once(rig *r) {
    append(r, r->session, 0, LENGTH);
    float *copy = malloc(r->n_vocab * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, tern_session_logits(r->session), r->n_vocab * sizeof *copy);
    return copy;
}

static void how_the_context_was_filled_changes_no_bit(void **unused) {
    (void)unused;
    for (size_t m = 0; m < N_MODELS; m++)
        for (size_t t = 0; t < N_TYPES; t++) {
            rig r;
            assert_true(set_up(&r, models[m], types[t], NULL, 2));
            float *want = at_once(&r);
            tern_session_reset(r.session);
            while (tern_session_length(r.session) < LENGTH) { // in pieces
                const size_t left = LENGTH - tern_session_length(r.session), piece = 1 + random_below(PIECE_MAX);
                append(&r, r.session, 0, piece < left ? piece : left);
            }
            check(&r, r.session, want);

            tern_session_reset(r.session); // two sessions in one batch: one some tokens behind the other, over the block's end
            append(&r, r.session, 0, 250);
            append(&r, r.other, 0, 240);
            while (tern_session_length(r.other) < LENGTH - 1) {
                const size_t i = tern_session_length(r.session), j = tern_session_length(r.other);
                tern_session *const sessions[] = {r.other, r.session};
                const int32_t tokens[] = {token_at(&r, 0, j), token_at(&r, 0, i)};
                assert_int_equal(tern_decode_batch(r.model, sessions, tokens, 2), TERN_OK);
                if (i + 1 == LENGTH) {
                    check(&r, r.session, want);
                    assert_int_equal(tern_session_truncate(r.session, 250), TERN_OK);
                }
            }
            append(&r, r.other, 0, 1);
            check(&r, r.other, want);
            free(want);
            tear_down(&r);
        }
}

static void forgotten_tokens_leave_no_trace(void **unused) {
    (void)unused;
    for (size_t m = 0; m < N_MODELS; m++)
        for (size_t t = 0; t < N_TYPES; t++) {
            rig r;
            assert_true(set_up(&r, models[m], types[t], NULL, 2));
            append(&r, r.session, 1, CTX); // another text, to the end of the context
            tern_session_reset(r.session);
            float *want = at_once(&r);
            append(&r, r.other, 0, LENGTH);
            check(&r, r.other, want);
            for (size_t i = 0; i < 8; i++) { // wrong guesses, back into any block
                const size_t back = random_below(LENGTH);
                append(&r, r.session, 2 + i, 1 + random_below(CTX - LENGTH));
                assert_int_equal(tern_session_truncate(r.session, back), TERN_OK);
                append(&r, r.session, 0, LENGTH - back);
                check(&r, r.session, want);
            }
            assert_int_equal(tern_session_truncate(r.other, 300), TERN_OK);
            assert_int_equal(tern_session_copy(r.session, r.other), TERN_OK);
            append(&r, r.session, 0, LENGTH - 300);
            check(&r, r.session, want);
            free(want);
            tear_down(&r);
        }
}

static void int8_logits_are_bit_identical_on_every_tier_and_thread_count(void **unused) {
    (void)unused;
    static const char *const tiers[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};
    for (size_t m = 0; m < N_MODELS; m++) {
        float *want = NULL;
        for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++)
            for (int threads = 1; threads <= 5; threads += threads == 1 ? 1 : 3) {
                rig r;
                if (!set_up(&r, models[m], TERN_KV_INT8, tiers[t], threads)) continue;
                append(&r, r.session, 0, LENGTH - 1);
                append(&r, r.session, 0, 1); // one token: its blocks are tiles of their own
                if (!want) {
                    want = malloc(r.n_vocab * sizeof *want);
                    assert_non_null(want);
                    memcpy(want, tern_session_logits(r.session), r.n_vocab * sizeof *want);
                }
                check(&r, r.session, want);
                tear_down(&r);
            }
        free(want);
    }
}

static void int8_logits_are_near_those_of_float16(void **unused) {
    (void)unused;
    for (size_t m = 0; m < N_MODELS; m++) {
        rig f16, int8;
        assert_true(set_up(&f16, models[m], TERN_KV_F16, NULL, 1));
        assert_true(set_up(&int8, models[m], TERN_KV_INT8, NULL, 1));
        append(&f16, f16.session, 0, LENGTH);
        append(&int8, int8.session, 0, LENGTH);
        const float *x = tern_session_logits(f16.session), *y = tern_session_logits(int8.session);
        double squares = 0, errors = 0;
        for (size_t i = 0; i < f16.n_vocab; i++) {
            squares += pow((double)x[i], 2);
            errors += pow((double)(x[i] - y[i]), 2);
        }
        assert_true(errors > 0);
        assert_true(sqrt(errors / squares) < 0.05);
        assert_int_equal(tern_session_copy(int8.session, int8.session), TERN_OK);
        tear_down(&f16);
        tear_down(&int8);
    }
}

static void sessions_of_two_types_share_a_batch_but_are_not_copied(void **unused) {
    (void)unused;
    rig r;
    assert_true(set_up(&r, models[1], TERN_KV_F16, NULL, 2));
    tern_session_destroy(r.other);
    r.other = new_session(r.model, TERN_KV_INT8);
    append(&r, r.session, 0, LENGTH);
    append(&r, r.other, 0, LENGTH);
    const size_t bytes = r.n_vocab * sizeof(float);
    float *want[] = {malloc(bytes), malloc(bytes)};
    tern_session *const both[] = {r.session, r.other};
    for (size_t i = 0; i < 2; i++) {
        assert_non_null(want[i]);
        memcpy(want[i], tern_session_logits(both[i]), bytes);
        assert_int_equal(tern_session_truncate(both[i], LENGTH - 1), TERN_OK);
    }
    const int32_t tokens[] = {token_at(&r, 0, LENGTH - 1), token_at(&r, 0, LENGTH - 1)};
    assert_int_equal(tern_decode_batch(r.model, both, tokens, 2), TERN_OK);
    for (size_t i = 0; i < 2; i++) {
        check(&r, both[i], want[i]);
        free(want[i]);
    }
    assert_int_equal(tern_session_copy(r.other, r.session), TERN_ERR_ARG);
    tear_down(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(how_the_context_was_filled_changes_no_bit),
        cmocka_unit_test(forgotten_tokens_leave_no_trace),
        cmocka_unit_test(int8_logits_are_bit_identical_on_every_tier_and_thread_count),
        cmocka_unit_test(int8_logits_are_near_those_of_float16),
        cmocka_unit_test(sessions_of_two_types_share_a_batch_but_are_not_copied),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
