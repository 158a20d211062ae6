#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of tools/convert_bitnet.py on tiny checkpoints: trits and scales, names and keys, tokenizers, refusals.

usage: test_convert_bitnet.py TOOLS_DIR [--tern TERN] [unittest arguments]
"""
import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(sys.argv[1])
TERN = None
if sys.argv[2:3] == ["--tern"]:
    TERN = sys.argv[3]
    del sys.argv[2:4]
sys.path.insert(0, str(TOOLS))

import gguf
import numpy as np

import convert_bitnet
import hf_bitnet
import hf_checkpoint
import hf_folder
from hf_folder import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, PADDED_VOCAB, VOCAB, Bits16, Checkpoint, to_bf16, to_float
from random_vocab import SPECIALS
from reference import Reference

TYPES = ("TQ2_0", "TQ1_0", "I2_S")
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
I2_S = 36


def gguf_name(source):
    _, _, layer, part = source.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.weight"


def interleaved(rows, heads):
    """Rows of each head reordered so that what was i and i + half stands at 2i and 2i + 1."""
    half = len(rows) // heads // 2
    return rows[[2 * half * head + i + half * second for head in range(heads) for i in range(half) for second in (0, 1)]]


def expected_trits(checkpoint, source):
    trits, _ = checkpoint.ternary[source]
    turned = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(source.rpartition(".")[2]) if checkpoint.family == "llama" else None
    return interleaved(trits, turned) if turned else trits


def read_tensors(path):
    """Types, shapes and bytes of a file's tensors; read here because the gguf package refuses files with I2_S."""
    data = path.read_bytes()
    at = 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def skip(kind):
        nonlocal at
        if kind == 8:
            size = take("Q")
            at += size
        elif kind == 9:
            kind, n = take("IQ")
            for _ in range(n):
                skip(kind)
        else:
            at += {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}[kind]

    magic, version, n_tensors, n_keys = take("4sIQQ")
    assert (magic, version) == (b"GGUF", 3)
    for _ in range(n_keys):
        skip(8)
        skip(take("I"))
    entries = []
    for _ in range(n_tensors):
        name = take(f"{take('Q')}s").decode()
        dims = [take("Q") for _ in range(take("I"))]
        entries.append((name, dims[::-1], *take("IQ")))
    start = -(-at // 32) * 32
    ends = [start + offset for *_, offset in entries[1:]] + [len(data)]
    return {name: (kind, dims, data[start + offset:end]) for (name, dims, kind, offset), end in zip(entries, ends)}


def decode_i2_s(rows, k, data):
    """Trits and scale, element by element as the layout is described."""
    codes = np.frombuffer(data, np.uint8, rows * k // 4)
    e = np.arange(rows * k)
    block, within = e // 128, e % 128
    trits = (codes[block * 32 + within % 32] >> (6 - 2 * (within // 32)) & 3).astype(np.int8) - 1
    return trits.reshape(rows, k), np.frombuffer(data, np.float32, 1, rows * k // 4)[0]


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.count = 0

    def new_folder(self):
        self.count += 1
        return self.folder / str(self.count) / "tiny"

    def run_tool(self, *arguments):
        """What sys.exit was given (None: success), and what was printed."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                convert_bitnet.main([str(a) for a in arguments])
            except SystemExit as end:
                return end.code, out.getvalue()
        return None, out.getvalue()

    def convert(self, checkpoint, *options, shards=1):
        source = checkpoint.write(self.new_folder(), shards)
        path = source.parent / "out.gguf"
        failure, printed = self.run_tool(source, path, *options)
        self.assertIsNone(failure, printed)
        return path

    def refuses(self, source, *words, options=()):
        """One line that says these words, and no file."""
        path = source.parent / "out.gguf"
        failure, printed = self.run_tool(source, path, *options)
        self.assertEqual(printed, "")
        self.assertIsInstance(failure, str)
        self.assertTrue(failure.startswith("convert_bitnet: "), failure)
        self.assertEqual(len(failure.splitlines()), 1, failure)
        for word in words:
            self.assertIn(word, failure)
        self.assertEqual([p.name for p in source.parent.iterdir() if p != source], [])


class Weights(Case):
    def check_trits(self, checkpoint, path, kind):
        tensors = read_tensors(path)
        for source, (_, scale) in checkpoint.ternary.items():
            trits = expected_trits(checkpoint, source)
            stored, dims, data = tensors[gguf_name(source)]
            self.assertEqual(dims, list(trits.shape))
            if kind == "I2_S":
                self.assertEqual(stored, I2_S)
                found, found_scale = decode_i2_s(*trits.shape, data)
                np.testing.assert_array_equal(found, trits)
                self.assertEqual(found_scale, scale)
            else:
                self.assertEqual(stored, gguf.GGMLQuantizationType[kind])
                block, size = gguf.GGML_QUANT_SIZES[stored]
                packed = np.frombuffer(data, np.uint8, trits.size // block * size).reshape(len(trits), -1)
                np.testing.assert_array_equal(gguf.quants.dequantize(packed, stored), trits * np.float32(np.float16(scale)))

    def test_packed_and_master_weights_become_the_same_file_with_their_trits_and_scales(self):
        for family in ("bitnet", "llama"):
            for kind in TYPES:
                with self.subTest(family=family, type=kind):
                    checkpoint = Checkpoint(family)
                    master = self.convert(checkpoint, "--type", kind)
                    self.check_trits(checkpoint, master, kind)
                    self.assertEqual(self.convert(checkpoint.pack(), "--type", kind).read_bytes(), master.read_bytes())

    def test_master_weights_in_any_float_type_are_quantized(self):
        for convert in (lambda x: x, lambda x: x.astype(np.float16), to_bf16):
            checkpoint = Checkpoint("llama")
            for source in checkpoint.ternary:
                w = convert(np.random.default_rng(5).standard_normal(checkpoint.ternary[source][0].shape, np.float32) * np.float32(0.02))
                checkpoint.tensors[f"{source}.weight"] = w
                checkpoint.ternary[source] = hf_folder.absmean(to_float(w))
            self.check_trits(checkpoint, self.convert(checkpoint, "--type", "I2_S"), "I2_S")

    def test_scales_are_multiplied_or_divided_by_as_linear_class_says(self):
        want = Checkpoint("llama")
        cases = [("autobitlinear", "scale", ()), ("bitlinear", "inverse", ()), (None, "inverse", ()),
                 ("bitlinear", "scale", ("--weight-scale", "multiply")), ("autobitlinear", "inverse", ("--weight-scale", "divide"))]
        for linear_class, stored, options in cases:
            with self.subTest(linear_class=linear_class, stored=stored):
                checkpoint = Checkpoint("llama").pack(stored)
                checkpoint.config["quantization_config"]["linear_class"] = linear_class
                if linear_class is None:
                    del checkpoint.config["quantization_config"]["linear_class"]
                for source in want.ternary:
                    value = checkpoint.tensors[f"{source}.weight_scale"][0]
                    want.ternary[source] = (want.ternary[source][0], value if stored == "scale" else np.float32(1) / value)
                self.check_trits(want, self.convert(checkpoint, "--type", "I2_S", *options), "I2_S")

    def test_scales_that_seem_inverted_are_refused_with_the_option_that_helps(self):
        for linear_class, stored, remedy in (("autobitlinear", "inverse", "divide"), ("bitlinear", "scale", "multiply")):
            checkpoint = Checkpoint("llama").pack(stored)
            checkpoint.config["quantization_config"]["linear_class"] = linear_class
            self.refuses(checkpoint.write(self.new_folder()), linear_class, f"--weight-scale {remedy}")

    def test_the_first_bitnet_models_keep_the_order_of_their_rows(self):
        checkpoint = Checkpoint("1bitllm")
        self.check_trits(checkpoint, self.convert(checkpoint), "TQ2_0")

    def test_trits_stored_as_floats_beside_a_scale_are_taken_as_they_are(self):
        checkpoint = Checkpoint("bitnet").pack()
        for source, (trits, _) in checkpoint.ternary.items():
            checkpoint.tensors[f"{source}.weight"] = to_bf16(trits)
        self.check_trits(checkpoint, self.convert(checkpoint), "TQ2_0")

    def test_a_block_of_zeros_keeps_the_scale_of_its_matrix(self):
        checkpoint = Checkpoint("llama").pack()
        source = "model.layers.0.mlp.up_proj"
        trits, scale = checkpoint.ternary[source]
        checkpoint.tensors[f"{source}.weight"] = hf_folder.pack(np.where(np.arange(len(trits))[:, None] < 3, 0, trits).astype(np.int8))
        for kind in ("TQ1_0", "TQ2_0"):
            _, _, data = read_tensors(self.convert(checkpoint, "--type", kind))[gguf_name(source)]
            _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
            scales = np.frombuffer(data, np.uint8, trits.size // 256 * size).reshape(-1, size)[:, -2:].copy().view(np.float16)
            self.assertEqual(np.unique(scales), [np.float16(scale)])

    def test_a_matrix_of_zeros_is_converted(self):
        checkpoint = Checkpoint("llama")
        source = "model.layers.0.mlp.up_proj"
        zeros = np.zeros_like(checkpoint.ternary[source][0])
        checkpoint.tensors[f"{source}.weight"] = to_bf16(zeros)
        checkpoint.ternary[source] = zeros, np.float32(1e-5)
        self.check_trits(checkpoint, self.convert(checkpoint), "TQ2_0")

    def test_rows_that_do_not_fill_the_last_bytes_are_unpacked(self):
        for rows in range(1, 10):
            trits = np.random.default_rng(rows).integers(-1, 2, (rows, 3), np.int8)
            np.testing.assert_array_equal(hf_bitnet.unpack(hf_folder.pack(trits), rows, "w"), trits)

    def test_small_pieces_make_the_same_file(self):
        checkpoint = Checkpoint("llama")
        whole = self.convert(checkpoint).read_bytes()
        self.addCleanup(setattr, hf_checkpoint, "CHUNK_BYTES", hf_checkpoint.CHUNK_BYTES)
        hf_checkpoint.CHUNK_BYTES = 50 * 4 * HIDDEN  # 50 rows, or fewer of wider ones
        self.assertEqual(self.convert(checkpoint).read_bytes(), whole)

    def test_shards_make_the_same_file(self):
        checkpoint = Checkpoint("bitnet").pack()
        self.assertEqual(self.convert(checkpoint, shards=3).read_bytes(), self.convert(checkpoint).read_bytes())


class Model(Case):
    def read(self, path):
        reader = gguf.GGUFReader(path)
        return {key: field.contents() for key, field in reader.fields.items()}, {t.name: t for t in reader.tensors}

    def test_sizes_and_names_are_those_of_the_family(self):
        for family, arch in (("bitnet", "bitnet-b1.58"), ("1bitllm", "bitnet"), ("llama", "llama")):
            meta, tensors = self.read(self.convert(Checkpoint(family)))
            want = {"block_count": LAYERS, "embedding_length": HIDDEN, "feed_forward_length": hf_folder.FF, "context_length": 128,
                    "vocab_size": PADDED_VOCAB, "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
                    "attention.key_length": HEAD_DIM, "attention.value_length": HEAD_DIM, "rope.dimension_count": HEAD_DIM,
                    "rope.freq_base": 3000.0, "attention.layer_norm_rms_epsilon": float(np.float32(2e-5))}
            self.assertEqual({key: meta[f"{arch}.{key}"] for key in want}, want)
            self.assertEqual((meta["general.architecture"], meta["general.name"]), (arch, "tiny"))
            norms = ["attn_norm", "ffn_norm"] + (["attn_sub_norm", "ffn_sub_norm"] if family != "llama" else [])
            names = {f"blk.{i}.{name}.weight" for i in range(LAYERS) for name in [*NAMES.values(), *norms]}
            heads = {"token_embd.weight"} | ({"output.weight"} if family == "llama" else set())
            self.assertEqual(set(tensors), names | heads | {"output_norm.weight"})

    def test_sub_norms_are_told_apart(self):
        for family in ("bitnet", "1bitllm"):
            checkpoint = Checkpoint(family)
            _, tensors = self.read(self.convert(checkpoint))
            for name, source in zip(("attn_sub_norm", "ffn_sub_norm"), hf_folder.SUB_NORMS[family]):
                np.testing.assert_array_equal(tensors[f"blk.1.{name}.weight"].data, to_float(checkpoint.tensors[f"model.layers.1.{source}.weight"]))

    def test_floats_are_kept_and_the_head_has_its_type(self):
        checkpoint = Checkpoint("llama")
        embedding = to_float(checkpoint.tensors["model.embed_tokens.weight"])
        for head_type in ("F16", "BF16", "F32", "Q8_0"):
            _, tensors = self.read(self.convert(checkpoint, "--head-type", head_type))
            found = tensors["token_embd.weight"]
            self.assertEqual((found.tensor_type.name, tensors["output.weight"].tensor_type.name), (head_type, head_type))
            np.testing.assert_allclose(gguf.quants.dequantize(found.data, found.tensor_type), embedding, atol=5e-3 if head_type == "Q8_0" else 0)
            norm = to_float(checkpoint.tensors["model.layers.1.post_attention_layernorm.weight"])
            np.testing.assert_array_equal(tensors["blk.1.ffn_norm.weight"].data, norm)

    def llama_with_float16_scales(self):
        checkpoint = Checkpoint("llama")
        for source, (trits, scale) in checkpoint.ternary.items():
            checkpoint.ternary[source] = (trits, np.float32(np.float16(scale)))
        return checkpoint.pack()

    def test_a_llama_computes_what_its_checkpoint_does(self):
        checkpoint = self.llama_with_float16_scales()
        tokens = [1, 299, 42, 42, 7, 180, 13, 255]
        for kind in ("TQ1_0", "TQ2_0"):
            found, _ = Reference(str(self.convert(checkpoint, "--type", kind)), dtype=np.float64).forward(tokens)
            want = checkpoint.logits(tokens)
            np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())

    def test_biases_are_turned_with_their_rows(self):
        checkpoint = Checkpoint("llama")
        bias = np.arange(HEADS * HEAD_DIM, dtype=np.float32)
        checkpoint.tensors["model.layers.0.self_attn.q_proj.bias"] = bias
        checkpoint.tensors["model.layers.0.self_attn.v_proj.bias"] = bias[:KV_HEADS * HEAD_DIM]
        _, tensors = self.read(self.convert(checkpoint))
        np.testing.assert_array_equal(tensors["blk.0.attn_q.bias"].data, interleaved(bias, HEADS))
        np.testing.assert_array_equal(tensors["blk.0.attn_v.bias"].data, bias[:KV_HEADS * HEAD_DIM])

    def test_a_tied_head_is_not_stored_twice(self):
        checkpoint = Checkpoint("llama")
        checkpoint.config["tie_word_embeddings"] = True  # and lm_head.weight is there, as some checkpoints have it
        _, tensors = self.read(self.convert(checkpoint))
        self.assertNotIn("output.weight", tensors)

    def test_stretched_rotary_positions_are_written_as_gguf_says_them(self):
        checkpoint = Checkpoint("llama")
        checkpoint.config["rope_scaling"] = {"type": "linear", "factor": 4.0}
        meta, _ = self.read(self.convert(checkpoint))
        self.assertEqual((meta["llama.rope.scaling.type"], meta["llama.rope.scaling.factor"]), ("linear", 4.0))
        rope = {"rope_type": "llama3", "rope_theta": 3000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64}
        for key in ("rope_scaling", "rope_parameters"):
            checkpoint.config["rope_scaling"] = None
            checkpoint.config[key] = rope
            meta, tensors = self.read(self.convert(checkpoint))
            self.assertEqual(meta["llama.rope.freq_base"], 3000.0)
            for i, found in enumerate(tensors["rope_freqs.weight"].data):
                wave = 2 * np.pi * 3000.0 ** (2 * i / HEAD_DIM)
                smooth = (64 / wave - 1) / (4 - 1)
                want = 1 if wave < 64 / 4 else 8 if wave > 64 / 1 else 1 / ((1 - smooth) / 8 + smooth)
                self.assertAlmostEqual(found, want, delta=1e-6 * want)

    @unittest.skipIf(TERN is None, "no tern command was given")
    def test_tern_writes_the_same_text_with_every_type_of_a_converted_model(self):
        for family in ("llama", "bitnet"):
            texts = set()
            for kind in ("TQ1_0", "TQ2_0", "I2_S"):
                path = self.convert(Checkpoint(family).pack(), "--type", kind)
                done = subprocess.run([TERN, "generate", "-m", path, "-p", "the end", "-n", "12", "--json"], capture_output=True, text=True,
                                      env=os.environ | {"TERN_TUNE": "off"})
                self.assertEqual(done.returncode, 0, done.stderr)
                texts.add(json.loads(done.stdout)["text"])
            self.assertEqual(len(texts), 1, texts)

    @unittest.skipIf(TERN is None, "no tern command was given")
    def test_tern_tunes_for_the_matrices_of_i2_s(self):
        path = self.convert(Checkpoint("bitnet").pack(), "--type", "I2_S")
        done = subprocess.run([TERN, "tune", "-m", path, "-t", "1", "--dry-run", "--json"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        results = json.loads(done.stdout)["results"]
        self.assertIn((hf_folder.HIDDEN, hf_folder.HIDDEN), {(r["n"], r["k"]) for r in results})
        self.assertEqual({r["scale_block"] for r in results}, {0})  # this type has no others


class Tokenizer(Case):
    def fields(self, checkpoint, *options):
        reader = gguf.GGUFReader(self.convert(checkpoint, *options))
        return {key.removeprefix("tokenizer."): field.contents() for key, field in reader.fields.items() if key.startswith("tokenizer.")}

    def test_a_byte_level_tokenizer_keeps_its_tokens_merges_and_special_tokens(self):
        checkpoint = Checkpoint("bitnet")
        found = self.fields(checkpoint)
        vocab = checkpoint.tokenizer["model"]["vocab"]
        n = len(vocab)
        kinds = gguf.TokenType
        self.assertEqual(found["ggml.tokens"], [*vocab, *SPECIALS, "<tool>", "[PAD301]", "[PAD302]", "[PAD303]"])
        self.assertEqual(found["ggml.token_type"], [kinds.NORMAL] * n + [kinds.CONTROL] * 3 + [kinds.USER_DEFINED] + [kinds.UNUSED] * 3)
        self.assertEqual(found["ggml.merges"], [" ".join(pair) for pair in checkpoint.tokenizer["model"]["merges"]])
        self.assertEqual((found["ggml.model"], found["ggml.pre"]), ("gpt2", "llama-bpe"))
        self.assertEqual([found[f"ggml.{key}_token_id"] for key in ("bos", "eos", "eot")], [n, n + 1, n + 2])
        self.assertIs(found["ggml.add_bos_token"], True)
        self.assertEqual(found["chat_template"], hf_folder.TEMPLATE)

    def test_pre_tokenizers_are_named_by_what_they_do(self):
        split = lambda pattern: {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        whole, bytes_only = {"type": "ByteLevel", "add_prefix_space": False}, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
        sequence = lambda *parts: {"type": "Sequence", "pretokenizers": list(parts)}
        cases = {"qwen2": sequence(split(hf_folder.LLAMA3_PATTERN.replace("{1,3}", "")), bytes_only), "gpt-2": whole,
                 "smollm": sequence({"type": "Digits", "individual_digits": True}, whole)}
        for name, pre in cases.items():
            checkpoint = Checkpoint("llama")
            checkpoint.tokenizer = hf_folder.tokenizer_json(pre)
            self.assertEqual(self.fields(checkpoint)["ggml.pre"], name)
        others = [sequence(split(hf_folder.LLAMA3_PATTERN + "|x"), bytes_only), sequence({"type": "Punctuation"}, whole),
                  {"type": "ByteLevel", "add_prefix_space": True}, sequence(split(hf_folder.LLAMA3_PATTERN) | {"behavior": "Removed"}, bytes_only)]
        for pre in others:
            checkpoint = Checkpoint("llama")
            checkpoint.tokenizer = hf_folder.tokenizer_json(pre)
            self.refuses(checkpoint.write(self.new_folder()), "tokenizer.json", "--pre NAME")
        self.assertEqual(self.fields(checkpoint, "--pre", "falcon3")["ggml.pre"], "falcon3")

    def test_a_sentencepiece_model_keeps_its_pieces_scores_and_types(self):
        def varint(n):
            return bytes([n & 0x7F | 0x80]) + varint(n >> 7) if n > 0x7F else bytes([n])

        def field(number, payload):
            return varint(number << 3 | 2) + varint(len(payload)) + payload

        def piece(text, score, kind):
            return field(1, field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + varint(3 << 3) + varint(kind))

        pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{b:02X}>", 0.0, 6) for b in range(256)), ("▁t", -1.5, 1), ("▁", -2.0, 1)]
        model = b"".join(piece(*p) for p in pieces)
        trainer, normalizer = field(2, varint(3 << 3) + varint(2)), field(3, varint(3 << 3) + varint(0))
        checkpoint = Checkpoint("llama")
        checkpoint.tokenizer = None
        checkpoint.tokenizer_config = {"bos_token": "<s>", "added_tokens_decoder": {str(len(pieces)): {"content": "<|end|>", "special": True}}}
        checkpoint.config |= {"bos_token_id": 1, "eos_token_id": 2}
        source = checkpoint.write(self.new_folder())
        (source / "tokenizer.model").write_bytes(model + trainer + normalizer)
        failure, _ = self.run_tool(source, source.parent / "out.gguf")
        self.assertIsNone(failure)
        reader = gguf.GGUFReader(source.parent / "out.gguf")
        get = lambda key: reader.fields[f"tokenizer.ggml.{key}"].contents()
        n = len(pieces)
        self.assertEqual(get("tokens"), [text for text, _, _ in pieces] + ["<|end|>"] + [f"[PAD{i}]" for i in range(n + 1, PADDED_VOCAB)])
        self.assertEqual(get("scores")[:n], [score for _, score, _ in pieces])
        self.assertEqual(get("token_type"), [kind for _, _, kind in pieces] + [3] + [5] * (PADDED_VOCAB - n - 1))
        self.assertEqual((get("model"), get("add_space_prefix"), get("bos_token_id"), get("eos_token_id"), get("eot_token_id")), ("llama", False, 1, 2, n))
        (source.parent / "out.gguf").unlink()
        for damaged, words in ((model + trainer[:-1], ["whole SentencePiece"]), (model, ["BPE"]), (model + trainer + field(3, field(2, b"x")), ["table"])):
            (source / "tokenizer.model").write_bytes(damaged)
            self.refuses(source, "tokenizer.model", *words)


class Refusals(Case):
    def refuses_with(self, change, *words, family="llama", packed=True, ff=hf_folder.FF, options=()):
        checkpoint = Checkpoint(family, ff=ff)
        checkpoint = checkpoint.pack() if packed else checkpoint
        change(checkpoint)
        self.refuses(checkpoint.write(self.new_folder()), *words, options=options)

    def test_models_that_gguf_would_compute_otherwise_are_refused(self):
        def config(**values):
            return lambda c: c.config.update(values)

        def quantization(**values):
            return lambda c: c.config["quantization_config"].update(values)

        self.refuses_with(config(model_type="gpt_neox"), "model_type is 'gpt_neox'", "bitnet, llama")
        self.refuses_with(config(model_type=["llama"]), "model_type")
        self.refuses_with(config(quantization_config=None), "quant_method is None", "llama.cpp")
        self.refuses_with(config(quantization_config=7), "quantization_config is not an object")
        self.refuses_with(quantization(quant_method="gptq"), "gptq", family="bitnet")
        self.refuses_with(quantization(use_rms_norm=True), "use_rms_norm")
        self.refuses_with(quantization(modules_to_not_convert=["lm_head", "layers.1.mlp"]), "modules_to_not_convert", "model.layers.1.mlp.gate_proj")
        self.refuses_with(quantization(modules_to_not_convert=7), "modules_to_not_convert is not a list")
        self.refuses_with(quantization(linear_class="new"), "linear_class is 'new'", "--weight-scale")
        self.refuses_with(config(hidden_act="gelu"), "hidden_act is 'gelu'", "silu")
        self.refuses_with(config(hidden_act="silu"), "relu2", family="bitnet")
        self.refuses_with(config(architectures=None, quantization_config={"quant_method": "bitnet"}), "ffn_layernorm", family="1bitllm", packed=False)
        self.refuses_with(config(rope_scaling={"type": "yarn", "factor": 2.0}), "'yarn'", "linear and llama3")
        self.refuses_with(config(rope_scaling={"type": "linear"}), "factor is nan")
        self.refuses_with(config(partial_rotary_factor=0.5), "partial_rotary_factor")
        self.refuses_with(lambda c: c.tensors.update({"model.layers.0.self_attn.q_norm.weight": np.ones(64, np.float32)}), "q_norm")

    def test_wrong_sizes_are_refused(self):
        for key, value in (("hidden_size", None), ("hidden_size", "256"), ("num_attention_heads", 0), ("num_hidden_layers", -1),
                           ("num_key_value_heads", 3), ("vocab_size", True), ("rms_norm_eps", 0), ("rope_theta", "x"), ("rope_theta", 10**400), ("num_hidden_layers", 10**9), ("head_dim", 63)):
            self.refuses_with(lambda c: c.config.update({key: value}), "config.json", key if key != "head_dim" else "63")
        self.refuses_with(lambda c: c.config.update(intermediate_size=768), "gate_proj.weight", "[128, 256]", "[192, 256]")
        self.refuses_with(lambda c: c.config.update(vocab_size=310), "model.embed_tokens.weight", "310")
        self.refuses_with(lambda c: c.config.update(num_hidden_layers=3), "model.layers.2.self_attn.q_proj.weight is missing")
        self.refuses_with(lambda c: c.config.update(num_hidden_layers=1), "model.layers.1.")

    def test_missing_and_damaged_tensors_are_refused_by_name(self):
        for name in ("model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight_scale", "model.norm.weight", "lm_head.weight",
                     "model.layers.0.input_layernorm.weight"):
            self.refuses_with(lambda c: c.tensors.pop(name), name, "missing")
        self.refuses_with(lambda c: c.tensors.pop("model.layers.0.mlp.ffn_sub_norm.weight"), "ffn_sub_norm", "missing", family="bitnet")
        scale = "model.layers.0.mlp.up_proj.weight_scale"
        for value in (np.nan, 0, -1, np.inf):
            self.refuses_with(lambda c: c.tensors.update({scale: np.array([value], np.float32)}), scale)
        self.refuses_with(lambda c: c.tensors.update({scale: np.ones(2, np.float32)}), scale, "one float")
        for value in (1e-9, 1e-6):  # none, and one of few bits
            self.refuses_with(lambda c: c.tensors.update({scale: np.float32([value])}), "blk.0.ffn_up.weight", "float16", "I2_S")
        weight = "model.layers.0.mlp.up_proj.weight"
        self.refuses_with(lambda c: c.tensors[weight].__setitem__((0, 0), 0xFF), weight, "code 3")
        self.refuses_with(lambda c: c.tensors.update({weight: np.full((512, 256), 0.5, np.float32)}), weight, "other floats")
        self.refuses_with(lambda c: c.tensors.update({weight: np.zeros((512, 256), np.int32)}), weight, "I32")
        for name in (weight, "model.embed_tokens.weight", "model.norm.weight"):
            self.refuses_with(lambda c: c.tensors[name].bits.reshape(-1).__setitem__(-1, 0x7FC0), name, "NaN", packed=False)
        self.refuses_with(lambda c: c.tensors["lm_head.weight"].bits.reshape(-1).__setitem__(9, 0x7F00), "lm_head.weight", "--head-type BF16")

    def test_rows_that_no_block_fits_are_refused_with_the_type_that_does(self):
        self.refuses_with(lambda c: None, "blk.0.ffn_down.weight", "384", "256", "pass --type I2_S", ff=384)
        self.refuses_with(lambda c: None, "blk.0.ffn_down.weight", "320", "no type", ff=320, options=["--type", "I2_S"])
        self.assertIn("blk.1.ffn_down.weight", read_tensors(self.convert(Checkpoint("llama", ff=384), "--type", "I2_S")))
        self.refuses_with(lambda c: None, "Q6_K", "Q8_0", options=["--head-type", "Q6_K"])

    def test_damaged_tokenizers_are_refused(self):
        self.refuses_with(lambda c: setattr(c, "tokenizer", None), "tokenizer.json", "tokenizer.model")
        self.refuses_with(lambda c: c.config.update(vocab_size=VOCAB) or c.tensors.update({n: Bits16(c.tensors[n].bits[:VOCAB]) for n in
                          ("model.embed_tokens.weight", "lm_head.weight")}), "token 300", "vocab_size 300")
        self.refuses_with(lambda c: c.tokenizer["added_tokens"].append({"id": 302, "content": "<tool>"}), "'<tool>'", "300 and 302")
        self.refuses_with(lambda c: c.tokenizer["added_tokens"].append({"content": "x"}), "added tokens")
        self.refuses_with(lambda c: c.tokenizer["model"]["merges"].append(["q", "nothing"]), "merge 'q nothing'")
        self.refuses_with(lambda c: c.tokenizer["model"]["vocab"].update({"new": "1"}), "table of ids")
        self.refuses_with(lambda c: c.tokenizer["model"].update(merges=[3]), "damaged")
        self.refuses_with(lambda c: c.tokenizer["model"].pop("merges"), "no merges")
        self.refuses_with(lambda c: c.tokenizer_config.update(chat_template=[3]), "damaged")
        for change in (lambda c: c.tokenizer_config.update(chat_template="\ud800"), lambda c: c.tokenizer["added_tokens"][0].update(content="\ud800")):
            self.refuses_with(change, "download")

    def test_folders_that_are_no_checkpoints_are_refused(self):
        source = Checkpoint("llama").write(self.new_folder(), shards=2)
        shard = source / "model-00001-of-00002.safetensors"
        data = shard.read_bytes()
        for damaged in (b"", data[:5], data[:100], data[:-1], b"\xff" * 8 + data[8:], data.replace(b'"dtype"', b'"dtyqe"')):
            shard.write_bytes(damaged)
            self.refuses(source, shard.name, "download it")
        shard.unlink()
        self.refuses(source, shard.name, "missing")
        (source / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b.safetensors"}}')
        self.refuses(source, "weight_map")
        (source / "model.safetensors.index.json").unlink()
        shard.write_bytes((source / "model-00002-of-00002.safetensors").read_bytes())
        self.refuses(source, "both", "remove")
        for path in source.glob("*.safetensors"):
            path.unlink()
        self.refuses(source, "save_pretrained")
        for text in ("{", "[]"):
            (source / "config.json").write_text(text)
            self.refuses(source, "config.json", "download it again")
        source = self.new_folder()
        source.parent.mkdir()
        self.refuses(source, "config.json is missing")


class Files(Case):
    def test_an_existing_file_is_kept_unless_forced(self):
        source = Checkpoint("llama").write(self.new_folder())
        out = source.parent / "out.gguf"
        out.write_text("mine")
        failure, _ = self.run_tool(source, out)
        self.assertIn("--force", failure)
        self.assertEqual(out.read_text(), "mine")
        failure, _ = self.run_tool(source, out, "--force")
        self.assertIsNone(failure)
        self.assertEqual(out.read_bytes()[:4], b"GGUF")

    def test_a_failure_leaves_the_existing_file_and_no_other(self):
        checkpoint = Checkpoint("llama")
        checkpoint.tensors["lm_head.weight"].bits[-1, -1] = 0x7FC0  # the last tensor
        source = checkpoint.write(self.new_folder())
        out = source.parent / "out.gguf"
        out.write_text("mine")
        failure, _ = self.run_tool(source, out, "--force")
        self.assertIn("NaN", failure)
        self.assertEqual((out.read_text(), sorted(p.name for p in source.parent.iterdir())), ("mine", ["out.gguf", "tiny"]))

    def test_the_command_says_what_it_does_and_wrote(self):
        command = [sys.executable, str(TOOLS.resolve() / "convert_bitnet.py")]
        done = subprocess.run([*command, "--help"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        for word in ("examples:", "--weight-scale", "float16", "I2_S"):
            self.assertIn(word, done.stdout)
        source = Checkpoint("bitnet").write(self.new_folder())
        done = subprocess.run([*command, source], capture_output=True, text=True, cwd=source.parent)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith("tiny-TQ2_0.gguf: bitnet-b1.58, 24 tensors"), done.stdout)
        self.assertIn("float16; the largest relative change", done.stdout)
        self.assertTrue((source.parent / "tiny-TQ2_0.gguf").exists())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
