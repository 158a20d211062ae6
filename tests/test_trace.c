// SPDX-License-Identifier: MIT
// Traces: every tile once and in its place, what is dropped is counted, and nothing is recorded that was not asked for.
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "failing_heap.h"
#include "tern/diagnostics.h"
#include "test_random.h"

enum { REGIONS = 12, STAGES_MAX = 8, TILES_MAX = 40, THREADS_TRIED = 6, ROOM = 1 << 12 };

static tern_context *new_context(int threads, const tern_allocator *allocator) {
    char message[256] = "";
    const tern_context_params params = {.struct_size = sizeof params,
                                        .threads = threads,
                                        .no_pinning = 1, // more workers than CPUs
                                        .allocator = allocator,
                                        .error = message,
                                        .error_size = sizeof message};
    tern_context *ctx = NULL;
    if (tern_context_create(&ctx, &params) != TERN_OK) fail_msg("%s", message);
    return ctx;
}

static void check(tern_context *ctx, tern_status status) {
    if (status != TERN_OK) fail_msg("%s", tern_context_error(ctx));
}

static tern_trace_event event_at(tern_context *ctx, size_t index) {
    tern_trace_event e = {.struct_size = sizeof e};
    check(ctx, tern_trace_get(ctx, index, &e));
    return e;
}

// ---- random regions, and what a trace must say of them ---------------------------------------------------------------

// Some tiles end at once, some let other workers run.
static void short_tile(void *arg, size_t tile) {
    if ((tile ^ (uintptr_t)arg) % 3 == 0) sched_yield();
}

static const char *const names[] = {"norm", "qkv \"quoted\"", NULL, "attention"};

typedef struct recorded_region {
    tern_stage stages[STAGES_MAX];
    size_t n_stages;
} recorded_region;

static void run_random_region(tern_context *ctx, recorded_region *r) {
    r->n_stages = random_below(STAGES_MAX + 1);
    for (size_t s = 0; s < r->n_stages; s++) {
        const size_t n_tiles = random_below(2) ? random_below(3) : random_below(TILES_MAX + 1);
        r->stages[s] = (tern_stage){short_tile, &r->stages[s], n_tiles, names[random_below(sizeof names / sizeof *names)]};
    }
    check(ctx, tern_run_region(ctx, r->stages, r->n_stages));
}

// The one event of this kind, region and stage.
static tern_trace_event find(tern_context *ctx, tern_trace_kind kind, uint64_t region, uint64_t stage) {
    tern_trace_event found = {.struct_size = 0};
    for (size_t i = 0; i < tern_trace_count(ctx); i++) {
        const tern_trace_event e = event_at(ctx, i);
        if (e.kind != kind || e.region != region || e.stage != stage) continue;
        assert_int_equal(found.struct_size, 0);
        found = e;
    }
    assert_int_not_equal(found.struct_size, 0);
    return found;
}

static void assert_inside(const tern_trace_event *inner, const tern_trace_event *outer) {
    assert_true(outer->begin_ns <= inner->begin_ns);
    assert_true(inner->begin_ns <= inner->end_ns);
    assert_true(inner->end_ns <= outer->end_ns);
}

static void check_stage(tern_context *ctx, const recorded_region *r, uint64_t region, uint64_t s) {
    const tern_trace_event whole = find(ctx, TERN_TRACE_REGION, region, 0), stage = find(ctx, TERN_TRACE_STAGE, region, s);
    assert_inside(&stage, &whole);
    assert_int_equal(stage.count, r->stages[s].n_tiles);
    assert_ptr_equal(stage.name, r->stages[s].name);
    int runs[TILES_MAX] = {0};
    for (size_t i = 0; i < tern_trace_count(ctx); i++) {
        const tern_trace_event e = event_at(ctx, i);
        if (e.kind != TERN_TRACE_TILES || e.region != region || e.stage != s) continue;
        assert_inside(&e, &stage);
        assert_ptr_equal(e.name, r->stages[s].name);
        assert_true(e.first_tile + e.count <= r->stages[s].n_tiles);
        for (uint64_t t = 0; t < e.count; t++) runs[e.first_tile + t]++;
    }
    for (size_t t = 0; t < r->stages[s].n_tiles; t++) assert_int_equal(runs[t], 1);
}

static size_t stages_with_tiles(const recorded_region *regions, size_t n) {
    size_t stages = 0;
    for (size_t r = 0; r < n; r++)
        for (size_t s = 0; s < regions[r].n_stages; s++) stages += regions[r].stages[s].n_tiles > 0;
    return stages;
}

static size_t count_kind(tern_context *ctx, tern_trace_kind kind) {
    size_t n = 0;
    for (size_t i = 0; i < tern_trace_count(ctx); i++) n += event_at(ctx, i).kind == kind;
    return n;
}

static void check_trace(tern_context *ctx, const recorded_region *regions, size_t n) {
    assert_int_equal(tern_trace_dropped(ctx), 0);
    assert_int_equal(count_kind(ctx, TERN_TRACE_REGION), n);
    assert_int_equal(count_kind(ctx, TERN_TRACE_STAGE), stages_with_tiles(regions, n));
    for (size_t r = 0; r < n; r++) {
        assert_int_equal(find(ctx, TERN_TRACE_REGION, r, 0).count, regions[r].n_stages);
        for (size_t s = 0; s < regions[r].n_stages; s++)
            if (regions[r].stages[s].n_tiles > 0) check_stage(ctx, &regions[r], r, s);
    }
}

static void every_tile_appears_once_inside_its_stage_and_its_stage_inside_its_region(void **state) {
    (void)state;
    static recorded_region regions[REGIONS];
    for (int threads = 1; threads <= THREADS_TRIED; threads++) {
        tern_context *ctx = new_context(threads, NULL);
        check(ctx, tern_trace_start(ctx, ROOM));
        for (size_t r = 0; r < REGIONS; r++) run_random_region(ctx, &regions[r]);
        check(ctx, tern_trace_stop(ctx));
        check_trace(ctx, regions, REGIONS);
        tern_context_destroy(ctx);
    }
}

static void tiles_and_waits_of_a_worker_follow_each_other_and_a_sleep_lies_in_its_wait(void **state) {
    (void)state;
    static recorded_region regions[REGIONS];
    tern_context *ctx = new_context(3, NULL);
    check(ctx, tern_trace_start(ctx, ROOM));
    for (size_t r = 0; r < REGIONS; r++) run_random_region(ctx, &regions[r]);
    int64_t last_end = 0;
    tern_trace_event before = {.worker = 0}, sleep = {.kind = TERN_TRACE_TILES};
    for (size_t i = 0; i < tern_trace_count(ctx); i++) { // a running trace may be read between regions
        const tern_trace_event e = event_at(ctx, i);
        assert_true(e.worker > before.worker || (e.worker == before.worker && e.end_ns >= before.end_ns));
        if (e.worker > before.worker) last_end = 0;
        before = e;
        if (e.kind == TERN_TRACE_SLEEP) sleep = e;
        if (e.kind != TERN_TRACE_TILES && e.kind != TERN_TRACE_WAIT) continue;
        assert_true(e.begin_ns >= last_end);
        last_end = e.end_ns;
        if (sleep.kind != TERN_TRACE_SLEEP) continue;
        assert_int_equal(e.kind, TERN_TRACE_WAIT);
        assert_inside(&sleep, &e);
        sleep.kind = TERN_TRACE_TILES;
    }
    tern_context_destroy(ctx); // with a running trace
}

// ---- waiting ---------------------------------------------------------------------------------------------------------

// Two tiles that wait for each other, so that each is run by a worker of its own.
typedef struct meeting {
    tern_context *ctx;
    atomic_int missing, leaving;
    uint64_t parks; // of the other worker, up to its tile
} meeting;

static void meet(void *arg, size_t tile) {
    meeting *m = arg;
    atomic_fetch_sub(&m->missing, 1);
    while (atomic_load(&m->missing) > 0) sched_yield();
    tern_worker_counters c = {.struct_size = sizeof c};
    if (tile == 0 && tern_get_worker_counters(m->ctx, 1, &c) == TERN_OK) m->parks = c.parks;
    atomic_fetch_sub(&m->leaving, 1);
    while (atomic_load(&m->leaving) > 0) sched_yield();
}

static uint64_t run_meeting(tern_context *ctx) {
    meeting m = {.ctx = ctx, .missing = 2, .leaving = 2};
    const tern_stage stage = {meet, &m, 2, "meet"};
    check(ctx, tern_run_region(ctx, &stage, 1));
    return m.parks;
}

static uint64_t parks_of_the_other_worker(tern_context *ctx) {
    tern_worker_counters c = {.struct_size = sizeof c};
    check(ctx, tern_get_worker_counters(ctx, 1, &c));
    return c.parks;
}

static void a_worker_that_slept_before_a_tile_shows_its_wait_and_its_sleep(void **state) {
    (void)state;
    tern_context *ctx = new_context(2, NULL);
    run_meeting(ctx);
    check(ctx, tern_trace_start(ctx, ROOM));
    const uint64_t parks = run_meeting(ctx);
    while (parks_of_the_other_worker(ctx) == parks) sched_yield();
    run_meeting(ctx);
    check(ctx, tern_trace_stop(ctx));
    bool waited = false, slept = false;
    for (size_t i = 0; i < tern_trace_count(ctx); i++) {
        const tern_trace_event e = event_at(ctx, i);
        if (e.worker != 1 || e.region != 1) continue;
        waited |= e.kind == TERN_TRACE_WAIT;
        slept |= e.kind == TERN_TRACE_SLEEP;
        if (e.kind == TERN_TRACE_WAIT || e.kind == TERN_TRACE_SLEEP) assert_string_equal(e.name, "meet"); // what ended it
    }
    assert_true(waited);
    assert_true(slept);
    tern_context_destroy(ctx);
}

// ---- room ------------------------------------------------------------------------------------------------------------

static void a_full_trace_keeps_what_it_has_and_counts_what_it_drops(void **state) {
    (void)state;
    tern_context *ctx = new_context(1, NULL); // one worker: so many events that they can be told beforehand
    const tern_stage stages[] = {{short_tile, NULL, 3, "a"}, {short_tile, NULL, 0, "b"}, {short_tile, NULL, 1, "c"}};
    enum { STAGES = sizeof stages / sizeof *stages, EVENTS = 1 + 2 * 2 }; // a region, two stages, the tiles of each
    for (size_t room = 1; room <= 2 * EVENTS + 1; room++) {
        check(ctx, tern_trace_start(ctx, room));
        for (int r = 0; r < 2; r++) check(ctx, tern_run_region(ctx, stages, STAGES));
        check(ctx, tern_trace_stop(ctx));
        assert_int_equal(tern_trace_count(ctx), room < 2 * EVENTS ? room : 2 * EVENTS);
        assert_int_equal(tern_trace_count(ctx) + tern_trace_dropped(ctx), 2 * EVENTS);
        assert_string_equal(event_at(ctx, 0).name, "a");
    }
    tern_context_destroy(ctx);
}

static void only_regions_between_start_and_stop_are_recorded(void **state) {
    (void)state;
    static recorded_region r[2];
    tern_context *ctx = new_context(2, NULL);
    assert_int_equal(tern_trace_count(ctx), 0);
    assert_int_equal(tern_trace_dropped(ctx), 0);
    run_random_region(ctx, &r[0]);
    check(ctx, tern_trace_start(ctx, ROOM));
    assert_int_equal(tern_trace_count(ctx), 0);
    run_random_region(ctx, &r[0]);
    check(ctx, tern_trace_stop(ctx));
    const size_t n = tern_trace_count(ctx);
    run_random_region(ctx, &r[1]);
    assert_int_equal(tern_trace_count(ctx), n);
    check_trace(ctx, r, 1);
    check(ctx, tern_trace_start(ctx, ROOM)); // forgets the one before
    assert_int_equal(tern_trace_count(ctx), 0);
    run_random_region(ctx, &r[0]);
    run_random_region(ctx, &r[1]);
    check(ctx, tern_trace_stop(ctx));
    check_trace(ctx, r, 2);
    tern_context_destroy(ctx);
}

static void two_contexts_are_traced_apart(void **state) {
    (void)state;
    static recorded_region a[REGIONS], b[REGIONS];
    tern_context *first = new_context(2, NULL), *second = new_context(3, NULL);
    check(first, tern_trace_start(first, ROOM));
    check(second, tern_trace_start(second, ROOM));
    for (size_t r = 0; r < REGIONS; r++) {
        run_random_region(first, &a[r]);
        run_random_region(second, &b[r]);
    }
    check(first, tern_trace_stop(first));
    check_trace(first, a, REGIONS);
    check_trace(second, b, REGIONS);
    tern_context_destroy(first);
    check_trace(second, b, REGIONS);
    tern_context_destroy(second);
}

static void a_traced_region_allocates_nothing(void **state) {
    (void)state;
    heap h = {.allowed = SIZE_MAX};
    const tern_allocator allocator = {heap_alloc, heap_free, &h};
    static recorded_region r;
    tern_context *ctx = new_context(2, &allocator);
    const size_t live = h.live;
    check(ctx, tern_trace_start(ctx, ROOM));
    const size_t allowed = h.allowed;
    for (size_t i = 0; i < REGIONS; i++) run_random_region(ctx, &r);
    check(ctx, tern_trace_stop(ctx));
    assert_int_equal(h.allowed, allowed);
    h.allowed = 1;
    assert_int_equal(tern_trace_start(ctx, ROOM), TERN_ERR_MEMORY); // the trace before is still there
    assert_true(tern_trace_count(ctx) > 0);
    h.allowed = SIZE_MAX;
    check(ctx, tern_trace_start(ctx, ROOM));
    assert_int_equal(h.live, live + 2); // the one before was freed
    tern_context_destroy(ctx);
    assert_int_equal(h.live, 0);
    assert_false(h.wrong);
}

// ---- misuse ----------------------------------------------------------------------------------------------------------

static void in_order(void *user, tern_tile_fn fn, void *arg, size_t n_tiles) {
    (void)user;
    for (size_t i = 0; i < n_tiles; i++) fn(arg, i);
}

static void calls_out_of_place(void *arg, size_t tile) {
    (void)tile;
    assert_int_equal(tern_trace_start(arg, 1), TERN_ERR_STATE);
    assert_int_equal(tern_trace_stop(arg), TERN_ERR_STATE);
}

static void misuse_is_refused_with_a_message(void **state) {
    (void)state;
    tern_trace_event e = {.struct_size = sizeof e};
    assert_int_equal(tern_trace_start(NULL, 1), TERN_ERR_ARG);
    assert_int_equal(tern_trace_stop(NULL), TERN_ERR_ARG);
    assert_int_equal(tern_trace_get(NULL, 0, &e), TERN_ERR_ARG);
    assert_int_equal(tern_trace_count(NULL), 0);
    assert_int_equal(tern_trace_dropped(NULL), 0);
    tern_context *ctx = new_context(1, NULL);
    assert_int_equal(tern_trace_stop(ctx), TERN_ERR_STATE);
    assert_int_equal(tern_trace_start(ctx, 0), TERN_ERR_ARG);
    assert_int_equal(tern_trace_start(ctx, TERN_TRACE_EVENTS_MAX + 1u), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "events_per_worker"));
    assert_int_equal(tern_trace_get(ctx, 0, &e), TERN_ERR_ARG);
    check(ctx, tern_trace_start(ctx, 1));
    assert_int_equal(tern_trace_start(ctx, 1), TERN_ERR_STATE);
    const tern_stage stage = {calls_out_of_place, ctx, 1, "calls"};
    check(ctx, tern_run_region(ctx, &stage, 1));
    assert_int_equal(tern_trace_get(ctx, 1, &e), TERN_ERR_ARG);
    e.struct_size = 0;
    assert_int_equal(tern_trace_get(ctx, 0, &e), TERN_ERR_ARG);
    check(ctx, tern_trace_stop(ctx));
    assert_int_equal(tern_trace_stop(ctx), TERN_ERR_STATE);
    tern_context_destroy(ctx);
}

static void a_callers_parallel_for_is_not_traced_and_says_so(void **state) {
    (void)state;
    const tern_context_params params = {.struct_size = sizeof params, .threads = 2, .parallel_for = in_order};
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, &params), TERN_OK);
    assert_int_equal(tern_trace_start(ctx, 1), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(tern_context_error(ctx), "parallel_for"));
    tern_context_destroy(ctx);
}

// ---- time by stage -----------------------------------------------------------------------------------------------------

static uint64_t count_of(tern_context *ctx, const char *name) {
    for (size_t i = 0; i < tern_stage_times_count(ctx); i++) {
        tern_stage_time time = {.struct_size = sizeof time};
        check(ctx, tern_stage_times_get(ctx, i, &time));
        if (time.name == name) return time.count;
    }
    return 0;
}

static void check_sums(tern_context *ctx) {
    enum { RUNS = 9, MANY_NAMES = 100 };
    static const char many[MANY_NAMES][2];
    const tern_stage stages[] = {{short_tile, NULL, 1, "one"},
                                 {short_tile, NULL, 7, "wide"},
                                 {short_tile, NULL, 0, "none"},
                                 {short_tile, NULL, 3, NULL},
                                 {short_tile, NULL, 5, "one"}};
    check(ctx, tern_run_region(ctx, stages, 5));
    assert_int_equal(tern_stage_times_count(ctx), 0);
    check(ctx, tern_stage_times_start(ctx));
    for (size_t i = 0; i < RUNS; i++) check(ctx, tern_run_region(ctx, stages, 5));
    check(ctx, tern_stage_times_stop(ctx));
    check(ctx, tern_run_region(ctx, stages, 5));
    assert_int_equal(tern_stage_times_count(ctx), 3);
    assert_int_equal(count_of(ctx, stages[0].name), stages[0].name == stages[4].name ? 2 * RUNS : RUNS);
    assert_int_equal(count_of(ctx, stages[1].name), RUNS);
    assert_int_equal(count_of(ctx, NULL), RUNS);
    tern_stage_time time = {.struct_size = sizeof time};
    assert_int_equal(tern_stage_times_get(ctx, 3, &time), TERN_ERR_ARG);

    check(ctx, tern_stage_times_start(ctx));
    assert_int_equal(tern_stage_times_count(ctx), 0);
    uint64_t sum = 0;
    for (size_t i = 0; i < MANY_NAMES; i++) check(ctx, tern_run_region(ctx, &(tern_stage){short_tile, NULL, 4, many[i]}, 1));
    check(ctx, tern_stage_times_stop(ctx));
    assert_true(tern_stage_times_count(ctx) < MANY_NAMES);
    for (size_t i = 0; i < tern_stage_times_count(ctx); i++) {
        check(ctx, tern_stage_times_get(ctx, i, &time));
        sum += time.count;
    }
    assert_int_equal(sum, MANY_NAMES); // those without room have an entry together
}

static void times_of_stages_are_summed_by_name_between_start_and_stop(void **state) {
    (void)state;
    for (int threads = 1; threads <= THREADS_TRIED; threads++) {
        tern_context *ctx = new_context(threads, NULL);
        check_sums(ctx);
        tern_context_destroy(ctx);
    }
    const tern_context_params params = {.struct_size = sizeof params, .threads = 2, .parallel_for = in_order};
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, &params), TERN_OK);
    check_sums(ctx);
    tern_context_destroy(ctx);
    assert_int_equal(tern_stage_times_start(NULL), TERN_ERR_ARG);
    assert_int_equal(tern_stage_times_stop(NULL), TERN_ERR_ARG);
    assert_int_equal(tern_stage_times_count(NULL), 0);
    assert_int_equal(tern_stage_times_get(NULL, 0, NULL), TERN_ERR_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_appears_once_inside_its_stage_and_its_stage_inside_its_region),
        cmocka_unit_test(tiles_and_waits_of_a_worker_follow_each_other_and_a_sleep_lies_in_its_wait),
        cmocka_unit_test(a_worker_that_slept_before_a_tile_shows_its_wait_and_its_sleep),
        cmocka_unit_test(a_full_trace_keeps_what_it_has_and_counts_what_it_drops),
        cmocka_unit_test(only_regions_between_start_and_stop_are_recorded),
        cmocka_unit_test(two_contexts_are_traced_apart),
        cmocka_unit_test(a_traced_region_allocates_nothing),
        cmocka_unit_test(misuse_is_refused_with_a_message),
        cmocka_unit_test(a_callers_parallel_for_is_not_traced_and_says_so),
        cmocka_unit_test(times_of_stages_are_summed_by_name_between_start_and_stop),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
