// SPDX-License-Identifier: MIT
// What the kernel backs with huge pages, as /proc/self/smaps tells.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"

// Bytes that the mapping [first, last) shares with the range.
static size_t overlap(uintptr_t first, uintptr_t last, uintptr_t start, size_t bytes) {
    const uintptr_t end = start + bytes, from = first > start ? first : start, to = last < end ? last : end;
    return from < to ? to - from : 0;
}

size_t tern_huge_page_bytes(const void *ptr, size_t bytes) {
    enum { LINE_MAX_BYTES = 512, KIB = 1024, LOOKED_UP_MIN = 64 * KIB };
    if (bytes < LOOKED_UP_MIN) return 0;
    FILE *smaps = fopen("/proc/self/smaps", "re");
    if (!smaps) return 0;
    char line[LINE_MAX_BYTES];
    uintptr_t first = 0, last = 0;
    size_t found = 0;
    while (fgets(line, sizeof line, smaps)) {
        uintptr_t a, b;
        size_t kib;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &a, &b) == 2) { // the head of a mapping
            first = a;
            last = b;
        } else if (sscanf(line, "AnonHugePages: %zu kB", &kib) == 1 && last > first) {
            const size_t within = overlap(first, last, (uintptr_t)ptr, bytes);
            found += (size_t)((double)kib * KIB * ((double)within / (double)(last - first)));
        }
    }
    (void)fclose(smaps);
    return found;
}
