// SPDX-License-Identifier: MIT
// Floats, and blocks of 32 elements with a float16 scale. The float arithmetic follows the gguf package, bit for bit.
#include <string.h>

#include "format/block_decoders.h"

// ---- Floats ------------------------------------------------------------

static void f32_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) { memcpy(out, row, k * sizeof *out); }

static void f16_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i++) out[i] = tern_load_f16(row + TERN_F16_BYTES * i);
}

static void bf16_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i++) out[i] = tern_bfloat_to_f32(tern_load_u16(row + TERN_F16_BYTES * i));
}

// ---- Q8_0 ------------------------------------------------------------

enum { Q8_0_BYTES = TERN_F16_BYTES + TERN_QK }; // d, qs

static void q8_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += TERN_QK, row += Q8_0_BYTES) {
        const float d = tern_load_f16(row);
        for (size_t j = 0; j < TERN_QK; j++) out[i + j] = d * (float)(int8_t)row[TERN_F16_BYTES + j];
    }
}

static bool q8_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / TERN_QK; b++, row += Q8_0_BYTES) {
        scales[b] = tern_load_f16(row);
        memcpy(codes + b * TERN_QK, row + TERN_F16_BYTES, TERN_QK);
    }
    return true;
}

// ---- Q4_0, Q4_1 ------------------------------------------------------------

enum {
    Q4_BYTES = TERN_QK / 2,                 // byte j holds elements j (low nibble) and j + 16
    Q4_0_BYTES = TERN_F16_BYTES + Q4_BYTES, // d, qs
    Q4_1_HEAD = 2 * TERN_F16_BYTES,
    Q4_1_BYTES = Q4_1_HEAD + Q4_BYTES, // d, m, qs
    Q4_ZERO = 8                        // Q4_0 codes are stored plus 8
};

static void q4_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += TERN_QK, row += Q4_0_BYTES) {
        const float d = tern_load_f16(row);
        const uint8_t *qs = row + TERN_F16_BYTES;
        for (size_t j = 0; j < Q4_BYTES; j++) out[i + j] = d * (float)((qs[j] & 0x0f) - Q4_ZERO);
        for (size_t j = 0; j < Q4_BYTES; j++) out[i + Q4_BYTES + j] = d * (float)((qs[j] >> 4) - Q4_ZERO);
    }
}

// The 32 codes of a Q4_0 or Q4_1 block.
static void q4_codes(int8_t codes[TERN_QK], const uint8_t qs[Q4_BYTES]) {
    for (size_t j = 0; j < Q4_BYTES; j++) {
        codes[j] = (int8_t)(qs[j] & 0x0f);
        codes[Q4_BYTES + j] = (int8_t)(qs[j] >> 4);
    }
}

static void q4_0_to_u4(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / TERN_QK; b++, row += Q4_0_BYTES) {
        scales[b] = tern_load_f16(row);
        q4_codes(codes + b * TERN_QK, row + TERN_F16_BYTES);
    }
}

static void q4_1_to_u4(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / TERN_QK; b++, row += Q4_1_BYTES) {
        scales[2 * b] = tern_load_f16(row);
        scales[2 * b + 1] = tern_load_f16(row + TERN_F16_BYTES);
        q4_codes(codes + b * TERN_QK, row + Q4_1_HEAD);
    }
}

static void q4_1_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += TERN_QK, row += Q4_1_BYTES) {
        const float d = tern_load_f16(row);
        const float m = tern_load_f16(row + TERN_F16_BYTES);
        const uint8_t *qs = row + Q4_1_HEAD;
        for (size_t j = 0; j < Q4_BYTES; j++) out[i + j] = d * (float)(qs[j] & 0x0f) + m;
        for (size_t j = 0; j < Q4_BYTES; j++) out[i + Q4_BYTES + j] = d * (float)(qs[j] >> 4) + m;
    }
}

// ---- Q5_0, Q5_1 ------------------------------------------------------------

enum {
    Q5_HIGH = 4,                                      // bytes of the fifth bits: bit j belongs to element j
    Q5_0_BYTES = TERN_F16_BYTES + Q5_HIGH + Q4_BYTES, // d, qh, qs as in Q4_0
    Q5_1_HEAD = 2 * TERN_F16_BYTES,
    Q5_1_BYTES = Q5_1_HEAD + Q5_HIGH + Q4_BYTES, // d, m, qh, qs
    Q5_ZERO = 16                                 // Q5_0 codes are stored plus 16
};

// The 32 codes of a block, 0..31.
static void q5_codes(int8_t codes[TERN_QK], const uint8_t *qh) {
    q4_codes(codes, qh + Q5_HIGH);
    for (size_t j = 0; j < TERN_QK; j++) codes[j] = (int8_t)(codes[j] | (qh[j / 8] >> j % 8 & 1) << 4);
}

static bool q5_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / TERN_QK; b++, row += Q5_0_BYTES) {
        scales[b] = tern_load_f16(row);
        q5_codes(codes + b * TERN_QK, row + TERN_F16_BYTES);
        for (size_t j = 0; j < TERN_QK; j++) codes[b * TERN_QK + j] = (int8_t)(codes[b * TERN_QK + j] - Q5_ZERO);
    }
    return true;
}

static void q5_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += TERN_QK, row += Q5_0_BYTES) {
        int8_t codes[TERN_QK];
        float d;
        q5_0_to_codes(codes, &d, row, TERN_QK);
        for (size_t j = 0; j < TERN_QK; j++) out[i + j] = d * (float)codes[j];
    }
}

static void q5_1_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += TERN_QK, row += Q5_1_BYTES) {
        const float d = tern_load_f16(row), m = tern_load_f16(row + TERN_F16_BYTES);
        int8_t codes[TERN_QK];
        q5_codes(codes, row + Q5_1_HEAD);
        for (size_t j = 0; j < TERN_QK; j++) out[i + j] = d * (float)codes[j] + m;
    }
}

// ---- What they are ------------------------------------------------------------

const tern_block_type tern_f32_type = {
    .id = TERN_GGML_F32, .name = "F32", .block_elems = 1, .block_bytes = sizeof(float), .to_f32 = f32_to_f32};
const tern_block_type tern_f16_type = {
    .id = TERN_GGML_F16, .name = "F16", .block_elems = 1, .block_bytes = TERN_F16_BYTES, .to_f32 = f16_to_f32};
const tern_block_type tern_bf16_type = {
    .id = TERN_GGML_BF16, .name = "BF16", .block_elems = 1, .block_bytes = TERN_F16_BYTES, .to_f32 = bf16_to_f32};
const tern_block_type tern_q8_0_type = {.id = TERN_GGML_Q8_0,
                                        .name = "Q8_0",
                                        .block_elems = TERN_QK,
                                        .block_bytes = Q8_0_BYTES,
                                        .to_f32 = q8_0_to_f32,
                                        .to_codes = q8_0_to_codes,
                                        .code_block = TERN_QK};
const tern_block_type tern_q4_0_type = {.id = TERN_GGML_Q4_0,
                                        .name = "Q4_0",
                                        .block_elems = TERN_QK,
                                        .block_bytes = Q4_0_BYTES,
                                        .to_f32 = q4_0_to_f32,
                                        .to_u4 = q4_0_to_u4,
                                        .block_scales = 1};
const tern_block_type tern_q4_1_type = {.id = TERN_GGML_Q4_1,
                                        .name = "Q4_1",
                                        .block_elems = TERN_QK,
                                        .block_bytes = Q4_1_BYTES,
                                        .to_f32 = q4_1_to_f32,
                                        .to_u4 = q4_1_to_u4,
                                        .block_scales = 2};
const tern_block_type tern_q5_0_type = {.id = TERN_GGML_Q5_0,
                                        .name = "Q5_0",
                                        .block_elems = TERN_QK,
                                        .block_bytes = Q5_0_BYTES,
                                        .to_f32 = q5_0_to_f32,
                                        .to_codes = q5_0_to_codes,
                                        .code_block = TERN_QK};
const tern_block_type tern_q5_1_type = {
    .id = TERN_GGML_Q5_1, .name = "Q5_1", .block_elems = TERN_QK, .block_bytes = Q5_1_BYTES, .to_f32 = q5_1_to_f32};
