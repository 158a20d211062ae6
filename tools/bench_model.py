#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decode speed of a ternary model of a real shape (random weights) on chosen kernels, beside the memory limit of the same run.

The limit is DRAM bandwidth over the bytes that one token reads; `tern bench` measures the bandwidth before and after each
`tern generate`, and medians are reported. Exit code 1 when something could not be measured.
"""
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "tern.bench_model/1"
GIGA = 1e9
PROMPT = "The tern is a bird that"


class NotMeasured(Exception):
    """Why a figure is missing."""


def say(message: str) -> None:
    print(f"bench_model: {message}", file=sys.stderr, flush=True)


def run_json(command: list) -> dict:
    """The JSON that a tern command prints."""
    text = [str(part) for part in command]
    done = subprocess.run(text, capture_output=True, text=True)
    if done.returncode != 0:
        message = done.stderr.strip().splitlines()
        raise NotMeasured(f"{' '.join(text[:2])} failed: {message[-1] if message else f'exit code {done.returncode}'}")
    return json.loads(done.stdout)


def make_model(path: Path, shape: str, qtype: str) -> None:
    if path.exists():
        return
    say(f"making {path} (random weights)")
    if subprocess.run([sys.executable, str(ROOT / "tools/make_model.py"), "--shape", shape, "--type", qtype, str(path)]).returncode != 0:
        raise NotMeasured("tools/make_model.py failed")


def measure(args: argparse.Namespace, model: Path, threads: int) -> dict:
    say(f"{threads} thread(s): {args.runs} runs")
    machine = ["-t", threads, "--json"]
    on_kernel = ["-m", model, "--kernel", args.kernel, "--head", args.head]
    info = run_json([args.tern, "info", *on_kernel, *machine])["model"]
    bandwidths, speeds, kernels = [], [], {}
    for _ in range(args.runs):
        bandwidths.append(run_json([args.tern, "bench", "--quick", *machine])["roofline"]["dram_gbps"])
        generated = run_json([args.tern, "generate", *on_kernel, "-p", PROMPT, "-n", args.tokens, *machine])
        speeds.append(generated["decode_tok_per_s"])
        kernels = generated["kernels"]
    if None in speeds or None in bandwidths:
        raise NotMeasured("a run gave no speed; the model may have ended its text at once: try another --tokens")
    speed, bandwidth = statistics.median(speeds), statistics.median(bandwidths)
    limit = bandwidth * GIGA / info["bytes_per_token"]
    return {"threads": threads, "decode_tok_per_s": speed, "dram_gbps": bandwidth, "bytes_per_token": info["bytes_per_token"],
            "limit_tok_per_s": limit, "fraction": speed / limit, "bits_per_weight": info["bits_per_weight"],
            "ternary_matrices": info["ternary_matrices"], "int8_matrices": info["int8_matrices"], "kernels": kernels,
            "runs": {"decode_tok_per_s": speeds, "dram_gbps": bandwidths}}


def print_table(result: dict) -> None:
    first = result["rows"][0]
    print(f"model      {result['model']}: {first['ternary_matrices']} ternary and {first['int8_matrices']} INT8 matrices, "
          f"{first['bits_per_weight']:.3f} bits per weight, {first['bytes_per_token'] / GIGA:.3f} GB per token")
    print(f"kernels    --kernel {result['kernel']} --head {result['head']}: {' '.join(f'{stage}={tier}' for stage, tier in first['kernels'].items())}")
    print(f"{'threads':>7s} {'decode tok/s':>12s} {'DRAM GB/s':>10s} {'limit tok/s':>11s} {'fraction':>8s}   medians of {result['runs']} runs")
    for row in result["rows"]:
        print(f"{row['threads']:7d} {row['decode_tok_per_s']:12.2f} {row['dram_gbps']:10.1f} {row['limit_tok_per_s']:11.2f} {row['fraction']:8.1%}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="bitnet-2b", help="shape of tools/make_model.py (default: bitnet-2b)")
    parser.add_argument("--type", dest="qtype", default="TQ2_0", help="type of its matrices (default: TQ2_0)")
    parser.add_argument("--kernel", choices=("lut", "mad", "auto"), default="lut", help="kernels of ternary matrices (default: lut)")
    parser.add_argument("--head", choices=("exact", "int8", "int6", "int4", "auto"), default="auto", help="form of the output head (default: auto)")
    parser.add_argument("-t", "--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default: 1 2)")
    parser.add_argument("-n", "--tokens", type=int, default=32, help="tokens to decode in a run (default: 32)")
    parser.add_argument("--runs", type=int, default=3, help="runs for each thread count (default: 3)")
    parser.add_argument("--tern", type=Path, default=ROOT / "build/release/tern", help="the tern command (default: build/release/tern)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.tokens < 2 or args.runs < 1 or min(args.threads) < 1:
        parser.error("give at least 2 tokens, 1 run, and thread counts of at least 1")
    model = ROOT / f"build/models/random-{args.shape}-{args.qtype}.gguf"
    try:
        make_model(model, args.shape, args.qtype)
        rows = [measure(args, model, threads) for threads in args.threads]
    except (NotMeasured, OSError, KeyError, json.JSONDecodeError) as error:
        sys.exit(f"bench_model: not measured: {error}")
    result = {"schema": SCHEMA, "model": str(model), "kernel": args.kernel, "head": args.head, "runs": args.runs, "rows": rows}
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
