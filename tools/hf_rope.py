# SPDX-License-Identifier: MIT
"""Rotary positions that config.json stretches over a longer context, as GGUF says the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gguf import GGUFWriter, RopeScalingType

from hf_bitnet import Config, Hyper

FREQS = "rope_freqs.weight"  # what each pair's frequency is divided by


def _llama3_divisors(h: Hyper, scaling: Config) -> np.ndarray:
    """Long waves are stretched by the factor, short ones not, those between in part: as Llama 3.1 was trained."""
    factor, low, high = (scaling.positive(key, math.nan) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    if low == high:
        scaling.fail("low_freq_factor and high_freq_factor of the rope scaling are equal; expected the first to be below the second")
    wave_length = 2 * math.pi * h.rope_theta ** (np.arange(0, h.head_dim, 2) / h.head_dim)
    turns = scaling.count("original_max_position_embeddings") / wave_length  # within the context of the first training
    unstretched = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - unstretched) / factor + unstretched)).astype(np.float32)


def rope_divisors(h: Hyper, config: Config) -> np.ndarray | None:
    """The tensor FREQS, where this kind of scaling needs one."""
    kind = scaling_kind(h.rope_scaling)
    if kind not in (None, "linear", "llama3"):
        config.fail(f"rope scaling {kind!r} cannot be converted; known are linear and llama3")
    return _llama3_divisors(h, Config(config.path, h.rope_scaling)) if kind == "llama3" else None


def scaling_kind(scaling: dict[str, Any]) -> str | None:
    return scaling.get("rope_type", scaling.get("type"))


def add_rope(writer: GGUFWriter, h: Hyper, config: Config) -> None:
    writer.add_rope_dimension_count(h.head_dim)
    writer.add_rope_freq_base(h.rope_theta)
    if scaling_kind(h.rope_scaling) == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(Config(config.path, h.rope_scaling).positive("factor", math.nan))
