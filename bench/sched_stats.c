// SPDX-License-Identifier: MIT
// Errors, contexts, small statistics, the list of cases, and work of known length.
#include "sched_bench.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool sched_fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)fprintf(stderr, "%s: ", program_invocation_short_name);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    return false;
}

tern_context *sched_open(int threads) {
    char error[BUFSIZ] = "";
    const tern_context_params params = {
        .struct_size = sizeof params, .threads = threads, .tune = "off", .error = error, .error_size = sizeof error};
    tern_context *ctx = NULL;
    if (tern_context_create(&ctx, &params) != TERN_OK) (void)sched_fail("no context of %d threads: %s", threads, error);
    return ctx;
}

double sched_seconds(void) {
    static const double nano = 1e-9;
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + nano * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double sched_quantile(const double *values, size_t n, double quantile) {
    double *sorted = n ? malloc(n * sizeof *sorted) : NULL;
    if (!sorted) return (double)NAN;
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_value);
    // Between the two nearest values: the median of an even number is their mean.
    const double at = quantile * (double)(n - 1);
    const size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
    const double value = sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
    free(sorted);
    return value;
}

double sched_median(const double *values, size_t n) {
    static const double half = 0.5;
    return sched_quantile(values, n, half);
}

void sched_set_real(json_t *object, const char *key, double value) {
    (void)json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_null());
}

json_t *sched_add_case(sched_bench *b, const char *name, const char *who, const char *unit, const double *values, size_t n) {
    static const struct {
        const char *key;
        double quantile;
    } quantiles[] = {{"median", 0.5}, {"q1", 0.25}, {"q3", 0.75}, {"p99", 0.99}};
    json_t *object = json_pack("{s:s, s:s, s:s, s:I}", "case", name, "who", who, "unit", unit, "samples", (json_int_t)n);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        sched_set_real(object, quantiles[i].key, sched_quantile(values, n, quantiles[i].quantile));
    (void)json_array_append_new(b->cases, object);
    return object;
}

void sched_work(size_t additions) {
    size_t x = 0;
    for (size_t i = 0; i < additions; i++) {
        __asm__ volatile("" : "+r"(x)); // each addition is made, and waits for the one before
        x++;
    }
}

size_t sched_additions(double seconds) { return (size_t)(seconds / tern_cycle_seconds()); }
