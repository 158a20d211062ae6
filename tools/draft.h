// SPDX-License-Identifier: MIT
// Prompt lookup: guesses the next tokens from an earlier place of the text that ends as it ends now.
#ifndef TERN_TOOLS_DRAFT_H
#define TERN_TOOLS_DRAFT_H

#include <stddef.h>
#include <stdint.h>

// Up to `max` tokens that followed the latest earlier occurrence of the last tokens of the text (the longest suffix of at most
// DRAFT_SUFFIX tokens that occurs, at least DRAFT_SUFFIX_MIN). Returns how many. Source: A. Saxena, Prompt Lookup Decoding,
// 2023.
enum { DRAFT_SUFFIX = 4, DRAFT_SUFFIX_MIN = 2 };
size_t draft_tokens(const int32_t *text, size_t n, int32_t *draft, size_t max);

#endif
