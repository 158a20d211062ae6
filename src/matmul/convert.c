// SPDX-License-Identifier: MIT
// Sources of rows for packed weights: trits, int8, float32 and GGUF blocks.
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "format/blocks.h"
#include "format/half.h"
#include "matmul/build.h"

// ---- checks shared by all ---------------------------------------------------------------------------------

tern_status tern_weights_check(tern_context *ctx, tern_weights **w, const void *data, size_t n, size_t k, size_t ld,
                               const tern_weights_params *params, tern_weights_params *p) {
    if (!ctx) return TERN_ERR_ARG;
    if (!w || !data) return tern_fail(&ctx->error, TERN_ERR_ARG, "the weight's output or its data is NULL");
    if (n == 0) return tern_fail(&ctx->error, TERN_ERR_ARG, "n = 0: a weight has at least one row");
    if (k == 0 || k > TERN_K_MAX) return tern_fail(&ctx->error, TERN_ERR_ARG, "k = %zu is outside 1..%d", k, TERN_K_MAX);
    if (ld < k) return tern_fail(&ctx->error, TERN_ERR_ARG, "the leading dimension %zu is smaller than k = %zu", ld, k);
    const tern_status status = tern_params_read(p, sizeof *p, params, "tern_weights_params", &ctx->error);
    if (status != TERN_OK) return status;
    if (p->form > TERN_FORM_MAD) return tern_fail(&ctx->error, TERN_ERR_ARG, "unknown tern_form %d", (int)p->form);
    if (p->many_tokens_form > TERN_FORM_MAD)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "unknown many_tokens_form %d", (int)p->many_tokens_form);
    return TERN_OK;
}

static bool all_equal(const float *scales, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (scales[i] != scales[0]) return false;
    return true;
}

// ---- trits, four-level codes and int8 -----------------------------------------------------------------------

typedef enum code_kind { CODES_S8, CODES_TRITS, CODES_SIGNS, CODES_Q2 } code_kind;

typedef struct code_source {
    const int8_t *codes;
    const float *scales;
    size_t k, ld, scales_per_row;
    code_kind kind;
} code_source;

static const char *read_codes(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    (void)work;
    const code_source *s = source;
    const int8_t *from = s->codes + row * s->ld;
    memcpy(codes, from, s->k);
    if (s->scales_per_row) memcpy(scales, s->scales + row * s->scales_per_row, s->scales_per_row * sizeof *scales);
    if (s->kind == CODES_S8) return NULL;
    const int largest = s->kind == CODES_Q2 ? 2 : 1;
    int bad = 0, zero = 0;
    for (size_t i = 0; i < s->k; i++) {
        bad |= (uint8_t)(from[i] + 1) > largest + 1;
        zero |= from[i] == 0;
    }
    if (s->kind == CODES_SIGNS) return bad | zero ? "a value is not a sign (-1 or +1)" : NULL;
    if (!bad) return NULL;
    return s->kind == CODES_TRITS ? "a value is not a trit (-1, 0 or +1)" : "a value is not -1, 0, +1 or +2";
}

static bool any_two(const int8_t *codes, size_t n, size_t k, size_t ld) {
    for (size_t i = 0; i < n; i++) {
        int found = 0;
        for (size_t j = 0; j < k; j++) found |= codes[i * ld + j] == 2;
        if (found) return true;
    }
    return false;
}

static tern_status from_codes(tern_context *ctx, tern_weights **w, const int8_t *codes, const float *scales, size_t scale_block,
                              size_t n, size_t k, size_t ld, const tern_weights_params *params, code_kind kind) {
    const bool small = kind != CODES_S8;
    const bool one = scale_block == 0;
    const size_t per_row = one ? 0 : tern_ceil_div(k, scale_block);
    size_t count;
    if (!tern_mul_size(n, per_row, &count)) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "too many scales");
    bool half = true;
    for (size_t i = 0; i < (one ? 1 : count); i++) {
        if (!isfinite(scales[i])) return tern_fail(&ctx->error, TERN_ERR_ARG, "scales[%zu] is NaN or infinite", i);
        half = half && tern_f16_to_f32(tern_f32_to_f16(scales[i])) == scales[i];
    }
    half = half || (!small && scale_block < k && !one); // INT8 per 32 is rounded, a slice of one block too
    const bool fold = one || ((small || scale_block >= k) && all_equal(scales, count));
    const code_source source = {codes, scales, k, ld, fold ? 0 : per_row, kind};
    const tern_build build = {.n = n,
                              .k = k,
                              .ternary = small,
                              .four_level = kind == CODES_Q2 && any_two(codes, n, k, ld),
                              .binary = kind == CODES_SIGNS,
                              .scale_block = fold ? 0 : scale_block,
                              .uniform_scale = scales[0],
                              .scales_per_row = source.scales_per_row,
                              .half_scales = half,
                              .read = read_codes,
                              .source = &source,
                              .params = *params,
                              .bad_row = TERN_ERR_ARG};
    return tern_weights_build(ctx, w, &build);
}

static tern_status from_small_codes(tern_context *ctx, tern_weights **w, const int8_t *codes, const float *scales,
                                    size_t scale_block, size_t n, size_t k, size_t ldw, const tern_weights_params *params,
                                    code_kind kind) {
    tern_weights_params p;
    const tern_status status = tern_weights_check(ctx, w, codes, n, k, ldw, params, &p);
    if (status != TERN_OK) return status;
    if (!scales) return tern_fail(&ctx->error, TERN_ERR_ARG, "scales is NULL");
    if (scale_block % 16 != 0 && scale_block < k)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "scale_block = %zu is neither 0, k nor a multiple of 16", scale_block);
    return from_codes(ctx, w, codes, scales, scale_block, n, k, ldw, &p, kind);
}

tern_status tern_weights_from_trits(tern_context *ctx, tern_weights **w, const int8_t *trits, const float *scales,
                                    size_t scale_block, size_t n, size_t k, size_t ldw, const tern_weights_params *params) {
    return from_small_codes(ctx, w, trits, scales, scale_block, n, k, ldw, params, CODES_TRITS);
}

tern_status tern_weights_from_signs(tern_context *ctx, tern_weights **w, const int8_t *signs, const float *scales,
                                    size_t scale_block, size_t n, size_t k, size_t ldw, const tern_weights_params *params) {
    return from_small_codes(ctx, w, signs, scales, scale_block, n, k, ldw, params, CODES_SIGNS);
}

tern_status tern_weights_from_q2(tern_context *ctx, tern_weights **w, const int8_t *codes, const float *scales,
                                 size_t scale_block, size_t n, size_t k, size_t ldw, const tern_weights_params *params) {
    return from_small_codes(ctx, w, codes, scales, scale_block, n, k, ldw, params, CODES_Q2);
}

tern_status tern_weights_from_s8(tern_context *ctx, tern_weights **w, const int8_t *q, const float *scales, size_t scale_block,
                                 size_t n, size_t k, size_t ldw, const tern_weights_params *params) {
    tern_weights_params p;
    const tern_status status = tern_weights_check(ctx, w, q, n, k, ldw, params, &p);
    if (status != TERN_OK) return status;
    if (!scales) return tern_fail(&ctx->error, TERN_ERR_ARG, "scales is NULL");
    if (scale_block != 0 && scale_block != k && scale_block != TERN_I8B_BLOCK)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "scale_block = %zu: int8 weights take 0, k or %d", scale_block,
                         TERN_I8B_BLOCK);
    return from_codes(ctx, w, q, scales, scale_block, n, k, ldw, &p, CODES_S8);
}

// ---- float32 ------------------------------------------------------------------------------------------------

typedef struct float_source {
    const float *x;
    const uint8_t *rows; // GGUF rows when type is given
    const tern_block_type *type;
    size_t row_bytes, k, ld;
    size_t scale_block;
    float inverse; // ternary: 1 / scale
} float_source;

// Absmax quantization of one block. The scale is what the packed weight will hold, so codes are rounded against it.
static bool quantize_block(int8_t *codes, float *scale, const float *x, size_t count, bool half_scale) {
    float absmax = 0;
    bool finite = true;
    for (size_t i = 0; i < count; i++) {
        const float a = fabsf(x[i]);
        finite &= isfinite(a) != 0;
        absmax = a > absmax ? a : absmax;
    }
    if (!finite) return false;
    *scale = absmax / 127.0f;
    if (half_scale) *scale = tern_f16_to_f32(tern_f32_to_f16(*scale));
    if (*scale < FLT_MIN) *scale = 0; // its inverse would not be finite
    const float inverse = *scale > 0 ? 1.0f / *scale : 0.0f;
    for (size_t i = 0; i < count; i++) {
        float q = rintf(x[i] * inverse);
        q = q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q;
        codes[i] = (int8_t)q;
    }
    return true;
}

static const char *read_f32_int8(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    const float_source *s = source;
    const float *x = s->x + row * s->ld;
    if (s->type) {
        s->type->to_f32(work, s->rows + row * s->row_bytes, s->k);
        x = work;
    }
    for (size_t k0 = 0, b = 0; k0 < s->k; k0 += s->scale_block, b++) {
        const size_t count = s->k - k0 < s->scale_block ? s->k - k0 : s->scale_block;
        if (!quantize_block(codes + k0, scales + b, x + k0, count, s->scale_block == TERN_I8B_BLOCK))
            return "a value is NaN or infinite";
    }
    return NULL;
}

static const char *read_f32_ternary(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    (void)scales, (void)work;
    const float_source *s = source;
    const float *x = s->x + row * s->ld;
    for (size_t i = 0; i < s->k; i++) {
        const float t = rintf(x[i] * s->inverse);
        codes[i] = (int8_t)(t > 1.0f ? 1.0f : t < -1.0f ? -1.0f : t);
    }
    return NULL;
}

tern_status tern_weights_from_f32_int8(tern_context *ctx, tern_weights **w, const float *x, size_t scale_block, size_t n,
                                       size_t k, size_t ldw, const tern_weights_params *params) {
    tern_weights_params p;
    const tern_status status = tern_weights_check(ctx, w, x, n, k, ldw, params, &p);
    if (status != TERN_OK) return status;
    if (scale_block != k && scale_block != TERN_I8B_BLOCK)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "scale_block = %zu: int8 weights are quantized per row (k) or per %d",
                         scale_block, TERN_I8B_BLOCK);
    const float_source source = {.x = x, .k = k, .ld = ldw, .scale_block = scale_block};
    const tern_build build = {.n = n,
                              .k = k,
                              .scale_block = scale_block,
                              .scales_per_row = tern_ceil_div(k, scale_block),
                              .read = read_f32_int8,
                              .source = &source,
                              .params = p,
                              .bad_row = TERN_ERR_ARG};
    return tern_weights_build(ctx, w, &build);
}

tern_status tern_weights_from_f32_ternary(tern_context *ctx, tern_weights **w, const float *x, size_t n, size_t k, size_t ldw,
                                          const tern_weights_params *params) {
    tern_weights_params p;
    const tern_status status = tern_weights_check(ctx, w, x, n, k, ldw, params, &p);
    if (status != TERN_OK) return status;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < k; j++) sum += fabs((double)x[i * ldw + j]);
    float scale = (float)(sum / ((double)n * (double)k));
    if (!isfinite(scale)) return tern_fail(&ctx->error, TERN_ERR_ARG, "the weights hold a NaN or an infinity");
    if (scale < FLT_MIN) scale = 0; // its inverse would not be finite
    const float_source source = {.x = x, .k = k, .ld = ldw, .inverse = scale > 0 ? 1.0f / scale : 0.0f};
    const tern_build build = {.n = n,
                              .k = k,
                              .ternary = true,
                              .uniform_scale = scale,
                              .read = read_f32_ternary,
                              .source = &source,
                              .params = p,
                              .bad_row = TERN_ERR_ARG};
    return tern_weights_build(ctx, w, &build);
}

// ---- GGUF blocks --------------------------------------------------------------------------------------------

typedef struct block_source {
    const uint8_t *rows;
    const tern_block_type *type;
    size_t row_bytes, k;
    bool fold; // all blocks share one scale, or are all zero
} block_source;

// Codes are -1 and +1: a block whose scale is 0 cannot become zeros.
static bool is_binary(const tern_block_type *type) { return type->id == TERN_GGML_Q1_0; }

static const char *read_blocks(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    const block_source *s = source;
    float *to = s->fold ? work : scales;
    if (!s->type->to_codes(codes, to, s->rows + row * s->row_bytes, s->k))
        return "a block holds a code that its type does not allow";
    for (size_t b = 0; b * s->type->code_block < s->k; b++) {
        if (!isfinite(to[b])) return "a block's scale is NaN or infinite";
        if (s->fold && to[b] == 0 && !is_binary(s->type))
            memset(codes + b * s->type->code_block, 0, s->type->code_block); // a zero block of a folded weight
    }
    return NULL;
}

// Looks for a scale other than the first one.
typedef struct scale_scan {
    const tern_block_type *type;
    const uint8_t *data;
    size_t n_blocks;
    uint16_t first;
    atomic_bool other;
} scale_scan;

enum { SCAN_BLOCKS = 4096, F16_SIGNLESS = 0x7FFF };

static uint16_t block_scale(const scale_scan *scan, size_t b) {
    return tern_load_u16(scan->data + b * scan->type->block_bytes + scan->type->scale_at);
}

static void scan_tile(void *arg, size_t tile) {
    scale_scan *scan = arg;
    const size_t begin = tile * SCAN_BLOCKS;
    const size_t end = scan->n_blocks - begin < SCAN_BLOCKS ? scan->n_blocks : begin + SCAN_BLOCKS;
    bool other = false;
    for (size_t b = begin; b < end; b++) {
        const uint16_t d = block_scale(scan, b);
        other |= d != scan->first && ((d & F16_SIGNLESS) != 0 || is_binary(scan->type));
    }
    if (other) atomic_store_explicit(&scan->other, true, memory_order_relaxed); // relaxed: read after the region
}

// Whether all blocks share one finite scale (zero blocks apart, where codes can be 0), and it.
static tern_status uniform_scale(tern_context *ctx, const tern_block_type *type, const uint8_t *data, size_t n_blocks,
                                 bool *uniform, float *scale) {
    scale_scan scan = {.type = type, .data = data, .n_blocks = n_blocks};
    scan.first = block_scale(&scan, 0);
    for (size_t b = 1; b < n_blocks && (scan.first & F16_SIGNLESS) == 0 && !is_binary(type); b++)
        scan.first = block_scale(&scan, b);
    const tern_stage stage = {scan_tile, &scan, tern_ceil_div(n_blocks, SCAN_BLOCKS), "scan"};
    const tern_status status = tern_context_run(ctx, &stage, 1);
    *scale = (scan.first & F16_SIGNLESS) == 0 ? 0.0f : tern_f16_to_f32(scan.first);
    *uniform = !atomic_load_explicit(&scan.other, memory_order_relaxed) && isfinite(*scale);
    return status;
}

tern_status tern_weights_from_gguf(tern_context *ctx, tern_weights **w, uint32_t ggml_type, const void *data, size_t size,
                                   size_t n, size_t k, const tern_weights_params *params) {
    return tern_weights_from_blocks(ctx, w, ggml_type, data, size, n, k, params, NULL);
}

tern_status tern_weights_from_blocks(tern_context *ctx, tern_weights **w, uint32_t ggml_type, const void *data, size_t size,
                                     size_t n, size_t k, const tern_weights_params *params, const tern_allocator *allocator) {
    tern_weights_params p;
    const tern_status status = tern_weights_check(ctx, w, data, n, k, k, params, &p);
    if (status != TERN_OK) return status;
    const tern_block_type *type = tern_block_type_of(ggml_type, k, n, size);
    char name[32];
    if (!type)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED, "type %s is not supported; convert it to TQ2_0 (ternary) or Q8_0",
                         tern_ggml_type_name(ggml_type, name));
    if (k % type->block_elems)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "k = %zu is not a multiple of %s's block of %zu", k, type->name,
                         type->block_elems);
    const size_t row_bytes = k / type->block_elems * type->block_bytes;
    size_t want;
    if (!tern_mul_size(row_bytes, n, &want) || want != size)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "%zu bytes given, but %zu x %zu in %s takes %zu", size, n, k, type->name,
                         row_bytes * n);
    tern_build build = {.n = n, .k = k, .params = p, .bad_row = TERN_ERR_FORMAT, .allocator = allocator};
    const tern_u4_blocks nibbles = {type, data, row_bytes, k};
    if (type->to_u4) {
        tern_build_u4_blocks(&build, &nibbles);
        return tern_weights_build(ctx, w, &build);
    }
    if (!type->to_codes) {
        const float_source source = {.rows = data, .type = type, .row_bytes = row_bytes, .k = k, .scale_block = TERN_I8B_BLOCK};
        build.scale_block = TERN_I8B_BLOCK;
        build.scales_per_row = tern_ceil_div(k, TERN_I8B_BLOCK);
        build.work_floats = k;
        build.read = read_f32_int8;
        build.source = &source;
        return tern_weights_build(ctx, w, &build);
    }
    block_source source = {.rows = data, .type = type, .row_bytes = row_bytes, .k = k};
    build.ternary = type->ternary || type->four_level;
    build.binary = is_binary(type);
    build.four_level = type->four_level && tern_q2_has_two(type, data, size / type->block_bytes);
    if (build.ternary) {
        const tern_status scanned =
            uniform_scale(ctx, type, data, size / type->block_bytes, &source.fold, &build.uniform_scale);
        if (scanned != TERN_OK) return scanned;
    }
    build.scale_block = source.fold ? 0 : type->code_block;
    build.scales_per_row = source.fold ? 0 : k / type->code_block;
    build.half_scales = true; // GGUF block scales are float16
    build.work_floats = k / type->code_block;
    build.read = read_blocks;
    build.source = &source;
    return tern_weights_build(ctx, w, &build);
}
