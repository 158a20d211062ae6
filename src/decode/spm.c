// SPDX-License-Identifier: MIT
// Merges by score as a table of pairs, so that one code merges for both families of tokenizers.
#include "decode/spm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "decode/utf8.h"

#define KEY_SCORES "tokenizer.ggml.scores"

// ---- Characters -------------------------------------------------------------------------------------------

enum { CONTINUATION_BITS = 6, CONTINUATION_MASK = 0x3F };

// text: one valid character.
static int32_t code_point(const char *text, size_t size) {
    static const uint8_t lead_mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    int32_t code = (uint8_t)text[0] & lead_mask[size];
    for (size_t i = 1; i < size; i++) code = code << CONTINUATION_BITS | ((uint8_t)text[i] & CONTINUATION_MASK);
    return code;
}

size_t tern_spm_bytes(int32_t id, uint8_t bytes[4]) {
    if (id >= TERN_SPM_LONE_BYTES) {
        bytes[0] = (uint8_t)(id - TERN_SPM_LONE_BYTES);
        return 1;
    }
    const uint32_t code = (uint32_t)(id - TERN_SPM_CHARACTERS);
    static const uint8_t lead[] = {0, 0x00, 0xC0, 0xE0, 0xF0};
    const size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = code >> (CONTINUATION_BITS * (n - 1 - i));
        bytes[i] = (uint8_t)(i == 0 ? lead[n] | bits : 0x80 | (bits & CONTINUATION_MASK));
    }
    return n;
}

// Tokens that text becomes; the others are written by their ids only.
static bool is_text(const tern_vocab *vocab, int32_t id) {
    const int type = vocab->types[id];
    return type == TERN_TOKEN_NORMAL || type == TERN_TOKEN_USER_DEFINED || type == TERN_TOKEN_UNUSED;
}

// The text token that is these bytes; else -1.
static int32_t find_text(const tern_vocab *vocab, const char *text, size_t size) {
    const int32_t id = tern_vocab_find(vocab, text, size, "", 0);
    return id >= 0 && is_text(vocab, id) ? id : -1;
}

// The id of one character, or of a byte that begins none.
static int32_t character_id(const tern_vocab *vocab, const char *text, size_t size) {
    const int32_t id = find_text(vocab, text, size);
    return id >= 0 ? id : TERN_SPM_CHARACTERS + code_point(text, size);
}

size_t tern_spm_characters(const tern_vocab *vocab, const char *text, size_t size, int32_t *ids) {
    const int32_t space = character_id(vocab, TERN_SPM_SPACE, TERN_SPM_SPACE_BYTES);
    size_t n = 0;
    for (size_t at = 0; at < size;) {
        const size_t length = tern_utf8_character(text + at, size - at);
        if (length == 0)
            ids[n++] = TERN_SPM_LONE_BYTES + (uint8_t)text[at];
        else
            ids[n++] = text[at] == ' ' ? space : character_id(vocab, text + at, length);
        at += length ? length : 1;
    }
    return n;
}

// ---- Ranks ------------------------------------------------------------------------------------------------

typedef struct scored {
    float score;
    int32_t id;
} scored;

static int by_score(const void *a, const void *b) { // the highest first
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

// ranks[id]: how many different scores are higher.
static tern_status read_ranks(uint32_t *ranks, scored *sorted, const tern_vocab *vocab, const tern_gguf *gguf,
                              tern_error *err) {
    const char *path = tern_gguf_path(gguf);
    tern_gguf_type type;
    size_t n = 0;
    if (!tern_gguf_get_array(gguf, KEY_SCORES, &type, &n) || n != vocab->n)
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: " KEY_SCORES
                         " must be an array of %zu numbers, one per token (found %zu); convert the model again",
                         path, vocab->n, n);
    for (size_t id = 0; id < n; id++) {
        double score;
        if (!tern_gguf_array_f64(gguf, KEY_SCORES, id, &score) || !isfinite(score))
            return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_SCORES "[%zu] is not a finite number; convert the model again",
                             path, id);
        sorted[id] = (scored){(float)score, (int32_t)id};
    }
    qsort(sorted, n, sizeof *sorted, by_score);
    uint32_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        rank += i > 0 && sorted[i].score != sorted[i - 1].score;
        ranks[sorted[i].id] = rank;
    }
    return TERN_OK;
}

// ---- Merges -----------------------------------------------------------------------------------------------

// The id of a part of a token: a token, or a character that is none; else -1.
static int32_t part_id(const tern_vocab *vocab, const char *text, size_t size) {
    const int32_t id = find_text(vocab, text, size);
    if (id >= 0) return id;
    return tern_utf8_character(text, size) == size ? TERN_SPM_CHARACTERS + code_point(text, size) : -1;
}

// Counts the pairs that merge into a token, or adds them to the table if there is one. False: it has no room for one of them.
static bool add_pairs(tern_bpe *bpe, const tern_vocab *vocab, int32_t id, uint32_t rank, size_t *pairs) {
    const tern_gguf_string text = vocab->texts[id];
    if (!is_text(vocab, id) || tern_utf8_valid_prefix(text.data, text.size) != text.size) return true;
    for (size_t cut = 0; cut < text.size;) {
        cut += tern_utf8_character(text.data + cut, text.size - cut);
        if (cut == text.size) break;
        const int32_t left = part_id(vocab, text.data, cut), right = part_id(vocab, text.data + cut, text.size - cut);
        if (left < 0 || right < 0) continue;
        ++*pairs;
        if (bpe->slots && tern_bpe_add(bpe, left, right, rank, id) == TERN_BPE_CROWDED) return false;
    }
    return true;
}

// Looking up all pairs of a token takes the square of its length. SentencePiece trains none of more than 512 characters.
static tern_status check_lengths(const tern_vocab *vocab, const tern_gguf *gguf, tern_error *err) {
    enum { TOKEN_MAX_BYTES = 512 * 4 };
    for (size_t id = 0; id < vocab->n; id++)
        if (is_text(vocab, (int32_t)id) && vocab->texts[id].size > TOKEN_MAX_BYTES)
            return tern_fail(err, TERN_ERR_FORMAT,
                             "%s: tokenizer.ggml.tokens[%zu] has %zu bytes, more than %d; convert the model again",
                             tern_gguf_path(gguf), id, vocab->texts[id].size, TOKEN_MAX_BYTES);
    return TERN_OK;
}

static tern_status load_merges(tern_bpe *bpe, uint32_t *ranks, scored *sorted, const tern_vocab *vocab, const tern_gguf *gguf,
                               tern_error *err) {
    tern_status status = check_lengths(vocab, gguf, err);
    if (status == TERN_OK) status = read_ranks(ranks, sorted, vocab, gguf, err);
    if (status != TERN_OK) return status;
    size_t pairs = 0;
    for (size_t id = 0; id < vocab->n; id++) (void)add_pairs(bpe, vocab, (int32_t)id, 0, &pairs);
    if (!tern_bpe_allocate(bpe, pairs)) return tern_fail(err, TERN_ERR_MEMORY, "no memory for a table of %zu merges", pairs);
    for (size_t id = 0; id < vocab->n; id++)
        if (!add_pairs(bpe, vocab, (int32_t)id, ranks[id], &pairs))
            return tern_fail(err, TERN_ERR_FORMAT,
                             "%s: tokenizer.ggml.tokens[%zu] merges from parts whose hash too many others have, which does not "
                             "happen by chance; get it again",
                             tern_gguf_path(gguf), id);
    return TERN_OK;
}

tern_status tern_spm_load(tern_bpe *bpe, const tern_vocab *vocab, const tern_gguf *gguf, const tern_allocator *allocator,
                          tern_error *err) {
    *bpe = (tern_bpe){.allocator = allocator};
    if (vocab->n >= TERN_SPM_CHARACTERS)
        return tern_fail(err, TERN_ERR_UNSUPPORTED, "%s: a vocabulary of %zu tokens is too large", tern_gguf_path(gguf),
                         vocab->n);
    uint32_t *ranks = tern_alloc(allocator, vocab->n, sizeof *ranks);
    scored *sorted = tern_alloc(allocator, vocab->n, sizeof *sorted);
    const tern_status status = ranks && sorted ? load_merges(bpe, ranks, sorted, vocab, gguf, err)
                                               : tern_fail(err, TERN_ERR_MEMORY, "no memory for %zu scores", vocab->n);
    tern_free(allocator, ranks, vocab->n, sizeof *ranks);
    tern_free(allocator, sorted, vocab->n, sizeof *sorted);
    return status;
}
