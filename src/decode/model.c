// SPDX-License-Identifier: MIT
// Loads a model: hyperparameters, tokenizer, packed matrices, norms, work buffers.
#include "decode/model.h"

#include <string.h>

#include "decode/head.h"

// Carves count elements of size bytes out of the model's one work allocation; the first pass (base NULL) only counts.
static void *carve(unsigned char *base, size_t *used, size_t count, size_t size) {
    void *p = base ? base + *used : NULL;
    *used += tern_round_up(count * size, TERN_CACHE_LINE);
    return p;
}

static size_t carve_buffers(const tern_model *m, tern_buffers *b, unsigned char *base) {
    const tern_hyper *h = &m->hyper;
    const size_t tokens = TERN_BATCH_TOKENS, f = sizeof(float);
    size_t used = 0;
    b->x = carve(base, &used, tokens * h->n_embd, f);
    b->h = carve(base, &used, tokens * h->n_embd, f);
    b->q = carve(base, &used, tokens * tern_q_width(h), f);
    b->k = carve(base, &used, tokens * tern_kv_width(h), f);
    b->v = carve(base, &used, tokens * tern_kv_width(h), f);
    b->att = carve(base, &used, tokens * tern_q_width(h), f);
    b->gate = carve(base, &used, tokens * h->n_ff, f);
    b->up = carve(base, &used, tokens * h->n_ff, f);
    b->cos_sin = carve(base, &used, tokens * h->rope.dim, f);
    b->logits = carve(base, &used, (size_t)TERN_HEAD_ROWS * h->n_vocab, f);
    b->head_rows = carve(base, &used, tern_head_scratch(m), f);
    b->rows = carve(base, &used, tokens, sizeof *b->rows);
    b->stages = carve(base, &used, TERN_FORWARD_STAGES, sizeof *b->stages);
    b->stage_args = carve(base, &used, TERN_FORWARD_ARG_BYTES, 1);
    return used;
}

static tern_status make_buffers(tern_loader *ld) {
    tern_model *m = ld->m;
    const tern_hyper *h = &m->hyper;
    m->buf_bytes = carve_buffers(m, &m->buf, NULL);
    m->buf_memory = tern_alloc(&ld->ctx->allocator, m->buf_bytes, 1);
    if (!m->buf_memory)
        return tern_fail(&ld->ctx->error, TERN_ERR_MEMORY, "out of memory for %zu bytes of work buffers", m->buf_bytes);
    carve_buffers(m, &m->buf, m->buf_memory);
    size_t widest = h->n_ff > h->n_embd ? h->n_ff : h->n_embd;
    if (tern_q_width(h) > widest) widest = tern_q_width(h);
    return tern_activations_create(ld->ctx, &m->act, TERN_BATCH_TOKENS, widest);
}

static char *copy_string(const tern_context *ctx, const tern_gguf *gguf, const char *key, size_t *size) {
    tern_gguf_string s = {"", 0};
    tern_gguf_get_string(gguf, key, &s);
    *size = s.size + 1;
    char *text = tern_alloc(&ctx->allocator, *size, 1);
    if (text) memcpy(text, s.data, s.size);
    return text;
}

static tern_status load_all(tern_loader *ld, const char *path) {
    tern_context *ctx = ld->ctx;
    tern_model *m = ld->m;
    tern_status status = tern_gguf_open(&m->gguf, path, &ctx->allocator, &ctx->error);
    uint64_t parts = 1;
    if (status == TERN_OK && tern_gguf_get_u64(m->gguf, "split.count", &parts) && parts > 1)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED,
                         "%s is one of %llu parts of a model; join them with llama-gguf-split --merge", path,
                         (unsigned long long)parts);
    if (status == TERN_OK) status = tern_hyper_read(&m->hyper, m->gguf, &ctx->error);
    if (status == TERN_OK) status = tern_tokenizer_create(&m->tokenizer, m->gguf, &ctx->allocator, &ctx->error);
    if (status != TERN_OK) return status;
    tern_hyper *h = &m->hyper;
    h->n_vocab = (uint32_t)tern_tokenizer_vocab(m->tokenizer);
    m->architecture = copy_string(ctx, m->gguf, "general.architecture", &m->arch_size);
    m->name = copy_string(ctx, m->gguf, "general.name", &m->name_size);
    m->layers = tern_alloc(&ctx->allocator, h->n_layers, sizeof *m->layers);
    m->n_floats = tern_loader_floats(h);
    m->floats = tern_alloc(&ctx->allocator, m->n_floats, sizeof *m->floats);
    if (!m->architecture || !m->name || !m->layers || !m->floats)
        return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");

    status = tern_load_check_names(ld);
    if (status == TERN_OK) status = tern_load_embedding(ld);
    if (status == TERN_OK) status = tern_load_layers(ld);
    if (status == TERN_OK) status = tern_load_head(ld);
    if (status == TERN_OK) status = tern_load_rope(ld);
    if (status == TERN_OK) status = make_buffers(ld);
    return status;
}

tern_status tern_model_load(tern_context *ctx, tern_model **model, const char *path, const tern_model_params *params) {
    if (!ctx) return TERN_ERR_ARG;
    if (!model || !path) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_model_load needs an output and a path");
    tern_model_params p;
    tern_status status = tern_params_read(&p, sizeof p, params, "tern_model_params", &ctx->error);
    if (status != TERN_OK) return status;
    if (p.head > TERN_HEAD_INT4) return tern_fail(&ctx->error, TERN_ERR_ARG, "unknown tern_head_form %d", (int)p.head);
    tern_model *m = tern_alloc(&ctx->allocator, 1, sizeof *m);
    if (!m) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");
    m->ctx = ctx;
    m->weight_memory.parent = &ctx->allocator;
    m->weight_allocator = tern_arena_allocator(&m->weight_memory);
    tern_loader ld = {.ctx = ctx, .m = m, .params = &p};
    status = load_all(&ld, path);
    if (status != TERN_OK) {
        tern_model_destroy(m);
        return status;
    }
    *model = m;
    return TERN_OK;
}

void tern_model_destroy(tern_model *m) {
    if (!m) return;
    const tern_allocator *allocator = &m->ctx->allocator;
    tern_activations_destroy(m->act);
    tern_free(allocator, m->buf_memory, m->buf_bytes, 1);
    tern_arena_release(&m->weight_memory); // the matrices of all layers and the head
    tern_free(allocator, m->layers, m->hyper.n_layers, sizeof *m->layers);
    tern_free(allocator, m->floats, m->n_floats, sizeof *m->floats);
    tern_free(allocator, m->architecture, m->arch_size, 1);
    tern_free(allocator, m->name, m->name_size, 1);
    tern_tokenizer_destroy(m->tokenizer);
    tern_gguf_close(m->gguf);
    tern_free(allocator, m, 1, sizeof *m);
}
