// SPDX-License-Identifier: MIT
// UTF-8 validity, after table 3-7 of the Unicode standard.
#include "decode/utf8.h"

#include <stdbool.h>
#include <stdint.h>

static bool between(uint8_t byte, uint8_t low, uint8_t high) { return byte >= low && byte <= high; }

// Bytes of the character that begins the text; 0 if none does.
static size_t character(const uint8_t *text, size_t size) {
    const uint8_t lead = text[0];
    if (lead < 0x80) return 1;
    const size_t n = between(lead, 0xC2, 0xDF) ? 2 : between(lead, 0xE0, 0xEF) ? 3 : between(lead, 0xF0, 0xF4) ? 4 : 0;
    if (n == 0 || n > size) return 0;
    // The second byte excludes overlong forms (E0, F0), surrogates (ED) and what lies above U+10FFFF (F4).
    const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (!between(text[1], low, high)) return 0;
    for (size_t i = 2; i < n; i++) {
        if (!between(text[i], 0x80, 0xBF)) return 0;
    }
    return n;
}

size_t tern_utf8_character(const char *text, size_t size) { return character((const uint8_t *)text, size); }

size_t tern_utf8_valid_prefix(const char *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        const size_t n = character((const uint8_t *)text + at, size - at);
        if (n == 0) break;
        at += n;
    }
    return at;
}

size_t tern_utf8_invalid_prefix(const char *text, size_t size) {
    size_t at = 0;
    while (at < size && character((const uint8_t *)text + at, size - at) == 0) at++;
    return at;
}
