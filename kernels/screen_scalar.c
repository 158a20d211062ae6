// SPDX-License-Identifier: MIT
// Half products of a screened head for baseline x86-64: the readable meaning of the layout I8S32 and of its marks.
#include "kernels.h"

#include <string.h>

#include "half.h"

enum { LANES = 8, SCALE_BYTES = 2, BLOCKS = TERN_I8S_SUPER_K / TERN_I8S_BLOCK, NIBBLE_BITS = 4, NIBBLE_MASK = 15 };

// Lanes of a half product. |sum| <= 32 * 15 * 128
static void half_product(float lanes[LANES], const uint8_t *scales, const uint8_t *codes, const tern_half_token *token,
                         size_t blocks) {
    memset(lanes, 0, LANES * sizeof *lanes);
    for (size_t b = 0; b < blocks; b++) {
        const uint8_t *nibbles = codes + b / BLOCKS * TERN_I8S_CODES;
        const int8_t *x = token->x + b * TERN_I8S_BLOCK;
        int32_t sum = 0;
        for (size_t j = 0; j < TERN_I8S_BLOCK; j++) sum += (nibbles[j] >> b % BLOCKS * NIBBLE_BITS & NIBBLE_MASK) * x[j];
        lanes[b % LANES] += ((float)sum + token->shifts[b]) * (half_to_float(scales + b * SCALE_BYTES) * token->scales[b]);
    }
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
            lanes[l] += (float)(codes[2 * l] * args->along[2 * l] + codes[2 * l + 1] * args->along[2 * l + 1]) *
                        (step * args->along_scale);
        args->middle[i] = sum_lanes(lanes);
        args->upper[i] = args->middle[i] + (norm * args->rest + (step * args->spread + args->least));
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
