// SPDX-License-Identifier: MIT
// Splits text into the words that byte-pair merges stay within, by the pattern of a model family (PCRE2).
#ifndef TERN_DECODE_PRETOKENIZE_H
#define TERN_DECODE_PRETOKENIZE_H

#include "base/base.h"

typedef struct tern_pre_rule {
    const char *name;   // the canonical value of tokenizer.ggml.pre
    const char *others; // further values with the same meaning, separated by spaces
    const char *pattern;
    bool whole_words; // a word that is a token is that token, whatever the merges say
    bool add_bos;     // where the file has no tokenizer.ggml.add_bos_token
} tern_pre_rule;

// The rule with this name; NULL if there is none.
const tern_pre_rule *tern_pre_find(const char *name, size_t size);
// All canonical names, for messages: "smollm, gpt-2, ...".
void tern_pre_names(char *text, size_t size);

typedef struct tern_pre tern_pre;
// A compiled rule: immutable, used by any number of threads. Errors: MEMORY, UNSUPPORTED (PCRE2 without Unicode).
tern_status tern_pre_create(tern_pre **out, const tern_pre_rule *rule, const tern_allocator *allocator, tern_error *err);
void tern_pre_destroy(tern_pre *pre);

// A walk over the words of a text. Together the words are the text: every byte is in exactly one. Bytes that are not valid
// UTF-8 form words of their own, and the valid text before and after them is split as if it stood alone.
typedef struct tern_words {
    const tern_pre *pre;
    void *match;       // scratch of PCRE2
    const char *at;    // first byte of the next word
    const char *valid; // at..valid is valid UTF-8
    const char *end;
} tern_words;

tern_status tern_words_create(tern_words *words, const tern_pre *pre); // MEMORY
void tern_words_destroy(tern_words *words);
void tern_words_begin(tern_words *words, const char *text, size_t size);
// The next word, or size 0 at the end. Errors: MEMORY (PCRE2 ran out of memory).
tern_status tern_words_next(tern_words *words, const char **word, size_t *size);

#endif
