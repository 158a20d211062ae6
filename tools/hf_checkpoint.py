# SPDX-License-Identifier: MIT
"""Tensors of a Hugging Face checkpoint folder, read from its safetensors files a piece at a time.

A safetensors file is eight bytes (the size of the header), a JSON header of {name: dtype, shape, data_offsets}, then the data.
NumPy has no bfloat16, so the readers for NumPy refuse such tensors; that is why the format is read here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FLOATS = ("F32", "F16", "BF16")
PACKED = "U8"
_STORED_AS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "U8": np.dtype("u1")}
_BF16_SHIFT = 16  # a bfloat16 is the upper half of a float32

CHUNK_BYTES = 64 << 20  # of float32 at a time, so that memory stays small whatever the tensor
_HEADER_BYTES_MAX = 100 << 20  # as the safetensors library has it


class BadCheckpoint(Exception):
    """What is wrong with a checkpoint and what to do about it, in one line."""


def read_json(path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadCheckpoint(f"{path} is missing; a checkpoint folder as downloaded from Hugging Face has it") from None
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path} is not JSON ({error}); download it again") from None
    if not isinstance(parsed, dict):
        raise BadCheckpoint(f"{path} is not a JSON object; download it again")
    return parsed


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file. Rows are what the first dimension counts."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def row_elements(self) -> int:
        return math.prod(self.shape[1:])

    def rows(self, first: int, n: int) -> np.ndarray:
        """Rows as they are stored; bfloat16 as uint16."""
        stored_as = _STORED_AS[self.dtype]
        count = n * self.row_elements
        data = np.fromfile(self.path, stored_as, count, offset=self.offset + first * self.row_elements * stored_as.itemsize)
        if data.size != count:
            raise BadCheckpoint(f"{self.path} ends inside tensor {self.name}; download it again")
        return data.reshape(n, *self.shape[1:])

    def floats(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows as float32, in pieces, each with the index of its first row."""
        per_piece = max(1, CHUNK_BYTES // (np.dtype(np.float32).itemsize * max(1, self.row_elements)))
        for first in range(0, self.shape[0], per_piece):
            piece = self.rows(first, min(per_piece, self.shape[0] - first))
            if self.dtype == "BF16":
                piece = (piece.astype(np.uint32) << _BF16_SHIFT).view(np.float32)
            piece = piece.astype(np.float32, copy=False)
            if not np.isfinite(piece).all():
                raise BadCheckpoint(f"tensor {self.name} holds a NaN or an infinity; the checkpoint is damaged, download it again")
            yield first, piece


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The parsed header of a safetensors file, and where the data begin."""
    size = path.stat().st_size
    with path.open("rb") as file:
        n = int.from_bytes(file.read(8), "little")
        if size < 8 or n > min(size - 8, _HEADER_BYTES_MAX):
            raise BadCheckpoint(f"{path} is not a whole safetensors file; download it again")
        try:
            header = json.loads(file.read(n))
        except (ValueError, RecursionError):
            raise BadCheckpoint(f"{path} has a damaged safetensors header; download it again") from None
    if not isinstance(header, dict):
        raise BadCheckpoint(f"{path} has a damaged safetensors header; download it again")
    return header, 8 + n


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _read_file(path: Path) -> Iterator[Stored]:
    if not path.is_file():
        raise BadCheckpoint(f"{path} is missing, but the index names it; download it")
    header, data_start = _read_header(path)
    data_size = path.stat().st_size - data_start
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, span = (entry.get(key) for key in ("dtype", "shape", "data_offsets")) if isinstance(entry, dict) else (None,) * 3
        if not isinstance(dtype, str) or not _is_counts(shape) or not _is_counts(span) or len(span) != 2:
            raise BadCheckpoint(f"{path}: the entry of tensor {name} is damaged; download it again")
        if dtype in _STORED_AS and (span[1] - span[0] != math.prod(shape) * _STORED_AS[dtype].itemsize or span[1] > data_size):
            raise BadCheckpoint(f"{path}: tensor {name} does not lie in the file as its shape says; download it again")
        yield Stored(name, path, dtype, tuple(shape) or (1,), data_start + span[0])


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(n, str) and n == Path(n).name for n in names.values()):
            raise BadCheckpoint(f"{index} has no weight_map of file names; download it again")
        return [folder / name for name in sorted(set(names.values()))]
    whole = folder / "model.safetensors"
    files = [whole] if whole.exists() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadCheckpoint(f"{folder} has no .safetensors file; if it has .bin files, load it with transformers and save it with "
                            "save_pretrained(FOLDER, safe_serialization=True)")
    return files


def open_tensors(folder: Path) -> dict[str, Stored]:
    """All tensors of a folder by name. Reads headers only."""
    tensors: dict[str, Stored] = {}
    for path in _files(folder):
        for tensor in _read_file(path):
            if tensor.name in tensors:
                raise BadCheckpoint(f"tensor {tensor.name} is in both {tensors[tensor.name].path} and {path}; remove the files of one checkpoint")
            tensors[tensor.name] = tensor
    return tensors
