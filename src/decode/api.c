// SPDX-License-Identifier: MIT
// Public facts of a model, its tokens, and the turns of a chat as tokens.
#include <string.h>

#include "decode/chat.h"
#include "decode/model.h"
#include "decode/packed.h"
#include "decode/screen.h"

tern_status tern_model_get_info(const tern_model *m, tern_model_info *info) {
    if (!m) return TERN_ERR_ARG;
    const tern_hyper *h = &m->hyper;
    const tern_model_info full = {.architecture = m->architecture,
                                  .name = m->name,
                                  .tokenizer = tern_tokenizer_name(m->tokenizer),
                                  .n_layers = h->n_layers,
                                  .n_embd = h->n_embd,
                                  .n_ff = h->n_ff,
                                  .n_heads = h->n_heads,
                                  .n_kv_heads = h->n_kv_heads,
                                  .head_dim = h->head_dim,
                                  .n_vocab = h->n_vocab,
                                  .n_ctx_train = h->n_ctx,
                                  .n_params = m->n_params,
                                  .file_bytes = m->packed ? m->packed->map_bytes : tern_gguf_file_size(m->gguf),
                                  .bytes_per_token = m->bytes_per_token,
                                  .bits_per_weight = (double)m->bytes_per_token * 8 / m->packed_weights,
                                  .n_ternary = m->n_ternary,
                                  .n_int8 = m->n_int8,
                                  .head = m->head.layout,
                                  .head_bytes = m->head.bytes,
                                  .packed_tier = m->packed ? m->packed->header.tier : NULL,
                                  .packed_threads = m->packed ? m->packed->header.threads : 0,
                                  .act_block = m->act_block};
    return tern_info_write(info, &full, sizeof full, "tern_model_info", NULL);
}

tern_status tern_model_get_screen(const tern_model *m, tern_screen_info *info) {
    if (!m) return TERN_ERR_ARG;
    if (!m->head.screen) return tern_fail(&m->ctx->error, TERN_ERR_UNSUPPORTED, "the head is not a screened one");
    const tern_screen_counts c = tern_screen_count(m->head.screen);
    const tern_screen_info full = {.tokens = c.tokens, .rows = c.rows, .bytes = c.bytes, .paused = c.paused};
    return tern_info_write(info, &full, sizeof full, "tern_screen_info", &m->ctx->error);
}

// Packed sections stand behind the tensors of the GGUF part; their types are layouts.
static tern_status get_section(const tern_model *m, size_t index, tern_tensor_info *info) {
    if (!m->packed || index >= m->packed->header.n_sections) return TERN_ERR_ARG;
    const tern_packed_section *s = &m->packed->sections[index];
    tern_layout layout = TERN_LAYOUT_NONE;
    char name[TERN_STORED_LAYOUT_MAX];
    memcpy(name, s->form.layout, sizeof name);
    name[sizeof name - 1] = '\0';
    const tern_tensor_info full = {.name = s->name,
                                   .name_size = strlen(s->name),
                                   .type = tern_layout_parse(name, &layout) ? tern_layout_name(layout) : "bytes",
                                   .n_dims = layout == TERN_LAYOUT_NONE ? 1 : 2,
                                   .dims = {layout == TERN_LAYOUT_NONE ? s->bytes : s->form.k, layout ? s->form.n : 1, 1, 1},
                                   .bytes = s->bytes};
    return tern_info_write(info, &full, sizeof full, "tern_tensor_info", NULL);
}

tern_status tern_model_get_tensor(const tern_model *m, size_t index, tern_tensor_info *info) {
    if (!m) return TERN_ERR_ARG;
    const size_t n_tensors = tern_gguf_tensor_count(m->gguf);
    if (index >= n_tensors) return get_section(m, index - n_tensors, info);
    const tern_gguf_tensor *t = tern_gguf_tensor_at(m->gguf, index);
    const tern_block_type *type = tern_block_type_find(t->type);
    tern_tensor_info full = {.name = t->name.data,
                             .name_size = t->name.size,
                             .type = type ? type->name : "unknown",
                             .n_dims = t->n_dims,
                             .bytes = t->size};
    memcpy(full.dims, t->dims, sizeof full.dims);
    return tern_info_write(info, &full, sizeof full, "tern_tensor_info", NULL);
}

tern_status tern_tokenize(const tern_model *m, const char *text, size_t size, const tern_tokenize_params *params,
                          int32_t *tokens, size_t max, size_t *n) {
    if (!m || (!text && size) || (!tokens && max) || !n) return TERN_ERR_ARG;
    tern_tokenize_params p;
    const tern_status status = tern_params_read(&p, sizeof p, params, "tern_tokenize_params", NULL);
    if (status != TERN_OK) return status;
    return tern_tokenizer_encode(m->tokenizer, text, size, p.parse_special != 0, p.add_bos != 0, tokens, max, n);
}

tern_status tern_token_bytes(const tern_model *m, int32_t token, int special, const char **bytes, size_t *size) {
    if (!m || !bytes || !size) return TERN_ERR_ARG;
    return tern_tokenizer_bytes(m->tokenizer, token, special != 0, bytes, size);
}

int tern_token_is_end(const tern_model *m, int32_t token) { return m && tern_tokenizer_is_end(m->tokenizer, token); }

// ---- Chat ---------------------------------------------------------------------------------------------------

const char *tern_chat_format_name(const tern_model *m) {
    const tern_chat_format *format = m ? tern_chat_find(m->gguf, m->tokenizer, NULL) : NULL;
    return format ? tern_chat_name(format) : NULL;
}

tern_status tern_chat_tokenize(const tern_model *m, const tern_chat_turn *turn, int32_t *tokens, size_t max, size_t *n) {
    if (!m || !turn || (!tokens && max) || !n) return TERN_ERR_ARG;
    tern_chat_turn t;
    const tern_status status = tern_params_read(&t, sizeof t, turn, "tern_chat_turn", NULL);
    if (status != TERN_OK) return status;
    if ((!t.user && t.user_size) || (!t.system && t.system_size)) return TERN_ERR_ARG;
    const tern_chat_format *format = tern_chat_find(m->gguf, m->tokenizer, t.format);
    if (!format) return TERN_ERR_UNSUPPORTED;
    tern_text_part parts[TERN_CHAT_PARTS];
    const size_t n_parts = tern_chat_parts(format, m->gguf, m->tokenizer, &t, parts);
    return tern_tokenizer_encode_parts(m->tokenizer, parts, n_parts, !t.follows, tokens, max, n);
}
