#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The manual page names what the command has: each option of --help, and each key of its JSON.

usage: test_manual.py TERN MODELS_DIR [unittest arguments]
"""
import json
import re
import sys
import tempfile
import unittest
from pathlib import Path

from cli_fixture import INT8, tern  # reads the same arguments

PAGE = (Path(__file__).resolve().parent.parent / "docs/tern.1").read_text(encoding="utf-8")
COMMANDS = ("info", "generate", "chat", "pack", "tokenize", "perplexity", "compare", "bench", "tune")
OWN_KEYS = {"types", "kernels"}  # their members are names of tensor types and of stages
TEXT = b"hello world, hello world, hello\n"
RUNS = (["info", "-m", INT8], ["tokenize", "-m", INT8], ["generate", "-m", INT8, "-n", "4"], ["generate", "-m", INT8, "-n", "4", "--parallel", "2"],
        ["generate", "-m", INT8, "-n", "4", "--head", "screened"],
        ["perplexity", "-m", INT8, "--ctx", "8"], ["compare", INT8, INT8, "--ctx", "8"], ["pack", INT8])


def help_of(command):
    return tern(command, "--help").stdout.decode().split("Examples:")[0]


def options(command):
    return set(re.findall(r"--([a-z][a-z0-9-]*)", help_of(command)))


def named_options(text=PAGE):
    return set(re.findall(r"\bFl -([a-z][a-z0-9-]*)", text))


def section(command):
    """What the page says of a command, and of all."""
    general, *sections = re.split(r"^\.Ss tern ", PAGE.split(".Sh TRACES")[0], flags=re.M)
    return general + next(s for s in sections if s.split(maxsplit=1)[0] == command)


def keys(value):
    """Of an object and those inside it."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(keys(inner) for name, inner in value.items() if name not in OWN_KEYS))


class Manual(unittest.TestCase):
    def test_each_option_is_in_the_manual_and_the_manual_has_no_others(self):
        of_all = set()
        for command in COMMANDS:
            self.assertLessEqual(options(command), named_options(), command)
            of_all |= options(command)
            text, letters = section(command), dict(re.findall(r"-([a-z]), --([a-z][a-z0-9-]*)", help_of(command)))
            named = named_options(text) | {letters.get(letter) for letter in re.findall(r"\bFl ([a-z])\b", text)}
            self.assertEqual(options(command) - named, set(), command)
        self.assertEqual(named_options() - of_all, {"version"})

    def test_each_key_of_json_is_in_the_manual(self):
        words = set(re.findall(r"[a-z][a-z0-9_]*", PAGE))
        with tempfile.TemporaryDirectory() as folder:
            reports = [tern(*run, *([f"{folder}/model.tern"] if run[0] == "pack" else []), "--json", stdin=TEXT) for run in RUNS]
        for report in reports:
            self.assertEqual((report.returncode, report.stderr), (0, b""))
            self.assertLessEqual(keys(json.loads(report.stdout)), words, report.args)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
