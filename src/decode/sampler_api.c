// SPDX-License-Identifier: MIT
// The public sampler: the sampling of sample.h over the logits of a session.
#include "decode/model.h"
#include "decode/sample.h"
#include "matmul/context.h"

struct tern_sampler {
    tern_sample_state state;
    tern_context *ctx;
};

tern_status tern_sampler_create(tern_model *model, tern_sampler **out, const tern_sampler_params *params) {
    if (!model) return TERN_ERR_ARG;
    tern_context *ctx = model->ctx;
    if (!out) return tern_fail(&ctx->error, TERN_ERR_ARG, "sampler is NULL");
    tern_sampler_params given;
    tern_status status = tern_params_read(&given, sizeof given, params, "tern_sampler_params", &ctx->error);
    if (status != TERN_OK) return status;
    tern_sampler *sampler = tern_alloc(&ctx->allocator, 1, sizeof *sampler);
    if (!sampler) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "no memory for a sampler");
    sampler->ctx = ctx;
    status = tern_sample_init(&sampler->state, &given, model->hyper.n_vocab, &ctx->allocator, &ctx->error);
    if (status != TERN_OK) {
        tern_sampler_destroy(sampler);
        return status;
    }
    *out = sampler;
    return TERN_OK;
}

void tern_sampler_destroy(tern_sampler *sampler) {
    if (!sampler) return;
    tern_sample_free(&sampler->state);
    tern_free(&sampler->ctx->allocator, sampler, 1, sizeof *sampler);
}

tern_status tern_sampler_accept(tern_sampler *sampler, const int32_t tokens[], size_t n) {
    if (!sampler) return TERN_ERR_ARG;
    tern_error *err = &sampler->ctx->error;
    if (!tokens && n) return tern_fail(err, TERN_ERR_ARG, "tokens is NULL");
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= sampler->state.n_vocab)
            return tern_fail(err, TERN_ERR_ARG, "token %zu is %d; the vocabulary has tokens 0..%zu", i, tokens[i],
                             sampler->state.n_vocab - 1);
    }
    tern_sample_accept(&sampler->state, tokens, n);
    return TERN_OK;
}

void tern_sampler_forget(tern_sampler *sampler) {
    if (sampler) tern_sample_forget(&sampler->state);
}

tern_status tern_sample_logits(tern_sampler *sampler, const float *logits, int32_t *token) {
    if (!sampler) return TERN_ERR_ARG;
    tern_error *err = &sampler->ctx->error;
    if (!logits || !token) return tern_fail(err, TERN_ERR_ARG, "%s is NULL", logits ? "token" : "logits");
    const int32_t id = tern_sample_next(&sampler->state, logits);
    if (id < 0) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "the model computed no usable logits (NaN or infinite); its weights are damaged");
    }
    *token = id;
    return TERN_OK;
}

tern_status tern_sample(tern_sampler *sampler, const tern_session *session, int32_t *token) {
    if (!sampler) return TERN_ERR_ARG;
    tern_error *err = &sampler->ctx->error;
    if (!session || !token) return tern_fail(err, TERN_ERR_ARG, "%s is NULL", session ? "token" : "session");
    if (session->model->hyper.n_vocab != sampler->state.n_vocab) {
        return tern_fail(err, TERN_ERR_ARG,
                         "the sampler was made for %zu tokens, the session's model has %u; create one for it",
                         sampler->state.n_vocab, session->model->hyper.n_vocab);
    }
    const float *logits = tern_session_logits(session);
    if (!logits) return tern_fail(err, TERN_ERR_STATE, "the session has no logits yet; call tern_decode_batch first");
    return tern_sample_logits(sampler, logits, token);
}
