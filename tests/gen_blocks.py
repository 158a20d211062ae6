#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes packed rows of every type that Tern reads with their floats, for test_blocks.c: those that the gguf package makes of them,
or, for types it does not have (I2_S, IQ1_BN, IQ2_BN, Q1_0, Q2_0), those of the decoders below, written from the layouts.

usage: gen_blocks.py FOLDER
    NAME.packed, NAME.f32    rows of 256 elements, and the dequantized floats
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
RANDOM_BLOCKS = 403  # makes whole rows of every block size, with the others
ROW = 256

# Offset of each f16 scale in a block.
SCALES = {
    Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.TQ1_0: [52], Type.TQ2_0: [64],
}
# Zeros, subnormals, the smallest normal, one, the largest, infinities, NaN.
EDGE_HALVES = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00], np.uint16)

# The same of float32, for types that have such scales.
EDGE_FLOATS = np.array([0, 1 << 31, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000,
                        0x7FC00000], np.uint32)


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
        bits = rng.integers(0, 1 << 32, 64 * ROW, dtype=np.uint32)
    else:
        bits = np.arange(1 << 16, dtype=np.uint16)  # every value there is
    return bits.view(np.uint8).reshape(-1, ROW * GGML_QUANT_SIZES[qtype][1])


# ---- Types that the gguf package does not have: the codes of blocks, [rows][blocks][bytes], as weights without scales ----


def two_bits(codes: np.ndarray, shifts: list[int]) -> np.ndarray:
    """Run j of a block's elements at shifts[j] of its bytes."""
    return np.concatenate([(codes >> s & 3).astype(np.int8) - 1 for s in shifts], axis=-1)


def i2_s(codes: np.ndarray) -> np.ndarray:
    return two_bits(codes, [6, 4, 2, 0])


def iq2_bn(codes: np.ndarray) -> np.ndarray:
    return two_bits(codes, [0, 2, 4, 6])


def iq1_bn(codes: np.ndarray) -> np.ndarray:
    """16 weights: three bytes of five digits, the lowest power of three last, and a digit of the 13th byte. Digits are the leading ones of
    byte / 256 in base three."""

    def digits(byte: np.ndarray, places: list[int]) -> np.ndarray:
        fraction = np.stack([(byte.astype(np.uint16) * 3**place) % 256 for place in places], axis=-1)
        return (fraction * 3 // 256).astype(np.int8) - 1

    extra = digits(codes[..., 12], [4, 3, 2, 1])
    runs = [np.concatenate([digits(codes[..., 3 * r + b], [4, 3, 2, 1, 0]) for b in range(3)] + [extra[..., r : r + 1]], axis=-1) for r in range(4)]
    return np.concatenate(runs, axis=-1)


def q1_0(codes: np.ndarray) -> np.ndarray:
    return np.unpackbits(codes, axis=-1, bitorder="little").astype(np.int8) * 2 - 1


def q2_0(codes: np.ndarray) -> np.ndarray:
    return np.stack([(codes >> s & 3).astype(np.int8) - 1 for s in (0, 2, 4, 6)], axis=-1).reshape(*codes.shape[:-1], -1)


def code_blocks(size: int, elems: int, rng: np.random.Generator) -> np.ndarray:
    """[rows][blocks][size]: random ones, and every byte."""
    random = rng.integers(0, 256, (RANDOM_BLOCKS + len(EDGE_HALVES), size), dtype=np.uint8)
    same_byte = np.repeat(np.arange(256, dtype=np.uint8)[:, None], size, axis=1)
    return np.concatenate([random, same_byte]).reshape(-1, ROW // elems, size)


def scales_for(count: int, rng: np.random.Generator) -> np.ndarray:
    scales = rng.uniform(-0.05, 0.05, count).astype(np.float16)
    scales[: len(EDGE_HALVES)] = EDGE_HALVES.view(np.float16)
    return scales


def forked_types(rng: np.random.Generator):
    """Name, packed bytes, floats."""
    for name, size, elems, decode in (("Q1_0", 16, 128, q1_0), ("Q2_0", 16, 64, q2_0), ("Q2_0_128", 32, 128, q2_0)):
        codes = code_blocks(size, elems, rng)
        scales = scales_for(codes.shape[0] * codes.shape[1], rng).reshape(*codes.shape[:2], 1)
        packed = np.concatenate([scales.view(np.uint8), codes], axis=-1)
        yield name, packed, scales.astype(np.float32) * decode(codes).astype(np.float32)
    for name, size, kind, decode in (("IQ1_BN", 13, np.float16, iq1_bn), ("IQ2_BN", 16, np.float32, iq2_bn)):
        codes = code_blocks(size, 64, rng)
        scales = scales_for(codes.shape[0], rng).astype(kind).reshape(-1, 1)
        if kind == np.float32:
            scales[: len(EDGE_FLOATS), 0] = EDGE_FLOATS.view(np.float32)
        packed = np.concatenate([scales.view(np.uint8), codes.reshape(len(codes), -1)], axis=-1)
        yield name, packed, scales.astype(np.float32)[:, :, None] * decode(codes).astype(np.float32)
    codes = code_blocks(32, 128, rng)
    scale = np.float32(0.0371)
    tail = np.zeros(32, np.uint8)
    tail[:4] = np.frombuffer(scale.tobytes(), np.uint8)
    yield "I2_S", np.concatenate([codes.ravel(), tail]), scale * i2_s(codes).astype(np.float32)


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
        for name, packed, floats in forked_types(rng):
            (folder / f"{name}.packed").write_bytes(packed.tobytes())
            (folder / f"{name}.f32").write_bytes(floats.astype(np.float32).tobytes())
        (folder / "halves.bin").write_bytes(half_pairs(rng).tobytes())
    rows = [np.array([t, *GGML_QUANT_SIZES[t]], np.uint32).tobytes() + t.name.encode().ljust(16, b"\0") for t in Type]
    (folder / "types.bin").write_bytes(b"".join(rows))


if __name__ == "__main__":
    main()
