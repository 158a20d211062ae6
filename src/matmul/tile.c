// SPDX-License-Identifier: MIT
// Kernel, then epilogue.
#include "matmul/tile.h"

#include <assert.h>
#include <stdalign.h>
#include <string.h>

// Results live on the worker's stack until the epilogue: 64 KiB of int32 sums, and as much of float32 with several K-slices.
enum {
    TILE_VALUES = 16384,
    PANEL_TOKENS = 64,     // tokens taken together by panel kernels
    SLAB_TOKENS = 4,       // by slab kernels: TERN_SLAB_MAX * 4 values fit
    PANEL_ROWS_MAX = 1024, // features of a one-token panel tile
};
static_assert(TERN_SLAB_MAX * SLAB_TOKENS <= TILE_VALUES, "a slab's results fit the buffer");

static_assert((int)TERN_TYPE_F32 == TERN_FLOAT_F32 && (int)TERN_TYPE_F16 == TERN_FLOAT_F16 &&
                  (int)TERN_TYPE_BF16 == TERN_FLOAT_BF16,
              "the kernels' float types are the public ones");

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

typedef struct tile {
    const tern_act_view *view;
    const tern_kernels *kernels;
    const tern_product *p;
    size_t n0, n, t0, m, tables_token;
} tile;

// Features of the tile that are not padding.
static size_t kept(const tile *t) { return min_size(t->n, t->p->w->n - t->n0); }

// ---- epilogue -------------------------------------------------------------------------------------------------

static tern_epilogue_args output_of(const tile *t) {
    const tern_product *p = t->p;
    const size_t at = t->t0 * p->ldy + t->n0, bytes = p->y_type == TERN_TYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    return (tern_epilogue_args){
        .y = (unsigned char *)p->y + at * bytes,
        .ldy = p->ldy,
        .y_type = (tern_float_type)p->y_type,
        .n = kept(t),
        .m = t->m,
        .bias = p->bias ? p->bias + t->n0 : NULL,
        .residual = p->residual ? p->residual + t->t0 * p->ld_residual + t->n0 : NULL,
        .ld_residual = p->ld_residual,
    };
}

// Sums of one K-slice, with their scales.
static void give_sums(tern_epilogue_args *e, const tile *t, size_t slice, const int32_t *acc) {
    const tern_act_view *v = t->view;
    e->acc = acc;
    e->ld_acc = t->n;
    e->x_scales = v->scales + t->t0 * v->ld_blocks + slice;
    e->ld_x_scales = v->ld_blocks;
    e->w_scales = tern_slice_scales(t->p->w, slice, t->n0);
    e->scale_kind = t->p->w->scale_kind;
}

// ---- exact sums -----------------------------------------------------------------------------------------------

// The zero points of u8 activations: sum (q + shift) * code = sum q * code + shift * (sum of codes). The result fits int32
// (TERN_K_MAX_U8); unsigned arithmetic lets what is on the way there wrap.
static void add_shifts(const tile *t, size_t slice, int32_t *acc) {
    const tern_weights *w = t->p->w;
    const int32_t *row_sums = w->row_sums + slice * w->n_padded + t->n0;
    for (size_t i = 0; i < t->m; i++) {
        const uint32_t shift = (uint32_t)t->view->shifts[t->t0 + i];
        for (size_t j = 0; j < t->n; j++)
            acc[i * t->n + j] = (int32_t)((uint32_t)acc[i * t->n + j] + shift * (uint32_t)row_sums[j]);
    }
}

// Sums of one K-slice: acc[token * n + feature].
static void run_s32_kernel(const tile *t, size_t slice, int32_t *acc) {
    const tern_act_view *v = t->view;
    const tern_weights *w = t->p->w;
    const bool lut = w->traits->table_bytes != 0;
    // Every slice before this one was slice_k deep, so its tables lie at a fixed distance.
    const size_t slice_tables = lut ? w->traits->table_rows(w->slice_k) * w->traits->table_bytes : 0;
    const tern_gemm_args args = {
        .acc = acc,
        .ld_acc = t->n,
        .packed = tern_unit_codes(w, slice, t->n0 / w->unit_rows),
        .n = t->n,
        .m = t->m,
        .k = tern_slice_depth(w, slice),
        .x = v->q + t->t0 * v->ldq + slice * w->slice_k,
        .ldx = v->ldq,
        .tables = lut ? v->tables + (t->t0 - t->tables_token) * v->ld_tables + slice * slice_tables : NULL,
        .ld_tables = v->ld_tables,
        .x_sums = v->sums + t->t0 * v->ld_blocks + slice,
        .ld_x_sums = v->ld_blocks,
        .x_has_min = tern_act_any(v, t->t0, t->m, TERN_ACT_HAS_MIN),
        .four_level = w->four_level,
    };
    ((tern_gemm_fn *)t->kernels->chosen[w->traits->stage][w->layout]->fn)(&args);
    if (tern_act_any(v, t->t0, t->m, TERN_ACT_SHIFTED)) add_shifts(t, slice, acc);
}

// ---- the kinds of tiles ---------------------------------------------------------------------------------------

static void run_s32(const tile *t) {
    alignas(TERN_CACHE_LINE) int32_t acc[TILE_VALUES];
    run_s32_kernel(t, 0, acc);
    int32_t *y = (int32_t *)t->p->y + t->t0 * t->p->ldy + t->n0;
    for (size_t i = 0; i < t->m; i++) memcpy(y + i * t->p->ldy, acc + i * t->n, kept(t) * sizeof *acc);
}

// One K-slice: from sums to outputs in one pass.
static void run_scaled(const tile *t) {
    alignas(TERN_CACHE_LINE) int32_t acc[TILE_VALUES];
    run_s32_kernel(t, 0, acc);
    tern_epilogue_args e = output_of(t);
    give_sums(&e, t, 0, acc);
    TERN_KERNEL(t->kernels, epilogue, TERN_LAYOUT_NONE)(&e);
}

// Several K-slices: `value` holds the sum of those before, padding included; the last one goes to the outputs.
static void run_sliced(const tile *t) {
    alignas(TERN_CACHE_LINE) int32_t acc[TILE_VALUES];
    alignas(TERN_CACHE_LINE) float value[TILE_VALUES];
    const size_t n_slices = t->p->w->n_slices;
    for (size_t s = 0; s < n_slices; s++) {
        run_s32_kernel(t, s, acc);
        tern_epilogue_args e = {.y = value, .ldy = t->n, .y_type = TERN_FLOAT_F32, .n = t->n, .m = t->m};
        if (s + 1 == n_slices) e = output_of(t);
        give_sums(&e, t, s, acc);
        e.value = s > 0 ? value : NULL;
        e.ld_value = t->n;
        TERN_KERNEL(t->kernels, epilogue, TERN_LAYOUT_NONE)(&e);
    }
}

static void run_b32(const tile *t) {
    alignas(TERN_CACHE_LINE) float value[TILE_VALUES];
    const tern_weights *w = t->p->w;
    const tern_act_view *v = t->view;
    const tern_gemm_b32_args args = {
        .y = value,
        .ld_y = t->n,
        .packed = tern_unit_codes(w, 0, t->n0 / w->unit_rows),
        .n = t->n,
        .m = t->m,
        .k = w->k,
        .x = v->q + t->t0 * v->ldq,
        .ldx = v->ldq,
        .x_scales = v->scales + t->t0 * v->ld_blocks,
        .x_sums = v->sums + t->t0 * v->ld_blocks,
        .ld_x_blocks = v->ld_blocks,
    };
    ((tern_gemm_b32_fn *)t->kernels->chosen[w->traits->stage][w->layout]->fn)(&args);
    tern_epilogue_args e = output_of(t);
    e.value = value;
    e.ld_value = t->n;
    TERN_KERNEL(t->kernels, epilogue, TERN_LAYOUT_NONE)(&e);
}

void tern_tile_run(const tern_act_view *view, const tern_kernels *kernels, const tern_product *p, size_t n0, size_t n,
                   size_t t0, size_t m, size_t tables_token) {
    const size_t step = tern_tile_tokens(p->w, m);
    for (size_t t = t0; t < t0 + m; t += step) {
        const tile part = {view, kernels, p, n0, n, t, min_size(step, t0 + m - t), tables_token};
        if (tern_scales_among_codes(p->w))
            run_b32(&part);
        else if (p->y_type == TERN_TYPE_S32)
            run_s32(&part);
        else if (p->w->n_slices == 1)
            run_scaled(&part);
        else
            run_sliced(&part);
    }
}

size_t tern_tile_tokens(const tern_weights *w, size_t m) {
    const size_t most = w->traits->table_bytes ? SLAB_TOKENS : PANEL_TOKENS;
    return tern_ceil_div(m, tern_ceil_div(m, most));
}

size_t tern_tile_rows_max(const tern_weights *w, size_t m) {
    if (w->traits->table_bytes) return w->unit_rows;
    return min_size(PANEL_ROWS_MAX, TILE_VALUES / tern_tile_tokens(w, m)) / w->unit_rows * w->unit_rows;
}
