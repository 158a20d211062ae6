// SPDX-License-Identifier: MIT
// Where a context's workers run: modes, masks, what the system refuses, several contexts in one process.
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "matmul/context.h"
#include "sched/affinity.h"
#include "sched/pool_state.h"

static const char *const pins[] = {"compact", "cores", "spread", "all", "none"};
enum { N_PINS = sizeof pins / sizeof pins[0] };

static char message[TERN_ERROR_MAX];

static tern_context_params with_pin(const char *pin, int threads) {
    return (tern_context_params){.struct_size = sizeof(tern_context_params),
                                 .threads = threads,
                                 .pin = pin,
                                 .error = message,
                                 .error_size = sizeof message};
}

static tern_context *created(const tern_context_params *params) {
    tern_context *ctx = NULL;
    if (tern_context_create(&ctx, params) != TERN_OK) fail_msg("%s", message);
    return ctx;
}

static void refused(const tern_context_params *params, const char *part_of_message) {
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, params), TERN_ERR_ARG);
    assert_null(ctx);
    if (!strstr(message, part_of_message)) fail_msg("\"%s\" does not say \"%s\"", message, part_of_message);
}

static void add_tile(void *arg, size_t tile) { atomic_fetch_add((_Atomic uint64_t *)arg, tile + 1); }

static bool adds_up(tern_context *ctx) {
    enum { TILES = 100 };
    _Atomic uint64_t sum = 0;
    const tern_stage stages[2] = {{add_tile, &sum, TILES, NULL}, {add_tile, &sum, TILES, NULL}};
    return tern_run_region(ctx, stages, 2) == TERN_OK && sum == TILES * (TILES + 1);
}

static tern_worker_info worker_of(tern_context *ctx, int worker) {
    tern_worker_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_get_worker_info(ctx, worker, &info), TERN_OK);
    return info;
}

static tern_cpu_mask own_mask(void) {
    tern_cpu_mask mask;
    assert_true(tern_affinity_get(&mask));
    return mask;
}

// ---- modes ------------------------------------------------------------------------------------------------------------

// The thread of this process with that name; 0 if there is none.
static pid_t find_thread(const char *name) {
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    pid_t found = 0;
    for (const struct dirent *entry; !found && (entry = readdir(tasks)) != NULL;) {
        char path[300], comm[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        if (fgets(comm, sizeof comm, file)) comm[strcspn(comm, "\n")] = '\0';
        fclose(file);
        if (strcmp(comm, name) == 0) found = (pid_t)atoi(entry->d_name);
    }
    closedir(tasks);
    return found;
}

static void every_mode_puts_the_workers_where_it_says(void **state) {
    (void)state;
    const tern_cpu_mask all = own_mask();
    for (size_t p = 0; p < N_PINS; p++) {
        const tern_context_params params = with_pin(pins[p], 4);
        tern_context *ctx = created(&params);
        tern_topology_info topology = {.struct_size = sizeof topology};
        assert_int_equal(tern_get_topology_info(ctx, &topology), TERN_OK);
        assert_string_equal(topology.pin, strcmp(pins[p], "cores") == 0 ? "compact" : pins[p]);
        double shares = 0;
        for (int i = 0; i < 4; i++) {
            const tern_worker_info w = worker_of(ctx, i);
            assert_int_equal(w.cpu, tern_worker_cpu(ctx, i));
            assert_int_equal(w.cpu >= 0, topology.pinned && i < topology.pus);
            assert_int_equal(w.core >= 0, w.cpu >= 0);
            shares += w.share;
            if (i == 0) continue;
            char name[32];
            snprintf(name, sizeof name, "tern-w%d", i);
            tern_cpu_mask mask = {0};
            const pid_t thread = find_thread(name);
            assert_int_not_equal(thread, 0);
            assert_int_equal(sched_getaffinity(thread, sizeof mask, mask.sets), 0);
            if (w.cpu < 0)
                assert_memory_equal(&mask, &all, sizeof mask);
            else
                assert_true(tern_mask_has(&mask, w.cpu) && CPU_COUNT_S(sizeof mask, mask.sets) == 1);
        }
        assert_true(shares > 0.999 && shares < 1.001);
        assert_true(adds_up(ctx));
        tern_context_destroy(ctx);
    }
}

static void the_caller_keeps_its_mask_in_every_mode(void **state) {
    (void)state;
    const tern_cpu_mask before = own_mask();
    for (size_t p = 0; p < N_PINS; p++) {
        for (int threads = 0; threads < 6; threads++) {
            const tern_context_params params = with_pin(pins[p], threads);
            tern_context *ctx = created(&params);
            for (int i = 0; i < 20; i++) {
                const tern_cpu_mask now = own_mask();
                assert_memory_equal(&now, &before, sizeof now);
                assert_true(adds_up(ctx));
            }
            tern_context_destroy(ctx);
            const tern_cpu_mask after = own_mask();
            assert_memory_equal(&after, &before, sizeof after);
        }
    }
}

static void the_parameter_comes_before_the_environment(void **state) {
    (void)state;
    setenv("TERN_PIN", "spread", 1);
    tern_context_params params = with_pin(NULL, 2);
    tern_context *ctx = created(&params);
    assert_int_equal(ctx->placement.pin, TERN_PIN_SPREAD);
    tern_context_destroy(ctx);
    setenv("TERN_PIN", "nonsense", 1); // not read below
    params.pin = "all";
    ctx = created(&params);
    assert_int_equal(ctx->placement.pin, TERN_PIN_ALL);
    tern_context_destroy(ctx);
    params.pin = NULL;
    params.no_pinning = 1;
    ctx = created(&params);
    assert_int_equal(ctx->placement.pin, TERN_PIN_NONE);
    tern_context_destroy(ctx);
    unsetenv("TERN_PIN");
}

static void wrong_and_contradictory_modes_are_refused(void **state) {
    (void)state;
    tern_context_params params = with_pin("sockets", 1);
    refused(&params, "pin = \"sockets\" is not one of " TERN_PIN_NAMES);
    params.pin = "";
    refused(&params, TERN_PIN_NAMES);
    params.pin = "all";
    params.no_pinning = 1;
    refused(&params, "contradicts no_pinning");
    params.pin = "none";
    tern_context_destroy(created(&params));
}

static void workers_that_do_not_exist_are_not_told(void **state) {
    (void)state;
    const tern_context_params params = with_pin(NULL, 2);
    tern_context *ctx = created(&params);
    tern_worker_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_get_worker_info(ctx, 2, &info), TERN_ERR_ARG);
    assert_int_equal(tern_get_worker_info(ctx, -1, &info), TERN_ERR_ARG);
    assert_int_equal(tern_get_worker_info(ctx, 0, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_get_worker_info(NULL, 0, &info), TERN_ERR_ARG);
    tern_context_destroy(ctx);
}

// ---- what the system refuses --------------------------------------------------------------------------------------------

static int refusal; // of bindings; 0: none

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
// EINVAL: as Linux does when the cpuset has shrunk since the CPUs were counted. EPERM: as sandboxes do.
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
    tern_cpu_mask mask = {0}, all = own_mask();
    if (refusal && attr && pthread_attr_getaffinity_np(attr, sizeof mask, mask.sets) == 0 &&
        CPU_COUNT_S(sizeof mask, mask.sets) < CPU_COUNT_S(sizeof all, all.sets))
        return refusal;
    return __real_pthread_create(thread, attr, start, arg);
}

static void check_refused_bindings(int reason) {
    const tern_context_params params = with_pin("compact", 2);
    tern_context *ctx = created(&params);
    const bool can_bind = ctx->topology.pus >= 2;
    tern_context_destroy(ctx);
    if (!can_bind) skip();
    refusal = reason;
    ctx = created(&params);
    refusal = 0;
    assert_int_equal(tern_context_threads(ctx), 2);
    assert_int_equal(tern_worker_cpu(ctx, 1), -1);
    assert_non_null(strstr(tern_context_warning(ctx), "could not be bound"));
    assert_non_null(strstr(tern_context_warning(ctx), "TERN_PIN=none"));
    assert_null(strchr(tern_context_warning(ctx), '\n'));
    assert_true(adds_up(ctx));
    tern_context_destroy(ctx);
}

static void refused_bindings_leave_workers_unbound_and_a_warning(void **state) {
    (void)state;
    check_refused_bindings(EINVAL);
    check_refused_bindings(EPERM);
}

// Touches as much stack as tiles may use, in steps of a page.
static void deep_tile(void *arg, size_t tile) {
    (void)arg, (void)tile;
    enum { PAGE = 4096, PROMISED = 256 << 10 };
    volatile char stack[PROMISED];
    for (size_t i = sizeof stack; i >= PAGE; i -= PAGE) stack[i - PAGE] = 1;
}

static void workers_have_the_stack_that_tiles_need_whatever_the_default_is(void **state) {
    (void)state;
    enum { SMALL = 64 << 10, TILES = 200 };
    pthread_attr_t before, small;
    assert_int_equal(pthread_getattr_default_np(&before), 0);
    assert_int_equal(pthread_getattr_default_np(&small), 0);
    assert_int_equal(pthread_attr_setstacksize(&small, SMALL), 0);
    assert_int_equal(pthread_setattr_default_np(&small), 0);
    const tern_context_params params = with_pin("none", 4);
    tern_context *ctx = created(&params);
    assert_int_equal(pthread_setattr_default_np(&before), 0);
    pthread_attr_destroy(&small);
    pthread_attr_destroy(&before);
    const tern_stage stage = {deep_tile, NULL, TILES, NULL};
    for (int i = 0; i < 20; i++) assert_int_equal(tern_run_region(ctx, &stage, 1), TERN_OK);
    tern_context_destroy(ctx);
}

// In a child that may have no other thread, and is nobody: root is above that limit.
static int try_without_threads(void) {
    enum { NOBODY = 65534 };
    const struct rlimit one = {1, 1};
    if (setrlimit(RLIMIT_NPROC, &one) != 0 || (geteuid() == 0 && setuid(NOBODY) != 0)) return 2;
    const tern_context_params params = with_pin(NULL, 8);
    tern_context *ctx = NULL;
    if (tern_context_create(&ctx, &params) != TERN_OK) return 3;
    const int n = tern_context_threads(ctx);
    if (n != 1) return n == 8 ? 77 : 4;
    if (!strstr(tern_context_warning(ctx), "only 1 of 8") || !strstr(tern_context_warning(ctx), "ulimit -u")) return 5;
    tern_worker_info info = {.struct_size = sizeof info};
    if (tern_get_worker_info(ctx, 0, &info) != TERN_OK || info.share < 0.999) return 6;
    if (tern_get_worker_info(ctx, 1, &info) != TERN_ERR_ARG) return 7;
    if (!adds_up(ctx)) return 8;
    tern_context_destroy(ctx);
    return 0;
}

static void refused_threads_leave_a_smaller_context_and_a_warning(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) _exit(try_without_threads());
    int code = -1;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    if (WEXITSTATUS(code) == 77) {
        print_message("skipped: this system does not limit the threads of a user\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(code), 0);
}

static void several_reasons_stand_in_one_warning(void **state) {
    (void)state;
    char path[] = "/tmp/tern-test-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "not a table\n", 12), 12);
    close(fd);
    setenv("HWLOC_SYNTHETIC", "core:4 pu:1", 1);
    tern_context_params params = with_pin(NULL, 2);
    params.tune = path;
    tern_context *ctx = created(&params);
    unsetenv("HWLOC_SYNTHETIC");
    unlink(path);
    const char *warning = tern_context_warning(ctx);
    const char *machine = strstr(warning, "HWLOC_SYNTHETIC"), *table = strstr(warning, path);
    assert_true(machine && table && machine < table);
    assert_non_null(strstr(warning, "; "));
    assert_null(strchr(warning, '\n'));
    assert_true(adds_up(ctx));
    tern_context_destroy(ctx);
}

static void no_more_workers_are_kept_awake_than_the_quota_pays_for(void **state) {
    (void)state;
    tern_worker_plan *plan = calloc(1, sizeof *plan);
    assert_non_null(plan);
    plan->n_workers = 4;
    for (int i = 0; i < 4; i++) plan->workers[i] = (tern_worker_place){.cpu = TERN_CPU_NONE, .weight = 1};
    for (plan->n_cpus = 0; plan->n_cpus < 3; plan->n_cpus++) {
        tern_pool *pool = NULL;
        assert_int_equal(tern_pool_create(&pool, plan, &tern_default_allocator, NULL, NULL), TERN_OK);
        const int cpus = tern_affinity_count();
        assert_int_equal(pool->crew, plan->n_cpus > 0 && plan->n_cpus < cpus ? plan->n_cpus : cpus < 4 ? cpus : 4);
        _Atomic uint64_t sum = 0;
        const tern_stage stage = {add_tile, &sum, 100, NULL};
        for (int i = 0; i < 50; i++) assert_int_equal(tern_pool_run(pool, &stage, 1, NULL), TERN_OK);
        assert_true(sum == 50 * 5050);
        tern_pool_destroy(pool);
    }
    free(plan);
}

// ---- several contexts ---------------------------------------------------------------------------------------------------

static void *use_own_context(void *failures) {
    for (int round = 0; round < 3; round++) {
        const tern_context_params params = {
            .struct_size = sizeof params, .threads = 1 + round, .pin = round % 2 ? "all" : "none", .isa = "scalar"};
        tern_context *ctx = NULL;
        if (tern_context_create(&ctx, &params) != TERN_OK) {
            atomic_fetch_add((_Atomic int *)failures, 1);
            return NULL;
        }
        for (int i = 0; i < 100; i++) {
            if (!adds_up(ctx)) atomic_fetch_add((_Atomic int *)failures, 1);
        }
        tern_context_destroy(ctx);
    }
    return NULL;
}

static void each_thread_may_have_a_context_of_its_own(void **state) {
    (void)state;
    enum { THREADS = 6 };
    pthread_t threads[THREADS];
    _Atomic int failures = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_own_context, (void *)&failures), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(failures, 0);
}

static void many_contexts_of_one_thread_take_turns(void **state) {
    (void)state;
    enum { CONTEXTS = 8 };
    tern_context *ctx[CONTEXTS];
    for (int i = 0; i < CONTEXTS; i++) {
        const tern_context_params params = with_pin(pins[i % N_PINS], 1 + i % 4);
        ctx[i] = created(&params);
    }
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < CONTEXTS; i++) assert_true(adds_up(ctx[i]));
    }
    for (int i = 0; i < CONTEXTS; i++) tern_context_destroy(ctx[i]);
}

static int clear_environment(void **state) {
    (void)state;
    unsetenv("TERN_THREADS");
    unsetenv("TERN_PIN");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mode_puts_the_workers_where_it_says),
        cmocka_unit_test(the_caller_keeps_its_mask_in_every_mode),
        cmocka_unit_test(the_parameter_comes_before_the_environment),
        cmocka_unit_test(wrong_and_contradictory_modes_are_refused),
        cmocka_unit_test(workers_that_do_not_exist_are_not_told),
        cmocka_unit_test(refused_bindings_leave_workers_unbound_and_a_warning),
        cmocka_unit_test(workers_have_the_stack_that_tiles_need_whatever_the_default_is),
        cmocka_unit_test(refused_threads_leave_a_smaller_context_and_a_warning),
        cmocka_unit_test(no_more_workers_are_kept_awake_than_the_quota_pays_for),
        cmocka_unit_test(several_reasons_stand_in_one_warning),
        cmocka_unit_test(each_thread_may_have_a_context_of_its_own),
        cmocka_unit_test(many_contexts_of_one_thread_take_turns),
    };
    return cmocka_run_group_tests_name("placement", tests, clear_environment, NULL);
}
