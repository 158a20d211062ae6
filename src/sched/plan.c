// SPDX-License-Identifier: MIT
// From a topology to a plan: which PUs are taken, in which order, in which groups, with which weights.
#include "sched/plan.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

static const char *const pin_names[] = {[TERN_PIN_DEFAULT] = "default",
                                        [TERN_PIN_COMPACT] = "compact",
                                        [TERN_PIN_SPREAD] = "spread",
                                        [TERN_PIN_ALL] = "all",
                                        [TERN_PIN_NONE] = "none"};

const char *tern_pin_name(tern_pin pin) { return pin_names[pin]; }

bool tern_pin_parse(const char *text, tern_pin *pin) {
    for (tern_pin p = TERN_PIN_COMPACT; p <= TERN_PIN_NONE; p++) {
        if (strcmp(text, pin_names[p]) != 0) continue;
        *pin = p;
        return true;
    }
    if (strcmp(text, "cores") != 0) return false;
    *pin = TERN_PIN_COMPACT;
    return true;
}

static int smaller(int a, int b) { return a < b ? a : b; }

// ---- which PUs are taken ----------------------------------------------------------------------------------------------

typedef struct machine {
    const tern_topology *topology;
    const tern_pu *order[TERN_PUS_MAX]; // [n_listed] by node, then caches with faster cores first, then faster cores first
    bool taken[TERN_PUS_MAX];           // by place in order
    int fastest[TERN_PUS_MAX];          // by cache: weight of its fastest core
    int in_node[TERN_NODES_MAX], in_cache[TERN_PUS_MAX], in_core[TERN_PUS_MAX]; // PUs taken
} machine;

// Positive if a must come later than b.
static int compare_places(const machine *m, const tern_pu *a, const tern_pu *b) {
    if (a->node != b->node) return a->node - b->node;
    if (a->cache != b->cache) {
        const int faster = m->fastest[b->cache] - m->fastest[a->cache];
        return faster != 0 ? faster : a->cache - b->cache;
    }
    return b->weight - a->weight;
}

// By insertion: stable, and the list is sorted but for hybrid CPUs.
static void order_machine(machine *m, const tern_topology *topology) {
    memset(m, 0, sizeof *m);
    m->topology = topology;
    for (int i = 0; i < topology->n_listed; i++) {
        const tern_pu *pu = &topology->pu[i];
        assert(pu->node < TERN_NODES_MAX);
        if (pu->weight > m->fastest[pu->cache]) m->fastest[pu->cache] = pu->weight;
    }
    for (int i = 0; i < topology->n_listed; i++) {
        int at = i;
        for (; at > 0 && compare_places(m, m->order[at - 1], &topology->pu[i]) > 0; at--) m->order[at] = m->order[at - 1];
        m->order[at] = &topology->pu[i];
    }
}

// Whether the mode takes a before b, which comes later in the order of the machine, or is NULL.
static bool takes_first(const machine *m, tern_pin pin, const tern_pu *a, const tern_pu *b) {
    if (!b) return true;
    if (pin == TERN_PIN_ALL) return true;
    if (a->sibling != b->sibling) return a->sibling < b->sibling;
    if (pin == TERN_PIN_COMPACT) return true;
    if (m->in_node[a->node] != m->in_node[b->node]) return m->in_node[a->node] < m->in_node[b->node];
    return m->in_cache[a->cache] <= m->in_cache[b->cache];
}

static void take(machine *m, tern_pin pin) {
    int best = -1;
    for (int i = m->topology->n_listed - 1; i >= 0; i--) {
        if (!m->taken[i] && takes_first(m, pin, m->order[i], best < 0 ? NULL : m->order[best])) best = i;
    }
    const tern_pu *pu = m->order[best];
    m->taken[best] = true;
    m->in_node[pu->node]++;
    m->in_cache[pu->cache]++;
    m->in_core[pu->core]++;
}

// ---- places -----------------------------------------------------------------------------------------------------------

// Bound workers, in the order of the machine. caches: of each worker. Workers on one core share its speed.
static int place_bound(tern_worker_plan *plan, const machine *m, int *caches) {
    int n = 0;
    for (int i = 0; i < m->topology->n_listed; i++) {
        const tern_pu *pu = m->order[i];
        if (!m->taken[i]) continue;
        const int weight = pu->weight / m->in_core[pu->core];
        caches[n] = pu->cache;
        plan->workers[n++] = (tern_worker_place){.cpu = pu->cpu, .node = pu->node, .weight = weight > 0 ? weight : 1};
    }
    return n;
}

// Workers from `first` on run where the system puts them, among the last of the bound ones.
static void place_unbound(tern_worker_plan *plan, const tern_topology *topology, int first, int *caches) {
    tern_worker_place place = {
        .cpu = TERN_CPU_NONE, .node = topology->numa_nodes == 1 ? topology->pu[0].node : 0, .weight = TERN_WEIGHT_MAX};
    for (int i = 0; i < first; i++) place.weight = smaller(place.weight, plan->workers[i].weight);
    if (first > 0) place.node = plan->workers[first - 1].node;
    const int cache = first > 0 ? caches[first - 1] : 0;
    for (int i = first; i < plan->n_workers; i++) {
        plan->workers[i] = place;
        caches[i] = cache;
    }
}

// ---- groups -----------------------------------------------------------------------------------------------------------

// End of the workers that share node and cache with worker `first`.
static int end_of_cache(const tern_worker_plan *plan, const int *caches, int first) {
    int end = first + 1;
    while (end < plan->n_workers && plan->workers[end].node == plan->workers[first].node && caches[end] == caches[first]) end++;
    return end;
}

// End of the workers that are grouped together with worker `first`: those of its cache; if it is alone there, also the next of
// its node that are: a group of one gains nothing from its own counter.
static int end_of_run(const tern_worker_plan *plan, const int *caches, int first) {
    int end = end_of_cache(plan, caches, first);
    if (end - first > 1) return end;
    while (end < plan->n_workers && plan->workers[end].node == plan->workers[first].node &&
           end_of_cache(plan, caches, end) == end + 1)
        end++;
    return end;
}

static void group(tern_worker_plan *plan, const int *caches) {
    int groups = 0;
    for (int first = 0, end; first < plan->n_workers; first = end) {
        end = end_of_run(plan, caches, first);
        const int n = end - first, parts = (n + TERN_GROUP_WORKERS_MAX - 1) / TERN_GROUP_WORKERS_MAX;
        for (int i = 0; i < n; i++) plan->workers[first + i].group = groups + i * parts / n;
        groups += parts;
    }
}

// ---- the plan -----------------------------------------------------------------------------------------------------------

static int paid_cpus(int quota_millis) {
    return quota_millis == 0 ? INT_MAX : quota_millis / TERN_CPU_MILLIS + (quota_millis % TERN_CPU_MILLIS != 0);
}

static int paid_workers(int quota_millis) {
    if (quota_millis == 0) return INT_MAX;
    const int nearest = quota_millis / TERN_CPU_MILLIS + (quota_millis % TERN_CPU_MILLIS >= TERN_CPU_MILLIS / 2);
    return nearest > 0 ? nearest : 1;
}

void tern_worker_plan_make(tern_worker_plan *plan, const tern_topology *topology, int threads, tern_pin pin, int quota_millis) {
    const int paid = paid_workers(quota_millis);
    if (pin == TERN_PIN_DEFAULT) pin = paid < topology->cores ? TERN_PIN_NONE : TERN_PIN_COMPACT;
    if (threads == 0) {
        threads = smaller(pin == TERN_PIN_ALL ? topology->pus : topology->cores, paid);
        threads = smaller(threads, TERN_THREADS_MAX);
    }
    plan->pin = pin;
    plan->n_cpus = smaller(topology->pus, paid_cpus(quota_millis));
    plan->n_workers = threads;
    machine m;
    int caches[TERN_THREADS_MAX];
    order_machine(&m, topology);
    const int bound = pin == TERN_PIN_NONE ? 0 : smaller(threads, topology->n_listed);
    for (int i = 0; i < bound; i++) take(&m, pin);
    const int placed = place_bound(plan, &m, caches);
    place_unbound(plan, topology, placed, caches);
    group(plan, caches);
}
