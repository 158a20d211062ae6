# SPDX-License-Identifier: MIT
"""The forward pass of every architecture Tern runs, in NumPy, read from a GGUF file with the `gguf` package: the independent judge of
Tern's decode.

Shares no code with src/. Two modes:
  quantized=False  the model as its file defines it (weights dequantized, activations never rounded);
  quantized=True   the same, with Tern's rounding of weights and activations (docs/numerics.md), so that logits of the
                   library can be compared tightly.
As a command it prints the likeliest next tokens of a list of token ids.
"""
from __future__ import annotations

import argparse
import dataclasses
import math

import gguf
import numpy as np

INT8_MAX = 127
INT8_BLOCK = 32
TERNARY_BLOCK = 256
INT6_MAX, INT6_SCALE_MAX, INT6_STEPS, INT6_CUT = 31, 255, 8, np.float32(0.16)
INT6_WIDE, INT6_WIDE_SHARE, INT6_SAMPLED_ROWS = 64, 1024, 4096  # the first 64 columns of each 1024 keep 8 bits
ROW = 0  # as a block: the whole row
ROW_FLOOR = 1e-5  # least maximum that activations are scaled by when a row has one scale, as BitNet models were trained
BLOCK_FLOOR = 1e-30  # the same when each block has its own
TERNARY = (gguf.GGMLQuantizationType.TQ1_0, gguf.GGMLQuantizationType.TQ2_0)
EXACT_PER_32 = tuple(gguf.GGMLQuantizationType[t] for t in ("Q8_0", "Q4_0", "Q4_1", "Q4_K"))


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters under their GGUF meaning."""
    n_layers: int
    n_embd: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope_dim: int
    frequencies: np.ndarray  # angle per position of each rotated pair
    magnitude: float  # of the rotation
    eps: float
    neox: bool  # pairs (i, i + rope_dim / 2) are rotated; else (2i, 2i + 1)
    relu2: bool  # the gate is max(x, 0)^2; else x * sigmoid(x)


@dataclasses.dataclass(frozen=True)
class Matrix:
    """W[N][K] as plain floats, the block of activations that share a scale when they are rounded for it, and the order of its columns if it is not the file's."""
    w: np.ndarray
    block: int
    order: np.ndarray | None = None


@dataclasses.dataclass
class Past:
    """Rotated keys and values of the tokens seen so far: per layer [tokens][kv heads][head_dim]."""
    k: list[np.ndarray]
    v: list[np.ndarray]

    @property
    def length(self) -> int:
        return len(self.k[0]) if self.k else 0


def read_file(path: str) -> tuple[dict, dict]:
    """Metadata by key, and tensors by name."""
    reader = gguf.GGUFReader(path)
    wanted = {k: f for k, f in reader.fields.items() if not k.startswith("tokenizer.")}
    return {k: f.contents() for k, f in wanted.items()}, {t.name: t for t in reader.tensors}


NEOX = ("bitnet-b1.58", "bitnet-25", "bitnet", "qwen2", "qwen3", "phi3")
RELU2 = ("bitnet-b1.58", "bitnet-25")


def yarn_frequencies(plain: np.ndarray, dim: int, base: float, factor: float, original: int) -> np.ndarray:
    """As transformers' _compute_yarn_parameters: low frequencies divided, high ones kept, with beta_fast 32 and beta_slow 1."""
    def dimension(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return plain / factor * ramp + plain * (1 - ramp)


def rotations(meta: dict, tensors: dict, arch: str, dim: int, long: bool) -> tuple[np.ndarray, float]:
    """Frequencies and magnitude; long: of a session longer than the original context."""
    base = meta.get(f"{arch}.rope.freq_base", 10000.0)
    kind = meta.get(f"{arch}.rope.scaling.type", "longrope" if "rope_factors_long.weight" in tensors else "linear")
    factor = meta.get(f"{arch}.rope.scaling.factor", 1.0)
    context = meta[f"{arch}.context_length"]
    original = meta.get(f"{arch}.rope.scaling.original_context_length", context)
    plain = base ** (-np.arange(0, dim, 2) / dim)
    if kind == "longrope":
        name = f"rope_factors_{'long' if long else 'short'}.weight"
        return plain / dequantize(tensors[name]), math.sqrt(1 + math.log(context / original) / math.log(original))
    if "rope_freqs.weight" in tensors:
        return plain / dequantize(tensors["rope_freqs.weight"]), 1.0
    if kind == "linear":
        return plain / factor, 1.0
    if kind == "yarn":
        return yarn_frequencies(plain, dim, base, factor, original), 0.1 * math.log(factor) + 1
    if kind != "none":
        raise ValueError(f"rope scaling {kind} is not part of this reference")
    return plain, 1.0


def read_config(meta: dict, tensors: dict, session: int | None) -> Config:
    arch = meta["general.architecture"]
    if arch not in ("llama", *NEOX):
        raise ValueError(f"architecture {arch} is not part of this reference")
    heads, embd = meta[f"{arch}.attention.head_count"], meta[f"{arch}.embedding_length"]
    head_dim = meta.get(f"{arch}.attention.key_length", embd // heads)
    if meta.get(f"{arch}.attention.value_length", head_dim) != head_dim:
        raise ValueError("keys and values of different length are not part of this reference")
    rope_dim = meta.get(f"{arch}.rope.dimension_count", head_dim)
    original = meta.get(f"{arch}.rope.scaling.original_context_length", meta[f"{arch}.context_length"])
    frequencies, magnitude = rotations(meta, tensors, arch, rope_dim, session is not None and session > original)
    return Config(n_layers=meta[f"{arch}.block_count"], n_embd=embd, n_heads=heads,
                  n_kv_heads=meta.get(f"{arch}.attention.head_count_kv", heads), head_dim=head_dim, rope_dim=rope_dim,
                  frequencies=frequencies, magnitude=magnitude,
                  eps=float(np.float32(meta[f"{arch}.attention.layer_norm_rms_epsilon"])), neox=arch in NEOX, relu2=arch in RELU2)


def dequantize(tensor) -> np.ndarray:
    """Rows of a matrix, or a vector, in float32."""
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return np.ascontiguousarray(values.reshape(tuple(int(d) for d in tensor.shape[::-1])), dtype=np.float32)


def to_int8_blocks(w: np.ndarray) -> np.ndarray:
    """w rounded to int8 codes with one float16 scale per 32 elements of a row, as floats."""
    n, k = w.shape
    padded = np.zeros((n, -(-k // INT8_BLOCK), INT8_BLOCK), np.float32)
    padded.reshape(n, -1)[:, :k] = w
    absmax = np.abs(padded).max(axis=2, keepdims=True)
    scale = (absmax / np.float32(INT8_MAX)).astype(np.float16).astype(np.float32)
    # times the inverse, as the library: of some 10^5 weights one lies so near a tie that a division gives the other code
    codes = np.rint(padded * np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0))
    return (np.clip(codes, -INT8_MAX, INT8_MAX) * scale).reshape(n, -1)[:, :k]


def int6_order(w: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Columns by falling energy in the logits: the norm's weight times the column, squared, over a sample of rows."""
    energy = np.zeros(w.shape[1], np.float32)
    for row in w[::max(len(w) // INT6_SAMPLED_ROWS, 1)]:
        energy += row * row
    return np.argsort(-(energy * (norm * norm)), kind="stable")


def to_int6_blocks(w: np.ndarray) -> np.ndarray:
    """w rounded to codes of 6 bits, of 8 in the first columns, with whole scales 0..255 per 32 elements and a float one per row, as floats.

    Of eight scales, from the one that reaches a block's largest value down, each block of 6 bits takes that of the least squared error.
    All is float32 and in the library's order, because the choice is a comparison.
    """
    n, k = w.shape
    x = np.zeros((n, -(-k // INT8_BLOCK), INT8_BLOCK), np.float32)
    x.reshape(n, -1)[:, :k] = w
    wide = -(-k // INT6_WIDE_SHARE) * INT6_WIDE // INT8_BLOCK  # blocks
    most = np.where(np.arange(x.shape[1]) < wide, INT8_MAX, INT6_MAX).astype(np.float32)
    largest = np.abs(x).max(axis=2)
    of_row = (largest / most).max(axis=1, keepdims=True) / np.float32(INT6_SCALE_MAX)
    reach = np.ceil(np.divide(largest, most * of_row, out=np.zeros_like(largest), where=of_row > 0))
    top = np.minimum(reach, INT6_SCALE_MAX)
    scales = np.stack([np.rint(top * (np.float32(1) - INT6_CUT * np.float32(step) / np.float32(INT6_STEPS))) for step in range(INT6_STEPS)], axis=2)

    def codes(value: np.ndarray, scale: np.ndarray, limit: np.ndarray) -> np.ndarray:
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
        return np.rint(np.clip(value * inverse, -limit, limit))

    worth = of_row[:, :, None] * scales
    error = np.zeros_like(worth)
    for i in range(INT8_BLOCK):
        value = x[:, :, i:i + 1]
        off = codes(value, worth, most[:, None]) * worth - value
        error += off * off
    best = np.where(np.arange(x.shape[1]) < wide, top, np.take_along_axis(scales, error.argmin(axis=2)[:, :, None], axis=2)[:, :, 0])
    chosen = codes(x, (of_row * best)[:, :, None], most[:, None])
    return (chosen.astype(np.float64) * best[:, :, None] * of_row[:, :, None]).reshape(n, -1)[:, :k]


def int6_matrix(tensor, norm: np.ndarray) -> Matrix:
    w = dequantize(tensor)
    order = int6_order(w, norm)
    return Matrix(to_int6_blocks(np.ascontiguousarray(w[:, order])), INT8_BLOCK, order)


def uniform_ternary_scale(tensor) -> bool:
    """Do all blocks share one scale? An all-zero block may carry 0 instead."""
    _, block_bytes = gguf.GGML_QUANT_SIZES[tensor.tensor_type]
    scales = np.ascontiguousarray(tensor.data.reshape(-1, block_bytes)[:, -2:]).view(np.float16)
    return len(np.unique(scales[scales != 0])) <= 1


def quantized_matrix(tensor, act_block: int) -> Matrix:
    """A matrix as Tern multiplies it, with activations in blocks of act_block (0: any) or smaller ones."""
    w = dequantize(tensor)
    if tensor.tensor_type in TERNARY:
        block = w.shape[1] if uniform_ternary_scale(tensor) else TERNARY_BLOCK
        block = min(block, act_block or block)
        return Matrix(w, ROW if block == w.shape[1] else block)
    return Matrix(w if tensor.tensor_type in EXACT_PER_32 else to_int8_blocks(w), INT8_BLOCK)


def round_activations(x: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """x[T][K] rounded to int8 codes times a scale per block; and per row the least distance of any code to a rounding tie."""
    t, k = x.shape
    floor = ROW_FLOOR if block == ROW else BLOCK_FLOOR
    block = k if block == ROW else block
    padded = np.zeros((t, -(-k // block), block), x.dtype)
    padded.reshape(t, -1)[:, :k] = x
    absmax = np.maximum(np.abs(padded).max(axis=2, keepdims=True), x.dtype.type(floor))
    scaled = padded * (INT8_MAX / absmax)
    codes = np.rint(scaled)
    margin = 0.5 - np.abs(scaled - codes)
    return (codes * (absmax / INT8_MAX)).reshape(t, -1)[:, :k], margin.min(axis=(1, 2))


def code_step(x: np.ndarray, block: int) -> np.ndarray:
    """What one int8 code of each element of x[T][K] is worth."""
    t, k = x.shape
    floor, block = (ROW_FLOOR, k) if block == ROW else (BLOCK_FLOOR, block)
    padded = np.zeros((t, -(-k // block), block), x.dtype)
    padded.reshape(t, -1)[:, :k] = x
    absmax = np.maximum(np.abs(padded).max(axis=2, keepdims=True), x.dtype.type(floor))
    return np.broadcast_to(absmax / INT8_MAX, padded.shape).reshape(t, -1)[:, :k]


class Reference:
    """A model and its forward pass; every step is a method, so that a test can break one on purpose."""

    def __init__(self, path: str, quantized: bool = False, dtype: type = np.float32, session: int | None = None, act_block: int = 0,
                 int6_head: bool = False):
        """session: tokens that the session holds (LongRoPE has other rotations for long ones); act_block: as of tern_model_params;
        int6_head: a quantized head has 6 bits."""
        meta, self.tensors = read_file(path)
        self.config = read_config(meta, self.tensors, session)
        self.quantized, self.act_block = quantized, act_block
        self.dtype = np.dtype(dtype)
        self.tie_margin = np.empty(0)  # of the last forward: per token, over all of its rounded activations
        self.embd = dequantize(self.tensors["token_embd.weight"])
        self.out_norm = self.vector("output_norm.weight")
        head = "output.weight" if "output.weight" in self.tensors else "token_embd.weight"
        self.head = self.of_dtype(int6_matrix(self.tensors[head], dequantize(self.tensors["output_norm.weight"]))) if int6_head else self.matrix(head)
        self.layers = [self.layer(i) for i in range(self.config.n_layers)]

    def layer(self, i: int) -> dict:
        """Matrices, and those vectors that the file has."""
        c, found = self.config, {}
        for name in ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            if f"blk.{i}.{name}.weight" in self.tensors:
                found[name] = self.matrix(f"blk.{i}.{name}.weight")
            if f"blk.{i}.{name}.scale" in self.tensors:
                found[name] = dataclasses.replace(found[name], w=found[name].w * self.vector(f"blk.{i}.{name}.scale"))
            if f"blk.{i}.{name}.bias" in self.tensors:
                found[name + ".bias"] = self.vector(f"blk.{i}.{name}.bias")
        for name in ("attn_norm", "ffn_norm", "attn_sub_norm", "ffn_sub_norm", "attn_q_norm", "attn_k_norm"):
            if f"blk.{i}.{name}.weight" in self.tensors:
                found[name] = self.vector(f"blk.{i}.{name}.weight")
        if "attn_qkv" in found:
            q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
            for name, rows in (("attn_q", slice(0, q)), ("attn_k", slice(q, q + kv)), ("attn_v", slice(q + kv, None))):
                found[name] = dataclasses.replace(found["attn_qkv"], w=found["attn_qkv"].w[rows])
            half = len(found["ffn_up"].w) // 2
            found["ffn_gate"] = dataclasses.replace(found["ffn_up"], w=found["ffn_up"].w[:half])
            found["ffn_up"] = dataclasses.replace(found["ffn_up"], w=found["ffn_up"].w[half:])
        return found

    def vector(self, name: str) -> np.ndarray:
        return dequantize(self.tensors[name]).astype(self.dtype)

    def matrix(self, name: str) -> Matrix:
        tensor = self.tensors[name]
        return self.of_dtype(quantized_matrix(tensor, self.act_block) if self.quantized else Matrix(dequantize(tensor), ROW))

    def of_dtype(self, matrix: Matrix) -> Matrix:
        return dataclasses.replace(matrix, w=matrix.w.astype(self.dtype))

    def round(self, x: np.ndarray, block: int) -> np.ndarray:
        rounded, margin = round_activations(x, block)
        self.tie_margin = np.minimum(self.tie_margin, margin)
        return rounded

    def round_cache(self, x: np.ndarray) -> np.ndarray:
        """Keys or values x[T][heads][d] as the cache holds them: float16."""
        if not self.quantized:
            return x
        rounded = x.astype(np.float16)
        unit = np.spacing(np.abs(rounded)).astype(x.dtype)
        # Rotation subtracts, so an element may carry the noise of the largest one of its head; of a small one, a flip hardly matters.
        largest = unit.max(axis=2, keepdims=True)
        margin = np.where(unit >= largest / 4, (0.5 * unit - np.abs(x - rounded)) / largest, 0.5)
        self.tie_margin = np.minimum(self.tie_margin, margin.min(axis=(1, 2)))
        return rounded.astype(self.dtype)

    def project(self, x: np.ndarray, layer: dict, *names: str) -> list[np.ndarray]:
        """x times each matrix of the layer, plus its bias."""
        blocks = {layer[n].block for n in names}
        rounded = {block: self.round(x, block) if self.quantized else x for block in blocks}
        return [rounded[layer[n].block] @ layer[n].w.T + layer.get(n + ".bias", self.dtype.type(0)) for n in names]

    def norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self.dtype.type(self.config.eps)) * weight

    def rotate(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Rotary embedding of x[T][heads][head_dim] on pairs of the first rope_dim elements."""
        c = self.config
        angle = positions[:, None] * c.frequencies
        cos, sin = (f(angle)[:, None, :].astype(self.dtype) * self.dtype.type(c.magnitude) for f in (np.cos, np.sin))
        half = c.rope_dim // 2
        first, second = (slice(0, half), slice(half, c.rope_dim)) if c.neox else (slice(0, c.rope_dim, 2), slice(1, c.rope_dim, 2))
        out = x.copy()
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def gate(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0) ** 2 if self.config.relu2 else x / (1 + np.exp(-x))

    def optional_norm(self, x: np.ndarray, layer: dict, name: str) -> np.ndarray:
        return self.norm(x, layer[name]) if name in layer else x

    def kv_head(self, head: int) -> int:
        return head // (self.config.n_heads // self.config.n_kv_heads)

    def attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Softmax attention of q[T][heads][d] over k, v[S][kv heads][d] where mask[T][S]; returns [T][heads * d]."""
        out = np.empty_like(q)
        for head in range(q.shape[1]):
            kv = self.kv_head(head)
            score = q[:, head] @ k[:, kv].T / self.dtype.type(np.sqrt(self.config.head_dim))
            score = np.where(mask, score, -np.inf)
            weight = np.exp(score - score.max(axis=1, keepdims=True))
            out[:, head] = weight / weight.sum(axis=1, keepdims=True) @ v[:, kv]
        return out.reshape(len(q), -1)

    def forward(self, tokens, past: Past | None = None, alternatives: bool = False) -> tuple[np.ndarray, Past]:
        """Logits [T][vocab] of tokens that follow `past`, and the past with them appended.

        alternatives: the tokens do not follow each other, each one is a candidate for the same next position.
        """
        c = self.config
        t, start = len(tokens), past.length if past else 0
        positions = np.full(t, start) if alternatives else start + np.arange(t)
        own = np.eye(t, dtype=bool) if alternatives else np.tri(t, dtype=bool)
        mask = np.concatenate([np.ones((t, start), bool), own], axis=1)
        self.tie_margin = np.full(t, 0.5)
        seen = Past([], [])
        x = self.embd[np.asarray(tokens)].astype(self.dtype)
        for i, layer in enumerate(self.layers):
            q, k, v = self.project(self.norm(x, layer["attn_norm"]), layer, "attn_q", "attn_k", "attn_v")
            q, k, v = (a.reshape(t, -1, c.head_dim) for a in (q, k, v))
            q, k = self.optional_norm(q, layer, "attn_q_norm"), self.optional_norm(k, layer, "attn_k_norm")
            q, k = self.rotate(q, positions), self.rotate(k, positions)
            k, v = self.round_cache(k), self.round_cache(v)
            seen.k.append(np.concatenate([past.k[i], k]) if past else k)
            seen.v.append(np.concatenate([past.v[i], v]) if past else v)
            attended = self.optional_norm(self.attend(q, seen.k[i], seen.v[i], mask), layer, "attn_sub_norm")
            x = x + self.project(attended, layer, "attn_output")[0]
            gate, up = self.project(self.norm(x, layer["ffn_norm"]), layer, "ffn_gate", "ffn_up")
            x = x + self.project(self.optional_norm(self.gate(gate) * up, layer, "ffn_sub_norm"), layer, "ffn_down")[0]
        x = self.norm(x, self.out_norm)
        x = x if self.head.order is None else x[:, self.head.order]
        return self.project(x, {"output": self.head}, "output")[0], seen


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities in float64 along the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Likeliest next tokens of a GGUF model by a NumPy forward pass.")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("tokens", type=int, nargs="+", help="token ids of the prompt")
    parser.add_argument("--quantized", action="store_true", help="round weights and activations as Tern does")
    parser.add_argument("--top", type=int, default=5, help="how many to print (default 5)")
    args = parser.parse_args()
    logits, _ = Reference(args.model, args.quantized).forward(args.tokens)
    logp = log_softmax(logits[-1])
    for token in np.argsort(-logp)[:args.top]:
        print(f"{token:8d}  {np.exp(logp[token]):.4f}")


if __name__ == "__main__":
    main()
