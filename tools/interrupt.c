// SPDX-License-Identifier: MIT
// Ctrl-C and window resizes as flags, and as bytes in a pipe that a poll waits for.
#include "interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t seen_interrupt, seen_resize;

// What Ctrl-C cancels. Changed while SIGINT is blocked, and the workers block it always (cli_open_context): no handler runs
// then.
static tern_session *const *sessions;
static size_t n_sessions;

static int wake[2] = {-1, -1}; // a pipe, neither end of which blocks

static void cancel_sessions(void) {
    for (size_t i = 0; i < n_sessions; i++) tern_session_cancel(sessions[i]);
}

void interrupt_cancels(tern_session *const *list, size_t n) {
    sigset_t interrupt, before;
    (void)sigemptyset(&interrupt);
    (void)sigaddset(&interrupt, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &interrupt, &before);
    sessions = list;
    n_sessions = n;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
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
    for (size_t i = 0; i < n_sessions; i++) tern_session_resume(sessions[i]);
}
