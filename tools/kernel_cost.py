#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The speed gate without a clock: what the marked inner loops of the kernels cost, read from their object files.

usage: kernel_cost.py OBJECT_DIR [--table FILE] [--rewrite] [--only TEXT]

A kernel marks a loop with TERN_COST_LOOP (kernels/compiler.h), which leaves a record in the object file and no instruction in the
code. For each marked loop this prints instructions per 64 products (one product: one weight times one activation) and the cycles that
llvm-mca 16 expects for them, all data in L1. Code in an inner loop counts for that loop only; a loop that the compiler emitted several
times counts as its slowest copy. Every GEMM kernel with vectors must have a mark.

The models are not the machines: LLVM 16 gives Zen 4 half its rate of vpdpbusd between registers (with a memory operand it is right), and
Ice Lake three times its rate of vpermi2b. The figures tell better from worse, not how fast a kernel is.

Costs are compared with --table, which holds one column of costs for each compiler (name and major version): other versions choose
other instructions, so objects of a compiler without a column are shown and not compared.

  --rewrite    writes the costs of these objects to the table, in their compiler's column (makes the table where there is none)
  --only TEXT  only loops whose name contains TEXT, shown and not compared

Exit code: 0 equal or better; 1 a loop costs more than 2 % more, is new or is gone; 2 not measured; 77 no column for this compiler.
"""
import argparse
import json
import re
import struct
import subprocess
import sys
from bisect import bisect_right
from functools import cache
from math import inf
from pathlib import Path

LLVM = 16  # knows znver4, and is what Debian 12 has beside its default
TOLERANCE = 0.02
UNIT = 64  # products
ITERATIONS = 100
SKIPPED = 77  # what the test drivers of automake and CTest take for "skipped"
# CPUs whose models are asked, by the last part of the source's name. Each tier: an Intel and an AMD core that stops at it, or near it.
MODELS = {
    "avx2": ["haswell", "znver3"],
    "avx512": ["skylake-avx512", "znver4"],
    "avx512vnni": ["icelake-server", "znver4"],
    "avx512vbmi": ["icelake-server", "znver4"],
}


class NotMeasured(Exception):
    pass


def run(tool, args, text=None):
    name = f"{tool}-{LLVM}"
    try:
        done = subprocess.run([name, *args], input=text, capture_output=True, text=True)
    except FileNotFoundError:
        raise NotMeasured(f"{name} is missing; tools/setup.sh installs it (Debian package llvm-{LLVM})") from None
    if done.returncode:
        raise NotMeasured(f"{name} {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


# ---- object files -----------------------------------------------------------------------------------------------------------------------


def sections(elf):
    """(name, type, link, info, bytes) of each section of a 64-bit little-endian object file."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, table + i * size) for i in range(count)]
    text = lambda at: elf[at : elf.index(b"\0", at)].decode()
    return [(text(headers[names][4] + h[0]), h[1], h[6], h[7], elf[h[4] : h[4] + h[5]]) for h in headers]


def markers(elf):
    """(section of the loop, address in it, name, n, m, k) of each TERN_COST_LOOP."""
    parts = sections(elf)
    by_name = {s[0]: s for s in parts}
    if ".tern_cost" not in by_name or ".rela.tern_cost" not in by_name:
        return []
    records, relocations = by_name[".tern_cost"][4], by_name[".rela.tern_cost"]
    symbols = parts[relocations[2]][4]
    out = []
    for at, info, addend in struct.iter_unpack("<QQq", relocations[4]):
        _, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", symbols, (info >> 32) * 24)
        n, m, k = struct.unpack_from("<III", records, at + 8)
        name = records[at + 20 : records.index(b"\0", at + 20)].decode()
        out.append((parts[section][0], value + addend, name, n, m, k))
    return out


def compiler_of(elf):
    comment = b"".join(s[4] for s in sections(elf) if s[0] == ".comment").decode(errors="replace")
    gcc, clang = re.search(r"GCC: .* (\d+)\.\d+\.\d+", comment), re.search(r"clang version (\d+)", comment)
    return f"clang {clang[1]}" if clang else f"gcc {gcc[1]}" if gcc else "an unknown compiler"


# ---- loops ------------------------------------------------------------------------------------------------------------------------------


def without_padding(instructions):
    """Without what nobody reaches between a jump or return and the next aligned block: it would look like a way into that block."""
    out, ended = [], False
    for address, text in instructions:
        if ended and text.startswith(("nop", "xchgw", "int3")):
            continue
        out.append((address, text))
        ended = bool(re.match(r"(notrack )?jmp|ret|ud2", text))
    return out


class Function:
    """Basic blocks and natural loops of one function. instructions: (address, text), in order."""

    def __init__(self, instructions):
        instructions = self.code = without_padding(instructions)
        addresses = [a for a, _ in instructions]
        inside = set(addresses)
        starts, jumps = {addresses[0]}, {}
        for i, (address, text) in enumerate(instructions):
            jump = re.match(r"(?:notrack )?j\w+\s+(?:0x([0-9a-f]+))?", text)
            if not jump and not text.startswith("ret"):
                continue
            target = int(jump[1], 16) if jump and jump[1] else None
            follows = jump is not None and not re.match(r"(notrack )?jmp", text) and i + 1 < len(addresses)
            jumps[address] = [t for t in (target, addresses[i + 1] if follows else None) if t in inside]
            starts.update(jumps[address])
            starts.update(addresses[i + 1 : i + 2])
        self.starts = sorted(starts)
        ends = self.starts[1:] + [addresses[-1] + 1]
        self.blocks = [[(a, t) for a, t in instructions if s <= a < e] for s, e in zip(self.starts, ends)]
        index = {s: i for i, s in enumerate(self.starts)}
        self.next = []
        for i, block in enumerate(self.blocks):
            last = block[-1][0]
            falls = [i + 1] if i + 1 < len(self.blocks) else []
            self.next.append([index[t] for t in jumps[last]] if last in jumps else falls)
        self.loops = self._loops()

    def _roots(self):
        """The entry, and what only a jump table reaches."""
        seen, roots = set(), []
        for root in range(len(self.blocks)):
            if root in seen:
                continue
            roots.append(root)
            todo = [root]
            while todo:
                b = todo.pop()
                if b not in seen:
                    seen.add(b)
                    todo += self.next[b]
        return roots

    def _loops(self):
        """{header: set of blocks} from back edges to dominating blocks."""
        count, roots = len(self.blocks), set(self._roots())
        before = [[] for _ in range(count)]
        for b, following in enumerate(self.next):
            for f in following:
                before[f].append(b)
        everything = set(range(count))
        dominators = [{b} if b in roots else everything for b in range(count)]
        changed = True
        while changed:
            changed = False
            for b in everything - roots:
                new = set.intersection(*(dominators[p] for p in before[b])) | {b}
                if new != dominators[b]:
                    dominators[b], changed = new, True
        loops = {}
        for b, following in enumerate(self.next):
            for header in following:
                if header not in dominators[b]:
                    continue
                body, todo = loops.setdefault(header, {header}), [b]
                while todo:
                    x = todo.pop()
                    if x not in body:
                        body.add(x)
                        todo += before[x]
        return loops

    def loop_at(self, address):
        """(address, instructions) of the innermost loop around address, without those of loops inside it; None outside loops."""
        block = bisect_right(self.starts, address) - 1
        around = [(len(body), header) for header, body in self.loops.items() if block in body]
        if not around:
            return None
        _, header = min(around)
        body = set(self.loops[header])
        for other, inner in self.loops.items():
            if other != header and inner < self.loops[header]:
                body -= inner
        return self.starts[header], [text for b in sorted(body) for _, text in self.blocks[b]]


def functions(path):
    """(section, instructions) of each function of an object file. instructions: (address, text), in order."""
    out, section, code = [], "", []
    listing = run("llvm-objdump", ["-d", "--no-show-raw-insn", "--x86-asm-syntax=att", path])
    for line in listing.splitlines() + ["Disassembly of section :"]:
        if line.startswith("Disassembly of section") or line.endswith(">:"):
            if code:
                out.append((section, code))
            code = []
            if line.startswith("Dis"):
                section = line.split()[-1].rstrip(":")
        elif found := re.match(r"\s*([0-9a-f]+):\s+(.*)", line):
            code.append((int(found[1], 16), re.sub(r"\s*(<.*>|#.*)$", "", found[2]).strip()))
    return out


# ---- costs ------------------------------------------------------------------------------------------------------------------------------


@cache  # copies of a loop are often the same
def cycles(code, model):
    # Branches go to a local label, so that the assembler need not place addresses of the object file.
    text = "\n".join(re.sub(r"^(j\w+)\s.*", r"\1 1b", line) for line in code)
    report = run("llvm-mca", ["-mtriple=x86_64", f"-mcpu={model}", f"-iterations={ITERATIONS}"], f"1:\n{text}\n")
    return int(re.search(r"^Total Cycles:\s+(\d+)", report, re.M)[1]) / ITERATIONS


def costs_of(path, only):
    """{name: {"instructions": …, model: …}}: costs of the marked loops of one object file."""
    source = path.name.split(".")[0]
    found = {}  # (name, loop) -> [products of one round, instructions]
    marked = markers(path.read_bytes())
    listing = functions(path) if marked else []
    flow = {}  # (section, first address) -> Function
    for section, address, name, n, m, k in marked:
        name = f"{source}: {name}, {n} x {m} x {k}"
        if only not in name:
            continue
        code = next((c for s, c in listing if s == section and c[0][0] <= address <= c[-1][0]), None)
        if code and (section, code[0][0]) not in flow:
            flow[section, code[0][0]] = Function(code)
        loop = flow[section, code[0][0]].loop_at(address) if code else None
        if not loop:
            raise NotMeasured(f"{name}: its mark lies outside any loop")
        entry = found.setdefault((name, section, loop[0]), [0, loop[1]])
        entry[0] += n * m * k  # an unrolled loop holds its mark several times
    costs = {}
    for (name, *_), (products, code) in found.items():
        cost = {"instructions": len(code) * UNIT / products}
        for model in MODELS[source.rsplit("_", 1)[1]]:
            cost[model] = cycles(tuple(code), model) * UNIT / products
        worst = costs.setdefault(name, cost)
        for key, value in cost.items():
            worst[key] = round(max(worst[key], value), 3)
    return costs


def row(name, cost):
    return f"{name:60}" + "".join(f"  {key} {value:.3f}" for key, value in cost.items())


def compare(costs, table):
    """Lines of the difference and whether it is one for the worse."""
    lines, bad = [], False
    for name in sorted(costs.keys() | table.keys()):
        old, new = table.get(name), costs.get(name)
        if old is None or new is None:
            bad = True
            lines.append(("+ not in the table: " + row(name, new)) if new else ("- in the table, but no such loop: " + name))
        elif changed := [k for k in sorted(new.keys() | old.keys()) if abs(new.get(k, inf) - old.get(k, 0)) > TOLERANCE * old.get(k, 0)]:
            worse = [k for k in changed if new.get(k, inf) > old.get(k, 0)]  # a figure that is new or gone, too
            bad |= bool(worse)
            lines += [f"{'WORSE' if worse else 'better'}  {name}", "    table  " + row("", old).strip(), "    now    " + row("", new).strip()]
    return lines, bad


def read_table(path, may_be_new):
    if not path or (may_be_new and not path.exists()):
        return {}
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:  # a gate without its table must not pass
        raise NotMeasured(f"{path}: {error}; --rewrite makes a new table where there is none") from None


def write_table(path, table):
    columns = []
    for compiler in sorted(table):
        rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(cost)}" for name, cost in sorted(table[compiler].items()))
        columns.append(f"  {json.dumps(compiler)}: {{\n{rows}\n  }}")
    path.write_text("{\n" + ",\n".join(columns) + "\n}\n")


def main():
    _, usage, text = __doc__.split("\n\n", 2)
    parser = argparse.ArgumentParser(usage=usage.removeprefix("usage: "), description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", type=Path, metavar="OBJECT_DIR")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--rewrite", action="store_true")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    if args.rewrite and (args.only or not args.table):
        parser.error("--rewrite writes every loop to --table FILE; give that, and no --only")
    paths = sorted(args.objects.glob("*.o"))
    try:
        table = read_table(args.table, args.rewrite)
        costs = {}
        for path in paths:
            costs |= costs_of(path, args.only)
        unmarked = [p.name.split(".")[0] for p in paths if re.search("_gemm_.*avx", p.name) and not markers(p.read_bytes())]
        if unmarked:
            raise NotMeasured(f"no loop is marked in {', '.join(unmarked)}; see docs/add_a_kernel.md")
        if not costs:
            raise NotMeasured(f"no object file in {args.objects} holds a marked loop" + (f" named {args.only}" if args.only else ""))
        compiler = compiler_of(paths[0].read_bytes())
    except NotMeasured as error:
        print(f"not measured: {error}")
        return 2
    print(f"{compiler}, llvm-mca {LLVM}: instructions and cycles per {UNIT} products")
    if args.only or not args.table:
        print("\n".join(row(name, costs[name]) for name in sorted(costs)))
        return 0
    if args.rewrite:
        table[compiler] = costs
        write_table(args.table, table)
        print(f"{len(costs)} loops written to {args.table}")
        return 0
    if compiler not in table:
        print("\n".join(row(name, costs[name]) for name in sorted(costs)))
        print(f"not compared: {args.table} has columns for {', '.join(sorted(table))} only; --rewrite adds one")
        return SKIPPED
    lines, bad = compare(costs, table[compiler])
    print("\n".join(lines) or f"{len(costs)} loops cost what {args.table} says")
    if bad:
        print("where this is meant: the same command with --rewrite, and the reason in the commit")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
