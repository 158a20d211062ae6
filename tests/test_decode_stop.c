// SPDX-License-Identifier: MIT
// Cancelling and deadlines: a call stops before its next layer wherever it is, and what it had begun is as if it had not been.
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tern/decode.h"

enum {
    CTX = 1024,
    PROMPT = 9,
    LONG_PROMPT = 600,
    THREADS = 3,
    MANY_THREADS = 8
}; // LONG_PROMPT: more than one slice of a batch
static const char path[] = TERN_TEST_MODELS "/tiny-long.gguf";

typedef struct rig {
    tern_context *ctx;
    tern_model *model;
    tern_session *first, *second;
    size_t n_vocab, n_layers;
} rig;

static void set_up(rig *r, const tern_context_params *params) {
    *r = (rig){0};
    assert_int_equal(tern_context_create(&r->ctx, params), TERN_OK);
    if (tern_model_load(r->ctx, &r->model, path, NULL) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
    const tern_session_params sp = {.struct_size = sizeof sp, .n_ctx = CTX};
    assert_int_equal(tern_session_create(r->model, &r->first, &sp), TERN_OK);
    assert_int_equal(tern_session_create(r->model, &r->second, &sp), TERN_OK);
    tern_model_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_model_get_info(r->model, &info), TERN_OK);
    r->n_vocab = info.n_vocab;
    r->n_layers = info.n_layers;
}

static void tear_down(rig *r) {
    tern_session_destroy(r->first);
    tern_session_destroy(r->second);
    tern_model_destroy(r->model);
    tern_context_destroy(r->ctx);
}

// Tokens from..from + n of a text, to one session.
static tern_status decode(rig *r, tern_session *s, size_t from, size_t n) {
    tern_session *sessions[LONG_PROMPT];
    int32_t tokens[LONG_PROMPT];
    for (size_t i = 0; i < n; i++) {
        sessions[i] = s;
        tokens[i] = (int32_t)(((from + i) * 7919 + 13) % r->n_vocab);
    }
    return tern_decode_batch(r->model, sessions, tokens, n);
}

// A token more in each of both sessions.
static tern_status decode_both(rig *r) {
    tern_session *const sessions[] = {r->first, r->second};
    const int32_t tokens[] = {5, 11};
    return tern_decode_batch(r->model, sessions, tokens, 2);
}

static float *logits_of(const rig *r, const tern_session *s) {
    float *copy = malloc(r->n_vocab * sizeof *copy);
    assert_non_null(copy);
    assert_non_null(tern_session_logits(s));
    memcpy(copy, tern_session_logits(s), r->n_vocab * sizeof *copy);
    return copy;
}

static void check_logits(const rig *r, const tern_session *s, const float *want) {
    assert_non_null(tern_session_logits(s));
    assert_memory_equal(tern_session_logits(s), want, r->n_vocab * sizeof *want);
}

// ---- at every stage of a call ------------------------------------------------------------------------------------------

// A caller's loop, of MANY_THREADS as it says, that cancels a session before stage `at`; it counts the stages of several tiles.
typedef struct probe {
    tern_session *session;
    size_t stages, at;
    bool by_signal;
} probe;

static tern_session *signalled;
static void on_signal(int number) {
    (void)number;
    tern_session_cancel(signalled);
}

static void probing_loop(void *user, tern_tile_fn fn, void *arg, size_t n_tiles) {
    probe *p = user;
    if (p->session && p->stages == p->at) {
        signalled = p->session;
        if (p->by_signal)
            (void)raise(SIGUSR1);
        else
            tern_session_cancel(p->session);
    }
    p->stages++;
    for (size_t i = 0; i < n_tiles; i++) fn(arg, i);
}

static void cancelled_before_any_stage_a_call_stops_before_the_next_layer_and_leaves_nothing(void **state) {
    (void)state;
    (void)signal(SIGUSR1, on_signal);
    probe p = {0};
    const tern_context_params params = {
        .struct_size = sizeof params, .threads = MANY_THREADS, .parallel_for = probing_loop, .parallel_for_user = &p};
    rig r;
    set_up(&r, &params);
    assert_int_equal(decode(&r, r.first, 0, PROMPT), TERN_OK);
    assert_int_equal(decode(&r, r.second, 3, PROMPT), TERN_OK);
    p.stages = 0;
    assert_int_equal(decode_both(&r), TERN_OK);
    const size_t all = p.stages, layer = all / r.n_layers;
    float *want[2] = {logits_of(&r, r.first), logits_of(&r, r.second)};
    size_t stopped = 0;
    for (size_t at = 0; at < all; at++) {
        assert_int_equal(tern_session_truncate(r.first, PROMPT), TERN_OK);
        assert_int_equal(tern_session_truncate(r.second, PROMPT), TERN_OK);
        p = (probe){.session = at % 2 ? r.first : r.second, .at = at, .by_signal = at % 4 < 2};
        const tern_status status = decode_both(&r);
        if (status == TERN_ERR_CANCELLED) {
            assert_non_null(strstr(tern_context_error(r.ctx), "cancelled"));
            assert_true(p.stages <= at + layer + 1);
            assert_int_equal(tern_session_length(r.first), PROMPT);
            assert_int_equal(tern_session_length(r.second), PROMPT);
            assert_null(tern_session_logits(r.first));
            assert_null(tern_session_logits(r.second));
            stopped++;
        } else {
            assert_int_equal(status, TERN_OK); // too late
            assert_true(at + layer >= all);
        }
        assert_int_equal(tern_session_stopped(p.session), TERN_STOP_CANCELLED);
        tern_session_resume(p.session);
        p.session = NULL;
        if (status != TERN_OK) assert_int_equal(decode_both(&r), TERN_OK);
        check_logits(&r, r.first, want[0]);
        check_logits(&r, r.second, want[1]);
    }
    assert_true(stopped > all - layer);
    free(want[0]);
    free(want[1]);
    tear_down(&r);
}

static void a_long_prompt_cancelled_in_its_last_slice_leaves_the_length_before_it(void **state) {
    (void)state;
    probe p = {0};
    const tern_context_params params = {
        .struct_size = sizeof params, .threads = MANY_THREADS, .parallel_for = probing_loop, .parallel_for_user = &p};
    rig r;
    set_up(&r, &params);
    assert_int_equal(decode(&r, r.first, 0, PROMPT), TERN_OK);
    p.stages = 0;
    assert_int_equal(decode(&r, r.first, PROMPT, LONG_PROMPT), TERN_OK);
    float *want = logits_of(&r, r.first);
    const size_t all = p.stages;
    assert_int_equal(tern_session_truncate(r.first, PROMPT), TERN_OK);
    p = (probe){.session = r.first, .at = all - all / 4};
    assert_int_equal(decode(&r, r.first, PROMPT, LONG_PROMPT), TERN_ERR_CANCELLED);
    assert_int_equal(tern_session_length(r.first), PROMPT);
    tern_session_resume(r.first);
    p.session = NULL;
    assert_int_equal(decode(&r, r.first, PROMPT, LONG_PROMPT), TERN_OK);
    check_logits(&r, r.first, want);
    free(want);
    tear_down(&r);
}

// ---- from another thread -----------------------------------------------------------------------------------------------

typedef struct canceller {
    tern_session *session;
    atomic_bool go, done;
} canceller;

static void *cancel_now_and_then(void *arg) {
    canceller *c = arg;
    uint64_t delay = 1;
    while (!atomic_load(&c->done)) {
        delay = delay * 0x5851f42d4c957f2du + 1;
        const struct timespec pause = {0, (long)(delay >> 44)}; // up to 1 ms
        (void)nanosleep(&pause, NULL);
        if (atomic_exchange(&c->go, false)) tern_session_cancel(c->session);
    }
    return NULL;
}

static void a_call_is_cancelled_from_another_thread_at_any_moment(void **state) {
    (void)state;
    enum { TRIES = 60 };
    const tern_context_params params = {.struct_size = sizeof params, .threads = THREADS, .no_pinning = 1};
    rig r;
    set_up(&r, &params);
    assert_int_equal(decode(&r, r.first, 0, PROMPT), TERN_OK);
    float *want = logits_of(&r, r.first);
    canceller c = {.session = r.first};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_now_and_then, &c), 0);
    for (size_t i = 0; i < TRIES; i++) {
        tern_session_reset(r.first);
        atomic_store(&c.go, true);
        tern_status status = TERN_OK;
        while (status == TERN_OK) { // a call that comes too late to be stopped is followed by one that does not begin
            tern_session_reset(r.first);
            status = decode(&r, r.first, 0, PROMPT);
            if (status == TERN_OK) check_logits(&r, r.first, want);
        }
        assert_int_equal(status, TERN_ERR_CANCELLED);
        assert_int_equal(tern_session_length(r.first), 0);
        tern_session_resume(r.first);
        assert_int_equal(decode(&r, r.first, 0, PROMPT), TERN_OK);
        check_logits(&r, r.first, want);
    }
    atomic_store(&c.done, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    free(want);
    tear_down(&r);
}

// ---- what stays until it is resumed ------------------------------------------------------------------------------------

static void a_cancellation_outlives_everything_but_resume_and_stops_only_batches_of_its_session(void **state) {
    (void)state;
    rig r;
    set_up(&r, NULL);
    tern_session_cancel(NULL);
    assert_int_equal(tern_session_stopped(r.first), TERN_STOP_NONE);
    tern_session_cancel(r.first);
    assert_int_equal(decode(&r, r.first, 0, 1), TERN_ERR_CANCELLED);
    tern_session_reset(r.first);
    assert_int_equal(tern_session_truncate(r.first, 0), TERN_OK);
    assert_int_equal(tern_session_copy(r.first, r.second), TERN_OK);
    assert_int_equal(tern_session_set_deadline(r.first, INFINITY), TERN_OK);
    assert_int_equal(tern_session_stopped(r.first), TERN_STOP_CANCELLED);
    assert_int_equal(decode(&r, r.first, 0, 1), TERN_ERR_CANCELLED);
    assert_int_equal(decode_both(&r), TERN_ERR_CANCELLED);
    assert_int_equal(decode(&r, r.second, 0, 1), TERN_OK);
    assert_int_equal(tern_session_copy(r.second, r.first), TERN_OK);
    assert_int_equal(tern_session_stopped(r.second), TERN_STOP_NONE);
    tern_session_resume(r.first);
    assert_int_equal(decode_both(&r), TERN_OK);
    tear_down(&r);
}

static void a_deadline_that_has_passed_stops_calls_until_there_is_a_later_one(void **state) {
    (void)state;
    rig r;
    set_up(&r, NULL);
    assert_int_equal(tern_session_set_deadline(r.first, NAN), TERN_ERR_ARG);
    assert_int_equal(tern_session_set_deadline(NULL, 1), TERN_ERR_ARG);
    assert_int_equal(tern_session_set_deadline(r.first, 1e300), TERN_OK);
    assert_int_equal(decode(&r, r.first, 0, PROMPT), TERN_OK);
    assert_int_equal(tern_session_set_deadline(r.first, 0), TERN_OK);
    assert_int_equal(tern_session_stopped(r.first), TERN_STOP_DEADLINE);
    assert_int_equal(decode(&r, r.first, PROMPT, 1), TERN_ERR_CANCELLED);
    assert_non_null(strstr(tern_context_error(r.ctx), "deadline"));
    assert_int_equal(tern_session_length(r.first), PROMPT);
    assert_int_equal(tern_session_set_deadline(r.first, 3600), TERN_OK);
    assert_int_equal(decode(&r, r.first, PROMPT, 1), TERN_OK);
    assert_int_equal(tern_session_set_deadline(r.first, -INFINITY), TERN_OK);
    assert_int_equal(decode_both(&r), TERN_ERR_CANCELLED);
    tern_session_resume(r.first);
    assert_int_equal(decode_both(&r), TERN_OK);
    tear_down(&r);
}

static void a_deadline_stops_the_call_that_it_meets(void **state) {
    (void)state;
    rig r;
    set_up(&r, NULL);
    assert_int_equal(tern_session_set_deadline(r.first, 0.02), TERN_OK);
    tern_status status = TERN_OK;
    while (status == TERN_OK) {
        tern_session_reset(r.first);
        status = decode(&r, r.first, 0, LONG_PROMPT);
    }
    assert_int_equal(status, TERN_ERR_CANCELLED);
    assert_int_equal(tern_session_length(r.first), 0);
    assert_int_equal(tern_session_stopped(r.first), TERN_STOP_DEADLINE);
    tear_down(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_before_any_stage_a_call_stops_before_the_next_layer_and_leaves_nothing),
        cmocka_unit_test(a_long_prompt_cancelled_in_its_last_slice_leaves_the_length_before_it),
        cmocka_unit_test(a_call_is_cancelled_from_another_thread_at_any_moment),
        cmocka_unit_test(a_cancellation_outlives_everything_but_resume_and_stops_only_batches_of_its_session),
        cmocka_unit_test(a_deadline_that_has_passed_stops_calls_until_there_is_a_later_one),
        cmocka_unit_test(a_deadline_stops_the_call_that_it_meets),
    };
    return cmocka_run_group_tests_name("decode_stop", tests, NULL, NULL);
}
