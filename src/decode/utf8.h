// SPDX-License-Identifier: MIT
// Where UTF-8 is valid (Unicode: no overlong forms, no surrogates, nothing above U+10FFFF).
#ifndef TERN_DECODE_UTF8_H
#define TERN_DECODE_UTF8_H

#include <stddef.h>

// Bytes of the character that begins the text (size >= 1); 0 if none does.
size_t tern_utf8_character(const char *text, size_t size);
// Length of the longest prefix that is whole valid characters.
size_t tern_utf8_valid_prefix(const char *text, size_t size);
// Length of the longest prefix in which no valid character begins.
size_t tern_utf8_invalid_prefix(const char *text, size_t size);

#endif
