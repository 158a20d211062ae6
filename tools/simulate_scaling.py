#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Predicts how a region scales on machines that are not here, from prices measured on the one that is.

A discrete-event simulation of the pool's protocol (src/sched): an advancer opens a stage, workers claim grains of their own shares,
then steal, and report; who reports last is the next advancer. Input: the JSON of tern_scale_bench. All times are nanoseconds.

Equations
  advance   who becomes the advancer takes over the line that says what comes next: one rmw.
  publish   the advancer writes one copy of `open` per group, one after the other: load if another wrote it last, and other_rmw, because
            the group's workers watch it. Worker w, the k-th reader of its copy, sees it at visible * distance(advancer, w) +
            k * queue * load after the write began. With plain stores (`stores`, not what the pool does): other_store for each copy.
  distance  1 within a group (a last-level cache; measured), `far` within a socket, `remote` between sockets (assumed).
            rmw = other_rmw * distance to the core that touched the line last, own_rmw if that was the same; load likewise.
  claim     one rmw on the worker's own word; a thief takes that line away, so the owner's next claim is dearer.
  tile      max(T * jitter, the time until its bytes are there). T: the time measured in one thread, from DRAM or from cache. The n
            tiles that stream from a node get min(core rate, node rate / n) each, at any moment (processor sharing).
  steal     after `thief_wait` a worker looks at the words of its own cache's workers, then at those of the next cache, and so on: a
            load for the first of them, `queue` loads for each other. It takes one grain from the back of the fullest. Tiles of another
            node take `remote_tile` as long.
  report    rmw on the word `finished` of the owner's group. Requests for one line are served one at a time. The last of a group
            adds to `groups_done`. Flat counting: one group, one `open` and one `finished` for all workers.
  serial    stages of one tile run on the advancer while all others wait.
  end       as publish; the caller sees it after visible * distance.
  wake      who wakes calls once per sleeper (wake_call), one after the other; a sleeper runs `wake` later, and wakes its own two.
What nobody does at a moment is the barrier's: so work + memory + publish + claim + steal + report + serial + barrier = workers * time.
"""
import dataclasses
import heapq

import numpy as np

KINDS = ("work", "memory", "publish", "claim", "steal", "report", "serial", "barrier")
JITTER_MAX = 0.3  # a measured spread above this is the neighbours', not the tile's


@dataclasses.dataclass
class Machine:
    workers: int
    group: int = 8  # workers of a group
    nodes: int = 1
    sockets: int = 1
    node_gbs: float = np.inf  # bytes per ns of one node
    core_gbs: float = np.inf
    flat: bool = False  # one open and one finished word for all workers
    stores: bool = False  # publishing by plain stores, not by a compare-and-swap per copy

    def __post_init__(self):
        w = np.arange(self.workers)
        self.cache_of, self.node_of, self.socket_of = w // self.group, w * self.nodes // self.workers, w * self.sockets // self.workers
        self.group_of = np.zeros(self.workers, int) if self.flat else self.cache_of


@dataclasses.dataclass
class Prices:
    visible: float = 0.0
    own_rmw: float = 0.0
    other_rmw: float = 0.0
    other_load: float = 0.0
    other_store: float = 0.0
    wake_call: float = 0.0
    wake: float = 0.0
    far: float = 1.0
    remote: float = 1.0
    queue: float = 0.0
    thief_wait: float = 0.0
    remote_tile: float = 1.0


@dataclasses.dataclass
class Stage:
    tiles: int
    tile_ns: float
    tile_bytes: float = 0.0
    spread: float = 0.0


@dataclasses.dataclass
class Result:
    ns: float
    spent: dict  # kind -> ns, summed over the workers
    runs: list  # per stage: how often each tile ran
    stolen: int
    busy: np.ndarray  # per worker: ns of everything but waiting


class Line:
    """A cache line: who touched it last, and until when it serves others."""

    def __init__(self, owner):
        self.owner, self.free = owner, 0.0


class Simulation:
    def __init__(self, machine, prices, seed=0):
        self.m, self.p, self.rng = machine, prices, np.random.default_rng(seed)
        n, groups = machine.workers, machine.group_of[-1] + 1
        self.words = [Line(w) for w in range(n)]
        # As a region before left them, whose advancer was the last worker.
        self.opens, self.finished = ([Line(n - 1) for _ in range(groups)] for _ in range(2))
        self.groups_done, self.state = Line(n - 1), Line(n - 1)
        self.members = [np.flatnonzero(machine.group_of == g) for g in range(groups)]
        self.near = [np.flatnonzero(machine.cache_of == c) for c in range(machine.cache_of[-1] + 1)]
        self.now, self.advancer = 0.0, 0
        self.free = np.zeros(n)  # when a worker has nothing of an earlier stage to do
        self.busy, self.spent = np.zeros(n), dict.fromkeys(KINDS, 0.0)
        self.runs, self.stolen = [], 0

    def distance(self, a, b):
        m = self.m
        if m.cache_of[a] == m.cache_of[b]:
            return 1.0
        return self.p.far if m.socket_of[a] == m.socket_of[b] else self.p.remote

    def spend(self, kind, worker, ns):
        self.spent[kind] += ns
        self.busy[worker] += ns
        return ns

    def rmw(self, line, worker, now, kind):
        """When a read-modify-write that starts now is done."""
        price = self.p.own_rmw if line.owner == worker else self.p.other_rmw * self.distance(line.owner, worker)
        line.owner, line.free = worker, max(now, line.free) + price
        self.spend(kind, worker, line.free - now)
        return line.free

    # ---- a region -----------------------------------------------------------------------------------------------

    def run(self, stages, awake=None):
        if awake is not None:
            self.free = np.asarray(awake, float).copy()
        if self.m.workers > 1 and any(s.tiles > 1 for s in stages):
            self.now = self.rmw(self.state, 0, self.now, "publish")
        for stage in stages:
            if stage.tiles <= 1 or self.m.workers == 1:
                ns = stage.tiles * stage.tile_ns * self.jitter(stage, stage.tiles).mean() if stage.tiles else 0.0
                self.spend("work", self.advancer, ns)
                self.spent["serial"] += ns * (self.m.workers - 1)
                self.now += ns
                self.runs.append(np.ones(stage.tiles, int))
            else:
                self.wide(stage)
        if self.m.workers > 1 and any(s.tiles > 1 for s in stages):
            seen, written = self.publish()[0], self.now
            self.now = seen  # the caller goes on, whatever copies the advancer still has to write
            self.spend("publish", self.advancer, -max(0.0, written - seen))
        total = self.now * self.m.workers
        self.spent["barrier"] = total - sum(v for k, v in self.spent.items() if k != "barrier")
        return Result(self.now, self.spent, self.runs, self.stolen, self.busy)

    def jitter(self, stage, n):
        sigma = min(stage.spread, JITTER_MAX)
        return np.exp(self.rng.normal(-sigma * sigma / 2, sigma, n)) if sigma > 0 else np.ones(n)

    def publish(self):
        """The advancer opens or ends a stage; when each worker sees it."""
        seen = np.zeros(self.m.workers)
        for g, members in enumerate(self.members):
            start, line, distance = self.now, self.opens[g], self.distance(self.advancer, members[-1])
            load = 0.0 if line.owner == self.advancer or self.m.stores else self.p.other_load * self.distance(self.advancer, line.owner)
            write = (self.p.other_store if self.m.stores else self.p.other_rmw) * distance
            self.now += self.spend("publish", self.advancer, load + write)
            line.owner = self.advancer
            for k, w in enumerate(v for v in members if v != self.advancer):
                away = self.distance(self.advancer, w)
                seen[w] = start + load + self.p.visible * away + k * self.p.queue * self.p.other_load * (away if self.m.flat else 1.0)
        seen[self.advancer] = self.free[self.advancer] = self.now
        return seen

    def wide(self, stage):
        m, n = self.m, self.m.workers
        first = -(-stage.tiles * np.arange(n + 1) // n)  # share of worker w: first[w] .. first[w + 1] - 1
        self.low, self.high = first[:-1].copy(), first[1:].copy()
        self.left = [int(sum(self.high[w] - self.low[w] for w in members)) for members in self.members]  # not reported
        self.groups_left = sum(left > 0 for left in self.left)
        self.stage, self.times = stage, stage.tile_ns * self.jitter(stage, stage.tiles)
        self.run_of = np.zeros(stage.tiles, int)
        self.runs.append(self.run_of)
        self.events, self.order = [], 0
        self.flows = [[] for _ in range(m.nodes)]  # heap of (virtual end, worker, not before, start, uncontended)
        self.virtual, self.updated, self.version = np.zeros(m.nodes), np.zeros(m.nodes), np.zeros(m.nodes, int)
        self.held = [[w, 0] for w in range(n)]  # whose share a worker takes from, and tiles not reported
        seen = np.maximum(self.publish(), self.free)
        for w in range(n):
            self.at(seen[w], self.claim, w)
        self.over = False
        while self.events and not self.over:
            now, _, what, argument = heapq.heappop(self.events)
            what(now, argument)

    def at(self, when, what, argument):
        self.order += 1
        heapq.heappush(self.events, (when, self.order, what, argument))

    def claim(self, now, w):
        victim, taken = self.held[w]
        if self.low[victim] == self.high[victim]:
            return self.report(now, w) if taken else self.look(now, w)
        if victim == w:
            tile, kind = self.low[w], "claim"
            self.low[w] += 1
        else:
            self.high[victim] -= 1
            tile, kind = self.high[victim], "steal"
            self.stolen += 1
        self.held[w][1] += 1
        self.run_of[tile] += 1
        self.start(self.rmw(self.words[victim], w, now, kind), w, tile, victim)

    def report(self, now, w):
        victim, taken = self.held[w]
        group = self.m.group_of[victim]
        now = self.rmw(self.finished[group], w, now, "report")
        self.held[w][1] = 0
        self.left[group] -= taken
        if self.left[group] == 0:
            if len(self.members) > 1:
                now = self.rmw(self.groups_done, w, now, "report")
            self.groups_left -= 1
            if self.groups_left == 0:
                now = self.rmw(self.state, w, now, "publish")
                self.over, self.now, self.advancer, self.free[w] = True, now, w, now
                return
        self.at(now, self.look, w)

    def look(self, now, w):
        """Nothing left of what it took from: a moment's watch, then the fullest of its own cache, then of the next."""
        self.free[w] = now
        if self.high.sum() > self.low.sum():
            self.at(now + self.p.thief_wait + self.scan_ns(w, 0), self.scan, (w, now, 0))

    def scan_ns(self, w, i):
        members = self.near[(self.m.cache_of[w] + i) % len(self.near)]
        return self.p.other_load * self.distance(w, members[0]) * (1 + self.p.queue * (len(members) - 1))

    def scan(self, now, argument):
        w, since, i = argument
        self.spend("steal", w, now - since)
        self.free[w] = now
        members = self.near[(self.m.cache_of[w] + i) % len(self.near)]
        victim = max(members, key=lambda v: self.high[v] - self.low[v])
        if self.high[victim] > self.low[victim]:
            self.held[w] = [victim, 0]
            self.claim(now, w)
        elif i + 1 < len(self.near):
            self.at(now + self.scan_ns(w, i + 1), self.scan, (w, now, i + 1))

    # ---- tiles: processor sharing of each node's memory --------------------------------------------------------

    def start(self, now, w, tile, owner):
        node, bytes_ = self.m.node_of[owner], self.stage.tile_bytes
        alone = self.times[tile] * (self.p.remote_tile if bytes_ and self.m.node_of[w] != node else 1.0)
        if bytes_ == 0 or np.isinf(self.m.node_gbs):
            self.spend("work", w, alone)
            return self.at(now + alone, self.claim, w)
        self.advance_node(node, now)
        heapq.heappush(self.flows[node], (self.virtual[node] + bytes_, w, now, alone))
        return self.expect(node, now)

    def rate(self, node):
        return min(self.m.core_gbs, self.m.node_gbs / max(1, len(self.flows[node])))

    def advance_node(self, node, now):
        self.virtual[node] += (now - self.updated[node]) * self.rate(node)
        self.updated[node] = now

    def expect(self, node, now):
        self.version[node] += 1
        if self.flows[node]:
            self.at(now + max(0.0, self.flows[node][0][0] - self.virtual[node]) / self.rate(node), self.arrive,
                    (node, self.version[node]))

    def arrive(self, now, argument):
        node, version = argument
        if version != self.version[node]:
            return
        self.advance_node(node, now)
        _, w, start, alone = heapq.heappop(self.flows[node])
        end = max(now, start + alone)
        self.spend("work", w, alone)
        self.spend("memory", w, end - start - alone)
        self.at(end, self.claim, w)
        self.expect(node, now)


def wake_times(workers, prices, tree=True):
    """When each worker runs, if all but the caller sleep: through a binary tree, or woken one by one by the caller."""
    awake = np.zeros(workers)
    for w in range(workers):
        for k, child in enumerate((2 * w + 1, 2 * w + 2) if tree else range(1, workers) if w == 0 else ()):
            if child < workers:
                awake[child] = awake[w] + (k + 1) * prices.wake_call + prices.wake
    return awake
