// SPDX-License-Identifier: MIT
// Byte-pair merges: a table from a pair of tokens to its rank, and the merging of one word.
#ifndef TERN_DECODE_BPE_H
#define TERN_DECODE_BPE_H

#include "decode/vocab.h"

enum {
    TERN_BPE_SHORT = 48 // words up to this many bytes are merged by scanning, longer ones through a heap
};

typedef struct tern_bpe_merge {
    uint32_t left, right; // ids
    uint32_t rank;        // the lowest goes first, and of equals the leftmost
    int32_t id;           // the merged token; -1: an empty slot
} tern_bpe_merge;

typedef struct tern_bpe {
    const tern_allocator *allocator;
    tern_bpe_merge *slots; // open addressing, n_slots is a power of two and at least half of them are empty
    size_t n_slots;
} tern_bpe;

// Reads tokenizer.ggml.merges. On failure nothing is left allocated. Errors: FORMAT, MEMORY.
tern_status tern_bpe_load(tern_bpe *bpe, const tern_vocab *vocab, const tern_gguf *gguf, const tern_allocator *allocator,
                          tern_error *err);
void tern_bpe_free(tern_bpe *bpe);

// The same step by step: a table with room for n merges (false: no memory), then each merge, at most n.
typedef enum tern_bpe_added {
    TERN_BPE_ADDED,
    TERN_BPE_REPEATED, // the pair is there already
    TERN_BPE_CROWDED   // so many pairs have nearly this one's hash that the file was made for it
} tern_bpe_added;
bool tern_bpe_allocate(tern_bpe *bpe, size_t n);
tern_bpe_added tern_bpe_add(tern_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);

// Both merge the pair of lowest rank (the leftmost among equals) until none is left, in place, and return the new count.
size_t tern_bpe_merge_short(const tern_bpe *bpe, int32_t *ids, size_t n); // n <= TERN_BPE_SHORT
// Any n <= INT32_MAX, in O(n log n), and stops when only `least` (at least 1) are left. scratch: tern_bpe_scratch_bytes(n)
// bytes, aligned to 8.
size_t tern_bpe_merge_long(const tern_bpe *bpe, int32_t *ids, size_t n, size_t least, void *scratch);
size_t tern_bpe_scratch_bytes(size_t n);

#endif
