# SPDX-License-Identifier: MIT
"""The tokens that tools/engine_worker.py feeds to every engine, and feeding them one by one."""
import time

ID_RANGE = 251  # ids below those of special tokens in any vocabulary; no engine's speed depends on them


def tokens(n: int, first: int = 0) -> list[int]:
    return [(7 + 131 * i) % ID_RANGE for i in range(first, first + n)]


def feed_singly(engine, ids: list[int]) -> float:
    start = time.perf_counter()
    for token in ids:
        engine.feed([token])
    return time.perf_counter() - start
