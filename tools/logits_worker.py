# SPDX-License-Identifier: MIT
"""llama.cpp's logits after each of some tokens, written as a NumPy file; started by tools/compare_logits.py with the peer's Python.

usage: logits_worker.py MODEL OUT TOKEN...
"""
import sys

import numpy as np

try:
    import llama_cpp
except ImportError as missing:
    sys.exit(f"{sys.executable}: {missing}")


def main() -> None:
    model, out, *tokens = sys.argv[1:]
    # One token per call: in a batch llama.cpp multiplies with other kernels, which round otherwise.
    llama = llama_cpp.Llama(model, n_ctx=512, logits_all=True, n_threads=1, flash_attn=False, verbose=False)
    for token in tokens:
        llama.eval([int(token)])
    np.save(out, np.array(llama.scores[:len(tokens)]))


if __name__ == "__main__":
    main()
