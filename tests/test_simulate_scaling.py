#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The model of scale: its invariants, and what it must equal where the answer can be written down.

usage: test_simulate_scaling.py SOURCE_DIR [unittest arguments]
"""
import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(sys.argv[1], "tools")))
import scaling_report as report  # noqa: E402
from simulate_scaling import Machine, Prices, Simulation, Stage, wake_times  # noqa: E402

FREE = Prices()
REAL = Prices(visible=50, own_rmw=3, other_rmw=30, other_load=25, other_store=4, wake_call=10000, wake=25000, far=3, remote=7,
              queue=0.5, thief_wait=300, remote_tile=1.5)


def run(machine, prices, stages, seed=0):
    return Simulation(machine, prices, seed).run(stages)


def random_case(rng):
    workers = int(rng.choice([1, 2, 3, 8, 17, 64, 192]))
    machine = Machine(workers, group=int(rng.integers(1, 17)), nodes=int(rng.integers(1, min(8, workers) + 1)),
                      sockets=1 + int(workers > 8 and rng.integers(2)), node_gbs=float(rng.uniform(10, 100)), core_gbs=20,
                      flat=bool(rng.integers(2)), stores=bool(rng.integers(2)))
    stages = [Stage(int(rng.choice([0, 1, 2, workers, 3 * workers + 1, int(rng.integers(1, 300))])), float(rng.uniform(0, 5000)),
                    float(rng.choice([0, 50000])), float(rng.uniform(0, 0.4))) for _ in range(int(rng.integers(1, 7)))]
    return machine, stages


class Invariants(unittest.TestCase):
    def test_every_tile_runs_once_and_no_time_is_lost_or_invented(self):
        for seed in range(120):
            rng = np.random.default_rng(seed)
            machine, stages = random_case(rng)
            result = run(machine, REAL, stages, seed)
            with self.subTest(seed=seed, machine=machine):
                self.assertEqual([len(r) for r in result.runs], [s.tiles for s in stages])
                self.assertTrue(all((r == 1).all() for r in result.runs))
                self.assertAlmostEqual(sum(result.spent.values()), machine.workers * result.ns, delta=1e-6 * (1 + result.ns))
                self.assertGreaterEqual(min(result.spent.values()), -1e-6 * (1 + result.ns))
                self.assertLessEqual(result.busy.max(), result.ns * (1 + 1e-9))

    def test_a_seed_decides_everything(self):
        machine, stages = Machine(8, node_gbs=50, core_gbs=20), [Stage(32, 1000, 9000, 0.2)] * 3
        self.assertEqual(run(machine, REAL, stages, 5).ns, run(machine, REAL, stages, 5).ns)
        self.assertNotEqual(run(machine, REAL, stages, 5).ns, run(machine, REAL, stages, 6).ns)


class ClosedForms(unittest.TestCase):
    def test_without_prices_scaling_is_perfect(self):
        for workers in (1, 2, 8, 64, 192):
            result = run(Machine(workers), FREE, [Stage(4 * 192, 100)] * 3)
            self.assertAlmostEqual(result.ns, 3 * 4 * 192 * 100 / workers)

    def test_stages_of_one_tile_do_not_scale(self):
        self.assertAlmostEqual(run(Machine(64), REAL, [Stage(1, 700)] * 5).ns, 3500)

    def test_amdahl(self):
        result = run(Machine(8), FREE, [Stage(1, 1000), Stage(16, 500)])
        self.assertAlmostEqual(result.ns, 1000 + 16 * 500 / 8)
        self.assertAlmostEqual(result.spent["serial"], 7 * 1000)

    def test_memory_bounds_what_streams(self):
        stage = [Stage(64, 100, 10000)]
        self.assertAlmostEqual(run(Machine(1, node_gbs=30, core_gbs=20), FREE, stage).ns, 64 * 100)  # measured alone, as it is
        self.assertAlmostEqual(run(Machine(8, node_gbs=30, core_gbs=20), FREE, stage).ns, 64 * 10000 / 30)
        self.assertAlmostEqual(run(Machine(2, node_gbs=90, core_gbs=20), FREE, stage).ns, 64 * 10000 / 40)  # two cores ask for no more
        self.assertAlmostEqual(run(Machine(8, nodes=4, node_gbs=10, core_gbs=20), FREE, stage).ns, 64 * 10000 / 40)

    def test_a_region_of_one_stage_on_two_workers(self):
        r, load, claim, visible, tile = REAL.other_rmw, REAL.other_load, REAL.own_rmw, REAL.visible, 400
        caller_reports = r + load + r + claim + tile  # it takes the advancer's line, publishes, claims, runs
        self.assertLess(caller_reports, r + load + visible + claim + tile)  # before worker 1 does
        worker_1_reported = caller_reports + 2 * r  # one after the other
        self.assertAlmostEqual(run(Machine(2), REAL, [Stage(2, tile)]).ns, worker_1_reported + r + load + visible)

    def test_a_counter_serves_one_after_the_other(self):
        prices = Prices(other_rmw=100, own_rmw=100)
        ns = run(Machine(64, group=64, flat=True), prices, [Stage(64, 0)]).ns
        # The others claim while the caller publishes, so it reports last, and ends the region.
        self.assertAlmostEqual(ns, 100 + 100 + 64 * 100 + 100 + 100)

    def test_the_tree_wakes_in_the_depth_of_the_tree(self):
        self.assertAlmostEqual(wake_times(2, REAL).max(), 35000)
        self.assertAlmostEqual(wake_times(7, REAL).max(), 2 * (2 * 10000 + 25000))
        self.assertAlmostEqual(wake_times(192, REAL, tree=False).max(), 191 * 10000 + 25000)


class Behaviour(unittest.TestCase):
    def test_unequal_tiles_are_stolen_and_that_helps(self):
        uneven = [Stage(64, 20000, 0, 0.3)]
        stolen = [run(Machine(8), REAL, uneven, seed) for seed in range(10)]
        self.assertGreater(sum(r.stolen for r in stolen), 0)
        never = Prices(**{**vars(REAL), "thief_wait": 1e12})
        self.assertLess(sum(r.ns for r in stolen), sum(run(Machine(8), never, uneven, seed).ns for seed in range(10)))

    def test_groups_beat_one_counter_on_many_cores_and_change_nothing_on_few(self):
        stages = [Stage(192, 1000)] * 4
        machine = dict(group=8, nodes=2, sockets=2)
        self.assertLess(run(Machine(192, **machine), REAL, stages).ns, run(Machine(192, flat=True, **machine), REAL, stages).ns)
        self.assertEqual(run(Machine(8), REAL, stages).ns, run(Machine(8, flat=True), REAL, stages).ns)


class Report(unittest.TestCase):
    def stage(self, tiles, ns, product=False):
        return {"product": product, "tiles": tiles, "ns": ns, "hot_ns": ns / 2, "spread": 0.1}

    def measured(self):
        layer = [self.stage(1, 500), self.stage(8, 80000, True), self.stage(1, 300)]
        layout = [self.stage(1, 100), *layer, *layer, self.stage(1, 400), self.stage(16, 900000, True)]
        prices = {k: getattr(REAL, k) for k in ("visible", "own_rmw", "other_rmw", "other_load", "other_store", "wake_call", "wake")}
        return {"schema": "tern.scale/1", "constants_ns": prices, "dram": {"one_gbs": 20, "two_gbs": 30}, "l3_bytes": 32 << 20,
                "workloads": [{"name": "m.gguf", "layers": 2, "bytes": 10_600_000, "measured_1_ns": 1.1e6, "measured_2_ns": 0.8e6,
                               "layouts": [{"workers": n, "stages": layout} for n in (1, 2, 8)]}]}

    def test_layers_are_found_and_repeated(self):
        workload = self.measured()["workloads"][0]
        ends, layer = report.layers_of(report.stages_of(workload, 8), 2)
        self.assertEqual(([s.tiles for s in ends], [s.tiles for s in layer]), ([1, 1, 16], [1, 8, 1]))
        one, _ = report.simulate(Machine(8), REAL, report.stages_of(workload, 8), 0, 2, 2)
        ten, _ = report.simulate(Machine(8), REAL, report.stages_of(workload, 8), 0, 2, 20)
        self.assertAlmostEqual((ten - one) / 18, 80000 / 8 + 800, delta=3000)

    def test_bytes_are_those_of_the_model(self):
        stages = report.stages_of(self.measured()["workloads"][0], 8)
        self.assertAlmostEqual(sum(s.tiles * s.tile_bytes for s in stages), 10_600_000)

    def test_a_model_that_fits_the_caches_does_not_read_dram(self):
        measured = self.measured()
        row = report.predict(measured, measured["workloads"][0], {}, (8, 1, 1, "dram_8"), 2)
        self.assertTrue(row["cached"])
        self.assertEqual(row["spent"]["memory"], 0)
        row = report.predict(measured, measured["workloads"][0], {"m.gguf": 60}, (8, 1, 1, "dram_8"), 2)
        self.assertFalse(row["cached"])
        self.assertGreater(row["spent"]["memory"], 0)

    def test_the_check_compares_with_what_was_measured(self):
        (row,) = report.check(self.measured())
        self.assertAlmostEqual(row["error"], row["predicted_2"] / row["measured_2"] - 1)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
