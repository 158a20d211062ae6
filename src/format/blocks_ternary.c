// SPDX-License-Identifier: MIT
// Blocks of trits, signs and four-level codes. The float arithmetic follows the gguf package, bit for bit, where that has the
// type.
#include <string.h>

#include "format/block_decoders.h"

enum { LOW_BITS = 0x55 }; // of each pair in a byte: set in b & b >> 1 where the pair is 3

// ---- TQ1_0: a byte holds five trits ------------------------------------------------------------

enum {
    TQ1_WIDE = 32,   // bytes whose digit n holds elements n * 32 + m
    TQ1_NARROW = 16, // bytes whose digit n holds elements 160 + n * 16 + m
    TQ1_HIGH = 4,    // bytes whose digit n holds elements 240 + n * 4 + m, four digits only
    TQ1_DIGITS = 5,
    TQ1_HIGH_DIGITS = 4,
    TQ1_BYTES = TQ1_WIDE + TQ1_NARROW + TQ1_HIGH + TERN_F16_BYTES // qs, qh, d
};

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

static float tq1_0_block(int8_t trits[TERN_QK_K], const uint8_t *block) {
    enum { NARROW_AT = TQ1_WIDE * TQ1_DIGITS, HIGH_AT = NARROW_AT + TQ1_NARROW * TQ1_DIGITS };
    tq1_digits(trits, block, TQ1_WIDE, TQ1_DIGITS);
    tq1_digits(trits + NARROW_AT, block + TQ1_WIDE, TQ1_NARROW, TQ1_DIGITS);
    tq1_digits(trits + HIGH_AT, block + TQ1_WIDE + TQ1_NARROW, TQ1_HIGH, TQ1_HIGH_DIGITS);
    return tern_load_f16(block + TQ1_BYTES - TERN_F16_BYTES);
}

static void tq1_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    int8_t trits[TERN_QK_K];
    for (size_t i = 0; i < k; i += TERN_QK_K, row += TQ1_BYTES) {
        const float d = tq1_0_block(trits, row);
        for (size_t j = 0; j < TERN_QK_K; j++) out[i + j] = d * (float)trits[j];
    }
}

static bool tq1_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / TERN_QK_K; b++, row += TQ1_BYTES) scales[b] = tq1_0_block(codes + b * TERN_QK_K, row);
    return true;
}

// ---- TQ2_0: two bits per trit ------------------------------------------------------------

enum {
    TQ2_HALF = 32, // bytes that hold half a block: element l * 32 + m at shift 2 l
    TQ2_PER_BYTE = 4,
    TQ2_CODE_BYTES = TERN_QK_K / TQ2_PER_BYTE,
    TQ2_BYTES = TQ2_CODE_BYTES + TERN_F16_BYTES // qs, d
};

// Code 3 becomes 2, as in the reference; *largest receives at least the largest code of the block: 2 if there is one, else 1.
// Eight codes at a time in the bytes of a word.
static float tq2_0_block(int8_t codes[TERN_QK_K], int *largest, const uint8_t *block) {
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
    return tern_load_f16(block + TQ2_BYTES - TERN_F16_BYTES);
}

static void tq2_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    int8_t codes[TERN_QK_K];
    int largest;
    for (size_t i = 0; i < k; i += TERN_QK_K, row += TQ2_BYTES) {
        const float d = tq2_0_block(codes, &largest, row);
        for (size_t j = 0; j < TERN_QK_K; j++) out[i + j] = d * (float)codes[j];
    }
}

static bool tq2_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    bool ternary = true;
    for (size_t b = 0; b < k / TERN_QK_K; b++, row += TQ2_BYTES) {
        int largest;
        scales[b] = tq2_0_block(codes + b * TERN_QK_K, &largest, row);
        ternary = ternary && largest <= 1;
    }
    return ternary;
}

// ---- I2_S (bitnet.cpp on x86): two bits per trit, one scale for the matrix
// ------------------------------------------------------------

enum {
    I2_S_PER_BYTE = 4,
    I2_S_QK = 128,
    I2_S_BYTES = I2_S_QK / I2_S_PER_BYTE, // byte p holds elements p, p + 32, p + 64, p + 96 at shifts 6, 4, 2, 0
    I2_S_TAIL = 32                        // behind the last block: the float32 scale, and padding
};

// Returns bits of LOW_BITS where a code was 3.
static unsigned i2_s_block(int8_t codes[I2_S_QK], const uint8_t *block) {
    unsigned both_bits = 0;
    for (size_t p = 0; p < I2_S_BYTES; p++) {
        both_bits |= block[p] & block[p] >> 1;
        for (size_t j = 0; j < I2_S_PER_BYTE; j++) codes[j * I2_S_BYTES + p] = (int8_t)((block[p] >> (6 - 2 * j) & 3) - 1);
    }
    return both_bits & LOW_BITS;
}

static bool i2_s_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    unsigned threes = 0;
    for (size_t i = 0; i < k; i += I2_S_QK, row += I2_S_BYTES) threes |= i2_s_block(codes + i, row);
    scales[0] = 1.0F;
    return threes == 0;
}

static void i2_s_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    for (size_t i = 0; i < k; i += I2_S_QK, row += I2_S_BYTES) {
        int8_t codes[I2_S_QK];
        i2_s_block(codes, row);
        for (size_t j = 0; j < I2_S_QK; j++) out[i + j] = (float)codes[j];
    }
}

// ---- IQ1_BN, IQ2_BN (ik_llama.cpp): a row is its scale, then blocks of 64
// ------------------------------------------------------------

enum {
    BN_QK = 64,
    IQ1_BN_HEAD = TERN_F16_BYTES,
    IQ2_BN_HEAD = sizeof(float),
    IQ2_BN_PER_BYTE = 4,
    IQ2_BN_BYTES = BN_QK / IQ2_BN_PER_BYTE, // byte j holds elements j, j + 16, j + 32, j + 48 at shifts 0, 2, 4, 6
    IQ1_BN_RUN = 16,                        // elements of three bytes of five digits, the last one in `extra`
    IQ1_BN_RUN_BYTES = 3,
    IQ1_BN_RUNS = BN_QK / IQ1_BN_RUN,
    IQ1_BN_BYTES = IQ1_BN_RUNS * IQ1_BN_RUN_BYTES + 1, // ql, extra
    IQ1_BN_DIGITS = 5
};

static float load_f32(const uint8_t *p) {
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

// Returns bits of LOW_BITS where a code was 3.
static unsigned iq2_bn_block(int8_t codes[BN_QK], const uint8_t *block) {
    unsigned both_bits = 0;
    for (size_t p = 0; p < IQ2_BN_BYTES; p++) {
        both_bits |= block[p] & block[p] >> 1;
        for (size_t j = 0; j < IQ2_BN_PER_BYTE; j++) codes[j * IQ2_BN_BYTES + p] = (int8_t)((block[p] >> 2 * j & 3) - 1);
    }
    return both_bits & LOW_BITS;
}

static bool iq2_bn_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    unsigned threes = 0;
    scales[0] = load_f32(row);
    row += IQ2_BN_HEAD;
    for (size_t i = 0; i < k; i += BN_QK, row += IQ2_BN_BYTES) threes |= iq2_bn_block(codes + i, row);
    return threes == 0;
}

static void iq2_bn_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    const float d = load_f32(row);
    row += IQ2_BN_HEAD;
    for (size_t i = 0; i < k; i += BN_QK, row += IQ2_BN_BYTES) {
        int8_t codes[BN_QK];
        iq2_bn_block(codes, row);
        for (size_t j = 0; j < BN_QK; j++) out[i + j] = d * (float)codes[j];
    }
}

// A byte holds its digits as TQ1_0's do, but the first one in the lowest place: digit n comes up with 3^(4 - n).
static int8_t iq1_bn_digit(uint8_t byte, size_t n) {
    static const uint8_t power[IQ1_BN_DIGITS] = {81, 27, 9, 3, 1};
    const uint8_t fraction = (uint8_t)(byte * power[n]);
    return (int8_t)((fraction * 3 >> 8) - 1);
}

static void iq1_bn_block(int8_t codes[BN_QK], const uint8_t *block) {
    const uint8_t extra = block[IQ1_BN_BYTES - 1];
    for (size_t r = 0; r < IQ1_BN_RUNS; r++, codes += IQ1_BN_RUN, block += IQ1_BN_RUN_BYTES) {
        for (size_t j = 0; j < IQ1_BN_RUN - 1; j++) codes[j] = iq1_bn_digit(block[j / IQ1_BN_DIGITS], j % IQ1_BN_DIGITS);
        codes[IQ1_BN_RUN - 1] = iq1_bn_digit(extra, r);
    }
}

static bool iq1_bn_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    scales[0] = tern_load_f16(row);
    row += IQ1_BN_HEAD;
    for (size_t i = 0; i < k; i += BN_QK, row += IQ1_BN_BYTES) iq1_bn_block(codes + i, row);
    return true;
}

static void iq1_bn_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) {
    const float d = tern_load_f16(row);
    row += IQ1_BN_HEAD;
    for (size_t i = 0; i < k; i += BN_QK, row += IQ1_BN_BYTES) {
        int8_t codes[BN_QK];
        iq1_bn_block(codes, row);
        for (size_t j = 0; j < BN_QK; j++) out[i + j] = d * (float)codes[j];
    }
}

// ---- Q2_0: four levels ------------------------------------------------------------

enum {
    Q2_PER_BYTE = 4,
    Q2_QK = 64,                                      // elements of a block
    Q2_QK_OLD = 128,                                 // the same in older files
    Q2_BYTES = TERN_F16_BYTES + Q2_QK / Q2_PER_BYTE, // d, qs: element j at bits 2 (j % 4) of byte j / 4
    Q2_OLD_BYTES = TERN_F16_BYTES + Q2_QK_OLD / Q2_PER_BYTE
};

static void q2_codes(int8_t *restrict codes, const uint8_t *restrict qs, size_t n) {
    for (size_t j = 0; j < n; j++) codes[j] = (int8_t)((qs[j / Q2_PER_BYTE] >> 2 * (j % Q2_PER_BYTE) & 3) - 1);
}

static void q2_to_f32(float *restrict out, const uint8_t *restrict row, size_t k, size_t block) {
    for (size_t i = 0; i < k; i += block, row += TERN_F16_BYTES + block / Q2_PER_BYTE) {
        int8_t codes[Q2_QK_OLD];
        const float d = tern_load_f16(row);
        q2_codes(codes, row + TERN_F16_BYTES, block);
        for (size_t j = 0; j < block; j++) out[i + j] = d * (float)codes[j];
    }
}
static void q2_0_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) { q2_to_f32(out, row, k, Q2_QK); }
static void q2_0_old_to_f32(float *restrict out, const uint8_t *restrict row, size_t k) { q2_to_f32(out, row, k, Q2_QK_OLD); }

static void q2_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k, size_t block) {
    for (size_t b = 0; b < k / block; b++, row += TERN_F16_BYTES + block / Q2_PER_BYTE) {
        scales[b] = tern_load_f16(row);
        q2_codes(codes + b * block, row + TERN_F16_BYTES, block);
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
    for (size_t b = 0; b < n_blocks; b++, blocks += type->block_bytes) {
        unsigned both = 0; // low bit of each pair: some code had both bits, 3 = +2
        for (size_t i = TERN_F16_BYTES; i < type->block_bytes; i++) both |= blocks[i] & blocks[i] >> 1;
        if (both & LOW_BITS) return true;
    }
    return false;
}

// ---- Q1_0: signs ------------------------------------------------------------

enum {
    Q1_QK = 128,
    Q1_BYTES = TERN_F16_BYTES + Q1_QK / 8 // d, bits: bit j % 8 of byte j / 8 set where element j is +d, else -d
};

static bool q1_0_to_codes(int8_t *restrict codes, float *restrict scales, const uint8_t *restrict row, size_t k) {
    for (size_t b = 0; b < k / Q1_QK; b++, row += Q1_BYTES) {
        scales[b] = tern_load_f16(row);
        for (size_t j = 0; j < Q1_QK; j++) codes[b * Q1_QK + j] = row[TERN_F16_BYTES + j / 8] >> j % 8 & 1 ? 1 : -1;
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

// ---- What they are ------------------------------------------------------------

const tern_block_type tern_tq1_0_type = {.id = TERN_GGML_TQ1_0,
                                         .name = "TQ1_0",
                                         .block_elems = TERN_QK_K,
                                         .block_bytes = TQ1_BYTES,
                                         .to_f32 = tq1_0_to_f32,
                                         .to_codes = tq1_0_to_codes,
                                         .code_block = TERN_QK_K,
                                         .levels = TERN_LEVELS_TRITS,
                                         .scale_at = TQ1_BYTES - TERN_F16_BYTES};
const tern_block_type tern_tq2_0_type = {.id = TERN_GGML_TQ2_0,
                                         .name = "TQ2_0",
                                         .block_elems = TERN_QK_K,
                                         .block_bytes = TQ2_BYTES,
                                         .to_f32 = tq2_0_to_f32,
                                         .to_codes = tq2_0_to_codes,
                                         .code_block = TERN_QK_K,
                                         .levels = TERN_LEVELS_TRITS,
                                         .scale_at = TQ2_BYTES - TERN_F16_BYTES};
const tern_block_type tern_i2_s_type = {.id = TERN_GGML_I2_S,
                                        .name = "I2_S",
                                        .block_elems = I2_S_QK,
                                        .block_bytes = I2_S_BYTES,
                                        .to_f32 = i2_s_to_f32,
                                        .to_codes = i2_s_to_codes,
                                        .levels = TERN_LEVELS_TRITS,
                                        .tail_bytes = I2_S_TAIL};
const tern_block_type tern_iq1_bn_type = {.id = TERN_GGML_IQ1_BN,
                                          .name = "IQ1_BN",
                                          .block_elems = BN_QK,
                                          .block_bytes = IQ1_BN_BYTES,
                                          .to_f32 = iq1_bn_to_f32,
                                          .to_codes = iq1_bn_to_codes,
                                          .levels = TERN_LEVELS_TRITS,
                                          .row_head = IQ1_BN_HEAD};
const tern_block_type tern_iq2_bn_type = {.id = TERN_GGML_IQ2_BN,
                                          .name = "IQ2_BN",
                                          .block_elems = BN_QK,
                                          .block_bytes = IQ2_BN_BYTES,
                                          .to_f32 = iq2_bn_to_f32,
                                          .to_codes = iq2_bn_to_codes,
                                          .levels = TERN_LEVELS_TRITS,
                                          .row_head = IQ2_BN_HEAD};
const tern_block_type tern_q1_0_type = {.id = TERN_GGML_Q1_0,
                                        .name = "Q1_0",
                                        .block_elems = Q1_QK,
                                        .block_bytes = Q1_BYTES,
                                        .to_f32 = q1_0_to_f32,
                                        .to_codes = q1_0_to_codes,
                                        .code_block = Q1_QK,
                                        .levels = TERN_LEVELS_SIGNS};
const tern_block_type tern_q2_0_type = {.id = TERN_GGML_Q2_0,
                                        .name = "Q2_0",
                                        .block_elems = Q2_QK,
                                        .block_bytes = Q2_BYTES,
                                        .to_f32 = q2_0_to_f32,
                                        .to_codes = q2_0_to_codes,
                                        .code_block = Q2_QK,
                                        .levels = TERN_LEVELS_FOUR};
const tern_block_type tern_q2_0_old_type = {.id = TERN_GGML_Q2_0,
                                            .name = "Q2_0",
                                            .block_elems = Q2_QK_OLD,
                                            .block_bytes = Q2_OLD_BYTES,
                                            .to_f32 = q2_0_old_to_f32,
                                            .to_codes = q2_0_old_to_codes,
                                            .code_block = Q2_QK_OLD,
                                            .levels = TERN_LEVELS_FOUR};
