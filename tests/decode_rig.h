// SPDX-License-Identifier: MIT
// A model in a context of its own and sessions of it, for tests of what sessions hold. Include after cmocka.h.
#ifndef TERN_TESTS_DECODE_RIG_H
#define TERN_TESTS_DECODE_RIG_H

#include "tern/decode.h"

enum { RIG_SESSIONS = 19, RIG_BATCH = 320, N_MODELS = 2 };
static const char *const models[N_MODELS] = {TERN_TEST_MODELS "/tiny-tq2_0.gguf", TERN_TEST_MODELS "/tiny-gqa-q8_0.gguf"};

typedef struct rig {
    tern_context *ctx;
    tern_model *model;
    size_t n_vocab;
    tern_session *sessions[RIG_SESSIONS]; // those that the test makes; rig_close destroys them
} rig;

static inline tern_session *new_session(tern_model *model, tern_kv_type kv, size_t n_ctx) {
    const tern_session_params params = {.struct_size = sizeof params, .n_ctx = n_ctx, .kv = kv};
    tern_session *s = NULL;
    assert_int_equal(tern_session_create(model, &s, &params), TERN_OK);
    return s;
}

static inline void rig_open(rig *r, const char *file, int threads) {
    *r = (rig){0};
    const tern_context_params params = {.struct_size = sizeof params, .threads = threads};
    assert_int_equal(tern_context_create(&r->ctx, &params), TERN_OK);
    if (tern_model_load(r->ctx, &r->model, file, NULL) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
    tern_model_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_model_get_info(r->model, &info), TERN_OK);
    r->n_vocab = info.n_vocab;
}

static inline void rig_close(rig *r) {
    for (size_t i = 0; i < RIG_SESSIONS; i++) tern_session_destroy(r->sessions[i]);
    tern_model_destroy(r->model);
    tern_context_destroy(r->ctx);
}

// Token i of one of many texts.
static inline int32_t token_at(const rig *r, size_t text, size_t i) {
    return (int32_t)((text * 104729 + i * 7919 + 13) % r->n_vocab);
}

// The next n <= RIG_BATCH tokens of a text, behind what the session holds.
static inline void append(rig *r, tern_session *s, size_t text, size_t n) {
    tern_session *sessions[RIG_BATCH];
    int32_t tokens[RIG_BATCH];
    for (size_t i = 0; i < n; i++) {
        sessions[i] = s;
        tokens[i] = token_at(r, text, tern_session_length(s) + i);
    }
    if (tern_decode_batch(r->model, sessions, tokens, n) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
}

#endif
