// SPDX-License-Identifier: MIT
// The roofline, measured now: read bandwidth, peak INT8 rate, and the clock period.
#include <time.h>

#include "matmul/context.h"

static double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static tern_status no_kernel(tern_context *ctx, const char *stage) {
    return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED, "this library has no %s kernel for tier %s", stage,
                     tern_tier_name(ctx->kernels.tier));
}

static tern_status timed_region(tern_context *ctx, const tern_stage *stages, size_t n_stages, double *seconds) {
    const double start = now_seconds();
    const tern_status status = tern_context_run(ctx, stages, n_stages);
    if (status == TERN_OK) *seconds = now_seconds() - start;
    return status;
}

// ---- read bandwidth ----------------------------------------------------------------------------------------------

// STREAMS: some memory systems read several forward streams at once faster than one (Zen 3: 21 against 18 GB/s), others slower.
enum { SWEEP_UNIT = 256, PAGE_BYTES = 4096, STREAMS = 4 };

struct tern_read_probe {
    tern_allocator allocator;
    size_t struct_bytes;
    unsigned char *memory;
    size_t bytes, share;      // share: bytes of one worker, a multiple of SWEEP_UNIT; the last one may be smaller
    tern_read_sweep_fn *read; // the kernel of the sweep under way
    bool streams;             // it reads STREAMS parts of a share in turn; else the share from start to end
    uint64_t sums[];          // one per share: results keep the loads alive
};

static size_t share_bytes(const tern_read_probe *probe, size_t tile) {
    const size_t left = probe->bytes - tile * probe->share;
    return left < probe->share ? left : probe->share;
}

// Writes each page from the worker that will likely read it: memory never written is one shared page of zeros.
static void touch_share(void *arg, size_t tile) {
    tern_read_probe *probe = arg;
    unsigned char *share = probe->memory + tile * probe->share;
    for (size_t i = 0; i < share_bytes(probe, tile); i += PAGE_BYTES) share[i] = (unsigned char)tile;
}

static void sweep_share(void *arg, size_t tile) {
    tern_read_probe *probe = arg;
    const unsigned char *share = probe->memory + tile * probe->share;
    const size_t bytes = share_bytes(probe, tile), part = probe->streams ? bytes / STREAMS / SWEEP_UNIT * SWEEP_UNIT : 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < part; i += SWEEP_UNIT) {
        for (size_t s = 0; s < STREAMS; s++) sum += probe->read(share + s * part + i, SWEEP_UNIT);
    }
    probe->sums[tile] = sum + probe->read(share + STREAMS * part, bytes - STREAMS * part);
}

static size_t n_shares(const tern_read_probe *probe) { return tern_ceil_div(probe->bytes, probe->share); }

tern_status tern_read_probe_create(tern_context *ctx, tern_read_probe **probe, size_t bytes) {
    if (!ctx) return TERN_ERR_ARG;
    if (!probe) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_read_probe_create needs an output");
    if (!ctx->kernels.chosen[TERN_STAGE_read_sweep][TERN_LAYOUT_NONE]) return no_kernel(ctx, "read_sweep");
    if (bytes < SWEEP_UNIT) return tern_fail(&ctx->error, TERN_ERR_ARG, "a read probe needs at least %d bytes", SWEEP_UNIT);
    const size_t whole = bytes / SWEEP_UNIT * SWEEP_UNIT, n = (size_t)ctx->threads;
    const size_t struct_bytes = sizeof(tern_read_probe) + n * sizeof(uint64_t);
    tern_read_probe *p = tern_alloc(&ctx->allocator, 1, struct_bytes);
    if (!p) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "no memory for a read probe");
    p->allocator = ctx->allocator;
    p->struct_bytes = struct_bytes;
    p->bytes = whole;
    p->share = tern_ceil_div(whole / SWEEP_UNIT, n) * SWEEP_UNIT;
    p->memory = tern_alloc(&ctx->allocator, 1, whole);
    const tern_stage touch = {touch_share, p, n_shares(p), "touch"};
    const tern_status status = p->memory
                                   ? tern_context_run(ctx, &touch, 1)
                                   : tern_fail(&ctx->error, TERN_ERR_MEMORY, "no memory for a read probe of %zu bytes", bytes);
    if (status == TERN_OK) {
        *probe = p;
    } else {
        tern_read_probe_destroy(p);
    }
    return status;
}

tern_status tern_read_probe_sweep(tern_context *ctx, tern_read_probe *probe, double *seconds) {
    if (!ctx) return TERN_ERR_ARG;
    if (!probe || !seconds) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_read_probe_sweep needs a probe and an output");
    const tern_variant *read = ctx->kernels.chosen[TERN_STAGE_read_sweep][TERN_LAYOUT_NONE];
    if (!read) return no_kernel(ctx, "read_sweep");
    probe->read = (tern_read_sweep_fn *)read->fn;
    const tern_stage sweep = {sweep_share, probe, n_shares(probe), "sweep"};
    double one = 0, several = 0;
    probe->streams = false;
    tern_status status = timed_region(ctx, &sweep, 1, &one);
    probe->streams = true;
    if (status == TERN_OK) status = timed_region(ctx, &sweep, 1, &several);
    if (status == TERN_OK) *seconds = one < several ? one : several;
    return status;
}

void tern_read_probe_destroy(tern_read_probe *probe) {
    if (!probe) return;
    const tern_allocator allocator = probe->allocator;
    tern_free(&allocator, probe->memory, 1, probe->bytes);
    tern_free(&allocator, probe, 1, probe->struct_bytes);
}

// ---- INT8 peak ---------------------------------------------------------------------------------------------------

// Several tiles per worker, so that one which is held up does not count double.
enum { PEAK_TILES_PER_WORKER = 8, PEAK_FIRST_ITERATIONS = 1024 };
static const double peak_tile_seconds = 1e-3;

typedef struct peak_run {
    tern_int8_peak_fn *run;
    uint64_t iterations;
    _Atomic uint64_t macs;
} peak_run;

static void peak_tile(void *arg, size_t tile) {
    (void)tile;
    peak_run *peak = arg;
    // relaxed: a sum, read after the region.
    atomic_fetch_add_explicit(&peak->macs, peak->run(peak->iterations), memory_order_relaxed);
}

// Doubles the iterations of a tile until it takes a millisecond on this thread.
static void calibrate_peak(peak_run *peak) {
    double seconds = 0;
    for (peak->iterations = PEAK_FIRST_ITERATIONS; seconds < peak_tile_seconds; peak->iterations *= 2) {
        const double start = now_seconds();
        peak->run(peak->iterations);
        seconds = now_seconds() - start;
    }
}

tern_status tern_int8_peak(tern_context *ctx, double *ops, double *seconds) {
    if (!ctx) return TERN_ERR_ARG;
    if (!ops || !seconds) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_int8_peak needs its outputs");
    const tern_variant *kernel = ctx->kernels.chosen[TERN_STAGE_int8_peak][TERN_LAYOUT_NONE];
    if (!kernel) return no_kernel(ctx, "int8_peak");
    peak_run peak = {.run = (tern_int8_peak_fn *)kernel->fn};
    calibrate_peak(&peak);
    const tern_stage warm_up = {peak_tile, &peak, (size_t)ctx->threads, "peak"};
    const tern_stage measured = {peak_tile, &peak, (size_t)ctx->threads * PEAK_TILES_PER_WORKER, "peak"};
    tern_status status = tern_context_run(ctx, &warm_up, 1);
    // relaxed: no region runs now.
    atomic_store_explicit(&peak.macs, 0, memory_order_relaxed);
    if (status == TERN_OK) status = timed_region(ctx, &measured, 1, seconds);
    if (status == TERN_OK) *ops = 2.0 * (double)atomic_load_explicit(&peak.macs, memory_order_relaxed);
    return status;
}

// ---- clock period ------------------------------------------------------------------------------------------------

enum { CYCLE_ADDS = 100, CYCLE_ROUNDS = 500, CYCLE_TRIES = 8 };

// The fastest of a few tries: interruptions only add time. The adds are of two registers, because some CPUs fold additions of
// constants away before they execute.
double tern_cycle_seconds(void) {
    double best = 1;
    uint64_t value = 1;
    const uint64_t step = 3;
    for (int i = 0; i < CYCLE_TRIES; i++) {
        const double start = now_seconds();
        for (int round = 0; round < CYCLE_ROUNDS; round++) {
            __asm__ volatile(".rept %c2\n\taddq %1, %0\n\t.endr" : "+r"(value) : "r"(step), "i"(CYCLE_ADDS) : "cc");
        }
        const double seconds = (now_seconds() - start) / (CYCLE_ROUNDS * CYCLE_ADDS);
        if (seconds < best) best = seconds;
    }
    return best;
}
