#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decode and prefill speed of Tern and llama.cpp on the same model, alternately in the same run.

llama.cpp is built for this CPU from the source distribution of llama-cpp-python, in a venv under build/ (about five minutes,
once). Each engine runs in a process of its own; runs alternate A B A B, and medians are compared. Exit code 1 when something
could not be measured.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path

import engine_worker

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
MODEL = ROOT / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"
PEERS = ROOT / "build/peers-venv"
PEER_PACKAGE = "llama-cpp-python==0.3.36"
PEER_FLAGS = "-DGGML_NATIVE=ON"
SCHEMA = "tern.compare/1"
BUSY_LOAD = 0.5  # load average per CPU from which other work is likely to disturb the figures
TOKENS = {"prefill": engine_worker.PREFILL, "decode": engine_worker.DECODE}
ENGINES = ("tern", "llama.cpp")


class NotMeasured(Exception):
    """Why a figure is missing."""


def say(message: str) -> None:
    print(f"compare_engines: {message}", file=sys.stderr, flush=True)


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {len(os.sched_getaffinity(0))} CPUs"


def build_peer() -> str:
    """The Python of a venv that holds llama.cpp built for this CPU; made on the first call."""
    python, stamp, log = PEERS / "bin/python3", PEERS / "tern.stamp", PEERS.with_suffix(".log")
    want = f"{PEER_PACKAGE} {PEER_FLAGS}\n"
    if stamp.exists() and stamp.read_text() == want:
        return str(python)
    say(f"building {PEER_PACKAGE} with {PEER_FLAGS} in {PEERS}: about 5 minutes (output: {log})")
    venv.create(PEERS, clear=True, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--no-binary", "llama-cpp-python",
               PEER_PACKAGE]
    with open(log, "wb") as output:
        done = subprocess.run(command, env=os.environ | {"CMAKE_ARGS": PEER_FLAGS}, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        tail = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise NotMeasured(f"{PEER_PACKAGE} could not be built (all of the output: {log}): {' | '.join(tail)}")
    stamp.write_text(want)
    return str(python)


def warn_if_busy(load: float) -> None:
    if load > BUSY_LOAD * len(os.sched_getaffinity(0)):
        say(f"warning: the load average is {load:.1f}: other programs are running, and figures taken now are not fair "
            "to both engines (one that spins at barriers loses most)")


class Worker:
    """An engine in its own process."""

    def __init__(self, python: str, engine: str, model: Path, threads: int, library: Path):
        self.engine = engine
        self.process = subprocess.Popen([python, str(TOOLS / "engine_worker.py"), engine, str(model), str(threads), str(library)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            reason = self.process.stderr.read().strip().splitlines()
            raise NotMeasured(f"{self.engine} stopped: {reason[-1] if reason else 'no message'}")
        return json.loads(line)

    def seconds(self, work: str) -> float:
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(workers: dict[str, Worker], work: str, runs: int) -> dict:
    """Tokens per second of each engine, from alternating runs after one that is not counted."""
    speeds = {name: [] for name in workers}
    for run in range(runs + 1):
        for name, worker in workers.items():
            seconds = worker.seconds(work)
            if run > 0:
                speeds[name].append(TOKENS[work] / seconds)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {"tok_per_s": medians, "runs": speeds, "ratio": medians["tern"] / medians["llama.cpp"]}


def measure(args: argparse.Namespace, pythons: dict[str, str], threads: int) -> list[dict]:
    """All rows of one thread count; a row that could not be measured says why."""
    rows = [{"op": work, "tokens": TOKENS[work], "threads": threads} for work in ("decode", "prefill")]
    workers = {}
    try:
        for name in ENGINES:
            workers[name] = Worker(pythons[name], name, args.model, threads, args.library)
        for row in rows:
            row |= compare(workers, row["op"], args.runs)
            row["engines"] = {name: worker.about for name, worker in workers.items()}
    except (NotMeasured, OSError, json.JSONDecodeError) as error:
        for row in rows:
            if "ratio" not in row:
                row["not_measured"] = str(error)
    finally:
        for worker in workers.values():
            worker.close()
    return rows


def print_table(result: dict) -> None:
    print(f"machine    {result['cpu']}, load average {result['load_before']:.1f} before\nmodel      {result['model']}\npeer       {result['peer_build']}")
    for about in result["rows"][0].get("engines", {}).values():
        print(f"{about['engine']:10s} {about['version']}  {about.get('system_info') or about['kernels']}")
    print(f"\n{'':8s} {'tokens':>6s} {'threads':>7s} {'Tern tok/s':>11s} {'llama.cpp':>10s} {'ratio':>6s}   "
          f"medians of {result['runs']} alternating runs; least to most")
    for row in result["rows"]:
        head = f"{row['op']:8s} {row['tokens']:6d} {row['threads']:7d}"
        if "not_measured" in row:
            print(f"{head}  not measured: {row['not_measured']}")
        else:
            spread = ", ".join(f"{name} {min(runs):.1f}-{max(runs):.1f}" for name, runs in row["runs"].items())
            print(f"{head} {row['tok_per_s']['tern']:11.1f} {row['tok_per_s']['llama.cpp']:10.1f} {row['ratio']:6.2f}   {spread}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, default=MODEL, help="GGUF model (default: SmolLM2, see tools/fetch_model.sh)")
    parser.add_argument("-t", "--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default: 1 2)")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each engine, at least 5 (default: 5)")
    parser.add_argument("--library", type=Path, default=ROOT / "build/release/libtern.so", help="libtern.so (default: build/release)")
    parser.add_argument("--peer-python", metavar="PATH", help="a Python that already has llama_cpp (default: build it in build/peers-venv)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.runs < 5 or min(args.threads) < 1:
        parser.error("give at least 5 runs, and thread counts of at least 1")
    if not args.model.exists():
        sys.exit(f"compare_engines: not measured: {args.model} is missing; run tools/fetch_model.sh")
    try:
        peer = args.peer_python or build_peer()
    except (NotMeasured, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"compare_engines: not measured: {error}")
    built = f"{args.peer_python}, built elsewhere (flags unknown)" if args.peer_python else f"{PEER_PACKAGE} from source, CMAKE_ARGS={PEER_FLAGS}"
    load = os.getloadavg()[0]
    warn_if_busy(load)
    rows = [row for threads in args.threads for row in measure(args, {"tern": sys.executable, "llama.cpp": peer}, threads)]
    result = {"schema": SCHEMA, "cpu": cpu_model(), "load_before": load, "model": str(args.model), "peer_build": built, "runs": args.runs, "rows": rows,
              "complete": not any("not_measured" in row for row in rows)}
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)
    return 0 if result["complete"] else 1


if __name__ == "__main__":
    sys.exit(main())
