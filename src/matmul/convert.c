// SPDX-License-Identifier: MIT
// Sources of rows for packed weights: trits, signs, four-level codes, int8 and float32.
#include <float.h>
#include <math.h>
#include <string.h>

#include "format/blocks.h"
#include "matmul/build.h"
#include "matmul/pack_int6.h"

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
    size_t k, ld;
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

const char *tern_quantize_row_int8(int8_t *codes, float *scales, const float *x, size_t k, size_t scale_block) {
    for (size_t k0 = 0, b = 0; k0 < k; k0 += scale_block, b++) {
        const size_t count = k - k0 < scale_block ? k - k0 : scale_block;
        if (!quantize_block(codes + k0, scales + b, x + k0, count, scale_block == TERN_I8B_BLOCK))
            return "a value is NaN or infinite";
    }
    return NULL;
}

static const char *read_f32_int8(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    (void)work;
    const float_source *s = source;
    return tern_quantize_row_int8(codes, scales, s->x + row * s->ld, s->k, s->scale_block);
}

static const char *read_f32_int6(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    (void)work;
    const float_source *s = source;
    return tern_quantize_row_int6(codes, scales, s->x + row * s->ld, s->k);
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

tern_status tern_weights_from_f32_int6(tern_context *ctx, tern_weights **w, const float *x, size_t n, size_t k, size_t ldw,
                                       const tern_weights_params *params) {
    tern_weights_params p;
    const tern_status status = tern_weights_check(ctx, w, x, n, k, ldw, params, &p);
    if (status != TERN_OK) return status;
    const float_source source = {.x = x, .k = k, .ld = ldw};
    const tern_build build = {.n = n,
                              .k = k,
                              .int6 = true,
                              .scale_block = TERN_I6_BLOCK,
                              .scales_per_row = tern_i6_scales(k),
                              .read = read_f32_int6,
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
