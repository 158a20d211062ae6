// SPDX-License-Identifier: MIT
// Error messages and the default allocator.
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// Blocks of half a huge page and more are worth a whole one.
enum { TERN_HUGE_PAGE = 2 << 20, TERN_HUGE_MIN = 1 << 20, TERN_SMALL_PAGE = 4096 };

// A message is one line that a terminal shows as it is, even where a file's or a caller's text is part of it.
static void replace_controls(char *text) {
    enum { DELETE = 0x7F };
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == DELETE) *text = '?';
    }
}

void tern_error_set(tern_error *err, const char *format, ...) {
    if (!err) return;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    replace_controls(err->text);
}

static size_t round_to_huge(size_t size) { return (size + TERN_HUGE_PAGE - 1) & ~((size_t)TERN_HUGE_PAGE - 1); }

// Large blocks are whole huge pages, on their boundary, so that the kernel can back all of them so.
static void *map_huge(size_t size) {
    size_t want;
    if (!tern_add_size(size, 2 * (size_t)TERN_HUGE_PAGE, &want)) return NULL;
    const size_t mapped = round_to_huge(size);
    want = mapped + TERN_HUGE_PAGE;
    char *base = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    const size_t skip = (size_t)(-(uintptr_t)base) & ((size_t)TERN_HUGE_PAGE - 1);
    char *start = base + skip;
    if (skip) munmap(base, skip);
    if (want - skip > mapped) munmap(start + mapped, want - skip - mapped);
    (void)madvise(start, mapped, MADV_HUGEPAGE); // a wish: without huge pages the block still works
    return start;
}

static void *default_alloc(void *user, size_t size, size_t align) {
    (void)user;
    if (size >= (size_t)TERN_HUGE_MIN) return map_huge(size);
    size_t rounded;
    if (!tern_add_size(size, align - 1, &rounded)) return NULL;
    return aligned_alloc(align, rounded & ~(align - 1));
}

static void default_free(void *user, void *ptr, size_t size) {
    (void)user;
    if (size >= (size_t)TERN_HUGE_MIN) {
        munmap(ptr, round_to_huge(size));
    } else {
        free(ptr);
    }
}

const tern_allocator tern_default_allocator = {default_alloc, default_free, NULL};

void *tern_alloc(const tern_allocator *allocator, size_t count, size_t size) {
    size_t bytes;
    if (!tern_mul_size(count, size, &bytes) || bytes == 0) return NULL;
    void *ptr = allocator->alloc(allocator->user, bytes, bytes > TERN_SMALL_PAGE ? TERN_SMALL_PAGE : TERN_CACHE_LINE);
    // Fresh mappings of the default allocator are zero already; touching them here would undo first-touch placement.
    if (ptr && !(allocator->alloc == default_alloc && bytes >= (size_t)TERN_HUGE_MIN)) memset(ptr, 0, bytes);
    return ptr;
}

void tern_drop_file_pages(const void *ptr, size_t bytes) {
    // The first and the last page may hold bytes of others.
    const uintptr_t mask = (uintptr_t)TERN_SMALL_PAGE - 1;
    const uintptr_t first = ((uintptr_t)ptr + mask) & ~mask, last = ((uintptr_t)ptr + bytes) & ~mask;
    if (last > first) (void)madvise((void *)first, last - first, MADV_DONTNEED); // a wish
}

void tern_free(const tern_allocator *allocator, void *ptr, size_t count, size_t size) {
    if (ptr) allocator->free(allocator->user, ptr, count * size);
}
