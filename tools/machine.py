# SPDX-License-Identifier: MIT
"""What the measuring tools tell about the machine that they run on."""
from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

BUSY_LOAD = 0.5  # load average per CPU from which other work is likely to disturb the figures


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {len(os.sched_getaffinity(0))} CPUs"


def busy_warning(load: float) -> str:
    """What to say before measuring, if anything."""
    if load <= BUSY_LOAD * len(os.sched_getaffinity(0)):
        return ""
    return (f"warning: the load average is {load:.1f}: other programs are running, and figures taken now are not fair "
            "to all (one that spins at barriers loses most)")


def compiler_version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def command_line(tool: str, arguments: list[str]) -> str:
    """As it was given, but for the folders of programs and sources, which are nobody else's."""
    return " ".join([f"tools/{tool}"] + [Path(a).name if "/" in a else a for a in arguments])


def describe(tool: str, arguments: list[str]) -> dict:
    return {"cpu": cpu_model(), "kernel": platform.release(), "date": time.strftime("%Y-%m-%d"), "compiler": compiler_version("cc"),
            "load_before": os.getloadavg()[0], "command": command_line(tool, arguments)}
