// SPDX-License-Identifier: MIT
// Units (panels, slabs) of several weights in one line, in the order in which workers own them.
//
// Each weight's units are divided among the workers as sched/share.h says, and the line holds worker 0's units of every weight,
// then worker 1's, and so on. Two equal workers, weights of 4, 2 and 2 units:
//
//     Q0 Q1 K0 V0 | Q2 Q3 K1 V1
//
// The pool cuts a stage's tiles by the same bounds, so each worker reads the same rows of a weight in every product, whatever
// stands beside it, and packing can put them where that worker reads them. Any equal cut of the line is an equal cut of the
// work.
#ifndef TERN_MATMUL_LINE_H
#define TERN_MATMUL_LINE_H

#include "kernels/layout.h"
#include "sched/share.h"

// Workers and their bounds (tern_share_bounds); bounds NULL: all equal.
typedef struct tern_sharing {
    const uint64_t *bounds;
    size_t n;
} tern_sharing;

// First of `units` units that belongs to worker w; w = n: units.
static inline size_t tern_sharing_first(const tern_sharing *sharing, size_t units, size_t w) {
    const uint64_t bound = sharing->bounds ? sharing->bounds[w] : w * TERN_SHARE_ONE / sharing->n;
    return (size_t)tern_share_first(units, bound);
}

typedef struct tern_line_run {
    size_t weight, unit;
    size_t count; // units of this weight that follow one another from here on
} tern_line_run;

// What stands in the line from position `at` on, at < sum of units[0 .. n_weights - 1].
tern_line_run tern_line_at(const tern_sharing *sharing, const size_t *units, size_t n_weights, size_t at);

// Where tile t of `tiles` begins in a line of `length` units; t = tiles: length. length * tiles < 2^64.
static inline size_t tern_line_cut(size_t length, size_t tiles, size_t t) { return tern_ceil_div(length * t, tiles); }

#endif
