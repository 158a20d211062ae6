// SPDX-License-Identifier: MIT
// Loads a model: hyperparameters, tokenizer, packed matrices, norms, work buffers.
#include "decode/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "matmul/build.h"

enum { TENSOR_NAME_MAX = 64 };

typedef struct loader {
    tern_context *ctx;
    tern_model *m;
    const tern_model_params *params;
    uint64_t done, total; // bytes of matrices packed
    size_t floats_used;
} loader;

// ---- tensors ----------------------------------------------------------------------------------------------

static tern_status find(const loader *ld, const char *name, uint32_t n_dims, uint64_t dim0, uint64_t dim1,
                        const tern_gguf_tensor **out) {
    const tern_gguf_tensor *t = tern_gguf_find_tensor(ld->m->gguf, name);
    const char *path = tern_gguf_path(ld->m->gguf);
    tern_error *err = &ld->ctx->error;
    if (!t) return tern_fail(err, TERN_ERR_FORMAT, "%s: tensor %s is missing; is this a complete llama model?", path, name);
    if (t->n_dims != n_dims || t->dims[0] != dim0 || (n_dims > 1 && t->dims[1] != dim1))
        return tern_fail(err, TERN_ERR_FORMAT, "%s: tensor %s is %llu x %llu, but the model's metadata asks for %llu x %llu",
                         path, name, (unsigned long long)t->dims[1], (unsigned long long)t->dims[0], (unsigned long long)dim1,
                         (unsigned long long)dim0);
    const tern_block_type *type;
    const tern_status status = tern_gguf_tensor_type(ld->m->gguf, t, &type, err);
    if (status != TERN_OK) return status;
    *out = t;
    return TERN_OK;
}

static void name_of(char name[TENSOR_NAME_MAX], size_t layer, const char *what) {
    snprintf(name, TENSOR_NAME_MAX, "blk.%zu.%s.weight", layer, what);
}

static tern_status load_matrix_tensor(loader *ld, const tern_gguf_tensor *t, size_t n, size_t k, tern_weights **out) {
    tern_model *m = ld->m;
    const tern_weights_params params = {
        .struct_size = sizeof params,
        .form = ld->params->form,
        // Each token reads every matrix: they stay in cache all together or not at all.
        .expect_cached = ld->total <= ld->ctx->topology.l3_bytes / 2,
    };
    tern_status status = tern_weights_from_blocks(ld->ctx, out, t->type, t->data, t->size, n, k, &params, &m->weight_allocator);
    if (status != TERN_OK) {
        tern_error cause = ld->ctx->error;
        return tern_fail(&ld->ctx->error, status == TERN_ERR_ARG ? TERN_ERR_FORMAT : status, "%s: tensor %.*s: %.300s",
                         tern_gguf_path(m->gguf), (int)t->name.size, t->name.data, cause.text);
    }
    tern_weights_info info = {.struct_size = sizeof info};
    status = tern_weights_get_info(ld->ctx, *out, &info);
    if (status != TERN_OK) return status;
    m->bytes_per_token += info.bytes;
    m->packed_weights += (double)n * (double)k;
    if ((*out)->ternary)
        m->n_ternary++;
    else
        m->n_int8++;
    ld->done += t->size;
    if (ld->params->progress) ld->params->progress(ld->params->progress_user, ld->done, ld->total);
    return TERN_OK;
}

static tern_status load_matrix(loader *ld, const char *name, size_t n, size_t k, tern_weights **out) {
    const tern_gguf_tensor *t = NULL;
    const tern_status status = find(ld, name, 2, k, n, &t);
    return status == TERN_OK ? load_matrix_tensor(ld, t, n, k, out) : status;
}

static tern_status load_vector(loader *ld, const char *name, size_t n, const float **out) {
    const tern_gguf_tensor *t = NULL;
    const tern_status status = find(ld, name, 1, n, 1, &t);
    if (status != TERN_OK) return status;
    float *to = ld->m->floats + ld->floats_used;
    tern_row_to_f32(tern_block_type_of(t->type, n, 1, t->size), to, t->data, 0, 1, n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(to[i]))
            return tern_fail(&ld->ctx->error, TERN_ERR_FORMAT, "%s: tensor %s holds a NaN or an infinity",
                             tern_gguf_path(ld->m->gguf), name);
    ld->floats_used += n;
    *out = to;
    return TERN_OK;
}

static tern_status load_layer(loader *ld, size_t l) {
    const tern_hyper *h = &ld->m->hyper;
    tern_layer *layer = &ld->m->layers[l];
    const size_t d = h->n_embd, q = tern_q_width(h), kv = tern_kv_width(h), ff = h->n_ff;
    const struct {
        const char *what;
        size_t n, k;
        tern_weights **out;
    } matrices[] = {{"attn_q", q, d, &layer->q},      {"attn_k", kv, d, &layer->k},      {"attn_v", kv, d, &layer->v},
                    {"attn_output", d, q, &layer->o}, {"ffn_gate", ff, d, &layer->gate}, {"ffn_up", ff, d, &layer->up},
                    {"ffn_down", d, ff, &layer->down}};
    char name[TENSOR_NAME_MAX];
    name_of(name, l, "attn_norm");
    tern_status status = load_vector(ld, name, d, &layer->attn_norm);
    if (status != TERN_OK) return status;
    name_of(name, l, "ffn_norm");
    status = load_vector(ld, name, d, &layer->ffn_norm);
    for (size_t i = 0; status == TERN_OK && i < sizeof matrices / sizeof *matrices; i++) {
        name_of(name, l, matrices[i].what);
        status = load_matrix(ld, name, matrices[i].n, matrices[i].k, matrices[i].out);
    }
    return status;
}

// Tensors that change the maths and that this forward does not apply must not be ignored.
static tern_status refuse_unknown(const loader *ld) {
    static const char *const known[] = {"attn_norm.weight", "ffn_norm.weight", "attn_q.weight",
                                        "attn_k.weight",    "attn_v.weight",   "attn_output.weight",
                                        "ffn_gate.weight",  "ffn_up.weight",   "ffn_down.weight"};
    const tern_gguf *gguf = ld->m->gguf;
    for (size_t i = 0; i < tern_gguf_tensor_count(gguf); i++) {
        const tern_gguf_string name = tern_gguf_tensor_at(gguf, i)->name;
        char text[TENSOR_NAME_MAX] = {0};
        if (name.size < sizeof text) memcpy(text, name.data, name.size);
        bool ok = !strcmp(text, "token_embd.weight") || !strcmp(text, "output_norm.weight") || !strcmp(text, "output.weight") ||
                  !strcmp(text, "rope_freqs.weight");
        size_t layer;
        int used = 0;
        if (sscanf(text, "blk.%zu.%n", &layer, &used) == 1 && used > 0 && layer < ld->m->hyper.n_layers)
            for (size_t k = 0; k < sizeof known / sizeof *known; k++) ok |= !strcmp(text + used, known[k]);
        if (!ok)
            return tern_fail(&ld->ctx->error, TERN_ERR_UNSUPPORTED,
                             "%s: tensor %.*s is not part of the llama architecture as this version computes it",
                             tern_gguf_path(gguf), (int)name.size, name.data);
    }
    return TERN_OK;
}

// ---- the rest ---------------------------------------------------------------------------------------------

static tern_status load_rope(loader *ld) {
    tern_model *m = ld->m;
    const tern_hyper *h = &m->hyper;
    const size_t pairs = h->rope_dim / 2;
    const float *factors = NULL;
    if (tern_gguf_find_tensor(m->gguf, "rope_freqs.weight")) {
        const tern_status status = load_vector(ld, "rope_freqs.weight", pairs, &factors);
        if (status != TERN_OK) return status;
    }
    m->rope_freq = m->floats + ld->floats_used;
    ld->floats_used += pairs;
    for (size_t i = 0; i < pairs; i++) {
        const double freq = pow((double)h->rope_base, -2.0 * (double)i / (double)h->rope_dim);
        m->rope_freq[i] = (float)(factors ? freq / (double)factors[i] : freq);
        if (!isfinite(m->rope_freq[i]))
            return tern_fail(&ld->ctx->error, TERN_ERR_FORMAT, "%s: tensor rope_freqs.weight holds a zero",
                             tern_gguf_path(m->gguf));
    }
    return TERN_OK;
}

// Carves count elements of size bytes out of the model's one work allocation; the first pass (base NULL) only counts.
static void *carve(unsigned char *base, size_t *used, size_t count, size_t size) {
    void *p = base ? base + *used : NULL;
    *used += tern_round_up(count * size, TERN_CACHE_LINE);
    return p;
}

static size_t carve_buffers(const tern_hyper *h, tern_buffers *b, unsigned char *base) {
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
    b->cos_sin = carve(base, &used, tokens * h->rope_dim, f);
    b->logits = carve(base, &used, (size_t)TERN_HEAD_ROWS * h->n_vocab, f);
    b->rows = carve(base, &used, tokens, sizeof *b->rows);
    b->stages = carve(base, &used, TERN_FORWARD_STAGES, sizeof *b->stages);
    b->stage_args = carve(base, &used, TERN_FORWARD_ARG_BYTES, 1);
    return used;
}

static tern_status make_buffers(loader *ld) {
    tern_model *m = ld->m;
    const tern_hyper *h = &m->hyper;
    m->buf_bytes = carve_buffers(h, &m->buf, NULL);
    m->buf_memory = tern_alloc(&ld->ctx->allocator, m->buf_bytes, 1);
    if (!m->buf_memory)
        return tern_fail(&ld->ctx->error, TERN_ERR_MEMORY, "out of memory for %zu bytes of work buffers", m->buf_bytes);
    carve_buffers(h, &m->buf, m->buf_memory);
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

static tern_status load_all(loader *ld, const char *path) {
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
    m->n_floats = (2 * (size_t)h->n_layers + 1) * h->n_embd + 2 * (size_t)h->rope_dim;
    m->floats = tern_alloc(&ctx->allocator, m->n_floats, sizeof *m->floats);
    if (!m->architecture || !m->name || !m->layers || !m->floats)
        return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");

    if ((status = refuse_unknown(ld)) != TERN_OK) return status;
    const size_t d = h->n_embd;
    if ((status = find(ld, "token_embd.weight", 2, d, h->n_vocab, &m->token_embd)) != TERN_OK) return status;
    m->embd_type = tern_block_type_of(m->token_embd->type, d, h->n_vocab, m->token_embd->size);
    const bool tied = !tern_gguf_find_tensor(m->gguf, "output.weight");
    for (size_t i = 0; i < tern_gguf_tensor_count(m->gguf); i++) {
        const tern_gguf_tensor *t = tern_gguf_tensor_at(m->gguf, i);
        m->n_params += t->dims[0] * t->dims[1];
        if (t->n_dims == 2 && (tied || t != m->token_embd)) ld->total += t->size;
    }
    for (size_t l = 0; l < h->n_layers; l++)
        if ((status = load_layer(ld, l)) != TERN_OK) return status;
    if ((status = load_vector(ld, "output_norm.weight", d, &m->output_norm)) != TERN_OK) return status;
    status = tied ? load_matrix_tensor(ld, m->token_embd, h->n_vocab, d, &m->head)
                  : load_matrix(ld, "output.weight", h->n_vocab, d, &m->head);
    if (status == TERN_OK) status = load_rope(ld);
    if (status == TERN_OK) status = make_buffers(ld);
    return status;
}

tern_status tern_model_load(tern_context *ctx, tern_model **model, const char *path, const tern_model_params *params) {
    if (!ctx) return TERN_ERR_ARG;
    if (!model || !path) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_model_load needs an output and a path");
    tern_model_params p;
    tern_status status = tern_params_read(&p, sizeof p, params, "tern_model_params", &ctx->error);
    if (status != TERN_OK) return status;
    tern_model *m = tern_alloc(&ctx->allocator, 1, sizeof *m);
    if (!m) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");
    m->ctx = ctx;
    m->weight_memory.parent = &ctx->allocator;
    m->weight_allocator = tern_arena_allocator(&m->weight_memory);
    loader ld = {.ctx = ctx, .m = m, .params = &p};
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
