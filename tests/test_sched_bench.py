#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tern_sched_bench runs through and reports what tools/sched_report.py reads. Never how long something took.

usage: test_sched_bench.py TERN_SCHED_BENCH SCHED_REPORT_PY [unittest arguments]
"""
import json
import subprocess
import sys
import tempfile
import unittest

BENCH, REPORT = sys.argv[1:3]
LATENCIES = ["empty_region", "short_region", "empty_stage", "short_stage"]

SCALING = ["gemm_m512_2560x6912", "gemm_m512_4096x4096", "token_bitnet_2b", "token_smollm2_135m", "token_288_768_2_layers/one_region"]
WORKS = ["chain_200_stages", "gemm_m512_2560x2560"]
SITUATIONS = ["1_worker_on_1_cpu", "2_workers_on_2_cpus", "4_workers_on_2_cpus", "2_workers_on_1_cpu", "2_workers_and_a_stranger"]


def run(*args):
    return subprocess.run([BENCH, *args], capture_output=True, timeout=300, check=False)


class SchedBench(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        done = run("--quick", "--json")
        assert done.returncode == 0, done.stderr.decode()
        cls.report = json.loads(done.stdout)
        cls.cases = {(c["case"], c["who"]): c for c in cls.report["cases"]}

    def test_every_case_has_the_keys_scripts_rely_on(self):
        self.assertEqual(self.report["schema"], "tern.sched_bench/1")
        self.assertTrue(self.report["quick"])
        self.assertEqual(len(self.cases), len(self.report["cases"]), "two cases of one name")
        for case in self.report["cases"]:
            self.assertLessEqual({"case", "who", "unit", "samples", "median", "q1", "q3", "p99"}, case.keys())
            self.assertEqual(case["samples"] == 0, case["median"] is None, case)
            if case["samples"]:
                self.assertLessEqual(case["q1"], case["median"])
                self.assertLessEqual(case["median"], case["q3"])

    def test_every_scheduler_is_measured_beside_tern(self):
        peers = ["tern", "mutex/condvar"] + ["openmp"] * self.report["openmp"]
        for peer in peers:
            for name in LATENCIES:
                self.assertIn((name, peer), self.cases)
        self.assertIn(("wake", "tern"), self.cases)

    def test_products_are_measured_with_one_worker_and_two(self):
        for name in SCALING:
            case = self.cases[(name, "tern")]
            self.assertGreater(case["samples"] + case["dropped"], 0)
            self.assertGreater(case["bytes"], 0)
            self.assertEqual(case["limit"] == "none" or not case["samples"], case["limit_ratio"] is None)

    def test_a_crowded_pool_comes_to_its_end_and_runs_every_tile_once(self):
        for work in WORKS:
            for situation in SITUATIONS:
                case = self.cases[(f"{situation}/{work}", "tern")]
                self.assertEqual(case["hung"], 0, case)
                self.assertIn(case["correct"], (True, None), case)  # None: one CPU only, not run

    def test_an_idle_pool_is_looked_at(self):
        self.assertGreater(self.cases[("awake_after_last_region", "tern")]["samples"], 0)
        self.assertGreater(self.cases[("cpu_time_idle_100ms_to_1s", "tern")]["samples"], 0)

    def report_of(self, report, *args):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(report, file)
            file.flush()
            return subprocess.run([sys.executable, REPORT, file.name, *args], capture_output=True, text=True, check=False)

    def test_a_bar_that_was_not_measured_fails_the_gate(self):
        report = {**self.report, "cases": [{k: None if k in ("median", "p99", "of_limit") else v for k, v in c.items()} for c in self.report["cases"]]}
        done = self.report_of(report, "--gate")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("not measured", done.stdout)
        self.assertNotIn("| met", done.stdout)
        self.assertEqual(self.report_of(report).returncode, 0)

    def test_wrong_options_are_refused(self):
        self.assertNotEqual(run("--only", "nothing").returncode, 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
