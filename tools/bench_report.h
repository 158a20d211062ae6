// SPDX-License-Identifier: MIT
// The figures of tern bench as a table for people and as JSON for scripts.
#ifndef TERN_TOOLS_BENCH_REPORT_H
#define TERN_TOOLS_BENCH_REPORT_H

#include "bench_measure.h"
#include "cli.h"

typedef struct bench_report {
    bench_result *results;
    size_t n, room;
    bool complete; // everything that was asked for could be measured
} bench_report;

json_t *bench_report_json(const bench *b, const bench_report *r);
void bench_report_print(const bench *b, const bench_report *r);

#endif
