// SPDX-License-Identifier: MIT
// The life of a pool: memory, threads (bound, named, signals blocked), counters, and the end of all of them.
#include "sched/pool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "sched/affinity.h"
#include "sched/pool_state.h"

// Patience of a waiting worker. A stage of a decode step takes 5 to 100 us and waking a sleeper costs about as much as it
// saves below 50 us. With more workers than CPUs, spinning takes the CPU from the worker that is waited for.
enum { SPIN_NS = 50000, SPIN_CROWDED_NS = 2000, YIELD_NS = 30000, THREAD_NAME_MAX = 32 };

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

static int start_worker(tern_pool *pool, int i) {
    tern_worker *worker = &pool->workers[i];
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0) return rc;
    rc = bind_attr(&attr, pool->cpus[i]);
    if (rc == 0) rc = pthread_create(&worker->thread, &attr, thread_main, worker);
    pthread_attr_destroy(&attr);
    if (rc != 0) return rc;
    char name[THREAD_NAME_MAX];
    snprintf(name, sizeof name, "tern-w%d", i);
    (void)pthread_setname_np(worker->thread, name); // for debuggers only
    return 0;
}

static void stop_workers(tern_pool *pool, int n_started) {
    // seq_cst: pairs with park() in wait.c; a worker either sees STOP or is seen asleep.
    atomic_store_explicit(&pool->ticket, TERN_TICKET_STOP, memory_order_seq_cst);
    for (int i = 1; i < n_started; i++) tern_pool_wake_one(pool, &pool->workers[i]);
    for (int i = 1; i < n_started; i++) pthread_join(pool->workers[i].thread, NULL);
}

static void free_pool(tern_pool *pool) {
    const tern_allocator allocator = pool->allocator;
    allocator.free(allocator.user, pool, pool->bytes);
}

// One block: the pool, its workers, the bounds of their shares, their CPU numbers.
static tern_pool *allocate(int n_threads, const tern_allocator *allocator) {
    const size_t n = (size_t)n_threads;
    const size_t bounds_at = sizeof(tern_pool) + n * sizeof(tern_worker);
    const size_t cpus_at = bounds_at + (n + 1) * sizeof(uint64_t);
    const size_t bytes = cpus_at + n * sizeof(int);
    tern_pool *pool = allocator->alloc(allocator->user, bytes, TERN_HOT_ALIGN);
    if (!pool) return NULL;
    memset(pool, 0, bytes);
    pool->bytes = bytes;
    pool->allocator = *allocator;
    pool->bounds = (uint64_t *)(void *)((char *)pool + bounds_at);
    pool->cpus = (int *)(void *)((char *)pool + cpus_at);
    return pool;
}

static void initialize(tern_pool *pool, const tern_worker_plan *plan) {
    const bool crowded = plan->n_workers > tern_affinity_count();
    pool->n_threads = plan->n_workers;
    pool->spin_ns = crowded ? SPIN_CROWDED_NS : SPIN_NS;
    pool->yield_ns = YIELD_NS;
    pool->forks = atomic_load_explicit(&forks, memory_order_relaxed); // see tern_pool_is_forked()
    // relaxed: no other thread exists yet.
    atomic_store_explicit(&pool->ticket, TERN_TICKET_OVER, memory_order_relaxed);
    for (int i = 0; i < plan->n_workers; i++) {
        pool->cpus[i] = plan->workers[i].cpu;
        pool->workers[i].pool = pool;
    }
}

// Starts the workers of the plan as far as the system allows.
static void start_workers(tern_pool *pool, tern_error *warning) {
    sigset_t saved;
    block_signals(&saved);
    int unbound = 0, started = 1, rc = 0;
    while (started < pool->n_threads) {
        rc = start_worker(pool, started);
        if (rc == 0) {
            started++;
        } else if (rc == EINVAL && pool->cpus[started] != TERN_CPU_NONE) {
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
        pool->n_threads = started;
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
    tern_pool *p = allocate(plan->n_workers, allocator);
    if (!p) return tern_fail(err, TERN_ERR_MEMORY, "no memory for a pool of %d workers", plan->n_workers);
    initialize(p, plan);
    start_workers(p, warning);
    tern_share_bounds(p->bounds, plan->workers, p->n_threads);
    *pool = p;
    return TERN_OK;
}

void tern_pool_destroy(tern_pool *pool) {
    if (!pool) return;
    if (!tern_pool_is_forked(pool)) stop_workers(pool, pool->n_threads);
    free_pool(pool);
}

void tern_pool_set_trace(tern_pool *pool, tern_trace *trace) { pool->trace = trace; }

int tern_pool_threads(const tern_pool *pool) { return pool->n_threads; }

int tern_pool_cpu(const tern_pool *pool, int worker) { return pool->cpus[worker]; }

const uint64_t *tern_pool_bounds(const tern_pool *pool) { return pool->bounds; }

tern_pool_counters tern_pool_worker_counters(const tern_pool *pool, int worker) {
    const tern_worker *w = &pool->workers[worker];
    // relaxed: the end of the region ordered the counters of its tiles; parks may lag.
    return (tern_pool_counters){.tiles = atomic_load_explicit(&w->tiles, memory_order_relaxed),
                                .regions = atomic_load_explicit(&w->regions, memory_order_relaxed),
                                .parks = atomic_load_explicit(&w->parks, memory_order_relaxed)};
}
