// SPDX-License-Identifier: MIT
// The line of units that workers cut: every unit once, each worker its own rows of every weight, equal pieces.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "matmul/line.h"
#include "test_random.h"

enum { WEIGHTS_MAX = 7, WORKERS_MAX = 9, UNITS_MAX = 40, ROUNDS = 2000 };

typedef struct random_line {
    uint64_t bounds[WORKERS_MAX + 1];
    tern_sharing sharing;
    size_t units[WEIGHTS_MAX], n_weights, length;
} random_line;

// Equal workers without bounds, equal workers with them, or workers of random weights.
static void make_line(random_line *line) {
    *line = (random_line){.n_weights = 1 + random_below(WEIGHTS_MAX), .sharing.n = 1 + random_below(WORKERS_MAX)};
    const size_t kind = random_below(3);
    tern_worker_place places[WORKERS_MAX] = {{0}};
    for (size_t w = 0; w < line->sharing.n; w++) places[w].weight = kind == 2 ? 1 + (int)random_below(TERN_WEIGHT_MAX) : 3;
    tern_share_bounds(line->bounds, places, (int)line->sharing.n);
    if (kind > 0) line->sharing.bounds = line->bounds;
    for (size_t i = 0; i < line->n_weights; i++) line->length += line->units[i] = 1 + random_below(UNITS_MAX);
}

static void every_unit_stands_in_the_line_once_and_in_the_order_of_workers(void **unused) {
    (void)unused;
    for (int round = 0; round < ROUNDS; round++) {
        random_line line;
        make_line(&line);
        bool seen[WEIGHTS_MAX][UNITS_MAX] = {{false}};
        size_t worker = 0;
        for (size_t at = 0; at < line.length; at++) {
            const tern_line_run run = tern_line_at(&line.sharing, line.units, line.n_weights, at);
            assert_true(run.weight < line.n_weights && run.unit < line.units[run.weight]);
            assert_false(seen[run.weight][run.unit]);
            seen[run.weight][run.unit] = true;
            const size_t units = line.units[run.weight];
            size_t owner = 0;
            while (tern_sharing_first(&line.sharing, units, owner + 1) <= run.unit) owner++;
            assert_true(owner >= worker);
            worker = owner;
        }
    }
}

static void a_run_is_what_follows_in_the_line(void **unused) {
    (void)unused;
    for (int round = 0; round < ROUNDS; round++) {
        random_line line;
        make_line(&line);
        const size_t at = random_below(line.length);
        const tern_line_run run = tern_line_at(&line.sharing, line.units, line.n_weights, at);
        assert_true(run.count > 0 && at + run.count <= line.length);
        for (size_t i = 0; i < run.count; i++) {
            const tern_line_run next = tern_line_at(&line.sharing, line.units, line.n_weights, at + i);
            assert_true(next.weight == run.weight && next.unit == run.unit + i && next.count == run.count - i);
        }
    }
}

// What makes the pool's shares of tiles the rows that packing placed for the same workers.
static void with_a_multiple_of_equal_workers_a_share_of_tiles_is_the_same_rows_of_every_weight(void **unused) {
    (void)unused;
    for (int round = 0; round < ROUNDS; round++) {
        const size_t n = 1 + random_below(WORKERS_MAX);
        const tern_sharing sharing = {.n = n};
        size_t units[WEIGHTS_MAX], length = 0;
        const size_t n_weights = 1 + random_below(WEIGHTS_MAX), tiles = n * (1 + random_below(4));
        for (size_t i = 0; i < n_weights; i++) length += units[i] = n * (1 + random_below(UNITS_MAX));
        for (size_t w = 0; w < n; w++) {
            const size_t first = tern_line_cut(length, tiles, tern_sharing_first(&sharing, tiles, w));
            const tern_line_run run = tern_line_at(&sharing, units, n_weights, first);
            assert_int_equal(run.weight, 0);
            assert_int_equal(run.unit, tern_sharing_first(&sharing, units[0], w));
        }
    }
}

static void pieces_of_a_line_differ_by_one_unit_at_most(void **unused) {
    (void)unused;
    for (int round = 0; round < ROUNDS; round++) {
        const size_t length = 1 + random_below(1000), tiles = 1 + random_below(length);
        assert_int_equal(tern_line_cut(length, tiles, 0), 0);
        assert_int_equal(tern_line_cut(length, tiles, tiles), length);
        for (size_t t = 0; t < tiles; t++) {
            const size_t count = tern_line_cut(length, tiles, t + 1) - tern_line_cut(length, tiles, t);
            assert_true(count == length / tiles || count == length / tiles + 1);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_unit_stands_in_the_line_once_and_in_the_order_of_workers),
        cmocka_unit_test(a_run_is_what_follows_in_the_line),
        cmocka_unit_test(with_a_multiple_of_equal_workers_a_share_of_tiles_is_the_same_rows_of_every_weight),
        cmocka_unit_test(pieces_of_a_line_differ_by_one_unit_at_most),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
