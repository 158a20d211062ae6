// SPDX-License-Identifier: MIT
// Asks hwloc which cores, caches and PUs this thread may use, and in which order workers should take them.
#include "sched/topology.h"

#include <errno.h>
#include <hwloc.h>
#include <string.h>

// Leaves in the topology only what the cpuset cgroup (hwloc's allowed set) and this thread's affinity mask both allow.
static bool restrict_to_allowed(hwloc_topology_t hw) {
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    if (!allowed) return false;
    bool ok = true;
    // A system that cannot report a thread's binding does not restrict it.
    if (hwloc_get_cpubind(hw, allowed, HWLOC_CPUBIND_THREAD) == 0) {
        hwloc_bitmap_and(allowed, allowed, hwloc_topology_get_allowed_cpuset(hw));
        ok = hwloc_topology_restrict(hw, allowed, HWLOC_RESTRICT_FLAG_REMOVE_CPULESS) == 0;
    }
    hwloc_bitmap_free(allowed);
    return ok;
}

static int count(hwloc_topology_t hw, hwloc_obj_type_t type) {
    const int n = hwloc_get_nbobjs_by_type(hw, type);
    return n > 0 ? n : 0;
}

static size_t cache_bytes(hwloc_topology_t hw, hwloc_obj_type_t type) {
    const hwloc_obj_t cache = hwloc_get_obj_by_type(hw, type, 0);
    return cache ? (size_t)cache->attr->cache.size : 0;
}

// Round r takes PU r of every core that has one: round 0 gives each worker a core of its own, later rounds add siblings.
static void order_pus(tern_topology *topology, hwloc_topology_t hw, hwloc_obj_type_t core_type) {
    bool added = true; // ends with the first round that finds no PU: some may belong to no core
    for (unsigned round = 0; added && topology->n_order < topology->pus && topology->n_order < TERN_THREADS_MAX; round++) {
        added = false;
        for (hwloc_obj_t core = NULL; (core = hwloc_get_next_obj_by_type(hw, core_type, core)) != NULL;) {
            const hwloc_obj_t pu = hwloc_get_obj_inside_cpuset_by_type(hw, core->cpuset, HWLOC_OBJ_PU, round);
            if (!pu || topology->n_order == TERN_THREADS_MAX) continue;
            topology->order[topology->n_order++] = (int)pu->os_index;
            added = true;
        }
    }
}

static void describe(tern_topology *topology, hwloc_topology_t hw) {
    // Some virtual machines tell nothing of cores: then every PU is taken for one.
    const hwloc_obj_type_t core_type = count(hw, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    topology->packages = count(hw, HWLOC_OBJ_PACKAGE);
    topology->numa_nodes = count(hw, HWLOC_OBJ_NUMANODE);
    topology->cores = count(hw, core_type);
    topology->pus = count(hw, HWLOC_OBJ_PU);
    topology->l1d_bytes = cache_bytes(hw, HWLOC_OBJ_L1CACHE);
    topology->l2_bytes = cache_bytes(hw, HWLOC_OBJ_L2CACHE);
    topology->l3_bytes = cache_bytes(hw, HWLOC_OBJ_L3CACHE);
    order_pus(topology, hw, core_type);
}

tern_status tern_topology_detect(tern_topology *topology, tern_error *err) {
    hwloc_topology_t hw;
    memset(topology, 0, sizeof *topology);
    if (hwloc_topology_init(&hw) != 0) return tern_fail(err, TERN_ERR_MEMORY, "hwloc could not start: %s", strerror(errno));
    if (hwloc_topology_load(hw) != 0 || !restrict_to_allowed(hw)) {
        hwloc_topology_destroy(hw);
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "hwloc could not read the CPU topology: %s; check `lstopo`",
                         strerror(errno));
    }
    describe(topology, hw);
    hwloc_topology_destroy(hw);
    return TERN_OK;
}
