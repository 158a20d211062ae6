// SPDX-License-Identifier: MIT
// Writes traces in the trace-event format: a track for the program, one for regions and stages, one for each worker.
#include "trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Tracks are threads of one process, shown in this order.
enum { PROCESS = 1, TRACK_PROGRAM = 1, TRACK_STAGES = 2, TRACK_WORKERS = 3 };

enum { MARK_MAX = 128 };

typedef struct mark {
    char name[MARK_MAX];
    double begin, end;
} mark;

struct trace_file {
    const char *path;
    char *temporary;
    FILE *out;
    double start;     // seconds: time 0 of the file, the first trace_begin
    int named_tracks; // workers whose track has a name
    size_t n_events;  // written
    uint64_t dropped;
    mark *marks; // not written yet
    size_t n_marks, marks_room;
    bool running, no_memory;
};

// ---- life -------------------------------------------------------------------------------------------------------

static int cannot_write(const char *path, int error) {
    return cli_fail("%s: cannot write the trace: %s; give another place with --trace", path, strerror(error));
}

// What is there and is no file of ours to replace: a folder, a device, a file that is read-only.
static int check_target(const char *path) {
    struct stat s;
    if (stat(path, &s) != 0) return CLI_OK; // creating the file tells more
    if (!S_ISREG(s.st_mode)) return cli_fail("%s: not a regular file; give another place with --trace", path);
    return access(path, W_OK) == 0 ? CLI_OK : cannot_write(path, errno);
}

static int create(trace_file *f) {
    const size_t size = strlen(f->path) + sizeof ".18446744073709551615.part";
    f->temporary = malloc(size);
    if (!f->temporary) return cannot_write(f->path, ENOMEM);
    (void)snprintf(f->temporary, size, "%s.%ld.part", f->path, (long)getpid());
    const int fd =
        open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH);
    if (fd < 0) {
        const int error = errno;
        free(f->temporary);
        f->temporary = NULL;
        return cannot_write(f->path, error);
    }
    f->out = fdopen(fd, "w");
    if (f->out) return CLI_OK;
    (void)close(fd);
    return cannot_write(f->path, ENOMEM);
}

int trace_open(trace_file **file, const char *path) {
    *file = NULL;
    if (!path) return CLI_OK;
    if (!*path) cli_usage("--trace '': give the name of a file");
    int rc = check_target(path);
    if (rc != CLI_OK) return rc;
    *file = calloc(1, sizeof **file);
    if (!*file) return cannot_write(path, ENOMEM);
    (*file)->path = path;
    rc = create(*file);
    if (rc != CLI_OK) trace_discard(file);
    return rc;
}

void trace_discard(trace_file **file) {
    trace_file *f = *file;
    if (!f) return;
    if (f->out) (void)fclose(f->out);
    if (f->temporary) (void)unlink(f->temporary);
    free(f->temporary);
    free(f->marks);
    free(f);
    *file = NULL;
}

// ---- one event: an object on a line of its own ---------------------------------------------------------------------

static int put(trace_file *f, json_t *object) {
    static const int digits = 15; // of microseconds: exact nanoseconds for 11 days
    if (!object) return cannot_write(f->path, ENOMEM);
    (void)fputs(f->n_events++ ? ",\n" : "{\"traceEvents\": [\n", f->out);
    const int error = json_dumpf(object, f->out, JSON_COMPACT | JSON_REAL_PRECISION(digits));
    json_decref(object);
    return error || ferror(f->out) ? cannot_write(f->path, errno ? errno : EIO) : CLI_OK;
}

static int put_name(trace_file *f, int track, const char *name) {
    int rc = put(f, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "name", "thread_name", "ph", "M", "pid", PROCESS, "tid", track,
                              "args", "name", name));
    if (rc == CLI_OK)
        rc = put(f, json_pack("{s:s, s:s, s:i, s:i, s:{s:i}}", "name", "thread_sort_index", "ph", "M", "pid", PROCESS, "tid",
                              track, "args", "sort_index", track));
    return rc;
}

static int put_names(trace_file *f, const tern_context *ctx) {
    int rc = CLI_OK;
    if (f->n_events == 0) {
        rc = put(f, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "name", "process_name", "ph", "M", "pid", PROCESS, "tid",
                              TRACK_PROGRAM, "args", "name", "tern"));
        if (rc == CLI_OK) rc = put_name(f, TRACK_PROGRAM, "tern");
        if (rc == CLI_OK) rc = put_name(f, TRACK_STAGES, "regions and stages");
    }
    for (; f->named_tracks < tern_context_threads(ctx) && rc == CLI_OK; f->named_tracks++) {
        char name[64]; // as in top -H
        (void)snprintf(name, sizeof name, "tern-w%d%s", f->named_tracks, f->named_tracks == 0 ? " (caller)" : "");
        rc = put_name(f, TRACK_WORKERS + f->named_tracks, name);
    }
    return rc;
}

// A slice. Takes `name` and `args`.
static int put_slice(trace_file *f, json_t *name, const char *category, int track, double begin_us, double us, json_t *args) {
    return put(f, json_pack("{s:o, s:s, s:s, s:f, s:f, s:i, s:i, s:o}", "name", name, "cat", category, "ph", "X", "ts",
                            begin_us, "dur", us, "pid", PROCESS, "tid", track, "args", args));
}

static json_t *stage_name(const tern_trace_event *e) { return cli_text_json(e->name ? e->name : "stage"); }

static int put_event(trace_file *f, const tern_trace_event *e) {
    static const double ns_per_us = 1e3, ns_per_second = 1e9;
    const int64_t start_ns = (int64_t)(f->start * ns_per_second);
    const double begin = (double)(e->begin_ns - start_ns) / ns_per_us, us = (double)(e->end_ns - e->begin_ns) / ns_per_us;
    const json_int_t region = (json_int_t)e->region, stage = (json_int_t)e->stage, count = (json_int_t)e->count;
    const int track = TRACK_WORKERS + e->worker;
    switch (e->kind) {
    case TERN_TRACE_REGION:
        return put_slice(f, json_string("region"), "region", TRACK_STAGES, begin, us,
                         json_pack("{s:I, s:I}", "region", region, "stages", count));
    case TERN_TRACE_STAGE:
        return put_slice(
            f, stage_name(e), "stage", TRACK_STAGES, begin, us,
            json_pack("{s:I, s:I, s:I, s:i}", "region", region, "stage", stage, "tiles", count, "closed_by", e->worker));
    case TERN_TRACE_TILES:
        return put_slice(f, stage_name(e), "tile", track, begin, us,
                         json_pack("{s:I, s:I, s:I, s:I, s:b}", "region", region, "stage", stage, "tile",
                                   (json_int_t)e->first_tile, "tiles", count, "stolen", e->stolen));
    case TERN_TRACE_WAIT:
    case TERN_TRACE_SLEEP:
        return put_slice(f, json_string(e->kind == TERN_TRACE_WAIT ? "wait" : "asleep"), "wait", track, begin, us,
                         json_pack("{s:I, s:I, s:o}", "region", region, "stage", stage, "ended_by", stage_name(e)));
    }
    return cli_fail("%s: this libtern records events that this tern does not know; update it", f->path);
}

// ---- tracing -----------------------------------------------------------------------------------------------------

int trace_begin(trace_file *file, tern_context *ctx, size_t events_per_worker) {
    if (!file) return CLI_OK;
    if (file->start == 0) file->start = cli_seconds();
    const tern_status status = tern_trace_start(ctx, events_per_worker);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    file->running = true;
    return CLI_OK;
}

int trace_end(trace_file *file, tern_context *ctx) {
    if (!file || !file->running) return CLI_OK;
    file->running = false;
    const tern_status status = tern_trace_stop(ctx);
    return status == TERN_OK ? CLI_OK : cli_fail_status(ctx, status);
}

void trace_mark(trace_file *file, double begin, double end, const char *format, ...) {
    enum { FIRST_ROOM = 64 };
    if (!file || !file->running) return;
    if (file->n_marks == file->marks_room) {
        const size_t room = 2 * file->marks_room + FIRST_ROOM;
        mark *larger = realloc(file->marks, room * sizeof *larger);
        file->no_memory = file->no_memory || !larger; // trace_append tells
        if (!larger) return;
        file->marks = larger;
        file->marks_room = room;
    }
    mark *m = &file->marks[file->n_marks++];
    m->begin = begin;
    m->end = end;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(m->name, sizeof m->name, format, args);
    va_end(args);
}

static int put_marks(trace_file *f) {
    static const double us_per_second = 1e6;
    int rc = f->no_memory ? cannot_write(f->path, ENOMEM) : CLI_OK;
    for (size_t i = 0; i < f->n_marks && rc == CLI_OK; i++) {
        const mark *m = &f->marks[i];
        rc = put_slice(f, cli_text_json(m->name), "program", TRACK_PROGRAM, (m->begin - f->start) * us_per_second,
                       (m->end - m->begin) * us_per_second, json_object());
    }
    f->n_marks = 0;
    return rc;
}

// By time, and what begins together with the longer first: outer slices before inner ones.
static int by_time(const void *a, const void *b) {
    const tern_trace_event *x = a, *y = b;
    if (x->begin_ns != y->begin_ns) return x->begin_ns < y->begin_ns ? -1 : 1;
    if (x->end_ns != y->end_ns) return x->end_ns > y->end_ns ? -1 : 1;
    return (x->kind > y->kind) - (x->kind < y->kind); // a region before its stage, a wait before its sleep
}

static int put_events(trace_file *f, tern_context *ctx) {
    const size_t n = tern_trace_count(ctx);
    const double start = cli_seconds();
    tern_trace_event *events = malloc((n + 1) * sizeof *events);
    if (!events) return cannot_write(f->path, ENOMEM);
    int rc = CLI_OK;
    for (size_t i = 0; i < n && rc == CLI_OK; i++) {
        events[i].struct_size = sizeof *events;
        const tern_status status = tern_trace_get(ctx, i, &events[i]);
        if (status != TERN_OK) rc = cli_fail_status(ctx, status);
    }
    if (rc == CLI_OK) qsort(events, n, sizeof *events, by_time);
    for (size_t i = 0; i < n && rc == CLI_OK; i++) {
        cli_progress(f->path, start, (int)(100 * i / n));
        rc = put_event(f, &events[i]);
    }
    cli_progress("", start, -1);
    free(events);
    return rc;
}

int trace_append(trace_file *file, tern_context *ctx) {
    if (!file) return CLI_OK;
    int rc = put_names(file, ctx);
    if (rc == CLI_OK) rc = put_marks(file);
    if (rc == CLI_OK) rc = put_events(file, ctx);
    file->dropped += tern_trace_dropped(ctx);
    return rc;
}

int trace_finish(trace_file **file, bool quiet) {
    trace_file *f = *file;
    if (!f) return CLI_OK;
    (void)fprintf(f->out,
                  "%s],\n\"displayTimeUnit\": \"ns\", \"otherData\": {\"version\": \"%s\", \"dropped_events\": %llu}}\n",
                  f->n_events ? "\n" : "{\"traceEvents\": [", tern_version(), (unsigned long long)f->dropped);
    bool ok = fflush(f->out) == 0 && !ferror(f->out) && fsync(fileno(f->out)) == 0;
    ok = fclose(f->out) == 0 && ok;
    f->out = NULL;
    ok = ok && rename(f->temporary, f->path) == 0;
    const int rc = ok ? CLI_OK : cannot_write(f->path, errno);
    if (ok) {
        free(f->temporary);
        f->temporary = NULL;
        if (!quiet)
            (void)fprintf(stderr, "trace      %s, %zu events; open it in https://ui.perfetto.dev\n", f->path, f->n_events);
        if (f->dropped)
            cli_error("warning: %s lacks the last %llu events of what was too long for it; trace a shorter prompt or a "
                      "smaller product",
                      f->path, (unsigned long long)f->dropped);
    }
    trace_discard(file);
    return rc;
}
