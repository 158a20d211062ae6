#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decode and prefill of Tern, llama.cpp and ik_llama.cpp on models of real shapes, alternately in one run, beside the bars set for Tern.

Models with random weights are made in build/models; peers that the rows ask for are installed from the Python registry in venvs under
build/, once (llama.cpp is built for this CPU: 22 minutes at the lowest priority beside other builds on two cores). Each engine runs in a
process of its own with the settings with which it is fastest; runs alternate, and medians are compared. What could not be measured says
why, and then the exit code is 1.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

try:
    import engine_peers
    import engine_report
    import machine
    import ternlib
    from compare_rows import NOT_MEASURED, ROWS
    from engine_lab import Lab, NotMeasured, describe_settings
    from engine_models import Models
except ImportError as missing:
    sys.exit(f"compare_engines: {missing}; run tools/setup.sh and then build/venv/bin/python {sys.argv[0]}")

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "tern.compare_engines/1"
CPUS = len(os.sched_getaffinity(0))
PLANNED_RUNS = 5  # for which the rows' times are given


def say(message: str) -> None:
    print(f"compare_engines: {message}", file=sys.stderr, flush=True)


def measure(lab: Lab, names: list[str]) -> list[dict]:
    """All rows; one that could not be measured says why."""
    rows, begun, done = [], time.monotonic(), 0.0
    plan = {name: ROWS[name].seconds * lab.runs / PLANNED_RUNS for name in names}
    for i, name in enumerate(names):
        pace = (time.monotonic() - begun) / done if done else 1.0
        left = pace * (sum(plan.values()) - done)
        say(f"{i + 1} of {len(names)}: {ROWS[name].title}; about {left / 60:.0f} min left")
        try:
            for row in ROWS[name].measure(lab):
                rows.append({"row": name} | row)
        except (NotMeasured, OSError, KeyError, ValueError) as error:
            rows.append({"row": name, "case": ROWS[name].title, "not_measured": f"{error}" or repr(error), "engines": {}, "bars": []})
        finally:
            lab.close()
        done += plan[name]
    return rows


def complete(rows: list[dict]) -> bool:
    return not any("not_measured" in row or any("not_measured" in e for e in row["engines"].values()) or any(b["verdict"] == NOT_MEASURED for b in row["bars"])
                   for row in rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="rows:\n" + "\n".join(f"  {name:16s} {row.title}" for name, row in ROWS.items()))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help="only these (default: all)")
    parser.add_argument("-t", "--threads", type=int, nargs="+", default=[1, 2][:CPUS], help="thread counts (default: 1 2)")
    parser.add_argument("--runs", type=int, default=PLANNED_RUNS, help=f"counted runs of each engine (default: {PLANNED_RUNS})")
    parser.add_argument("--models", type=Path, default=ROOT / "build/models", metavar="DIR", help="folder of models; missing ones are made there (default: build/models)")
    parser.add_argument("--library", type=Path, default=ROOT / "build/release/libtern.so", help="libtern.so (default: build/release)")
    parser.add_argument("--tern", type=Path, default=ROOT / "build/release/tern", help="the tern command (default: build/release)")
    parser.add_argument("--kernel", choices=list(ternlib.FORMS), help="Tern's kernels of ternary matrices (default: its own choice)")
    parser.add_argument("--head", choices=list(ternlib.HEADS), help="form of Tern's output head (default: its own choice)")
    parser.add_argument("--peer-python", nargs="+", default=[], metavar="PATH", help="Pythons that have llama_cpp or ik_llama_cpp (default: install them)")
    parser.add_argument("--peer-source", nargs="+", type=Path, default=[], metavar="DIR",
                        help="sources of ik_llama.cpp or llama.cpp: built for this CPU and timed in place of the package, which still makes the models")
    parser.add_argument("--no-peers", action="store_true", help="Tern alone: peers are not measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw there (.svg or .png; needs matplotlib)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the decode part of this file, such as docs/performance.md")
    args = parser.parse_args()
    check_arguments(parser, args)
    return args


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program at once for what would else come up after minutes."""
    if args.runs < 1 or min(args.threads) < 1:
        parser.error("give at least 1 run, and thread counts of at least 1")
    if max(args.threads) > CPUS:
        parser.error(f"-t {max(args.threads)}: this process may use {CPUS} CPUs")
    for path in (args.library, args.tern):
        if not path.exists():
            parser.error(f"{path} is missing; build it: cmake --preset release && cmake --build build/release")
    if args.plot and not importlib.util.find_spec("matplotlib"):
        parser.error("--plot needs matplotlib; run tools/setup.sh and then build/venv/bin/python")
    if args.document and not engine_report.has_section(args.document):
        parser.error(f"--document {args.document} has no lines {engine_report.BEGIN} and {engine_report.END}")
    for path in (args.json, args.plot):
        if path and not path.resolve().parent.is_dir():
            parser.error(f"{path} cannot be written: its folder is missing")


def main() -> int:
    args = parse_arguments()
    described = machine.describe("compare_engines.py", sys.argv[1:])
    wanted = set() if args.no_peers else {peer for name in args.rows for peer in ROWS[name].peers}
    why_not = "--no-peers was given" if args.no_peers else "no row asked for it"
    peers = engine_peers.find(args.peer_python, args.peer_source, wanted, why_not, say)
    own = {key: value for key, value in (("kernel", args.kernel), ("head", args.head)) if value}
    models = Models(args.models, args.tern, peers.pythons, say, own)
    lab = Lab(models, peers, args.library, args.tern, sorted(args.threads), args.runs, say, own)
    if warning := machine.busy_warning(os.getloadavg()[0]):
        say(warning)
    rows = measure(lab, [name for name in ROWS if name in args.rows])
    about = {name: {"not_measured": why} for name, why in peers.missing.items()}
    about |= {name: {"flags": flags} | lab.about.get(name, {"not_measured": "no row asked for it"}) for name, flags in peers.flags.items()}
    settings = [{"engine": "tern", "file": "all files", "work": "all work", "settings": describe_settings(own)}] if own else []
    settings += [{"engine": engine, "file": file, "work": work, "settings": describe_settings(chosen)} for (engine, file, work), chosen in lab.chosen.items() if chosen]
    result = {"schema": SCHEMA, "machine": described, "peers": about, "settings": settings, "runs": args.runs, "rows": rows, "complete": complete(rows)}
    print(engine_report.text(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.plot:
        engine_report.draw(result, args.plot)
    if args.document:
        engine_report.replace_section(args.document, engine_report.section(result, args.plot))
    return 0 if result["complete"] else 1


if __name__ == "__main__":
    sys.exit(main())
