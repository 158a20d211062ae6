// SPDX-License-Identifier: MIT
// Traces of a context's pool, in the public structs of diagnostics.h.
#include "sched/trace.h"

#include "matmul/context.h"

// No message from inside a region: other threads of the region may be writing one.
static tern_status check_outside(tern_context *ctx) {
    if (!ctx) return TERN_ERR_ARG;
    return ctx->in_region ? TERN_ERR_STATE : TERN_OK;
}

tern_status tern_trace_start(tern_context *ctx, size_t events_per_worker) {
    const tern_status status = check_outside(ctx);
    if (status != TERN_OK) return status;
    if (!ctx->pool)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED,
                         "the threads of a caller's parallel_for cannot be traced; trace a "
                         "context with a pool of its own");
    if (ctx->tracing) return tern_fail(&ctx->error, TERN_ERR_STATE, "a trace is running; stop it first");
    if (events_per_worker == 0 || events_per_worker > TERN_TRACE_EVENTS_MAX) {
        return tern_fail(&ctx->error, TERN_ERR_ARG, "events_per_worker = %zu is outside 1..%d", events_per_worker,
                         TERN_TRACE_EVENTS_MAX);
    }
    tern_trace *trace;
    const tern_status created =
        tern_trace_create(&trace, tern_pool_threads(ctx->pool), events_per_worker, &ctx->allocator, &ctx->error);
    if (created != TERN_OK) return created;
    tern_trace_destroy(ctx->trace);
    ctx->trace = trace;
    ctx->tracing = true;
    tern_pool_set_trace(ctx->pool, trace);
    return TERN_OK;
}

tern_status tern_trace_stop(tern_context *ctx) {
    const tern_status status = check_outside(ctx);
    if (status != TERN_OK) return status;
    if (!ctx->tracing) return tern_fail(&ctx->error, TERN_ERR_STATE, "no trace is running");
    tern_pool_set_trace(ctx->pool, NULL);
    ctx->tracing = false;
    return TERN_OK;
}

size_t tern_trace_count(const tern_context *ctx) { return ctx && ctx->trace ? tern_trace_events(ctx->trace) : 0; }

uint64_t tern_trace_dropped(const tern_context *ctx) { return ctx && ctx->trace ? tern_trace_lost(ctx->trace) : 0; }

tern_status tern_trace_get(tern_context *ctx, size_t index, tern_trace_event *event) {
    if (!ctx) return TERN_ERR_ARG;
    const size_t count = tern_trace_count(ctx);
    if (index >= count) return tern_fail(&ctx->error, TERN_ERR_ARG, "event %zu does not exist; there are %zu", index, count);
    const tern_trace_event full = tern_trace_event_at(ctx->trace, index);
    return tern_info_write(event, &full, sizeof full, "tern_trace_event", &ctx->error);
}
