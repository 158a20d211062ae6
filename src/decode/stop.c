// SPDX-License-Identifier: MIT
// Cancelled sessions and deadlines: two words that any thread writes, and that a stage of one tile looks at before each layer.
// Whoever runs that stage is alone in the region, so the decision is made once and all workers see the same.
#include "decode/stop.h"

#include <math.h>

_Static_assert(ATOMIC_BOOL_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "signal handlers may write them");

#define NO_DEADLINE INT64_MAX

// relaxed, all of these: the words order nothing else. Who cancels learns from the call's return that it has stopped.
void tern_session_cancel(tern_session *s) {
    if (s) atomic_store_explicit(&s->cancelled, true, memory_order_relaxed);
}

tern_status tern_session_set_deadline(tern_session *s, double seconds) {
    static const double ns_per_s = 1e9, most_s = 1e9; // some 30 years
    if (!s || isnan(seconds)) return TERN_ERR_ARG;
    int64_t at = NO_DEADLINE;
    if (seconds <= 0)
        at = 0;
    else if (seconds < most_s)
        at = tern_now_ns() + (int64_t)(seconds * ns_per_s);
    atomic_store_explicit(&s->deadline_ns, at, memory_order_relaxed);
    return TERN_OK;
}

void tern_session_resume(tern_session *s) {
    if (!s) return;
    atomic_store_explicit(&s->cancelled, false, memory_order_relaxed);
    atomic_store_explicit(&s->deadline_ns, NO_DEADLINE, memory_order_relaxed);
}

tern_stop tern_session_stopped(const tern_session *s) {
    if (!s) return TERN_STOP_NONE;
    if (atomic_load_explicit(&s->cancelled, memory_order_relaxed)) return TERN_STOP_CANCELLED;
    const int64_t deadline = atomic_load_explicit(&s->deadline_ns, memory_order_relaxed);
    return deadline != NO_DEADLINE && tern_now_ns() >= deadline ? TERN_STOP_DEADLINE : TERN_STOP_NONE;
}

const char *tern_stop_message(tern_stop stop) {
    return stop == TERN_STOP_DEADLINE ? "a session's deadline has passed; give it a later one, or leave it out"
                                      : "a session was cancelled; tern_session_resume() lets it go on";
}

typedef struct look_args {
    tern_pass *f;
} look_args;

static void look_tile(void *arg, size_t tile) {
    (void)tile;
    tern_pass *f = ((const look_args *)arg)->f;
    const tern_row *rows = f->m->buf.rows;
    for (size_t t = 0; t < f->n; t++) {
        if (t > 0 && rows[t].session == rows[t - 1].session) continue;
        f->stop = tern_session_stopped(rows[t].session);
        if (f->stop == TERN_STOP_NONE) continue;
        tern_region_stop(&f->region, TERN_ERR_CANCELLED);
        return;
    }
}

void tern_stop_add(tern_pass *f) {
    const look_args args = {f};
    tern_region_add(&f->region, "stop?", look_tile, &args, sizeof args, 1);
}
