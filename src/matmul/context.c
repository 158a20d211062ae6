// SPDX-License-Identifier: MIT
// Creates a context: detects the CPU, chooses kernels, starts the pool; and runs regions on it.
#include "matmul/context.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sched/quota.h"

// An environment variable, or NULL if it is unset or empty.
static const char *environment(const char *name) {
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

// ---- the parts of creation: each reads its parameter, then the environment, then takes the default --------------

static tern_status choose_allocator(tern_context *ctx, const tern_allocator *allocator, tern_error *err) {
    ctx->allocator = allocator ? *allocator : tern_default_allocator;
    if (ctx->allocator.alloc && ctx->allocator.free) return TERN_OK;
    return tern_fail(err, TERN_ERR_ARG, "allocator.alloc and allocator.free must both be given");
}

static tern_status choose_tier(tern_context *ctx, const char *isa, tern_error *err) {
    const char *source = "isa";
    if (!isa) {
        isa = environment("TERN_ISA");
        source = "TERN_ISA";
    }
    tern_cpu_detect(&ctx->cpu);
    tern_tier tier = ctx->cpu.best;
    if (isa && !tern_tier_parse(isa, &tier)) {
        return tern_fail(err, TERN_ERR_ARG, "%s = \"%s\" is not an instruction-set tier; use one of " TERN_TIER_NAMES, source,
                         isa);
    }
    if (tier > ctx->cpu.best) {
        char missing[96];
        tern_cpu_missing(&ctx->cpu, tier, missing, sizeof missing);
        return tern_fail(err, TERN_ERR_CPU, "%s = \"%s\" cannot run here: %s; the highest tier of this machine is %s", source,
                         isa, missing, tern_tier_name(ctx->cpu.best));
    }
    tern_kernels_choose(&ctx->kernels, tier);
    return TERN_OK;
}

static tern_status parse_threads(const char *text, int *threads, tern_error *err) {
    char *end;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0' || value < 1 || value > TERN_THREADS_MAX) {
        return tern_fail(err, TERN_ERR_ARG, "TERN_THREADS = \"%s\" is not a number from 1 to %d", text, TERN_THREADS_MAX);
    }
    *threads = (int)value;
    return TERN_OK;
}

static tern_status choose_threads(int *threads, int asked, tern_error *err) {
    if (asked < 0 || asked > TERN_THREADS_MAX) {
        return tern_fail(err, TERN_ERR_ARG, "threads = %d is outside 1..%d (0: one per core)", asked, TERN_THREADS_MAX);
    }
    *threads = asked;
    const char *text = asked == 0 ? environment("TERN_THREADS") : NULL;
    return text ? parse_threads(text, threads, err) : TERN_OK;
}

static tern_status choose_pin(tern_pin *pin, const tern_context_params *params, tern_error *err) {
    const char *text = params->pin, *source = "pin";
    *pin = params->no_pinning ? TERN_PIN_NONE : TERN_PIN_DEFAULT;
    if (!text && !params->no_pinning) {
        text = environment("TERN_PIN");
        source = "TERN_PIN";
    }
    if (!text) return TERN_OK;
    if (!tern_pin_parse(text, pin)) {
        return tern_fail(err, TERN_ERR_ARG, "%s = \"%s\" is not one of " TERN_PIN_NAMES, source, text);
    }
    if (params->no_pinning && *pin != TERN_PIN_NONE) {
        return tern_fail(err, TERN_ERR_ARG, "pin = \"%s\" contradicts no_pinning; set one of them", text);
    }
    return TERN_OK;
}

// Appends a reason, if there is one, to what tern_context_warning() tells.
static void add_warning(tern_context *ctx, const tern_error *reason) {
    const size_t used = strlen(ctx->warning);
    if (reason->text[0])
        (void)snprintf(ctx->warning + used, sizeof ctx->warning - used, "%s%s", used ? "; " : "", reason->text);
}

// What the system refused is a warning, and the plan then tells what is.
static tern_status start_pool(tern_context *ctx, tern_error *err) {
    tern_error warning = {""};
    const tern_status status = tern_pool_create(&ctx->pool, &ctx->placement, &ctx->allocator, &warning, err);
    if (status != TERN_OK) return status;
    add_warning(ctx, &warning);
    ctx->placement.n_workers = tern_pool_threads(ctx->pool);
    for (int i = 0; i < ctx->placement.n_workers; i++) ctx->placement.workers[i].cpu = tern_pool_cpu(ctx->pool, i);
    return TERN_OK;
}

static tern_status choose_workers(tern_context *ctx, const tern_context_params *params, tern_error *err) {
    int threads;
    tern_pin pin;
    tern_status status = choose_threads(&threads, params->threads, err);
    if (status == TERN_OK) status = choose_pin(&pin, params, err);
    if (status != TERN_OK) return status;
    if (params->parallel_for) pin = TERN_PIN_NONE;
    tern_error warning = {""};
    tern_topology_detect(&ctx->topology, &ctx->numa, &warning);
    add_warning(ctx, &warning);
    ctx->quota_millis = tern_quota_millis("");
    tern_worker_plan_make(&ctx->placement, &ctx->topology, threads, pin, ctx->quota_millis);
    ctx->parallel_for = params->parallel_for;
    ctx->parallel_for_user = params->parallel_for_user;
    if (!params->parallel_for) status = start_pool(ctx, err);
    ctx->threads = ctx->placement.n_workers;
    return status;
}

static tern_status choose_tuning(tern_context *ctx, const char *tune, tern_error *err) {
    if (!tune) tune = environment("TERN_TUNE");
    ctx->tune.key = tern_tune_key_of(&ctx->cpu, ctx->kernels.tier, ctx->threads);
    tern_error warning = {""};
    const tern_status status = tern_tuning_read(&ctx->tune, tune, &ctx->allocator, &warning, err);
    add_warning(ctx, &warning);
    return status;
}

static tern_status create(tern_context **out, const tern_context_params *params, tern_error *err) {
    tern_context probe = {0};
    tern_status status = choose_allocator(&probe, params->allocator, err);
    if (status != TERN_OK) return status;
    tern_context *ctx = tern_alloc(&probe.allocator, 1, sizeof *ctx);
    if (!ctx) return tern_fail(err, TERN_ERR_MEMORY, "no memory for a context");
    ctx->allocator = probe.allocator;
    atomic_flag_clear_explicit(&ctx->nested_reported, memory_order_relaxed); // no other thread yet
    status = choose_tier(ctx, params->isa, err);
    if (status == TERN_OK) status = choose_workers(ctx, params, err);
    if (status == TERN_OK) status = choose_tuning(ctx, params->tune, err);
    if (status != TERN_OK) {
        tern_context_destroy(ctx);
        return status;
    }
    *out = ctx;
    return TERN_OK;
}

// ---- the public calls --------------------------------------------------------------------------------------------

tern_status tern_context_create(tern_context **ctx, const tern_context_params *params) {
    tern_error err = {""};
    tern_context_params p;
    tern_status status = tern_params_read(&p, sizeof p, params, "tern_context_params", &err);
    if (status == TERN_OK) status = ctx ? create(ctx, &p, &err) : tern_fail(&err, TERN_ERR_ARG, "ctx is NULL");
    if (status != TERN_OK && p.error && p.error_size > 0) snprintf(p.error, p.error_size, "%s", err.text);
    return status;
}

void tern_context_destroy(tern_context *ctx) {
    if (!ctx) return;
    tern_pool_destroy(ctx->pool);
    tern_numa_release(ctx->numa);
    tern_trace_destroy(ctx->trace);
    tern_tuning_release(&ctx->tune, &ctx->allocator);
    const tern_allocator allocator = ctx->allocator;
    tern_free(&allocator, ctx, 1, sizeof *ctx);
}

const char *tern_context_error(const tern_context *ctx) { return ctx ? ctx->error.text : ""; }

const char *tern_context_warning(const tern_context *ctx) { return ctx ? ctx->warning : ""; }

int tern_context_threads(const tern_context *ctx) { return ctx ? ctx->threads : 0; }

// ---- regions -----------------------------------------------------------------------------------------------------

static tern_status nested_call(tern_context *ctx) {
    // relaxed: it only decides who writes; the end of the region orders the message before the caller reads it.
    if (atomic_flag_test_and_set_explicit(&ctx->nested_reported, memory_order_relaxed)) return TERN_ERR_STATE;
    return tern_fail(&ctx->error, TERN_ERR_STATE,
                     "a tile called Tern with the context that runs it; give the tile a context of its own");
}

tern_status tern_context_run(tern_context *ctx, const tern_stage *stages, size_t n_stages) {
    if (ctx->in_region) return nested_call(ctx);
    ctx->in_region = true;
    atomic_flag_clear_explicit(&ctx->nested_reported, memory_order_relaxed); // the start of the region publishes it
    tern_status status = TERN_OK;
    if (ctx->pool) {
        status = tern_pool_run(ctx->pool, stages, n_stages, &ctx->error);
    } else {
        for (size_t i = 0; i < n_stages; i++) {
            if (ctx->times) tern_stage_times_next(ctx->times, &stages[i]);
            if (stages[i].n_tiles == 1)
                stages[i].fn(stages[i].arg, 0); // by the calling thread, which has the room on its stack as any other
            else if (stages[i].n_tiles > 1)
                ctx->parallel_for(ctx->parallel_for_user, stages[i].fn, stages[i].arg, stages[i].n_tiles);
        }
        if (ctx->times) tern_stage_times_next(ctx->times, NULL);
    }
    ctx->in_region = false;
    return status;
}

tern_status tern_run_region(tern_context *ctx, const tern_stage *stages, size_t n_stages) {
    if (!ctx) return TERN_ERR_ARG;
    if (ctx->in_region) return nested_call(ctx);
    if (!stages && n_stages > 0) return tern_fail(&ctx->error, TERN_ERR_ARG, "stages is NULL but n_stages is %zu", n_stages);
    for (size_t i = 0; i < n_stages; i++) {
        if (!stages[i].fn && stages[i].n_tiles > 0)
            return tern_fail(&ctx->error, TERN_ERR_ARG, "stage %zu of %zu has no function", i, n_stages);
        if (stages[i].n_tiles > INT64_MAX) {
            return tern_fail(&ctx->error, TERN_ERR_ARG, "stage %zu has %zu tiles; the most is %lld", i, stages[i].n_tiles,
                             (long long)INT64_MAX);
        }
    }
    return tern_context_run(ctx, stages, n_stages);
}
