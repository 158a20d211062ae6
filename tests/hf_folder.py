# SPDX-License-Identifier: MIT
"""Tiny BitNet checkpoints as Hugging Face stores them, written by the safetensors package, with what they mean beside them.

Packing, quantization and forward pass are written anew here, from their definitions, to judge tools/convert_bitnet.py.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from random_vocab import SPECIALS, make_vocab
from safetensors import TensorSpec, serialize_file

VOCAB, PADDED_VOCAB = 300, 304
LAYERS, HIDDEN, FF, HEADS, KV_HEADS, HEAD_DIM = 2, 256, 512, 4, 2, 64
LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_PRE = {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
TEMPLATE = "{% for m in messages %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"

LINEARS = {"self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN), "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
           "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
           "mlp.gate_proj": (FF, HIDDEN), "mlp.up_proj": (FF, HIDDEN), "mlp.down_proj": (HIDDEN, FF)}
NORMS = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN}
SUB_NORMS = {"bitnet": {"self_attn.attn_sub_norm": HEADS * HEAD_DIM, "mlp.ffn_sub_norm": FF},
             "1bitllm": {"self_attn.inner_attn_ln": HEADS * HEAD_DIM, "mlp.ffn_layernorm": FF}, "llama": {}}


@dataclasses.dataclass
class Bits16:
    """A bfloat16 array, which NumPy lacks."""

    bits: np.ndarray


def to_bf16(x: np.ndarray) -> Bits16:
    return Bits16((np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16))


def to_float(x: np.ndarray | Bits16) -> np.ndarray:
    return (x.bits.astype(np.uint32) << 16).view(np.float32) if isinstance(x, Bits16) else x.astype(np.float32)


def save_safetensors(path: Path, tensors: dict[str, np.ndarray | Bits16]) -> None:
    arrays = {name: (np.ascontiguousarray(t.bits if isinstance(t, Bits16) else t), isinstance(t, Bits16)) for name, t in tensors.items()}
    serialize_file({name: TensorSpec(dtype="bfloat16" if bf16 else a.dtype.name, shape=a.shape, data_ptr=a.ctypes.data, data_len=a.nbytes)
                    for name, (a, bf16) in arrays.items()}, path)


def absmean(w: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Trits and scale of a float32 matrix, one weight at a time in spirit: 1 / mean |w|, round half to even, clamp."""
    s = np.float32(1) / np.float32(np.abs(w.astype(np.float64)).mean())
    return np.clip(np.round(w * s), -1, 1).astype(np.int8), np.float32(1) / s


def pack(trits: np.ndarray) -> np.ndarray:
    n = -(-len(trits) // 4)
    packed = np.zeros((n, trits.shape[1]), np.uint8)
    for i in range(4):
        part = trits[i * n:(i + 1) * n]
        packed[:len(part)] |= (part + 1).astype(np.uint8) << (2 * i)
    return packed


def tokenizer_json(pre: dict[str, Any] | None = None) -> dict[str, Any]:
    tokens, _, merges = make_vocab(VOCAB)
    n = VOCAB - len(SPECIALS)
    return {"added_tokens": [{"id": n + i, "content": text, "special": True} for i, text in enumerate(SPECIALS)] +
                            [{"id": VOCAB, "content": "<tool>", "special": False}],
            "pre_tokenizer": pre or LLAMA3_PRE,
            "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": SPECIALS[0]}}, {"Sequence": {"id": "A"}}]},
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {text: i for i, text in enumerate(tokens[:n])}, "merges": [m.split(" ") for m in merges]}}


TOKENIZER_CONFIG = {"bos_token": SPECIALS[0], "eos_token": SPECIALS[1], "chat_template": TEMPLATE}


class Checkpoint:
    """A random model, the same each time. What it holds may be changed before it is written."""

    def __init__(self, family: str, ff: int = FF):
        self.__dict__ = copy.deepcopy(_drawn(family, ff))

    def draw(self, family: str, ff: int) -> None:
        rng = np.random.default_rng(1)
        self.family, self.ff = family, ff
        linears = {name: tuple(ff if n == FF else n for n in shape) for name, shape in LINEARS.items()}
        norms = {name: ff if n == FF else n for name, n in (NORMS | SUB_NORMS[family]).items()}
        self.config: dict[str, Any] = {
            "model_type": "llama" if family == "1bitllm" else family, "hidden_size": HIDDEN, "intermediate_size": ff, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS, "vocab_size": PADDED_VOCAB, "max_position_embeddings": 128, "rms_norm_eps": 2e-5,
            "rope_theta": 3000.0, "hidden_act": "relu2" if family == "bitnet" else "silu", "tie_word_embeddings": family != "llama",
            "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"}}
        if family == "1bitllm":
            self.config["architectures"] = ["BitnetForCausalLM"]
            del self.config["quantization_config"]
        self.tokenizer, self.tokenizer_config = tokenizer_json(), dict(TOKENIZER_CONFIG)
        # Embeddings that float16 and bfloat16 both hold, so that the head of the converted model is the same.
        self.tensors: dict[str, np.ndarray | Bits16] = {"model.embed_tokens.weight": to_bf16(rng.integers(-8, 9, (PADDED_VOCAB, HIDDEN)) / 8)}
        if not self.config["tie_word_embeddings"]:
            self.tensors["lm_head.weight"] = to_bf16(rng.integers(-8, 9, (PADDED_VOCAB, HIDDEN)) / 64)
        for i in range(LAYERS):
            for name, n in norms.items():
                self.tensors[f"model.layers.{i}.{name}.weight"] = to_bf16(rng.uniform(0.5, 1.5, n))
            for name, (rows, k) in linears.items():
                self.tensors[f"model.layers.{i}.{name}.weight"] = to_bf16(rng.standard_normal((rows, k)) * 0.8 * k**-0.5)
        self.tensors["model.norm.weight"] = to_bf16(rng.uniform(0.5, 1.5, HIDDEN))
        # What the matrices mean: trits and scale of each.
        self.ternary = {f"model.layers.{i}.{name}": absmean(to_float(self.tensors[f"model.layers.{i}.{name}.weight"]))
                        for i in range(LAYERS) for name in linears}

    def pack(self, stored: str = "scale") -> Checkpoint:
        """Master weights become packed ones, with the scale or its inverse beside them."""
        for name, (trits, scale) in self.ternary.items():
            self.tensors[f"{name}.weight"] = pack(trits)
            self.tensors[f"{name}.weight_scale"] = np.array([scale if stored == "scale" else np.float32(1) / scale], np.float32)
        return self

    def write(self, folder: Path, shards: int = 1) -> Path:
        folder.mkdir(parents=True)
        for name, content in (("config", self.config), ("tokenizer", self.tokenizer), ("tokenizer_config", self.tokenizer_config)):
            if content is not None:
                (folder / f"{name}.json").write_text(json.dumps(content))
        if shards == 1:
            save_safetensors(folder / "model.safetensors", self.tensors)
            return folder
        files = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(self.tensors)}
        for file in set(files.values()):
            save_safetensors(folder / file, {name: self.tensors[name] for name in files if files[name] == file})
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
        return folder

    # ---- The llama family's forward pass, in Hugging Face's order of rows

    def _weight(self, name: str) -> np.ndarray:
        return to_float(self.tensors[f"{name}.weight"]).astype(np.float64)

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        trits, scale = self.ternary[name]
        return x @ trits.T.astype(np.float64) * np.float64(scale)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return self._weight(name) * x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])

    def _rotate(self, x: np.ndarray) -> np.ndarray:
        """x[T][heads][HEAD_DIM]: element i is turned with element i + half."""
        frequencies = self.config["rope_theta"] ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angle = np.tile(np.arange(len(x))[:, None, None] * frequencies, 2)
        half = HEAD_DIM // 2
        return x * np.cos(angle) + np.concatenate([-x[..., half:], x[..., :half]], axis=-1) * np.sin(angle)

    def logits(self, tokens: list[int]) -> np.ndarray:
        """[T][vocab], in float64, activations not rounded."""
        assert self.family == "llama"
        x = self._weight("model.embed_tokens")[tokens]
        for i in range(LAYERS):
            layer = f"model.layers.{i}"
            h = self._norm(x, f"{layer}.input_layernorm")
            q, k, v = (self._linear(h, f"{layer}.self_attn.{p}_proj").reshape(len(tokens), -1, HEAD_DIM) for p in "qkv")
            q, k, v = self._rotate(q), *(np.repeat(a, HEADS // KV_HEADS, axis=1) for a in (self._rotate(k), v))
            scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(HEAD_DIM)
            scores = np.exp(np.where(np.tri(len(tokens), dtype=bool), scores, -np.inf))
            attention = np.einsum("hij,jhd->ihd", scores / scores.sum(-1, keepdims=True), v).reshape(len(tokens), -1)
            x = x + self._linear(attention, f"{layer}.self_attn.o_proj")
            h = self._norm(x, f"{layer}.post_attention_layernorm")
            gate, up = (self._linear(h, f"{layer}.mlp.{p}_proj") for p in ("gate", "up"))
            x = x + self._linear(gate / (1 + np.exp(-gate)) * up, f"{layer}.mlp.down_proj")
        return self._norm(x, "model.norm") @ self._weight("lm_head").T


@functools.cache
def _drawn(family: str, ff: int) -> dict[str, Any]:
    checkpoint = Checkpoint.__new__(Checkpoint)
    checkpoint.draw(family, ff)
    return checkpoint.__dict__
