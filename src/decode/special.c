// SPDX-License-Identifier: MIT
// Special tokens in one sorted list, so that a prefix narrows to a range of it byte by byte.
#include "decode/special.h"

#include <stdlib.h>
#include <string.h>

static bool is_special(const tern_vocab *vocab, size_t id) {
    const int type = vocab->types[id];
    return vocab->texts[id].size > 0 &&
           (type == TERN_TOKEN_CONTROL || type == TERN_TOKEN_USER_DEFINED || type == TERN_TOKEN_UNKNOWN);
}

static int compare_texts(const void *a, const void *b, void *user) {
    const tern_gguf_string x = tern_vocab_bytes(user, *(const int32_t *)a), y = tern_vocab_bytes(user, *(const int32_t *)b);
    const int order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
    if (order != 0) return order;
    if (x.size != y.size) return x.size < y.size ? -1 : 1;
    return *(const int32_t *)a < *(const int32_t *)b ? -1 : 1; // two spellings of the same bytes: the lower id goes first
}

tern_status tern_specials_load(tern_specials *specials, const tern_vocab *vocab, const tern_allocator *allocator,
                               tern_error *err) {
    *specials = (tern_specials){.vocab = vocab, .allocator = allocator};
    for (size_t id = 0; id < vocab->n; id++) specials->n += is_special(vocab, id);
    specials->n_allocated = specials->n + 1; // none is fine
    specials->ids = tern_alloc(allocator, specials->n_allocated, sizeof *specials->ids);
    if (!specials->ids) return tern_fail(err, TERN_ERR_MEMORY, "no memory for %zu special tokens", specials->n);
    size_t at = 0;
    for (size_t id = 0; id < vocab->n; id++) {
        if (is_special(vocab, id)) specials->ids[at++] = (int32_t)id;
    }
    qsort_r(specials->ids, specials->n, sizeof *specials->ids, compare_texts, (void *)(uintptr_t)vocab);
    at = 0;
    for (size_t byte = 0; byte <= TERN_BYTES; byte++) {
        while (at < specials->n && (uint8_t)tern_vocab_bytes(vocab, specials->ids[at]).data[0] < byte) at++;
        specials->first[byte] = at;
    }
    return TERN_OK;
}

void tern_specials_free(tern_specials *specials) {
    if (!specials->ids) return;
    tern_free(specials->allocator, specials->ids, specials->n_allocated, sizeof *specials->ids);
    *specials = (tern_specials){.n = 0};
}

// First index in low..high whose byte at `depth` is >= byte. All these texts agree before depth and are longer than it.
static size_t lower_bound(const tern_specials *specials, size_t low, size_t high, size_t depth, unsigned byte) {
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if ((uint8_t)tern_vocab_bytes(specials->vocab, specials->ids[middle]).data[depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int32_t tern_specials_match(const tern_specials *specials, const char *text, size_t size, bool control, size_t *length) {
    size_t low = specials->first[(uint8_t)text[0]], high = specials->first[(uint8_t)text[0] + 1];
    int32_t found = -1;
    for (size_t depth = 1; low < high; depth++) { // ids[low..high) begin with text[0..depth)
        for (; low < high && tern_vocab_bytes(specials->vocab, specials->ids[low]).size == depth; low++) {
            const int32_t id = specials->ids[low];
            const bool wanted = control || specials->vocab->types[id] == TERN_TOKEN_USER_DEFINED;
            if (!wanted || (found >= 0 && *length == depth)) continue;
            found = id;
            *length = depth;
        }
        if (depth == size) break;
        low = lower_bound(specials, low, high, depth, (uint8_t)text[depth]);
        high = lower_bound(specials, low, high, depth, (uint8_t)text[depth] + 1u);
    }
    return found;
}
