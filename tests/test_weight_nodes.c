// SPDX-License-Identifier: MIT
// Which bytes of a weight lie on which NUMA node, on machines that only tests have: plans of two nodes and more.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "matmul/placement.h"
#include "test_random.h"

enum { WORKERS = 4, N = 1000, K = 512, BLOCK = 128, RANGES_MAX = 64 };

static tern_context *ctx;

static int start(void **state) {
    const tern_context_params params = {.struct_size = sizeof params, .threads = WORKERS, .no_pinning = 1, .tune = "off"};
    assert_int_equal(tern_context_create(&ctx, &params), TERN_OK);
    return start_random(state);
}
static int stop(void **state) {
    (void)state;
    tern_context_destroy(ctx);
    return 0;
}

// N x K random trits; scale_block 0 (one K-slice) or BLOCK (several).
static tern_weights *make_weights(tern_form form, size_t scale_block) {
    int8_t *trits = malloc((size_t)N * K);
    float *scales = malloc((size_t)N * (K / BLOCK) * sizeof *scales);
    for (size_t i = 0; i < (size_t)N * K; i++) trits[i] = (int8_t)((int)random_below(3) - 1);
    for (size_t i = 0; i < (size_t)N * (K / BLOCK); i++) scales[i] = 1 + (float)random_below(8);
    tern_weights *w = NULL;
    const tern_weights_params params = {.struct_size = sizeof params, .form = form};
    assert_int_equal(tern_weights_from_trits(ctx, &w, trits, scales, scale_block, N, K, K, &params), TERN_OK);
    free(trits);
    free(scales);
    return w;
}

typedef struct found {
    tern_node_range ranges[RANGES_MAX];
    size_t n;
} found;

static void keep(void *user, tern_node_range range) {
    found *f = user;
    assert_true(f->n < RANGES_MAX);
    f->ranges[f->n++] = range;
}

static found place(const tern_weights *w, const tern_worker_place *workers, size_t n, uint64_t *bounds) {
    found f = {.n = 0};
    tern_share_bounds(bounds, workers, (int)n);
    tern_placement_each(w, &(tern_sharing){bounds, n}, workers, keep, &f);
    return f;
}

static int node_of(const found *f, const uint8_t *p) {
    for (size_t i = 0; i < f->n; i++)
        if (p >= f->ranges[i].first && p < f->ranges[i].first + f->ranges[i].bytes) return f->ranges[i].node;
    return -1;
}

static void check_units(const tern_weights *w, const found *f, const tern_worker_place *workers, const tern_sharing *sharing) {
    const uint8_t *at = w->packed;
    for (size_t i = 0; i < f->n; at += f->ranges[i++].bytes) assert_ptr_equal(f->ranges[i].first, at); // no gap, no overlap
    assert_ptr_equal(at, w->packed + w->packed_bytes);
    for (size_t s = 0; s < w->n_slices; s++)
        for (size_t unit = 0, owner = 0; unit < w->n_units; unit++) {
            while (tern_sharing_first(sharing, w->n_units, owner + 1) <= unit) owner++;
            assert_int_equal(node_of(f, tern_unit_codes(w, s, unit)), workers[owner].node);
        }
}

static void every_unit_lies_on_the_node_of_the_worker_that_reads_it(void **unused) {
    (void)unused;
    const tern_worker_place plans[][WORKERS] = {
        {{.node = 0, .weight = 1}, {.node = 0, .weight = 1}, {.node = 1, .weight = 1}, {.node = 1, .weight = 1}},
        {{.node = 0, .weight = 3}, {.node = 1, .weight = 1}, {.node = 1, .weight = 1}, {.node = 2, .weight = 2}},
        {{.node = 1, .weight = 1}, {.node = 0, .weight = 1}, {.node = 1, .weight = 1}, {.node = 0, .weight = 1}},
    };
    for (size_t i = 0; i < 4; i++) {
        tern_weights *w = make_weights(i % 2 ? TERN_FORM_LUT : TERN_FORM_MAD, i / 2 ? BLOCK : 0);
        assert_int_equal(w->n_slices, i / 2 ? K / BLOCK : 1);
        for (size_t p = 0; p < sizeof plans / sizeof plans[0]; p++) {
            uint64_t bounds[WORKERS + 1];
            const found f = place(w, plans[p], WORKERS, bounds);
            check_units(w, &f, plans[p], &(tern_sharing){bounds, WORKERS});
        }
        tern_weights_destroy(w);
    }
}

static void two_sockets_of_equal_cores_halve_the_rows(void **unused) {
    (void)unused;
    const tern_worker_place workers[WORKERS] = {
        {.node = 0, .weight = 1}, {.node = 0, .weight = 1}, {.node = 1, .weight = 1}, {.node = 1, .weight = 1}};
    tern_weights *w = make_weights(TERN_FORM_MAD, 0); // panels of 16 rows: 63 of them
    uint64_t bounds[WORKERS + 1];
    const found f = place(w, workers, WORKERS, bounds);
    assert_int_equal(f.n, 2);
    const size_t panel = w->packed_bytes / w->n_units;
    assert_int_equal(f.ranges[0].bytes, (w->n_units + 1) / 2 * panel);
    assert_int_equal(f.ranges[0].node, 0);
    assert_int_equal(f.ranges[1].node, 1);
    tern_weights_destroy(w);
}

static void one_node_is_one_range_per_slice(void **unused) {
    (void)unused;
    const tern_worker_place workers[WORKERS] = {{.weight = 1}, {.weight = 1}, {.weight = 1}, {.weight = 1}};
    tern_weights *w = make_weights(TERN_FORM_MAD, BLOCK);
    uint64_t bounds[WORKERS + 1];
    const found f = place(w, workers, WORKERS, bounds);
    assert_int_equal(f.n, K / BLOCK);
    tern_weights_destroy(w);
}

static void more_workers_than_units_leaves_no_empty_range(void **unused) {
    (void)unused;
    enum { MANY = 200 };
    tern_worker_place workers[MANY];
    for (int i = 0; i < MANY; i++) workers[i] = (tern_worker_place){.node = i / 50, .weight = 1};
    tern_weights *w = make_weights(TERN_FORM_LUT, 0);
    uint64_t bounds[MANY + 1];
    const found f = place(w, workers, MANY, bounds);
    for (size_t i = 0; i < f.n; i++) assert_true(f.ranges[i].bytes > 0);
    check_units(w, &f, workers, &(tern_sharing){bounds, MANY});
    tern_weights_destroy(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_unit_lies_on_the_node_of_the_worker_that_reads_it),
        cmocka_unit_test(two_sockets_of_equal_cores_halve_the_rows),
        cmocka_unit_test(one_node_is_one_range_per_slice),
        cmocka_unit_test(more_workers_than_units_leaves_no_empty_range),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
