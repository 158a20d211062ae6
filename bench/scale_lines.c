// SPDX-License-Identifier: MIT
// The prices of the pool's protocol, measured without the pool: two bound threads and a few cache lines.
#include <errno.h>
#include <linux/futex.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "scale_bench.h"
#include "sched_peers.h"

enum {
    LINES = 256,
    COPIES = 24,
    ROUNDS = 101,
    QUICK_ROUNDS = 9,
    BOUNCES = 2000,
    OPERATIONS = 20000,
    WAKES = 41,
    QUICK_WAKES = 3
};
static const double nano = 1e9;
static const long sleep_ns = 300000; // until the other thread sleeps for certain

typedef struct line {
    _Alignas(SCHED_HOT_LINE) _Atomic uint32_t word;
} line;

// The second thread does one step at a time: the first one orders it, and waits for it.
typedef enum step { STEP_NONE, STEP_DIRTY, STEP_BOUNCE, STEP_SLEEP, STEP_END } step;

typedef struct pair {
    line order, done; // step ordered, as a count; steps done
    step what;        // published by order
    line ping, pong, counter, futex;
    line lines[LINES];
    double woke_at;
    int cpu;
    bool bound;
} pair;

static void await(line *l, uint32_t value) {
    while (atomic_load_explicit(&l->word, memory_order_acquire) != value) __builtin_ia32_pause();
}
static void set(line *l, uint32_t value) { atomic_store_explicit(&l->word, value, memory_order_release); }

static void sleep_once(pair *p) {
    while (atomic_load_explicit(&p->futex.word, memory_order_acquire) == 0)
        syscall(SYS_futex, &p->futex.word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    p->woke_at = sched_seconds();
}

static void *second_thread(void *arg) {
    pair *p = arg;
    p->bound = sched_bind(p->cpu);
    set(&p->done, 1);
    for (uint32_t n = 1;; n++) {
        await(&p->order, n);
        if (p->what == STEP_DIRTY)
            for (size_t i = 0; i < LINES; i++) atomic_fetch_add_explicit(&p->lines[i].word, 1, memory_order_relaxed);
        if (p->what == STEP_BOUNCE)
            for (uint32_t i = 1; i <= BOUNCES; i++) await(&p->ping, i), set(&p->pong, i);
        if (p->what == STEP_SLEEP) sleep_once(p);
        set(&p->done, n + 1);
        if (p->what == STEP_END) return NULL;
    }
}

static uint32_t order(pair *p, step what) {
    const uint32_t n = atomic_load_explicit(&p->order.word, memory_order_relaxed) + 1;
    p->what = what;
    set(&p->order, n);
    return n + 1; // what done will be
}

// All lines in an order that no prefetcher follows: a congruential sequence of full period.
static size_t next_line(size_t at) { return (at * 5 + 1) % LINES; }

// ---- the prices -------------------------------------------------------------------------------------------------------

static double visible(pair *p) {
    set(&p->ping, 0);
    const uint32_t done = order(p, STEP_BOUNCE);
    const double start = sched_seconds();
    for (uint32_t i = 1; i <= BOUNCES; i++) set(&p->ping, i), await(&p->pong, i);
    const double seconds = sched_seconds() - start;
    await(&p->done, done);
    return seconds / (2 * BOUNCES);
}

static double own_rmw(pair *p) {
    uint32_t value = atomic_load_explicit(&p->counter.word, memory_order_relaxed);
    const double start = sched_seconds();
    for (size_t i = 0; i < OPERATIONS; i++)
        if (atomic_compare_exchange_strong_explicit(&p->counter.word, &value, value + 1, memory_order_acq_rel,
                                                    memory_order_relaxed))
            value++;
    return (sched_seconds() - start) / OPERATIONS;
}

// Each address depends on the value before: else the core fetches several lines at once.
static double other_rmw(pair *p) {
    await(&p->done, order(p, STEP_DIRTY));
    const double start = sched_seconds();
    for (size_t i = 0, at = 0; i < LINES; i++) {
        const uint32_t value = atomic_fetch_add_explicit(&p->lines[at].word, 1, memory_order_acq_rel);
        at = next_line(at + (value == UINT32_MAX));
    }
    return (sched_seconds() - start) / LINES;
}

static double other_load(pair *p) {
    await(&p->done, order(p, STEP_DIRTY));
    size_t at = 0;
    const double start = sched_seconds();
    for (size_t i = 0; i < LINES; i++) {
        const uint32_t value = atomic_load_explicit(&p->lines[at].word, memory_order_acquire);
        at = next_line(at + (value == UINT32_MAX));
    }
    return (sched_seconds() - start) / LINES;
}

// Plain stores, which the core makes at once, and a fence: what publishing to many copies could cost for each.
static double other_store(pair *p) {
    await(&p->done, order(p, STEP_DIRTY));
    const double start = sched_seconds();
    for (size_t i = 0, at = 0; i < COPIES; i++, at = next_line(at)) set(&p->lines[at], (uint32_t)i);
    atomic_thread_fence(memory_order_seq_cst);
    return (sched_seconds() - start) / COPIES;
}

static void wake(pair *p, double *call, double *latency) {
    set(&p->futex, 0);
    const uint32_t done = order(p, STEP_SLEEP);
    const struct timespec pause = {.tv_nsec = sleep_ns};
    (void)nanosleep(&pause, NULL);
    set(&p->futex, 1);
    const double start = sched_seconds();
    syscall(SYS_futex, &p->futex.word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    *call = sched_seconds() - start;
    await(&p->done, done);
    *latency = p->woke_at - start;
}

static double median_of(pair *p, double (*price)(pair *), size_t rounds) {
    double values[ROUNDS];
    for (size_t i = 0; i < rounds; i++) values[i] = price(p) * nano;
    return sched_median(values, rounds);
}

static void measure(pair *p, bool quick, scale_lines *lines) {
    const size_t rounds = quick ? QUICK_ROUNDS : ROUNDS, wakes = quick ? QUICK_WAKES : WAKES;
    double calls[WAKES], latencies[WAKES];
    for (size_t i = 0; i < wakes; i++) {
        wake(p, &calls[i], &latencies[i]);
        calls[i] *= nano, latencies[i] *= nano;
    }
    *lines = (scale_lines){.visible = median_of(p, visible, rounds),
                           .own_rmw = median_of(p, own_rmw, rounds),
                           .other_rmw = median_of(p, other_rmw, rounds),
                           .other_load = median_of(p, other_load, rounds),
                           .other_store = median_of(p, other_store, rounds),
                           .wake_call = sched_median(calls, wakes),
                           .wake = sched_median(latencies, wakes)};
}

bool scale_measure_lines(const int cpus[SCHED_PAIR], bool quick, scale_lines *lines) {
    static pair p;
    pthread_t thread;
    cpu_set_t mask;
    p.cpu = cpus[1];
    if (sched_getaffinity(0, sizeof mask, &mask) != 0 || !sched_bind(cpus[0])) return sched_fail("this thread cannot be bound");
    if (pthread_create(&thread, NULL, second_thread, &p) != 0) return sched_fail("a second thread could not be had");
    await(&p.done, 1);
    if (p.bound) measure(&p, quick, lines);
    (void)order(&p, STEP_END);
    (void)pthread_join(thread, NULL);
    if (sched_setaffinity(0, sizeof mask, &mask) != 0) return sched_fail("this thread's affinity could not be restored");
    return p.bound;
}
