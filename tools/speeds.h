// SPDX-License-Identifier: MIT
// How fast an answer came.
#ifndef TERN_TOOLS_SPEEDS_H
#define TERN_TOOLS_SPEEDS_H

#include "answer.h"

typedef struct speeds {
    double prefill, decode; // tokens per second
    double first_ms, p50, p95, p99;
} speeds; // NaN: not measured

speeds speeds_measure(answer *a); // sorts a->step_ms

#endif
