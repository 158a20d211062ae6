// SPDX-License-Identifier: MIT
// Sessions and the one forward call over a batch of them.
#include "decode/model.h"

tern_status tern_session_create(tern_model *model, tern_session **out, size_t n_ctx) {
    if (!model) return TERN_ERR_ARG;
    tern_error *err = &model->ctx->error;
    if (!out) return tern_fail(err, TERN_ERR_ARG, "tern_session_create needs an output");
    if (n_ctx == 0 || n_ctx > model->hyper.n_ctx)
        return tern_fail(err, TERN_ERR_ARG, "a context of %zu tokens is outside 1..%u, what the model was trained for", n_ctx,
                         model->hyper.n_ctx);
    const tern_allocator *allocator = &model->ctx->allocator;
    tern_session *s = tern_alloc(allocator, 1, sizeof *s);
    if (!s) return tern_fail(err, TERN_ERR_MEMORY, "out of memory");
    s->model = model;
    s->n_ctx = n_ctx;
    size_t rows;
    if (tern_mul_size(n_ctx, model->hyper.n_layers, &rows) && tern_mul_size(rows, tern_kv_width(&model->hyper), &s->n_kv)) {
        s->keys = tern_alloc(allocator, s->n_kv, sizeof *s->keys);
        s->values = tern_alloc(allocator, s->n_kv, sizeof *s->values);
        s->logits = tern_alloc(allocator, model->hyper.n_vocab, sizeof *s->logits);
    }
    if (!s->keys || !s->values || !s->logits) {
        tern_session_destroy(s);
        return tern_fail(err, TERN_ERR_MEMORY, "out of memory for a context of %zu tokens; ask for a shorter one", n_ctx);
    }
    // Touched now, so that decoding neither grows the process nor meets page faults.
    enum { PAGE_FLOATS = 4096 / sizeof(float) };
    for (size_t i = 0; i < s->n_kv; i += PAGE_FLOATS) {
        ((volatile float *)s->keys)[i] = 0;
        ((volatile float *)s->values)[i] = 0;
    }
    for (size_t i = 0; i < model->hyper.n_vocab; i += PAGE_FLOATS) ((volatile float *)s->logits)[i] = 0;
    *out = s;
    return TERN_OK;
}

void tern_session_destroy(tern_session *s) {
    if (!s) return;
    const tern_allocator *allocator = &s->model->ctx->allocator;
    tern_free(allocator, s->keys, s->n_kv, sizeof *s->keys);
    tern_free(allocator, s->values, s->n_kv, sizeof *s->values);
    tern_free(allocator, s->logits, s->model->hyper.n_vocab, sizeof *s->logits);
    tern_free(allocator, s, 1, sizeof *s);
}

size_t tern_session_length(const tern_session *s) { return s ? s->length : 0; }

void tern_session_reset(tern_session *s) {
    if (!s) return;
    s->length = 0;
    s->has_logits = false;
}

const float *tern_session_logits(const tern_session *s) { return s && s->has_logits ? s->logits : NULL; }

// Nothing is decoded unless every token is valid and every session has room.
static tern_status check_batch(tern_model *model, tern_session *const sessions[], const int32_t tokens[], size_t n) {
    tern_error *err = &model->ctx->error;
    for (size_t i = 0; i < n; i++) {
        if (!sessions[i] || sessions[i]->model != model)
            return tern_fail(err, TERN_ERR_ARG, "sessions[%zu] is NULL or belongs to another model", i);
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= model->hyper.n_vocab)
            return tern_fail(err, TERN_ERR_ARG, "tokens[%zu] = %d is outside the vocabulary of %u", i, (int)tokens[i],
                             model->hyper.n_vocab);
    }
    for (size_t i = 0; i < n; i++) sessions[i]->pending = 0;
    for (size_t i = 0; i < n; i++) sessions[i]->pending++;
    for (size_t i = 0; i < n; i++)
        if (sessions[i]->pending > sessions[i]->n_ctx - sessions[i]->length)
            return tern_fail(err, TERN_ERR_FULL, "the context of %zu tokens has room for %zu more, not %zu", sessions[i]->n_ctx,
                             sessions[i]->n_ctx - sessions[i]->length, sessions[i]->pending);
    return TERN_OK;
}

tern_status tern_decode_batch(tern_model *model, tern_session *const sessions[], const int32_t tokens[], size_t n) {
    if (!model) return TERN_ERR_ARG;
    if (!sessions || !tokens || n == 0)
        return tern_fail(&model->ctx->error, TERN_ERR_ARG, "tern_decode_batch needs sessions, tokens and n >= 1");
    // An empty region: STATE, where none can run now, before a session or a buffer of the running one is touched.
    tern_status status = tern_context_run(model->ctx, NULL, 0);
    if (status == TERN_OK) status = check_batch(model, sessions, tokens, n);
    if (status != TERN_OK) return status;
    for (size_t start = 0; start < n; start += TERN_BATCH_TOKENS) {
        const size_t slice = n - start < TERN_BATCH_TOKENS ? n - start : TERN_BATCH_TOKENS;
        tern_row *rows = model->buf.rows;
        for (size_t i = 0; i < slice; i++) {
            tern_session *s = sessions[start + i];
            s->pending--;
            rows[i] = (tern_row){s, s->length++, tokens[start + i], s->pending == 0};
            s->has_logits |= rows[i].last;
        }
        status = tern_forward(model, slice);
        if (status != TERN_OK) { // the caches of these sessions are no longer what their lengths say
            for (size_t i = 0; i < n; i++) tern_session_reset(sessions[i]);
            return status;
        }
    }
    return TERN_OK;
}
