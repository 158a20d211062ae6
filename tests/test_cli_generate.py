#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tern generate as its users see it: text, JSON keys, speeds, Ctrl-C.

usage: test_cli_generate.py TERN MODELS_DIR [unittest arguments]
"""
import json
import os
import pty
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from cli_fixture import CommandTest, FAILED, INT8, INTERRUPTED, LONG, main, STAGES, TERN, tern, TERNARY, USAGE, wait_for_handler


class Generate(CommandTest):
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
            self.check(FAILED, "generate", "-m", TERNARY, *args, says=[cache, "another model", "delete it"])
            self.check(FAILED, "generate", "-m", INT8, "--kv", "int8", *args, says=[cache, "f16", "int8"])
            data = Path(cache).read_bytes()
            Path(cache).write_bytes(data[:-1])
            self.check(FAILED, "generate", "-m", INT8, *args, says=[cache, "damaged", "delete it"])
            Path(cache).write_text("my only copy of a long letter, which is longer than the header of a saved session is")
            self.check(FAILED, "generate", "-m", INT8, *args, says=[cache, "no saved session"])
            self.assertTrue(Path(cache).read_text().startswith("my only copy"))
            for place in ("/missing/cache", f"{cache}/below", ""):  # before any text
                self.check(FAILED, "generate", "-m", INT8, *args, "--prompt-cache", place, says=[place, "--prompt-cache"])

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


if __name__ == "__main__":
    main()
