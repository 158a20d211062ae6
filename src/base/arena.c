// SPDX-License-Identifier: MIT
// Chunks of 32 MiB, or of one larger block.
#include "base/arena.h"

enum { TERN_ARENA_CHUNK = 32 << 20, TERN_ARENA_ALIGN_MAX = 4096 };

struct tern_arena_chunk {
    tern_arena_chunk *next;
    size_t size, used; // bytes, this header included
};

// The offset at which `size` bytes fit the chunk, or 0.
static size_t fit(const tern_arena_chunk *chunk, size_t size, size_t align) {
    const size_t at = (chunk->used + align - 1) & ~(align - 1);
    return at <= chunk->size && size <= chunk->size - at ? at : 0;
}

static void *arena_alloc(void *user, size_t size, size_t align) {
    tern_arena *arena = user;
    tern_arena_chunk *chunk = arena->chunks;
    size_t at = chunk ? fit(chunk, size, align) : 0;
    if (at == 0) {
        size_t want; // the header takes the first aligned slot
        if (!tern_add_size(size, (size_t)TERN_ARENA_ALIGN_MAX, &want)) return NULL;
        if (want < (size_t)TERN_ARENA_CHUNK) want = TERN_ARENA_CHUNK;
        chunk = arena->parent->alloc(arena->parent->user, want, TERN_ARENA_ALIGN_MAX);
        if (!chunk) return NULL;
        *chunk = (tern_arena_chunk){arena->chunks, want, sizeof *chunk};
        arena->chunks = chunk;
        at = fit(chunk, size, align);
    }
    chunk->used = at + size;
    return (unsigned char *)chunk + at;
}

static void arena_free(void *user, void *ptr, size_t size) { (void)user, (void)ptr, (void)size; }

tern_allocator tern_arena_allocator(tern_arena *arena) { return (tern_allocator){arena_alloc, arena_free, arena}; }

void tern_arena_release(tern_arena *arena) {
    while (arena->chunks) {
        tern_arena_chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        arena->parent->free(arena->parent->user, chunk, chunk->size);
    }
}
