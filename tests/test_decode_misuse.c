// SPDX-License-Identifier: MIT
// The decode part where memory runs out at every point, where pointers are NULL, and where sessions are not what was asked for.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "failing_heap.h"
#include "tern/decode.h"

static const char path[] = TERN_TEST_MODELS "/tiny-tq2_0.gguf";
enum { CTX = 4, ALLOCATIONS_MAX = 2000 };
static const tern_session_params session_params = {.struct_size = sizeof session_params, .n_ctx = CTX};

// Load, a session, a sampler, one token.
static tern_status run(tern_context *ctx) {
    tern_model *model = NULL;
    tern_session *session = NULL;
    tern_sampler *sampler = NULL;
    const tern_logit_bias bias = {1, 1};
    const tern_sampler_params params = {
        .struct_size = sizeof params, .temperature = 1, .repeat_penalty = 2, .biases = &bias, .n_biases = 1};
    int32_t token = 1;
    tern_status status = tern_model_load(ctx, &model, path, NULL);
    if (status != TERN_OK) assert_null(model);
    if (status == TERN_OK) status = tern_session_create(model, &session, &session_params);
    if (status == TERN_OK) status = tern_sampler_create(model, &sampler, &params);
    if (status == TERN_OK) status = tern_decode_batch(model, &session, &token, 1);
    if (status == TERN_OK) status = tern_sample(sampler, session, &token);
    tern_sampler_destroy(sampler);
    tern_session_destroy(session);
    tern_model_destroy(model);
    return status;
}

static void every_allocation_of_a_model_may_fail_and_none_is_leaked(void **unused) {
    (void)unused;
    heap h = {.allowed = SIZE_MAX};
    tern_context *ctx = context_on(&h, 1);
    const size_t live = h.live, bytes = h.bytes;
    tern_status status = TERN_ERR_MEMORY;
    size_t allowed = 0;
    for (; status != TERN_OK; allowed++) {
        assert_in_range(allowed, 0, ALLOCATIONS_MAX);
        h.allowed = allowed;
        status = run(ctx);
        if (status != TERN_OK && status != TERN_ERR_MEMORY) fail_msg("status %d: %s", (int)status, tern_context_error(ctx));
        assert_int_equal(h.live, live);
        assert_int_equal(h.bytes, bytes);
    }
    assert_true(allowed > 50); // the failures did reach into the load
    h.allowed = SIZE_MAX;
    tern_context_destroy(ctx);
    assert_int_equal(h.live, 0);
    assert_false(h.wrong);
}

static void null_never_crashes(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    tern_session *session = NULL;
    tern_sampler *sampler = NULL;
    const int32_t token = 1;
    int32_t got;
    size_t n;
    const char *bytes;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    assert_int_equal(tern_model_load(NULL, &model, path, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_model_load(ctx, NULL, path, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_model_load(ctx, &model, NULL, NULL), TERN_ERR_ARG);
    assert_null(model);
    assert_int_equal(tern_model_load(ctx, &model, path, NULL), TERN_OK);
    assert_int_equal(tern_model_get_info(NULL, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_model_get_info(model, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_model_get_tensor(model, 0, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_model_get_tensor(model, SIZE_MAX, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_tokenize(NULL, "a", 1, NULL, &got, 1, &n), TERN_ERR_ARG);
    assert_int_equal(tern_tokenize(model, NULL, 1, NULL, &got, 1, &n), TERN_ERR_ARG);
    assert_int_equal(tern_tokenize(model, "a", 1, NULL, NULL, 1, &n), TERN_ERR_ARG);
    assert_int_equal(tern_tokenize(model, "a", 1, NULL, &got, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_token_bytes(NULL, 0, 0, &bytes, &n), TERN_ERR_ARG);
    assert_int_equal(tern_token_bytes(model, 0, 0, NULL, &n), TERN_ERR_ARG);
    assert_int_equal(tern_token_bytes(model, -1, 0, &bytes, &n), TERN_ERR_ARG);
    assert_int_equal(tern_token_bytes(model, INT32_MAX, 0, &bytes, &n), TERN_ERR_ARG);
    assert_int_equal(tern_token_is_end(NULL, 0), 0);
    assert_int_equal(tern_token_is_end(model, INT32_MIN), 0);
    const tern_chat_turn turn = {.struct_size = sizeof turn, .user = "a", .user_size = 1};
    const tern_chat_turn no_text = {.struct_size = sizeof turn, .user_size = 1}, no_size = {.user = "a", .user_size = 1};
    assert_null(tern_chat_format_name(NULL));
    assert_int_equal(tern_chat_tokenize(NULL, &turn, &got, 1, &n), TERN_ERR_ARG);
    assert_int_equal(tern_chat_tokenize(model, NULL, &got, 1, &n), TERN_ERR_ARG);
    assert_int_equal(tern_chat_tokenize(model, &no_text, &got, 1, &n), TERN_ERR_ARG);
    assert_int_equal(tern_chat_tokenize(model, &no_size, &got, 1, &n), TERN_ERR_ARG);
    assert_int_equal(tern_chat_tokenize(model, &turn, NULL, 1, &n), TERN_ERR_ARG);
    assert_int_equal(tern_chat_tokenize(model, &turn, &got, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_session_create(NULL, &session, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_session_create(model, NULL, NULL), TERN_ERR_ARG);
    tern_session_params sp = {.n_ctx = CTX};
    assert_int_equal(tern_session_create(model, &session, &sp), TERN_ERR_ARG); // of no size
    sp = (tern_session_params){.struct_size = sizeof sp, .n_ctx = SIZE_MAX};
    assert_int_equal(tern_session_create(model, &session, &sp), TERN_ERR_ARG);
    sp = (tern_session_params){.struct_size = sizeof sp, .n_ctx = CTX, .kv = (tern_kv_type)2};
    assert_int_equal(tern_session_create(model, &session, &sp), TERN_ERR_ARG);
    assert_null(session);
    assert_int_equal(tern_session_length(NULL), 0);
    tern_session_reset(NULL);
    assert_null(tern_session_logits(NULL));
    assert_int_equal(tern_decode_batch(NULL, &session, &token, 1), TERN_ERR_ARG);
    assert_int_equal(tern_decode_batch(model, NULL, &token, 1), TERN_ERR_ARG);
    assert_int_equal(tern_decode_batch(model, &session, &token, 1), TERN_ERR_ARG);
    assert_int_equal(tern_sampler_create(NULL, &sampler, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_sampler_create(model, NULL, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_sampler_create(model, &sampler, NULL), TERN_OK);
    assert_int_equal(tern_sample(NULL, session, &got), TERN_ERR_ARG);
    assert_int_equal(tern_sampler_accept(NULL, &token, 1), TERN_ERR_ARG);
    assert_int_equal(tern_sampler_accept(sampler, NULL, 1), TERN_ERR_ARG);
    assert_int_equal(tern_sampler_accept(sampler, (const int32_t[]){-1}, 1), TERN_ERR_ARG);
    assert_int_equal(tern_sampler_accept(sampler, (const int32_t[]){INT32_MAX}, 1), TERN_ERR_ARG);
    assert_int_equal(tern_sampler_accept(sampler, &token, 1), TERN_OK);
    tern_sampler_forget(NULL);
    assert_int_equal(tern_sample(sampler, NULL, &got), TERN_ERR_ARG);
    tern_sampler_destroy(NULL);
    tern_session_destroy(NULL);
    tern_model_destroy(NULL);
    tern_sampler_destroy(sampler);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
}

static void a_refused_batch_leaves_every_session_as_it_was(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    tern_model *model = NULL, *twin = NULL;
    tern_session *mine = NULL, *foreign = NULL;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    assert_int_equal(tern_model_load(ctx, &model, path, NULL), TERN_OK);
    assert_int_equal(tern_model_load(ctx, &twin, path, NULL), TERN_OK);
    assert_int_equal(tern_session_create(model, &mine, &session_params), TERN_OK);
    assert_int_equal(tern_session_create(twin, &foreign, &session_params), TERN_OK);
    int32_t tokens[CTX + 1] = {1, 2, 3, 4, 5};
    tern_session *twice[CTX + 1] = {mine, mine, mine, mine, mine};
    assert_int_equal(tern_decode_batch(model, twice, tokens, 1), TERN_OK);
    const float before = tern_session_logits(mine)[0];
    tern_session *mixed[2] = {mine, foreign};
    assert_int_equal(tern_decode_batch(model, mixed, tokens, 2), TERN_ERR_ARG);
    assert_int_equal(tern_decode_batch(model, twice, tokens, CTX), TERN_ERR_FULL);
    tokens[1] = -1;
    assert_int_equal(tern_decode_batch(model, twice, tokens, 2), TERN_ERR_ARG);
    tokens[1] = INT32_MAX;
    assert_int_equal(tern_decode_batch(model, twice, tokens, 2), TERN_ERR_ARG);
    assert_int_equal(tern_session_length(mine), 1);
    assert_int_equal(tern_session_length(foreign), 0);
    assert_null(tern_session_logits(foreign));
    assert_memory_equal(tern_session_logits(mine), &before, sizeof before);
    tokens[1] = 2;
    assert_int_equal(tern_decode_batch(model, twice, tokens, CTX - 1), TERN_OK);
    assert_int_equal(tern_session_length(mine), CTX);
    tern_session_destroy(mine);
    tern_session_destroy(foreign);
    tern_model_destroy(twin);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
}

static void a_turn_of_a_chat_is_written_whole_or_not_at_all(void **unused) {
    (void)unused;
    enum { ROOM = 256 };
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    int32_t tokens[ROOM];
    size_t n = 0, again = 0;
    const tern_chat_turn turn = {.struct_size = sizeof turn, .system = "S", .system_size = 1, .user = "U", .user_size = 1};
    tern_chat_turn other = turn;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    assert_int_equal(tern_model_load(ctx, &model, path, NULL), TERN_OK);
    assert_string_equal(tern_chat_format_name(model), "chatml");
    assert_int_equal(tern_chat_tokenize(model, &turn, NULL, 0, &n), TERN_ERR_ARG);
    assert_in_range(n, 6, ROOM); // with a special token at each end of three messages
    assert_int_equal(tern_chat_tokenize(model, &turn, tokens, n - 1, &again), TERN_ERR_ARG);
    assert_int_equal(again, n);
    assert_int_equal(tern_chat_tokenize(model, &turn, tokens, n, &again), TERN_OK);
    assert_int_equal(again, n);
    for (const char *const *name = (const char *const[]){"llama3", "phi3", "ChatML", "", NULL}; *name; name++) {
        other.format = *name; // unknown, or this vocabulary lacks its tokens
        assert_int_equal(tern_chat_tokenize(model, &other, tokens, ROOM, &n), TERN_ERR_UNSUPPORTED);
    }
    tern_model_destroy(model);
    tern_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_of_a_model_may_fail_and_none_is_leaked),
        cmocka_unit_test(null_never_crashes),
        cmocka_unit_test(a_refused_batch_leaves_every_session_as_it_was),
        cmocka_unit_test(a_turn_of_a_chat_is_written_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
