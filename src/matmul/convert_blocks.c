// SPDX-License-Identifier: MIT
// Sources of rows for packed weights: GGUF blocks.
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "format/half.h"
#include "matmul/build.h"
#include "matmul/pack_int4.h"
#include "matmul/pack_int6.h"

typedef struct block_source {
    const tern_block_type *type;
    const uint8_t *data;
    size_t n, k, row_bytes;
    const uint32_t *order; // of columns, or NULL
    bool fold;             // all scales are one, or belong to zeros
} block_source;

static size_t scales_per_row(const tern_block_type *type, size_t k) { return type->code_block ? k / type->code_block : 1; }

// ---- float rows, quantized ------------------------------------------------------------------------------------

static const char *read_floats(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    const block_source *s = source;
    tern_row_to_f32(s->type, work, s->data, row, s->n, s->k);
    return tern_quantize_row_int8(codes, scales, work, s->k, TERN_I8B_BLOCK);
}

static const char *read_floats_int4(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    const block_source *s = source;
    tern_row_to_f32(s->type, work, s->data, row, s->n, s->k);
    return tern_quantize_row_int4(codes, scales, work, s->k);
}

static const char *read_floats_int6(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    const block_source *s = source;
    float *in_order = s->order ? work + s->k : work;
    tern_row_to_f32(s->type, work, s->data, row, s->n, s->k);
    for (size_t j = 0; s->order && j < s->k; j++) in_order[j] = work[s->order[j]];
    return tern_quantize_row_int6(codes, scales, in_order, s->k);
}

static void build_floats_int6(tern_build *build) {
    build->int6 = true;
    build->scale_block = TERN_I6_BLOCK;
    build->scales_per_row = tern_i6_scales(build->k);
    build->work_floats = 2 * build->k;
    build->read = read_floats_int6;
}

static void build_floats_int4(tern_build *build) {
    build->int4 = TERN_LAYOUT_I4M32;
    build->scale_block = TERN_I4_BLOCK;
    build->scales_per_row = tern_i4_scales(build->int4, build->k);
    build->work_floats = build->k;
    build->read = read_floats_int4;
}

static void build_floats(tern_build *build) {
    build->scale_block = TERN_I8B_BLOCK;
    build->scales_per_row = tern_ceil_div(build->k, TERN_I8B_BLOCK);
    build->half_scales = true;
    build->work_floats = build->k;
    build->read = read_floats;
}

// ---- codes as they are ----------------------------------------------------------------------------------------

static const char *read_codes(const void *source, size_t row, int8_t *codes, float *scales, float *work) {
    const block_source *s = source;
    const tern_block_type *type = s->type;
    float *to = s->fold ? work : scales;
    if (!type->to_codes(codes, to, s->data + row * s->row_bytes, s->k))
        return "a block holds a code that its type does not allow";
    const size_t count = scales_per_row(type, s->k), block = s->k / count;
    for (size_t b = 0; b < count; b++) {
        if (!isfinite(to[b])) return type->code_block ? "a block's scale is NaN or infinite" : "its scale is NaN or infinite";
        // A zero block of a folded weight. (Signs have no zero: such weights are not folded.)
        if (s->fold && to[b] == 0 && type->levels != TERN_LEVELS_SIGNS) memset(codes + b * block, 0, block);
    }
    return NULL;
}

// ---- one scale, or many ---------------------------------------------------------------------------------------

// Looks for a scale other than the first one. There is one per block, or one per row.
typedef struct scale_scan {
    const tern_block_type *type;
    const uint8_t *first_scale;
    size_t count, stride;
    uint32_t first;              // its bits
    atomic_bool other, not_half; // not_half: some scale is no float16
} scale_scan;

enum { SCAN_SCALES = 4096, F16_SIGNLESS = 0x7FFF, F32_SIGNLESS = 0x7FFFFFFF };

static bool is_f32(const tern_block_type *type) { return type->row_head == sizeof(float); }

static uint32_t scale_bits(const scale_scan *scan, size_t i) {
    const uint8_t *at = scan->first_scale + i * scan->stride;
    uint32_t bits;
    if (!is_f32(scan->type)) return tern_load_u16(at);
    memcpy(&bits, at, sizeof bits);
    return bits;
}

// Whether a scale of 0 makes its weights zeros, whatever their codes: not with signs, which cannot become zeros.
static bool is_zero(const scale_scan *scan, uint32_t bits) {
    const uint32_t signless = is_f32(scan->type) ? F32_SIGNLESS : F16_SIGNLESS;
    return (bits & signless) == 0 && scan->type->levels != TERN_LEVELS_SIGNS;
}

static float scale_value(const scale_scan *scan, uint32_t bits) {
    return is_f32(scan->type) ? tern_bits_to_f32(bits) : tern_half_to_f32((uint16_t)bits);
}

static void scan_tile(void *arg, size_t tile) {
    scale_scan *scan = arg;
    const size_t begin = tile * SCAN_SCALES;
    const size_t end = scan->count - begin < SCAN_SCALES ? scan->count : begin + SCAN_SCALES;
    bool other = false, not_half = false;
    for (size_t i = begin; i < end; i++) {
        const uint32_t bits = scale_bits(scan, i);
        other |= bits != scan->first && !is_zero(scan, bits);
        if (is_f32(scan->type)) {
            const float scale = tern_bits_to_f32(bits);
            not_half |= tern_f16_to_f32(tern_f32_to_f16(scale)) != scale;
        }
    }
    // relaxed: read after the region
    if (other) atomic_store_explicit(&scan->other, true, memory_order_relaxed);
    if (not_half) atomic_store_explicit(&scan->not_half, true, memory_order_relaxed);
}

// Finds out whether all scales are one (zeros apart) and whether float16 holds them.
static tern_status scan_scales(tern_context *ctx, const block_source *s, bool *fold, float *scale, bool *half) {
    const tern_block_type *type = s->type;
    scale_scan scan = {.type = type, .first_scale = s->data, .count = s->n, .stride = s->row_bytes};
    if (!type->row_head) {
        scan.first_scale = s->data + type->scale_at;
        scan.count = s->n * (s->k / type->block_elems);
        scan.stride = type->block_bytes;
    }
    scan.first = scale_bits(&scan, 0);
    for (size_t i = 1; i < scan.count && is_zero(&scan, scan.first); i++) scan.first = scale_bits(&scan, i);
    const tern_stage stage = {.fn = scan_tile, .arg = &scan, .n_tiles = tern_ceil_div(scan.count, SCAN_SCALES)};
    const tern_status status = tern_context_run(ctx, &stage, 1);
    *scale = is_zero(&scan, scan.first) ? 0.0F : scale_value(&scan, scan.first);
    *fold = !atomic_load_explicit(&scan.other, memory_order_relaxed) && isfinite(*scale);
    *half = !atomic_load_explicit(&scan.not_half, memory_order_relaxed);
    return status;
}

static tern_status build_codes(tern_context *ctx, tern_build *build, block_source *s) {
    const tern_block_type *type = s->type;
    build->ternary = type->levels != TERN_LEVELS_MANY;
    build->binary = type->levels == TERN_LEVELS_SIGNS;
    build->four_level = type->levels == TERN_LEVELS_FOUR && tern_q2_has_two(type, s->data, s->n * (s->k / type->block_elems));
    build->half_scales = true;
    tern_status status = TERN_OK;
    if (type->tail_bytes) {
        s->fold = true;
        build->uniform_scale = tern_matrix_scale(type, s->data, s->n, s->k);
        if (!isfinite(build->uniform_scale))
            return tern_fail(&ctx->error, TERN_ERR_FORMAT, "the scale of the matrix is NaN or infinite");
    } else if (build->ternary) {
        status = scan_scales(ctx, s, &s->fold, &build->uniform_scale, &build->half_scales);
    }
    build->scale_block = s->fold ? 0 : s->k / scales_per_row(type, s->k);
    build->scales_per_row = s->fold ? 0 : scales_per_row(type, s->k);
    build->work_floats = scales_per_row(type, s->k);
    build->read = read_codes;
    return status;
}

// ---- the public call ------------------------------------------------------------------------------------------

tern_status tern_weights_from_gguf(tern_context *ctx, tern_weights **w, uint32_t ggml_type, const void *data, size_t size,
                                   size_t n, size_t k, const tern_weights_params *params) {
    const tern_blocks blocks = {.ggml_type = ggml_type, .data = data, .size = size, .n = n, .k = k};
    return tern_weights_from_blocks(ctx, w, &blocks, TERN_RECODE_NONE, params, NULL);
}

// Whether the type's codes are of the kind asked for.
static bool keeps_codes(const tern_block_type *type, tern_recode recode) {
    switch (recode) {
    case TERN_RECODE_NONE:
        return true;
    case TERN_RECODE_INT4:
        return type->to_u4;
    case TERN_RECODE_INT6:
        return false;
    default:
        return type->to_codes && type->levels == TERN_LEVELS_MANY;
    }
}

static void build_floats_as(tern_build *build, tern_recode recode) {
    if (recode == TERN_RECODE_INT4)
        build_floats_int4(build);
    else if (recode == TERN_RECODE_INT6)
        build_floats_int6(build);
    else
        build_floats(build);
}

tern_status tern_weights_from_blocks(tern_context *ctx, tern_weights **w, const tern_blocks *blocks, tern_recode recode,
                                     const tern_weights_params *params, const tern_allocator *allocator) {
    const uint8_t *data = blocks->data;
    const size_t n = blocks->n, k = blocks->k, size = blocks->size;
    tern_weights_params p;
    tern_status status = tern_weights_check(ctx, w, data, n, k, k, params, &p);
    if (status != TERN_OK) return status;
    const tern_block_type *type = tern_block_type_of(blocks->ggml_type, k, n, size);
    char name[32];
    if (!type)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED, "type %s is not supported; convert it to TQ2_0 (ternary) or Q8_0",
                         tern_ggml_type_name(blocks->ggml_type, name));
    if (k % type->block_elems)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "k = %zu is not a multiple of %s's block of %zu", k, type->name,
                         type->block_elems);
    size_t want;
    if (!tern_matrix_bytes(type, n, k, &want))
        return tern_fail(&ctx->error, TERN_ERR_ARG, "%zu x %zu in %s takes more bytes than there are", n, k, type->name);
    if (want != size)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "%zu bytes given, but %zu x %zu in %s takes %zu", size, n, k, type->name,
                         want);
    block_source source = {
        .type = type, .data = data, .n = n, .k = k, .row_bytes = tern_row_bytes(type, k), .order = blocks->order};
    const tern_u4_blocks nibbles = {type, data, source.row_bytes, k};
    tern_build build = {.n = n, .k = k, .params = p, .bad_row = TERN_ERR_FORMAT, .allocator = allocator, .source = &source};
    // Where the source is large, its pages beside the packed weight would be the peak of memory.
    enum { LARGE_SOURCE = 64 << 20 };
    if (blocks->in_file && size >= LARGE_SOURCE) {
        build.file_rows = data;
        build.file_row_bytes = source.row_bytes;
    }
    if (!keeps_codes(type, recode))
        build_floats_as(&build, recode);
    else if (type->to_u4)
        tern_build_u4_blocks(&build, &nibbles);
    else if (!type->to_codes)
        build_floats(&build);
    else
        status = build_codes(ctx, &build, &source);
    build.split = recode == TERN_RECODE_INT8_SPLIT;
    return status == TERN_OK ? tern_weights_build(ctx, w, &build) : status;
}
