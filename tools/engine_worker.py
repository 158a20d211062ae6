# SPDX-License-Identifier: MIT
"""One engine with a loaded model in a process of its own, timed on command; started by tools/compare_engines.py.

Reads "prefill" or "decode" lines on stdin and answers each with the seconds it took; the first line written describes the
engine as JSON. Both engines get the same token ids through their C API, so that no Python work but one call per step is timed.
"""
import ctypes
import json
import sys
import time

PREFILL = 512
PROMPT = 16  # tokens in the context before decoding is timed
DECODE = 128
CONTEXT = 1024
TOKENS = [(7 + 131 * i) % 4096 for i in range(PREFILL)]  # any ids: no engine's speed depends on them


class TernEngine:
    """libtern through the public decode API."""

    def __init__(self, model: str, threads: int, library: str):
        import ternlib
        self.tern = ternlib.Tern(library, threads)
        self.model = self.tern.load(model)
        self.session = self.model.session(CONTEXT)
        self.about = {"engine": "tern", "version": self.tern.lib.tern_version().decode(), "threads": threads,
                      "kernels": {s: self.tern.variant(s) for s in ("quantize", "int8_gemm_b32", "attention")}}

    def clear(self) -> None:
        self.session.reset()

    def feed(self, tokens) -> None:
        self.session.append(tokens)


class LlamaCppEngine:
    """llama.cpp through the C functions that llama-cpp-python exposes."""

    def __init__(self, model: str, threads: int, library: str):
        import llama_cpp
        self.api = llama_cpp
        self.llama = llama_cpp.Llama(model, n_ctx=CONTEXT, n_batch=PREFILL, n_threads=threads, n_threads_batch=threads, verbose=False)
        self.context = self.llama.ctx
        self.about = {"engine": "llama.cpp", "version": f"llama-cpp-python {llama_cpp.__version__}", "threads": threads,
                      "system_info": llama_cpp.llama_print_system_info().decode().strip()}

    def clear(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def feed(self, tokens) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        if self.api.llama_decode(self.context, self.api.llama_batch_get_one(array, len(tokens))) != 0:
            raise RuntimeError("llama_decode failed")
        self.api.llama_get_logits_ith(self.context, -1)  # waits for the result


def prefill(engine) -> float:
    engine.clear()
    start = time.perf_counter()
    engine.feed(TOKENS)
    return time.perf_counter() - start


def decode(engine) -> float:
    engine.clear()
    engine.feed(TOKENS[:PROMPT])
    start = time.perf_counter()
    for token in TOKENS[PROMPT:PROMPT + DECODE]:
        engine.feed([token])
    return time.perf_counter() - start


def main() -> None:
    name, model, threads, library = sys.argv[1:]
    engine = {"tern": TernEngine, "llama.cpp": LlamaCppEngine}[name](model, int(threads), library)
    work = {"prefill": prefill, "decode": decode}
    print(json.dumps(engine.about), flush=True)
    for line in sys.stdin:
        print(json.dumps(work[line.strip()](engine)), flush=True)


if __name__ == "__main__":
    main()
