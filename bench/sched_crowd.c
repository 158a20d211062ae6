// SPDX-License-Identifier: MIT
// A shared machine: more workers than CPUs, and a stranger that spins on one of the CPUs. Each run is a process of its own,
// with the library's defaults inside the CPUs it is given, and is ended if it does not come back: that is a livelock.
//
// All situations follow one another in each round. ideal = CPU seconds that the same work took unloaded in the same round, by
// the CPUs' worth of time that fair sharing leaves; reported is time / ideal. `cpu_ratio` takes the CPU time that the system
// really gave instead: CPU seconds used / CPU seconds used unloaded (what was spent on waiting makes it larger than 1).
// A round in which a single worker did not have its CPU to itself was not unloaded: it is dropped.
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sched_products.h"

enum { ROUNDS = 5, QUICK_ROUNDS = 1, CROWD = 4, PATIENCE_MS = 20000 };
enum { CHAIN_STAGES = 200, CHAIN_TILES = 8, CHAINS = 20, GEMM_M = 512, GEMMS = 6 };
static const double tile_seconds = 5e-6; // a stage of a small model's decode step: 40 us on one core

// ---- Work: what one process does, and what it found ---------------------------------------------------------------------

typedef struct outcome {
    double seconds, cpu_seconds;
    uint64_t stolen, parks;
    bool correct; // every tile ran once, and the workers' counters add up to them
} outcome;

typedef struct chain {
    atomic_size_t ran[CHAIN_STAGES];
    size_t additions;
} chain;

typedef struct chain_stage {
    chain *all;
    size_t index;
} chain_stage;

static void chain_tile(void *arg, size_t tile) {
    const chain_stage *stage = arg;
    (void)tile;
    sched_work(stage->all->additions);
    atomic_fetch_add_explicit(&stage->all->ran[stage->index], 1, memory_order_relaxed); // read after the region
}

static double process_seconds(void) {
    static const double nano = 1e-9;
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + nano * (double)t.tv_nsec;
}

// Sums over all workers.
static tern_worker_counters count(tern_context *ctx) {
    tern_worker_counters sum = {.struct_size = sizeof sum};
    for (int i = 0; i < tern_context_threads(ctx); i++) {
        tern_worker_counters c = {.struct_size = sizeof c};
        if (tern_get_worker_counters(ctx, i, &c) != TERN_OK) continue;
        sum.tiles += c.tiles;
        sum.stolen += c.stolen;
        sum.parks += c.parks;
    }
    return sum;
}

static bool run_chain(tern_context *ctx, size_t additions, size_t repeats, outcome *o) {
    static chain c;
    static chain_stage args[CHAIN_STAGES];
    static tern_stage stages[CHAIN_STAGES];
    c.additions = additions;
    for (size_t i = 0; i < CHAIN_STAGES; i++) {
        args[i] = (chain_stage){&c, i};
        stages[i] = (tern_stage){.fn = chain_tile, .arg = &args[i], .n_tiles = CHAIN_TILES};
    }
    const tern_worker_counters before = count(ctx);
    const double cpu = process_seconds(), start = sched_seconds();
    for (size_t i = 0; i < repeats; i++) {
        if (tern_run_region(ctx, stages, CHAIN_STAGES) != TERN_OK) return false;
    }
    o->seconds = sched_seconds() - start;
    o->cpu_seconds = process_seconds() - cpu;
    const tern_worker_counters after = count(ctx);
    o->correct = after.tiles - before.tiles == (uint64_t)CHAIN_STAGES * CHAIN_TILES * repeats;
    for (size_t i = 0; i < CHAIN_STAGES; i++)
        o->correct &= atomic_load_explicit(&c.ran[i], memory_order_relaxed) == CHAIN_TILES * repeats;
    o->stolen = after.stolen - before.stolen;
    o->parks = after.parks - before.parks;
    return true;
}

// Its sums are tested elsewhere; here that it comes to an end.
static bool run_gemm(tern_context *ctx, size_t additions, size_t repeats, outcome *o) {
    static const sched_step shape[] = {{2560, 1, {2560}}};
    (void)additions;
    sched_products *p =
        sched_products_create(ctx, &(sched_sequence){"a product for a crowd", shape, 1, 1, GEMM_M, false}, NULL);
    bool ok = p && sched_products_run_plans(p);
    const tern_worker_counters before = count(ctx);
    const double cpu = process_seconds(), start = sched_seconds();
    for (size_t i = 0; ok && i < repeats; i++) ok = sched_products_run_plans(p);
    o->seconds = sched_seconds() - start;
    o->cpu_seconds = process_seconds() - cpu;
    const tern_worker_counters after = count(ctx);
    o->correct = after.tiles > before.tiles;
    o->stolen = after.stolen - before.stolen;
    o->parks = after.parks - before.parks;
    sched_products_destroy(p);
    return ok;
}

typedef enum work { CHAIN, GEMM, WORKS } work;
static const struct {
    const char *name;
    bool (*run)(tern_context *ctx, size_t additions, size_t repeats, outcome *o);
    size_t repeats, quick_repeats;
} works[WORKS] = {[CHAIN] = {"chain_200_stages", run_chain, CHAINS, 1}, [GEMM] = {"gemm_m512_2560x2560", run_gemm, GEMMS, 1}};

// ---- Situations -----------------------------------------------------------------------------------------------------------

typedef enum situation { ONE_ON_ONE, TWO_ON_TWO, FOUR_ON_TWO, TWO_ON_ONE, STRANGER, STRANGER_UNBOUND, SITUATIONS } situation;
static const struct {
    const char *name;
    int threads, n_cpus;
    bool stranger, unbound;
    situation unloaded; // the run of this round that tells what the work needs
    double cpus_worth;  // what fair sharing leaves: of a core with a stranger on it, half
} situations[SITUATIONS] = {[ONE_ON_ONE] = {"1_worker_on_1_cpu", 1, 1, false, false, ONE_ON_ONE, 1},
                            [TWO_ON_TWO] = {"2_workers_on_2_cpus", 2, 2, false, false, ONE_ON_ONE, 2},
                            [FOUR_ON_TWO] = {"4_workers_on_2_cpus", CROWD, 2, false, false, TWO_ON_TWO, 2},
                            [TWO_ON_ONE] = {"2_workers_on_1_cpu", 2, 1, false, false, ONE_ON_ONE, 1},
                            [STRANGER] = {"2_workers_and_a_stranger", 2, 2, true, false, TWO_ON_TWO, 1.5},
                            [STRANGER_UNBOUND] = {"2_unbound_workers_and_a_stranger", 2, 2, true, true, TWO_ON_TWO, 1.5}};

static bool keep_cpus(const int *cpus, int n) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    for (int i = 0; i < n; i++) CPU_SET((size_t)cpus[i], &mask);
    return sched_setaffinity(0, sizeof mask, &mask) == 0;
}

static _Noreturn void be_a_stranger(int cpu) {
    enum { AWHILE = 1 << 20 };
    if (!keep_cpus(&cpu, 1)) _exit(1);
    for (;;) sched_work(AWHILE);
}

// In the child: writes an outcome into the pipe, or nothing.
static bool be_a_worker(const sched_bench *b, situation s, work w, size_t additions, int fd) {
    outcome o = {.correct = false};
    if (!keep_cpus(b->cpus, situations[s].n_cpus)) return sched_fail("CPUs could not be chosen: %s", strerror(errno));
    char error[BUFSIZ] = "";
    const tern_context_params params = {.struct_size = sizeof params,
                                        .threads = situations[s].threads,
                                        .no_pinning = situations[s].unbound,
                                        .tune = "off",
                                        .error = error,
                                        .error_size = sizeof error};
    tern_context *ctx = NULL;
    if (tern_context_create(&ctx, &params) != TERN_OK) return sched_fail("%s: %s", situations[s].name, error);
    const bool ok = works[w].run(ctx, additions, b->quick ? works[w].quick_repeats : works[w].repeats, &o);
    tern_context_destroy(ctx);
    return ok && write(fd, &o, sizeof o) == (ssize_t)sizeof o;
}

static void end_process(pid_t pid) {
    if (pid <= 0) return;
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

// False: it did not come back in time, or failed.
static bool run_situation(const sched_bench *b, situation s, work w, size_t additions, outcome *o) {
    int fd[2];
    if (pipe(fd) != 0) return sched_fail("no pipe: %s", strerror(errno));
    pid_t stranger = situations[s].stranger ? fork() : 0;
    if (situations[s].stranger && stranger == 0) be_a_stranger(b->cpus[SCHED_PAIR - 1]);
    const pid_t worker = stranger < 0 ? -1 : fork();
    if (worker == 0) _exit(be_a_worker(b, s, w, additions, fd[1]) ? 0 : 1);
    (void)close(fd[1]);
    struct pollfd wait = {.fd = fd[0], .events = POLLIN};
    const bool came = worker > 0 && poll(&wait, 1, PATIENCE_MS) == 1 && read(fd[0], o, sizeof *o) == (ssize_t)sizeof *o;
    (void)close(fd[0]);
    end_process(worker);
    end_process(stranger);
    return came ||
           sched_fail("%s, %s: did not come to its end within %d s", situations[s].name, works[w].name, PATIENCE_MS / 1000);
}

// ---- Rounds -----------------------------------------------------------------------------------------------------------------

static const double own_cpu = 0.97; // of a CPU, at least, for a single worker

typedef struct series {
    double ratio[ROUNDS], cpu_ratio[ROUNDS], seconds[ROUNDS], cpus_given[ROUNDS];
    size_t n, came, hung, dropped;
    uint64_t stolen, parks;
    bool correct;
} series;

static void add_round(series *s, const outcome *o, const outcome *unloaded, double cpus_worth, int unloaded_cpus) {
    const double needed = unloaded->seconds * unloaded_cpus;
    s->ratio[s->n] = o->seconds / (needed / cpus_worth);
    s->cpu_ratio[s->n] = o->cpu_seconds / unloaded->cpu_seconds;
    s->cpus_given[s->n] = o->cpu_seconds / o->seconds;
    s->seconds[s->n++] = o->seconds;
    s->stolen += o->stolen;
    s->parks += o->parks;
}

static void measure_round(const sched_bench *b, work w, size_t additions, series all[SITUATIONS]) {
    outcome o[SITUATIONS];
    bool came[SITUATIONS];
    for (int s = 0; s < SITUATIONS; s++) {
        const situation base = situations[s].unloaded;
        came[s] = run_situation(b, (situation)s, w, additions, &o[s]);
        all[s].came += came[s];
        all[s].hung += !came[s];
        if (came[s]) all[s].correct &= o[s].correct;
        const bool unloaded = came[ONE_ON_ONE] && o[ONE_ON_ONE].cpu_seconds >= own_cpu * o[ONE_ON_ONE].seconds;
        all[s].dropped += !unloaded;
        if (came[s] && came[base] && unloaded)
            add_round(&all[s], &o[s], &o[base], situations[s].cpus_worth, situations[base].n_cpus);
    }
}

static void report(sched_bench *b, work w, situation s, const series *r) {
    char name[BUFSIZ];
    (void)snprintf(name, sizeof name, "%s/%s", situations[s].name, works[w].name);
    json_t *c = sched_add_case(b, name, "tern", "x", r->ratio, r->n);
    sched_set_real(c, "seconds", sched_median(r->seconds, r->n));
    sched_set_real(c, "cpus_worth", situations[s].cpus_worth);
    sched_set_real(c, "cpus_given", sched_median(r->cpus_given, r->n));
    sched_set_real(c, "cpu_ratio", sched_median(r->cpu_ratio, r->n));
    (void)json_object_set_new(c, "stolen", json_integer((json_int_t)r->stolen));
    (void)json_object_set_new(c, "parks", json_integer((json_int_t)r->parks));
    (void)json_object_set_new(c, "dropped", json_integer((json_int_t)r->dropped));
    (void)json_object_set_new(c, "hung", json_integer((json_int_t)r->hung));
    (void)json_object_set_new(c, "correct", r->came > 0 ? json_boolean(r->correct) : json_null());
}

bool sched_measure_crowd(sched_bench *b) {
    const bool two_cpus = b->cpus[0] >= 0 && b->cpus[1] >= 0 && b->cpus[0] != b->cpus[1]; // else nothing is measured
    const size_t rounds = !two_cpus ? 0 : b->quick ? QUICK_ROUNDS : ROUNDS, additions = sched_additions(tile_seconds);
    for (int w = 0; w < WORKS; w++) {
        series all[SITUATIONS] = {{.n = 0}};
        for (int s = 0; s < SITUATIONS; s++) all[s].correct = true;
        for (size_t i = 0; i < rounds; i++) measure_round(b, (work)w, additions, all);
        for (int s = 0; s < SITUATIONS; s++) report(b, (work)w, (situation)s, &all[s]);
    }
    return true;
}
