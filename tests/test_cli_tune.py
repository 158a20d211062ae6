#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tern tune: results kept, shown and cleared, and tables that are none.

usage: test_cli_tune.py TERN MODELS_DIR [unittest arguments]
"""
import json
import os
import tempfile
from pathlib import Path

from cli_fixture import CommandTest, FAILED, INT8, main, tern, TERNARY


class Tune(CommandTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.file = Path(self.folder.name, "tern/tune.txt")

    def tune(self, *args, **environment):
        return tern("tune", "-t", "1", *args, **{"TERN_TUNE": "", "XDG_CACHE_HOME": self.folder.name} | environment)

    def test_results_are_kept_shown_and_cleared(self):
        out = json.loads(self.tune("--shape", "64x96", "--json").stdout)
        self.assertEqual((out["schema"], out["saved"], out["path"]), ("tern.tune/1", True, str(self.file)))
        cases = {(r["n"], r["k"], r["m"], r["residency"]) for r in out["results"]}
        self.assertEqual(cases, {(64, 96, m, where) for m, where in ((1, "cache"), (1, "dram"), (8, "dram"), (512, "cache"))})
        for case in cases:
            rows = [r for r in out["results"] if (r["n"], r["k"], r["m"], r["residency"]) == case]
            self.assertEqual(sum(r["fastest"] for r in rows), 1)
            self.assertEqual(max(rows, key=lambda r: r["gmacs"])["fastest"], True)
            self.assertLessEqual(sum(r["built_in"] for r in rows), 1)
        shown = json.loads(self.tune("--show", "--json").stdout)
        self.assertEqual(len(shown["results"]), len(out["results"]))
        info = json.loads(tern("info", "-t", "1", "--json", TERN_TUNE=str(self.file)).stdout)
        self.assertEqual(info["tuning"], {"path": str(self.file), "results": len(out["results"])})
        table = self.tune("--show").stdout.decode().splitlines()
        self.assertEqual(len(table), 1 + len(cases))
        removed = self.tune("--clear")
        self.assertEqual((removed.returncode, self.file.exists()), (0, False))
        self.assertIn(b"run tern tune", self.tune("--show").stdout)

    def test_a_dry_run_keeps_nothing(self):
        result = self.tune("--shape", "64x96", "--dry-run")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertNotIn(b"kept in", result.stdout)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_shapes_of_a_model_are_measured(self):
        out = json.loads(self.tune("-m", TERNARY, "--dry-run", "--json").stdout)
        shapes = {(r["n"], r["k"]) for r in out["results"]}
        self.assertIn((256, 256), shapes)
        result = self.tune("-m", INT8)
        self.assertEqual(result.returncode, FAILED)
        self.assertIn(b"no ternary matrices", result.stderr)

    def test_a_packed_model_is_refused_for_what_it_is(self):
        packed = self.folder.name + "/model.tern"
        self.assertEqual(tern("pack", TERNARY, packed, "-t", "1").returncode, 0)
        self.check(FAILED, "tune", "-m", packed, "-t", "1", says=[packed, "give the GGUF file"])

    def test_a_damaged_table_is_one_warning_and_changes_no_text(self):
        args = ["generate", "-m", TERNARY, "-p", "hello world", "-n", "9", "--json"]
        plain = json.loads(tern(*args).stdout)
        self.file.parent.mkdir()
        self.file.write_text("tern-tune 1\nnonsense\n")
        for environment in ({"XDG_CACHE_HOME": self.folder.name, "TERN_TUNE": ""}, {"TERN_TUNE": str(self.file)}):
            result = tern(*args, **environment)
            lines = result.stderr.decode().splitlines()
            self.assertEqual((result.returncode, len(lines)), (0, 1), lines)
            self.assertTrue(lines[0].startswith(f"tern: warning: the tuning table {self.file} is ignored: "), lines)
            self.assertEqual(json.loads(result.stdout)["text"], plain["text"])

    def test_without_a_place_the_figures_are_shown_and_it_fails(self):
        result = self.tune("--shape", "64x96", TERN_TUNE="off")
        self.assertEqual(result.returncode, FAILED)
        self.assertIn(b"TERN_TUNE", result.stderr)
        self.assertIn(b"dram", result.stdout)


    def test_showing_without_a_place_is_an_error_that_tells_why(self):
        for args in (("--show",), ("--show", "--json")):
            result = self.tune(*args, TERN_TUNE="off")
            self.assertEqual((result.returncode, result.stdout), (FAILED, b""))
            self.assertIn(b"TERN_TUNE", result.stderr)

    def test_the_first_tuning_of_a_named_file_and_of_a_damaged_one_warns_of_nothing(self):
        for content in (None, "tern-tune 1\nnonsense\n"):
            if content:
                self.file.write_text(content)
            result = self.tune("--shape", "64x96", TERN_TUNE=str(self.file))
            self.assertEqual((result.returncode, result.stderr), (0, b""))
            self.assertTrue(self.file.read_text().endswith("\n"))

    def test_a_file_that_is_no_table_is_neither_replaced_nor_removed(self):
        self.file.parent.mkdir()
        self.file.write_text("my notes")
        for args in (("--shape", "64x96"), ("--clear",)):
            result = self.tune(*args, TERN_TUNE=str(self.file))
            self.assertEqual((result.returncode, result.stderr.count(b"\n")), (FAILED, 1))
            self.assertIn(b"not a tuning table", result.stderr)
            self.assertEqual(self.file.read_text(), "my notes")


if __name__ == "__main__":
    main()
