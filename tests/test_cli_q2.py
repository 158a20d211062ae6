#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A model in Q2_0 beside the same weights in TQ2_0.

usage: test_cli_q2.py TERN MODELS_DIR [unittest arguments]
"""
import json
import struct
import tempfile
from pathlib import Path

from cli_fixture import CommandTest, main, tern, TERNARY

TQ2_0, Q2_0 = 35, 42  # ids in the file


def as_q2_0(source, block):
    """The bytes of a GGUF file whose TQ2_0 tensors have become Q2_0 in blocks of 64 or 128, with the same weights."""
    import gguf
    import numpy as np
    data, tensors = Path(source).read_bytes(), gguf.GGUFReader(source).tensors
    head, infos, body = data[:min(int(t.field.offset) for t in tensors)], b"", b""
    for t in tensors:
        bytes_, kind, dims = t.data.tobytes(), int(t.tensor_type), [int(d) for d in t.shape]
        if kind == TQ2_0:
            blocks = np.frombuffer(bytes_, np.uint8).reshape(dims[1], dims[0] // 256, 66)  # 64 bytes of codes, then the scale
            halves = blocks[:, :, :64].reshape(dims[1], -1, 2, 1, 32)
            codes = (halves >> np.arange(0, 8, 2, dtype=np.uint8).reshape(4, 1) & 3).reshape(dims[1], dims[0] // block, block // 4, 4)
            packed = np.bitwise_or.reduce(codes << np.arange(0, 8, 2, dtype=np.uint8), axis=3)
            bytes_ = np.concatenate([np.repeat(blocks[:, :, 64:], 256 // block, axis=1), packed], axis=2).tobytes()
            kind = Q2_0
        name = t.name.encode()
        infos += struct.pack(f"<Q{len(name)}sI{len(dims)}QIQ", len(name), name, len(dims), *dims, kind, len(body))
        body += bytes_ + bytes(-len(bytes_) % 32)
    head += infos
    return head + bytes(-len(head) % 32) + body


class Q2(CommandTest):
    def test_a_model_in_q2_0_writes_the_text_of_the_same_weights_in_tq2_0(self):
        args = ["-p", "hello world", "-n", "12"]
        text = tern("generate", "-m", TERNARY, *args).stdout
        for block in (64, 128):
            with tempfile.NamedTemporaryFile(suffix=".gguf") as model, self.subTest(block=block):
                model.write(as_q2_0(TERNARY, block))
                model.flush()
                info = json.loads(tern("info", "-m", model.name, "--json").stdout)["model"]
                self.assertEqual((info["types"]["Q2_0"]["tensors"], info["ternary_matrices"]), (14, 14))
                self.assertEqual(tern("generate", "-m", model.name, *args).stdout, text)


if __name__ == "__main__":
    main()
