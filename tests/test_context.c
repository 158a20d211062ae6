// SPDX-License-Identifier: MIT
// Contexts: parameters, environment, error messages, regions by the pool and by a caller's parallel_for, fork.
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "matmul/context.h"

static char message[TERN_ERROR_MAX];

static tern_context_params defaults(void) {
    return (tern_context_params){.struct_size = sizeof(tern_context_params), .error = message, .error_size = sizeof message};
}

static tern_context *created(const tern_context_params *params) {
    tern_context *ctx = NULL;
    message[0] = '\0';
    if (tern_context_create(&ctx, params) != TERN_OK) fail_msg("%s", message);
    assert_non_null(ctx);
    return ctx;
}

static void refused(const tern_context_params *params, tern_status expected, const char *part_of_message) {
    tern_context *ctx = NULL;
    message[0] = '\0';
    assert_int_equal(tern_context_create(&ctx, params), expected);
    assert_null(ctx);
    if (!strstr(message, part_of_message)) fail_msg("\"%s\" does not say \"%s\"", message, part_of_message);
    assert_null(strchr(message, '\n'));
}

static int clear_environment(void **state) {
    (void)state;
    unsetenv("TERN_ISA");
    unsetenv("TERN_THREADS");
    unsetenv("TERN_PIN");
    return 0;
}

// By the quota that this test itself may run under.
static int paid_cpus(const tern_context *ctx) {
    const int nearest = (ctx->quota_millis + TERN_CPU_MILLIS / 2) / TERN_CPU_MILLIS;
    return ctx->quota_millis == 0 ? INT_MAX : nearest > 0 ? nearest : 1;
}

static tern_pin default_pin(const tern_context *ctx) {
    return paid_cpus(ctx) < ctx->topology.cores ? TERN_PIN_NONE : TERN_PIN_COMPACT;
}

// ---- creation --------------------------------------------------------------------------------------------------

static void null_params_mean_defaults(void **state) {
    (void)state;
    tern_context *ctx = created(NULL);
    const int paid = paid_cpus(ctx), cores = ctx->topology.cores;
    assert_int_equal(tern_context_threads(ctx), paid < cores ? paid : cores);
    assert_int_equal(ctx->kernels.tier, ctx->cpu.best);
    assert_int_equal(ctx->placement.pin, default_pin(ctx));
    assert_string_equal(tern_context_error(ctx), "");
    tern_context_destroy(ctx);
    tern_context_destroy(NULL);
}

static void threads_outside_the_range_are_refused(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.threads = -1;
    refused(&params, TERN_ERR_ARG, "1..1024");
    params.threads = 1000000000;
    refused(&params, TERN_ERR_ARG, "1000000000");
    params.threads = TERN_THREADS_MAX + 1;
    refused(&params, TERN_ERR_ARG, "1..1024");
}

static void more_threads_than_cpus_are_allowed(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.threads = 9;
    tern_context *ctx = created(&params);
    assert_int_equal(tern_context_threads(ctx), 9);
    tern_context_destroy(ctx);
}

static void an_unknown_isa_is_refused_with_the_allowed_names(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.isa = "avx3";
    refused(&params, TERN_ERR_ARG, TERN_TIER_NAMES);
    params.isa = "AVX2";
    refused(&params, TERN_ERR_ARG, "AVX2");
}

static void the_isa_caps_the_tier(void **state) {
    (void)state;
    tern_cpu cpu;
    tern_cpu_detect(&cpu);
    for (int tier = 0; tier < TERN_TIER_COUNT; tier++) {
        tern_context_params params = defaults();
        params.threads = 1;
        params.isa = tern_tier_name((tern_tier)tier);
        if (tier > (int)cpu.best) {
            refused(&params, TERN_ERR_CPU, "cannot run here: the ");
            continue;
        }
        tern_context *ctx = created(&params);
        assert_int_equal(ctx->kernels.tier, tier);
        tern_context_destroy(ctx);
    }
}

static void the_environment_is_used_where_params_are_silent(void **state) {
    (void)state;
    tern_context_params params = defaults();
    setenv("TERN_ISA", "scalar", 1);
    setenv("TERN_THREADS", "3", 1);
    setenv("TERN_PIN", "none", 1);
    tern_context *ctx = created(&params);
    assert_int_equal(ctx->kernels.tier, TERN_TIER_SCALAR);
    assert_int_equal(tern_context_threads(ctx), 3);
    assert_int_equal(ctx->placement.pin, TERN_PIN_NONE);
    tern_context_destroy(ctx);
    setenv("TERN_PIN", "cores", 1);
    params.threads = 2;
    params.isa = tern_tier_name(TERN_TIER_SCALAR);
    setenv("TERN_ISA", "nonsense", 1); // not read: the parameter comes first
    ctx = created(&params);
    assert_int_equal(tern_context_threads(ctx), 2);
    assert_int_equal(ctx->placement.pin, TERN_PIN_COMPACT);
    tern_context_destroy(ctx);
    clear_environment(state);
}

static void bad_environment_is_an_error_that_lists_what_is_allowed(void **state) {
    (void)state;
    const tern_context_params params = defaults();
    static const char *const bad_threads[] = {"0", "-1", "1025", "two", "2x", "1000000000", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad_threads / sizeof bad_threads[0]; i++) {
        setenv("TERN_THREADS", bad_threads[i], 1);
        refused(&params, TERN_ERR_ARG, "from 1 to 1024");
    }
    clear_environment(state);
    setenv("TERN_ISA", "sse9", 1);
    refused(&params, TERN_ERR_ARG, TERN_TIER_NAMES);
    clear_environment(state);
    setenv("TERN_PIN", "sockets", 1);
    refused(&params, TERN_ERR_ARG, TERN_PIN_NAMES);
    clear_environment(state);
}

static void a_struct_without_its_size_is_refused(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.struct_size = 0;
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, &params), TERN_ERR_ARG);
    assert_null(ctx);
}

static void an_older_caller_gets_defaults_for_fields_it_does_not_have(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.struct_size = offsetof(tern_context_params, no_pinning);
    params.threads = 2;
    params.isa = "scalar";
    params.no_pinning = 1; // past the end of the older struct: must not be read
    tern_context *ctx = created(&params);
    assert_int_equal(tern_context_threads(ctx), 2);
    assert_int_equal(ctx->kernels.tier, TERN_TIER_SCALAR);
    assert_int_equal(ctx->placement.pin, default_pin(ctx));
    tern_context_destroy(ctx);
}

typedef struct newer_params {
    tern_context_params known;
    uint64_t unknown;
} newer_params;

static void a_newer_caller_is_served_unless_it_asks_for_what_is_unknown(void **state) {
    (void)state;
    newer_params params = {.known = defaults(), .unknown = 0};
    params.known.struct_size = sizeof params;
    params.known.threads = 1;
    tern_context_destroy(created(&params.known));
    params.unknown = 1;
    refused(&params.known, TERN_ERR_UNSUPPORTED, "does not know");
}

// ---- allocator -------------------------------------------------------------------------------------------------

typedef struct counting_heap {
    long live;
    int allowed; // allocations that succeed
} counting_heap;

static void *counting_alloc(void *user, size_t size, size_t align) {
    counting_heap *heap = user;
    if (heap->allowed-- <= 0) return NULL;
    heap->live += (long)size;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void counting_free(void *user, void *ptr, size_t size) {
    counting_heap *heap = user;
    heap->live -= (long)size;
    free(ptr);
}

static void every_allocation_may_fail_and_none_is_leaked(void **state) {
    (void)state;
    tern_status status = TERN_ERR_MEMORY;
    for (int allowed = 0; status != TERN_OK; allowed++) {
        counting_heap heap = {0, allowed};
        const tern_allocator allocator = {counting_alloc, counting_free, &heap};
        tern_context_params params = defaults();
        params.threads = 2;
        params.allocator = &allocator;
        tern_context *ctx = NULL;
        status = tern_context_create(&ctx, &params);
        if (status != TERN_OK) assert_int_equal(status, TERN_ERR_MEMORY);
        tern_context_destroy(ctx);
        assert_int_equal(heap.live, 0);
        assert_in_range(allowed, 0, 100);
    }
}

// ---- regions ---------------------------------------------------------------------------------------------------

static void add_tile(void *arg, size_t tile) { atomic_fetch_add((_Atomic uint64_t *)arg, tile + 1); }

static void regions_are_checked_before_they_run(void **state) {
    (void)state;
    tern_context *ctx = created(NULL);
    _Atomic uint64_t sum = 0;
    tern_stage stages[2] = {{add_tile, &sum, 4, NULL}, {NULL, NULL, 1, NULL}};
    assert_int_equal(tern_run_region(ctx, stages, 2), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "stage 1"));
    assert_int_equal(tern_run_region(ctx, NULL, 1), TERN_ERR_ARG);
    stages[1] = (tern_stage){add_tile, &sum, SIZE_MAX, NULL};
    assert_int_equal(tern_run_region(ctx, stages, 2), TERN_ERR_ARG);
    assert_true(sum == 0);
    stages[1] = (tern_stage){NULL, NULL, 0, NULL};
    assert_int_equal(tern_run_region(ctx, stages, 2), TERN_OK);
    assert_int_equal(tern_run_region(ctx, NULL, 0), TERN_OK);
    assert_true(sum == 10);
    tern_context_destroy(ctx);
}

typedef struct caller_loops {
    size_t calls, tiles;
} caller_loops;

static void reversed_for(void *user, tern_tile_fn fn, void *arg, size_t n_tiles) {
    caller_loops *loops = user;
    loops->calls++;
    loops->tiles += n_tiles;
    for (size_t i = n_tiles; i > 0; i--) fn(arg, i - 1);
}

static void a_callers_parallel_for_runs_each_stage_and_no_thread_is_created(void **state) {
    (void)state;
    caller_loops loops = {0, 0};
    tern_context_params params = defaults();
    params.parallel_for = reversed_for;
    params.parallel_for_user = &loops;
    params.threads = 7;
    tern_context *ctx = created(&params);
    assert_null(ctx->pool);
    assert_int_equal(tern_context_threads(ctx), 7);
    _Atomic uint64_t sum = 0;
    const tern_stage stages[4] = {
        {add_tile, &sum, 3, NULL}, {add_tile, &sum, 0, NULL}, {add_tile, &sum, 1, NULL}, {add_tile, &sum, 4, NULL}};
    assert_int_equal(tern_run_region(ctx, stages, 4), TERN_OK);
    assert_int_equal(loops.calls, 2); // a stage of one tile needs none
    assert_int_equal(loops.tiles, 7);
    assert_true(sum == 6 + 1 + 10);
    tern_context_destroy(ctx);
}

typedef struct nested {
    tern_context *ctx;
    _Atomic int refused;
} nested;

static void nested_tile(void *arg, size_t tile) {
    (void)tile;
    nested *call = arg;
    if (tern_run_region(call->ctx, NULL, 0) == TERN_ERR_STATE) atomic_fetch_add(&call->refused, 1);
}

static void a_tile_may_not_call_its_own_context(void **state) {
    (void)state;
    caller_loops loops = {0, 0};
    for (int own = 0; own < 2; own++) {
        tern_context_params params = defaults();
        params.threads = 2;
        if (own) params.parallel_for = reversed_for;
        params.parallel_for_user = &loops;
        nested call = {created(&params), 0};
        const tern_stage stage = {nested_tile, &call, 8, NULL};
        assert_int_equal(tern_run_region(call.ctx, &stage, 1), TERN_OK);
        assert_int_equal(call.refused, 8);
        assert_non_null(strstr(tern_context_error(call.ctx), "context of its own"));
        tern_context_destroy(call.ctx);
    }
}

static void contexts_are_independent(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.threads = 2;
    tern_context *a = created(&params), *b = created(&params);
    _Atomic uint64_t sum = 0;
    const tern_stage stage = {add_tile, &sum, 4, NULL};
    for (int i = 0; i < 100; i++) {
        assert_int_equal(tern_run_region(a, &stage, 1), TERN_OK);
        assert_int_equal(tern_run_region(b, &stage, 1), TERN_OK);
    }
    assert_true(sum == 2000);
    tern_context_destroy(a);
    assert_int_equal(tern_run_region(b, &stage, 1), TERN_OK);
    tern_context_destroy(b);
}

static void a_forked_child_gets_an_error_not_a_hang(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.threads = 2;
    tern_context *ctx = created(&params);
    _Atomic uint64_t sum = 0;
    const tern_stage stage = {add_tile, &sum, 4, NULL};
    const pid_t child = fork();
    if (child == 0) {
        int code = tern_run_region(ctx, &stage, 1) == TERN_ERR_STATE && strstr(tern_context_error(ctx), "fork") ? 0 : 1;
        tern_context_destroy(ctx);
        _exit(code);
    }
    int code = -1;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    assert_int_equal(tern_run_region(ctx, &stage, 1), TERN_OK);
    assert_true(sum == 10);
    tern_context_destroy(ctx);
}

// ---- diagnostics -----------------------------------------------------------------------------------------------

static void cpu_and_topology_are_told(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.threads = 2;
    params.pin = "compact";
    params.isa = "scalar";
    tern_context *ctx = created(&params);
    tern_cpu_info cpu = {.struct_size = sizeof cpu};
    assert_int_equal(tern_get_cpu_info(ctx, &cpu), TERN_OK);
    assert_string_equal(cpu.tier, "scalar");
    assert_string_equal(cpu.best, tern_tier_name(ctx->cpu.best));
    assert_non_null(strstr(cpu.features, "sse2"));
    tern_topology_info topology = {.struct_size = sizeof topology};
    assert_int_equal(tern_get_topology_info(ctx, &topology), TERN_OK);
    assert_int_equal(topology.threads, 2);
    assert_int_equal(topology.pinned, 1);
    assert_true(topology.cores >= 1 && topology.pus >= topology.cores && topology.packages >= 1 && topology.numa_nodes >= 1);
    tern_context_destroy(ctx);
}

static void an_older_info_struct_is_filled_as_far_as_it_goes(void **state) {
    (void)state;
    tern_context *ctx = created(NULL);
    tern_cpu_info info = {.struct_size = offsetof(tern_cpu_info, features), .features = "untouched"};
    assert_int_equal(tern_get_cpu_info(ctx, &info), TERN_OK);
    assert_string_equal(info.vendor, ctx->cpu.vendor);
    assert_string_equal(info.features, "untouched");
    assert_int_equal(info.struct_size, offsetof(tern_cpu_info, features));
    info.struct_size = 0;
    assert_int_equal(tern_get_cpu_info(ctx, &info), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "sizeof(tern_cpu_info)"));
    assert_int_equal(tern_get_cpu_info(ctx, NULL), TERN_ERR_ARG);
    tern_context_destroy(ctx);
}

static void bound_workers_have_a_cpu_each_and_the_surplus_none(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.threads = 40;
    params.pin = "compact";
    tern_context *ctx = created(&params);
    for (int i = 0; i < 40; i++) {
        const int cpu = tern_worker_cpu(ctx, i);
        if (i >= ctx->topology.n_listed) assert_int_equal(cpu, -1);
        for (int j = 0; j < i && cpu >= 0; j++) assert_int_not_equal(cpu, tern_worker_cpu(ctx, j));
    }
    assert_true(tern_worker_cpu(ctx, 0) >= 0);
    assert_int_equal(tern_worker_cpu(ctx, -1), -1);
    assert_int_equal(tern_worker_cpu(ctx, 40), -1);
    tern_context_destroy(ctx);
    params.pin = "none";
    ctx = created(&params);
    assert_int_equal(tern_worker_cpu(ctx, 0), -1);
    tern_context_destroy(ctx);
}

static void variants_can_be_listed_forced_and_released(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.isa = "scalar";
    tern_context *ctx = created(&params);
    tern_variant_info info = {.struct_size = sizeof info};
    for (size_t i = 0; i < tern_variant_count(); i++) {
        assert_int_equal(tern_variant_get(ctx, i, &info), TERN_OK);
        assert_int_equal(info.usable, strcmp(info.tier, "scalar") == 0);
        if (info.chosen) assert_true(info.usable);
        assert_int_equal(tern_force_variant(ctx, info.symbol), info.usable ? TERN_OK : TERN_ERR_CPU);
        if (!info.usable) continue;
        assert_int_equal(tern_variant_get(ctx, i, &info), TERN_OK);
        assert_int_equal(info.chosen, 1);
    }
    assert_int_equal(tern_variant_get(ctx, tern_variant_count(), &info), TERN_ERR_ARG);
    assert_int_equal(tern_force_variant(ctx, "tern_no_such_kernel"), TERN_ERR_ARG);
    assert_int_equal(tern_force_variant(ctx, NULL), TERN_OK);
    tern_kernels fresh;
    tern_kernels_choose(&fresh, TERN_TIER_SCALAR);
    assert_memory_equal(fresh.chosen, ctx->kernels.chosen, sizeof fresh.chosen);
    assert_string_equal(tern_stage_variant(ctx, "quantize"), "scalar");
    assert_null(tern_stage_variant(ctx, "no_such_stage"));
    assert_null(tern_stage_variant(ctx, NULL));
    tern_context_destroy(ctx);
}

static void counters_add_up_to_the_tiles_run(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.threads = 3;
    tern_context *ctx = created(&params);
    _Atomic uint64_t sum = 0;
    const tern_stage stages[3] = {{add_tile, &sum, 5, NULL}, {add_tile, &sum, 1, NULL}, {add_tile, &sum, 9, NULL}};
    for (int i = 0; i < 10; i++) assert_int_equal(tern_run_region(ctx, stages, 3), TERN_OK);
    uint64_t tiles = 0;
    tern_worker_counters counters = {.struct_size = sizeof counters};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tern_get_worker_counters(ctx, i, &counters), TERN_OK);
        tiles += counters.tiles;
        assert_true(counters.regions <= 10);
    }
    assert_true(tiles == 150);
    assert_int_equal(tern_get_worker_counters(ctx, 3, &counters), TERN_ERR_ARG);
    assert_int_equal(tern_get_worker_counters(ctx, -1, &counters), TERN_ERR_ARG);
    tern_context_destroy(ctx);
}

static void the_oracle_multiplies_extremes_exactly(void **state) {
    (void)state;
    enum { K = TERN_K_MAX };
    int8_t *low = malloc(K), *high = malloc(K);
    assert_non_null(low);
    assert_non_null(high);
    memset(low, -128, K);
    memset(high, 127, K);
    int32_t y = 0;
    tern_oracle_s32(&y, low, low, 1, 1, K, 1, K, K);
    assert_int_equal(y, 128 * 128 * K);
    tern_oracle_s32(&y, low, high, 1, 1, K, 1, K, K);
    assert_int_equal(y, -128 * 127 * K);
    free(low);
    free(high);
    // [2 tokens][3 depth], [2 features][3 depth], with room behind each row
    const int8_t x[2 * 4] = {1, 2, 3, 99, -4, 5, -6, 99}, w[2 * 5] = {1, 0, -1, 99, 99, 2, -3, 4, 99, 99};
    int32_t out[2 * 3] = {7, 7, 7, 7, 7, 7};
    tern_oracle_s32(out, w, x, 2, 2, 3, 3, 5, 4);
    const int32_t expected[2 * 3] = {1 - 3, 2 - 6 + 12, 7, -4 + 6, -8 - 15 - 24, 7};
    assert_memory_equal(out, expected, sizeof out);
}

static void probes_measure_something_or_say_what_is_missing(void **state) {
    (void)state;
    tern_context_params params = defaults();
    params.threads = 2;
    tern_context *ctx = created(&params);
    static const size_t sizes[] = {256, 1000, 3 << 20};
    for (size_t i = 0; i < 3; i++) {
        tern_read_probe *probe = NULL;
        double seconds = -1;
        assert_int_equal(tern_read_probe_create(ctx, &probe, sizes[i]), TERN_OK);
        assert_int_equal(tern_read_probe_sweep(ctx, probe, &seconds), TERN_OK);
        assert_true(seconds > 0);
        tern_read_probe_destroy(probe);
    }
    tern_read_probe *probe = NULL;
    assert_int_equal(tern_read_probe_create(ctx, &probe, 255), TERN_ERR_ARG);
    assert_int_equal(tern_read_probe_create(ctx, &probe, SIZE_MAX), TERN_ERR_MEMORY);
    assert_null(probe);
    tern_read_probe_destroy(NULL);
    double ops = 0, seconds = 0;
    assert_int_equal(tern_int8_peak(ctx, &ops, &seconds), TERN_OK);
    assert_true(ops > 0 && seconds > 0);
    ctx->kernels.chosen[TERN_STAGE_read_sweep][TERN_LAYOUT_NONE] = NULL;
    ctx->kernels.chosen[TERN_STAGE_int8_peak][TERN_LAYOUT_NONE] = NULL;
    assert_int_equal(tern_read_probe_create(ctx, &probe, 4096), TERN_ERR_UNSUPPORTED);
    assert_int_equal(tern_int8_peak(ctx, &ops, &seconds), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(tern_context_error(ctx), "int8_peak"));
    tern_context_destroy(ctx);
}

static void a_cycle_takes_at_least_a_tenth_of_a_nanosecond(void **state) {
    (void)state;
    const double seconds = tern_cycle_seconds();
    assert_true(seconds > 0.1e-9);
    assert_true(seconds < 1);
}

// ---- names -----------------------------------------------------------------------------------------------------

static void every_status_has_a_name_of_its_own(void **state) {
    (void)state;
    for (int a = TERN_OK; a <= TERN_ERR_STATE; a++) {
        assert_string_not_equal(tern_status_string((tern_status)a), "unknown status");
        for (int b = 0; b < a; b++)
            assert_string_not_equal(tern_status_string((tern_status)a), tern_status_string((tern_status)b));
    }
    assert_string_equal(tern_status_string((tern_status)12345), "unknown status");
}

static void the_version_is_that_of_the_header(void **state) {
    (void)state;
    char expected[32];
    snprintf(expected, sizeof expected, "%d.%d.%d", TERN_VERSION_MAJOR, TERN_VERSION_MINOR, TERN_VERSION_PATCH);
    assert_string_equal(tern_version(), expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_params_mean_defaults),
        cmocka_unit_test(threads_outside_the_range_are_refused),
        cmocka_unit_test(more_threads_than_cpus_are_allowed),
        cmocka_unit_test(an_unknown_isa_is_refused_with_the_allowed_names),
        cmocka_unit_test(the_isa_caps_the_tier),
        cmocka_unit_test(the_environment_is_used_where_params_are_silent),
        cmocka_unit_test(bad_environment_is_an_error_that_lists_what_is_allowed),
        cmocka_unit_test(a_struct_without_its_size_is_refused),
        cmocka_unit_test(an_older_caller_gets_defaults_for_fields_it_does_not_have),
        cmocka_unit_test(a_newer_caller_is_served_unless_it_asks_for_what_is_unknown),
        cmocka_unit_test(every_allocation_may_fail_and_none_is_leaked),
        cmocka_unit_test(regions_are_checked_before_they_run),
        cmocka_unit_test(a_callers_parallel_for_runs_each_stage_and_no_thread_is_created),
        cmocka_unit_test(a_tile_may_not_call_its_own_context),
        cmocka_unit_test(contexts_are_independent),
        cmocka_unit_test(a_forked_child_gets_an_error_not_a_hang),
        cmocka_unit_test(cpu_and_topology_are_told),
        cmocka_unit_test(an_older_info_struct_is_filled_as_far_as_it_goes),
        cmocka_unit_test(bound_workers_have_a_cpu_each_and_the_surplus_none),
        cmocka_unit_test(variants_can_be_listed_forced_and_released),
        cmocka_unit_test(counters_add_up_to_the_tiles_run),
        cmocka_unit_test(the_oracle_multiplies_extremes_exactly),
        cmocka_unit_test(probes_measure_something_or_say_what_is_missing),
        cmocka_unit_test(a_cycle_takes_at_least_a_tenth_of_a_nanosecond),
        cmocka_unit_test(every_status_has_a_name_of_its_own),
        cmocka_unit_test(the_version_is_that_of_the_header),
    };
    return cmocka_run_group_tests_name("context", tests, clear_environment, NULL);
}
