#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Wrong models: each is refused with one line that names the tensor or the key and says what to do, and none crashes.

Every case is a sound tiny model with one thing changed; what is changed, and the name that the message must hold, stand in the tables.

usage: test_bad_models.py TERN MODELS_DIR [unittest arguments]
"""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from gguf_edit import ARRAY, BOOL, F32, F64, I32, STRING, U32, U64, Gguf, Tensor, array, scalar

TERN, MODELS = sys.argv[1], Path(sys.argv[2])
MAKE_MODEL = Path(__file__).resolve().parent.parent / "tools/make_model.py"
NAN, INF, HUGE = float("nan"), float("inf"), 2**63
# What a message may advise.
REMEDIES = ("convert", "get it again", "is this a complete", "remove", "correct it", "set it to", "use a model", "known are", "this version", "add it", "join them")


class BadModels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = Path(cls.folder.name) / "bad.gguf"
        cls.llama = Gguf(MODELS / "tiny-tq2_0.gguf")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def generate(self) -> subprocess.CompletedProcess:
        env = {k: v for k, v in os.environ.items() if not k.startswith("TERN_")} | {"TERN_TUNE": "off"}
        return subprocess.run([TERN, "generate", "-m", self.path, "-p", "hi there", "-n", "1", "-t", "1"], capture_output=True, env=env, timeout=300)

    def runs(self, model: Gguf) -> None:
        model.write(self.path)
        result = self.generate()
        self.assertEqual(result.returncode, 0, result.stderr)

    def refused(self, *names: str) -> str:
        """The file at self.path fails with one line that holds each name and a remedy."""
        result = self.generate()
        lines = result.stderr.decode().splitlines()
        self.assertEqual(result.returncode, 1, lines)
        self.assertEqual(len(lines), 1, lines)
        for name in names:
            self.assertIn(name, lines[0])
        self.assertTrue(any(r in lines[0] for r in REMEDIES), f"no remedy: {lines[0]}")
        if "-v" in sys.argv:
            print("   ", lines[0].replace(str(self.path), "FILE"))
        return lines[0]

    def model_refused(self, model: Gguf, *names: str) -> str:
        model.write(self.path)
        return self.refused(*names)


# ---- Formats: a matrix of each type, cut short, of wrong dimensions, with scales that are no numbers ----------------

HALF_NAN, HALF_INF = b"\x00\x7e", b"\x00\x7c"
FLOAT_NAN, FLOAT_INF = b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"
HALVES, FLOATS = (HALF_NAN, HALF_INF), (FLOAT_NAN, FLOAT_INF)


class Type:
    """How a matrix of n rows of k lies in a file, and where its scales (or for floats, elements) are."""

    def __init__(self, name: str, number: int, elems: int, size: int, *, scales=(0,), bad=HALVES, head: int = 0, tail: int = 0, zero: int = 0):
        self.name, self.number, self.elems, self.size = name, number, elems, size
        self.scales, self.bad, self.head, self.tail, self.zero = scales, bad, head, tail, zero

    def data(self, n: int, k: int) -> bytearray:
        """A matrix of zeros, or whatever has scales of zero."""
        return bytearray([self.zero]) * (n * (self.head + k // self.elems * self.size)) + bytearray(self.tail)

    def scale_places(self, n: int, k: int) -> list[int]:
        """Bytes of scales in the first row, in the last one, and behind all."""
        row = self.head + k // self.elems * self.size
        if self.tail:
            return [n * row]
        if self.head:
            return [0, (n - 1) * row]
        return [s for s in self.scales] + [n * row - self.size + s for s in self.scales]


TYPES = (
    Type("F32", 0, 1, 4, bad=FLOATS), Type("F16", 1, 1, 2), Type("BF16", 30, 1, 2, bad=(b"\xc0\x7f", b"\x80\x7f")), Type("Q4_0", 2, 32, 18),
    Type("Q4_1", 3, 32, 20, scales=(0, 2)), Type("Q5_0", 6, 32, 22), Type("Q5_1", 7, 32, 24, scales=(0, 2)), Type("Q8_0", 8, 32, 34),
    Type("Q4_K", 12, 256, 144, scales=(0, 2)), Type("Q5_K", 13, 256, 176, scales=(0, 2)), Type("Q6_K", 14, 256, 210, scales=(208,)),
    Type("TQ1_0", 34, 256, 54, scales=(52,)), Type("TQ2_0", 35, 256, 66, scales=(64,)), Type("I2_S", 36, 128, 32, tail=32, bad=FLOATS),
    Type("Q1_0", 41, 128, 18), Type("Q2_0", 42, 64, 18), Type("Q2_0 of 128", 42, 128, 34), Type("IQ1_BN", 134, 64, 13, head=2),
    Type("IQ2_BN", 135, 64, 16, head=4, bad=FLOATS),
)


class Formats(BadModels):
    NAME, N, K = "blk.1.ffn_down.weight", 256, 512

    def with_matrix(self, t: Type, data: bytes, k: int = K, n: int = N) -> Gguf:
        """The model with its one matrix of this type last in the file."""
        model = self.llama.copy()
        model.drop_tensor(self.NAME)
        model.tensors.append((self.NAME, Tensor([k, n], t.number, bytes(data))))
        return model

    def test_a_sound_matrix_of_each_type_runs(self):
        for t in TYPES:
            with self.subTest(type=t.name):
                self.runs(self.with_matrix(t, t.data(self.N, self.K)))

    def test_files_cut_short_are_refused_by_the_tensor_that_is_not_whole(self):
        for t in TYPES:
            data = t.data(self.N, self.K)
            self.with_matrix(t, data).write(self.path)
            whole = self.path.read_bytes()
            for missing in (32, len(data) // 2, len(data) - 1, len(data)):  # files end at a multiple of 32
                with self.subTest(type=t.name, missing=missing):
                    self.path.write_bytes(whole[:len(whole) - missing])
                    self.refused(self.NAME)

    def test_other_dimensions_than_the_metadata_s_are_refused(self):
        for t in TYPES:
            for k, n in ((self.K, self.N + 1), (self.K, self.N - 1), (self.N, self.K), (2 * self.K, self.N // 2)):
                with self.subTest(type=t.name, k=k, n=n):
                    self.model_refused(self.with_matrix(t, t.data(n, k), k, n), self.NAME)

    def test_rows_of_broken_blocks_are_refused(self):
        for t in TYPES:
            if t.elems > 1:
                with self.subTest(type=t.name):
                    self.model_refused(self.with_matrix(t, t.data(self.N, self.K), self.K - t.elems // 2), self.NAME)

    def test_scales_that_are_no_numbers_are_refused(self):
        for t in TYPES:
            for place in t.scale_places(self.N, self.K):
                for bad in t.bad:
                    with self.subTest(type=t.name, place=place, bad=bad.hex()):
                        data = t.data(self.N, self.K)
                        data[place:place + len(bad)] = bad
                        self.model_refused(self.with_matrix(t, data), self.NAME)

    def test_types_that_cannot_be_read_are_refused_with_the_type_to_convert_to(self):
        for number in (38, 39, 16, 24, 26, 27, 28, 999, 2**32 - 1):
            with self.subTest(number=number):
                self.model_refused(self.with_matrix(Type("", number, 1, 1), bytes(self.N * self.K)), self.NAME)


# ---- Metadata ---------------------------------------------------------------------------------------------------------

COUNT = [(U32, 0), (U32, 2**32 - 1), (U64, HUGE), (I32, -1), (F32, 1.5), (STRING, "4"), (BOOL, True)]
REAL = [(F32, 0.0), (F32, -1.0), (F32, NAN), (F32, INF), (F64, 1e300), (STRING, "1")]
VALUES = {
    "llama.block_count": COUNT + [(U32, 3), (U32, 1 << 20)],
    "llama.embedding_length": COUNT + [(U32, 255), (U32, 1 << 17)],
    "llama.feed_forward_length": COUNT + [(U32, 1 << 17)],
    "llama.attention.head_count": COUNT + [(U32, 3), (U32, 1 << 11)],  # 4 key heads
    "llama.attention.head_count_kv": COUNT + [(U32, 3), (U32, 1 << 11)],
    "llama.attention.key_length": COUNT + [(U32, 1 << 12)],
    "llama.attention.value_length": COUNT + [(U32, 32)],
    "llama.context_length": COUNT,
    "llama.attention.layer_norm_rms_epsilon": REAL + [(F32, 1.0)],
    "llama.rope.freq_base": REAL + [(F32, 1.0)],
    "llama.rope.dimension_count": COUNT + [(U32, 63), (U32, 66)],  # heads of 64
    "llama.rope.scaling.factor": REAL,
    "llama.rope.scaling.attn_factor": REAL,
    "llama.rope.scaling.original_context_length": COUNT,
    "llama.rope.scaling.yarn_beta_fast": REAL,
    "llama.rope.scaling.yarn_beta_slow": REAL,
    "llama.rope.scaling.type": [(STRING, "spiral"), (U32, 1), (STRING, "longrope")],
    "llama.expert_count": [(U32, 8)],
    "llama.attention.sliding_window": [(STRING, "4")],
    "split.count": [(U32, 2)],
    "general.architecture": [(STRING, "mamba"), (STRING, ""), (STRING, "x" * 4096), (U32, 1)],
    "general.alignment": [(U32, 0), (U32, 33), (U32, 1 << 31), (STRING, "32")],
    "tokenizer.ggml.model": [(STRING, "t5"), (U32, 1)],
    "tokenizer.ggml.pre": [(STRING, "klingon"), (U32, 1)],
    "tokenizer.ggml.bos_token_id": [(U32, 384), (U32, 2**32 - 1), (I32, -1), (STRING, "1")],
    "tokenizer.ggml.eos_token_id": [(U32, 384), (I32, -1)],
    "tokenizer.ggml.add_bos_token": [(U32, 1), (STRING, "yes")],
}
NEEDED = ("general.architecture", "llama.block_count", "llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count",
          "llama.context_length", "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
          "tokenizer.ggml.token_type", "tokenizer.ggml.merges")


class Metadata(BadModels):
    def test_absurd_values_are_refused_by_their_key(self):
        for key, values in VALUES.items():
            for kind, value in values:
                with self.subTest(key=key, value=value, kind=kind):
                    model = self.llama.copy()
                    model.set(key, kind, scalar(kind, value))
                    line = self.model_refused(model)
                    self.assertTrue(key in line or "tensor " in line or "head_count" in key and "head_count" in line, line)  # sizes are wrong beside others

    def test_missing_keys_are_named(self):
        for key in NEEDED:
            with self.subTest(key=key):
                model = self.llama.copy()
                model.drop(key)
                self.model_refused(model, key)

    def test_a_key_that_occurs_twice_is_refused(self):
        model = self.llama.copy()
        model.keys.append(model.keys[5])
        self.model_refused(model, model.keys[5][0])


# ---- Tensors ----------------------------------------------------------------------------------------------------------

class Tensors(BadModels):
    def test_each_tensor_that_is_missing_is_named(self):
        for name, _ in self.llama.tensors:
            with self.subTest(tensor=name):
                model = self.llama.copy()
                model.drop_tensor(name)
                self.model_refused(model, name)

    def test_each_tensor_that_occurs_twice_is_named(self):
        for name, tensor in self.llama.tensors:
            with self.subTest(tensor=name):
                model = self.llama.copy()
                model.tensors.append((name, tensor))
                self.model_refused(model, name)

    def test_each_tensor_that_shares_bytes_with_another_is_refused(self):
        for i, (name, _) in enumerate(self.llama.tensors[1:], 1):
            with self.subTest(tensor=name):
                model = self.llama.copy()
                model.tensors[i][1].offset = 0
                self.model_refused(model, "overlaps")

    def test_offsets_off_the_alignment_or_outside_the_file_are_refused(self):
        for offset in (1, 16, 1 << 40, 2**64 - 32, 2**63):
            with self.subTest(offset=offset):
                model = self.llama.copy()
                model.tensors[3][1].offset = offset
                self.model_refused(model, model.tensors[3][0])

    def test_vectors_of_other_lengths_or_with_values_that_are_no_numbers_are_refused(self):
        for name in ("blk.0.attn_norm.weight", "blk.1.ffn_norm.weight", "output_norm.weight", "blk.0.attn_q.bias", "blk.1.ffn_down.bias"):
            for change in ("short", "long", "matrix", "nan", "inf"):
                with self.subTest(tensor=name, change=change):
                    model = self.llama.copy()
                    if name.endswith("bias"):
                        model.tensors.append((name, Tensor([256], 0, bytes(1024))))
                    t = model.tensor(name)
                    t.dims = {"short": [255], "long": [512], "matrix": [16, 16]}.get(change, t.dims)
                    t.data = {"long": bytes(2048), "nan": t.data[:-4] + FLOAT_NAN, "inf": t.data[:-4] + FLOAT_INF}.get(change, t.data)
                    self.model_refused(model, name)

    def test_rotation_factors_that_make_no_angles_are_refused(self):
        for value in (b"\0\0\0\0", FLOAT_NAN, FLOAT_INF):
            for n in (32, 31):
                with self.subTest(value=value.hex(), n=n):
                    model = self.llama.copy()
                    model.tensors.append(("rope_freqs.weight", Tensor([n], 0, value * n)))
                    self.model_refused(model, "rope_freqs.weight")

    def test_tensors_that_the_architecture_does_not_have_are_refused(self):
        for name in ("blk.0.attn_sub_norm.weight", "blk.0.attn_qkv.weight", "blk.2.attn_norm.weight", "blk.0.ffn_gate_exps.weight", "x" * 200):
            with self.subTest(tensor=name):
                model = self.llama.copy()
                model.tensors.append((name, Tensor([256], 0, bytes(1024))))
                self.model_refused(model, name[:40])

    def test_a_scale_that_is_no_number_is_refused(self):
        for value in (FLOAT_NAN, FLOAT_INF):
            with self.subTest(value=value.hex()):
                model = self.llama.copy()
                model.tensors.append(("blk.0.attn_q.scale", Tensor([1], 0, value)))
                self.model_refused(model, "blk.0.attn_q.scale")


class Architectures(BadModels):
    """Each has matrices or norms of its own; biases may be missing."""

    def test_each_tensor_that_is_missing_is_named(self):
        for arch in ("bitnet-b1.58", "bitnet", "qwen2", "qwen3", "phi3"):
            subprocess.run([sys.executable, MAKE_MODEL, self.path, "--shape", "tiny-gqa", "--layers", "1", "--arch", arch], check=True)
            whole = Gguf(self.path)
            for name, _ in whole.tensors:
                if not name.endswith((".bias", ".scale")):
                    with self.subTest(arch=arch, tensor=name):
                        model = whole.copy()
                        model.drop_tensor(name)
                        self.model_refused(model, name, arch)


# ---- Vocabulary --------------------------------------------------------------------------------------------------------

TOKENS, TYPES_KEY, MERGES, SCORES = (f"tokenizer.ggml.{k}" for k in ("tokens", "token_type", "merges", "scores"))


class Vocabulary(BadModels):
    def vocab(self) -> tuple[Gguf, list[bytes]]:
        model = self.llama.copy()
        return model, model.strings(TOKENS)

    def set_tokens(self, model: Gguf, tokens: list[bytes], n_types: int | None = None, kind: int = 1) -> None:
        model.set(TOKENS, ARRAY, array(STRING, tokens))
        model.set(TYPES_KEY, ARRAY, array(I32, [kind] * (len(tokens) if n_types is None else n_types)))

    def test_a_vocabulary_of_another_size_than_the_embedding_is_refused(self):
        for extra in (-1, 1, 1000):
            with self.subTest(extra=extra):
                model, tokens = self.vocab()
                self.set_tokens(model, (tokens + [b"new%d" % i for i in range(1000)])[:len(tokens) + extra])
                model.set("tokenizer.ggml.eos_token_id", U32, scalar(U32, 0))
                model.set("tokenizer.ggml.bos_token_id", U32, scalar(U32, 0))
                self.model_refused(model, "token_embd.weight")

    def test_types_of_another_number_than_tokens_are_refused(self):
        for n in (0, 1, 383, 385):
            with self.subTest(types=n):
                model, tokens = self.vocab()
                self.set_tokens(model, tokens, n)
                self.model_refused(model, TYPES_KEY)

    def test_types_that_are_none_are_refused(self):
        for kind in (0, -1, 7, 2**31 - 1):
            with self.subTest(type=kind):
                model, tokens = self.vocab()
                self.set_tokens(model, tokens, kind=kind)
                self.model_refused(model, TYPES_KEY)

    def test_a_token_that_occurs_twice_is_refused(self):
        model, tokens = self.vocab()
        self.set_tokens(model, tokens[:-1] + tokens[:1])
        self.model_refused(model, TOKENS)

    def test_merges_of_unknown_tokens_are_refused(self):
        for merge in ("qq z", "a qqq", "q z", "a", "", " a", "a "):
            with self.subTest(merge=merge):
                model, _ = self.vocab()
                model.set(MERGES, ARRAY, array(STRING, [merge]))
                self.model_refused(model, f"{MERGES}[0]")

    def test_scores_of_another_number_than_tokens_are_refused(self):
        for scores in ([], [0.0] * 383, [0.0] * 385, [0.0] * 383 + [NAN]):
            with self.subTest(scores=len(scores)):
                model, _ = self.vocab()
                model.set("tokenizer.ggml.model", STRING, scalar(STRING, "llama"))
                model.set(SCORES, ARRAY, array(F32, scores))
                self.model_refused(model, SCORES)

    def test_arrays_of_other_types_are_refused(self):
        for key, kind in ((TOKENS, U32), (MERGES, U32), (TYPES_KEY, STRING)):
            with self.subTest(key=key):
                model, tokens = self.vocab()
                model.set(key, ARRAY, array(kind, ["1" if kind == STRING else 1] * len(tokens)))
                self.model_refused(model, key)


# ---- Vocabularies that make the tables of the tokenizer slow ---------------------------------------------------------------

HALF = np.uint64(32)


def slots_of(hashes: np.ndarray, n_slots: int) -> np.ndarray:
    return (hashes ^ hashes >> HALF) & np.uint64(n_slots - 1)


def names(numbers: np.ndarray, letters: int) -> np.ndarray:
    """Each number as a text of so many letters a to z: [n][letters]."""
    return np.stack([numbers // 26**i % 26 + ord("a") for i in range(letters)], axis=1).astype(np.uint64)


class Crowded(BadModels):
    """The hashes are those of src/decode/vocab.c (FNV-1a) and bpe.c (a multiplier); tables have twice as many slots as entries at least."""
    SLOTS, CROWD = 4096, 1100

    def model_with(self, tokens: list[bytes], merges: list[bytes]) -> Gguf:
        model = self.llama.copy()
        model.set(TOKENS, ARRAY, array(STRING, tokens))
        model.set(TYPES_KEY, ARRAY, array(I32, [1] * len(tokens)))
        model.set(MERGES, ARRAY, array(STRING, merges))
        return model

    def test_tokens_of_one_hash_are_refused(self):
        letters = names(np.arange(self.CROWD * self.SLOTS * 5 // 4), 6)
        hashes = np.full(len(letters), 0xCBF29CE484222325, np.uint64)
        for column in letters.T:
            hashes = (hashes ^ column) * np.uint64(0x100000001B3)
        crowd = letters[slots_of(hashes, self.SLOTS) == 0][:self.CROWD]
        self.assertEqual(len(crowd), self.CROWD)
        self.model_refused(self.model_with([bytes(row.astype(np.uint8)) for row in crowd], []), TOKENS)

    def test_merges_of_one_hash_are_refused(self):
        n = 2500
        left, right = (ids.ravel().astype(np.uint64) for ids in np.meshgrid(np.arange(n), np.arange(n)))
        hashes = (left << HALF | right) * np.uint64(0x9E3779B97F4A7C15)
        crowd = np.flatnonzero(slots_of(hashes, self.SLOTS) == 0)[:self.CROWD]
        self.assertEqual(len(crowd), self.CROWD)
        base = [bytes(row.astype(np.uint8)) for row in names(np.arange(n), 3)]
        pairs = [(base[int(left[i])], base[int(right[i])]) for i in crowd]
        self.model_refused(self.model_with(base + [a + b for a, b in pairs], [a + b" " + b for a, b in pairs]), MERGES)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
