// SPDX-License-Identifier: MIT
// The token list of a GGUF file: stored texts, types, lookup by text, and the bytes each token stands for.
#ifndef TERN_DECODE_VOCAB_H
#define TERN_DECODE_VOCAB_H

#include "decode/byte_level.h"
#include "format/gguf.h"

typedef enum tern_token_type { // as in tokenizer.ggml.token_type
    TERN_TOKEN_NORMAL = 1,     // text as tern_text_kind says
    TERN_TOKEN_UNKNOWN = 2,
    TERN_TOKEN_CONTROL = 3,      // plain text; recognized in a prompt on request only
    TERN_TOKEN_USER_DEFINED = 4, // plain text; recognized always
    TERN_TOKEN_UNUSED = 5,
    TERN_TOKEN_BYTE = 6 // SentencePiece's <0xXX>
} tern_token_type;

typedef enum tern_text_kind {
    TERN_TEXT_BYTE_LEVEL, // tokens are in GPT-2's alphabet of 256 characters that stand for bytes
    TERN_TEXT_SPM         // tokens are UTF-8 with U+2581 for a space, and <0xXX> for single bytes
} tern_text_kind;

#define TERN_SPM_SPACE "\xE2\x96\x81"                      // U+2581
enum { TERN_SPM_SPACE_BYTES = 3, TERN_SPM_BYTE_TEXT = 6 }; // the latter: of "<0xXX>"

// The tag spares most looks at a text that is another one: those are misses of the cache.
typedef struct tern_vocab_slot {
    uint32_t tag; // bits of the hash that the slot's place does not tell
    int32_t id;   // -1: empty
} tern_vocab_slot;

typedef struct tern_vocab {
    const tern_allocator *allocator;
    size_t n;                      // 1..INT32_MAX
    tern_gguf_string *texts;       // [n], inside the mapping
    uint8_t *types;                // [n], tern_token_type
    bool *byte_level;              // [n]: NORMAL, and the text decodes to bytes through the byte-level alphabet
    size_t *offsets;               // [n + 1]: token i stands for bytes[offsets[i] .. offsets[i + 1])
    char *bytes;                   // one arena for all tokens
    size_t n_arena;                // bytes allocated for it
    struct tern_vocab_slot *slots; // by the hash of the stored text; n_slots is a power of two
    size_t n_slots;                //
    int32_t byte_ids[TERN_BYTES];  // token of each single byte; -1: the vocabulary lacks it
} tern_vocab;

// Reads tokenizer.ggml.tokens and token_type. On failure nothing is left allocated. Errors: FORMAT, MEMORY.
tern_status tern_vocab_load(tern_vocab *vocab, const tern_gguf *gguf, tern_text_kind kind, const tern_allocator *allocator,
                            tern_error *err);
void tern_vocab_free(tern_vocab *vocab);

// What a token stands for.
static inline tern_gguf_string tern_vocab_bytes(const tern_vocab *vocab, int32_t id) {
    return (tern_gguf_string){vocab->bytes + vocab->offsets[id], vocab->offsets[id + 1] - vocab->offsets[id]};
}

// Id of the token whose stored text is a followed by b (nb may be 0); -1 if there is none.
int32_t tern_vocab_find(const tern_vocab *vocab, const char *a, size_t na, const char *b, size_t nb);
// The ids of a, of b, and of a followed by b.
void tern_vocab_find_pair(const tern_vocab *vocab, const char *a, size_t na, const char *b, size_t nb, int32_t ids[3]);
// Id of the byte-level token that stands for exactly these bytes; -1 if there is none.
int32_t tern_vocab_find_bytes(const tern_vocab *vocab, const char *bytes, size_t size);

#endif
