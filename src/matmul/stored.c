// SPDX-License-Identifier: MIT
// From packed weights to their description, and back: every field of a description is checked, because a file is not trusted.
#include "matmul/stored.h"

#include <string.h>

#include "matmul/activations.h"

void tern_stored_describe(tern_stored_form *form, const tern_weights *w) {
    *form = (tern_stored_form){.n = w->n,
                               .k = w->k,
                               .unit_rows = w->traits->table_bytes ? w->unit_rows : 0,
                               .scale_block = w->scale_block,
                               .scale_kind = (uint16_t)w->scale_kind,
                               .act_block = (uint16_t)w->act_block,
                               .codes = w->four_level ? TERN_STORED_FOUR_LEVEL
                                        : w->ternary  ? TERN_STORED_TRITS
                                                      : TERN_STORED_MANY};
    const char *name = tern_layout_name(w->layout);
    memcpy(form->layout, name, strnlen(name, TERN_STORED_LAYOUT_MAX - 1));
}

size_t tern_stored_scales_at(const tern_weights *w) { return tern_round_up(w->packed_bytes, TERN_CACHE_LINE); }

bool tern_stored_bytes(const tern_weights *w, size_t *bytes) {
    size_t scales;
    return w->n_row_sums == 0 && w->packed_bytes <= SIZE_MAX - TERN_CACHE_LINE &&
           tern_mul_size(w->n_scales, tern_scale_bytes(w), &scales) && tern_add_size(tern_stored_scales_at(w), scales, bytes);
}

// ---- the way back -------------------------------------------------------------------------------------------------------

static bool slabs_are_right(const tern_stored_form *f, const tern_layout_traits *traits) {
    if (!traits->table_bytes) return f->unit_rows == 0;
    return f->unit_rows > 0 && f->unit_rows <= TERN_SLAB_MAX && f->unit_rows % TERN_SLAB_ALIGN == 0;
}

// Blocks of activations that make slices: smaller than what is one slice without them, and parts of blocks of scales.
static bool act_block_is_right(const tern_stored_form *f) {
    const uint64_t block = f->act_block, whole = f->scale_block ? f->scale_block : f->k;
    return block == 0 || (block % TERN_ACT_BLOCK_MIN == 0 && block < whole && (whole == f->k || whole % block == 0));
}

// Whether a layout holds such codes with such scales.
static bool codes_are_right(const tern_stored_form *f, tern_layout layout) {
    const uint64_t small_block = f->k < TERN_I8B_BLOCK ? f->k : TERN_I8B_BLOCK; // of a row with one block
    switch (tern_layout_get(layout)->stage) {
    case TERN_STAGE_lut_gemm:
    case TERN_STAGE_sign_gemm:
    case TERN_STAGE_mad_gemm:
        return (f->codes == TERN_STORED_TRITS || (f->codes == TERN_STORED_FOUR_LEVEL && layout == TERN_LAYOUT_M2)) &&
               (f->scale_block == 0 || f->scale_block == f->k ||
                (f->scale_block < f->k && f->scale_block % TERN_ACT_BLOCK_MIN == 0)) &&
               act_block_is_right(f);
    case TERN_STAGE_int8_gemm:
        return f->codes == TERN_STORED_MANY && f->act_block == 0 && (f->scale_block == 0 || f->scale_block == f->k);
    default: // scales per 32 among the codes
        return f->codes == TERN_STORED_MANY && f->act_block == 0 && f->scale_block == small_block &&
               (layout != TERN_LAYOUT_I4K || f->k % TERN_I4K_SUPER_K == 0);
    }
}

static bool scales_are_right(const tern_stored_form *f) {
    if (f->scale_block == 0) return f->scale_kind == TERN_SCALE_UNIFORM;
    return f->scale_kind == TERN_SCALE_F16 || f->scale_kind == TERN_SCALE_F32;
}

// A layout without vector kernels on this tier is right and slow; other threads may find too few slabs.
static tern_status check_fit(tern_context *ctx, const tern_weights *w) {
    const tern_variant *v = ctx->kernels.chosen[w->traits->stage][w->layout];
    const char *tier = tern_tier_name(ctx->kernels.tier);
    if (!v || (v->tier == TERN_TIER_SCALAR && ctx->kernels.tier != TERN_TIER_SCALAR))
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED, "layout %s has no %s kernels", tern_layout_name(w->layout), tier);
    if (!w->traits->table_bytes || w->n_units >= (size_t)ctx->threads) return TERN_OK;
    const size_t fresh = tern_slab_rows(w->layout, w->n, (size_t)ctx->threads);
    if (tern_ceil_div(w->n_padded, fresh) <= w->n_units) return TERN_OK;
    return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED, "it is cut for %zu threads, and there are %d", w->n_units,
                     ctx->threads);
}

static tern_status fail_damaged(tern_context *ctx) {
    return tern_fail(&ctx->error, TERN_ERR_FORMAT, "its description contradicts itself");
}

static tern_status read_form(tern_context *ctx, tern_weights *w, const tern_stored_form *f) {
    char name[TERN_STORED_LAYOUT_MAX];
    memcpy(name, f->layout, sizeof name);
    name[sizeof name - 1] = '\0';
    if (!tern_layout_parse(name, &w->layout))
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED, "layout \"%s\" is not one of this version", name);
    const tern_layout_traits *traits = tern_layout_get(w->layout);
    if (f->n == 0 || f->n > TERN_STORED_N_MAX || f->k == 0 || f->k > TERN_K_MAX || !slabs_are_right(f, traits) ||
        !codes_are_right(f, w->layout) || !scales_are_right(f))
        return fail_damaged(ctx);
    w->ternary = f->codes == TERN_STORED_TRITS;
    w->four_level = f->codes == TERN_STORED_FOUR_LEVEL;
    w->n = (size_t)f->n;
    w->k = (size_t)f->k;
    w->unit_rows = (size_t)f->unit_rows;
    w->scale_block = (size_t)f->scale_block;
    w->act_block = f->act_block;
    w->scale_kind = (tern_scale_kind)f->scale_kind;
    return tern_weights_derive(w) ? check_fit(ctx, w) : fail_damaged(ctx);
}

tern_status tern_stored_open(tern_context *ctx, tern_weights **out, const tern_stored_form *form, void *image,
                             size_t image_bytes, const tern_allocator *allocator) {
    tern_weights *w = tern_alloc(allocator, 1, sizeof *w);
    if (!w) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");
    w->allocator = *allocator;
    w->borrowed = true;
    tern_status status = read_form(ctx, w, form);
    size_t want;
    if (status == TERN_OK && (!tern_stored_bytes(w, &want) || want != image_bytes || (uintptr_t)image % TERN_CACHE_LINE != 0))
        status = fail_damaged(ctx);
    if (status != TERN_OK) {
        tern_weights_destroy(w);
        return status;
    }
    w->packed = image;
    if (w->n_scales) w->scales = (uint8_t *)image + tern_stored_scales_at(w);
    *out = w;
    return TERN_OK;
}

tern_status tern_stored_join(tern_context *ctx, tern_weights *w, tern_weights *many, size_t many_from) {
    if (many->n != w->n || many->k != w->k || many->ternary != w->ternary || many->four_level != w->four_level ||
        many->scale_block != w->scale_block || many->act_block != w->act_block || w->many || many_from < 2)
        return fail_damaged(ctx);
    w->many = many;
    w->many_from = many_from;
    return TERN_OK;
}
