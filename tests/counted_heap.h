// SPDX-License-Identifier: MIT
// Counts the allocations of a process while `counting`, by every route to the heap, and tells how much memory it holds. For one
// source file of a test.
#ifndef TERN_TESTS_COUNTED_HEAP_H
#define TERN_TESTS_COUNTED_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "sanitized.h"
#include "tern/tern.h"

static volatile bool counting;
static volatile size_t allocations;
static volatile size_t live_bytes; // taken through the counted allocator and not given back

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void *__libc_memalign(size_t align, size_t size);

#if !SANITIZED // sanitizers have hooks of their own
void *malloc(size_t size) {
    allocations += counting;
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    allocations += counting;
    return __libc_calloc(count, size);
}
void *realloc(void *p, size_t size) {
    allocations += counting;
    return __libc_realloc(p, size);
}
void *aligned_alloc(size_t align, size_t size) {
    allocations += counting;
    return __libc_memalign(align, size);
}
#endif

static void *counted_alloc(void *user, size_t size, size_t align) {
    (void)user;
    allocations += counting;
    live_bytes += size;
    void *p = NULL;
    return posix_memalign(&p, align < sizeof p ? sizeof p : align, size) == 0 ? p : NULL;
}
static void counted_free(void *user, void *p, size_t size) {
    (void)user;
    if (p) live_bytes -= size;
    free(p);
}
static const tern_allocator counted = {counted_alloc, counted_free, NULL};

// Pages of the process's own. Pages of the model's file are mapped too, as rows of the embedding are met, and belong to the
// page cache.
static inline size_t resident_pages(void) {
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    size_t total = 0, resident = 0, of_files = 0;
    const int n = fscanf(f, "%zu %zu %zu", &total, &resident, &of_files);
    fclose(f);
    return n == 3 ? resident - of_files : 0;
}

#endif
