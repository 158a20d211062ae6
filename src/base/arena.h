// SPDX-License-Identifier: MIT
// Memory for many blocks that live and die together: large chunks cut in order, so that small matrices share huge pages too.
#ifndef TERN_BASE_ARENA_H
#define TERN_BASE_ARENA_H

#include "base/base.h"

typedef struct tern_arena_chunk tern_arena_chunk;

// Not thread-safe. Blocks are not freed one by one: a free through the allocator below does nothing.
typedef struct tern_arena {
    const tern_allocator *parent; // where chunks come from; outlives the arena
    tern_arena_chunk *chunks;     // newest first
} tern_arena;

tern_allocator tern_arena_allocator(tern_arena *arena);
void tern_arena_release(tern_arena *arena); // all blocks at once; the arena is then empty and usable again

#endif
