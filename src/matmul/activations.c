// SPDX-License-Identifier: MIT
// Activations: quantized once per batch, used by every weight that shares them.
#include "matmul/activations.h"

#include <math.h>
#include <string.h>

// Smallest absmax that is quantized at full resolution: BitNet's 1e-5 for whole rows; blocks only avoid dividing by zero.
static const float row_floor = 1e-5f, block_floor = 1e-30f;

// Tables of one token: at least 16 elements of depth make ceil(16 / 5) = 4 tables of T5, the widest case of a sliced row.
static size_t table_bytes_max(size_t k) {
    return tern_ceil_div(k, TERN_ACT_BLOCK_MIN) * tern_t5_table_bytes(TERN_ACT_BLOCK_MIN);
}

tern_status tern_activations_create(tern_context *ctx, tern_activations **out, size_t max_m, size_t max_k) {
    if (!ctx) return TERN_ERR_ARG;
    if (!out || max_m == 0) return tern_fail(&ctx->error, TERN_ERR_ARG, "activations need an output and max_m >= 1");
    if (max_k == 0 || max_k > TERN_K_MAX)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "max_k = %zu is outside 1..%d", max_k, TERN_K_MAX);
    tern_activations *a = tern_alloc(&ctx->allocator, 1, sizeof *a);
    if (!a) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");
    a->ctx = ctx;
    a->max_m = max_m;
    a->max_k = max_k;
    const size_t tokens = max_m < TERN_LUT_TOKENS ? max_m : TERN_LUT_TOKENS;
    a->tables_bytes = tokens * table_bytes_max(max_k);
    // Kernels may read the scales of a whole 64-deep group.
    const bool fits = tern_mul_size(max_m, tern_round_up(max_k, TERN_X_ALIGN), &a->q_bytes) &&
                      tern_mul_size(max_m, tern_round_up(max_k, TERN_X_ALIGN) / TERN_ACT_BLOCK_MIN, &a->n_blocks);
    if (fits) {
        a->q = tern_alloc(&ctx->allocator, a->q_bytes, 1);
        a->scales = tern_alloc(&ctx->allocator, a->n_blocks, sizeof *a->scales);
        a->sums = tern_alloc(&ctx->allocator, a->n_blocks, sizeof *a->sums);
        a->shifts = tern_alloc(&ctx->allocator, max_m, sizeof *a->shifts);
        a->flags = tern_alloc(&ctx->allocator, max_m, 1);
        a->tables = tern_alloc(&ctx->allocator, a->tables_bytes, 1);
    }
    if (!a->q || !a->scales || !a->sums || !a->shifts || !a->flags || !a->tables) {
        tern_activations_destroy(a);
        return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory for activations of %zu x %zu", max_m, max_k);
    }
    *out = a;
    return TERN_OK;
}

void tern_activations_destroy(tern_activations *a) {
    if (!a) return;
    const tern_allocator *allocator = &a->ctx->allocator;
    tern_free(allocator, a->q, a->q_bytes, 1);
    tern_free(allocator, a->scales, a->n_blocks, sizeof *a->scales);
    tern_free(allocator, a->sums, a->n_blocks, sizeof *a->sums);
    tern_free(allocator, a->shifts, a->max_m, sizeof *a->shifts);
    tern_free(allocator, a->flags, a->max_m, 1);
    tern_free(allocator, a->tables, a->tables_bytes, 1);
    tern_free(allocator, a, 1, sizeof *a);
}

tern_act_view tern_act_shape(size_t m, size_t k, size_t block) {
    if (block == 0 || block > k) block = k;
    const size_t ldq = tern_round_up(k, TERN_X_ALIGN);
    const size_t ld_blocks = block == k ? ldq / TERN_I8B_BLOCK : tern_round_up(tern_ceil_div(k, block), ldq / TERN_I8B_BLOCK);
    return (tern_act_view){.ldq = ldq, .m = m, .k = k, .block = block, .ld_blocks = ld_blocks, .ld_tables = table_bytes_max(k)};
}

tern_act_view tern_act_begin(tern_activations *a, size_t m, size_t k, size_t block) {
    tern_act_view view = tern_act_shape(m, k, block);
    view.q = a->q;
    view.scales = a->scales;
    view.sums = a->sums;
    view.flags = a->flags;
    view.shifts = a->shifts;
    view.tables = a->tables;
    view.not_finite = &a->not_finite;
    return view;
}

// ---- one row --------------------------------------------------------------------------------------------------

// The kernel's shape whatever the type of x.
static int quantize(const tern_act_view *v, const tern_kernels *kernels, size_t to, const void *x, tern_type type) {
    const float floor = v->block == v->k ? row_floor : block_floor;
    int8_t *q = v->q + to * v->ldq;
    float *scales = v->scales + to * v->ld_blocks;
    int32_t *sums = v->sums + to * v->ld_blocks;
    if (type == TERN_TYPE_F16)
        return TERN_KERNEL(kernels, quantize_f16, TERN_LAYOUT_NONE)(q, scales, sums, x, v->k, v->block, floor);
    if (type == TERN_TYPE_BF16)
        return TERN_KERNEL(kernels, quantize_bf16, TERN_LAYOUT_NONE)(q, scales, sums, x, v->k, v->block, floor);
    return TERN_KERNEL(kernels, quantize, TERN_LAYOUT_NONE)(q, scales, sums, x, v->k, v->block, floor);
}

// Copies ready codes; u8 minus 128, so that they fit int8. Sums and flags of what is stored.
static uint8_t copy_codes(const tern_act_view *v, size_t to, const void *x, bool is_unsigned) {
    int8_t *row = v->q + to * v->ldq;
    const uint8_t flip = is_unsigned ? 0x80 : 0; // u - 128, as bits
    const uint8_t *from = x;
    for (size_t i = 0; i < v->k; i++) row[i] = (int8_t)(from[i] ^ flip);
    memset(row + v->k, 0, v->ldq - v->k);
    int8_t least = 0;
    for (size_t i = 0; i < v->k; i++) least = row[i] < least ? row[i] : least;
    int32_t *sums = v->sums + to * v->ld_blocks;
    for (size_t b = 0, i = 0; i < v->k; b++) {
        const size_t end = v->k - i < v->block ? v->k : i + v->block;
        int32_t sum = 0;
        for (; i < end; i++) sum += row[i];
        sums[b] = sum;
    }
    return least == INT8_MIN ? TERN_ACT_HAS_MIN : 0;
}

static bool copy_scales(const tern_act_view *v, size_t to, const float *scales) {
    const size_t blocks = tern_ceil_div(v->k, v->block);
    bool finite = true;
    for (size_t b = 0; b < blocks; b++) {
        v->scales[to * v->ld_blocks + b] = scales ? scales[b] : 1.0f;
        finite = finite && (!scales || isfinite(scales[b]));
    }
    return finite;
}

bool tern_act_set_row(const tern_act_view *v, const tern_kernels *kernels, size_t to, const tern_act_source *source, size_t t) {
    enum { ZERO_POINT = 128 };
    static const unsigned char elem_bytes[] = {
        [TERN_TYPE_F32] = 4, [TERN_TYPE_F16] = 2, [TERN_TYPE_BF16] = 2, [TERN_TYPE_S8] = 1, [TERN_TYPE_U8] = 1};
    const void *x = (const unsigned char *)source->x + t * source->ldx * elem_bytes[source->type];
    uint8_t flags = 0;
    bool finite;
    if (source->type == TERN_TYPE_S8 || source->type == TERN_TYPE_U8) {
        flags = copy_codes(v, to, x, source->type == TERN_TYPE_U8);
        finite = copy_scales(v, to, source->scales ? source->scales + t * tern_ceil_div(v->k, v->block) : NULL);
        const int zero_point = source->zero_points ? source->zero_points[t] : ZERO_POINT;
        v->shifts[to] = ZERO_POINT - zero_point; // u - z = (u - 128) + (128 - z)
        if (zero_point != ZERO_POINT) flags |= TERN_ACT_SHIFTED;
    } else {
        finite = quantize(v, kernels, to, x, source->type) == 0;
    }
    v->flags[to] = flags;
    for (size_t b = tern_ceil_div(v->k, v->block); b < v->ld_blocks; b++) { // kernels may read the scales of a whole group
        v->scales[to * v->ld_blocks + b] = 0;
        v->sums[to * v->ld_blocks + b] = 0;
    }
    // relaxed: read by the thread that ran the region, after it has ended
    if (!finite && v->not_finite) atomic_store_explicit(v->not_finite, 1, memory_order_relaxed);
    return finite;
}

size_t tern_act_tiles(size_t m, size_t k, size_t workers) {
    enum { TILE_ELEMS = 16384 }; // about 2 us
    const size_t tiles = tern_ceil_div(m * k, TILE_ELEMS);
    return tiles < 2 ? 1 : tern_round_up(tiles, workers) < m ? tern_round_up(tiles, workers) : m;
}

void tern_act_prepare_tile(void *prepare, size_t tile) {
    const tern_act_prepare *p = prepare;
    const size_t end = tern_line_cut(p->view.m, p->n_tiles, tile + 1);
    for (size_t t = tern_line_cut(p->view.m, p->n_tiles, tile); t < end; t++)
        tern_act_set_row(&p->view, p->kernels, t, &p->source, t);
}

// ---- a batch --------------------------------------------------------------------------------------------------

static tern_status check_batch(const tern_activations *a, const void *x, size_t m, size_t k, size_t ldx, size_t block) {
    tern_error *err = &a->ctx->error;
    if (!x) return tern_fail(err, TERN_ERR_ARG, "x is NULL");
    if (m == 0 || m > a->max_m)
        return tern_fail(err, TERN_ERR_ARG, "m = %zu is outside 1..%zu (max_m at creation)", m, a->max_m);
    if (k == 0 || k > a->max_k)
        return tern_fail(err, TERN_ERR_ARG, "k = %zu is outside 1..%zu (max_k at creation)", k, a->max_k);
    if (ldx < k) return tern_fail(err, TERN_ERR_ARG, "ldx = %zu is smaller than k = %zu", ldx, k);
    if (block < k && block % TERN_ACT_BLOCK_MIN)
        return tern_fail(err, TERN_ERR_ARG, "block = %zu is neither 0, k nor a multiple of %d", block, TERN_ACT_BLOCK_MIN);
    return TERN_OK;
}

static tern_status set(tern_context *ctx, tern_activations *a, const tern_act_source *source, size_t m, size_t k,
                       size_t block) {
    if (!ctx) return TERN_ERR_ARG;
    if (!a) return tern_fail(&ctx->error, TERN_ERR_ARG, "the activations are NULL");
    if (a->ctx != ctx) return tern_fail(&ctx->error, TERN_ERR_ARG, "the activations belong to another context");
    tern_status status = check_batch(a, source->x, m, k, source->ldx, block);
    if (status != TERN_OK) return status;
    tern_act_prepare args = {tern_act_begin(a, m, k, block), &ctx->kernels, *source,
                             tern_act_tiles(m, k, (size_t)ctx->threads)};
    atomic_store_explicit(&a->not_finite, 0, memory_order_relaxed); // relaxed: no region is running
    const tern_stage stage = {tern_act_prepare_tile, &args, args.n_tiles, "prepare"};
    status = tern_context_run(ctx, &stage, 1);
    a->view.m = 0; // the buffers have changed: nothing is valid unless all went well
    a->tables_layout = TERN_LAYOUT_NONE;
    if (status != TERN_OK) return status;
    if (atomic_load_explicit(&a->not_finite, memory_order_relaxed))
        return tern_fail(&ctx->error, TERN_ERR_ARG, "%s holds a NaN or an infinity", source->scales ? "scales" : "x");
    a->view = args.view;
    return TERN_OK;
}

tern_status tern_activations_set_f32(tern_context *ctx, tern_activations *a, const float *x, size_t m, size_t k, size_t ldx,
                                     size_t block) {
    return set(ctx, a, &(tern_act_source){.x = x, .type = TERN_TYPE_F32, .ldx = ldx}, m, k, block);
}

tern_status tern_activations_set_f16(tern_context *ctx, tern_activations *a, const uint16_t *x, size_t m, size_t k, size_t ldx,
                                     size_t block) {
    return set(ctx, a, &(tern_act_source){.x = x, .type = TERN_TYPE_F16, .ldx = ldx}, m, k, block);
}

tern_status tern_activations_set_bf16(tern_context *ctx, tern_activations *a, const uint16_t *x, size_t m, size_t k, size_t ldx,
                                      size_t block) {
    return set(ctx, a, &(tern_act_source){.x = x, .type = TERN_TYPE_BF16, .ldx = ldx}, m, k, block);
}

tern_status tern_activations_set_s8(tern_context *ctx, tern_activations *a, const int8_t *q, const float *scales, size_t m,
                                    size_t k, size_t ldx, size_t block) {
    return set(ctx, a, &(tern_act_source){.x = q, .type = TERN_TYPE_S8, .ldx = ldx, .scales = scales}, m, k, block);
}

tern_status tern_activations_set_u8(tern_context *ctx, tern_activations *a, const uint8_t *q, const float *scales,
                                    const uint8_t *zero_points, size_t m, size_t k, size_t ldx, size_t block) {
    const tern_act_source source = {.x = q, .type = TERN_TYPE_U8, .ldx = ldx, .scales = scales, .zero_points = zero_points};
    return set(ctx, a, &source, m, k, block);
}
