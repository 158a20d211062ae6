# SPDX-License-Identifier: MIT
"""Commands of minutes, such as builds of peers: their output goes to a log, and how far they are is said now and then."""
from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SAY_EVERY_SECONDS = 30
TAIL_BYTES = 4096  # of the log, in which Ninja's last count is looked for
TAIL_LINES = 3  # of a log, in an error


class CommandFailed(Exception):
    """What a command said last, and where the rest of it is."""


def steps_done(log: Path) -> str:
    """As Ninja counts them, or nothing before it runs."""
    with open(log, "rb") as file:
        file.seek(max(log.stat().st_size - TAIL_BYTES, 0))
        counts = re.findall(rb"\[(\d+)/(\d+)\]", file.read())
    return f", step {int(counts[-1][0])} of {int(counts[-1][1])}" if counts else ""


def last_words(log: Path) -> str:
    """Its errors if it names any, else its end."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(([line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)] or lines)[-TAIL_LINES:])


@dataclass
class Job:
    """Commands that make one thing, with one log, which begins anew."""
    what: str
    log: Path
    say: Callable[[str], None]

    def __post_init__(self):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")

    def run(self, command: list[str], environment: dict | None = None) -> None:
        """Raises CommandFailed, or OSError where there is no such program."""
        begun = said = time.monotonic()
        with open(self.log, "ab") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT) as process:
            while (code := wait(process)) is None:
                if time.monotonic() - said >= SAY_EVERY_SECONDS:
                    said = time.monotonic()
                    self.say(f"{self.what}: {(said - begun) / 60:.1f} min{steps_done(self.log)}")
        if code != 0:
            raise CommandFailed(f"{self.what} failed: {last_words(self.log) or f'{command[0]} ended with {code}'} (all of its output: {self.log})")


def wait(process: subprocess.Popen) -> int | None:
    """The exit code, or None after a second."""
    try:
        return process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return None
