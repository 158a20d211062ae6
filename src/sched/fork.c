// SPDX-License-Identifier: MIT
// Counts forks with pthread_atfork.
#include "sched/fork.h"

#include <pthread.h>

// Written in a fresh child only, where no other thread exists.
static unsigned generation;
static bool watching;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void in_child(void) { generation++; }
static void watch(void) { watching = pthread_atfork(NULL, NULL, in_child) == 0; }

bool tern_fork_watch(void) {
    pthread_once(&once, watch);
    return watching;
}

unsigned tern_fork_generation(void) { return generation; }
