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
        r->status = tern_fail(r->err, TERN_ERR_FORMAT, "%s: key %s is not a non-negative integer; convert the model again",
                              tern_gguf_path(r->gguf), full);
    else if (value == 0 || value > max)
        r->status = tern_fail(r->err, TERN_ERR_FORMAT, "%s: key %s is %soutside 1..%u; is this a complete %s model?",
                              tern_gguf_path(r->gguf), full, value ? "" : "missing or ", max, r->arch);
    else
        *out = (uint32_t)value;
}

static void read_float(reader *r, const char *key, float fallback, float *out) {
    if (r->status != TERN_OK) return;
    char full[128];
    snprintf(full, sizeof full, "%s.%s", r->arch, key);
    double value = fallback;
    if (!tern_gguf_get_f64(r->gguf, full, &value) && tern_gguf_has(r->gguf, full))
        r->status = tern_fail(r->err, TERN_ERR_FORMAT, "%s: key %s is not a number; convert the model again",
                              tern_gguf_path(r->gguf), full);
    else if (!((float)value > 0) || !isfinite((float)value))
        r->status = tern_fail(r->err, TERN_ERR_FORMAT, "%s: key %s must be a finite number above 0; convert the model again",
                              tern_gguf_path(r->gguf), full);
    else
        *out = (float)value;
}

// A key that may be absent: 0 is then what the caller means by that.
static void read_optional(reader *r, const char *key, float *out) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", r->arch, key);
    if (tern_gguf_has(r->gguf, full)) read_float(r, key, 0, out);
}

static bool same(const tern_gguf_string *s, const char *text) {
    return s->size == strlen(text) && memcmp(s->data, text, s->size) == 0;
}

// ---- rope -------------------------------------------------------------------------------------------------

// Without the key it is what else the file holds: converters of Phi-3 write LongRoPE's tensors only, and a factor alone is
// linear.
static tern_status read_scaling_kind(reader *r, tern_rope_kind *kind) {
    static const struct {
        const char *name;
        tern_rope_kind kind;
    } kinds[] = {
        {"none", TERN_ROPE_PLAIN}, {"linear", TERN_ROPE_LINEAR}, {"yarn", TERN_ROPE_YARN}, {"longrope", TERN_ROPE_LONGROPE}};
    char full[128];
    tern_gguf_string type;
    snprintf(full, sizeof full, "%s.rope.scaling.type", r->arch);
    *kind = tern_gguf_find_tensor(r->gguf, TERN_ROPE_LONG_FACTORS) ? TERN_ROPE_LONGROPE : TERN_ROPE_LINEAR;
    if (!tern_gguf_has(r->gguf, full)) return TERN_OK;
    if (!tern_gguf_get_string(r->gguf, full, &type))
        return tern_fail(r->err, TERN_ERR_FORMAT, "%s: key %s is not a string; convert the model again",
                         tern_gguf_path(r->gguf), full);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (same(&type, kinds[i].name)) {
            *kind = kinds[i].kind;
            return TERN_OK;
        }
    return tern_fail(r->err, TERN_ERR_UNSUPPORTED,
                     "%s: key %s is %.*s; known are none, linear, yarn and longrope (Llama 3's is a tensor, rope_freqs.weight)",
                     tern_gguf_path(r->gguf), full, type.size < 40 ? (int)type.size : 40, type.data);
}

static tern_status read_rope(reader *r, const tern_hyper *h, tern_rope_params *rope) {
    enum { BETA_FAST = 32, BETA_SLOW = 1 }; // of the YaRN paper
    *rope =
        (tern_rope_params){.dim = h->head_dim, .factor = 1, .attn_factor = 1, .beta_fast = BETA_FAST, .beta_slow = BETA_SLOW};
    const tern_status status = read_scaling_kind(r, &rope->kind);
    if (status != TERN_OK) return status;
    uint32_t original = h->n_ctx;
    read_u32(r, "rope.dimension_count", TERN_HEAD_DIM_MAX, &rope->dim);
    read_float(r, "rope.freq_base", 10000.0f, &rope->base);
    read_optional(r, "rope.scale_linear", &rope->factor); // as older files call it
    read_optional(r, "rope.scaling.factor", &rope->factor);
    read_u32(r, "rope.scaling.original_context_length", MAX_CTX, &original);
    read_optional(r, "rope.scaling.yarn_beta_fast", &rope->beta_fast);
    read_optional(r, "rope.scaling.yarn_beta_slow", &rope->beta_slow);
    rope->original_ctx = (float)original;
    if (rope->kind == TERN_ROPE_LONGROPE && original > 1 && h->n_ctx > original)
        rope->attn_factor = (float)sqrt(1 + log((double)h->n_ctx / original) / log((double)original));
    read_optional(r, "rope.scaling.attn_factor", &rope->attn_factor);
    if (r->status != TERN_OK) return r->status;
    if (rope->dim > h->head_dim || rope->dim % 2)
        return tern_fail(r->err, TERN_ERR_FORMAT,
                         "%s: key %s.rope.dimension_count = %u does not fit a head of %u; convert the model again",
                         tern_gguf_path(r->gguf), r->arch, rope->dim, h->head_dim);
    if (rope->base <= 1)
        return tern_fail(r->err, TERN_ERR_FORMAT,
                         "%s: key %s.rope.freq_base is %g, but rotations need more than 1; convert the model again",
                         tern_gguf_path(r->gguf), r->arch, (double)rope->base);
    return TERN_OK;
}

// ---- all --------------------------------------------------------------------------------------------------

static tern_status read_arch(reader *r, tern_hyper *h) {
    const char *path = tern_gguf_path(r->gguf);
    tern_gguf_string name;
    if (!tern_gguf_get_string(r->gguf, "general.architecture", &name))
        return tern_fail(r->err, TERN_ERR_FORMAT, "%s: key general.architecture is missing; is this a complete language model?",
                         path);
    h->arch = tern_arch_find(name.data, name.size);
    if (h->arch) {
        snprintf(r->arch, sizeof r->arch, "%s", h->arch->name);
        return TERN_OK;
    }
    char names[128];
    tern_arch_names(names, sizeof names);
    return tern_fail(r->err, TERN_ERR_UNSUPPORTED,
                     "%s: key general.architecture is %.*s, which is not supported; this version runs: %s", path,
                     name.size < 40 ? (int)name.size : 40, name.data, names);
}

static tern_status check_heads(const reader *r, const tern_hyper *h, uint32_t value_dim) {
    const char *path = tern_gguf_path(r->gguf);
    if (h->head_dim > TERN_HEAD_DIM_MAX)
        return tern_fail(r->err, TERN_ERR_UNSUPPORTED, "%s: heads of %u are longer than this version runs (%d)", path,
                         h->head_dim, TERN_HEAD_DIM_MAX);
    if (value_dim != h->head_dim)
        return tern_fail(r->err, TERN_ERR_UNSUPPORTED,
                         "%s: key %s.attention.value_length is %u, not the keys' %u, which this version does not run", path,
                         r->arch, value_dim, h->head_dim);
    if (h->n_heads % h->n_kv_heads)
        return tern_fail(r->err, TERN_ERR_FORMAT,
                         "%s: key %s.attention.head_count is %u, not a multiple of the %u key heads; convert the model again",
                         path, r->arch, h->n_heads, h->n_kv_heads);
    if (tern_q_width(h) > TERN_K_MAX)
        return tern_fail(r->err, TERN_ERR_UNSUPPORTED, "%s: %u heads of %u are wider than this version runs (%d)", path,
                         h->n_heads, h->head_dim, TERN_K_MAX);
    return TERN_OK;
}

tern_status tern_hyper_read(tern_hyper *h, const tern_gguf *gguf, tern_error *err) {
    reader r = {.gguf = gguf, .err = err, .status = TERN_OK};
    *h = (tern_hyper){0};
    tern_status status = read_arch(&r, h);
    if (status != TERN_OK) return status;
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
    read_float(&r, "attention.layer_norm_rms_epsilon", 0, &h->rms_eps);
    if (r.status == TERN_OK && h->rms_eps >= 1)
        r.status = tern_fail(err, TERN_ERR_FORMAT,
                             "%s: key %s.attention.layer_norm_rms_epsilon is %g, not below 1; convert the model again",
                             tern_gguf_path(gguf), r.arch, (double)h->rms_eps);
    if (r.status == TERN_OK) r.status = check_heads(&r, h, value_dim);
    if (r.status == TERN_OK) r.status = read_rope(&r, h, &h->rope);
    if (r.status != TERN_OK) return r.status;
    char experts[128];
    snprintf(experts, sizeof experts, "%s.expert_count", r.arch);
    if (tern_gguf_has(gguf, experts))
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: key %s tells of a mixture of experts, which this version does not run",
                         tern_gguf_path(gguf), experts);
    // A window of attention shorter than the context is not computed; within it all tokens see each other, as they should.
    char key[128];
    uint64_t window = 0;
    snprintf(key, sizeof key, "%s.attention.sliding_window", r.arch);
    if (!tern_gguf_get_u64(gguf, key, &window) && tern_gguf_has(gguf, key))
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: key %s is not one number; this version has no window for each layer",
                         tern_gguf_path(gguf), key);
    if (window > 0 && window < h->n_ctx) h->n_ctx = (uint32_t)window;
    return TERN_OK;
}
