#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of tools/compare_engines.py and what belongs to it, with Tern alone. Usage: test_compare_engines.py SOURCE_DIR LIBTERN TERN MODELS"""
import copy
import importlib.util
import json
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

SOURCE, LIBRARY, TERN, MODELS = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
SKIPPED = 77
sys.path.insert(0, str(SOURCE / "tools"))

TINY = "tiny-tq2_0.gguf"
ROW = {"row": "decode-2b", "case": "a shape, decode 128", "threads": 1, "unit": "tok/s",
       "engines": {"tern": {"median": 30.0, "runs": [29.0, 30.0, 31.0]}, "ik": {"median": 20.0, "runs": [20.0]}, "llama.cpp": {"not_measured": "none here"}},
       "bars": [{"bar": ">= 1.8x ik", "verdict": "NOT MET", "figure": 1.5, "shown": "1.50x"}, {"bar": ">= 1", "verdict": "met", "figure": 2.0, "shown": "2"}]}
RESULT = {"schema": "tern.compare_engines/1", "runs": 3, "complete": False,
          "machine": {"cpu": "a CPU", "kernel": "6", "date": "2026-01-01", "compiler": "cc 1", "load_before": 0.0, "command": "tools/compare_engines.py"},
          "peers": {"ik": {"flags": "ik 1, a wheel", "version": "ik 1", "features": "AVX2"}, "llama.cpp": {"not_measured": "none here"}},
          "settings": [{"engine": "ik", "file": "a.gguf", "work": "decode", "settings": "flash attention"}],
          "rows": [ROW, {"row": "start", "case": "first token", "not_measured": "no such file", "engines": {}, "bars": []}]}


class Bars(unittest.TestCase):
    def test_a_bar_is_met_from_its_bound_on(self):
        for figure, at_least, verdict in ((1.8, True, "met"), (1.79, True, "NOT MET"), (1.8, False, "met"), (1.81, False, "NOT MET")):
            self.assertEqual(compare_rows.bar("b", figure, 1.8, "{:.2f}", at_least)["verdict"], verdict, (figure, at_least))

    def test_a_bar_without_a_figure_says_why(self):
        found = compare_rows.bar("b", None, 1.8, "{:.2f}", why="no peer")
        self.assertEqual((found["verdict"], found["why"]), ("not measured", "no peer"))

    def test_the_fraction_of_the_roofline_is_taken_inside_each_run(self):
        slow, fast = {"seconds": 2.0, "bytes_per_second": 50.0}, {"seconds": 1.0, "bytes_per_second": 100.0}
        facts = compare_rows.roofline([slow, fast, fast], 10, 9)
        self.assertEqual(facts["fractions"], [0.9, 0.9, 0.9])

    def test_all_matrices_of_the_2b_shape_are_in_the_batch_bar(self):
        matrices = compare_rows.layer_matrices(**compare_rows.SHAPE_2B)
        self.assertEqual(sum(n * k for n, k in matrices), 2084044800)


class Report(unittest.TestCase):
    def test_text_shows_figures_bars_and_what_is_missing(self):
        text = engine_report.text(RESULT)
        for part in ("tern 30.0 (29.0 to 31.0)", "llama.cpp not measured: none here", ">= 1.8x ik: NOT MET: 1.50x", "not measured: no such file", "AVX2",
                     "bars: 1 met, 1 not met, 0 not asked, 1 not measured"):
            self.assertIn(part, text)

    def test_the_page_keeps_what_is_outside_the_marks(self):
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.md"
            page.write_text("before\n<!-- decode: begin -->\nold\n<!-- decode: end -->\nafter\n")
            engine_report.replace_section(page, engine_report.section(RESULT, None))
            text = page.read_text()
        self.assertTrue(text.startswith("before\n<!-- decode: begin -->\n") and text.endswith("<!-- decode: end -->\nafter\n"))
        self.assertNotIn("old", text)
        self.assertIn("| a shape, decode 128, tok/s | 1 |", text)

    @unittest.skipUnless(importlib.util.find_spec("matplotlib"), "no matplotlib")
    def test_the_plot_is_drawn_though_rows_and_engines_are_missing(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plot.svg"
            engine_report.draw(RESULT, path)
            self.assertIn("a shape, decode 128", path.read_text())

    def test_only_a_run_without_gaps_is_complete(self):
        self.assertFalse(compare_engines.complete(RESULT["rows"]))
        whole = copy.deepcopy(ROW)
        del whole["engines"]["llama.cpp"]
        self.assertTrue(compare_engines.complete([whole]))


class LongCommands(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.said, self.log = [], Path(folder.name) / "a.log"
        self.job = long_command.Job("building a peer", self.log, self.said.append)

    def test_a_failure_names_the_errors_and_the_log(self):
        with self.assertRaises(long_command.CommandFailed) as failed:
            self.job.run([sys.executable, "-c", "print('x.c:1: error: no such type'); print('ninja: stopped'); raise SystemExit(3)"])
        for part in ("building a peer failed", "x.c:1: error: no such type", str(self.log)):
            self.assertIn(part, str(failed.exception))

    def test_a_program_that_is_missing_is_an_error_of_the_system(self):
        with self.assertRaises(OSError):
            self.job.run(["/no/such/program"])

    def test_progress_is_what_ninja_counted_last(self):
        self.assertEqual(long_command.steps_done(self.log), "")
        self.log.write_text("[1/20] a.o\n  [19/20] b.o\nwarning: c\n")
        self.assertEqual(long_command.steps_done(self.log), ", step 19 of 20")


class Arguments(unittest.TestCase):
    def run_tool(self, *args):
        tool = str(SOURCE / "tools/compare_engines.py")
        return subprocess.run([sys.executable, tool, "--library", LIBRARY, "--tern", TERN, *args], capture_output=True, text=True)

    def test_what_cannot_work_is_refused_before_anything_is_built(self):
        for args, part in ((["--library", "/none.so"], "cmake --build"), (["-t", "100000"], "CPUs"), (["--runs", "0"], "at least 1 run"),
                           (["--document", "/none.md"], "has no lines"), (["--json", "/none/a.json"], "its folder is missing"), (["--rows", "none"], "invalid choice")):
            done = self.run_tool(*args)
            self.assertEqual(done.returncode, 2, done)
            self.assertIn(part, done.stderr)


class WithTern(unittest.TestCase):
    def setUp(self):
        peers = engine_peers.Peers({"tern": sys.executable}, {"ik": "not here", "llama.cpp": "not here"})
        found = engine_models.Models(MODELS, Path(TERN), peers.pythons, lambda message: None)
        self.lab = engine_lab.Lab(found, peers, Path(LIBRARY), Path(TERN), [1], 2, lambda message: None)
        self.addCleanup(self.lab.close)

    def test_each_command_is_answered(self):
        worker = self.lab.worker("tern", TINY, 1, context=64)
        for command in ({"do": "prefill", "tokens": 32}, {"do": "decode", "context": 4, "tokens": 8}, {"do": "kept", "context": 16, "tokens": 8},
                        {"do": "batch", "sessions": 3, "context": 4, "tokens": 4},
                        {"do": "products", "m": 3, "matrices": [[64, 256], [96, 512]]}):
            self.assertGreater(worker.ask(**command)["seconds"], 0, command)
        self.assertEqual(len(worker.ask("greedy", ids=worker.ask("tokenize", text="a tern")["ids"], tokens=5)["ids"]), 5)
        self.assertEqual(len(worker.ask("latency", prompt=8, tokens=5)["next"]), 4)
        self.assertGreater(worker.ask("info")["peak_rss"], worker.ask("info")["bytes_per_token"])
        self.assertTrue(worker.ask("text", tokens=6)["text"])

    def test_greedy_tokens_are_the_same_each_time(self):
        worker = self.lab.worker("tern", TINY, 1, context=64)
        command = {"do": "greedy", "ids": [1, 2, 3], "tokens": 12}
        self.assertEqual(worker.ask(**command), worker.ask(**command))

    def test_tern_runs_with_the_kernels_and_the_head_it_is_told(self):
        sizes = {}
        for head in ("int8", "int4"):
            self.lab.own = {"head": head, "kernel": "mad"}
            sizes[head] = self.lab.worker("tern", TINY, 1, context=64).ask("info")["bytes_per_token"]
        self.assertLess(sizes["int4"], sizes["int8"])

    def test_what_a_peer_prints_is_no_answer(self):
        script = ("import sys; sys.argv[1:] = ['{}']; import engine_worker as w; out = w.own_stdout(); print('from Python'); "
                  "import os; os.write(1, b'from C'); out.write('answer'); out.flush()")
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=SOURCE / "tools")
        self.assertEqual((done.stdout, "from C" in done.stderr), ("answer", True), done)

    def test_rows_measure_tern_where_peers_are_missing_and_say_so(self):
        compare_rows.models.SMOLLM2, before = TINY, compare_rows.models.SMOLLM2
        try:
            rows = compare_engines.measure(self.lab, ["decode-smollm2"])
        finally:
            compare_rows.models.SMOLLM2 = before
        self.assertGreater(rows[0]["engines"]["tern"]["median"], 0, rows)
        self.assertEqual(rows[0]["engines"]["llama.cpp"], {"not_measured": "not here"})
        self.assertEqual(rows[0]["bars"][0]["verdict"], "not measured")
        self.assertFalse(compare_engines.complete(rows))
        json.dumps(rows)

    def test_a_source_without_llama_is_said_to_be_missing(self):
        with tempfile.TemporaryDirectory() as folder:
            with unittest.mock.patch.object(engine_peers, "install", return_value=sys.executable):
                peers = engine_peers.find([], [Path(folder)], {"llama.cpp"}, "", lambda message: None)
        self.assertIn("has no include/llama.h", peers.missing["llama.cpp"])

    def test_rows_of_tern_alone_install_no_peer(self):
        alone = {name for name, row in compare_rows.ROWS.items() if not row.peers}
        self.assertLessEqual({"screened", "start", "latency", "context", "batch", "llama-8b"}, alone)
        with unittest.mock.patch.object(engine_peers, "install", side_effect=AssertionError), unittest.mock.patch.object(engine_peers, "build_native", side_effect=AssertionError):
            peers = engine_peers.find([], [Path("/source")], set(), "no row asked for it", lambda message: None)
        self.assertEqual(peers.missing, {"llama.cpp": "no row asked for it", "ik": "no row asked for it"})

    def test_a_library_says_by_what_it_was_compiled(self):
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "libggml.so"
            library.write_bytes(b"\x7fELF\0GCC: (GNU) 11.2.1 20220127 (Red Hat 11.2.1-9)\0\xff\0")
            self.assertEqual(kernel_peers.compiled_by([library]), "compiled by GCC: (GNU) 11.2.1 20220127 (Red Hat 11.2.1-9), flags unknown")
            library.write_bytes(b"\0GCC: (GNU) 11.2.1\0Debian clang version 14.0.6\0")  # objects of two compilers
            self.assertEqual(kernel_peers.compiled_by([library]), "compiled by Debian clang version 14.0.6 and GCC: (GNU) 11.2.1, flags unknown")
            library.write_bytes(b"nothing")
            self.assertEqual(kernel_peers.compiled_by([library, Path(folder) / "none"]), "compiler and flags unknown")

    def test_a_model_that_only_a_peer_can_make_leaves_nothing_behind_without_it(self):
        with tempfile.TemporaryDirectory() as folder:
            found = engine_models.Models(Path(folder), Path(TERN), {"tern": sys.executable}, lambda message: None)
            with self.assertRaisesRegex(engine_models.NotMade, "made by ik's quantizer"):
                found[engine_models.HEAD_Q6]
            self.assertEqual(list(Path(folder).iterdir()), [])

    def test_a_model_that_cannot_be_made_is_a_row_that_says_so(self):
        self.lab.models = engine_models.Models(Path("/dev/null/none"), Path(TERN), self.lab.peers.pythons, lambda message: None)
        rows = compare_engines.measure(self.lab, ["llama-8b"])
        self.assertIn("not_measured", rows[0])


if __name__ == "__main__":
    if not importlib.util.find_spec("numpy"):
        sys.exit(SKIPPED)  # tools/setup.sh installs it
    import compare_engines
    import compare_rows
    import engine_lab
    import engine_models
    import engine_peers
    import engine_report
    import kernel_peers
    import long_command
    unittest.main(argv=[sys.argv[0]])
