# SPDX-License-Identifier: MIT
"""Finds or installs the engines that tools/compare_engines.py times beside Tern, each in a Python of its own under build/."""
from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import kernel_peers
from machine import compiler_version

BUILD = Path(__file__).resolve().parent.parent / "build"
LLAMA_CPP_FLAGS = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
                   "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DBUILD_SHARED_LIBS=ON"]
TAIL_LINES = 3  # of a log that failed


class NotInstalled(Exception):
    """Why a peer cannot run."""


@dataclass(frozen=True)
class Package:
    engine: str
    module: str
    requirement: str
    folder: str  # of its venv, under build/
    from_source: bool
    cmake_flags: str
    time: str


PACKAGES = [
    Package("llama.cpp", "llama_cpp", "llama-cpp-python==0.3.36", "peers-venv", True, "-DGGML_NATIVE=ON", "about 5 minutes"),
    Package("ik", "ik_llama_cpp", "ik-llama-cpp-python==0.1.5", "peers-ik-venv", False, "", "some seconds"),
]


def install(package: Package, say: Callable[[str], None]) -> str:
    """The Python of a venv that holds the package; made on the first call."""
    folder = BUILD / package.folder
    python, stamp, log = folder / "bin/python3", folder / "tern.stamp", folder.with_suffix(".log")
    want = f"{package.requirement} {package.cmake_flags}\n"
    if stamp.exists() and stamp.read_text() == want:
        return str(python)
    say(f"installing {package.requirement} in {folder}: {package.time}, once (output: {log})")
    venv.create(folder, clear=True, with_pip=True)
    name = package.requirement.split("=")[0]
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir"]
    command += ["--no-binary", name] if package.from_source else ["--only-binary", name]
    with open(log, "wb") as output:
        done = subprocess.run([*command, package.requirement], env=os.environ | {"CMAKE_ARGS": package.cmake_flags}, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        tail = log.read_text(errors="replace").strip().splitlines()[-TAIL_LINES:]
        raise NotInstalled(f"{package.requirement} could not be installed (all of the output: {log}): {' | '.join(tail)}")
    stamp.write_text(want)
    return str(python)


def is_ik(source: Path) -> bool:
    return (source / "ggml/src/iqk").exists()


def build_native(source: Path) -> tuple[str, str]:
    """The shared library with tools/peers/llama.c and how it was built, for this CPU; built on the first call."""
    source = source.resolve()
    if not (source / "include/llama.h").exists():
        raise kernel_peers.NotBuilt(f"--peer-source {source.name} has no include/llama.h")
    kernel_peers.BUILD.mkdir(parents=True, exist_ok=True)
    if is_ik(source):
        build, log, flags = kernel_peers.BUILD / "ik_llama.cpp", kernel_peers.BUILD / "ik_llama.cpp.log", kernel_peers.build_ik(source).flags
    else:
        build, log = kernel_peers.BUILD / "llama.cpp", kernel_peers.BUILD / "llama.cpp.log"
        flags = f"llama.cpp {kernel_peers.commit_of(source)}, {' '.join(LLAMA_CPP_FLAGS[:2])}, {compiler_version('c++')}"
        kernel_peers.shell(["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja", *LLAMA_CPP_FLAGS], log)
    kernel_peers.shell(["cmake", "--build", str(build), "--target", "llama"], log)
    folder = next(build.rglob("libllama.so")).parent
    library = build / "libpeer_llama.so"
    define = ["-DPEER_IK"] if is_ik(source) else []
    kernel_peers.shell(["gcc", *kernel_peers.NATIVE_FLAGS, *define, f"-I{source / 'include'}", f"-I{source / 'ggml/include'}", str(kernel_peers.HERE / "llama.c"),
                        "-o", str(library), f"-L{folder}", "-lllama", f"-Wl,-rpath,{folder}"], log)
    return str(library), flags


@dataclass
class Peers:
    pythons: dict[str, str] = field(default_factory=dict)  # of the engines that can run, Tern's among them
    missing: dict[str, str] = field(default_factory=dict)  # why the others cannot
    flags: dict[str, str] = field(default_factory=dict)    # how each was built
    native: dict[str, str] = field(default_factory=dict)   # libraries that run in place of a Python's


def find(given: list[str], sources: list[Path], wanted: bool, say: Callable[[str], None]) -> Peers:
    peers = Peers({"tern": sys.executable})
    for package in PACKAGES:
        if not wanted:
            peers.missing[package.engine] = "--no-peers was given"
            continue
        ready = [python for python in given if kernel_peers.package_folder(python, package.module)]
        try:
            python = ready[0] if ready else install(package, say)
        except (NotInstalled, OSError, subprocess.CalledProcessError) as error:
            peers.missing[package.engine] = str(error)
            continue
        peers.pythons[package.engine] = python
        version = kernel_peers.package_version(python, package.requirement.split("=")[0])
        built = "built elsewhere (flags unknown)" if ready else f"CMAKE_ARGS={package.cmake_flags}" if package.from_source else "wheel of its package (flags unknown)"
        peers.flags[package.engine] = f"{package.requirement.split('=')[0]} {version}, {built}"
    for source in sources:
        engine = "ik" if is_ik(source) else "llama.cpp"
        try:
            say(f"building {source.name}: some minutes, the first time")
            peers.native[engine], peers.flags[engine] = build_native(source)
            peers.missing.pop(engine, None)
        except (kernel_peers.NotBuilt, OSError, StopIteration) as error:
            peers.missing[engine] = str(error) or "the build made no libllama.so"
    return peers
