// SPDX-License-Identifier: MIT
// A trace: one lane of events for each worker.
#include "sched/trace.h"

#include <stdalign.h>
#include <string.h>

enum {
    LANE_ALIGN = 128,  // see TERN_HOT_ALIGN in pool_state.h
    WAIT_MIN_NS = 100, // what diagnostics.h promises
    CALLER = 0
};

// A cache line each: no two workers write to one.
typedef struct event {
    alignas(TERN_CACHE_LINE) int64_t begin_ns;
    int64_t end_ns;
    const char *name;
    uint64_t region, stage, first_tile, count;
    tern_trace_kind kind;
    bool stolen;
} event;

typedef struct lane {
    alignas(LANE_ALIGN) event *events; // [capacity]
    size_t n, capacity;
    uint64_t dropped;
    int64_t last_ns; // end of what the worker did last
} lane;

struct tern_trace {
    // Written by whoever is alone in the region; read by workers that hold a tile.
    alignas(LANE_ALIGN) uint64_t region; // number of the running region, or of the next one
    uint64_t stage;                      // index of the open stage, or of the last one
    const char *stage_name;
    uint64_t stage_tiles;
    bool stage_is_open;
    int closed_by;       // worker that closed a stage last
    uint64_t next_stage; // index
    int64_t region_begin_ns, stage_begin_ns;
    uint64_t region_stages;

    // Constant after creation.
    alignas(LANE_ALIGN) size_t n_lanes;
    size_t n_events; // of all lanes
    event *events;
    size_t bytes;
    tern_allocator allocator;
    lane lanes[];
};

// ---- life and reading --------------------------------------------------------------------------------------------

tern_status tern_trace_create(tern_trace **trace, int n_workers, size_t capacity, const tern_allocator *allocator,
                              tern_error *err) {
    const size_t n = (size_t)n_workers, bytes = sizeof(tern_trace) + n * sizeof(lane), n_events = n * capacity;
    tern_trace *t = allocator->alloc(allocator->user, bytes, LANE_ALIGN);
    event *events = t ? tern_alloc(allocator, n_events, sizeof *events) : NULL;
    if (!events) {
        if (t) allocator->free(allocator->user, t, bytes);
        return tern_fail(err, TERN_ERR_MEMORY, "no memory to trace %zu events of each of %d workers; ask for fewer", capacity,
                         n_workers);
    }
    memset(events, 0, n_events * sizeof *events); // fresh pages are only promised: a region must not wait for them
    memset(t, 0, bytes);
    t->bytes = bytes;
    t->allocator = *allocator;
    t->n_lanes = n;
    t->n_events = n_events;
    t->events = events;
    const int64_t now = tern_now_ns();
    for (size_t i = 0; i < n; i++) t->lanes[i] = (lane){.events = events + i * capacity, .capacity = capacity, .last_ns = now};
    *trace = t;
    return TERN_OK;
}

void tern_trace_destroy(tern_trace *trace) {
    if (!trace) return;
    const tern_allocator allocator = trace->allocator;
    tern_free(&allocator, trace->events, trace->n_events, sizeof *trace->events);
    allocator.free(allocator.user, trace, trace->bytes);
}

size_t tern_trace_events(const tern_trace *trace) {
    size_t n = 0;
    for (size_t i = 0; i < trace->n_lanes; i++) n += trace->lanes[i].n;
    return n;
}

uint64_t tern_trace_lost(const tern_trace *trace) {
    uint64_t dropped = 0;
    for (size_t i = 0; i < trace->n_lanes; i++) dropped += trace->lanes[i].dropped;
    return dropped;
}

tern_trace_event tern_trace_event_at(const tern_trace *trace, size_t index) {
    size_t worker = 0;
    while (index >= trace->lanes[worker].n) index -= trace->lanes[worker++].n;
    const event *e = &trace->lanes[worker].events[index];
    return (tern_trace_event){.kind = e->kind,
                              .worker = (int)worker,
                              .name = e->name,
                              .region = e->region,
                              .stage = e->stage,
                              .first_tile = e->first_tile,
                              .count = e->count,
                              .stolen = e->stolen,
                              .begin_ns = e->begin_ns,
                              .end_ns = e->end_ns};
}

// ---- recording ---------------------------------------------------------------------------------------------------

static void add(lane *l, event e) {
    if (l->n < l->capacity)
        l->events[l->n++] = e;
    else
        l->dropped++;
}

// An event of the open stage, or of the one that was open last.
static event of_stage(const tern_trace *trace, tern_trace_kind kind, int64_t begin_ns, int64_t end_ns) {
    return (event){.begin_ns = begin_ns,
                   .end_ns = end_ns,
                   .name = trace->stage_name,
                   .region = trace->region,
                   .stage = trace->stage,
                   .kind = kind};
}

static void add_wait(const tern_trace *trace, lane *l, tern_sleep sleep, int64_t now) {
    if (now - l->last_ns >= WAIT_MIN_NS) {
        // A sleep that is not part of this wait ended before it began.
        const int64_t slept_from = sleep.begin_ns > l->last_ns ? sleep.begin_ns : l->last_ns;
        if (sleep.end_ns > slept_from) add(l, of_stage(trace, TERN_TRACE_SLEEP, slept_from, sleep.end_ns));
        add(l, of_stage(trace, TERN_TRACE_WAIT, l->last_ns, now));
    }
    l->last_ns = now;
}

void tern_trace_begin_region(tern_trace *trace, size_t n_stages) {
    trace->region_begin_ns = trace->lanes[CALLER].last_ns = tern_now_ns(); // what the caller did before was no wait
    trace->region_stages = n_stages;
    trace->next_stage = 0;
    trace->stage_is_open = false;
    trace->closed_by = CALLER;
}

void tern_trace_end_region(tern_trace *trace, tern_sleep sleep) {
    lane *l = &trace->lanes[CALLER];
    const int64_t now = tern_now_ns();
    if (trace->closed_by != CALLER) add_wait(trace, l, sleep, now);
    add(l, (event){.begin_ns = trace->region_begin_ns,
                   .end_ns = now,
                   .region = trace->region,
                   .count = trace->region_stages,
                   .kind = TERN_TRACE_REGION});
    trace->region++;
}

void tern_trace_next_stage(tern_trace *trace, int worker, const tern_stage *stage) {
    const uint64_t index = trace->next_stage++;
    if (stage && stage->n_tiles == 0) return;
    lane *l = &trace->lanes[worker];
    const int64_t now = tern_now_ns();
    if (trace->stage_is_open) {
        event e = of_stage(trace, TERN_TRACE_STAGE, trace->stage_begin_ns, now);
        e.count = trace->stage_tiles;
        add(l, e);
    }
    l->last_ns = now;
    trace->closed_by = worker;
    trace->stage_is_open = stage != NULL;
    if (!stage) return;
    trace->stage = index;
    trace->stage_name = stage->name;
    trace->stage_tiles = stage->n_tiles;
    trace->stage_begin_ns = now;
}

void tern_trace_end_wait(tern_trace *trace, int worker, tern_sleep sleep) {
    add_wait(trace, &trace->lanes[worker], sleep, tern_now_ns());
}

void tern_trace_tiles(tern_trace *trace, int worker, size_t first, size_t count, bool stolen, int64_t begin_ns) {
    lane *l = &trace->lanes[worker];
    l->last_ns = tern_now_ns();
    event e = of_stage(trace, TERN_TRACE_TILES, begin_ns, l->last_ns);
    e.first_tile = first;
    e.count = count;
    e.stolen = stolen;
    add(l, e);
}
