// SPDX-License-Identifier: MIT
// Calls each kernel of the layout I8S32 that this CPU has, without the library around it, with unreadable pages around every
// buffer: whole products against the INT8 ones of the same codes, half products against the scalar kernel and exact sums.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guard_buffer.h"
#include "kernel_variants.h"

enum { DIRECTIONS = TERN_SCREEN_DIRECTIONS, OUT_FILL = 0x5a };

// One matrix w[n][k] of codes and scales in both layouts, and m tokens.
typedef struct product {
    size_t n, m, k, ldx, blocks;
    int8_t *codes;
    uint16_t *scales; // [n][blocks]
    uint8_t *plain, *split;
    int8_t *x;
    float *x_scales; // [m][room]
    int32_t *x_sums;
    size_t room; // blocks to a multiple of 8
} product;

static uint16_t random_half(void) { // finite
    return (uint16_t)(random_below(8) == 0 ? 0x8000 : 0) |
           (uint16_t)(random_below(16) == 0 ? random_below(0x400) : 0x1000 + random_below(0x3000));
}

static int8_t random_code(bool extreme) {
    return (int8_t)(extreme ? (int)random_below(2) * 255 - 128 : (int)random_below(256) - 128);
}

static void *aligned(size_t bytes) {
    void *p = aligned_alloc(64, tern_round_up(bytes + 1, 64));
    assert_non_null(p);
    return memset(p, 0, bytes);
}

static void pack(product *p) {
    const size_t supers = tern_ceil_div(p->k, 64), panel = supers * 1088 * 4; // of 64 features, in both layouts
    for (size_t i = 0; i < p->n; i++) {
        uint8_t *super = p->plain + i / 16 * supers * 1088;
        uint8_t *upper = p->split + i / 64 * panel + i % 64 * supers * 36;
        uint8_t *high = upper + supers * 4, *low = p->split + i / 64 * panel + supers * 36 * 64 + i % 64 * supers * 32;
        for (size_t b = 0; b < p->blocks; b++) {
            memcpy(super + b / 2 * 1088 + b % 2 * 32 + i % 16 * 2, &p->scales[i * p->blocks + b], 2);
            memcpy(upper + b * 2, &p->scales[i * p->blocks + b], 2);
        }
        for (size_t j = 0; j < p->k; j++) {
            const int8_t c = p->codes[i * p->k + j];
            const unsigned u = (unsigned)(c + 128), shift = j % 64 < 32 ? 0 : 4;
            super[j / 64 * 1088 + 64 + j % 64 / 4 * 64 + i % 16 * 4 + j % 4] = (uint8_t)c;
            high[j / 64 * 32 + j % 32] |= (uint8_t)(u / 16 << shift);
            low[j / 64 * 32 + j % 32] |= (uint8_t)(u % 16 << shift);
        }
    }
}

static product make_product(size_t n, size_t m, size_t k, bool extreme) {
    product p = {.n = n, .m = m, .k = k, .ldx = tern_round_up(k, 64), .blocks = tern_ceil_div(k, 32)};
    p.room = tern_round_up(p.blocks, 8);
    p.codes = malloc(n * k);
    p.scales = malloc(n * p.blocks * sizeof *p.scales);
    assert_true(p.codes && p.scales);
    for (size_t i = 0; i < n * k; i++) p.codes[i] = random_code(extreme);
    for (size_t i = 0; i < n * p.blocks; i++) p.scales[i] = random_half();
    p.plain = aligned(tern_i8b_bytes(n, k));
    p.split = guard_buffer(GUARD_W, tern_i8s_bytes(n, k));
    p.x = guard_buffer(GUARD_X, m * p.ldx);
    p.x_scales = guard_buffer(GUARD_SCALES, m * p.room * sizeof(float));
    p.x_sums = guard_buffer(GUARD_SUMS, m * p.room * sizeof(int32_t));
    for (size_t t = 0; t < m; t++) {
        for (size_t j = 0; j < k; j++) {
            p.x[t * p.ldx + j] = random_code(extreme);
            p.x_sums[t * p.room + j / 32] += p.x[t * p.ldx + j];
        }
        for (size_t b = 0; b < p.blocks; b++) p.x_scales[t * p.room + b] = fabsf(random_float()) + 1e-4F;
    }
    pack(&p);
    return p;
}

static void free_product(product *p) { free(p->codes), free(p->scales), free(p->plain); }

// ---- whole products ---------------------------------------------------------------------------------------------------

static void check_whole(size_t n, size_t m, size_t k, bool extreme) {
    if (!test_takes_case(next_random())) return;
    product p = make_product(n, m, k, extreme);
    const size_t ld = n + 16;
    float *want = aligned(m * ld * sizeof *want), *got = guard_buffer(GUARD_OUT, m * ld * sizeof *got);
    tern_gemm_b32_args args = {.y = want,
                               .ld_y = ld,
                               .packed = p.plain,
                               .n = n,
                               .m = m,
                               .k = k,
                               .x = p.x,
                               .ldx = p.ldx,
                               .x_scales = p.x_scales,
                               .x_sums = p.x_sums,
                               .ld_x_blocks = p.room};
    memset(want, OUT_FILL, m * ld * sizeof *want);
    tern_int8_gemm_b32_scalar(&args);
    args.y = got;
    args.packed = p.split;
    FOR_EACH_VARIANT(split_gemm_b32, gemm) {
        memset(got, OUT_FILL, m * ld * sizeof *got);
        gemm(&args);
        if (memcmp(got, want, m * ld * sizeof *got)) fail_msg("%s: n %zu, m %zu, k %zu differs", running, n, m, k);
    }
    const size_t count = 1 + random_below(20);
    uint32_t rows[20];
    for (size_t i = 0; i < count; i++) rows[i] = (uint32_t)random_below(n);
    float *some = guard_buffer(GUARD_OUT, count * sizeof *some);
    const tern_screen_rows_args row_args = {some, p.split, rows, count, k, p.x, p.x_scales, p.x_sums};
    FOR_EACH_VARIANT(screen_rows, run) {
        memset(some, OUT_FILL, count * sizeof *some);
        run(&row_args);
        for (size_t i = 0; i < count; i++)
            if (memcmp(&some[i], &want[rows[i]], sizeof *some))
                fail_msg("%s: row %zu of %zu, k %zu differs", running, i, count, k);
    }
    free(want);
    free_product(&p);
}

static void whole_products_have_the_bits_of_the_int8_ones(void **unused) {
    (void)unused;
    test_begin_group();
    for (size_t k = 1; k <= 333; k++) check_whole(64 * (1 + k % 3), 1 + k % 5, k, k % 4 == 0);
    check_whole(128, 1, 2560, false);
    check_whole(64, 2, 8300, true);
}

// ---- half products ------------------------------------------------------------------------------------------------------

// In real numbers: sum over k of dw da (nibble + z / block sum) ...: the shifts come in as they are.
static double exact_half(const product *p, size_t i, const tern_half_token *token, bool high, double *magnitude) {
    double sum = 0;
    *magnitude = 0;
    for (size_t b = 0; b < p->blocks; b++) {
        uint8_t half[2];
        memcpy(half, &p->scales[i * p->blocks + b], sizeof half);
        const int exponent = half[1] >> 2 & 31, mantissa = (half[1] & 3) << 8 | half[0];
        double scale = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
        if (half[1] >> 7) scale = -scale;
        double terms = (double)token->shifts[b], absolute = fabs(terms);
        for (size_t j = b * 32; j < b * 32 + 32 && j < p->k; j++) {
            const unsigned u = (unsigned)(p->codes[i * p->k + j] + 128);
            const double term = (double)(high ? u / 16 : u % 16) * token->x[j];
            terms += term;
            absolute += fabs(term);
        }
        sum += scale * (double)token->scales[b] * terms;
        *magnitude += fabs(scale * (double)token->scales[b]) * absolute;
    }
    return sum;
}

static void random_token(const product *p, float *shifts) {
    memset(shifts, 0, p->room * sizeof *shifts);
    for (size_t b = 0; b < p->blocks; b++) shifts[b] = (float)((int)random_below(9) - 4) * (float)p->x_sums[b] / 4;
}

static void check_bounds(size_t n, size_t k, bool extreme) {
    if (!test_takes_case(next_random())) return;
    product p = make_product(n, 1, k, extreme);
    uint8_t *marks = guard_buffer(GUARD_TABLES, n / TERN_SCREEN_GROUP * TERN_SCREEN_GROUP_BYTES);
    for (size_t g = 0; g < n / TERN_SCREEN_GROUP; g++) {
        uint8_t *group = marks + g * TERN_SCREEN_GROUP_BYTES;
        for (size_t i = 0; i < TERN_SCREEN_STEPS; i++) group[i] = (uint8_t)random_below(256);
        for (size_t i = TERN_SCREEN_STEPS; i < TERN_SCREEN_GROUP_BYTES; i += 2) {
            group[i] = (uint8_t)random_below(256);
            group[i + 1] = (uint8_t)(0x3c + random_below(4)); // 2^-7 .. 2
        }
    }
    float *shifts = guard_buffer(GUARD_BIAS, p.room * sizeof *shifts), along_scale = 0x1p-15F;
    int16_t along[DIRECTIONS];
    random_token(&p, shifts);
    for (size_t d = 0; d < DIRECTIONS; d++) along[d] = (int16_t)((int)random_below(2 * INT16_MAX + 1) - INT16_MAX);
    float *want = malloc(n * sizeof *want), *got = guard_buffer(GUARD_OUT, n * sizeof *got);
    assert_non_null(want);
    float *middle = malloc(n * sizeof *middle);
    assert_non_null(middle);
    tern_screen_args args = {.middle = middle,
                             .upper = want,
                             .packed = p.split,
                             .marks = marks,
                             .n = n,
                             .k = k,
                             .token = {p.x, p.x_scales, shifts},
                             .along = along,
                             .along_scale = along_scale,
                             .rest = 3,
                             .spread = 0.5F,
                             .least = 0x1p-90F};
    tern_screen_scalar(&args);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *group = marks + i / 8 * TERN_SCREEN_GROUP_BYTES;
        uint32_t step_bits = (uint32_t)(group[128 + i % 8 * 2] | group[129 + i % 8 * 2] << 8) << 16;
        uint32_t norm_bits = (uint32_t)(group[144 + i % 8 * 2] | group[145 + i % 8 * 2] << 8) << 16;
        float step, norm;
        memcpy(&step, &step_bits, sizeof step), memcpy(&norm, &norm_bits, sizeof norm);
        double magnitude, exact = exact_half(&p, i, &args.token, true, &magnitude) + (double)norm * 3 + (double)step * 0.5;
        for (size_t d = 0; d < DIRECTIONS; d++) {
            const double term = (double)(int8_t)group[i % 8 * DIRECTIONS + d] * along[d] * (double)(step * along_scale);
            exact += term;
            magnitude += fabs(term);
        }
        assert_true(fabs(exact - (double)want[i]) <= (magnitude + fabs(exact)) * (double)(p.room + 32) * 0x1p-24 + 1e-25);
        const double bound = (double)norm * 3 + (double)step * 0.5;
        assert_true(fabs((double)want[i] - (double)middle[i] - bound) <= (magnitude + fabs(exact)) * 0x1p-20 + 1e-25);
    }
    float *want_middle = middle;
    args.middle = malloc(n * sizeof *middle);
    assert_non_null(args.middle);
    args.upper = got;
    FOR_EACH_VARIANT(screen, screen) {
        memset(got, OUT_FILL, n * sizeof *got);
        screen(&args);
        if (memcmp(got, want, n * sizeof *got) || memcmp(args.middle, want_middle, n * sizeof *got))
            fail_msg("%s: n %zu, k %zu differs from scalar", running, n, k);
    }
    free(want), free(want_middle), free(args.middle);
    free_product(&p);
}

static void check_projections(size_t n, size_t k, bool extreme) {
    if (!test_takes_case(next_random())) return;
    product p = make_product(n, DIRECTIONS, k, extreme);
    tern_screen_project_args args = {.packed = p.split, .n = n, .k = k};
    float *shifts = guard_buffer(GUARD_BIAS, DIRECTIONS * p.room * sizeof *shifts);
    for (size_t d = 0; d < DIRECTIONS; d++) {
        random_token(&p, shifts + d * p.room);
        args.directions[d] = (tern_half_token){p.x + d * p.ldx, p.x_scales + d * p.room, shifts + d * p.room};
    }
    float *want = malloc(n * DIRECTIONS * sizeof *want), *got = guard_buffer(GUARD_OUT, n * DIRECTIONS * sizeof *got);
    assert_non_null(want);
    args.y = want;
    tern_screen_project_scalar(&args);
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < DIRECTIONS; d++) {
            double magnitude;
            const double exact = exact_half(&p, i, &args.directions[d], false, &magnitude);
            assert_true(fabs(exact - (double)want[i * DIRECTIONS + d]) <= magnitude * (double)(p.room + 32) * 0x1p-24 + 1e-25);
        }
    args.y = got;
    FOR_EACH_VARIANT(screen_project, project) {
        memset(got, OUT_FILL, n * DIRECTIONS * sizeof *got);
        project(&args);
        if (memcmp(got, want, n * DIRECTIONS * sizeof *got)) fail_msg("%s: n %zu, k %zu differs from scalar", running, n, k);
    }
    free(want);
    free_product(&p);
}

static void bounds_are_the_written_sums_on_every_tier(void **unused) {
    (void)unused;
    test_begin_group();
    for (size_t k = 1; k <= 333; k++) check_bounds(64 * (1 + k % 3), k, k % 4 == 0);
    check_bounds(128, 2560, false);
}

static void projections_are_the_written_sums_on_every_tier(void **unused) {
    (void)unused;
    test_begin_group();
    for (size_t k = 1; k <= 333; k += 3) check_projections(64 * (1 + k % 2), k, k % 4 == 0);
    check_projections(64, 2560, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_products_have_the_bits_of_the_int8_ones),
        cmocka_unit_test(bounds_are_the_written_sums_on_every_tier),
        cmocka_unit_test(projections_are_the_written_sums_on_every_tier),
    };
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
