// SPDX-License-Identifier: MIT
// The GGUF block types that Tern reads, sizes of their rows and matrices, and single halves.
#include <string.h>

#include "format/block_decoders.h"

static const tern_block_type *const readable[] = {
    &tern_f32_type,    &tern_f16_type,   &tern_bf16_type,  &tern_q8_0_type,     &tern_q4_0_type,
    &tern_q4_1_type,   &tern_q5_0_type,  &tern_q5_1_type,  &tern_q4_k_type,     &tern_q5_k_type,
    &tern_q6_k_type,   &tern_tq1_0_type, &tern_tq2_0_type, &tern_i2_s_type,     &tern_iq1_bn_type,
    &tern_iq2_bn_type, &tern_q1_0_type,  &tern_q2_0_type,  &tern_q2_0_old_type,
};

const tern_block_type *tern_block_type_at(uint32_t id, size_t index) {
    for (size_t i = 0; i < sizeof readable / sizeof readable[0]; i++) {
        if (readable[i]->id == id && index-- == 0) return readable[i];
    }
    return NULL;
}

const tern_block_type *tern_block_type_find(uint32_t id) { return tern_block_type_at(id, 0); }

const tern_block_type *tern_block_type_of(uint32_t id, size_t k, size_t n, size_t bytes) {
    for (size_t i = 0; i < sizeof readable / sizeof readable[0]; i++) {
        const tern_block_type *t = readable[i];
        size_t want;
        if (t->id == id && k % t->block_elems == 0 && tern_matrix_bytes(t, n, k, &want) && want == bytes) return t;
    }
    return tern_block_type_find(id);
}

size_t tern_row_bytes(const tern_block_type *type, size_t k) {
    return type->row_head + k / type->block_elems * type->block_bytes;
}

bool tern_matrix_bytes(const tern_block_type *type, size_t n, size_t k, size_t *bytes) {
    size_t blocks, rows;
    if (!tern_mul_size(k / type->block_elems, type->block_bytes, &blocks) || blocks > SIZE_MAX - type->row_head ||
        !tern_mul_size(blocks + type->row_head, n, &rows) || rows > SIZE_MAX - type->tail_bytes)
        return false;
    *bytes = rows + type->tail_bytes;
    return true;
}

float tern_matrix_scale(const tern_block_type *type, const uint8_t *data, size_t n, size_t k) {
    float scale = 1.0F;
    if (type->tail_bytes) memcpy(&scale, data + n * tern_row_bytes(type, k), sizeof scale);
    return scale;
}

void tern_row_to_f32(const tern_block_type *type, float *out, const uint8_t *data, size_t r, size_t n, size_t k) {
    type->to_f32(out, data + r * tern_row_bytes(type, k), k);
    if (!type->tail_bytes) return;
    const float scale = tern_matrix_scale(type, data, n, k);
    for (size_t i = 0; i < k; i++) out[i] *= scale;
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
