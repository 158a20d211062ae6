// SPDX-License-Identifier: MIT
// --trace FILE: what a context's workers did, as Chrome trace-event JSON for Perfetto (https://ui.perfetto.dev).
#ifndef TERN_TOOLS_TRACE_FILE_H
#define TERN_TOOLS_TRACE_FILE_H

#include "cli.h"

// A file under construction. All calls accept NULL, which is a command without --trace, and do nothing then.
typedef struct trace_file trace_file;

// Makes sure that the file can be written, before anything else is done. *file is NULL where path is. CLI_FAILED with an error
// line otherwise.
int trace_open(trace_file **file, const char *path);

// Traces the regions of ctx from begin to end (without a begin it does nothing). trace_append writes what was traced since the
// last begin, and shows progress. CLI_FAILED with an error line.
int trace_begin(trace_file *file, tern_context *ctx, size_t events_per_worker);
int trace_end(trace_file *file, tern_context *ctx);
int trace_append(trace_file *file, tern_context *ctx);

// A slice of the program's own track: what the workers' slices were for. Seconds as of cli_seconds(). Only between trace_begin
// and trace_end; else it does nothing.
void trace_mark(trace_file *file, double begin, double end, const char *format, ...) __attribute__((format(printf, 4, 5)));

// The file appears whole under its name, and a line on stderr, unless `quiet`, says so. Events without room are a warning.
// Frees *file and makes it NULL, like trace_discard.
int trace_finish(trace_file **file, bool quiet);
// Nothing appears.
void trace_discard(trace_file **file);

#endif
