// SPDX-License-Identifier: MIT
// Packed weights: layout choice, parallel packing, facts, exact unpacking.
#include "matmul/weights.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "cpu/choice.h"
#include "format/blocks.h"
#include "matmul/activations.h"
#include "matmul/build.h"
#include "matmul/pack_int4.h"
#include "matmul/pack_int6.h"
#include "matmul/pack_int8.h"
#include "matmul/pack_split.h"
#include "matmul/pack_ternary.h"
#include "matmul/placement.h"
#include "matmul/region.h"

// Rows are decoded and packed in chunks of this many: a divisor of every slab, a multiple of every panel.
enum { TERN_CHUNK_ROWS = 64 };
// Words that different workers write stand this far apart: CPUs fetch lines in pairs.
enum { TERN_APART = 2 * TERN_CACHE_LINE };

static const tern_layout_traits layouts[TERN_LAYOUT_COUNT] = {
    [TERN_LAYOUT_T5] = {TERN_STAGE_lut_gemm, TERN_SLAB_ALIGN, tern_t5_bytes, TERN_T5_TABLE_BYTES, tern_t5_rows},
    [TERN_LAYOUT_T2N] = {TERN_STAGE_lut_gemm, TERN_SLAB_ALIGN, tern_t2n_bytes, TERN_T2N_TABLE_BYTES, tern_t2n_rows},
    [TERN_LAYOUT_B1] = {TERN_STAGE_sign_gemm, TERN_SLAB_ALIGN, tern_b1_bytes, TERN_B1_TABLE_BYTES, tern_b1_rows},
    [TERN_LAYOUT_T3] = {TERN_STAGE_lut_gemm, TERN_SLAB_ALIGN, tern_t3_bytes, TERN_T3_TABLE_BYTES, tern_t3_pairs},
    [TERN_LAYOUT_M2] = {TERN_STAGE_mad_gemm, TERN_M2_PANEL, tern_m2_bytes, 0, NULL},
    [TERN_LAYOUT_I8] = {TERN_STAGE_int8_gemm, TERN_I8_PANEL, tern_i8_bytes, 0, NULL},
    [TERN_LAYOUT_I8B32] = {TERN_STAGE_int8_gemm_b32, TERN_I8B_PANEL, tern_i8b_bytes, 0, NULL},
    [TERN_LAYOUT_I4B32] = {TERN_STAGE_int4_gemm_b32, TERN_I4_PANEL, tern_i4b_bytes, 0, NULL},
    [TERN_LAYOUT_I4M32] = {TERN_STAGE_int4_gemm_b32, TERN_I4_PANEL, tern_i4m_bytes, 0, NULL},
    [TERN_LAYOUT_I4K] = {TERN_STAGE_int4_gemm_b32, TERN_I4_PANEL, tern_i4k_bytes, 0, NULL},
    [TERN_LAYOUT_I6B32] = {TERN_STAGE_int6_gemm_b32, TERN_I6_PANEL, tern_i6_bytes, 0, NULL},
    [TERN_LAYOUT_I8S32] = {TERN_STAGE_split_gemm_b32, TERN_I8S_PANEL, tern_i8s_bytes, 0, NULL},
};

const tern_layout_traits *tern_layout_get(tern_layout layout) { return &layouts[layout]; }

// What of the source becomes the weight.
typedef struct tern_slice {
    size_t row0, n, k0, k;
} tern_slice;

static tern_status read_slice(tern_context *ctx, const tern_build *build, tern_slice *slice) {
    const tern_weights_params *p = &build->params;
    tern_error *err = &ctx->error;
    if (p->first_row >= build->n || p->n_rows > build->n - p->first_row)
        return tern_fail(err, TERN_ERR_ARG, "rows %zu + %zu of the slice are not within n = %zu", p->first_row, p->n_rows,
                         build->n);
    if (p->first_k >= build->k || p->depth > build->k - p->first_k)
        return tern_fail(err, TERN_ERR_ARG, "columns %zu + %zu of the slice are not within k = %zu", p->first_k, p->depth,
                         build->k);
    const size_t block = build->int4 == TERN_LAYOUT_I4K ? TERN_I4K_SUPER_K : build->scale_block;
    if (block && block < build->k && p->first_k % block)
        return tern_fail(err, TERN_ERR_ARG, "first_k = %zu is not the start of a scale block of %zu", p->first_k, block);
    *slice = (tern_slice){p->first_row, p->n_rows ? p->n_rows : build->n - p->first_row, p->first_k,
                          p->depth ? p->depth : build->k - p->first_k};
    if (build->int4 == TERN_LAYOUT_I4K && slice->k % TERN_I4K_SUPER_K)
        return tern_fail(err, TERN_ERR_ARG, "depth = %zu of the slice is not a multiple of %d, Q4_K's block", slice->k,
                         TERN_I4K_SUPER_K);
    if (build->int6 && slice->k != build->k)
        return tern_fail(err, TERN_ERR_UNSUPPORTED,
                         "a slice of k of 6-bit weights: the bits of a code depend on its place in the row");
    return TERN_OK;
}

// Depth of the K-slices, each of which is packed like a matrix of its own: the block of ternary block scales, or of
// activations. k: there is one.
static size_t slice_depth(bool ternary, size_t k, size_t scale_block, size_t act_block) {
    const size_t depth = ternary && scale_block && scale_block < k ? scale_block : k;
    return ternary && act_block && act_block < depth ? act_block : depth;
}

// Whether the weight can have activations in such blocks.
static tern_status check_act_block(tern_context *ctx, const tern_build *build, const tern_slice *slice) {
    const size_t block = build->params.act_block, scales = build->scale_block;
    if (block == 0 || block >= slice->k) return TERN_OK;
    if (block % TERN_ACT_BLOCK_MIN != 0)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "act_block = %zu is neither 0 nor a multiple of %d", block,
                         TERN_ACT_BLOCK_MIN);
    if (build->ternary) {
        if (scales == 0 || block >= scales || scales >= build->k || scales % block == 0) return TERN_OK;
        return tern_fail(&ctx->error, TERN_ERR_ARG, "act_block = %zu does not divide the scale block of %zu", block, scales);
    }
    if (scales == TERN_I8B_BLOCK && block >= scales) return TERN_OK;
    return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED,
                     "act_block = %zu: INT8 weights with one scale or one per row have activations of whole rows, those with "
                     "scales per %d have blocks of %d; leave it 0, or give scale_block = %d",
                     block, TERN_I8B_BLOCK, TERN_I8B_BLOCK, TERN_I8B_BLOCK);
}

// For products of m tokens (0: not known).
static tern_layout choose_layout(const tern_context *ctx, const tern_build *build, const tern_slice *slice, size_t m,
                                 tern_form form) {
    if (build->int4 != TERN_LAYOUT_NONE) return build->int4;
    if (build->int6) return TERN_LAYOUT_I6B32;
    if (!build->ternary && (build->scale_block != TERN_I8B_BLOCK || slice->k <= TERN_I8B_BLOCK)) return TERN_LAYOUT_I8;
    if (!build->ternary) return build->split ? TERN_LAYOUT_I8S32 : TERN_LAYOUT_I8B32;
    if (build->four_level) return TERN_LAYOUT_M2;                      // tables hold trits only
    if (build->binary && form != TERN_FORM_MAD) return TERN_LAYOUT_B1; // fewest bits, and the fewest operations
    const size_t depth = slice_depth(true, slice->k, build->scale_block, build->params.act_block);
    const tern_choice choice = {.n = slice->n,
                                .k = slice->k,
                                .scale_block = depth < slice->k ? depth : 0,
                                .m = m,
                                .cached = build->params.expect_cached != 0,
                                .threads = ctx->threads,
                                .form = form};
    return tern_choose_layout(&ctx->kernels, &choice, ctx->tune.table);
}

size_t tern_slab_rows(tern_layout layout, size_t n, size_t workers) {
    enum { SLABS_PER_WORKER = 4, SLAB_LEAST = 256 }; // T3, 2560 x 2560, AVX2: 2 % slower in slabs of 256 than in one
    const size_t least = layout == TERN_LAYOUT_T5 ? TERN_T5_BLOCK : SLAB_LEAST;
    for (size_t each = SLABS_PER_WORKER; each > 0; each--) {
        const size_t slabs = each * workers, rows = n / slabs;
        if (n % slabs == 0 && rows % TERN_SLAB_ALIGN == 0 && rows >= least && rows <= TERN_SLAB_MAX) return rows;
    }
    const size_t slabs = tern_round_up(tern_ceil_div(n, TERN_SLAB_MAX), workers);
    return tern_round_up(tern_ceil_div(n, slabs), TERN_SLAB_ALIGN);
}

bool tern_weights_derive(tern_weights *w) {
    w->traits = &layouts[w->layout];
    w->n_padded = tern_round_up(w->n, w->traits->row_align);
    if (!w->traits->table_bytes) w->unit_rows = w->traits->row_align;
    w->n_units = tern_ceil_div(w->n_padded, w->unit_rows);
    w->slice_k = slice_depth(w->ternary || w->four_level, w->k, w->scale_block, w->act_block);
    w->n_slices = tern_ceil_div(w->k, w->slice_k);
    size_t slice_bytes; // an upper bound of every slice: the bytes of n_padded x slice_k codes at one byte per weight and more
    if (!tern_mul_size(w->n_padded, 2 * tern_round_up(w->slice_k, TERN_I4K_SUPER_K), &slice_bytes) ||
        !tern_mul_size(slice_bytes, w->n_slices, &slice_bytes))
        return false;
    const size_t last = w->n_slices - 1;
    w->packed_bytes =
        last * w->traits->bytes(w->n_padded, w->slice_k) + w->traits->bytes(w->n_padded, tern_slice_depth(w, last));
    w->n_scales = tern_scales_among_codes(w) ? 0 : w->scale_block == 0 ? 1 : tern_ceil_div(w->k, w->scale_block) * w->n_padded;
    return true;
}

static tern_status allocate(tern_context *ctx, tern_weights *w, bool row_sums) {
    if (!tern_weights_derive(w))
        return tern_fail(&ctx->error, TERN_ERR_MEMORY, "a %zu x %zu weight does not fit the address space", w->n, w->k);
    if (row_sums) w->n_row_sums = w->n_slices * w->n_padded;
    w->packed = tern_alloc(&w->allocator, w->packed_bytes, 1);
    if (w->n_scales) w->scales = tern_alloc(&w->allocator, w->n_scales, tern_scale_bytes(w));
    if (w->n_row_sums) w->row_sums = tern_alloc(&w->allocator, w->n_row_sums, sizeof *w->row_sums);
    if (!w->packed || (w->n_scales && !w->scales) || (w->n_row_sums && !w->row_sums))
        return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory for a %zu x %zu weight (%zu bytes)", w->n, w->k,
                         w->packed_bytes);
    return TERN_OK;
}

// ---- packing ----------------------------------------------------------------------------------------------

typedef struct pack_job {
    tern_weights *w; // its second form is packed from the same rows
    const tern_build *build;
    tern_slice slice;
    tern_sharing sharing; // one tile for each worker
    size_t n_chunks;    // of TERN_CHUNK_ROWS rows: divided as the rows are when they are read, so that pages are first touched
                        // by the worker that reads them
    size_t share_bytes; // of one worker: its head, then scratch
    unsigned char *shares;
    atomic_flag faulty; // its winner alone writes the two below, which are read after the region
    const char *fault;  // what is wrong with row fault_row, or NULL
    size_t fault_row;
} pack_job;

// What follows it belongs to one worker; others take chunks here once they have none of their own.
typedef struct pack_head {
    atomic_size_t claimed; // chunks of this share
    unsigned char apart[TERN_APART - sizeof(atomic_size_t)];
} pack_head;

static size_t align_up(size_t bytes) { return tern_round_up(bytes, TERN_CACHE_LINE); }

static bool scales_to_f16(uint16_t *out, const float *scales, size_t count) {
    for (size_t i = 0; i < count; i++) {
        out[i] = tern_f32_to_f16(scales[i]);
        if (!isfinite(tern_f16_to_f32(out[i]))) return false;
    }
    return true;
}

static int32_t sum_codes(const int8_t *codes, size_t n) {
    int32_t sum = 0; // |sum| <= TERN_K_MAX * 128 < 2^24
    for (size_t i = 0; i < n; i++) sum += codes[i];
    return sum;
}

// False if what is stored is not finite.
static bool put_scale(tern_weights *w, size_t at, float scale) {
    if (w->scale_kind == TERN_SCALE_F16) return scales_to_f16((uint16_t *)w->scales + at, &scale, 1);
    ((float *)w->scales)[at] = scale;
    return isfinite(scale);
}

// Packs n_rows rows from row0 (a multiple of TERN_CHUNK_ROWS) whose codes and scales have been read: whole rows of the source,
// of which w may be a slice.
static const char *pack_chunk(const pack_job *job, tern_weights *w, size_t row0, size_t n_rows, const int8_t *rows,
                              const float *row_scales, uint16_t *halves) {
    const tern_build *b = job->build;
    const size_t k = w->k, ldc = b->k;
    const int8_t *codes = rows + job->slice.k0;
    const float *scales = row_scales;
    if (b->int4 != TERN_LAYOUT_NONE)
        scales += tern_i4_scales(b->int4, job->slice.k0 - job->slice.k0 % TERN_I4_BLOCK); // a row's only block may be cut
    else if (!b->int6 && b->scale_block && b->scale_block < b->k)
        scales += job->slice.k0 / b->scale_block;
    const size_t left = w->n_padded - row0;
    const size_t n_written = left < TERN_CHUNK_ROWS ? left : TERN_CHUNK_ROWS;
    if (w->layout == TERN_LAYOUT_I8) {
        tern_pack_i8(w->packed, codes, ldc, row0, n_rows, n_written, k);
    } else if (w->layout == TERN_LAYOUT_I8B32 || w->layout == TERN_LAYOUT_I8S32) {
        if (!scales_to_f16(halves, row_scales, n_rows * b->scales_per_row)) return "a scale is not finite in float16";
        (w->layout == TERN_LAYOUT_I8S32 ? tern_pack_i8s32 : tern_pack_i8b32)(
            w->packed, codes, ldc, halves + (scales - row_scales), b->scales_per_row, row0, n_rows, n_written, k);
    } else if (b->int6) {
        if (!tern_pack_i6(w->packed, codes, ldc, scales, b->scales_per_row, row0, n_rows, n_written, k))
            return "a scale is NaN or infinite";
    } else if (b->int4 != TERN_LAYOUT_NONE) {
        if (!tern_pack_i4(w->layout, w->packed, codes, ldc, scales, b->scales_per_row, row0, n_rows, n_written, k))
            return "a scale is not finite in float16";
    } else {
        const bool slab = w->traits->table_bytes != 0;
        const size_t unit = slab ? row0 / w->unit_rows : 0;
        const size_t unit_row0 = slab ? unit * w->unit_rows : 0;
        for (size_t s = 0; s < w->n_slices; s++) {
            tern_pack_ternary(w->layout, tern_unit_codes(w, s, unit), codes + s * w->slice_k, ldc,
                              slab ? tern_unit_rows(w, unit) : w->n_padded, row0 - unit_row0, n_rows, n_written,
                              tern_slice_depth(w, s));
        }
    }
    for (size_t i = 0; w->row_sums && i < n_rows; i++)
        for (size_t s = 0; s < w->n_slices; s++)
            w->row_sums[s * w->n_padded + row0 + i] = sum_codes(codes + i * ldc + s * w->slice_k, tern_slice_depth(w, s));
    if (w->n_scales && w->scale_kind != TERN_SCALE_UNIFORM) {
        const size_t n_blocks = tern_ceil_div(k, w->scale_block);
        for (size_t i = 0; i < n_rows; i++)
            for (size_t s = 0; s < n_blocks; s++) {
                if (!put_scale(w, s * w->n_padded + row0 + i, scales[i * b->scales_per_row + s]))
                    return w->scale_kind == TERN_SCALE_F16 ? "a scale is not finite in float16" : "a scale is NaN or infinite";
            }
    }
    return NULL;
}

// The next chunk of the worker's own share, then of the others': a slow worker packs fewer. False: all are taken.
static bool claim_chunk(const pack_job *job, size_t share, size_t *chunk) {
    const size_t n = job->sharing.n;
    for (size_t i = 0; i < n; i++) {
        const size_t owner = (share + i) % n, first = tern_sharing_first(&job->sharing, job->n_chunks, owner);
        const size_t count = tern_sharing_first(&job->sharing, job->n_chunks, owner + 1) - first;
        pack_head *head = (pack_head *)(void *)(job->shares + owner * job->share_bytes);
        // relaxed: the counter guards no data; whoever gets a number alone writes that chunk
        const size_t claim = atomic_fetch_add_explicit(&head->claimed, 1, memory_order_relaxed);
        if (claim >= count) continue;
        *chunk = first + claim;
        return true;
    }
    return false;
}

static void pack_share(void *arg, size_t share) {
    pack_job *job = arg;
    tern_weights *w = job->w;
    const tern_build *b = job->build;
    unsigned char *p = job->shares + share * job->share_bytes + sizeof(pack_head);
    int8_t *codes = (int8_t *)p;
    float *scales = (float *)(void *)(p + align_up(TERN_CHUNK_ROWS * b->k));
    uint16_t *halves = (uint16_t *)(scales + TERN_CHUNK_ROWS * b->scales_per_row);
    float *work = (float *)(void *)((unsigned char *)scales + align_up(TERN_CHUNK_ROWS * b->scales_per_row * 6));
    for (size_t chunk; claim_chunk(job, share, &chunk);) {
        const size_t row0 = chunk * TERN_CHUNK_ROWS;
        const size_t n_rows = row0 >= w->n ? 0 : w->n - row0 < TERN_CHUNK_ROWS ? w->n - row0 : TERN_CHUNK_ROWS;
        const char *fault = NULL;
        size_t bad_row = job->slice.row0 + row0;
        for (size_t i = 0; i < n_rows && !fault; i++) {
            bad_row = job->slice.row0 + row0 + i;
            fault = b->read(b->source, bad_row, codes + i * b->k, scales + i * b->scales_per_row, work);
        }
        if (!fault && row0 < w->n_padded) fault = pack_chunk(job, w, row0, n_rows, codes, scales, halves);
        if (!fault && w->many && row0 < w->many->n_padded)
            fault = pack_chunk(job, w->many, row0, n_rows, codes, scales, halves);
        if (b->file_rows)
            tern_drop_file_pages(b->file_rows + (job->slice.row0 + row0) * b->file_row_bytes, n_rows * b->file_row_bytes);
        if (fault) {
            if (!atomic_flag_test_and_set_explicit(&job->faulty, memory_order_relaxed)) { // relaxed: the region's end orders
                job->fault_row = bad_row;
                job->fault = fault;
            }
            return;
        }
    }
}

static tern_status pack(tern_context *ctx, tern_weights *w, const tern_build *build, const tern_slice *slice) {
    const size_t n_padded = w->many && w->many->n_padded > w->n_padded ? w->many->n_padded : w->n_padded;
    pack_job job = {.w = w,
                    .build = build,
                    .slice = *slice,
                    .sharing = tern_context_sharing(ctx),
                    .n_chunks = tern_ceil_div(n_padded, TERN_CHUNK_ROWS),
                    .faulty = ATOMIC_FLAG_INIT};
    job.share_bytes = sizeof(pack_head) + align_up(TERN_CHUNK_ROWS * build->k) +
                      align_up(TERN_CHUNK_ROWS * build->scales_per_row * 6) + align_up(build->work_floats * sizeof(float));
    job.shares = tern_alloc(&ctx->allocator, job.sharing.n, job.share_bytes);
    if (!job.shares) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory for packing");
    const tern_stage stage = {pack_share, &job, job.sharing.n, "pack"};
    tern_status status = tern_context_run(ctx, &stage, 1);
    tern_free(&ctx->allocator, job.shares, job.sharing.n, job.share_bytes);
    if (status == TERN_OK && job.fault)
        status = tern_fail(&ctx->error, build->bad_row, "row %zu of a %zu x %zu weight: %s", job.fault_row, build->n, build->k,
                           job.fault);
    return status;
}

// Whether the weight can keep row sums that make u8 activations exact.
static tern_status check_row_sums(tern_context *ctx, const tern_build *build, const tern_slice *slice, tern_layout layout) {
    if (!build->params.row_sums) return TERN_OK;
    if (layout == TERN_LAYOUT_I8B32 || layout == TERN_LAYOUT_I8S32 || build->int6 || build->int4 != TERN_LAYOUT_NONE)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED,
                         "row_sums: INT8, 6-bit and 4-bit weights per 32 take zero points of 128 only");
    if (!build->ternary && slice->k > TERN_K_MAX_U8)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "row_sums: k = %zu is above %d, where sums of u8 activations fit int32",
                         slice->k, TERN_K_MAX_U8);
    return TERN_OK;
}

// The weight in one layout, without its codes and scales.
static tern_status create(tern_context *ctx, tern_weights **out, const tern_build *build, const tern_slice *slice,
                          tern_layout layout) {
    const tern_allocator *allocator = build->allocator ? build->allocator : &ctx->allocator;
    tern_weights *w = tern_alloc(allocator, 1, sizeof *w);
    if (!w) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");
    w->allocator = *allocator;
    w->layout = layout;
    w->ternary = build->ternary && !build->four_level;
    w->four_level = build->four_level;
    w->n = slice->n;
    w->k = slice->k;
    if (layouts[layout].table_bytes) w->unit_rows = tern_slab_rows(layout, w->n, (size_t)ctx->threads);
    w->scale_block = build->scale_block < w->k ? build->scale_block : w->k; // 0 stays 0
    const bool finer = slice_depth(build->ternary, w->k, w->scale_block, build->params.act_block) <
                       slice_depth(build->ternary, w->k, w->scale_block, 0);
    w->act_block = finer ? build->params.act_block : 0;
    w->scale_kind = w->scale_block == 0 ? TERN_SCALE_UNIFORM : build->half_scales ? TERN_SCALE_F16 : TERN_SCALE_F32;
    const tern_status status = allocate(ctx, w, build->params.row_sums != 0);
    if (status != TERN_OK) {
        tern_weights_destroy(w);
        return status;
    }
    if (w->scale_kind == TERN_SCALE_UNIFORM) *(float *)w->scales = build->uniform_scale;
    tern_placement_bind(ctx, w); // before the codes are first touched
    *out = w;
    return TERN_OK;
}

tern_status tern_weights_build(tern_context *ctx, tern_weights **out, const tern_build *build) {
    const tern_weights_params *p = &build->params;
    if (build->four_level && p->form == TERN_FORM_LUT)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED,
                         "lookup tables hold trits, and this weight has codes of +2; ask for TERN_FORM_AUTO or TERN_FORM_MAD");
    tern_slice slice;
    tern_status status = read_slice(ctx, build, &slice);
    if (status != TERN_OK) return status;
    status = check_act_block(ctx, build, &slice);
    if (status != TERN_OK) return status;
    const size_t m = p->expect_m || !p->many_tokens ? p->expect_m : 1; // with a second layout for many, the first is for one
    const tern_layout layout = choose_layout(ctx, build, &slice, m, p->form);
    const tern_layout many = p->many_tokens ? choose_layout(ctx, build, &slice, p->many_tokens, p->many_tokens_form) : layout;
    status = check_row_sums(ctx, build, &slice, layout);
    if (status != TERN_OK) return status;
    tern_weights *w = NULL;
    status = create(ctx, &w, build, &slice, layout);
    if (status == TERN_OK && many != layout) {
        status = create(ctx, &w->many, build, &slice, many);
        w->many_from = p->many_tokens;
    }
    if (status == TERN_OK) status = pack(ctx, w, build, &slice);
    if (status != TERN_OK) {
        tern_weights_destroy(w);
        return status;
    }
    *out = w;
    return TERN_OK;
}

bool tern_weights_rescale(tern_weights *w, float factor) {
    if (w->scale_kind != TERN_SCALE_UNIFORM || tern_scales_among_codes(w)) return false;
    for (tern_weights *form = w; form; form = form->many) *(float *)form->scales *= factor;
    return true;
}

void tern_weights_destroy(tern_weights *w) {
    if (!w) return;
    tern_weights_destroy(w->many);
    const tern_allocator allocator = w->allocator;
    if (!w->borrowed) {
        tern_free(&allocator, w->packed, w->packed_bytes, 1);
        tern_free(&allocator, w->scales, w->n_scales, tern_scale_bytes(w));
    }
    tern_free(&allocator, w->row_sums, w->n_row_sums, sizeof *w->row_sums);
    tern_free(&allocator, w, 1, sizeof *w);
}

// ---- facts and the way back ---------------------------------------------------------------------------------

size_t tern_weights_bytes(const tern_weights *w) { return w->packed_bytes + w->n_scales * tern_scale_bytes(w); }

tern_status tern_weights_get_info(tern_context *ctx, const tern_weights *w, tern_weights_info *info) {
    if (!ctx || !w)
        return tern_fail(ctx ? &ctx->error : NULL, TERN_ERR_ARG, "tern_weights_get_info needs a context and a weight");
    const tern_variant *v = ctx->kernels.chosen[w->traits->stage][w->layout];
    const tern_variant *many = w->many ? ctx->kernels.chosen[w->many->traits->stage][w->many->layout] : NULL;
    tern_weights_info full = {.n = w->n,
                              .k = w->k,
                              .scale_block = w->scale_block,
                              .act_block = tern_weights_act_block(w),
                              .layout = tern_layout_name(w->layout),
                              .kernel = v ? v->symbol : NULL,
                              .bytes = tern_weights_bytes(w),
                              .huge_page_bytes = tern_huge_page_bytes(w->packed, w->packed_bytes),
                              .row_sums_bytes = w->n_row_sums * sizeof *w->row_sums,
                              .many_bytes = w->many ? tern_weights_bytes(w->many) : 0,
                              .many_layout = w->many ? tern_layout_name(w->many->layout) : NULL,
                              .many_kernel = many ? many->symbol : NULL};
    full.bits_per_weight = (double)full.bytes * 8 / ((double)w->n * (double)w->k);
    return tern_info_write(info, &full, sizeof full, "tern_weights_info", &ctx->error);
}

tern_status tern_weights_unpack(tern_context *ctx, const tern_weights *w, int8_t *codes, size_t ld) {
    if (!ctx || !w || !codes || ld < w->k)
        return tern_fail(ctx ? &ctx->error : NULL, TERN_ERR_ARG, "tern_weights_unpack needs a weight, an output and ld >= k");
    if (w->layout == TERN_LAYOUT_I8) {
        tern_unpack_i8(codes, ld, w->packed, 0, w->n, w->k);
        return TERN_OK;
    }
    if (w->layout == TERN_LAYOUT_I8B32) {
        const size_t blocks = tern_ceil_div(w->k, TERN_I8B_BLOCK);
        uint16_t *scales = tern_alloc(&ctx->allocator, blocks, sizeof *scales);
        if (!scales) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");
        for (size_t n = 0; n < w->n; n++) tern_unpack_i8b32(codes + n * ld, ld, scales, blocks, w->packed, n, 1, w->k);
        tern_free(&ctx->allocator, scales, blocks, sizeof *scales);
        return TERN_OK;
    }
    if (w->layout == TERN_LAYOUT_I8S32) {
        for (size_t n = 0; n < w->n; n++) tern_unpack_i8s32(codes + n * ld, NULL, w->packed, n, w->k);
        return TERN_OK;
    }
    if (w->layout == TERN_LAYOUT_I6B32) {
        for (size_t n = 0; n < w->n; n++) tern_unpack_i6(codes + n * ld, NULL, w->packed, n, w->k);
        return TERN_OK;
    }
    if (tern_scales_among_codes(w)) {
        for (size_t n = 0; n < w->n; n++) tern_unpack_i4(w->layout, codes + n * ld, NULL, w->packed, n, w->k);
        return TERN_OK;
    }
    const bool slab = w->traits->table_bytes != 0;
    const size_t step = slab ? w->unit_rows : w->n_padded;
    for (size_t s = 0; s < w->n_slices; s++)
        for (size_t n0 = 0; n0 < w->n; n0 += step) {
            const size_t unit = slab ? n0 / step : 0;
            const size_t rows = w->n - n0 < step ? w->n - n0 : step;
            tern_unpack_ternary(w->layout, codes + n0 * ld + s * w->slice_k, ld, tern_unit_codes(w, s, unit),
                                slab ? tern_unit_rows(w, unit) : w->n_padded, 0, rows, tern_slice_depth(w, s));
        }
    return TERN_OK;
}
