// SPDX-License-Identifier: MIT
// The trits of every table entry, in the order in which the vector table builders compute them.
//
// A builder multiplies activations biased to unsigned, x + 128, by these trits (vpmaddubsw); the bias costs 128 * (sum of
// trits) per entry, a constant. Its int16 results are narrowed by vpackswb, which takes eight entries from one vector, then
// eight from the other: so entries stand in octets 0, 2, 4, 6, 1, 3, 5, 7 of each 64.
#ifndef TERN_KERNELS_LUT_PATTERNS_H
#define TERN_KERNELS_LUT_PATTERNS_H

#include "layout.h"

enum {
    TERN_X_BIAS = 128,
    TERN_X_ZERO = 0x80,                            // a zero activation plus its bias, as a byte
    TERN_T5_RECIPROCAL = (1 << 15) / TERN_T5_STEP, // rounded down: vpmulhrsw(v, it) is v / 36 to the nearest, halves towards 0
    TERN_T2N_HALF_STEP = TERN_T2N_STEP / 2
};

// F(e) for the eight entries of an octet, and for the 64 entries from `e` on in packing order.
#define TERN_OCTET(F, e) F((e)) F((e) + 1) F((e) + 2) F((e) + 3) F((e) + 4) F((e) + 5) F((e) + 6) F((e) + 7)
#define TERN_EVEN_OCTETS(F, e) TERN_OCTET(F, (e)) TERN_OCTET(F, (e) + 16) TERN_OCTET(F, (e) + 32) TERN_OCTET(F, (e) + 48)
#define TERN_T5_ALL(F) TERN_EVEN_OCTETS(F, 0) TERN_EVEN_OCTETS(F, 8) TERN_EVEN_OCTETS(F, 64) TERN_EVEN_OCTETS(F, 72)

// Balanced base-3 digit of weight `power` of entry e (adding 121 = 11111 in base 3 makes digits 0..2); 0 past the last entry.
#define TERN_T5_TRIT(e, power) ((e) < TERN_T5_ENTRIES ? ((e) + TERN_T5_ENTRIES - 1) / (power) % 3 - 1 : 0)
#define TERN_T5_TRIT_SUM(e)                                                                                                    \
    (TERN_T5_TRIT(e, 1) + TERN_T5_TRIT(e, 3) + TERN_T5_TRIT(e, 9) + TERN_T5_TRIT(e, 27) + TERN_T5_TRIT(e, 81))
#define TERN_T5_PAIR01(e) TERN_T5_TRIT(e, 1), TERN_T5_TRIT(e, 3),
#define TERN_T5_PAIR23(e) TERN_T5_TRIT(e, 9), TERN_T5_TRIT(e, 27),
#define TERN_T5_PAIR4(e) TERN_T5_TRIT(e, 81), 0,
#define TERN_T5_OFFSET(e) -TERN_X_BIAS *TERN_T5_TRIT_SUM(e),

enum { TERN_T5_PLANE = 128 }; // entries of a table, 122 used

_Alignas(64) static const int8_t tern_t5_pairs[3][2 * TERN_T5_PLANE] = {
    {TERN_T5_ALL(TERN_T5_PAIR01)}, {TERN_T5_ALL(TERN_T5_PAIR23)}, {TERN_T5_ALL(TERN_T5_PAIR4)}};
// Undoes the bias.
_Alignas(64) static const int16_t tern_t5_offsets[TERN_T5_PLANE] = {TERN_T5_ALL(TERN_T5_OFFSET)};

// T2N: 16 entries in natural order, 9 used; t0 = e % 3 - 1, t1 = e / 3 - 1.
enum {
    TERN_T2N_PLANE = 16,
    TERN_T2N_HI_OFFSET = 11,   // |value| <= 256, so value + 12 + 11 * 24 is in 20..532: never negative
    TERN_T2N_RECIPROCAL = 2731 // ceil(2^16 / 24): (u * 2731) >> 16 = u / 24 for 0 <= u < 8192
};
#define TERN_T2N_T0(e) ((e) < TERN_T2N_ENTRIES ? (e) % 3 - 1 : 0)
#define TERN_T2N_T1(e) ((e) < TERN_T2N_ENTRIES ? (e) / 3 - 1 : 0)
#define TERN_T2N_PAIR(e) TERN_T2N_T0(e), TERN_T2N_T1(e),
#define TERN_T2N_OFFSET(e)                                                                                                     \
    TERN_T2N_HI_OFFSET *TERN_T2N_STEP + TERN_T2N_HALF_STEP - TERN_X_BIAS *(TERN_T2N_T0(e) + TERN_T2N_T1(e)),
#define TERN_T2N_ALL(F) TERN_OCTET(F, 0) TERN_OCTET(F, 8)

// Twice: one per nibble of a byte row.
_Alignas(64) static const int8_t tern_t2n_pairs[4 * TERN_T2N_PLANE] = {TERN_T2N_ALL(TERN_T2N_PAIR) TERN_T2N_ALL(TERN_T2N_PAIR)};
_Alignas(64) static const int16_t tern_t2n_offsets[2 * TERN_T2N_PLANE] = {TERN_T2N_ALL(TERN_T2N_OFFSET)
                                                                              TERN_T2N_ALL(TERN_T2N_OFFSET)};

// B1: bit j of the entry is the sign of activation j; the signs of activations 0, 1 and of 2, 3.
#define TERN_B1_SIGN(e, j) ((e) >> (j)&1 ? 1 : -1)
#define TERN_B1_PAIR01(e) TERN_B1_SIGN(e, 0), TERN_B1_SIGN(e, 1),
#define TERN_B1_PAIR23(e) TERN_B1_SIGN(e, 2), TERN_B1_SIGN(e, 3),
#define TERN_B1_BIAS(e) -TERN_X_BIAS *(TERN_B1_SIGN(e, 0) + TERN_B1_SIGN(e, 1) + TERN_B1_SIGN(e, 2) + TERN_B1_SIGN(e, 3)),
_Alignas(64) static const int8_t tern_b1_pairs01[2 * TERN_T2N_PLANE] = {TERN_T2N_ALL(TERN_B1_PAIR01)};
_Alignas(64) static const int8_t tern_b1_pairs23[2 * TERN_T2N_PLANE] = {TERN_T2N_ALL(TERN_B1_PAIR23)};
_Alignas(64) static const int16_t tern_b1_biases[TERN_T2N_PLANE] = {TERN_T2N_ALL(TERN_B1_BIAS)};

// T3: 16 entries in natural order, 14 used; balanced base-3 digits of the entry (adding 13 = 111 in base 3 makes digits 0..2).
enum {
    TERN_T3_HALF_STEP = TERN_T3_STEP / 2,
    TERN_T3_HI_OFFSET = 12,   // |value| <= 384, so value + 15 + 12 * 31 is in 3..771: never negative
    TERN_T3_RECIPROCAL = 2115 // ceil(2^16 / 31): (u * 2115) >> 16 = u / 31 for 0 <= u < 2259
};
#define TERN_T3_TRIT(e, power) ((e) < TERN_T3_ENTRIES ? ((e) + TERN_T3_ENTRIES - 1) / (power) % 3 - 1 : 0)
#define TERN_T3_PAIR01(e) TERN_T3_TRIT(e, 1), TERN_T3_TRIT(e, 3),
#define TERN_T3_PAIR2(e) TERN_T3_TRIT(e, 9), 0,
#define TERN_T3_OFFSET(e)                                                                                                      \
    TERN_T3_HI_OFFSET *TERN_T3_STEP + TERN_T3_HALF_STEP -                                                                      \
        TERN_X_BIAS *(TERN_T3_TRIT(e, 1) + TERN_T3_TRIT(e, 3) + TERN_T3_TRIT(e, 9)),
#define TERN_T3_ALL(F) TERN_OCTET(F, 0) TERN_OCTET(F, 8)

enum { TERN_T3_PLANE = 16 };
_Alignas(64) static const int8_t tern_t3_pairs01[2 * TERN_T3_PLANE] = {TERN_T3_ALL(TERN_T3_PAIR01)};
_Alignas(64) static const int8_t tern_t3_pairs2[2 * TERN_T3_PLANE] = {TERN_T3_ALL(TERN_T3_PAIR2)};
_Alignas(64) static const int16_t tern_t3_offsets[TERN_T3_PLANE] = {TERN_T3_ALL(TERN_T3_OFFSET)};

#endif
