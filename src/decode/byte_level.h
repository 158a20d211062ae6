// SPDX-License-Identifier: MIT
// The byte-level alphabet of GPT-2: every byte is written as one visible code point, so that a vocabulary is plain text.
#ifndef TERN_DECODE_BYTE_LEVEL_H
#define TERN_DECODE_BYTE_LEVEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TERN_BYTES = 256,
    TERN_BYTE_TEXT_MAX = 2 // UTF-8 bytes of one letter of the alphabet: all are below U+0800
};

// Writes the letter of a byte as UTF-8 and returns its length, 1 or 2.
size_t tern_byte_text(uint8_t byte, char text[TERN_BYTE_TEXT_MAX]);

// Writes the bytes that a text in this alphabet stands for (at most `size` of them) and sets *n. False, with out undefined, if
// some character is not a letter of the alphabet.
bool tern_byte_decode(const char *text, size_t size, char *out, size_t *n);

#endif
