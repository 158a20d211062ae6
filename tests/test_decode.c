// SPDX-License-Identifier: MIT
// Decoding tiny models: the same bits on every tier, thread count and batching; no allocation and no growth per token; clean
// refusals.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counted_heap.h"
#include "tern/decode.h"
#include "tern/diagnostics.h"

// Models made by tools/make_model.py for the tests: one on the ternary path, one on the INT8 path.
static const char *const models[] = {TERN_TEST_MODELS "/tiny-tq2_0.gguf", TERN_TEST_MODELS "/tiny-gqa-q8_0.gguf"};
static const char *const tiers[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};
enum { N_MODELS = 2, N_TIERS = 5, PROMPT = 70, STEPS = 8, CTX = 128 };

// ---- helpers ---------------------------------------------------------------------------------------------------------

typedef struct rig {
    tern_context *ctx;
    tern_model *model;
    tern_session *session;
} rig;

static tern_session *new_session(tern_model *model, size_t n_ctx) {
    const tern_session_params sp = {.struct_size = sizeof sp, .n_ctx = n_ctx};
    tern_session *session = NULL;
    assert_int_equal(tern_session_create(model, &session, &sp), TERN_OK);
    return session;
}

static bool set_up(rig *r, const char *path, const char *tier, int threads, tern_form form) {
    const tern_context_params cp = {.struct_size = sizeof cp, .threads = threads, .isa = tier, .allocator = &counted};
    const tern_status status = tern_context_create(&r->ctx, &cp);
    if (status == TERN_ERR_CPU) return false; // this CPU has fewer tiers
    assert_int_equal(status, TERN_OK);
    const tern_model_params mp = {.struct_size = sizeof mp, .form = form};
    if (tern_model_load(r->ctx, &r->model, path, &mp) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
    r->session = new_session(r->model, CTX);
    return true;
}

static void tear_down(rig *r) {
    tern_session_destroy(r->session);
    tern_model_destroy(r->model);
    tern_context_destroy(r->ctx);
}

static size_t vocab(const rig *r) {
    tern_model_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_model_get_info(r->model, &info), TERN_OK);
    return info.n_vocab;
}

static int32_t prompt_token(const rig *r, size_t i) { return (int32_t)((i * 7919 + 13) % vocab(r)); }

static void decode(rig *r, tern_session *s, const int32_t *tokens, size_t n) {
    tern_session *sessions[CTX];
    for (size_t i = 0; i < n; i++) sessions[i] = s;
    if (tern_decode_batch(r->model, sessions, tokens, n) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
}

static int32_t greedy(const rig *r, const tern_session *s) {
    const float *logits = tern_session_logits(s);
    assert_non_null(logits);
    int32_t best = 0;
    for (size_t i = 1; i < vocab(r); i++)
        if (logits[i] > logits[best]) best = (int32_t)i;
    return best;
}

// The logits after a prompt and STEPS greedy tokens, with the tokens.
static float *run(rig *r, int32_t tokens[STEPS]) {
    int32_t prompt[PROMPT];
    for (size_t i = 0; i < PROMPT; i++) prompt[i] = prompt_token(r, i);
    decode(r, r->session, prompt, PROMPT);
    for (size_t i = 0; i < STEPS; i++) {
        tokens[i] = greedy(r, r->session);
        decode(r, r->session, &tokens[i], 1);
    }
    float *copy = malloc(vocab(r) * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, tern_session_logits(r->session), vocab(r) * sizeof *copy);
    return copy;
}

// ---- tests -----------------------------------------------------------------------------------------------------------

static void logits_are_bit_identical_on_every_tier_thread_count_and_form(void **unused) {
    (void)unused;
    for (size_t m = 0; m < N_MODELS; m++) {
        float *want = NULL;
        int32_t want_tokens[STEPS];
        size_t rigs = 0;
        for (size_t t = 0; t < N_TIERS; t++)
            for (int threads = 1; threads <= 5; threads += threads == 1 ? 1 : 3)
                for (tern_form form = TERN_FORM_LUT; form <= TERN_FORM_MAD; form++) {
                    rig r = {0};
                    if (!set_up(&r, models[m], tiers[t], threads, form)) continue;
                    int32_t tokens[STEPS];
                    float *got = run(&r, tokens);
                    if (want) {
                        assert_memory_equal(tokens, want_tokens, sizeof tokens);
                        assert_memory_equal(got, want, vocab(&r) * sizeof *got);
                        free(got);
                    } else {
                        want = got;
                        memcpy(want_tokens, tokens, sizeof tokens);
                    }
                    tear_down(&r);
                    rigs++;
                }
        assert_true(rigs >= 6);
        free(want);
    }
}

static void a_prompt_at_once_token_by_token_and_interleaved_gives_the_same_bits(void **unused) {
    (void)unused;
    for (size_t m = 0; m < N_MODELS; m++) {
        rig r = {0};
        assert_true(set_up(&r, models[m], NULL, 2, TERN_FORM_AUTO));
        int32_t prompt[PROMPT];
        for (size_t i = 0; i < PROMPT; i++) prompt[i] = prompt_token(&r, i);
        const size_t bytes = vocab(&r) * sizeof(float);
        decode(&r, r.session, prompt, PROMPT);
        float *want = malloc(bytes);
        assert_non_null(want);
        memcpy(want, tern_session_logits(r.session), bytes);

        tern_session_reset(r.session);
        assert_null(tern_session_logits(r.session));
        for (size_t i = 0; i < PROMPT; i++) decode(&r, r.session, &prompt[i], 1);
        assert_memory_equal(tern_session_logits(r.session), want, bytes);

        // two sessions in one batch: one a token behind the other
        tern_session *other = new_session(r.model, CTX);
        tern_session_reset(r.session);
        decode(&r, r.session, prompt, 1);
        for (size_t i = 1; i < PROMPT; i++) {
            tern_session *const sessions[] = {other, r.session};
            const int32_t tokens[] = {prompt[i - 1], prompt[i]};
            assert_int_equal(tern_decode_batch(r.model, sessions, tokens, 2), TERN_OK);
        }
        decode(&r, other, &prompt[PROMPT - 1], 1);
        assert_memory_equal(tern_session_logits(r.session), want, bytes);
        assert_memory_equal(tern_session_logits(other), want, bytes);
        tern_session_destroy(other);
        free(want);
        tear_down(&r);
    }
}

static void a_thousand_tokens_allocate_nothing_and_do_not_grow_the_process(void **unused) {
    (void)unused;
    for (size_t m = 0; m < N_MODELS; m++) {
        rig r = {0};
        assert_true(set_up(&r, models[m], NULL, 2, TERN_FORM_LUT));
        tern_sampler *sampler = NULL;
        const tern_sampler_params sp = {.struct_size = sizeof sp, .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .seed = 1};
        assert_int_equal(tern_sampler_create(r.model, &sampler, &sp), TERN_OK);
        int32_t token = prompt_token(&r, 0);
        size_t pages = 0;
        for (size_t i = 0; i <= 1000; i++) {
            if (tern_session_length(r.session) == CTX) tern_session_reset(r.session);
            tern_session *const sessions[] = {r.session};
            assert_int_equal(tern_decode_batch(r.model, sessions, &token, 1), TERN_OK);
            assert_int_equal(tern_sample(sampler, r.session, &token), TERN_OK);
            if (i == CTX) pages = resident_pages(); // every page of the context has been met
            if (i == 0) {
                allocations = 0;
                counting = true;
            }
        }
        counting = false;
        assert_int_equal(allocations, 0);
#if !SANITIZED
        assert_true(resident_pages() <= pages + 16); // 64 KiB of slack for the C library's own bookkeeping
        void *volatile p = NULL;
        counting = true;
        p = malloc(1); // the hook sees the heap at all
        counting = false;
        free(p);
        assert_int_equal(allocations, 1);
#else
        assert_true(pages > 0);
#endif
        tern_sampler_destroy(sampler);
        tear_down(&r);
    }
}

static void a_full_context_is_refused_and_changes_nothing(void **unused) {
    (void)unused;
    rig r = {0};
    assert_true(set_up(&r, models[0], NULL, 1, TERN_FORM_AUTO));
    tern_session *small = new_session(r.model, 3);
    tern_session *const four[] = {small, small, small, small};
    const int32_t tokens[] = {1, 2, 3, 4};
    assert_int_equal(tern_decode_batch(r.model, four, tokens, 4), TERN_ERR_FULL);
    assert_int_equal(tern_session_length(small), 0);
    assert_null(tern_session_logits(small));
    assert_int_equal(tern_decode_batch(r.model, four, tokens, 3), TERN_OK);
    assert_int_equal(tern_session_length(small), 3);
    assert_int_equal(tern_decode_batch(r.model, four, tokens, 1), TERN_ERR_FULL);
    const int32_t outside[] = {(int32_t)vocab(&r)};
    assert_int_equal(tern_decode_batch(r.model, &r.session, outside, 1), TERN_ERR_ARG);
    const tern_session_params large = {.struct_size = sizeof large, .n_ctx = (size_t)1 << 40};
    assert_int_equal(tern_session_create(r.model, &small, &large), TERN_ERR_ARG);
    tern_session_destroy(small);
    tear_down(&r);
}

static void ternary_tensors_take_the_ternary_path_and_others_int8(void **unused) {
    (void)unused;
    for (size_t m = 0; m < N_MODELS; m++) {
        rig r = {0};
        assert_true(set_up(&r, models[m], NULL, 1, TERN_FORM_LUT));
        tern_model_info info = {.struct_size = sizeof info};
        assert_int_equal(tern_model_get_info(r.model, &info), TERN_OK);
        const size_t matrices = 7 * (size_t)info.n_layers;
        assert_int_equal(info.n_ternary, m == 0 ? matrices : 0);
        assert_int_equal(info.n_int8, m == 0 ? 1 : matrices + 1);
        assert_true(info.n_kv_heads < info.n_heads || m == 0);
        tear_down(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_bit_identical_on_every_tier_thread_count_and_form),
        cmocka_unit_test(a_prompt_at_once_token_by_token_and_interleaved_gives_the_same_bits),
        cmocka_unit_test(a_thousand_tokens_allocate_nothing_and_do_not_grow_the_process),
        cmocka_unit_test(a_full_context_is_refused_and_changes_nothing),
        cmocka_unit_test(ternary_tensors_take_the_ternary_path_and_others_int8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
