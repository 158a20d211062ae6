// SPDX-License-Identifier: MIT
// Plans of workers for machines of every shape, as one would draw them by hand.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "hwloc_machine.h"
#include "sched/share.h"
#include "test_random.h"

static const char two_by_smt[] = "l3:1 core:2 pu:2(indexes=2*2:2*1)";
static const char two_l3[] = "pack:1 l3:2 core:4 pu:1";
static const char two_sockets[] = "pack:2 [numa] l3:1 core:32 pu:2(indexes=2*64:64*1)";

// ---- plans as text ------------------------------------------------------------------------------------------------

static char text[16384];

static void append(const char *format, ...) {
    const size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, sizeof text - used, format, args);
    va_end(args);
}

// CPUs of the workers in their order: "0-3 | 4-7" are two groups; " ; " stands between NUMA nodes; "8*399" is a CPU of weight
// 399 (where none is told, TERN_WEIGHT_MAX); "?" is a worker that is not bound.
static const char *drawn(const tern_worker_plan *plan) {
    text[0] = '\0';
    for (int i = 0; i < plan->n_workers;) {
        const tern_worker_place *p = &plan->workers[i];
        int end = i + 1;
        while (end < plan->n_workers && p->cpu >= 0 && plan->workers[end].cpu == p->cpu + end - i &&
               plan->workers[end].group == p->group && plan->workers[end].weight == p->weight &&
               plan->workers[end].node == p->node)
            end++;
        if (i > 0) append(p->node != p[-1].node ? " ; " : p->group != p[-1].group ? " | " : " ");
        if (p->cpu < 0)
            append("?");
        else if (end - i > 1)
            append("%d-%d", p->cpu, p->cpu + end - i - 1);
        else
            append("%d", p->cpu);
        if (p->weight != TERN_WEIGHT_MAX) append("*%d", p->weight);
        i = end;
    }
    return text;
}

static const tern_worker_plan *planned(const tern_topology *topology, int threads, tern_pin pin, int quota_millis) {
    static tern_worker_plan plan;
    memset(&plan, 0xAA, sizeof plan);
    tern_worker_plan_make(&plan, topology, threads, pin, quota_millis);
    return &plan;
}

// The rows (or any units that are divided as in share.h) that the workers of one NUMA node own: one contiguous range.
typedef struct node_rows {
    int node, first_worker, end_worker;
    uint64_t first_row, end_row;
} node_rows;

// Of the node of `worker`.
static node_rows rows_of(const tern_worker_plan *plan, int worker, uint64_t n_rows) {
    static uint64_t bounds[TERN_THREADS_MAX + 1];
    tern_share_bounds(bounds, plan->workers, plan->n_workers);
    node_rows rows = {.node = plan->workers[worker].node, .first_worker = worker, .end_worker = worker + 1};
    while (rows.first_worker > 0 && plan->workers[rows.first_worker - 1].node == rows.node) rows.first_worker--;
    while (rows.end_worker < plan->n_workers && plan->workers[rows.end_worker].node == rows.node) rows.end_worker++;
    rows.first_row = tern_share_first(n_rows, bounds[rows.first_worker]);
    rows.end_row = tern_share_first(n_rows, bounds[rows.end_worker]);
    return rows;
}

static void expect(const tern_topology *topology, int threads, tern_pin pin, const char *drawing) {
    assert_string_equal(drawn(planned(topology, threads, pin, 0)), drawing);
}

// ---- the machines ---------------------------------------------------------------------------------------------------

static void one_core_has_one_worker(void **state) {
    (void)state;
    const tern_topology *t = synthetic("core:1 pu:1");
    for (tern_pin pin = TERN_PIN_DEFAULT; pin < TERN_PIN_NONE; pin++) expect(t, 0, pin, "0");
    expect(t, 0, TERN_PIN_NONE, "?");
}

static void two_cores_of_two_threads_each(void **state) {
    (void)state;
    const tern_topology *t = synthetic(two_by_smt); // core 0: CPUs 0 and 2
    expect(t, 0, TERN_PIN_DEFAULT, "0-1");
    expect(t, 0, TERN_PIN_COMPACT, "0-1");
    expect(t, 0, TERN_PIN_SPREAD, "0-1");
    expect(t, 0, TERN_PIN_ALL, "0*512 2*512 1*512 3*512");
    expect(t, 2, TERN_PIN_ALL, "0*512 2*512");
    expect(t, 3, TERN_PIN_COMPACT, "0*512 2*512 1"); // the two on one core share its speed
    expect(t, 4, TERN_PIN_SPREAD, "0*512 2*512 1*512 3*512");
    expect(t, 0, TERN_PIN_NONE, "? ?");
}

static void eight_cores_with_two_l3s_are_two_groups(void **state) {
    (void)state;
    const tern_topology *t = synthetic(two_l3);
    expect(t, 0, TERN_PIN_COMPACT, "0-3 | 4-7");
    expect(t, 4, TERN_PIN_COMPACT, "0-3");
    expect(t, 5, TERN_PIN_COMPACT, "0-3 | 4");
    expect(t, 0, TERN_PIN_SPREAD, "0-3 | 4-7");
    expect(t, 4, TERN_PIN_SPREAD, "0-1 | 4-5");
    expect(t, 5, TERN_PIN_SPREAD, "0-2 | 4-5");
    expect(t, 2, TERN_PIN_SPREAD, "0 4"); // a group of one would gain nothing
    expect(t, 0, TERN_PIN_ALL, "0-3 | 4-7");
}

static void two_sockets_of_32_cores_have_four_groups_of_16(void **state) {
    (void)state;
    const tern_topology *t = synthetic(two_sockets);
    expect(t, 0, TERN_PIN_COMPACT, "0-15 | 16-31 ; 32-47 | 48-63");
    expect(t, 0, TERN_PIN_SPREAD, "0-15 | 16-31 ; 32-47 | 48-63");
    expect(t, 8, TERN_PIN_COMPACT, "0-7");
    expect(t, 40, TERN_PIN_COMPACT, "0-15 | 16-31 ; 32-39");
    expect(t, 8, TERN_PIN_SPREAD, "0-3 ; 32-35");
    expect(t, 3, TERN_PIN_SPREAD, "0-1 ; 32");
    const tern_worker_plan *all = planned(t, 0, TERN_PIN_ALL, 0);
    assert_int_equal(all->n_workers, 128);
    for (int i = 0; i < 128; i++) {
        assert_int_equal(all->workers[i].cpu, i / 2 + i % 2 * 64);
        assert_int_equal(all->workers[i].group, i / TERN_GROUP_WORKERS_MAX);
        assert_int_equal(all->workers[i].node, i / 64);
        assert_int_equal(all->workers[i].weight, 512);
    }
}

static void each_socket_has_the_half_of_the_rows_that_its_workers_read(void **state) {
    (void)state;
    const tern_worker_plan *plan = planned(synthetic(two_sockets), 0, TERN_PIN_COMPACT, 0);
    for (int worker = 0; worker < 64; worker++) {
        const node_rows rows = rows_of(plan, worker, 6912);
        assert_int_equal(rows.node, worker / 32);
        assert_int_equal(rows.first_worker, worker / 32 * 32);
        assert_int_equal(rows.end_worker, worker / 32 * 32 + 32);
        assert_int_equal(rows.first_row, worker / 32 * 3456);
        assert_int_equal(rows.end_row, worker / 32 * 3456 + 3456);
    }
    // 32 workers and 8: four fifths and one fifth
    plan = planned(synthetic(two_sockets), 40, TERN_PIN_COMPACT, 0);
    assert_int_equal(rows_of(plan, 0, 1000).end_row, 800);
    assert_int_equal(rows_of(plan, 39, 1000).first_row, 800);
    assert_int_equal(rows_of(plan, 39, 1000).end_row, 1000);
}

// 8 fast cores of two threads, 8 efficient ones of one thread each.
static hwloc_topology_t hybrid(const char *fast, const char *efficient, const char *allowed) {
    static struct hwloc_info_s fast_infos[] = {{"CoreType", "IntelCore"}, {"FrequencyMaxMHz", "5000"}};
    static struct hwloc_info_s efficient_infos[] = {{"CoreType", "IntelAtom"}, {"FrequencyMaxMHz", "3900"}};
    const hwloc_topology_t hw = load_synthetic("pack:1 l3:1 core:16 pu:2");
    allow_cpus(hw, allowed);
    set_kind(hw, efficient, -1, efficient_infos, 2);
    set_kind(hw, fast, -1, fast_infos, 2);
    return hw;
}

static void fast_cores_come_first_and_weigh_more_than_efficient_ones(void **state) {
    (void)state;
    const tern_topology *t = describe(hybrid("0-15", "16-31", "0-16,18,20,22,24,26,28,30"));
    assert_int_equal(t->kinds, 2);
    expect(t, 0, TERN_PIN_COMPACT,
           "0 2 4 6 8 10 12 14 16*399 18*399 20*399 22*399 24*399 26*399 28*399 30*399"); // 3900 / 5000 / 2
    expect(t, 9, TERN_PIN_COMPACT, "0 2 4 6 8 10 12 14 16*399");
    expect(t, 17, TERN_PIN_COMPACT, "0-1*512 2 4 6 8 10 12 14 | 16*399 18*399 20*399 22*399 24*399 26*399 28*399 30*399");
    t = describe(hybrid("16-31", "0-15", "0,2,4,6,8,10,12,14,16-31"));
    expect(t, 10, TERN_PIN_COMPACT, "16 18 20 22 24 26 28 30 0*399 2*399");
}

static void rows_are_divided_by_the_speed_of_the_cores(void **state) {
    (void)state;
    const tern_worker_plan *plan = planned(describe(hybrid("0-15", "16-31", "0,2,16,18")), 0, TERN_PIN_COMPACT, 0);
    assert_string_equal(drawn(plan), "0 2 16*399 18*399");
    uint64_t bounds[5];
    tern_share_bounds(bounds, plan->workers, 4);
    static const uint64_t expected[5] = {0, 1024, 2048, 2447, 2846};
    for (int i = 0; i < 5; i++) assert_int_equal(tern_share_first(2846, bounds[i]), expected[i]);
}

static void the_l3_of_the_fast_cores_is_filled_first(void **state) {
    (void)state;
    const hwloc_topology_t hw = load_synthetic("pack:1 l3:2 core:4 pu:1");
    set_kind(hw, "0-3", 0, NULL, 0);
    set_kind(hw, "4-7", 1, NULL, 0);
    const tern_topology *t = describe(hw);
    expect(t, 0, TERN_PIN_COMPACT, "4-7 | 0-3*512");
    expect(t, 5, TERN_PIN_COMPACT, "4-7 | 0*512");
    expect(t, 4, TERN_PIN_SPREAD, "4-5 | 0-1*512");
}

static void holes_in_the_cpuset_are_left_out(void **state) {
    (void)state;
    // two sockets, each two L3s of two cores of two threads: CPUs 0-7 and 8-15
    const char machine[] = "pack:2 [numa] l3:2 core:2 pu:2";
    const tern_topology *t = synthetic_allowed(machine, "1,4-7,9,15");
    assert_int_equal(t->cores, 5);
    assert_int_equal(t->pus, 7);
    expect(t, 0, TERN_PIN_COMPACT, "1 | 4 6 ; 9 15");
    expect(t, 0, TERN_PIN_ALL, "1 | 4-7*512 ; 9 15");
    expect(t, 2, TERN_PIN_SPREAD, "1 ; 9");
    t = synthetic_allowed(machine, "15");
    expect(t, 0, TERN_PIN_DEFAULT, "15");
    assert_int_equal(t->numa_nodes, 1);
}

static void a_quota_smaller_than_the_mask_limits_the_workers_but_not_those_asked_for(void **state) {
    (void)state;
    const tern_topology *t = synthetic(two_sockets);
    const tern_worker_plan *plan = planned(t, 0, TERN_PIN_DEFAULT, 2000);
    assert_string_equal(drawn(plan), "? ?"); // 62 cores belong to others, who might be bound to the first two as well
    assert_int_equal(plan->pin, TERN_PIN_NONE);
    assert_int_equal(plan->n_cpus, 2);
    assert_string_equal(drawn(planned(t, 0, TERN_PIN_COMPACT, 2000)), "0-1");
    assert_string_equal(drawn(planned(t, 0, TERN_PIN_SPREAD, 2000)), "0 ; 32");
    assert_string_equal(drawn(planned(t, 0, TERN_PIN_ALL, 2000)), "0*512 64*512");
    plan = planned(t, 4, TERN_PIN_COMPACT, 2000);
    assert_string_equal(drawn(plan), "0-3");
    assert_int_equal(plan->n_cpus, 2);
    plan = planned(t, 0, TERN_PIN_DEFAULT, 64000);
    assert_int_equal(plan->n_workers, 64);
    assert_int_equal(plan->pin, TERN_PIN_COMPACT);
    assert_int_equal(plan->n_cpus, 64);
    assert_int_equal(planned(t, 0, TERN_PIN_ALL, 0)->n_cpus, 128);
    assert_int_equal(planned(t, 0, TERN_PIN_DEFAULT, 1400)->n_cpus, 2); // for as many as are asked for
}

static void a_quota_is_rounded_to_the_nearest_number_of_workers_but_not_to_none(void **state) {
    (void)state;
    const tern_topology *t = synthetic(two_sockets);
    static const struct {
        int millis, workers;
    } cases[] = {{1, 1}, {499, 1}, {1000, 1}, {1499, 1}, {1500, 2}, {2499, 2}, {63499, 63}, {63500, 64}, {INT32_MAX, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(planned(t, 0, TERN_PIN_DEFAULT, cases[i].millis)->n_workers, cases[i].workers);
}

static void workers_beyond_the_pus_are_not_bound(void **state) {
    (void)state;
    expect(synthetic("core:1 pu:1"), 3, TERN_PIN_DEFAULT, "0 ? ?");
    expect(synthetic(two_by_smt), 6, TERN_PIN_COMPACT, "0*512 2*512 1*512 3*512 ?*512 ?*512");
    const tern_worker_plan *plan = planned(synthetic(two_l3), 30, TERN_PIN_COMPACT, 0);
    assert_string_equal(drawn(plan), "0-3 | 4-7 ? ? ? ? ? ? ? ? ? | ? ? ? ? ? ? ? ? ? ? ? ? ?");
    assert_int_equal(plan->n_cpus, 8);
    expect(synthetic(two_l3), 18, TERN_PIN_NONE, "? ? ? ? ? ? ? ? ? | ? ? ? ? ? ? ? ? ?");
}

static void a_cache_of_24_workers_is_two_equal_groups(void **state) {
    (void)state;
    expect(synthetic("pack:1 l3:1 core:24 pu:1"), 0, TERN_PIN_DEFAULT, "0-11 | 12-23");
}

static void cores_without_a_shared_cache_form_groups_by_node(void **state) {
    (void)state;
    expect(synthetic("pack:8 l3:1 core:1 pu:1"), 0, TERN_PIN_DEFAULT, "0-7"); // as some virtual machines look
    expect(synthetic("pack:2 [numa] l2:4 core:1 pu:1"), 0, TERN_PIN_DEFAULT, "0-3 ; 4-7");
    expect(synthetic("pack:1 l2:2 core:4 pu:1"), 0, TERN_PIN_DEFAULT, "0-3 | 4-7"); // the L2 is the last level
    expect(synthetic("pack:2 core:4 pu:1"), 0, TERN_PIN_DEFAULT, "0-3 | 4-7");      // nothing is told of caches
}

static void numa_nodes_below_one_l3_are_groups_of_their_own(void **state) {
    (void)state;
    expect(synthetic("pack:1 l3:1 group:2 [numa] core:4 pu:1"), 0, TERN_PIN_DEFAULT, "0-3 ; 4-7");
}

static void the_largest_plan_has_as_many_workers_as_tern_takes(void **state) {
    (void)state;
    const tern_topology *t = synthetic("pack:16 [numa] l3:8 core:16 pu:2(indexes=2*2048:2048*1)");
    assert_int_equal(t->pus, 4096);
    assert_int_equal(t->n_listed, TERN_PUS_MAX);
    const tern_worker_plan *plan = planned(t, 0, TERN_PIN_COMPACT, 0);
    assert_int_equal(plan->n_workers, TERN_THREADS_MAX);
    for (int i = 0; i < TERN_THREADS_MAX; i++) {
        assert_int_equal(plan->workers[i].cpu, i);
        assert_int_equal(plan->workers[i].group, i / 16);
    }
    assert_int_equal(planned(t, 0, TERN_PIN_SPREAD, 0)->workers[TERN_THREADS_MAX - 1].cpu, TERN_THREADS_MAX - 1);
}

// ---- any machine ------------------------------------------------------------------------------------------------------

static void check_plan(const tern_worker_plan *plan, const tern_topology *t, int threads) {
    static bool used[TERN_PUS_MAX];
    memset(used, 0, sizeof used);
    if (threads > 0) assert_int_equal(plan->n_workers, threads);
    assert_in_range(plan->n_workers, 1, TERN_THREADS_MAX);
    assert_in_range(plan->n_cpus, 1, t->pus);
    int bound = 0, in_group = 0;
    uint64_t row = 0;
    for (int i = 0; i < plan->n_workers; i++) {
        const tern_worker_place *p = &plan->workers[i], *before = i > 0 ? p - 1 : NULL;
        assert_in_range(p->weight, 1, TERN_WEIGHT_MAX);
        if (before) assert_true(p->node >= before->node);
        if (before && p->node != before->node) assert_int_equal(p->group, before->group + 1);
        if (before && p->group != before->group) assert_int_equal(p->group, before->group + 1);
        if (!before) assert_int_equal(p->group, 0);
        in_group = before && p->group == before->group ? in_group + 1 : 1;
        assert_true(in_group <= TERN_GROUP_WORKERS_MAX);
        const node_rows rows = rows_of(plan, i, 12345);
        assert_int_equal(rows.node, p->node);
        assert_in_range(i, rows.first_worker, rows.end_worker - 1);
        if (i == rows.first_worker) {
            assert_int_equal(rows.first_row, row);
            row = rows.end_row;
        }
        if (p->cpu == TERN_CPU_NONE) continue;
        bound++;
        int at = 0;
        while (at < t->n_listed && t->pu[at].cpu != p->cpu) at++;
        assert_true(at < t->n_listed && !used[at]);
        used[at] = true;
        assert_int_equal(t->pu[at].node, p->node);
    }
    assert_int_equal(row, 12345);
    const int most = plan->n_workers < t->n_listed ? plan->n_workers : t->n_listed;
    assert_int_equal(bound, plan->pin == TERN_PIN_NONE ? 0 : most);
}

// "3,4,17": of each CPU with odds of `odds` - 1 to `odds`, but at least the last one.
static const char *random_cpus(char list[16384], int pus, size_t odds) {
    size_t used = 0;
    for (int cpu = 0; cpu < pus; cpu++) {
        if (random_below(odds) || (cpu + 1 == pus && used == 0))
            used += (size_t)snprintf(list + used, 16384 - used, "%s%d", used ? "," : "", cpu);
    }
    return list;
}

static void plans_of_random_machines_are_sound(void **state) {
    (void)state;
    for (int i = 0; i < 200; i++) {
        char machine[128], list[16384];
        snprintf(machine, sizeof machine, "pack:%zu [numa] l3:%zu l2:%zu core:%zu pu:%zu", 1 + random_below(3),
                 1 + random_below(4), 1 + random_below(3), 1 + random_below(5), 1 + random_below(2));
        const hwloc_topology_t hw = load_synthetic(machine);
        const int pus = hwloc_get_nbobjs_by_type(hw, HWLOC_OBJ_PU);
        if (random_below(2)) set_kind(hw, random_cpus(list, pus, 2), 1, NULL, 0);
        allow_cpus(hw, random_cpus(list, pus, 3));
        const tern_topology *t = describe(hw);
        for (tern_pin pin = TERN_PIN_DEFAULT; pin <= TERN_PIN_NONE; pin++) {
            const int threads = random_below(3) ? (int)random_size(7) : 0;
            check_plan(planned(t, threads, pin, random_below(4) ? 0 : (int)random_size(15)), t, threads);
        }
    }
}

static void modes_have_names_that_are_understood(void **state) {
    (void)state;
    tern_pin parsed;
    for (tern_pin pin = TERN_PIN_COMPACT; pin <= TERN_PIN_NONE; pin++) {
        assert_true(tern_pin_parse(tern_pin_name(pin), &parsed));
        assert_int_equal(parsed, pin);
        assert_non_null(strstr(TERN_PIN_NAMES, tern_pin_name(pin)));
    }
    assert_true(tern_pin_parse("cores", &parsed));
    assert_int_equal(parsed, TERN_PIN_COMPACT);
    static const char *const unknown[] = {"", "default", "Compact", "compact ", "none,all", "sockets"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) assert_false(tern_pin_parse(unknown[i], &parsed));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_core_has_one_worker),
        cmocka_unit_test(two_cores_of_two_threads_each),
        cmocka_unit_test(eight_cores_with_two_l3s_are_two_groups),
        cmocka_unit_test(two_sockets_of_32_cores_have_four_groups_of_16),
        cmocka_unit_test(each_socket_has_the_half_of_the_rows_that_its_workers_read),
        cmocka_unit_test(fast_cores_come_first_and_weigh_more_than_efficient_ones),
        cmocka_unit_test(rows_are_divided_by_the_speed_of_the_cores),
        cmocka_unit_test(the_l3_of_the_fast_cores_is_filled_first),
        cmocka_unit_test(holes_in_the_cpuset_are_left_out),
        cmocka_unit_test(a_quota_smaller_than_the_mask_limits_the_workers_but_not_those_asked_for),
        cmocka_unit_test(a_quota_is_rounded_to_the_nearest_number_of_workers_but_not_to_none),
        cmocka_unit_test(workers_beyond_the_pus_are_not_bound),
        cmocka_unit_test(a_cache_of_24_workers_is_two_equal_groups),
        cmocka_unit_test(cores_without_a_shared_cache_form_groups_by_node),
        cmocka_unit_test(numa_nodes_below_one_l3_are_groups_of_their_own),
        cmocka_unit_test(the_largest_plan_has_as_many_workers_as_tern_takes),
        cmocka_unit_test(plans_of_random_machines_are_sound),
        cmocka_unit_test(modes_have_names_that_are_understood),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
