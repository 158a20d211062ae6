// SPDX-License-Identifier: MIT
// What gguf.c (mapping and look-ups) and gguf_parse.c (the untrusted bytes) share.
#ifndef TERN_FORMAT_GGUF_FILE_H
#define TERN_FORMAT_GGUF_FILE_H

#include "format/gguf.h"
#include "format/name_index.h"

enum {
    TERN_GGUF_QUOTE_MAX = 80,        // a name in a message, with its end
    TERN_GGUF_KEYS_MAX = 1 << 16,    // real files have tens
    TERN_GGUF_TENSORS_MAX = 1 << 18, // real files have at most tens of thousands
    TERN_GGUF_ALIGNMENT_DEFAULT = 32,
    TERN_GGUF_ALIGNMENT_MIN = 8
};
#define TERN_GGUF_DIM_MAX ((uint64_t)1 << 40)

// A metadata entry. data points at its first value byte in the mapping; an ARRAY has count elements of type elem.
typedef struct tern_gguf_entry {
    tern_gguf_string key;
    tern_gguf_type type, elem;
    size_t count;
    const uint8_t *data;
    uint64_t *string_at; // arrays of strings: [count] file offset of each element's length field
} tern_gguf_entry;

struct tern_gguf {
    tern_allocator allocator;
    char *path;
    size_t path_bytes; // with its NUL
    const uint8_t *map;
    size_t size;
    bool mapped;           // by tern_gguf_open
    size_t metadata_bytes; // header and metadata
    size_t alignment;      // of tensors
    tern_gguf_entry *entries;
    size_t n_entries;
    tern_gguf_tensor *tensors;
    size_t n_tensors;
    tern_name_index entry_index, tensor_index;
};

// Bytes of one value; 0 for STRING, ARRAY and types that do not exist.
size_t tern_gguf_value_size(tern_gguf_type type);

// Printable form of a name from a file: other bytes become '?', a long one is cut.
const char *tern_gguf_quote(tern_gguf_string name, char buf[TERN_GGUF_QUOTE_MAX]);

// As tern_fail, with "FILE: " in front; a long path shows its end.
void tern_gguf_error_set(const char *path, tern_error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define tern_gguf_fail(path, err, status, ...) (tern_gguf_error_set((path), (err), __VA_ARGS__), (tern_status)(status))

// Reads header, metadata and tensor infos out of gguf->map. On failure what was allocated stays in *gguf for the caller to
// free.
tern_status tern_gguf_parse(tern_gguf *gguf, tern_error *err);

#endif
