# SPDX-License-Identifier: MIT
"""One library's matrix products in a process of its own, timed on command; started by tools/compare_kernels.py.

Reads one JSON object per line on stdin and answers each with one on stdout; the first line written describes the library.
  {"make": {"op", "form", "x", "w", "copies_bytes", "integers"}} -> a subject: {"id", "bytes", "scope", "kernel"}
  {"run": id, "seconds": s}  -> {"seconds": mean of as many products as s seconds hold, after one that does not count}
  {"result": id, "to": path} -> {"to": path} with y[m][n] as a .npy file
  {"drop": id}
Tern alone also answers {"limit": name, "bytes": n} with a sample of a limit, and {"pack": {"n", "k", "rounds"}} with its speed.
x[m][k] (int8, or float32) and w[n][k] (int8) are .npy files. Products that start from float32 get x as floats, unless the subject
wants integers.
Peers are loaded from their own shared libraries, or from a small one that is compiled beside them; none is linked into Tern.
"""
from __future__ import annotations

import ctypes
import json
import mmap
import sys
import time
from ctypes import POINTER, byref, c_bool, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path

import numpy as np

END_TO_END, KERNEL = "end to end", "kernel"  # from float32 X to float32 Y; from int8 X (and tables) to sums
OUTPUT_BYTES = 1 << 20  # of all results of one call: more would push hot weights out of the cache
CALL_PRODUCTS = 64      # most products of one call
L3_SWEEPS = 4
TQ2_0_ID, TQ2_0_WEIGHTS, TQ2_0_BYTES = 35, 256, 66  # codes in two bits, then a float16 scale
BLOCK = 32              # weights per scale of Q8_0, Q4_0, Q4_1


class Unsupported(Exception):
    """Why a library cannot do a product."""


def prototype(lib, name: str, result, *arguments):
    function = getattr(lib, name)
    function.restype, function.argtypes = result, list(arguments)
    return function


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def huge(size: int):
    """Anonymous memory with huge pages where the system gives them, as Tern's own: (owner, address)."""
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def quantize_blocks(op: str, w: np.ndarray) -> np.ndarray:
    """GGUF blocks of w[n][k], integers that the format holds: Q8_0 -128..127, Q4_0 -8..7, Q4_1 0..15 (min 0). Scales are 1/64."""
    n, k = w.shape
    scale = np.full((n, k // BLOCK, 1), 1 / 64, dtype="<f2").view(np.uint8)
    codes = w.reshape(n, k // BLOCK, BLOCK)
    if op == "q8_0":
        return np.ascontiguousarray(np.concatenate([scale, codes.view(np.uint8)], axis=2))
    unsigned = (codes + (8 if op == "q4_0" else 0)).astype(np.uint8)
    nibbles = unsigned[:, :, :BLOCK // 2] | unsigned[:, :, BLOCK // 2:] << 4
    parts = [scale, nibbles] if op == "q4_0" else [scale, np.zeros_like(scale), nibbles]
    return np.ascontiguousarray(np.concatenate(parts, axis=2))


# ---- Tern -------------------------------------------------------------------------------------------------------------


class TernWorker:
    """libtern through its public product API. Forms: lut, mad, auto, or the symbol of a variant; with " kernel" behind it the
    product starts from ready activations and tables."""

    GGML_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 8}

    def __init__(self, threads: int, library: str):
        import ternlib
        self.ternlib = ternlib
        self.tern = ternlib.Tern(library, threads)
        self.lib, self.ctx, self.check = self.tern.lib, self.tern.handle, self.tern.check
        self.subjects = []
        self.about = {"version": "libtern " + self.lib.tern_version().decode(), "features": self.tern.variant("int8_peak"), "ternary": self.ternary()}
        self.probes = {}

    def ternary(self) -> dict[str, str]:
        """{form and layout: symbol} of the best kernel for each layout of ternary weights; scalar ones only where there is nothing else."""
        best = {}
        for i in range(self.lib.tern_variant_count()):
            v = self.ternlib.VariantInfo()
            self.check(self.lib.tern_variant_get(self.ctx, i, byref(v)))
            if v.usable and v.stage in (b"lut_gemm", b"mad_gemm"):  # listed from the lowest tier to the highest
                best[f"{v.stage[:3].decode().upper()} {v.layout.decode().upper()}"] = v.symbol.decode()
        vector = {name: symbol for name, symbol in best.items() if not symbol.endswith("_scalar")}
        return vector or best

    def create(self, op: str, form: str, w: np.ndarray, blocks: np.ndarray | None) -> c_void_p:
        n, k = w.shape
        handle = c_void_p()
        symbol = form.encode() if form.startswith("tern_") else None
        self.check(self.lib.tern_force_variant(self.ctx, symbol))
        chosen = {"lut": 1, "mad": 2}.get(form, 2 if symbol and b"mad_" in symbol else 1 if symbol and b"lut_" in symbol else 0)
        params = self.ternlib.WeightsParams(form=chosen)
        if op == "ternary":
            self.check(self.lib.tern_weights_from_trits(self.ctx, byref(handle), address(w), byref(c_float(1)), 0, n, k, k, byref(params)))
        elif op == "int8":
            scales = np.ones(n, dtype=np.float32)
            self.check(self.lib.tern_weights_from_s8(self.ctx, byref(handle), address(w), scales.ctypes.data_as(POINTER(c_float)), k, n, k, k, byref(params)))
        elif op == "q6_k":
            floats = w.astype(np.float32)
            self.check(self.lib.tern_weights_from_f32_int6(self.ctx, byref(handle), address(floats), n, k, k, byref(params)))
        else:
            self.check(self.lib.tern_weights_from_gguf(self.ctx, byref(handle), self.GGML_TYPES[op], address(blocks), blocks.nbytes, n, k, byref(params)))
        return handle

    def make(self, op: str, form: str, x: np.ndarray, w: np.ndarray, copies_bytes: int, integers: bool = False) -> dict:
        (m, k), n = x.shape, w.shape[0]
        form, _, scope = form.partition(" ")
        if integers:
            scope = "kernel"
        blocks = quantize_blocks(op, w) if op not in ("ternary", "int8", "q6_k") else None
        weights, total = [], 0
        info = self.ternlib.WeightsInfo()
        while not weights or total < copies_bytes:
            weights.append(self.create(op, form, w, blocks))
            self.check(self.lib.tern_weights_get_info(self.ctx, weights[-1], byref(info)))
            total += info.bytes
        activations = c_void_p()
        self.check(self.lib.tern_activations_create(self.ctx, byref(activations), m, k))
        whole = scope == "kernel" and info.act_block == 0
        subject = {"weights": weights, "activations": activations, "x": x.astype(np.float32), "m": m, "n": n, "k": k, "block": info.act_block,
                   "y": np.empty((m, n), dtype=np.int32 if whole else np.float32), "kernel": scope == "kernel", "sums": whole, "form": form}
        self.subjects.append(subject)
        if integers:
            self.check(self.lib.tern_activations_set_s8(self.ctx, activations, address(x), None, m, k, k, info.act_block))
        else:
            self.quantize(subject)
        return {"id": len(self.subjects) - 1, "bytes": info.bytes, "scope": KERNEL if subject["kernel"] else END_TO_END,
                "kernel": info.kernel.decode()}

    def quantize(self, s: dict) -> None:
        self.check(self.lib.tern_activations_set_f32(self.ctx, s["activations"], address(s["x"]), s["m"], s["k"], s["k"], s["block"]))

    def products(self, s: dict, count: int, first: int) -> None:
        lib, ctx, a, y, n = self.lib, self.ctx, s["activations"], address(s["y"]), s["n"]
        for i in range(first, first + count):
            w = s["weights"][i % len(s["weights"])]
            status = 0
            if not s["kernel"]:
                status = lib.tern_activations_set_f32(ctx, a, address(s["x"]), s["m"], s["k"], s["k"], s["block"])
            self.check(status or (lib.tern_matmul_s32(ctx, w, a, y, n) if s["sums"] else lib.tern_matmul_f32(ctx, w, a, y, n, None)))

    def begin(self, s: dict) -> None:
        self.check(self.lib.tern_force_variant(self.ctx, s["form"].encode() if s["form"].startswith("tern_") else None))

    def copies(self, s: dict) -> int:
        return len(s["weights"])

    def result(self, s: dict) -> np.ndarray:
        self.products(s, 1, 0)
        return s["y"]

    def drop(self, s: dict) -> None:
        for w in s["weights"]:
            self.lib.tern_weights_destroy(w)
        self.lib.tern_activations_destroy(s["activations"])

    def pack(self, n: int, k: int, rounds: int) -> dict:
        """Packs random TQ2_0 rows: the median of some rounds, after one that does not count."""
        blocks = np.empty((n, k // TQ2_0_WEIGHTS, TQ2_0_BYTES), dtype=np.uint8)
        codes = np.random.default_rng(1).integers(0, 3, (4, *blocks[:, :, :-2].shape), dtype=np.uint8)
        blocks[:, :, :-2] = codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6
        blocks[:, :, -2:] = np.frombuffer(np.float16(1 / 64).tobytes(), dtype=np.uint8)
        samples = []
        for _ in range(rounds + 1):
            handle, start = c_void_p(), time.perf_counter()
            self.check(self.lib.tern_weights_from_gguf(self.ctx, byref(handle), TQ2_0_ID, address(blocks), blocks.nbytes, n, k, None))
            samples.append(time.perf_counter() - start)
            self.lib.tern_weights_destroy(handle)
        return {"weights_per_second": n * k / sorted(samples[1:])[rounds // 2]}

    def limit(self, name: str, size: int) -> dict:
        """One sample of a limit: dram or l3 (bytes per second), int8 (operations per second), clock (Hz)."""
        seconds, ops = c_double(), c_double()
        if name == "clock":
            return {"value": 1 / self.lib.tern_cycle_seconds()}
        if name == "int8":
            self.check(self.lib.tern_int8_peak(self.ctx, byref(ops), byref(seconds)))
            return {"value": ops.value / seconds.value}
        if name not in self.probes:
            self.probes[name] = c_void_p()
            self.check(self.lib.tern_read_probe_create(self.ctx, byref(self.probes[name]), size))
        best = float("inf")
        for _ in range(1 if name == "dram" else L3_SWEEPS):  # the first sweep brings a small probe's memory back into the cache
            self.check(self.lib.tern_read_probe_sweep(self.ctx, self.probes[name], byref(seconds)))
            best = min(best, seconds.value)
        return {"value": size / best}


# ---- ggml, llama.cpp's or ik_llama.cpp's --------------------------------------------------------------------------------


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


class Plan(ctypes.Structure):
    """struct ggml_cplan: its first two members, and room for what versions add behind them."""
    _fields_ = [("work_size", c_size_t), ("work_data", c_void_p), ("rest", c_uint8 * 112)]


class GgmlWorker:
    """ggml_mul_mat, many in one graph, as a model runs them: float32 in, float32 out, quantized inside. Forms are ggml's types;
    "q4_0 repacked" puts the weights where llama.cpp puts them when it loads a model."""

    TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 8, "q6_k": 14, "q6_k_r4": 214, "tq1_0": 34, "tq2_0": 35, "iq2_bn": 135, "q4_0_r8": 202, "q8_0_r8": 208, "iq2_bn_r4": 335}
    F32 = 0
    QUANTIZED_AS = {"q4_0": "q4_0", "q4_1": "q4_1", "q8_0": "q8_0"}  # the rest by ggml_quantize_chunk

    def __init__(self, threads: int, *libraries: str):
        self.libs = [ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in libraries]
        self.threads, self.subjects = threads, []
        self.f = {name: self.find(name, result, *arguments) for name, (result, arguments) in {
            "ggml_init": (c_void_p, [InitParams]), "ggml_free": (None, [c_void_p]),
            "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int, c_int64, c_int64]), "ggml_mul_mat": (c_void_p, [c_void_p] * 3),
            "ggml_get_data": (c_void_p, [c_void_p]), "ggml_row_size": (c_size_t, [c_int, c_int64]),
            "ggml_new_graph_custom": (c_void_p, [c_void_p, c_size_t, c_bool]),
            "ggml_build_forward_expand": (None, [c_void_p, c_void_p]), "ggml_graph_plan": (Plan, [c_void_p, c_int, c_void_p]),
            "ggml_graph_compute": (c_int, [c_void_p, POINTER(Plan)]),
            "ggml_quantize_chunk": (c_size_t, [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
            "ggml_tensor_overhead": (c_size_t, []), "ggml_graph_overhead_custom": (c_size_t, [c_size_t, c_bool])}.items()}
        init = self.find("ggml_cpu_init", None)
        if init:
            init()
        has = [name for name in ("avx2", "fma", "f16c", "avx_vnni", "avx512", "avx512_vbmi", "avx512_vnni", "avx512_bf16", "llamafile")
               if (found := self.find("ggml_cpu_has_" + name, c_int)) and found()]
        version = self.find("ggml_version", c_char_p)
        self.about = {"version": "ggml " + version().decode() if version else "ggml", "features": " ".join(has)}

    def find(self, name: str, result, *arguments):
        for lib in self.libs:
            if hasattr(lib, name):
                return prototype(lib, name, result, *arguments)
        return None

    def quantize(self, op: str, form: str, w: np.ndarray) -> np.ndarray:
        n, k = w.shape
        kind = self.TYPES[form]
        if form in self.QUANTIZED_AS:
            return quantize_blocks(op, w)
        block = 256 if form.startswith(("tq", "q6_k")) else 64 if form.startswith("iq2_bn") else BLOCK
        if k % block or (form.endswith("_r4") and n % 4) or (form.endswith("_r8") and n % 8):
            raise Unsupported(f"{form} wants K a multiple of {block}" + (" and N of 4 or 8" if "_r" in form else ""))
        floats = w.astype(np.float32)
        packed = np.empty(self.f["ggml_row_size"](kind, k) * n, dtype=np.uint8)
        self.f["ggml_quantize_chunk"](kind, address(floats), address(packed), 0, n, k, None)
        return packed

    def make(self, op: str, form: str, x: np.ndarray, w: np.ndarray, copies_bytes: int, integers: bool = False) -> dict:
        (m, k), n = x.shape, w.shape[0]
        if integers:
            raise Unsupported("takes float32 only")
        form, _, repacked = form.partition(" ")
        kind = self.TYPES[form]
        if k % BLOCK:
            raise Unsupported(f"ggml wants K a multiple of {BLOCK}")
        packed = self.quantize(op, form, w)
        copies = max(1, -(-copies_bytes // packed.nbytes))
        nodes = copies if copies > 1 else max(1, min(CALL_PRODUCTS, OUTPUT_BYTES // (4 * m * n)))
        size = copies * (packed.nbytes + 64) + nodes * (4 * m * n + 64) + 4 * m * k + self.overhead(2 * nodes + copies + 8) + (1 << 20)
        memory, base = huge(size)
        ctx = self.f["ggml_init"](InitParams(size, base, False))
        xt = self.f["ggml_new_tensor_2d"](ctx, self.F32, k, m)
        floats = x.astype(np.float32)
        ctypes.memmove(self.f["ggml_get_data"](xt), address(floats), floats.nbytes)
        weights, buffers = [], []
        for _ in range(copies):
            weights.append(self.repacked(kind, k, n, packed, buffers) if repacked else self.plain(ctx, kind, k, n, packed))
        graph = self.f["ggml_new_graph_custom"](ctx, 2 * nodes + copies + 8, False)
        results = [self.f["ggml_mul_mat"](ctx, weights[i % copies], xt) for i in range(nodes)]
        for result in results:
            self.f["ggml_build_forward_expand"](graph, result)
        plan = self.f["ggml_graph_plan"](graph, self.threads, None)
        work = np.empty(plan.work_size + 64, dtype=np.uint8)
        plan.work_data = address(work)
        self.subjects.append({"memory": memory, "ctx": ctx, "graph": graph, "plan": plan, "work": work, "nodes": nodes, "y": results[0], "shape": (m, n), "buffers": buffers})
        return {"id": len(self.subjects) - 1, "bytes": packed.nbytes, "scope": END_TO_END, "kernel": form}

    def overhead(self, tensors: int) -> int:
        return tensors * self.f["ggml_tensor_overhead"]() + self.f["ggml_graph_overhead_custom"](tensors, False)

    def plain(self, ctx, kind, k, n, packed):
        tensor = self.f["ggml_new_tensor_2d"](ctx, kind, k, n)
        ctypes.memmove(self.f["ggml_get_data"](tensor), address(packed), packed.nbytes)
        return tensor

    def repacked(self, kind, k, n, packed, buffers):
        """A tensor in llama.cpp's CPU_REPACK buffer, which rearranges what is written to it."""
        kind_of_buffer = self.find("_Z35ggml_backend_cpu_repack_buffer_typev", c_void_p)
        if not kind_of_buffer:
            raise Unsupported("this ggml has no CPU_REPACK buffers")
        alloc = self.find("ggml_backend_buft_alloc_buffer", c_void_p, c_void_p, c_size_t)
        base = self.find("ggml_backend_buffer_get_base", c_void_p, c_void_p)
        place = self.find("ggml_backend_tensor_alloc", c_int, c_void_p, c_void_p, c_void_p)
        write = self.find("ggml_backend_tensor_set", None, c_void_p, c_void_p, c_size_t, c_size_t)
        ctx = self.f["ggml_init"](InitParams(2 * self.f["ggml_tensor_overhead"](), None, True))
        tensor = self.f["ggml_new_tensor_2d"](ctx, kind, k, n)
        buffer = alloc(kind_of_buffer(), packed.nbytes + 64)
        buffers.append((ctx, buffer))
        place(buffer, tensor, base(buffer))
        write(tensor, address(packed), 0, packed.nbytes)
        return tensor

    def begin(self, s: dict) -> None:
        pass

    def copies(self, s: dict) -> int:
        return s["nodes"]

    def products(self, s: dict, count: int, first: int) -> None:
        for _ in range(count // s["nodes"]):
            if self.f["ggml_graph_compute"](s["graph"], byref(s["plan"])) != 0:
                raise Unsupported("ggml_graph_compute failed")

    def result(self, s: dict) -> np.ndarray:
        self.products(s, s["nodes"], 0)
        m, n = s["shape"]
        pointer = ctypes.cast(self.f["ggml_get_data"](s["y"]), POINTER(c_float))
        return np.ctypeslib.as_array(pointer, (m, n))

    def drop(self, s: dict) -> None:
        self.f["ggml_free"](s["ctx"])
        free = self.find("ggml_backend_buffer_free", None, c_void_p)
        for ctx, buffer in s["buffers"]:
            free(buffer)
            self.f["ggml_free"](ctx)


# ---- bitnet.cpp and oneDNN, through the small libraries of tools/peers ---------------------------------------------------


class I2sWorker:
    """bitnet.cpp's I2_S: int8 in, sums of codes 0..2 out; its ggml subtracts the sum of x and scales afterwards."""

    def __init__(self, threads: int, library: str):
        self.lib, self.threads, self.subjects = ctypes.CDLL(library), threads, []
        self.pack = prototype(self.lib, "quantize_i2_s", c_size_t, c_void_p, c_void_p, c_int64, c_int64, c_void_p)
        self.multiply = prototype(self.lib, "peer_i2s", None, c_void_p, c_void_p, c_int, c_void_p, c_int, c_int, c_int, c_int)
        self.about = {"version": "I2_S", "features": "as compiled"}

    def make(self, op: str, form: str, x: np.ndarray, w: np.ndarray, copies_bytes: int, integers: bool = True) -> dict:
        (m, k), n = x.shape, w.shape[0]
        if x.dtype != np.int8:
            raise Unsupported("takes int8 only")
        if k % 128 or n % 4:
            raise Unsupported("I2_S wants K a multiple of 128 and N of 4")
        size = n * k // 4
        packed = np.zeros(size + 64, dtype=np.uint8)
        floats = w.astype(np.float32)
        self.pack(address(floats), address(packed), n, k, None)
        copies = max(1, -(-copies_bytes // size))
        memory, base = huge(copies * (size + 64))
        addresses = [base + c * (size + 64) for c in range(copies)]
        for at in addresses:
            ctypes.memmove(at, address(packed), size)
        calls = copies if copies > 1 else CALL_PRODUCTS if m == 1 else 1
        pointers = (c_void_p * calls)(*(addresses[i % copies] for i in range(calls)))
        self.subjects.append({"memory": memory, "w": pointers, "calls": calls, "x": np.ascontiguousarray(x), "y": np.empty((m, n), dtype=np.float32),
                              "m": m, "n": n, "k": k})
        return {"id": len(self.subjects) - 1, "bytes": size, "scope": KERNEL, "kernel": "i2_s"}

    def begin(self, s: dict) -> None:
        pass

    def copies(self, s: dict) -> int:
        return s["calls"]

    def products(self, s: dict, count: int, first: int) -> None:
        for _ in range(count // s["calls"]):
            self.multiply(address(s["y"]), s["w"], s["calls"], address(s["x"]), s["m"], s["n"], s["k"], self.threads)

    def result(self, s: dict) -> np.ndarray:
        self.products(s, s["calls"], 0)
        return s["y"] - s["x"].astype(np.int64).sum(axis=1, keepdims=True)

    def drop(self, s: dict) -> None:
        pass


class OnednnWorker:
    """oneDNN's matmul, int8 weights in its own order, int32 out. Forms: u8s8s32, s8s8s32."""

    def __init__(self, threads: int, library: str):
        self.lib, self.subjects = ctypes.CDLL(library), []
        ctypes.CDLL("libgomp.so.1").omp_set_num_threads(threads)
        self.create = prototype(self.lib, "peer_onednn_create", c_void_p, c_void_p, c_void_p, c_int, c_int64, c_int64, c_int64, c_int)
        self.run = prototype(self.lib, "peer_onednn_run", c_int, c_void_p, c_int)
        self.y = prototype(self.lib, "peer_onednn_result", c_void_p, c_void_p)
        self.bytes = prototype(self.lib, "peer_onednn_bytes", c_size_t, c_void_p)
        self.implementation = prototype(self.lib, "peer_onednn_implementation", c_char_p, c_void_p)
        self.destroy = prototype(self.lib, "peer_onednn_destroy", None, c_void_p)
        self.about = {"version": "oneDNN", "features": "chosen at run time"}

    def make(self, op: str, form: str, x: np.ndarray, w: np.ndarray, copies_bytes: int, integers: bool = True) -> dict:
        (m, k), n = x.shape, w.shape[0]
        if x.dtype != np.int8:
            raise Unsupported("takes int8 only")
        unsigned = form.startswith("u8")
        given = np.ascontiguousarray((x.astype(np.int16) + 128).astype(np.uint8) if unsigned else x)
        copies = max(1, -(-copies_bytes // w.nbytes))
        handle = self.create(address(given), address(w), int(unsigned), m, n, k, copies)
        if not handle:
            raise Unsupported("oneDNN refused the product")
        self.subjects.append({"handle": handle, "copies": copies, "shape": (m, n), "correction": 128 * w.astype(np.int64).sum(axis=1) if unsigned else 0})
        return {"id": len(self.subjects) - 1, "bytes": self.bytes(handle), "scope": KERNEL, "kernel": self.implementation(handle).decode()}

    def begin(self, s: dict) -> None:
        pass

    def copies(self, s: dict) -> int:
        return s["copies"]

    def products(self, s: dict, count: int, first: int) -> None:
        if not self.run(s["handle"], count):
            raise Unsupported("oneDNN failed")

    def result(self, s: dict) -> np.ndarray:
        self.products(s, 1, 0)
        sums = np.ctypeslib.as_array(ctypes.cast(self.y(s["handle"]), POINTER(c_int32)), s["shape"])
        return sums.astype(np.int64) - s["correction"]

    def drop(self, s: dict) -> None:
        self.destroy(s["handle"])


# ---- Commands ----------------------------------------------------------------------------------------------------------


def run(worker, subject: dict, seconds: float) -> dict:
    """The mean of whole turns through the copies, after one that brings the weights back; or that one, if it is long."""
    turn = worker.copies(subject)

    def one_turn() -> float:
        start = time.perf_counter()
        worker.products(subject, turn, 0)
        return time.perf_counter() - start

    worker.begin(subject)
    first, turns = one_turn(), []
    while first < seconds and sum(turns) < seconds:
        turns.append(one_turn())
    return {"seconds": sum(turns or [first]) / len(turns or [first]) / turn}


def answer(worker, command: dict) -> dict:
    try:
        if "make" in command:
            wanted = command["make"]
            return worker.make(wanted["op"], wanted["form"], np.load(wanted["x"]), np.load(wanted["w"]), wanted["copies_bytes"],
                               integers=wanted.get("integers", False))
        if "pack" in command:
            return worker.pack(**command["pack"])
        if "limit" in command:
            return worker.limit(command["limit"], command.get("bytes", 0))
        if "run" in command:
            return run(worker, worker.subjects[command["run"]], command["seconds"])
        if "result" in command:
            np.save(command["to"], np.array(worker.result(worker.subjects[command["result"]])))
            return {"to": command["to"]}
        worker.drop(worker.subjects[command["drop"]])
        worker.subjects[command["drop"]] = {}
        return {}
    except (Unsupported, RuntimeError, KeyError) as error:
        return {"error": str(error)}


def main() -> None:
    kind, threads, *libraries = sys.argv[1:]
    worker = {"tern": TernWorker, "ggml": GgmlWorker, "i2s": I2sWorker, "onednn": OnednnWorker}[kind](int(threads), *libraries)
    print(json.dumps(worker.about), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
