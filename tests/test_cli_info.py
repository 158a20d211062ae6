#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tern info and tern tokenize as their users see them.

usage: test_cli_info.py TERN MODELS_DIR [unittest arguments]
"""
import json
import os
import tempfile
from pathlib import Path

from cli_fixture import CommandTest, INT8, main, STAGES, tern, TERNARY


class Info(CommandTest):
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


class Tokenize(CommandTest):
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


if __name__ == "__main__":
    main()
