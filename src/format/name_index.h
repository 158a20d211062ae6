// SPDX-License-Identifier: MIT
// Hash index from names in a mapped file to their positions; keyed, so that a hostile file cannot make it slow.
#ifndef TERN_FORMAT_NAME_INDEX_H
#define TERN_FORMAT_NAME_INDEX_H

#include "format/gguf.h"

enum { TERN_NAME_ABSENT = UINT32_MAX };

typedef struct tern_name_slot {
    tern_gguf_string name; // data NULL: free
    uint32_t tag;          // low half of the hash
    uint32_t position;
} tern_name_slot;

typedef struct tern_name_index {
    tern_name_slot *slots;
    size_t n_slots; // a power of two, at least twice the names
    uint64_t key[2];
} tern_name_index;

// Room for n_names >= 1 names. False: no memory.
bool tern_name_index_create(tern_name_index *index, size_t n_names, const tern_allocator *allocator);
void tern_name_index_destroy(tern_name_index *index, const tern_allocator *allocator);

// False if the name is there already. At most n_names insertions.
bool tern_name_index_insert(tern_name_index *index, tern_gguf_string name, uint32_t position);
// Position given at insertion, or TERN_NAME_ABSENT. An index of zeros holds nothing.
uint32_t tern_name_index_find(const tern_name_index *index, const char *name, size_t size);

#endif
