// SPDX-License-Identifier: MIT
// Decoding in whatever threads: those of a caller, a context per thread, two contexts in turn, and after fork().
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "caller_loops.h"
#include "tern/decode.h"

enum { PROMPT = 11, STEPS = 6, CTX = 32, VOCAB_MAX = 512, THREADS = 4, CHILD_SECONDS = 60 };
static const char path[] = TERN_TEST_MODELS "/tiny-tq2_0.gguf";

typedef struct rig {
    tern_context *ctx;
    tern_model *model;
    tern_session *session;
    size_t n_vocab;
} rig;

// The tokens chosen after a prompt, and the logits of each.
typedef struct answer {
    int32_t tokens[STEPS];
    float logits[STEPS][VOCAB_MAX];
} answer;

static bool same_bits(const answer *a, const answer *b) {
    return memcmp((const unsigned char *)a, (const unsigned char *)b, sizeof *a) == 0;
}

static bool set_up(rig *r, const tern_context_params *params) {
    *r = (rig){0};
    tern_model_info info = {.struct_size = sizeof info};
    if (tern_context_create(&r->ctx, params) != TERN_OK) return false;
    if (tern_model_load(r->ctx, &r->model, path, NULL) != TERN_OK) return false;
    if (tern_model_get_info(r->model, &info) != TERN_OK || info.n_vocab > VOCAB_MAX) return false;
    r->n_vocab = info.n_vocab;
    const tern_session_params sp = {.struct_size = sizeof sp, .n_ctx = CTX};
    return tern_session_create(r->model, &r->session, &sp) == TERN_OK;
}

static void tear_down(rig *r) {
    tern_session_destroy(r->session);
    tern_model_destroy(r->model);
    tern_context_destroy(r->ctx);
}

static int32_t greedy(const rig *r) {
    const float *logits = tern_session_logits(r->session);
    int32_t best = 0;
    for (size_t i = 1; i < r->n_vocab; i++)
        if (logits[i] > logits[best]) best = (int32_t)i;
    return best;
}

static tern_status decode(rig *r, const int32_t *tokens, size_t n) {
    tern_session *sessions[PROMPT];
    for (size_t i = 0; i < n; i++) sessions[i] = r->session;
    return tern_decode_batch(r->model, sessions, tokens, n);
}

static tern_status start(rig *r) {
    int32_t prompt[PROMPT];
    for (size_t i = 0; i < PROMPT; i++) prompt[i] = (int32_t)((i * 7919 + 13) % r->n_vocab);
    return decode(r, prompt, PROMPT);
}

static bool step(rig *r, answer *a, size_t i) {
    a->tokens[i] = greedy(r);
    memcpy(a->logits[i], tern_session_logits(r->session), r->n_vocab * sizeof(float));
    return decode(r, &a->tokens[i], 1) == TERN_OK;
}

static bool decode_all(const tern_context_params *params, answer *a) {
    rig r;
    *a = (answer){0};
    bool ok = set_up(&r, params) && start(&r) == TERN_OK;
    for (size_t i = 0; ok && i < STEPS; i++) ok = step(&r, a, i);
    tear_down(&r);
    return ok;
}

static answer with_own_pool(int n_threads) {
    const tern_context_params params = {.struct_size = sizeof params, .threads = n_threads};
    answer a;
    assert_true(decode_all(&params, &a));
    return a;
}

// ---- the claims -----------------------------------------------------------------------------------------------------

static void the_caller_s_threads_decode_the_bits_of_tern_s_own_pool_and_no_other_thread_is_made(void **state) {
    (void)state;
    const answer want = with_own_pool(1);
    const int thread_counts[] = {1, 2, 5};
    for (int i = 0; i < 3; i++) {
        const answer own = with_own_pool(thread_counts[i]);
        assert_true(same_bits(&own, &want));
        for (int kind = 0; kind < N_LOOPS; kind++) {
            caller_loop loop;
            assert_true(caller_loop_open(&loop, kind, thread_counts[i]));
            const task_list before = list_tasks_without_tern();
            const tern_context_params params = caller_loop_params(&loop);
            rig r;
            answer a = {0};
            assert_true(set_up(&r, &params));
            assert_int_equal(start(&r), TERN_OK);
            for (size_t s = 0; s < STEPS; s++) assert_true(step(&r, &a, s));
            const task_list during = list_tasks();
            assert_int_equal(tasks_not_in(&during, &before), 0);
            assert_int_equal(during.n_tern, 0);
            tear_down(&r);
            caller_loop_close(&loop);
            assert_true(same_bits(&a, &want));
        }
    }
}

typedef struct own_thread {
    pthread_t thread;
    int n_workers;
    bool ok;
    answer a;
} own_thread;

static void *decode_in_a_thread(void *arg) {
    own_thread *t = arg;
    const tern_context_params params = {.struct_size = sizeof params, .threads = t->n_workers};
    t->ok = decode_all(&params, &t->a);
    return NULL;
}

static void a_context_in_each_thread_decodes_the_same_at_once(void **state) {
    (void)state;
    const answer want = with_own_pool(1);
    static own_thread threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        threads[i].n_workers = 1 + i % 3;
        assert_int_equal(pthread_create(&threads[i].thread, NULL, decode_in_a_thread, &threads[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i].thread, NULL);
        assert_true(threads[i].ok);
        assert_true(same_bits(&threads[i].a, &want));
    }
}

static void two_contexts_in_one_thread_take_turns(void **state) {
    (void)state;
    const answer want = with_own_pool(1);
    const tern_context_params params = {.struct_size = sizeof params, .threads = 2};
    rig r[2];
    answer a[2] = {{{0}, {{0}}}, {{0}, {{0}}}};
    for (int i = 0; i < 2; i++) assert_true(set_up(&r[i], &params));
    for (int i = 0; i < 2; i++) assert_int_equal(start(&r[i]), TERN_OK);
    for (size_t s = 0; s < STEPS; s++)
        for (int i = 0; i < 2; i++) assert_true(step(&r[i], &a[i], s));
    for (int i = 0; i < 2; i++) {
        assert_true(same_bits(&a[i], &want));
        tear_down(&r[i]);
    }
}

static void decode_tile(void *arg, size_t tile) {
    (void)tile;
    const int32_t token = 1;
    rig *r = arg;
    if (decode(r, &token, 1) == TERN_ERR_STATE) r->n_vocab = 0; // says so to the test
}

static void a_tile_cannot_decode_with_the_context_that_runs_it(void **state) {
    (void)state;
    const tern_context_params params = {.struct_size = sizeof params, .threads = 2};
    rig r;
    assert_true(set_up(&r, &params));
    assert_int_equal(start(&r), TERN_OK);
    const tern_stage stage = {.fn = decode_tile, .arg = &r, .n_tiles = 1};
    assert_int_equal(tern_run_region(r.ctx, &stage, 1), TERN_OK);
    assert_int_equal(r.n_vocab, 0);
    assert_int_equal(tern_session_length(r.session), PROMPT);
    tear_down(&r);
}

static void a_forked_child_cannot_decode_and_does_not_hang(void **state) {
    (void)state;
    const answer want = with_own_pool(1);
    const tern_context_params params = {.struct_size = sizeof params, .threads = 2};
    rig r;
    assert_true(set_up(&r, &params));
    assert_int_equal(start(&r), TERN_OK);
    const pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS); // a hang ends as a signal
        const int32_t token = 1;
        int fault = decode(&r, &token, 1) != TERN_ERR_STATE || !strstr(tern_context_error(r.ctx), "fork");
        fault |= (tern_session_length(r.session) != PROMPT) << 1; // nothing was decoded
        tear_down(&r);
#if !defined(__SANITIZE_THREAD__) // which cannot start threads after fork()
        answer a;
        fault |= (!decode_all(&params, &a) || !same_bits(&a, &want)) << 2; // a new context works
#endif
        _exit(fault);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    answer a = {0};
    for (size_t s = 0; s < STEPS; s++) assert_true(step(&r, &a, s)); // the parent goes on
    assert_true(same_bits(&a, &want));
    tear_down(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_caller_s_threads_decode_the_bits_of_tern_s_own_pool_and_no_other_thread_is_made),
        cmocka_unit_test(a_context_in_each_thread_decodes_the_same_at_once),
        cmocka_unit_test(two_contexts_in_one_thread_take_turns),
        cmocka_unit_test(a_tile_cannot_decode_with_the_context_that_runs_it),
        cmocka_unit_test(a_forked_child_cannot_decode_and_does_not_hang),
    };
    return cmocka_run_group_tests_name("decode_threads", tests, NULL, NULL);
}
