// SPDX-License-Identifier: MIT
// The random stream of a test: seeded by TERN_TEST_SEED, else by the clock, and printed, so that a failure can be repeated.
#ifndef TERN_TESTS_TEST_RANDOM_H
#define TERN_TESTS_TEST_RANDOM_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static uint64_t random_seed, random_state;

static inline uint64_t next_random(void) { // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static inline size_t random_below(size_t n) { return (size_t)(next_random() % n); }
// 1 to 2^bits, each power of two as likely as the next.
static inline size_t random_size(size_t bits) { return 1 + random_below((size_t)1 << random_below(bits + 1)); }
static inline float random_float(void) { return (float)((double)next_random() / 0x1p64 * 2.0 - 1.0); } // -1..1

// A group setup of cmocka.
static inline int start_random(void **unused) {
    (void)unused;
    const char *given = getenv("TERN_TEST_SEED");
    random_state = random_seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    print_message("TERN_TEST_SEED=%llu\n", (unsigned long long)random_seed);
    return 0;
}

#endif
