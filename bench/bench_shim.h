// SPDX-License-Identifier: MIT
// Google Benchmark for C: register functions, loop while it asks for more, report rates.
#ifndef TERN_BENCH_SHIM_H
#define TERN_BENCH_SHIM_H

#ifdef __cplusplus
extern "C" {
#endif

// One running benchmark.
typedef struct bench_state bench_state;
typedef void bench_fn(bench_state *state, const void *arg);

typedef enum bench_clock {
    BENCH_CLOCK_WALL,  // the whole loop is timed
    BENCH_CLOCK_MANUAL // bench_add_time tells the seconds of each iteration
} bench_clock;

// arg must live until bench_run returns. The name is copied.
void bench_register(const char *name, bench_fn *fn, const void *arg, bench_clock clock);

// In the benchmark: while (bench_next(state)) { one iteration }
int bench_next(bench_state *state);
void bench_add_time(bench_state *state, double seconds);

// Reported after the loop as GB=.../s and GMAC=.../s.
void bench_bytes_per_iteration(bench_state *state, double bytes);
void bench_macs_per_iteration(bench_state *state, double macs);

// Reported after the loop as it is. The name is copied.
void bench_value(bench_state *state, const char *name, double value);

// Ends this benchmark with an error in the report; return from the function at once, without looping.
void bench_fail(bench_state *state, const char *why);

// Takes Google Benchmark's options (--benchmark_filter=REGEX and so on) and runs what is registered. 0, or 1 for a wrong
// option.
int bench_run(int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
