# SPDX-License-Identifier: MIT
"""The rows of tools/compare_engines.py: what is measured, how, and which bar stands for it."""
from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import engine_models as models
from engine_lab import Lab, NotMeasured, describe_settings, median_of

GIGA = 1e9
DECODE, PREFILL, PROMPT = 128, 512, 16
DECODING = {"do": "decode", "context": PROMPT, "tokens": DECODE}
WARM_UP = DECODING | {"tokens": 8}  # enough to bring the weights in, and far less than a run
PREFILL_2B_RUNS = 3  # of many seconds each
LARGE_DECODE = 16  # tokens of a run of the 8B shape
GREEDY = 16  # tokens by which engines are seen to do the same work
SAME_TEXT = "The Arctic tern is a bird that flies from the far north to the far south and back again each year. It is best known for"
SHORT_CONTEXT, LONG_CONTEXT, LONG_DECODE = 128, 4096, 32
SESSIONS, BATCH_STEPS = 8, 16
SHAPE_2B = {"layers": 30, "hidden": 2560, "ff": 6912, "kv": 640}
LATENCY_TOKENS, FIRST_TOKENS = 512, 9
HALF_BYTES = 2

ROOFLINE_BAR = 0.92
IK_DECODE_BAR = {1: 1.8, 2: 1.5}
IK_DECODE_GBPS = 46  # DRAM with two threads, from which two threads are held to the bar against ik
HEAD_BAR, PREFILL_2B_BAR, PREFILL_2B_STRETCH = 0.95, 1.35, 1.5
RSS_BAR = 1.35
SMOLLM2_DECODE_BAR, SMOLLM2_PREFILL_BAR, SMOLLM2_PREFILL_STRETCH = 2.5, 1.8, 2.5
SCREENED_TOPS, SCREENED_TOKENS = (1, 40), 1024
CONTEXT_BAR, BATCH_BAR, SCREENED_BAR = 0.8, 0.88, 0.6
START_SECONDS_BAR = 0.5
SAME_BAR = 0.98  # random weights carry each engine's rounding of activations far: 0.99 is seen, and 0 where a stage is another
FIRST_P50_BAR, NEXT_P95_BAR, NEXT_P99_BAR = 0.7, 0.3, 0.5

MET, NOT_MET, NOT_MEASURED, NOT_ASKED = "met", "NOT MET", "not measured", "not asked"


# ---- Figures and bars ---------------------------------------------------------------------------------------------------


def bar(text: str, figure: float | None, bound: float, show: str, at_least: bool = True, why: str = "") -> dict:
    """A bar with its verdict; `show` formats the figure, `why` tells what kept it from being measured."""
    if figure is None:
        return {"bar": text, "verdict": NOT_MEASURED, "why": why}
    met = figure >= bound if at_least else figure <= bound
    return {"bar": text, "verdict": MET if met else NOT_MET, "figure": figure, "shown": show.format(figure)}


def speed(answers: list[dict], tokens: int) -> dict:
    """Tokens per second."""
    runs = [tokens / answer["seconds"] for answer in answers]
    return {"median": statistics.median(runs), "runs": runs}


class Turns:
    """Tern and its peers at one kind of work. A peer that cannot run gives its reason; without Tern there is no row."""

    def __init__(self, lab: Lab, command: dict, threads: int):
        self.lab, self.command, self.threads, self.tokens = lab, command, threads, command["tokens"]
        self.workers, self.engines, self.answers = {}, {}, {}

    def add(self, engine: str, model: str) -> None:
        try:
            settings = self.lab.best_settings(engine, model, self.command)
        except NotMeasured as error:
            if engine == "tern":
                raise
            self.engines[engine] = {"not_measured": str(error)}
            return
        self.engines[engine] = {"file": model, "settings": describe_settings(settings), "use": settings}

    def run(self, runs: int | None = None, own_command: dict | None = None) -> dict[str, dict]:
        """All added engines in turn: {engine: its speed, or why there is none}. Tern may get a command that tells more of the same work."""
        lost = {}
        for name, engine in self.engines.items():
            if "file" in engine:
                try:
                    self.workers[name] = self.lab.worker(name, engine["file"], self.threads, settings=engine.pop("use"))
                except NotMeasured as error:
                    lost[name] = str(error)
        commands = {name: own_command if own_command and name == "tern" else self.command for name in self.workers}
        self.answers, ended = self.lab.alternate(self.workers, commands, WARM_UP, runs)
        self.engines |= {name: {"not_measured": why} for name, why in (lost | ended).items()}
        if "tern" not in self.answers:
            raise NotMeasured(self.engines["tern"]["not_measured"])
        for name, answers in self.answers.items():
            self.engines[name] |= speed(answers, self.tokens)
        return self.engines

    def ratio(self, peer: str) -> float | None:
        """How many times a peer's speed Tern's is."""
        other = self.engines.get(peer, {})
        return self.engines["tern"]["median"] / other["median"] if "median" in other else None

    def why(self, peer: str) -> str:
        return self.engines.get(peer, {}).get("not_measured", "")


def against(turns: Turns, peer: str, bound: float, stretch: float | None = None) -> list[dict]:
    bars = [bar(f">= {bound:g}x {peer}", turns.ratio(peer), bound, "{:.2f}x", why=turns.why(peer))]
    if stretch:
        bars.append(bar(f"stretch: >= {stretch:g}x {peer}", turns.ratio(peer), stretch, "{:.2f}x", why=turns.why(peer)) | {"stretch": True})
    return bars


def roofline(answers: list[dict], tokens: int, bytes_per_token: int) -> dict:
    """Decode beside the speed at which DRAM was read between its parts; the fraction is taken inside each run."""
    fractions = [tokens / a["seconds"] * bytes_per_token / a["bytes_per_second"] for a in answers]
    return {"dram_gbps": median_of(answers, "bytes_per_second") / GIGA, "bytes_per_token": bytes_per_token, "fraction": statistics.median(fractions),
            "fractions": fractions}


def roofline_bar(facts: dict) -> dict:
    return bar(f">= {ROOFLINE_BAR:.0%} of DRAM bandwidth / bytes per token", facts["fraction"], ROOFLINE_BAR,
               "{:.0%}" + f" of {facts['dram_gbps']:.1f} GB/s / {facts['bytes_per_token'] / GIGA:.3f} GB")


def same_results(lab: Lab, peer: str, model: str) -> dict:
    """How alike the results of Tern and a peer are on the same file: the proof that they do the same work."""
    threads = max(lab.threads)
    settings = lab.best_settings(peer, model, WARM_UP)
    tern, other = lab.worker("tern", model, threads), lab.worker(peer, model, threads, settings=settings)
    ids = tern.ask("tokenize", text=SAME_TEXT)["ids"]
    logits = [worker.ask("logits", ids=ids)["logits"] for worker in (tern, other)]
    chosen = [worker.ask("greedy", ids=ids, tokens=GREEDY)["ids"] for worker in (tern, other)]
    same = next((i for i, (a, b) in enumerate(zip(*chosen)) if a != b), GREEDY)
    return {"peer": peer, "file": model, "tokens": GREEDY, "same": same, "correlation": statistics.correlation(*logits)}


# ---- The rows -----------------------------------------------------------------------------------------------------------


def decode_2b(lab: Lab) -> Iterator[dict]:
    rows, dram = [], {}
    for threads in lab.threads:
        with lab.closing():
            turns = Turns(lab, DECODING, threads)
            for engine, model in (("tern", models.BITNET_2B), ("ik", models.BITNET_2B_IQ2), ("llama.cpp", models.BITNET_2B_TQ2)):
                turns.add(engine, model)
            engines = turns.run(own_command=DECODING | {"do": "roofline"})
            facts = roofline(turns.answers["tern"], DECODE, turns.workers["tern"].ask("info")["bytes_per_token"])
            dram[threads] = facts["dram_gbps"]
            rows.append((threads, turns, engines, facts))
    for threads, turns, engines, facts in rows:
        bars = [roofline_bar(facts)]
        if threads in IK_DECODE_BAR:
            versus = against(turns, "ik", IK_DECODE_BAR[threads])[0]
            if threads > 1 and versus["verdict"] == NOT_MET and dram[threads] < IK_DECODE_GBPS:
                versus["verdict"], versus["why"] = NOT_ASKED, f"DRAM gives {dram[threads]:.1f} GB/s, less than {IK_DECODE_GBPS}"
            bars.append(versus)
        yield {"case": f"BitNet-2B shape, decode {DECODE}", "threads": threads, "unit": "tok/s", "engines": engines, "facts": facts, "bars": bars}


def head(lab: Lab) -> Iterator[dict]:
    for threads in lab.threads:
        with lab.closing():
            turns = Turns(lab, DECODING, threads)
            turns.add("tern", models.HEAD)
            turns.add("ik", models.HEAD_Q6)
            engines = turns.run()
        for engine in engines.values():
            if "median" in engine:
                engine["runs"] = [1e3 / value for value in engine["runs"]]
                engine["median"] = statistics.median(engine["runs"])
        share = turns.ratio("ik")
        yield {"case": f"head 128256x2560 (a model with hardly anything else), {lab.own.get('head', 'default')} form, one token", "threads": threads, "unit": "ms", "engines": engines,
               "bars": [bar(f"<= {HEAD_BAR:g}x ik's Q6_K", share, HEAD_BAR, "{:.2f}x", at_least=False, why=turns.why("ik"))]}


def prefill_2b(lab: Lab) -> Iterator[dict]:
    for threads in lab.threads:
        with lab.closing():
            turns = Turns(lab, {"do": "prefill", "tokens": PREFILL}, threads)
            turns.add("tern", models.BITNET_2B)
            turns.add("ik", models.BITNET_2B_IQ2)
            engines = turns.run(runs=min(lab.runs, PREFILL_2B_RUNS))
        yield {"case": f"BitNet-2B shape, prefill {PREFILL}", "threads": threads, "unit": "tok/s", "engines": engines,
               "bars": against(turns, "ik", PREFILL_2B_BAR, PREFILL_2B_STRETCH)}


def kv_bytes(info: dict, context: int) -> int:
    return 2 * info["n_layers"] * info["n_kv_heads"] * info["head_dim"] * context * HALF_BYTES


def llama_8b(lab: Lab) -> Iterator[dict]:
    for threads in lab.threads:
        with lab.closing():
            context = 256
            tern = lab.worker("tern", models.LLAMA_8B, threads, context)
            tern.ask(**WARM_UP)
            info = tern.ask("info")  # before the probe takes memory of its own
            answers = [tern.ask(**DECODING | {"do": "roofline", "tokens": LARGE_DECODE}) for _ in range(lab.runs)]
        facts = roofline(answers, LARGE_DECODE, info["bytes_per_token"])
        needed = info["bytes_per_token"] + kv_bytes(info, context)
        facts |= {"peak_rss": info["peak_rss"], "needed_bytes": needed}
        text = "{:.2f}x: " + f"{info['peak_rss'] / GIGA:.2f} GB of {needed / GIGA:.2f} GB"
        yield {"case": f"Llama3-8B-1.58 shape, decode {LARGE_DECODE}", "threads": threads, "unit": "tok/s",
               "engines": {"tern": {"file": models.LLAMA_8B} | speed(answers, LARGE_DECODE)}, "facts": facts,
               "bars": [roofline_bar(facts), bar(f"peak RSS <= {RSS_BAR:g}x (packed + head + KV)", info["peak_rss"] / needed, RSS_BAR, text, at_least=False)]}


def decode_smollm2(lab: Lab) -> Iterator[dict]:
    for threads in lab.threads:
        with lab.closing():
            turns = Turns(lab, DECODING, threads)
            for engine in ("tern", "llama.cpp", "ik"):
                turns.add(engine, models.SMOLLM2)
            engines = turns.run()
        yield {"case": f"SmolLM2-135M Q4_1, decode {DECODE}", "threads": threads, "unit": "tok/s", "engines": engines,
               "bars": against(turns, "llama.cpp", SMOLLM2_DECODE_BAR)}


def prefill_smollm2(lab: Lab) -> Iterator[dict]:
    for threads in lab.threads:
        with lab.closing():
            turns = Turns(lab, {"do": "prefill", "tokens": PREFILL}, threads)
            for engine in ("tern", "ik", "llama.cpp"):
                turns.add(engine, models.SMOLLM2)
            engines = turns.run()
        yield {"case": f"SmolLM2-135M Q4_1, prefill {PREFILL}", "threads": threads, "unit": "tok/s", "engines": engines,
               "bars": against(turns, "ik", SMOLLM2_PREFILL_BAR, SMOLLM2_PREFILL_STRETCH)}


def long_context(lab: Lab) -> Iterator[dict]:
    threads = max(lab.threads)
    # The tokens up to that context: it is all that the model has.
    kept = {context: {"do": "kept", "context": context - LONG_DECODE, "tokens": LONG_DECODE} for context in (SHORT_CONTEXT, LONG_CONTEXT)}
    text = f">= {CONTEXT_BAR:g} of the speed at context {SHORT_CONTEXT}"
    for kv in ("int8", "f16"):
        row = {"case": f"BitNet-2B shape, decode at context {LONG_CONTEXT}, {kv} KV", "threads": threads, "unit": "tok/s"}
        try:
            with lab.closing():
                tern = lab.worker("tern", models.BITNET_2B, threads, settings={"kv": kv})
                for command in kept.values():
                    tern.ask(**command)
                runs = [{context: tern.ask(**command) for context, command in kept.items()} for _ in range(lab.runs)]
        except NotMeasured as error:
            yield row | {"engines": {}, "bars": [bar(text, None, CONTEXT_BAR, "", why=str(error))]}
            continue
        speeds = {context: speed([run[context] for run in runs], LONG_DECODE) for context in kept}
        share = speeds[LONG_CONTEXT]["median"] / speeds[SHORT_CONTEXT]["median"]
        yield row | {"engines": {f"tern, context {context}": {"file": models.BITNET_2B} | s for context, s in speeds.items()},
                     "facts": {"fraction": share}, "bars": [bar(text, share, CONTEXT_BAR, "{:.2f}")] if kv == "int8" else []}


def layer_matrices(layers: int, hidden: int, ff: int, kv: int) -> list[list[int]]:
    """(n, k) of every ternary matrix of a model."""
    return [[hidden, hidden], [kv, hidden], [kv, hidden], [hidden, hidden], [ff, hidden], [ff, hidden], [hidden, ff]] * layers


def batch(lab: Lab) -> Iterator[dict]:
    command = {"do": "batch", "sessions": SESSIONS, "context": PROMPT, "tokens": BATCH_STEPS}
    products = {"do": "products", "m": SESSIONS, "matrices": layer_matrices(**SHAPE_2B)}
    for threads in lab.threads:
        with lab.closing():
            tern, head_alone = lab.worker("tern", models.BITNET_2B, threads), lab.worker("tern", models.HEAD, threads)
            asked = [(tern, command), (tern, products), (head_alone, command)]
            for worker, what in asked:
                worker.ask(**what)
            rounds = [[worker.ask(**what)["seconds"] for worker, what in asked] for _ in range(lab.runs)]
        fractions = [(layers + head / BATCH_STEPS) / (steps / BATCH_STEPS) for steps, layers, head in rounds]
        figure = speed([{"seconds": steps} for steps, _, _ in rounds], SESSIONS * BATCH_STEPS)
        limit = statistics.median(SESSIONS / (layers + head / BATCH_STEPS) for _, layers, head in rounds)
        fraction = statistics.median(fractions)
        yield {"case": f"BitNet-2B shape, batched decode, {SESSIONS} sessions", "threads": threads, "unit": "tok/s",
               "engines": {"tern": {"file": models.BITNET_2B} | figure}, "facts": {"products_tok_per_s": limit, "fraction": fraction, "fractions": fractions},
               "bars": [bar(f">= {BATCH_BAR:.0%} of {SESSIONS} tokens / time of the M = {SESSIONS} products", fraction, BATCH_BAR,
                            "{:.0%}" + f" of {limit:.1f} tok/s")]}


def screened(lab: Lab) -> Iterator[dict]:
    threads, text = max(lab.threads), (Path(__file__).parent / "data/prose.txt").read_text(encoding="utf-8")
    for top in SCREENED_TOPS:
        with lab.closing():
            screen = lab.worker("tern", models.SMOLLM2, threads, settings={"head": "screened"})
            ids = screen.ask("tokenize", text=text)["ids"][:SCREENED_TOKENS]
            given = screen.ask("forced", ids=ids, top=top)
            plain = lab.worker("tern", models.SMOLLM2, threads, settings={"head": "int8"}).ask("forced", ids=ids, top=top)
        share = given["bytes"] / given["int8_bytes"]
        same = sum(a == b for a, b in zip(given["best"], plain["best"])) / len(ids)
        bars = [bar(f"<= {SCREENED_BAR:g} of the INT8 head's bytes", share, SCREENED_BAR, "{:.3f}", at_least=False)] if top == 1 else []
        yield {"case": f"screened head on SmolLM2's real hidden states, {len(ids)} tokens of prose, the {top} largest logits", "threads": threads,
               "unit": "of the INT8 head's bytes", "engines": {"tern": {"file": models.SMOLLM2, "median": share, "runs": [share]}},
               "facts": {key: given[key] for key in ("tokens", "rows", "paused")} | {"same_tokens": same},
               "bars": [*bars, bar("the same tokens as with the INT8 head", same, 1, "{:.1%}")]}


def first_output(command: list[str]) -> float:
    """Seconds from the start of a process to its first byte on stdout, or to its end if there is none."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        seconds = time.perf_counter() - start
        _, message = process.communicate()
    if process.returncode != 0:
        raise NotMeasured(message.decode(errors="replace").strip().splitlines()[-1])
    return seconds


def start(lab: Lab) -> Iterator[dict]:
    threads = max(lab.threads)
    try:
        packed = lab.models.remade(models.BITNET_2B_PACKED)
    except models.NotMade as error:
        raise NotMeasured(str(error)) from error
    with lab.closing():
        text = lab.worker("tern", models.BITNET_2B, threads).ask("text", tokens=PROMPT)["text"]
    command = [str(lab.tern), "generate", "-m", str(packed), "-p", text, "-n", "1", "-t", str(threads)]
    first_output(command)  # brings the file into the page cache
    runs = [first_output(command) for _ in range(lab.runs)]
    yield {"case": f"first token after the start of a process, packed 2B model in the page cache, {PROMPT}-token prompt", "threads": threads, "unit": "s",
           "engines": {"tern": {"file": models.BITNET_2B_PACKED, "median": statistics.median(runs), "runs": runs}},
           "bars": [bar(f"<= {START_SECONDS_BAR:g} s", statistics.median(runs), START_SECONDS_BAR, "{:.2f} s", at_least=False)]}


def latency(lab: Lab) -> Iterator[dict]:
    threads = max(lab.threads)
    with lab.closing():
        tern = lab.worker("tern", models.BITNET_2B, threads, context=PROMPT + LATENCY_TOKENS + 1)
        tern.ask(**WARM_UP)
        firsts = [tern.ask("latency", prompt=PROMPT, tokens=1)["first"] for _ in range(FIRST_TOKENS)]
        nexts = tern.ask("latency", prompt=PROMPT, tokens=LATENCY_TOKENS + 1)["next"]
    cuts = statistics.quantiles(nexts, n=100)
    first = statistics.median(firsts)
    yield {"case": f"latency on the BitNet-2B shape, {PROMPT}-token prompt, {LATENCY_TOKENS} tokens", "threads": threads, "unit": "ms",
           "engines": {"tern, first token": {"file": models.BITNET_2B, "median": 1e3 * first, "runs": [1e3 * t for t in firsts]},
                       "tern, next token": {"file": models.BITNET_2B, "median": 1e3 * cuts[49], "runs": [1e3 * min(nexts), 1e3 * max(nexts)]}},
           "bars": [bar(f"first token P50 < {1e3 * FIRST_P50_BAR:g} ms", first, FIRST_P50_BAR, f"{1e3 * first:.0f} ms", at_least=False),
                    bar(f"next token P95 < {1e3 * NEXT_P95_BAR:g} ms", cuts[94], NEXT_P95_BAR, f"{1e3 * cuts[94]:.0f} ms", at_least=False),
                    bar(f"next token P99 < {1e3 * NEXT_P99_BAR:g} ms", cuts[98], NEXT_P99_BAR, f"{1e3 * cuts[98]:.0f} ms", at_least=False)]}


def same_work(lab: Lab) -> Iterator[dict]:
    """Not a speed: whether the engines do the same work."""
    text = f"logits correlate >= {SAME_BAR:g}"
    for peer, model in (("ik", models.BITNET_2B_IQ2), ("llama.cpp", models.BITNET_2B_TQ2), ("ik", models.SMOLLM2), ("llama.cpp", models.SMOLLM2)):
        row = {"case": f"the same results as {peer}'s on {model}", "threads": max(lab.threads), "unit": "", "engines": {}}
        try:
            with lab.closing():
                facts = same_results(lab, peer, model)
            show = "{:.4f}, and " + f"{facts['same']} of {GREEDY} greedy tokens before the first other one"
            yield row | {"facts": facts, "bars": [bar(text, facts["correlation"], SAME_BAR, show)]}
        except NotMeasured as error:
            yield row | {"bars": [bar(text, None, SAME_BAR, "", why=str(error))]}


@dataclass(frozen=True)
class Row:
    measure: Callable[[Lab], Iterator[dict]]
    title: str
    seconds: float  # about, with five runs, two thread counts and models at hand
    peers: tuple[str, ...] = ()  # that it asks for, or for a file that only they make


BOTH = ("llama.cpp", "ik")
ROWS = {
    "decode-2b": Row(decode_2b, "BitNet-2B shape, decode", 420, BOTH),
    "head": Row(head, "head 128256x2560", 60, ("ik",)),
    "prefill-2b": Row(prefill_2b, "BitNet-2B shape, prefill", 150, ("ik",)),
    "llama-8b": Row(llama_8b, "Llama3-8B-1.58 shape, decode and memory", 60),
    "decode-smollm2": Row(decode_smollm2, "SmolLM2, decode", 60, BOTH),
    "prefill-smollm2": Row(prefill_smollm2, "SmolLM2, prefill", 90, BOTH),
    "context": Row(long_context, "decode at context 4096", 120),
    "batch": Row(batch, "batched decode", 60),
    "screened": Row(screened, "screened head on SmolLM2's real hidden states", 1),
    "start": Row(start, "first token of a packed model", 15),
    "latency": Row(latency, "latency", 40),
    "same-work": Row(same_work, "the same results", 60, BOTH),
}
