#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Speed and exactness of matrix products: Tern and other libraries on the same inputs, alternately in the same run.

Peers: ggml (TQ1_0, TQ2_0, Q8_0, Q6_K, Q4_0, Q4_1) and ik_llama.cpp (IQ2_BN, IQ2_BN_R4, ...) out of Python packages (--peer-python),
ik_llama.cpp and bitnet.cpp (I2_S) built for this CPU from --peer-source, and oneDNN from Debian's libdnnl-dev. What is missing is
reported as not measured, and then the exit code is 1 (--engine asks for fewer). Each library runs in a process of its own; in every round the limits (reading DRAM, INT8 peak, clock) are
measured, then each library in turn. "end to end" is from float32 X to float32 Y; "kernel" from int8 X (and ready tables) to sums.
"""
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import kernel_league
import kernel_peers
import machine

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
SCHEMA = "tern.kernels/1"
DRAM_BYTES = 320 << 20
L3_PROBE_BYTES = 4 << 20  # half of the share of a 32 MB cache that a virtual machine was seen to own
SETTLE_SECONDS = 0.003  # between two libraries: the spinning threads of the last one go to sleep
GIGA = 1e9

TERNARY_SHAPES = [(4096, 4096), (2560, 6912), (6912, 2560), (11008, 4096)]
FEW_TOKENS, MANY_TOKENS = (2, 4, 8, 16), 512
HEAD_SHAPES, LARGE_HEAD_SHAPES = [(49152, 576)], [(128256, 2560)]
PACKED = (8192, 8192)
MODEL_SHAPES = [(2560, 6912), (6912, 2560)]


@dataclass(frozen=True)
class Case:
    op: str  # ternary, int8, q8_0, q6_k (6 bits: Tern's I6B32), q4_0, q4_1
    m: int
    n: int
    k: int
    dram: bool

    def macs(self) -> int:
        return self.m * self.n * self.k


@dataclass
class Engine:
    """A library in one form; forms are those of tools/kernel_worker.py."""
    name: str
    peer: str  # the worker's name
    form: str
    ops: tuple[str, ...]


ENGINES = [
    Engine("Tern", "Tern", "auto", ("int8", "q8_0", "q6_k", "q4_0", "q4_1")), Engine("Tern kernel", "Tern", "auto kernel", ("int8", "q8_0", "q6_k", "q4_0", "q4_1")),
    Engine("ggml TQ1_0", "ggml", "tq1_0", ("ternary",)), Engine("ggml TQ2_0", "ggml", "tq2_0", ("ternary",)),
    Engine("ik wheel IQ2_BN", "ik wheel", "iq2_bn", ("ternary",)), Engine("ik wheel IQ2_BN_R4", "ik wheel", "iq2_bn_r4", ("ternary",)),
    Engine("ik native IQ2_BN", "ik native", "iq2_bn", ("ternary",)), Engine("ik native IQ2_BN_R4", "ik native", "iq2_bn_r4", ("ternary",)),
    Engine("bitnet.cpp I2_S", "bitnet.cpp", "i2_s", ("ternary",)),
    Engine("oneDNN u8s8s32", "oneDNN", "u8s8s32", ("int8",)), Engine("oneDNN s8s8s32", "oneDNN", "s8s8s32", ("int8",)),
    Engine("ggml Q8_0", "ggml", "q8_0", ("q8_0",)), Engine("ggml Q4_0", "ggml", "q4_0", ("q4_0",)), Engine("ggml Q4_1", "ggml", "q4_1", ("q4_1",)),
    Engine("ggml Q4_0 repacked", "ggml", "q4_0 repacked", ("q4_0",)),
    Engine("ik native Q8_0", "ik native", "q8_0", ("q8_0",)), Engine("ik native Q4_0", "ik native", "q4_0", ("q4_0",)),
    Engine("ik native Q4_1", "ik native", "q4_1", ("q4_1",)), Engine("ik native Q8_0_R8", "ik native", "q8_0_r8", ("q8_0",)),
    Engine("ik native Q4_0_R8", "ik native", "q4_0_r8", ("q4_0",)),
    Engine("ik native Q6_K", "ik native", "q6_k", ("q6_k",)), Engine("ik native Q6_K_R4", "ik native", "q6_k_r4", ("q6_k",)),
    Engine("ggml Q6_K", "ggml", "q6_k", ("q6_k",)),
]


def tern_engines(worker: "Worker", wanted) -> list[Engine]:
    """Tern's kernel for each layout of ternary weights, from its own list: end to end, and the kernel alone."""
    return [Engine(f"Tern {name}{scope}", "Tern", symbol + scope, ("ternary",)) for name, symbol in worker.about["ternary"].items()
            for scope in ("", " kernel") if wanted(f"Tern {name}{scope}")]


class NotMeasured(Exception):
    """Why a figure is missing."""


def say(message: str) -> None:
    print(f"compare_kernels: {message}", file=sys.stderr, flush=True)


# ---- Workers ------------------------------------------------------------------------------------------------------------


class Worker:
    """A library in a process of its own."""

    def __init__(self, kind: str, libraries: list[str], threads: int):
        self.process = subprocess.Popen([sys.executable, str(TOOLS / "kernel_worker.py"), kind, str(threads), *libraries],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.about = self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            lines = self.process.stderr.read().strip().splitlines()
            raise NotMeasured(f"its process ended: {lines[-1] if lines else 'no message'}")
        return json.loads(line)

    def ask(self, **command) -> dict:
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise NotMeasured("its process has ended") from error
        answer = self.read()
        if "error" in answer:
            raise NotMeasured(answer["error"])
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Workers:
    """All libraries at one thread count; one that cannot start gives its reason when it is asked for."""

    def __init__(self, peers: list[kernel_peers.Peer], library: Path, threads: int):
        self.workers, self.missing = {}, {}
        for peer in [kernel_peers.Peer("Tern", "tern", [str(library)])] + peers:
            try:
                if peer.missing:
                    raise NotMeasured(peer.missing)
                self.workers[peer.name] = Worker(peer.kind, peer.libraries, threads)
            except NotMeasured as error:
                self.missing[peer.name] = str(error)

    def __getitem__(self, name: str) -> Worker:
        if name not in self.workers:
            raise NotMeasured(self.missing.get(name, f"{name} is not known"))
        return self.workers[name]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


# ---- Inputs -------------------------------------------------------------------------------------------------------------

CODES = {"ternary": (-1, 1), "int8": (-127, 127), "q8_0": (-127, 127), "q4_0": (-8, 7), "q4_1": (0, 15), "q6_k": (-32, 31)}


def random_inputs(case: Case, folder: Path) -> tuple[str, str]:
    """Paths of x[m][k] and w[n][k]. Every 32nd activation is 127, so that quantizers with blocks find scale 1."""
    rng = np.random.default_rng(1)
    low, high = CODES[case.op]
    x = rng.integers(-127, 127, (case.m, case.k), dtype=np.int8, endpoint=True)
    x[:, ::32] = 127
    w = rng.integers(low, high, (case.n, case.k), dtype=np.int8, endpoint=True)
    np.save(folder / "x.npy", x)
    np.save(folder / "w.npy", w)
    return str(folder / "x.npy"), str(folder / "w.npy")


# ---- Timing -------------------------------------------------------------------------------------------------------------


@dataclass
class Subject:
    engine: Engine
    worker: Worker
    made: dict
    samples: list[float] = field(default_factory=list)


def make_subjects(case: Case, engines: list[Engine], workers: Workers, folder: Path) -> tuple[list[Subject], dict[str, str]]:
    x, w = random_inputs(case, folder)
    subjects, missing = [], {}
    for engine in engines:
        if case.op not in engine.ops or (case.dram and engine.form.endswith(" kernel")):
            continue
        try:
            worker = workers[engine.peer]
            wanted = {"op": case.op, "form": engine.form, "x": x, "w": w, "copies_bytes": DRAM_BYTES if case.dram else 0}
            subjects.append(Subject(engine, worker, worker.ask(make=wanted)))
        except NotMeasured as error:
            missing[engine.name] = str(error)
    return subjects, missing


def limits_of_round(tern: Worker, case: Case) -> dict[str, float]:
    limits = {"clock": tern.ask(limit="clock")["value"], "int8": tern.ask(limit="int8")["value"]}
    name = "dram" if case.dram else "l3"
    limits[name] = tern.ask(limit=name, bytes=DRAM_BYTES if case.dram else L3_PROBE_BYTES)["value"]
    return limits


def measure(case: Case, engines: list[Engine], workers: Workers, rounds: int, seconds: float, threads: int) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        subjects, missing = make_subjects(case, engines, workers, Path(folder))
    limits = []
    for i in range(rounds):
        limits.append(limits_of_round(workers["Tern"], case))
        for subject in subjects[i % len(subjects):] + subjects[:i % len(subjects)] if subjects else []:  # nobody is always after the same one
            time.sleep(SETTLE_SECONDS)
            subject.samples.append(subject.worker.ask(run=subject.made["id"], seconds=seconds)["seconds"])
    base = {"op": case.op, "m": case.m, "n": case.n, "k": case.k, "residency": "dram" if case.dram else "hot", "threads": threads}
    rows = [base | {"engine": s.engine.name, "peer": s.engine.peer} | figures(case, s, limits, threads) for s in subjects]
    for subject in subjects:
        subject.worker.ask(drop=subject.made["id"])
    return rows + [base | {"engine": name, "not_measured": why} for name, why in missing.items()]


def figures(case: Case, subject: Subject, limits: list[dict], threads: int) -> dict:
    """Medians over the rounds; fractions are taken inside each round."""
    seconds, bits = statistics.median(subject.samples), subject.made["bytes"] * 8 / (case.n * case.k)
    fractions = {}
    for limit in limits[0]:
        work = {"int8": 2 * case.macs(), "clock": None}.get(limit, subject.made["bytes"])
        if work is not None:
            fractions[limit] = statistics.median(work / s / l[limit] for s, l in zip(subject.samples, limits))
    bound = max(fractions, key=fractions.get)
    cycles = statistics.median(case.macs() / s / l["clock"] / threads for s, l in zip(subject.samples, limits))
    return {"scope": subject.made["scope"], "kernel": subject.made["kernel"], "bits_per_weight": bits, "seconds": seconds, "gops": 2 * case.macs() / seconds / GIGA,
            "gmacs": case.macs() / seconds / GIGA, "gbps": subject.made["bytes"] / seconds / GIGA, "mac_per_cycle": cycles, "bound": bound,
            "fraction": fractions[bound], "fractions": fractions, "spread": [min(subject.samples), max(subject.samples)],
            "limits": {name: statistics.median(l[name] for l in limits) / GIGA for name in limits[0]}}


# ---- Cases --------------------------------------------------------------------------------------------------------------


def all_cases(full: bool) -> list[Case]:
    cases = [Case("ternary", 1, n, k, dram) for dram in (True, False) for n, k in TERNARY_SHAPES]
    cases += [Case("ternary", m, n, k, False) for m in (*FEW_TOKENS, MANY_TOKENS) for n, k in TERNARY_SHAPES]
    cases += [Case("int8", 1024, 1024, 1024, False)] + [Case("int8", MANY_TOKENS, n, k, False) for n, k in MODEL_SHAPES]
    cases += [Case(op, 1, n, k, True) for op in ("q8_0", "q6_k", "q4_0", "q4_1") for n, k in HEAD_SHAPES + (LARGE_HEAD_SHAPES if full else [])]
    cases += [Case(op, MANY_TOKENS, 6912, 2560, False) for op in ("q8_0", "q4_0", "q4_1")]
    return cases


def wanted_cases(args: argparse.Namespace) -> list[Case]:
    cases = all_cases(args.full)
    if args.shape:
        shapes = [tuple(map(int, text.split("x"))) for text in args.shape]
        known = [case for case in cases if (case.n, case.k) in shapes]
        others = [shape for shape in shapes if shape not in {(case.n, case.k) for case in cases}]
        ops, tokens = args.op or ["ternary"], args.m or [1, *FEW_TOKENS, MANY_TOKENS]
        cases = known + [Case(op, m, n, k, dram) for op in ops for m in tokens for n, k in others for dram in ((True, False) if m == 1 else (False,))]
    if args.m:
        grid = {(case.op, case.n, case.k) for case in cases}
        cases = [Case(op, m, n, k, dram) for op, n, k in sorted(grid) for m in args.m for dram in ((True, False) if m == 1 or args.residency else (False,))]
    return [case for case in cases if (not args.op or case.op in args.op) and (not args.residency or case.dram == (args.residency == "dram"))]


# ---- Output -------------------------------------------------------------------------------------------------------------


def case_title(row: dict) -> str:
    return f"{row['op']} M={row['m']} {row['n']}x{row['k']} {row['residency']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}"


def print_case(rows: list[dict]) -> None:
    measured = sorted((r for r in rows if "seconds" in r), key=lambda r: r["seconds"])
    best_peer = max((r["gops"] for r in measured if r["peer"] != "Tern"), default=None)
    limits = measured[0]["limits"] if measured else {}
    print(f"\n{case_title(rows[0])}   " + "  ".join(f"{name} {value:.2f}" for name, value in limits.items()))
    print(f"  {'':22s} {'scope':10s} {'bits':>5s} {'us':>9s} {'GB/s':>6s} {'GOP/s':>7s} {'MAC/cy':>6s} {'of the limit':>14s} {'x best peer':>11s}")
    for r in measured:
        ratio = f"{r['gops'] / best_peer:11.2f}" if best_peer else f"{'-':>11s}"
        print(f"  {r['engine']:22s} {r['scope']:10s} {r['bits_per_weight']:5.2f} {r['seconds'] * 1e6:9.1f} {r['gbps']:6.2f} {r['gops']:7.1f} {r['mac_per_cycle']:6.1f} "
              f"{100 * r['fraction']:5.0f} % of {r['bound']:5s} {ratio}")
    for r in rows:
        if "not_measured" in r:
            print(f"  {r['engine']:22s} not measured: {r['not_measured']}")
    sys.stdout.flush()


def gaps(result: dict) -> list[str]:
    """What was asked for and not measured, each reason once."""
    missing = [(name, about["not_measured"]) for name, about in result["peers"].items() if "not_measured" in about]
    missing += [(row["engine"], row["not_measured"]) for row in result["rows"] if "not_measured" in row and row["not_measured"] not in {why for _, why in missing}]
    return [f"{name}: {why}" for name, why in dict.fromkeys(missing)]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-t", "--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which medians are taken (default: 5)")
    parser.add_argument("--seconds", type=float, default=0.02, help="how long a library runs in each round, at least (default: 0.02)")
    parser.add_argument("--full", action="store_true", help="the head of a large vocabulary (128256x2560) too")
    parser.add_argument("--op", nargs="+", choices=list(CODES), help="only these kinds of weights")
    parser.add_argument("--shape", nargs="+", metavar="NxK", help="only these shapes")
    parser.add_argument("--m", type=int, nargs="+", help="only these numbers of tokens")
    parser.add_argument("--residency", choices=["hot", "dram"], help="only weights that stay in cache, or that come from memory")
    parser.add_argument("--engine", nargs="+", metavar="PART", help="only engines whose names contain one of these")
    exactness = parser.add_mutually_exclusive_group()
    exactness.add_argument("--no-league", action="store_true", help="leave out who is exact")
    exactness.add_argument("--league-only", action="store_true", help="only who is exact")
    parser.add_argument("--library", type=Path, default=ROOT / "build/release/libtern.so", help="libtern.so (default: build/release)")
    parser.add_argument("--peer-python", nargs="+", default=[], metavar="PATH", help="Pythons that have llama_cpp or ik_llama_cpp")
    parser.add_argument("--peer-source", nargs="+", type=Path, default=[], metavar="DIR", help="sources of ik_llama.cpp and bitnet.cpp")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    cases = wanted_cases(args)
    wanted = lambda name: not args.engine or any(part in name for part in args.engine)
    engines = [e for e in ENGINES if wanted(e.name) and any(c.op in e.ops for c in cases)]
    peers = kernel_peers.find(args.peer_python, args.peer_source, {e.peer for e in engines}, say)
    result = {"schema": SCHEMA, "machine": machine.describe("compare_kernels.py", sys.argv[1:]), "peers": {}, "rows": [], "packing": []}
    if warning := machine.busy_warning(result["machine"]["load_before"]):
        say(warning)
    print(f"machine   {result['machine']['cpu']}, {result['machine']['date']}, {result['machine']['compiler']}")
    for threads in args.threads:
        workers = Workers(peers, args.library, threads)
        try:
            if not any(e.name.startswith("Tern ") and "ternary" in e.ops for e in engines):
                engines = tern_engines(workers["Tern"], wanted) + engines
            for peer in peers:
                worker = workers.workers.get(peer.name)
                about = {"flags": peer.flags, **(worker.about if worker else {"not_measured": workers.missing[peer.name]})}
                if peer.name not in result["peers"]:
                    print(f"{peer.name:10s} " + (f"{about['flags']}; {about['version']}; CPU features: {about['features']}" if worker else f"not measured: {about['not_measured']}"))
                result["peers"][peer.name] = about
            if "league" not in result and not args.no_league:
                result["league"] = kernel_league.run([e for e in engines if not e.form.endswith(" kernel")], workers, NotMeasured)
                kernel_league.print_table(result["league"])
            if not args.league_only and any(c.op == "ternary" for c in cases):
                packing = workers["Tern"].ask(pack={"n": PACKED[0], "k": PACKED[1], "rounds": args.rounds})
                result["packing"].append({"threads": threads} | packing)
                print(f"\npacking TQ2_0 {PACKED[0]}x{PACKED[1]}, {threads} thread{'s' if threads > 1 else ''}: {packing['weights_per_second'] / GIGA:.2f} G weights/s")
            for case in [] if args.league_only else cases:
                rows = measure(case, engines, workers, args.rounds, args.seconds, threads)
                result["rows"] += rows
                print_case(rows)
        except NotMeasured as error:
            say(f"not measured: {error}")
            return 1
        finally:
            workers.close()
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    missing = gaps(result)
    for line in missing:
        say(f"not measured: {line}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
