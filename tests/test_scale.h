// SPDX-License-Identifier: MIT
// Lets an emulated CPU run a random part of a long sweep: TERN_TEST_SCALE is the share of cases to run, all of them when it is
// unset.
#ifndef TERN_TESTS_TEST_SCALE_H
#define TERN_TESTS_TEST_SCALE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

// Whether to run the next case; random_bits come from the test's seeded stream, so a seed reproduces the choice.
static inline bool test_takes_case(uint64_t random_bits) {
    const char *scale = getenv("TERN_TEST_SCALE");
    return !scale || (double)random_bits * 0x1p-64 < strtod(scale, NULL);
}

#endif
