# SPDX-License-Identifier: MIT
"""Random packed tensors of the GGUF block types: valid codes are drawn directly, no float matrix is quantized."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type

CHUNK_ELEMENTS = 1 << 24  # per step, so that memory stays small whatever the tensor

# Five (or four) base-3 digits v as the fraction of 256 that TQ1_0 stores; digit n is read back as ((b * 3^n mod 256) * 3) >> 8.
TQ1_FIVE = ((np.arange(243) * 256 + 242) // 243).astype(np.uint8)
TQ1_FOUR = ((np.arange(81) * 3 * 256 + 242) // 243).astype(np.uint8)
# Four 2-bit codes 0, 1, 2 in a byte.
TQ2_BYTE = np.array([a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3) for c in range(3) for d in range(3)], np.uint8)
# Two 4-bit codes 1..15 in a byte: symmetric about 8, so that Q4_0 weights have mean zero.
Q4_BYTE = np.array([low | high << 4 for low in range(1, 16) for high in range(1, 16)], np.uint8)

TRIT_STD = np.sqrt(2 / 3)  # of -1, 0, +1, equally likely
Q4_0_STD = np.sqrt(np.mean(np.arange(-7.0, 8.0) ** 2))
Q4_1_STD = np.sqrt(np.mean((np.arange(16.0) - 7.5) ** 2))
Q8_STD = np.sqrt(np.mean(np.arange(-127.0, 128.0) ** 2))

TERNARY = (Type.TQ1_0, Type.TQ2_0)
WRITABLE = (Type.TQ1_0, Type.TQ2_0, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.F16, Type.F32)


def block_elements(qtype: Type) -> int:
    return GGML_QUANT_SIZES[qtype][0]


def tensor_bytes(qtype: Type, rows: int, k: int) -> int:
    elements, size = GGML_QUANT_SIZES[qtype]
    return rows * (k // elements) * size


def _draw(rng: np.random.Generator, table: np.ndarray, n_blocks: int, n_bytes: int) -> np.ndarray:
    return table[rng.integers(0, table.size, (n_blocks, n_bytes), dtype=np.uint8)]


def _scales(rng: np.random.Generator, n_blocks: int, d: float, varied: bool) -> np.ndarray:
    scale = d * rng.uniform(0.5, 1.5, (n_blocks, 1)) if varied else np.full((n_blocks, 1), d)
    return scale.astype(np.float16)


def _blocks(qtype: Type, rng: np.random.Generator, n: int, std: float, varied: bool) -> np.ndarray:
    """n packed blocks whose weights have the given standard deviation."""
    if qtype in (Type.F32, Type.F16):
        values = rng.standard_normal(n, dtype=np.float32) * np.float32(std)
        return values.astype(np.float32 if qtype == Type.F32 else np.float16).view(np.uint8)
    if qtype == Type.TQ1_0:
        d = _scales(rng, n, std / TRIT_STD, varied)
        parts = [_draw(rng, TQ1_FIVE, n, 48), _draw(rng, TQ1_FOUR, n, 4), d.view(np.uint8)]
    elif qtype == Type.TQ2_0:
        d = _scales(rng, n, std / TRIT_STD, varied)
        parts = [_draw(rng, TQ2_BYTE, n, 64), d.view(np.uint8)]
    elif qtype == Type.Q4_0:
        d = _scales(rng, n, std / Q4_0_STD, varied)
        parts = [d.view(np.uint8), _draw(rng, Q4_BYTE, n, 16)]
    elif qtype == Type.Q4_1:
        d = _scales(rng, n, std / Q4_1_STD, varied)
        m = (d.astype(np.float32) * np.float32(-7.5)).astype(np.float16)
        parts = [d.view(np.uint8), m.view(np.uint8), rng.integers(0, 256, (n, 16), dtype=np.uint8)]
    elif qtype == Type.Q8_0:
        d = _scales(rng, n, std / Q8_STD, varied)
        parts = [d.view(np.uint8), rng.integers(-127, 128, (n, 32), dtype=np.int8).view(np.uint8)]
    else:
        raise ValueError(f"random blocks of {qtype.name} are not written")
    return np.concatenate(parts, axis=1)


def random_tensor(qtype: Type, rng: np.random.Generator, rows: int, k: int, std: float, varied: bool) -> Iterator[np.ndarray]:
    """The packed tensor of rows x k weights, in pieces."""
    per_chunk = max(1, CHUNK_ELEMENTS // block_elements(qtype))
    n_blocks = rows * (k // block_elements(qtype))
    for start in range(0, n_blocks, per_chunk):
        yield _blocks(qtype, rng, min(per_chunk, n_blocks - start), std, varied)
