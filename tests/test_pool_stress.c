// SPDX-License-Identifier: MIT
// The pool's protocol under stress: random regions on random pools, with sleeps between its steps and around the wrap of
// epochs.
//
// The pool is compiled into this test, so that the steps of its protocol can be disturbed and its epochs set.
// TERN_POOL_REGIONS: how many regions to run (default: a sample).
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sanitized.h"
#include "test_random.h"

// ---- disturbance -------------------------------------------------------------------------------------------------

static _Atomic uint64_t next_stream;
static atomic_bool disturbing; // some pools run undisturbed, at full speed

// A random stream for each thread.
static uint64_t thread_random(void) {
    static _Thread_local uint64_t state;
    if (state == 0) state = random_seed * 2 + 1 + (atomic_fetch_add(&next_stream, 1) << 20);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

// Mostly nothing, often a short delay, now and then the CPU is given away, seldom a real sleep.
static void disturb(void) {
    if (!atomic_load_explicit(&disturbing, memory_order_relaxed)) return;
    const uint64_t r = thread_random() >> 16;
    if (r % 32 != 0) return;
    for (uint64_t i = r >> 8 & 63; i > 0; i--) __builtin_ia32_pause();
    if (r % 4096 == 0) sched_yield();
    if (r % 262144 == 0) usleep((useconds_t)(r >> 20 & 127));
}

#define TERN_POOL_STEP() disturb()
#include "sched/pool.c"
#include "sched/region.c"
#include "sched/wait.c"

// ---- a region that checks itself ---------------------------------------------------------------------------------

enum {
    SAMPLE_REGIONS = SANITIZED ? 10000 : 200000,
    REGIONS_PER_POOL = SANITIZED ? 500 : 5000,
    WORKERS_MAX = 16,
    STAGES_MAX = 5,
    TILES_MAX = 3 * TERN_GRAINS_MAX,
    LOOKS = 4, // at tiles of the stage before
};

typedef struct checked_stage {
    struct checked_region *region;
    size_t index, n_tiles;
    _Atomic uint8_t *runs; // [n_tiles]
    uint32_t *written;     // [n_tiles], plain: a tile of the next stage reads what this stage wrote
} checked_stage;

typedef struct checked_region {
    checked_stage stages[STAGES_MAX];
    tern_stage list[STAGES_MAX];
    size_t n_stages;
    uint32_t stamp;
    _Atomic uint32_t faults;
} checked_region;

static void checked_tile(void *arg, size_t tile) {
    checked_stage *stage = arg;
    checked_region *region = stage->region;
    if (tile >= stage->n_tiles) {
        atomic_fetch_add(&region->faults, 1);
        return;
    }
    atomic_fetch_add_explicit(&stage->runs[tile], 1, memory_order_relaxed);
    if (stage->index > 0) {
        const checked_stage *before = stage - 1;
        const size_t step = before->n_tiles / LOOKS + 1;
        for (size_t i = tile % step; i < before->n_tiles; i += step) {
            if (before->written[i] != region->stamp) atomic_fetch_add(&region->faults, 1);
        }
    }
    disturb();
    stage->written[tile] = region->stamp;
}

// None, one, fewer than workers, a few per worker; seldom thousands of cheap ones, or more than there are grains.
static size_t random_tiles(void) {
    const size_t dice = random_below(4096);
    if (dice < 1) return random_below(TILES_MAX + 1);
    if (dice < 16) return random_below(2000);
    if (dice < 512) return random_below(2);
    return random_below(dice < 2560 ? 6 : 50);
}

static void fill(checked_region *region) {
    region->n_stages = random_below(STAGES_MAX + 1);
    region->stamp++;
    for (size_t s = 0; s < region->n_stages; s++) {
        checked_stage *stage = &region->stages[s];
        stage->n_tiles = random_tiles();
        for (size_t i = 0; i < stage->n_tiles; i++) atomic_store_explicit(&stage->runs[i], 0, memory_order_relaxed);
        region->list[s] = (tern_stage){checked_tile, stage, stage->n_tiles, NULL};
    }
}

static uint64_t check(checked_region *region) {
    uint64_t tiles = 0;
    assert_int_equal(region->faults, 0);
    for (size_t s = 0; s < region->n_stages; s++) {
        const checked_stage *stage = &region->stages[s];
        for (size_t i = 0; i < stage->n_tiles; i++) {
            const unsigned runs = atomic_load_explicit(&stage->runs[i], memory_order_relaxed);
            if (runs != 1) fail_msg("tile %zu of %zu in stage %zu ran %u times", i, stage->n_tiles, s, runs);
        }
        tiles += stage->n_tiles;
        // A late worker that still read the list would crash, or be counted.
        region->list[s] = (tern_stage){0};
    }
    return tiles;
}

static checked_region *new_region(void) {
    checked_region *region = calloc(1, sizeof *region);
    assert_non_null(region);
    for (size_t s = 0; s < STAGES_MAX; s++) {
        checked_stage *stage = &region->stages[s];
        stage->region = region;
        stage->index = s;
        stage->runs = calloc(TILES_MAX, sizeof *stage->runs);
        stage->written = calloc(TILES_MAX, sizeof *stage->written);
        assert_true(stage->runs && stage->written);
    }
    return region;
}

static void free_region(checked_region *region) {
    for (size_t s = 0; s < STAGES_MAX; s++) {
        free((void *)region->stages[s].runs);
        free(region->stages[s].written);
    }
    free(region);
}

// ---- pools -------------------------------------------------------------------------------------------------------

// 1 to 16 workers, equal or not, in groups of 1 to 3 or all in one, so that both levels of counting are exercised.
static tern_pool *new_pool(void) {
    static tern_worker_plan plan;
    const size_t group_max = random_below(2) ? 3 : TERN_GROUP_WORKERS_MAX;
    const bool equal = random_below(2);
    plan.n_workers = 1 + (int)random_below(WORKERS_MAX);
    int group = 0, left = 1 + (int)random_below(group_max);
    for (int i = 0; i < plan.n_workers; i++) {
        if (group_max > 3) left = 2;
        if (left-- == 0) {
            group++;
            left = (int)random_below(group_max);
        }
        plan.workers[i] = (tern_worker_place){.cpu = TERN_CPU_NONE, .group = group, .weight = equal ? 7 : (int)random_size(10)};
    }
    tern_error err = {""}, warning = {""};
    tern_pool *pool = NULL;
    if (tern_pool_create(&pool, &plan, &tern_default_allocator, &warning, &err) != TERN_OK) fail_msg("%s", err.text);
    assert_string_equal(warning.text, "");
    return pool;
}

// Of a pool that has run nothing yet.
static void set_epoch(tern_pool *pool, uint32_t epoch) {
    for (int w = 0; w < pool->n_threads; w++) atomic_store(&pool->workers[w].range, tern_range_make((tern_range){epoch, 0, 0}));
    for (int g = 0; g < pool->n_groups; g++) atomic_store(&pool->groups[g].open, tern_open_make(epoch, 0));
    pool->epoch = epoch;
}

typedef struct sums {
    uint64_t tiles, by_caller, stolen, parks;
} sums;

static void add_counters(sums *all, const tern_pool *pool) {
    for (int i = 0; i < tern_pool_threads(pool); i++) {
        const tern_pool_counters c = tern_pool_worker_counters(pool, i);
        all->tiles += c.tiles;
        all->by_caller += i == 0 ? c.tiles : 0;
        all->stolen += c.stolen;
        all->parks += c.parks;
    }
}

// As many workers awake as there are, or as there are CPUs; or all the time asleep between regions.
static void set_patience(tern_pool *pool) {
    const size_t dice = random_below(4);
    if (dice < 2) pool->crew = pool->n_threads;
    if (dice > 2) return;
    atomic_store(&pool->spin_ns, (int64_t)random_below(3000));
    atomic_store(&pool->yield_ns, (int64_t)random_below(3000));
}

static void run_on_a_new_pool(checked_region *region, uint64_t n_regions, const uint32_t *first_epoch, sums *all) {
    tern_pool *pool = new_pool();
    set_patience(pool);
    if (first_epoch) set_epoch(pool, *first_epoch);
    atomic_store(&disturbing, random_below(4) > 0);
    uint64_t tiles = all->tiles;
    for (uint64_t r = 0; r < n_regions; r++) {
        fill(region);
        assert_int_equal(tern_pool_run(pool, region->list, region->n_stages, NULL), TERN_OK);
        tiles += check(region);
        if (random_below(8192) == 0) usleep(200);
    }
    add_counters(all, pool);
    assert_true(all->tiles == tiles);
    tern_pool_destroy(pool);
}

static uint64_t regions_to_run(void) {
    const char *text = getenv("TERN_POOL_REGIONS");
    return text ? strtoull(text, NULL, 0) : SAMPLE_REGIONS;
}

static void every_tile_runs_exactly_once_and_in_its_stages_turn(void **state) {
    (void)state;
    checked_region *region = new_region();
    const uint64_t all = regions_to_run();
    sums sum = {0};
    const time_t start = time(NULL);
    for (uint64_t done = 0; done < all; done += REGIONS_PER_POOL)
        run_on_a_new_pool(region, all - done < REGIONS_PER_POOL ? all - done : REGIONS_PER_POOL, NULL, &sum);
    print_message("%llu regions, %llu tiles (%llu by callers, %llu stolen), %llu parks, %lld s\n", (unsigned long long)all,
                  (unsigned long long)sum.tiles, (unsigned long long)sum.by_caller, (unsigned long long)sum.stolen,
                  (unsigned long long)sum.parks, (long long)(time(NULL) - start));
    free_region(region);
}

static void epochs_wrap_and_ranges_are_refreshed(void **state) {
    (void)state;
    checked_region *region = new_region();
    sums sum = {0};
    for (int i = 0; i < 24; i++) {
        // Before 2^32, and before each multiple of 2^30.
        const uint32_t first = (uint32_t)(i % 4) * TERN_EPOCHS_PER_REFRESH - 1 - (uint32_t)random_below(REGIONS_PER_POOL);
        run_on_a_new_pool(region, REGIONS_PER_POOL / 2, &first, &sum);
    }
    free_region(region);
}

static void a_refresh_leaves_no_range_behind(void **state) {
    (void)state;
    checked_region *region = new_region();
    tern_pool *pool = new_pool();
    pool->epoch = TERN_EPOCHS_PER_REFRESH; // as if no share had ever been touched; the next publication refreshes
    for (int g = 0; g < pool->n_groups; g++) atomic_store(&pool->groups[g].open, tern_open_make(pool->epoch, 0));
    const uint32_t begin = pool->epoch;
    region->n_stages = 1;
    region->stages[0].n_tiles = 2;
    for (size_t i = 0; i < 2; i++) region->stages[0].runs[i] = 0;
    region->list[0] = (tern_stage){checked_tile, &region->stages[0], 2, NULL};
    assert_int_equal(tern_pool_run(pool, region->list, 1, NULL), TERN_OK);
    check(region);
    for (int w = 0; pool->n_threads > 1 && w < pool->n_threads; w++)
        assert_false(tern_epoch_older(tern_range_read(pool->workers[w].range).epoch, begin));
    tern_pool_destroy(pool);
    free_region(region);
}

// ---- who is woken ------------------------------------------------------------------------------------------------

enum { MEETING_S = 60 };

// Tiles that return only when as many threads hold one: each owner of a share must be awake.
typedef struct meeting {
    tern_pool *pool;
    size_t expected;
    pthread_t caller;
    _Atomic size_t there, there_next;
    atomic_bool failed;
} meeting;

static void await_all(meeting *m, _Atomic size_t *there) {
    const time_t end = time(NULL) + MEETING_S;
    for (atomic_fetch_add(there, 1); atomic_load(there) < m->expected; sched_yield()) {
        if (time(NULL) <= end) continue;
        atomic_store(&m->failed, true);
        return;
    }
}

static bool is_asleep(tern_pool *pool, int worker) { return atomic_load(&pool->workers[worker].parked) == 1; }

static void meet(void *arg, size_t tile) {
    meeting *m = arg;
    (void)tile;
    await_all(m, &m->there);
}

static void meet_next(void *arg, size_t tile) {
    meeting *m = arg;
    (void)tile;
    await_all(m, &m->there_next);
}

// The others return when the caller has gone to sleep: then one of them publishes the next stage.
static void meet_and_outlast_the_caller(void *arg, size_t tile) {
    meeting *m = arg;
    meet(arg, tile);
    if (pthread_equal(pthread_self(), m->caller)) return;
    const time_t end = time(NULL) + MEETING_S;
    while (!is_asleep(m->pool, 0) && time(NULL) <= end) sched_yield();
}

// Equal workers, all of whom are worth having awake, and all but the caller asleep.
static tern_pool *new_sleeping_pool(int n_workers, int per_group) {
    static tern_worker_plan plan;
    plan.n_workers = n_workers;
    for (int i = 0; i < n_workers; i++)
        plan.workers[i] = (tern_worker_place){.cpu = TERN_CPU_NONE, .group = i / per_group, .weight = 1};
    tern_error err = {""}, warning = {""};
    tern_pool *pool = NULL;
    if (tern_pool_create(&pool, &plan, &tern_default_allocator, &warning, &err) != TERN_OK) fail_msg("%s", err.text);
    pool->crew = n_workers;
    for (int i = 1; i < n_workers; i++)
        while (!is_asleep(pool, i)) sched_yield();
    return pool;
}

static void sleeping_owners_are_woken_even_below_workers_that_own_nothing(void **state) {
    (void)state;
    static const struct { int workers, tiles; } cases[] = {{2, 2}, {4, 2}, {8, 2}, {16, 3}, {5, 4}, {16, 16}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int groups = 1; groups <= 2; groups++) {
            tern_pool *pool = new_sleeping_pool(cases[i].workers, cases[i].workers / groups);
            meeting m = {.pool = pool, .expected = (size_t)cases[i].tiles};
            const tern_stage stage = {meet, &m, m.expected, NULL};
            assert_int_equal(tern_pool_run(pool, &stage, 1, NULL), TERN_OK);
            assert_false(m.failed);
            tern_pool_destroy(pool);
        }
    }
}

static void a_sleeping_caller_is_woken_for_its_share_of_a_later_stage(void **state) {
    (void)state;
    for (int workers = 2; workers <= 6; workers += 2) {
        for (int groups = 1; groups <= 2; groups++) {
            tern_pool *pool = new_sleeping_pool(workers, workers / groups);
            meeting m = {.pool = pool, .expected = (size_t)workers, .caller = pthread_self()};
            const tern_stage stages[2] = {{meet_and_outlast_the_caller, &m, m.expected, NULL},
                                          {meet_next, &m, m.expected, NULL}};
            assert_int_equal(tern_pool_run(pool, stages, 2, NULL), TERN_OK);
            assert_false(m.failed);
            tern_pool_destroy(pool);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_runs_exactly_once_and_in_its_stages_turn),
        cmocka_unit_test(epochs_wrap_and_ranges_are_refreshed),
        cmocka_unit_test(a_refresh_leaves_no_range_behind),
        cmocka_unit_test(sleeping_owners_are_woken_even_below_workers_that_own_nothing),
        cmocka_unit_test(a_sleeping_caller_is_woken_for_its_share_of_a_later_stage),
    };
    return cmocka_run_group_tests_name("pool_stress", tests, start_random, NULL);
}
