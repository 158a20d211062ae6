// SPDX-License-Identifier: MIT
// A session kept in a file between runs of tern generate, so that the beginning of a prompt need not be read again.
#ifndef TERN_TOOLS_PROMPT_CACHE_H
#define TERN_TOOLS_PROMPT_CACHE_H

#include "answer.h"

// Both fail with an error line and CLI_FAILED, and do nothing where path is NULL.

// Before the prompt is read: takes what the file, if there is one, has in common with its beginning, but not all n tokens,
// since the last one makes the first logits. *reused: how many. Where the file could not be written it is an error now, and
// not behind the text.
int prompt_cache_load(answer *a, const char *path, const int32_t *tokens, size_t n, size_t *reused);
// Afterwards: what was read and written.
int prompt_cache_save(answer *a, const char *path);

#endif
