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
        a->tables = tern_alloc(&ctx->allocator, a->tables_bytes, 1);
    }
    if (!a->q || !a->scales || !a->sums || !a->tables) {
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
    tern_free(allocator, a->tables, a->tables_bytes, 1);
    tern_free(allocator, a, 1, sizeof *a);
}

tern_act_view tern_act_begin(tern_activations *a, size_t m, size_t k, size_t block) {
    if (block == 0 || block > k) block = k;
    const size_t ldq = tern_round_up(k, TERN_X_ALIGN);
    const size_t ld_blocks = block == k ? ldq / TERN_I8B_BLOCK : tern_round_up(tern_ceil_div(k, block), ldq / TERN_I8B_BLOCK);
    return (tern_act_view){.q = a->q,
                           .ldq = ldq,
                           .m = m,
                           .k = k,
                           .block = block,
                           .scales = a->scales,
                           .sums = a->sums,
                           .ld_blocks = ld_blocks,
                           .tables = a->tables,
                           .ld_tables = table_bytes_max(k),
                           .not_finite = &a->not_finite};
}

static void clear_unused_blocks(const tern_act_view *v, size_t t) {
    for (size_t b = tern_ceil_div(v->k, v->block); b < v->ld_blocks; b++) {
        v->scales[t * v->ld_blocks + b] = 0;
        v->sums[t * v->ld_blocks + b] = 0;
    }
}

void tern_act_set_row(const tern_act_view *v, const tern_kernels *kernels, size_t t, const float *x) {
    const float floor = v->block == v->k ? row_floor : block_floor;
    const int bad = TERN_KERNEL(kernels, quantize, TERN_LAYOUT_NONE)(v->q + t * v->ldq, v->scales + t * v->ld_blocks,
                                                                     v->sums + t * v->ld_blocks, x, v->k, v->block, floor);
    clear_unused_blocks(v, t);
    // relaxed: read by the thread that ran the region, after it has ended
    if (bad) atomic_store_explicit(v->not_finite, 1, memory_order_relaxed);
}

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

typedef struct quantize_args {
    tern_act_view view;
    const tern_kernels *kernels;
    const float *x;
    size_t ldx;
} quantize_args;

static void quantize_tile(void *arg, size_t t) {
    const quantize_args *q = arg;
    tern_act_set_row(&q->view, q->kernels, t, q->x + t * q->ldx);
}

tern_status tern_activations_set_f32(tern_context *ctx, tern_activations *a, const float *x, size_t m, size_t k, size_t ldx,
                                     size_t block) {
    if (!ctx) return TERN_ERR_ARG;
    if (!a || a->ctx != ctx) return tern_fail(&ctx->error, TERN_ERR_ARG, "the activations belong to another context");
    tern_status status = check_batch(a, x, m, k, ldx, block);
    if (status != TERN_OK) return status;
    quantize_args args = {tern_act_begin(a, m, k, block), &ctx->kernels, x, ldx};
    atomic_store_explicit(&a->not_finite, 0, memory_order_relaxed); // relaxed: no region is running
    const tern_stage stage = {quantize_tile, &args, m};
    status = tern_context_run(ctx, &stage, 1);
    a->view.m = 0; // the buffers have changed: nothing is valid unless all went well
    a->tables_layout = TERN_LAYOUT_NONE;
    if (status != TERN_OK) return status;
    if (atomic_load_explicit(&a->not_finite, memory_order_relaxed))
        return tern_fail(&ctx->error, TERN_ERR_ARG, "x holds a NaN or an infinity");
    a->view = args.view;
    return TERN_OK;
}

tern_status tern_activations_set_s8(tern_context *ctx, tern_activations *a, const int8_t *q, const float *scales, size_t m,
                                    size_t k, size_t ldx, size_t block) {
    if (!ctx) return TERN_ERR_ARG;
    if (!a || a->ctx != ctx) return tern_fail(&ctx->error, TERN_ERR_ARG, "the activations belong to another context");
    const tern_status status = check_batch(a, q, m, k, ldx, block);
    if (status != TERN_OK) return status;
    tern_act_view v = tern_act_begin(a, m, k, block);
    const size_t blocks = tern_ceil_div(k, v.block);
    for (size_t i = 0; scales && i < m * blocks; i++)
        if (!isfinite(scales[i])) return tern_fail(&ctx->error, TERN_ERR_ARG, "scales[%zu] is NaN or infinite", i);
    for (size_t t = 0; t < m; t++) {
        int8_t *row = v.q + t * v.ldq;
        memcpy(row, q + t * ldx, k);
        memset(row + k, 0, v.ldq - k);
        clear_unused_blocks(&v, t);
        for (size_t b = 0; b < blocks; b++) {
            int32_t sum = 0;
            for (size_t i = b * v.block; i < k && i < (b + 1) * v.block; i++) {
                sum += row[i];
                v.has_min |= row[i] == INT8_MIN;
            }
            v.sums[t * v.ld_blocks + b] = sum;
            v.scales[t * v.ld_blocks + b] = scales ? scales[t * blocks + b] : 1.0f;
        }
    }
    a->view = v;
    a->tables_layout = TERN_LAYOUT_NONE;
    return TERN_OK;
}
