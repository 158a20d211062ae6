// SPDX-License-Identifier: MIT
// Buffers for kernels under test: each touches an unreadable page, so that a read or write one byte too far faults at once.
// One mapping per slot is used again and again: a sweep of 100,000 cases makes few system calls.
#ifndef TERN_TESTS_GUARD_BUFFER_H
#define TERN_TESTS_GUARD_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef enum guard_slot {
    GUARD_X,
    GUARD_W,
    GUARD_SCALES,
    GUARD_SUMS,
    GUARD_TABLES,
    GUARD_BIAS,
    GUARD_OUT,
    GUARD_SLOTS
} guard_slot;

// Zeroed memory of `size` bytes, valid until the next call for the same slot. It ends where an unreadable page begins, and so
// is as aligned as its size is; every other call it begins, page-aligned, right behind one.
static inline void *guard_buffer(guard_slot slot, size_t size) {
    static struct {
        char *body; // `capacity` bytes between two unreadable pages
        size_t capacity;
        bool at_start;
    } slots[GUARD_SLOTS];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size > slots[slot].capacity) {
        if (slots[slot].body) assert_int_equal(munmap(slots[slot].body - page, slots[slot].capacity + 2 * page), 0);
        size_t capacity = slots[slot].capacity ? slots[slot].capacity : page;
        while (capacity < size) capacity *= 2;
        char *map = mmap(NULL, capacity + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        assert_true(map != MAP_FAILED);
        assert_int_equal(mprotect(map + page, capacity, PROT_READ | PROT_WRITE), 0);
        slots[slot].body = map + page;
        slots[slot].capacity = capacity;
    }
    slots[slot].at_start = !slots[slot].at_start;
    char *data = slots[slot].at_start ? slots[slot].body : slots[slot].body + slots[slot].capacity - size;
    return memset(data, 0, size);
}

#endif
