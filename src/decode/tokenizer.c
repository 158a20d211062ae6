// SPDX-License-Identifier: MIT
// The tokenizer: reads its parts from GGUF metadata and runs them in order: special tokens, words, merges.
#include "decode/tokenizer.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/tokenizer_parts.h"

#define KEY_MODEL "tokenizer.ggml.model"
#define KEY_PRE "tokenizer.ggml.pre"
#define KEY_BOS "tokenizer.ggml.bos_token_id"
#define KEY_ADD_BOS "tokenizer.ggml.add_bos_token"
#define KEY_ARCHITECTURE "general.architecture"
#define KEY_SPACE_PREFIX "tokenizer.ggml.add_space_prefix"
#define KEY_CHARSMAP "tokenizer.ggml.precompiled_charsmap"
#define MODEL_BPE "gpt2"
#define MODEL_SPM "llama"

enum { NAMES_MAX_BYTES = 128 };

// Tokens that end an answer besides eos: end of turn and end of text in the templates of the supported families.
static const char *const end_texts[] = {"<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>"};
static const char *const end_keys[] = { // eos is the first
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};
enum { N_END_TEXTS = sizeof end_texts / sizeof end_texts[0], N_END_KEYS = sizeof end_keys / sizeof end_keys[0] };
static_assert(N_END_TEXTS + N_END_KEYS <= TERN_ENDS_MAX, "room for every end");

// ---- Loading ------------------------------------------------------------------------------------------------

// A name out of the file, fit for a message: printable and short.
static const char *shown(tern_gguf_string text, char out[TERN_TOKENIZER_NAME_MAX]) {
    size_t n = 0;
    for (; n < text.size && n + 1 < TERN_TOKENIZER_NAME_MAX; n++)
        out[n] = isprint((unsigned char)text.data[n]) ? text.data[n] : '?';
    out[n] = '\0';
    return out;
}

static bool equals(tern_gguf_string text, const char *other) {
    return text.size == strlen(other) && memcmp(text.data, other, text.size) == 0;
}

static bool begins(tern_gguf_string text, const char *start) {
    return text.size >= strlen(start) && memcmp(text.data, start, strlen(start)) == 0;
}

// The pattern that byte-level BPE splits words with.
static tern_status choose_rule(tern_tokenizer *tok, const tern_gguf *gguf, tern_error *err) {
    const char *path = tern_gguf_path(gguf);
    char text[TERN_TOKENIZER_NAME_MAX], names[NAMES_MAX_BYTES];
    tern_gguf_string pre, architecture;
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

static tern_status read_bool(const tern_gguf *gguf, const char *key, bool *value, tern_error *err) {
    if (tern_gguf_get_bool(gguf, key, value) || !tern_gguf_has(gguf, key)) return TERN_OK;
    return tern_fail(err, TERN_ERR_FORMAT, "%s: %s is not a bool; correct it in the file", tern_gguf_path(gguf), key);
}

static tern_status load_bpe(tern_tokenizer *tok, const tern_gguf *gguf, tern_error *err) {
    tern_status status = choose_rule(tok, gguf, err);
    if (status == TERN_OK) status = tern_pre_create(&tok->pre, tok->rule, tok->allocator, err);
    if (status == TERN_OK) status = tern_vocab_load(&tok->vocab, gguf, TERN_TEXT_BYTE_LEVEL, tok->allocator, err);
    if (status == TERN_OK) status = tern_bpe_load(&tok->bpe, &tok->vocab, gguf, tok->allocator, err);
    if (status == TERN_OK) snprintf(tok->name, sizeof tok->name, MODEL_BPE "/%s", tok->rule->name);
    return status;
}

static tern_status load_spm(tern_tokenizer *tok, const tern_gguf *gguf, tern_error *err) {
    if (tern_gguf_has(gguf, KEY_CHARSMAP))
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: " KEY_CHARSMAP " asks for a normalization that is not supported",
                         tern_gguf_path(gguf));
    tok->space_prefix = true;
    tern_status status = read_bool(gguf, KEY_SPACE_PREFIX, &tok->space_prefix, err);
    if (status == TERN_OK) status = tern_vocab_load(&tok->vocab, gguf, TERN_TEXT_SPM, tok->allocator, err);
    if (status == TERN_OK) status = tern_spm_load(&tok->bpe, &tok->vocab, gguf, tok->allocator, err);
    if (status == TERN_OK) snprintf(tok->name, sizeof tok->name, MODEL_SPM);
    return status;
}

static tern_status load_parts(tern_tokenizer *tok, const tern_gguf *gguf, tern_error *err) {
    const char *path = tern_gguf_path(gguf);
    char text[TERN_TOKENIZER_NAME_MAX];
    tern_gguf_string model;
    if (!tern_gguf_get_string(gguf, KEY_MODEL, &model)) {
        return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_MODEL " is missing or not a string; convert the model again", path);
    }
    if (equals(model, MODEL_BPE)) return load_bpe(tok, gguf, err);
    if (equals(model, MODEL_SPM)) return load_spm(tok, gguf, err);
    return tern_fail(err, TERN_ERR_UNSUPPORTED,
                     "%s: " KEY_MODEL " is '%s', which is not supported; use a model with byte-level BPE ('" MODEL_BPE
                     "') or SentencePiece BPE ('" MODEL_SPM "')",
                     path, shown(model, text));
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
    int32_t bos = TERN_NO_TOKEN;
    bool add = tok->rule ? tok->rule->add_bos : true; // SentencePiece models were trained with it
    const tern_status status = read_id(&tok->vocab, gguf, KEY_BOS, &bos, err);
    if (status != TERN_OK) return status;
    const tern_status bos_status = read_bool(gguf, KEY_ADD_BOS, &add, err);
    if (bos_status != TERN_OK) return bos_status;
    if (add && bos == TERN_NO_TOKEN) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: prompts begin with BOS, but " KEY_BOS " is missing; add it, or set " KEY_ADD_BOS " to false",
                         tern_gguf_path(gguf));
    }
    tok->bos = add ? bos : TERN_NO_TOKEN;
    return TERN_OK;
}

static void add_end(tern_tokenizer *tok, int32_t id) {
    if (id != TERN_NO_TOKEN && !tern_tokenizer_is_end(tok, id)) tok->ends[tok->n_ends++] = id;
}

static tern_status read_ends(tern_tokenizer *tok, const tern_gguf *gguf, tern_error *err) {
    for (size_t i = 0; i < N_END_KEYS; i++) {
        int32_t id = TERN_NO_TOKEN;
        const tern_status status = read_id(&tok->vocab, gguf, end_keys[i], &id, err);
        if (status != TERN_OK) return status;
        if (i == 0) tok->eos = id;
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
    tern_status status = load_parts(tok, gguf, err);
    if (status == TERN_OK) status = tern_specials_load(&tok->specials, &tok->vocab, allocator, err);
    if (status == TERN_OK) status = read_bos(tok, gguf, err);
    if (status == TERN_OK) status = read_ends(tok, gguf, err);
    if (status != TERN_OK) {
        tern_tokenizer_destroy(tok);
        return status;
    }
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

int32_t tern_tokenizer_eos(const tern_tokenizer *tok) { return tok->eos; }

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
