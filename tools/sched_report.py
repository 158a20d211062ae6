#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the scheduler's part of docs/performance.md from the JSON of tern_sched_bench: the bars first, then what was measured.

Of several runs each figure is the median of their figures. With --gate, the exit code is 1 if a bar is not met or was not measured.
"""
from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

BEGIN, END = "<!-- scheduler: begin -->", "<!-- scheduler: end -->"
PEERS = ("tern", "openmp", "mutex/condvar")
LATENCIES = {
    "empty_region": "region of two empty tiles", "short_region": "region of two tiles of 1 us, beyond that 1 us",
    "empty_stage": "step from stage to stage, empty tiles", "short_stage": "step from stage to stage, tiles of 1 us",
    "line_round_trip": "the machine's own: a cache line to the other core and back",
    "wake": "from the region's start to the first tile of a worker that slept"}
GEMMS = ("gemm_m512_2560x6912", "gemm_m512_4096x4096")
TOKENS_DRAM = ("token_bitnet_2b", "token_bitnet_2b/one_region")
TOKENS_L2 = tuple(f"token_{model}{way}" for model in ("smollm2_1_layer", "288_768_2_layers", "192_512_4_layers") for way in ("", "/one_region"))
SITUATIONS = ("4_workers_on_2_cpus", "2_workers_on_1_cpu", "2_workers_and_a_stranger")
WORKS = ("chain_200_stages", "gemm_m512_2560x2560")
IDLE, AWAKE = "cpu_time_idle_100ms_to_1s", "awake_after_last_region"
ROUNDS_MIN = 3  # a ratio of fewer rounds is not a measurement
IDLE_MS = 0.05  # of 900 ms: 0.00 % and the noise of two clocks


def merge(runs: list[dict]) -> dict:
    """The cases by (case, who): numbers are medians over the runs; a run that hung, or was wrong, is not outvoted."""
    found: dict = {}
    for run in runs:
        for case in run["cases"]:
            found.setdefault((case["case"], case["who"]), []).append(case)
    merged = {}
    for key, cases in found.items():
        merged[key] = dict(cases[0])
        for name, value in cases[0].items():
            values = [c[name] for c in cases if c[name] is not None]
            if not values:
                merged[key][name] = None
            elif name == "hung":
                merged[key][name] = max(values)
            elif isinstance(values[0], bool):
                merged[key][name] = all(values)
            elif isinstance(values[0], (int, float)):
                merged[key][name] = sum(values) if name.startswith(("samples", "dropped")) else statistics.median(values)
    return merged


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def number(value: float | None, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value)


class Bars:
    """The table of bars, and whether all of them are met."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.met = True

    def add(self, what: str, bar: str, figure: float | None, met: bool, shown: str) -> None:
        verdict = "not measured" if figure is None else f"{'met' if met else 'NOT MET'}: {shown}"
        self.met = self.met and figure is not None and met
        self.rows.append([what, bar, verdict])

    def at_most(self, what: str, limit: float, figure: float | None, unit: str, also: bool = True, note: str = "") -> None:
        self.add(what, f"<= {limit} {unit}", figure, figure is not None and figure <= limit and also, f"{number(figure)} {unit}{note}")

    def at_least(self, what: str, limit: float, figure: float | None, unit: str, note: str = "") -> None:
        self.add(what, f">= {limit} {unit}", figure, figure is not None and figure >= limit, f"{number(figure)} {unit}{note}")


def bars(cases: dict) -> Bars:
    out = Bars()

    def get(name: str, key: str = "median", who: str = "tern"):
        case = cases.get((name, who), {})
        return case.get(key) if case.get("samples", 0) >= ROUNDS_MIN else None

    for name in ("empty_region", "short_region"):
        out.at_most(f"{LATENCIES[name]}, median", 1.0, get(name), "us")
        out.at_most(f"{LATENCIES[name]}, p99", 3.0, get(name, "p99"), "us")
        others = {who: get(name, who=who) for who in PEERS[1:]}
        shown = " and ".join(f"{number(us)} us ({who})" for who, us in others.items())
        known = None if None in (get(name), *others.values()) else get(name)
        out.add(f"{LATENCIES[name]}: fastest of three", "< OpenMP, mutex/condvar", known, known is not None and known < min(others.values()), f"{number(known)} us beside {shown}")
    for name in ("empty_stage", "short_stage"):
        out.at_most(f"{LATENCIES[name]}, median", 0.4, get(name), "us")
    for name in GEMMS:
        out.at_least(f"{name}, 1 -> 2 cores", 1.95, get(name), "x", f" (INT8 peak in the same rounds: {number(get(name, 'limit_ratio'))} x)")
    for name in TOKENS_DRAM:
        out.at_least(f"{name}, 1 -> 2 cores, of the DRAM ratio", 0.95, get(name, "of_limit"), "", f"({number(get(name))} x of {number(get(name, 'limit_ratio'))} x)")
    for name in TOKENS_L2:
        out.at_least(f"{name} ({number((get(name, 'bytes') or 0) / 1e6)} MB), 1 -> 2 cores", 1.6, get(name), "x")
    out.at_most("CPU time of an idle pool, 100 ms to 1 s after the last region", IDLE_MS, get(IDLE, "p99"), "ms", get(IDLE, "asleep_every_time") is True, f"; asleep {number(get(AWAKE), '{:.0f}')} us after it")
    for situation in SITUATIONS:
        for work in WORKS:
            name = f"{situation}/{work}"
            sound = get(name, "hung") == 0 and get(name, "correct") is True
            note = "" if sound else f"; hung {get(name, 'hung')}, correct {get(name, 'correct')}"
            out.at_most(f"{name}, of the ideal time share", 1.3, get(name), "x", sound, f" (CPU time {number(get(name, 'cpu_ratio'))} x){note}")
    return out


def latencies(cases: dict) -> str:
    rows = []
    for name, title in LATENCIES.items():
        for who in PEERS:
            c = cases.get((name, who))
            if c:
                dropped = c["dropped_for_gaps"] + c["dropped_one_sided"]
                rows.append([title, who] + [number(c[key]) for key in ("median", "q1", "q3", "p99")] + [str(c["samples"]), f"{dropped:.0f}", number(c.get("both_ran"))])
    return table(["us", "", "median", "q1", "q3", "p99", "samples", "dropped", "both ran"], rows)


def scaling(cases: dict) -> str:
    rows = [[name, number(c["bytes"] / 1e6), number(1e3 * c["seconds_1"], "{:.3f}"), number(1e3 * c["seconds_2"], "{:.3f}"), f"{number(c['median'])} x",
             f"{number(c['q1'])} to {number(c['q3'])}", f"{100 * c['noise']:.1f} %", f"{c['samples']} ({c['dropped']} dropped)", "-" if c["limit"] == "none" else f"{number(c['limit_ratio'])} x {c['limit']}"]
            for (name, _), c in cases.items() if "seconds_1" in c and c["samples"]]
    return table(["", "MB", "1 worker ms", "2 workers ms", "ratio", "quartiles", "A/A noise", "rounds", "limit's own ratio"], rows)


def crowds(cases: dict) -> str:
    rows = [[name, number(1e3 * c["seconds"], "{:.0f}"), number(c["cpus_worth"], "{:.1f}"), number(c["cpus_given"]), f"{number(c['median'])} x", f"{number(c['q1'])} to {number(c['q3'])}",
             f"{number(c['cpu_ratio'])} x", f"{c['samples']} ({c['dropped']} dropped)"]
            for (name, _), c in cases.items() if "cpus_worth" in c and c["samples"]]
    return table(["", "ms", "CPUs' worth", "CPUs used", "time / ideal", "quartiles", "CPU time / unloaded", "rounds"], rows)


def section(runs: list[dict]) -> tuple[str, bool]:
    cases, run = merge(runs), runs[0]
    verdict = bars(cases)
    openmp = "" if run["openmp"] else " OpenMP: not measured, the compiler has none."
    return f"""Machine: {run['cpu']}, {run['pus']} CPUs at {run['clock_ghz']:.2f} GHz. Runs: {len(runs)}. Reading the clock takes {number(cases[('clock_read', 'machine')]['median'], '{:.3f}')} us.{openmp}

{table(["case", "bar", "measured"], verdict.rows)}

{latencies(cases)}

{scaling(cases)}

{crowds(cases)}
""", verdict.met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, nargs="+", help="JSON of tern_sched_bench, one file for each run")
    parser.add_argument("--document", type=Path, metavar="FILE", help="replace the scheduler's part of this file; else print it")
    parser.add_argument("--gate", action="store_true", help="fail if a bar is not met or was not measured")
    args = parser.parse_args()
    text, met = section([json.loads(path.read_text()) for path in args.json])
    if args.document:
        before = args.document.read_text(encoding="utf-8")
        if BEGIN not in before or END not in before:
            sys.exit(f"sched_report: {args.document} has no lines {BEGIN} and {END}")
        after = re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: f"{BEGIN}\n{text}{END}", before, flags=re.DOTALL)
        args.document.write_text(after, encoding="utf-8")
    else:
        print(text)
    return 1 if args.gate and not met else 0


if __name__ == "__main__":
    sys.exit(main())
