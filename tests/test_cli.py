#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tern command as its users see it: exit codes, error lines, text, JSON keys, Ctrl-C.

usage: test_cli.py TERN MODELS_DIR [unittest arguments]
"""
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

TERN, MODELS = sys.argv[1], Path(sys.argv[2])
TERNARY, INT8, LONG = (str(MODELS / f"{name}.gguf") for name in ("tiny-tq2_0", "tiny-gqa-q8_0", "tiny-long"))
FAILED, USAGE, INTERRUPTED = 1, 2, 130
STAGES = {"quantize", "lut_build", "lut_gemm", "sign_gemm", "mad_gemm", "int8_gemm", "int8_gemm_b32", "int4_gemm_b32", "int6_gemm_b32", "split_gemm_b32", "screen", "screen_rows", "screen_project", "rmsnorm", "silu_mul", "relu2_mul", "attention", "attention_int8", "attention_merge", "to_half", "dot_f32", "dot_f16"}


def tern(*args, stdin=b"", **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("TERN_")} | environment
    env.setdefault("TERN_TUNE", "off")  # not what the developer tuned
    return subprocess.run([TERN, *args], input=stdin, capture_output=True, env=env, timeout=300)


class Errors(unittest.TestCase):
    def check(self, code, *args, says=(), **kwargs):
        """Fails with this code and one line on stderr that begins with `tern: `, and prints nothing on stdout."""
        result = tern(*args, **kwargs)
        lines = result.stderr.decode().splitlines()
        self.assertEqual(result.returncode, code, lines)
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith("tern: "), lines)
        self.assertEqual(result.stdout, b"")
        for word in says:
            self.assertIn(word, lines[0])

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
        self.check(USAGE, "tune", "--shape", "64", says=["--shape", "4096x2560"])
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
        self.check(FAILED, "info", "--isa", "mmx", says=["mmx", "avx2"])
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


class Info(unittest.TestCase):
    def test_names_that_are_not_text_are_shown_as_text(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.fsencode(folder) + b"/\xff.gguf"
            Path(os.fsdecode(path)).write_bytes(Path(TERNARY).read_bytes().replace(b"random tiny", b"\x1b[31m\xff\nende"))
            model = json.loads(tern("info", "--json", "-m", path).stdout)["model"]
            self.assertEqual((model["path"], model["name"]), (f"{folder}/\ufffd.gguf", "\x1b[31m\ufffd\nende"))
            self.assertIn(b": ?[31m\xff?ende, architecture", tern("info", "-m", path).stdout)
            generated = json.loads(tern("generate", "--json", "-n", "1", "-p", "x", "-m", path).stdout)
            self.assertEqual(generated["model"], f"{folder}/\ufffd.gguf")

    def test_json_has_the_keys_scripts_rely_on(self):
        info = json.loads(tern("info", "--json", "-m", INT8).stdout)
        self.assertEqual(info["schema"], "tern.info/1")
        self.assertLessEqual({"version", "cpu", "kernels", "topology", "variants", "tuning", "model"}, info.keys())
        self.assertLessEqual({"vendor", "model", "isa"}, info["cpu"].keys())
        self.assertIsInstance(info["cpu"]["isa"], list)
        self.assertLessEqual(STAGES, info["kernels"].keys())
        self.assertLessEqual({"cores", "threads", "l3_bytes"}, info["topology"].keys())
        model = info["model"]
        self.assertEqual((model["architecture"], model["layers"], model["hidden"], model["kv_heads"]), ("llama", 3, 256, 2))
        self.assertEqual(sum(t["bytes"] > 0 for t in model["types"].values()), len(model["types"]))
        self.assertEqual((model["head"], model["head_bytes"] * 8), ("i6b32", model["vocab"] * 256 * 6.875))
        exact = json.loads(tern("info", "--json", "-m", INT8, "--head", "exact").stdout)["model"]
        self.assertEqual((exact["head"], exact["int8_matrices"]), ("Q8_0", model["int8_matrices"] - 1))
        self.assertEqual(model["act_block"], 0)
        self.assertEqual(json.loads(tern("info", "--json", "-m", INT8, "--act-block", "64").stdout)["model"]["act_block"], 64)

    def test_people_see_the_same_tier_as_scripts(self):
        for tier in ("scalar", None):
            args = ["--isa", tier] if tier else []
            info = json.loads(tern("info", "--json", *args).stdout)
            text = tern("info", *args).stdout.decode()
            self.assertIn(f"tier      {info['cpu']['tier']} ", text)
        self.assertEqual(set(json.loads(tern("info", "--json", "--isa", "scalar").stdout)["kernels"].values()), {"scalar"})

    def test_threads_come_from_the_option_before_the_environment(self):
        def threads(*args, **environment):
            return json.loads(tern("info", "--json", *args, **environment).stdout)["topology"]["threads"]
        self.assertEqual(threads(TERN_THREADS="2"), 2)
        self.assertEqual(threads("-t", "1", TERN_THREADS="2"), 1)

    def test_version_and_help_go_to_stdout(self):
        version = tern("--version")
        self.assertEqual((version.returncode, version.stdout), (0, f"tern {json.loads(tern('info', '--json').stdout)['version']}\n".encode()))
        for args in (["--help"], ["info", "--help"], ["generate", "-h"], ["tokenize", "--help"], ["bench", "--help"],
                     ["tune", "--help"]):
            result = tern(*args)
            self.assertEqual((result.returncode, result.stderr), (0, b""))
            for part in (b"Usage: tern", b"Examples:", b"TERN_THREADS", b"TERN_ISA"):
                self.assertIn(part, result.stdout)


class Tokenize(unittest.TestCase):
    def test_pieces_give_the_text_back(self):
        text = 'one two\n"three" naïve 日本 🐦'
        result = json.loads(tern("tokenize", "-m", TERNARY, "--no-bos", "--json", stdin=text.encode()).stdout)
        self.assertEqual(result["schema"], "tern.tokenize/1")
        self.assertEqual(result["count"], len(result["ids"]))
        self.assertEqual(len(result["pieces"]), len(result["ids"]))
        pieces = [p for p in result["pieces"] if "\N{REPLACEMENT CHARACTER}" not in p]
        self.assertTrue("".join(pieces).startswith("one two\n\"three\" na"))

    def test_stdin_option_and_ids_agree(self):
        ids = tern("tokenize", "-m", INT8, "--ids", "-p", "hello world").stdout.split()
        self.assertEqual(ids, tern("tokenize", "-m", INT8, "--ids", stdin=b"hello world").stdout.split())
        lines = tern("tokenize", "-m", INT8, "-p", "hello world").stdout.splitlines()
        self.assertEqual(ids, [line.split()[0] for line in lines])

    def test_special_tokens_are_text_unless_asked_for(self):
        def count(*args):
            return json.loads(tern("tokenize", "-m", TERNARY, "--no-bos", "--json", "-p", "<|im_end|>", *args).stdout)["count"]
        self.assertGreater(count(), 1)
        self.assertEqual(count("--special"), 1)


class Generate(unittest.TestCase):
    def test_json_has_the_keys_scripts_rely_on(self):
        result = tern("generate", "-m", TERNARY, "-p", "hello", "-n", "9", "--json")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        out = json.loads(result.stdout)
        self.assertEqual(out["schema"], "tern.generate/1")
        self.assertEqual((out["generated_tokens"], out["stop"]), (9, "length"))
        self.assertIsInstance(out["text"], str)
        self.assertLessEqual(STAGES, out["kernels"].keys())
        for key in ("prompt_tokens", "prefill_tok_per_s", "decode_tok_per_s", "first_token_ms", "threads"):
            self.assertGreater(out[key], 0, key)
        times = out["token_ms"]
        self.assertTrue(0 < times["p50"] <= times["p95"] <= times["p99"])

    def test_what_was_not_measured_is_null(self):
        out = json.loads(tern("generate", "-m", TERNARY, "-p", "hello", "-n", "1", "--json").stdout)
        self.assertIsNone(out["decode_tok_per_s"])
        self.assertIsNone(out["token_ms"]["p50"])

    def test_stream_and_json_write_the_same_text(self):
        args = ["generate", "-m", TERNARY, "-p", "hello world", "-n", "300"]
        stream = tern(*args)
        text = json.loads(tern(*args, "--json").stdout)["text"]
        self.assertEqual(stream.returncode, 0)
        self.assertEqual(stream.stdout.decode(errors="replace").rstrip("\n"), text.rstrip("\n"))
        for word in (b"tok/s", b"p50", b"p95", b"p99", b"threads"):
            self.assertIn(word, stream.stderr)

    def test_greedy_text_is_the_same_for_every_tier_form_and_number_of_threads(self):
        for model in (TERNARY, INT8):
            texts = set()
            for extra in ([], ["--isa", "scalar"], ["-t", "1"], ["-t", "5"], ["--kernel", "lut"], ["--kernel", "mad"]):
                texts.add(tern("generate", "-m", model, "-p", "hello world", "-n", "40", *extra).stdout)
            self.assertEqual(len(texts), 1, model)

    def test_seed_decides_the_sampled_text(self):
        def text(seed):
            return tern("generate", "-m", INT8, "-p", "hello", "-n", "40", "--temp", "2", "--seed", seed).stdout
        self.assertEqual(text("7"), text("7"))
        self.assertNotEqual(text("7"), text("8"))

    def test_guesses_change_the_speed_and_not_the_text(self):
        """Tiny random models repeat themselves, so many guesses are right, and many are wrong."""
        right = wrong = 0
        for model in (TERNARY, INT8):
            for options in (["-n", "60"], ["-n", "70", "--ctx", "64"], ["-n", "40", "--temp", "0.6", "--seed", "3"]):
                args = ["generate", "-m", model, "-p", "the cat the cat the", "--json", *options]
                plain = json.loads(tern(*args).stdout)
                self.assertEqual((plain["drafted_tokens"], plain["accepted_tokens"]), (0, 0))
                for draft in ("1", "3", "8", "64"):
                    got = json.loads(tern(*args, "--draft", draft).stdout)
                    for key in ("text", "generated_tokens", "stop"):
                        self.assertEqual(got[key], plain[key], (model, options, draft))
                    self.assertLessEqual(got["accepted_tokens"], got["drafted_tokens"])
                    right += got["accepted_tokens"]
                    wrong += got["drafted_tokens"] - got["accepted_tokens"]
        self.assertGreater(right, 0)
        self.assertGreater(wrong, 0)

    def test_a_prompt_cache_saves_reading_and_changes_no_text(self):
        def run(prompt, *args):
            return json.loads(tern("generate", "-m", INT8, "-n", "12", "-p", prompt, "--json", *args).stdout)
        for kv in ("f16", "int8"):
            with tempfile.TemporaryDirectory() as folder:
                cache = ("--kv", kv, "--prompt-cache", f"{folder}/cache")
                prompt, longer = "The tern flies over the sea", "The tern flies over the sea and back, again and again"
                first = run(prompt, *cache)
                self.assertEqual(first["reused_tokens"], 0)
                for draft in ("0", "4"):
                    for text in (longer, prompt, "The dog", prompt, longer):
                        plain, got = run(text, "--kv", kv), run(text, *cache, "--draft", draft)
                        for key in ("text", "prompt_tokens", "stop"):
                            self.assertEqual(got[key], plain[key], (kv, draft, text, key))
                        self.assertLess(got["reused_tokens"], got["prompt_tokens"])
                self.assertGreater(run(longer, *cache)["reused_tokens"], first["prompt_tokens"])
                shown = tern("generate", "-m", INT8, "-n", "2", "-p", prompt, *cache).stderr.decode()
                self.assertIn(f"{first['prompt_tokens'] - 1} tokens of {folder}/cache", shown)

    def test_a_prompt_cache_of_something_else_is_refused_with_the_remedy(self):
        with tempfile.TemporaryDirectory() as folder:
            cache = f"{folder}/cache"
            args = ("-p", "The tern", "-n", "2", "--prompt-cache", cache)
            self.assertEqual(tern("generate", "-m", INT8, *args).returncode, 0)
            Errors.check(self, FAILED, "generate", "-m", TERNARY, *args, says=[cache, "another model", "delete it"])
            Errors.check(self, FAILED, "generate", "-m", INT8, "--kv", "int8", *args, says=[cache, "f16", "int8"])
            data = Path(cache).read_bytes()
            Path(cache).write_bytes(data[:-1])
            Errors.check(self, FAILED, "generate", "-m", INT8, *args, says=[cache, "damaged", "delete it"])
            Path(cache).write_text("my only copy of a long letter, which is longer than the header of a saved session is")
            Errors.check(self, FAILED, "generate", "-m", INT8, *args, says=[cache, "no saved session"])
            self.assertTrue(Path(cache).read_text().startswith("my only copy"))
            for place in ("/missing/cache", f"{cache}/below", ""):  # before any text
                Errors.check(self, FAILED, "generate", "-m", INT8, *args, "--prompt-cache", place, says=[place, "--prompt-cache"])

    def test_keys_and_values_in_int8_are_near_those_in_float16(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
            text.write("The tern is a bird that flies far over the sea. " * 20)
            text.flush()
            args = ("-f", text.name, "--json")
            same = json.loads(tern("compare", INT8, INT8, "--kv", "int8", *args).stdout)
            self.assertEqual(same["mean_kl_nats"], 0)
            apart = json.loads(tern("compare", INT8, INT8, "--kv-b", "int8", *args).stdout)
            self.assertGreater(apart["mean_kl_nats"], 0)
            self.assertLess(apart["mean_kl_nats"], 0.02)
            alone = json.loads(tern("perplexity", "-m", INT8, "--kv", "int8", *args).stdout)
            self.assertAlmostEqual(alone["perplexity"] / apart["perplexity_b"], 1, 4)

    def test_prompts_come_from_an_option_a_file_or_stdin(self):
        def text(*args, stdin=b""):
            result = tern("generate", "-m", TERNARY, "-n", "9", "--json", *args, stdin=stdin)
            self.assertEqual(result.returncode, 0, result.stderr)
            return json.loads(result.stdout)["text"]
        want = text("-p", "hello\nworld")
        self.assertEqual(text(stdin=b"hello\nworld\n"), want)
        self.assertEqual(text("-p", "-", stdin=b"hello\nworld"), want)
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(b"hello\nworld\n")
            self.assertEqual(text("-f", file.name), want)
            result = tern("generate", "-m", TERNARY, "-f", file.name, "-p", "x")
            self.assertEqual((result.returncode, result.stderr), (USAGE, b"tern: -p and -f are two prompts; give one of them\n"))

    def test_a_stop_string_ends_the_text_before_it(self):
        args = ["generate", "-m", INT8, "-p", "hello world", "-n", "60", "--json"]
        whole = json.loads(tern(*args).stdout)
        for start, size in ((3, 1), (10, 2), (20, 5), (17, 9)):  # wherever tokens end
            stop = whole["text"][start:start + size]
            if "\N{REPLACEMENT CHARACTER}" in stop or "\0" in stop:
                continue
            got = json.loads(tern(*args, "--stop", "never said", "--stop", stop).stdout)
            self.assertEqual((got["text"], got["stop"]), (whole["text"][:whole["text"].index(stop)], "stop"))
            self.assertLess(got["generated_tokens"], whole["generated_tokens"])
            stream = tern(*args[:-1], "--stop", stop)
            self.assertEqual(stream.stdout.decode(errors="replace").rstrip("\n"), got["text"].rstrip("\n"))
        self.assertEqual(tern(*args, "--stop", "").returncode, USAGE)

    def test_biases_and_penalties_change_the_text(self):
        args = ["generate", "-m", INT8, "-p", "hello world", "-n", "40", "--json"]
        def text(*extra):
            result = tern(*args, *extra)
            self.assertEqual(result.returncode, 0, result.stderr)
            return json.loads(result.stdout)["text"]
        plain = text()
        self.assertEqual(text("--repeat-penalty", "1", "--logit-bias", "7=0"), plain)
        self.assertNotEqual(text("--repeat-penalty", "5"), plain)
        self.assertEqual(text("--repeat-penalty", "5", "--draft", "8"), text("--repeat-penalty", "5"))
        self.assertEqual(len(set(text("--logit-bias", "65=1000"))), 1)
        for option, value in (("--repeat-penalty", "-1"), ("--repeat-penalty", "nan"), ("--repeat-last", "0"), ("--logit-bias", "7"),
                              ("--logit-bias", "=1"), ("--logit-bias", "x=1"), ("--logit-bias", "7=inf"), ("--logit-bias", "7=nan")):
            with self.subTest(option=option, value=value):
                self.assertEqual(tern(*args, option, value).returncode, USAGE)
        self.assertEqual(tern(*args, "--logit-bias", "1000000=1").returncode, FAILED)

    def test_chat_wraps_the_prompt(self):
        def prompt_tokens(*args):
            return json.loads(tern("generate", "-m", TERNARY, "-p", "hello", "-n", "1", "--json", *args).stdout)["prompt_tokens"]
        self.assertLess(prompt_tokens(), prompt_tokens("--chat"))
        self.assertLess(prompt_tokens("--chat"), prompt_tokens("--chat", "--system", "Be a bird."))

    def test_generation_stops_where_the_context_is_full(self):
        out = json.loads(tern("generate", "-m", TERNARY, "-p", "hello world", "-n", "100", "--ctx", "20", "--json").stdout)
        self.assertEqual(out["stop"], "context")
        self.assertEqual(out["prompt_tokens"] + out["generated_tokens"], 21)  # the last token is shown, not decoded

    def test_ctrl_c_ends_with_the_text_so_far(self):
        command = [TERN, "generate", "-m", LONG, "-p", "hello", "-n", "30000"]
        for extra in ([], ["--json"]):
            with subprocess.Popen(command + extra, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                if extra:
                    wait_for_handler(process.pid)
                else:
                    self.assertTrue(process.stdout.read(1))
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=300)
            self.assertEqual(process.returncode, INTERRUPTED, err)
            if extra:
                self.assertEqual(json.loads(out)["stop"], "interrupt")
            else:
                self.assertTrue(out.endswith(b"\n"))
                self.assertIn(b"stopped by: interrupt", err)

    def test_a_timeout_ends_with_the_text_so_far_and_is_no_error(self):
        command = [TERN, "generate", "-m", LONG, "-n", "30000", "--json", "--timeout"]
        result = subprocess.run(command + ["0.3", "-p", "hello"], capture_output=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr)
        out = json.loads(result.stdout)
        self.assertEqual(out["stop"], "timeout")
        self.assertLess(out["generated_tokens"], 30000)
        result = subprocess.run(command + ["0.001"], input=b"hello " * 5000, capture_output=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr)
        out = json.loads(result.stdout)
        self.assertEqual((out["stop"], out["generated_tokens"], out["first_token_ms"]), ("timeout", 0, None))

    def test_each_of_parallel_texts_is_the_one_its_seed_gives_alone(self):
        args = ["generate", "-m", INT8, "-p", "the cat", "-n", "20", "--temp", "0.9", "--stop", "z", "--json"]
        out = json.loads(tern(*args, "--seed", "5", "--parallel", "6").stdout)
        self.assertEqual([s["seed"] for s in out["sequences"]], [5, 6, 7, 8, 9, 10])
        for sequence in out["sequences"]:
            alone = json.loads(tern(*args, "--seed", str(sequence["seed"])).stdout)
            for key in ("text", "stop", "generated_tokens"):
                self.assertEqual(sequence[key], alone[key])
        self.assertEqual(sum(s["generated_tokens"] for s in out["sequences"]), out["generated_tokens"])
        self.assertGreater(len({s["text"] for s in out["sequences"]}), 1)

    def test_parallel_texts_are_printed_below_a_line_each(self):
        result = tern("generate", "-m", TERNARY, "-p", "hello", "-n", "9", "--temp", "0.9", "--parallel", "3")
        self.assertEqual(result.returncode, 0, result.stderr)
        for i in range(3):
            self.assertIn(f"--- {i + 1} of 3, seed {i}, 9 tokens, stopped by: length\n".encode(), result.stdout)
        self.assertIn(b"generated  27 tokens in 3 sequences", result.stderr)

    def test_parallel_texts_that_a_timeout_ends_in_the_prompt_are_told_as_well(self):
        result = tern("generate", "-m", LONG, "-n", "9", "--parallel", "2", "--timeout", "0.001", stdin=b"hello " * 5000)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.count(b", 0 tokens, stopped by: timeout\n"), 2)

    def test_ctrl_c_ends_parallel_texts_as_far_as_they_came(self):
        command = [TERN, "generate", "-m", LONG, "-p", "hello", "-n", "30000", "--parallel", "3", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            wait_for_handler(process.pid)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=300)
        self.assertEqual(process.returncode, INTERRUPTED, err)
        self.assertEqual([s["stop"] for s in json.loads(out)["sequences"]], ["interrupt"] * 3)

    def test_the_time_of_a_text_is_told_by_groups_of_stages(self):
        groups = {"norm", "qkv", "attention", "ffn", "head", "sample", "other"}
        out = json.loads(tern("generate", "-m", TERNARY, "-p", "hello", "-n", "40", "--json").stdout)
        self.assertEqual(set(out["stages_ms"]), {"prompt", "token"})
        for times in out["stages_ms"].values():
            self.assertEqual(set(times), groups)
            for group in groups - {"norm", "sample", "other"}:  # small norms are part of the product behind them
                self.assertGreater(times[group], 0)
        self.assertLessEqual(sum(out["stages_ms"]["token"].values()), 1.01e3 / out["decode_tok_per_s"])
        result = tern("generate", "-m", TERNARY, "-p", "hello", "-n", "40", "--stats")
        for line in (b"in prompt ", b"per token "):
            self.assertIn(line, result.stderr)

    def test_nothing_but_text_reaches_a_terminal_in_a_short_run(self):
        try:
            master, slave = pty.openpty()
        except OSError as error:
            self.skipTest(str(error))  # a chroot or container without /dev/ptmx
        start = time.monotonic()
        result = subprocess.run([TERN, "generate", "-m", TERNARY, "-p", "hello", "-n", "2"], stdout=slave, stderr=slave, timeout=300)
        took = time.monotonic() - start
        os.close(slave)
        shown = os.read(master, 1 << 16)
        os.close(master)
        self.assertEqual(result.returncode, 0)
        if took > 1:
            self.skipTest("the machine is too busy for a short run")
        self.assertNotIn(b"\x1b", shown)  # no progress line where there was nothing to wait for


def wait_for_handler(pid):
    """Until the process catches SIGINT."""
    while True:
        caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) & (1 << (signal.SIGINT - 1)):
            return


class Predictions(unittest.TestCase):
    """tern perplexity and tern compare."""
    TEXT = ("the cat sat on the mat and the dog did not; " * 12).encode()

    def measure(self, *args):
        result = tern(*args, "--json", stdin=self.TEXT)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_perplexity_has_the_keys_scripts_rely_on_and_counts_each_token_once(self):
        n = json.loads(tern("tokenize", "-m", INT8, "--json", stdin=self.TEXT).stdout)["count"]
        for ctx, stride in (("512", "1"), ("40", "13"), ("64", "62"), ("8", "4")):
            got = self.measure("perplexity", "-m", INT8, "--ctx", ctx, "--stride", stride)
            self.assertEqual(set(got), {"schema", "model", "ctx", "stride", "tokens", "bytes", "perplexity", "loss_nats", "loss_standard_error",
                                        "bits_per_byte", "seconds"})
            self.assertEqual((got["schema"], got["tokens"]), ("tern.perplexity/1", n - 1))  # this model has no BOS: nothing predicts the first
            self.assertAlmostEqual(got["perplexity"], 2.718281828 ** got["loss_nats"], delta=1e-3 * got["perplexity"])
            self.assertAlmostEqual(got["bits_per_byte"], got["loss_nats"] * got["tokens"] / got["bytes"] / 0.693147, delta=1e-4)

    def test_a_window_over_all_of_the_text_predicts_as_a_file_does(self):
        whole = self.measure("perplexity", "-m", INT8, "--ctx", "512", "--stride", "500")
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(self.TEXT)
            again = self.measure("perplexity", "-m", INT8, "--ctx", "512", "-t", "1", "-f", file.name)
        self.assertEqual(whole["loss_nats"], again["loss_nats"])

    def test_a_model_is_no_distance_from_itself_and_some_from_another(self):
        keys = {"schema", "a", "b", "ctx", "stride", "tokens", "mean_kl_nats", "kl_standard_error", "max_kl_nats", "same_next_token", "perplexity_a",
                "perplexity_b"}
        same, other = self.measure("compare", INT8, INT8, "--ctx", "64"), self.measure("compare", INT8, TERNARY, "--ctx", "64")
        self.assertEqual(set(same), keys)
        self.assertEqual((same["mean_kl_nats"], same["same_next_token"]), (0, 1))
        self.assertGreater(other["mean_kl_nats"], 0.01)
        self.assertLess(other["same_next_token"], 1)
        exact = self.measure("compare", INT8, INT8, "--ctx", "64", "--head", "exact", "--head-b", "exact")
        int8 = self.measure("compare", INT8, INT8, "--ctx", "64", "--head", "exact", "--head-b", "int8")
        int4 = self.measure("compare", INT8, INT8, "--ctx", "64", "--head", "exact", "--head-b", "int4")
        self.assertEqual(exact["mean_kl_nats"], 0)
        self.assertGreater(int8["mean_kl_nats"], 0)
        self.assertGreater(int4["mean_kl_nats"], 4 * int8["mean_kl_nats"])
        self.assertEqual(other["perplexity_a"], self.measure("perplexity", "-m", INT8, "--ctx", "64")["perplexity"])


class Tune(unittest.TestCase):
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


TQ2_0, Q2_0 = 35, 42  # ids in the file


def as_q2_0(source, block):
    """The bytes of a GGUF file whose TQ2_0 tensors have become Q2_0 in blocks of 64 or 128, with the same weights."""
    import gguf
    import numpy as np
    data, tensors = Path(source).read_bytes(), gguf.GGUFReader(source).tensors
    head, infos, body = data[:min(int(t.field.offset) for t in tensors)], b"", b""
    for t in tensors:
        bytes_, kind, dims = t.data.tobytes(), int(t.tensor_type), [int(d) for d in t.shape]
        if kind == TQ2_0:
            blocks = np.frombuffer(bytes_, np.uint8).reshape(dims[1], dims[0] // 256, 66)  # 64 bytes of codes, then the scale
            halves = blocks[:, :, :64].reshape(dims[1], -1, 2, 1, 32)
            codes = (halves >> np.arange(0, 8, 2, dtype=np.uint8).reshape(4, 1) & 3).reshape(dims[1], dims[0] // block, block // 4, 4)
            packed = np.bitwise_or.reduce(codes << np.arange(0, 8, 2, dtype=np.uint8), axis=3)
            bytes_ = np.concatenate([np.repeat(blocks[:, :, 64:], 256 // block, axis=1), packed], axis=2).tobytes()
            kind = Q2_0
        name = t.name.encode()
        infos += struct.pack(f"<Q{len(name)}sI{len(dims)}QIQ", len(name), name, len(dims), *dims, kind, len(body))
        body += bytes_ + bytes(-len(bytes_) % 32)
    head += infos
    return head + bytes(-len(head) % 32) + body


class Q2(unittest.TestCase):
    def test_a_model_in_q2_0_writes_the_text_of_the_same_weights_in_tq2_0(self):
        args = ["-p", "hello world", "-n", "12"]
        text = tern("generate", "-m", TERNARY, *args).stdout
        for block in (64, 128):
            with tempfile.NamedTemporaryFile(suffix=".gguf") as model, self.subTest(block=block):
                model.write(as_q2_0(TERNARY, block))
                model.flush()
                info = json.loads(tern("info", "-m", model.name, "--json").stdout)["model"]
                self.assertEqual((info["types"]["Q2_0"]["tensors"], info["ternary_matrices"]), (14, 14))
                self.assertEqual(tern("generate", "-m", model.name, *args).stdout, text)


class Pack(unittest.TestCase):
    """tern pack, --load, and what is refused."""
    check = Errors.check

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

    def test_a_signal_leaves_a_whole_file_or_none(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            for wait in range(12):
                process = subprocess.Popen([TERN, "pack", INT8, self.packed, "-t", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                time.sleep(0.004 * wait)
                process.send_signal(number)
                process.communicate()
                self.assertIn(process.returncode, (0, 130, -number))
                self.assertIn(os.listdir(self.folder), ([], ["model.tern"]))
                if os.listdir(self.folder):
                    self.assertEqual(tern("pack", "--verify", self.packed).returncode, 0)
                    os.remove(self.packed)

    def test_a_packed_model_keeps_its_blocks_of_activations(self):
        self.assertEqual(tern("pack", TERNARY, self.packed, "--act-block", "32").returncode, 0)
        want = self.generate("-m", TERNARY, "--act-block", "32")
        for options in ([], ["--act-block", "32"], ["--act-block", "auto"]):
            self.assertEqual(self.generate("-m", self.packed, *options), want)
        self.assertIn(b"activations in blocks of 32", tern("info", "-m", self.packed).stdout)
        self.check(FAILED, "generate", "-m", self.packed, "--act-block", "64", says=["act-block 32", "64", "tern pack"])

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
        self.check(USAGE, "generate", "-m", self.packed, "--load", "fast", says=["--load", "copy"])
        self.check(FAILED, "pack", TERNARY, "/missing/model.tern", says=["/missing/model.tern"])
        self.check(FAILED, "pack", "/missing/model.gguf", "/missing/model.tern", says=["/missing/model.tern", "folder"])  # before it packs
        self.check(FAILED, "pack", TERNARY, TERNARY, says=[TERNARY, "another name"])
        self.check(FAILED, "pack", TERNARY, str(self.folder), says=[str(self.folder), "another name"])
        self.check(FAILED, "pack", self.packed, str(self.folder / "again.tern"), says=["GGUF"])
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


class OldCpus(unittest.TestCase):
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


class Bench(unittest.TestCase):
    """Takes seconds of full memory bandwidth: a ctest of its own, with the label slow."""

    def test_quick_json_has_the_keys_scripts_rely_on_and_every_figure(self):
        result = tern("bench", "--quick", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        out = json.loads(result.stdout)
        self.assertEqual((out["schema"], out["complete"]), ("tern.bench/1", True))
        for key in ("threads", "dram_gbps", "l3_gbps", "vnni_gops"):
            self.assertGreater(out["roofline"][key], 0, key)
        self.assertEqual({r["residency"] for r in out["results"]}, {"dram", "hot"})
        self.assertEqual({r["op"] for r in out["results"]}, {"lut_gemm", "mad_gemm"})
        for result in out["results"]:
            self.assertIn(result["bound"], ("dram", "l3", "int8"))
            self.assertIsInstance(result["variant"], str)
            for key in ("m", "n", "k", "threads", "bits_per_weight", "gops", "gmacs", "gbps", "mac_per_cycle", "fraction"):
                self.assertGreater(result[key], 0, (key, result))
            self.assertTrue(result["symbol"].startswith("tern_" + result["op"]), result)
            self.check_workers(result)

    def check_workers(self, result):
        """One object for each worker; nobody stole more than they ran."""
        self.assertEqual(len(result["workers"]), result["threads"])
        for worker in result["workers"]:
            self.assertEqual(set(worker), {"tiles", "stolen", "regions", "spin_ns", "parks", "wakes"})
            self.assertLessEqual(worker["stolen"], worker["tiles"])
        self.assertGreater(sum(worker["tiles"] for worker in result["workers"]), 0)

    def test_filters_leave_only_what_they_name(self):
        result = tern("bench", "--op", "mad_gemm", "--shape", "3x7", "--shape", "65x256", "--m", "1,3", "--block", "0,64",
                      "--residency", "hot", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        cases = {(r["op"], r["n"], r["m"], r["scale_block"], r["residency"]) for r in json.loads(result.stdout)["results"]}
        self.assertEqual(cases, {("mad_gemm", n, m, block, "hot") for n in (3, 65) for m in (1, 3) for block in (0, 64)})

    def test_every_stage_that_multiplies_weights_is_measured(self):
        result = tern("bench", "--shape", "65x256", "--m", "1", "--block", "0", "--residency", "hot", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual({r["op"] for r in json.loads(result.stdout)["results"]}, {stage for stage in STAGES if "_gemm" in stage})


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
