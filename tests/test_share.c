// SPDX-License-Identifier: MIT
// The division of tiles into grains and of grains into the workers' shares: complete, in order, and in proportion.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sched/share.h"
#include "test_random.h"

static tern_worker_place places[TERN_THREADS_MAX];
static uint64_t bounds[TERN_THREADS_MAX + 1];

static void set_bounds(int n, bool equal) {
    const int weight = 1 + (int)random_below(TERN_WEIGHT_MAX);
    for (int w = 0; w < n; w++) places[w].weight = equal ? weight : 1 + (int)random_below(TERN_WEIGHT_MAX);
    tern_share_bounds(bounds, places, n);
}

static void grains_hold_all_tiles_and_none_is_empty(void **state) {
    (void)state;
    const uint64_t edges[] = {1, 2, 32767, 32768, 32769, 65535, 65536, 65537, UINT64_C(1) << 32, INT64_MAX - 1, INT64_MAX};
    for (size_t i = 0; i < 20000; i++) {
        const uint64_t n = i < sizeof edges / sizeof edges[0] ? edges[i] : 1 + (next_random() >> 1 >> random_below(63));
        const uint64_t each = tern_grain_tiles(n), count = tern_grain_count(n);
        assert_true(count >= 1 && count <= TERN_GRAINS_MAX);
        assert_true((count - 1) * each < n && n - (count - 1) * each <= each);
        if (n <= TERN_GRAINS_MAX) assert_true(each == 1 && count == n);
    }
}

static void shares_are_complete_and_in_order(void **state) {
    (void)state;
    for (int i = 0; i < 2000; i++) {
        const int n = (int)random_size(10);
        set_bounds(n, i % 2 == 0);
        const uint64_t units = i % 3 == 0 ? random_below(2 * (size_t)n + 1) : random_size(31);
        assert_true(tern_share_first(units, bounds[0]) == 0);
        assert_true(tern_share_first(units, bounds[n]) == units);
        for (int w = 0; w < n; w++) assert_true(tern_share_first(units, bounds[w]) <= tern_share_first(units, bounds[w + 1]));
    }
}

static void equal_workers_get_what_an_exact_division_gives(void **state) {
    (void)state;
    for (int i = 0; i < 2000; i++) {
        const int n = (int)random_size(10);
        set_bounds(n, true);
        const uint64_t units = random_below(TERN_GRAINS_MAX + 1), all = (uint64_t)n;
        for (uint64_t w = 0; w <= all; w++) assert_true(tern_share_first(units, bounds[w]) == (units * w + all - 1) / all);
    }
}

static void shares_are_in_proportion_to_weights(void **state) {
    (void)state;
    for (int i = 0; i < 2000; i++) {
        const int n = (int)random_size(10);
        set_bounds(n, false);
        const uint64_t units = random_below(TERN_GRAINS_MAX + 1);
        uint64_t all = 0;
        for (int w = 0; w < n; w++) all += (uint64_t)places[w].weight;
        for (int w = 0; w < n; w++) {
            const double fair = (double)units * places[w].weight / (double)all;
            const double share = (double)(tern_share_first(units, bounds[w + 1]) - tern_share_first(units, bounds[w]));
            assert_true(share > fair - 1.001 && share < fair + 1.001); // each end is rounded by less than a unit
        }
    }
}

static void few_units_go_to_workers_far_apart_the_first_to_worker_0(void **state) {
    (void)state;
    set_bounds(8, true);
    for (uint64_t w = 0; w <= 8; w++) {
        assert_true(tern_share_first(1, bounds[w]) == (w > 0 ? 1u : 0u));
        assert_true(tern_share_first(2, bounds[w]) == (w > 4 ? 2u : w > 0 ? 1u : 0u));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grains_hold_all_tiles_and_none_is_empty),
        cmocka_unit_test(shares_are_complete_and_in_order),
        cmocka_unit_test(equal_workers_get_what_an_exact_division_gives),
        cmocka_unit_test(shares_are_in_proportion_to_weights),
        cmocka_unit_test(few_units_go_to_workers_far_apart_the_first_to_worker_0),
    };
    return cmocka_run_group_tests_name("share", tests, start_random, NULL);
}
