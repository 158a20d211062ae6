#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes token ids of hostile strings, computed by the packages `tokenizers` (Hugging Face) and `sentencepiece`, for tests to compare.

    check_tokenizer.py small OUT [--strings N]            a vocabulary of its own with ~500 merges: the checked-in fixture
    check_tokenizer.py model GGUF OUT [--strings N]       the vocabulary of a model file
    TERN_TOKENIZER_FIXTURE=OUT build/release/tests/test_tokenizer
    check_tokenizer.py spm OUT [--strings N]              a SentencePiece vocabulary of its own: tests/data/tokenizer_spm.txt
    TERN_SPM_FIXTURE=OUT build/release/tests/test_spm

Needs: pip install tokenizers sentencepiece gguf. The fixture is text, one record a line:
    T type text     a token, in order of ids          M left right      a merge, in order of ranks
                                                      R score           the score of a token, in order of ids (SentencePiece)
    P name...       the pre-tokenizers                S hex             a string (UTF-8), followed by one I line per pre-tokenizer
    I ids           expected ids with special tokens recognized
"""
import argparse
import json
import pathlib
import random
import unicodedata

import tokenizers
from tokenizers import Regex, pre_tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
PRE = ["smollm", "gpt-2", "llama-bpe", "qwen2"]
# As published in tokenizer.json of Llama 3 and of Qwen 2, which differ in the digits.
MODERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

CORPUS = """The quick brown fox jumps over the lazy dog. It's what they're saying, isn't it? We'll see; I've no idea, I'd say.
In 1998 there were 1,234,567 of them (about 12.5%). Don't PANIC: the answer is 42, they'd said, and I'm sure you'll agree!
for (int i = 0; i < n; i++) { sum += x[i] * w[i]; }    // a comment
def main():\n    return {"key": [1, 2, 3], 'other': None}\n\n\n
Les élèves ont déjà mangé. Größe, naïve, façade, über. Привет, мир! Как дела? 你好，世界。こんにちは世界 안녕하세요 مرحبا بالعالم שלום
the then there these they that this with which what when where while would could should other another mother further
People make the world they live in; the world makes the people. She was reading about the history of the old city when
the rain began, and everyone on the street started running towards the station. Nothing was ever quite the same after that day.
Water boils at a hundred degrees; light travels about three hundred thousand kilometres every second through empty space.
SELECT name, count(*) FROM users WHERE id > 10 GROUP BY name; <html><body class="main"></body></html> $ git commit -m "fix"
information nation station relation international interesting interest computer computing compute program programming
"""


def alphabet():
    """GPT-2's table: byte -> the character that stands for it."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {b: chr(b) for b in plain}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(plain))
    return table


def small_vocabulary():
    letters = alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=256 + 500, initial_alphabet=list(letters.values()), show_progress=False,
                                             max_token_length=16)
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.train_from_iterator([CORPUS] * 3, trainer)
    trained = json.loads(model.to_str())["model"]
    tokens = [t for t, _ in sorted(trained["vocab"].items(), key=lambda item: item[1])]
    types = [NORMAL] * len(tokens)
    # One special token is the beginning of another, and one is user-defined.
    for text, kind in [("<|endoftext|>", CONTROL), ("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), ("<|im", CONTROL),
                       ("[TOOL]", USER_DEFINED)]:
        tokens.append(text)
        types.append(kind)
    return tokens, types, [tuple(m) for m in trained["merges"]]


SPM_USER = ["[TOOL]", "\u2581\u2581\u2581", "<|im", "<|im_start|>"]


def with_unused(proto, ids):
    """The model with these pieces of the type UNUSED, which are merged on but never left. A piece is field 1 of the message, its type
    field 3 of the piece."""
    def varint(at):
        value = shift = 0
        while True:
            value, shift, at = value | (proto[at] & 0x7F) << shift, shift + 7, at + 1
            if proto[at - 1] < 0x80:
                return value, at

    piece_tag, type_unused, out, at, i = 0x0A, bytes([3 << 3, UNUSED]), b"", 0, 0
    while at < len(proto):
        tag, start = proto[at], at
        size, at = varint(at + 1)  # every field of a model has a length
        body, at = proto[at:at + size], at + size
        if tag == piece_tag and i in ids:
            body += type_unused
            assert len(body) < 0x80
            out += bytes([tag, len(body)]) + body
        else:
            out += proto[start:at]
        i += tag == piece_tag
    return out


def spm_vocabulary():
    """A SentencePiece processor, and its tokens, types and scores."""
    import io

    import sentencepiece
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.split("\n") * 3), model_writer=model, model_type="bpe", vocab_size=800, byte_fallback=True,
        user_defined_symbols=SPM_USER, control_symbols=["<ctl>"], normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=True, split_by_number=False, split_by_unicode_script=False, character_coverage=0.995,
        max_sentencepiece_length=20, minloglevel=2)
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(trained.get_piece_size())
    normal = [i for i in ids if not (trained.is_unknown(i) or trained.is_control(i) or trained.is_byte(i)) and trained.id_to_piece(i) not in (*SPM_USER, "\u2581")]
    processor = sentencepiece.SentencePieceProcessor(model_proto=with_unused(model.getvalue(), set(normal[::5])))

    def kind(i):
        if processor.is_unknown(i): return UNKNOWN
        if processor.is_control(i): return CONTROL
        if processor.is_byte(i): return BYTE
        if processor.is_unused(i): return UNUSED
        return USER_DEFINED if processor.id_to_piece(i) in SPM_USER else NORMAL

    return processor, [processor.id_to_piece(i) for i in ids], [kind(i) for i in ids], [processor.get_score(i) for i in ids]


def write_spm(path, n_strings, seed):
    processor, tokens, types, scores = spm_vocabulary()
    lines = [f"T {k} {t}" for t, k in zip(tokens, types)] + [f"R {s!r}" for s in scores] + ["P spm"]
    strings = list(hostile_strings(n_strings, ["[TOOL]", "<|im", "<|im_start|>", "\u2581", "   "], seed))
    for string in strings:
        lines += ["S " + string.encode().hex(), "I " + " ".join(map(str, processor.encode(string)))]
    pathlib.Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(tokens)} tokens, {len(strings)} strings")


def model_vocabulary(path):
    from gguf import GGUFReader
    fields = GGUFReader(path).fields
    return (fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents(),
            [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()])


def reference(name, tokens, types, merges):
    vocab = {t: i for i, t in enumerate(tokens)}
    tok = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges, ignore_merges=name == "llama-bpe"))
    if name == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    elif name == "gpt-2":
        steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    else:
        digits = "{1,3}" if name == "llama-bpe" else ""
        steps = [pre_tokenizers.Split(Regex(MODERN % digits), behavior="isolated"),
                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tok.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tok.add_special_tokens([t for t, k in zip(tokens, types) if k == CONTROL])
    tok.add_tokens([tokenizers.AddedToken(t, normalized=False) for t, k in zip(tokens, types) if k == USER_DEFINED])
    return tok


def assigned(code):
    # Letters newer than the Unicode version of either library are split differently; Python's table here is 14.0, as PCRE2 10.42's.
    return not 0xD800 <= code < 0xE000 and unicodedata.category(chr(code)) not in ("Cn", "Co")


def hostile_strings(count, specials, seed):
    rng = random.Random(seed)
    words = CORPUS.split(" ")
    spaces = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2009", "\u0085", "\u180e", "\u200b", "\x1c", "\v", "\u2028"]
    endings = ["'s", "'S", "'t", "'re", "'RE", "'Ve", "'m", "'LL", "'d", "'\u017f", "'", "''s", "\u2019s", "'\u212a", "'lL"]
    blocks = [(0x00, 0x80), (0x80, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80), (0x1100, 0x1200),
              (0x2000, 0x2C00), (0x3000, 0x3400), (0x4E00, 0xA000), (0xAC00, 0xD7B0), (0xFB00, 0xFE10), (0xFE10, 0x10000),
              (0x10000, 0x11000), (0x1D400, 0x1D800), (0x1F000, 0x1FB00), (0x20000, 0x20100), (0, 0x20000)]

    def letter():
        while True:
            code = rng.randrange(*rng.choice(blocks))
            if assigned(code):
                return chr(code)

    def piece():
        kind = rng.randrange(10)
        if kind == 0: return rng.choice(words)
        if kind == 1: return rng.choice(spaces) * rng.choice([1, 1, 2, 3, 7])
        if kind == 2: return rng.choice(["a", "don", "I", " x", "é", "1", " "]) + rng.choice(endings)
        if kind == 3: return str(rng.randrange(10 ** rng.randrange(1, 12)))
        if kind == 4: return letter() * rng.choice([1, 2, 5])
        if kind == 5: return "".join(letter() for _ in range(rng.randrange(1, 9)))
        if kind == 6: return rng.choice(specials)
        if kind == 7: return rng.choice(specials)[:rng.randrange(1, 9)]
        if kind == 8: return "".join(rng.choice("!?.,;:-_#*()[]{}<|>/\\\"'`~@$%^&+=") for _ in range(rng.randrange(1, 12)))
        return " " + rng.choice(words).strip()

    yield from ["", " ", "  ", "\n", "a", "'s", " 's", "a  b", "a \n b", "a\n\n  b  \n", "  1", " 1 2  3", "x\u00a0\u00a0y", "'S",
                "\u1e9e'SS", "1\u00b2\u00bd\u0663\u4e09", "<|im_start|>user\nHi<|im_end|>\n", "<|im_start<|im", "\r\n\r\n x", "!!\r\n\n z",
                "e\u0301 e\u0301\u0301", "\x00\x00", "the" * 60, "aaaaaaaa" * 30, " " * 200, "\n" * 70 + " a"]
    for _ in range(count):
        yield "".join(piece() for _ in range(rng.choice([1, 2, 3, 4, 8])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=["small", "model", "spm"])
    parser.add_argument("paths", nargs="+", metavar="PATH", help="[GGUF] OUT")
    parser.add_argument("--strings", type=int, default=380)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    if len(args.paths) != (2 if args.source == "model" else 1):
        parser.error("give OUT for small and spm, and GGUF OUT for model")
    if args.source == "spm":
        return write_spm(args.paths[0], args.strings, args.seed)
    tokens, types, merges = small_vocabulary() if args.source == "small" else model_vocabulary(args.paths[0])
    known = {b for b, c in alphabet().items() if c in set(tokens)}
    specials = [t for t, k in zip(tokens, types) if k in (CONTROL, USER_DEFINED)]
    oracles = [reference(name, tokens, types, merges) for name in PRE]
    lines = [f"T {k} {t}" for t, k in zip(tokens, types)] + [f"M {a} {b}" for a, b in merges] + ["P " + " ".join(PRE)]
    n_strings = 0
    for string in hostile_strings(args.strings, specials, args.seed):
        data = string.encode()
        if not set(data) <= known:  # the reference would drop such bytes
            continue
        n_strings += 1
        lines.append("S " + data.hex())
        lines += ["I " + " ".join(map(str, tok.encode(string, add_special_tokens=False).ids)) for tok in oracles]
    pathlib.Path(args.paths[-1]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{args.paths[-1]}: {len(tokens)} tokens, {len(merges)} merges, {n_strings} strings for each of {', '.join(PRE)}")


if __name__ == "__main__":
    main()
