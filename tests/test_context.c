// SPDX-License-Identifier: MIT
// Contexts: parameters, environment, error messages, regions by the pool and by a caller's parallel_for, fork.
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

// ---- creation --------------------------------------------------------------------------------------------------

static void null_params_mean_defaults(void **state) {
    (void)state;
    tern_context *ctx = created(NULL);
    assert_int_equal(tern_context_threads(ctx), ctx->topology.cores);
    assert_int_equal(ctx->kernels.tier, ctx->cpu.best);
    assert_true(ctx->pinned);
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
    assert_false(ctx->pinned);
    tern_context_destroy(ctx);
    setenv("TERN_PIN", "cores", 1);
    params.threads = 2;
    params.isa = tern_tier_name(TERN_TIER_SCALAR);
    setenv("TERN_ISA", "nonsense", 1); // not read: the parameter comes first
    ctx = created(&params);
    assert_int_equal(tern_context_threads(ctx), 2);
    assert_true(ctx->pinned);
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
    refused(&params, TERN_ERR_ARG, "none, cores");
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
    assert_true(ctx->pinned);
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
    tern_stage stages[2] = {{add_tile, &sum, 4}, {NULL, NULL, 1}};
    assert_int_equal(tern_run_region(ctx, stages, 2), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "stage 1"));
    assert_int_equal(tern_run_region(ctx, NULL, 1), TERN_ERR_ARG);
    stages[1] = (tern_stage){add_tile, &sum, SIZE_MAX};
    assert_int_equal(tern_run_region(ctx, stages, 2), TERN_ERR_ARG);
    assert_true(sum == 0);
    stages[1] = (tern_stage){NULL, NULL, 0};
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
    const tern_stage stages[4] = {{add_tile, &sum, 3}, {add_tile, &sum, 0}, {add_tile, &sum, 1}, {add_tile, &sum, 4}};
    assert_int_equal(tern_run_region(ctx, stages, 4), TERN_OK);
    assert_int_equal(loops.calls, 3);
    assert_int_equal(loops.tiles, 8);
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
        const tern_stage stage = {nested_tile, &call, 8};
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
    const tern_stage stage = {add_tile, &sum, 4};
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
    const tern_stage stage = {add_tile, &sum, 4};
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
        cmocka_unit_test(every_status_has_a_name_of_its_own),
        cmocka_unit_test(the_version_is_that_of_the_header),
    };
    return cmocka_run_group_tests_name("context", tests, clear_environment, NULL);
}
