// SPDX-License-Identifier: MIT
// Writes GGUF bytes one field at a time, right or deliberately wrong, and opens them through a memory file.
#ifndef TERN_TESTS_GGUF_BUILDER_H
#define TERN_TESTS_GGUF_BUILDER_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "format/blocks.h"
#include "format/gguf.h"

enum { BUILDER_ALIGNMENT = 32, BUILDER_PATH_MAX = 64 };

typedef struct builder {
    uint8_t *data;
    size_t size, room;
} builder;

static inline void put(builder *b, const void *bytes, size_t size) {
    if (b->size + size > b->room) {
        b->room = 2 * (b->size + size);
        b->data = realloc(b->data, b->room);
        assert(b->data);
    }
    memcpy(b->data + b->size, bytes, size);
    b->size += size;
}
static inline void put_u8(builder *b, uint8_t v) { put(b, &v, sizeof v); }
static inline void put_u32(builder *b, uint32_t v) { put(b, &v, sizeof v); }
static inline void put_u64(builder *b, uint64_t v) { put(b, &v, sizeof v); }
static inline void put_string(builder *b, const char *text) {
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}
static inline void put_header(builder *b, uint32_t version, uint64_t n_tensors, uint64_t n_entries) {
    put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_entries);
}

// Metadata: the key and the type; the caller puts the value.
static inline void put_key(builder *b, const char *key, tern_gguf_type type) {
    put_string(b, key);
    put_u32(b, (uint32_t)type);
}
static inline void put_array(builder *b, const char *key, tern_gguf_type elem, uint64_t count) {
    put_key(b, key, TERN_GGUF_ARRAY);
    put_u32(b, (uint32_t)elem);
    put_u64(b, count);
}
static inline void put_u32_entry(builder *b, const char *key, uint32_t value) {
    put_key(b, key, TERN_GGUF_U32);
    put_u32(b, value);
}

// A tensor info of one or two dimensions (rows 0: one).
static inline void put_tensor(builder *b, const char *name, uint32_t type, uint64_t k, uint64_t rows, uint64_t offset) {
    put_string(b, name);
    put_u32(b, rows ? 2 : 1);
    put_u64(b, k);
    if (rows) put_u64(b, rows);
    put_u32(b, type);
    put_u64(b, offset);
}
static inline void put_padding(builder *b, size_t alignment) {
    while (b->size % alignment) put_u8(b, 0);
}
// size bytes with the value i * 7.
static inline void put_data(builder *b, size_t size) {
    for (size_t i = 0; i < size; i++) put_u8(b, (uint8_t)(i * 7));
}
static inline void builder_free(builder *b) {
    free(b->data);
    *b = (builder){0};
}

// Opens bytes as a file. The path stays readable until the test ends its process; *fd is the caller's to close.
static inline int memory_file(const void *bytes, size_t size, char path[BUILDER_PATH_MAX]) {
    const int fd = memfd_create("gguf", MFD_CLOEXEC);
    assert(fd >= 0);
    for (size_t done = 0; done < size;) {
        const ssize_t n = write(fd, (const uint8_t *)bytes + done, size - done);
        assert(n > 0);
        done += (size_t)n;
    }
    (void)snprintf(path, BUILDER_PATH_MAX, "/proc/self/fd/%d", fd);
    return fd;
}
static inline tern_status open_bytes(tern_gguf **gguf, const void *bytes, size_t size, const tern_allocator *allocator,
                                     tern_error *err) {
    char path[BUILDER_PATH_MAX];
    const int fd = memory_file(bytes, size, path);
    const tern_status status = tern_gguf_open(gguf, path, allocator, err);
    (void)close(fd);
    return status;
}

#endif
