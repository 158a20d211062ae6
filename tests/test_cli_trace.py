#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Traces of the tern command: valid trace-event JSON that shows every tile once; a file that is there whole or not at all.

usage: test_cli_trace.py TERN HOSTILE_TRACE MODELS_DIR [unittest arguments]
"""
import collections
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TERN, HOSTILE_TRACE, MODELS = sys.argv[1], sys.argv[2], Path(sys.argv[3])
PLOT_TRACE = Path(__file__).parent.parent / "tools/plot_trace.py"
TERNARY = str(MODELS / "tiny-tq2_0.gguf")
FAILED, USAGE = 1, 2
PROGRAM, STAGES, WORKERS = 1, 2, 3  # tracks: thread ids, workers from WORKERS on
GENERATE = [TERN, "generate", "-m", TERNARY, "-p", "hello you", "-n", "8", "-t", "2"]
STAGE_NAMES = {"embed", "stop?", "norm, quantize", "qkv", "rope, cache", "attention", "quantize", "attention out", "gate, up", "silu, quantize",
               "down", "head"}
# Part of the product that follows, where that is small.
OWN_ROW_STAGES = {"norm, quantize", "silu, quantize", "quantize"}


def run(command, **kwargs):
    env = {k: v for k, v in os.environ.items() if not k.startswith("TERN_")} | {"TERN_TUNE": "off"}
    return subprocess.run(command, capture_output=True, env=env, timeout=300, **kwargs)


def nanoseconds(microseconds):
    return round(1000 * microseconds)


class Trace:
    """A file, checked by the rules of the trace-event format as it is read."""

    def __init__(self, case, path):
        self.case = case
        document = json.loads(Path(path).read_bytes().decode())
        case.assertLessEqual(set(document), {"traceEvents", "displayTimeUnit", "otherData"})
        self.dropped = document["otherData"]["dropped_events"]
        self.events = document["traceEvents"]
        self.tracks = {}
        for event in self.events:
            case.assertIsInstance(event["name"], str)
            case.assertIsInstance(event["args"], dict)
            case.assertIs(type(event["pid"]), int)
            case.assertIs(type(event["tid"]), int)
            case.assertIn(event["ph"], ("X", "M"))
            if event["ph"] == "M":
                self.check_metadata(event)
        self.slices = [e for e in self.events if e["ph"] == "X"]
        for event in self.slices:
            case.assertGreaterEqual(event["ts"], 0)
            case.assertGreaterEqual(event["dur"], 0)
            case.assertIn(event["tid"], self.tracks, "a track without a name")
        for track in self.tracks:
            self.check_nesting([e for e in self.slices if e["tid"] == track])

    def check_metadata(self, event):
        self.case.assertIn(event["name"], ("process_name", "thread_name", "thread_sort_index"))
        if event["name"] == "thread_name":
            self.case.assertNotIn(event["tid"], self.tracks)
            self.tracks[event["tid"]] = event["args"]["name"]

    def check_nesting(self, slices):
        """In the order of the file, each slice begins after the last one began, and lies inside it or after it."""
        begin, open_ends = 0, []
        for event in slices:
            start = nanoseconds(event["ts"])
            end = start + nanoseconds(event["dur"])
            self.case.assertGreaterEqual(start, begin, event)
            begin = start
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            if open_ends:
                self.case.assertLessEqual(end, open_ends[-1], event)
            open_ends.append(end)

    def of(self, category):
        return [e for e in self.slices if e["cat"] == category]

    def inside(self, outer):
        start, end = nanoseconds(outer["ts"]), nanoseconds(outer["ts"]) + nanoseconds(outer["dur"])
        return [e for e in self.slices if start <= nanoseconds(e["ts"]) and nanoseconds(e["ts"]) + nanoseconds(e["dur"]) <= end]

    def check_tiles(self):
        """Every tile of every stage once, at its time. Stages follow each other, so a tile's time tells which one is its."""
        tiles = [e for e in self.slices if e["cat"] == "tile"]
        for stage in self.of("stage"):
            mine = [e for e in self.inside(stage) if e["cat"] == "tile" and e["args"]["stage"] == stage["args"]["stage"]]
            runs = collections.Counter(t for e in mine for t in range(e["args"]["tile"], e["args"]["tile"] + e["args"]["tiles"]))
            self.case.assertEqual(runs, {t: 1 for t in range(stage["args"]["tiles"])}, stage)
            self.case.assertEqual({e["name"] for e in mine}, {stage["name"]})
        self.case.assertEqual(sum(e["args"]["tiles"] for e in tiles), sum(e["args"]["tiles"] for e in self.of("stage")))


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder, self.file = Path(folder.name), Path(folder.name, "trace.json")

    def trace(self, *command):
        result = run([*command, "--trace", str(self.file)])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(os.listdir(self.folder), [self.file.name])
        return Trace(self, self.file), result


class Generate(Folder):
    def test_a_trace_holds_the_prompt_and_the_first_tokens_with_every_tile_once(self):
        trace, result = self.trace(*GENERATE)
        self.assertEqual(trace.dropped, 0)
        self.assertEqual(trace.tracks, {PROGRAM: "tern", STAGES: "regions and stages", WORKERS: "tern-w0 (caller)", WORKERS + 1: "tern-w1"})
        marks = [e["name"] for e in trace.of("program") if e["name"] != "sample"]
        self.assertRegex(marks[0], r"^prompt of \d+ tokens$")
        self.assertEqual(marks[1:], ["token 2", "token 3", "token 4", "token 5"])
        trace.check_tiles()
        self.assertIn(str(self.file).encode(), result.stderr)
        self.assertIn(b"perfetto", result.stderr)

    def test_stages_have_the_names_of_their_roles(self):
        trace, _ = self.trace(*GENERATE, "--trace-steps", "1")
        step = next(e for e in trace.of("program") if e["name"] == "token 2")
        names = {e["name"] for e in trace.inside(step) if e["cat"] == "stage"}
        self.assertLessEqual(STAGE_NAMES, names | OWN_ROW_STAGES)  # which stages a step has is not what this test is about
        for wait in trace.of("wait"):
            self.assertIn(wait["name"], ("wait", "asleep"))

    def test_a_trace_changes_no_text_and_no_json(self):
        plain = json.loads(run([*GENERATE, "--json"]).stdout)
        _, result = self.trace(*GENERATE, "--json")
        traced = json.loads(result.stdout)
        self.assertEqual(result.stderr, b"")
        self.assertEqual((set(traced), traced["text"]), (set(plain), plain["text"]))

    def test_steps_say_how_many_tokens_are_traced(self):
        for steps, tokens in (("0", []), ("2", ["token 2", "token 3"]), ("100", [f"token {i}" for i in range(2, 9)])):
            with self.subTest(steps=steps):
                trace, _ = self.trace(*GENERATE, "--trace-steps", steps)
                self.assertEqual([e["name"] for e in trace.of("program") if e["name"].startswith("token")], tokens)

    def test_guessed_tokens_do_not_carry_a_trace_past_its_steps(self):
        prompt = "hello you " * 8
        skipped = 0
        for steps in range(1, 9):
            trace, _ = self.trace(TERN, "generate", "-m", TERNARY, "-p", prompt, "-n", "40", "--draft", "8", "--trace-steps", str(steps))
            tokens = [int(e["name"].split()[1]) for e in trace.of("program") if e["name"].startswith("token")]
            self.assertTrue(all(token <= steps + 1 for token in tokens[:-1]), (steps, tokens))
            self.assertEqual(trace.dropped, 0)
            skipped += tokens[-1] > steps + 1
        self.assertGreater(skipped, 0, "no guess was right where it counts")

    def test_one_thread_is_traced_too(self):
        trace, _ = self.trace(*GENERATE, "-t", "1")
        trace.check_tiles()


class Files(Folder):
    def refused(self, *command, code=FAILED, says=(), **kwargs):
        result = run([*command], **kwargs)
        lines = result.stderr.decode().splitlines()
        self.assertEqual((result.returncode, len(lines)), (code, 1), lines)
        for word in says:
            self.assertIn(word, lines[0])
        return result

    def test_a_file_that_cannot_be_written_is_an_error_before_any_work(self):
        before = sorted(os.listdir(self.folder))
        for path in (str(self.folder), str(self.folder / "none/trace.json"), "/dev/full"):
            for command in ([TERN, "generate", "-m", "/no/model", "-p", "x"], [TERN, "bench", "--quick"]):
                with self.subTest(path=path, command=command):
                    result = self.refused(*command, "--trace", path, says=["--trace"])
                    self.assertEqual(result.stdout, b"")
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_a_failed_run_leaves_what_was_there(self):
        self.file.write_text("mine")
        self.refused(TERN, "generate", "-m", "/no/model", "-p", "x", "--trace", str(self.file), says=["/no/model"])
        self.assertEqual(os.listdir(self.folder), [self.file.name])
        self.assertEqual(self.file.read_text(), "mine")

    def test_a_whole_trace_replaces_what_was_there(self):
        self.file.write_text("mine")
        self.trace(*GENERATE)

    def test_a_full_disk_leaves_no_file(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

        result = run([*GENERATE, "--trace", str(self.file), "--json"], preexec_fn=limit)
        self.assertEqual(result.returncode, FAILED)
        self.assertIn(b"cannot write the trace", result.stderr)
        self.assertEqual(os.listdir(self.folder), [])

    def test_values_that_cannot_be_meant_are_usage_errors(self):
        for steps in ("-1", "101", "few"):
            self.refused(*GENERATE, "--trace", str(self.file), "--trace-steps", steps, code=USAGE, says=["--trace-steps"])
        self.refused(*GENERATE, "--trace-steps", "2", code=USAGE, says=["--trace FILE"])
        self.refused(*GENERATE, "--trace", "", code=USAGE, says=["--trace", "file"])


@unittest.skipUnless(importlib.util.find_spec("matplotlib"), "needs matplotlib (tools/requirements.txt)")
class Plot(Folder):
    def test_a_picture_has_each_worker_and_each_stage_of_a_token(self):
        self.trace(*GENERATE)
        picture = self.folder / "trace.svg"
        result = run([sys.executable, PLOT_TRACE, str(self.file), "-o", str(picture), "--layer", "1"])
        self.assertEqual(result.returncode, 0, result.stderr)
        text = picture.read_text()
        for name in {"tern-w0 (caller)", "tern-w1", "Layer 1 of it"} | STAGE_NAMES - OWN_ROW_STAGES:
            self.assertIn(name, text)

    def test_a_step_or_a_layer_that_is_not_there_is_an_error(self):
        self.trace(*GENERATE)
        for wrong in (["--step", "token 99"], ["--layer", "99"]):
            result = run([sys.executable, PLOT_TRACE, str(self.file), "-o", str(self.folder / "none.svg"), *wrong])
            self.assertEqual(result.returncode, 1)
            self.assertIn(b"99", result.stderr)

    def test_what_is_no_trace_is_an_error_of_one_line(self):
        self.file.write_text("{}")
        for path in (str(self.file), str(self.folder / "none.json")):
            result = run([sys.executable, PLOT_TRACE, path, "-o", str(self.folder / "none.svg")])
            self.assertEqual((result.returncode, len(result.stderr.splitlines())), (1, 1), result.stderr)
        self.assertFalse((self.folder / "none.svg").exists())


class HostileNames(Folder):
    def test_any_name_gives_valid_json(self):
        result = run([HOSTILE_TRACE, str(self.file), "1024"])
        self.assertEqual(result.returncode, 0, result.stderr)
        trace = Trace(self, self.file)
        trace.check_tiles()
        self.assertEqual([e["name"] for e in trace.of("stage")],
                         ['quote " and \\ backslash', "line\nbreak\tand\x01", "", "not \ufffd\ufffd UTF-8", "stage", "ü and 🐦", "</script>"])
        self.assertEqual([e["name"] for e in trace.of("program")], ['a "mark"'])

    def test_events_without_room_are_counted_in_the_file_and_a_warning(self):
        result = run([HOSTILE_TRACE, str(self.file), "3"])
        self.assertEqual(result.returncode, 0, result.stderr)
        trace = Trace(self, self.file)
        self.assertGreater(trace.dropped, 0)
        self.assertLessEqual(len(trace.of("tile")) + len(trace.of("stage")) + len(trace.of("region")) + len(trace.of("wait")), 2 * 3)
        self.assertIn(f"lacks the last {trace.dropped} events".encode(), result.stderr)


class Bench(Folder):
    """Takes seconds of full memory bandwidth: a ctest of its own, with the label slow."""

    def test_three_products_of_each_case_are_traced(self):
        trace, _ = self.trace(TERN, "bench", "--op", "mad_gemm", "--shape", "65x256", "--m", "1,3", "--block", "0", "-t", "2")
        self.assertEqual(trace.dropped, 0)
        trace.check_tiles()
        marks = collections.Counter(e["name"].split(" ", 1)[1] for e in trace.of("program"))
        # ternary and four-level weights
        self.assertEqual(marks, {f"65x256 m{m} {where}": 6 for m in (1, 3) for where in ("hot", "dram")})


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
