// SPDX-License-Identifier: MIT
// Half products of a screened head for baseline x86-64: the readable meaning of the layout I8S32 and of its marks.
#include "kernels.h"

#include <string.h>

#include "half.h"

enum { LANES = 8, LANE_K = 4, SCALE_BYTES = 2, BLOCKS = TERN_I8S_SUPER_K / TERN_I8S_BLOCK };

static float scale_of(const uint8_t *scales, const tern_half_token *token, size_t b) {
    return half_to_float(scales + b * SCALE_BYTES) * token->scales[b];
}

// Lanes of a half product. |sum| <= 4 * 15 * 128 = 7680.
static void half_product(float lanes[LANES], const uint8_t *scales, const uint8_t *codes, const tern_half_token *token,
                         size_t blocks) {
    float parts[BLOCKS][LANES] = {{0}};
    for (size_t b0 = 0; b0 < blocks; b0 += LANES) {
        const size_t n = blocks - b0 < LANES ? blocks - b0 : LANES;
        for (size_t l = 0; l < n; l++) parts[0][l] += scale_of(scales, token, b0 + l) * token->shifts[b0 + l];
        for (size_t b = b0; b < b0 + n; b++) {
            const uint8_t *nibbles = codes + b / BLOCKS * TERN_I8S_CODES;
            const int8_t *x = token->x + b * TERN_I8S_BLOCK;
            const float scale = scale_of(scales, token, b);
            for (size_t l = 0; l < LANES; l++) {
                int32_t sum = 0;
                for (size_t j = l * LANE_K; j < (l + 1) * LANE_K; j++)
                    sum += (b % BLOCKS ? nibbles[j] >> 4 : nibbles[j] & 15) * x[j];
                parts[b % BLOCKS][l] += (float)sum * scale;
            }
        }
    }
    for (size_t l = 0; l < LANES; l++) lanes[l] = parts[0][l] + parts[1][l];
}

static float sum_lanes(const float l[LANES]) { return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7])); }

// The float32 whose upper half stands at p.
static float widen(const uint8_t *p) {
    enum { UPPER = 16 };
    const uint32_t bits = ((uint32_t)p[0] | (uint32_t)p[1] << 8) << UPPER;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

void tern_screen_scalar(const tern_screen_args *args) {
    const size_t supers = tern_i8s_supers(args->k);
    for (size_t i = 0; i < args->n; i++) {
        const uint8_t *row = args->packed + tern_i8s_upper_at(i, args->k);
        const uint8_t *marks = args->marks + i / TERN_SCREEN_GROUP * TERN_SCREEN_GROUP_BYTES;
        const size_t in_group = i % TERN_SCREEN_GROUP;
        const int8_t *codes = (const int8_t *)marks + in_group * TERN_SCREEN_DIRECTIONS;
        const float step = widen(marks + TERN_SCREEN_STEPS + in_group * SCALE_BYTES);
        const float norm = widen(marks + TERN_SCREEN_NORMS + in_group * SCALE_BYTES);
        float lanes[LANES];
        half_product(lanes, row, row + supers * TERN_I8S_SCALES, &args->token, supers * BLOCKS);
        for (size_t l = 0; l < LANES; l++)
            lanes[l] += ((float)codes[l] * args->along[l] + (float)codes[LANES + l] * args->along[LANES + l]) * step;
        args->upper[i] = sum_lanes(lanes) + (norm * args->rest + (step * args->spread + args->least));
    }
}

void tern_screen_project_scalar(const tern_screen_project_args *args) {
    const size_t supers = tern_i8s_supers(args->k);
    for (size_t i = 0; i < args->n; i++)
        for (size_t d = 0; d < TERN_SCREEN_DIRECTIONS; d++) {
            float lanes[LANES];
            half_product(lanes, args->packed + tern_i8s_upper_at(i, args->k), args->packed + tern_i8s_lower_at(i, args->k),
                         &args->directions[d], supers * BLOCKS);
            args->y[i * TERN_SCREEN_DIRECTIONS + d] = sum_lanes(lanes);
        }
}
