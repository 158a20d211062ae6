// SPDX-License-Identifier: MIT
// Copies what one session holds to another, so that several go on from one prompt.
#include <string.h>

#include "decode/model.h"

typedef struct copy_args {
    tern_session *to;
    const tern_session *from;
} copy_args;

// Tile = the keys and values of one layer and head.
static void copy_tile(void *arg, size_t tile) {
    const copy_args *a = arg;
    for (size_t i = 0; i < TERN_KV_PARTS; i++) {
        const tern_kv_part *to = &a->to->kv.parts[i], *from = &a->from->kv.parts[i];
        if (!from->data) continue;
        memcpy(to->data + tile * to->run_bytes, from->data + tile * from->run_bytes, tern_kv_used(from, a->from->length));
    }
}

// Keys are rotated by frequencies that may depend on the size of the context.
static bool same_rotation(const tern_session *a, const tern_session *b) {
    return (a->n_ctx > a->model->long_from) == (b->n_ctx > b->model->long_from);
}

tern_status tern_session_copy(tern_session *to, const tern_session *from) {
    if (!to || !from) return TERN_ERR_ARG;
    const tern_model *m = from->model;
    tern_error *err = &m->ctx->error;
    if (to->model != m) return tern_fail(err, TERN_ERR_ARG, "the sessions belong to two models");
    if (to == from) return TERN_OK;
    if (to->kv.type != from->kv.type)
        return tern_fail(err, TERN_ERR_ARG, "the sessions keep keys and values in two forms; create both with the same kv");
    if (to->n_ctx < from->length)
        return tern_fail(err, TERN_ERR_FULL, "the session holds %zu tokens, a context of %zu has no room for them",
                         from->length, to->n_ctx);
    if (!same_rotation(to, from))
        return tern_fail(err, TERN_ERR_ARG, "contexts of %zu and %zu tokens rotate their keys in two ways; make both alike",
                         to->n_ctx, from->n_ctx);
    const copy_args args = {to, from};
    const tern_stage stage = {copy_tile, (void *)&args, (size_t)m->hyper.n_layers * m->hyper.n_kv_heads, "copy session"};
    const tern_status status = tern_context_run(m->ctx, &stage, 1);
    if (status != TERN_OK) return status;
    memcpy(to->tokens, from->tokens, from->length * sizeof *to->tokens);
    to->length = from->length;
    to->restored = from->restored;
    to->has_logits = from->has_logits;
    if (from->has_logits) memcpy(to->logits, from->logits, m->hyper.n_vocab * sizeof *to->logits);
    return TERN_OK;
}
