// SPDX-License-Identifier: MIT
// What tern generate tells of a text, or of several, when they are written: as text or as JSON.
#ifndef TERN_TOOLS_GENERATE_REPORT_H
#define TERN_TOOLS_GENERATE_REPORT_H

#include "parallel.h"
#include "stages.h"

typedef struct generate_report {
    const char *model;
    bool json, stats;          // stats: the table of stages, on stderr; JSON always has them
    stage_times prompt, write; // in sum
    const char *prompt_cache;  // file, or NULL
    size_t n_reused;           // tokens of the prompt that came from it
} generate_report;

int report_answer(const generate_report *r, answer *a);
int report_parallel(const generate_report *r, const parallel *p);

#endif
