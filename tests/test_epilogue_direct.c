// SPDX-License-Identifier: MIT
// Calls each epilogue variant that this CPU has, without the library around it: against the written order of operations, one
// element at a time, and through the whole range of both half types.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "format/blocks.h"
#include "guard_buffer.h"
#include "kernel_variants.h"

static uint32_t float_bits(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static uint16_t bfloat_of(float v) { // to nearest even, by the distance to both neighbours
    if (isnan(v)) return (uint16_t)(float_bits(v) >> 16 | 0x40);
    const uint32_t low = float_bits(v) & 0xFFFF0000u, part = float_bits(v) & 0xFFFFu;
    const bool up = part > 0x8000u || (part == 0x8000u && (low >> 16 & 1));
    return (uint16_t)((low >> 16) + up);
}

// The written order, one element at a time.
static float epilogue_value(const tern_epilogue_args *a, size_t t, size_t i) {
    volatile float v = a->value ? a->value[t * a->ld_value + i] : 0.0f; // volatile: each step is rounded
    if (a->acc) {
        const float w = a->scale_kind == TERN_SCALE_UNIFORM ? *(const float *)a->w_scales
                        : a->scale_kind == TERN_SCALE_F32   ? ((const float *)a->w_scales)[i]
                                                            : tern_f16_to_f32(((const uint16_t *)a->w_scales)[i]);
        volatile float scale = a->x_scales[t * a->ld_x_scales] * w;
        volatile float part = (float)a->acc[t * a->ld_acc + i] * scale;
        v = a->value ? v + part : part;
    }
    if (a->bias) v = v + a->bias[i];
    if (a->residual) v = v + a->residual[t * a->ld_residual + i];
    return v;
}

static void fill_spread(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = ldexpf(random_float(), (int)random_below(24) - 12);
}

static void epilogue_variants_follow_the_written_order_for_every_shape_and_type(void **unused) {
    (void)unused;
    enum { N_MAX = 37, M = 3, LD = 48, HAS_BIAS = 1, HAS_RESIDUAL = 2, HAS_VALUE = 4, NO_ACC = 8, ALL_FLAGS = 16 };
    static int32_t acc[M * LD];
    static float value[M * LD], x_scales[M * 2], w_f32[LD];
    static uint16_t w_f16[LD];
    for (size_t i = 0; i < M * LD; i++) acc[i] = (int32_t)next_random();
    fill_spread(value, M * LD);
    fill_spread(x_scales, M * 2);
    fill_spread(w_f32, LD);
    for (size_t i = 0; i < LD; i++) w_f16[i] = tern_f32_to_f16(w_f32[i]);
    size_t checked = 0;
    FOR_EACH_VARIANT(epilogue, epilogue) {
        for (size_t n = 1; n <= N_MAX; n++)
            for (int flags = 0; flags < ALL_FLAGS; flags++)
                for (int kind = 0; kind < 3; kind++)
                    for (int type = 0; type < 3; type++) {
                        if ((flags & NO_ACC) && !(flags & HAS_VALUE)) continue;
                        const size_t y_bytes = type == TERN_FLOAT_F32 ? sizeof(float) : sizeof(uint16_t);
                        float *bias = guard_buffer(GUARD_BIAS, n * sizeof(float));
                        float *residual = guard_buffer(GUARD_X, M * n * sizeof(float));
                        fill_spread(bias, n);
                        fill_spread(residual, M * n);
                        const tern_epilogue_args args = {
                            .y = guard_buffer(GUARD_OUT, M * n * y_bytes),
                            .ldy = n,
                            .y_type = (tern_float_type)type,
                            .n = n,
                            .m = M,
                            .acc = flags & NO_ACC ? NULL : acc,
                            .ld_acc = LD,
                            .value = flags & HAS_VALUE ? value : NULL,
                            .ld_value = LD,
                            .x_scales = x_scales,
                            .ld_x_scales = 2,
                            .w_scales = kind == TERN_SCALE_F16 ? (const void *)w_f16 : w_f32,
                            .scale_kind = (tern_scale_kind)kind,
                            .bias = flags & HAS_BIAS ? bias : NULL,
                            .residual = flags & HAS_RESIDUAL ? residual : NULL,
                            .ld_residual = n,
                        };
                        epilogue(&args);
                        for (size_t t = 0; t < M; t++)
                            for (size_t i = 0; i < n; i++) {
                                const float want = epilogue_value(&args, t, i);
                                const uint32_t want_bits = type == TERN_FLOAT_F32   ? float_bits(want)
                                                           : type == TERN_FLOAT_F16 ? tern_f32_to_f16(want)
                                                                                    : bfloat_of(want);
                                const uint32_t got = type == TERN_FLOAT_F32 ? float_bits(((float *)args.y)[t * n + i])
                                                                            : ((uint16_t *)args.y)[t * n + i];
                                if (got != want_bits)
                                    fail_msg("%s: n %zu flags %d scales %d type %d: y[%zu][%zu] = %#x, want %#x", running, n,
                                             flags, kind, type, t, i, got, want_bits);
                                checked++;
                            }
                    }
    }
    assert_true(checked > 0);
}

// One value per call through the whole range of float16, its midpoints and neighbours, infinities and NaN.
static void epilogue_rounds_to_half_types_like_the_reference(void **unused) {
    (void)unused;
    enum { N = 4096 };
    static float value[N];
    static uint16_t y[N];
    FOR_EACH_VARIANT(epilogue, epilogue) {
        for (uint32_t half = 0; half < 1u << 16; half += N / 8) {
            for (uint32_t i = 0; i < N; i++) { // eight float32 values from each float16 one to the next
                static const uint32_t offsets[8] = {0, 1, 0x7FF, 0x0FFF, 0x1000, 0x1001, 0x1FFF, 0x800};
                const uint32_t bits = float_bits(tern_f16_to_f32((uint16_t)(half + i / 8))) + offsets[i % 8];
                memcpy(&value[i], &bits, sizeof bits);
            }
            for (int type = TERN_FLOAT_F16; type <= TERN_FLOAT_BF16; type++) {
                const tern_epilogue_args args = {
                    .y = y, .ldy = N, .y_type = (tern_float_type)type, .n = N, .m = 1, .value = value, .ld_value = N};
                epilogue(&args);
                for (uint32_t i = 0; i < N; i++) {
                    const uint16_t want = type == TERN_FLOAT_F16 ? tern_f32_to_f16(value[i]) : bfloat_of(value[i]);
                    if (y[i] != want)
                        fail_msg("%s: type %d of %a is %#x, want %#x", running, type, (double)value[i], y[i], want);
                }
            }
        }
    }
}

// A scale of one, a sum of one: what comes out is the float16 weight scale, whichever it is.
static void epilogue_reads_every_float16_scale(void **unused) {
    (void)unused;
    enum { N = 1024 };
    static uint16_t scales[N];
    static int32_t acc[N];
    static float y[N];
    const float one = 1.0f;
    for (size_t i = 0; i < N; i++) acc[i] = 1;
    FOR_EACH_VARIANT(epilogue, epilogue) {
        for (uint32_t first = 0; first < 1u << 16; first += N) {
            for (uint32_t i = 0; i < N; i++) scales[i] = (uint16_t)(first + i);
            const tern_epilogue_args args = {.y = y,
                                             .ldy = N,
                                             .n = N,
                                             .m = 1,
                                             .acc = acc,
                                             .ld_acc = N,
                                             .x_scales = &one,
                                             .w_scales = scales,
                                             .scale_kind = TERN_SCALE_F16};
            epilogue(&args);
            for (uint32_t i = 0; i < N; i++) {
                const float want = tern_f16_to_f32(scales[i]);
                if (isnan(want) ? !isnan(y[i]) : float_bits(y[i]) != float_bits(want))
                    fail_msg("%s: scale %#x becomes %a", running, scales[i], (double)y[i]);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(epilogue_variants_follow_the_written_order_for_every_shape_and_type),
        cmocka_unit_test(epilogue_rounds_to_half_types_like_the_reference),
        cmocka_unit_test(epilogue_reads_every_float16_scale),
    };
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
