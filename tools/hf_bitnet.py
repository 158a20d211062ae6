# SPDX-License-Identifier: MIT
"""BitNet models as Hugging Face stores them: their sizes, their families, and their matrices as trits and a scale."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from hf_checkpoint import FLOATS, PACKED, BadCheckpoint, Stored

COUNT_MAX = (1 << 31) - 1
LAYERS_MAX = 1024  # as Tern has it
FLOAT32_MAX = float(np.finfo(np.float32).max)  # GGUF's numbers are float32
CODES_PER_BYTE = 4  # packed weights
ABSMEAN_FLOOR = np.float32(1e-5)  # BitNet's, so that a matrix of zeros has a scale
# A scale is the mean |w| of a trained matrix: about 0.02 where no norm stands between matrices, 0.5 to 3 in BitNet 2B-4T.
SCALE_PLAUSIBLE_MAX = 8
SCALE_OPTION = "--weight-scale"


@dataclasses.dataclass(frozen=True)
class Family:
    """What config.json leaves to its model_type."""

    arch: str  # GGUF's name
    activation: str
    rope_theta: float  # where config.json has none, as in transformers
    rms_eps: float
    ternary: bool  # always; otherwise quantization_config has to say so
    neighbours: bool  # GGUF's rotary positions turn elements 2i and 2i + 1 of a head, Hugging Face's i and i + half
    layer_norms: dict[str, str]  # GGUF's names to Hugging Face's


_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
FAMILIES = {
    "bitnet": Family("bitnet-b1.58", "relu2", 500000.0, 1e-5, True, False,
                     _NORMS | {"attn_sub_norm": "self_attn.attn_sub_norm", "ffn_sub_norm": "mlp.ffn_sub_norm"}),
    "llama": Family("llama", "silu", 10000.0, 1e-6, False, True, _NORMS),
}
# The models of 1bitLLM, the first of all, call themselves llama, too.
FIRST_BITNET = "BitnetForCausalLM"
FIRST_FAMILY = Family("bitnet", "silu", 10000.0, 1e-5, True, False,
                      _NORMS | {"attn_sub_norm": "self_attn.inner_attn_ln", "ffn_sub_norm": "mlp.ffn_layernorm"})


@dataclasses.dataclass(frozen=True)
class Hyper:
    hidden: int
    ff: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    ctx: int
    rms_eps: float
    tied: bool
    rope_theta: float
    rope_scaling: dict[str, Any]  # empty: none


class Config:
    """config.json, each value checked when it is asked for."""

    def __init__(self, path: Path, values: dict[str, Any]):
        self.path, self.values = path, values

    def fail(self, message: str) -> None:
        raise BadCheckpoint(f"{self.path}: {message}")

    def count(self, key: str, default: int | None = None, most: int = COUNT_MAX) -> int:
        value = default if self.values.get(key) is None else self.values[key]
        if type(value) is not int or not 0 < value <= most:
            self.fail(f"{key} is {'missing' if value is None else repr(value)}; it must be a number within 1 .. {most}")
        return value

    def positive(self, key: str, default: float) -> float:
        value = default if self.values.get(key) is None else self.values[key]
        if type(value) not in (int, float) or not 0 < value <= FLOAT32_MAX:
            self.fail(f"{key} is {value!r}; it must be a number above 0")
        return float(value)

    def table(self, key: str) -> dict[str, Any]:
        value = self.values.get(key) or {}
        if not isinstance(value, dict):
            self.fail(f"{key} is not an object")
        return value


def read_family(config: Config) -> Family:
    """The family, or a refusal of what is none, or is one that Tern's forward pass would get wrong."""
    model_type, quantization = config.values.get("model_type"), config.table("quantization_config")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        config.fail(f"model_type is {model_type!r}; this converter knows {', '.join(FAMILIES)}")
    architectures = config.values.get("architectures")
    is_first = model_type == "llama" and isinstance(architectures, list) and FIRST_BITNET in architectures
    family = FIRST_FAMILY if is_first else FAMILIES[model_type]
    method = quantization.get("quant_method", "bitnet" if family.ternary else None)
    if method != "bitnet":
        config.fail(f'quantization_config.quant_method is {method!r}, not "bitnet"; convert other models with llama.cpp\'s convert_hf_to_gguf.py')
    activation = config.values.get("hidden_act", family.activation)
    if activation != family.activation:
        config.fail(f"hidden_act is {activation!r}, but GGUF's {family.arch} is computed with {family.activation}; this model cannot be converted")
    if quantization.get("use_rms_norm"):
        config.fail(f"use_rms_norm puts a norm before every matrix, which GGUF's {family.arch} has not; this model cannot be converted")
    return family


def read_hyper(config: Config, family: Family) -> Hyper:
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    head_dim = config.count("head_dim", hidden // heads)
    kv_heads = config.count("num_key_value_heads", heads)
    if heads % kv_heads:
        config.fail(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if head_dim % 2:
        config.fail(f"a head of {head_dim} elements has no pairs for rotary positions to turn; is head_dim right?")
    rope = config.table("rope_parameters") or config.table("rope_scaling")  # transformers 5, or before
    theta = Config(config.path, rope if "rope_theta" in rope else config.values).positive("rope_theta", family.rope_theta)
    if (config.values.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1) != 1:
        config.fail("partial_rotary_factor is not 1; this model cannot be converted")
    scaled = rope.get("rope_type", rope.get("type", "default")) not in ("default", None)
    return Hyper(hidden=hidden, ff=config.count("intermediate_size"), layers=config.count("num_hidden_layers", most=LAYERS_MAX), heads=heads,
                 kv_heads=kv_heads, head_dim=head_dim, vocab=config.count("vocab_size"), ctx=config.count("max_position_embeddings"),
                 rms_eps=config.positive("rms_norm_eps", family.rms_eps), tied=bool(config.values.get("tie_word_embeddings", False)),
                 rope_theta=theta, rope_scaling=rope if scaled else {})


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A projection: W[rows][k], with the heads whose rows are to be reordered (0: none)."""

    name: str  # GGUF's, without .weight
    source: str  # Hugging Face's, likewise
    rows: int
    k: int
    turned_heads: int


def layer_matrices(h: Hyper, family: Family, layer: int) -> list[Matrix]:
    q, kv = h.heads * h.head_dim, h.kv_heads * h.head_dim
    turned = (h.heads, h.kv_heads) if family.neighbours else (0, 0)
    parts = [("attn_q", "self_attn.q_proj", q, h.hidden, turned[0]), ("attn_k", "self_attn.k_proj", kv, h.hidden, turned[1]),
             ("attn_v", "self_attn.v_proj", kv, h.hidden, 0), ("attn_output", "self_attn.o_proj", h.hidden, q, 0),
             ("ffn_gate", "mlp.gate_proj", h.ff, h.hidden, 0), ("ffn_up", "mlp.up_proj", h.ff, h.hidden, 0),
             ("ffn_down", "mlp.down_proj", h.hidden, h.ff, 0)]
    return [Matrix(f"blk.{layer}.{name}", f"model.layers.{layer}.{source}", *rest) for name, source, *rest in parts]


def turn_heads(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from the order i, i + half to the order 2i, 2i + 1."""
    if not heads:
        return rows
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpack(packed: np.ndarray, rows: int, name: str) -> np.ndarray:
    """Trits of Hugging Face's packing: code i of a byte in row r, of n rows of bytes, is in row i * n + r."""
    codes = np.concatenate([packed >> np.uint8(2 * i) & np.uint8(3) for i in range(CODES_PER_BYTE)])[:rows]
    if (codes == 3).any():
        raise BadCheckpoint(f"tensor {name} holds the code 3, which is no trit; it is damaged, or not packed as transformers packs "
                            "BitNet weights")
    return codes.view(np.int8) - np.int8(1)


def absmean_scale(weights: Stored) -> np.float32:
    """mean |w| of the whole matrix. The sum is kept in float64: what float32 sums give depends on their order."""
    total = sum(float(np.abs(piece).sum(dtype=np.float64)) for _, piece in weights.floats())
    return np.float32(total / math.prod(weights.shape))


def quantize(weights: Stored) -> tuple[np.ndarray, np.float32]:
    """Trits and scale as BitNet's forward pass makes them of its master weights, with its float32 arithmetic."""
    inverse = np.float32(1) / np.maximum(absmean_scale(weights), ABSMEAN_FLOOR)
    trits = np.empty(weights.shape, np.int8)
    for first, piece in weights.floats():
        trits[first:first + len(piece)] = np.clip(np.rint(piece * inverse), -1, 1)
    return trits, np.float32(1) / inverse


def already_ternary(weights: Stored) -> np.ndarray:
    """Trits that were stored as floats beside a scale, as transformers saves a model it has unpacked."""
    trits = np.empty(weights.shape, np.int8)
    for first, piece in weights.floats():
        if not np.isin(piece, (-1, 0, 1)).all():
            raise BadCheckpoint(f"tensor {weights.name} has a weight_scale, but holds other floats than -1, 0 and 1; "
                                "use the checkpoint as its authors published it")
        trits[first:first + len(piece)] = piece
    return trits


class Projections:
    """The ternary matrices of a checkpoint."""

    def __init__(self, config: Config, tensors: dict[str, Stored], matrices: list[Matrix], reading: str):
        """reading: what to do with a stored scale: multiply, divide, or auto for what the checkpoint's linear_class does."""
        self.tensors = tensors
        linear_class = config.table("quantization_config").get("linear_class", "bitlinear")
        if reading == "auto" and linear_class not in ("bitlinear", "autobitlinear"):
            config.fail(f"quantization_config.linear_class is {linear_class!r}; say with {SCALE_OPTION} whether its products are "
                        "multiplied by weight_scale or divided by it")
        self.divides = reading == "divide" or (reading == "auto" and linear_class == "bitlinear")
        kept = config.table("quantization_config").get("modules_to_not_convert") or []
        if not isinstance(kept, list):
            config.fail("quantization_config.modules_to_not_convert is not a list")
        for m in matrices:
            self._check(m)
            if any(isinstance(part, str) and part in m.source for part in kept):
                config.fail(f"modules_to_not_convert keeps {m.source} from being ternary; such a model cannot be converted")
        self.scales = {m.source: self._stored_scale(m) for m in matrices if f"{m.source}.weight_scale" in tensors}
        if reading == "auto":
            self._check_plausible(linear_class)

    def _check(self, m: Matrix) -> None:
        weights = self.tensors.get(f"{m.source}.weight")
        if weights is None:
            raise BadCheckpoint(f"tensor {m.source}.weight is missing; is the checkpoint whole?")
        if weights.dtype not in (PACKED, *FLOATS):
            raise BadCheckpoint(f"tensor {weights.name} is stored as {weights.dtype}; expected U8 (packed) or one of {', '.join(FLOATS)}")
        want = (-(-m.rows // CODES_PER_BYTE) if weights.dtype == PACKED else m.rows, m.k)
        if weights.shape != want:
            raise BadCheckpoint(f"tensor {weights.name} has shape {list(weights.shape)}, but config.json asks for {list(want)}; "
                                "do they belong together?")
        if weights.dtype == PACKED and f"{m.source}.weight_scale" not in self.tensors:
            raise BadCheckpoint(f"tensor {m.source}.weight_scale is missing; packed weights mean nothing without it")

    def _stored_scale(self, m: Matrix) -> np.float32:
        stored = self.tensors[f"{m.source}.weight_scale"]
        if stored.dtype not in FLOATS or math.prod(stored.shape) != 1:
            raise BadCheckpoint(f"tensor {stored.name} is {stored.dtype} {list(stored.shape)}; expected one float")
        value = next(piece.reshape(-1)[0] for _, piece in stored.floats())
        with np.errstate(over="ignore"):
            scale = np.float32(1) / value if self.divides and value else value
        if not 0 < scale < np.inf:
            raise BadCheckpoint(f"tensor {stored.name} is {value:g}, but a scale is above 0; the checkpoint is damaged")
        return scale

    def _check_plausible(self, linear_class: str) -> None:
        median = float(np.median(list(self.scales.values()))) if self.scales else 0
        if median > SCALE_PLAUSIBLE_MAX:
            verbs = ("divides", "multiply") if self.divides else ("multiplies", "divide")
            raise BadCheckpoint(f"weights would be about {median:.3g}, far above those of trained models: linear_class {linear_class!r} "
                                f"{verbs[0]} by weight_scale, and the checkpoint seems to hold the inverse; pass {SCALE_OPTION} {verbs[1]}, "
                                "or the other to insist")

    def load(self, m: Matrix) -> tuple[np.ndarray, np.float32]:
        """Trits [rows][k], in GGUF's order, and their scale."""
        weights, scale = self.tensors[f"{m.source}.weight"], self.scales.get(m.source)
        if weights.dtype == PACKED:
            trits = unpack(weights.rows(0, weights.shape[0]), m.rows, weights.name)
        elif scale is not None:
            trits = already_ternary(weights)
        else:
            trits, scale = quantize(weights)
        return turn_heads(trits, m.turned_heads), scale
