# SPDX-License-Identifier: MIT
"""Engines as processes, and taking turns between them: what the rows of tools/compare_rows.py are measured with."""
from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine_models import Models, NotMade
from engine_peers import Peers

TOOLS = Path(__file__).resolve().parent
SETTLE_SECONDS = 0.05  # between two engines: the spinning threads of the last one go to sleep
CONTEXT = 512
TRIAL_RUNS, TRIAL_TOKENS = 3, {"decode": 16, "prefill": 256}

# What a peer may be better with; which, each model and kind of work tells (Lab.best_settings). "mapped" reads weights out of the page
# cache; else they are copied into huge pages. "repack" lets ik_llama.cpp rearrange rows when it loads (llama.cpp always does).
SETTINGS = {
    "tern": [{}],
    "llama.cpp": [{"flash": flash, "mapped": mapped} for flash in (False, True) for mapped in (False, True)],
    "ik": [{"flash": flash, "repack": repack, "mapped": False} for flash in (False, True) for repack in (False, True)],
}
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # llama.cpp asks for none itself


class NotMeasured(Exception):
    """Why a figure is missing."""


class Worker:
    """An engine in its own process."""

    def __init__(self, python: str, engine: str, wanted: dict):
        self.engine, self.messages = engine, tempfile.TemporaryFile("w+", errors="replace")  # a pipe that nobody reads would fill
        self.process = subprocess.Popen([python, str(TOOLS / "engine_worker.py"), json.dumps({"engine": engine} | wanted)], env=os.environ | HUGE_PAGES,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.messages, text=True)
        self.about = self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.messages.seek(0)
            reason = self.messages.read().strip().splitlines()
            raise NotMeasured(f"{self.engine} stopped: {reason[-1] if reason else f'exit code {code}'}")
        return json.loads(line)

    def ask(self, do: str, **how) -> dict:
        try:
            self.process.stdin.write(json.dumps({"do": do} | how) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise NotMeasured(f"{self.engine} has stopped") from error
        return self.read()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError), self.messages, self.process:  # closes the pipes, and waits
            pass


@dataclass
class Lab:
    """Everything a row needs. Workers live as long as the row that asked for them first."""
    models: Models
    peers: Peers
    library: Path
    tern: Path
    threads: list[int]
    runs: int
    say: Callable[[str], None]
    own: dict = field(default_factory=dict)  # what Tern is told to use, in all rows: kernel, head
    workers: dict[str, Worker] = field(default_factory=dict)
    about: dict[str, dict] = field(default_factory=dict)  # each engine's own description
    chosen: dict[tuple, dict] = field(default_factory=dict)  # settings by engine, model and kind of work

    def worker(self, engine: str, model: str, threads: int, context: int = CONTEXT, settings: dict | None = None) -> Worker:
        if engine in self.peers.missing:
            raise NotMeasured(self.peers.missing[engine])
        try:
            path = self.models[model]
        except (NotMade, OSError) as error:
            raise NotMeasured(str(error)) from error
        native = self.peers.native.get(engine)
        settings = (self.own if engine == "tern" else {}) | (settings or {})
        wanted = {"model": str(path), "threads": threads, "context": context, "library": native or str(self.library), "settings": settings}
        key = engine + json.dumps(wanted)
        if key not in self.workers:
            self.workers[key] = Worker(sys.executable, "native", wanted) if native else Worker(self.peers.pythons[engine], engine, wanted)
            self.about[engine] = self.workers[key].about
        return self.workers[key]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.close()

    def best_settings(self, engine: str, model: str, work: dict) -> dict:
        """Those with which a peer is fastest, found by trying all of them once, with all threads."""
        key = (engine, model, work["do"])
        if key not in self.chosen:
            times, reasons = [], []
            for settings in SETTINGS[engine] if len(SETTINGS[engine]) > 1 else []:
                try:
                    worker = self.worker(engine, model, max(self.threads), settings=settings)
                    times.append((min(worker.ask(**work | {"tokens": TRIAL_TOKENS[work["do"]]})["seconds"] for _ in range(TRIAL_RUNS)), settings))
                except NotMeasured as error:  # an assertion of the peer, for instance: not with these settings
                    reasons.append(str(error))
                finally:
                    self.close()
            if reasons and not times:
                raise NotMeasured(reasons[0])
            self.chosen[key] = min(times, key=lambda t: t[0])[1] if times else SETTINGS[engine][0]
            if times:
                self.say(f"{engine}, {model}, {work['do']}: fastest with {describe_settings(self.chosen[key])}")
        return self.chosen[key]

    def alternate(self, workers: dict[str, Worker], commands: dict[str, dict], warm_up: dict, runs: int | None = None) -> tuple[dict, dict]:
        """What each worker answers to its command, from runs in turn after a first piece of work that is not counted; and why some ended."""
        answers, lost = {name: [] for name in workers}, {}

        def ask(name: str, command: dict) -> dict | None:
            try:
                return workers[name].ask(**command) if name not in lost else None
            except NotMeasured as error:
                lost[name] = str(error)
                return None

        for name in workers:
            ask(name, warm_up)
        for run in range(runs or self.runs):
            names = list(workers)
            for name in names[run % len(names):] + names[:run % len(names)] if names else []:  # nobody is always after the same one
                time.sleep(SETTLE_SECONDS)
                answers[name].append(ask(name, commands[name]))
        return {name: given for name, given in answers.items() if name not in lost}, lost


def describe_settings(settings: dict) -> str:
    words = {"flash": ("flash attention", "no flash attention"), "repack": ("rows repacked", "rows as in the file"),
             "mapped": ("weights in the page cache", "weights in huge pages"), "kv": None, "kernel": None, "head": None}
    return ", ".join(f"{key} {value}" if words[key] is None else words[key][not value] for key, value in settings.items())


def median_of(answers: list[dict], key: str = "seconds") -> float:
    return statistics.median(answer[key] for answer in answers)
