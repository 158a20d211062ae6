// SPDX-License-Identifier: MIT
// Writes vocabulary-only GGUF files for tests: key by key, so that a test can also leave one out or damage it.
#ifndef TERN_TESTS_VOCAB_FILE_H
#define TERN_TESTS_VOCAB_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/gguf.h"

typedef struct vocab_file {
    char *data; // the key-value part
    size_t n, allocated;
    uint64_t keys;
} vocab_file;

static inline void vocab_put(vocab_file *file, const void *data, size_t size) {
    if (file->n + size > file->allocated) {
        file->allocated = 2 * (file->n + size);
        file->data = realloc(file->data, file->allocated);
        if (!file->data) abort();
    }
    memcpy(file->data + file->n, data, size);
    file->n += size;
}

static inline void vocab_put_u32(vocab_file *file, uint32_t value) { vocab_put(file, &value, sizeof value); }

static inline void vocab_put_text(vocab_file *file, const char *text, size_t size) {
    const uint64_t length = size;
    vocab_put(file, &length, sizeof length);
    vocab_put(file, text, size);
}

static inline void vocab_key(vocab_file *file, const char *key, tern_gguf_type type) {
    vocab_put_text(file, key, strlen(key));
    vocab_put_u32(file, (uint32_t)type);
    file->keys++;
}

static inline void vocab_key_string(vocab_file *file, const char *key, const char *value) {
    vocab_key(file, key, TERN_GGUF_STRING);
    vocab_put_text(file, value, strlen(value));
}

static inline void vocab_key_u32(vocab_file *file, const char *key, uint32_t value) {
    vocab_key(file, key, TERN_GGUF_U32);
    vocab_put_u32(file, value);
}

static inline void vocab_key_bool(vocab_file *file, const char *key, bool value) {
    const uint8_t byte = value;
    vocab_key(file, key, TERN_GGUF_BOOL);
    vocab_put(file, &byte, 1);
}

// The elements follow, put by the caller.
static inline void vocab_key_array(vocab_file *file, const char *key, tern_gguf_type type, uint64_t count) {
    vocab_key(file, key, TERN_GGUF_ARRAY);
    vocab_put_u32(file, (uint32_t)type);
    vocab_put(file, &count, sizeof count);
}

// Writes the file, opens it with the reader under test and removes it again (the mapping stays). Frees the file's memory.
static inline tern_gguf *vocab_open(vocab_file *file, tern_error *err) {
    enum { GGUF_VERSION = 3, GGUF_ALIGNMENT = 32 };
    char path[] = "/tmp/tern_vocab_XXXXXX";
    const int fd = mkstemp(path);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!out) abort();
    const uint32_t version = GGUF_VERSION;
    const uint64_t tensors = 0;
    const char padding[GGUF_ALIGNMENT] = {0};
    fwrite("GGUF", 1, 4, out);
    fwrite(&version, sizeof version, 1, out);
    fwrite(&tensors, sizeof tensors, 1, out);
    fwrite(&file->keys, sizeof file->keys, 1, out);
    fwrite(file->data, 1, file->n, out);
    fwrite(padding, 1, sizeof padding, out);
    if (fclose(out) != 0) abort();
    free(file->data);
    *file = (vocab_file){.n = 0};
    tern_gguf *gguf = NULL;
    const tern_status status = tern_gguf_open(&gguf, path, &tern_default_allocator, err);
    unlink(path);
    return status == TERN_OK ? gguf : NULL;
}

#endif
