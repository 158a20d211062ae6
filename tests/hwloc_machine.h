// SPDX-License-Identifier: MIT
// Machines that only tests have: hwloc's synthetic topologies, described by the code that describes the real one.
#ifndef TERN_TESTS_HWLOC_MACHINE_H
#define TERN_TESTS_HWLOC_MACHINE_H

#include <hwloc.h>

#include "sched/topology.h"

// e.g. "pack:2 [numa] l3:1 core:32 pu:2"; numbers of CPUs as Linux gives them: "pu:2(indexes=2*64:64*1)".
static inline hwloc_topology_t load_synthetic(const char *description) {
    hwloc_topology_t hw;
    assert_int_equal(hwloc_topology_init(&hw), 0);
    if (hwloc_topology_set_synthetic(hw, description) != 0) fail_msg("hwloc does not understand \"%s\"", description);
    assert_int_equal(hwloc_topology_load(hw), 0);
    return hw;
}

// Only the CPUs of a list such as "0,2,8-11" are allowed.
static inline void allow_cpus(hwloc_topology_t hw, const char *list) {
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    assert_int_equal(hwloc_bitmap_list_sscanf(allowed, list), 0);
    assert_int_equal(hwloc_topology_restrict(hw, allowed, HWLOC_RESTRICT_FLAG_REMOVE_CPULESS), 0);
    hwloc_bitmap_free(allowed);
}

// The cores of these CPUs are of one kind. efficiency: a rank, or -1 (unknown).
static inline void set_kind(hwloc_topology_t hw, const char *list, int efficiency, struct hwloc_info_s *infos,
                            unsigned n_infos) {
    hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
    assert_int_equal(hwloc_bitmap_list_sscanf(cpus, list), 0);
    assert_int_equal(hwloc_cpukinds_register(hw, cpus, efficiency, n_infos, infos, 0), 0);
    hwloc_bitmap_free(cpus);
}

// Ends hw.
static inline const tern_topology *describe(hwloc_topology_t hw) {
    static tern_topology topology;
    tern_topology_describe(&topology, hw);
    hwloc_topology_destroy(hw);
    return &topology;
}

static inline const tern_topology *synthetic(const char *description) { return describe(load_synthetic(description)); }

static inline const tern_topology *synthetic_allowed(const char *description, const char *allowed) {
    const hwloc_topology_t hw = load_synthetic(description);
    allow_cpus(hw, allowed);
    return describe(hw);
}

#endif
