# SPDX-License-Identifier: MIT
"""One engine with a loaded model in a process of its own, timed on command; started by tools/compare_engines.py.

The argument is a JSON object: engine, model, threads, context, library, settings. One JSON object per line of stdin is answered with
one on stdout; the first line written describes the engine (what a peer itself prints goes to stderr). All engines get the same token ids through their C API, so that no Python
work but one call per step is timed; a token is fed when the logits of the one before are there.
  {"do": "prefill", "tokens": n}               -> {"seconds"}: n tokens in one go, in an empty context
  {"do": "decode", "context": c, "tokens": n}  -> {"seconds"}: n tokens one by one, after c that are not timed
  {"do": "greedy", "ids": [...], "tokens": n}  -> {"ids"}: what the engine itself goes on with after these, not timed
  {"do": "logits", "ids": [...]}               -> {"logits"} after these
Tern alone:
  {"do": "roofline", "context": c, "tokens": n} -> {"seconds", "bytes_per_second"}: decode, with sweeps through DRAM between its parts
  {"do": "kept", "context": c, "tokens": n}     -> {"seconds"}: decode after c tokens that are computed once and kept
  {"do": "latency", "prompt": p, "tokens": n}   -> {"first", "next"}: seconds until each of n tokens, the engine's own
  {"do": "batch", "sessions": s, "context": c, "tokens": n} -> {"seconds"}: n steps, each of one token for each session
  {"do": "products", "m": m, "matrices": [[n, k], ...]} -> {"seconds"}: a turn through such ternary matrices, from ready activations
  {"do": "forced", "ids": [...], "top": k}      -> {"best": likeliest id after each, "seconds"} and of a screened head {"tokens", "rows", "bytes", "int8_bytes"}
  {"do": "tokenize", "text": t}                 -> {"ids"}
  {"do": "text", "tokens": n}                   -> {"text"}: one of n tokens
  {"do": "info"}                                -> {"bytes_per_token", "peak_rss", ...}
"""
import json
import os
import sys
import time

from engine_tokens import feed_singly, tokens


def create(kind: str, wanted: dict):
    if kind == "tern":
        from engine_tern import TernEngine  # needs NumPy, which a peer's Python may not have
        return TernEngine(**wanted)
    from engine_llama import IkEngine, LlamaCppEngine, NativeEngine
    return {"llama.cpp": LlamaCppEngine, "ik": IkEngine, "native": NativeEngine}[kind](**wanted)


def prefill(engine, n: int) -> dict:
    engine.clear()
    ids = tokens(n)
    start = time.perf_counter()
    engine.feed(ids)
    return {"seconds": time.perf_counter() - start}


def decode(engine, context: int, n: int) -> dict:
    engine.clear()
    engine.feed(tokens(context))
    return {"seconds": feed_singly(engine, tokens(n, context))}


def greedy(engine, given: list[int], n: int) -> dict:
    engine.clear()
    engine.feed(given)
    ids = [engine.best()]
    while len(ids) < n:
        engine.feed(ids[-1:])
        ids.append(engine.best())
    return {"ids": ids}


def logits(engine, given: list[int]) -> dict:
    engine.clear()
    engine.feed(given)
    return {"logits": engine.all_logits()}


def answer(engine, do: str, **how) -> dict:
    n = how.pop("tokens", 0)
    if do == "prefill":
        return prefill(engine, n)
    if do == "decode":
        return decode(engine, how["context"], n)
    if do == "greedy":
        return greedy(engine, how["ids"], n)
    if do == "logits":
        return logits(engine, how["ids"])
    if do == "latency":
        return engine.latency(how["prompt"], n)
    if do == "roofline":
        return engine.roofline(how["context"], n)
    if do == "kept":
        return engine.kept(how["context"], n)
    if do == "batch":
        return engine.batch(how["sessions"], how["context"], n)
    if do == "forced":
        return engine.forced(how["ids"], how["top"])
    if do == "tokenize":
        return {"ids": engine.model.tokenize(how["text"])}
    if do == "text":
        return engine.text(n)
    return engine.products(**how) if do == "products" else engine.info()


def own_stdout():
    """This process's stdout for answers alone: ik_llama.cpp prints lines there that no log callback gets."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def main() -> None:
    wanted, answers = json.loads(sys.argv[1]), own_stdout()
    engine = create(wanted.pop("engine"), wanted)
    print(json.dumps(engine.about), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(engine, **json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
