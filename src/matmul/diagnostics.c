// SPDX-License-Identifier: MIT
// What a context knows about its CPU, machine, variants and workers, in the public structs of diagnostics.h.
#include "tern/diagnostics.h"

#include "matmul/context.h"

tern_status tern_get_cpu_info(tern_context *ctx, tern_cpu_info *info) {
    if (!ctx) return TERN_ERR_ARG;
    const tern_cpu_info full = {.vendor = ctx->cpu.vendor,
                                .model = ctx->cpu.model,
                                .features = ctx->cpu.features,
                                .best = tern_tier_name(ctx->cpu.best),
                                .tier = tern_tier_name(ctx->kernels.tier)};
    return tern_info_write(info, &full, sizeof full, "tern_cpu_info", &ctx->error);
}

tern_status tern_get_topology_info(tern_context *ctx, tern_topology_info *info) {
    if (!ctx) return TERN_ERR_ARG;
    const tern_topology *t = &ctx->topology;
    const tern_topology_info full = {.packages = t->packages,
                                     .numa_nodes = t->numa_nodes,
                                     .cores = t->cores,
                                     .pus = t->pus,
                                     .threads = ctx->threads,
                                     .pinned = ctx->placement.pin != TERN_PIN_NONE,
                                     .l1d_bytes = t->l1d_bytes,
                                     .l2_bytes = t->l2_bytes,
                                     .l3_bytes = t->l3_bytes,
                                     .l2_caches = t->l2_caches,
                                     .last_level_caches = t->last_caches,
                                     .core_kinds = t->kinds,
                                     .quota_cpus = (double)ctx->quota_millis / TERN_CPU_MILLIS,
                                     .pin = tern_pin_name(ctx->placement.pin)};
    return tern_info_write(info, &full, sizeof full, "tern_topology_info", &ctx->error);
}

int tern_worker_cpu(tern_context *ctx, int worker) {
    if (!ctx || worker < 0 || worker >= ctx->threads) return TERN_CPU_NONE;
    return ctx->placement.workers[worker].cpu;
}

static double share_of(const tern_worker_plan *plan, int worker) {
    double all = 0;
    for (int i = 0; i < plan->n_workers; i++) all += plan->workers[i].weight;
    return plan->workers[worker].weight / all;
}

static const tern_pu *find_pu(const tern_topology *topology, int cpu) {
    for (int i = 0; i < topology->n_listed; i++) {
        if (topology->pu[i].cpu == cpu) return &topology->pu[i];
    }
    return NULL;
}

static tern_status check_worker(tern_context *ctx, int worker) {
    if (worker >= 0 && worker < ctx->threads) return TERN_OK;
    return tern_fail(&ctx->error, TERN_ERR_ARG, "worker %d is outside 0..%d", worker, ctx->threads - 1);
}

tern_status tern_get_worker_info(tern_context *ctx, int worker, tern_worker_info *info) {
    if (!ctx) return TERN_ERR_ARG;
    const tern_status status = check_worker(ctx, worker);
    if (status != TERN_OK) return status;
    const tern_worker_place *place = &ctx->placement.workers[worker];
    const tern_pu *pu = place->cpu == TERN_CPU_NONE ? NULL : find_pu(&ctx->topology, place->cpu);
    const tern_worker_info full = {.cpu = place->cpu,
                                   .core = pu ? pu->core : -1,
                                   .core_kind = pu ? pu->kind : -1,
                                   .cache = pu ? pu->cache : -1,
                                   .group = place->group,
                                   .node = place->node,
                                   .share = share_of(&ctx->placement, worker)};
    return tern_info_write(info, &full, sizeof full, "tern_worker_info", &ctx->error);
}

// ---- variants ----------------------------------------------------------------------------------------------------

size_t tern_variant_count(void) { return tern_variants_count; }

tern_status tern_variant_get(tern_context *ctx, size_t index, tern_variant_info *info) {
    if (!ctx) return TERN_ERR_ARG;
    if (index >= tern_variants_count) {
        return tern_fail(&ctx->error, TERN_ERR_ARG, "variant %zu does not exist; there are %zu", index, tern_variants_count);
    }
    const tern_variant *v = &tern_variants[index];
    const tern_variant_info full = {.stage = tern_stage_name(v->stage),
                                    .tier = tern_tier_name(v->tier),
                                    .layout = tern_layout_name(v->layout),
                                    .symbol = v->symbol,
                                    .usable = v->tier <= ctx->kernels.tier,
                                    .chosen = ctx->kernels.chosen[v->stage][v->layout] == v};
    return tern_info_write(info, &full, sizeof full, "tern_variant_info", &ctx->error);
}

tern_status tern_force_variant(tern_context *ctx, const char *symbol) {
    if (!ctx) return TERN_ERR_ARG;
    if (!symbol) {
        tern_kernels_choose(&ctx->kernels, ctx->kernels.tier);
        ctx->forced = NULL;
        return TERN_OK;
    }
    const tern_variant *v = tern_variant_find(symbol);
    if (!v) return tern_fail(&ctx->error, TERN_ERR_ARG, "there is no variant \"%s\"; tern_variant_get lists them", symbol);
    if (v->tier > ctx->kernels.tier) {
        return tern_fail(&ctx->error, TERN_ERR_CPU, "%s needs tier %s, but this context is limited to %s", symbol,
                         tern_tier_name(v->tier), tern_tier_name(ctx->kernels.tier));
    }
    tern_kernels_force(&ctx->kernels, v);
    ctx->forced = v;
    return TERN_OK;
}

const char *tern_stage_variant(tern_context *ctx, const char *stage) {
    tern_stage_id id;
    if (!ctx || !stage || !tern_stage_parse(stage, &id)) return NULL;
    const tern_variant *v = tern_kernels_default(&ctx->kernels, id);
    return v ? tern_tier_name(v->tier) : NULL;
}

// ---- counters ----------------------------------------------------------------------------------------------------

tern_status tern_get_worker_counters(tern_context *ctx, int worker, tern_worker_counters *counters) {
    if (!ctx) return TERN_ERR_ARG;
    if (!ctx->pool)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED, "a caller's parallel_for has no workers that Tern could count");
    const tern_status status = check_worker(ctx, worker);
    if (status != TERN_OK) return status;
    const tern_pool_counters c = tern_pool_worker_counters(ctx->pool, worker);
    const tern_worker_counters full = {
        .tiles = c.tiles, .regions = c.regions, .parks = c.parks, .stolen = c.stolen, .spin_ns = c.spin_ns, .wakes = c.wakes};
    return tern_info_write(counters, &full, sizeof full, "tern_worker_counters", &ctx->error);
}
