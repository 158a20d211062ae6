// SPDX-License-Identifier: MIT
// Writes a trace of stages whose names are anything but names: hostile_trace FILE EVENTS_PER_WORKER.
#include "tools/trace_file.h"

#include <stdlib.h>

static void nothing(void *arg, size_t tile) {
    (void)arg;
    (void)tile;
}

int main(int argc, char **argv) {
    static const char *const names[] = {"quote \" and \\ backslash",
                                        "line\nbreak\tand\x01",
                                        "",
                                        "not \xff\xfe UTF-8",
                                        NULL,
                                        "\xc3\xbc and \xf0\x9f\x90\xa6",
                                        "</script>"};
    enum { STAGES = sizeof names / sizeof *names };
    tern_stage stages[STAGES];
    for (size_t i = 0; i < STAGES; i++) stages[i] = (tern_stage){nothing, NULL, 1 + i, names[i]};
    const cli_options options = {.threads = 2, .no_tune = true};
    tern_context *ctx = NULL;
    trace_file *trace = NULL;
    int rc = argc == 3 ? trace_open(&trace, argv[1]) : CLI_USAGE;
    if (rc == CLI_OK) rc = cli_open_context(&options, &ctx);
    if (rc == CLI_OK) rc = trace_begin(trace, ctx, strtoul(argv[2], NULL, 10));
    const double begin = cli_seconds();
    if (rc == CLI_OK && tern_run_region(ctx, stages, STAGES) != TERN_OK) rc = CLI_FAILED;
    trace_mark(trace, begin, cli_seconds(), "a \"mark\"");
    if (rc == CLI_OK) rc = trace_end(trace, ctx);
    if (rc == CLI_OK) rc = trace_append(trace, ctx);
    if (rc == CLI_OK) rc = trace_finish(&trace, true);
    trace_discard(&trace);
    tern_context_destroy(ctx);
    return rc;
}
