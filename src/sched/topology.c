// SPDX-License-Identifier: MIT
// Asks hwloc which PUs, cores, caches and NUMA nodes this thread may use, how fast the cores are, and binds memory to nodes.
#include "sched/topology.h"

#include <errno.h>
#include <hwloc.h>
#include <stdlib.h>
#include <string.h>

#include "sched/affinity.h"

// ---- counts -------------------------------------------------------------------------------------------------------

static int count(hwloc_topology_t hw, hwloc_obj_type_t type) {
    const int n = hwloc_get_nbobjs_by_type(hw, type);
    return n > 0 ? n : 0;
}

static size_t cache_bytes(hwloc_topology_t hw, hwloc_obj_type_t type) {
    const hwloc_obj_t cache = hwloc_get_obj_by_type(hw, type, 0);
    return cache ? (size_t)cache->attr->cache.size : 0;
}

// ---- speeds of core kinds -----------------------------------------------------------------------------------------

typedef struct core_kind {
    int efficiency; // rank, or -1: hwloc could not tell which kind is faster
    const char *type;
    unsigned long capacity, mhz; // 0: unknown
} core_kind;

static const char *info_of(const struct hwloc_info_s *infos, unsigned n, const char *name) {
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(infos[i].name, name) == 0) return infos[i].value;
    }
    return "";
}

static core_kind kind_of(hwloc_topology_t hw, int index) {
    struct hwloc_info_s *infos = NULL;
    unsigned n = 0;
    int efficiency = -1;
    if (hwloc_cpukinds_get_info(hw, (unsigned)index, NULL, &efficiency, &n, &infos, 0) != 0) n = 0;
    return (core_kind){.efficiency = efficiency,
                       .type = info_of(infos, n, "CoreType"),
                       .capacity = strtoul(info_of(infos, n, "LinuxCapacity"), NULL, 10),
                       .mhz = strtoul(info_of(infos, n, "FrequencyMaxMHz"), NULL, 10)};
}

typedef unsigned long speed_fn(const core_kind *kind); // comparable within one machine; 0: unknown

static unsigned long by_capacity(const core_kind *kind) { return kind->capacity; }

// The vector units of Intel's efficient cores are half as wide as those of its fast ones.
static unsigned long by_frequency(const core_kind *kind) {
    return strcmp(kind->type, "IntelAtom") == 0 ? kind->mhz / 2 : kind->mhz;
}

// Only the order is known: a step of it is taken for a factor of two, and stealing evens out what that misses.
static unsigned long by_rank(const core_kind *kind) {
    enum { RANK_MAX = 15 };
    return kind->efficiency < 0 ? 0 : 1ul << (kind->efficiency < RANK_MAX ? kind->efficiency : RANK_MAX);
}

// The best source that knows all kinds; NULL: all cores count as equal.
static speed_fn *choose_source(hwloc_topology_t hw, int kinds) {
    static speed_fn *const sources[] = {by_capacity, by_frequency, by_rank};
    for (size_t s = 0; s < sizeof sources / sizeof sources[0]; s++) {
        bool all = true;
        for (int i = 0; i < kinds && all; i++) {
            const core_kind kind = kind_of(hw, i);
            all = sources[s](&kind) > 0;
        }
        if (all) return sources[s];
    }
    return NULL;
}

static int weight_of(unsigned long speed, unsigned long fastest) {
    const int weight = (int)((double)speed / (double)fastest * TERN_WEIGHT_MAX + 0.5);
    return weight < 1 ? 1 : weight;
}

static void weigh(tern_topology *topology, hwloc_topology_t hw) {
    const int kinds = hwloc_cpukinds_get_nr(hw, 0);
    speed_fn *speed_by = kinds > 1 ? choose_source(hw, kinds) : NULL;
    topology->kinds = kinds > 1 ? kinds : 1;
    unsigned long fastest = 0;
    for (int i = 0; speed_by && i < kinds; i++) {
        const core_kind kind = kind_of(hw, i);
        const unsigned long speed = speed_by(&kind);
        if (speed > fastest) fastest = speed;
    }
    for (int i = 0; i < topology->n_listed; i++) {
        tern_pu *pu = &topology->pu[i];
        const hwloc_obj_t obj = hwloc_get_obj_by_type(hw, HWLOC_OBJ_PU, (unsigned)i);
        const int found = kinds > 1 ? hwloc_cpukinds_get_by_cpuset(hw, obj->cpuset, 0) : -1;
        pu->kind = found > 0 ? found : 0; // a PU of no kind: the most efficient one
        const core_kind kind = kind_of(hw, pu->kind);
        pu->weight = speed_by ? weight_of(speed_by(&kind), fastest) : TERN_WEIGHT_MAX;
    }
}

// ---- places of PUs --------------------------------------------------------------------------------------------------

// What a PU shares with its neighbours: its outermost cache, or its package, or the machine.
static hwloc_obj_t last_cache(hwloc_obj_t pu) {
    hwloc_obj_t cache = NULL, place = pu;
    for (hwloc_obj_t o = pu->parent; o; o = o->parent) {
        if (hwloc_obj_type_is_dcache(o->type)) cache = o;
        if (o->type == HWLOC_OBJ_PACKAGE || !o->parent) {
            place = o;
            break;
        }
    }
    return cache ? cache : place;
}

// The nearest memory: a node attached to everything (CXL memory) is not the PU's own.
static int node_of(hwloc_obj_t pu) {
    for (hwloc_obj_t o = pu; o; o = o->parent) {
        hwloc_obj_t memory = o->memory_first_child;
        while (memory && memory->type != HWLOC_OBJ_NUMANODE) memory = memory->memory_first_child; // below a memory-side cache
        if (memory) return memory->logical_index < TERN_NODES_MAX ? (int)memory->logical_index : 0;
    }
    return 0;
}

// Some virtual machines tell nothing of cores: then every PU is taken for one.
static hwloc_obj_t core_of(hwloc_topology_t hw, hwloc_obj_t pu) {
    const hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(hw, HWLOC_OBJ_CORE, pu);
    return core ? core : pu;
}

static int count_nodes(const tern_topology *topology) {
    int n = 0;
    for (int i = 0; i < topology->n_listed; i++) {
        bool seen = false;
        for (int j = i - 1; j >= 0 && !seen; j--) seen = topology->pu[j].node == topology->pu[i].node;
        n += !seen;
    }
    return n;
}

// In hwloc's logical order PUs of one core, one cache and one package follow each other.
static void list_pus(tern_topology *topology, hwloc_topology_t hw) {
    hwloc_obj_t core = NULL, cache = NULL, obj = NULL;
    int n_cores = 0, n_caches = 0, sibling = 0;
    while ((obj = hwloc_get_next_obj_by_type(hw, HWLOC_OBJ_PU, obj)) != NULL && topology->n_listed < TERN_PUS_MAX) {
        const hwloc_obj_t its_core = core_of(hw, obj), its_cache = last_cache(obj);
        sibling = its_core == core ? sibling + 1 : 0;
        n_cores += its_core != core;
        n_caches += its_cache != cache;
        core = its_core;
        cache = its_cache;
        topology->pu[topology->n_listed++] = (tern_pu){
            .cpu = (int)obj->os_index, .core = n_cores - 1, .sibling = sibling, .cache = n_caches - 1, .node = node_of(obj)};
    }
    topology->last_caches = n_caches;
}

void tern_topology_describe(tern_topology *topology, struct hwloc_topology *hw) {
    memset(topology, 0, sizeof *topology);
    topology->packages = count(hw, HWLOC_OBJ_PACKAGE);
    topology->pus = count(hw, HWLOC_OBJ_PU);
    topology->cores = count(hw, HWLOC_OBJ_CORE) > 0 ? count(hw, HWLOC_OBJ_CORE) : topology->pus;
    topology->l2_caches = count(hw, HWLOC_OBJ_L2CACHE);
    topology->l1d_bytes = cache_bytes(hw, HWLOC_OBJ_L1CACHE);
    topology->l2_bytes = cache_bytes(hw, HWLOC_OBJ_L2CACHE);
    topology->l3_bytes = cache_bytes(hw, HWLOC_OBJ_L3CACHE);
    list_pus(topology, hw);
    topology->numa_nodes = count_nodes(topology);
    weigh(topology, hw);
}

// ---- this machine ---------------------------------------------------------------------------------------------------

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

// DONT_CHANGE_BINDING: without it hwloc moves the calling thread to every CPU in turn, to run CPUID there, which also takes
// half as long again. Devices (I/O) are not looked for: that is hwloc's default. To leave out distances or core kinds saves
// nothing.
static bool load(hwloc_topology_t hw) {
    return hwloc_topology_set_flags(hw, HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING) == 0 && hwloc_topology_load(hw) == 0;
}

static hwloc_topology_t open_machine(tern_error *warning) {
    hwloc_topology_t hw;
    if (hwloc_topology_init(&hw) != 0) {
        tern_error_set(warning, "hwloc could not start (%s): cores and caches are not known, every CPU counts as a core",
                       strerror(errno));
        return NULL;
    }
    const bool loaded = load(hw);
    if (loaded && hwloc_topology_is_thissystem(hw) && restrict_to_allowed(hw)) return hw;
    if (loaded && !hwloc_topology_is_thissystem(hw)) {
        tern_error_set(warning, "hwloc was told to describe another machine, so every CPU of this one counts as a core; unset "
                                "HWLOC_XMLFILE, HWLOC_SYNTHETIC and HWLOC_FSROOT");
    } else {
        tern_error_set(warning, "hwloc could not read the CPU topology (%s), so every CPU counts as a core; check `lstopo`",
                       strerror(errno));
    }
    hwloc_topology_destroy(hw);
    return NULL;
}

// Every allowed CPU as a core of one cache.
static void describe_mask(tern_topology *topology) {
    memset(topology, 0, sizeof *topology);
    tern_cpu_mask mask;
    const bool known = tern_affinity_get(&mask);
    for (int cpu = 0; known && cpu < TERN_MASK_CPUS && topology->n_listed < TERN_PUS_MAX; cpu++) {
        if (!tern_mask_has(&mask, cpu)) continue;
        const int n = topology->n_listed++;
        topology->pu[n] = (tern_pu){.cpu = cpu, .core = n, .weight = TERN_WEIGHT_MAX};
    }
    if (topology->n_listed == 0) {
        topology->n_listed = 1;
        topology->pu[0] = (tern_pu){.cpu = TERN_CPU_NONE, .weight = TERN_WEIGHT_MAX};
    }
    topology->cores = topology->pus = topology->n_listed;
    topology->packages = topology->numa_nodes = topology->last_caches = topology->kinds = 1;
}

void tern_topology_detect(tern_topology *topology, tern_numa **numa, tern_error *warning) {
    hwloc_topology_t hw = open_machine(warning);
    *numa = NULL;
    if (!hw) {
        describe_mask(topology);
        return;
    }
    tern_topology_describe(topology, hw);
    if (count(hw, HWLOC_OBJ_NUMANODE) > 1)
        *numa = hw;
    else
        hwloc_topology_destroy(hw);
}

// ---- memory ---------------------------------------------------------------------------------------------------------

bool tern_numa_bind(tern_numa *numa, void *memory, size_t bytes, int node) {
    if (!numa) return true;
    const hwloc_obj_t obj = node < 0 ? NULL : hwloc_get_obj_by_type(numa, HWLOC_OBJ_NUMANODE, (unsigned)node);
    if (!obj) return false;
    enum { PAGE = 4096 };
    const uintptr_t first = ((uintptr_t)memory + PAGE - 1) / PAGE * PAGE, end = ((uintptr_t)memory + bytes) / PAGE * PAGE;
    if (first >= end) return true;
    return hwloc_set_area_membind(numa, (void *)first, end - first, obj->nodeset, HWLOC_MEMBIND_BIND,
                                  HWLOC_MEMBIND_BYNODESET | HWLOC_MEMBIND_MIGRATE) == 0;
}

void tern_numa_release(tern_numa *numa) {
    if (numa) hwloc_topology_destroy(numa);
}
