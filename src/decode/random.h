// SPDX-License-Identifier: MIT
// The random numbers of the sampler: xoshiro256** (Blackman and Vigna, public domain), seeded through splitmix64.
#ifndef TERN_DECODE_RANDOM_H
#define TERN_DECODE_RANDOM_H

#include <stdint.h>

static inline uint64_t tern_random_rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static inline void tern_random_seed(uint64_t state[4], uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += UINT64_C(0x9E3779B97F4A7C15);
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        state[i] = z ^ z >> 31;
    }
}

static inline uint64_t tern_random_next(uint64_t state[4]) {
    const uint64_t result = tern_random_rotate(state[1] * 5, 7) * 9, t = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= t;
    state[3] = tern_random_rotate(state[3], 45);
    return result;
}

// Uniform in [0, 1): the upper 53 bits, as many as a double holds.
static inline double tern_random_unit(uint64_t state[4]) { return (double)(tern_random_next(state) >> 11) * 0x1p-53; }

#endif
