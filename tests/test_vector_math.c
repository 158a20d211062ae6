// SPDX-License-Identifier: MIT
// The exponential of the vector stages against libm in float64.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TERN_VF_BYTES 16
#include "kernels/vector_types.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential_is_within_2_to_the_minus_22_of_libm),
        cmocka_unit_test(exponential_of_zero_is_one_and_ends_are_clamped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
