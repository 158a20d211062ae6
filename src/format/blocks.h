// SPDX-License-Identifier: MIT
// GGUF block types: sizes, and rows decoded to float32, or to their integer codes where those exist.
#ifndef TERN_FORMAT_BLOCKS_H
#define TERN_FORMAT_BLOCKS_H

#include "base/base.h"

enum { // ggml_type ids, as in the file
    TERN_GGML_F32 = 0,
    TERN_GGML_F16 = 1,
    TERN_GGML_Q4_0 = 2,
    TERN_GGML_Q4_1 = 3,
    TERN_GGML_Q5_0 = 6,
    TERN_GGML_Q5_1 = 7,
    TERN_GGML_Q8_0 = 8,
    TERN_GGML_Q4_K = 12,
    TERN_GGML_Q5_K = 13,
    TERN_GGML_Q6_K = 14,
    TERN_GGML_BF16 = 30,
    TERN_GGML_TQ1_0 = 34,
    TERN_GGML_TQ2_0 = 35,
    TERN_GGML_I2_S = 36, // of bitnet.cpp; retired upstream
    TERN_GGML_Q1_0 = 41,
    TERN_GGML_Q2_0 = 42, // two block sizes, see tern_block_type_of
    TERN_GGML_IQ1_BN = 134,
    TERN_GGML_IQ2_BN = 135
};

typedef enum tern_levels {
    TERN_LEVELS_MANY,  // no small set of codes
    TERN_LEVELS_TRITS, // -1, 0, +1
    TERN_LEVELS_SIGNS, // -1, +1
    TERN_LEVELS_FOUR   // -1, 0, +1, +2
} tern_levels;

// A row is row_head bytes, then blocks; the rows of a matrix follow each other, then tail_bytes.
typedef struct tern_block_type {
    uint32_t id;
    const char *name;   // "Q8_0"
    size_t block_elems; // elements per block
    size_t block_bytes;
    size_t row_head;   // 2: the row's scale in float16; 4: in float32; or 0
    size_t tail_bytes; // > 0: the tail begins with the float32 scale of the matrix
    // One row of k elements (a multiple of block_elems) to float32, not multiplied with the scale of the matrix.
    void (*to_f32)(float *restrict out, const uint8_t *restrict row, size_t k);
    // Integer codes and scales without loss, or NULL: codes[k], scales[k / code_block]; one scale if code_block is 0.
    // Returns false if the row holds a code that the type does not allow (a 2-bit code 3 in TQ2_0).
    bool (*to_codes)(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k);
    size_t code_block;  // elements per scale in to_codes; 0: the scale is that of the row, or 1 with a tail
    tern_levels levels; // of the codes
    size_t scale_at;    // small levels with a scale per block: its offset in the block, in float16
    // 4-bit codes 0..15 without loss, or NULL: codes[k], and for each block block_scales floats: Q4_0: d, worth d * (code - 8);
    // Q4_1: d, m, worth d * code + m; Q4_K: D, M, s[8], t[8], worth (D * s) * code + (M * t) in each 32.
    void (*to_u4)(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k);
    size_t block_scales;
} tern_block_type;

// NULL for a type that Tern does not read. Of two block sizes of one id this is the current one.
const tern_block_type *tern_block_type_find(uint32_t id);
// The block sizes of one id, the current one first; NULL past the last.
const tern_block_type *tern_block_type_at(uint32_t id, size_t index);
// tern_block_type_find for n rows of k elements in `bytes`, which tells block sizes of one id apart.
const tern_block_type *tern_block_type_of(uint32_t id, size_t k, size_t n, size_t bytes);

size_t tern_row_bytes(const tern_block_type *type, size_t k);
// Bytes of n rows of k elements, k a multiple of block_elems. False: more than size_t holds.
bool tern_matrix_bytes(const tern_block_type *type, size_t n, size_t k, size_t *bytes);
// The scale of the matrix; 1 if the type has none.
float tern_matrix_scale(const tern_block_type *type, const uint8_t *data, size_t n, size_t k);
// Row r of n as float32, with all scales.
void tern_row_to_f32(const tern_block_type *type, float *out, const uint8_t *data, size_t r, size_t n, size_t k);

// Whether any code in these blocks of a four-level type is +2.
bool tern_q2_has_two(const tern_block_type *type, const uint8_t *blocks, size_t n_blocks);
// "TL1 (38)"-style name of any ggml type id for messages; static or written into buf.
const char *tern_ggml_type_name(uint32_t id, char buf[32]);

float tern_f16_to_f32(uint16_t h); // exact
uint16_t tern_f32_to_f16(float f); // round to nearest even; overflow gives infinity

#endif
