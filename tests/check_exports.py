#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The exported symbols of libtern.so, the list in src/libtern.map and the TERN_API functions in include/tern are the same names.

usage: check_exports.py SOURCE_DIR LIBRARY.so {decode,nodecode}
"""
import re
import subprocess
import sys
from pathlib import Path


def declared(header):
    text = re.sub(r"//.*|#\s*define.*", "", header.read_text())
    return set(re.findall(r"\bTERN_API\b[^;(]*?\b(tern_\w+)\s*\(", text))


def listed(map_file, node):
    text = re.sub(r"#.*", "", map_file.read_text())
    body = re.search(rf"^{re.escape(node)} {{(.*?)^}}", text, re.M | re.S).group(1)
    return set(re.findall(r"\b(tern_\w+)\s*;", body))


def exported(library):
    out = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    symbols = [line.split()[1:] for line in out.splitlines()]
    return {name.split("@")[0] for kind, name in symbols if kind != "A"}  # A: the version nodes themselves


def main():
    source, library, decode = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "decode"
    headers = source / "include/tern"
    api = {"TERN_0.1": set(), "TERN_DECODE_0.1": set()}
    for header in headers.glob("*.h"):
        api["TERN_DECODE_0.1" if header.name == "decode.h" else "TERN_0.1"] |= declared(header)
    wrong = []
    for node, names in api.items():
        in_map = listed(source / "src/libtern.map", node)
        wrong += [f"{n}: declared in include/tern, not listed in src/libtern.map ({node})" for n in names - in_map]
        wrong += [f"{n}: listed in src/libtern.map ({node}), not declared in include/tern" for n in in_map - names]
    wanted = api["TERN_0.1"] | (api["TERN_DECODE_0.1"] if decode else set())
    found = exported(library)
    wrong += [f"{n}: declared in include/tern, not exported by {library}" for n in wanted - found]
    wrong += [f"{n}: exported by {library}, not declared in include/tern" for n in found - wanted]
    if not wanted:
        wrong.append("no TERN_API function found in include/tern: this check does not read the headers any more")
    print("\n".join(sorted(wrong)) or f"{len(wanted)} exported symbols, all declared and listed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
