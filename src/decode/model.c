// SPDX-License-Identifier: MIT
// Loads a model: hyperparameters, tokenizer, packed matrices, norms, work buffers.
#include "decode/model.h"

#include <string.h>

#include "decode/head.h"
#include "decode/packed.h"
#include "decode/screen.h"

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
    b->q_codes = carve(base, &used, tokens * h->n_heads, tern_q_codes(h));
    b->q_scales = carve(base, &used, tokens * h->n_heads, f);
    b->q_sums = carve(base, &used, tokens * h->n_heads, sizeof *b->q_sums);
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

// ---- the file -----------------------------------------------------------------------------------------------------------

static const char *const head_names[] = {
    [TERN_HEAD_AUTO] = "auto", [TERN_HEAD_EXACT] = "exact", [TERN_HEAD_INT8] = "int8",
    [TERN_HEAD_INT4] = "int4", [TERN_HEAD_INT6] = "int6",   [TERN_HEAD_SCREENED] = "screened"};
enum { HEAD_FORMS = sizeof head_names / sizeof *head_names };

static bool is_act_block(size_t block) { return block == 0 || block == 32 || block == 64 || block == 128 || block == 256; }

// What is asked for is what was packed, or nothing was asked for.
static tern_status check_forms(const tern_loader *ld) {
    static const char *const form_names[] = {[TERN_FORM_AUTO] = "auto", [TERN_FORM_LUT] = "lut", [TERN_FORM_MAD] = "mad"};
    enum { FORMS = sizeof form_names / sizeof *form_names };
    const tern_packed *packed = ld->m->packed;
    const tern_packed_header *h = &packed->header;
    const tern_model_params *p = ld->params;
    if (h->head >= HEAD_FORMS || h->form >= FORMS)
        return tern_packed_refuse(ld->ctx, packed, TERN_ERR_FORMAT, "its header has a form that does not exist");
    if (p->head != TERN_HEAD_AUTO && (uint32_t)p->head != h->head)
        return tern_packed_refuse(ld->ctx, packed, TERN_ERR_UNSUPPORTED, "the head was packed as %s, and %s is asked for",
                                  head_names[h->head], head_names[p->head]);
    if (p->form != TERN_FORM_AUTO && (uint32_t)p->form != h->form)
        return tern_packed_refuse(ld->ctx, packed, TERN_ERR_UNSUPPORTED, "kernels %s were packed for, and %s are asked for",
                                  form_names[h->form], form_names[p->form]);
    if (!is_act_block(h->act_block))
        return tern_packed_refuse(ld->ctx, packed, TERN_ERR_FORMAT, "its header has blocks of activations that do not exist");
    if (p->act_block == 0 || p->act_block == h->act_block) return TERN_OK;
    if (h->act_block == 0)
        return tern_packed_refuse(ld->ctx, packed, TERN_ERR_UNSUPPORTED,
                                  "it was packed without blocks of activations, and act-block %zu is asked for", p->act_block);
    return tern_packed_refuse(ld->ctx, packed, TERN_ERR_UNSUPPORTED, "it was packed with act-block %u, and %zu is asked for",
                              (unsigned)h->act_block, p->act_block);
}

static tern_status open_packed(tern_loader *ld, const char *path) {
    tern_model *m = ld->m;
    const tern_packed_header *h = &m->packed->header;
    tern_status status = check_forms(ld);
    if (status != TERN_OK) return status;
    m->form = (tern_form)h->form;
    m->head_form = (tern_head_form)h->head;
    m->act_block = h->act_block;
    status = tern_gguf_open_bytes(&m->gguf, path, m->packed->map + h->gguf_offset, (size_t)h->gguf_bytes, &ld->ctx->allocator,
                                  &ld->ctx->error);
    if (status != TERN_OK) return status;
    m->packed->path = tern_gguf_path(m->gguf);
    return ld->params->load == TERN_LOAD_COPY ? tern_packed_reserve(ld->ctx, m->packed) : TERN_OK;
}

static tern_status open_file(tern_loader *ld, const char *path) {
    tern_context *ctx = ld->ctx;
    tern_model *m = ld->m;
    const tern_status status = tern_packed_open(ctx, &m->packed, path);
    if (status != TERN_OK) return status;
    if (m->packed) return open_packed(ld, path);
    m->form = ld->params->form;
    m->head_form = ld->params->head;
    m->act_block = ld->params->act_block;
    if (ld->params->load == TERN_LOAD_MAP)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED,
                         "%s is not a packed model, and only those are used where they are mapped; make one with tern pack",
                         path);
    return tern_gguf_open(&m->gguf, path, &ctx->allocator, &ctx->error);
}

// Weights lie over the file's data by now.
static tern_status read_data(tern_loader *ld) {
    tern_packed *packed = ld->m->packed;
    if (!packed) return TERN_OK;
    if (packed->memory) return tern_packed_copy(ld->ctx, packed, ld->params->progress, ld->params->progress_user);
    return tern_packed_touch(ld->ctx, packed);
}

static tern_status load_all(tern_loader *ld, const char *path) {
    tern_context *ctx = ld->ctx;
    tern_model *m = ld->m;
    tern_status status = open_file(ld, path);
    uint64_t parts = 1;
    if (status == TERN_OK && tern_gguf_get_u64(m->gguf, "split.count", &parts) && parts > 1)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED,
                         "%s is one of %llu parts of a model (key split.count); join them with llama-gguf-split --merge", path,
                         (unsigned long long)parts);
    if (status == TERN_OK) status = tern_hyper_read(&m->hyper, m->gguf, &ctx->error);
    if (status == TERN_OK) status = tern_tokenizer_create(&m->tokenizer, m->gguf, &ctx->allocator, &ctx->error);
    if (status != TERN_OK) return status;
    tern_hyper *h = &m->hyper;
    h->n_vocab = (uint32_t)tern_tokenizer_vocab(m->tokenizer);
    m->architecture = copy_string(ctx, m->gguf, "general.architecture", &m->arch_size);
    m->name = copy_string(ctx, m->gguf, "general.name", &m->name_size);
    m->layers = tern_alloc(&ctx->allocator, h->n_layers, sizeof *m->layers);
    m->n_floats = tern_loader_floats(m->gguf, h);
    m->floats = tern_alloc(&ctx->allocator, m->n_floats, sizeof *m->floats);
    if (!m->architecture || !m->name || !m->layers || !m->floats)
        return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");

    status = tern_load_check_names(ld);
    if (status == TERN_OK) status = tern_load_embedding(ld);
    if (status == TERN_OK) status = tern_load_layers(ld);
    if (status == TERN_OK) status = tern_load_head(ld);
    if (status == TERN_OK) status = tern_load_rope(ld);
    if (status == TERN_OK) status = read_data(ld);
    if (status == TERN_OK) status = make_buffers(ld);
    return status;
}

tern_status tern_model_load(tern_context *ctx, tern_model **model, const char *path, const tern_model_params *params) {
    if (!ctx) return TERN_ERR_ARG;
    if (!model || !path) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_model_load needs an output and a path");
    tern_model_params p;
    tern_status status = tern_params_read(&p, sizeof p, params, "tern_model_params", &ctx->error);
    if (status != TERN_OK) return status;
    if (p.head > TERN_HEAD_SCREENED) return tern_fail(&ctx->error, TERN_ERR_ARG, "unknown tern_head_form %d", (int)p.head);
    if (!is_act_block(p.act_block))
        return tern_fail(&ctx->error, TERN_ERR_ARG, "act_block = %zu is neither 0, 32, 64, 128 nor 256", p.act_block);
    if (p.load > TERN_LOAD_COPY) return tern_fail(&ctx->error, TERN_ERR_ARG, "unknown tern_load %d", (int)p.load);
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
    tern_screen_destroy(m->head.screen, allocator);
    tern_free(allocator, m->buf_memory, m->buf_bytes, 1);
    tern_arena_release(&m->weight_memory); // the matrices of all layers and the head
    tern_free(allocator, m->layers, m->hyper.n_layers, sizeof *m->layers);
    tern_free(allocator, m->head.order, m->hyper.n_embd, sizeof *m->head.order);
    tern_free(allocator, m->floats, m->n_floats, sizeof *m->floats);
    tern_free(allocator, m->architecture, m->arch_size, 1);
    tern_free(allocator, m->name, m->name_size, 1);
    tern_tokenizer_destroy(m->tokenizer);
    tern_gguf_close(m->gguf);
    tern_packed_close(m->packed);
    tern_free(allocator, m, 1, sizeof *m);
}
