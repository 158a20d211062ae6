# SPDX-License-Identifier: MIT
"""llama.cpp and ik_llama.cpp as engines of tools/engine_worker.py."""
import ctypes
from pathlib import Path

PREFILL_BATCH = 512


class LlamaCppEngine:
    """llama.cpp through the C functions that llama-cpp-python exposes."""

    def __init__(self, model: str, threads: int, context: int, library: str, settings: dict):
        import llama_cpp as api
        self.api, self.quiet = api, api.llama_log_callback(lambda *_: None)
        api.llama_log_set(self.quiet, ctypes.c_void_p(0))
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers, params.load_mode = 0, api.LLAMA_LOAD_MODE_MMAP if settings["mapped"] else api.LLAMA_LOAD_MODE_NONE
        self.model = api.llama_model_load_from_file(model.encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {Path(model).name}")
        params = api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, PREFILL_BATCH, PREFILL_BATCH
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = int(settings["flash"])
        self.context = api.llama_init_from_model(self.model, params)
        self.vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.about = {"engine": "llama.cpp", "version": f"llama-cpp-python {api.__version__}", "features": api.llama_print_system_info().decode().strip()}

    def clear(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def feed(self, ids) -> None:
        array = (ctypes.c_int32 * len(ids))(*ids)
        if self.api.llama_decode(self.context, self.api.llama_batch_get_one(array, len(ids))) != 0:
            raise RuntimeError("llama_decode failed")
        self.logits = self.api.llama_get_logits_ith(self.context, -1)  # waits for the result

    def all_logits(self) -> list[float]:
        return self.logits[:self.vocab]

    def best(self) -> int:
        logits = self.all_logits()
        return logits.index(max(logits))


class IkEngine:
    """ik_llama.cpp through the C functions that ik-llama-cpp-python exposes."""

    def __init__(self, model: str, threads: int, context: int, library: str, settings: dict):
        import ik_llama_cpp._ctypes_api as api
        from importlib.metadata import version
        self.api, self.lib = api, api._lib
        log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self.quiet = log(lambda *_: None)
        self.lib.llama_log_set.argtypes = [log, ctypes.c_void_p]
        self.lib.llama_log_set(self.quiet, None)
        self.lib.llama_batch_get_one.restype = api.llama_batch
        self.lib.llama_batch_get_one.argtypes = [ctypes.POINTER(ctypes.c_int32)] + [ctypes.c_int32] * 3
        self.lib.llama_print_system_info.restype = ctypes.c_char_p
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers, params.use_mmap, params.use_thp = 0, settings["mapped"], not settings["mapped"]
        params.repack_tensors, params.flash_attn = settings["repack"], settings["flash"]
        self.model = api.llama_model_load_from_file(model.encode(), params)
        if not self.model:
            raise RuntimeError(f"ik_llama.cpp cannot load {Path(model).name}")
        params = api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, PREFILL_BATCH, PREFILL_BATCH
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn = settings["flash"]
        self.context, self.length = api.llama_init_from_model(self.model, params), 0
        self.vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.about = {"engine": "ik", "version": f"ik-llama-cpp-python {version('ik-llama-cpp-python')}",
                      "features": self.lib.llama_print_system_info().decode().strip()}

    def clear(self) -> None:
        self.api.llama_kv_cache_clear(self.context)
        self.length = 0

    def feed(self, ids) -> None:
        array = (ctypes.c_int32 * len(ids))(*ids)
        if self.api.llama_decode(self.context, self.lib.llama_batch_get_one(array, len(ids), self.length, 0)) != 0:
            raise RuntimeError("llama_decode failed")
        self.length += len(ids)
        self.logits = self.api.llama_get_logits_ith(self.context, -1)

    def all_logits(self) -> list[float]:
        return self.logits[:self.vocab]

    def best(self) -> int:
        logits = self.all_logits()
        return logits.index(max(logits))


class NativeEngine:
    """llama.cpp or ik_llama.cpp from --peer-source, through tools/peers/llama.c, which is compiled with its headers."""

    def __init__(self, model: str, threads: int, context: int, library: str, settings: dict):
        self.lib = lib = ctypes.CDLL(library)
        lib.peer_llama_create.restype = ctypes.c_void_p
        lib.peer_llama_create.argtypes = [ctypes.c_char_p] + [ctypes.c_int] * 3 + [ctypes.c_bool] * 3
        lib.peer_llama_feed.restype = ctypes.POINTER(ctypes.c_float)
        lib.peer_llama_feed.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int32), ctypes.c_int]
        lib.peer_llama_vocab.argtypes = lib.peer_llama_clear.argtypes = [ctypes.c_void_p]
        lib.peer_llama_features.restype = ctypes.c_char_p
        self.handle = lib.peer_llama_create(model.encode(), threads, context, PREFILL_BATCH, settings["flash"], settings.get("repack", True), settings["mapped"])
        if not self.handle:
            raise RuntimeError(f"the peer cannot load {Path(model).name}")
        self.vocab = lib.peer_llama_vocab(self.handle)
        self.about = {"engine": "native", "version": "built from --peer-source", "features": lib.peer_llama_features().decode().strip()}

    def clear(self) -> None:
        self.lib.peer_llama_clear(self.handle)

    def feed(self, ids) -> None:
        self.logits = self.lib.peer_llama_feed(self.handle, (ctypes.c_int32 * len(ids))(*ids), len(ids))
        if not self.logits:
            raise RuntimeError("llama_decode failed")

    def all_logits(self) -> list[float]:
        return self.logits[:self.vocab]

    def best(self) -> int:
        logits = self.all_logits()
        return logits.index(max(logits))
