// SPDX-License-Identifier: MIT
// The patterns of the model families, and the walk over a text that keeps every byte whatever its encoding.
#include "decode/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "decode/utf8.h"

// What \s means to the tokenizers that models were trained with: Unicode White_Space (PCRE2's own \s also has U+180E).
#define SPACE "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPACES "[" SPACE "]+"
#define SYMBOLS " ?[^" SPACE "\\p{L}\\p{N}]+"
#define ENDINGS "'s|'t|'re|'ve|'m|'ll|'d"
#define LETTERS " ?\\p{L}+"
// Llama 3 and Qwen 2 differ in how many digits make one word.
#define MODERN(digits)                                                                                                         \
    "(?i:" ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "|" SYMBOLS "[\\r\\n]*|[" SPACE "]*[\\r\\n]+|" SPACES             \
    "(?![^" SPACE "])|" SPACES

static const tern_pre_rule rules[] = {
    // Digits are cut out one by one first, so for the rest a digit is an end of text: it ends a run of spaces whole.
    {"smollm", "", "\\p{N}|" ENDINGS "|" LETTERS "|" SYMBOLS "|" SPACES "(?![^" SPACE "\\p{N}])|" SPACES, false, false},
    {"gpt-2", "", ENDINGS "|" LETTERS "| ?\\p{N}+|" SYMBOLS "|" SPACES "(?![^" SPACE "])|" SPACES, false, false},
    {"llama-bpe", "llama3 llama-v3 falcon3", MODERN("\\p{N}{1,3}"), true, true},
    {"qwen2", "", MODERN("\\p{N}"), false, false},
};
enum { N_RULES = sizeof rules / sizeof rules[0] };

static bool same(const char *a, size_t na, const char *b, size_t nb) { return na == nb && memcmp(a, b, na) == 0; }

static bool listed(const char *names, const char *name, size_t size) {
    while (*names) {
        const size_t n = strcspn(names, " ");
        if (same(names, n, name, size)) return true;
        names += n + strspn(names + n, " ");
    }
    return false;
}

const tern_pre_rule *tern_pre_find(const char *name, size_t size) {
    for (size_t i = 0; i < N_RULES; i++) {
        if (listed(rules[i].name, name, size) || listed(rules[i].others, name, size)) return &rules[i];
    }
    return NULL;
}

void tern_pre_names(char *text, size_t size) {
    size_t at = 0;
    if (size > 0) text[0] = '\0';
    for (size_t i = 0; i < N_RULES && at < size; i++) {
        at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "", rules[i].name);
    }
}

// ---- A compiled rule ----------------------------------------------------------------------------------------

struct tern_pre {
    const tern_allocator *allocator;
    pcre2_general_context *general;
    pcre2_match_context *limits;
    pcre2_code *code;
};

// PCRE2 frees without a size, so each block begins with its own; the header keeps the block aligned as PCRE2 expects.
enum { BLOCK_HEADER = 64 };

static void *block_alloc(size_t size, void *user) {
    const tern_allocator *allocator = user;
    size_t total;
    if (!tern_add_size(size, (size_t)BLOCK_HEADER, &total)) return NULL;
    char *block = tern_alloc(allocator, total, 1);
    if (!block) return NULL;
    memcpy(block, &total, sizeof total);
    return block + BLOCK_HEADER;
}

static void block_free(void *ptr, void *user) {
    if (!ptr) return;
    char *block = (char *)ptr - BLOCK_HEADER;
    size_t total;
    memcpy(&total, block, sizeof total);
    tern_free(user, block, total, 1);
}

static tern_status compile(tern_pre *pre, const tern_pre_rule *rule, tern_error *err) {
    pcre2_compile_context *options = pcre2_compile_context_create(pre->general);
    if (!options) return tern_fail(err, TERN_ERR_MEMORY, "no memory for the pre-tokenizer %s", rule->name);
    int code;
    size_t offset;
    pre->code = pcre2_compile((PCRE2_SPTR)rule->pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code,
                              &offset, options);
    pcre2_compile_context_free(options);
    if (!pre->code && code == PCRE2_ERROR_HEAP_FAILED)
        return tern_fail(err, TERN_ERR_MEMORY, "no memory for the pre-tokenizer %s", rule->name);
    if (!pre->code) {
        char message[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "PCRE2 refuses the pattern of pre-tokenizer %s at %zu: %s", rule->name,
                         offset, message);
    }
    // Where PCRE2 has no JIT (or the system forbids it) the interpreter gives the same words, more slowly.
    (void)pcre2_jit_compile(pre->code, PCRE2_JIT_COMPLETE);
    return TERN_OK;
}

tern_status tern_pre_create(tern_pre **out, const tern_pre_rule *rule, const tern_allocator *allocator, tern_error *err) {
    tern_pre *pre = tern_alloc(allocator, 1, sizeof *pre);
    if (!pre) return tern_fail(err, TERN_ERR_MEMORY, "no memory for the pre-tokenizer %s", rule->name);
    pre->allocator = allocator;
    pre->general = pcre2_general_context_create(block_alloc, block_free, (void *)(uintptr_t)allocator);
    if (pre->general) pre->limits = pcre2_match_context_create(pre->general);
    tern_status status = pre->limits ? compile(pre, rule, err)
                                     : tern_fail(err, TERN_ERR_MEMORY, "no memory for the pre-tokenizer %s", rule->name);
    if (status != TERN_OK) {
        tern_pre_destroy(pre);
        return status;
    }
    // The patterns step back over one run of characters at most, so time is bounded by the text; a limit would only refuse a
    // long run of spaces.
    pcre2_set_match_limit(pre->limits, UINT32_MAX);
    pcre2_set_depth_limit(pre->limits, UINT32_MAX);
    pcre2_set_heap_limit(pre->limits, UINT32_MAX);
    *out = pre;
    return TERN_OK;
}

void tern_pre_destroy(tern_pre *pre) {
    if (!pre) return;
    pcre2_code_free(pre->code);
    pcre2_match_context_free(pre->limits);
    pcre2_general_context_free(pre->general);
    tern_free(pre->allocator, pre, 1, sizeof *pre);
}

// ---- The walk -----------------------------------------------------------------------------------------------

tern_status tern_words_create(tern_words *words, const tern_pre *pre) {
    // One pair of offsets: the whole match. Plain malloc, as several threads may walk at once.
    *words = (tern_words){.pre = pre, .match = pcre2_match_data_create(1, NULL)};
    return words->match ? TERN_OK : TERN_ERR_MEMORY;
}

void tern_words_destroy(tern_words *words) {
    pcre2_match_data_free(words->match);
    words->match = NULL;
}

void tern_words_begin(tern_words *words, const char *text, size_t size) {
    words->at = words->valid = text;
    words->end = text + size;
}

tern_status tern_words_next(tern_words *words, const char **word, size_t *size) {
    *word = words->at;
    *size = 0;
    if (words->at == words->end) return TERN_OK;
    if (words->at == words->valid) {
        words->valid += tern_utf8_valid_prefix(words->at, (size_t)(words->end - words->at));
        if (words->at == words->valid) {
            *size = tern_utf8_invalid_prefix(words->at, (size_t)(words->end - words->at));
            words->at = words->valid = words->at + *size;
            return TERN_OK;
        }
    }
    const pcre2_code *code = words->pre->code;
    const PCRE2_SPTR text = (PCRE2_SPTR)words->at;
    const size_t left = (size_t)(words->valid - words->at);
    // No pattern looks behind, so the rest of the text can stand as the whole subject; it has been checked above.
    int rc = pcre2_match(code, text, left, 0, PCRE2_NO_UTF_CHECK, words->match, words->pre->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(code, text, left, 0, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, words->match, words->pre->limits);
    }
    // Every character is a space, a letter, a number or a symbol, so some word always matches; what is left are limits.
    if (rc < 0) return TERN_ERR_MEMORY;
    *size = pcre2_get_ovector_pointer(words->match)[1];
    words->at += *size;
    return TERN_OK;
}
