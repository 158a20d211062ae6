// SPDX-License-Identifier: MIT
// How fast an answer came: rates and percentiles of its steps.
#include "speeds.h"

#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Nearest rank of sorted values; NaN where there are none.
static double percentile(const double *sorted, size_t n, size_t percent) {
    return n ? sorted[(n * percent + 99) / 100 - 1] : (double)NAN;
}

speeds speeds_measure(answer *a) {
    static const double ms = 1e3;
    double total_ms = 0;
    for (size_t i = 0; i < a->n_steps; i++) total_ms += a->step_ms[i];
    qsort(a->step_ms, a->n_steps, sizeof *a->step_ms, by_value);
    return (speeds){.prefill = a->first_ms > 0 ? (double)a->n_prompt / a->prefill_s : (double)NAN,
                    .decode = a->n_steps ? (double)a->n_steps * ms / total_ms : (double)NAN,
                    .first_ms = a->first_ms > 0 ? a->first_ms : (double)NAN,
                    .p50 = percentile(a->step_ms, a->n_steps, 50),
                    .p95 = percentile(a->step_ms, a->n_steps, 95),
                    .p99 = percentile(a->step_ms, a->n_steps, 99)};
}
