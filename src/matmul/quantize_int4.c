// SPDX-License-Identifier: MIT
// Float rows to 4-bit codes with a scale and a min per block: the ends of the range are searched for the least squared error.
#include <math.h>

#include "format/blocks.h"
#include "matmul/build.h"
#include "matmul/pack_int4.h"

// A block of up to TERN_I4_BLOCK values, padded with its first one, so that loops have a fixed length.
typedef struct fit {
    float d, m;
    float codes[TERN_I4_BLOCK];
} fit;

static float to_half(float x) { return tern_f16_to_f32(tern_f32_to_f16(x)); }

// The codes nearest to (x - m) / d.
static void set_codes(fit *f, const float *x) {
    const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number
    const float most = (float)TERN_I4_CODE_MAX, inverse = f->d > 0 ? 1.0f / f->d : 0.0f;
    for (size_t i = 0; i < TERN_I4_BLOCK; i++) {
        float q = (x[i] - f->m) * inverse;
        q = q < 0 ? 0 : q > most ? most : q;
        f->codes[i] = (q + magic) - magic;
    }
}

// The d and m of least squared error for the codes, as float16.
static void fit_line(fit *f, const float *x) {
    const float n = TERN_I4_BLOCK;
    float q = 0, qq = 0, v = 0, qv = 0;
    for (size_t i = 0; i < TERN_I4_BLOCK; i++) {
        q += f->codes[i];
        qq += f->codes[i] * f->codes[i];
        v += x[i];
        qv += f->codes[i] * x[i];
    }
    const float spread = n * qq - q * q;
    if (!(spread > 0)) return;
    const float d = (n * qv - q * v) / spread;
    if (!(d > 0)) return;
    f->d = to_half(d);
    f->m = to_half((v - d * q) / n);
}

static float squared_error(const fit *f, const float *x) {
    float sum = 0;
    for (size_t i = 0; i < TERN_I4_BLOCK; i++) {
        const float e = f->d * f->codes[i] + f->m - x[i];
        sum += e * e;
    }
    return sum;
}

static fit fit_block(const float *x) {
    enum { STEPS = 8, ROUNDS = 2 };
    static const float cut_most = 0.16f; // of the range, shared by its ends
    float low = x[0], high = x[0];
    for (size_t i = 1; i < TERN_I4_BLOCK; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    fit best = {.d = 0};
    float least = INFINITY;
    for (size_t step = 0; step < STEPS; step++) {
        const float cut = cut_most * (float)step / STEPS * (high - low) / 2;
        fit f = {.m = to_half(low + cut), .d = to_half((high - low - 2 * cut) / (float)TERN_I4_CODE_MAX)};
        for (size_t round = 0; round <= ROUNDS; round++) {
            if (round > 0) fit_line(&f, x);
            set_codes(&f, x);
            const float error = squared_error(&f, x); // rounding d and m to float16 may make it larger again
            if (error < least || (step == 0 && round == 0)) {
                least = error;
                best = f;
            }
        }
    }
    return best;
}

const char *tern_quantize_row_int4(int8_t *codes, float *scales, const float *x, size_t k) {
    for (size_t k0 = 0, b = 0; k0 < k; k0 += TERN_I4_BLOCK, b++) {
        const size_t count = k - k0 < TERN_I4_BLOCK ? k - k0 : TERN_I4_BLOCK;
        float block[TERN_I4_BLOCK];
        for (size_t i = 0; i < TERN_I4_BLOCK; i++) {
            block[i] = x[k0 + (i < count ? i : 0)];
            if (!isfinite(block[i])) return "a value is NaN or infinite";
        }
        const fit f = fit_block(block);
        for (size_t i = 0; i < count; i++) codes[k0 + i] = (int8_t)f.codes[i];
        scales[2 * b] = f.d;
        scales[2 * b + 1] = f.m;
    }
    return NULL;
}
