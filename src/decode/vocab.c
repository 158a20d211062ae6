// SPDX-License-Identifier: MIT
// Token list: read and checked once at load, so that lookups need no further checks.
#include "decode/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_TYPES "tokenizer.ggml.token_type"

// FNV-1a, continued over pieces of a text.
#define HASH_START UINT64_C(0xCBF29CE484222325)
#define HASH_PRIME UINT64_C(0x100000001B3)

static uint64_t hash_more(uint64_t hash, const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) hash = (hash ^ (uint8_t)text[i]) * HASH_PRIME;
    return hash;
}

static size_t first_slot(const tern_vocab *vocab, uint64_t hash) { return (size_t)(hash ^ hash >> 32) & (vocab->n_slots - 1); }
static uint32_t tag_of(uint64_t hash) { return (uint32_t)(hash >> 32); }

// No token lies further than this behind the slot of its hash: files that would need more, as only those made for it do, are
// refused, so that neither loading nor a lookup takes the time of a walk through the table.
enum { PROBES_MAX = 1024 };
#define NO_SLOT SIZE_MAX

// The slot that holds a followed by b, whose hash this is, or the empty slot where it belongs. At least half of the slots are
// empty.
static size_t find_slot(const tern_vocab *vocab, uint64_t hash, const char *a, size_t na, const char *b, size_t nb) {
    const size_t first = first_slot(vocab, hash);
    for (size_t i = 0; i < PROBES_MAX; i++) {
        const size_t slot = (first + i) & (vocab->n_slots - 1);
        if (vocab->slots[slot].id < 0) return slot;
        if (vocab->slots[slot].tag != tag_of(hash)) continue;
        const tern_gguf_string *text = &vocab->texts[vocab->slots[slot].id];
        if (text->size == na + nb && memcmp(text->data, a, na) == 0 && (nb == 0 || memcmp(text->data + na, b, nb) == 0))
            return slot;
    }
    return NO_SLOT;
}

static int32_t find_id(const tern_vocab *vocab, uint64_t hash, const char *a, size_t na, const char *b, size_t nb) {
    const size_t slot = find_slot(vocab, hash, a, na, b, nb);
    return slot == NO_SLOT ? -1 : vocab->slots[slot].id;
}

int32_t tern_vocab_find(const tern_vocab *vocab, const char *a, size_t na, const char *b, size_t nb) {
    return find_id(vocab, hash_more(hash_more(HASH_START, a, na), b, nb), a, na, b, nb);
}

void tern_vocab_find_pair(const tern_vocab *vocab, const char *a, size_t na, const char *b, size_t nb, int32_t ids[3]) {
    const uint64_t hash_a = hash_more(HASH_START, a, na), hash_b = hash_more(HASH_START, b, nb),
                   hash = hash_more(hash_a, b, nb);
    // Three misses at once instead of one after the other.
    __builtin_prefetch(&vocab->slots[first_slot(vocab, hash_a)]);
    __builtin_prefetch(&vocab->slots[first_slot(vocab, hash_b)]);
    __builtin_prefetch(&vocab->slots[first_slot(vocab, hash)]);
    ids[0] = find_id(vocab, hash_a, a, na, "", 0);
    ids[1] = find_id(vocab, hash_b, b, nb, "", 0);
    ids[2] = find_id(vocab, hash, a, na, b, nb);
}

int32_t tern_vocab_find_bytes(const tern_vocab *vocab, const char *bytes, size_t size) {
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < size; i++) {
        char text[TERN_BYTE_TEXT_MAX];
        const size_t n = tern_byte_text((uint8_t)bytes[i], text);
        hash = hash_more(hash, text, n);
    }
    // The alphabet is a bijection: equal bytes of a byte-level token mean equal text.
    for (size_t i = 0; i < PROBES_MAX; i++) {
        const size_t slot = (first_slot(vocab, hash) + i) & (vocab->n_slots - 1);
        const int32_t id = vocab->slots[slot].id;
        if (id < 0) return -1;
        if (vocab->slots[slot].tag != tag_of(hash)) continue;
        const size_t start = vocab->offsets[id], n = vocab->offsets[id + 1] - start;
        if (vocab->byte_level[id] && n == size && memcmp(vocab->bytes + start, bytes, size) == 0) return id;
    }
    return -1;
}

static tern_status check_arrays(tern_vocab *vocab, const tern_gguf *gguf, tern_error *err) {
    const char *path = tern_gguf_path(gguf);
    tern_gguf_type type;
    size_t n_types = 0;
    if (!tern_gguf_get_array(gguf, KEY_TOKENS, &type, &vocab->n) || type != TERN_GGUF_STRING || vocab->n == 0) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: " KEY_TOKENS " is missing or not an array of strings; convert the model again", path);
    }
    if (vocab->n > INT32_MAX) {
        return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_TOKENS " has %zu entries, more than token ids can number", path,
                         vocab->n);
    }
    if (!tern_gguf_get_array(gguf, KEY_TYPES, &type, &n_types) || n_types != vocab->n) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: " KEY_TYPES
                         " must be an array of %zu numbers, one per token (found %zu); convert the model again",
                         path, vocab->n, n_types);
    }
    return TERN_OK;
}

static tern_status allocate(tern_vocab *vocab, tern_error *err) {
    for (vocab->n_slots = 1; vocab->n_slots < 2 * vocab->n;) vocab->n_slots *= 2;
    vocab->texts = tern_alloc(vocab->allocator, vocab->n, sizeof *vocab->texts);
    vocab->types = tern_alloc(vocab->allocator, vocab->n, sizeof *vocab->types);
    vocab->byte_level = tern_alloc(vocab->allocator, vocab->n, sizeof *vocab->byte_level);
    vocab->offsets = tern_alloc(vocab->allocator, vocab->n + 1, sizeof *vocab->offsets);
    vocab->slots = tern_alloc(vocab->allocator, vocab->n_slots, sizeof *vocab->slots);
    if (!vocab->texts || !vocab->types || !vocab->byte_level || !vocab->offsets || !vocab->slots) {
        return tern_fail(err, TERN_ERR_MEMORY, "no memory for a vocabulary of %zu tokens", vocab->n);
    }
    memset(vocab->slots, -1, vocab->n_slots * sizeof *vocab->slots);
    return TERN_OK;
}

static tern_status read_token(tern_vocab *vocab, tern_gguf_array tokens, tern_gguf_array types, size_t id, tern_error *err) {
    const char *path = tern_gguf_path(tokens.gguf);
    tern_gguf_string *text = &vocab->texts[id];
    double type;
    if (!tern_gguf_string_at(tokens, id, text)) {
        return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_TOKENS "[%zu] cannot be read; convert the model again", path, id);
    }
    if (!tern_gguf_f64_at(types, id, &type) || !(type >= TERN_TOKEN_NORMAL && type <= TERN_TOKEN_BYTE)) {
        return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_TYPES "[%zu] is not a token type (%d..%d); convert the model again",
                         path, id, TERN_TOKEN_NORMAL, TERN_TOKEN_BYTE);
    }
    vocab->types[id] = (uint8_t)type;
    if (text->size == 0) return TERN_OK; // padding, of which there may be several: no text becomes it
    const uint64_t hash = hash_more(HASH_START, text->data, text->size);
    const size_t slot = find_slot(vocab, hash, text->data, text->size, "", 0);
    if (slot == NO_SLOT) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: " KEY_TOKENS " has %d texts of nearly one hash, which does not happen by chance; get it again",
                         path, PROBES_MAX);
    }
    if (vocab->slots[slot].id >= 0) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: " KEY_TOKENS " has the same text for tokens %d and %zu; convert the model again", path,
                         vocab->slots[slot].id, id);
    }
    vocab->slots[slot] = (tern_vocab_slot){tag_of(hash), (int32_t)id};
    return TERN_OK;
}

// Reads "<0xXX>".
static bool spm_byte(tern_gguf_string text, unsigned *byte) {
    if (text.size != TERN_SPM_BYTE_TEXT || memcmp(text.data, "<0x", 3) != 0 || text.data[TERN_SPM_BYTE_TEXT - 1] != '>')
        return false;
    const char digits[] = {text.data[3], text.data[4], '\0'};
    char *end;
    *byte = (unsigned)strtoul(digits, &end, 16);
    return end == digits + 2;
}

// The bytes of a SentencePiece token; returns how many.
static size_t spm_decode(tern_gguf_string text, int type, char *out) {
    unsigned byte;
    if (type == TERN_TOKEN_BYTE && spm_byte(text, &byte)) {
        out[0] = (char)byte;
        return 1;
    }
    const bool plain = type == TERN_TOKEN_CONTROL || type == TERN_TOKEN_UNKNOWN;
    size_t n = 0;
    for (size_t i = 0; i < text.size;) {
        const bool space =
            !plain && text.size - i >= TERN_SPM_SPACE_BYTES && memcmp(text.data + i, TERN_SPM_SPACE, TERN_SPM_SPACE_BYTES) == 0;
        out[n++] = space ? ' ' : text.data[i];
        i += space ? TERN_SPM_SPACE_BYTES : 1;
    }
    return n;
}

// A token's bytes never outnumber its text's, so the arena of all texts is large enough.
static tern_status fill_arena(tern_vocab *vocab, tern_text_kind kind, tern_error *err) {
    vocab->n_arena = 1; // an arena of empty tokens is still an allocation
    for (size_t id = 0; id < vocab->n; id++) {
        if (!tern_add_size(vocab->n_arena, vocab->texts[id].size, &vocab->n_arena)) vocab->n_arena = SIZE_MAX;
    }
    vocab->bytes = tern_alloc(vocab->allocator, vocab->n_arena, 1);
    if (!vocab->bytes) return tern_fail(err, TERN_ERR_MEMORY, "no memory for the texts of %zu tokens", vocab->n);
    size_t at = 0;
    for (size_t id = 0; id < vocab->n; id++) {
        const tern_gguf_string *text = &vocab->texts[id];
        size_t n = 0;
        vocab->byte_level[id] = kind == TERN_TEXT_BYTE_LEVEL && vocab->types[id] == TERN_TOKEN_NORMAL &&
                                tern_byte_decode(text->data, text->size, vocab->bytes + at, &n);
        if (kind == TERN_TEXT_SPM) {
            n = spm_decode(*text, vocab->types[id], vocab->bytes + at);
        } else if (!vocab->byte_level[id]) { // plain text, as special tokens are
            n = text->size;
            if (n > 0) memcpy(vocab->bytes + at, text->data, n);
        }
        at += n;
        vocab->offsets[id + 1] = at;
    }
    return TERN_OK;
}

static void find_bytes(tern_vocab *vocab, tern_text_kind kind) {
    for (int byte = 0; byte < TERN_BYTES; byte++) {
        const char c = (char)byte;
        char text[TERN_SPM_BYTE_TEXT + 1];
        (void)snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        const int32_t id = kind == TERN_TEXT_SPM ? tern_vocab_find(vocab, text, TERN_SPM_BYTE_TEXT, "", 0)
                                                 : tern_vocab_find_bytes(vocab, &c, 1);
        const bool other = kind == TERN_TEXT_SPM && id >= 0 && vocab->types[id] != TERN_TOKEN_BYTE;
        vocab->byte_ids[byte] = other ? -1 : id;
    }
}

tern_status tern_vocab_load(tern_vocab *vocab, const tern_gguf *gguf, tern_text_kind kind, const tern_allocator *allocator,
                            tern_error *err) {
    *vocab = (tern_vocab){.allocator = allocator};
    tern_status status = check_arrays(vocab, gguf, err);
    if (status == TERN_OK) status = allocate(vocab, err);
    const tern_gguf_array tokens = tern_gguf_find_array(gguf, KEY_TOKENS), types = tern_gguf_find_array(gguf, KEY_TYPES);
    for (size_t id = 0; status == TERN_OK && id < vocab->n; id++) status = read_token(vocab, tokens, types, id, err);
    if (status == TERN_OK) status = fill_arena(vocab, kind, err);
    if (status != TERN_OK) {
        tern_vocab_free(vocab);
        return status;
    }
    find_bytes(vocab, kind);
    return TERN_OK;
}

void tern_vocab_free(tern_vocab *vocab) {
    tern_free(vocab->allocator, vocab->texts, vocab->n, sizeof *vocab->texts);
    tern_free(vocab->allocator, vocab->types, vocab->n, sizeof *vocab->types);
    tern_free(vocab->allocator, vocab->byte_level, vocab->n, sizeof *vocab->byte_level);
    tern_free(vocab->allocator, vocab->offsets, vocab->n + 1, sizeof *vocab->offsets);
    tern_free(vocab->allocator, vocab->slots, vocab->n_slots, sizeof *vocab->slots);
    tern_free(vocab->allocator, vocab->bytes, vocab->n_arena, 1);
    *vocab = (tern_vocab){.n = 0};
}
