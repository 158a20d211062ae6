// SPDX-License-Identifier: MIT
// A small vocabulary made by hand, and tokenizers loaded from it or from any vocabulary file, for the tests of the tokenizer.
#ifndef TERN_TESTS_HAND_VOCAB_H
#define TERN_TESTS_HAND_VOCAB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/bpe.h"
#include "decode/byte_level.h"
#include "decode/tokenizer.h"
#include "vocab_file.h"

#define TOKENS "tokenizer.ggml.tokens"
#define TYPES "tokenizer.ggml.token_type"
#define MERGES "tokenizer.ggml.merges"
#define SCORES "tokenizer.ggml.scores"

static const char *const pre_names[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};
enum { N_PRE = 4 };

// ---- A vocabulary made by hand: token b is byte b, then what the merges make, then special tokens -------------------

static const char *const hand_merges[] = {"h e",       "l l", "he ll", "hell o", "Ġ w", "a a", "aa aa",
                                          "aaaa aaaa", "Ġ Ġ", "ĠĠ ĠĠ", "r l",    "Ġ 1", "1 2", "Ã ©"};
enum {
    N_HAND_MERGES = sizeof hand_merges / sizeof hand_merges[0],
    HE = TERN_BYTES,
    LL,
    HELL,
    HELLO,
    SPACE_W,
    AA,
    A4,
    A8,
    SPACE2,
    SPACE4,
    RL,
    SPACE_1,
    ONE_TWO,
    E_ACUTE,
    IM_START,
    IM_END,
    IM,
    TOOL,
    UNKNOWN,
    NO_MERGE,
    N_HAND_TOKENS
};
static const struct {
    const char *text;
    tern_token_type type;
} hand_specials[] = {{"<|im_start|>", TERN_TOKEN_CONTROL}, {"<|im_end|>", TERN_TOKEN_CONTROL}, {"<|im", TERN_TOKEN_CONTROL},
                     {"[TOOL]", TERN_TOKEN_USER_DEFINED},  {"<unk>", TERN_TOKEN_UNKNOWN},      {"xyz", TERN_TOKEN_NORMAL}};
enum { N_HAND_SPECIALS = N_HAND_TOKENS - IM_START };

static inline void put_hand_token(vocab_file *file, size_t id) {
    char text[64];
    size_t n = 0;
    if (id < TERN_BYTES) {
        n = tern_byte_text((uint8_t)id, text);
    } else if (id < IM_START) {
        for (const char *c = hand_merges[id - TERN_BYTES]; *c; c++) {
            if (*c != ' ') text[n++] = *c;
        }
    } else {
        n = strlen(hand_specials[id - IM_START].text);
        memcpy(text, hand_specials[id - IM_START].text, n);
    }
    vocab_put_text(file, text, n);
}

static inline void put_hand_tokens(vocab_file *file) {
    vocab_key_array(file, TOKENS, TERN_GGUF_STRING, N_HAND_TOKENS);
    for (size_t id = 0; id < N_HAND_TOKENS; id++) put_hand_token(file, id);
}

static inline void put_hand_types(vocab_file *file) {
    vocab_key_array(file, TYPES, TERN_GGUF_I32, N_HAND_TOKENS);
    for (size_t id = 0; id < N_HAND_TOKENS; id++) {
        vocab_put_u32(file, (uint32_t)(id < IM_START ? TERN_TOKEN_NORMAL : hand_specials[id - IM_START].type));
    }
}

static inline void put_hand_merges(vocab_file *file) {
    vocab_key_array(file, MERGES, TERN_GGUF_STRING, N_HAND_MERGES);
    for (size_t i = 0; i < N_HAND_MERGES; i++) vocab_put_text(file, hand_merges[i], strlen(hand_merges[i]));
}

static inline void put_hand_vocabulary(vocab_file *file, const char *pre) {
    vocab_key_string(file, "tokenizer.ggml.model", "gpt2");
    vocab_key_string(file, "tokenizer.ggml.pre", pre);
    put_hand_tokens(file);
    put_hand_types(file);
    put_hand_merges(file);
    vocab_key_u32(file, "tokenizer.ggml.bos_token_id", IM_START);
}

typedef struct loaded {
    tern_gguf *gguf;
    tern_tokenizer *tok;
} loaded;

static inline loaded load_file(vocab_file *file) {
    tern_error err = {""};
    loaded l = {vocab_open(file, &err), NULL};
    if (!l.gguf || tern_tokenizer_create(&l.tok, l.gguf, &tern_default_allocator, &err) != TERN_OK) fail_msg("%s", err.text);
    return l;
}

static inline loaded load_hand(const char *pre) {
    vocab_file file = {.n = 0};
    put_hand_vocabulary(&file, pre);
    vocab_key_bool(&file, "tokenizer.ggml.add_bos_token", false);
    return load_file(&file);
}

static inline void unload(loaded *l) {
    tern_tokenizer_destroy(l->tok);
    tern_gguf_close(l->gguf);
}

typedef struct ids {
    int32_t *data;
    size_t n;
} ids;

static inline ids encode(const tern_tokenizer *tok, const char *text, size_t size, bool special) {
    ids out = {malloc((size + 1) * sizeof(int32_t)), 0};
    assert_non_null(out.data);
    assert_int_equal(tern_tokenizer_encode(tok, text, size, special, false, out.data, size + 1, &out.n), TERN_OK);
    return out;
}

static inline void expect_ids(const tern_tokenizer *tok, const char *text, bool special, const int32_t *expected, size_t n) {
    ids got = encode(tok, text, strlen(text), special);
    assert_int_equal(got.n, n);
    assert_memory_equal(got.data, expected, n * sizeof *expected);
    free(got.data);
}
#define EXPECT_IDS(tok, text, special, ...)                                                                                    \
    expect_ids(tok, text, special, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static inline void expect_round_trip(const tern_tokenizer *tok, const char *text, size_t size, bool special) {
    ids got = encode(tok, text, size, special);
    size_t at = 0;
    for (size_t i = 0; i < got.n; i++) {
        const char *bytes;
        size_t n;
        assert_int_equal(tern_tokenizer_bytes(tok, got.data[i], true, &bytes, &n), TERN_OK);
        assert_true(n <= size - at);
        assert_memory_equal(bytes, text + at, n);
        at += n;
    }
    assert_int_equal(at, size);
    free(got.data);
}

#endif
