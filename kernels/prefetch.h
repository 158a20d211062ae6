// SPDX-License-Identifier: MIT
// Fetches the next piece of weights while the present one is multiplied with many tokens.
#ifndef TERN_KERNELS_PREFETCH_H
#define TERN_KERNELS_PREFETCH_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { TERN_LINE_BYTES = 64 };

// The share of `bytes` that falls to parts done .. done + now - 1 of `all`; past the end of the weights it does nothing.
static inline void tern_prefetch_share(const uint8_t *next, size_t bytes, size_t done, size_t now, size_t all) {
    const size_t from = bytes * done / all, to = bytes * (done + now) / all;
    for (size_t at = from & -(size_t)TERN_LINE_BYTES; at < to; at += TERN_LINE_BYTES)
        _mm_prefetch((const char *)(next + at), _MM_HINT_T1);
}

#endif
