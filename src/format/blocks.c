// SPDX-License-Identifier: MIT
// Decoders of the GGUF block types that Tern reads. The float arithmetic follows the gguf package, bit for bit.
#include "format/blocks.h"

#include <string.h>

#include "format/ggml_types.h"
#include "format/half.h"

// ---- Block layouts ----------------------------------------------------------------------------------------

enum {
    QK = 32,    // elements of a Q4_0, Q4_1, Q8_0 block
    QK_K = 256, // elements of a Q4_K, Q6_K, TQ1_0, TQ2_0 block
    F16_BYTES = 2,
    Q4_BYTES = QK / 2,
    Q4_0_BYTES = F16_BYTES + Q4_BYTES, // d, qs: byte j holds elements j (low nibble) and j + 16
    Q4_1_HEAD = 2 * F16_BYTES,
    Q4_1_BYTES = Q4_1_HEAD + Q4_BYTES, // d, m, qs
    Q8_0_BYTES = F16_BYTES + QK,       // d, qs
    Q4_ZERO = 8,                       // Q4_0 codes are stored plus 8
    QK_BLOCKS = QK_K / QK,
    Q4_K_SIX_BYTES = 12, // the 6-bit scales and mins of 8 blocks
    Q4_K_HEAD = 2 * F16_BYTES + Q4_K_SIX_BYTES,
    Q4_K_BYTES =
        Q4_K_HEAD + QK_K / 2, // d, dmin, scales and mins, qs: each 32 bytes hold 32 elements (low nibble) and the next 32
    Q4_K_SCALES = 2 + 2 * QK_BLOCKS,
    Q6_LOW_BYTES = QK_K / 2,
    Q6_HIGH_BYTES = QK_K / 4,
    Q6_SUB = 16,                                                           // elements per Q6_K sub-scale
    Q6_K_BYTES = Q6_LOW_BYTES + Q6_HIGH_BYTES + QK_K / Q6_SUB + F16_BYTES, // ql, qh, scales, d
    Q6_ZERO = 32,
    TQ1_WIDE = 32,   // bytes whose digit n holds elements n * 32 + m
    TQ1_NARROW = 16, // bytes whose digit n holds elements 160 + n * 16 + m
    TQ1_HIGH = 4,    // bytes whose digit n holds elements 240 + n * 4 + m, four digits only
    TQ1_DIGITS = 5,
    TQ1_HIGH_DIGITS = 4,
    TQ1_BYTES = TQ1_WIDE + TQ1_NARROW + TQ1_HIGH + F16_BYTES, // qs, qh, d
    TQ2_HALF = 32,                                            // bytes that hold half a block: l * 32 + m at shift 2 l
    TQ2_PER_BYTE = 4,
    TQ2_CODE_BYTES = QK_K / TQ2_PER_BYTE,
    TQ2_BYTES = TQ2_CODE_BYTES + F16_BYTES, // qs, d
    Q2_PER_BYTE = 4,
    Q1_QK = 128,                                // elements of a Q1_0 block
    Q1_BYTES = F16_BYTES + Q1_QK / 8,           // d, bits: bit j % 8 of byte j / 8 set where element j is +d, else -d
    Q2_QK = 64,                                 // elements of a Q2_0 block
    Q2_QK_OLD = 128,                            // the same in older files
    Q2_BYTES = F16_BYTES + Q2_QK / Q2_PER_BYTE, // d, qs: element j at bits 2 (j % 4) of byte j / 4
    Q2_OLD_BYTES = F16_BYTES + Q2_QK_OLD / Q2_PER_BYTE
};

static float load_f16(const uint8_t *p) { return tern_half_to_f32(tern_load_u16(p)); }

// ---- Floats -----------------------------------------------------------------------------------------------

static void f32_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) { memcpy(out, row, k * sizeof *out); }

static void f16_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i++) out[i] = load_f16(row + F16_BYTES * i);
}

static void bf16_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i++) out[i] = tern_bfloat_to_f32(tern_load_u16(row + F16_BYTES * i));
}

// ---- Blocks of 32 -----------------------------------------------------------------------------------------

static void q8_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += QK, row += Q8_0_BYTES) {
        const float d = load_f16(row);
        for (size_t j = 0; j < QK; j++) out[i + j] = d * (float)(int8_t)row[F16_BYTES + j];
    }
}

static bool q8_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / QK; b++, row += Q8_0_BYTES) {
        scales[b] = load_f16(row);
        memcpy(codes + b * QK, row + F16_BYTES, QK);
    }
    return true;
}

static void q4_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += QK, row += Q4_0_BYTES) {
        const float d = load_f16(row);
        const uint8_t *qs = row + F16_BYTES;
        for (size_t j = 0; j < Q4_BYTES; j++) out[i + j] = d * (float)((qs[j] & 0x0f) - Q4_ZERO);
        for (size_t j = 0; j < Q4_BYTES; j++) out[i + Q4_BYTES + j] = d * (float)((qs[j] >> 4) - Q4_ZERO);
    }
}

// The 32 codes of a Q4_0 or Q4_1 block.
static void q4_codes(int8_t codes[QK], const uint8_t qs[Q4_BYTES]) {
    for (size_t j = 0; j < Q4_BYTES; j++) {
        codes[j] = (int8_t)(qs[j] & 0x0f);
        codes[Q4_BYTES + j] = (int8_t)(qs[j] >> 4);
    }
}

static void q4_0_to_u4(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / QK; b++, row += Q4_0_BYTES) {
        scales[b] = load_f16(row);
        q4_codes(codes + b * QK, row + F16_BYTES);
    }
}

static void q4_1_to_u4(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / QK; b++, row += Q4_1_BYTES) {
        scales[2 * b] = load_f16(row);
        scales[2 * b + 1] = load_f16(row + F16_BYTES);
        q4_codes(codes + b * QK, row + Q4_1_HEAD);
    }
}

static void q4_1_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += QK, row += Q4_1_BYTES) {
        const float d = load_f16(row);
        const float m = load_f16(row + F16_BYTES);
        const uint8_t *qs = row + Q4_1_HEAD;
        for (size_t j = 0; j < Q4_BYTES; j++) out[i + j] = d * (float)(qs[j] & 0x0f) + m;
        for (size_t j = 0; j < Q4_BYTES; j++) out[i + Q4_BYTES + j] = d * (float)(qs[j] >> 4) + m;
    }
}

// ---- Q4_K -------------------------------------------------------------------------------------------------

// Six bits of scale and min of blocks 0..3 in the low bits of bytes 0..3 and 4..7; of blocks 4..7 the low four bits in the
// nibbles of bytes 8..11, the high two on top of bytes 0..3 and 4..7.
static void q4_k_six(uint8_t scale[QK_BLOCKS], uint8_t min[QK_BLOCKS], const uint8_t six[Q4_K_SIX_BYTES]) {
    enum { QUARTER = QK_BLOCKS / 2, LOW_SIX = 0x3f };
    for (size_t b = 0; b < QUARTER; b++) {
        const uint8_t s = six[b], m = six[QUARTER + b], both = six[(size_t)2 * QUARTER + b];
        scale[b] = s & LOW_SIX;
        min[b] = m & LOW_SIX;
        scale[QUARTER + b] = (uint8_t)((both & 0x0f) | s >> 6 << 4);
        min[QUARTER + b] = (uint8_t)(both >> 4 | m >> 6 << 4);
    }
}

// The 256 codes of a block, in order.
static void q4_k_codes(int8_t codes[QK_K], const uint8_t *qs) {
    for (size_t i = 0; i < QK_K; i += (size_t)2 * QK, qs += QK) {
        for (size_t j = 0; j < QK; j++) {
            codes[i + j] = (int8_t)(qs[j] & 0x0f);
            codes[i + QK + j] = (int8_t)(qs[j] >> 4);
        }
    }
}

static void q4_k_to_u4(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += QK_K, row += Q4_K_BYTES, scales += Q4_K_SCALES) {
        uint8_t scale[QK_BLOCKS], min[QK_BLOCKS];
        scales[0] = load_f16(row);
        scales[1] = -load_f16(row + F16_BYTES); // the file's mins are subtracted
        q4_k_six(scale, min, row + (size_t)2 * F16_BYTES);
        for (size_t b = 0; b < QK_BLOCKS; b++) {
            scales[2 + b] = (float)scale[b];
            scales[2 + QK_BLOCKS + b] = (float)min[b];
        }
        q4_k_codes(codes + i, row + Q4_K_HEAD);
    }
}

static void q4_k_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += QK_K, row += Q4_K_BYTES) {
        int8_t codes[QK_K];
        float scales[Q4_K_SCALES];
        q4_k_to_u4(codes, scales, row, QK_K);
        for (size_t j = 0; j < QK_K; j++) {
            const float scale = scales[0] * scales[2 + j / QK], min = scales[1] * scales[2 + QK_BLOCKS + j / QK];
            out[i + j] = scale * (float)codes[j] + min;
        }
    }
}

// ---- Q6_K -------------------------------------------------------------------------------------------------

// Each half of 128 elements takes 64 bytes of ql and 32 of qh. Element 32 * g + m of a half (g = 0..3): low nibble g / 2 of
// ql[32 * (g % 2) + m], high two bits at shift 2 * g of qh[m]; its sub-scale is that of element / 16.
static void q6_k_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    enum { HALF = QK_K / 2, GROUP = 32, GROUPS = HALF / GROUP };
    for (size_t i = 0; i < k; i += QK_K, row += Q6_K_BYTES) {
        const uint8_t *scales = row + Q6_LOW_BYTES + Q6_HIGH_BYTES;
        const float d = load_f16(scales + QK_K / Q6_SUB);
        for (size_t e = 0; e < QK_K; e += Q6_SUB) {
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

// ---- Ternary ----------------------------------------------------------------------------------------------

// A byte holds its digits as a fraction of 256: digit n is the integer part of 3 * (b * 3^n mod 256) / 256, so 0..2 for any b.
static void tq1_digits(int8_t *restrict trits, const uint8_t *restrict bytes, size_t n_bytes, size_t n_digits) {
    unsigned power = 1;
    for (size_t n = 0; n < n_digits; n++, power *= 3) {
        for (size_t m = 0; m < n_bytes; m++) {
            const uint8_t fraction = (uint8_t)(bytes[m] * power);
            trits[n * n_bytes + m] = (int8_t)((fraction * 3 >> 8) - 1);
        }
    }
}

static float tq1_0_block(int8_t trits[QK_K], const uint8_t *block) {
    enum { NARROW_AT = TQ1_WIDE * TQ1_DIGITS, HIGH_AT = NARROW_AT + TQ1_NARROW * TQ1_DIGITS };
    tq1_digits(trits, block, TQ1_WIDE, TQ1_DIGITS);
    tq1_digits(trits + NARROW_AT, block + TQ1_WIDE, TQ1_NARROW, TQ1_DIGITS);
    tq1_digits(trits + HIGH_AT, block + TQ1_WIDE + TQ1_NARROW, TQ1_HIGH, TQ1_HIGH_DIGITS);
    return load_f16(block + TQ1_BYTES - F16_BYTES);
}

// Code 3 becomes 2, as in the reference; *largest receives at least the largest code of the block: 2 if there is one, else 1.
// Eight codes at a time in the bytes of a word.
static float tq2_0_block(int8_t codes[QK_K], int *largest, const uint8_t *block) {
    const uint64_t ones = UINT64_C(0x0101010101010101), threes = 3 * ones, tops = 0x80 * ones;
    uint64_t both_bits = 0;
    for (size_t half = 0; half < TQ2_CODE_BYTES; half += TQ2_HALF) {
        for (size_t l = 0; l < TQ2_PER_BYTE; l++) {
            for (size_t m = 0; m < TQ2_HALF; m += sizeof(uint64_t)) {
                uint64_t word;
                memcpy(&word, block + half + m, sizeof word);
                const uint64_t code = word >> (2 * l) & threes;
                both_bits |= code & code >> 1;                           // bit 0 of a byte: its code is 3
                const uint64_t less_one = ((code | tops) - ones) ^ tops; // in each byte: the top bit keeps borrows apart
                memcpy(codes + half * TQ2_PER_BYTE + l * TQ2_HALF + m, &less_one, sizeof less_one);
            }
        }
    }
    *largest = both_bits & ones ? 2 : 1;
    return load_f16(block + TQ2_BYTES - F16_BYTES);
}

static void tq1_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    int8_t trits[QK_K];
    for (size_t i = 0; i < k; i += QK_K, row += TQ1_BYTES) {
        const float d = tq1_0_block(trits, row);
        for (size_t j = 0; j < QK_K; j++) out[i + j] = d * (float)trits[j];
    }
}

static bool tq1_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / QK_K; b++, row += TQ1_BYTES) scales[b] = tq1_0_block(codes + b * QK_K, row);
    return true;
}

static void tq2_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    int8_t codes[QK_K];
    int largest;
    for (size_t i = 0; i < k; i += QK_K, row += TQ2_BYTES) {
        const float d = tq2_0_block(codes, &largest, row);
        for (size_t j = 0; j < QK_K; j++) out[i + j] = d * (float)codes[j];
    }
}

static bool tq2_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    bool ternary = true;
    for (size_t b = 0; b < k / QK_K; b++, row += TQ2_BYTES) {
        int largest;
        scales[b] = tq2_0_block(codes + b * QK_K, &largest, row);
        ternary = ternary && largest <= 1;
    }
    return ternary;
}

// ---- Four levels ------------------------------------------------------------------------------------------

static void q2_codes(int8_t *restrict codes, const uint8_t *restrict qs, size_t n) {
    for (size_t j = 0; j < n; j++) codes[j] = (int8_t)((qs[j / Q2_PER_BYTE] >> 2 * (j % Q2_PER_BYTE) & 3) - 1);
}

static void q2_to_f32(float *restrict out, const uint8_t *restrict row, size_t k, size_t block) {
    for (size_t i = 0; i < k; i += block, row += F16_BYTES + block / Q2_PER_BYTE) {
        int8_t codes[Q2_QK_OLD];
        const float d = load_f16(row);
        q2_codes(codes, row + F16_BYTES, block);
        for (size_t j = 0; j < block; j++) out[i + j] = d * (float)codes[j];
    }
}
static void q2_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) { q2_to_f32(out, row, k, Q2_QK); }
static void q2_0_old_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) { q2_to_f32(out, row, k, Q2_QK_OLD); }

static void q2_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k, size_t block) {
    for (size_t b = 0; b < k / block; b++, row += F16_BYTES + block / Q2_PER_BYTE) {
        scales[b] = load_f16(row);
        q2_codes(codes + b * block, row + F16_BYTES, block);
    }
}
static bool q2_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    q2_to_codes(codes, scales, row, k, Q2_QK);
    return true;
}
static bool q2_0_old_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    q2_to_codes(codes, scales, row, k, Q2_QK_OLD);
    return true;
}

bool tern_q2_has_two(const tern_block_type *type, const uint8_t *blocks, size_t n_blocks) {
    enum { LOW_BITS = 0x55 };
    for (size_t b = 0; b < n_blocks; b++, blocks += type->block_bytes) {
        unsigned both = 0; // low bit of each pair: some code had both bits, 3 = +2
        for (size_t i = F16_BYTES; i < type->block_bytes; i++) both |= blocks[i] & blocks[i] >> 1;
        if (both & LOW_BITS) return true;
    }
    return false;
}

// ---- Binary -------------------------------------------------------------------------------------------------

static bool q1_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / Q1_QK; b++, row += Q1_BYTES) {
        scales[b] = load_f16(row);
        for (size_t j = 0; j < Q1_QK; j++) codes[b * Q1_QK + j] = row[F16_BYTES + j / 8] >> j % 8 & 1 ? 1 : -1;
    }
    return true;
}

static void q1_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    int8_t codes[Q1_QK];
    for (size_t i = 0; i < k; i += Q1_QK, row += Q1_BYTES) {
        float d;
        q1_0_to_codes(codes, &d, row, Q1_QK);
        for (size_t j = 0; j < Q1_QK; j++) out[i + j] = codes[j] > 0 ? d : -d;
    }
}

// ---- The table --------------------------------------------------------------------------------------------

static const tern_block_type readable[] = {
    {TERN_GGML_F32, "F32", 1, sizeof(float), f32_to_f32, NULL, 0, NULL, 0, false, false, 0},
    {TERN_GGML_F16, "F16", 1, F16_BYTES, f16_to_f32, NULL, 0, NULL, 0, false, false, 0},
    {TERN_GGML_BF16, "BF16", 1, F16_BYTES, bf16_to_f32, NULL, 0, NULL, 0, false, false, 0},
    {TERN_GGML_Q8_0, "Q8_0", QK, Q8_0_BYTES, q8_0_to_f32, q8_0_to_codes, QK, NULL, 0, false, false, 0},
    {TERN_GGML_Q4_0, "Q4_0", QK, Q4_0_BYTES, q4_0_to_f32, NULL, 0, q4_0_to_u4, 1, false, false, 0},
    {TERN_GGML_Q4_1, "Q4_1", QK, Q4_1_BYTES, q4_1_to_f32, NULL, 0, q4_1_to_u4, 2, false, false, 0},
    {TERN_GGML_Q4_K, "Q4_K", QK_K, Q4_K_BYTES, q4_k_to_f32, NULL, 0, q4_k_to_u4, Q4_K_SCALES, false, false, 0},
    {TERN_GGML_Q6_K, "Q6_K", QK_K, Q6_K_BYTES, q6_k_to_f32, NULL, 0, NULL, 0, false, false, 0},
    {TERN_GGML_TQ1_0, "TQ1_0", QK_K, TQ1_BYTES, tq1_0_to_f32, tq1_0_to_codes, QK_K, NULL, 0, true, false,
     TQ1_BYTES - F16_BYTES},
    {TERN_GGML_TQ2_0, "TQ2_0", QK_K, TQ2_BYTES, tq2_0_to_f32, tq2_0_to_codes, QK_K, NULL, 0, true, false,
     TQ2_BYTES - F16_BYTES},
    {TERN_GGML_Q1_0, "Q1_0", Q1_QK, Q1_BYTES, q1_0_to_f32, q1_0_to_codes, Q1_QK, NULL, 0, true, false, 0},
    {TERN_GGML_Q2_0, "Q2_0", Q2_QK, Q2_BYTES, q2_0_to_f32, q2_0_to_codes, Q2_QK, NULL, 0, false, true, 0},
    {TERN_GGML_Q2_0, "Q2_0", Q2_QK_OLD, Q2_OLD_BYTES, q2_0_old_to_f32, q2_0_old_to_codes, Q2_QK_OLD, NULL, 0, false, true, 0},
};

const tern_block_type *tern_block_type_at(uint32_t id, size_t index) {
    for (size_t i = 0; i < sizeof readable / sizeof readable[0]; i++) {
        if (readable[i].id == id && index-- == 0) return &readable[i];
    }
    return NULL;
}

const tern_block_type *tern_block_type_find(uint32_t id) { return tern_block_type_at(id, 0); }

const tern_block_type *tern_block_type_of(uint32_t id, size_t k, size_t n, size_t bytes) {
    for (size_t i = 0; i < sizeof readable / sizeof readable[0]; i++) {
        const tern_block_type *t = &readable[i];
        size_t want;
        if (t->id == id && k % t->block_elems == 0 && tern_mul_size(k / t->block_elems * t->block_bytes, n, &want) &&
            want == bytes)
            return t;
    }
    return tern_block_type_find(id);
}

float tern_f16_to_f32(uint16_t h) { return tern_half_to_f32(h); }

uint16_t tern_f32_to_f16(float f) {
    enum { F32_MAGNITUDE = 0x7fffffff, F32_INF = 0x7f800000 };
    const uint32_t overflow = (uint32_t)(TERN_F16_REBIAS + 31) << 23; // 2^16: rounds to infinity whatever its mantissa
    const uint32_t min_normal = (uint32_t)(TERN_F16_REBIAS + 1) << 23;
    const uint32_t bits = tern_f32_to_bits(f);
    const uint16_t sign = (uint16_t)(bits >> 16 & TERN_F16_SIGN);
    const uint32_t magnitude = bits & F32_MAGNITUDE;
    if (magnitude > F32_INF) { // NaN: keep the top of the payload, made quiet
        const uint32_t payload = magnitude >> TERN_F16_SHIFT & (TERN_F16_MIN_NORMAL - 1);
        return (uint16_t)(sign | TERN_F16_INF | TERN_F16_QUIET | payload);
    }
    if (magnitude >= overflow) return (uint16_t)(sign | TERN_F16_INF);
    if (magnitude < min_normal) {
        // Adding 0.5 puts the unit of a half subnormal (2^-24) into the last mantissa bit, so the addition rounds to even.
        const float half = 0.5F;
        const float shifted = tern_bits_to_f32(magnitude) + half;
        return (uint16_t)(sign | (tern_f32_to_bits(shifted) - tern_f32_to_bits(half)));
    }
    // Round to even by adding just under half a unit, plus one if the result would be odd; a carry goes into the exponent.
    const uint32_t just_under_half = (1U << (TERN_F16_SHIFT - 1)) - 1;
    const uint32_t odd = magnitude >> TERN_F16_SHIFT & 1;
    const uint32_t rebased = magnitude - ((uint32_t)TERN_F16_REBIAS << 23);
    return (uint16_t)(sign | (rebased + just_under_half + odd) >> TERN_F16_SHIFT);
}
