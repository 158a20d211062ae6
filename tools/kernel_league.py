# SPDX-License-Identifier: MIT
"""The exactness league of tools/compare_kernels.py: the same integers through every library, compared with exact sums.

Activations that reach a library as float32 hold a 127 in every 16, so that its quantizer finds scale 1 and gives the integers back:
what is judged is the product. Libraries that take int8 also get the -128 that no quantizer makes.
"""
from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

N = 64
FLOAT_SCALE = np.float32(0.1)
DRIFT = 2.0 ** -12  # of the sum of magnitudes: below it an error is rounding, above it a sum has overflowed or saturated


@dataclass(frozen=True)
class Trial:
    name: str
    m: int
    k: int
    x: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    w: Callable[[np.random.Generator, tuple[int, int], int], np.ndarray]  # the last argument: the largest code
    int8_only: bool = False  # holds a -128
    scaled: bool = False     # x times 0.1, so that float32 stages round


def random_x(rng, shape):
    x = rng.integers(-127, 127, shape, dtype=np.int8, endpoint=True)
    x[:, ::16] = 127
    return x


def random_w(rng, shape, largest):
    return rng.integers(-largest, largest, shape, dtype=np.int8, endpoint=True)


def constant(value: int):
    return lambda rng, shape: np.full(shape, value, dtype=np.int8)


def largest_w(rng, shape, largest):
    return np.full(shape, largest, dtype=np.int8)


def smallest_w(rng, shape, largest):
    return np.full(shape, -largest - (largest > 1), dtype=np.int8)


TRIALS = [
    Trial("random K=4096", 4, 4096, random_x, random_w),
    Trial("random K=65536", 1, 65536, random_x, random_w),
    Trial("extreme K=4096", 1, 4096, constant(127), largest_w),
    Trial("extreme M=4", 4, 4096, constant(127), largest_w),
    Trial("extreme K=130816", 1, 130816, constant(127), largest_w),
    Trial("x=-128 K=130816", 1, 130816, constant(-128), smallest_w, int8_only=True),
    Trial("x=-128, w max", 1, 130816, constant(-128), largest_w, int8_only=True),
    Trial("scaled K=65536", 1, 65536, random_x, random_w, scaled=True),
]
LARGEST = {"ternary": 1, "int8": 127}


def judge(y: np.ndarray, x: np.ndarray, w: np.ndarray, scale: float) -> str:
    exact = x.astype(np.int64) @ w.astype(np.int64).T
    error = np.abs(y.astype(np.float64) / scale - exact)
    if not scale == 1:
        ulps = np.abs(y.astype(np.float64) - exact * np.float64(scale)) / np.spacing(np.abs(exact * np.float64(scale)).max().astype(np.float32))
        if np.all(error < DRIFT * np.abs(x.astype(np.int64)).dot(np.abs(w.astype(np.int64)).T)):
            return f"{ulps.max():.1f} ulp"
    if not error.any():
        return "exact"
    magnitude = np.abs(x.astype(np.int64)) @ np.abs(w.astype(np.int64)).T
    # float32 outputs beyond 2^24 cannot hold every integer: rounding once is not an error of the product
    if np.all(y.astype(np.float32) == exact.astype(np.float32)):
        return "exact (rounded)"
    share = (error / np.maximum(magnitude, 1)).max()
    return f"off by {error.max():.3g}" if share < DRIFT else f"WRONG by {error.max():.3g}"


def run(engines, workers, not_measured) -> list[dict]:
    """One row per engine: {"engine", "op", trial: verdict}. Kernel forms of Tern are left out: they are the same sums."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for op in LARGEST:
            for engine in engines:
                if op in engine.ops:
                    rows.append({"engine": engine.name, "op": op} | {t.name: verdict(t, op, engine, workers, Path(folder), not_measured) for t in TRIALS})
    return rows


def verdict(trial: Trial, op: str, engine, workers, folder: Path, not_measured) -> str:
    rng = np.random.default_rng(7)
    x, w = trial.x(rng, (trial.m, trial.k)), trial.w(rng, (N, trial.k), LARGEST[op])
    scale = FLOAT_SCALE if trial.scaled else np.float32(1)
    np.save(folder / "x.npy", x * scale if trial.scaled else x)
    np.save(folder / "w.npy", w)
    try:
        worker = workers[engine.peer]
        wanted = {"op": op, "form": engine.form, "x": str(folder / "x.npy"), "w": str(folder / "w.npy"), "copies_bytes": 0, "integers": trial.int8_only}
        made = worker.ask(make=wanted)
        y = np.load(worker.ask(result=made["id"], to=str(folder / "y.npy"))["to"])
        worker.ask(drop=made["id"])
    except not_measured as error:
        return f"- ({error})"
    return judge(y, x, w, float(scale))


def print_table(rows: list[dict]) -> None:
    print("\nexactness league, " + f"N={N}; against exact integer sums")
    names = [t.name for t in TRIALS]
    print(f"{'':8s}{'':24s}" + "".join(f"{name:>18s}" for name in names))
    reasons = set()
    for row in rows:
        cells = []
        for name in names:
            text = row[name]
            if text.startswith("- ("):
                reasons.add(f"{row['engine']}: {text[3:-1]}")
                text = "-"
            cells.append(f"{text:>18s}")
        print(f"{row['op']:8s}{row['engine']:24s}" + "".join(cells))
    for reason in sorted(reasons):
        print(f"  - {reason}")
