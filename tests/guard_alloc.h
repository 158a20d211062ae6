// SPDX-License-Identifier: MIT
// An allocator for tests: every block lies between two unmapped pages and touches one of them, so that a read or write one
// byte too far faults at once. Blocks alternate between touching the page after them and the page before them.
#ifndef TERN_TESTS_GUARD_ALLOC_H
#define TERN_TESTS_GUARD_ALLOC_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tern/tern.h"

enum { GUARD_PAGE = 4096 };

static inline size_t guard_round(size_t size, size_t to) { return (size + to - 1) / to * to; }

static void *guard_alloc(void *user, size_t size, size_t align) {
    unsigned *counter = user;
    const size_t pages = guard_round(size, GUARD_PAGE);
    unsigned char *base = mmap(NULL, pages + 2 * GUARD_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    if (mprotect(base + GUARD_PAGE, pages, PROT_READ | PROT_WRITE) != 0) abort();
    const size_t slack = pages - guard_round(size, align); // 0 if the block fills its pages
    return base + GUARD_PAGE + ((*counter)++ % 2 ? 0 : slack);
}

static void guard_free(void *user, void *ptr, size_t size) {
    (void)user;
    unsigned char *page = (unsigned char *)((uintptr_t)ptr / GUARD_PAGE * GUARD_PAGE);
    if (munmap(page - GUARD_PAGE, guard_round(size, GUARD_PAGE) + 2 * GUARD_PAGE) != 0) abort();
}

#endif
