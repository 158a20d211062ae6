// SPDX-License-Identifier: MIT
// The division of work among workers of unequal speed: tiles into grains, and grains (or rows of weights) into shares.
#ifndef TERN_SCHED_SHARE_H
#define TERN_SCHED_SHARE_H

#include "sched/plan.h"

// A stage has at most so many grains, which are claimed whole: few enough for two indices and an epoch in one word.
enum { TERN_GRAINS_MAX = 32768 };

static inline uint64_t tern_grain_tiles(uint64_t n_tiles) {
    return n_tiles / TERN_GRAINS_MAX + (n_tiles % TERN_GRAINS_MAX != 0);
}
// n_tiles > 0. The last grain may have fewer tiles than the others.
static inline uint32_t tern_grain_count(uint64_t n_tiles) {
    const uint64_t each = tern_grain_tiles(n_tiles);
    return (uint32_t)(n_tiles / each + (n_tiles % each != 0));
}

// Worker w of n has the units tern_share_first(units, bounds[w]) up to, not including, tern_share_first(units, bounds[w + 1]).
// bounds[0] = 0, bounds[n] = TERN_SHARE_ONE: fixed point, because a division per claim would cost more than the claim.
#define TERN_SHARE_ONE (UINT64_C(1) << 32)

// units <= 2^31. Rounded up, so that few units go to workers far apart, the first of them to worker 0. Bounds are rounded down
// by less than 2^-32, so equal workers get what an exact division gives them as long as units * n <= 2^32.
static inline uint64_t tern_share_first(uint64_t units, uint64_t bound) {
    return (units * bound + (TERN_SHARE_ONE - 1)) / TERN_SHARE_ONE;
}

// bounds: n + 1 entries, by the workers' weights.
static inline void tern_share_bounds(uint64_t *bounds, const tern_worker_place *workers, int n) {
    uint64_t all = 0, before = 0;
    for (int w = 0; w < n; w++) all += (uint64_t)workers[w].weight;
    for (int w = 0; w < n; w++) {
        bounds[w] = before * TERN_SHARE_ONE / all;
        before += (uint64_t)workers[w].weight;
    }
    bounds[n] = TERN_SHARE_ONE;
}

#endif
