# SPDX-License-Identifier: MIT
"""Finds and builds the libraries that tools/compare_kernels.py times beside Tern. Nothing of them goes into Tern or its tree."""
from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from long_command import CommandFailed, Job
from machine import compiler_version

HERE = Path(__file__).resolve().parent / "peers"
BUILD = HERE.parent.parent / "build/peers"
NATIVE_FLAGS = ["-O3", "-march=native", "-fPIC", "-shared", "-fopenmp", "-DNDEBUG"]
IK_OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DGGML_IQK_FA_ALL_QUANTS=OFF", "-DLLAMA_CURL=OFF",
            "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DBUILD_SHARED_LIBS=ON"]

# bitnet.cpp's source includes headers of its own ggml; it uses only this much of them.
STUB_HEADERS = {
    "ggml.h": "#pragma once\n#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <stdlib.h>\n#define GGML_API extern\n"
              "enum ggml_type { GGML_TYPE_I2_S = 36 };\nstatic inline size_t ggml_row_size(enum ggml_type t, int64_t n) { (void)t; return (size_t)n; }\n",
    "ggml-backend.h": "#pragma once\n",
    "ggml-cpu-impl.h": "#pragma once\n",
    "ggml-quants.h": "#pragma once\n#include \"ggml.h\"\nextern \"C\" {\n" + "".join(
        f"void ggml_vec_dot_i2_i8_s{form}(int, float *, size_t, const void *, size_t, const void *, size_t, int);\n" for form in ("", "_1x1", "_1xN", "_Nx1")) +
        "size_t quantize_i2_s(const float *, void *, int64_t, int64_t, const float *);\n}\n",
}


Say = Callable[[str], None]


@dataclass
class Peer:
    """A library that can be timed, or why it cannot."""
    name: str
    kind: str = ""  # of tools/kernel_worker.py
    libraries: list[str] = field(default_factory=list)
    flags: str = ""
    missing: str = ""


def commit_of(source: Path) -> str:
    done = subprocess.run(["git", "-C", str(source), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown commit"


def package_folder(python: str, package: str) -> Path | None:
    """Where a Python has a package, without running the package."""
    code = f"import importlib.util as u; s = u.find_spec('{package}'); print(s.origin if s else '')"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return Path(done.stdout.strip()).parent if done.returncode == 0 and done.stdout.strip() else None


def package_version(python: str, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version('{package}'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


def compiled_by(libraries: list[Path]) -> str:
    """What compilers wrote into them (their .comment sections); the flags are nowhere."""
    notes = {note.decode() for library in libraries if library.exists() for note in re.findall(rb"\0((?:GCC: \(|[\w ]*clang version )[ -~]+)(?=\0)", library.read_bytes())}
    return f"compiled by {' and '.join(sorted(notes))}, flags unknown" if notes else "compiler and flags unknown"


def from_packages(pythons: list[str]) -> list[Peer]:
    """llama.cpp and ik_llama.cpp out of Python packages."""
    found = []
    for name, package, libraries in (("ggml", "llama_cpp", ["libggml-base.so", "libggml-cpu.so"]), ("ik wheel", "ik_llama_cpp", ["libggml.so"])):
        where = [(python, folder) for python in pythons if (folder := package_folder(python, package))]
        if not where:
            found.append(Peer(name, missing=f"no --peer-python has the package {package}"))
            continue
        python, folder = where[0]
        paths = [folder / "lib" / library for library in libraries]
        flags = f"{package.replace('_', '-')}-python {package_version(python, package.replace('_', '-') + '-python')}, built by its package, {compiled_by(paths)}"
        found.append(Peer(name, "ggml", [str(path) for path in paths], flags))
    return found


def build_cmake(source: Path, build: Path, options: list[str], target: str, job: Job) -> None:
    """One target of the source; only what is not up to date takes time."""
    job.say(f"{job.what} in {build}: many minutes, the first time (output: {job.log})")
    stamp, want = build / "tern.stamp", f"{source}\n{' '.join(options)}\n"
    if not stamp.exists() or stamp.read_text() != want:
        job.run(["cmake", "--fresh", "-S", str(source), "-B", str(build), "-G", "Ninja", *options])
        stamp.write_text(want)
    job.run(["cmake", "--build", str(build), "--target", target])


def build_ik(source: Path, target: str, say: Say) -> tuple[Path, str]:
    """The folder of the build, and how it was built."""
    build = BUILD / "ik_llama.cpp"
    build_cmake(source, build, IK_OPTIONS, target, Job("building ik_llama.cpp", BUILD / "ik_llama.cpp.log", say))
    return build, f"ik_llama.cpp {commit_of(source)}, {' '.join(IK_OPTIONS[:2])}, {compiler_version('c++')}"


def build_ik_kernels(source: Path, say: Say) -> Peer:
    build, flags = build_ik(source, "ggml", say)
    return Peer("ik native", "ggml", [str(build / "ggml/src/libggml.so")], flags)


def build_i2s(source: Path, say: Say) -> Peer:
    folder, job = BUILD / "i2s", Job("building bitnet.cpp's products", BUILD / "i2s.log", say)
    folder.mkdir(exist_ok=True)
    for name, text in STUB_HEADERS.items():
        (folder / name).write_text(text)
    objects = [folder / "mad.o", folder / "i2s.o"]
    flags = [flag for flag in NATIVE_FLAGS if flag != "-shared"]
    job.run(["g++", *flags, "-std=c++17", f"-I{folder}", f"-I{source / 'include'}", "-c", str(source / "src/ggml-bitnet-mad.cpp"), "-o", str(objects[0])])
    job.run(["gcc", *flags, "-c", str(HERE / "i2s.c"), "-o", str(objects[1])])
    job.run(["g++", "-shared", "-fopenmp", *map(str, objects), "-o", str(folder / "libpeer_i2s.so")])
    return Peer("bitnet.cpp", "i2s", [str(folder / "libpeer_i2s.so")], f"bitnet.cpp {commit_of(source)}, {' '.join(flags)}, {compiler_version('g++')}")


def build_onednn(say: Say) -> Peer:
    library = BUILD / "libpeer_onednn.so"
    Job("compiling what calls oneDNN", BUILD / "onednn.log", say).run(["gcc", *NATIVE_FLAGS, str(HERE / "onednn.c"), "-o", str(library), "-ldnnl"])
    package = subprocess.run(["dpkg-query", "-W", "-f=${Version}", "libdnnl-dev"], capture_output=True, text=True).stdout
    return Peer("oneDNN", "onednn", [str(library)], f"libdnnl-dev {package}, Debian's build (chooses its ISA at run time)")


def from_sources(sources: list[Path], wanted: set[str], say: Say) -> list[Peer]:
    peers = []
    for name, marker, build in (("ik native", "ggml/src/iqk/iqk_mul_mat.h", build_ik_kernels), ("bitnet.cpp", "src/ggml-bitnet-mad.cpp", build_i2s)):
        if name not in wanted:
            continue
        where = [source for source in sources if (source / marker).exists()]
        if not where:
            peers.append(Peer(name, missing=f"no --peer-source has {marker}"))
            continue
        try:
            peers.append(build(where[0].resolve(), say))
        except (CommandFailed, OSError) as error:
            peers.append(Peer(name, missing=str(error)))
    return peers


def find(pythons: list[str], sources: list[Path], wanted: set[str], say: Say) -> list[Peer]:
    """The wanted ones of the peers; what has to be built is built."""
    BUILD.mkdir(parents=True, exist_ok=True)
    peers = [peer for peer in from_packages(pythons) if peer.name in wanted] + from_sources(sources, wanted, say)
    if "oneDNN" not in wanted:
        return peers
    try:
        peers.append(build_onednn(say))
    except (CommandFailed, OSError) as error:
        peers.append(Peer("oneDNN", missing=f"{error}; install gcc and libdnnl-dev"))
    return peers
