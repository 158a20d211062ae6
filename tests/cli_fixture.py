# SPDX-License-Identifier: MIT
"""What the tests of the tern command share: where it and the tiny models are, running it, and how an error looks.

Every test_cli*.py is run as `test_cli_X.py TERN MODELS_DIR [unittest arguments]`, and reads the same arguments.
"""
import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path

TERN, MODELS = sys.argv[1], Path(sys.argv[2])
TERNARY, INT8, LONG = (str(MODELS / f"{name}.gguf") for name in ("tiny-tq2_0", "tiny-gqa-q8_0", "tiny-long"))
FAILED, USAGE, INTERRUPTED = 1, 2, 130
STAGES = {"quantize", "lut_build", "lut_gemm", "sign_gemm", "mad_gemm", "int8_gemm", "int8_gemm_b32", "int4_gemm_b32", "int6_gemm_b32", "split_gemm_b32", "screen", "screen_rows", "screen_project", "rmsnorm", "silu_mul", "relu2_mul", "attention", "attention_int8", "attention_merge", "to_half", "dot_f32", "dot_f16"}


def tern(*args, stdin=b"", **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("TERN_")} | environment
    env.setdefault("TERN_TUNE", "off")  # not what the developer tuned
    return subprocess.run([TERN, *args], input=stdin, capture_output=True, env=env, timeout=300)


def wait_for_handler(pid):
    """Until the process catches SIGINT."""
    while True:
        caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) & (1 << (signal.SIGINT - 1)):
            return


class CommandTest(unittest.TestCase):
    def check(self, code, *args, says=(), **kwargs):
        """Fails with this code and one line on stderr that begins with `tern: `, and prints nothing on stdout."""
        result = tern(*args, **kwargs)
        lines = result.stderr.decode().splitlines()
        self.assertEqual(result.returncode, code, lines)
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith("tern: "), lines)
        self.assertEqual(result.stdout, b"")
        for word in says:
            self.assertIn(word, lines[0])


def main() -> None:
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
