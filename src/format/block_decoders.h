// SPDX-License-Identifier: MIT
// What the files of block decoders share, and their decoders for the one table in blocks.c.
#ifndef TERN_FORMAT_BLOCK_DECODERS_H
#define TERN_FORMAT_BLOCK_DECODERS_H

#include "format/blocks.h"
#include "format/half.h"

enum {
    TERN_QK = 32,    // elements of a Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 block
    TERN_QK_K = 256, // elements of a Q4_K, Q5_K, Q6_K, TQ1_0, TQ2_0 block
    TERN_F16_BYTES = 2
};

static inline float tern_load_f16(const uint8_t *p) { return tern_half_to_f32(tern_load_u16(p)); }

// blocks_32.c: floats, and blocks of 32.
extern const tern_block_type tern_f32_type, tern_f16_type, tern_bf16_type;
extern const tern_block_type tern_q8_0_type, tern_q4_0_type, tern_q4_1_type, tern_q5_0_type, tern_q5_1_type;
// blocks_k.c: super-blocks of 256 with scales of their own per 32 or 16.
extern const tern_block_type tern_q4_k_type, tern_q5_k_type, tern_q6_k_type;
// blocks_ternary.c: one, two and log2(3) bits per weight.
extern const tern_block_type tern_tq1_0_type, tern_tq2_0_type, tern_i2_s_type, tern_iq1_bn_type, tern_iq2_bn_type;
extern const tern_block_type tern_q1_0_type, tern_q2_0_type, tern_q2_0_old_type;

#endif
