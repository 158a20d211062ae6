// SPDX-License-Identifier: MIT
// The pool with its threads held at any instruction: a tormentor sends signals whose handler sleeps, so that workers fall
// behind by stages and regions wherever they are, and their futex waits are interrupted.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "sched/pool_state.h"
#include "test_random.h"
#include "test_scale.h"

enum {
    POOLS = 12,
    SIGNALS_PER_POOL = 400,
    WORKERS_MAX = 9,
    STAGES_MAX = 6,
    TILES_MAX = 40,
    HOLD_SIGNAL = SIGPROF, // one that workers do not block
    HOLD_MAX_NS = 400000,
    PAUSE_MAX_NS = 60000,
    TILE_PAUSES = 40,
};

// ---- the tormentor -----------------------------------------------------------------------------------------------

static void nap(uint32_t below_ns) {
    static _Atomic uint64_t calls; // relaxed: any value will do
    uint64_t r = random_seed + atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) * 0x9e3779b97f4a7c15u;
    r = (r ^ r >> 30) * 0xbf58476d1ce4e5b9u;
    nanosleep(&(struct timespec){.tv_nsec = (long)((r >> 32) * below_ns >> 32)}, NULL);
}

static void hold(int signal) {
    (void)signal;
    nap(HOLD_MAX_NS);
}

typedef struct tormentor {
    pthread_t thread, caller;
    const tern_pool *pool;
    _Atomic int signals;
} tormentor;

static void *torment(void *arg) {
    tormentor *t = arg;
    int victim = 0;
    for (int i = 0; i < SIGNALS_PER_POOL; i++) {
        victim = (victim + 5) % t->pool->n_threads;
        pthread_kill(victim == 0 ? t->caller : t->pool->workers[victim].thread, HOLD_SIGNAL);
        atomic_store_explicit(&t->signals, i + 1, memory_order_relaxed); // relaxed: a count; the join orders the rest
        nap(PAUSE_MAX_NS);
    }
    return NULL;
}

// ---- regions that check themselves -------------------------------------------------------------------------------

typedef struct checked_stage {
    const struct checked_stage *before; // NULL: the first
    size_t n_tiles;
    uint32_t stamp;
    _Atomic uint32_t runs[TILES_MAX], too_early;
    uint32_t written[TILES_MAX]; // plain: a tile of the next stage reads what this stage wrote
} checked_stage;

static void checked_tile(void *arg, size_t tile) {
    checked_stage *stage = arg;
    atomic_fetch_add_explicit(&stage->runs[tile], 1, memory_order_relaxed);
    for (size_t i = 0; stage->before && i < stage->before->n_tiles; i++) {
        if (stage->before->written[i] != stage->stamp) atomic_fetch_add_explicit(&stage->too_early, 1, memory_order_relaxed);
    }
    for (size_t i = tile % TILE_PAUSES; i > 0; i--) __builtin_ia32_pause();
    stage->written[tile] = stage->stamp;
}

static void run_region(tern_pool *pool, checked_stage *stages, uint32_t stamp) {
    tern_stage list[STAGES_MAX];
    const size_t n_stages = 1 + random_below(STAGES_MAX);
    for (size_t s = 0; s < n_stages; s++) {
        const checked_stage *before = s > 0 ? &stages[s - 1] : NULL;
        stages[s].before = before;
        stages[s].n_tiles = random_below(4) ? random_below(TILES_MAX + 1) : random_below(3);
        stages[s].stamp = stamp;
        for (size_t i = 0; i < TILES_MAX; i++) atomic_store_explicit(&stages[s].runs[i], 0, memory_order_relaxed);
        list[s] = (tern_stage){.fn = checked_tile, .arg = &stages[s], .n_tiles = stages[s].n_tiles};
    }
    assert_int_equal(tern_pool_run(pool, list, n_stages, NULL), TERN_OK);
    memset(list, 0, sizeof list); // a worker that still read it would crash
    for (size_t s = 0; s < n_stages; s++) {
        assert_int_equal(stages[s].too_early, 0);
        for (size_t i = 0; i < TILES_MAX; i++) assert_int_equal(stages[s].runs[i], i < stages[s].n_tiles);
    }
}

static tern_pool *new_pool(void) {
    static tern_worker_plan plan;
    const int per_group = 1 + (int)random_below(WORKERS_MAX);
    plan = (tern_worker_plan){.n_workers = 2 + (int)random_below(WORKERS_MAX - 1)};
    for (int i = 0; i < plan.n_workers; i++)
        plan.workers[i] = (tern_worker_place){.cpu = TERN_CPU_NONE, .group = i / per_group, .weight = 1 + (int)random_below(3)};
    tern_error err = {""}, warning = {""};
    tern_pool *pool = NULL;
    if (tern_pool_create(&pool, &plan, &tern_default_allocator, &warning, &err) != TERN_OK) fail_msg("%s", err.text);
    if (random_below(2)) pool->crew = pool->n_threads; // wakes more workers than there are CPUs, too
    return pool;
}

static void threads_held_at_any_instruction_do_no_harm(void **unused) {
    (void)unused;
    struct sigaction action = {.sa_handler = hold}, saved;
    assert_int_equal(sigaction(HOLD_SIGNAL, &action, &saved), 0);
    checked_stage *stages = calloc(STAGES_MAX, sizeof *stages);
    assert_non_null(stages);
    uint32_t regions = 0;
    uint64_t stolen = 0, parks = 0;
    for (uint32_t p = 0; p < POOLS; p++) {
        if (!test_takes_case(next_random())) continue;
        tormentor t = {.caller = pthread_self(), .pool = new_pool()};
        assert_int_equal(pthread_create(&t.thread, NULL, torment, &t), 0);
        while (atomic_load_explicit(&t.signals, memory_order_relaxed) < SIGNALS_PER_POOL)
            run_region((tern_pool *)t.pool, stages, ++regions);
        pthread_join(t.thread, NULL);
        for (int i = 0; i < tern_pool_threads(t.pool); i++) {
            stolen += tern_pool_worker_counters(t.pool, i).stolen;
            parks += tern_pool_worker_counters(t.pool, i).parks;
        }
        tern_pool_destroy((tern_pool *)t.pool);
    }
    print_message("%u regions, %llu tiles stolen, %llu parks\n", regions, (unsigned long long)stolen,
                  (unsigned long long)parks);
    free(stages);
    assert_int_equal(sigaction(HOLD_SIGNAL, &saved, NULL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_held_at_any_instruction_do_no_harm)};
    return cmocka_run_group_tests(tests, start_random, NULL);
}
