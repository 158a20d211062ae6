// SPDX-License-Identifier: MIT
// Tables of partial dot products in plain C: the reference of the byte planes of every layout.
#include <string.h>

#include "kernels.h"

// The activations of one group, zero past k.
static void load_group(int32_t *restrict x, const int8_t *restrict q, size_t k, size_t first, size_t n) {
    for (size_t j = 0; j < n; j++) x[j] = first + j < k ? q[first + j] : 0;
}

// lo in -step/2 .. step/2 - 1 (step/2 for an odd step), value = lo + step * hi. offset: a multiple of step that makes value +
// step/2 + offset positive.
static inline void split(int8_t *restrict lo, int8_t *restrict hi, int32_t value, int32_t step, int32_t offset) {
    const int32_t h = (value + step / 2 + offset) / step - offset / step;
    *lo = (int8_t)(value - step * h);
    *hi = (int8_t)h;
}

// sums[i] = sum of t_j * x[j] over the three balanced base-3 digits t_j of first + i.
static void partial_sums(int32_t *restrict sums, const int32_t *restrict x, int32_t first, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        const int32_t digits = first + i + 13; // 13 = 111 in base 3: digits 0..2
        sums[i] = (digits % 3 - 1) * x[0] + (digits / 3 % 3 - 1) * x[1] + (digits / 9 - 1) * x[2];
    }
}

// value = lo + step * hi, hi = value / step to the nearest, halves towards zero.
static inline void split_even(int8_t *restrict lo, int8_t *restrict hi, int32_t value, int32_t step) {
    const int32_t h = (value < 0 ? value - (step / 2 - 1) : value + (step / 2 - 1)) / step;
    *lo = (int8_t)(value - step * h);
    *hi = (int8_t)h;
}

void tern_lut_build_t5_scalar(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    enum { LOW_CODES = 9, HIGH_CODES = 14 }; // entry = 9 * high + low: low of two trits is -4..4, high of three trits is 0..13
    for (size_t r = row0; r < row1; r++) {
        int8_t *lo = tables + r * TERN_T5_TABLE_BYTES, *hi = lo + TERN_T5_TABLE_BYTES / 2;
        int32_t x[TERN_T5_TRITS], low[LOW_CODES], high[HIGH_CODES];
        load_group(x, q, k, r * TERN_T5_TRITS, TERN_T5_TRITS);
        partial_sums(low, (const int32_t[]){x[0], x[1], 0}, -(LOW_CODES / 2), LOW_CODES);
        partial_sums(high, x + 2, 0, HIGH_CODES);
        memset(lo, 0, TERN_T5_TABLE_BYTES);
        for (int32_t e = 0; e < TERN_T5_ENTRIES; e++) {
            const int32_t shifted = e + LOW_CODES / 2;
            split_even(lo + e, hi + e, high[shifted / LOW_CODES] + low[shifted % LOW_CODES], TERN_T5_STEP);
        }
    }
}

void tern_lut_build_t2n_scalar(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    enum { HALF = TERN_T2N_TABLE_BYTES / 2, PLANE = HALF / 2 };
    for (size_t r = row0; r < row1; r++) {
        int8_t *table = tables + r * TERN_T2N_TABLE_BYTES;
        int32_t x[TERN_T2N_TRITS];
        load_group(x, q, k, r * TERN_T2N_TRITS, TERN_T2N_TRITS);
        memset(table, 0, TERN_T2N_TABLE_BYTES);
        for (size_t nibble = 0; nibble < 2; nibble++)
            for (int32_t e = 0; e < TERN_T2N_ENTRIES; e++) {
                const int32_t value = (e % 3 - 1) * x[2 * nibble] + (e / 3 - 1) * x[2 * nibble + 1];
                int8_t *lo = table + nibble * HALF + e;
                split(lo, lo + PLANE, value, TERN_T2N_STEP, TERN_T2N_STEP * TERN_T2N_STEP);
            }
    }
}

void tern_lut_build_t3_scalar(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    enum { HALF = TERN_T3_TABLE_BYTES / 2, PLANE = HALF / 2 };
    for (size_t r = row0; r < row1; r++) {
        int8_t *table = tables + r * TERN_T3_TABLE_BYTES;
        memset(table, 0, TERN_T3_TABLE_BYTES);
        for (size_t group = 0; group < 2; group++) {
            int32_t x[TERN_T3_TRITS], sums[TERN_T3_ENTRIES];
            load_group(x, q, k, r * TERN_T3_PAIR_K + group * TERN_T3_TRITS, TERN_T3_TRITS);
            partial_sums(sums, x, 0, TERN_T3_ENTRIES);
            for (size_t e = 0; e < TERN_T3_ENTRIES; e++) {
                int8_t *lo = table + group * HALF + e;
                split(lo, lo + PLANE, sums[e], TERN_T3_STEP, TERN_T3_STEP * TERN_T3_STEP);
            }
        }
    }
}

void tern_lut_build_b1_scalar(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    enum { GROUP_K = TERN_B1_SIGNS / 2, HALF = TERN_B1_TABLE_BYTES / 2, PLANE = HALF / 2 };
    for (size_t g = 2 * row0; g < 2 * row1; g++) {
        int32_t x[GROUP_K];
        load_group(x, q, k, g * GROUP_K, GROUP_K);
        for (size_t e = 0; e < PLANE; e++) {
            int32_t value = 0;
            for (size_t j = 0; j < GROUP_K; j++) value += e >> j & 1 ? x[j] : -x[j];
            int8_t *lo = tables + g * HALF + e;
            split(lo, lo + PLANE, (value - (value & 1)) / 2, TERN_T2N_STEP, TERN_T2N_STEP * TERN_T2N_STEP);
        }
    }
}
