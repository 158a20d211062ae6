#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of the gate tools/kernel_cost.py on the objects of a build: it fails on what is worse and on what it cannot measure.

Usage: test_kernel_cost.py SOURCE_DIR OBJECT_DIR
"""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE, OBJECTS = Path(sys.argv[1]), Path(sys.argv[2])
PASSED, WORSE, NOT_MEASURED, SKIPPED = 0, 1, 2, 77


class KernelCost(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.objects = Path(cls.folder.name, "objects")
        cls.objects.mkdir()
        name = "lut_gemm_t3_avx2.c.o"  # a small one: all of them take a while
        (cls.objects / name).write_bytes((OBJECTS / name).read_bytes())
        cls.good = Path(cls.folder.name, "good.json")
        done = cls.run_tool("--table", cls.good, "--rewrite")
        assert done.returncode == 0, done.stdout + done.stderr

    @classmethod
    def run_tool(cls, *options, objects=None, path=None):
        environment = {"PATH": path} if path else None
        return subprocess.run([sys.executable, SOURCE / "tools/kernel_cost.py", objects or cls.objects, *options], capture_output=True, text=True, env=environment)

    def table_with(self, change):
        table = json.loads(self.good.read_text())
        change(table)
        path = Path(self.folder.name, "changed.json")
        path.write_text(json.dumps(table))
        return self.run_tool("--table", path).returncode

    def test_the_same_objects_pass(self):
        done = self.run_tool("--table", self.good)
        self.assertEqual(done.returncode, PASSED, done.stdout + done.stderr)

    def test_a_loop_that_is_worse_new_or_gone_fails_and_a_better_one_passes(self):
        column = lambda table: next(iter(table.values()))
        first = lambda table: next(iter(column(table).values()))
        self.assertEqual(self.table_with(lambda t: first(t).update(instructions=0.9 * first(t)["instructions"])), WORSE)
        self.assertEqual(self.table_with(lambda t: first(t).update(instructions=1.1 * first(t)["instructions"])), PASSED)
        self.assertEqual(self.table_with(lambda t: column(t).pop(next(iter(column(t))))), WORSE)
        self.assertEqual(self.table_with(lambda t: column(t).update({"lut_gemm_t3_avx2: none, 1 x 1 x 1": first(t)})), WORSE)
        self.assertEqual(self.table_with(lambda t: first(t).update(another_cpu=1.0)), WORSE)

    def test_what_cannot_be_measured_does_not_pass(self):
        empty = Path(self.folder.name, "empty")
        empty.mkdir()
        damaged = Path(self.folder.name, "damaged.json")
        damaged.write_text("{")
        self.assertEqual(self.run_tool("--table", self.good, objects=empty).returncode, NOT_MEASURED)
        self.assertEqual(self.run_tool("--table", self.good, path=str(empty)).returncode, NOT_MEASURED)  # no llvm
        self.assertEqual(self.run_tool("--table", empty / "none.json").returncode, NOT_MEASURED)
        self.assertEqual(self.run_tool("--table", damaged).returncode, NOT_MEASURED)
        self.assertEqual(self.run_tool("--rewrite").returncode, NOT_MEASURED)
        self.assertEqual(self.run_tool("--rewrite", "--table", self.good, "--only", "none").returncode, NOT_MEASURED)
        unmarked = Path(self.folder.name, "unmarked")
        unmarked.mkdir()
        (unmarked / "lut_gemm_t3_avx2.c.o").write_bytes((OBJECTS / "lut_gemm_t3_scalar.c.o").read_bytes())
        self.assertEqual(self.run_tool("--table", self.good, objects=unmarked).returncode, NOT_MEASURED)

    def test_another_compiler_is_skipped(self):
        path = Path(self.folder.name, "other.json")
        path.write_text(json.dumps({"another compiler": {}}))
        self.assertEqual(self.run_tool("--table", path).returncode, SKIPPED)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
