# SPDX-License-Identifier: MIT
"""A working byte-level BPE vocabulary of any size for models with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from string import ascii_lowercase

from gguf import TokenType

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BYTES = 256
SPACE = "\u0120"  # how GPT-2 writes the byte 0x20

# Frequent English merges, best first; each side is a byte or the result of an earlier line.
ENGLISH = """
_ t|h e|_ a|i n|r e|_t he|o n|e r|_ s|a t|_ w|_ o|e n|i s|n d|_ b|o u|_ c|e d|_ f|in g|_ p|o r|e s|_a nd|a l|_t o|_o f|_ i|a r
_ m|_ d|_i n|i t|_ h|o m|a n|l e|l l|i c|_b e|_ n|_t h|v e|e l|_ l|r o|_ re|_i s|_w h|i on|_th at|_ g|_ e|a s|en t|i d|_w as
_f or|e t|_y ou|_ y|_o n|s t|_s t|l y|_h e|_ it|o t|_w ith|_w i|i m|_ an|i l|_h av|_ha ve|_h a|v er|at ion|u r|a y|c h|l d
"""


def byte_characters() -> list[str]:
    """The printable stand-in of each byte, as GPT-2 chose them, in its vocabulary order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(BYTES) if b not in printable]
    return [chr(b) for b in printable] + [chr(BYTES + i) for i in range(len(others))]


def _merge_candidates() -> Iterator[tuple[str, str]]:
    for pair in ENGLISH.replace("\n", "|").split("|"):
        if pair:
            left, right = pair.replace("_", SPACE).split(" ")
            yield left, right
    pairs = ["".join(p) for p in product(ascii_lowercase, repeat=2)]
    yield from ((a, b) for a, b in product(ascii_lowercase, repeat=2))
    yield from ((SPACE, a) for a in ascii_lowercase)
    yield from ((SPACE + a, b) for a, b in product(ascii_lowercase, repeat=2))
    yield from product(pairs, pairs)


def make_vocab(size: int) -> tuple[list[str], list[TokenType], list[str]]:
    """Tokens, their types, and merges: 256 bytes, then one token per merge, then the specials."""
    smallest = BYTES + len(SPECIALS)
    if size < smallest:
        raise ValueError(f"a vocabulary of {size} tokens is too small: it needs {BYTES} bytes and {len(SPECIALS)} specials, so {smallest}")
    tokens = byte_characters()
    known = set(tokens)
    merges = []
    for left, right in _merge_candidates():
        if len(tokens) == size - len(SPECIALS):
            break
        if left in known and right in known and left + right not in known:
            tokens.append(left + right)
            known.add(left + right)
            merges.append(f"{left} {right}")
    if len(tokens) != size - len(SPECIALS):
        raise ValueError(f"a vocabulary of {size} tokens is too large: {len(tokens) + len(SPECIALS)} is the most this script makes")
    types = [TokenType.NORMAL] * len(tokens) + [TokenType.CONTROL] * len(SPECIALS)
    return tokens + list(SPECIALS), types, merges
