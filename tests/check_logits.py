#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Logits of Tern against the float64 forward of tools/reference.py with the same quantization, on tiny random models.

Activations are rounded to int8 and keys and values to float16, so float32 noise can flip one that lies near a rounding tie, and one flip
moves logits by a hundredth. The token sequences are therefore chosen: each next token is one whose activations keep TIE_MARGIN from
every tie in the reference. Then few flips happen; which ones did, tests/rounding_flips.py finds out, and with these the logits must
agree to TOLERANCE at every position and to TYPICAL at half of them. That the tolerance is sharp is checked as well: the reference with one
mistake put in on purpose must miss it by SHARPNESS at half of the positions, and no flips may explain rounding that is left out.
"""
from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
try:
    import gguf
    import numpy as np
    import reference
    import rounding_flips
    import ternlib
except ImportError as missing:
    sys.exit(f"check_logits: {missing}; run tools/setup.sh")

POSITIONS = 72
LONG = 300  # crosses the blocks of 256 keys that attention merges
CANDIDATES = 12  # tokens tried at once for the next position
TRIES = 32  # such batches
TIE_MARGIN = 4e-4  # in units of one int8 code, or of the last bit of the largest float16 of a head; float32 noise is mostly a few 1e-5 of one
TOLERANCE = 1e-5  # relative error of a logit vector (norm of the difference over norm); float32 noise is below 4e-6
TYPICAL = 1e-6  # of half of the vectors
SHARPNESS = 100
SEEN = 0.5  # of the positions must show a mistake
FLIPPED = 1 / 8  # of the positions may be explained by flips
LARGEST = 1e-2  # difference of any logit, the root mean square logit being 1
RMSE = 1e-3  # root mean square of the same differences, over all logits and positions


@dataclasses.dataclass(frozen=True)
class Case:
    """A model of tools/make_model.py; `meta` overwrites numbers in the file, so that a constant in the code would show."""
    name: str
    options: tuple[str, ...]
    meta: dict[str, float]
    positions: int = POSITIONS
    act_block: int = 0
    int6_head: bool = False


# eps is made large, so that a wrong one shows in the logits.
EPS = {"llama.attention.layer_norm_rms_epsilon": 0.01}
GQA = ("--shape", "tiny-gqa", "--layers", "2")  # 8 query heads of 64 on 2 kv heads, hidden size 256
def arch_cases():
    """Each architecture with a ternary type and with Q8_0, and each rope scaling."""
    archs = ("bitnet-b1.58", "bitnet", "qwen2", "qwen3", "phi3", "bitnet-25")
    for i, arch in enumerate(archs):
        for j, qtype in enumerate(("TQ2_0", "Q8_0")):
            yield Case(f"{arch}_{qtype}", (*GQA, "--arch", arch, "--type", qtype, "--seed", str(30 + 2 * i + j)),
                       {f"{arch}.attention.layer_norm_rms_epsilon": 0.01})
    scalings = (("llama", "linear"), ("llama", "llama3"), ("qwen2", "yarn"), ("phi3", "longrope"), ("llama", "factor"), ("llama", "longrope"))
    for i, (arch, scaling) in enumerate(scalings):
        # A context of 128 stretched from 32, so that 72 positions lie beyond it.
        yield Case(f"{arch}_{scaling}", (*GQA, "--arch", arch, "--type", "Q8_0", "--ctx", "128", "--rope-scaling", scaling, "--seed", str(50 + i)), {})


CASES = (
    Case("ternary_uniform_gqa", (*GQA, "--type", "TQ2_0", "--untied", "--seed", "11"), EPS),
    Case("ternary_block_scales", (*GQA, "--type", "TQ1_0", "--scales", "varied", "--head-type", "Q4_1", "--seed", "12"),
         EPS | {"llama.rope.freq_base": 3000.0}),
    Case("q8_0_gqa_partial_rope", (*GQA, "--type", "Q8_0", "--seed", "13"), EPS | {"llama.rope.dimension_count": 48}),
    Case("q4_0_untied", ("--shape", "tiny", "--type", "Q4_0", "--head-type", "Q4_0", "--untied", "--seed", "14"), EPS),
    Case("f32_odd_sizes", (*GQA, "--hidden", "63", "--heads", "6", "--kv-heads", "3", "--head-dim", "14", "--ff", "95",
                           "--type", "F32", "--head-type", "F16", "--seed", "15"), EPS, LONG),
    Case("ternary_uniform_act_64", (*GQA, "--type", "TQ2_0", "--seed", "16"), EPS, act_block=64),
    Case("ternary_varied_act_32", (*GQA, "--type", "TQ1_0", "--scales", "varied", "--seed", "17"), EPS, act_block=32),
    Case("int6_head", (*GQA, "--hidden", "229", "--heads", "6", "--kv-heads", "3", "--head-dim", "14", "--ff", "95",
                       "--type", "F32", "--head-type", "F16", "--seed", "19"), EPS, int6_head=True),
    Case("q8_0_act_128", (*GQA, "--type", "Q8_0", "--seed", "18"), EPS, act_block=128),  # which has blocks of 32 as it is
    *arch_cases(),
)


class WrongRotary(reference.Reference):
    """Rotates the pairs of the other convention."""

    def rotate(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        right, self.config = self.config, dataclasses.replace(self.config, neox=not self.config.neox)
        out = super().rotate(x, positions)
        self.config = right
        return out


class NoMagnitude(reference.Reference):
    """Leaves out what a scaling multiplies rotations with."""

    def rotate(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        self.config = dataclasses.replace(self.config, magnitude=1.0)
        return super().rotate(x, positions)


class NoOptionalNorms(reference.Reference):
    """Forgets sub-norms and the norms of queries and keys."""

    def optional_norm(self, x: np.ndarray, layer: dict, name: str) -> np.ndarray:
        return x


class WrongGate(reference.Reference):
    """Takes one gate for the other."""

    def gate(self, x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x)) if self.config.relu2 else np.maximum(x, 0) ** 2


class NoBias(reference.Reference):
    """Forgets biases."""

    def project(self, x: np.ndarray, layer: dict, *names: str) -> list[np.ndarray]:
        return super().project(x, {n: layer[n] for n in names}, *names)


class WrongKvHead(reference.Reference):
    """Deals kv heads out in turn in place of groups."""

    def kv_head(self, head: int) -> int:
        return head % self.config.n_kv_heads


class WrongEps(reference.Reference):
    """Takes the common 1e-5 for what the file says."""

    def norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        self.config = dataclasses.replace(self.config, eps=1e-5)
        return super().norm(x, weight)


class LateQuery(reference.Reference):
    """Turns queries as if they stood one position later."""

    def attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return super().attend(self.rotate(q, np.ones(len(q))), k, v, mask)


class WrongBlock(reference.Reference):
    """Rounds activations with one scale per row where the weights ask for blocks, and the other way round."""

    def round(self, x: np.ndarray, block: int) -> np.ndarray:
        return super().round(x, reference.INT8_BLOCK if block == reference.ROW else reference.ROW)


class FloatCache(reference.Reference):
    """Keeps keys and values in float."""

    def round_cache(self, x: np.ndarray) -> np.ndarray:
        return x


class NoRounding(reference.Reference):
    """Keeps activations in float."""

    def round(self, x: np.ndarray, block: int) -> np.ndarray:
        return x


MISTAKES = (WrongRotary, WrongKvHead, WrongEps, LateQuery, WrongBlock, FloatCache, NoRounding, NoMagnitude, NoOptionalNorms, WrongGate, NoBias)


class Failure(Exception):
    """A claim of this test that does not hold."""


def require(claim: bool, message: str) -> None:
    if not claim:
        raise Failure(message)


def make_model(case: Case, folder: Path) -> Path:
    path = folder / f"{case.name}.gguf"
    subprocess.run([sys.executable, str(ROOT / "tools/make_model.py"), str(path), *case.options], check=True)
    reader = gguf.GGUFReader(path, "r+")
    for key, value in case.meta.items():
        field = reader.fields[key]
        field.parts[field.data[0]][0] = value
    reader.data.flush()
    return path


def unit_scale_errors(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Largest and root mean square difference over all positions, in units of the root mean square logit."""
    difference = (actual - expected) / np.sqrt(np.mean(expected**2))
    return float(np.abs(difference).max()), float(np.sqrt(np.mean(difference**2)))


def clear_token(model: reference.Reference, past: reference.Past | None, order: np.ndarray) -> int:
    """A token whose activations keep TIE_MARGIN from every rounding tie: the best of the first batch that has one."""
    for batch in np.array_split(order, -(-len(order) // CANDIDATES))[:TRIES]:
        model.forward(batch, past, alternatives=True)
        if model.tie_margin.max() >= TIE_MARGIN:
            return int(batch[model.tie_margin.argmax()])
    raise Failure(f"position {past.length if past else 0}: none of the tokens tried keeps clear of rounding ties; try another seed")


def choose_tokens(model: reference.Reference, positions: int, rng: np.random.Generator) -> tuple[list[int], np.ndarray, float]:
    """Tokens that stay clear of rounding ties, the logits after each, and the least margin met."""
    tokens, rows, past, least = [], [], None, 0.5
    while len(tokens) < positions:
        tokens.append(clear_token(model, past, rng.permutation(len(model.embd))))
        logits, past = model.forward(tokens[-1:], past)
        rows.append(logits[0])
        least = min(least, float(model.tie_margin[0]))
    return tokens, np.stack(rows), least


def one_by_one(session: ternlib.Session, tokens: list[int]) -> np.ndarray:
    rows = []
    for token in tokens:
        session.append([token])
        rows.append(session.logits())
    return np.stack(rows)


def in_one_call(session: ternlib.Session, tokens: list[int]) -> np.ndarray:
    """Logits after the last token, decoded in one call from an empty context."""
    session.reset()
    session.append(tokens)
    return session.logits()


def interleaved(model: ternlib.Model, sessions: list[ternlib.Session], tokens: list[list[int]]) -> list[np.ndarray]:
    """Logits of two sequences of one length decoded in one batch per position."""
    rows = []
    for pair in zip(*tokens):
        model.decode(sessions, pair)
        rows.append([s.logits() for s in sessions])
    return [np.stack(r) for r in zip(*rows)]


def check_ways_are_identical(model: ternlib.Model, tokens: list[int], other: list[int]) -> np.ndarray:
    """Every way of feeding the tokens gives the same bits; returns the logits."""
    sessions = [model.session(len(tokens)) for _ in range(4)]
    single, other_single = one_by_one(sessions[0], tokens), one_by_one(sessions[1], other)
    both = interleaved(model, sessions[2:], [tokens, other])
    require(np.array_equal(both[0], single) and np.array_equal(both[1], other_single), "two sessions in one batch differ from each alone")
    for n in (*range(1, POSITIONS + 1), len(tokens)):
        require(np.array_equal(in_one_call(sessions[0], tokens[:n]), single[n - 1]),
                f"a prompt of {n} tokens in one call differs from one token at a time")
    return single


def with_mistake(judge: reference.Reference, mistake: type[reference.Reference]) -> reference.Reference:
    """The same loaded model with one step replaced."""
    wrong = copy.copy(judge)
    wrong.__class__ = mistake
    return wrong


def matters(mistake: type[reference.Reference], judge: reference.Reference) -> bool:
    """Is there something in this model that the mistake gets wrong?"""
    c, names = judge.config, judge.layers[0].keys()
    return {WrongKvHead: c.n_kv_heads != c.n_heads, WrongEps: not math.isclose(c.eps, 1e-5, rel_tol=1e-3), NoMagnitude: c.magnitude != 1,
            NoOptionalNorms: bool({"attn_sub_norm", "attn_q_norm"} & names), NoBias: "attn_q.bias" in names}.get(mistake, True)


def check_sharpness(judge: reference.Reference, tokens: list[int], expected: np.ndarray) -> list[str]:
    """Each mistake must exceed the tolerance SHARPNESS-fold, unless it changes nothing in this model."""
    found = []
    for mistake in MISTAKES:
        if not matters(mistake, judge):
            continue
        error = np.quantile(rounding_flips.relative_error(with_mistake(judge, mistake).forward(tokens)[0], expected), 1 - SEEN)
        require(error > SHARPNESS * TOLERANCE, f"{mistake.__name__} moves logits by {error:.1e} only: the check would hardly see it")
        found.append(f"{mistake.__name__} {error:.1e}")
    return found


def check_flips_excuse_nothing(judge: reference.Reference, flipping: rounding_flips.Flipping, tokens: list[int]) -> None:
    """Rounding that is left out, which is as like a flip as a mistake can be, is not taken for some flips."""
    for mistake in (FloatCache, NoRounding):
        try:
            rounding_flips.follow(flipping, tokens, with_mistake(judge, mistake).forward(tokens)[0], TOLERANCE)
        except rounding_flips.Unexplained:
            continue
        raise Failure(f"{mistake.__name__} passes for flips at rounding ties")


def load(tern: ternlib.Tern, path: Path, form: str, case: Case) -> ternlib.Model:
    """With the head as the reference has it: small codes as in the file, all else in INT8, or in 6 bits."""
    model = tern.load(path, form, act_block=case.act_block)
    if (model.info.head == b"i6b32") == case.int6_head:
        return model
    require(not case.int6_head, f"the head is {model.info.head}, not of 6 bits")
    model.close()
    return tern.load(path, form, "int8", case.act_block)


def check_case(tern: ternlib.Tern, case: Case, folder: Path, seed: int) -> None:
    path = make_model(case, folder)
    judge = reference.Reference(str(path), quantized=True, dtype=np.float64, session=case.positions, act_block=case.act_block, int6_head=case.int6_head)
    tokens, expected, margin = choose_tokens(judge, case.positions, np.random.default_rng(seed))
    replay, _ = judge.forward(tokens)
    require(rounding_flips.relative_error(replay, expected).max() < 1e-9, "the reference disagrees with itself")
    single = reference.Reference(str(path), quantized=True, session=case.positions, act_block=case.act_block, int6_head=case.int6_head)
    noise = rounding_flips.relative_error(single.forward(tokens)[0], expected).max()
    mistakes = check_sharpness(judge, tokens, expected)
    flipping = with_mistake(judge, rounding_flips.Flipping)
    check_flips_excuse_nothing(judge, flipping, tokens)
    for form in ("lut", "mad") if "ternary" in case.name or "TQ" in case.name else ("auto",):
        model = load(tern, path, form, case)
        actual = check_ways_are_identical(model, tokens, tokens[::-1])
        model.close()
        followed = rounding_flips.follow(flipping, tokens, actual, TOLERANCE)
        error = rounding_flips.relative_error(actual, followed.logits)
        largest, rmse = unit_scale_errors(actual, followed.logits)
        print(f"{case.name}/{form}: L-inf {largest:.1e}, RMSE {rmse:.1e} at unit scale; error {error.max():.1e} (median {np.median(error):.1e}, NumPy float32 {noise:.1e}) at "
              f"{len(tokens)} positions, least tie margin {margin:.1e}{described(followed.flips)}", flush=True)
        require(np.median(error) <= TYPICAL, f"half of the positions are off by more than {np.median(error):.1e}")
        require(len(followed.flips) <= FLIPPED * len(tokens), f"{len(followed.flips)} positions need flips, more than {FLIPPED:.1%} of all")
        require(largest <= LARGEST and rmse <= RMSE, f"logits of unit scale are off by {largest:.1e} (RMSE {rmse:.1e}), position {int(error.argmax())} most")
    print(f"{case.name}: seen {', '.join(mistakes)}", flush=True)


def described(flips: dict[int, rounding_flips.Flips]) -> str:
    """Which value of which rounding of a position lay on the other side of its tie."""
    found = [f"position {position} rounding {value.site} element {value.element}" for position, values in flips.items() for value in values]
    return f"; flipped at a tie: {', '.join(found)}" if found else ""


def passes(tern: ternlib.Tern, case: Case, folder: Path, seed: int) -> bool:
    try:
        check_case(tern, case, folder, seed)
        return True
    except (Failure, rounding_flips.Unexplained, ternlib.TernError) as failure:
        print(f"{case.name}: FAILED: {failure} (seed {seed})", flush=True)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=ternlib.DEFAULT_LIBRARY, help="libtern.so (default: build/release)")
    parser.add_argument("--seed", type=int, default=20, help="of the token choice (default: 20)")
    parser.add_argument("--case", choices=[c.name for c in CASES], help="only this one")
    parser.add_argument("--part", nargs=2, type=int, metavar=("I", "N"), default=(0, 1), help="only every Nth case, from I on (default: all)")
    args = parser.parse_args()
    failures = 0
    tern = ternlib.Tern(args.library, threads=2)
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES[args.part[0]::args.part[1]]:
            if args.case in (None, case.name):
                failures += not passes(tern, case, Path(folder), args.seed)
    tern.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
