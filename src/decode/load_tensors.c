// SPDX-License-Identifier: MIT
// From the tensors of a file to packed matrices, norms and rotations, each name and shape checked.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "decode/head.h"
#include "decode/packed.h"
#include "decode/packing.h"

enum { TENSOR_NAME_MAX = 64 };

// ---- one tensor -------------------------------------------------------------------------------------------

static tern_status find(const tern_loader *ld, const char *name, uint32_t n_dims, uint64_t dim0, uint64_t dim1,
                        const tern_gguf_tensor **out) {
    const tern_gguf_tensor *t = tern_gguf_find_tensor(ld->m->gguf, name);
    const char *path = tern_gguf_path(ld->m->gguf);
    tern_error *err = &ld->ctx->error;
    if (!t)
        return tern_fail(err, TERN_ERR_FORMAT, "%s: tensor %s is missing; is this a complete %s model?", path, name,
                         ld->m->hyper.arch->name);
    if (t->n_dims != n_dims || t->dims[0] != dim0 || (n_dims > 1 && t->dims[1] != dim1))
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: tensor %s is %llu x %llu, but the model's metadata asks for %llu x %llu; convert the model again",
                         path, name, (unsigned long long)t->dims[1], (unsigned long long)t->dims[0], (unsigned long long)dim1,
                         (unsigned long long)dim0);
    const tern_block_type *type;
    const tern_status status = tern_gguf_tensor_type(ld->m->gguf, t, &type, err);
    if (status != TERN_OK) return status;
    *out = t;
    return TERN_OK;
}

static tern_status load_vector(tern_loader *ld, const char *name, size_t n, const float **out) {
    const tern_gguf_tensor *t = NULL;
    const tern_status status = find(ld, name, 1, n, 1, &t);
    if (status != TERN_OK) return status;
    float *to = ld->m->floats + ld->floats_used;
    tern_row_to_f32(tern_block_type_of(t->type, n, 1, t->size), to, t->data, 0, 1, n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(to[i]))
            return tern_fail(&ld->ctx->error, TERN_ERR_FORMAT,
                             "%s: tensor %s holds a NaN or an infinity; convert the model again", tern_gguf_path(ld->m->gguf),
                             name);
    ld->floats_used += n;
    *out = to;
    return TERN_OK;
}

// Leaves *out NULL if the file has no such tensor.
static tern_status load_optional(tern_loader *ld, const char *name, size_t n, const float **out) {
    return tern_gguf_find_tensor(ld->m->gguf, name) ? load_vector(ld, name, n, out) : TERN_OK;
}

static void count_weights(tern_model *m, const tern_weights *w) {
    m->bytes_per_token += tern_weights_bytes(w);
    m->packed_weights += (double)w->n * (double)w->k;
    if (w->ternary || w->four_level)
        m->n_ternary++;
    else
        m->n_int8++;
}

tern_status tern_load_packed(tern_loader *ld, const char *name, size_t n, size_t k, tern_weights **out) {
    tern_model *m = ld->m;
    const tern_status status = tern_packed_weights(ld->ctx, m->packed, name, n, k, &m->weight_allocator, out);
    if (status == TERN_OK) count_weights(m, *out);
    return status;
}

tern_status tern_load_rows(tern_loader *ld, const tern_gguf_tensor *t, const tern_rows *rows, tern_weights **out) {
    tern_model *m = ld->m;
    const tern_weights_params params = {
        .struct_size = sizeof params,
        .form = ld->params->form,
        .act_block = ld->params->act_block,
        .first_row = rows->first,
        .n_rows = rows->count,
        // Each token reads every matrix: they stay in cache all together or not at all.
        .expect_cached = ld->total <= ld->ctx->topology.l3_bytes / 2,
    };
    const tern_blocks blocks = {.ggml_type = t->type,
                                .data = t->data,
                                .size = t->size,
                                .n = rows->n,
                                .k = rows->k,
                                .in_file = true,
                                .order = rows->order};
    tern_status status = tern_weights_from_blocks(ld->ctx, out, &blocks, rows->recode, &params, &m->weight_allocator);
    if (status != TERN_OK) {
        tern_error cause = ld->ctx->error;
        const bool damaged = status == TERN_ERR_ARG || status == TERN_ERR_FORMAT;
        return tern_fail(&ld->ctx->error, damaged ? TERN_ERR_FORMAT : status, "%s: tensor %.*s: %.300s%s",
                         tern_gguf_path(m->gguf), (int)t->name.size, t->name.data, cause.text,
                         damaged ? "; convert the model again" : "");
    }
    count_weights(m, *out);
    tern_gguf_drop_pages(m->gguf, t); // else a model that is loaded counts twice
    ld->done += t->size / rows->n * rows->count;
    if (ld->params->progress) ld->params->progress(ld->params->progress_user, ld->done, ld->total);
    return TERN_OK;
}

// ---- layers -----------------------------------------------------------------------------------------------

// A projection as it lies in the file: in the rows first .. first + n - 1 of blk.N.TENSOR.weight, and those of .bias, if any.
typedef struct projection {
    tern_linear *to;
    const char *tensor;
    size_t rows, first, n, k;
} projection;

static void list_projections(projection p[TERN_PROJECTIONS], const tern_hyper *h, tern_layer *l) {
    const size_t d = h->n_embd, q = tern_q_width(h), kv = tern_kv_width(h), ff = h->n_ff, qkv = q + 2 * kv;
    const bool fused = h->arch->fused;
    const projection all[TERN_PROJECTIONS] = {
        fused ? (projection){&l->q, "attn_qkv", qkv, 0, q, d} : (projection){&l->q, "attn_q", q, 0, q, d},
        fused ? (projection){&l->k, "attn_qkv", qkv, q, kv, d} : (projection){&l->k, "attn_k", kv, 0, kv, d},
        fused ? (projection){&l->v, "attn_qkv", qkv, q + kv, kv, d} : (projection){&l->v, "attn_v", kv, 0, kv, d},
        {&l->o, "attn_output", d, 0, d, q},
        fused ? (projection){&l->gate, "ffn_up", 2 * ff, 0, ff, d} : (projection){&l->gate, "ffn_gate", ff, 0, ff, d},
        fused ? (projection){&l->up, "ffn_up", 2 * ff, ff, ff, d} : (projection){&l->up, "ffn_up", ff, 0, ff, d},
        {&l->down, "ffn_down", d, 0, d, ff},
    };
    memcpy(p, all, sizeof all);
}

static void name_of(char name[TENSOR_NAME_MAX], size_t layer, const char *what, const char *part) {
    snprintf(name, TENSOR_NAME_MAX, "blk.%zu.%s.%s", layer, what, part);
}

// Some converters keep the scale of a ternary matrix beside it, in a tensor of one element. The float is not kept.
static tern_status apply_scale(tern_loader *ld, const char *name, tern_weights *w) {
    const float *scale = NULL;
    const size_t used = ld->floats_used;
    const tern_status status = load_optional(ld, name, 1, &scale);
    ld->floats_used = used;
    if (status != TERN_OK || !scale || tern_weights_rescale(w, *scale)) return status;
    return tern_fail(&ld->ctx->error, TERN_ERR_UNSUPPORTED,
                     "%s: tensor %s scales a matrix that has scales of its own; convert the model with ternary types (TQ2_0)",
                     tern_gguf_path(ld->m->gguf), name);
}

void tern_projection_section(char *name, size_t layer, size_t part) {
    static const char *const parts[TERN_PROJECTIONS] = {"q", "k", "v", "o", "gate", "up", "down"};
    (void)snprintf(name, TERN_PACKED_NAME_MAX, "blk.%zu.%s", layer, parts[part]);
}

static tern_status load_matrix(tern_loader *ld, size_t layer, size_t part, const projection *p) {
    if (ld->m->packed) {
        char section[TERN_PACKED_NAME_MAX];
        tern_projection_section(section, layer, part);
        return tern_load_packed(ld, section, p->n, p->k, &p->to->w);
    }
    char name[TENSOR_NAME_MAX];
    const tern_gguf_tensor *t = NULL;
    name_of(name, layer, p->tensor, "weight");
    const tern_status status = find(ld, name, 2, p->k, p->rows, &t);
    if (status != TERN_OK) return status;
    const tern_rows rows = {.n = p->rows, .k = p->k, .first = p->first, .count = p->n};
    return tern_load_rows(ld, t, &rows, &p->to->w);
}

// Parts of one matrix share its bias. before: the projection listed before p, or NULL.
static tern_status load_bias(tern_loader *ld, size_t layer, const projection *p, const projection *before) {
    if (before && !strcmp(before->tensor, p->tensor)) {
        if (before->to->bias) p->to->bias = before->to->bias + (p->first - before->first);
        return TERN_OK;
    }
    char name[TENSOR_NAME_MAX];
    name_of(name, layer, p->tensor, "bias");
    return load_optional(ld, name, p->rows, &p->to->bias);
}

static tern_status load_projection(tern_loader *ld, size_t layer, const projection all[], size_t part) {
    const projection *p = &all[part];
    tern_status status = load_matrix(ld, layer, part, p);
    if (status == TERN_OK) status = load_bias(ld, layer, p, part ? p - 1 : NULL);
    if (status != TERN_OK || ld->m->packed) return status; // whose scales were multiplied when it was packed
    char name[TENSOR_NAME_MAX];
    name_of(name, layer, p->tensor, "scale");
    return apply_scale(ld, name, p->to->w);
}

// A norm of a layer; `wanted`: the architecture has it.
typedef struct norm {
    const float **to;
    const char *tensor;
    size_t n;
    bool wanted;
} norm;

static tern_status load_layer(tern_loader *ld, size_t layer) {
    const tern_hyper *h = &ld->m->hyper;
    tern_layer *l = &ld->m->layers[layer];
    const norm norms[] = {
        {&l->attn_norm, "attn_norm", h->n_embd, true},
        {&l->ffn_norm, "ffn_norm", h->n_embd, true},
        {&l->attn_sub_norm, "attn_sub_norm", tern_q_width(h), h->arch->sub_norms},
        {&l->ffn_sub_norm, "ffn_sub_norm", h->n_ff, h->arch->sub_norms},
        {&l->q_norm, "attn_q_norm", h->head_dim, h->arch->qk_norms},
        {&l->k_norm, "attn_k_norm", h->head_dim, h->arch->qk_norms},
    };
    tern_status status = TERN_OK;
    for (size_t i = 0; status == TERN_OK && i < sizeof norms / sizeof *norms; i++) {
        char name[TENSOR_NAME_MAX];
        name_of(name, layer, norms[i].tensor, "weight");
        if (norms[i].wanted) status = load_vector(ld, name, norms[i].n, norms[i].to);
    }
    projection projections[TERN_PROJECTIONS];
    list_projections(projections, h, l);
    for (size_t i = 0; status == TERN_OK && i < TERN_PROJECTIONS; i++) status = load_projection(ld, layer, projections, i);
    return status;
}

tern_status tern_load_layers(tern_loader *ld) {
    tern_status status = TERN_OK;
    for (size_t i = 0; status == TERN_OK && i < ld->m->hyper.n_layers; i++) status = load_layer(ld, i);
    return status;
}

size_t tern_loader_floats(const tern_gguf *gguf, const tern_hyper *h) {
    // Frequencies: half as many per table, and there are at most two. The last norm once more, in the order of the head.
    size_t floats = (size_t)h->rope.dim + h->n_embd;
    for (size_t i = 0; i < tern_gguf_tensor_count(gguf); i++) {
        const tern_gguf_tensor *t = tern_gguf_tensor_at(gguf, i);
        if (t->n_dims == 1 && t->size > 0) floats += (size_t)t->dims[0]; // size 0: of a type that is not read
    }
    return floats;
}

// ---- names ------------------------------------------------------------------------------------------------

// Is this the part of a layer's tensor behind "blk.N." that the architecture has?
static bool is_layer_tensor(const tern_arch *arch, const char *name) {
    static const char *const common[] = {"attn_norm.weight",  "ffn_norm.weight", "attn_output.weight", "attn_output.bias",
                                         "attn_output.scale", "ffn_up.weight",   "ffn_up.bias",        "ffn_up.scale",
                                         "ffn_down.weight",   "ffn_down.bias",   "ffn_down.scale"};
    static const char *const split[] = {"attn_q.weight", "attn_q.bias",     "attn_q.scale",  "attn_k.weight",
                                        "attn_k.bias",   "attn_k.scale",    "attn_v.weight", "attn_v.bias",
                                        "attn_v.scale",  "ffn_gate.weight", "ffn_gate.bias", "ffn_gate.scale"};
    static const char *const fused[] = {"attn_qkv.weight", "attn_qkv.bias"};
    static const char *const sub_norms[] = {"attn_sub_norm.weight", "ffn_sub_norm.weight"};
    static const char *const qk_norms[] = {"attn_q_norm.weight", "attn_k_norm.weight"};
    const struct {
        const char *const *names;
        size_t n;
        bool here;
    } groups[] = {{common, sizeof common / sizeof *common, true},
                  {split, sizeof split / sizeof *split, !arch->fused},
                  {fused, sizeof fused / sizeof *fused, arch->fused},
                  {sub_norms, sizeof sub_norms / sizeof *sub_norms, arch->sub_norms},
                  {qk_norms, sizeof qk_norms / sizeof *qk_norms, arch->qk_norms}};
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (size_t i = 0; groups[g].here && i < groups[g].n; i++)
            if (!strcmp(name, groups[g].names[i])) return true;
    return false;
}

tern_status tern_load_check_names(const tern_loader *ld) {
    const tern_gguf *gguf = ld->m->gguf;
    const tern_hyper *h = &ld->m->hyper;
    const bool two_ropes = h->rope.kind == TERN_ROPE_LONGROPE;
    const char *const others[] = {"token_embd.weight", "output_norm.weight", "output.weight",
                                  two_ropes ? TERN_ROPE_SHORT_FACTORS : TERN_ROPE_FACTORS,
                                  two_ropes ? TERN_ROPE_LONG_FACTORS : TERN_ROPE_FACTORS};
    for (size_t i = 0; i < tern_gguf_tensor_count(gguf); i++) {
        const tern_gguf_string name = tern_gguf_tensor_at(gguf, i)->name;
        char text[TENSOR_NAME_MAX] = {0};
        if (name.size < sizeof text) memcpy(text, name.data, name.size);
        bool ok = false;
        for (size_t k = 0; k < sizeof others / sizeof *others; k++) ok |= !strcmp(text, others[k]);
        size_t layer;
        int used = 0;
        if (sscanf(text, "blk.%zu.%n", &layer, &used) == 1 && used > 0 && layer < h->n_layers)
            ok |= is_layer_tensor(h->arch, text + used);
        if (!ok)
            return tern_fail(&ld->ctx->error, TERN_ERR_UNSUPPORTED,
                             "%s: tensor %.*s is not part of the %s architecture as this version computes it",
                             tern_gguf_path(gguf), (int)name.size, name.data, h->arch->name);
    }
    return TERN_OK;
}

// ---- the rest ---------------------------------------------------------------------------------------------

static bool is_tied(const tern_loader *ld) { return !tern_gguf_find_tensor(ld->m->gguf, "output.weight"); }

tern_status tern_load_embedding(tern_loader *ld) {
    tern_model *m = ld->m;
    const size_t d = m->hyper.n_embd, vocab = m->hyper.n_vocab;
    const tern_status status = find(ld, "token_embd.weight", 2, d, vocab, &m->token_embd);
    if (status != TERN_OK) return status;
    m->embd_type = tern_block_type_of(m->token_embd->type, d, vocab, m->token_embd->size);
    for (size_t i = 0; i < tern_gguf_tensor_count(m->gguf); i++) {
        const tern_gguf_tensor *t = tern_gguf_tensor_at(m->gguf, i);
        m->n_params += t->dims[0] * t->dims[1];
        if (t->n_dims == 2 && (is_tied(ld) || t != m->token_embd)) ld->total += t->size;
    }
    if (m->packed) m->n_params = m->packed->header.n_params; // of tensors that are not in it
    return TERN_OK;
}

tern_status tern_load_head(tern_loader *ld) {
    tern_model *m = ld->m;
    const size_t d = m->hyper.n_embd, vocab = m->hyper.n_vocab;
    const tern_gguf_tensor *t = m->token_embd;
    tern_status status = load_vector(ld, "output_norm.weight", d, &m->output_norm);
    if (status == TERN_OK && m->packed && m->head_form != TERN_HEAD_EXACT) return tern_head_load_packed(ld);
    if (status == TERN_OK && !is_tied(ld)) status = find(ld, "output.weight", 2, d, vocab, &t);
    return status == TERN_OK ? tern_head_load(ld, t) : status;
}

// The rotations with the factors of one tensor, or without.
static tern_status make_rope(tern_loader *ld, const char *factors_name, tern_rope_table *table) {
    tern_model *m = ld->m;
    const tern_rope_params *rope = &m->hyper.rope;
    const float *factors = NULL;
    const tern_status status = factors_name ? load_vector(ld, factors_name, rope->dim / 2, &factors) : TERN_OK;
    if (status != TERN_OK) return status;
    float *freq = m->floats + ld->floats_used;
    ld->floats_used += rope->dim / 2;
    table->freq = freq;
    if (!tern_rope_frequencies(freq, &table->magnitude, rope, factors))
        return tern_fail(&ld->ctx->error, TERN_ERR_FORMAT,
                         "%s: %s makes rotations that are not finite; convert the model again", tern_gguf_path(m->gguf),
                         factors_name ? factors_name : "rope scaling in the metadata");
    return TERN_OK;
}

tern_status tern_load_rope(tern_loader *ld) {
    tern_model *m = ld->m;
    m->long_from = SIZE_MAX;
    if (m->hyper.rope.kind != TERN_ROPE_LONGROPE) {
        const bool factors = tern_gguf_find_tensor(m->gguf, TERN_ROPE_FACTORS);
        return make_rope(ld, factors ? TERN_ROPE_FACTORS : NULL, &m->rope);
    }
    m->long_from = (size_t)m->hyper.rope.original_ctx;
    const tern_status status = make_rope(ld, TERN_ROPE_SHORT_FACTORS, &m->rope);
    return status == TERN_OK ? make_rope(ld, TERN_ROPE_LONG_FACTORS, &m->long_rope) : status;
}
