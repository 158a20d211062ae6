# SPDX-License-Identifier: MIT
"""A model's ternary matrices without the model: products with random weights of the same shapes, timed in turn. What a batched decode cannot beat."""
from __future__ import annotations

import time
from ctypes import byref, c_float, c_void_p

import numpy as np

import ternlib


class Products:
    """m tokens through each matrix (n, k), once in a turn, from ready activations to float32 results."""

    def __init__(self, tern, m: int, matrices: list):
        self.tern, self.m, rng = tern, m, np.random.default_rng(1)
        activations, drawn, self.products = {}, {}, []
        for n, k in matrices:
            if (n, k) not in drawn:
                drawn[n, k] = rng.integers(-1, 2, (n, k), dtype=np.int8)
            weights, block = self.create(drawn[n, k])
            if (k, block) not in activations:
                activations[k, block] = self.activate(rng, k, block)
            self.products.append((weights, activations[k, block], n))
        self.y = np.empty(m * max(n for n, _ in matrices), dtype=np.float32)

    def create(self, trits: np.ndarray) -> tuple[c_void_p, int]:
        """A weight, and the block of activations that it wants."""
        lib, handle, info, (n, k) = self.tern.lib, c_void_p(), ternlib.WeightsInfo(), trits.shape
        self.tern.check(lib.tern_weights_from_trits(self.tern.handle, byref(handle), trits.ctypes.data, byref(c_float(1)), 0, n, k, k, None))
        self.tern.check(lib.tern_weights_get_info(self.tern.handle, handle, byref(info)))
        return handle, info.act_block

    def activate(self, rng, k: int, block: int) -> c_void_p:
        handle, x = c_void_p(), rng.standard_normal((self.m, k), dtype=np.float32)
        self.tern.check(self.tern.lib.tern_activations_create(self.tern.handle, byref(handle), self.m, k))
        self.tern.check(self.tern.lib.tern_activations_set_f32(self.tern.handle, handle, x.ctypes.data, self.m, k, k, block))
        return handle

    def run(self) -> float:
        lib, context, y = self.tern.lib, self.tern.handle, self.y.ctypes.data
        start = time.perf_counter()
        for weights, activations, n in self.products:
            self.tern.check(lib.tern_matmul_f32(context, weights, activations, y, n, None))
        return time.perf_counter() - start
