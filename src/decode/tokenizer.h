// SPDX-License-Identifier: MIT
// GPT-2 style byte-level BPE read from GGUF metadata, with the pre-tokenizer patterns that model families use (PCRE2).
#ifndef TERN_DECODE_TOKENIZER_H
#define TERN_DECODE_TOKENIZER_H

#include "format/gguf.h"

typedef struct tern_tokenizer tern_tokenizer;

// Reads tokenizer.ggml.{model,pre,tokens,token_type,merges,bos_token_id,eos_token_id,eot_token_id,add_bos_token}. The gguf must
// outlive the tokenizer. Errors: UNSUPPORTED (model or pre-tokenizer; the message lists the known ones), FORMAT, MEMORY.
tern_status tern_tokenizer_create(tern_tokenizer **out, const tern_gguf *gguf, const tern_allocator *allocator,
                                  tern_error *err);
void tern_tokenizer_destroy(tern_tokenizer *tok);

const char *tern_tokenizer_name(const tern_tokenizer *tok); // "gpt2/smollm"
size_t tern_tokenizer_vocab(const tern_tokenizer *tok);
int32_t tern_tokenizer_find(const tern_tokenizer *tok, const char *text); // id of a token by its stored text, -1 if absent
bool tern_tokenizer_is_end(const tern_tokenizer *tok, int32_t id); // eos, eot and the end-of-turn tokens of known templates

int32_t tern_tokenizer_eos(const tern_tokenizer *tok); // -1 if the file names none

// As tern_tokenize in include/tern/decode.h. Thread-safe (scratch is allocated per call with malloc). Takes O(size log size)
// time. Special tokens: the leftmost, and of those the longest; user-defined ones are recognized without parse_special too.
// Errors: ARG (NULL text or ids, size above INT32_MAX, or max too small), MEMORY, UNSUPPORTED (text has a byte that the
// vocabulary has no token for: SmolLM2 lacks 21, most of them invalid in UTF-8).
tern_status tern_tokenizer_encode(const tern_tokenizer *tok, const char *text, size_t size, bool parse_special, bool add_bos,
                                  int32_t *ids, size_t max, size_t *n);
// A text in parts, of which only the special ones may hold control tokens. It is encoded as a whole: a token other than these
// may reach over the end of a part.
typedef struct tern_text_part {
    const char *data;
    size_t size;
    bool special;
} tern_text_part;
tern_status tern_tokenizer_encode_parts(const tern_tokenizer *tok, const tern_text_part parts[], size_t n_parts, bool add_bos,
                                        int32_t *ids, size_t max, size_t *n);
// As tern_token_bytes.
tern_status tern_tokenizer_bytes(const tern_tokenizer *tok, int32_t id, bool special, const char **bytes, size_t *size);

#endif
