// SPDX-License-Identifier: MIT
// Tables of partial dot products in plain C: the reference of the byte planes of T5 and T2N.
#include <string.h>

#include "kernels.h"

// The activations of one group, zero past k.
static void load_group(int32_t *restrict x, const int8_t *restrict q, size_t k, size_t first, size_t n) {
    for (size_t j = 0; j < n; j++) x[j] = first + j < k ? q[first + j] : 0;
}

// lo in -step/2 .. step/2 - 1, value = lo + step * hi. offset: a multiple of step that makes value + step/2 + offset positive.
static void split(int8_t *restrict lo, int8_t *restrict hi, int32_t value, int32_t step, int32_t offset) {
    const int32_t h = (value + step / 2 + offset) / step - offset / step;
    *lo = (int8_t)(value - step * h);
    *hi = (int8_t)h;
}

void tern_lut_build_t5_scalar(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1) {
    for (size_t r = row0; r < row1; r++) {
        int8_t *lo = tables + r * TERN_T5_TABLE_BYTES, *hi = lo + TERN_T5_TABLE_BYTES / 2;
        int32_t x[TERN_T5_TRITS];
        load_group(x, q, k, r * TERN_T5_TRITS, TERN_T5_TRITS);
        memset(lo, 0, TERN_T5_TABLE_BYTES);
        for (int32_t e = 0; e < TERN_T5_ENTRIES; e++) {
            int32_t value = 0;
            for (int32_t j = 0, rest = e; j < TERN_T5_TRITS; j++) {
                const int32_t trit = (rest + 1) % 3 - 1; // balanced base 3: rest stays >= 0
                value += trit * x[j];
                rest = (rest - trit) / 3;
            }
            split(lo + e, hi + e, value, TERN_T5_STEP, TERN_T5_STEP * TERN_T5_ENTRIES);
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
        for (int32_t nibble = 0; nibble < 2; nibble++)
            for (int32_t e = 0; e < TERN_T2N_ENTRIES; e++) {
                const int32_t value = (e % 3 - 1) * x[2 * nibble] + (e / 3 - 1) * x[2 * nibble + 1];
                int8_t *lo = table + nibble * HALF + e;
                split(lo, lo + PLANE, value, TERN_T2N_STEP, TERN_T2N_STEP * TERN_T2N_TABLE_BYTES);
            }
    }
}
