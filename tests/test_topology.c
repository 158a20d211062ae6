// SPDX-License-Identifier: MIT
// What is found out about machines: made-up ones that hwloc describes, and this one.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "hwloc_machine.h"
#include "sched/affinity.h"

// ---- made-up machines -----------------------------------------------------------------------------------------------

static void counts_are_of_what_is_allowed(void **state) {
    (void)state;
    const char machine[] = "pack:2 [numa] l3:2(size=33554432) l2:4(size=524288) core:1 l1:1(size=32768) pu:2";
    const tern_topology *t = synthetic(machine);
    assert_int_equal(t->packages, 2);
    assert_int_equal(t->numa_nodes, 2);
    assert_int_equal(t->last_caches, 4);
    assert_int_equal(t->l2_caches, 16);
    assert_int_equal(t->cores, 16);
    assert_int_equal(t->pus, 32);
    assert_int_equal(t->n_listed, 32);
    assert_int_equal(t->kinds, 1);
    assert_int_equal(t->l1d_bytes, 32768);
    assert_int_equal(t->l2_bytes, 524288);
    assert_int_equal(t->l3_bytes, 33554432);
    t = synthetic_allowed(machine, "2,3,7,8");
    assert_int_equal(t->packages, 1);
    assert_int_equal(t->numa_nodes, 1);
    assert_int_equal(t->last_caches, 2);
    assert_int_equal(t->l2_caches, 3);
    assert_int_equal(t->cores, 3);
    assert_int_equal(t->pus, 4);
}

static void pus_tell_their_core_sibling_cache_and_node(void **state) {
    (void)state;
    const tern_topology *t = synthetic_allowed("pack:2 [numa] l3:1 core:2 pu:2", "1-3,5");
    static const tern_pu expected[] = {
        {.cpu = 1, .core = 0, .sibling = 0, .cache = 0, .node = 0, .weight = TERN_WEIGHT_MAX}, // the only allowed one of its
                                                                                               // core
        {.cpu = 2, .core = 1, .sibling = 0, .cache = 0, .node = 0, .weight = TERN_WEIGHT_MAX},
        {.cpu = 3, .core = 1, .sibling = 1, .cache = 0, .node = 0, .weight = TERN_WEIGHT_MAX},
        {.cpu = 5, .core = 2, .sibling = 0, .cache = 1, .node = 1, .weight = TERN_WEIGHT_MAX},
    };
    assert_int_equal(t->n_listed, 4);
    assert_memory_equal(t->pu, expected, sizeof expected);
}

static void cpu_numbers_may_be_above_1023(void **state) {
    (void)state;
    const tern_topology *t = synthetic_allowed("pack:1 l3:1 core:4 pu:1(indexes=7,1500,4095,8000)", "1500,8000");
    assert_int_equal(t->pus, 2);
    assert_int_equal(t->pu[0].cpu, 1500);
    assert_int_equal(t->pu[1].cpu, 8000);
}

static void a_node_without_cpus_of_its_own_is_nobodys(void **state) {
    (void)state;
    // memory behind both sockets (CXL), which hwloc counts first or last depending on its number
    const tern_topology *t = synthetic("[numa] pack:2 [numa] core:2 pu:1");
    assert_int_equal(t->numa_nodes, 2);
    assert_int_equal(t->pu[0].node, t->pu[1].node);
    assert_int_equal(t->pu[2].node, t->pu[3].node);
    assert_int_not_equal(t->pu[0].node, t->pu[2].node);
}

static void a_machine_that_tells_nothing_of_cores_and_caches_is_flat(void **state) {
    (void)state;
    const tern_topology *t = synthetic("pu:4");
    assert_int_equal(t->cores, 4);
    assert_int_equal(t->last_caches, 1);
    assert_int_equal(t->l2_caches, 0);
    assert_int_equal(t->l3_bytes, 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(t->pu[i].core, i);
        assert_int_equal(t->pu[i].cache, 0);
        assert_int_equal(t->pu[i].sibling, 0);
    }
}

// ---- core kinds -------------------------------------------------------------------------------------------------------

// Weights of CPU 0 and 1, whose kinds hwloc knows so much about.
static void expect_weights(struct hwloc_info_s *slow, unsigned n_slow, struct hwloc_info_s *fast, unsigned n_fast, bool ranked,
                           int slow_weight) {
    const hwloc_topology_t hw = load_synthetic("l3:1 core:3 pu:1");
    set_kind(hw, "0", ranked ? 0 : -1, slow, n_slow);
    set_kind(hw, "1", ranked ? 1 : -1, fast, n_fast);
    const tern_topology *t = describe(hw);
    assert_int_equal(t->pu[0].weight, slow_weight);
    assert_int_equal(t->pu[1].weight, TERN_WEIGHT_MAX);
}

static void the_weight_of_a_kind_follows_capacity_then_frequency_then_rank(void **state) {
    (void)state;
    struct hwloc_info_s atom[] = {{"CoreType", "IntelAtom"}, {"FrequencyMaxMHz", "4000"}, {"LinuxCapacity", "700"}};
    struct hwloc_info_s core[] = {{"CoreType", "IntelCore"}, {"FrequencyMaxMHz", "5000"}, {"LinuxCapacity", "1024"}};
    expect_weights(atom, 3, core, 3, true, 700);
    expect_weights(atom, 2, core, 2, true, 410);         // 1024 * 4000 / 5000 / 2: half the vector width
    expect_weights(atom + 1, 1, core + 1, 1, true, 819); // 1024 * 4000 / 5000
    expect_weights(atom + 1, 2, core + 1, 1, true, 819); // a capacity that only one kind tells compares nothing
    expect_weights(atom, 1, core, 1, true, 512);         // a rank alone: a factor of two
    struct hwloc_info_s damaged[] = {{"LinuxCapacity", "much"}, {"FrequencyMaxMHz", "-"}};
    expect_weights(damaged, 2, core, 3, true, 512);
}

static void kinds_that_hwloc_cannot_rank_are_equal(void **state) {
    (void)state;
    struct hwloc_info_s one[] = {{"CPUModel", "one"}}, other[] = {{"CPUModel", "other"}};
    expect_weights(one, 1, other, 1, false, TERN_WEIGHT_MAX);
}

static void a_mask_of_one_kind_leaves_equal_cores(void **state) {
    (void)state;
    const hwloc_topology_t hw = load_synthetic("l3:1 core:4 pu:1");
    set_kind(hw, "0-1", 0, NULL, 0);
    set_kind(hw, "2-3", 1, NULL, 0);
    allow_cpus(hw, "0-1");
    const tern_topology *t = describe(hw);
    assert_int_equal(t->kinds, 1);
    assert_int_equal(t->pu[0].weight, TERN_WEIGHT_MAX);
    assert_int_equal(t->pu[1].weight, TERN_WEIGHT_MAX);
}

// ---- this machine -------------------------------------------------------------------------------------------------------

static tern_topology here;
static tern_error warning;

static void detect(void) {
    tern_numa *numa;
    warning.text[0] = '\0';
    tern_topology_detect(&here, &numa, &warning);
    tern_numa_release(numa);
    tern_cpu_mask mask;
    assert_true(tern_affinity_get(&mask));
    assert_in_range(here.n_listed, 1, tern_affinity_count());
    assert_in_range(here.cores, 1, here.pus);
    for (int i = 0; i < here.n_listed; i++) assert_true(tern_mask_has(&mask, here.pu[i].cpu));
}

static void detection_finds_the_allowed_cpus_and_moves_nobody(void **state) {
    (void)state;
    tern_cpu_mask before, after;
    assert_true(tern_affinity_get(&before));
    detect();
    assert_string_equal(warning.text, "");
    assert_int_equal(here.pus, tern_affinity_count());
    assert_true(tern_affinity_get(&after));
    assert_memory_equal(&before, &after, sizeof before);
}

static void a_machine_that_the_environment_made_up_is_not_believed(void **state) {
    (void)state;
    setenv("HWLOC_SYNTHETIC", "pack:4 core:16 pu:2", 1);
    detect();
    assert_non_null(strstr(warning.text, "HWLOC_SYNTHETIC"));
    assert_int_equal(here.cores, tern_affinity_count());
    assert_int_equal(here.last_caches, 1);
    // Said to be this machine: its CPUs are taken as far as they exist. None does when they are numbered from 5000.
    setenv("HWLOC_THISSYSTEM", "1", 1);
    detect();
    assert_string_equal(warning.text, "");
    setenv("HWLOC_SYNTHETIC", "core:2 pu:1(indexes=5000,5001)", 1);
    detect();
    assert_non_null(strstr(warning.text, "could not read the CPU topology"));
    assert_int_equal(here.cores, tern_affinity_count());
    unsetenv("HWLOC_SYNTHETIC");
    unsetenv("HWLOC_THISSYSTEM");
}

static void a_description_in_a_file_is_not_believed_either(void **state) {
    (void)state;
    char path[] = "/tmp/tern-test-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    const hwloc_topology_t hw = load_synthetic("pack:4 core:16 pu:2");
    assert_int_equal(hwloc_topology_export_xml(hw, path, 0), 0);
    hwloc_topology_destroy(hw);
    setenv("HWLOC_XMLFILE", path, 1);
    detect();
    assert_non_null(strstr(warning.text, "HWLOC_XMLFILE"));
    assert_int_equal(here.cores, tern_affinity_count());
    unsetenv("HWLOC_XMLFILE");
    unlink(path);
}

// ---- memory -------------------------------------------------------------------------------------------------------------

static void memory_without_nodes_is_bound_by_doing_nothing(void **state) {
    (void)state;
    char byte = 1;
    assert_true(tern_numa_bind(NULL, &byte, 1, 5));
    tern_numa_release(NULL);
}

static void whole_pages_are_bound_and_keep_their_contents(void **state) {
    (void)state;
    enum { PAGES = 16, PAGE = 4096 };
    hwloc_topology_t hw; // the real one, which tern_topology_detect() gives only where there are several nodes
    assert_int_equal(hwloc_topology_init(&hw), 0);
    assert_int_equal(hwloc_topology_load(hw), 0);
    unsigned char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    memset(memory, 7, PAGES * PAGE);
    if (!tern_numa_bind(hw, memory + 1, PAGES * PAGE - 2, 0)) {
        print_message("skipped: this system binds no memory\n");
        skip();
    }
    for (int i = 0; i < PAGES * PAGE; i++) assert_int_equal(memory[i], 7);
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
    hwloc_membind_policy_t first, second;
    assert_int_equal(hwloc_get_area_membind(hw, memory, 1, nodes, &first, HWLOC_MEMBIND_BYNODESET), 0);
    assert_int_equal(hwloc_get_area_membind(hw, memory + PAGE, 1, nodes, &second, HWLOC_MEMBIND_BYNODESET), 0);
    assert_int_equal(second, HWLOC_MEMBIND_BIND);
    assert_int_not_equal(first, HWLOC_MEMBIND_BIND); // its first byte belongs to somebody else
    assert_true(tern_numa_bind(hw, memory + 1, PAGE, 0));
    assert_false(tern_numa_bind(hw, memory, PAGE, 1000));
    assert_false(tern_numa_bind(hw, memory, PAGE, -1));
    hwloc_bitmap_free(nodes);
    hwloc_topology_destroy(hw);
    munmap(memory, PAGES * PAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_of_what_is_allowed),
        cmocka_unit_test(pus_tell_their_core_sibling_cache_and_node),
        cmocka_unit_test(cpu_numbers_may_be_above_1023),
        cmocka_unit_test(a_node_without_cpus_of_its_own_is_nobodys),
        cmocka_unit_test(a_machine_that_tells_nothing_of_cores_and_caches_is_flat),
        cmocka_unit_test(the_weight_of_a_kind_follows_capacity_then_frequency_then_rank),
        cmocka_unit_test(kinds_that_hwloc_cannot_rank_are_equal),
        cmocka_unit_test(a_mask_of_one_kind_leaves_equal_cores),
        cmocka_unit_test(detection_finds_the_allowed_cpus_and_moves_nobody),
        cmocka_unit_test(a_machine_that_the_environment_made_up_is_not_believed),
        cmocka_unit_test(a_description_in_a_file_is_not_believed_either),
        cmocka_unit_test(memory_without_nodes_is_bound_by_doing_nothing),
        cmocka_unit_test(whole_pages_are_bound_and_keep_their_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
