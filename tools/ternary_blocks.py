# SPDX-License-Identifier: MIT
"""Trits of one matrix and their scale as the bytes of a ternary GGUF type."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from gguf import GGMLQuantizationType as Type, LlamaFileType

I2_S = 36  # bitnet.cpp's; retired upstream, so the gguf package has no name for it
I2_S_FILE_TYPE = 40
I2_S_TAIL_BYTES = 32  # the float32 scale, padded

TQ_ELEMENTS = 256
I2_S_ELEMENTS = 128

# Five base-3 digits as the fraction of 256 that TQ1_0 stores; digit n is read back as ((b * 3^n mod 256) * 3) >> 8.
_TQ1_BYTE = ((np.arange(243) * 256 + 242) // 243).astype(np.uint8)
_DIGITS = np.array([81, 27, 9, 3, 1], np.uint8)  # what digit n counts for: 2 * (81 + 27 + 9 + 3 + 1) = 242 fits a byte


def _codes(trits: np.ndarray, *shape: int) -> np.ndarray:
    """Codes 0, 1, 2 of trits -1, 0, +1."""
    return (trits + np.int8(1)).view(np.uint8).reshape(-1, *shape)


def _with_scale(packed: np.ndarray, scale: np.float32) -> np.ndarray:
    d = np.full((len(packed), 1), scale).astype(np.float16).view(np.uint8)
    return np.concatenate([packed, d], axis=1)


def _base3(digits: np.ndarray) -> np.ndarray:
    """Digits [blocks][up to 5][bytes] as bytes [blocks][bytes]."""
    value = digits[:, 0] * _DIGITS[0]
    for n in range(1, digits.shape[1]):
        value += digits[:, n] * _DIGITS[n]
    return _TQ1_BYTE[value]


def pack_tq1_0(trits: np.ndarray, scale: np.float32) -> np.ndarray:
    codes = _codes(trits, TQ_ELEMENTS)
    parts = [codes[:, :160].reshape(-1, 5, 32), codes[:, 160:240].reshape(-1, 5, 16), codes[:, 240:].reshape(-1, 4, 4)]
    return _with_scale(np.concatenate([_base3(part) for part in parts], axis=1), scale)


def pack_tq2_0(trits: np.ndarray, scale: np.float32) -> np.ndarray:
    c = _codes(trits, 2, 4, 32)  # byte m of a half holds elements m, m + 32, m + 64, m + 96 from its low bits up
    return _with_scale((c[:, :, 0] | c[:, :, 1] << 2 | c[:, :, 2] << 4 | c[:, :, 3] << 6).reshape(-1, TQ_ELEMENTS // 4), scale)


def pack_i2_s(trits: np.ndarray, scale: np.float32) -> np.ndarray:
    c = _codes(trits, 4, 32)  # byte p of a block holds elements p, p + 32, p + 64, p + 96 from its high bits down
    tail = np.zeros(I2_S_TAIL_BYTES, np.uint8)
    tail[:4] = np.array([scale], "<f4").view(np.uint8)
    return np.concatenate([(c[:, 0] << 6 | c[:, 1] << 4 | c[:, 2] << 2 | c[:, 3]).reshape(-1), tail])


@dataclasses.dataclass(frozen=True)
class TernaryType:
    id: int
    file_type: int
    block: int  # elements; a row is a whole number of blocks
    block_bytes: int
    tail_bytes: int
    scale_type: type  # how precisely the scale is stored
    pack: Callable[[np.ndarray, np.float32], np.ndarray]  # trits int8 [rows][k] and their scale

    def nbytes(self, rows: int, k: int) -> int:
        return rows * (k // self.block) * self.block_bytes + self.tail_bytes


TYPES = {
    "TQ2_0": TernaryType(Type.TQ2_0, LlamaFileType.MOSTLY_TQ2_0, TQ_ELEMENTS, 66, 0, np.float16, pack_tq2_0),
    "TQ1_0": TernaryType(Type.TQ1_0, LlamaFileType.MOSTLY_TQ1_0, TQ_ELEMENTS, 54, 0, np.float16, pack_tq1_0),
    "I2_S": TernaryType(I2_S, I2_S_FILE_TYPE, I2_S_ELEMENTS, 32, I2_S_TAIL_BYTES, np.float32, pack_i2_s),
}
