#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tern_sched_bench runs through and reports what tools/sched_report.py reads. Never how long something took.

usage: test_sched_bench.py TERN_SCHED_BENCH [unittest arguments]
"""
import json
import subprocess
import sys
import unittest

BENCH = sys.argv[1]
LATENCIES = ["empty_region", "short_region", "empty_stage", "short_stage"]


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

    def test_wrong_options_are_refused(self):
        self.assertNotEqual(run("--only", "nothing").returncode, 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
