// SPDX-License-Identifier: MIT
// Lets an emulated CPU run a random part of a long sweep: TERN_TEST_SCALE is the share of cases to run, all of them when it is
// unset.
#ifndef TERN_TESTS_TEST_SCALE_H
#define TERN_TESTS_TEST_SCALE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

// A group is what one test checks of one variant. Its first case always runs, so that no test passes without a check.
static bool test_group_started;
static inline void test_begin_group(void) { test_group_started = false; }

// Whether to run the next case; random_bits come from the test's seeded stream, so a seed reproduces the choice.
static inline bool test_takes_case(uint64_t random_bits) {
    const char *scale = getenv("TERN_TEST_SCALE");
    const bool first = !test_group_started;
    test_group_started = true;
    return !scale || first || (double)random_bits * 0x1p-64 < strtod(scale, NULL);
}

#endif
