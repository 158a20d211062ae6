#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How close Tern's decode is to the same model in float32: KL divergence, next-token agreement and perplexity on English prose.

The float32 side is tools/reference.py, which shares no code with src/. The text is cut in windows that start with an empty
context; Tern decodes them one token at a time. Exit code 1 when a gate fails or could not be measured.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

try:
    import numpy as np
    import reference
    import ternlib
except ImportError as missing:
    sys.exit(f"quality: {missing}; run tools/setup.sh and then build/venv/bin/python {sys.argv[0]}")

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXTS = (ROOT / "tools/data/prose.txt", ROOT / "tools/data/alice.txt")  # the second: chapters I to III of Lewis Carroll's Alice, 1865
SCHEMA = "tern.quality/1"


@dataclasses.dataclass(frozen=True)
class Gate:
    """One promise: the measured value must lie on the right side of the limit."""
    key: str
    name: str
    limit: float
    at_most: bool
    unit: str

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


GATES = (
    Gate("tokens", "tokens compared", 8000, False, ""),
    Gate("mean_kl", "mean KL divergence", 0.01, True, "nats"),
    Gate("agreement_percent", "next-token agreement", 94.0, False, "%"),
    Gate("perplexity_change_percent", "perplexity, change", 1.0, True, "%"),
)


def progress(message: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[Kquality: {message}", end="", file=sys.stderr, flush=True)


def decode_window(session: ternlib.Session, tokens: list[int]) -> np.ndarray:
    """Logits after each token, from one call per token."""
    session.reset()
    rows = []
    for token in tokens:
        session.append([token])
        rows.append(session.logits())
    return np.stack(rows)


def next_token_loss(logp: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Negative log-probability of each token but the first, given those before it."""
    return -logp[np.arange(len(tokens) - 1), tokens[1:]]


def compare_window(expected: np.ndarray, actual: np.ndarray, tokens: list[int]) -> dict[str, np.ndarray]:
    """Per position: KL(float32 || Tern), whether the likeliest token is the same, and both losses."""
    p, q = reference.log_softmax(expected), reference.log_softmax(actual)
    return {"kl": (np.exp(p) * (p - q)).sum(axis=1), "same": p.argmax(axis=1) == q.argmax(axis=1),
            "loss": next_token_loss(p, tokens), "tern_loss": next_token_loss(q, tokens)}


def windows_of(tokens: list[int], size: int) -> list[list[int]]:
    """Windows of `size` tokens; the last may be shorter, but has a token to predict."""
    cut = [tokens[i:i + size] for i in range(0, len(tokens), size)]
    return [w for w in cut if len(w) > 1]


def measure(args: argparse.Namespace) -> dict:
    tern = ternlib.Tern(args.library, args.threads)
    model = tern.load(args.model, args.form, args.head, args.act_block)
    windows = [w for text in args.text for w in windows_of(model.tokenize(text.read_text(encoding="utf-8")), args.window)]
    progress("reading the model in float32")
    judge = reference.Reference(str(args.model))
    session = model.session(args.window, args.kv)
    parts, start = [], time.monotonic()
    for i, window in enumerate(windows):
        progress(f"window {i + 1} of {len(windows)}, {time.monotonic() - start:.0f} s")
        expected, _ = judge.forward(window)
        parts.append(compare_window(expected, decode_window(session, window), window))
    progress("")
    all_of = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    perplexity, tern_perplexity = (float(np.exp(all_of[key].mean())) for key in ("loss", "tern_loss"))
    result = {"schema": SCHEMA, "model": str(args.model), "tokens": len(all_of["kl"]), "window": args.window,
              "threads": tern.lib.tern_context_threads(tern.handle), "form": args.form, "head": model.info.head.decode(), "kv": args.kv,
              "act_block": args.act_block,
              "mean_kl": float(all_of["kl"].mean()), "max_kl": float(all_of["kl"].max()),
              "agreement_percent": 100 * float(all_of["same"].mean()),
              "perplexity": perplexity, "tern_perplexity": tern_perplexity,
              "perplexity_change_percent": 100 * abs(tern_perplexity / perplexity - 1)}
    model.close()
    tern.close()
    return result


def judge_gates(result: dict) -> list[dict]:
    return [{"key": g.key, "value": result[g.key], "limit": g.limit, "pass": bool(g.holds(result[g.key]))} for g in GATES]


def print_table(result: dict) -> None:
    print(f"model      {result['model']}\ncompared   Tern ({result['threads']} threads, head {result['head']}, {result['kv']} keys and values) with a float32 NumPy forward, "
          f"windows of {result['window']} tokens")
    for gate, outcome in zip(GATES, result["gates"]):
        print(f"{gate.name:24s} {outcome['value']:10.5g} {gate.unit:5s} {'at most' if gate.at_most else 'at least'} {gate.limit:g}"
              f"   {'pass' if outcome['pass'] else 'FAIL'}")
    print(f"{'largest KL divergence':24s} {result['max_kl']:10.5g} nats")
    print(f"{'perplexity':24s} {result['perplexity']:10.5g}       float32; Tern {result['tern_perplexity']:.5g}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, default=MODEL, help="GGUF model (default: SmolLM2, see tools/fetch_model.sh)")
    parser.add_argument("--text", type=Path, nargs="+", default=TEXTS, help="UTF-8 prose to read (default: the texts in tools/data)")
    parser.add_argument("--window", type=int, default=512, help="tokens per window (default: 512)")
    parser.add_argument("-t", "--threads", type=int, default=0, help="Tern's threads (default: one per core)")
    parser.add_argument("--form", choices=ternlib.FORMS, default="auto", help="kernels of ternary matrices (default: auto)")
    parser.add_argument("--head", choices=ternlib.HEADS, default="auto", help="form of the output head (default: auto)")
    parser.add_argument("--kv", choices=ternlib.KV_TYPES, default="f16", help="keys and values of the context (default: f16)")
    parser.add_argument("--act-block", type=int, default=0, metavar="SIZE", help="blocks of activations (default: 0, as the weights ask for)")
    parser.add_argument("--library", type=Path, default=ternlib.DEFAULT_LIBRARY, help="libtern.so (default: build/release)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.window < 2:
        parser.error(f"--window is {args.window}; a window needs at least 2 tokens")
    if not args.model.exists():
        sys.exit(f"quality: not measured: {args.model} is missing; run tools/fetch_model.sh")
    try:
        result = measure(args)
    except (ternlib.TernError, OSError, ValueError) as error:
        sys.exit(f"quality: not measured: {error}")
    result["gates"] = judge_gates(result)
    result["pass"] = all(g["pass"] for g in result["gates"])
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)
    return 0 if result["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
