#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the measured part of docs/performance.md, and its plot, from the JSON of tools/compare_kernels.py and of tern bench.

The exit code is 1 where bars or engines were not measured; the page is written, and says which.
"""
from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PROTOTYPE_GHZ = 3.7  # the clock for which the bars in GOP/s were written
SHAPE = (4096, 4096)
FEW_TOKENS = (1, 2, 4, 8, 16)
STEPS = 32
AWKWARD = [((5460, 2048), (5504, 2048)), ((641, 2561), (704, 2624)), ((4096, 4097), (4096, 4160)), ((1, 4096), (64, 4096)), ((63, 7), (64, 64))]
NO_CPU = "not measured: no such CPU"


def mac_per_cycle(gops: float) -> float:
    """What a bar in GOP/s means at any clock."""
    return gops / 2 / PROTOTYPE_GHZ


class Figures:
    """The rows of all files, to be asked for."""

    def __init__(self, kernels: dict, benches: list[dict]):
        self.kernels, self.rows = kernels, [r for r in kernels["rows"] if "seconds" in r]
        self.missing = {r["engine"]: r["not_measured"] for r in kernels["rows"] if "not_measured" in r}
        self.bench = [r for b in benches for r in b["results"] if r["gops"]]
        self.roofline = {b["roofline"]["threads"]: b["roofline"] for b in reversed(benches)}

    def engines(self, op: str, m: int, shape: tuple[int, int], residency: str, threads: int) -> list[dict]:
        return [r for r in self.rows if (r["op"], r["m"], (r["n"], r["k"]), r["residency"], r["threads"]) == (op, m, shape, residency, threads)]

    def tern(self, *case, scope: str = "end to end", part: str = "") -> dict | None:
        found = [r for r in self.engines(*case) if r["peer"] == "Tern" and r["scope"] == scope and part in r["engine"]]
        return min(found, key=lambda r: r["seconds"], default=None)

    def peer(self, *case, part: str = "") -> dict | None:
        found = [r for r in self.engines(*case) if r["peer"] != "Tern" and part in r["engine"]]
        return min(found, key=lambda r: r["seconds"], default=None)

    def own(self, threads: int, **wanted) -> dict | None:
        """The fastest of tern bench's rows."""
        found = [r for r in self.bench if r["threads"] == threads and all(r[key] == value for key, value in wanted.items())]
        return min(found, key=lambda r: r["seconds"], default=None)


# ---- Tables -------------------------------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def case_table(f: Figures, title: str, op: str, m: int, shape: tuple[int, int], residency: str) -> str:
    engines = sorted({r["engine"] for t in (1, 2) for r in f.engines(op, m, shape, residency, t)},
                     key=lambda name: min(r["seconds"] for t in (1, 2) for r in f.engines(op, m, shape, residency, t) if r["engine"] == name))
    rows = []
    for name in engines:
        cells = [name]
        for threads in (1, 2):
            found = [r for r in f.engines(op, m, shape, residency, threads) if r["engine"] == name]
            if not found:
                cells += ["", "", ""]
                continue
            r = found[0]
            cells += [f"{r['gops']:.0f}", f"{r['mac_per_cycle']:.1f}", f"{100 * r['fraction']:.0f} % {r['bound']}"]
            about = [r["scope"], f"{r['bits_per_weight']:.2f}"]
        rows.append(cells[:1] + about + cells[1:])
    if not rows:
        return ""
    head = ["", "scope", "bits", "1T GOP/s", "MAC/cycle", "of limit", "2T GOP/s", "MAC/cycle", "of limit"]
    return f"**{title}, {shape[0]}x{shape[1]}**\n\n{table(head, rows)}\n"


def tables(f: Figures) -> str:
    cases = [("One token from DRAM", "ternary", 1, "dram"), ("One token, hot", "ternary", 1, "hot"), ("512 tokens", "ternary", 512, "hot")]
    shapes = sorted({(r["n"], r["k"]) for r in f.rows if r["op"] == "ternary"}, key=lambda s: (s != SHAPE, s))
    parts = [case_table(f, title, op, m, shape, residency) for title, op, m, residency in cases for shape in shapes]
    parts += [case_table(f, "INT8", "int8", m, shape, "hot") for m, shape in sorted({(r["m"], (r["n"], r["k"])) for r in f.rows if r["op"] == "int8"})]
    for op in ("q8_0", "q4_0", "q4_1"):
        parts += [case_table(f, f"{op.upper()}, {'one token from DRAM' if m == 1 else f'{m} tokens'}", op, m, shape, residency)
                  for m, shape, residency in sorted({(r["m"], (r["n"], r["k"]), r["residency"]) for r in f.rows if r["op"] == op})]
    return "\n".join(part for part in parts if part)


def few_tokens(f: Figures) -> str:
    names = sorted({r["engine"] for m in FEW_TOKENS for r in f.engines("ternary", m, SHAPE, "hot", 1)})
    rows = []
    for name in names:
        for threads in (1, 2):
            found = {r["m"]: r for m in FEW_TOKENS for r in f.engines("ternary", m, SHAPE, "hot", threads) if r["engine"] == name}
            if found:
                rows.append([name, str(threads)] + [f"{found[m]['gops']:.0f}" if m in found else "" for m in FEW_TOKENS])
    return table(["GOP/s, hot", "threads"] + [f"M={m}" for m in FEW_TOKENS], rows)


def league(f: Figures) -> str:
    rows = f.kernels.get("league", [])
    if not rows:
        return "not measured"
    trials = [key for key in rows[0] if key not in ("op", "engine")]
    cell = lambda text: "-" if text.startswith("- (") else text
    return table(["", "weights"] + trials, [[r["engine"], r["op"]] + [cell(r[t]) for t in trials] for r in rows])


# ---- Bars ---------------------------------------------------------------------------------------------------------------


def show(value: float | None, bar: float, text: str) -> str:
    return "not measured" if value is None else f"{'met' if value >= bar else 'NOT MET'}: {text.format(value)}"


def ratio(a: dict | None, b: dict | None, key: str = "gops") -> float | None:
    return a[key] / b[key] if a and b else None


def dram_share(row: dict | None) -> float | None:
    return row["fractions"]["dram"] if row else None


def bar_rows(f: Figures) -> list[list[str]]:
    rows = [["GEMV ternary DRAM >= 92 % at <= 1.63 bits; hot >= 57 MAC/cycle; M=2..16 >= 420 GOP/s; GEMM >= 96 % of VNNI (AVX-512)", NO_CPU, NO_CPU]]

    def add(name: str, one) -> None:
        rows.append([name, one(1), one(2)])

    for n, k in ((4096, 4096), (11008, 4096), (2560, 6912)):
        for part in ("MAD", "LUT"):
            row = lambda t: f.tern("ternary", 1, (n, k), "dram", t, part=part)
            add(f"AVX2 GEMV DRAM, {part}, {n}x{k}: >= 92 % of DRAM", lambda t: show(dram_share(row(t)), 0.92, "{:.0%}" + (f" at {row(t)['bits_per_weight']:.2f} bits" if row(t) else "")))
    add("AVX2 GEMV hot 4096x4096: >= 1.3x bitnet.cpp I2_S (kernels)",
        lambda t: show(ratio(f.tern("ternary", 1, SHAPE, "hot", t, scope="kernel"), f.peer("ternary", 1, SHAPE, "hot", t, part="I2_S")), 1.3, "{:.2f}x"))
    need = mac_per_cycle(250)
    lut = lambda t: f.tern("ternary", 1, SHAPE, "hot", t, scope="kernel", part="LUT")
    add(f"AVX2 LUT GEMV hot: >= 250 GOP/s at {PROTOTYPE_GHZ} GHz = {need:.1f} MAC/cycle", lambda t: show(lut(t) and lut(t)["mac_per_cycle"], need, "{:.1f} MAC/cycle"))
    for block, bar in ((256, 0.85), (64, 0.60)):
        add(f"AVX2 GEMV hot, {block}-blocks: >= {bar:.0%} of the per-row figure",
            lambda t: show(ratio(f.own(t, source="ternary", m=1, n=4096, k=4096, residency="hot", scale_block=block),
                                 f.own(t, source="ternary", m=1, n=4096, k=4096, residency="hot", scale_block=0)), bar, "{:.0%}"))
    own = lambda t, m, residency="hot": f.own(t, source="ternary", m=m, n=SHAPE[0], k=SHAPE[1], residency=residency, scale_block=0)

    def worst_step(t: int) -> str:
        steps = [(value, m) for m in range(1, STEPS + 1) if (value := ratio(own(t, m + 1), own(t, m))) is not None]
        value, m = min(steps, default=(None, 0))
        return "not measured" if len(steps) < STEPS else show(value, 0.95, "worst {:.2f}, from M=" + f"{m} to {m + 1}")

    add(f"hot, M = 1..{STEPS}: GOP/s(M+1) >= 0.95 GOP/s(M)", worst_step)
    for m in FEW_TOKENS[1:]:
        most = lambda t: min(m * own(t, 1, "dram")["gops"], own(t, m)["gops"]) if own(t, 1, "dram") and own(t, m) else None
        add(f"DRAM M={m}: >= 0.9 of the lesser of {m} x GEMV DRAM and M={m} hot",
            lambda t: show(own(t, m, "dram")["gops"] / most(t) if most(t) and own(t, m, "dram") else None, 0.9, "{:.2f}"))
    for shape in ((4096, 4096), (2560, 6912), (6912, 2560), (11008, 4096)):
        add(f"AVX2 GEMM M=512 {shape[0]}x{shape[1]}: >= ik IQ2_BN_R4 (end to end)",
            lambda t: show(ratio(f.tern("ternary", 512, shape, "hot", t), f.peer("ternary", 512, shape, "hot", t, part="IQ2_BN_R4")), 1.0, "{:.2f}x"))
    for m, shape in ((1024, (1024, 1024)), (512, (2560, 6912)), (512, (6912, 2560))):
        add(f"INT8 GEMM M={m} {shape[0]}x{shape[1]}: >= oneDNN (kernels)",
            lambda t: show(ratio(f.tern("int8", m, shape, "hot", t, scope="kernel"), f.peer("int8", m, shape, "hot", t, part="oneDNN")), 1.0, "{:.2f}x"))
    for op in ("q8_0", "q4_0", "q4_1"):
        for shape in ((49152, 576), (128256, 2560)):
            if f.tern(op, 1, shape, "dram", 1):
                add(f"{op.upper()} GEMV DRAM {shape[0]}x{shape[1]}: >= 92 % of DRAM", lambda t: show(dram_share(f.tern(op, 1, shape, "dram", t)), 0.92, "{:.0%}"))
    need = mac_per_cycle(300)
    for op in ("q4_0", "q4_1"):
        row = lambda t: f.tern(op, 512, (6912, 2560), "hot", t)
        add(f"{op.upper()} GEMM M=512 6912x2560: >= 300 GOP/s at {PROTOTYPE_GHZ} GHz = {need:.1f} MAC/cycle", lambda t: show(row(t) and row(t)["mac_per_cycle"], need, "{:.1f} MAC/cycle"))
    for given, rounded in AWKWARD:
        shape = lambda t, s: f.own(t, source="ternary", m=1, n=s[0], k=s[1], residency="hot", scale_block=0)
        slower = lambda t: ratio(shape(t, given), shape(t, rounded), "seconds")
        add(f"{given[0]}x{given[1]}: time <= 1.12x that of {rounded[0]}x{rounded[1]}",
            lambda t: "not measured" if slower(t) is None else f"{'met' if slower(t) <= 1.12 else 'NOT MET'}: {slower(t):.2f}x")
    for title, bar, case in (("ternary GEMV hot", 1.9, ("ternary", 1, SHAPE, "hot")), ("ternary GEMM M=512", 1.93, ("ternary", 512, SHAPE, "hot")),
                             ("Q4_0 GEMM M=512", 1.9, ("q4_0", 512, (6912, 2560), "hot"))):
        rows.append([f"{title}: two threads >= {bar}x one", "", show(ratio(f.tern(*case, 2), f.tern(*case, 1)), bar, "{:.2f}x")])
    pack = {r["threads"]: r["weights_per_second"] / 1e9 for r in f.kernels.get("packing", [])}
    add("packing from TQ2_0: >= 1 G weights/s per thread", lambda t: show(pack.get(t), t, "{:.2f} G weights/s"))
    return rows


def gaps(f: Figures, bars: list[list[str]]) -> list[str]:
    """What was not measured, and might have been on this machine."""
    return [f"bar {name}" for name, *cells in bars if "not measured" in cells] + [f"{name}: {why}" for name, why in f.missing.items()]


# ---- The document -------------------------------------------------------------------------------------------------------


def limits_line(f: Figures) -> str:
    rows = [[str(t), f"{r['dram_gbps']:.1f} GB/s", f"{r['l3_gbps']:.1f} GB/s of {r['l3_bytes'] / 2**20:.0f} MB" if r["l3_gbps"] else "not measured", f"{r['vnni_gops']:.0f} GOP/s ({r['int8_peak_variant']})",
             f"{r['clock_ghz']:.2f} GHz"] for t, r in sorted(f.roofline.items()) if r["dram_gbps"]]
    return table(["threads", "DRAM read", "L3 read", "INT8 multiply-add with a sum each", "clock"], rows)


def measured(f: Figures, bars: list[list[str]], plot: Path | None) -> str:
    machine, peers = f.kernels["machine"], f.kernels["peers"]
    lines = [f"- {name}: " + (f"not measured: {p['not_measured']}" if "not_measured" in p else f"{p['flags']}; CPU features: {p['features']}") for name, p in peers.items()]
    image = f"\n![GOP/s of Tern and its peers]({plot.name})\n" if plot else ""
    return f"""Machine: {machine['cpu']}, Linux {machine['kernel']}. Date: {machine['date']}. Compiler: {machine['compiler']}. Load average before: {machine['load_before']:.1f}.
Command: `{machine['command']}`. AVX-512 rows: {NO_CPU}.

### Limits

{limits_line(f)}

### Bars

{table(["bar", "1 thread", "2 threads"], bars)}
{image}
### Speed, side by side

{tables(f)}
**Few tokens, 4096x4096**

{few_tokens(f)}

### Exactness league

{league(f)}

### Peers

""" + "\n".join(lines) + "\n"


def draw(f: Figures, path: Path) -> None:
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: small
    matplotlib.rcParams["svg.hashsalt"] = "tern"
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(2, 2, figsize=(11, 8))
    panels = [("One token from DRAM", "ternary", 1, SHAPE, "dram"), ("One token, hot", "ternary", 1, SHAPE, "hot"), ("512 tokens", "ternary", 512, SHAPE, "hot")]
    for axis, (title, *case) in zip(axes.flat, panels):
        rows = sorted((r for r in f.engines(*case, 1)), key=lambda r: r["gops"])
        axis.barh([r["engine"] for r in rows], [r["gops"] for r in rows], color=["tab:green" if r["peer"] == "Tern" else "tab:gray" for r in rows])
        axis.set_title(f"{title}, {SHAPE[0]}x{SHAPE[1]} ternary, 1 thread", fontsize=10)
        axis.set_xlabel("GOP/s")
        axis.tick_params(labelsize=8)
    axis = axes.flat[3]
    for name in sorted({r["engine"] for m in FEW_TOKENS for r in f.engines("ternary", m, SHAPE, "hot", 1) if "kernel" not in r["engine"]}):
        points = [(m, r["gops"]) for m in FEW_TOKENS for r in f.engines("ternary", m, SHAPE, "hot", 1) if r["engine"] == name]
        axis.plot(*zip(*points), marker="o", markersize=3, linewidth=2 if name.startswith("Tern") else 1, linestyle="-" if name.startswith("Tern") else "--", label=name)
    axis.set_xscale("log", base=2)
    axis.set_title(f"Few tokens, {SHAPE[0]}x{SHAPE[1]} ternary, hot, 1 thread", fontsize=10)
    axis.set_xlabel("tokens")
    axis.set_ylabel("GOP/s")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def write(document: Path, text: str) -> None:
    before = document.read_text(encoding="utf-8")
    if BEGIN not in before or END not in before:
        sys.exit(f"kernel_report: {document} has no lines {BEGIN} and {END}")
    document.write_text(re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: f"{BEGIN}\n{text}{END}", before, flags=re.DOTALL), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=Path, required=True, help="JSON of tools/compare_kernels.py")
    parser.add_argument("--bench", type=Path, nargs="*", default=[], help="JSON of tern bench, one file for each run")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw there (.svg or .png; needs matplotlib)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="replace the measured part of this file; else print it")
    args = parser.parse_args()
    figures = Figures(json.loads(args.kernels.read_text()), [json.loads(path.read_text()) for path in args.bench])
    bars = bar_rows(figures)
    text = measured(figures, bars, args.plot)
    if args.plot:
        draw(figures, args.plot)
    if args.document:
        write(args.document, text)
    else:
        print(text)
    missing = gaps(figures, bars)
    for line in missing:
        print(f"kernel_report: not measured: {line}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
