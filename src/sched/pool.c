// SPDX-License-Identifier: MIT
// The life of a pool: memory, threads (bound, named, signals blocked), counters, and the end of all of them.
#include "sched/pool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "sched/affinity.h"
#include "sched/pool_state.h"

enum { THREAD_NAME_MAX = 32 };

// How often this process is a fork's child. Threads do not survive fork(): a pool works as long as this is what it was when
// the pool was created. Process-wide, because that is what fork() copies; getpid() at every region would cost a system call.
static atomic_uint forks;
static int atfork_failure;

static void count_fork(void) { atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed); } // the child has one thread

static void watch_forks(void) { atfork_failure = pthread_atfork(NULL, NULL, count_fork); }

// relaxed: changed only in a child, before any other thread exists there.
bool tern_pool_is_forked(const tern_pool *pool) { return pool->forks != atomic_load_explicit(&forks, memory_order_relaxed); }

static void *thread_main(void *arg) {
    tern_worker *self = arg;
    tern_pool_work(self->pool, self);
    return NULL;
}

// Workers take no signals of the application, except those that a faulting instruction or a profiler sends to the thread
// itself.
static void block_signals(sigset_t *saved) {
    static const int kept[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
    sigset_t blocked;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) sigdelset(&blocked, kept[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, saved);
}

static int bind_attr(pthread_attr_t *attr, int cpu) {
    if (cpu == TERN_CPU_NONE) return 0;
    cpu_set_t *mask = CPU_ALLOC((size_t)cpu + 1);
    if (!mask) return ENOMEM;
    const size_t bytes = CPU_ALLOC_SIZE((size_t)cpu + 1);
    CPU_ZERO_S(bytes, mask);
    CPU_SET_S((size_t)cpu, bytes, mask);
    const int rc = pthread_attr_setaffinity_np(attr, bytes, mask);
    CPU_FREE(mask);
    return rc;
}

// A tile of Tern's needs half of that; the system's default may be less (`ulimit -s`; 128 KiB with musl).
enum { STACK_MIN_BYTES = 512 << 10 };

static int enlarge_stack(pthread_attr_t *attr) {
    size_t bytes;
    const int rc = pthread_attr_getstacksize(attr, &bytes);
    return rc != 0 || bytes >= STACK_MIN_BYTES ? rc : pthread_attr_setstacksize(attr, STACK_MIN_BYTES);
}

static int start_worker(tern_pool *pool, int i) {
    tern_worker *worker = &pool->workers[i];
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0) return rc;
    rc = bind_attr(&attr, pool->cpus[i]);
    if (rc == 0) rc = enlarge_stack(&attr);
    if (rc == 0) rc = pthread_create(&worker->thread, &attr, thread_main, worker);
    pthread_attr_destroy(&attr);
    if (rc != 0) return rc;
    char name[THREAD_NAME_MAX];
    snprintf(name, sizeof name, "tern-w%d", i);
    (void)pthread_setname_np(worker->thread, name); // for debuggers only
    return 0;
}

static void stop_workers(tern_pool *pool) {
    tern_pool_stop(pool);
    for (int i = 1; i < pool->n_threads; i++) tern_pool_wake_one(&pool->workers[0], &pool->workers[i]);
    for (int i = 1; i < pool->n_threads; i++) pthread_join(pool->workers[i].thread, NULL);
}

static void free_pool(tern_pool *pool) {
    const tern_allocator allocator = pool->allocator;
    allocator.free(allocator.user, pool, pool->bytes);
}

static int count_groups(const tern_worker_plan *plan) { return plan->workers[plan->n_workers - 1].group + 1; }

// One block: the pool, its workers, its groups, the bounds of the shares, the CPU numbers.
static tern_pool *allocate(const tern_worker_plan *plan, const tern_allocator *allocator) {
    const size_t n = (size_t)plan->n_workers;
    const size_t groups_at = sizeof(tern_pool) + n * sizeof(tern_worker);
    const size_t bounds_at = groups_at + (size_t)count_groups(plan) * sizeof(tern_group);
    const size_t cpus_at = bounds_at + (n + 1) * sizeof(uint64_t);
    const size_t bytes = cpus_at + n * sizeof(int);
    tern_pool *pool = allocator->alloc(allocator->user, bytes, TERN_HOT_ALIGN);
    if (!pool) return NULL;
    memset(pool, 0, bytes);
    pool->bytes = bytes;
    pool->allocator = *allocator;
    pool->groups = (tern_group *)(void *)((char *)pool + groups_at);
    pool->bounds = (uint64_t *)(void *)((char *)pool + bounds_at);
    pool->cpus = (int *)(void *)((char *)pool + cpus_at);
    return pool;
}

// The first n workers of the plan. May be done again with fewer, as long as no worker has begun.
static void divide(tern_pool *pool, const tern_worker_plan *plan, int n) {
    pool->n_threads = n;
    if (pool->crew > n) pool->crew = n;
    pool->n_groups = plan->workers[n - 1].group + 1;
    tern_share_bounds(pool->bounds, plan->workers, n);
    for (int i = n - 1; i >= 0; i--) pool->groups[plan->workers[i].group].first = i;
    for (int i = 0; i < n; i++) pool->groups[plan->workers[i].group].last = i + 1;
}

// CPUs that the workers may use together.
static int count_cpus(const tern_worker_plan *plan) {
    int distinct = 0;
    for (int i = 0; i < plan->n_workers; i++) {
        int j = 0;
        while (j < i && plan->workers[j].cpu != plan->workers[i].cpu) j++;
        if (plan->workers[i].cpu == TERN_CPU_NONE) return tern_affinity_count();
        distinct += j == i;
    }
    return distinct;
}

static int crew_of(const tern_worker_plan *plan) {
    const int cpus = count_cpus(plan);
    return plan->n_cpus > 0 && plan->n_cpus < cpus ? plan->n_cpus : cpus;
}

static void initialize(tern_pool *pool, const tern_worker_plan *plan) {
    const int n = plan->n_workers;
    pool->crew = crew_of(plan);
    pool->forks = atomic_load_explicit(&forks, memory_order_relaxed); // see tern_pool_is_forked()
    for (int i = 0; i < n; i++) {
        pool->cpus[i] = plan->workers[i].cpu;
        pool->workers[i].pool = pool;
        pool->workers[i].group = &pool->groups[plan->workers[i].group];
        pool->workers[i].index = i;
    }
    divide(pool, plan, n);
}

// Starts the workers of the plan as far as the system allows.
static void start_workers(tern_pool *pool, const tern_worker_plan *plan, tern_error *warning) {
    sigset_t saved;
    block_signals(&saved);
    int unbound = 0, started = 1, rc = 0;
    while (started < pool->n_threads) {
        rc = start_worker(pool, started);
        if (rc == 0) {
            started++;
        } else if (rc != EAGAIN && pool->cpus[started] != TERN_CPU_NONE) { // not for want of threads: EINVAL, EPERM (a sandbox)
            pool->cpus[started] = TERN_CPU_NONE;
            unbound++;
        } else {
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    if (started < pool->n_threads) {
        tern_error_set(warning,
                       "only %d of %d threads could be had (%s); ask for at most %d, or raise `ulimit -u`, `ulimit -v` or the "
                       "pids limit",
                       started, pool->n_threads, strerror(rc), started);
        divide(pool, plan, started);
    } else if (unbound > 0) {
        tern_error_set(warning,
                       "%d of %d workers could not be bound to their CPUs and run unbound; check the affinity mask, or say "
                       "no_pinning or TERN_PIN=none",
                       unbound, pool->n_threads);
    }
}

tern_status tern_pool_create(tern_pool **pool, const tern_worker_plan *plan, const tern_allocator *allocator,
                             tern_error *warning, tern_error *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    if (atfork_failure) return tern_fail(err, TERN_ERR_MEMORY, "no memory to watch for fork(): %s", strerror(atfork_failure));
    tern_pool *p = allocate(plan, allocator);
    if (!p) return tern_fail(err, TERN_ERR_MEMORY, "no memory for a pool of %d workers", plan->n_workers);
    initialize(p, plan);
    start_workers(p, plan, warning);
    if (p->n_threads > 1) tern_pool_calibrate(p);
    *pool = p;
    return TERN_OK;
}

void tern_pool_destroy(tern_pool *pool) {
    if (!pool) return;
    if (!tern_pool_is_forked(pool)) stop_workers(pool);
    free_pool(pool);
}

void tern_pool_set_trace(tern_pool *pool, tern_trace *trace) { pool->trace = trace; }

void tern_pool_set_times(tern_pool *pool, tern_stage_times *times) { pool->times = times; }

int tern_pool_threads(const tern_pool *pool) { return pool->n_threads; }

int tern_pool_cpu(const tern_pool *pool, int worker) { return pool->cpus[worker]; }

const uint64_t *tern_pool_bounds(const tern_pool *pool) { return pool->bounds; }

static uint64_t counted(const _Atomic uint64_t *counter) { return atomic_load_explicit(counter, memory_order_relaxed); }

tern_pool_counters tern_pool_worker_counters(const tern_pool *pool, int worker) {
    const tern_worker *w = &pool->workers[worker];
    // relaxed: the end of the region ordered what its tiles counted; the others may lag.
    return (tern_pool_counters){.tiles = counted(&w->tiles),
                                .stolen = counted(&w->stolen),
                                .regions = counted(&w->regions),
                                .spin_ns = counted(&w->spin_ns),
                                .parks = counted(&w->parks),
                                .wakes = counted(&w->wakes)};
}
