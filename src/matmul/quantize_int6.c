// SPDX-License-Identifier: MIT
// Float rows to the codes and scales of layout I6B32: each block's scale is searched for the least squared error.
#include <float.h>
#include <math.h>
#include <xmmintrin.h>

#include "matmul/build.h"
#include "matmul/pack_int6.h"

enum { STEPS = 8, LANES = 4, PARTS = STEPS / LANES }; // scales tried for a block of 6-bit codes, so many of them at once

static const float rounder = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number

// The code nearest to x / d within -most..most.
static inline float nearest(float x, float inverse, float most) {
    float q = x * inverse;
    q = q > most ? most : q < -most ? -most : q;
    return (q + rounder) - rounder;
}

// The squared errors of a block, padded with zeros, with each of STEPS scales d. Side by side, because each sum has an order of
// its own.
static void measure(float error[STEPS], const float *x, const float d[STEPS], float most) {
    __m128 sum[PARTS], scale[PARTS], inverse[PARTS];
    const __m128 top = _mm_set1_ps(most), bottom = _mm_set1_ps(-most), round = _mm_set1_ps(rounder);
    for (size_t p = 0; p < PARTS; p++) {
        sum[p] = _mm_setzero_ps();
        scale[p] = _mm_loadu_ps(d + p * LANES);
        inverse[p] = _mm_div_ps(_mm_set1_ps(1.0f), scale[p]);
    }
    for (size_t i = 0; i < TERN_I6_BLOCK; i++) {
        const __m128 value = _mm_set1_ps(x[i]);
        for (size_t p = 0; p < PARTS; p++) {
            const __m128 q = _mm_max_ps(bottom, _mm_min_ps(top, _mm_mul_ps(value, inverse[p])));
            const __m128 back = _mm_mul_ps(_mm_sub_ps(_mm_add_ps(q, round), round), scale[p]);
            const __m128 e = _mm_sub_ps(back, value);
            sum[p] = _mm_add_ps(sum[p], _mm_mul_ps(e, e));
        }
    }
    for (size_t p = 0; p < PARTS; p++) _mm_storeu_ps(error + p * LANES, sum[p]);
}

// The largest |x|.
static float largest(const float *x, size_t n) {
    const __m128 sign = _mm_set1_ps(-0.0f);
    __m128 most = _mm_setzero_ps();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) most = _mm_max_ps(most, _mm_andnot_ps(sign, _mm_loadu_ps(x + i)));
    float lanes[LANES], all = 0;
    _mm_storeu_ps(lanes, most);
    for (size_t l = 0; l < LANES; l++) all = lanes[l] > all ? lanes[l] : all;
    for (; i < n; i++) all = fabsf(x[i]) > all ? fabsf(x[i]) : all;
    return all;
}

// Codes of one block; returns its s. A smaller s than reaches the largest value cuts that, for finer steps of all others.
static float choose_scale(int8_t *codes, const float *x, size_t count, float of_row, int code_max) {
    static const float cut_most = 0.16f;
    float block[TERN_I6_BLOCK] = {0};
    for (size_t i = 0; i < count; i++) block[i] = x[i];
    const float most = (float)code_max, reach = ceilf(largest(block, count) / (most * of_row));
    const float top = reach > TERN_I6_SCALE_MAX ? TERN_I6_SCALE_MAX : reach;
    float best = top;
    if (top > 0 && code_max == TERN_I6_CODE_MAX) {
        float scale[STEPS], d[STEPS], error[STEPS];
        for (size_t step = 0; step < STEPS; step++) {
            scale[step] = rintf(top * (1.0f - cut_most * (float)step / STEPS));
            d[step] = of_row * scale[step];
        }
        measure(error, block, d, most);
        size_t least = 0;
        for (size_t step = 1; step < STEPS; step++) least = error[step] < error[least] ? step : least;
        best = scale[least];
    }
    const float inverse = top > 0 ? 1.0f / (of_row * best) : 0;
    for (size_t i = 0; i < count; i++) codes[i] = (int8_t)nearest(x[i], inverse, most);
    return best;
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
