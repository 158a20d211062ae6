#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws one token of a trace that `tern generate --trace` wrote: who ran which stage when, and one layer of it, larger.

usage: plot_trace.py TRACE -o FILE.svg [--step "token 3"] [--layer 10] [--title TEXT]
"""
import argparse
import json
import sys
from pathlib import Path

WORKERS = 3  # track of worker 0: see tools/trace_file.c
LAYER_BEGINS, LAYER_ENDS = "qkv", "down"  # stages that each layer has once
NORM = "norm, quantize"                   # before qkv, where it is no part of it
# Products in full colours, the steps between them in pale ones, waiting in grey.
COLOURS = {"embed": "#b5cf6b", "norm, quantize": "#c6dbef", "qkv": "#1f77b4", "rope, cache": "#9edae5", "attention": "#d62728",
           "quantize": "#dadaeb", "attention out": "#9467bd", "gate, up": "#2ca02c", "silu, quantize": "#c7e9c0", "down": "#ff7f0e",
           "head": "#8c564b"}
WAIT, OTHER = "#e3e3e3", "#7f7f7f"
LANE, GAP = 0.8, 0.2  # heights


class Trace:
    def __init__(self, path):
        try:
            events = json.loads(Path(path).read_bytes())["traceEvents"]
        except OSError as error:
            sys.exit(f"plot_trace.py: {error}")
        except (ValueError, KeyError, TypeError):
            sys.exit(f"plot_trace.py: {path} is no trace; write one with tern generate --trace")
        self.lanes = {e["tid"]: e["args"]["name"] for e in events
                      if e["name"] == "thread_name" and e["tid"] >= WORKERS}
        self.slices = [e for e in events if e["ph"] == "X"]

    def step(self, name):
        """Begin and end of a mark of the program, in microseconds; by default the last token."""
        marks = [e for e in self.slices if e["cat"] == "program" and (e["name"] == name if name else e["name"].startswith("token"))]
        if not marks:
            sys.exit(f"plot_trace.py: the trace has no {name or 'token'}; give one of its slices with --step")
        return marks[-1]["ts"], marks[-1]["ts"] + marks[-1]["dur"]

    def within(self, begin, end, *categories):
        return [e for e in self.slices if e["cat"] in categories and e["ts"] < end and e["ts"] + e["dur"] > begin]

    def layer(self, begin, end, number):
        """Begin and end of a layer, counted from 0."""
        stages = sorted(self.within(begin, end, "stage"), key=lambda e: e["ts"])
        first = [i for i, e in enumerate(stages) if e["name"] == LAYER_BEGINS]
        last = [i for i, e in enumerate(stages) if e["name"] == LAYER_ENDS]
        if not 0 <= number < len(first):
            sys.exit(f"plot_trace.py: --layer {number}: the step has layers 0 to {len(first) - 1}")
        start, end = first[number], last[number]
        if start > 0 and stages[start - 1]["name"] == NORM:
            start -= 1
        return stages[start]["ts"], stages[end]["ts"] + stages[end]["dur"], stages[start:end + 1]


def join(bars, gap):
    """Bars (begin, length) of one lane and colour; those that nearly touch become one, so that the file stays small."""
    joined = []
    for begin, length in sorted(bars):
        if joined and begin - sum(joined[-1]) <= gap:
            joined[-1] = (joined[-1][0], begin + length - joined[-1][0])
        else:
            joined.append((begin, length))
    return joined


def draw_lanes(axes, trace, begin, end, unit, join_gap, edge):
    """One lane for each worker, the caller on top. unit: of the axis, in microseconds."""
    for row, track in enumerate(sorted(trace.lanes)):
        y = -row * (LANE + GAP)
        bars = {}
        for e in trace.within(begin, end, "tile", "wait"):
            if e["tid"] != track or e["name"] == "asleep":
                continue
            first, last = max(e["ts"], begin), min(e["ts"] + e["dur"], end)
            key = "wait" if e["cat"] == "wait" else e["name"]
            bars.setdefault((key, e["args"].get("stolen", False)), []).append(((first - begin) / unit, (last - first) / unit))
        for (name, stolen), values in bars.items():
            axes.broken_barh(join(values, join_gap), (y, LANE), facecolors=WAIT if name == "wait" else COLOURS.get(name, OTHER),
                             hatch="////" if stolen and edge else None, edgecolor="white" if edge else "none", linewidth=edge)
    axes.set_yticks([LANE / 2 - row * (LANE + GAP) for row in range(len(trace.lanes))], [trace.lanes[t] for t in sorted(trace.lanes)])
    axes.set_xlim(0, (end - begin) / unit)
    axes.set_ylim(-(len(trace.lanes) - 1) * (LANE + GAP) - GAP, LANE + GAP)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def name_stages(axes, stages, begin, end):
    """A line where each stage begins, and its name above it, higher up where the names before are too near."""
    letter = (end - begin) / 150  # about the width of one
    free_from = [0.0, 0.0, 0.0]   # of each line of names
    for stage in stages:
        at = stage["ts"] - begin
        axes.axvline(at, color="black", linewidth=0.5, alpha=0.5)
        left = max(at + stage["dur"] / 2 - len(stage["name"]) * letter / 2, 0)
        line = next((i for i, free in enumerate(free_from) if free <= left), 0)
        free_from[line] = left + (len(stage["name"]) + 1) * letter
        axes.annotate(stage["name"], (left, LANE + GAP), (0, 2 + 10 * line), textcoords="offset points", fontsize=8)


def shares(trace, begin, end):
    """Shares of the workers' time in a step, by stage, in the order of the first tile; and of the time without a tile."""
    total = (end - begin) * len(trace.lanes)
    times = {}
    for e in sorted(trace.within(begin, end, "tile"), key=lambda e: e["ts"]):
        times[e["name"]] = times.get(e["name"], 0) + (min(e["ts"] + e["dur"], end) - max(e["ts"], begin)) / total
    return times, 1 - sum(times.values())


def plot(trace, step, layer, title, path):
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot_trace.py: this Python has no matplotlib; run it with build/venv/bin/python3, which tools/setup.sh makes")
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tern", "font.size": 9})  # text stays text: small
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch
    begin, end = trace.step(step)
    layer_begin, layer_end, stages = trace.layer(begin, end, layer)
    height = 0.45 * len(trace.lanes)
    figure, (whole, zoom) = plt.subplots(2, 1, figsize=(11, 3.2 + 2 * height), layout="constrained", height_ratios=[1, 1.25])
    draw_lanes(whole, trace, begin, end, 1000, 0.002, 0)
    whole.set_xlabel("ms")
    whole.set_title(title, loc="left", fontweight="bold")
    whole.axvspan((layer_begin - begin) / 1000, (layer_end - begin) / 1000, facecolor="none", edgecolor="black", linewidth=1)
    draw_lanes(zoom, trace, layer_begin, layer_end, 1, 0, 0.4)
    zoom.set_xlabel("µs")
    zoom.set_title(f"Layer {layer} of it (the frame above)", loc="left", fontweight="bold", pad=36)
    name_stages(zoom, stages, layer_begin, layer_end)
    times, without = shares(trace, begin, end)
    patches = [Patch(facecolor=COLOURS.get(name, OTHER), label=f"{name}  {100 * share:.1f} %") for name, share in times.items()]
    patches.append(Patch(facecolor=WAIT, label=f"no tile  {100 * without:.1f} %"))
    figure.legend(handles=patches, loc="outside lower center", ncols=6, frameon=False, title="share of the workers' time")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=".svg or .png")
    parser.add_argument("--step", help="name of a slice on the program's track (default: the last token)")
    parser.add_argument("--layer", type=int, default=0, help="the layer to enlarge (default: 0)")
    parser.add_argument("--title", default="One token")
    options = parser.parse_args()
    plot(Trace(options.trace), options.step, options.layer, options.title, options.output)


if __name__ == "__main__":
    main()
