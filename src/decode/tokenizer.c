// SPDX-License-Identifier: MIT
// The tokenizer: reads its parts from GGUF metadata and runs them in order: special tokens, words, merges.
#include "decode/tokenizer.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/bpe.h"
#include "decode/pretokenize.h"
#include "decode/special.h"

#define KEY_MODEL "tokenizer.ggml.model"
#define KEY_PRE "tokenizer.ggml.pre"
#define KEY_BOS "tokenizer.ggml.bos_token_id"
#define KEY_ADD_BOS "tokenizer.ggml.add_bos_token"
#define KEY_ARCHITECTURE "general.architecture"
#define MODEL_BPE "gpt2"

enum { NAME_MAX_BYTES = 48, NAMES_MAX_BYTES = 128, NO_TOKEN = -1 };

// Tokens that end an answer besides eos: end of turn and end of text in the templates of the supported families.
static const char *const end_texts[] = {"<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>"};
static const char *const end_keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};
enum { N_END_TEXTS = sizeof end_texts / sizeof end_texts[0], N_END_KEYS = sizeof end_keys / sizeof end_keys[0] };

struct tern_tokenizer {
    const tern_allocator *allocator;
    const tern_pre_rule *rule;
    tern_pre *pre;
    tern_vocab vocab;
    tern_bpe bpe;
    tern_specials specials;
    int32_t bos; // NO_TOKEN: the model does not ask for one
    int32_t ends[N_END_TEXTS + N_END_KEYS];
    size_t n_ends;
    char name[NAME_MAX_BYTES];
};

// ---- Loading ------------------------------------------------------------------------------------------------

// A name out of the file, fit for a message: printable and short.
static const char *shown(tern_gguf_string text, char out[NAME_MAX_BYTES]) {
    size_t n = 0;
    for (; n < text.size && n + 1 < NAME_MAX_BYTES; n++) out[n] = isprint((unsigned char)text.data[n]) ? text.data[n] : '?';
    out[n] = '\0';
    return out;
}

static bool equals(tern_gguf_string text, const char *other) {
    return text.size == strlen(other) && memcmp(text.data, other, text.size) == 0;
}

static bool begins(tern_gguf_string text, const char *start) {
    return text.size >= strlen(start) && memcmp(text.data, start, strlen(start)) == 0;
}

static tern_status choose_rule(tern_tokenizer *tok, const tern_gguf *gguf, tern_error *err) {
    const char *path = tern_gguf_path(gguf);
    char text[NAME_MAX_BYTES], names[NAMES_MAX_BYTES];
    tern_gguf_string model, pre, architecture;
    if (!tern_gguf_get_string(gguf, KEY_MODEL, &model)) {
        return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_MODEL " is missing or not a string; convert the model again", path);
    }
    if (!equals(model, MODEL_BPE)) {
        return tern_fail(err, TERN_ERR_UNSUPPORTED,
                         "%s: " KEY_MODEL " is '%s', which is not supported; use a model with byte-level BPE ('" MODEL_BPE "')",
                         path, shown(model, text));
    }
    tern_pre_names(names, sizeof names);
    if (tern_gguf_get_string(gguf, KEY_PRE, &pre)) {
        tok->rule = tern_pre_find(pre.data, pre.size);
        if (tok->rule) return TERN_OK;
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: " KEY_PRE " is '%s', which is not supported; known are %s", path,
                         shown(pre, text), names);
    }
    if (tern_gguf_has(gguf, KEY_PRE)) {
        return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_PRE " is not a string; convert the model again", path);
    }
    // BitNet b1.58 2B-4T is published without the key; its vocabulary is that of Llama 3.
    if (tern_gguf_get_string(gguf, KEY_ARCHITECTURE, &architecture) && begins(architecture, "bitnet")) {
        tok->rule = tern_pre_find("llama-bpe", strlen("llama-bpe"));
        return TERN_OK;
    }
    return tern_fail(err, TERN_ERR_UNSUPPORTED,
                     "%s: " KEY_PRE " is missing, so words cannot be split as in training; set it to one of %s", path, names);
}

// Leaves *id alone if the key is absent.
static tern_status read_id(const tern_vocab *vocab, const tern_gguf *gguf, const char *key, int32_t *id, tern_error *err) {
    uint64_t value;
    if (!tern_gguf_has(gguf, key)) return TERN_OK;
    if (!tern_gguf_get_u64(gguf, key, &value) || value >= vocab->n) {
        return tern_fail(err, TERN_ERR_FORMAT, "%s: %s is not a token id below %zu; correct it in the file",
                         tern_gguf_path(gguf), key, vocab->n);
    }
    *id = (int32_t)value;
    return TERN_OK;
}

static tern_status read_bos(tern_tokenizer *tok, const tern_gguf *gguf, tern_error *err) {
    int32_t bos = NO_TOKEN;
    bool add = tok->rule->add_bos;
    const tern_status status = read_id(&tok->vocab, gguf, KEY_BOS, &bos, err);
    if (status != TERN_OK) return status;
    if (!tern_gguf_get_bool(gguf, KEY_ADD_BOS, &add) && tern_gguf_has(gguf, KEY_ADD_BOS)) {
        return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_ADD_BOS " is not a bool; correct it in the file",
                         tern_gguf_path(gguf));
    }
    if (add && bos == NO_TOKEN) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: prompts begin with BOS, but " KEY_BOS " is missing; add it, or set " KEY_ADD_BOS " to false",
                         tern_gguf_path(gguf));
    }
    tok->bos = add ? bos : NO_TOKEN;
    return TERN_OK;
}

static void add_end(tern_tokenizer *tok, int32_t id) {
    if (id != NO_TOKEN && !tern_tokenizer_is_end(tok, id)) tok->ends[tok->n_ends++] = id;
}

static tern_status read_ends(tern_tokenizer *tok, const tern_gguf *gguf, tern_error *err) {
    for (size_t i = 0; i < N_END_KEYS; i++) {
        int32_t id = NO_TOKEN;
        const tern_status status = read_id(&tok->vocab, gguf, end_keys[i], &id, err);
        if (status != TERN_OK) return status;
        add_end(tok, id);
    }
    for (size_t i = 0; i < N_END_TEXTS; i++) add_end(tok, tern_tokenizer_find(tok, end_texts[i]));
    return TERN_OK;
}

tern_status tern_tokenizer_create(tern_tokenizer **out, const tern_gguf *gguf, const tern_allocator *allocator,
                                  tern_error *err) {
    tern_tokenizer *tok = tern_alloc(allocator, 1, sizeof *tok);
    if (!tok) return tern_fail(err, TERN_ERR_MEMORY, "no memory for a tokenizer");
    tok->allocator = allocator;
    tern_status status = choose_rule(tok, gguf, err);
    if (status == TERN_OK) status = tern_pre_create(&tok->pre, tok->rule, allocator, err);
    if (status == TERN_OK) status = tern_vocab_load(&tok->vocab, gguf, allocator, err);
    if (status == TERN_OK) status = tern_bpe_load(&tok->bpe, &tok->vocab, gguf, allocator, err);
    if (status == TERN_OK) status = tern_specials_load(&tok->specials, &tok->vocab, allocator, err);
    if (status == TERN_OK) status = read_bos(tok, gguf, err);
    if (status == TERN_OK) status = read_ends(tok, gguf, err);
    if (status != TERN_OK) {
        tern_tokenizer_destroy(tok);
        return status;
    }
    snprintf(tok->name, sizeof tok->name, MODEL_BPE "/%s", tok->rule->name);
    *out = tok;
    return TERN_OK;
}

void tern_tokenizer_destroy(tern_tokenizer *tok) {
    if (!tok) return;
    tern_specials_free(&tok->specials);
    tern_bpe_free(&tok->bpe);
    tern_vocab_free(&tok->vocab);
    tern_pre_destroy(tok->pre);
    tern_free(tok->allocator, tok, 1, sizeof *tok);
}

// ---- Queries ------------------------------------------------------------------------------------------------

const char *tern_tokenizer_name(const tern_tokenizer *tok) { return tok->name; }

size_t tern_tokenizer_vocab(const tern_tokenizer *tok) { return tok->vocab.n; }

int32_t tern_tokenizer_find(const tern_tokenizer *tok, const char *text) {
    return tern_vocab_find(&tok->vocab, text, strlen(text), "", 0);
}

bool tern_tokenizer_is_end(const tern_tokenizer *tok, int32_t id) {
    for (size_t i = 0; i < tok->n_ends; i++) {
        if (tok->ends[i] == id) return true;
    }
    return false;
}

tern_status tern_tokenizer_bytes(const tern_tokenizer *tok, int32_t id, bool special, const char **bytes, size_t *size) {
    const tern_vocab *vocab = &tok->vocab;
    if (id < 0 || (size_t)id >= vocab->n) return TERN_ERR_ARG;
    const bool hidden = !special && (vocab->types[id] == TERN_TOKEN_CONTROL || vocab->types[id] == TERN_TOKEN_UNKNOWN);
    *bytes = vocab->bytes + vocab->offsets[id];
    *size = hidden ? 0 : vocab->offsets[id + 1] - vocab->offsets[id];
    return TERN_OK;
}

// ---- Encoding -----------------------------------------------------------------------------------------------

typedef struct encoder {
    const tern_tokenizer *tok;
    tern_words words;
    int32_t *out; // room for max
    size_t max;
    size_t n;          // ids so far, those without room counted too
    int32_t *long_ids; // grown to the longest word met: n_long ids, then the scratch of their merging
    size_t n_long;
} encoder;

static void emit(encoder *e, int32_t id) {
    if (e->n < e->max) e->out[e->n] = id;
    e->n++;
}

// Ids of a word's bytes. The scratch behind them is aligned, because an even number of ids takes a multiple of 8 bytes.
static int32_t *room_for_word(encoder *e, size_t size) {
    if (size <= e->n_long) return e->long_ids;
    const size_t even = size + (size & 1);
    free(e->long_ids);
    e->n_long = 0;
    e->long_ids = malloc(even * sizeof *e->long_ids + tern_bpe_scratch_bytes(even)); // size <= INT32_MAX: no overflow
    if (e->long_ids) e->n_long = even;
    return e->long_ids;
}

static tern_status encode_word(encoder *e, const char *word, size_t size) {
    const tern_vocab *vocab = &e->tok->vocab;
    if (e->tok->rule->whole_words) {
        const int32_t id = tern_vocab_find_bytes(vocab, word, size);
        if (id >= 0) {
            emit(e, id);
            return TERN_OK;
        }
    }
    int32_t short_ids[TERN_BPE_SHORT];
    int32_t *ids = size <= TERN_BPE_SHORT ? short_ids : room_for_word(e, size);
    if (!ids) return TERN_ERR_MEMORY;
    for (size_t i = 0; i < size; i++) {
        ids[i] = vocab->byte_ids[(uint8_t)word[i]];
        if (ids[i] < 0) return TERN_ERR_UNSUPPORTED;
    }
    const size_t n = size <= TERN_BPE_SHORT ? tern_bpe_merge_short(&e->tok->bpe, ids, size)
                                            : tern_bpe_merge_long(&e->tok->bpe, ids, size, ids + e->n_long);
    for (size_t i = 0; i < n; i++) emit(e, ids[i]);
    return TERN_OK;
}

static tern_status encode_plain(encoder *e, const char *text, size_t size) {
    tern_words_begin(&e->words, text, size);
    for (;;) {
        const char *word;
        size_t n;
        tern_status status = tern_words_next(&e->words, &word, &n);
        if (status != TERN_OK || n == 0) return status;
        status = encode_word(e, word, n);
        if (status != TERN_OK) return status;
    }
}

static tern_status encode_text(encoder *e, const char *text, size_t size, bool parse_special) {
    size_t start = 0; // of the plain text not yet encoded
    for (size_t at = 0; at < size;) {
        size_t length = 0;
        const int32_t id = tern_specials_match(&e->tok->specials, text + at, size - at, parse_special, &length);
        if (id < 0) {
            at++;
            continue;
        }
        const tern_status status = encode_plain(e, text + start, at - start);
        if (status != TERN_OK) return status;
        emit(e, id);
        at += length;
        start = at;
    }
    return encode_plain(e, text + start, size - start);
}

tern_status tern_tokenizer_encode(const tern_tokenizer *tok, const char *text, size_t size, bool parse_special, bool add_bos,
                                  int32_t *ids, size_t max, size_t *n) {
    if (size > INT32_MAX || (!text && size > 0) || (!ids && max > 0)) return TERN_ERR_ARG;
    encoder e = {.tok = tok, .out = ids, .max = max};
    tern_status status = tern_words_create(&e.words, tok->pre);
    if (status != TERN_OK) return status;
    if (add_bos && tok->bos != NO_TOKEN) emit(&e, tok->bos);
    if (size > 0) status = encode_text(&e, text, size, parse_special);
    tern_words_destroy(&e.words);
    free(e.long_ids);
    if (status != TERN_OK) return status;
    *n = e.n;
    return e.n <= max ? TERN_OK : TERN_ERR_ARG;
}
