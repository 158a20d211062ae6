// SPDX-License-Identifier: MIT
// Sessions and the one forward call over a batch of them.
#include <string.h>

#include "decode/model.h"

static void touch(void *memory, size_t bytes) {
    enum { PAGE = 4096 };
    for (size_t i = 0; i < bytes; i += PAGE) ((volatile unsigned char *)memory)[i] = 0;
}

tern_status tern_session_create(tern_model *model, tern_session **out, const tern_session_params *params) {
    if (!model) return TERN_ERR_ARG;
    tern_error *err = &model->ctx->error;
    if (!out) return tern_fail(err, TERN_ERR_ARG, "tern_session_create needs an output");
    tern_session_params p = {.struct_size = sizeof p};
    const tern_status status = tern_params_read(&p, sizeof p, params, "tern_session_params", err);
    if (status != TERN_OK) return status;
    const size_t n_ctx = p.n_ctx ? p.n_ctx : model->hyper.n_ctx;
    if (p.kv > TERN_KV_INT8) return tern_fail(err, TERN_ERR_ARG, "kv = %d is no tern_kv_type", (int)p.kv);
    if (n_ctx > model->hyper.n_ctx)
        return tern_fail(err, TERN_ERR_ARG, "a context of %zu tokens is outside 1..%u, what the model was trained for", n_ctx,
                         model->hyper.n_ctx);
    const tern_allocator *allocator = &model->ctx->allocator;
    tern_session *s = tern_alloc(allocator, 1, sizeof *s);
    if (!s) return tern_fail(err, TERN_ERR_MEMORY, "out of memory");
    s->model = model;
    s->n_ctx = n_ctx;
    tern_session_resume(s);
    const tern_hyper *h = &model->hyper;
    s->n_sums = tern_ceil_div(n_ctx, TERN_ATTN_BLOCK) * h->n_heads;
    const bool cached = tern_kv_create(&s->kv, allocator, p.kv, n_ctx, h->n_layers, h->n_kv_heads, h->head_dim);
    if (cached) {
        s->tokens = tern_alloc(allocator, n_ctx, sizeof *s->tokens);
        s->logits = tern_alloc(allocator, h->n_vocab, sizeof *s->logits);
        s->block_acc = tern_alloc(allocator, s->n_sums, h->head_dim * sizeof *s->block_acc);
        s->block_most = tern_alloc(allocator, s->n_sums, sizeof *s->block_most);
        s->block_total = tern_alloc(allocator, s->n_sums, sizeof *s->block_total);
    }
    if (!cached || !s->tokens || !s->logits || !s->block_acc || !s->block_most || !s->block_total) {
        tern_session_destroy(s);
        return tern_fail(err, TERN_ERR_MEMORY, "out of memory for a context of %zu tokens; ask for a shorter one", n_ctx);
    }
    // Touched now, so that decoding neither grows the process nor meets page faults.
    touch(s->tokens, n_ctx * sizeof *s->tokens);
    touch(s->logits, h->n_vocab * sizeof *s->logits);
    touch(s->block_acc, s->n_sums * h->head_dim * sizeof *s->block_acc);
    touch(s->block_most, s->n_sums * sizeof *s->block_most);
    touch(s->block_total, s->n_sums * sizeof *s->block_total);
    *out = s;
    return TERN_OK;
}

void tern_session_destroy(tern_session *s) {
    if (!s) return;
    const tern_allocator *allocator = &s->model->ctx->allocator;
    tern_kv_destroy(&s->kv, allocator);
    tern_free(allocator, s->tokens, s->n_ctx, sizeof *s->tokens);
    tern_free(allocator, s->logits, s->model->hyper.n_vocab, sizeof *s->logits);
    tern_free(allocator, s->block_acc, s->n_sums, s->model->hyper.head_dim * sizeof *s->block_acc);
    tern_free(allocator, s->block_most, s->n_sums, sizeof *s->block_most);
    tern_free(allocator, s->block_total, s->n_sums, sizeof *s->block_total);
    tern_free(allocator, s, 1, sizeof *s);
}

size_t tern_session_length(const tern_session *s) { return s ? s->length : 0; }

const int32_t *tern_session_tokens(const tern_session *s) { return s ? s->tokens : NULL; }

void tern_session_reset(tern_session *s) {
    if (!s) return;
    s->length = 0;
    s->has_logits = false;
    s->restored = false;
}

tern_status tern_session_truncate(tern_session *s, size_t length) {
    if (!s) return TERN_ERR_ARG;
    if (length > s->length)
        return tern_fail(&s->model->ctx->error, TERN_ERR_ARG, "the session holds %zu tokens, fewer than %zu", s->length,
                         length);
    s->length = length;
    s->restored &= length > 0;
    s->has_logits = false;
    return TERN_OK;
}

tern_status tern_session_set_top(tern_session *s, size_t top) {
    if (!s) return TERN_ERR_ARG;
    s->top = top;
    return TERN_OK;
}

const float *tern_session_logits(const tern_session *s) { return s && s->has_logits ? s->logits : NULL; }

// A batch: one session for all tokens, or one for each.
typedef struct batch {
    tern_session *const *sessions;
    size_t step; // 0: sessions[0] takes all
    const int32_t *tokens;
    size_t n;
    float *logits; // [n][ld]: those after each token; NULL: only those after the last of each session, in the session
    size_t ld;
} batch;

static tern_session *session_of(const batch *b, size_t i) { return b->sessions[i * b->step]; }

// Nothing is decoded unless every token is valid and every session has room.
static tern_status check_batch(tern_model *model, const batch *b) {
    const int32_t *tokens = b->tokens;
    const size_t n = b->n;
    tern_error *err = &model->ctx->error;
    for (size_t i = 0; i < n; i++) {
        if (!session_of(b, i) || session_of(b, i)->model != model)
            return tern_fail(err, TERN_ERR_ARG, "sessions[%zu] is NULL or belongs to another model", i);
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= model->hyper.n_vocab)
            return tern_fail(err, TERN_ERR_ARG, "tokens[%zu] = %d is outside the vocabulary of %u", i, (int)tokens[i],
                             model->hyper.n_vocab);
    }
    for (size_t i = 0; i < n; i++) {
        session_of(b, i)->pending = 0;
        session_of(b, i)->before = session_of(b, i)->length;
    }
    for (size_t i = 0; i < n; i++) session_of(b, i)->pending++;
    for (size_t i = 0; i < n; i++)
        if (session_of(b, i)->pending > session_of(b, i)->n_ctx - session_of(b, i)->length)
            return tern_fail(err, TERN_ERR_FULL, "the context of %zu tokens has room for %zu more, not %zu",
                             session_of(b, i)->n_ctx, session_of(b, i)->n_ctx - session_of(b, i)->length,
                             session_of(b, i)->pending);
    return TERN_OK;
}

// What a failed batch leaves of its sessions.
static void give_up(const batch *b, tern_status status) {
    for (size_t i = 0; i < b->n; i++) {
        tern_session *s = session_of(b, i);
        // Stopped: rows behind the old length mean nothing. Else the weights are damaged, and nobody knows what the cache
        // holds.
        s->length = status == TERN_ERR_CANCELLED ? s->before : 0;
        s->has_logits = false;
    }
}

static tern_status decode(tern_model *model, const batch *b) {
    // An empty region: STATE, where none can run now, before a session or a buffer of the running one is touched.
    tern_status status = tern_context_run(model->ctx, NULL, 0);
    if (status == TERN_OK) status = check_batch(model, b);
    if (status != TERN_OK) return status;
    for (size_t start = 0; start < b->n; start += TERN_BATCH_TOKENS) {
        const size_t slice = b->n - start < TERN_BATCH_TOKENS ? b->n - start : TERN_BATCH_TOKENS;
        tern_row *rows = model->buf.rows;
        for (size_t i = 0; i < slice; i++) {
            tern_session *s = session_of(b, start + i);
            float *last = --s->pending == 0 ? s->logits : NULL;
            s->tokens[s->length] = b->tokens[start + i];
            rows[i] = (tern_row){s, s->length++, b->tokens[start + i], b->logits ? b->logits + (start + i) * b->ld : last,
                                 b->logits ? 0 : s->top};
        }
        status = tern_forward(model, slice);
        if (status != TERN_OK) {
            give_up(b, status);
            return status;
        }
    }
    for (size_t i = 0; i < b->n; i++) session_of(b, i)->has_logits = true;
    return TERN_OK;
}

tern_status tern_decode_batch(tern_model *model, tern_session *const sessions[], const int32_t tokens[], size_t n) {
    if (!model) return TERN_ERR_ARG;
    if (!sessions || !tokens || n == 0)
        return tern_fail(&model->ctx->error, TERN_ERR_ARG, "tern_decode_batch needs sessions, tokens and n >= 1");
    const batch b = {.sessions = sessions, .step = 1, .tokens = tokens, .n = n};
    return decode(model, &b);
}

tern_status tern_decode_logits(tern_model *model, tern_session *session, const int32_t tokens[], size_t n, float *logits,
                               size_t ld) {
    if (!model) return TERN_ERR_ARG;
    const size_t vocab = model->hyper.n_vocab;
    if (!session || !tokens || n == 0 || !logits)
        return tern_fail(&model->ctx->error, TERN_ERR_ARG, "tern_decode_logits needs a session, tokens, n >= 1 and logits");
    if (ld < vocab)
        return tern_fail(&model->ctx->error, TERN_ERR_ARG, "ld = %zu is smaller than the vocabulary of %zu", ld, vocab);
    const batch b = {.sessions = &session, .tokens = tokens, .n = n, .logits = logits, .ld = ld};
    const tern_status status = decode(model, &b);
    if (status == TERN_OK) memcpy(session->logits, logits + (n - 1) * ld, vocab * sizeof *logits);
    return status;
}
