// SPDX-License-Identifier: MIT
// What a region costs when its workers wait for it: empty regions, the step from stage to stage, waking a worker that sleeps;
// Tern, OpenMP and a mutex/condvar pool in turn.
//
// A core of a virtual machine is taken away now and then, which no scheduler can help. So each sample stands between two runs
// of a control loop on both cores, by the threads that are measured: each reads the clock again and again. If either core shows
// a gap, before or after, the sample is dropped. Nothing is dropped for being slow itself.
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "sched_peers.h"

enum { ROUNDS = 20, QUICK_ROUNDS = 2, SAMPLES = 400, LONG_SAMPLES = 40, WAKES = 6, QUICK_SHARE = 20, WARM_UPS = 200 };
enum { BOUNCES = 100, POLLS_PER_CLOCK = 1024, BOUNCE_SAMPLES = 20 };
enum { LONG_REGION = 101 }; // stages: one more than the steps between them

static const double gap_seconds = 5e-6;      // what counts as a core taken away
static const double control_seconds = 10e-6; // length of a control loop
static const double settle_seconds = 2e-6;   // for the second thread to be back at its waiting
static const double work_seconds = 1e-6;     // a tile that is long enough for both threads to have one
static const double sleep_seconds = 3e-3;    // the caller's, for the second thread to fall asleep
static const double wake_limit = 5e-3;       // who has not come by then is not waited for
static const double slice_seconds = 20e-3;   // of a round, for one kind of one peer: slow ones get fewer samples
static const double micro = 1e6, nano = 1e9;

// ---- Tiles --------------------------------------------------------------------------------------------------------------

// What a tile leaves behind, each on lines of its own.
typedef struct tile_note {
    _Alignas(SCHED_HOT_LINE) const void *thread; // who ran it
    double gap, start;
    atomic_bool started;
} tile_note;

typedef struct latency {
    tile_note notes[SCHED_PAIR];
    size_t additions; // of a tile with work
    _Alignas(SCHED_HOT_LINE) atomic_size_t turn;
} latency;

static _Thread_local char this_thread;

static void empty_tile(void *arg, size_t tile) { ((latency *)arg)->notes[tile].thread = &this_thread; }

static void work_tile(void *arg, size_t tile) {
    latency *l = arg;
    l->notes[tile].thread = &this_thread;
    sched_work(l->additions);
}

static void control_tile(void *arg, size_t tile) {
    tile_note *note = &((latency *)arg)->notes[tile];
    double before = sched_seconds(), gap = 0;
    const double end = before + control_seconds;
    while (before < end) {
        const double now = sched_seconds();
        gap = fmax(gap, now - before);
        before = now;
    }
    note->gap = gap;
    note->thread = &this_thread;
}

// Notes when it started, and waits for the other tile: neither thread can have both before that, or before the limit.
static void wake_tile(void *arg, size_t tile) {
    latency *l = arg;
    tile_note *note = &l->notes[tile], *other = &l->notes[SCHED_PAIR - 1 - tile];
    note->thread = &this_thread;
    note->start = sched_seconds();
    atomic_store_explicit(&note->started, true, memory_order_release); // publishes the note
    while (!atomic_load_explicit(&other->started, memory_order_acquire) && sched_seconds() < note->start + wake_limit) {}
}

// The machine's own price: a cache line goes to the other core and back, so many times. Gives up where nobody answers.
static void bounce_tile(void *arg, size_t tile) {
    latency *l = arg;
    l->notes[tile].thread = &this_thread;
    const double end = sched_seconds() + wake_limit;
    for (size_t turn = tile; turn < SCHED_PAIR * BOUNCES; turn += SCHED_PAIR) {
        // acquire and release: as in any hand-over of data, though there is none here
        for (size_t polls = 1; atomic_load_explicit(&l->turn, memory_order_acquire) != turn; polls++) {
            if (polls % POLLS_PER_CLOCK == 0 && sched_seconds() > end) return;
        }
        atomic_store_explicit(&l->turn, turn + 1, memory_order_release);
    }
}

static bool both_took_part(const latency *l) { return l->notes[0].thread != l->notes[1].thread; }

// Empty tiles: who comes first may run both. Tiles with work: the second worker has to come, as OpenMP's always does.
typedef struct region_kind {
    const char *name;
    tern_tile_fn fn;
    bool works;
    size_t n_stages, samples;
} region_kind;
typedef enum kind_index { EMPTY, WORK, EMPTY_STEP, WORK_STEP, KINDS } kind_index;
static const region_kind kinds[KINDS] = {[EMPTY] = {"empty_region", empty_tile, false, 1, SAMPLES},
                                         [WORK] = {"short_region", work_tile, true, 1, SAMPLES},
                                         [EMPTY_STEP] = {"empty_stage", empty_tile, false, LONG_REGION, LONG_SAMPLES},
                                         [WORK_STEP] = {"short_stage", work_tile, true, LONG_REGION, LONG_SAMPLES}};

// ---- One sample ---------------------------------------------------------------------------------------------------------

typedef struct samples {
    double *values;
    size_t n, gaps, one_sided; // one_sided: one thread ran both control loops, so the other core was not seen
    size_t shared;             // of n: both threads ran tiles
} samples;

typedef enum control_result { CONTROL_QUIET, CONTROL_GAP, CONTROL_ONE_SIDED } control_result;

static void wait_seconds(double seconds) {
    const double end = sched_seconds() + seconds;
    while (sched_seconds() < end) {}
}

static control_result control(const sched_peer *peer, latency *l) {
    peer->set(&(sched_region){control_tile, l, 1});
    peer->run();
    if (!both_took_part(l)) return CONTROL_ONE_SIDED;
    return fmax(l->notes[0].gap, l->notes[1].gap) > gap_seconds ? CONTROL_GAP : CONTROL_QUIET;
}

// The shorter of two: an interruption is no part of the work.
static double seconds_alone(latency *l, tern_tile_fn fn) {
    double best = (double)INFINITY;
    for (size_t tile = 0; tile < SCHED_PAIR; tile++) {
        const double start = sched_seconds();
        fn(l, tile);
        best = fmin(best, sched_seconds() - start);
    }
    return best;
}

// What the region takes longer than its tiles one after the other on one core, of each stage one.
static void sample(const sched_peer *peer, latency *l, const region_kind *kind, samples *s) {
    const control_result before = control(peer, l);
    peer->set(&(sched_region){kind->fn, l, kind->n_stages});
    const double work = kind->works ? (double)kind->n_stages * seconds_alone(l, kind->fn) : 0;
    wait_seconds(settle_seconds);
    const double start = sched_seconds();
    peer->run();
    const double seconds = sched_seconds() - start;
    const bool shared = both_took_part(l);
    const control_result after = control(peer, l);
    if (before == CONTROL_GAP || after == CONTROL_GAP) {
        s->gaps++;
    } else if (before == CONTROL_ONE_SIDED || after == CONTROL_ONE_SIDED) {
        s->one_sided++;
    } else {
        s->values[s->n++] = seconds - work;
        s->shared += shared;
    }
}

// ---- One peer, all rounds -------------------------------------------------------------------------------------------------

typedef struct record {
    const sched_peer *peer;
    samples of[KINDS], wake, bounce;
    size_t awake; // samples of waking before which Tern's worker had not been asleep
} record;

// From the times of long regions, the cost of a step between stages: less a region of one stage in the same round (median), by
// the steps.
static void to_steps(samples *s, size_t first, const samples *one_stage, size_t first_one) {
    const double one = sched_median(one_stage->values + first_one, one_stage->n - first_one);
    if (!isfinite(one)) { // all samples of the region were dropped
        s->n = first;
        s->shared = s->shared < first ? s->shared : first;
    }
    for (size_t i = first; i < s->n; i++) s->values[i] = (s->values[i] - one) / (LONG_REGION - 1);
}

static void sample_hot(record *r, latency *l, size_t share) {
    size_t first[KINDS];
    for (int k = 0; k < KINDS; k++) {
        samples *s = &r->of[k];
        first[k] = s->n;
        const double end = sched_seconds() + slice_seconds;
        for (size_t i = 0; i < kinds[k].samples / share && sched_seconds() < end; i++) sample(r->peer, l, &kinds[k], s);
    }
    to_steps(&r->of[EMPTY_STEP], first[EMPTY_STEP], &r->of[EMPTY], first[EMPTY]);
    to_steps(&r->of[WORK_STEP], first[WORK_STEP], &r->of[WORK], first[WORK]);
}

static void sample_bounce(record *r, latency *l) {
    r->peer->set(&(sched_region){bounce_tile, l, 1});
    for (size_t i = 0; i < BOUNCE_SAMPLES; i++) {
        atomic_store_explicit(&l->turn, 0, memory_order_relaxed); // the region publishes it
        const double start = sched_seconds();
        r->peer->run();
        if (both_took_part(l)) r->bounce.values[r->bounce.n++] = (sched_seconds() - start) / BOUNCES;
    }
}

static uint64_t second_worker_parks(void) {
    tern_worker_counters c = {.struct_size = sizeof c};
    return tern_get_worker_counters(sched_tern_peer_context(), 1, &c) == TERN_OK ? c.parks : 0;
}

static void sample_wake(record *r, latency *l, size_t wakes) {
    const bool is_tern = r->peer == &sched_tern_peer;
    for (size_t i = 0; i < wakes; i++) {
        const uint64_t parks = is_tern ? second_worker_parks() : 0;
        const struct timespec pause = {.tv_nsec = (long)(sleep_seconds * nano)};
        (void)nanosleep(&pause, NULL);
        r->awake += is_tern && second_worker_parks() == parks;
        for (size_t t = 0; t < SCHED_PAIR; t++) atomic_store_explicit(&l->notes[t].started, false, memory_order_relaxed);
        r->peer->set(&(sched_region){wake_tile, l, 1});
        const double start = sched_seconds();
        r->peer->run();
        if (both_took_part(l)) {
            const tile_note *woken = &l->notes[l->notes[0].thread == &this_thread ? 1 : 0];
            r->wake.values[r->wake.n++] = woken->start - start;
        } else {
            r->wake.one_sided++; // the second thread did not come within the limit
        }
    }
}

static bool measure_round(sched_bench *b, record *r, latency *l) {
    if (!r->peer->start(b->cpus) || !sched_bind(b->cpus[0])) return false;
    const size_t share = b->quick ? QUICK_SHARE : 1;
    r->peer->set(&(sched_region){work_tile, l, 1});
    for (size_t i = 0; i < WARM_UPS; i++) r->peer->run();
    sample_hot(r, l, share);
    sample_bounce(r, l);
    if (r->peer->sleeps) sample_wake(r, l, b->quick ? 1 : WAKES);
    r->peer->stop();
    return true;
}

// ---- Report ---------------------------------------------------------------------------------------------------------------

static json_t *add(sched_bench *b, const char *name, const record *r, const samples *s) {
    for (size_t i = 0; i < s->n; i++) s->values[i] *= micro;
    json_t *c = sched_add_case(b, name, r->peer->name, "us", s->values, s->n);
    (void)json_object_set_new(c, "dropped_for_gaps", json_integer((json_int_t)s->gaps));
    (void)json_object_set_new(c, "dropped_one_sided", json_integer((json_int_t)s->one_sided));
    return c;
}

static void report(sched_bench *b, const record *r) {
    for (int k = 0; k < KINDS; k++) {
        json_t *c = add(b, kinds[k].name, r, &r->of[k]);
        sched_set_real(c, "both_ran", r->of[k].n ? (double)r->of[k].shared / (double)r->of[k].n : (double)NAN);
    }
    (void)add(b, "line_round_trip", r, &r->bounce);
    if (!r->peer->sleeps) return;
    json_t *c = add(b, "wake", r, &r->wake);
    (void)json_object_set_new(c, "not_asleep", json_integer((json_int_t)r->awake));
}

static bool allocate(record *r, size_t rounds) {
    for (int k = 0; k < KINDS; k++) {
        r->of[k].values = malloc(rounds * kinds[k].samples * sizeof(double));
        if (!r->of[k].values) return false;
    }
    r->wake.values = malloc(rounds * WAKES * sizeof(double));
    r->bounce.values = malloc(rounds * BOUNCE_SAMPLES * sizeof(double));
    return r->wake.values && r->bounce.values;
}

static void release(record *r) {
    for (int k = 0; k < KINDS; k++) free(r->of[k].values);
    free(r->wake.values);
    free(r->bounce.values);
}

static void add_clock_read(sched_bench *b) {
    double values[SAMPLES];
    for (size_t i = 0; i < SAMPLES; i++) {
        const double start = sched_seconds();
        values[i] = (sched_seconds() - start) * micro;
    }
    (void)sched_add_case(b, "clock_read", "machine", "us", values, SAMPLES);
}

bool sched_measure_latency(sched_bench *b) {
    enum { PEERS = 3 };
    static latency l;
    record records[PEERS] = {{.peer = &sched_tern_peer}, {.peer = sched_openmp_peer()}, {.peer = &sched_condvar_peer}};
    const size_t rounds = b->quick ? QUICK_ROUNDS : ROUNDS;
    cpu_set_t mask;
    bool ok = sched_getaffinity(0, sizeof mask, &mask) == 0 || sched_fail("this thread's affinity could not be read");
    for (size_t p = 0; p < PEERS && ok; p++) ok = allocate(&records[p], rounds) || sched_fail("no memory for the samples");
    l.additions = sched_additions(work_seconds);
    for (size_t i = 0; i < rounds * PEERS && ok; i++) {
        record *r = &records[(i + i / PEERS) % PEERS]; // who comes first rotates
        if (!r->peer) continue;
        // Tern looks at the caller's mask when a context is created; then the caller stands on its own core.
        ok = measure_round(b, r, &l);
        if (sched_setaffinity(0, sizeof mask, &mask) != 0) ok = sched_fail("this thread's affinity could not be restored");
    }
    for (size_t p = 0; p < PEERS && ok; p++) {
        if (records[p].peer) report(b, &records[p]);
    }
    if (ok) add_clock_read(b);
    for (size_t p = 0; p < PEERS; p++) release(&records[p]);
    return ok;
}
