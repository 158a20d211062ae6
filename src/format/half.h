// SPDX-License-Identifier: MIT
// Half and bfloat16 conversions by integer arithmetic, branch-free where rows of them are converted.
#ifndef TERN_FORMAT_HALF_H
#define TERN_FORMAT_HALF_H

#include <stdint.h>
#include <string.h>

enum {
    TERN_F16_SIGN = 0x8000,
    TERN_F16_MAGNITUDE = 0x7fff,
    TERN_F16_INF = 0x7c00,
    TERN_F16_MIN_NORMAL = 0x0400,
    TERN_F16_QUIET = 0x0200,
    TERN_F16_SHIFT = 13,       // 23 - 10 mantissa bits
    TERN_F16_REBIAS = 127 - 15 // exponent bias of f32 minus that of f16
};

static inline float tern_bits_to_f32(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t tern_f32_to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float tern_half_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & TERN_F16_SIGN) << 16;
    const uint32_t magnitude = h & TERN_F16_MAGNITUDE;
    const uint32_t normal = (magnitude << TERN_F16_SHIFT) + ((uint32_t)TERN_F16_REBIAS << 23);
    // Exponent 31 (infinity, NaN) must become 255: another rebias on top of the first.
    const uint32_t special = normal + ((uint32_t)TERN_F16_REBIAS << 23);
    // Subnormal m * 2^-24: as the mantissa of 2^-14 * (1 + m / 1024), less 2^-14. The difference is exact.
    const uint32_t one_up = (uint32_t)(TERN_F16_REBIAS + 1) << 23;
    const uint32_t subnormal =
        tern_f32_to_bits(tern_bits_to_f32((magnitude << TERN_F16_SHIFT) + one_up) - tern_bits_to_f32(one_up));
    uint32_t bits = magnitude < TERN_F16_MIN_NORMAL ? subnormal : normal;
    bits = magnitude >= TERN_F16_INF ? special : bits;
    return tern_bits_to_f32(bits | sign);
}

static inline float tern_bfloat_to_f32(uint16_t h) { return tern_bits_to_f32((uint32_t)h << 16); }

// Little-endian 16-bit load from any address.
static inline uint16_t tern_load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#endif
