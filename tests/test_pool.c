// SPDX-License-Identifier: MIT
// The worker pool: tiles exactly once, stages in order, under every mix of workers, stages and tiles.
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sanitized.h"
#include "sched/pool.h"
#include "sched/topology.h"
#include "test_random.h"

enum {
    WORKERS_MAX = 8,
    STRESS_REGIONS = SANITIZED ? 4000 : 112000,
    STAGES_MAX = 12,
    TILES_MAX = 50,
    LONG_STAGES = 300,
};

// ---- a region that checks itself -------------------------------------------------------------------------------

typedef struct checked_stage {
    struct checked_region *region;
    size_t index, n_tiles;
    _Atomic uint32_t runs[TILES_MAX];
    uint32_t payload[TILES_MAX]; // plain: a tile of the next stage reads what this stage wrote
} checked_stage;

typedef struct checked_region {
    checked_stage stages[STAGES_MAX];
    tern_stage list[STAGES_MAX];
    size_t n_stages;
    uint32_t stamp;
    _Atomic uint32_t faults;
} checked_region;

// Uneven work, so that workers meet at every point of the protocol; now and then a worker gives its CPU away with the tile in
// hand.
static void jitter(uint32_t stamp, size_t index, size_t tile) {
    const uint32_t hash = (stamp ^ (uint32_t)(index * STAGES_MAX + tile)) * 0x9e3779b1u;
    for (uint32_t i = hash >> 24; i > 192; i--) __builtin_ia32_pause();
    if (hash % 512 == 0) sched_yield();
}

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
        for (size_t i = 0; i < before->n_tiles; i++) {
            if (before->payload[i] != region->stamp) atomic_fetch_add(&region->faults, 1);
        }
    }
    jitter(region->stamp, stage->index, tile);
    stage->payload[tile] = region->stamp;
}

// Mostly small stages, some empty, some of one tile.
static size_t random_tiles(void) {
    switch (random_below(4)) {
    case 0:
        return random_below(3);
    case 1:
        return random_below(TILES_MAX + 1);
    default:
        return random_below(6);
    }
}

static void fill_region(checked_region *region, size_t n_stages, uint32_t stamp) {
    region->n_stages = n_stages;
    region->stamp = stamp;
    for (size_t s = 0; s < n_stages; s++) {
        checked_stage *stage = &region->stages[s];
        stage->region = region;
        stage->index = s;
        stage->n_tiles = random_tiles();
        for (size_t i = 0; i < stage->n_tiles; i++) atomic_store_explicit(&stage->runs[i], 0, memory_order_relaxed);
        region->list[s] = (tern_stage){checked_tile, stage, stage->n_tiles, NULL};
    }
}

static uint64_t check_region(checked_region *region) {
    uint64_t tiles = 0;
    assert_int_equal(atomic_load(&region->faults), 0);
    for (size_t s = 0; s < region->n_stages; s++) {
        const checked_stage *stage = &region->stages[s];
        for (size_t i = 0; i < stage->n_tiles; i++) assert_int_equal(atomic_load(&stage->runs[i]), 1);
        tiles += stage->n_tiles;
    }
    return tiles;
}

// Equal workers on the given CPUs (NULL: not bound).
static const tern_worker_plan *plan_of(int n_threads, const int *cpus) {
    static tern_worker_plan plan;
    plan.n_workers = n_threads;
    for (int i = 0; i < n_threads; i++) {
        plan.workers[i] =
            (tern_worker_place){.cpu = cpus ? cpus[i] : TERN_CPU_NONE, .group = i / TERN_GROUP_WORKERS_MAX, .weight = 1};
    }
    return &plan;
}

static tern_pool *new_pool(int n_threads, const int *cpus) {
    tern_error err = {""}, warning = {""};
    tern_pool *pool = NULL;
    const tern_status status = tern_pool_create(&pool, plan_of(n_threads, cpus), &tern_default_allocator, &warning, &err);
    if (status != TERN_OK) fail_msg("%s", err.text);
    assert_string_equal(warning.text, "");
    return pool;
}

static uint64_t counted_tiles(const tern_pool *pool) {
    uint64_t tiles = 0;
    for (int i = 0; i < tern_pool_threads(pool); i++) tiles += tern_pool_worker_counters(pool, i).tiles;
    return tiles;
}

static void stress(tern_pool *pool, size_t n_regions) {
    checked_region *region = calloc(1, sizeof *region);
    assert_non_null(region);
    uint64_t tiles = 0;
    for (size_t r = 0; r < n_regions; r++) {
        // The list is poisoned after each region: a late worker that still read it would crash or be counted.
        fill_region(region, random_below(STAGES_MAX + 1), (uint32_t)next_random());
        assert_int_equal(tern_pool_run(pool, region->list, region->n_stages, NULL), TERN_OK);
        tiles += check_region(region);
        memset(region->list, 0, sizeof region->list);
    }
    assert_true(counted_tiles(pool) == tiles);
    printf("%d workers:", tern_pool_threads(pool));
    for (int i = 0; i < tern_pool_threads(pool); i++) {
        const tern_pool_counters c = tern_pool_worker_counters(pool, i);
        printf(" %llu/%llu", (unsigned long long)c.tiles, (unsigned long long)c.parks);
    }
    printf(" tiles/parks\n");
    free(region);
}

static void every_tile_runs_exactly_once_and_stages_keep_their_order(void **state) {
    (void)state;
    for (int n = 1; n <= WORKERS_MAX; n++) {
        tern_pool *pool = new_pool(n, NULL);
        stress(pool, STRESS_REGIONS / WORKERS_MAX);
        tern_pool_destroy(pool);
    }
}

static void pinned_workers_give_the_same_guarantee(void **state) {
    (void)state;
    static tern_topology topology;
    tern_numa *numa;
    tern_topology_detect(&topology, &numa, NULL);
    tern_numa_release(numa);
    assert_true(topology.n_listed >= 1);
    // Two workers per CPU: half of them always wait for a CPU that another one holds.
    int cpus[WORKERS_MAX];
    for (int i = 0; i < WORKERS_MAX; i++) cpus[i] = topology.pu[i % topology.n_listed].cpu;
    tern_pool *pool = new_pool(2 * topology.n_listed < WORKERS_MAX ? 2 * topology.n_listed : WORKERS_MAX, cpus);
    stress(pool, STRESS_REGIONS / WORKERS_MAX);
    tern_pool_destroy(pool);
}

// ---- shapes ----------------------------------------------------------------------------------------------------

static void add_tile(void *arg, size_t tile) {
    atomic_fetch_add_explicit((_Atomic uint64_t *)arg, tile + 1, memory_order_relaxed);
}

static void a_region_of_hundreds_of_stages_runs_completely(void **state) {
    (void)state;
    tern_pool *pool = new_pool(3, NULL);
    static _Atomic uint64_t sums[LONG_STAGES];
    tern_stage stages[LONG_STAGES];
    for (size_t s = 0; s < LONG_STAGES; s++) {
        sums[s] = 0;
        stages[s] = (tern_stage){add_tile, &sums[s], s % 7, NULL};
    }
    for (uint64_t round = 1; round <= 20; round++) {
        assert_int_equal(tern_pool_run(pool, stages, LONG_STAGES, NULL), TERN_OK);
        for (size_t s = 0; s < LONG_STAGES; s++) assert_true(sums[s] == round * (s % 7) * (s % 7 + 1) / 2);
    }
    tern_pool_destroy(pool);
}

static void empty_regions_and_empty_stages_return(void **state) {
    (void)state;
    tern_pool *pool = new_pool(2, NULL);
    const tern_stage empty[3] = {{NULL, NULL, 0, NULL}, {NULL, NULL, 0, NULL}, {NULL, NULL, 0, NULL}};
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(tern_pool_run(pool, NULL, 0, NULL), TERN_OK);
        assert_int_equal(tern_pool_run(pool, empty, 3, NULL), TERN_OK);
    }
    assert_true(counted_tiles(pool) == 0);
    tern_pool_destroy(pool);
}

static void sleep_tile(void *arg, size_t tile) {
    (void)tile;
    usleep(1000);
    atomic_fetch_add((_Atomic uint64_t *)arg, 1);
}

static void workers_that_fell_asleep_take_part_again(void **state) {
    (void)state;
    tern_pool *pool = new_pool(2, NULL);
    _Atomic uint64_t done = 0;
    uint64_t helped = 0;
    // Between regions the worker outlasts its patience and sleeps. It must then take tiles within a bounded number of tries,
    // however late it is woken.
    const tern_stage stages[2] = {{sleep_tile, &done, 1, NULL}, {sleep_tile, &done, 8, NULL}};
    uint64_t rounds = 0;
    while (rounds < 200 && (helped == 0 || tern_pool_worker_counters(pool, 1).parks == 0)) {
        assert_int_equal(tern_pool_run(pool, stages, 2, NULL), TERN_OK);
        helped = tern_pool_worker_counters(pool, 1).tiles;
        rounds++;
        usleep(2000);
    }
    assert_true(done == rounds * 9);
    assert_true(helped > 0);
    assert_true(tern_pool_worker_counters(pool, 1).regions > 0);
    assert_true(tern_pool_worker_counters(pool, 1).parks > 0);
    tern_pool_destroy(pool);
}

static void the_caller_may_sleep_while_another_worker_ends_the_region(void **state) {
    (void)state;
    tern_pool *pool = new_pool(2, NULL);
    _Atomic uint64_t done = 0;
    // Two tiles each: whoever is done first waits about a millisecond for the other, which is beyond its patience.
    tern_stage stages[10];
    for (size_t i = 0; i < 10; i++) stages[i] = (tern_stage){sleep_tile, &done, 1 + i % 3, NULL};
    assert_int_equal(tern_pool_run(pool, stages, 10, NULL), TERN_OK);
    assert_true(done == 19);
    tern_pool_destroy(pool);
}

static void pools_come_and_go_without_running_anything(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++) tern_pool_destroy(new_pool(1 + i % WORKERS_MAX, NULL));
    tern_pool_destroy(NULL);
    assert_true(true);
}

// ---- misuse and hard times -------------------------------------------------------------------------------------

typedef struct nested_call {
    tern_pool *pool;
    _Atomic int refused;
} nested_call;

static void nested_tile(void *arg, size_t tile) {
    (void)tile;
    nested_call *call = arg;
    if (tern_pool_run(call->pool, NULL, 0, NULL) == TERN_ERR_STATE) atomic_fetch_add(&call->refused, 1);
}

static void a_region_inside_a_region_is_refused(void **state) {
    (void)state;
    nested_call call = {new_pool(2, NULL), 0};
    const tern_stage stage = {nested_tile, &call, 20, NULL};
    assert_int_equal(tern_pool_run(call.pool, &stage, 1, NULL), TERN_OK);
    assert_int_equal(call.refused, 20);
    tern_pool_destroy(call.pool);
}

static void a_forked_child_gets_an_error_and_may_destroy(void **state) {
    (void)state;
    tern_pool *pool = new_pool(2, NULL);
    _Atomic uint64_t sum = 0;
    const tern_stage stage = {add_tile, &sum, 10, NULL};
    assert_int_equal(tern_pool_run(pool, &stage, 1, NULL), TERN_OK);
    const pid_t child = fork();
    if (child == 0) {
        tern_error err = {""};
        const bool refused = tern_pool_run(pool, &stage, 1, &err) == TERN_ERR_STATE && strstr(err.text, "fork");
        tern_pool_destroy(pool);
        _exit(refused ? 0 : 1);
    }
    int code = -1;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    assert_int_equal(tern_pool_run(pool, &stage, 1, NULL), TERN_OK);
    assert_true(sum == 110);
    tern_pool_destroy(pool);
}

// Runs in a child whose address space has no room for the stacks of many threads.
static int try_too_many_threads(void) {
    const struct rlimit limit = {256u << 20, 256u << 20};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 2;
    tern_error err = {""}, warning = {""};
    tern_pool *pool = NULL;
    if (tern_pool_create(&pool, plan_of(TERN_THREADS_MAX, NULL), &tern_default_allocator, &warning, &err) != TERN_OK) return 3;
    int could = 0;
    if (sscanf(warning.text, "only %d of 1024", &could) != 1 || could < 1 || tern_pool_threads(pool) != could) return 4;
    _Atomic uint64_t sum = 0;
    const tern_stage stage = {add_tile, &sum, 2000, NULL};
    if (tern_pool_run(pool, &stage, 1, &err) != TERN_OK || sum != 2000 * 2001 / 2) return 5;
    tern_pool_destroy(pool);
    return 0;
}

static void too_many_threads_give_the_pool_that_could_be_had_and_a_warning(void **state) {
    (void)state;
    if (SANITIZED) skip(); // a sanitizer reserves more address space than the limit of this test
    const pid_t child = fork();
    if (child == 0) _exit(try_too_many_threads());
    int code = -1;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 0);
}

static void workers_whose_binding_is_refused_run_unbound_with_a_warning(void **state) {
    (void)state;
    tern_error err = {""}, warning = {""};
    tern_pool *pool = NULL;
    const int cpus[3] = {TERN_CPU_NONE, 100000, TERN_CPU_NONE}; // beyond any system's CPUs
    assert_int_equal(tern_pool_create(&pool, plan_of(3, cpus), &tern_default_allocator, &warning, &err), TERN_OK);
    assert_non_null(strstr(warning.text, "1 of 3 workers could not be bound"));
    assert_non_null(strstr(warning.text, "TERN_PIN=none"));
    assert_int_equal(tern_pool_threads(pool), 3);
    assert_int_equal(tern_pool_cpu(pool, 1), TERN_CPU_NONE);
    _Atomic uint64_t sum = 0;
    const tern_stage stage = {add_tile, &sum, 10, NULL};
    assert_int_equal(tern_pool_run(pool, &stage, 1, NULL), TERN_OK);
    assert_true(sum == 55);
    tern_pool_destroy(pool);
}

typedef struct seen_cpus {
    _Atomic int outside;
    cpu_set_t allowed;
} seen_cpus;

static void note_cpu(void *arg, size_t tile) {
    (void)tile;
    seen_cpus *seen = arg;
    const int cpu = sched_getcpu();
    if (cpu >= 0 && !CPU_ISSET((size_t)cpu, &seen->allowed)) atomic_fetch_add(&seen->outside, 1);
}

static void workers_stay_inside_the_affinity_mask_and_the_callers_mask_is_kept(void **state) {
    (void)state;
    cpu_set_t before, after, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    const int here = sched_getcpu();
    CPU_ZERO(&one);
    CPU_SET((size_t)here, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    static tern_topology topology;
    tern_numa *numa;
    tern_topology_detect(&topology, &numa, NULL);
    tern_numa_release(numa);
    assert_int_equal(topology.pus, 1);
    assert_int_equal(topology.cores, 1);
    assert_int_equal(topology.n_listed, 1);
    assert_int_equal(topology.pu[0].cpu, here);
    const int cpus[3] = {topology.pu[0].cpu, TERN_CPU_NONE, TERN_CPU_NONE};
    tern_pool *pool = new_pool(3, cpus);
    seen_cpus seen = {0, one};
    const tern_stage stages[2] = {{note_cpu, &seen, 40, NULL}, {note_cpu, &seen, 40, NULL}};
    for (int i = 0; i < 50; i++) assert_int_equal(tern_pool_run(pool, stages, 2, NULL), TERN_OK);
    assert_int_equal(seen.outside, 0);
    tern_pool_destroy(pool);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&after, &one));
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void a_caller_on_a_workers_cpu_moves_for_the_region_only(void **state) {
    (void)state;
    static tern_topology topology;
    tern_numa *numa;
    tern_topology_detect(&topology, &numa, NULL);
    tern_numa_release(numa);
    if (topology.n_listed < 2) skip();
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    const int here = sched_getcpu();
    const int other = topology.pu[0].cpu == here ? topology.pu[1].cpu : topology.pu[0].cpu;
    const int cpus[2] = {other, here}; // the worker is bound where the caller runs
    tern_pool *pool = new_pool(2, cpus);
    _Atomic uint64_t sum = 0;
    const tern_stage stage = {add_tile, &sum, 10, NULL};
    for (int i = 0; i < 100; i++) assert_int_equal(tern_pool_run(pool, &stage, 1, NULL), TERN_OK);
    assert_int_equal(sum, 100 * 55);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&after, &before));
    tern_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_runs_exactly_once_and_stages_keep_their_order),
        cmocka_unit_test(pinned_workers_give_the_same_guarantee),
        cmocka_unit_test(a_region_of_hundreds_of_stages_runs_completely),
        cmocka_unit_test(empty_regions_and_empty_stages_return),
        cmocka_unit_test(workers_that_fell_asleep_take_part_again),
        cmocka_unit_test(the_caller_may_sleep_while_another_worker_ends_the_region),
        cmocka_unit_test(pools_come_and_go_without_running_anything),
        cmocka_unit_test(a_region_inside_a_region_is_refused),
        cmocka_unit_test(a_forked_child_gets_an_error_and_may_destroy),
        cmocka_unit_test(too_many_threads_give_the_pool_that_could_be_had_and_a_warning),
        cmocka_unit_test(workers_whose_binding_is_refused_run_unbound_with_a_warning),
        cmocka_unit_test(workers_stay_inside_the_affinity_mask_and_the_callers_mask_is_kept),
        cmocka_unit_test(a_caller_on_a_workers_cpu_moves_for_the_region_only),
    };
    return cmocka_run_group_tests_name("pool", tests, start_random, NULL);
}
