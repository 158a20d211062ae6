# SPDX-License-Identifier: MIT
"""libtern from Python through ctypes: what the tools and tests beside it need of the public API (include/tern)."""
from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

import numpy as np

DEFAULT_LIBRARY = Path(__file__).resolve().parent.parent / "build/release/libtern.so"
ERROR_SIZE = 1024
FORMS = {"auto": 0, "lut": 1, "mad": 2}
KV_TYPES = {"f16": 0, "int8": 1}
HEADS = {"auto": 0, "exact": 1, "int8": 2, "int4": 3, "int6": 4, "screened": 5}


class TernError(RuntimeError):
    """A Tern call that did not return TERN_OK; the text is the library's own."""


class Params(ctypes.Structure):
    """A struct of the API, which begins with its own size."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(self), **fields)


class ContextParams(Params):
    _fields_ = [("struct_size", c_size_t), ("threads", c_int), ("isa", c_char_p), ("no_pinning", c_int), ("parallel_for", c_void_p),
                ("parallel_for_user", c_void_p), ("allocator", c_void_p), ("error", c_char_p), ("error_size", c_size_t)]


class ModelParams(Params):
    _fields_ = [("struct_size", c_size_t), ("form", c_int), ("progress", c_void_p), ("progress_user", c_void_p), ("head", c_int),
                ("load", c_int), ("act_block", c_size_t)]


class SessionParams(Params):
    _fields_ = [("struct_size", c_size_t), ("n_ctx", c_size_t), ("kv", c_int)]


class TokenizeParams(Params):
    _fields_ = [("struct_size", c_size_t), ("parse_special", c_int), ("add_bos", c_int)]


class ModelInfo(Params):
    _fields_ = ([("struct_size", c_size_t)] + [(n, c_char_p) for n in ("architecture", "name", "tokenizer")] +
                [(n, c_uint32) for n in ("n_layers", "n_embd", "n_ff", "n_heads", "n_kv_heads", "head_dim", "n_vocab", "n_ctx_train")] +
                [(n, c_uint64) for n in ("n_params", "file_bytes", "bytes_per_token")] +
                [("bits_per_weight", c_double), ("n_ternary", c_size_t), ("n_int8", c_size_t), ("head", c_char_p), ("head_bytes", c_uint64)])


class ScreenInfo(Params):
    _fields_ = [("struct_size", c_size_t)] + [(n, c_uint64) for n in ("tokens", "rows", "bytes", "paused")]


class VariantInfo(Params):
    _fields_ = ([("struct_size", c_size_t)] + [(n, c_char_p) for n in ("stage", "tier", "layout", "symbol")] + [("usable", c_int), ("chosen", c_int)])


class WeightsParams(Params):
    _fields_ = [("struct_size", c_size_t), ("form", c_int)]


class WeightsInfo(Params):
    _fields_ = ([("struct_size", c_size_t)] + [(n, c_size_t) for n in ("n", "k", "bytes")] + [("bits_per_weight", c_double)] +
                [(n, c_size_t) for n in ("scale_block", "act_block")] + [("layout", c_char_p), ("kernel", c_char_p)])


PROTOTYPES = {
    "tern_version": (c_char_p, []),
    "tern_status_string": (c_char_p, [c_int]),
    "tern_context_create": (c_int, [POINTER(c_void_p), POINTER(ContextParams)]),
    "tern_context_destroy": (None, [c_void_p]),
    "tern_context_error": (c_char_p, [c_void_p]),
    "tern_context_threads": (c_int, [c_void_p]),
    "tern_stage_variant": (c_char_p, [c_void_p, c_char_p]),
    "tern_variant_count": (c_size_t, []),
    "tern_variant_get": (c_int, [c_void_p, c_size_t, POINTER(VariantInfo)]),
    "tern_force_variant": (c_int, [c_void_p, c_char_p]),
    "tern_weights_from_trits": (c_int, [c_void_p, POINTER(c_void_p), c_void_p, POINTER(c_float)] + [c_size_t] * 4 + [POINTER(WeightsParams)]),
    "tern_weights_from_s8": (c_int, [c_void_p, POINTER(c_void_p), c_void_p, POINTER(c_float)] + [c_size_t] * 4 + [POINTER(WeightsParams)]),
    "tern_weights_from_f32_int6": (c_int, [c_void_p, POINTER(c_void_p), c_void_p] + [c_size_t] * 3 + [POINTER(WeightsParams)]),
    "tern_weights_from_gguf": (c_int, [c_void_p, POINTER(c_void_p), c_uint32, c_void_p] + [c_size_t] * 3 + [POINTER(WeightsParams)]),
    "tern_weights_get_info": (c_int, [c_void_p, c_void_p, POINTER(WeightsInfo)]),
    "tern_weights_destroy": (None, [c_void_p]),
    "tern_activations_create": (c_int, [c_void_p, POINTER(c_void_p), c_size_t, c_size_t]),
    "tern_activations_set_f32": (c_int, [c_void_p, c_void_p, c_void_p] + [c_size_t] * 4),
    "tern_activations_set_s8": (c_int, [c_void_p] * 4 + [c_size_t] * 4),
    "tern_activations_destroy": (None, [c_void_p]),
    "tern_matmul_s32": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p, c_size_t]),
    "tern_matmul_f32": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p]),
    "tern_read_probe_create": (c_int, [c_void_p, POINTER(c_void_p), c_size_t]),
    "tern_read_probe_sweep": (c_int, [c_void_p, c_void_p, POINTER(c_double)]),
    "tern_int8_peak": (c_int, [c_void_p, POINTER(c_double), POINTER(c_double)]),
    "tern_cycle_seconds": (c_double, []),
    "tern_model_load": (c_int, [c_void_p, POINTER(c_void_p), c_char_p, POINTER(ModelParams)]),
    "tern_model_destroy": (None, [c_void_p]),
    "tern_model_get_info": (c_int, [c_void_p, POINTER(ModelInfo)]),
    "tern_model_get_screen": (c_int, [c_void_p, POINTER(ScreenInfo)]),
    "tern_tokenize": (c_int, [c_void_p, c_char_p, c_size_t, POINTER(TokenizeParams), POINTER(c_int32), c_size_t, POINTER(c_size_t)]),
    "tern_session_create": (c_int, [c_void_p, POINTER(c_void_p), POINTER(SessionParams)]),
    "tern_session_destroy": (None, [c_void_p]),
    "tern_session_reset": (None, [c_void_p]),
    "tern_session_set_top": (c_int, [c_void_p, c_size_t]),
    "tern_session_truncate": (c_int, [c_void_p, c_size_t]),
    "tern_decode_batch": (c_int, [c_void_p, POINTER(c_void_p), POINTER(c_int32), c_size_t]),
    "tern_session_logits": (POINTER(c_float), [c_void_p]),
}


class Session:
    """One sequence. Belongs to its model."""

    def __init__(self, model: "Model", n_ctx: int, kv: str):
        self.model, self.handle = model, c_void_p()
        model.tern.check(model.tern.lib.tern_session_create(model.handle, byref(self.handle), byref(SessionParams(n_ctx=n_ctx, kv=KV_TYPES[kv]))))

    def append(self, tokens) -> None:
        """Decodes tokens in one call."""
        self.model.decode([self] * len(tokens), tokens)

    def logits(self) -> np.ndarray:
        """A copy of the logits of the last token."""
        pointer = self.model.tern.lib.tern_session_logits(self.handle)
        if not pointer:
            raise TernError("a session has no logits before its first token")
        return np.ctypeslib.as_array(pointer, (self.model.info.n_vocab,)).copy()

    def set_top(self, top: int) -> None:
        """Only so many of the largest logits are needed; 0: all."""
        self.model.tern.check(self.model.tern.lib.tern_session_set_top(self.handle, top))

    def reset(self) -> None:
        self.model.tern.lib.tern_session_reset(self.handle)

    def truncate(self, length: int) -> None:
        """Forgets the tokens from `length` on."""
        self.model.tern.check(self.model.tern.lib.tern_session_truncate(self.handle, length))

    def close(self) -> None:
        self.model.tern.lib.tern_session_destroy(self.handle)
        self.handle = c_void_p()


class Model:
    """A loaded model; sessions made by `session` end with it."""

    def __init__(self, tern: "Tern", path: str, form: str, head: str, act_block: int):
        self.tern, self.handle, self.sessions = tern, c_void_p(), []
        params = ModelParams(form=FORMS[form], head=HEADS[head], act_block=act_block)
        tern.check(tern.lib.tern_model_load(tern.handle, byref(self.handle), str(path).encode(), byref(params)))
        self.info = ModelInfo()
        tern.check(tern.lib.tern_model_get_info(self.handle, byref(self.info)))

    def session(self, n_ctx: int, kv: str = "f16") -> Session:
        self.sessions.append(Session(self, n_ctx, kv))
        return self.sessions[-1]

    def screen(self) -> ScreenInfo:
        """What a screened head has read so far."""
        info = ScreenInfo()
        self.tern.check(self.tern.lib.tern_model_get_screen(self.handle, byref(info)))
        return info

    def tokenize(self, text: str) -> list[int]:
        data, n = text.encode(), c_size_t()
        ids = (c_int32 * len(data))()  # a token covers at least one byte
        self.tern.check(self.tern.lib.tern_tokenize(self.handle, data, len(data), None, ids, len(data), byref(n)))
        return ids[:n.value]

    def decode(self, sessions: list[Session], tokens) -> None:
        """Appends tokens[i] to sessions[i], all in one call."""
        n = len(tokens)
        handles = (c_void_p * n)(*(s.handle for s in sessions))
        self.tern.check(self.tern.lib.tern_decode_batch(self.handle, handles, (c_int32 * n)(*map(int, tokens)), n))

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self.tern.lib.tern_model_destroy(self.handle)
        self.handle = c_void_p()


class Tern:
    """The library with one context."""

    def __init__(self, library: str | Path = DEFAULT_LIBRARY, threads: int = 0, isa: str | None = None):
        if not Path(library).exists():
            raise TernError(f"{library} is missing; build it (cmake --preset release && cmake --build build/release) or give its path")
        self.lib = ctypes.CDLL(str(Path(library).resolve()))
        for name, (result, arguments) in PROTOTYPES.items():
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments
        self.handle = c_void_p()
        message = ctypes.create_string_buffer(ERROR_SIZE)
        params = ContextParams(threads=threads, isa=isa.encode() if isa else None, error=ctypes.cast(message, c_char_p), error_size=ERROR_SIZE)
        if self.lib.tern_context_create(byref(self.handle), byref(params)) != 0:
            raise TernError(message.value.decode())

    def check(self, status: int) -> None:
        if status != 0:
            detail = self.lib.tern_context_error(self.handle).decode()
            raise TernError(detail or self.lib.tern_status_string(status).decode())

    def load(self, path: str | Path, form: str = "auto", head: str = "auto", act_block: int = 0) -> Model:
        return Model(self, str(path), form, head, act_block)

    def variant(self, stage: str) -> str:
        """The tier that runs a stage, e.g. "avx2"."""
        found = self.lib.tern_stage_variant(self.handle, stage.encode())
        if found is None:
            raise TernError(f"unknown stage {stage}")
        return found.decode()

    def close(self) -> None:
        self.lib.tern_context_destroy(self.handle)
        self.handle = c_void_p()
