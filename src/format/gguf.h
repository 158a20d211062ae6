// SPDX-License-Identifier: MIT
// GGUF container reader over mmap. The file is untrusted: every count, size and offset is checked before use.
#ifndef TERN_FORMAT_GGUF_H
#define TERN_FORMAT_GGUF_H

#include "base/base.h"
#include "format/blocks.h"

typedef enum tern_gguf_type { // value types of metadata, as in the file
    TERN_GGUF_U8,
    TERN_GGUF_I8,
    TERN_GGUF_U16,
    TERN_GGUF_I16,
    TERN_GGUF_U32,
    TERN_GGUF_I32,
    TERN_GGUF_F32,
    TERN_GGUF_BOOL,
    TERN_GGUF_STRING,
    TERN_GGUF_ARRAY,
    TERN_GGUF_U64,
    TERN_GGUF_I64,
    TERN_GGUF_F64
} tern_gguf_type;

typedef struct tern_gguf_string { // points into the mapping, not NUL-terminated
    const char *data;
    size_t size;
} tern_gguf_string;

typedef struct tern_gguf_tensor {
    tern_gguf_string name;
    uint32_t type; // ggml_type id
    uint32_t n_dims;
    uint64_t dims[4]; // innermost first; 1 past n_dims
    const void *data; // inside the mapping
    size_t size;      // exact bytes for type and dims; 0 where it is not known (the data only begins in the file)
} tern_gguf_tensor;

typedef struct tern_gguf tern_gguf;

// Maps path and parses everything; the file must not shrink while it is open. A tensor of a type that Tern does not read is no
// error here, see tern_gguf_tensor_type. Errors name the file, the cause and the fix: IO, FORMAT, UNSUPPORTED (version,
// big-endian, nested arrays), MEMORY.
tern_status tern_gguf_open(tern_gguf **gguf, const char *path, const tern_allocator *allocator, tern_error *err);
// The same of bytes that somebody else keeps, 64-byte aligned and at least one; path is for messages.
tern_status tern_gguf_open_bytes(tern_gguf **gguf, const char *path, const void *bytes, size_t size,
                                 const tern_allocator *allocator, tern_error *err);
void tern_gguf_close(tern_gguf *gguf);

const char *tern_gguf_path(const tern_gguf *gguf);
size_t tern_gguf_file_size(const tern_gguf *gguf);
size_t tern_gguf_alignment(const tern_gguf *gguf);                    // of tensors
const void *tern_gguf_metadata(const tern_gguf *gguf, size_t *bytes); // the file's begin: header and all metadata
// Tells the system that the tensor's pages are not needed soon: they no longer count as this process's memory. Reading them
// again works.
void tern_gguf_drop_pages(const tern_gguf *gguf, const tern_gguf_tensor *tensor);
size_t tern_gguf_tensor_count(const tern_gguf *gguf);
const tern_gguf_tensor *tern_gguf_tensor_at(const tern_gguf *gguf, size_t index);
const tern_gguf_tensor *tern_gguf_find_tensor(const tern_gguf *gguf, const char *name); // NULL if absent; O(1)
// How to read a tensor, or UNSUPPORTED with a message that names tensor, type and what to convert it to. Then tensor->size is
// exact.
tern_status tern_gguf_tensor_type(const tern_gguf *gguf, const tern_gguf_tensor *tensor, const tern_block_type **type,
                                  tern_error *err);

// Metadata. A missing key or one of another type returns false and leaves *out alone. Integers of any width convert if the
// value fits.
bool tern_gguf_has(const tern_gguf *gguf, const char *key);
bool tern_gguf_get_u64(const tern_gguf *gguf, const char *key, uint64_t *out);
bool tern_gguf_get_f64(const tern_gguf *gguf, const char *key, double *out); // floats and integers
bool tern_gguf_get_bool(const tern_gguf *gguf, const char *key, bool *out);
bool tern_gguf_get_string(const tern_gguf *gguf, const char *key, tern_gguf_string *out);
// Arrays: the element type and count, and then one element at a time (strings: index built at open, O(1)).
bool tern_gguf_get_array(const tern_gguf *gguf, const char *key, tern_gguf_type *type, size_t *count);
bool tern_gguf_array_string(const tern_gguf *gguf, const char *key, size_t index, tern_gguf_string *out);
bool tern_gguf_array_f64(const tern_gguf *gguf, const char *key, size_t index, double *out); // any number or bool

// The same without looking the key up for each element. entry NULL: absent, or no array.
typedef struct tern_gguf_array {
    const tern_gguf *gguf;
    const struct tern_gguf_entry *entry;
} tern_gguf_array;
tern_gguf_array tern_gguf_find_array(const tern_gguf *gguf, const char *key);
bool tern_gguf_string_at(tern_gguf_array array, size_t index, tern_gguf_string *out);
bool tern_gguf_f64_at(tern_gguf_array array, size_t index, double *out);

#endif
