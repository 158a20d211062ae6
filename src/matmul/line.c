// SPDX-License-Identifier: MIT
// The walk along a line of units.
#include "matmul/line.h"

// Units of all weights that belong to the workers before w.
static size_t before(const tern_sharing *sharing, const size_t *units, size_t n_weights, size_t w) {
    size_t sum = 0;
    for (size_t i = 0; i < n_weights; i++) sum += tern_sharing_first(sharing, units[i], w);
    return sum;
}

tern_line_run tern_line_at(const tern_sharing *sharing, const size_t *units, size_t n_weights, size_t at) {
    size_t w = 0; // the last worker whose units begin at or before `at`
    for (size_t end = sharing->n; end - w > 1;) {
        const size_t middle = w + (end - w) / 2;
        if (before(sharing, units, n_weights, middle) <= at)
            w = middle;
        else
            end = middle;
    }
    size_t left = at - before(sharing, units, n_weights, w);
    for (size_t i = 0;; i++) {
        const size_t first = tern_sharing_first(sharing, units[i], w);
        const size_t count = tern_sharing_first(sharing, units[i], w + 1) - first;
        if (left < count) return (tern_line_run){i, first + left, count - left};
        left -= count;
    }
}
