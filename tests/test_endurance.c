// SPDX-License-Identifier: MIT
// Long use: ten thousand tokens allocate nothing, and neither inferences nor sessions nor models that come and go make the
// process grow. TERN_ENDURANCE_MODEL=FILE takes another model than the tiny ones.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "counted_heap.h"
#include "tern/decode.h"

enum { INFERENCES = 100, PROMPT = 20, ANSWER = 100, CTX = PROMPT + ANSWER, WARM = 5, ROUNDS = 100, THREADS = 2 };
enum { GROWTH_MAX_BYTES = 100 * 1000 }; // over all inferences

static const char *const tiny[] = {TERN_TEST_MODELS "/tiny-tq2_0.gguf", TERN_TEST_MODELS "/tiny-gqa-q8_0.gguf"};

typedef struct rig {
    tern_context *ctx;
    tern_model *model;
    tern_session *session;
    tern_sampler *sampler;
    size_t n_vocab;
} rig;

static const char *model_path(size_t i) {
    const char *given = getenv("TERN_ENDURANCE_MODEL");
    if (given) return i == 0 ? given : NULL;
    return i < sizeof tiny / sizeof *tiny ? tiny[i] : NULL;
}

static void open_context(rig *r) {
    const tern_context_params params = {.struct_size = sizeof params, .threads = THREADS, .allocator = &counted};
    assert_int_equal(tern_context_create(&r->ctx, &params), TERN_OK);
}

static void open_model(rig *r, const char *path) {
    tern_model_info info = {.struct_size = sizeof info};
    if (tern_model_load(r->ctx, &r->model, path, NULL) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
    assert_int_equal(tern_model_get_info(r->model, &info), TERN_OK);
    r->n_vocab = info.n_vocab;
}

static void open_session(rig *r, tern_kv_type kv) {
    const tern_session_params params = {.struct_size = sizeof params, .n_ctx = CTX, .kv = kv};
    const tern_sampler_params sampling = {
        .struct_size = sizeof sampling, .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .seed = 1};
    if (tern_session_create(r->model, &r->session, &params) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
    assert_int_equal(tern_sampler_create(r->model, &r->sampler, &sampling), TERN_OK);
}

static void close_session(rig *r) {
    tern_sampler_destroy(r->sampler);
    tern_session_destroy(r->session);
}

// A prompt of its own for each number, then `n` sampled tokens.
static void infer(rig *r, size_t number, size_t n) {
    tern_session *sessions[PROMPT];
    int32_t tokens[PROMPT], token;
    for (size_t i = 0; i < PROMPT; i++) {
        sessions[i] = r->session;
        tokens[i] = (int32_t)((number * 104729 + i * 7919 + 13) % r->n_vocab);
    }
    tern_session_reset(r->session);
    tern_sampler_forget(r->sampler);
    assert_int_equal(tern_decode_batch(r->model, sessions, tokens, PROMPT), TERN_OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(tern_sample(r->sampler, r->session, &token), TERN_OK);
        assert_int_equal(tern_decode_batch(r->model, sessions, &token, 1), TERN_OK);
    }
}

static void expect_no_growth(size_t pages, const char *what, const char *path) {
    const size_t now = resident_pages(), page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t grown = now > pages ? (now - pages) * page : 0;
    print_message("%s, %s: %zu bytes more resident\n", path, what, grown);
#if !SANITIZED // a sanitizer keeps what is freed
    assert_true(grown < GROWTH_MAX_BYTES);
#endif
}

static void ten_thousand_tokens_allocate_nothing_and_do_not_grow_the_process(void **state) {
    (void)state;
    for (size_t m = 0; model_path(m); m++) {
        rig r = {0};
        open_context(&r);
        open_model(&r, model_path(m));
        for (tern_kv_type kv = TERN_KV_F16; kv <= TERN_KV_INT8; kv++) {
            open_session(&r, kv);
            for (size_t i = 0; i < WARM; i++) infer(&r, i, ANSWER); // every page has been met
            const size_t pages = resident_pages();
            allocations = 0;
            counting = true;
            for (size_t i = 0; i < INFERENCES; i++) infer(&r, i, ANSWER);
            counting = false;
            assert_int_equal(allocations, 0);
            expect_no_growth(pages, "100 inferences of 100 tokens", model_path(m));
            close_session(&r);
        }
        tern_model_destroy(r.model);
        tern_context_destroy(r.ctx);
    }
    assert_int_equal(live_bytes, 0);
}

static void sessions_that_come_and_go_leave_nothing(void **state) {
    (void)state;
    for (size_t m = 0; model_path(m); m++) {
        rig r = {0};
        open_context(&r);
        open_model(&r, model_path(m));
        const size_t live = live_bytes;
        size_t pages = 0;
        for (size_t i = 0; i < WARM + ROUNDS; i++) {
            open_session(&r, TERN_KV_F16);
            infer(&r, i, 2);
            close_session(&r);
            assert_int_equal(live_bytes, live);
            if (i + 1 == WARM) pages = resident_pages();
        }
        expect_no_growth(pages, "100 sessions", model_path(m));
        tern_model_destroy(r.model);
        tern_context_destroy(r.ctx);
    }
}

static void models_that_come_and_go_leave_nothing(void **state) {
    (void)state;
    if (getenv("TERN_ENDURANCE_MODEL")) skip(); // a hundred times seconds
    for (size_t m = 0; model_path(m); m++) {
        rig r = {0};
        open_context(&r);
        const size_t live = live_bytes;
        size_t pages = 0;
        for (size_t i = 0; i < WARM + ROUNDS; i++) {
            open_model(&r, model_path(m));
            open_session(&r, TERN_KV_F16);
            infer(&r, i, 2);
            close_session(&r);
            tern_model_destroy(r.model);
            assert_int_equal(live_bytes, live);
            if (i + 1 == WARM) pages = resident_pages();
        }
        expect_no_growth(pages, "100 models", model_path(m));
        tern_context_destroy(r.ctx);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_tokens_allocate_nothing_and_do_not_grow_the_process),
        cmocka_unit_test(sessions_that_come_and_go_leave_nothing),
        cmocka_unit_test(models_that_come_and_go_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
