# SPDX-License-Identifier: MIT
"""Follows a float32 forward with the float64 reference through roundings that fell to the other side of a tie.

Activations are rounded to int8, keys and values to float16. Where a value lies within float32 noise of a tie either neighbour is right, but
the logits are others, and all later ones too if a key or value depends on it. Where Tern's logits are not the reference's, `follow`
tries the other neighbours of the values that lie near a tie, alone and together, until the logits agree, and goes on from there. What no
such flip explains is an error in the code.
"""
from __future__ import annotations

import dataclasses

import numpy as np

import reference

# How near a tie a value must lie to be tried, relative to the largest one of its row (of its head). A float32 forward is 5e-6 off after
# attention, whose weights have the absolute error of a score as their relative one; keys and values come out of exact sums.
NEAR_CODE, NEAR_HALF = 1e-5, 1e-6
FLIPS = 3  # of one position
ROWS = 512  # tried in one batch
TRIALS = 6000  # of one position


@dataclasses.dataclass(frozen=True, order=True)
class Value:
    """One of the values that a position rounds: which rounding of the forward, counted from 0, and which of its elements."""
    site: int
    element: int


Flips = tuple[Value, ...]  # ascending: one changes only what comes after it


@dataclasses.dataclass
class Followed:
    """The reference on Tern's side of the ties."""
    logits: np.ndarray  # of each position
    flips: dict[int, Flips]  # by position


class Unexplained(Exception):
    """Logits that no flip explains."""


class Flipping(reference.Reference):
    """Rounds chosen values to their other neighbour, and notes all that lie near a tie."""

    def forward_flipped(self, token: int, past: reference.Past | None, flips: list[Flips]) -> tuple[np.ndarray, reference.Past]:
        """Logits [len(flips)][vocab] of one token, once with each of the flips; `near` has the values near a tie of each row."""
        self.site, self.flips, self.near = 0, flips, [[] for _ in flips]
        return self.forward([token] * len(flips), past, alternatives=True)

    def turn(self, rounded: np.ndarray, neighbour: np.ndarray, near: np.ndarray) -> np.ndarray:
        """rounded, and its neighbour where flips say so. All are [rows][...]."""
        flat, other, near = (a.reshape(len(rounded), -1) for a in (rounded, neighbour, near))
        for row, element in zip(*np.nonzero(near)):
            self.near[row].append(Value(self.site, int(element)))
        for row, values in enumerate(self.flips):
            for element in [value.element for value in values if value.site == self.site]:
                flat[row, element] = other[row, element]
        self.site += 1
        return flat.reshape(rounded.shape)

    def round(self, x: np.ndarray, block: int) -> np.ndarray:
        rounded, step = super().round(x, block), reference.code_step(x, block)
        from_tie = step / 2 - np.abs(x - rounded)
        return self.turn(rounded, rounded + np.where(x > rounded, step, -step), from_tie < NEAR_CODE * np.abs(x).max(axis=1, keepdims=True))

    def round_cache(self, x: np.ndarray) -> np.ndarray:
        rounded = super().round_cache(x)
        toward = np.where(x > rounded, np.float16(np.inf), np.float16(-np.inf))
        neighbour = np.nextafter(rounded.astype(np.float16), toward).astype(x.dtype)
        return self.turn(rounded, neighbour, np.abs((rounded + neighbour) / 2 - x) < NEAR_HALF * np.abs(x).max(axis=2, keepdims=True))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.linalg.norm(actual - expected, axis=-1) / np.linalg.norm(expected, axis=-1)


def explain(model: Flipping, token: int, past: reference.Past | None, actual: np.ndarray, tolerance: float) -> Flips:
    """The fewest flips with which the logits agree."""
    trials, tried, least = [()], 0, np.inf
    for _ in range(FLIPS + 1):
        deeper = []
        for first in range(0, len(trials), ROWS):
            batch = trials[first:first + ROWS]
            error = relative_error(actual, model.forward_flipped(token, past, batch)[0])
            if error.min() <= tolerance:
                return batch[int(error.argmin())]
            tried, least = tried + len(batch), min(least, float(error.min()))
            deeper += [flips + (value,) for flips, near in zip(batch, model.near) for value in near if not flips or value > flips[-1]]
        if tried + len(deeper) > TRIALS:
            break
        trials = deeper
    raise Unexplained(f"off by {least:.1e} at the least, whichever of the values near a rounding tie are flipped ({tried} ways)")


def follow(model: Flipping, tokens: list[int], actual: np.ndarray, tolerance: float) -> Followed:
    """Raises Unexplained, which names the position."""
    rows, found, past = [], {}, None
    for position, token in enumerate(tokens):
        try:
            flips = explain(model, token, past, actual[position], tolerance)
        except Unexplained as error:
            raise Unexplained(f"position {position} is {error}") from error
        logits, past = model.forward_flipped(token, past, [flips])
        rows.append(logits[0])
        found |= {position: flips} if flips else {}
    return Followed(np.stack(rows), found)
