// SPDX-License-Identifier: MIT
// Benchmarks of every kernel variant this CPU can run. TERN_THREADS and TERN_ISA apply; options are Google Benchmark's.
#include "bench.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench_shim.h"

int bench_find_variant(tern_context *ctx, const char *symbol, tern_variant_info *info) {
    for (size_t i = 0; i < tern_variant_count(); i++) {
        *info = (tern_variant_info){.struct_size = sizeof *info};
        if (tern_variant_get(ctx, i, info) == TERN_OK && strcmp(info->symbol, symbol) == 0) return info->usable;
    }
    return 0;
}

void bench_name(char name[BENCH_NAME_MAX], const tern_variant_info *info, const char *shape, const char *residency) {
    const char *variant = info->symbol + strlen("tern_") + strlen(info->stage) + strlen("_");
    (void)snprintf(name, BENCH_NAME_MAX, "%s/%s/%s/%s", info->stage, variant, shape, residency);
}

double bench_seconds(void) {
    static const double nano = 1e-9;
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + nano * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    char error[512] = "";
    const tern_context_params params = {.struct_size = sizeof params, .error = error, .error_size = sizeof error};
    tern_context *ctx = NULL;
    if (tern_context_create(&ctx, &params) != TERN_OK) {
        (void)fprintf(stderr, "tern_bench: %s\n", error);
        return 1;
    }
    bench_register_products(ctx);
    bench_register_stages(ctx);
    bench_register_pack(ctx);
    const int rc = bench_run(argc, argv);
    bench_release_products();
    bench_release_pack();
    tern_context_destroy(ctx);
    return rc;
}
