// SPDX-License-Identifier: MIT
// Sources of 4-bit rows: a caller's codes, and the GGUF types that hold such codes.
#include <math.h>

#include "matmul/build.h"
#include "matmul/pack_int4.h"

// ---- a caller's codes ---------------------------------------------------------------------------------------

typedef struct u4_source {
    const uint8_t *codes;
    const float *scales, *mins; // mins may be NULL
    size_t k, ld, blocks;
} u4_source;

static const char *read_u4(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    (void)work;
    const u4_source *s = source;
    int bad = 0;
    for (size_t i = 0; i < s->k; i++) {
        const uint8_t code = s->codes[row * s->ld + i];
        bad |= code > TERN_I4_CODE_MAX;
        codes[i] = (int8_t)code;
    }
    for (size_t b = 0; b < s->blocks; b++) {
        const size_t at = row * s->blocks + b;
        if (s->mins) {
            scales[2 * b] = s->scales[at];
            scales[2 * b + 1] = s->mins[at];
        } else {
            scales[b] = s->scales[at];
        }
    }
    return bad ? "a code is outside 0..15" : NULL;
}

tern_status tern_weights_from_u4(tern_context *ctx, tern_weights **w, const uint8_t *q, const float *scales, const float *mins,
                                 size_t n, size_t k, size_t ldw, const tern_weights_params *params) {
    tern_weights_params p;
    const tern_status status = tern_weights_check(ctx, w, q, n, k, ldw, params, &p);
    if (status != TERN_OK) return status;
    if (!scales) return tern_fail(&ctx->error, TERN_ERR_ARG, "scales is NULL");
    const u4_source source = {q, scales, mins, k, ldw, tern_ceil_div(k, TERN_I4_BLOCK)};
    const tern_layout layout = mins ? TERN_LAYOUT_I4M32 : TERN_LAYOUT_I4B32;
    const tern_build build = {.n = n,
                              .k = k,
                              .int4 = layout,
                              .scale_block = TERN_I4_BLOCK,
                              .scales_per_row = tern_i4_scales(layout, k),
                              .read = read_u4,
                              .source = &source,
                              .params = p,
                              .bad_row = TERN_ERR_ARG};
    return tern_weights_build(ctx, w, &build);
}

// ---- GGUF blocks --------------------------------------------------------------------------------------------

static const char *read_u4_blocks(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    (void)work;
    const tern_u4_blocks *s = source;
    s->type->to_u4(codes, scales, s->rows + row * s->row_bytes, s->k);
    const size_t count = s->k / s->type->block_elems * s->type->block_scales;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(scales[i])) return "a block's scale is NaN or infinite";
    return NULL;
}

static tern_layout layout_of(uint32_t ggml_type) {
    switch (ggml_type) {
    case TERN_GGML_Q4_0:
        return TERN_LAYOUT_I4B32;
    case TERN_GGML_Q4_1:
        return TERN_LAYOUT_I4M32;
    default:
        return TERN_LAYOUT_I4K; // Q4_K
    }
}

void tern_build_u4_blocks(tern_build *build, const tern_u4_blocks *source) {
    build->int4 = layout_of(source->type->id);
    build->scale_block = TERN_I4_BLOCK;
    build->scales_per_row = tern_i4_scales(build->int4, source->k);
    build->read = read_u4_blocks;
    build->source = source;
}
