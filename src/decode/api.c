// SPDX-License-Identifier: MIT
// Public facts of a model, its tokens and its chat template.
#include <string.h>

#include "decode/model.h"

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
                                  .file_bytes = tern_gguf_file_size(m->gguf),
                                  .bytes_per_token = m->bytes_per_token,
                                  .bits_per_weight = (double)m->bytes_per_token * 8 / m->packed_weights,
                                  .n_ternary = m->n_ternary,
                                  .n_int8 = m->n_int8,
                                  .head = m->head.layout,
                                  .head_bytes = m->head.bytes};
    return tern_info_write(info, &full, sizeof full, "tern_model_info", NULL);
}

tern_status tern_model_get_tensor(const tern_model *m, size_t index, tern_tensor_info *info) {
    if (!m || index >= tern_gguf_tensor_count(m->gguf)) return TERN_ERR_ARG;
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

// ---- ChatML -------------------------------------------------------------------------------------------------

static const char im_start[] = "<|im_start|>", im_end[] = "<|im_end|>", system_role[] = "<|im_start|>system";

// The system message that a ChatML template itself writes when none is given (SmolLM2 and Qwen2 have one as a plain literal).
static tern_gguf_string default_system(const tern_gguf_string *template) {
    tern_gguf_string none = {"", 0};
    const char *role = memmem(template->data, template->size, system_role, sizeof system_role - 1);
    if (!role) return none;
    const char *end_of_template = template->data + template->size;
    const char *text = role + sizeof system_role - 1;
    if (text < end_of_template && *text == '\n')
        text++;
    else if (end_of_template - text >= 2 && text[0] == '\\' && text[1] == 'n')
        text += 2;
    else
        return none;
    const char *end = memmem(text, (size_t)(end_of_template - text), im_end, sizeof im_end - 1);
    if (!end) return none;
    const size_t size = (size_t)(end - text);
    if (memchr(text, '\'', size) || memchr(text, '"', size) || memchr(text, '{', size)) return none; // computed, not a literal
    return (tern_gguf_string){text, size};
}

static tern_gguf_string text_of(const char *text) { return (tern_gguf_string){text, strlen(text)}; }

tern_status tern_chat_prompt(const tern_model *m, const char *system, const char *user, char *out, size_t out_size,
                             size_t *size) {
    if (!m || !user || !size || (!out && out_size)) return TERN_ERR_ARG;
    tern_gguf_string template;
    if (!tern_gguf_get_string(m->gguf, "tokenizer.chat_template", &template) ||
        !memmem(template.data, template.size, im_start, sizeof im_start - 1) || tern_tokenizer_find(m->tokenizer, im_start) < 0)
        return TERN_ERR_UNSUPPORTED;
    const tern_gguf_string sys = system ? text_of(system) : default_system(&template);
    const tern_gguf_string parts[] = {text_of(sys.size ? "<|im_start|>system\n" : ""),
                                      sys,
                                      text_of(sys.size ? "<|im_end|>\n" : ""),
                                      text_of("<|im_start|>user\n"),
                                      text_of(user),
                                      text_of("<|im_end|>\n<|im_start|>assistant\n")};
    size_t need = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) need += parts[i].size; // all lie in memory, so this cannot wrap
    *size = need;
    if (need >= out_size) return TERN_ERR_ARG;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        memcpy(out, parts[i].data, parts[i].size);
        out += parts[i].size;
    }
    *out = '\0';
    return TERN_OK;
}
