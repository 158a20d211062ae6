// SPDX-License-Identifier: MIT
// Hyperparameters from GGUF metadata, each checked before anything is sized by it.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "decode/model.h"

enum { MAX_LAYERS = 1024, MAX_WIDTH = TERN_K_MAX, MAX_HEADS = 1024, MAX_CTX = 1 << 24 };

typedef struct reader {
    const tern_gguf *gguf;
    char arch[64];
    tern_error *err;
    tern_status status;
} reader;

// Reads arch.key into *out, 1..max. When the key is absent *out keeps its default, or it is an error if that is 0.
static void read_u32(reader *r, const char *key, uint32_t max, uint32_t *out) {
    if (r->status != TERN_OK) return;
    char full[128];
    snprintf(full, sizeof full, "%s.%s", r->arch, key);
    uint64_t value = *out;
    if (!tern_gguf_get_u64(r->gguf, full, &value) && tern_gguf_has(r->gguf, full))
        r->status =
            tern_fail(r->err, TERN_ERR_FORMAT, "%s: key %s is not a non-negative integer", tern_gguf_path(r->gguf), full);
    else if (value == 0 || value > max)
        r->status = tern_fail(r->err, TERN_ERR_FORMAT, "%s: key %s is %s outside 1..%u; is this a complete %s model?",
                              tern_gguf_path(r->gguf), full, value ? "" : "missing or", max, r->arch);
    else
        *out = (uint32_t)value;
}

static void read_float(reader *r, const char *key, float fallback, float *out) {
    if (r->status != TERN_OK) return;
    char full[128];
    snprintf(full, sizeof full, "%s.%s", r->arch, key);
    double value = fallback;
    if (!tern_gguf_get_f64(r->gguf, full, &value) && tern_gguf_has(r->gguf, full))
        r->status = tern_fail(r->err, TERN_ERR_FORMAT, "%s: key %s is not a number", tern_gguf_path(r->gguf), full);
    else if (!(value > 0) || !isfinite(value))
        r->status = tern_fail(r->err, TERN_ERR_FORMAT, "%s: key %s must be above 0", tern_gguf_path(r->gguf), full);
    else
        *out = (float)value;
}

static bool is_none(const tern_gguf_string *s) { return s->size == 4 && memcmp(s->data, "none", 4) == 0; }

tern_status tern_hyper_read(tern_hyper *h, const tern_gguf *gguf, tern_error *err) {
    const char *path = tern_gguf_path(gguf);
    tern_gguf_string arch;
    if (!tern_gguf_get_string(gguf, "general.architecture", &arch))
        return tern_fail(err, TERN_ERR_FORMAT, "%s: key general.architecture is missing; is this a language model?", path);
    reader r = {.gguf = gguf, .err = err, .status = TERN_OK};
    snprintf(r.arch, sizeof r.arch, "%.*s", arch.size < sizeof r.arch ? (int)arch.size : (int)sizeof r.arch - 1, arch.data);
    if (strcmp(r.arch, "llama") != 0)
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: architecture %s is not supported; this version runs: llama", path,
                         r.arch);
    *h = (tern_hyper){0};
    read_u32(&r, "block_count", MAX_LAYERS, &h->n_layers);
    read_u32(&r, "embedding_length", MAX_WIDTH, &h->n_embd);
    read_u32(&r, "feed_forward_length", MAX_WIDTH, &h->n_ff);
    read_u32(&r, "attention.head_count", MAX_HEADS, &h->n_heads);
    h->n_kv_heads = h->n_heads;
    read_u32(&r, "attention.head_count_kv", MAX_HEADS, &h->n_kv_heads);
    read_u32(&r, "context_length", MAX_CTX, &h->n_ctx);
    if (r.status != TERN_OK) return r.status;
    h->head_dim = h->n_embd / h->n_heads;
    read_u32(&r, "attention.key_length", TERN_HEAD_DIM_MAX, &h->head_dim);
    uint32_t value_dim = h->head_dim;
    read_u32(&r, "attention.value_length", TERN_HEAD_DIM_MAX, &value_dim);
    h->rope_dim = h->head_dim;
    read_u32(&r, "rope.dimension_count", TERN_HEAD_DIM_MAX, &h->rope_dim);
    read_float(&r, "rope.freq_base", 10000.0f, &h->rope_base);
    read_float(&r, "attention.layer_norm_rms_epsilon", 0, &h->rms_eps);
    if (r.status != TERN_OK) return r.status;
    if (h->head_dim > TERN_HEAD_DIM_MAX)
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: head dimension %u is above %d", path, h->head_dim, TERN_HEAD_DIM_MAX);
    if (value_dim != h->head_dim)
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: keys (%u) and values (%u) of different length are not supported", path,
                         h->head_dim, value_dim);
    if (h->n_heads % h->n_kv_heads)
        return tern_fail(err, TERN_ERR_FORMAT, "%s: %u query heads are not a multiple of %u key heads", path, h->n_heads,
                         h->n_kv_heads);
    if (tern_q_width(h) > TERN_K_MAX)
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: %u heads of %u are wider than %d", path, h->n_heads, h->head_dim,
                         TERN_K_MAX);
    if (h->rope_dim > h->head_dim || h->rope_dim % 2)
        return tern_fail(err, TERN_ERR_FORMAT, "%s: key llama.rope.dimension_count = %u does not fit a head of %u", path,
                         h->rope_dim, h->head_dim);
    tern_gguf_string scaling;
    if (tern_gguf_get_string(gguf, "llama.rope.scaling.type", &scaling) && !is_none(&scaling))
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: rope scaling %.*s is not supported by this version", path,
                         (int)scaling.size, scaling.data);
    if (tern_gguf_has(gguf, "llama.expert_count"))
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: mixture-of-experts models are not supported by this version", path);
    return TERN_OK;
}
