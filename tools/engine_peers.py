# SPDX-License-Identifier: MIT
"""Finds or installs the engines that tools/compare_engines.py times beside Tern, each in a Python of its own under build/."""
from __future__ import annotations

import os
import shlex
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import kernel_peers
from long_command import CommandFailed, Job
from machine import compiler_version

BUILD = Path(__file__).resolve().parent.parent / "build"
LLAMA_CPP_OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
                   "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DBUILD_SHARED_LIBS=ON"]


class NotInstalled(Exception):
    """Why a peer cannot run."""


@dataclass(frozen=True)
class Package:
    engine: str
    module: str
    requirement: str
    folder: str  # of its venv, under build/
    from_source: bool
    cmake_options: list[str]
    time: str


# Only what is called is built: libllama and ggml's CPU backend, 83 steps in place of 193.
ALONE = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAVA_BUILD=OFF", f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={kernel_peers.HERE / 'llama_alone.cmake'}"]
PACKAGES = [
    Package("llama.cpp", "llama_cpp", "llama-cpp-python==0.3.36", "peers-venv", True, ALONE, "up to some 20 minutes"),
    Package("ik", "ik_llama_cpp", "ik-llama-cpp-python==0.1.5", "peers-ik-venv", False, [], "some seconds"),
]


def install(package: Package, say: Callable[[str], None]) -> str:
    """The Python of a venv that holds the package; made on the first call."""
    folder = BUILD / package.folder
    python, stamp, log = folder / "bin/python3", folder / "tern.stamp", folder.with_suffix(".log")
    options = shlex.join(package.cmake_options)
    want = f"{package.requirement} {options}\n"
    if stamp.exists() and stamp.read_text() == want:
        return str(python)
    name = package.requirement.split("=")[0]
    job = Job(f"installing {name}", log, say)
    say(f"{job.what} in {folder}: {package.time}, once (output: {log})")
    try:
        venv.create(folder, clear=True, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"no venv could be made in {folder}: install python3-venv") from error
    command = [str(python), "-m", "pip", "install", "--verbose", "--disable-pip-version-check", "--no-cache-dir"]
    command += ["--no-binary", name] if package.from_source else ["--only-binary", name]
    job.run([*command, package.requirement], os.environ | {"CMAKE_ARGS": options})
    stamp.write_text(want)
    return str(python)


def flags_of(package: Package, python: str, ours: bool) -> str:
    """How it was built, as far as that can be known."""
    name = package.requirement.split("=")[0]
    known = f"{name} {kernel_peers.package_version(python, name)}"
    if ours and package.from_source:
        return f"{known}, CMAKE_ARGS={shlex.join(package.cmake_options).replace(f'{BUILD.parent}/', '')}, {compiler_version('c++')}"
    folder = kernel_peers.package_folder(python, package.module)
    return f"{known}, {'wheel of its package' if ours else 'built elsewhere'}, {kernel_peers.compiled_by(sorted((folder / 'lib').glob('libggml*.so')))}"


def is_ik(source: Path) -> bool:
    return (source / "ggml/src/iqk").exists()


def build_native(source: Path, say: Callable[[str], None]) -> tuple[str, str]:
    """The shared library with tools/peers/llama.c and how it was built, for this CPU; built on the first call."""
    source = source.resolve()
    if not (source / "include/llama.h").exists():
        raise NotInstalled(f"--peer-source {source.name} has no include/llama.h")
    if is_ik(source):
        build, flags = kernel_peers.build_ik(source, "llama", say)
    else:
        build = kernel_peers.BUILD / "llama.cpp"
        kernel_peers.build_cmake(source, build, LLAMA_CPP_OPTIONS, "llama", Job("building llama.cpp", kernel_peers.BUILD / "llama.cpp.log", say))
        flags = f"llama.cpp {kernel_peers.commit_of(source)}, {' '.join(LLAMA_CPP_OPTIONS[:2])}, {compiler_version('c++')}"
    libraries = list(build.rglob("libllama.so"))
    if not libraries:
        raise NotInstalled(f"the build in {build} made no libllama.so")
    library, folder = build / "libpeer_llama.so", libraries[0].parent
    define = ["-DPEER_IK"] if is_ik(source) else []
    Job("compiling what calls libllama.so", build / "peer_llama.log", say).run(
        ["gcc", *kernel_peers.NATIVE_FLAGS, *define, f"-I{source / 'include'}", f"-I{source / 'ggml/include'}", str(kernel_peers.HERE / "llama.c"),
         "-o", str(library), f"-L{folder}", "-lllama", f"-Wl,-rpath,{folder}"])
    return str(library), flags


@dataclass
class Peers:
    pythons: dict[str, str] = field(default_factory=dict)  # of the engines that can run, Tern's among them
    missing: dict[str, str] = field(default_factory=dict)  # why the others cannot
    flags: dict[str, str] = field(default_factory=dict)    # how each was built
    native: dict[str, str] = field(default_factory=dict)   # libraries that run in place of a Python's


def find(given: list[str], sources: list[Path], wanted: set[str], why_not: str, say: Callable[[str], None]) -> Peers:
    """The wanted engines, installed or built where they have to be. The others are missing, and why_not is the reason."""
    peers = Peers({"tern": sys.executable})
    for package in PACKAGES:
        if package.engine not in wanted:
            peers.missing[package.engine] = why_not
            continue
        ready = [python for python in given if kernel_peers.package_folder(python, package.module)]
        try:
            python = ready[0] if ready else install(package, say)
        except (NotInstalled, CommandFailed, OSError) as error:
            peers.missing[package.engine] = str(error)
            continue
        peers.pythons[package.engine] = python
        peers.flags[package.engine] = flags_of(package, python, not ready)
    for source in sources:
        engine = "ik" if is_ik(source) else "llama.cpp"
        if engine not in wanted:
            continue
        try:
            peers.native[engine], peers.flags[engine] = build_native(source, say)
            peers.missing.pop(engine, None)
        except (NotInstalled, CommandFailed, OSError) as error:
            peers.missing[engine] = str(error)
    return peers
