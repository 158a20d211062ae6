# SPDX-License-Identifier: MIT
"""A GGUF file taken apart, so that a test can change any part of it, sound or not, and write it again."""
from __future__ import annotations

import copy
import dataclasses
import struct
from pathlib import Path

ALIGNMENT = 32
U32, I32, F32, BOOL, STRING, ARRAY, U64, F64 = 4, 5, 6, 7, 8, 9, 10, 12
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, U32: 4, I32: 4, F32: 4, BOOL: 1, U64: 8, 11: 8, F64: 8}
FORMATS = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", F64: "<d"}


@dataclasses.dataclass
class Tensor:
    dims: list[int]  # elements of a row first
    type: int
    data: bytes
    offset: int | None = None  # None: behind the tensor before


def scalar(kind: int, value) -> bytes:
    return text(value) if kind == STRING else struct.pack(FORMATS[kind], value)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def array(kind: int, values) -> bytes:
    return struct.pack("<IQ", kind, len(values)) + b"".join(scalar(kind, v) for v in values)


class Gguf:
    """keys: (name, type of value, bytes of value); tensors: (name, Tensor). Lists, so that names may repeat."""

    def __init__(self, path: Path):
        self.bytes, self.at = path.read_bytes(), 4
        _, n_tensors, n_keys = self._unpack("<IQQ")
        self.keys = [self._key() for _ in range(n_keys)]
        infos = [self._info() for _ in range(n_tensors)]
        start = -(-self.at // ALIGNMENT) * ALIGNMENT
        ends = sorted(i[3] for i in infos)[1:] + [len(self.bytes) - start]
        end_of = dict(zip(sorted(i[3] for i in infos), ends))
        self.tensors = [(name, Tensor(dims, kind, self.bytes[start + at:start + end_of[at]])) for name, dims, kind, at in infos]

    def _unpack(self, form: str) -> tuple:
        values = struct.unpack_from(form, self.bytes, self.at)
        self.at += struct.calcsize(form)
        return values

    def _text(self) -> str:
        n, = self._unpack("<Q")
        self.at += n
        return self.bytes[self.at - n:self.at].decode()

    def _key(self) -> tuple[str, int, bytes]:
        name, (kind,), start = self._text(), self._unpack("<I"), self.at
        if kind == STRING:
            self._text()
        elif kind == ARRAY:
            elem, n = self._unpack("<IQ")
            for _ in range(n if elem == STRING else 0):
                self._text()
            self.at += 0 if elem == STRING else n * SIZES[elem]
        else:
            self.at += SIZES[kind]
        return name, kind, self.bytes[start:self.at]

    def _info(self) -> tuple[str, list[int], int, int]:
        name, (n,) = self._text(), self._unpack("<I")
        dims = list(self._unpack(f"<{n}Q"))
        return name, dims, *self._unpack("<IQ")

    def copy(self) -> "Gguf":
        return copy.deepcopy(self)

    def set(self, key: str, kind: int, value: bytes) -> None:
        """Replaces the value of a key, or adds one."""
        self.drop(key)
        self.keys.append((key, kind, value))

    def drop(self, key: str) -> None:
        self.keys = [k for k in self.keys if k[0] != key]

    def tensor(self, name: str) -> Tensor:
        return next(t for n, t in self.tensors if n == name)

    def drop_tensor(self, name: str) -> None:
        self.tensors = [t for t in self.tensors if t[0] != name]

    def strings(self, key: str) -> list[bytes]:
        """Elements of an array of strings."""
        value, at, found = next(v for n, _, v in self.keys if n == key), 12, []
        while at < len(value):
            n, = struct.unpack_from("<Q", value, at)
            found.append(value[at + 8:at + 8 + n])
            at += 8 + n
        return found

    def write(self, path: Path) -> None:
        head = [b"GGUF", struct.pack("<IQQ", 3, len(self.tensors), len(self.keys))]
        head += [text(name) + struct.pack("<I", kind) + value for name, kind, value in self.keys]
        data, at = b"", 0
        for name, t in self.tensors:
            offset = at if t.offset is None else t.offset
            head.append(text(name) + struct.pack(f"<I{len(t.dims)}QIQ", len(t.dims), *t.dims, t.type, offset))
            data += t.data + bytes(-len(t.data) % ALIGNMENT)
            at = len(data)
        header = b"".join(head)
        path.write_bytes(header + bytes(-len(header) % ALIGNMENT) + data)
