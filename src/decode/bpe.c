// SPDX-License-Identifier: MIT
// Byte-pair merges: hash table of pairs; a scan for short words, a heap for long ones, with the same result.
#include "decode/bpe.h"

#include <string.h>

#define KEY_MERGES "tokenizer.ggml.merges"
#define PAIR_MULTIPLIER UINT64_C(0x9E3779B97F4A7C15) // 2^64 / golden ratio: spreads consecutive ids

enum { NO_RANK = -1, NOWHERE = -1 };

// No pair lies further than this behind the slot of its hash (as in vocab.c): a file that would need more is refused.
enum { PROBES_MAX = 1024 };
static const tern_bpe_merge no_merge = {.id = -1};

// The slot that holds the pair, or the empty one where it belongs; NULL: there is none so near.
static tern_bpe_merge *find_slot(const tern_bpe *bpe, uint32_t left, uint32_t right) {
    const uint64_t hash = ((uint64_t)left << 32 | right) * PAIR_MULTIPLIER;
    const size_t first = (size_t)(hash ^ hash >> 32);
    for (size_t i = 0; i < PROBES_MAX; i++) {
        tern_bpe_merge *slot = &bpe->slots[(first + i) & (bpe->n_slots - 1)];
        if (slot->id < 0 || (slot->left == left && slot->right == right)) return slot;
    }
    return NULL;
}

static const tern_bpe_merge *find_merge(const tern_bpe *bpe, int32_t left, int32_t right) {
    const tern_bpe_merge *slot = find_slot(bpe, (uint32_t)left, (uint32_t)right);
    return slot ? slot : &no_merge;
}

bool tern_bpe_allocate(tern_bpe *bpe, size_t n) {
    for (bpe->n_slots = 2; bpe->n_slots < 2 * n;) bpe->n_slots *= 2;
    bpe->slots = tern_alloc(bpe->allocator, bpe->n_slots, sizeof *bpe->slots);
    for (size_t i = 0; bpe->slots && i < bpe->n_slots; i++) bpe->slots[i].id = -1;
    return bpe->slots != NULL;
}

tern_bpe_added tern_bpe_add(tern_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id) {
    tern_bpe_merge *merge = find_slot(bpe, (uint32_t)left, (uint32_t)right);
    if (!merge) return TERN_BPE_CROWDED;
    if (merge->id >= 0) return TERN_BPE_REPEATED;
    *merge = (tern_bpe_merge){.left = (uint32_t)left, .right = (uint32_t)right, .rank = rank, .id = id};
    return TERN_BPE_ADDED;
}

// ---- Loading ----------------------------------------------------------------------------------------------

static tern_status read_merge(tern_bpe *bpe, const tern_vocab *vocab, tern_gguf_array merges, size_t rank, tern_error *err) {
    const char *path = tern_gguf_path(merges.gguf);
    tern_gguf_string text;
    if (!tern_gguf_string_at(merges, rank, &text)) {
        return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_MERGES "[%zu] cannot be read; convert the model again", path, rank);
    }
    // "left right": the byte-level alphabet has no space, so the first one separates.
    const char *space = text.size > 0 ? memchr(text.data, ' ', text.size) : NULL;
    if (!space || space == text.data || space + 1 == text.data + text.size) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: " KEY_MERGES "[%zu] is not two tokens with a space between; convert the model again", path, rank);
    }
    const size_t n_left = (size_t)(space - text.data), n_right = text.size - n_left - 1;
    int32_t ids[3];
    tern_vocab_find_pair(vocab, text.data, n_left, space + 1, n_right, ids);
    const int32_t left = ids[0], right = ids[1], id = ids[2];
    if (left < 0 || right < 0 || id < 0) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: " KEY_MERGES "[%zu]: its %s token is not in tokenizer.ggml.tokens; convert the model again", path,
                         rank,
                         left < 0    ? "left"
                         : right < 0 ? "right"
                                     : "merged");
    }
    switch (tern_bpe_add(bpe, left, right, (uint32_t)rank, id)) {
    case TERN_BPE_ADDED:
        return TERN_OK;
    case TERN_BPE_REPEATED:
        return tern_fail(err, TERN_ERR_FORMAT, "%s: " KEY_MERGES "[%zu] repeats entry %u; convert the model again", path, rank,
                         find_merge(bpe, left, right)->rank);
    default:
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: " KEY_MERGES
                         "[%zu] has nearly the hash of %d others, which does not happen by chance; get it again",
                         path, rank, PROBES_MAX);
    }
}

tern_status tern_bpe_load(tern_bpe *bpe, const tern_vocab *vocab, const tern_gguf *gguf, const tern_allocator *allocator,
                          tern_error *err) {
    *bpe = (tern_bpe){.allocator = allocator};
    tern_gguf_type type;
    size_t n;
    // Ranks are held in 31 bits, because the scan keeps them signed.
    if (!tern_gguf_get_array(gguf, KEY_MERGES, &type, &n) || type != TERN_GGUF_STRING || n > INT32_MAX) {
        return tern_fail(err, TERN_ERR_FORMAT,
                         "%s: " KEY_MERGES " is missing or not an array of strings; convert the model again",
                         tern_gguf_path(gguf));
    }
    if (!tern_bpe_allocate(bpe, n)) return tern_fail(err, TERN_ERR_MEMORY, "no memory for a table of %zu merges", n);
    tern_status status = TERN_OK;
    const tern_gguf_array merges = tern_gguf_find_array(gguf, KEY_MERGES);
    for (size_t rank = 0; status == TERN_OK && rank < n; rank++) status = read_merge(bpe, vocab, merges, rank, err);
    if (status != TERN_OK) tern_bpe_free(bpe);
    return status;
}

void tern_bpe_free(tern_bpe *bpe) {
    tern_free(bpe->allocator, bpe->slots, bpe->n_slots, sizeof *bpe->slots);
    *bpe = (tern_bpe){.n_slots = 0};
}

// ---- Short words: scan for the lowest rank ------------------------------------------------------------------

typedef struct pair {
    int64_t rank; // NO_RANK: these two do not merge
    int32_t id;
} pair;

static pair pair_of(const tern_bpe *bpe, int32_t left, int32_t right) {
    const tern_bpe_merge *merge = find_merge(bpe, left, right);
    return merge->id < 0 ? (pair){NO_RANK, -1} : (pair){merge->rank, merge->id};
}

static size_t lowest_pair(const pair *pairs, size_t n) {
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        if (pairs[i].rank != NO_RANK && (best == n || pairs[i].rank < pairs[best].rank)) best = i;
    }
    return best;
}

size_t tern_bpe_merge_short(const tern_bpe *bpe, int32_t *ids, size_t n) {
    pair pairs[TERN_BPE_SHORT]; // pairs[i] is ids[i] with ids[i + 1]
    for (size_t i = 0; i + 1 < n; i++) pairs[i] = pair_of(bpe, ids[i], ids[i + 1]);
    while (n > 1) {
        const size_t i = lowest_pair(pairs, n - 1);
        if (i == n - 1) break;
        ids[i] = pairs[i].id;
        memmove(ids + i + 1, ids + i + 2, (n - i - 2) * sizeof *ids);
        memmove(pairs + i, pairs + i + 1, (n - i - 2) * sizeof *pairs);
        n--;
        if (i > 0) pairs[i - 1] = pair_of(bpe, ids[i - 1], ids[i]);
        if (i + 1 < n) pairs[i] = pair_of(bpe, ids[i], ids[i + 1]);
    }
    return n;
}

// ---- Long words: linked symbols and a heap of pairs -----------------------------------------------------------

typedef struct symbol {
    int32_t id;         // -1: merged into the symbol on its left
    int32_t prev, next; // positions; NOWHERE at the ends
    int32_t rank;       // of the pair it begins now; NO_RANK: none
} symbol;

// A heap entry is rank << 32 | position, so the smallest is the lowest rank, leftmost. An entry whose rank is no longer that of
// the symbol at its position is stale and skipped.
typedef struct heap {
    uint64_t *entries;
    size_t n;
} heap;

static void heap_push(heap *h, uint64_t entry) {
    size_t i = h->n++;
    for (; i > 0 && h->entries[(i - 1) / 2] > entry; i = (i - 1) / 2) h->entries[i] = h->entries[(i - 1) / 2];
    h->entries[i] = entry;
}

static uint64_t heap_pop(heap *h) {
    const uint64_t top = h->entries[0], last = h->entries[--h->n];
    size_t i = 0;
    for (size_t child = 1; child < h->n; child = 2 * i + 1) {
        if (child + 1 < h->n && h->entries[child + 1] < h->entries[child]) child++;
        if (h->entries[child] >= last) break;
        h->entries[i] = h->entries[child];
        i = child;
    }
    h->entries[i] = last;
    return top;
}

static void rank_pair(const tern_bpe *bpe, symbol *symbols, int32_t at, heap *h) {
    symbols[at].rank = NO_RANK;
    if (symbols[at].next == NOWHERE) return;
    const tern_bpe_merge *merge = find_merge(bpe, symbols[at].id, symbols[symbols[at].next].id);
    if (merge->id < 0) return;
    symbols[at].rank = (int32_t)merge->rank;
    heap_push(h, (uint64_t)merge->rank << 32 | (uint32_t)at);
}

// At most n - 1 entries at the start, and each of at most n - 1 merges takes one and adds two: fewer than 2n at any time.
size_t tern_bpe_scratch_bytes(size_t n) { return n * (2 * sizeof(uint64_t) + sizeof(symbol)); }

size_t tern_bpe_merge_long(const tern_bpe *bpe, int32_t *ids, size_t n, size_t least, void *scratch) {
    heap h = {.entries = scratch, .n = 0};
    symbol *symbols = (symbol *)(h.entries + 2 * n);
    const int32_t count = (int32_t)n;
    for (int32_t i = 0; i < count; i++) symbols[i] = (symbol){ids[i], i - 1, i + 1 < count ? i + 1 : NOWHERE, NO_RANK};
    for (int32_t i = 0; i < count; i++) rank_pair(bpe, symbols, i, &h);
    for (size_t left_over = n; h.n > 0 && left_over > least;) {
        const uint64_t entry = heap_pop(&h);
        symbol *left = &symbols[(uint32_t)entry];
        if (left->id < 0 || left->rank != (int32_t)(entry >> 32)) continue;
        symbol *right = &symbols[left->next];
        left->id = find_merge(bpe, left->id, right->id)->id;
        left->next = right->next;
        if (right->next != NOWHERE) symbols[right->next].prev = (int32_t)(uint32_t)entry;
        right->id = -1;
        left_over--;
        rank_pair(bpe, symbols, (int32_t)(uint32_t)entry, &h);
        if (left->prev != NOWHERE) rank_pair(bpe, symbols, left->prev, &h);
    }
    size_t out = 0;
    for (int32_t i = 0; i != NOWHERE && n > 0; i = symbols[i].next) ids[out++] = symbols[i].id;
    return out;
}
