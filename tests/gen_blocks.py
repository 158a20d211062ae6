#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes packed blocks of every type that Tern reads with the floats that the gguf package makes of them, for test_blocks.c.

usage: gen_blocks.py FOLDER
    NAME.packed, NAME.f32    blocks, and the dequantized floats
    types.bin                per type of the package: id, elements and bytes of a block (u32), name (16 bytes)
    halves.bin               pairs of a float32 and the float16 that NumPy rounds it to, as u32 bits
"""

import sys
from pathlib import Path

try:
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
    from gguf.quants import dequantize
except ImportError as missing:
    sys.exit(f"gen_blocks: {sys.executable}: {missing}; run tools/setup.sh, then cmake with -UTERN_PYTHON (or -DTERN_PYTHON=a Python that has gguf)")

SEED = 20240229
RANDOM_BLOCKS = 400
FLOATS_PER_ROW = 256

# Offset of each f16 scale in a block.
SCALES = {Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q4_K: [0, 2], Type.Q6_K: [208], Type.TQ1_0: [52], Type.TQ2_0: [64]}
# Zeros, subnormals, the smallest normal, one, the largest, infinities, NaN.
EDGE_HALVES = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00], np.uint16)


def quantized_blocks(qtype: Type, rng: np.random.Generator) -> np.ndarray:
    size = GGML_QUANT_SIZES[qtype][1]
    random = rng.integers(0, 256, (RANDOM_BLOCKS, size), dtype=np.uint8)
    same_byte = np.repeat(np.arange(256, dtype=np.uint8)[:, None], size, axis=1)  # every code pattern
    edges = rng.integers(0, 256, (len(EDGE_HALVES), size), dtype=np.uint8)
    ordinary = rng.uniform(-0.05, 0.05, (RANDOM_BLOCKS, len(SCALES[qtype]))).astype(np.float16)
    for i, at in enumerate(SCALES[qtype]):
        random[: RANDOM_BLOCKS // 2, at : at + 2] = ordinary[: RANDOM_BLOCKS // 2, i : i + 1].view(np.uint8)
        same_byte[:, at : at + 2] = ordinary[:256, i : i + 1].view(np.uint8)
        edges[:, at : at + 2] = np.roll(EDGE_HALVES, i)[:, None].view(np.uint8)
    return np.concatenate([random, same_byte, edges])


def float_rows(qtype: Type, rng: np.random.Generator) -> np.ndarray:
    if qtype == Type.F32:
        bits = rng.integers(0, 1 << 32, 64 * FLOATS_PER_ROW, dtype=np.uint32)
    else:
        bits = np.arange(1 << 16, dtype=np.uint16)  # every value there is
    return bits.view(np.uint8).reshape(-1, FLOATS_PER_ROW * GGML_QUANT_SIZES[qtype][1])


def half_pairs(rng: np.random.Generator) -> np.ndarray:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = ((halves[:-1].astype(np.float64) + halves[1:]) / 2).astype(np.float32)  # exact: ties
    top = np.array([65504, 65519.996, 65520, 65536, np.inf, 1e-45, 2.0**-25, np.nextafter(np.float32(2.0**-25), np.float32(1))], np.float32)
    random = rng.integers(0, 0x7F800000, 20000, dtype=np.uint32).view(np.float32)
    positive = np.concatenate([halves, middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9)), top, random])
    values = np.concatenate([positive, -positive])
    rounded = values.astype(np.float16).view(np.uint16).astype(np.uint32)
    return np.stack([values.view(np.uint32), rounded], axis=1)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    print(f"gen_blocks: seed {SEED}")
    with np.errstate(all="ignore"):  # infinities and NaN are among the cases
        for qtype in (Type.F32, Type.F16, Type.BF16, *SCALES):
            packed = quantized_blocks(qtype, rng) if qtype in SCALES else float_rows(qtype, rng)
            floats = dequantize(packed, qtype)
            assert floats.dtype == np.float32
            (folder / f"{qtype.name}.packed").write_bytes(packed.tobytes())
            (folder / f"{qtype.name}.f32").write_bytes(floats.tobytes())
        (folder / "halves.bin").write_bytes(half_pairs(rng).tobytes())
    rows = [np.array([t, *GGML_QUANT_SIZES[t]], np.uint32).tobytes() + t.name.encode().ljust(16, b"\0") for t in Type]
    (folder / "types.bin").write_bytes(b"".join(rows))


if __name__ == "__main__":
    main()
