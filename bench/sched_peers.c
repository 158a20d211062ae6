// SPDX-License-Identifier: MIT
// Tern as one of the schedulers, and the plain pool: one mutex, two condition variables, as textbooks have it.
#include "sched_peers.h"

#include <pthread.h>
#include <sched.h>

bool sched_bind(int cpu) {
    if (cpu < 0) return true;
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET((size_t)cpu, &mask);
    return sched_setaffinity(0, sizeof mask, &mask) == 0 || sched_fail("this thread could not be bound to CPU %d", cpu);
}

// ---- Tern ---------------------------------------------------------------------------------------------------------------

static struct {
    tern_context *ctx;
    tern_stage stages[SCHED_STAGES_MAX];
    size_t n_stages;
} tern;

static bool tern_start(const int cpus[SCHED_PAIR]) {
    (void)cpus; // Tern binds its workers itself: that is where cpus are from
    tern.ctx = sched_open(SCHED_PAIR);
    return tern.ctx != NULL;
}

static void tern_set(const sched_region *region) {
    tern.n_stages = region->n_stages;
    for (size_t i = 0; i < region->n_stages; i++)
        tern.stages[i] = (tern_stage){.fn = region->fn, .arg = region->arg, .n_tiles = SCHED_PAIR};
}

static void tern_run(void) { (void)tern_run_region(tern.ctx, tern.stages, tern.n_stages); }

static void tern_stop(void) {
    tern_context_destroy(tern.ctx);
    tern.ctx = NULL;
}

tern_context *sched_tern_peer_context(void) { return tern.ctx; }

const sched_peer sched_tern_peer = {"tern", tern_start, tern_set, tern_run, tern_stop, true};

// ---- Mutex and condition variables --------------------------------------------------------------------------------------

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t opened, closed;
    pthread_t thread;
    sched_region region;
    size_t opened_stages; // the number of the stage that is open; the second thread has run finished_stages of them
    size_t finished_stages;
    bool stopping;
    int cpu;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER, .closed = PTHREAD_COND_INITIALIZER};

static void *second_thread(void *arg) {
    (void)arg;
    (void)sched_bind(pool.cpu);
    (void)pthread_mutex_lock(&pool.mutex);
    for (;;) {
        while (pool.opened_stages == pool.finished_stages && !pool.stopping) (void)pthread_cond_wait(&pool.opened, &pool.mutex);
        if (pool.stopping) break;
        (void)pthread_mutex_unlock(&pool.mutex);
        pool.region.fn(pool.region.arg, 1);
        (void)pthread_mutex_lock(&pool.mutex);
        pool.finished_stages++;
        (void)pthread_cond_signal(&pool.closed);
    }
    (void)pthread_mutex_unlock(&pool.mutex);
    return NULL;
}

static bool condvar_start(const int cpus[SCHED_PAIR]) {
    pool.cpu = cpus[1];
    pool.stopping = false;
    return pthread_create(&pool.thread, NULL, second_thread, NULL) == 0 || sched_fail("no thread for the mutex/condvar pool");
}

static void condvar_set(const sched_region *region) { pool.region = *region; }

static void condvar_run(void) {
    for (size_t i = 0; i < pool.region.n_stages; i++) {
        (void)pthread_mutex_lock(&pool.mutex);
        pool.opened_stages++;
        (void)pthread_cond_signal(&pool.opened);
        (void)pthread_mutex_unlock(&pool.mutex);
        pool.region.fn(pool.region.arg, 0);
        (void)pthread_mutex_lock(&pool.mutex);
        while (pool.opened_stages != pool.finished_stages) (void)pthread_cond_wait(&pool.closed, &pool.mutex);
        (void)pthread_mutex_unlock(&pool.mutex);
    }
}

static void condvar_stop(void) {
    (void)pthread_mutex_lock(&pool.mutex);
    pool.stopping = true;
    (void)pthread_cond_signal(&pool.opened);
    (void)pthread_mutex_unlock(&pool.mutex);
    (void)pthread_join(pool.thread, NULL);
}

const sched_peer sched_condvar_peer = {"mutex/condvar", condvar_start, condvar_set, condvar_run, condvar_stop, true};
