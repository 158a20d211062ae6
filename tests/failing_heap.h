// SPDX-License-Identifier: MIT
// An allocator for tests: fails after a number of blocks, counts what lives, and checks that Tern keeps the contract of tern.h.
// Included after cmocka.h.
#ifndef TERN_TESTS_FAILING_HEAP_H
#define TERN_TESTS_FAILING_HEAP_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tern/tern.h"

typedef struct heap {
    size_t live, bytes, allowed;
    bool wrong; // free with another size than alloc's, or alloc with an alignment out of its range
} heap;

enum { HEAP_HEADER = 4096 };

static inline void *heap_alloc(void *user, size_t size, size_t align) {
    heap *h = user;
    if (align == 0 || align > HEAP_HEADER || (align & (align - 1)) != 0) h->wrong = true;
    if (h->allowed == 0) return NULL;
    unsigned char *p = aligned_alloc(HEAP_HEADER, HEAP_HEADER + (size + HEAP_HEADER - 1) / HEAP_HEADER * HEAP_HEADER);
    if (!p) return NULL;
    h->allowed--;
    h->live++;
    h->bytes += size;
    memcpy(p, &size, sizeof size);
    return p + HEAP_HEADER;
}

static inline void heap_free(void *user, void *ptr, size_t size) {
    heap *h = user;
    unsigned char *p = (unsigned char *)ptr - HEAP_HEADER;
    h->wrong |= memcmp(p, &size, sizeof size) != 0;
    h->live--;
    h->bytes -= size;
    free(p);
}

static inline tern_context *context_on(heap *h, int threads) {
    const tern_allocator allocator = {heap_alloc, heap_free, h};
    const tern_context_params params = {.struct_size = sizeof params, .threads = threads, .allocator = &allocator};
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, &params), TERN_OK);
    return ctx;
}

#endif
