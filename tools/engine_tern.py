# SPDX-License-Identifier: MIT
"""libtern as an engine of tools/engine_worker.py."""
import ctypes
import json
import statistics
import time
from pathlib import Path

import engine_products
import ternlib
from engine_tokens import feed_singly, tokens

DRAM_BYTES = 320 << 20
PARTS = 4  # of a decode, between which DRAM is read
SWEEPS = 2  # at each of these points


class TernEngine:
    """libtern through the public decode API."""

    def __init__(self, model: str, threads: int, context: int, library: str, settings: dict):
        self.settings, self.context = settings, context
        self.tern = ternlib.Tern(library, threads)
        self.model = self.tern.load(model, settings.get("kernel", "auto"), settings.get("head", "auto"))
        self.session = self.new_session(context)
        self.probe, self.kept_sessions, self.batch_sessions, self.matrices = None, {}, [], {}
        self.about = {"engine": "tern", "version": self.tern.lib.tern_version().decode(),
                      "features": " ".join(f"{s}={self.tern.variant(s)}" for s in ("mad_gemm", "lut_gemm", "int8_gemm_b32", "attention"))}

    def new_session(self, context: int):
        return self.model.session(context, self.settings.get("kv", "f16"))

    def clear(self) -> None:
        self.session.reset()

    def feed(self, ids) -> None:
        self.session.append(ids)

    def best(self) -> int:
        return int(self.session.logits().argmax())

    def all_logits(self) -> list[float]:
        return self.session.logits().tolist()

    def sweep(self) -> float:
        """Bytes per second of one sweep through DRAM."""
        lib, seconds = self.tern.lib, ctypes.c_double()
        if self.probe is None:
            self.probe = ctypes.c_void_p()
            self.tern.check(lib.tern_read_probe_create(self.tern.handle, ctypes.byref(self.probe), DRAM_BYTES))
        self.tern.check(lib.tern_read_probe_sweep(self.tern.handle, self.probe, ctypes.byref(seconds)))
        return DRAM_BYTES / seconds.value

    def roofline(self, context: int, n: int) -> dict:
        self.clear()
        self.feed(tokens(context))
        rates, total = [self.sweep() for _ in range(SWEEPS)], 0.0
        for part in range(PARTS):
            ids = tokens(n * (part + 1) // PARTS - n * part // PARTS, context + n * part // PARTS)
            total += feed_singly(self, ids)
            rates += [self.sweep() for _ in range(SWEEPS)]
        return {"seconds": total, "bytes_per_second": statistics.median(rates)}

    def kept(self, context: int, n: int) -> dict:
        if context not in self.kept_sessions:
            self.kept_sessions[context] = self.new_session(context + n)
            self.kept_sessions[context].append(tokens(context))
        session, ids = self.kept_sessions[context], tokens(n, context)
        session.truncate(context)
        start = time.perf_counter()
        for token in ids:
            session.append([token])
        return {"seconds": time.perf_counter() - start}

    def latency(self, prompt: int, n: int) -> dict:
        self.clear()
        times, ids = [], tokens(prompt)
        for _ in range(n):
            start = time.perf_counter()
            self.feed(ids)
            ids = [self.best()]
            times.append(time.perf_counter() - start)
        return {"first": times[0], "next": times[1:]}

    def batch(self, sessions: int, context: int, n: int) -> dict:
        while len(self.batch_sessions) < sessions:
            self.batch_sessions.append(self.new_session(context + n))
        used = self.batch_sessions[:sessions]
        for i, session in enumerate(used):  # texts of their own
            session.reset()
            session.append(tokens(context, i))
        steps = [tokens(sessions, i) for i in range(n)]
        start = time.perf_counter()
        for ids in steps:
            self.model.decode(used, ids)
        return {"seconds": time.perf_counter() - start}

    def products(self, m: int, matrices: list) -> dict:
        """Each matrix has memory of its own, as in a model."""
        key = json.dumps([m, matrices])
        if key not in self.matrices:
            self.matrices[key] = engine_products.Products(self.tern, m, matrices)
        return {"seconds": self.matrices[key].run()}

    def forced(self, ids: list[int], top: int) -> dict:
        """The likeliest token after each of a text, read token by token in windows of the context; only the `top` largest logits are asked for."""
        screened, best, seconds = self.settings.get("head") == "screened", [], 0.0
        before = self.model.screen() if screened else None
        self.session.set_top(top)
        for start in range(0, len(ids), self.context):
            self.clear()
            for token in ids[start:start + self.context]:
                begun = time.perf_counter()
                self.feed([token])
                seconds += time.perf_counter() - begun
                best.append(self.best())
        self.session.set_top(0)
        if not screened:
            return {"best": best, "seconds": seconds}
        now = self.model.screen()
        read = now.tokens - before.tokens
        return {"best": best, "seconds": seconds, "tokens": read, "rows": now.rows - before.rows, "bytes": now.bytes - before.bytes,
                "int8_bytes": read * self.model.info.head_bytes, "paused": now.paused - before.paused}

    def text(self, n: int) -> dict:
        """A text of n tokens."""
        words = "the tern is a small bird of the sea that flies very far each year " * n
        for end in range(n, len(words)):
            if len(self.model.tokenize(words[:end])) == n:
                return {"text": words[:end]}
        raise RuntimeError(f"no text of {n} tokens was found")

    def info(self) -> dict:
        info = self.model.info
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {"bytes_per_token": info.bytes_per_token, "bits_per_weight": info.bits_per_weight, "n_layers": info.n_layers,
                "n_kv_heads": info.n_kv_heads, "head_dim": info.head_dim, "peak_rss": int(status["VmHWM"].split()[0]) * 1024}
