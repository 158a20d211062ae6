#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tern pack, --load, and what is refused.

usage: test_cli_pack.py TERN MODELS_DIR [unittest arguments]
"""
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from cli_fixture import CommandTest, FAILED, INT8, main, TERN, tern, TERNARY, USAGE


class Pack(CommandTest):
    """tern pack, --load, and what is refused."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.packed = str(self.folder / "model.tern")

    def generate(self, *args):
        return tern("generate", "-p", "Once", "-n", "12", "-t", "1", *args).stdout

    def test_a_packed_model_writes_the_same_text_mapped_and_copied(self):
        for model in (TERNARY, INT8):
            report = json.loads(tern("pack", model, self.packed, "-t", "1", "--json").stdout)
            self.assertEqual(set(report), {"schema", "path", "done", "bytes", "seconds", "tier", "threads"})
            self.assertEqual((report["schema"], report["done"], report["bytes"]), ("tern.pack/1", "written", os.path.getsize(self.packed)))
            want = self.generate("-m", model)
            for load in ("auto", "map", "copy"):
                self.assertEqual(self.generate("-m", self.packed, "--load", load), want)
            self.assertIn(b"verified", tern("pack", "--verify", self.packed).stdout)
            self.assertEqual(os.listdir(self.folder), ["model.tern"])

    def check_whole_or_none(self):
        self.assertIn(os.listdir(self.folder), ([], ["model.tern"]))
        if os.listdir(self.folder):
            self.assertEqual(tern("pack", "--verify", self.packed).returncode, 0)
            os.remove(self.packed)

    def start(self, **options):
        return subprocess.Popen([TERN, "pack", INT8, self.packed, "-t", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def test_a_signal_leaves_a_whole_file_or_none(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for wait in range(12):
                process = self.start()
                time.sleep(0.004 * wait)
                process.send_signal(number)
                process.communicate()
                self.assertIn(process.returncode, (0, 130, -number))
                self.check_whole_or_none()

    def test_a_signal_that_is_ignored_stays_so(self):
        for number in (signal.SIGINT, signal.SIGHUP):  # as a shell and nohup start commands
            process = self.start(preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
            while process.poll() is None:
                process.send_signal(number)
                time.sleep(0.0005)
            process.communicate()
            self.assertEqual(process.returncode, 0)
            self.check_whole_or_none()

    def test_a_limit_of_file_sizes_is_told_and_leaves_nothing(self):
        limit = 1 << 16
        process = self.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        said = process.communicate()[1]
        self.assertEqual((process.returncode, os.listdir(self.folder)), (FAILED, []))
        self.assertIn(b"File too large", said)

    def test_a_packed_model_keeps_its_blocks_of_activations(self):
        self.assertEqual(tern("pack", TERNARY, self.packed, "--act-block", "32").returncode, 0)
        want = self.generate("-m", TERNARY, "--act-block", "32")
        for options in ([], ["--act-block", "32"], ["--act-block", "auto"]):
            self.assertEqual(self.generate("-m", self.packed, *options), want)
        self.assertIn(b"activations in blocks of 32", tern("info", "-m", self.packed).stdout)
        self.check(FAILED, "generate", "-m", self.packed, "--act-block", "64", says=["act-block 32", "64", "tern pack"])

    def test_a_packed_model_may_have_the_longest_name(self):
        self.assertEqual(tern("pack", TERNARY, str(self.folder / ("x" * 255))).returncode, 0)
        self.check(FAILED, "pack", TERNARY, str(self.folder / ("x" * 256)), says=["File name too long"])

    def test_options_of_ternary_matrices_are_said_to_do_nothing_without_any(self):
        for option, value in (("--act-block", "32"), ("--kernel", "mad")):
            self.assertIn(option.encode() + b" is for those alone", tern("pack", INT8, self.packed, option, value).stderr)
            self.assertEqual(tern("pack", TERNARY, self.packed, option, value).stderr, b"")
        self.assertEqual(tern("pack", INT8, self.packed).stderr, b"")

    def test_info_tells_what_a_packed_model_was_packed_for(self):
        self.assertEqual(tern("pack", TERNARY, self.packed, "-t", "1", "--isa", "scalar").returncode, 0)
        model = json.loads(tern("info", "-m", self.packed, "--isa", "scalar", "-t", "1", "--json").stdout)["model"]
        self.assertEqual((model["packed_for"], model["packed_threads"]), ("scalar", 1))
        self.assertIn(b"packed for scalar and 1 threads", tern("info", "-m", self.packed, "--isa", "scalar", "-t", "1").stdout)
        self.assertIsNone(json.loads(tern("info", "-m", TERNARY, "--json").stdout)["model"]["packed_for"])

    def test_wrong_files_and_options_are_refused_with_the_remedy(self):
        self.assertEqual(tern("pack", TERNARY, self.packed).returncode, 0)
        self.check(USAGE, "pack", TERNARY, says=["OUT.tern"])
        self.check(USAGE, "pack", "--verify", self.packed, "x", says=["--verify"])
        self.check(USAGE, "pack", TERNARY, self.packed, "--load", "map", says=["--load"])  # nothing is loaded
        self.check(FAILED, "pack", "--verify", "/missing/model.tern", says=["/missing/model.tern", "No such file or directory"])
        self.check(USAGE, "generate", "-m", self.packed, "--load", "fast", says=["--load", "copy"])
        self.check(FAILED, "pack", TERNARY, "/missing/model.tern", says=["/missing/model.tern"])
        self.check(FAILED, "pack", "/missing/model.gguf", "/missing/model.tern", says=["/missing/model.tern", "folder"])  # before it packs
        self.check(FAILED, "pack", TERNARY, TERNARY, says=[TERNARY, "another name"])
        self.check(FAILED, "pack", TERNARY, str(self.folder), says=[str(self.folder), "another name"])
        self.check(FAILED, "pack", self.packed, str(self.folder / "again.tern"), says=["packed already", "GGUF"])
        self.assertNotIn(b"run tern pack", tern("pack", self.packed, str(self.folder / "again.tern")).stderr)  # which they just did
        self.check(FAILED, "pack", self.packed, TERNARY, says=[TERNARY, "another name"])
        self.check(FAILED, "pack", "--verify", TERNARY, says=["tern pack"])
        self.check(FAILED, "generate", "-m", TERNARY, "--load", "map", says=["tern pack"])
        self.check(FAILED, "generate", "-m", self.packed, "--head", "int4", says=["int4", "tern pack"])
        self.check(FAILED, "generate", "-m", self.packed, "--act-block", "64", says=["act-block 64", "tern pack"])
        bytes_of = bytearray(Path(self.packed).read_bytes())
        bytes_of[-1] ^= 1
        Path(self.packed).write_bytes(bytes_of)
        self.check(FAILED, "generate", "-m", self.packed, "--load", "copy", says=["damaged", "tern pack"])
        self.check(FAILED, "pack", "--verify", self.packed, says=["damaged"])
        self.assertEqual(os.listdir(self.folder), ["model.tern"])


if __name__ == "__main__":
    main()
