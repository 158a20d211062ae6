// SPDX-License-Identifier: MIT
// The exponential of the vector stages against libm in float64, and the fused multiply-add in software against libm's.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TERN_VF_BYTES 16
#include "kernels/fused.h"
#include "test_random.h"

static float exp_of(float x) { return exponential(splat(x))[0]; }

static void exponential_is_within_2_to_the_minus_22_of_libm(void **unused) {
    (void)unused;
    enum { STEPS = 3000017 }; // a prime: steps meet no pattern of the reduction
    double worst = 0;
    for (int i = 0; i <= STEPS; i++) {
        const float x = EXP_MIN + (EXP_MAX - EXP_MIN) * ((float)i / (float)STEPS);
        const double exact = exp((double)x), error = fabs((double)exp_of(x) - exact) / exact;
        worst = error > worst ? error : worst;
    }
    print_message("largest relative error: %g = 2^%.2f\n", worst, log2(worst));
    assert_true(worst < 0x1p-22);
}

static void exponential_of_zero_is_one_and_ends_are_clamped(void **unused) {
    (void)unused;
    assert_true(exp_of(0.0f) == 1.0f);
    assert_true(exp_of(-0.0f) == 1.0f);
    assert_true(exp_of(-INFINITY) == exp_of(EXP_MIN));
    assert_true(exp_of(-1e30f) == exp_of(EXP_MIN));
    assert_true(exp_of(INFINITY) == exp_of(EXP_MAX));
    assert_true(isfinite(exp_of(EXP_MAX)));
    assert_true(isnan(exp_of(NAN)));
}

// A float with a random sign, an exponent within `span` of that of 1, and some of its low mantissa bits zero, so that sums
// meet ties, exact cancellation and results between two subnormals.
static float hard_float(unsigned span) {
    const uint32_t bits = (uint32_t)next_random(), zeros = (uint32_t)next_random() % 24;
    const uint32_t exponent = 127 - span + (uint32_t)next_random() % (2 * span + 1);
    const uint32_t pattern = (bits & 0x80000000u) | exponent << 23 | (bits & 0x7fffffu) >> zeros << zeros;
    float x;
    memcpy(&x, &pattern, sizeof x);
    return x;
}

static void check_fused(float a, float b, float c) {
    const float got = fused(splat(a), splat(b), splat(c))[0], want = fmaf(a, b, c);
    if (isnan(want) ? !isnan(got) : memcmp(&got, &want, sizeof got) != 0)
        fail_msg("%a * %a + %a = %a instead of %a", (double)a, (double)b, (double)c, (double)got, (double)want);
}

static void fused_in_software_rounds_once(void **unused) {
    (void)unused;
    const float special[] = {0.0f,      -0.0f,    1.0f,    -1.0f,    0x1p-149f, -0x1p-149f, 0x1.fffffep-127f,
                             0x1p-126f, 0x1p-24f, 0x1p24f, 0x1p127f, -0x1p127f, INFINITY,   -INFINITY,
                             NAN};
    enum { N_SPECIAL = sizeof special / sizeof special[0] };
    for (size_t i = 0; i < N_SPECIAL * N_SPECIAL * N_SPECIAL; i++)
        check_fused(special[i % N_SPECIAL], special[i / N_SPECIAL % N_SPECIAL], special[i / N_SPECIAL / N_SPECIAL]);
    enum { ROUNDS = 1000000 };
    for (size_t i = 0; i < ROUNDS; i++) {
        const unsigned spans[] = {3, 26, 63, 126};
        const unsigned span = spans[i % 4];
        check_fused(hard_float(span), hard_float(span), hard_float(span));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential_is_within_2_to_the_minus_22_of_libm),
        cmocka_unit_test(exponential_of_zero_is_one_and_ends_are_clamped),
        cmocka_unit_test(fused_in_software_rounds_once),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
