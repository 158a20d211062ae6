// SPDX-License-Identifier: MIT
// The inside of tern_weights: packed codes of one layout, cut into units (slabs or panels) of one or more K-slices.
#ifndef TERN_MATMUL_WEIGHTS_H
#define TERN_MATMUL_WEIGHTS_H

#include "matmul/context.h"

// What the generic code needs to know of a layout.
typedef struct tern_layout_traits {
    tern_stage_id stage;                        // the GEMM stage that reads it
    size_t row_align;                           // features of the smallest unit: a panel, or TERN_SLAB_ALIGN
    size_t (*bytes)(size_t n_padded, size_t k); // packed bytes of one K-slice
    size_t table_bytes;                         // LUT: bytes of one table row, else 0
    size_t (*table_rows)(size_t k);             // LUT: table rows of a K-slice
} tern_layout_traits;
const tern_layout_traits *tern_layout_get(tern_layout layout);

struct tern_weights {
    tern_layout layout;
    const tern_layout_traits *traits;
    bool ternary;    // all codes are trits
    bool four_level; // codes are -1, 0, +1 and +2
    size_t n, k;
    size_t n_padded;  // rows with padding, over all units
    size_t unit_rows; // rows of a unit (the last one may have fewer): a slab, or one panel
    size_t n_units;
    size_t slice_k; // depth of a K-slice: k, the block of ternary block scales, or act_block where that is less
    size_t n_slices;
    size_t scale_block; // as in tern_weights_info
    size_t act_block;   // as in tern_weights_params, where it makes slices: a divisor of larger blocks of scales; else 0
    uint8_t *packed;
    size_t packed_bytes;
    tern_scale_kind scale_kind; // of scales: one float32, or [ceil(k / scale_block)][n_padded] float32, or float16 where that
                                // is exact
    void *scales;               // NULL where tern_scales_among_codes
    size_t n_scales;
    int32_t *row_sums; // [n_slices][n_padded]: sums of codes, or NULL if they were not asked for
    size_t n_row_sums;
    tern_weights *many; // the same weight in a layout for products of many_from tokens and more, or NULL
    size_t many_from;
    tern_allocator allocator;
    bool borrowed; // packed and scales belong to someone else
};

// Fills in what follows from layout, kind of codes, n, k, scale_block and, of slabs, unit_rows: sizes, counts and traits.
// False: a size does not fit size_t.
bool tern_weights_derive(struct tern_weights *w);

// What one product of the first form reads.
size_t tern_weights_bytes(const struct tern_weights *w);

// Slabs are the tiles of the lookup forms: a few of the same size for each worker where the features divide so, else as few as
// TERN_SLAB_MAX allows, but a multiple of the workers, so that each gets about the same share of one forward stream.
size_t tern_slab_rows(tern_layout layout, size_t n, size_t workers);

// The form that a product of m tokens uses.
static inline const struct tern_weights *tern_weights_form(const struct tern_weights *w, size_t m) {
    return w->many && m >= w->many_from ? w->many : w;
}

static inline size_t tern_slice_depth(const struct tern_weights *w, size_t slice) {
    const size_t k0 = slice * w->slice_k;
    return w->k - k0 < w->slice_k ? w->k - k0 : w->slice_k;
}
static inline size_t tern_unit_rows(const struct tern_weights *w, size_t unit) {
    const size_t n0 = unit * w->unit_rows;
    return w->n_padded - n0 < w->unit_rows ? w->n_padded - n0 : w->unit_rows;
}
// First byte of a unit's codes in a slice. Units of a slice lie one after the other.
static inline uint8_t *tern_unit_codes(const struct tern_weights *w, size_t slice, size_t unit) {
    return w->packed + slice * w->traits->bytes(w->n_padded, w->slice_k) +
           w->traits->bytes(unit * w->unit_rows, tern_slice_depth(w, slice));
}
static inline size_t tern_scale_bytes(const struct tern_weights *w) {
    return w->scale_kind == TERN_SCALE_F16 ? sizeof(uint16_t) : sizeof(float);
}
// Scales of the features from n0 on in a slice, as w->scale_kind says.
static inline const void *tern_slice_scales(const struct tern_weights *w, size_t slice, size_t n0) {
    // A block of scales is one slice or several.
    const size_t at = w->scale_kind == TERN_SCALE_UNIFORM ? 0 : slice * w->slice_k / w->scale_block * w->n_padded + n0;
    return (const unsigned char *)w->scales + at * tern_scale_bytes(w);
}
// The layouts of the stages int8_gemm_b32, split_gemm_b32, int6_gemm_b32 and int4_gemm_b32 hold scales per 32 in the stream of
// codes.
static inline bool tern_scales_among_codes(const struct tern_weights *w) {
    return w->traits->stage == TERN_STAGE_int8_gemm_b32 || w->traits->stage == TERN_STAGE_int6_gemm_b32 ||
           w->traits->stage == TERN_STAGE_int4_gemm_b32 || w->traits->stage == TERN_STAGE_split_gemm_b32;
}
// Activation block this weight needs: 0 = one scale per token.
static inline size_t tern_weights_act_block(const struct tern_weights *w) {
    if (tern_scales_among_codes(w)) return w->k > TERN_I8B_BLOCK ? TERN_I8B_BLOCK : 0;
    return w->n_slices > 1 ? w->slice_k : 0;
}

#endif
