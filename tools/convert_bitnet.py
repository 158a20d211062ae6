#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Converts a BitNet checkpoint of Hugging Face (a folder) into a GGUF file.

Reads both kinds of checkpoint: packed ones (uint8 weights with a weight_scale) and master weights (bfloat16, float16 or
float32), which are quantized as BitNet's forward pass does it: scale = mean |w|, trit = round(w / scale) within -1 .. 1.
Families: bitnet (BitNet b1.58 2B-4T), llama with quant_method bitnet (Llama3-8B-1.58, Falcon3-1.58bit), and the models of
1bitLLM (bitnet_b1_58-large).
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import gguf
    import numpy as np
    from gguf import GGUFWriter, GGMLQuantizationType as Type
except ImportError as missing:
    sys.exit(f"convert_bitnet: {missing}; run tools/setup.sh and then build/venv/bin/python {sys.argv[0]}")

import hf_bitnet
import hf_rope
import ternary_blocks
from hf_bitnet import Config, Family, Hyper, Matrix, Projections
from hf_checkpoint import FLOATS, BadCheckpoint, Stored, open_tensors, read_json
from hf_tokenizer import add_vocabulary
from ternary_blocks import TernaryType

EXAMPLES = """
examples:
  convert_bitnet.py bitnet-b1.58-2B-4T                      # writes bitnet-b1.58-2B-4T-TQ2_0.gguf
  convert_bitnet.py bitnet-b1.58-2B-4T-bf16 2b.gguf --type I2_S
  convert_bitnet.py Llama3-8B-1.58-100B-tokens llama3.gguf --type TQ1_0 --head-type Q8_0

TQ1_0 and TQ2_0 store the scale of a matrix as float16 (a relative change of at most 0.05 %); I2_S, which bitnet.cpp on x86 and
Tern read, keeps it as the float32 it is. llama.cpp reads TQ1_0 and TQ2_0, not I2_S, and lacks the architecture bitnet-b1.58.
"""
HEAD_TYPES = ("F16", "BF16", "F32", "Q8_0", "Q6_K")
QUANTIZATION_VERSION = 2  # of GGML's block types
FLOAT16_MAX = float(np.finfo(np.float16).max)
SCALE_CHANGE_MAX = 2.0**-11  # relative, of normal numbers rounded to float16
IGNORED = (".rotary_emb.inv_freq",)  # computed from config.json


@dataclasses.dataclass
class Tensor:
    """A tensor of the output, and how its data come to be."""

    name: str
    type: int
    dims: tuple[int, ...]
    nbytes: int
    pieces: Callable[[], Iterator[np.ndarray]]


@dataclasses.dataclass
class Plan:
    """All that goes into the file, checked as far as headers tell."""

    config: Config
    family: Family
    hyper: Hyper
    ternary: TernaryType
    tensors: list[Tensor]
    scale_change: float = 0.0  # the largest relative one by which storing changed a scale


# ---- Tensors

def check_blocks(matrices: list[Matrix], type_name: str) -> None:
    for m in matrices:
        if m.k % ternary_blocks.TYPES[type_name].block == 0:
            continue
        fitting = [name for name, t in ternary_blocks.TYPES.items() if all(other.k % t.block == 0 for other in matrices)]
        remedy = f"pass --type {' or '.join(fitting)}" if fitting else "no type of this converter fits this model"
        raise BadCheckpoint(f"tensor {m.name}.weight has rows of {m.k} weights, but {type_name} stores multiples of "
                            f"{ternary_blocks.TYPES[type_name].block}; {remedy}")


def ternary_tensor(plan: Plan, projections: Projections, m: Matrix) -> Tensor:
    def pieces() -> Iterator[np.ndarray]:
        trits, scale = projections.load(m)
        with np.errstate(over="ignore"):
            stored = plan.ternary.scale_type(scale)
        change = abs(float(stored) / float(scale) - 1)
        if not change <= SCALE_CHANGE_MAX and (trits.any() or not np.isfinite(stored)):  # zeros are zeros at any scale
            raise BadCheckpoint(f"tensor {m.name}.weight has the scale {scale:g}, which {stored.dtype} does not hold; pass --type I2_S")
        plan.scale_change = max(plan.scale_change, change if trits.any() else 0)
        yield plan.ternary.pack(trits, scale)

    return Tensor(f"{m.name}.weight", plan.ternary.id, (m.rows, m.k), plan.ternary.nbytes(m.rows, m.k), pieces)


class Floats:
    """Tensors of the checkpoint that stay floats."""

    def __init__(self, tensors: dict[str, Stored]):
        self.tensors = tensors

    def find(self, source: str, shape: tuple[int, ...]) -> Stored:
        stored = self.tensors.get(source)
        if stored is None:
            raise BadCheckpoint(f"tensor {source} is missing; is the checkpoint whole?")
        if stored.dtype not in FLOATS:
            raise BadCheckpoint(f"tensor {source} is stored as {stored.dtype}; expected one of {', '.join(FLOATS)}")
        if stored.shape != shape:
            raise BadCheckpoint(f"tensor {source} has shape {list(stored.shape)}, but config.json asks for {list(shape)}; "
                                "do they belong together?")
        return stored

    def vector(self, name: str, source: str, n: int, turned_heads: int = 0) -> Tensor:
        stored = self.find(source, (n,))

        def pieces() -> Iterator[np.ndarray]:
            yield hf_bitnet.turn_heads(np.concatenate([piece for _, piece in stored.floats()]), turned_heads)

        return Tensor(name, Type.F32, (n,), 4 * n, pieces)

    def head(self, name: str, source: str, rows: int, k: int, head_type: Type) -> Tensor:
        stored = self.find(source, (rows, k))
        block, block_bytes = gguf.GGML_QUANT_SIZES[head_type]

        def pieces() -> Iterator[np.ndarray]:
            for _, piece in stored.floats():
                if head_type not in (Type.BF16, Type.F32) and np.abs(piece).max() > FLOAT16_MAX:
                    raise BadCheckpoint(f"tensor {source} holds floats beyond float16; pass --head-type BF16")
                yield gguf.quants.quantize(piece, head_type)

        return Tensor(name, head_type, (rows, k), rows * (k // block) * block_bytes, pieces)


def constant(name: str, values: np.ndarray) -> Tensor:
    return Tensor(name, Type.F32, values.shape, values.nbytes, lambda: iter([values]))


def check_head_type(head_type: Type, hidden: int) -> None:
    block, _ = gguf.GGML_QUANT_SIZES[head_type]
    if hidden % block:
        raise BadCheckpoint(f"--head-type {head_type.name} stores rows in blocks of {block}, and hidden_size is {hidden}, not a multiple; "
                            "pass --head-type F16")
    try:
        gguf.quants.quantize(np.zeros((1, block), np.float32), head_type)
    except NotImplementedError:
        raise BadCheckpoint(f"the gguf package installed here cannot quantize to {head_type.name}; pass --head-type Q8_0 or F16") from None


def refuse_unused(tensors: dict[str, Stored], used: set[str]) -> None:
    for name in tensors:
        if name not in used and not name.endswith(IGNORED):
            raise BadCheckpoint(f"tensor {name} is not part of this family as the converter knows it; the model cannot be converted without it")


def make_plan(folder: Path, args: argparse.Namespace) -> Plan:
    config = Config(folder / "config.json", read_json(folder / "config.json"))
    family = hf_bitnet.read_family(config)
    h = hf_bitnet.read_hyper(config, family)
    stored = open_tensors(folder)
    layers = [hf_bitnet.layer_matrices(h, family, i) for i in range(h.layers)]
    projections = Projections(config, stored, [m for layer in layers for m in layer], args.weight_scale)
    check_blocks(layers[0], args.type)
    head_type = Type[args.head_type]
    check_head_type(head_type, h.hidden)
    plan = Plan(config, family, h, ternary_blocks.TYPES[args.type], [])
    floats = Floats(stored)
    sizes = {"ffn_sub_norm": h.ff, "attn_sub_norm": h.heads * h.head_dim}
    used = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}

    plan.tensors.append(floats.head("token_embd.weight", "model.embed_tokens.weight", h.vocab, h.hidden, head_type))
    for i, matrices in enumerate(layers):
        for name, source in family.layer_norms.items():
            source = f"model.layers.{i}.{source}.weight"
            plan.tensors.append(floats.vector(f"blk.{i}.{name}.weight", source, sizes.get(name, h.hidden)))
            used.add(source)
        for m in matrices:
            plan.tensors.append(ternary_tensor(plan, projections, m))
            if f"{m.source}.bias" in stored:
                plan.tensors.append(floats.vector(f"{m.name}.bias", f"{m.source}.bias", m.rows, m.turned_heads))
            used |= {f"{m.source}.{part}" for part in ("weight", "weight_scale", "bias")}
    plan.tensors.append(floats.vector("output_norm.weight", "model.norm.weight", h.hidden))
    if not h.tied:
        plan.tensors.append(floats.head("output.weight", "lm_head.weight", h.vocab, h.hidden, head_type))
    divisors = hf_rope.rope_divisors(h, config)
    if divisors is not None:
        plan.tensors.append(constant(hf_rope.FREQS, divisors))
    refuse_unused(stored, used)
    return plan


# ---- The file

def add_metadata(writer: GGUFWriter, plan: Plan, name: str) -> None:
    h = plan.hyper
    writer.add_name(name)
    writer.add_file_type(plan.ternary.file_type)
    writer.add_quantization_version(QUANTIZATION_VERSION)
    writer.add_vocab_size(h.vocab)
    writer.add_context_length(h.ctx)
    writer.add_embedding_length(h.hidden)
    writer.add_block_count(h.layers)
    writer.add_feed_forward_length(h.ff)
    writer.add_head_count(h.heads)
    writer.add_head_count_kv(h.kv_heads)
    writer.add_key_length(h.head_dim)
    writer.add_value_length(h.head_dim)
    writer.add_layer_norm_rms_eps(h.rms_eps)
    hf_rope.add_rope(writer, h, plan.config)


def show_progress(done: int, total: int, name: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[Kconvert_bitnet: {done >> 20} of {total >> 20} MiB {name}" + ("\n" if done == total else ""))
        sys.stderr.flush()


def end_with(message: str) -> None:
    sys.exit(("\r\033[K" if sys.stderr.isatty() else "") + f"convert_bitnet: {message}")


def write_tensors(writer: GGUFWriter, tensors: list[Tensor]) -> None:
    out = writer.fout[0]
    total = sum(t.nbytes for t in tensors)
    done = 0
    writer.write_padding(out, out.tell())
    for tensor in tensors:
        start = out.tell()
        for piece in tensor.pieces():
            show_progress(done + out.tell() - start, total, tensor.name)
            out.write(np.ascontiguousarray(piece).data)
        done += tensor.nbytes
        assert out.tell() - start == tensor.nbytes, tensor.name
        writer.write_padding(out, tensor.nbytes)
    show_progress(done, total, "")


def write_file(path: Path, plan: Plan, folder: Path, pre: str | None) -> None:
    writer = GGUFWriter(path, plan.family.arch)
    try:
        add_metadata(writer, plan, folder.resolve().name)
        add_vocabulary(writer, folder, plan.hyper.vocab, pre)
        for t in plan.tensors:
            writer.add_tensor_info(t.name, t.dims, np.dtype(np.float32), t.nbytes, raw_dtype=t.type)
        writer.write_header_to_file()
        try:
            writer.write_kv_data_to_file()
        except UnicodeEncodeError:
            raise BadCheckpoint(f"the name of {folder} or a text of its tokenizer is not Unicode; rename it, or download it again") from None
        writer.write_ti_data_to_file()
        write_tensors(writer, plan.tensors)
    finally:
        writer.close()


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the checkpoint: config.json, *.safetensors, tokenizer.json or tokenizer.model")
    parser.add_argument("output", type=Path, nargs="?", help="the file to write (default: FOLDER-TYPE.gguf in the current folder)")
    parser.add_argument("--type", choices=ternary_blocks.TYPES, default="TQ2_0",
                        help="type of the ternary matrices: 2.06, 1.69 or 2 bits per weight (default: TQ2_0)")
    parser.add_argument("--head-type", choices=HEAD_TYPES, default="F16", help="type of token_embd and output (default: F16)")
    parser.add_argument(hf_bitnet.SCALE_OPTION, choices=("auto", "multiply", "divide"), default="auto",
                        help="how packed weights use their weight_scale: as the linear_class of config.json does (autobitlinear multiplies, "
                             "bitlinear divides), or as told here (default: auto)")
    parser.add_argument("--pre", metavar="NAME", help="tokenizer.ggml.pre, the way words are split, if it is not recognized")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    return parser.parse_args(arguments)


def convert(args: argparse.Namespace) -> None:
    output = args.output or Path(f"{args.folder.resolve().name}-{args.type}.gguf")
    if output.exists() and not args.force:
        raise BadCheckpoint(f"{output} exists; pass --force to replace it")
    plan = make_plan(args.folder, args)
    partial = output.with_name(output.name + ".partial")
    try:
        write_file(partial, plan, args.folder, args.pre)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{output}: {plan.family.arch}, {len(plan.tensors)} tensors, {args.type} with {args.head_type} embedding and head, "
          f"{output.stat().st_size:,} bytes")
    if plan.scale_change:
        print(f"Scales are stored as float16; the largest relative change is {plan.scale_change:.1e} (--type I2_S keeps float32).")


def main(arguments: list[str] | None = None) -> None:
    logging.basicConfig(format="convert_bitnet: %(message)s")  # warnings of the gguf package about tokenizers
    try:
        convert(parse_args(arguments))
    except (BadCheckpoint, OSError) as error:
        end_with(f"{error}")
    except KeyboardInterrupt:
        end_with("interrupted; nothing was written")


if __name__ == "__main__":
    main()
