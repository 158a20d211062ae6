# SPDX-License-Identifier: MIT
"""Tokenizers of Hugging Face folders as GGUF metadata: byte-level BPE from tokenizer.json, SentencePiece from tokenizer.model."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, SpecialVocab, TokenType

from hf_checkpoint import BadCheckpoint, read_json

# GGUF has no place for a pattern, only for a name that stands for one. A name is found by comparing tokenizer.json's steps with
# those of the tokenizers that the names were given for; (llama.cpp compares a hash of what the tokenizer makes of a test text).
_MODERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_WHOLE, _BYTES_ONLY = ("ByteLevel", True), ("ByteLevel", False)  # with GPT-2's pattern, and with none
PRE_TOKENIZERS = {
    (("Split", _MODERN.replace("DIGITS", r"\p{N}{1,3}")), _BYTES_ONLY): "llama-bpe",
    (("Split", _MODERN.replace("DIGITS", r"\p{N}")), _BYTES_ONLY): "qwen2",
    (("Digits", True), _WHOLE): "smollm",
    (_WHOLE,): "gpt-2",
}
# Tokens that end a turn of a chat, where another one ends the text.
END_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>")


@dataclasses.dataclass
class Vocabulary:
    model: str  # tokenizer.ggml.model
    pre: str | None
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    space_prefix: bool | None
    special: SpecialVocab  # ids, merges, chat template

    @property
    def end_of_turn(self) -> int | None:
        ends = [self.tokens.index(text) for text in END_OF_TURN if text in self.tokens]
        others = [end for end in ends if self.types[end] == TokenType.CONTROL and end != self.special.special_token_ids.get("eos")]
        return others[0] if others else None


def _place(tokens: dict[int, tuple[str, int]], vocab: int, path: Path) -> tuple[list[str], list[int]]:
    """Texts and types of ids 0 .. vocab - 1. Ids without a text are named, because texts may not be equal."""
    if tokens and max(tokens) >= vocab:
        raise BadCheckpoint(f"{path} has token {max(tokens)}, but config.json says vocab_size {vocab}; do they belong together?")
    placed = [tokens.get(i, (f"[PAD{i}]", TokenType.UNUSED)) for i in range(vocab)]
    seen: dict[bytes, int] = {}
    for i, (text, _) in enumerate(placed):
        first = seen.setdefault(text.encode(), i)
        if first != i:
            raise BadCheckpoint(f"{path} has the text {text!r} for tokens {first} and {i}; GGUF needs distinct texts")
    return [text for text, _ in placed], [int(kind) for _, kind in placed]


def _added(entries: Any, path: Path) -> Iterator[tuple[int, tuple[str, int]]]:
    for entry in entries or []:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not isinstance(entry.get("content"), str):
            raise BadCheckpoint(f"{path}: an entry of its added tokens has no id or no content; download it again")
        yield entry["id"], (entry["content"], TokenType.CONTROL if entry.get("special") else TokenType.USER_DEFINED)


# ---- Byte-level BPE

def _steps(pre: Any) -> tuple:
    """The pre-tokenizer as a tuple of its steps; what a name cannot stand for stays in the tuple and so matches none."""
    if not isinstance(pre, dict):
        return (None,)
    kind = pre.get("type")
    if kind == "Sequence":
        return tuple(step for part in pre.get("pretokenizers", []) for step in _steps(part))
    if kind == "Split" and pre.get("behavior") == "Isolated" and not pre.get("invert") and isinstance(pre.get("pattern"), dict):
        return (("Split", pre["pattern"].get("Regex")),)
    if kind == "ByteLevel" and not pre.get("add_prefix_space"):
        return (("ByteLevel", bool(pre.get("use_regex", True))),)
    if kind == "Digits":
        return (("Digits", bool(pre.get("individual_digits"))),)
    return ((kind, None),)


def _pre_name(tokenizer: dict[str, Any], path: Path) -> str:
    name = PRE_TOKENIZERS.get(_steps(tokenizer.get("pre_tokenizer")))
    if not name:
        raise BadCheckpoint(f"{path} splits words in a way that no known name stands for (known: {', '.join(PRE_TOKENIZERS.values())}); "
                            "if you know the name that llama.cpp gives it, pass --pre NAME")
    return name


def _is_byte_level(tokenizer: dict[str, Any]) -> bool:
    model, decoder = tokenizer.get("model"), tokenizer.get("decoder")
    return isinstance(model, dict) and isinstance(decoder, dict) and isinstance(model.get("vocab"), dict) and \
        model.get("type", "BPE") == "BPE" and not model.get("byte_fallback") and decoder.get("type") == "ByteLevel"


def _check_merges(merges: list[str], tokens: dict[str, int], path: Path) -> None:
    if not merges:
        raise BadCheckpoint(f"{path} has no merges; download it again")
    for merge in merges:
        parts = merge.split(" ")
        if len(parts) != 2 or not {*parts, "".join(parts)} <= tokens.keys():
            raise BadCheckpoint(f"{path}: merge {merge!r} is not of two tokens into a third; download it again")


def _byte_level(folder: Path, tokenizer: dict[str, Any], path: Path, vocab: int, pre: str | None) -> Vocabulary:
    ids = tokenizer["model"]["vocab"]
    if not all(type(i) is int and i >= 0 for i in ids.values()):
        raise BadCheckpoint(f"{path}: model.vocab is not a table of ids; download it again")
    placed = {i: (text, TokenType.NORMAL) for text, i in ids.items()} | dict(_added(tokenizer.get("added_tokens"), path))
    tokens, types = _place(placed, vocab, path)
    special = SpecialVocab(folder, load_merges=True, n_vocab=vocab)  # finds chat templates and ids in all the places they are kept
    _check_merges(special.merges, ids, path)
    return Vocabulary("gpt2", pre or _pre_name(tokenizer, path), tokens, types, None, None, special)


# ---- SentencePiece: the few fields of its protobuf that GGUF repeats

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_PIECES, _MODEL_TRAINER, _MODEL_NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3  # its types are numbered as GGUF's
_TRAINER_MODEL_TYPE, _MODEL_TYPE_BPE = 3, 2
_NORMALIZER_CHARSMAP, _NORMALIZER_DUMMY_PREFIX = 2, 3


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message's fields. IndexError or struct.error where it is cut off."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            value, at = data[at:at + size], at + size
            if at > len(data):
                raise IndexError
        elif wire == _FIXED32:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        elif wire == _FIXED64:
            value, at = struct.unpack_from("<d", data, at)[0], at + 8
        else:
            raise IndexError
        yield number, value


def _sentencepiece(folder: Path, path: Path, vocab: int) -> Vocabulary:
    pieces, trainer, normalizer = [], {}, {}
    try:
        for number, value in _fields(path.read_bytes()):
            if number == _MODEL_PIECES:
                piece = dict(_fields(value))
                pieces.append((piece[_PIECE_TEXT].decode(), float(piece.get(_PIECE_SCORE, 0)), piece.get(_PIECE_TYPE, TokenType.NORMAL)))
            elif number == _MODEL_TRAINER:
                trainer = dict(_fields(value))
            elif number == _MODEL_NORMALIZER:
                normalizer = dict(_fields(value))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error):
        raise BadCheckpoint(f"{path} is not a whole SentencePiece model; download it again") from None
    if trainer.get(_TRAINER_MODEL_TYPE) != _MODEL_TYPE_BPE:
        raise BadCheckpoint(f"{path} is not a BPE model, the only kind of SentencePiece that GGUF's llama tokenizer repeats; it cannot be converted")
    if normalizer.get(_NORMALIZER_CHARSMAP):
        raise BadCheckpoint(f"{path} normalizes its text by a table, which GGUF's llama tokenizer does not; it cannot be converted")
    placed = {i: (text, kind) for i, (text, _, kind) in enumerate(pieces)}
    config = folder / "tokenizer_config.json"
    decoder = read_json(config).get("added_tokens_decoder") if config.exists() else None
    for text, entry in (decoder or {}).items():
        if not (text.isdecimal() and isinstance(entry, dict)):
            raise BadCheckpoint(f"{config}: added_tokens_decoder is not a table of ids; download it again")
        if int(text) >= len(pieces):
            placed |= dict(_added([entry | {"id": int(text)}], config))
    tokens, types = _place(placed, vocab, path)
    scores = [score for _, score, _ in pieces] + [0.0] * (vocab - len(pieces))
    return Vocabulary("llama", None, tokens, types, scores, bool(normalizer.get(_NORMALIZER_DUMMY_PREFIX, True)),
                      SpecialVocab(folder, n_vocab=vocab))


# ---- Either

def _read(folder: Path, vocab: int, pre: str | None) -> Vocabulary:
    json_path, model_path = folder / "tokenizer.json", folder / "tokenizer.model"
    tokenizer = read_json(json_path) if json_path.exists() else {}
    if _is_byte_level(tokenizer):
        return _byte_level(folder, tokenizer, json_path, vocab, pre)
    if model_path.exists():
        return _sentencepiece(folder, model_path, vocab)
    raise BadCheckpoint(f"{folder} has neither a byte-level BPE tokenizer.json nor a SentencePiece tokenizer.model; download what it lacks")


def _add(writer: GGUFWriter, v: Vocabulary) -> None:
    writer.add_tokenizer_model(v.model)
    if v.pre:
        writer.add_tokenizer_pre(v.pre)
    writer.add_token_list(v.tokens)
    writer.add_token_types(v.types)
    if v.scores is not None:
        writer.add_token_scores(v.scores)
    if v.space_prefix is not None:
        writer.add_add_space_prefix(v.space_prefix)
    v.special.add_to_gguf(writer, quiet=True)
    if v.end_of_turn is not None and "eot" not in v.special.special_token_ids:
        writer.add_eot_token_id(v.end_of_turn)


def add_vocabulary(writer: GGUFWriter, folder: Path, vocab: int, pre: str | None) -> None:
    """The tokenizer of a folder, padded to vocab tokens. pre: the name to give its pre-tokenizer (None: find it)."""
    try:
        _add(writer, _read(folder, vocab, pre))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of the gguf package, which trusts what it reads
        raise BadCheckpoint(f"the tokenizer files of {folder} are damaged ({type(error).__name__}: {error}); download them again") from None
