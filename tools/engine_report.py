#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Shows what tools/compare_engines.py measured: as text, as the decode part of docs/performance.md, and as a plot."""
from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

BEGIN, END = "<!-- decode: begin -->", "<!-- decode: end -->"
PLOTTED = ("decode-2b", "prefill-2b", "decode-smollm2", "prefill-smollm2")
COLORS = {"tern": "tab:green", "ik": "tab:orange", "llama.cpp": "tab:blue"}
BAR_WIDTH = 0.25


def number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def figures(row: dict) -> str:
    """The engines of a row: medians, with least and most."""
    parts = []
    for name, engine in row["engines"].items():
        if "median" in engine:
            parts.append(f"{name} {number(engine['median'])} ({number(min(engine['runs']))} to {number(max(engine['runs']))})")
        else:
            parts.append(f"{name} not measured: {engine['not_measured']}")
    return "; ".join(parts)


def verdict(bar: dict) -> str:
    shown = f": {bar['shown']}" if "shown" in bar else ""
    return f"{bar['verdict']}{shown}" + (f" ({bar['why']})" if bar.get("why") else "")


def lines(result: dict) -> list[tuple[str, str, str, str]]:
    """(case, threads, figures, bars) of each row."""
    found = []
    for row in result["rows"]:
        if "not_measured" in row:
            found.append((row["case"], "", f"not measured: {row['not_measured']}", ""))
            continue
        unit = f" {row['unit']}" if row["unit"] else ""
        bars = "; ".join(f"{bar['bar']}: **{verdict(bar)}**" for bar in row["bars"])
        found.append((row["case"] + (f",{unit}" if unit else ""), str(row["threads"]), figures(row), bars))
    return found


def peer_lines(result: dict) -> list[str]:
    found = []
    for name, peer in result["peers"].items():
        about = f"not measured: {peer['not_measured']}" if "not_measured" in peer else f"{peer['flags']}; {peer['version']}; {peer['features']}"
        found.append(f"{name}: {about}")
    return found


def setting_lines(result: dict) -> list[str]:
    return [f"{s['engine']}, {s['file']}, {s['work']}: {s['settings']}" for s in result["settings"]]


def text(result: dict) -> str:
    machine = result["machine"]
    out = [f"machine   {machine['cpu']}, {machine['date']}, load average {machine['load_before']:.1f} before", *peer_lines(result)]
    out += [f"settings  {line}" for line in setting_lines(result)]
    for case, threads, measured, bars in lines(result):
        out += [f"\n{case}" + (f"  {threads} thread{'s' if threads != '1' else ''}" if threads else ""), f"  {measured}"]
        out += [f"  {bar.replace('**', '')}" for bar in bars.split("; ") if bar]
    return "\n".join(out) + f"\n\n{summary(result)}"


def summary(result: dict) -> str:
    verdicts = [bar["verdict"] for row in result["rows"] for bar in row.get("bars", []) if not bar.get("stretch")]
    missing = sum("not_measured" in row for row in result["rows"])
    return f"bars: {verdicts.count('met')} met, {verdicts.count('NOT MET')} not met, {verdicts.count('not asked')} not asked, " + \
        f"{verdicts.count('not measured') + missing} not measured"


def section(result: dict, plot: Path | None) -> str:
    machine = result["machine"]
    table = ["| case | threads | median (least to most) | bar |", "|---|---|---|---|"] + [f"| {' | '.join(line)} |" for line in lines(result)]
    image = f"\n![Tokens per second of Tern and its peers]({plot.name})\n" if plot else ""
    bullets = "\n".join(f"- {line}" for line in peer_lines(result) + setting_lines(result))
    return f"""Machine: {machine['cpu']}, Linux {machine['kernel']}. Date: {machine['date']}. Compiler: {machine['compiler']}. Load average before: {machine['load_before']:.1f}.
Command: `{machine['command']}`. Runs of each engine in turn: {result['runs']}. Of the {summary(result)}.

{chr(10).join(table)}
{image}
Engines, and their settings; a peer's are those with which it was fastest in a trial:

{bullets}
"""


def draw(result: dict, path: Path) -> None:
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: small
    matplotlib.rcParams["svg.hashsalt"] = "tern"
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5))
    for axis, name in zip(axes.flat, PLOTTED):
        rows = [row for row in result["rows"] if row.get("row") == name and "engines" in row]
        engines = [engine for engine in COLORS if any("median" in row["engines"].get(engine, {}) for row in rows)]
        for i, engine in enumerate(engines):
            shown = [(at, row["engines"][engine]) for at, row in enumerate(rows) if "median" in row["engines"].get(engine, {})]
            places, values = [at + i * BAR_WIDTH for at, _ in shown], [e["median"] for _, e in shown]
            spread = [[e["median"] - min(e["runs"]) for _, e in shown], [max(e["runs"]) - e["median"] for _, e in shown]]
            axis.bar(places, values, BAR_WIDTH, yerr=spread, capsize=2, color=COLORS[engine], label="Tern" if engine == "tern" else engine)
        axis.set_xticks([at + BAR_WIDTH * (len(engines) - 1) / 2 for at in range(len(rows))], [f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}" for row in rows])
        axis.set_title(rows[0]["case"] if rows else f"{name}: not measured", fontsize=10)
        axis.set_ylabel("tokens per second")
        if engines:
            axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def has_section(document: Path) -> bool:
    return document.is_file() and all(mark in document.read_text(encoding="utf-8") for mark in (BEGIN, END))


def replace_section(document: Path, content: str) -> None:
    before = document.read_text(encoding="utf-8")
    if BEGIN not in before or END not in before:
        sys.exit(f"engine_report: {document} has no lines {BEGIN} and {END}")
    after = re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: f"{BEGIN}\n{content}{END}", before, flags=re.DOTALL)
    document.write_text(after, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, help="JSON of tools/compare_engines.py")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw there (.svg or .png; needs matplotlib)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="replace the decode part of this file; else print text")
    args = parser.parse_args()
    result = json.loads(args.json.read_text())
    if args.plot:
        draw(result, args.plot)
    if args.document:
        replace_section(args.document, section(result, args.plot))
    else:
        print(text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
