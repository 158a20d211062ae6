// SPDX-License-Identifier: MIT
// Many sequences: batches of sessions at different lengths, which come and go, and sessions that go on from a copy.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "decode_rig.h"
#include "test_random.h"

enum { MANY = RIG_SESSIONS, CTX = 128, STEPS = 12, LENGTH_MAX = 90, THREADS = 2 }; // MANY: more than the head takes at once
enum { N_KV_TYPES = 2, N_CASES = N_MODELS * N_KV_TYPES };

static void set_up(rig *r, const char *file, tern_kv_type kv) {
    rig_open(r, file, THREADS);
    for (size_t i = 0; i < MANY; i++) r->sessions[i] = new_session(r->model, kv, CTX - i % 3);
}

static int32_t greedy(const rig *r, const tern_session *s) {
    const float *logits = tern_session_logits(s);
    assert_non_null(logits);
    int32_t best = 0;
    for (size_t i = 1; i < r->n_vocab; i++)
        if (logits[i] > logits[best]) best = (int32_t)i;
    return best;
}

static void check_logits(const rig *r, const tern_session *s, const float *want) {
    assert_non_null(tern_session_logits(s));
    assert_memory_equal(tern_session_logits(s), want, r->n_vocab * sizeof *want);
}

// ---- batches -----------------------------------------------------------------------------------------------------------

// The logits after a prompt of `length` tokens and each of STEPS greedy ones, decoded alone: [STEPS + 1][n_vocab].
static float *alone(rig *r, size_t text, size_t length) {
    tern_session *s = r->sessions[0];
    float *logits = malloc((STEPS + 1) * r->n_vocab * sizeof *logits);
    assert_non_null(logits);
    tern_session_reset(s);
    append(r, s, text, length);
    for (size_t i = 0;; i++) {
        memcpy(logits + i * r->n_vocab, tern_session_logits(s), r->n_vocab * sizeof *logits);
        if (i == STEPS) return logits;
        const int32_t token = greedy(r, s);
        assert_int_equal(tern_decode_batch(r->model, &s, &token, 1), TERN_OK);
    }
}

static void batches_of_sequences_of_all_lengths_that_come_and_go_give_the_bits_of_each_alone(void **state) {
    (void)state;
    for (size_t c = 0; c < N_CASES; c++) {
        rig r;
        set_up(&r, models[c % N_MODELS], (tern_kv_type)(c / N_MODELS));
        size_t lengths[MANY], steps[MANY] = {0};
        float *want[MANY];
        for (size_t i = 0; i < MANY; i++) {
            lengths[i] = 1 + random_below(LENGTH_MAX);
            want[i] = alone(&r, i, lengths[i]);
        }
        tern_session_reset(r.sessions[0]);
        for (size_t i = 0; i < MANY; i++) append(&r, r.sessions[i], i, lengths[i]);
        for (size_t left = MANY; left > 0;) {
            tern_session *sessions[MANY];
            int32_t tokens[MANY];
            size_t who[MANY], n = 0;
            left = 0;
            for (size_t i = 0; i < MANY; i++) {
                if (steps[i] == STEPS) continue;
                left++;
                if (random_below(3) == 0) continue; // this one is late
                sessions[n] = r.sessions[i];
                tokens[n] = greedy(&r, r.sessions[i]);
                who[n++] = i;
            }
            if (n == 0) continue;
            assert_int_equal(tern_decode_batch(r.model, sessions, tokens, n), TERN_OK);
            for (size_t j = 0; j < n; j++) check_logits(&r, sessions[j], want[who[j]] + ++steps[who[j]] * r.n_vocab);
        }
        for (size_t i = 0; i < MANY; i++) free(want[i]);
        rig_close(&r);
    }
}

// ---- copies ------------------------------------------------------------------------------------------------------------

static void a_copied_session_goes_on_with_the_bits_of_the_first_and_apart_from_it(void **state) {
    (void)state;
    for (size_t c = 0; c < N_CASES; c++) {
        rig r;
        set_up(&r, models[c % N_MODELS], (tern_kv_type)(c / N_MODELS));
        const size_t length = 1 + random_below(LENGTH_MAX);
        float *want = alone(&r, 1, length);
        tern_session *from = r.sessions[1], *to = r.sessions[2];
        append(&r, from, 1, length);
        append(&r, to, 2, 5); // to be replaced
        assert_int_equal(tern_session_copy(to, from), TERN_OK);
        assert_int_equal(tern_session_length(to), length);
        for (size_t i = 0;; i++) {
            check_logits(&r, to, want + i * r.n_vocab);
            if (i == STEPS) break;
            const int32_t tokens[] = {greedy(&r, to), token_at(&r, 3, i)};
            tern_session *const both[] = {to, from};
            assert_int_equal(tern_decode_batch(r.model, both, tokens, 2), TERN_OK); // `from` goes another way
        }
        assert_int_equal(tern_session_copy(to, to), TERN_OK);
        check_logits(&r, to, want + STEPS * r.n_vocab);
        assert_int_equal(tern_session_truncate(from, 1), TERN_OK);
        assert_int_equal(tern_session_copy(to, from), TERN_OK);
        assert_int_equal(tern_session_length(to), 1);
        assert_null(tern_session_logits(to)); // as of `from`
        free(want);
        rig_close(&r);
    }
}

static void copies_that_cannot_be_are_refused_and_change_nothing(void **state) {
    (void)state;
    rig r, other;
    set_up(&r, models[0], TERN_KV_F16);
    set_up(&other, models[0], TERN_KV_F16);
    tern_session *small = new_session(r.model, TERN_KV_F16, 3), *int8 = new_session(r.model, TERN_KV_INT8, CTX);
    append(&r, small, 0, 2);
    append(&r, r.sessions[0], 1, 4);
    assert_int_equal(tern_session_copy(NULL, small), TERN_ERR_ARG);
    assert_int_equal(tern_session_copy(small, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_session_copy(other.sessions[0], small), TERN_ERR_ARG);
    assert_int_equal(tern_session_copy(small, r.sessions[0]), TERN_ERR_FULL);
    assert_int_equal(tern_session_copy(int8, small), TERN_ERR_ARG);
    assert_int_equal(tern_session_length(small), 2);
    assert_non_null(tern_session_logits(small));
    tern_session_destroy(small);
    tern_session_destroy(int8);
    rig_close(&r);
    rig_close(&other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_of_sequences_of_all_lengths_that_come_and_go_give_the_bits_of_each_alone),
        cmocka_unit_test(a_copied_session_goes_on_with_the_bits_of_the_first_and_apart_from_it),
        cmocka_unit_test(copies_that_cannot_be_are_refused_and_change_nothing),
    };
    return cmocka_run_group_tests_name("decode_sessions", tests, start_random, NULL);
}
