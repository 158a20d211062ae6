# SPDX-License-Identifier: MIT
"""Makes the model files that tools/compare_engines.py times: random weights of real shapes, and the same weights in the peers' own types.

A peer's file is made by the peer's quantizer from float16 copies of Tern's weights, so that all engines multiply by the same numbers.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from long_command import CommandFailed, Job

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
BITNET_2B, LLAMA_8B = "bitnet-2b.gguf", "llama3-8b-1.58.gguf"
BITNET_2B_TQ2, BITNET_2B_IQ2 = "bitnet-2b-tq2_0.gguf", "bitnet-2b-iq2_bn.gguf"
HEAD, HEAD_Q6 = "head-llama-128256x2560.gguf", "head-llama-128256x2560-q6_k.gguf"
# A head, and next to nothing before it; ik_llama.cpp refuses bitnet-b1.58 whose heads together are not as wide as the hidden state.
HEAD_SHAPE = "--shape bitnet-2b --arch llama --layers 1 --ff 256 --heads 2 --kv-heads 1 --head-dim 128".split()
BITNET_2B_PACKED = "bitnet-2b.tern"
LLAMA_CPP_ARCH = "bitnet"  # llama.cpp knows no bitnet-b1.58: the same tensors, SiLU in place of squared ReLU
CHUNK_ROWS = 4096

# Run by the peer's Python. Both write a Q6_K head, which is what these quantizers choose for ternary models.
QUANTIZE_LLAMA_CPP = """
import ctypes, sys, llama_cpp
p = llama_cpp.llama_model_quantize_default_params()
p.ftype, p.token_embedding_type, p.output_tensor_type = 37, 14, 14  # TQ2_0, Q6_K, Q6_K
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))
"""
QUANTIZE_IK = """
import os, pathlib, sys, ik_llama_cpp
folder = pathlib.Path(ik_llama_cpp.__file__).parent
tool = str(folder / "bin/llama-quantize")
os.environ["LD_LIBRARY_PATH"] = str(folder / "lib")
os.execv(tool, [tool, "--token-embedding-type", "q6_K", "--output-tensor-type", "q6_K", sys.argv[1], sys.argv[2], "IQ2_BN"])
"""


class NotMade(Exception):
    """Why a model is missing."""


def write_f16(source: Path, target: Path, arch: str | None = None) -> None:
    """A copy with float16 matrices, under another architecture's name if one is given."""
    import numpy as np
    from gguf import GGMLQuantizationType as Type, GGUFReader, GGUFValueType, GGUFWriter, dequantize

    reader = GGUFReader(source)
    own = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, arch or own)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        key = name.replace(own + ".", arch + ".", 1) if arch and name.startswith(own + ".") else name
        writer.add_key_value(key, field.contents(), field.types[0], field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None)
    matrix = lambda tensor: tensor.tensor_type != Type.F32
    for tensor in reader.tensors:
        dims = tuple(int(d) for d in reversed(tensor.shape))
        kind = Type.F16 if matrix(tensor) else Type.F32
        writer.add_tensor_info(tensor.name, dims, np.dtype(np.float32), int(tensor.n_elements) * (2 if matrix(tensor) else 4), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = writer.fout[0]
    writer.write_padding(out, out.tell())
    for tensor in reader.tensors:
        if matrix(tensor):
            for first in range(0, len(tensor.data), CHUNK_ROWS):
                out.write(dequantize(tensor.data[first:first + CHUNK_ROWS], tensor.tensor_type).astype(np.float16).data)
        else:
            out.write(np.ascontiguousarray(tensor.data).data)
        writer.write_padding(out, int(tensor.n_elements) * (2 if matrix(tensor) else 4))
    writer.close()


class Models:
    """The folder of models; what is missing is made when it is asked for."""

    def __init__(self, folder: Path, tern: Path, pythons: dict[str, str], say: Callable[[str], None], own: dict | None = None):
        self.folder, self.tern, self.pythons, self.say = folder, tern, pythons, say
        self.pack_options = [word for key, value in (own or {}).items() for word in (f"--{key}", value)]  # what Tern is told to use

    def __getitem__(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            job = Job(f"making {path}", path.with_suffix(".log"), self.say)
            self.say(job.what)
            try:
                self.make(name, path, job)
            except CommandFailed as error:  # the log stays
                raise NotMade(str(error)) from error
            except NotMade:
                job.log.unlink()
                raise
            job.log.unlink()
        return path

    def remade(self, name: str) -> Path:
        """Packed files belong to the build that wrote them."""
        (self.folder / name).unlink(missing_ok=True)
        return self[name]

    def make(self, name: str, path: Path, job: Job) -> None:
        if name == SMOLLM2:
            job.run(["bash", str(TOOLS / "fetch_model.sh")])
            if not path.exists():
                os.link(ROOT / "build/models" / SMOLLM2, path)
        elif name in (BITNET_2B, LLAMA_8B):
            job.run([sys.executable, str(TOOLS / "make_model.py"), "--shape", path.stem, str(path)])
        elif name == HEAD:
            job.run([sys.executable, str(TOOLS / "make_model.py"), *HEAD_SHAPE, str(path)])
        elif name == BITNET_2B_PACKED:
            job.run([str(self.tern), "pack", str(self[BITNET_2B]), str(path), *self.pack_options])
        else:
            source, peer = {BITNET_2B_TQ2: (BITNET_2B, "llama.cpp"), BITNET_2B_IQ2: (BITNET_2B, "ik"), HEAD_Q6: (HEAD, "ik")}[name]
            if peer not in self.pythons:
                raise NotMade(f"{name} is made by {peer}'s quantizer, and there is no {peer}")
            self.quantize(self[source], path, peer, job)

    def quantize(self, source: Path, path: Path, peer: str, job: Job) -> None:
        arch, code = {"llama.cpp": (LLAMA_CPP_ARCH, QUANTIZE_LLAMA_CPP), "ik": (None, QUANTIZE_IK)}[peer]
        half, partial = path.with_suffix(".f16"), path.with_suffix(".partial")
        try:
            write_f16(source, half, arch)
            job.run([self.pythons[peer], "-c", code, str(half), str(partial)])
            os.replace(partial, path)
        finally:
            half.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
