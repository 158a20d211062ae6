// SPDX-License-Identifier: MIT
// Calls each quantize variant that this CPU has, without the library around it: bit for bit against the scalar variant, with
// unreadable pages around every buffer; and the scalar variant against float64 formulas.
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

#include "format/blocks.h"
#include "guard_buffer.h"
#include "kernel_variants.h"

enum { QUANTIZE_K_MAX = 261 };

typedef enum float_pattern { ORDINARY, ZEROS, TIES, TINY, HUGE_VALUES, SPREAD, FLOAT_PATTERNS } float_pattern;

static void fill_floats(float *x, size_t k, float_pattern pattern) {
    for (size_t i = 0; i < k; i++) {
        switch (pattern) {
        case ZEROS:
            x[i] = i % 2 ? 0.0f : -0.0f;
            break;
        case TIES:
            x[i] = i == 0 ? 127.0f : (float)((int)random_below(253) - 126) + 0.5f;
            break;
        case TINY:
            x[i] = random_float() * 1e-40f;
            break;
        case HUGE_VALUES:
            x[i] = random_below(2) ? 3.4028235e38f : -3.4028235e38f;
            break;
        case SPREAD:
            x[i] = ldexpf(random_float(), (int)random_below(80) - 40);
            break;
        default:
            x[i] = random_float();
            break;
        }
    }
}

typedef struct quantized {
    int8_t q[TERN_X_ALIGN * 5] __attribute__((aligned(64)));
    float scale[QUANTIZE_K_MAX];
    int32_t sums[QUANTIZE_K_MAX];
} quantized;

static const size_t quantize_blocks[] = {16, 32, 48, 64, 256, QUANTIZE_K_MAX + 100};

static void quantize_variants_match_scalar_bit_for_bit(void **unused) {
    (void)unused;
    size_t checked = 0;
    FOR_EACH_VARIANT(quantize, quantize) {
        for (size_t k = 1; k <= QUANTIZE_K_MAX; k++) {
            float *input = guard_buffer(GUARD_X, k * sizeof(float));
            const size_t padded = tern_round_up(k, TERN_X_ALIGN);
            int8_t *codes = guard_buffer(GUARD_W, padded);
            for (size_t b = 0; b < sizeof quantize_blocks / sizeof quantize_blocks[0]; b++) {
                const size_t block = quantize_blocks[b], n_blocks = tern_ceil_div(k, block);
                fill_floats(input, k, (float_pattern)((k + b) % FLOAT_PATTERNS));
                static quantized want;
                memset(&want, 0x55, sizeof want);
                assert_int_equal(tern_quantize_scalar(want.q, want.scale, want.sums, input, k, block, 1e-5f), 0);
                float *scale = guard_buffer(GUARD_SCALES, n_blocks * sizeof(float));
                int32_t *sums = guard_buffer(GUARD_SUMS, n_blocks * sizeof(int32_t));
                memset(codes, 0x55, padded);
                assert_int_equal(quantize(codes, scale, sums, input, k, block, 1e-5f), 0);
                if (memcmp(codes, want.q, padded) || memcmp(scale, want.scale, n_blocks * sizeof(float)) ||
                    memcmp(sums, want.sums, n_blocks * sizeof(int32_t)))
                    fail_msg("%s differs from scalar: k %zu, block %zu", running, k, block);
                checked++;
            }
        }
    }
    assert_true(checked > 0);
}

static void quantize_reports_every_nan_and_infinity(void **unused) {
    (void)unused;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    FOR_EACH_VARIANT(quantize, quantize) {
        for (size_t k = 1; k <= 70; k++) {
            for (size_t at = 0; at < k; at++) {
                quantized out;
                float x[70];
                fill_floats(x, k, ORDINARY);
                assert_int_equal(quantize(out.q, out.scale, out.sums, x, k, 32, 1e-5f), 0);
                x[at] = bad[(k + at) % 4];
                if (quantize(out.q, out.scale, out.sums, x, k, 32, 1e-5f) != 1)
                    fail_msg("%s accepts %f at %zu of %zu", running, (double)x[at], at, k);
            }
        }
    }
}

static void scalar_quantize_rounds_x_over_scale_to_the_nearest_code(void **unused) {
    (void)unused;
    static quantized out;
    float x[QUANTIZE_K_MAX];
    for (size_t k = 1; k <= QUANTIZE_K_MAX; k++) {
        for (size_t b = 0; b < sizeof quantize_blocks / sizeof quantize_blocks[0]; b++) {
            const size_t block = quantize_blocks[b];
            const float floor_value = 1e-5f;
            fill_floats(x, k, (float_pattern)((k + b) % FLOAT_PATTERNS));
            assert_int_equal(tern_quantize_scalar(out.q, out.scale, out.sums, x, k, block, floor_value), 0);
            for (size_t start = 0; start < k; start += block) {
                const size_t end = start + block < k ? start + block : k;
                double most = (double)floor_value;
                for (size_t i = start; i < end; i++) most = fmax(most, fabs((double)x[i]));
                // A double division rounded to float is the correctly rounded float division.
                assert_true(out.scale[start / block] == (float)(most / 127.0));
                int64_t sum = 0;
                for (size_t i = start; i < end; i++) {
                    const double exact = (double)x[i] * 127.0 / most;
                    // Two float roundings move a product of at most 127 by less than 2e-5.
                    if (fabs(exact - out.q[i]) > 0.5 + 2e-5)
                        fail_msg("k %zu, block %zu: q[%zu] = %d for %f", k, block, i, out.q[i], exact);
                    sum += out.q[i];
                }
                assert_int_equal(sum, out.sums[start / block]);
            }
            for (size_t i = k; i < tern_round_up(k, TERN_X_ALIGN); i++) assert_int_equal(out.q[i], 0);
        }
    }
}

static void quantize_takes_ties_to_even(void **unused) {
    (void)unused;
    FOR_EACH_VARIANT(quantize, quantize) {
        quantized out;
        float x[17] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, -126.5f, 3.5f};
        const int8_t want[17] = {127, 0, 2, 2, 0, -2, -2, 126, -126, 4};
        assert_int_equal(quantize(out.q, out.scale, out.sums, x, 17, 32, 0.0f), 0);
        assert_memory_equal(out.q, want, sizeof want);
    }
}

static void quantize_gives_zeros_for_a_block_without_magnitude(void **unused) {
    (void)unused;
    FOR_EACH_VARIANT(quantize, quantize) {
        quantized out;
        float x[40] = {0};
        x[35] = 1e-44f; // 127 / x would overflow
        memset(&out, 0x55, sizeof out);
        assert_int_equal(quantize(out.q, out.scale, out.sums, x, 40, 32, 0.0f), 0);
        for (size_t i = 0; i < TERN_X_ALIGN; i++) assert_int_equal(out.q[i], 0);
        for (size_t b = 0; b < 2; b++) {
            assert_true(out.scale[b] == 0.0f);
            assert_int_equal(out.sums[b], 0);
        }
    }
}

typedef tern_quantize_half_fn *half_quantizer;

// The codes of half-precision input are those of the same numbers in float32.
static void check_half(half_quantizer quantize, bool bfloat) {
    for (size_t k = 1; k <= QUANTIZE_K_MAX; k++) {
        const size_t padded = tern_round_up(k, TERN_X_ALIGN), block = quantize_blocks[k % 6];
        const size_t n_blocks = tern_ceil_div(k, block);
        uint16_t *input = guard_buffer(GUARD_X, k * sizeof *input);
        float wide[QUANTIZE_K_MAX];
        for (size_t i = 0; i < k; i++) {
            do {
                input[i] = (uint16_t)next_random();
                const uint32_t bits = (uint32_t)input[i] << 16;
                memcpy(&wide[i], &bits, sizeof bits);
                if (!bfloat) wide[i] = tern_f16_to_f32(input[i]);
            } while (!isfinite(wide[i]));
        }
        static quantized want;
        int8_t *codes = guard_buffer(GUARD_W, padded);
        float *scale = guard_buffer(GUARD_SCALES, n_blocks * sizeof(float));
        int32_t *sums = guard_buffer(GUARD_SUMS, n_blocks * sizeof(int32_t));
        assert_int_equal(tern_quantize_scalar(want.q, want.scale, want.sums, wide, k, block, 1e-5f), 0);
        assert_int_equal(quantize(codes, scale, sums, input, k, block, 1e-5f), 0);
        if (memcmp(codes, want.q, padded) || memcmp(scale, want.scale, n_blocks * sizeof(float)) ||
            memcmp(sums, want.sums, n_blocks * sizeof(int32_t)))
            fail_msg("%s differs from float32: k %zu, block %zu", running, k, block);
        input[random_below(k)] = bfloat ? 0x7F80 : 0xFC01; // an infinity, a signalling NaN
        assert_int_equal(quantize(codes, scale, sums, input, k, block, 1e-5f), 1);
    }
}

static void half_precision_input_gives_the_codes_of_the_same_float32(void **unused) {
    (void)unused;
    FOR_EACH_VARIANT(quantize_f16, quantize) check_half(quantize, false);
    FOR_EACH_VARIANT(quantize_bf16, quantize) check_half(quantize, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantize_variants_match_scalar_bit_for_bit),
        cmocka_unit_test(quantize_reports_every_nan_and_infinity),
        cmocka_unit_test(scalar_quantize_rounds_x_over_scale_to_the_nearest_code),
        cmocka_unit_test(half_precision_input_gives_the_codes_of_the_same_float32),
        cmocka_unit_test(quantize_takes_ties_to_even),
        cmocka_unit_test(quantize_gives_zeros_for_a_block_without_magnitude),
    };
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
