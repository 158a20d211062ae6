#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Who may include whom, and which part may know which foreign library. Exit code 1 and one line for each include that breaks a rule.

usage: check_includes.py [SOURCE_DIR]
"""
import re
import sys
from pathlib import Path

# part -> prefixes of the project's own headers that it may include. A part is the longest matching folder.
ALLOWED = {
    "include/tern": ["include/tern/"],
    "kernels": ["kernels/"],
    "src/base": ["src/base/", "include/tern/"],
    "src/cpu": ["src/cpu/", "src/base/", "kernels/", "include/tern/"],
    "src/sched": ["src/sched/", "src/base/", "include/tern/"],
    "src/format": ["src/format/", "src/base/", "include/tern/"],
    "src/matmul": ["src/matmul/", "src/cpu/", "src/sched/", "src/format/", "src/base/", "kernels/", "include/tern/"],
    "src/decode": ["src/decode/", "src/matmul/", "src/format/", "src/sched/", "src/cpu/dispatch.h", "src/base/",
                   "kernels/kernels.h", "include/tern/"],
    "tools": ["tools/", "include/tern/"],
    "bench": ["bench/", "tools/bench_source.h", "kernels/kernels.h", "kernels/variants.inc", "include/tern/"],
    "tests": ["tests/", "src/", "kernels/", "tools/text_stream.h", "tools/trace_file.h", "tools/utf8.h", "docs/examples/", "include/tern/"],
    "docs/examples": ["include/tern/"],
}

# foreign headers -> files that may include them
FOREIGN = {
    r"hwloc(/|\.h)": r"src/sched/topology\.[ch]|tests/",
    r"pcre2": r"src/decode/",
    r"jansson\.h": r"tools/|bench/sched_",
    r"llama\.h": r"tools/peers/llama\.c",
    r"histedit\.h": r"tools/line_editor\.c",
    r"omp\.h": r"bench/sched_openmp\.c",
    r"cmocka\.h": r"tests/",
    r"benchmark/": r"bench/bench_shim\.cc",
    r"cpuid\.h": r"src/cpu/",
    r"(pthread|threads|stdatomic|sched)\.h": r"src/(sched|cpu|matmul|decode|base)/|tests/|bench/(sched|scale)_|docs/examples/",
    r"std(io|lib)\.h": r"(?!kernels/|include/)",
}

# where an include "..." is looked up, in the compiler's order (after the file's own folder)
ROOTS = ["src", "", "include"]


def resolve(root, file, name):
    for base in [file.parent, *(root / r for r in ROOTS)]:
        path = (base / name).resolve()
        if path.is_file() and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return None


def part_of(path):
    return max((p for p in ALLOWED if path.startswith(p + "/")), key=len, default=None)


def broken_rules(root, file):
    here = file.relative_to(root).as_posix()
    part = part_of(here)
    for number, line in enumerate(file.read_text().splitlines(), 1):
        found = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if not found:
            continue
        name = found.group(2)
        target = resolve(root, file, name)
        if target and not any(target.startswith(a) for a in ALLOWED[part]):
            yield f"{here}:{number}: {part} may not include {target} (allowed: {', '.join(ALLOWED[part])})"
        if not target and found.group(1) == '"':
            yield f"{here}:{number}: \"{name}\" is not a file of this project; write <{name}>"
        for pattern, files in FOREIGN.items():
            if not target and re.match(pattern, name) and not re.match(files, here):
                yield f"{here}:{number}: <{name}> may only be included by {files}"


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    folders = sorted({p.split("/")[0] for p in ALLOWED})
    files = [f for d in folders for f in sorted((root / d).rglob("*")) if f.suffix in (".c", ".h", ".inc", ".cc")]
    unplaced = [f"{f.relative_to(root)}: belongs to no part that has rules" for f in files if not part_of(f.relative_to(root).as_posix())]
    broken = unplaced or [message for f in files for message in broken_rules(root, f)]
    print("\n".join(broken) or f"{len(files)} files include only what they may")
    return 1 if broken or not files else 0


if __name__ == "__main__":
    sys.exit(main())
