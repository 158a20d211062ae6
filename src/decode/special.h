// SPDX-License-Identifier: MIT
// Finds special tokens (control and user-defined ones, stored as plain text) inside a prompt, the longest first.
#ifndef TERN_DECODE_SPECIAL_H
#define TERN_DECODE_SPECIAL_H

#include "decode/vocab.h"

typedef struct tern_specials {
    const tern_vocab *vocab;
    const tern_allocator *allocator;
    int32_t *ids;                 // [n], sorted by text
    size_t n;                     //
    size_t n_allocated;           //
    size_t first[TERN_BYTES + 1]; // those that begin with byte b: ids[first[b] .. first[b + 1])
} tern_specials;

// The vocab must outlive it. On failure nothing is left allocated. Errors: MEMORY.
tern_status tern_specials_load(tern_specials *specials, const tern_vocab *vocab, const tern_allocator *allocator,
                               tern_error *err);
void tern_specials_free(tern_specials *specials);

// The longest special token that text (size >= 1) begins with, and its length; -1 if none. Without `control` only user-defined
// tokens count, which are recognized always.
int32_t tern_specials_match(const tern_specials *specials, const char *text, size_t size, bool control, size_t *length);

#endif
