// SPDX-License-Identifier: MIT
// Time by name of stage of a context's regions, in the public structs of diagnostics.h.
#include "matmul/context.h"

// No message from inside a region: other threads of the region may be writing one.
static tern_status switch_times(tern_context *ctx, tern_stage_times *times) {
    if (!ctx) return TERN_ERR_ARG;
    if (ctx->in_region) return TERN_ERR_STATE;
    ctx->times = times;
    if (ctx->pool) tern_pool_set_times(ctx->pool, times);
    return TERN_OK;
}

tern_status tern_stage_times_start(tern_context *ctx) {
    const tern_status status = ctx ? switch_times(ctx, &ctx->stage_times) : TERN_ERR_ARG;
    if (status == TERN_OK) ctx->stage_times = (tern_stage_times){0};
    return status;
}

tern_status tern_stage_times_stop(tern_context *ctx) { return switch_times(ctx, NULL); }

size_t tern_stage_times_count(const tern_context *ctx) { return ctx ? ctx->stage_times.n : 0; }

tern_status tern_stage_times_get(tern_context *ctx, size_t index, tern_stage_time *time) {
    if (!ctx) return TERN_ERR_ARG;
    const tern_stage_times *t = &ctx->stage_times;
    if (index >= t->n) return tern_fail(&ctx->error, TERN_ERR_ARG, "stage name %zu does not exist; there are %zu", index, t->n);
    const tern_stage_time full = {.name = t->sums[index].name, .ns = t->sums[index].ns, .count = t->sums[index].count};
    return tern_info_write(time, &full, sizeof full, "tern_stage_time", &ctx->error);
}
