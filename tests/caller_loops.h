// SPDX-License-Identifier: MIT
// The parallel_for examples of docs/examples, and one that takes tiles in an odd order, as a table that tests run through.
#ifndef TERN_TESTS_CALLER_LOOPS_H
#define TERN_TESTS_CALLER_LOOPS_H

#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#ifdef _OPENMP
#include "docs/examples/openmp_for.h"
#endif
#include "docs/examples/thread_team.h"
#include "tern/tern.h"

#ifdef _OPENMP
enum { LOOP_TEAM, LOOP_ODD, LOOP_OPENMP, N_LOOPS };
#else
enum { LOOP_TEAM, LOOP_ODD, N_LOOPS };
#endif
static const char *const loop_names[] = {"pthreads", "pthreads, odd order", "OpenMP"};

typedef struct caller_loop {
    int kind, n_threads;
    thread_team *team; // not of OpenMP
} caller_loop;

enum { ODD_STRIDE = 7919 }; // a prime: coprime to every number of tiles that it does not divide

typedef struct odd_args {
    tern_tile_fn fn;
    void *arg;
    size_t n_tiles;
} odd_args;

static inline void odd_tile(void *arg, size_t i) {
    const odd_args *odd = arg;
    const size_t stride = odd->n_tiles % ODD_STRIDE ? ODD_STRIDE : 1;
    odd->fn(odd->arg, (i + 1) * stride % odd->n_tiles);
}

// A tern_parallel_for_fn; user is a caller_loop.
static inline void caller_loop_run(void *user, tern_tile_fn fn, void *arg, size_t n_tiles) {
    caller_loop *loop = user;
    odd_args odd = {fn, arg, n_tiles};
    switch (loop->kind) {
    case LOOP_TEAM:
        thread_team_for(loop->team, fn, arg, n_tiles);
        break;
    case LOOP_ODD:
        thread_team_for(loop->team, odd_tile, &odd, n_tiles);
        break;
#ifdef _OPENMP
    case LOOP_OPENMP:
        openmp_for(&loop->n_threads, fn, arg, n_tiles);
        break;
#endif
    }
}

static inline void ignore_tile(void *arg, size_t tile) { (void)arg, (void)tile; }

// All threads of the loop exist when it returns: OpenMP makes them in the first loop.
static inline bool caller_loop_open(caller_loop *loop, int kind, int n_threads) {
    *loop = (caller_loop){.kind = kind, .n_threads = n_threads};
    if (kind == LOOP_TEAM || kind == LOOP_ODD) {
        loop->team = thread_team_create(n_threads);
        if (!loop->team) return false;
    }
    caller_loop_run(loop, ignore_tile, NULL, (size_t)n_threads);
    return true;
}

static inline void caller_loop_close(caller_loop *loop) { thread_team_destroy(loop->team); }

static inline tern_context_params caller_loop_params(caller_loop *loop) {
    return (tern_context_params){.struct_size = sizeof(tern_context_params),
                                 .threads = loop->n_threads,
                                 .parallel_for = caller_loop_run,
                                 .parallel_for_user = loop};
}

// ---- the threads of this process, as the kernel lists them ----------------------------------------------------------

enum { TASKS_MAX = 256 };

typedef struct task_list {
    int n, n_tern; // all; those that are named as Tern's workers
    int tids[TASKS_MAX];
} task_list;

static inline bool task_is_of_tern(int tid) {
    char path[sizeof "/proc/self/task//comm" + 11], name[32] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", tid);
    FILE *comm = fopen(path, "r");
    if (!comm) return false; // it has just ended
    const bool named = fgets(name, sizeof name, comm) && strncmp(name, "tern-w", strlen("tern-w")) == 0;
    fclose(comm);
    return named;
}

static inline task_list list_tasks(void) {
    task_list list = {.n = 0};
    DIR *tasks = opendir("/proc/self/task");
    if (!tasks) return list;
    for (const struct dirent *e = readdir(tasks); e && list.n < TASKS_MAX; e = readdir(tasks)) {
        if (e->d_name[0] == '.') continue;
        const int tid = atoi(e->d_name);
        list.n_tern += task_is_of_tern(tid);
        list.tids[list.n++] = tid;
    }
    closedir(tasks);
    return list;
}

// How many threads of a list are not in the other. Counting alone would not do: a thread that was joined, or that OpenMP has no
// more use for, stays in the kernel's list for a moment.
static inline int tasks_not_in(const task_list *list, const task_list *other) {
    int n = 0;
    for (int i = 0; i < list->n; i++) {
        bool found = false;
        for (int j = 0; j < other->n && !found; j++) found = list->tids[i] == other->tids[j];
        n += !found;
    }
    return n;
}

// The threads as soon as no worker of a destroyed context is among them.
static inline task_list list_tasks_without_tern(void) {
    task_list list = list_tasks();
    while (list.n_tern > 0) {
        sched_yield();
        list = list_tasks();
    }
    return list;
}

#endif
