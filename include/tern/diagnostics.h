// SPDX-License-Identifier: MIT
// For tests, benchmarks and performance engineers: what the CPU has, which kernel runs, the oracle, counters, the roofline.
#ifndef TERN_DIAGNOSTICS_H
#define TERN_DIAGNOSTICS_H

#include "matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- The CPU and the machine ----------------------------------------------------------------------------

// Strings live as long as the context.
typedef struct tern_cpu_info {
    size_t struct_size;
    const char *vendor;   // e.g. "AuthenticAMD"
    const char *model;    // brand string
    const char *features; // space-separated names of the instruction sets Tern looks at and both CPU and OS support
    const char *best;     // the highest tier this machine can run
    const char *tier;     // the tier this context uses (capped by isa or $TERN_ISA)
} tern_cpu_info;
TERN_API tern_status tern_get_cpu_info(tern_context *ctx, tern_cpu_info *info);

typedef struct tern_topology_info {
    size_t struct_size;
    int packages, numa_nodes, cores, pus; // allowed to this process
    int threads;                          // workers of this context, the caller included
    int pinned;                           // 1: workers are bound to cores
    size_t l1d_bytes, l2_bytes, l3_bytes; // of one cache of each level; 0: unknown
    int l2_caches, last_level_caches;     // allowed to this process, like cores
    int core_kinds;                       // 1, or more of a hybrid CPU
    double quota_cpus;                    // CPUs that the cgroups of this process pay for; 0: no quota
    const char *pin;                      // what tern_context_params.pin came to: "compact", "spread", "all" or "none"
} tern_topology_info;
TERN_API tern_status tern_get_topology_info(tern_context *ctx, tern_topology_info *info);

// CPU number worker i is pinned to, or -1 (not pinned, or a caller's parallel_for). Worker 0 is the calling thread, which keeps
// its own affinity: this is the CPU it moves to for a region that would start on another worker's CPU.
TERN_API int tern_worker_cpu(tern_context *ctx, int worker);

// Where a worker runs, and which part of N is its own. Numbers count what is allowed to this process, in the order of the
// machine: workers, cores, caches and nodes that are neighbours have neighbouring numbers.
typedef struct tern_worker_info {
    size_t struct_size;
    int cpu;       // as tern_worker_cpu()
    int core;      // physical core; -1: not bound
    int core_kind; // 0: the most efficient kind, or the only one; -1: not bound
    int cache;     // last-level cache; -1: not bound
    int group;     // of at most 16 workers, that share a cache where they can
    int node;      // NUMA node that its part of the weights belongs to
    double share;  // of the rows of a weight, before others steal from it: by the speed of the core; all shares add up to 1
} tern_worker_info;
// Errors: ARG (worker).
TERN_API tern_status tern_get_worker_info(tern_context *ctx, int worker, tern_worker_info *info);

// ---- Variants -------------------------------------------------------------------------------------------

// Every kernel variant compiled into the library (kernels/variants.inc), whether this CPU can run it or not.
typedef struct tern_variant_info {
    size_t struct_size;
    const char *stage;  // e.g. "lut_gemm"
    const char *tier;   // e.g. "avx2"
    const char *layout; // byte layout of weights or tables it reads; "-" where none
    const char *symbol; // unique, e.g. "tern_lut_gemm_t5_scalar"
    int usable;         // this context may run it
    int chosen;         // this context runs it for its stage and layout
} tern_variant_info;
TERN_API size_t tern_variant_count(void);
TERN_API tern_status tern_variant_get(tern_context *ctx, size_t index, tern_variant_info *info);

// Makes the context use this variant for its stage and layout; for GEMM stages, weights packed afterwards also use its
// layout. Call before packing. symbol NULL: back to the built-in choice everywhere. Errors: ARG (unknown), CPU (not usable).
TERN_API tern_status tern_force_variant(tern_context *ctx, const char *symbol);

// "tier" chosen for a stage's default layout, e.g. tern_stage_variant(ctx, "quantize") == "avx2"; NULL for an unknown stage,
// or one that has no kernel for that layout within the context's tier.
TERN_API const char *tern_stage_variant(tern_context *ctx, const char *stage);

// ---- The oracle -----------------------------------------------------------------------------------------

// One scalar loop, written for reading: y[m][n] = sum_k x[m][k] * w[n][k] in int32. Every variant is compared with it.
TERN_API void tern_oracle_s32(int32_t *y, const int8_t *w, const int8_t *x, size_t m, size_t n, size_t k, size_t ldy,
                              size_t ldw, size_t ldx);

// ---- Counters -------------------------------------------------------------------------------------------

typedef struct tern_worker_counters {
    size_t struct_size;
    uint64_t tiles;   // tiles run by this worker since creation
    uint64_t regions; // regions it took part in
    uint64_t parks;   // times it went to sleep
    uint64_t stolen;  // of its tiles, those of another worker's share
    uint64_t spin_ns; // time it waited awake, inside regions and before it went to sleep
    uint64_t wakes;   // sleeping workers it woke
} tern_worker_counters;
// Outside regions. Errors: ARG (worker), UNSUPPORTED (a caller's parallel_for: its threads are not known).
TERN_API tern_status tern_get_worker_counters(tern_context *ctx, int worker, tern_worker_counters *counters);

// ---- Time by stage --------------------------------------------------------------------------------------

// The time of the regions that run between start and stop, from the opening of a stage to that of the next one, summed up by
// the stages' names (compared as pointers: static strings). Costs a clock reading for each stage, some 30 ns; nothing is
// measurable where it is off. Of a caller's parallel_for, too.
typedef struct tern_stage_time {
    size_t struct_size;
    const char *name; // as given in tern_stage; NULL: unnamed, or more names than there is room for
    uint64_t ns;
    uint64_t count; // stages
} tern_stage_time;

// Forgets the sums so far. The sums stay readable after the stop. Errors: STATE (inside a region).
TERN_API tern_status tern_stage_times_start(tern_context *ctx);
TERN_API tern_status tern_stage_times_stop(tern_context *ctx);
// Names so far, and name 0 .. tern_stage_times_count - 1, in the order of their first stage; outside regions. Errors: ARG
// (index).
TERN_API size_t tern_stage_times_count(const tern_context *ctx);
TERN_API tern_status tern_stage_times_get(tern_context *ctx, size_t index, tern_stage_time *time);

// ---- Trace ----------------------------------------------------------------------------------------------

// What each worker did, as slices of time. Events go to memory that is allocated at the start, each worker's to its own part,
// without locks. `tern generate --trace` writes them as a file for Perfetto.
typedef enum tern_trace_kind {
    TERN_TRACE_REGION = 0, // a region, from call to return; on worker 0, the caller
    TERN_TRACE_STAGE = 1,  // a stage, from its opening to the return of its last tile; on the worker that closed it
    TERN_TRACE_TILES = 2,  // consecutive tiles of a stage that a worker claimed at once, and ran
    TERN_TRACE_WAIT = 3,   // a worker's time without a tile, from what it did last (or tern_trace_start) to what it did next
    TERN_TRACE_SLEEP = 4   // the part of a WAIT for which it was asleep (the last one, if it slept several times)
} tern_trace_kind;

// Stages lie inside their region, and tiles inside their stage; stages of 0 tiles leave no trace. On one worker TILES and WAIT
// never overlap. A WAIT may begin in an earlier region; it belongs to the stage that ended it. Waits below 100 ns, which is
// what a claim takes, are not recorded.
typedef struct tern_trace_event {
    size_t struct_size;
    tern_trace_kind kind;
    int worker;
    const char *name;         // of the stage, as given in tern_stage; NULL: unnamed, or a REGION
    uint64_t region;          // counted from 0 since tern_trace_start
    uint64_t stage;           // index in its region; 0 for a REGION
    uint64_t first_tile;      // TILES; else 0
    uint64_t count;           // TILES, STAGE: tiles (0: of a stage that stopped its region); REGION: stages; else 0
    int stolen;               // TILES: 1: of another worker's share
    int64_t begin_ns, end_ns; // CLOCK_MONOTONIC
} tern_trace_event;

enum { TERN_TRACE_EVENTS_MAX = 1 << 24 };

// Records every region from now on, until tern_trace_stop; forgets the trace before. Room for `events_per_worker`
// (1..TERN_TRACE_EVENTS_MAX, 64 bytes each); where a worker's room is full, its further events are counted as dropped.
// Costs two clock readings for each run of tiles, some 30 ns each; nothing is measurable where no trace runs.
// Errors: ARG, MEMORY, STATE (one is running; inside a region), UNSUPPORTED (a caller's parallel_for: its threads are not
// known).
TERN_API tern_status tern_trace_start(tern_context *ctx, size_t events_per_worker);
// The events stay readable. Errors: STATE (none is running; inside a region).
TERN_API tern_status tern_trace_stop(tern_context *ctx);

// Events recorded so far, and events that found no room; outside regions. 0 without a trace.
TERN_API size_t tern_trace_count(const tern_context *ctx);
TERN_API uint64_t tern_trace_dropped(const tern_context *ctx);
// Event 0 .. tern_trace_count - 1: by worker, and of each worker in the order in which they ended. event->name is the pointer
// that tern_stage had. Errors: ARG (index).
TERN_API tern_status tern_trace_get(tern_context *ctx, size_t index, tern_trace_event *event);

// ---- The roofline, measured now -------------------------------------------------------------------------

// Seconds of reading `bytes` of memory with all workers of the context, each its share: once as one forward stream and once as
// four in turn, whichever was faster. Best-effort huge pages, plain loads of the context's tier. Call repeatedly, take medians.
// The probe owns its memory: create once, sweep many times, interleaved with what is being judged.
typedef struct tern_read_probe tern_read_probe;
TERN_API tern_status tern_read_probe_create(tern_context *ctx, tern_read_probe **probe, size_t bytes);
TERN_API tern_status tern_read_probe_sweep(tern_context *ctx, tern_read_probe *probe, double *seconds);
TERN_API void tern_read_probe_destroy(tern_read_probe *probe);

// Peak INT8 multiply-add rate of the context's tier with all workers, register-only: vpdpbusd with VNNI, else
// vpmaddubsw + vpmaddwd + vpaddd (the exact AVX2 form). *ops counts 2 per multiply-add.
TERN_API tern_status tern_int8_peak(tern_context *ctx, double *ops, double *seconds);

// Seconds that one dependent add takes on this core: the clock period, from a loop of dependent adds run now.
TERN_API double tern_cycle_seconds(void);

#ifdef __cplusplus
}
#endif
#endif
