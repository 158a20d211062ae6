#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of tools/compare_kernels.py and tools/kernel_report.py, with Tern alone. Usage: test_compare_kernels.py SOURCE_DIR LIBTERN"""
import importlib.util
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE, LIBRARY = Path(sys.argv[1]), sys.argv[2]
SKIPPED = 77


class CompareKernels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.json = Path(cls.folder.name) / "kernels.json"
        cls.done = subprocess.run([sys.executable, str(SOURCE / "tools/compare_kernels.py"), "--library", LIBRARY, "--engine", "Tern", "--op", "ternary", "int8",
                                  "--shape", "64x256", "--m", "1", "2", "--residency", "hot", "-t", "1", "--rounds", "2", "--seconds", "0.001",
                                  "--json", str(cls.json)], capture_output=True, text=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_every_figure_of_every_form_is_there(self):
        self.assertEqual(self.done.returncode, 0, self.done.stderr)
        result = json.loads(self.json.read_text())
        self.assertEqual(result["schema"], "tern.kernels/1")
        cases = {(r["op"], r["m"], r["engine"]) for r in result["rows"]}
        ternary = {name for op, _, name in cases if op == "ternary"}
        self.assertLessEqual({"Tern LUT T2N", "Tern LUT T2N kernel", "Tern MAD M2", "Tern MAD M2 kernel"}, ternary)
        self.assertEqual(cases, {("ternary", m, name) for m in (1, 2) for name in ternary} |
                         {("int8", m, name) for m in (1, 2) for name in ("Tern", "Tern kernel")})
        for row in result["rows"]:
            for key in ("seconds", "gops", "gbps", "mac_per_cycle", "bits_per_weight", "fraction"):
                self.assertGreater(row[key], 0, (key, row))

    def test_tern_is_exact_in_the_league(self):
        league = json.loads(self.json.read_text())["league"]
        self.assertEqual({row["op"] for row in league}, {"ternary", "int8"})
        for row in league:
            for trial, verdict in row.items():
                if trial not in ("op", "engine"):
                    self.assertTrue(verdict == "exact" or verdict in ("0.3 ulp", "0.4 ulp", "0.5 ulp", "0.6 ulp"), (row["engine"], row["op"], trial, verdict))

    def test_the_report_replaces_the_measured_part_of_the_page_and_nothing_else(self):
        page = Path(self.folder.name) / "page.md"
        page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n")
        done = subprocess.run([sys.executable, str(SOURCE / "tools/kernel_report.py"), "--kernels", str(self.json), "--document", str(page)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)  # of all bars only two were measured
        self.assertIn("not measured: bar AVX2 GEMM M=512 4096x4096", done.stderr)
        text = page.read_text()
        self.assertTrue(text.startswith("before\n<!-- measured: begin -->\n") and text.endswith("<!-- measured: end -->\nafter\n"))
        self.assertNotIn("old", text)
        for part in ("### Limits", "### Bars", "### Exactness league", "Tern MAD M2 kernel", "no such CPU"):
            self.assertIn(part, text)

    def test_a_peer_that_was_asked_for_and_is_not_there_is_said_and_fails(self):
        done = subprocess.run([sys.executable, str(SOURCE / "tools/compare_kernels.py"), "--library", LIBRARY, "--engine", "IQ2_BN", "--op", "ternary", "--shape", "64x256",
                               "--m", "1", "--residency", "hot", "-t", "1", "--rounds", "1", "--seconds", "0.001", "--no-league"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done)
        for part in ("not measured: ik wheel: no --peer-python has the package ik_llama_cpp", "not measured: ik native: no --peer-source has"):
            self.assertIn(part, done.stderr)


if __name__ == "__main__":
    if not importlib.util.find_spec("numpy"):
        sys.exit(SKIPPED)  # tools/setup.sh installs it
    unittest.main(argv=[sys.argv[0]])
