// SPDX-License-Identifier: MIT
// Builds tern_weights from any source of rows, in parallel.
#ifndef TERN_MATMUL_BUILD_H
#define TERN_MATMUL_BUILD_H

#include "format/blocks.h"
#include "matmul/weights.h"

// Reads row `row`: codes[k], and scales[scales_per_row] if that is not 0. work: work_floats floats of private scratch.
// Returns NULL, or a static text that says what is wrong with the row. Called from worker threads, each row once.
typedef const char *tern_read_row_fn(const void *source, size_t row, int8_t *codes, float *scales, float *work);

typedef struct tern_build {
    size_t n, k;
    bool ternary;          // trits, or four-level codes
    bool four_level;       // some code is +2
    bool binary;           // trits without zeros
    tern_layout int4;      // I4B32, I4M32 or I4K for 4-bit codes, scales as tern_pack_i4 takes them; else NONE
    bool split;            // INT8 per 32 in the layout I8S32
    bool int6;             // codes and scales as tern_pack_i6 takes them
    size_t scale_block;    // as the weight will have it: 0 one scale, k per row, else per block
    float uniform_scale;   // when scale_block is 0
    size_t scales_per_row; // what read gives: 0 when scale_block is 0
    bool half_scales;      // scales are stored as float16: those that read gives are such values, or are rounded to them
    size_t work_floats;
    tern_read_row_fn *read;
    const void *source;
    tern_weights_params params;      // what the caller expects of the products
    tern_status bad_row;             // status of a refused row: ARG for a caller's data, FORMAT for a file's
    const tern_allocator *allocator; // of the weight; NULL: the context's
    const uint8_t *file_rows; // of the source, in a mapped file: their pages are dropped once they are packed; NULL: none
    size_t file_row_bytes;
} tern_build;

// Multiplies the scale of a weight that nobody uses yet. False: it has no single float32 scale, and nothing was changed.
bool tern_weights_rescale(tern_weights *w, float factor);

tern_status tern_weights_build(tern_context *ctx, tern_weights **out, const tern_build *build);

// What every tern_weights_from_* asks of its arguments; *p: the parameters, read.
tern_status tern_weights_check(tern_context *ctx, tern_weights **w, const void *data, size_t n, size_t k, size_t ld,
                               const tern_weights_params *params, tern_weights_params *p);

// Absmax quantization of a row to int8, a scale per scale_block elements (per TERN_I8B_BLOCK: one that float16 holds). NULL, or
// a static text that says what is wrong with the row.
const char *tern_quantize_row_int8(int8_t *codes, float *scales, const float *x, size_t k, size_t scale_block);

// Fills in a build of 4-bit rows in GGUF blocks. type: one with to_u4. `source` is kept by the build.
typedef struct tern_u4_blocks {
    const tern_block_type *type;
    const uint8_t *rows;
    size_t row_bytes, k;
} tern_u4_blocks;
void tern_build_u4_blocks(tern_build *build, const tern_u4_blocks *source);

// Quantizes a row to 4 bits in blocks of TERN_I4_BLOCK, scales and mins as tern_pack_i4 takes them for I4M32. NULL, or a static
// text that says what is wrong with the row.
const char *tern_quantize_row_int4(int8_t *codes, float *scales, const float *x, size_t k);

// Quantizes a row to the codes and scales of I6B32, as tern_pack_i6 takes them. NULL, or a static text that says what is wrong
// with the row.
const char *tern_quantize_row_int6(int8_t *codes, float *scales, const float *x, size_t k);

// What becomes of rows whose type is something else.
typedef enum tern_recode {
    TERN_RECODE_NONE,       // as tern_weights_from_gguf says
    TERN_RECODE_INT8,       // INT8 per 32, from their values
    TERN_RECODE_INT4,       // 4-bit with a scale and a min per 32
    TERN_RECODE_INT8_SPLIT, // the same codes and scales in the layout I8S32
    TERN_RECODE_INT6        // 6-bit, the first k 8-bit, with a scale per 32 (I6B32)
} tern_recode;

typedef struct tern_blocks {
    uint32_t ggml_type;
    const void *data;
    size_t size, n, k;
    bool in_file;          // data lies in a mapped file
    const uint32_t *order; // INT6: column j of the weight is column order[j] of the rows; NULL: as they are
} tern_blocks;

// tern_weights_from_gguf, also with other codes than the type's, and into memory of another allocator (NULL: the context's).
tern_status tern_weights_from_blocks(tern_context *ctx, tern_weights **w, const tern_blocks *blocks, tern_recode recode,
                                     const tern_weights_params *params, const tern_allocator *allocator);

#endif
