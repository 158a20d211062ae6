// SPDX-License-Identifier: MIT
// Ctrl-C and window resizes as flags, and as bytes in a pipe, because any thread of the process may get the signal.
#include "interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static volatile sig_atomic_t seen_interrupt, seen_resize;

// What Ctrl-C cancels. seq_cst: a handler that has counted itself in before the number of sessions became 0 is waited for.
static tern_session *const *_Atomic sessions;
static _Atomic size_t n_sessions;
static _Atomic int handlers;

static int wake[2] = {-1, -1}; // a pipe, neither end of which blocks

static void cancel_sessions(void) {
    atomic_fetch_add(&handlers, 1);
    const size_t n = atomic_load(&n_sessions);
    tern_session *const *list = atomic_load(&sessions);
    for (size_t i = 0; i < n; i++) tern_session_cancel(list[i]);
    atomic_fetch_sub(&handlers, 1);
}

void interrupt_cancels(tern_session *const *list, size_t n) {
    atomic_store(&n_sessions, 0);
    while (atomic_load(&handlers) > 0) (void)sched_yield(); // in another thread: one in this thread has returned
    atomic_store(&sessions, list);
    atomic_store(&n_sessions, n);
}

static void on_signal(int signal) {
    const int error = errno;
    if (signal == SIGINT) {
        seen_interrupt = 1;
        cancel_sessions();
    } else
        seen_resize = 1;
    if (wake[1] >= 0) (void)!write(wake[1], "", 1); // a full pipe wakes as well
    errno = error;
}

static void watch(int signal, int flags) {
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    (void)sigaction(signal, &action, NULL);
}

void interrupt_watch_once(void) { watch(SIGINT, (int)(SA_RESETHAND | SA_RESTART)); }

int interrupt_watch_always(void) {
    if (pipe2(wake, O_NONBLOCK | O_CLOEXEC) != 0) wake[0] = wake[1] = -1;
    watch(SIGINT, SA_RESTART);
    watch(SIGWINCH, SA_RESTART);
    return wake[0];
}

bool interrupted(void) { return seen_interrupt != 0; }

bool resized(void) {
    const bool seen = seen_resize != 0;
    seen_resize = 0;
    return seen;
}

void interrupt_forget(void) {
    char bytes[64];
    while (wake[0] >= 0 && read(wake[0], bytes, sizeof bytes) > 0) continue;
    seen_interrupt = 0; // first: a Ctrl-C from here on is still seen, if not by the session
    tern_session *const *list = atomic_load(&sessions);
    for (size_t i = 0; i < atomic_load(&n_sessions); i++) tern_session_resume(list[i]);
}
