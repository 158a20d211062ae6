// SPDX-License-Identifier: MIT
// What every part shares: checked sizes, aligned memory through the context's allocator, error messages.
#ifndef TERN_BASE_BASE_H
#define TERN_BASE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tern/tern.h"

enum { TERN_ERROR_MAX = 512, TERN_CACHE_LINE = 64 };

// The message of the last error. A tern_context holds one; parts below the context take a pointer to it.
typedef struct tern_error {
    char text[TERN_ERROR_MAX];
} tern_error;

// Writes the message, one line: control characters become '?'. err may be NULL.
void tern_error_set(tern_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The same as an expression of value status, for `return tern_fail(err, TERN_ERR_ARG, "k = %zu ...", k);`. A macro, so that
// static analysis sees that a failure is never TERN_OK.
#define tern_fail(err, status, ...) (tern_error_set((err), __VA_ARGS__), (tern_status)(status))

// Structs that cross the public API begin with their own size, so that libraries and callers of different age work together.
// Reads the caller's parameters into `out` (the library's own struct, out_size bytes): NULL, or fields that an older caller
// does not have, read as zero. Errors: ARG (struct_size not set), UNSUPPORTED (a newer caller sets a field this library does
// not know).
tern_status tern_params_read(void *out, size_t out_size, const void *params, const char *what, tern_error *err);
// Copies as much of `full` as the caller's struct has room for; struct_size stays the caller's, fields unknown here become
// zero.
tern_status tern_info_write(void *info, const void *full, size_t full_size, const char *what, tern_error *err);

// Checked size arithmetic: false if the result does not fit; *out is then untouched.
static inline bool tern_mul_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool tern_add_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

// The default allocator: the C library below 1 MiB, whole huge pages of its own (where the system gives them) above.
extern const tern_allocator tern_default_allocator;

// Zeroed memory of count * size bytes, 64-byte aligned (4096 above one page); NULL on overflow or failure. count or size 0:
// NULL.
void *tern_alloc(const tern_allocator *allocator, size_t count, size_t size);
// Bytes of this range that lie on huge pages, from /proc/self/smaps: a mapping that lies in it partly counts with its share.
// 0 where that cannot be read, and for less than 64 KiB.
size_t tern_huge_page_bytes(const void *ptr, size_t bytes);

// Tells the system that a range of a mapped file is not needed soon: its whole pages no longer count as memory of this process,
// and reading them again works. Not for memory of an allocator, which it would clear.
void tern_drop_file_pages(const void *ptr, size_t bytes);

// Accepts NULL. count and size as given to tern_alloc.
void tern_free(const tern_allocator *allocator, void *ptr, size_t count, size_t size);

#endif
