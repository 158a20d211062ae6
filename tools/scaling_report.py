#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the model of scale against the real step from one core to two, and predicts larger machines, with bands.

Reads the JSON of tern_scale_bench: prices, stage lists of real regions, and times of the same work, all of one run. The model and
its equations are in tools/simulate_scaling.py, what it says in docs/scaling.md.
"""
import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np

from simulate_scaling import KINDS, Machine, Prices, Simulation, Stage, wake_times

# Not measurable on two cores with one cache and one node: ASSUMPTIONS, as ranges from which each seed draws.
ASSUMED = {
    "far": (3.0, 4.5, "price between two groups, by that within one; this virtual machine moves: 25–36 ns for `other_load` in some runs, "
                      "110–135 in others"),
    "remote": (6.0, 10.0, "price between two sockets, likewise: twice `far` and a little more"),
    "queue": (0.2, 1.0, "share of a line's price that the next in a queue of readers waits"),
    "thief_wait": (200.0, 1000.0, "ns that a worker watches the stage before it steals"),
    "remote_tile": (1.2, 2.0, "time of a tile whose weights lie on another node, by that of one at home"),
    "dram_8": (40.0, 60.0, "GB/s of an 8-core machine: two channels of DDR4 or DDR5"),
    "dram_64": (140.0, 190.0, "GB/s of a 64-core socket: eight channels of DDR4-3200, 70 to 93 % of 204.8"),
    "dram_192": (650.0, 840.0, "GB/s of two 96-core sockets: 24 channels of DDR5-4800, 70 to 91 % of 921.6"),
}
CORES_PER_CACHE = 8  # of the machines that are predicted: as AMD Zen 3 and 4
CACHE_SHARE = 0.75  # of all last-level caches that weights may fill and be found there again
NEAR_MAX_NS = 60  # of other_load
SUFFIX_MAX = 8  # stages after the last layer, at most
LAYERS_SIMULATED = 2  # of a model's equal layers
MACHINES = [(8, 1, 1, "dram_8"), (64, 1, 1, "dram_64"), (64, 4, 1, "dram_64"), (192, 2, 2, "dram_192"), (192, 8, 2, "dram_192")]
NAMES = {"gemm_m512_n6912_k2560": "GEMM 512 × 6912 × 2560", "bitnet-2b.gguf": "BitNet-2B token", "smollm2-135m.gguf": "SmolLM2-135M token", "empty_region": "empty region", "short_stages": "100 stages of 1 µs"}


def stages_of(workload, workers, cached=False):
    """The stage list of a workload as it is laid out for so many workers."""
    if "per_worker" in workload:
        return [Stage(workers, s["tile_ns"]) for s in workload["per_worker"]]
    layout = next((l["stages"] for l in workload["layouts"] if l["workers"] == workers), None)
    if layout is None:
        sys.exit(f"scaling_report: {workload['name']} was not laid out for {workers} workers; give tern_scale_bench --workers")
    streamed = sum(s["ns"] for s in layout if s["product"])
    result = []
    for s in layout:
        ns = s["hot_ns"] if cached else s["ns"]
        bytes_ = 0.0 if cached or not s["product"] else workload["bytes"] * s["ns"] / streamed
        result.append(Stage(s["tiles"], ns / max(1, s["tiles"]), bytes_ / max(1, s["tiles"]), s["spread"]))
    return result


def layers_of(stages, layers):
    """(what comes before and after the layers, the stages of one layer): medians over the layers, which are alike."""
    for suffix in range(1, SUFFIX_MAX):
        length, rest = divmod(len(stages) - 1 - suffix, layers) if layers else (0, 1)
        if rest or length < 1:
            continue
        blocks = [stages[1 + i * length:1 + (i + 1) * length] for i in range(layers)]
        if all([s.tiles for s in b] == [s.tiles for s in blocks[0]] for b in blocks):
            layer = [Stage(same[0].tiles, *(float(np.median([getattr(s, f) for s in same])) for f in ("tile_ns", "tile_bytes", "spread")))
                     for same in zip(*blocks)]
            return [stages[0], *stages[1 + layers * length:]], layer
    return stages, []


def simulate(machine, prices, stages, seed, layers=0, want=0):
    """(ns, spent) of a region; of a model with `want` equal layers, of which a few are simulated."""
    ends, layer = layers_of(stages, layers) if want else (stages, [])
    result = Simulation(machine, prices, seed).run(ends)
    ns, spent = result.ns, dict(result.spent)
    if layer:
        some = Simulation(machine, prices, seed).run(layer * LAYERS_SIMULATED)
        scale = want / LAYERS_SIMULATED
        ns += some.ns * scale
        spent = {k: spent[k] + some.spent[k] * scale for k in KINDS}
    return ns, spent


def draw(rng, name):
    low, high, _ = ASSUMED[name]
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def prices_of(measured, **assumed):
    return Prices(**measured["constants_ns"], **assumed)


def near_prices(measured, **assumed):
    """The prices within a group. No cache that cores share takes longer than NEAR_MAX_NS: then this pair had two, and paid `far`."""
    prices = prices_of(measured, **assumed)
    if prices.other_load > NEAR_MAX_NS:
        for name in ("visible", "other_rmw", "other_load", "other_store"):
            setattr(prices, name, getattr(prices, name) / prices.far)
    return prices


# ---- the real machine ------------------------------------------------------------------------------------------------


def check(measured):
    """Per workload of a run: measured with one and two workers, and what the model says of two, in microseconds."""
    middle = {name: float(np.sqrt(low * high)) for name, (low, high, _) in ASSUMED.items()}
    prices = prices_of(measured, **{k: middle[k] for k in ("far", "remote", "queue", "thief_wait", "remote_tile")})
    dram = measured["dram"]
    rows = []
    for w in measured["workloads"]:
        machine = Machine(2, node_gbs=max(dram["two_gbs"], dram["one_gbs"]), core_gbs=dram["one_gbs"])
        one = sum(s.tiles * s.tile_ns for s in stages_of(w, 1))
        two = simulate(machine, prices, stages_of(w, 2), 1)[0]
        rows.append({"name": w["name"], "measured_1": w["measured_1_ns"] / 1e3, "recorded_1": one / 1e3, "measured_2": w["measured_2_ns"] / 1e3,
                     "predicted_2": two / 1e3, "error": two / w["measured_2_ns"] - 1})
    return rows


# ---- machines that are not here --------------------------------------------------------------------------------------


def predict(measured, workload, layers, machine, seeds, **variant):
    """Quantiles over seeds of time and of speed-up over the same tiles in one thread, and what the workers' time went to."""
    workers, nodes, sockets, dram = machine
    caches = -(-workers // CORES_PER_CACHE) * measured["l3_bytes"] * CACHE_SHARE
    have = workload.get("layers", 0)
    want = layers.get(workload["name"], have)
    stages = stages_of(workload, workers)
    ends, layer = layers_of(stages, have) if want else (stages, [])
    alone, bytes_ = (sum(s.tiles * getattr(s, field) * times for part, times in ((ends, 1), (layer, want)) for s in part)
                     for field in ("tile_ns", "tile_bytes"))
    cached = 0 < bytes_ <= caches
    if cached:
        stages = stages_of(workload, workers, cached=True)
    times, spent = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        prices = near_prices(measured, **{k: draw(rng, k) for k in ("far", "remote", "queue", "thief_wait", "remote_tile")})
        m = Machine(workers, CORES_PER_CACHE, nodes, sockets, draw(rng, dram) / nodes, measured["dram"]["one_gbs"], **variant)
        ns, s = simulate(m, prices, stages, seed, have, want)
        times.append(ns)
        spent.append([s[k] / (ns * workers) for k in KINDS])
    low, middle, high = np.quantile(times, (0.05, 0.5, 0.95))
    return {**({"per_worker": True} if "per_worker" in workload else {}), "name": workload["name"], "workers": workers, "nodes": nodes, "cached": cached, "ns": middle, "low_ns": low,
            "high_ns": high, "alone_ns": alone, "speedup": (alone / middle, alone / high, alone / low),
            "spent": dict(zip(KINDS, np.mean(spent, axis=0)))}


def machines_for(workload):
    """Nodes matter to what streams from memory; else one number of them per number of cores will do."""
    return MACHINES if workload.get("bytes") else list({m[0]: m for m in MACHINES}.values())


def limit_of(row):
    losses = {k: v for k, v in row["spent"].items() if k != "work"}
    names = {"memory": "DRAM", "serial": "serial stages", "barrier": "waiting for the last", "report": "reports", "steal": "stealing",
             "publish": "publishing", "claim": "claims"}
    worst = sorted(losses, key=losses.get, reverse=True)[:2]
    return ", ".join(f"{names[k]} {losses[k]:.0%}" for k in worst if losses[k] >= 0.005) or "nothing"


# ---- report ----------------------------------------------------------------------------------------------------------


def number(value):
    """Three digits, and no exponents."""
    return "0" if value < 1e-3 else f"{value:.3g}" if value < 1e3 else f"{value:.0f}"


def microseconds(ns):
    return number(ns / 1e3)


def label(name, layers=None):
    return NAMES.get(name, name.removesuffix(".gguf")) + (f", {layers[name]} layers" if layers and name in layers else "")


def check_table(runs):
    lines = ["| run | work | 1 worker, µs | the same stages recorded | 2 workers, µs | predicted, µs | error | real speed-up | predicted |", "|---|---|---|---|---|---|---|---|---|"]
    for run, r in ((i, r) for i, rows in enumerate(runs, 1) for r in rows):
        lines.append(f"| {run} | {label(r['name'])} | {number(r['measured_1'])} | {number(r['recorded_1'])} | {number(r['measured_2'])} | "
                     f"{number(r['predicted_2'])} | {r['error']:+.0%} | {r['measured_1'] / r['measured_2']:.2f} | {r['measured_1'] / r['predicted_2']:.2f} |")
    return "\n".join(lines)


def prediction_table(rows, layers):
    lines = ["| work | cores | nodes | µs | band | speed-up | band | lost to | flat counting, µs | plain stores, µs |", "|---|---|---|---|---|---|---|---|---|---|"]
    for r, flat, stores in rows:
        speed, low, high = r["speedup"]
        times = f"{speed:.3g} | {low:.3g}–{high:.3g}" if speed else "– | –"
        lines.append(f"| {label(r['name'], layers)}{' (from cache)' if r['cached'] else ''} | {r['workers']} | {r['nodes']} | {microseconds(r['ns'])} | "
                     f"{microseconds(r['low_ns'])}–{microseconds(r['high_ns'])} | {times} | {limit_of(r)} | {microseconds(flat['ns'])} | {microseconds(stores['ns'])} |")
    return "\n".join(lines)


def wake_table(measured):
    prices = prices_of(measured)
    lines = ["| workers | woken in a tree, µs | one by one, µs |", "|---|---|---|"]
    for n in (2, 8, 64, 192):
        lines.append(f"| {n} | {wake_times(n, prices).max() / 1e3:.0f} | {wake_times(n, prices, tree=False).max() / 1e3:.0f} |")
    return "\n".join(lines)


def prices_table(runs):
    rows = [("a store is seen by a core that polls", "visible"), ("compare-and-swap on a line of one's own", "own_rmw"),
            ("fetch-add on a line that another core wrote", "other_rmw"), ("load of such a line", "other_load"),
            ("plain store to one of many such lines", "other_store"), ("system call that wakes a sleeper", "wake_call"),
            ("from that call until it runs", "wake")]
    lines = ["| price | ns, in each run |", "|---|---|"]
    for what, key in rows:
        lines.append(f"| {what} (`{key}`) | {', '.join(number(run['constants_ns'][key]) for run in runs)} |")
    for what, key in (("one core", "one_gbs"), ("two", "two_gbs")):
        lines.append(f"| DRAM read, {what}, GB/s | {', '.join(format(run['dram'][key], '.3g') for run in runs)} |")
    return "\n".join(lines)


def assumed_table():
    return "\n".join(["| assumption | range | what it is |", "|---|---|---|", *(f"| `{k}` | {low:g}–{high:g} | {what} |" for k, (low, high, what) in ASSUMED.items())])


def plot(path, rows, layers):
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: small
    matplotlib.rcParams["svg.hashsalt"] = "tern"
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(8, 5))
    names = list(dict.fromkeys(r["name"] for r, *_ in rows if "per_worker" not in r))
    for i, name in enumerate(names):
        best = {}
        for r, *_ in rows:
            if r["name"] == name:
                best[r["workers"]] = r["speedup"]  # the last: most nodes
        workers = sorted(best)
        axes.plot([1, *workers], [1, *(best[w][0] for w in workers)], "o-", color=f"C{i}", label=label(name, layers))
        axes.fill_between(workers, [best[w][1] for w in workers], [best[w][2] for w in workers], color=f"C{i}", alpha=0.2)
    axes.plot([1, 192], [1, 192], ":", color="gray", label="perfect")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    ticks = [1, 2, 8, 64, 192]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_yticks(ticks, [str(t) for t in ticks])
    axes.set_xlabel("cores (2: measured)")
    axes.set_ylabel("speed-up over one core")
    axes.set_title("PREDICTION by simulation, not measured; bands: 5 to 95 % over the assumptions")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def fill(path, tables):
    """Replaces what stands between `<!-- name -->` and `<!-- end -->`."""
    text = path.read_text()
    for name, table in tables.items():
        text, n = re.subn(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: m[1] + table + "\n" + m[2], text, flags=re.S)
        if n != 1:
            sys.exit(f"scaling_report: {path} has {n} places for {name}, not one")
    path.write_text(text)


def read_runs(paths):
    runs = [json.loads(path.read_text()) for path in paths]
    for path, run in zip(paths, runs):
        if run.get("schema") != "tern.scale/1":
            sys.exit(f"scaling_report: {path} is not what tern_scale_bench prints")
    return runs


def work_of(runs):
    """(run, workload), each workload once: it is predicted from the prices of its own run."""
    found = {}
    for run in runs:
        for w in run["workloads"]:
            found.setdefault(w["name"], (run, w))
    return list(found.values())


def two_cores(workload):
    return {"name": workload["name"], "workers": 2, "speedup": (workload["measured_1_ns"] / workload["measured_2_ns"],) * 3}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, nargs="+", help="what tern_scale_bench printed; of work in several, the first counts")
    parser.add_argument("--seeds", type=int, default=7, help="draws from the assumptions (default: 7)")
    parser.add_argument("--layers", action="append", default=[], metavar="NAME=N", help="predict this model with N layers, of which the measured file has some")
    parser.add_argument("--check", action="store_true", help="only the check on this machine")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the prediction there (.svg or .png)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="put the tables into this page")
    args = parser.parse_args()
    runs = read_runs(args.measured)
    layers = {name: int(n) for name, _, n in (text.partition("=") for text in args.layers)}
    tables = {"prices": prices_table(runs), "check": check_table([check(run) for run in runs]),
              "assumptions": assumed_table(), "wake": wake_table(runs[0])}
    if not args.check:
        rows = [[predict(run, w, layers, m, args.seeds, **v) for v in ({}, {"flat": True}, {"stores": True})]
                for run, w in work_of(runs) for m in machines_for(w)]
        tables["predictions"] = prediction_table(rows, layers)
        if args.plot:
            plot(args.plot, [[two_cores(w)] for _, w in work_of(runs) if "per_worker" not in w] + rows, layers)
    if args.document:
        fill(args.document, tables)
    for table in tables.values():
        print(table, end="\n\n")


if __name__ == "__main__":
    main()
