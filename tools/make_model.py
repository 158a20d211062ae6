#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes a GGUF model with seeded random weights, of any architecture that Tern runs, for tests and for speed measurements.

The text such a model writes means nothing; its shapes, types, vocabulary and speed are those of a real one.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import numpy as np
    from gguf import GGUFWriter, GGMLQuantizationType as Type, RopeScalingType
except ImportError as missing:
    sys.exit(f"make_model: {missing}; run tools/setup.sh and then build/venv/bin/python {sys.argv[0]}")

import random_blocks as blocks
from random_vocab import SPECIALS, make_vocab

LOGIT_STD = 3.0  # spread of the logits: neither flat nor one token always
NORM_SPREAD = 0.1  # norm weights are 1 +- this, so that a forgotten one shows
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclasses.dataclass
class Shape:
    hidden: int
    ff: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    ctx: int
    rope_base: float
    qtype: str
    arch: str = "llama"


SHAPES = {
    "tiny": Shape(256, 512, 2, 4, 4, 64, 384, 512, 10000.0, "TQ2_0"),
    "tiny-gqa": Shape(256, 768, 3, 8, 2, 64, 384, 512, 10000.0, "TQ1_0"),  # 8 heads of 64 are twice the hidden size
    "smollm": Shape(576, 1536, 30, 9, 3, 64, 49152, 8192, 100000.0, "Q4_1"),
    "bitnet-2b": Shape(2560, 6912, 30, 20, 5, 128, 128256, 4096, 500000.0, "TQ1_0", "bitnet-b1.58"),
    "llama3-8b-1.58": Shape(4096, 14336, 32, 32, 8, 128, 128256, 8192, 500000.0, "TQ1_0"),
}


@dataclasses.dataclass(frozen=True)
class Arch:
    """What an architecture has beside the tensors of llama."""
    sub_norms: bool = False
    qk_norms: bool = False
    biases: bool = False
    scales: bool = False  # of matrices, in tensors beside them
    fused: bool = False


ARCHS = {"llama": Arch(), "bitnet-b1.58": Arch(sub_norms=True), "bitnet-25": Arch(sub_norms=True), "bitnet": Arch(sub_norms=True, scales=True),
         "qwen2": Arch(biases=True), "qwen3": Arch(qk_norms=True), "phi3": Arch(fused=True)}
ROPE_SCALINGS = ("none", "linear", "factor", "yarn", "longrope", "llama3")  # factor: linear without the key that says so
ROPE_FACTOR = 4.0  # by which a scaling stretches the context


@dataclasses.dataclass
class Tensor:
    name: str
    qtype: Type
    rows: int  # 0: a vector of k norm weights
    k: int
    std: float
    around: float = 1.0  # of a vector: what its values lie about
    spread: float = NORM_SPREAD

    @property
    def nbytes(self) -> int:
        return blocks.tensor_bytes(self.qtype, self.rows or 1, self.k)

    @property
    def dims(self) -> tuple[int, ...]:
        return (self.rows, self.k) if self.rows else (self.k,)

    def data(self, seed: int, index: int, varied: bool) -> Iterator[np.ndarray]:
        rng = np.random.Generator(np.random.SFC64([seed, index]))
        if not self.rows:
            yield (self.around + rng.uniform(-self.spread, self.spread, self.k)).astype(np.float32)
            return
        yield from blocks.random_tensor(self.qtype, rng, self.rows, self.k, self.std, varied)


def fail(message: str) -> None:
    sys.exit(f"make_model: {message}")


def parse_args() -> argparse.Namespace:
    names = [t.name for t in blocks.WRITABLE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the .gguf file to write (replaced if it exists)")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="a named shape; the options below change parts of it (default: tiny)")
    for option, what in (("hidden", "hidden size"), ("ff", "size inside the feed-forward block"), ("layers", "layers"),
                         ("heads", "query heads"), ("kv-heads", "key and value heads"), ("head-dim", "size of a head"),
                         ("vocab", "tokens"), ("ctx", "context length")):
        parser.add_argument(f"--{option}", type=int, metavar="N", help=what)
    parser.add_argument("--type", choices=names, dest="qtype", help="type of the matrices in the layers (default: the shape's own)")
    parser.add_argument("--arch", choices=ARCHS, help="architecture (default: the shape's own)")
    parser.add_argument("--rope-scaling", choices=ROPE_SCALINGS, default="none",
                        help=f"stretches the context of rotary positions by {ROPE_FACTOR:g} (default: none)")
    parser.add_argument("--head-type", choices=names, default="Q8_0", help="type of token_embd and output (default: Q8_0)")
    parser.add_argument("--untied", action="store_true", help="write an output matrix of its own (default: token_embd serves as output)")
    parser.add_argument("--pre", choices=("gpt-2", "smollm"), default="smollm", help="tokenizer.ggml.pre (default: smollm)")
    parser.add_argument("--scales", choices=("uniform", "varied"),
                        help="one scale in all blocks of a tensor, or one per block (default: uniform for ternary types, else varied)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same bytes (default: 1)")
    return parser.parse_args()


def resolve_shape(args: argparse.Namespace) -> Shape:
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Shape) if getattr(args, f.name, None) is not None}
    shape = dataclasses.replace(SHAPES[args.shape], **given)
    if not {"head_dim"} & given.keys() and {"hidden", "heads"} & given.keys() and shape.heads > 0:
        shape.head_dim = shape.hidden // shape.heads
    for field in ("hidden", "ff", "layers", "heads", "kv_heads", "head_dim", "vocab", "ctx"):
        if getattr(shape, field) < 1:
            fail(f"--{field.replace('_', '-')} is {getattr(shape, field)}; give a number of at least 1")
    if args.seed < 0:
        fail(f"--seed is {args.seed}; give a number of at least 0")
    if shape.heads % shape.kv_heads:
        fail(f"--heads {shape.heads} is not a multiple of --kv-heads {shape.kv_heads}; each kv head serves a whole number of heads")
    if shape.head_dim % 2:
        fail(f"the size of a head is {shape.head_dim}, but rotary positions turn pairs; give an even --head-dim")
    return shape


def check_rows(qtype: Type, option: str, sizes: dict[str, int]) -> None:
    block = blocks.block_elements(qtype)
    for what, k in sizes.items():
        if k % block:
            fitting = [t.name for t in blocks.WRITABLE if all(size % blocks.block_elements(t) == 0 for size in sizes.values())]
            fail(f"{option} {qtype.name} stores rows in blocks of {block}, and {what} is {k}, not a multiple; types that fit: {', '.join(fitting)}")


def layer_tensors(i: int, s: Shape, qtype: Type) -> list[Tensor]:
    arch = ARCHS[s.arch]
    q_size, kv_size = s.heads * s.head_dim, s.kv_heads * s.head_dim

    def matrix(name: str, rows: int, k: int) -> Tensor:
        return Tensor(f"blk.{i}.{name}.weight", qtype, rows, k, k**-0.5)  # unit inputs give unit outputs

    def norm(name: str, k: int = s.hidden) -> Tensor:
        return Tensor(f"blk.{i}.{name}.weight", Type.F32, 0, k, 0.0)

    def bias(name: str, k: int) -> Tensor:
        return Tensor(f"blk.{i}.{name}.bias", Type.F32, 0, k, 0.0, 0.0, 1.0)

    if arch.fused:
        tensors = [norm("attn_norm"), matrix("attn_qkv", q_size + 2 * kv_size, s.hidden), matrix("attn_output", s.hidden, q_size),
                   norm("ffn_norm"), matrix("ffn_up", 2 * s.ff, s.hidden), matrix("ffn_down", s.hidden, s.ff)]
    else:
        tensors = [norm("attn_norm"), matrix("attn_q", q_size, s.hidden), matrix("attn_k", kv_size, s.hidden),
                   matrix("attn_v", kv_size, s.hidden), matrix("attn_output", s.hidden, q_size), norm("ffn_norm"),
                   matrix("ffn_gate", s.ff, s.hidden), matrix("ffn_up", s.ff, s.hidden), matrix("ffn_down", s.hidden, s.ff)]
    if arch.sub_norms:
        tensors += [norm("attn_sub_norm", q_size), norm("ffn_sub_norm", s.ff)]
    if arch.qk_norms:
        tensors += [norm("attn_q_norm", s.head_dim), norm("attn_k_norm", s.head_dim)]
    if arch.scales and qtype in blocks.TERNARY:
        tensors += [Tensor(t.name.replace(".weight", ".scale"), Type.F32, 0, 1, 0.0) for t in tensors if t.rows]
    if arch.biases:
        tensors += [bias("attn_q", q_size), bias("attn_k", kv_size), bias("attn_v", kv_size)]
    return tensors


def rope_tensors(s: Shape, scaling: str) -> list[Tensor]:
    def factors(name: str) -> Tensor:
        return Tensor(name, Type.F32, 0, s.head_dim // 2, 0.0, 1 + ROPE_FACTOR / 2, ROPE_FACTOR / 2)

    if scaling == "llama3":
        return [factors("rope_freqs.weight")]
    return [factors("rope_factors_long.weight"), factors("rope_factors_short.weight")] if scaling == "longrope" else []


def model_tensors(s: Shape, qtype: Type, head_type: Type, args: argparse.Namespace) -> list[Tensor]:
    head_std = LOGIT_STD * s.hidden**-0.5
    tensors = [Tensor("token_embd.weight", head_type, s.vocab, s.hidden, head_std)]
    for i in range(s.layers):
        tensors += layer_tensors(i, s, qtype)
    tensors.append(Tensor("output_norm.weight", Type.F32, 0, s.hidden, 0.0))
    tensors += rope_tensors(s, args.rope_scaling)
    if args.untied:
        tensors.append(Tensor("output.weight", head_type, s.vocab, s.hidden, head_std))
    return tensors


def add_rope_scaling(writer: GGUFWriter, s: Shape, scaling: str) -> None:
    if scaling in ("none", "llama3"):  # Llama 3's is a tensor
        return
    if scaling != "factor" and (scaling, s.arch) != ("longrope", "phi3"):  # converters of Phi-3 write no type
        writer.add_rope_scaling_type(RopeScalingType(scaling))
    original = int(s.ctx / ROPE_FACTOR)
    writer.add_rope_scaling_orig_ctx_len(original)
    if scaling == "longrope":
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(ROPE_FACTOR) / math.log(original)))
    else:
        writer.add_rope_scaling_factor(ROPE_FACTOR)


def add_metadata(writer: GGUFWriter, s: Shape, name: str, pre: str, scaling: str) -> None:
    tokens, types, merges = make_vocab(s.vocab)
    writer.add_name(name)
    writer.add_quantization_version(2)
    writer.add_vocab_size(s.vocab)
    writer.add_context_length(s.ctx)
    writer.add_embedding_length(s.hidden)
    writer.add_block_count(s.layers)
    writer.add_feed_forward_length(s.ff)
    writer.add_head_count(s.heads)
    writer.add_head_count_kv(s.kv_heads)
    writer.add_key_length(s.head_dim)
    writer.add_value_length(s.head_dim)
    writer.add_rope_dimension_count(s.head_dim)
    writer.add_rope_freq_base(s.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    add_rope_scaling(writer, s, scaling)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if merges:
        writer.add_token_merges(merges)
    end_of_text, im_start, im_end = (s.vocab - len(SPECIALS) + i for i in range(len(SPECIALS)))
    writer.add_bos_token_id(im_start)
    writer.add_eos_token_id(im_end)
    writer.add_unk_token_id(end_of_text)
    writer.add_pad_token_id(im_end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)


def show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\rmake_model: {done >> 20} of {total >> 20} MiB" + ("\n" if done == total else ""))
        sys.stderr.flush()


def write_tensors(writer: GGUFWriter, tensors: list[Tensor], args: argparse.Namespace) -> None:
    """Streams the data, each piece as soon as it is drawn."""
    out = writer.fout[0]
    total = sum(t.nbytes for t in tensors)
    done = 0
    writer.write_padding(out, out.tell())
    for index, tensor in enumerate(tensors):
        varied = args.scales == "varied" or (args.scales is None and tensor.qtype not in blocks.TERNARY)
        for piece in tensor.data(args.seed, index, varied):
            out.write(piece.data)
            done += piece.nbytes
            show_progress(done, total)
        writer.write_padding(out, tensor.nbytes)


def write_model(path: Path, s: Shape, tensors: list[Tensor], args: argparse.Namespace) -> None:
    writer = GGUFWriter(path, s.arch)
    add_metadata(writer, s, f"random {args.shape}", args.pre, args.rope_scaling)
    for t in tensors:
        writer.add_tensor_info(t.name, t.dims, np.dtype(np.float32), t.nbytes, raw_dtype=t.qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    write_tensors(writer, tensors, args)
    writer.close()


def main() -> None:
    args = parse_args()
    shape = resolve_shape(args)
    qtype, head_type = Type[shape.qtype], Type[args.head_type]
    check_rows(qtype, "--type", {"the hidden size": shape.hidden, "heads x head size": shape.heads * shape.head_dim,
                                 "the feed-forward size": shape.ff})
    check_rows(head_type, "--head-type", {"the hidden size": shape.hidden})
    partial = args.output.with_name(args.output.name + ".partial")
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_model(partial, shape, model_tensors(shape, qtype, head_type, args), args)
        os.replace(partial, args.output)
    except (OSError, ValueError) as error:
        fail(str(error))
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
