#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Errors of the tern command whichever subcommand it is, and the same binary on old CPUs.

usage: test_cli.py TERN MODELS_DIR [unittest arguments]
"""
import json
import os
import subprocess
import tempfile
from pathlib import Path

from cli_fixture import CommandTest, FAILED, INT8, main, TERN, tern, TERNARY, USAGE


class Errors(CommandTest):
    def test_wrong_options_are_usage_errors(self):
        self.check(USAGE, says=["generate"])
        self.check(USAGE, "fly", says=["fly", "tern --help"])
        self.check(USAGE, "info", "--fly", says=["--fly", "--help"])
        self.check(USAGE, "info", "-m", says=["-m", "--help"])
        self.check(USAGE, "generate", "-m", "x", "--promt", "hi", "-n", "3", says=["--promt: unknown"])
        self.check(USAGE, "info", "-Z", "hi", says=["-Z: unknown"])
        self.check(USAGE, "info", "-helpme", says=["-helpme: unknown"])
        self.check(USAGE, "info", "file", says=["file", "--help"])
        self.check(USAGE, "generate", "-p", "x", says=["-m FILE"])
        self.check(FAILED, "generate", "-m", TERNARY, says=["empty", "-p", "stdin"])
        self.check(USAGE, "tokenize", "-p", "x", says=["-m FILE"])
        self.check(USAGE, "perplexity", "-f", "x", says=["-m FILE"])
        self.check(USAGE, "compare", TERNARY, says=["two models"])
        self.check(USAGE, "compare", "a", "b", "c", says=["c"])
        self.check(USAGE, "compare", "a", "b", "--head-b", "5", says=["--head-b 5", "exact"])
        self.check(USAGE, "generate", "-m", TERNARY, "--head", "none", says=["--head none", "int4"])
        self.check(USAGE, "generate", "-m", TERNARY, "--kv", "f64", says=["--kv f64", "int8"])
        self.check(USAGE, "compare", "a", "b", "--kv-b", "f64", says=["--kv-b f64", "int8"])
        for size in ("0", "48", "512", "row", "-32"):
            self.check(USAGE, "generate", "-m", TERNARY, f"--act-block={size}", says=[f"--act-block {size}", "256"])
        self.check(FAILED, "generate", "-m", TERNARY, "-p", "x", "--logit-bias", "999999=1", says=["--logit-bias 999999", "0..383"])
        self.check(USAGE, "compare", "a", "b", "--act-block-b", "1", says=["--act-block-b 1", "256"])
        self.check(USAGE, "generate", "-m", TERNARY, "-p", "x", "--parallel", "2", "--prompt-cache", "c", says=["--prompt-cache"])
        self.check(USAGE, "generate", "-m", TERNARY, "-p", "x", "--parallel", "2", "--draft", "2", says=["--draft", "--parallel"])
        self.check(USAGE, "generate", "-m", TERNARY, "-p", "x", "--parallel", "0", says=["--parallel 0"])
        self.check(USAGE, "generate", "-m", TERNARY, "-p", "x", "--timeout", "-1", says=["--timeout -1"])
        self.check(USAGE, "perplexity", "-m", TERNARY, "--ctx", "1", says=["--ctx"])
        self.check(USAGE, "bench", "--all", "--quick", says=["--all"])
        self.check(USAGE, "bench", "--shape", "4096", says=["--shape", "4096x2560"])
        self.check(USAGE, "bench", "--residency", "l2", says=["--residency", "hot or dram"])
        self.check(USAGE, "bench", "--m", "", says=["--m", "comma"])
        self.check(USAGE, "bench", "--m", ",", says=["--m", "comma"])
        self.check(USAGE, "bench", "--m", "1,,2", says=["--m", "comma"])
        self.check(USAGE, "bench", "--block", "64,7", says=["--block", "7", "multiple of 16"])
        shapes = [text for i in range(8) for text in ("--shape", f"64x{64 + i}")]
        self.check(USAGE, "bench", *shapes, "--block", "0,64,128", says=["--shape", "fewer"])  # none is left out in silence
        self.check(USAGE, "bench", *shapes, "--m", ",".join(map(str, range(1, 20))), says=["--shape", "fewer"])
        self.check(USAGE, "tune", "--show", "--clear", says=["--show"])
        self.check(USAGE, "tune", "--shape", "64x64", "--show", says=["--show"])
        for shape in ("64", "x", "64x", "x64"):
            self.check(USAGE, "tune", "--shape", shape, says=[f"--shape {shape}:", "4096x2560"])
        self.check(USAGE, "generate", "-m", TERNARY, "-p", "x", "--system", "y", says=["--chat"])

    def test_numbers_out_of_range_are_usage_errors_that_tell_the_range(self):
        for option, value in [("-t", "0"), ("-t", "1000000000"), ("-t", "two"), ("-t", ""), ("-n", "0"), ("-n", "-1"), ("-n", "1e3"),
                              ("--ctx", "0"), ("--temp", "-1"), ("--temp", "nan"), ("--top-p", "1.5"), ("--min-p", "-0.1"),
                              ("--top-k", "-1"), ("--seed", "x"), ("--kernel", "fast")]:
            with self.subTest(option=option, value=value):
                self.check(USAGE, "generate", "-m", TERNARY, "-p", "x", option, value, says=[option])
        self.check(FAILED, "info", TERN_THREADS="0", says=["TERN_THREADS", "1024"])
        self.check(FAILED, "info", TERN_THREADS="1000000000", says=["TERN_THREADS", "1024"])

    def test_tiers_that_are_unknown_or_absent_are_refused(self):
        self.check(USAGE, "info", "--isa", "mmx", says=["--isa", "mmx", "avx2"])
        self.check(FAILED, "info", TERN_ISA="mmx", says=["TERN_ISA", "mmx"])
        best = json.loads(tern("info", "--json").stdout)["cpu"]["best_tier"]
        tiers = ["scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"]
        for tier in tiers[tiers.index(best) + 1:]:
            self.check(FAILED, "info", "--isa", tier, says=[tier, best])

    def test_files_that_are_no_model_are_refused_by_every_command(self):
        with tempfile.TemporaryDirectory() as folder:
            good = Path(TERNARY).read_bytes()
            damaged = {"empty": b"", "text": b"hello, I am no model\n" * 9, "truncated": good[: len(good) // 2], "head": good[:20]}
            paths = [folder, folder + "/missing.gguf"]
            for name, data in damaged.items():
                paths.append(f"{folder}/{name}.gguf")
                Path(paths[-1]).write_bytes(data)
            before = sorted(os.listdir(folder))
            for path in paths:
                for command in (["generate", "-p", "x"], ["tokenize", "-p", "x"], ["perplexity"], ["info"], ["generate", "-p", "x", "--json"]):
                    with self.subTest(path=path, command=command):
                        self.check(FAILED, *command, "-m", path, says=[path])
            self.assertEqual(sorted(os.listdir(folder)), before, "a failing command left a file")

    def test_messages_stay_one_line_whatever_a_path_or_a_file_holds(self):
        self.check(FAILED, "info", "-m", "/no\nsuch\x1b[31m", says=["/no?such?[31m"])
        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/model.gguf"
            Path(path).write_bytes(Path(TERNARY).read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn\x1b[\n.weight"))
            self.check(FAILED, "info", "-m", path, says=[path, "blk.1.ffn?[?.weight"])

    def test_prompts_that_cannot_be_used_are_refused(self):
        self.check(FAILED, "perplexity", "-m", TERNARY, says=["0 tokens", "-f"])
        self.check(FAILED, "perplexity", "-m", TERNARY, "-f", "/missing", says=["/missing"])
        self.check(FAILED, "perplexity", "-m", TERNARY, "--ctx", "999999", says=["--ctx", "512"])
        self.check(FAILED, "perplexity", "-m", TERNARY, "--ctx", "9", "--stride", "9", says=["--stride"])
        with tempfile.TemporaryDirectory() as folder:  # the same number of tokens, but another text for one
            path = folder + "/other.gguf"
            Path(path).write_bytes(Path(TERNARY).read_bytes().replace(b"<|endoftext|>", b"<|endOftext|>"))
            self.check(FAILED, "compare", TERNARY, path, stdin=b"some text", says=["different tokens"])
        self.check(FAILED, "generate", "-m", TERNARY, "-p", "", says=["empty", "-p"])
        self.check(FAILED, "tokenize", "-m", TERNARY, says=["empty"])
        self.check(FAILED, "generate", "-m", TERNARY, "-p", "word " * 1000, says=["512", "shorten"])
        self.check(FAILED, "generate", "-m", TERNARY, "-p", "word " * 10, "--ctx", "5", says=["5", "--ctx"])
        self.check(FAILED, "generate", "-m", TERNARY, "-p", "x", "--ctx", "100000", says=["512"])

    def test_output_that_cannot_be_written_is_an_error(self):
        for command in (["info"], ["info", "--json"], ["tokenize", "-m", TERNARY, "-p", "x"], ["generate", "-m", TERNARY, "-p", "x", "-n", "2"]):
            with self.subTest(command=command), open("/dev/full", "wb") as full:
                result = subprocess.run([TERN, *command], stdout=full, stderr=subprocess.PIPE, timeout=300)
                self.assertEqual(result.returncode, FAILED)
                self.assertIn(b"tern: cannot write to stdout", result.stderr)


class OldCpus(CommandTest):
    """The same binary on CPUs without AVX-512, and without AVX at all (qemu-x86_64 of Debian's qemu-user)."""

    def run_on(self, cpu, *args):
        command = ["qemu-x86_64", "-cpu", cpu, TERN, *args]
        result = subprocess.run(command, capture_output=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout

    def test_each_runs_its_best_tier_and_writes_the_same_text(self):
        for cpu, tier in (("Nehalem", "scalar"), ("Haswell", "avx2")):
            info = json.loads(self.run_on(cpu, "info", "--json"))
            self.assertEqual((info["cpu"]["best_tier"], info["cpu"]["tier"]), (tier, tier))
            for model in (TERNARY, INT8):
                args = ["generate", "-m", model, "-p", "hello world", "-n", "12"]
                with self.subTest(cpu=cpu, model=model):
                    self.assertEqual(self.run_on(cpu, *args), tern(*args).stdout)


if __name__ == "__main__":
    main()
