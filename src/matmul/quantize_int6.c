// SPDX-License-Identifier: MIT
// Float rows to the codes and scales of layout I6B32: each block's scale is searched for the least squared error.
#include <float.h>
#include <math.h>

#include "matmul/build.h"
#include "matmul/pack_int6.h"

enum { STEPS = 8 }; // scales tried for a block of 6-bit codes

typedef struct fit {
    float codes[TERN_I6_BLOCK];
    float error;
} fit;

// The codes nearest to x / d within -most..most, and their squared error. x: a block, padded with zeros.
static void fit_block(fit *f, const float *x, float d, float most) {
    const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number
    const float inverse = 1.0f / d;
    f->error = 0;
    for (size_t i = 0; i < TERN_I6_BLOCK; i++) {
        float q = x[i] * inverse;
        q = q > most ? most : q < -most ? -most : q;
        f->codes[i] = (q + magic) - magic;
        const float e = f->codes[i] * d - x[i];
        f->error += e * e;
    }
}

static float largest(const float *x, size_t n) {
    float most = 0;
    for (size_t i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

// Codes of one block; returns its s. A smaller s than reaches the largest value cuts that, for finer steps of all others.
static float choose_scale(int8_t *codes, const float *x, size_t count, float of_row, int code_max) {
    static const float cut_most = 0.16f;
    float block[TERN_I6_BLOCK] = {0};
    for (size_t i = 0; i < count; i++) block[i] = x[i];
    const float most = (float)code_max, reach = ceilf(largest(block, count) / (most * of_row));
    const float top = reach > TERN_I6_SCALE_MAX ? TERN_I6_SCALE_MAX : reach;
    const size_t steps = code_max == TERN_I6_CODE_MAX ? STEPS : 1;
    fit best = {.error = INFINITY}, f;
    float s_best = 0, s_last = 0;
    for (size_t step = 0; step < steps && top > 0; step++) {
        const float s = rintf(top * (1.0f - cut_most * (float)step / STEPS));
        if (s == s_last) continue;
        s_last = s;
        fit_block(&f, block, of_row * s, most);
        if (f.error < best.error || s_best == 0) {
            best = f;
            s_best = s;
        }
    }
    for (size_t i = 0; i < count; i++) codes[i] = s_best > 0 ? (int8_t)best.codes[i] : 0;
    return s_best;
}

const char *tern_quantize_row_int6(int8_t *codes, float *scales, const float *x, size_t k) {
    for (size_t i = 0; i < k; i++)
        if (!isfinite(x[i])) return "a value is NaN or infinite";
    float unit = 0; // what a code of 1 must be worth in the coarsest block
    for (size_t k0 = 0; k0 < k; k0 += TERN_I6_BLOCK) {
        const size_t count = k - k0 < TERN_I6_BLOCK ? k - k0 : TERN_I6_BLOCK;
        const float need = largest(x + k0, count) / (float)tern_i6_code_max(k, k0);
        unit = need > unit ? need : unit;
    }
    float of_row = unit / (float)TERN_I6_SCALE_MAX;
    if (of_row < FLT_MIN) of_row = 0; // its inverse would not be finite
    scales[0] = of_row;
    for (size_t k0 = 0, b = 0; k0 < k; k0 += TERN_I6_BLOCK, b++) {
        const size_t count = k - k0 < TERN_I6_BLOCK ? k - k0 : TERN_I6_BLOCK;
        if (of_row > 0) {
            scales[1 + b] = choose_scale(codes + k0, x + k0, count, of_row, tern_i6_code_max(k, k0));
            continue;
        }
        scales[1 + b] = 0;
        for (size_t i = 0; i < count; i++) codes[k0 + i] = 0;
    }
    return NULL;
}
