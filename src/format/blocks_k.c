// SPDX-License-Identifier: MIT
// Super-blocks of 256 elements whose parts have small integer scales. The float arithmetic follows the gguf package, bit for
// bit.
#include "format/block_decoders.h"

// ---- Scales and mins of Q4_K and Q5_K ------------------------------------------------------------

enum {
    QK_BLOCKS = TERN_QK_K / TERN_QK,
    SIX_BYTES = 12,                          // the 6-bit scales and mins of 8 blocks
    K_HEAD = 2 * TERN_F16_BYTES + SIX_BYTES, // D, M, scales and mins
    K_SCALES = 2 + 2 * QK_BLOCKS             // the same as floats
};

// Six bits of scale and min of blocks 0..3 in the low bits of bytes 0..3 and 4..7; of blocks 4..7 the low four bits in the
// nibbles of bytes 8..11, the high two on top of bytes 0..3 and 4..7.
static void six_bits(uint8_t scale[QK_BLOCKS], uint8_t min[QK_BLOCKS], const uint8_t six[SIX_BYTES]) {
    enum { QUARTER = QK_BLOCKS / 2, LOW_SIX = 0x3f };
    for (size_t b = 0; b < QUARTER; b++) {
        const uint8_t s = six[b], m = six[QUARTER + b], both = six[(size_t)2 * QUARTER + b];
        scale[b] = s & LOW_SIX;
        min[b] = m & LOW_SIX;
        scale[QUARTER + b] = (uint8_t)((both & 0x0f) | s >> 6 << 4);
        min[QUARTER + b] = (uint8_t)(both >> 4 | m >> 6 << 4);
    }
}

// D, M, s[8], t[8]: block b is worth (D * s[b]) * code + (M * t[b]).
static void k_scales(float scales[K_SCALES], const uint8_t *head) {
    uint8_t scale[QK_BLOCKS], min[QK_BLOCKS];
    scales[0] = tern_load_f16(head);
    scales[1] = -tern_load_f16(head + TERN_F16_BYTES); // the file's mins are subtracted
    six_bits(scale, min, head + (size_t)2 * TERN_F16_BYTES);
    for (size_t b = 0; b < QK_BLOCKS; b++) {
        scales[2 + b] = (float)scale[b];
        scales[2 + QK_BLOCKS + b] = (float)min[b];
    }
}

static void k_floats(float *restrict out, const int8_t codes[TERN_QK_K], const float scales[K_SCALES]) {
    for (size_t j = 0; j < TERN_QK_K; j++) {
        const float scale = scales[0] * scales[2 + j / TERN_QK], min = scales[1] * scales[2 + QK_BLOCKS + j / TERN_QK];
        out[j] = scale * (float)codes[j] + min;
    }
}

// The low four bits of the 256 codes of a block, in order: each 32 bytes hold 32 elements (low nibble) and the next 32.
static void k_nibbles(int8_t codes[TERN_QK_K], const uint8_t *qs) {
    for (size_t i = 0; i < TERN_QK_K; i += (size_t)2 * TERN_QK, qs += TERN_QK) {
        for (size_t j = 0; j < TERN_QK; j++) {
            codes[i + j] = (int8_t)(qs[j] & 0x0f);
            codes[i + TERN_QK + j] = (int8_t)(qs[j] >> 4);
        }
    }
}

// ---- Q4_K ------------------------------------------------------------

enum { Q4_K_BYTES = K_HEAD + TERN_QK_K / 2 };

static void q4_k_to_u4(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += TERN_QK_K, row += Q4_K_BYTES, scales += K_SCALES) {
        k_scales(scales, row);
        k_nibbles(codes + i, row + K_HEAD);
    }
}

static void q4_k_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += TERN_QK_K, row += Q4_K_BYTES) {
        int8_t codes[TERN_QK_K];
        float scales[K_SCALES];
        q4_k_to_u4(codes, scales, row, TERN_QK_K);
        k_floats(out + i, codes, scales);
    }
}

// ---- Q5_K ------------------------------------------------------------

enum {
    Q5_K_HIGH = TERN_QK_K / 8, // bytes of the fifth bits: bit b of byte j belongs to element j of block b
    Q5_K_BYTES = K_HEAD + Q5_K_HIGH + TERN_QK_K / 2
};

static void q5_k_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += TERN_QK_K, row += Q5_K_BYTES) {
        const uint8_t *high = row + K_HEAD;
        int8_t codes[TERN_QK_K];
        float scales[K_SCALES];
        k_scales(scales, row);
        k_nibbles(codes, high + Q5_K_HIGH);
        for (size_t j = 0; j < TERN_QK_K; j++) codes[j] = (int8_t)(codes[j] | (high[j % TERN_QK] >> j / TERN_QK & 1) << 4);
        k_floats(out + i, codes, scales);
    }
}

// ---- Q6_K ------------------------------------------------------------

enum {
    Q6_LOW_BYTES = TERN_QK_K / 2,
    Q6_HIGH_BYTES = TERN_QK_K / 4,
    Q6_SUB = 16,                                                                     // elements per sub-scale
    Q6_K_BYTES = Q6_LOW_BYTES + Q6_HIGH_BYTES + TERN_QK_K / Q6_SUB + TERN_F16_BYTES, // ql, qh, scales, d
    Q6_ZERO = 32
};

// Each half of 128 elements takes 64 bytes of ql and 32 of qh. Element 32 * g + m of a half (g = 0..3): low nibble g / 2 of
// ql[32 * (g % 2) + m], high two bits at shift 2 * g of qh[m]; its sub-scale is that of element / 16.
static void q6_k_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    enum { HALF = TERN_QK_K / 2, GROUP = 32, GROUPS = HALF / GROUP };
    for (size_t i = 0; i < k; i += TERN_QK_K, row += Q6_K_BYTES) {
        const uint8_t *scales = row + Q6_LOW_BYTES + Q6_HIGH_BYTES;
        const float d = tern_load_f16(scales + TERN_QK_K / Q6_SUB);
        for (size_t e = 0; e < TERN_QK_K; e += Q6_SUB) {
            const size_t half = e / HALF;
            const size_t group = e % HALF / GROUP;
            const size_t m = e % GROUP;
            const uint8_t *ql = row + half * (HALF / 2) + GROUP * (group % 2) + m;
            const uint8_t *qh = row + Q6_LOW_BYTES + half * GROUP + m;
            const unsigned low_shift = 4 * (unsigned)(group / 2);
            const unsigned high_shift = 2 * (unsigned)group;
            const float scale = d * (float)(int8_t)scales[e / Q6_SUB];
            for (size_t j = 0; j < Q6_SUB; j++) {
                const int q = ((ql[j] >> low_shift) & 0x0f) | (((qh[j] >> high_shift) & 3) << 4);
                out[i + e + j] = scale * (float)(q - Q6_ZERO);
            }
        }
    }
}

// ---- What they are ------------------------------------------------------------

const tern_block_type tern_q4_k_type = {.id = TERN_GGML_Q4_K,
                                        .name = "Q4_K",
                                        .block_elems = TERN_QK_K,
                                        .block_bytes = Q4_K_BYTES,
                                        .to_f32 = q4_k_to_f32,
                                        .to_u4 = q4_k_to_u4,
                                        .block_scales = K_SCALES};
const tern_block_type tern_q5_k_type = {
    .id = TERN_GGML_Q5_K, .name = "Q5_K", .block_elems = TERN_QK_K, .block_bytes = Q5_K_BYTES, .to_f32 = q5_k_to_f32};
const tern_block_type tern_q6_k_type = {
    .id = TERN_GGML_Q6_K, .name = "Q6_K", .block_elems = TERN_QK_K, .block_bytes = Q6_K_BYTES, .to_f32 = q6_k_to_f32};
