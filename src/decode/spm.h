// SPDX-License-Identifier: MIT
// SentencePiece's BPE: the characters of a text merge into the token of highest score, whatever the words.
// Source: github.com/google/sentencepiece, bpe_model.cc; scores and types as llama.cpp stores them.
#ifndef TERN_DECODE_SPM_H
#define TERN_DECODE_SPM_H

#include "decode/bpe.h"

// Makes the table of merges from tokenizer.ggml.scores: two tokens merge if their joined text is a token, in the order of its
// score. A character that is no token may still be a part of one: it takes part under an id of its own, TERN_SPM_CHARACTERS +
// its code point, and a byte outside valid UTF-8 under TERN_SPM_LONE_BYTES + byte. Errors: FORMAT, MEMORY, UNSUPPORTED.
enum { TERN_SPM_CHARACTERS = 0x40000000, TERN_SPM_LONE_BYTES = TERN_SPM_CHARACTERS + 0x110000 };
tern_status tern_spm_load(tern_bpe *bpe, const tern_vocab *vocab, const tern_gguf *gguf, const tern_allocator *allocator,
                          tern_error *err);

// Ids of the characters of a text, a space as U+2581; at most `size` of them. Returns how many.
size_t tern_spm_characters(const tern_vocab *vocab, const char *text, size_t size, int32_t *ids);

// The bytes of an id that is no token (>= TERN_SPM_CHARACTERS); returns how many, 1..4.
size_t tern_spm_bytes(int32_t id, uint8_t bytes[4]);

#endif
