// SPDX-License-Identifier: MIT
// Chat formats: the markers that stand around the messages of a conversation, as the templates of model families write them.
#ifndef TERN_DECODE_CHAT_H
#define TERN_DECODE_CHAT_H

#include "decode/tokenizer.h"
#include "tern/decode.h"

typedef struct tern_chat_format tern_chat_format;

// The format called `name` or, if that is NULL, the one whose template is tokenizer.chat_template. NULL if there is none, or if
// the vocabulary lacks its markers.
const tern_chat_format *tern_chat_find(const tern_gguf *gguf, const tern_tokenizer *tok, const char *name);
const char *tern_chat_name(const tern_chat_format *format);

enum { TERN_CHAT_PARTS = 24 };

// The text of a turn, up to where the answer begins, in at most TERN_CHAT_PARTS parts; returns how many. They point into turn,
// gguf and tok. Special tokens are looked for in the markers only.
size_t tern_chat_parts(const tern_chat_format *format, const tern_gguf *gguf, const tern_tokenizer *tok,
                       const tern_chat_turn *turn, tern_text_part parts[TERN_CHAT_PARTS]);

#endif
