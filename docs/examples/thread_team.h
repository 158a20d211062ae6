// SPDX-License-Identifier: MIT
// A parallel_for over plain pthreads, to copy: a team of threads that lives as long as the engine, and the caller is one of
// them.
//   thread_team *team = thread_team_create(8);
//   tern_context_params params = {.struct_size = sizeof params, .threads = 8,
//                                 .parallel_for = thread_team_for, .parallel_for_user = team};
#ifndef THREAD_TEAM_H
#define THREAD_TEAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <tern/tern.h>

typedef struct thread_team {
    pthread_mutex_t mutex;       // guards what follows; fn, arg and n_tiles are constant while a loop is open
    pthread_cond_t start, ready; // a loop has been opened; the last thread has left it
    unsigned loop;               // number of the open loop
    int inside;                  // threads that have not left it
    bool stop;
    tern_tile_fn fn;
    void *arg;
    size_t n_tiles;
    atomic_size_t next; // the first tile that nobody has taken; relaxed: the mutex orders what tiles write
    int n_started;
    pthread_t threads[];
} thread_team;

static inline void thread_team_take(thread_team *team) {
    size_t tile;
    while ((tile = atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed)) < team->n_tiles) team->fn(team->arg, tile);
}

static inline void *thread_team_work(void *arg) {
    thread_team *team = arg;
    pthread_mutex_lock(&team->mutex);
    for (unsigned done = 0;; done++) {
        while (team->loop == done && !team->stop) pthread_cond_wait(&team->start, &team->mutex);
        if (team->stop) break;
        pthread_mutex_unlock(&team->mutex);
        thread_team_take(team);
        pthread_mutex_lock(&team->mutex);
        if (--team->inside == 0) pthread_cond_signal(&team->ready);
    }
    pthread_mutex_unlock(&team->mutex);
    return NULL;
}

// A tern_parallel_for_fn; user is the team, which runs one loop at a time: contexts that run at once need a team each.
// Every thread enters every loop, so none is left in an old one when the next opens.
static inline void thread_team_for(void *user, tern_tile_fn fn, void *arg, size_t n_tiles) {
    thread_team *team = user;
    pthread_mutex_lock(&team->mutex);
    team->fn = fn, team->arg = arg, team->n_tiles = n_tiles;
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
    team->inside = team->n_started;
    team->loop++;
    pthread_cond_broadcast(&team->start);
    pthread_mutex_unlock(&team->mutex);
    thread_team_take(team);
    pthread_mutex_lock(&team->mutex);
    while (team->inside > 0) pthread_cond_wait(&team->ready, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

static inline void thread_team_destroy(thread_team *team) {
    if (!team) return;
    pthread_mutex_lock(&team->mutex);
    team->stop = true;
    pthread_cond_broadcast(&team->start);
    pthread_mutex_unlock(&team->mutex);
    for (int i = 0; i < team->n_started; i++) pthread_join(team->threads[i], NULL);
    pthread_cond_destroy(&team->start);
    pthread_cond_destroy(&team->ready);
    pthread_mutex_destroy(&team->mutex);
    free(team);
}

// n_threads >= 1, the caller of thread_team_for included. NULL if the system has no memory or no threads.
static inline thread_team *thread_team_create(int n_threads) {
    thread_team *team = calloc(1, sizeof *team + (size_t)n_threads * sizeof team->threads[0]);
    if (!team) return NULL;
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->start, NULL);
    pthread_cond_init(&team->ready, NULL);
    for (; team->n_started < n_threads - 1; team->n_started++) {
        if (pthread_create(&team->threads[team->n_started], NULL, thread_team_work, team) == 0) continue;
        thread_team_destroy(team);
        return NULL;
    }
    return team;
}

#endif
