#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Greedy text is the same on every tier and thread count, with guesses or without, however weights, head and prompt are treated;
so is text drawn by top-k with a screened head.

Each variant below runs `tern generate` and must write what the first one of its family wrote.

usage: check_greedy.py TERN MODEL... [--tokens N] [--prompt TEXT]
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TIERS = ("scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi")
THREADS = (1, 2, 5)
PROMPT = "the cat and the hat on the mat and the cat and the rat in the hat with the bat " * 4  # repeats itself, so that guesses come true
TOKENS = 100


@dataclasses.dataclass(frozen=True)
class Variant:
    name: str
    options: tuple[str, ...]
    packed: bool = False  # the model as tern pack writes it


# What may change digits: each family has a text of its own.
FAMILIES = (Variant("float16 keys and values", ()), Variant("INT8 keys and values", ("--kv", "int8")))
# Heads that write the INT8 head's text.
INT8_HEADS = (Variant("INT8 head", ("--head", "int8")), Variant("screened head", ("--head", "screened")),
              Variant("screened head, 5 threads", ("--head", "screened", "-t", "5")),
              Variant("screened head, 8 guessed tokens", ("--head", "screened", "--draft", "8")),
              Variant("screened head, 4 sequences at once", ("--head", "screened", "--parallel", "4")),
              Variant("screened head, top-k", ("--head", "screened", "--temp", "0.0001", "--top-k", "5")))
DRAWN = ("--temp", "1", "--top-k", "20", "--seed", "3")
DRAWN_HEADS = (Variant("INT8 head", ("--head", "int8")), Variant("screened head", ("--head", "screened")),
               Variant("screened head, 8 guessed tokens", ("--head", "screened", "--draft", "8")))
ACT_BLOCKS = Variant("activations per 64", ("--act-block", "64"))  # of ternary models
# What may not: each alone, on the best tier with 2 threads.
VARIANTS = (
    Variant("8 guessed tokens at once", ("--draft", "8")),
    Variant("1 guessed token", ("--draft", "1")),
    Variant("4 sequences at once", ("--parallel", "4")),
    Variant("table lookup", ("--kernel", "lut")),
    Variant("multiply-add", ("--kernel", "mad")),
    Variant("packed, mapped", ("--load", "map"), packed=True),
    Variant("packed, copied", ("--load", "copy"), packed=True),
    Variant("packed, 8 guessed tokens", ("--draft", "8"), packed=True),
    Variant("a longer context", ("--ctx", "500")),
)


def tern(args: argparse.Namespace, *arguments) -> dict:
    env = {k: v for k, v in os.environ.items() if not k.startswith("TERN_")} | {"TERN_TUNE": "off"}
    done = subprocess.run([args.tern, *arguments, "--json"], capture_output=True, text=True, env=env)
    if done.returncode != 0:
        sys.exit(f"check_greedy: {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def generate(args: argparse.Namespace, model: Path, options: tuple[str, ...]) -> dict:
    return tern(args, "generate", "-m", model, "-p", args.prompt, "-n", str(args.tokens), "--temp", "0", *options)


def usable_tiers(args: argparse.Namespace) -> list[str]:
    return list(TIERS[:TIERS.index(tern(args, "info")["cpu"]["best_tier"]) + 1])


def variants_of(tiers: list[str]) -> list[Variant]:
    grid = [Variant(f"{tier}, {threads} threads", ("--isa", tier, "-t", str(threads))) for tier in tiers for threads in THREADS]
    return grid + [dataclasses.replace(v, options=("-t", "2", *v.options)) for v in VARIANTS]


def answers(result: dict) -> list[tuple]:
    """Text, length and end of each sequence."""
    return [(r["text"], r["generated_tokens"], r["stop"]) for r in result.get("sequences", [result])]


def check(args: argparse.Namespace, model: Path, packed: Path, family: Variant, variants: list[Variant]) -> int:
    first, = answers(generate(args, model, family.options + variants[0].options))
    print(f"{model.name}, {family.name}: {first[1]} tokens", flush=True)
    failures = 0
    for variant in variants[1:]:
        result = generate(args, packed if variant.packed else model, family.options + variant.options)
        same = set(answers(result)) == {first}
        failures += not same
        guessed = f" ({result['accepted_tokens']} of {result['drafted_tokens']} guesses came true)" if result.get("drafted_tokens") else ""
        print(f"  {'same' if same else 'OTHER TEXT'}: {variant.name}{guessed}", flush=True)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tern", help="the tern command")
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="GGUF models")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"tokens to write (default: {TOKENS})")
    parser.add_argument("--prompt", default=PROMPT, help="text to continue (default: one that repeats itself)")
    args = parser.parse_args()
    variants = variants_of(usable_tiers(args))
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "model.tern"
        for model in args.models:
            tern(args, "pack", model, packed, "-t", "2")
            failures += sum(check(args, model, packed, family, variants) for family in FAMILIES)
            tern(args, "pack", model, packed, "--head", "screened", "-t", "2")
            heads = [dataclasses.replace(v, options=("-t", "2", *v.options)) for v in INT8_HEADS]
            heads += [dataclasses.replace(v, name=f"screened head, {v.name}") for v in variants if v.packed and "--draft" not in v.options]
            failures += check(args, model, packed, Variant("INT8 head", ()), heads)
            failures += check(args, model, packed, Variant("drawn", DRAWN), list(DRAWN_HEADS))
            if tern(args, "info", "-m", model)["model"]["ternary_matrices"] > 0:
                tern(args, "pack", model, packed, "-t", "2", *ACT_BLOCKS.options)
                failures += check(args, model, packed, ACT_BLOCKS, variants)
    print(f"{failures} differ" if failures else "all the same")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
