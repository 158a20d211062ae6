// SPDX-License-Identifier: MIT
// A linear search from the end: a text of some thousand tokens takes microseconds.
#include "draft.h"

#include <string.h>

// Where the suffix of `length` tokens occurs last before the end; the position behind it, or 0.
static size_t behind_earlier(const int32_t *text, size_t n, size_t length) {
    const int32_t *suffix = text + n - length;
    for (size_t at = n - length; at-- > 0;)
        if (memcmp(text + at, suffix, length * sizeof *text) == 0) return at + length;
    return 0;
}

size_t draft_tokens(const int32_t *text, size_t n, int32_t *draft, size_t max) {
    for (size_t length = DRAFT_SUFFIX; length >= DRAFT_SUFFIX_MIN; length--) {
        if (n <= length) continue;
        const size_t from = behind_earlier(text, n, length);
        if (from == 0) continue;
        const size_t count = n - from < max ? n - from : max;
        memcpy(draft, text + from, count * sizeof *draft);
        return count;
    }
    return 0;
}
