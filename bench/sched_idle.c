// SPDX-License-Identifier: MIT
// What the workers burn when there is nothing to do: CPU time of the process less that of the calling thread.
#include <math.h>
#include <time.h>

#include "sched_bench.h"

enum { ROUNDS = 5, QUICK_ROUNDS = 1, REGIONS = 100 };
static const double soon_seconds = 0.1, later_seconds = 0.9; // after the last region; then until the end of the round
static const double work_seconds = 1e-6, micro = 1e6, milli = 1e3, nano = 1e-9;

static double cpu_seconds(clockid_t clock) {
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + nano * (double)t.tv_nsec;
}

// Of all threads but this one.
static double others_seconds(void) { return cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_seconds(CLOCK_THREAD_CPUTIME_ID); }

static void sleep_seconds(double seconds) {
    const struct timespec pause = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) / nano)};
    (void)nanosleep(&pause, NULL);
}

static void tile(void *arg, size_t index) {
    (void)index;
    sched_work(*(const size_t *)arg);
}

typedef struct rounds {
    double until_parked[ROUNDS], idle[ROUNDS];
    size_t n, parked; // parked: rounds after which all workers slept
} rounds;

static bool all_parked(tern_context *ctx, const uint64_t parks_before[SCHED_PAIR]) {
    bool all = true;
    for (int i = 1; i < SCHED_PAIR; i++) {
        tern_worker_counters c = {.struct_size = sizeof c};
        all &= tern_get_worker_counters(ctx, i, &c) == TERN_OK && c.parks > parks_before[i];
    }
    return all;
}

static bool measure_round(sched_bench *b, tern_context *ctx, rounds *r) {
    size_t additions = sched_additions(work_seconds);
    const tern_stage stage = {.fn = tile, .arg = &additions, .n_tiles = SCHED_PAIR};
    uint64_t parks[SCHED_PAIR] = {0};
    for (int i = 0; i < REGIONS; i++) {
        if (tern_run_region(ctx, &stage, 1) != TERN_OK) return sched_fail("%s", tern_context_error(ctx));
    }
    const double end = others_seconds();
    for (int i = 1; i < SCHED_PAIR; i++) {
        tern_worker_counters c = {.struct_size = sizeof c};
        if (tern_get_worker_counters(ctx, i, &c) == TERN_OK) parks[i] = c.parks;
    }
    sleep_seconds(soon_seconds);
    const double soon = others_seconds();
    sleep_seconds(b->quick ? soon_seconds : later_seconds);
    const double later = others_seconds();
    r->until_parked[r->n] = (soon - end) * micro; // awake means running: the CPU time is the time until it slept
    r->idle[r->n] = (later - soon) * milli;
    r->n++;
    r->parked += all_parked(ctx, parks);
    return true;
}

bool sched_measure_idle(sched_bench *b) {
    rounds r = {.n = 0};
    tern_context *ctx = sched_open(SCHED_PAIR);
    bool ok = ctx != NULL;
    for (size_t i = 0; ok && i < (b->quick ? (size_t)QUICK_ROUNDS : ROUNDS); i++) ok = measure_round(b, ctx, &r);
    if (ok) {
        (void)sched_add_case(b, "awake_after_last_region", "tern", "us", r.until_parked, r.n);
        json_t *c = sched_add_case(b, "cpu_time_idle_100ms_to_1s", "tern", "ms", r.idle, r.n);
        (void)json_object_set_new(c, "asleep_every_time", json_boolean(r.parked == r.n));
    }
    tern_context_destroy(ctx);
    return ok;
}
