// SPDX-License-Identifier: MIT
// UTF-8 for a stream of token bytes: tokens may end in the middle of a character.
#ifndef TERN_TOOLS_UTF8_H
#define TERN_TOOLS_UTF8_H

#include <stdbool.h>
#include <stddef.h>

bool utf8_valid(const char *bytes, size_t size);

// How many of the bytes can be shown now: all but an incomplete character at the end, which later bytes may complete.
size_t utf8_ready(const char *bytes, size_t size);

// A new NUL-terminated copy in which every byte that is not part of valid UTF-8, or is NUL, became U+FFFD. NULL: no memory.
char *utf8_clean(const char *bytes, size_t size);

#endif
