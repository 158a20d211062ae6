// SPDX-License-Identifier: MIT
// Google Benchmark for C: the only C++ of the project.
#include "bench_shim.h"

#include <benchmark/benchmark.h>

struct bench_state {
    benchmark::State &google;
};

namespace {
void set_rate(bench_state *state, const char *name, double per_iteration) {
    const double giga = 1e9;
    state->google.counters[name] = benchmark::Counter(per_iteration / giga, benchmark::Counter::kIsIterationInvariantRate);
}
} // namespace

extern "C" void bench_register(const char *name, bench_fn *fn, const void *arg, bench_clock clock) {
    auto *registered = benchmark::RegisterBenchmark(name, [fn, arg](benchmark::State &google) {
        bench_state state{google};
        fn(&state, arg);
    });
    registered->Unit(benchmark::kMicrosecond);
    if (clock == BENCH_CLOCK_MANUAL) {
        registered->UseManualTime();
    } else {
        registered->UseRealTime();
    }
}

extern "C" int bench_next(bench_state *state) { return state->google.KeepRunning(); }
extern "C" void bench_add_time(bench_state *state, double seconds) { state->google.SetIterationTime(seconds); }
extern "C" void bench_bytes_per_iteration(bench_state *state, double bytes) { set_rate(state, "GB", bytes); }
extern "C" void bench_macs_per_iteration(bench_state *state, double macs) { set_rate(state, "GMAC", macs); }
extern "C" void bench_value(bench_state *state, const char *name, double value) { state->google.counters[name] = value; }
extern "C" void bench_fail(bench_state *state, const char *why) { state->google.SkipWithError(why); }

extern "C" int bench_run(int argc, char **argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
