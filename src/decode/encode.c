// SPDX-License-Identifier: MIT
// From text to token ids: special tokens cut it, the rest is merged, word by word or as a whole.
#include <stdlib.h>
#include <string.h>

#include "decode/tokenizer_parts.h"

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

// ---- Byte-level BPE -----------------------------------------------------------------------------------------

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
                                            : tern_bpe_merge_long(&e->tok->bpe, ids, size, 1, ids + e->n_long);
    for (size_t i = 0; i < n; i++) emit(e, ids[i]);
    return TERN_OK;
}

static tern_status encode_words(encoder *e, const char *text, size_t size) {
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

// ---- SentencePiece ------------------------------------------------------------------------------------------

static tern_status emit_bytes(encoder *e, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const int32_t byte_id = e->tok->vocab.byte_ids[bytes[i]];
        if (byte_id < 0) return TERN_ERR_UNSUPPORTED;
        emit(e, byte_id);
    }
    return TERN_OK;
}

// The two pieces that merge into this one at last; false if none do. Merging within a piece does not depend on what stands
// around it, so the pieces are the same wherever it occurs.
static tern_status last_merge(const tern_tokenizer *tok, int32_t id, int32_t parts[2], bool *found) {
    const tern_gguf_string text = tok->vocab.texts[id];
    const size_t even = text.size + (text.size & 1); // the scratch is aligned
    int32_t *ids = malloc(even * sizeof *ids + tern_bpe_scratch_bytes(even));
    if (!ids) return TERN_ERR_MEMORY;
    size_t n = tern_spm_characters(&tok->vocab, text.data, text.size, ids);
    *found = n > 1 && tern_bpe_merge_long(&tok->bpe, ids, n, 2, ids + even) == 2;
    if (*found) memcpy(parts, ids, 2 * sizeof *ids);
    free(ids);
    return TERN_OK;
}

static tern_status emit_piece(encoder *e, int32_t id);

// SentencePiece merges unused pieces on, but where one is left, it takes the last merge back, or gives the bytes of a
// character.
static tern_status emit_unused(encoder *e, int32_t id) {
    bool split = false;
    int32_t parts[2];
    tern_status status = last_merge(e->tok, id, parts, &split);
    const tern_gguf_string text = e->tok->vocab.texts[id];
    if (status == TERN_OK && !split) return emit_bytes(e, (const uint8_t *)text.data, text.size);
    for (size_t i = 0; status == TERN_OK && i < 2; i++) status = emit_piece(e, parts[i]);
    return status;
}

// A token, or a character that is none and becomes the tokens of its bytes.
static tern_status emit_piece(encoder *e, int32_t id) {
    uint8_t bytes[4];
    if (id >= TERN_SPM_CHARACTERS) return emit_bytes(e, bytes, tern_spm_bytes(id, bytes));
    if (e->tok->vocab.types[id] == TERN_TOKEN_UNUSED) return emit_unused(e, id);
    emit(e, id);
    return TERN_OK;
}

static tern_status encode_pieces(encoder *e, const char *text, size_t size) {
    const tern_tokenizer *tok = e->tok;
    int32_t short_ids[TERN_BPE_SHORT];
    int32_t *ids = size <= TERN_BPE_SHORT ? short_ids : room_for_word(e, size);
    if (!ids) return TERN_ERR_MEMORY;
    size_t n = tern_spm_characters(&tok->vocab, text, size, ids);
    n = size <= TERN_BPE_SHORT ? tern_bpe_merge_short(&tok->bpe, ids, n)
                               : tern_bpe_merge_long(&tok->bpe, ids, n, 1, ids + e->n_long);
    tern_status status = TERN_OK;
    for (size_t i = 0; status == TERN_OK && i < n; i++) status = emit_piece(e, ids[i]);
    return status;
}

// ---- Both ---------------------------------------------------------------------------------------------------

static tern_status encode_plain(encoder *e, const char *text, size_t size) {
    if (size == 0) return TERN_OK;
    return e->tok->rule ? encode_words(e, text, size) : encode_pieces(e, text, size);
}

// Text between control tokens: user-defined ones are cut out, which are text, but never merge.
static tern_status encode_runs(encoder *e, const char *text, size_t size) {
    size_t start = 0; // of the plain text not yet encoded
    for (size_t at = 0; at < size;) {
        size_t length = 0;
        const int32_t id = tern_specials_match(&e->tok->specials, text + at, size - at, false, &length);
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

// U+2581 and a space are one character to SentencePiece. Either, and the space before the text, may belong to a user-defined
// token, so spaces have to stand there before those are looked for.
static tern_status encode_spm_segment(encoder *e, const char *text, size_t size) {
    char *spaced = malloc(size + 1);
    if (!spaced) return TERN_ERR_MEMORY;
    size_t n = 0;
    if (e->tok->space_prefix) spaced[n++] = ' ';
    for (size_t at = 0; at < size;) {
        const bool space = size - at >= TERN_SPM_SPACE_BYTES && memcmp(text + at, TERN_SPM_SPACE, TERN_SPM_SPACE_BYTES) == 0;
        spaced[n++] = space ? ' ' : text[at];
        at += space ? TERN_SPM_SPACE_BYTES : 1;
    }
    const tern_status status = encode_runs(e, spaced, n);
    free(spaced);
    return status;
}

static tern_status encode_segment(encoder *e, const char *text, size_t size) {
    if (size == 0) return TERN_OK;
    return e->tok->rule ? encode_runs(e, text, size) : encode_spm_segment(e, text, size);
}

static tern_status encode_text(encoder *e, const char *text, const tern_text_part parts[], size_t n_parts) {
    size_t start = 0; // of the segment not yet encoded
    size_t at = 0, end = 0;
    for (size_t i = 0; i < n_parts; i++) {
        end += parts[i].size;
        while (at < end) {
            size_t length = 0;
            const int32_t id = tern_specials_match(&e->tok->specials, text + at, end - at, parts[i].special, &length);
            at += id < 0 ? 1 : length;
            if (id < 0 || e->tok->vocab.types[id] == TERN_TOKEN_USER_DEFINED) continue;
            const tern_status status = encode_segment(e, text + start, at - length - start);
            if (status != TERN_OK) return status;
            emit(e, id);
            start = at;
        }
    }
    return encode_segment(e, text + start, end - start);
}

// `text` is that of all parts.
static tern_status encode_joined(const tern_tokenizer *tok, const char *text, const tern_text_part parts[], size_t n_parts,
                                 bool add_bos, int32_t *ids, size_t max, size_t *n) {
    encoder e = {.tok = tok, .out = ids, .max = max};
    tern_status status = tok->rule ? tern_words_create(&e.words, tok->pre) : TERN_OK;
    if (status != TERN_OK) return status;
    if (add_bos && tok->bos != TERN_NO_TOKEN) emit(&e, tok->bos);
    status = encode_text(&e, text, parts, n_parts);
    if (tok->rule) tern_words_destroy(&e.words);
    free(e.long_ids);
    if (status != TERN_OK) return status;
    *n = e.n;
    return e.n <= max ? TERN_OK : TERN_ERR_ARG;
}

tern_status tern_tokenizer_encode(const tern_tokenizer *tok, const char *text, size_t size, bool parse_special, bool add_bos,
                                  int32_t *ids, size_t max, size_t *n) {
    if (size >= INT32_MAX || (!text && size > 0) || (!ids && max > 0)) return TERN_ERR_ARG;
    const tern_text_part whole = {text, size, parse_special};
    return encode_joined(tok, text, &whole, size > 0, add_bos, ids, max, n);
}

tern_status tern_tokenizer_encode_parts(const tern_tokenizer *tok, const tern_text_part parts[], size_t n_parts, bool add_bos,
                                        int32_t *ids, size_t max, size_t *n) {
    size_t size = 0;
    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].size >= INT32_MAX - size) return TERN_ERR_ARG;
        size += parts[i].size;
    }
    char *text = malloc(size + 1), *end = text;
    if (!text) return TERN_ERR_MEMORY;
    for (size_t i = 0; i < n_parts; end += parts[i].size, i++) memcpy(end, parts[i].data, parts[i].size);
    const tern_status status = encode_joined(tok, text, parts, n_parts, add_bos, ids, max, n);
    free(text);
    return status;
}
