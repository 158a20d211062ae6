// SPDX-License-Identifier: MIT
// UTF-8 for a stream of token bytes: tokens may end in the middle of a character.
#include "utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { UTF8_MAX = 4 };

// Bytes of the character that a first byte announces; 0 for a byte that starts none.
static size_t announced(uint8_t first) {
    if (first < 0x80) return 1;
    if (first >= 0xC2 && first <= 0xDF) return 2;
    if (first >= 0xE0 && first <= 0xEF) return 3;
    if (first >= 0xF0 && first <= 0xF4) return 4;
    return 0;
}

// Whether byte i of a character may be b (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
static bool continues(uint8_t first, size_t i, uint8_t b) {
    uint8_t low = 0x80, high = 0xBF;
    if (i == 1) {
        if (first == 0xE0) low = 0xA0;
        if (first == 0xED) high = 0x9F;
        if (first == 0xF0) low = 0x90;
        if (first == 0xF4) high = 0x8F;
    }
    return b >= low && b <= high;
}

// Bytes of the character at the start, 0 if there is none; *cut: valid so far, but the bytes end before the character does.
static size_t character(const uint8_t *p, size_t size, bool *cut) {
    const size_t n = announced(p[0]);
    *cut = false;
    for (size_t i = 1; i < n; i++) {
        if (i == size) {
            *cut = true;
            return 0;
        }
        if (!continues(p[0], i, p[i])) return 0;
    }
    return n;
}

bool utf8_valid(const char *bytes, size_t size) {
    bool cut;
    for (size_t i = 0, n; i < size; i += n) {
        n = character((const uint8_t *)bytes + i, size - i, &cut);
        if (n == 0) return false;
    }
    return true;
}

size_t utf8_ready(const char *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    for (size_t back = 1; back < UTF8_MAX && back <= size; back++) {
        bool cut;
        (void)character(p + size - back, back, &cut);
        if (cut) return size - back;
    }
    return size;
}

char *utf8_clean(const char *bytes, size_t size) {
    static const char replacement[] = "\xEF\xBF\xBD";
    enum { REPLACEMENT_BYTES = sizeof replacement - 1 };
    const uint8_t *p = (const uint8_t *)bytes;
    if (size > (SIZE_MAX - 1) / REPLACEMENT_BYTES) return NULL;
    char *clean = malloc(size * REPLACEMENT_BYTES + 1), *out = clean;
    if (!clean) return NULL;
    for (size_t i = 0; i < size;) {
        bool cut;
        const size_t n = p[i] ? character(p + i, size - i, &cut) : 0;
        if (n) {
            memcpy(out, p + i, n);
            out += n;
            i += n;
        } else {
            memcpy(out, replacement, REPLACEMENT_BYTES);
            out += REPLACEMENT_BYTES;
            i++;
        }
    }
    *out = '\0';
    return clean;
}
