// SPDX-License-Identifier: MIT
// Open addressing with linear probing over SipHash-1-3.
#include "format/name_index.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

static inline uint64_t rotate_left(uint64_t x, unsigned bits) { return x << bits | x >> (64 - bits); }

static void sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate_left(v[1], 13) ^ v[0];
    v[3] = rotate_left(v[3], 16) ^ v[2];
    v[0] = rotate_left(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate_left(v[1], 17) ^ v[2];
    v[3] = rotate_left(v[3], 21) ^ v[0];
    v[2] = rotate_left(v[2], 32);
}

static uint64_t sip_hash(const uint64_t key[2], const char *data, size_t size) {
    enum { WORD = 8, FINAL_ROUNDS = 3, FINAL_MARK = 0xff };
    // "somepseudorandomlygeneratedbytes", the initial state of SipHash
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261,
                     key[1] ^ 0x7465646279746573};
    for (size_t at = 0; at <= size; at += WORD) { // the last word has 0..7 bytes and the length
        const size_t left = size - at;
        uint64_t word = 0;
        memcpy(&word, data + at, left < WORD ? left : WORD);
        if (left < WORD) word |= (uint64_t)size << 56;
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= FINAL_MARK;
    for (int i = 0; i < FINAL_ROUNDS; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

bool tern_name_index_create(tern_name_index *index, size_t n_names, const tern_allocator *allocator) {
    size_t n_slots = 4;
    while (n_slots / 2 < n_names) n_slots *= 2;
    index->slots = tern_alloc(allocator, n_slots, sizeof *index->slots);
    if (!index->slots) return false;
    index->n_slots = n_slots;
    if (getrandom(index->key, sizeof index->key, GRND_NONBLOCK) != (ssize_t)sizeof index->key) {
        // Early in boot: the address of the table and the clock are hard enough to guess for a file made beforehand.
        struct timespec now = {0};
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        index->key[0] = (uint64_t)(uintptr_t)index->slots;
        index->key[1] = (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 32;
    }
    return true;
}

void tern_name_index_destroy(tern_name_index *index, const tern_allocator *allocator) {
    tern_free(allocator, index->slots, index->n_slots, sizeof *index->slots);
    *index = (tern_name_index){0};
}

// The slot that holds the name, or the free one where it belongs. Half of the slots are free, so the walk ends.
static tern_name_slot *locate(const tern_name_index *index, const char *name, size_t size, uint32_t *tag) {
    const uint64_t hash = sip_hash(index->key, name, size);
    const size_t mask = index->n_slots - 1;
    *tag = (uint32_t)hash;
    for (size_t i = (size_t)(hash >> 32) & mask;; i = (i + 1) & mask) {
        tern_name_slot *slot = &index->slots[i];
        if (!slot->name.data) return slot;
        if (slot->tag == *tag && slot->name.size == size && memcmp(slot->name.data, name, size) == 0) return slot;
    }
}

bool tern_name_index_insert(tern_name_index *index, tern_gguf_string name, uint32_t position) {
    uint32_t tag;
    tern_name_slot *slot = locate(index, name.data, name.size, &tag);
    if (slot->name.data) return false;
    *slot = (tern_name_slot){name, tag, position};
    return true;
}

uint32_t tern_name_index_find(const tern_name_index *index, const char *name, size_t size) {
    if (!index->slots) return TERN_NAME_ABSENT;
    uint32_t tag;
    const tern_name_slot *slot = locate(index, name, size, &tag);
    return slot->name.data ? slot->position : TERN_NAME_ABSENT;
}
