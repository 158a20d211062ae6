#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tern's logits beside llama.cpp's on the same files: tiny random models of each architecture and rope scaling that both run.

Both are fed the same random tokens. Exit code 1 when a model's mean KL divergence is above the limit, or when there was no peer to
measure against.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import numpy as np
    import reference
    import ternlib
except ImportError as missing:
    sys.exit(f"compare_logits: {missing}; run tools/setup.sh and then build/venv/bin/python {sys.argv[0]}")

TOOLS = Path(__file__).resolve().parent
SCHEMA = "tern.compare_logits/1"
POSITIONS = 96
CONTEXT = 512
TOKENS_BELOW = 380  # the vocabulary's specials lie above
# Two query heads per kv head; whole blocks of 256 in each row.
SHAPE = ("--shape", "tiny-gqa", "--layers", "2", "--heads", "4", "--kv-heads", "2", "--head-type", "Q8_0", "--ctx", str(CONTEXT), "--pre", "gpt-2",
         "--seed", "3")
HEAD_DIM = 64  # all heads together are as wide as the hidden size
WIDE_HEAD_DIM = 128  # they are wider


@dataclasses.dataclass(frozen=True)
class Case:
    arch: str
    qtype: str
    scaling: str = "none"

    @property
    def name(self) -> str:
        return f"{self.arch} {self.qtype}" + (f" {self.scaling}" if self.scaling != "none" else "")


ARCHS = ("llama", "bitnet", "qwen2", "qwen3", "phi3")  # bitnet-b1.58 is known to bitnet.cpp and ik_llama.cpp only
WIDE_HEADS = ("llama", "qwen3")  # llama.cpp allows it for these
SCALINGS = (("llama", "linear"), ("llama", "llama3"), ("llama", "yarn"), ("qwen2", "yarn"), ("phi3", "longrope"))
CASES = (*(Case(arch, qtype) for arch in ARCHS for qtype in ("TQ2_0", "Q8_0")), *(Case(arch, "Q8_0", scaling) for arch, scaling in SCALINGS))


class NotMeasured(Exception):
    """The peer is missing or gave no logits; the text says why."""


def make_model(case: Case, folder: Path) -> Path:
    path = folder / f"{case.name.replace(' ', '_')}.gguf"
    head_dim = WIDE_HEAD_DIM if case.arch in WIDE_HEADS else HEAD_DIM
    subprocess.run([sys.executable, TOOLS / "make_model.py", path, *SHAPE, "--head-dim", str(head_dim), "--arch", case.arch, "--type", case.qtype,
                    "--rope-scaling", case.scaling], check=True)
    return path


def peer_logits(python: Path, model: Path, tokens: list[int]) -> np.ndarray:
    out = model.with_suffix(".npy")
    try:
        done = subprocess.run([python, TOOLS / "logits_worker.py", model, out, *map(str, tokens)], capture_output=True, text=True)
    except OSError as error:
        raise NotMeasured(str(error)) from None
    if done.returncode != 0:
        raise NotMeasured((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return np.load(out)


def tern_logits(tern: ternlib.Tern, path: Path, tokens: list[int]) -> np.ndarray:
    """Logits after each token, from one call per token."""
    model = tern.load(path)
    session, rows = model.session(CONTEXT), []
    for token in tokens:
        session.append([token])
        rows.append(session.logits())
    model.close()
    return np.stack(rows)


def compare(peer: np.ndarray, own: np.ndarray, judge: np.ndarray) -> dict[str, float]:
    """KL(peer || Tern) and KL(peer || float32 forward) per position, and how often the likeliest token is the same."""
    p, q, r = (reference.log_softmax(x) for x in (peer, own, judge))
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    return {"mean_kl": float(kl.mean()), "max_kl": float(kl.max()), "float_mean_kl": float((np.exp(p) * (p - r)).sum(axis=1).mean()),
            "agreement_percent": 100 * float((p.argmax(axis=1) == q.argmax(axis=1)).mean())}


def measure(case: Case, tern: ternlib.Tern, python: Path, tokens: list[int], folder: Path) -> dict:
    path = make_model(case, folder)
    judge, _ = reference.Reference(str(path), session=CONTEXT).forward(tokens)
    return compare(peer_logits(python, path, tokens), tern_logits(tern, path, tokens), judge)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable), help="a Python that has llama_cpp (default: this one)")
    parser.add_argument("--limit", type=float, default=0.01, help="largest mean KL divergence in nats (default: 0.01)")
    parser.add_argument("--library", type=Path, default=ternlib.DEFAULT_LIBRARY, help="libtern.so (default: build/release)")
    parser.add_argument("--seed", type=int, default=1, help="of the tokens (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    tokens = [int(t) for t in np.random.default_rng(args.seed).integers(0, TOKENS_BELOW, POSITIONS)]
    rows = []
    try:
        tern = ternlib.Tern(args.library, threads=1)
        if not args.json:
            print(f"{POSITIONS} tokens; KL divergence in nats from llama.cpp's distribution to Tern's, and to that of a float32 NumPy forward\n"
                  f"{'model':24s} {'mean':>9s} {'largest':>9s} {'float32':>9s} {'same top':>9s}")
        with tempfile.TemporaryDirectory() as folder:
            for case in CASES:
                row = measure(case, tern, args.peer_python, tokens, Path(folder))
                rows.append({"model": case.name, **row, "pass": row["mean_kl"] <= args.limit})
                if not args.json:
                    print(f"{case.name:24s} {row['mean_kl']:9.5f} {row['max_kl']:9.5f} {row['float_mean_kl']:9.5f} {row['agreement_percent']:8.1f}%"
                          f"   {'pass' if rows[-1]['pass'] else 'FAIL'}", flush=True)
        tern.close()
    except (NotMeasured, ternlib.TernError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"compare_logits: not measured: {error}")
    passed = all(r["pass"] for r in rows)
    if args.json:
        print(json.dumps({"schema": SCHEMA, "positions": POSITIONS, "limit": args.limit, "models": rows, "pass": passed}, indent=2))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
