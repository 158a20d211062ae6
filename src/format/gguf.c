// SPDX-License-Identifier: MIT
// Maps a GGUF file and answers look-ups in it; the parsing of its bytes is gguf_parse.c.
#include "format/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/blocks.h"
#include "format/ggml_types.h"
#include "format/gguf_file.h"

// ---- Messages ---------------------------------------------------------------------------------------------

const char *tern_gguf_quote(tern_gguf_string name, char buf[TERN_GGUF_QUOTE_MAX]) {
    static const char cut[] = "...";
    const size_t room = TERN_GGUF_QUOTE_MAX - 1;
    const bool whole = name.size <= room;
    const size_t n = whole ? name.size : room - (sizeof cut - 1);
    for (size_t i = 0; i < n; i++) {
        const char c = name.data[i];
        buf[i] = c > ' ' && c <= '~' ? c : '?';
    }
    buf[n] = '\0';
    if (!whole) memcpy(buf + n, cut, sizeof cut);
    return buf;
}

void tern_gguf_error_set(const char *path, tern_error *err, const char *format, ...) {
    enum { PATH_SHOWN = 200 };
    char message[TERN_ERROR_MAX];
    const size_t length = strlen(path);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (length <= PATH_SHOWN)
        tern_error_set(err, "%s: %s", path, message);
    else
        tern_error_set(err, "...%s: %s", path + length - PATH_SHOWN, message);
}

// ---- Open and close ---------------------------------------------------------------------------------------

static tern_status map_fd(tern_gguf *gguf, int fd, tern_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) return tern_gguf_fail(gguf->path, err, TERN_ERR_IO, "cannot read its size: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return tern_gguf_fail(gguf->path, err, TERN_ERR_IO, "not a regular file; give the path of a .gguf file");
    if (st.st_size <= 0) return tern_gguf_fail(gguf->path, err, TERN_ERR_FORMAT, "the file is empty; get it again");
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) return tern_gguf_fail(gguf->path, err, TERN_ERR_IO, "cannot map it: %s", strerror(errno));
    gguf->map = map;
    gguf->size = (size_t)st.st_size;
    gguf->mapped = true;
    return TERN_OK;
}

static tern_status map_file(tern_gguf *gguf, tern_error *err) {
    // O_NONBLOCK: a named pipe is refused by map_fd and not waited for.
    const int fd = open(gguf->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return tern_gguf_fail(gguf->path, err, TERN_ERR_IO, "cannot open the model file: %s; check its path and permissions",
                              strerror(errno));
    const tern_status status = map_fd(gguf, fd, err);
    (void)close(fd); // the mapping keeps the file
    return status;
}

// bytes NULL: those of the file are mapped.
static tern_status open_any(tern_gguf **gguf, const char *path, const uint8_t *bytes, size_t size,
                            const tern_allocator *allocator, tern_error *err) {
    const size_t path_bytes = strlen(path) + 1;
    tern_gguf *g = tern_alloc(allocator, 1, sizeof *g);
    if (!g) return tern_gguf_fail(path, err, TERN_ERR_MEMORY, "no memory to open it");
    g->allocator = *allocator;
    g->path_bytes = path_bytes;
    g->path = tern_alloc(allocator, path_bytes, 1);
    g->map = bytes;
    g->size = size;
    tern_status status = TERN_OK;
    if (g->path) {
        memcpy(g->path, path, path_bytes);
        if (!bytes) status = map_file(g, err);
        if (status == TERN_OK) status = tern_gguf_parse(g, err);
    } else {
        status = tern_gguf_fail(path, err, TERN_ERR_MEMORY, "no memory to open it");
    }
    if (status != TERN_OK) {
        tern_gguf_close(g);
        return status;
    }
    *gguf = g;
    return TERN_OK;
}

tern_status tern_gguf_open(tern_gguf **gguf, const char *path, const tern_allocator *allocator, tern_error *err) {
    return open_any(gguf, path, NULL, 0, allocator, err);
}

tern_status tern_gguf_open_bytes(tern_gguf **gguf, const char *path, const void *bytes, size_t size,
                                 const tern_allocator *allocator, tern_error *err) {
    return open_any(gguf, path, bytes, size, allocator, err);
}

void tern_gguf_close(tern_gguf *gguf) {
    if (!gguf) return;
    const tern_allocator allocator = gguf->allocator;
    for (size_t i = 0; i < gguf->n_entries; i++) {
        tern_gguf_entry *entry = &gguf->entries[i];
        tern_free(&allocator, entry->string_at, entry->count, sizeof *entry->string_at);
    }
    tern_free(&allocator, gguf->entries, gguf->n_entries, sizeof *gguf->entries);
    tern_free(&allocator, gguf->tensors, gguf->n_tensors, sizeof *gguf->tensors);
    tern_name_index_destroy(&gguf->entry_index, &allocator);
    tern_name_index_destroy(&gguf->tensor_index, &allocator);
    if (gguf->mapped) (void)munmap((void *)(uintptr_t)gguf->map, gguf->size);
    tern_free(&allocator, gguf->path, gguf->path_bytes, 1);
    tern_free(&allocator, gguf, 1, sizeof *gguf);
}

// ---- File and tensors -------------------------------------------------------------------------------------

const char *tern_gguf_path(const tern_gguf *gguf) { return gguf->path; }
size_t tern_gguf_file_size(const tern_gguf *gguf) { return gguf->size; }
size_t tern_gguf_alignment(const tern_gguf *gguf) { return gguf->alignment; }

const void *tern_gguf_metadata(const tern_gguf *gguf, size_t *bytes) {
    *bytes = gguf->metadata_bytes;
    return gguf->map;
}

void tern_gguf_drop_pages(const tern_gguf *gguf, const tern_gguf_tensor *tensor) {
    if (gguf->mapped) tern_drop_file_pages(tensor->data, tensor->size);
}
size_t tern_gguf_tensor_count(const tern_gguf *gguf) { return gguf->n_tensors; }

const tern_gguf_tensor *tern_gguf_tensor_at(const tern_gguf *gguf, size_t index) {
    return index < gguf->n_tensors ? &gguf->tensors[index] : NULL;
}

const tern_gguf_tensor *tern_gguf_find_tensor(const tern_gguf *gguf, const char *name) {
    const uint32_t at = tern_name_index_find(&gguf->tensor_index, name, strlen(name));
    return at == TERN_NAME_ABSENT ? NULL : &gguf->tensors[at];
}

tern_status tern_gguf_tensor_type(const tern_gguf *gguf, const tern_gguf_tensor *tensor, const tern_block_type **type,
                                  tern_error *err) {
    char name[TERN_GGUF_QUOTE_MAX];
    char type_name[32];
    const size_t rows = (size_t)(tensor->dims[1] * tensor->dims[2] * tensor->dims[3]); // no overflow where size is known
    const tern_block_type *found = tern_block_type_of(tensor->type, (size_t)tensor->dims[0], rows, tensor->size);
    if (!found) {
        const tern_ggml_type *known = tern_ggml_type_find(tensor->type);
        return tern_gguf_fail(gguf->path, err, TERN_ERR_UNSUPPORTED,
                              "tensor %s has type %s, which Tern does not read; convert it to %s",
                              tern_gguf_quote(tensor->name, name), tern_ggml_type_name(tensor->type, type_name),
                              known ? known->convert_to : "Q8_0");
    }
    if (tensor->size == 0) {
        return tern_gguf_fail(
            gguf->path, err, TERN_ERR_UNSUPPORTED,
            "tensor %s has type %s, and its place in the file does not tell the size of its blocks; convert it "
            "to Q8_0",
            tern_gguf_quote(tensor->name, name), tern_ggml_type_name(tensor->type, type_name));
    }
    *type = found;
    return TERN_OK;
}

// ---- Metadata ---------------------------------------------------------------------------------------------

size_t tern_gguf_value_size(tern_gguf_type type) {
    static const uint8_t sizes[] = {
        [TERN_GGUF_U8] = 1,  [TERN_GGUF_I8] = 1,  [TERN_GGUF_U16] = 2,  [TERN_GGUF_I16] = 2,    [TERN_GGUF_U32] = 4,
        [TERN_GGUF_I32] = 4, [TERN_GGUF_F32] = 4, [TERN_GGUF_BOOL] = 1, [TERN_GGUF_STRING] = 0, [TERN_GGUF_ARRAY] = 0,
        [TERN_GGUF_U64] = 8, [TERN_GGUF_I64] = 8, [TERN_GGUF_F64] = 8,
    };
    return (size_t)type < sizeof sizes ? sizes[type] : 0;
}

static const tern_gguf_entry *find_entry(const tern_gguf *gguf, const char *key) {
    const uint32_t at = tern_name_index_find(&gguf->entry_index, key, strlen(key));
    return at == TERN_NAME_ABSENT ? NULL : &gguf->entries[at];
}

// An integer in 64 bits of magnitude and a sign. False for every other type.
static bool load_integer(tern_gguf_type type, const uint8_t *data, bool *negative, uint64_t *bits) {
    uint64_t raw = 0;
    int64_t value;
    memcpy(&raw, data, tern_gguf_value_size(type));
    switch (type) {
    case TERN_GGUF_U8:
    case TERN_GGUF_U16:
    case TERN_GGUF_U32:
    case TERN_GGUF_U64:
        *negative = false;
        *bits = raw;
        return true;
    case TERN_GGUF_I8:
        value = (int8_t)raw;
        break;
    case TERN_GGUF_I16:
        value = (int16_t)raw;
        break;
    case TERN_GGUF_I32:
        value = (int32_t)raw;
        break;
    case TERN_GGUF_I64:
        value = (int64_t)raw;
        break;
    default:
        return false;
    }
    *negative = value < 0;
    *bits = (uint64_t)value;
    return true;
}

static bool load_number(tern_gguf_type type, const uint8_t *data, double *out) {
    bool negative;
    uint64_t bits;
    float f;
    if (type == TERN_GGUF_F32) {
        memcpy(&f, data, sizeof f);
        *out = (double)f;
        return true;
    }
    if (type == TERN_GGUF_F64) {
        memcpy(out, data, sizeof *out);
        return true;
    }
    if (!load_integer(type, data, &negative, &bits)) return false;
    *out = negative ? (double)(int64_t)bits : (double)bits;
    return true;
}

// The string whose length field is at `data`; its range was checked when the file was opened.
static tern_gguf_string load_string(const uint8_t *data) {
    uint64_t size;
    memcpy(&size, data, sizeof size);
    return (tern_gguf_string){(const char *)data + sizeof size, (size_t)size};
}

bool tern_gguf_has(const tern_gguf *gguf, const char *key) { return find_entry(gguf, key) != NULL; }

bool tern_gguf_get_u64(const tern_gguf *gguf, const char *key, uint64_t *out) {
    const tern_gguf_entry *entry = find_entry(gguf, key);
    bool negative;
    uint64_t bits;
    if (!entry || !load_integer(entry->type, entry->data, &negative, &bits) || negative) return false;
    *out = bits;
    return true;
}

bool tern_gguf_get_f64(const tern_gguf *gguf, const char *key, double *out) {
    const tern_gguf_entry *entry = find_entry(gguf, key);
    return entry && load_number(entry->type, entry->data, out);
}

bool tern_gguf_get_bool(const tern_gguf *gguf, const char *key, bool *out) {
    const tern_gguf_entry *entry = find_entry(gguf, key);
    if (!entry || entry->type != TERN_GGUF_BOOL) return false;
    *out = *entry->data != 0;
    return true;
}

bool tern_gguf_get_string(const tern_gguf *gguf, const char *key, tern_gguf_string *out) {
    const tern_gguf_entry *entry = find_entry(gguf, key);
    if (!entry || entry->type != TERN_GGUF_STRING) return false;
    *out = load_string(entry->data);
    return true;
}

static const tern_gguf_entry *find_array(const tern_gguf *gguf, const char *key) {
    const tern_gguf_entry *entry = find_entry(gguf, key);
    return entry && entry->type == TERN_GGUF_ARRAY ? entry : NULL;
}

bool tern_gguf_get_array(const tern_gguf *gguf, const char *key, tern_gguf_type *type, size_t *count) {
    const tern_gguf_entry *entry = find_array(gguf, key);
    if (!entry) return false;
    *type = entry->elem;
    *count = entry->count;
    return true;
}

tern_gguf_array tern_gguf_find_array(const tern_gguf *gguf, const char *key) {
    return (tern_gguf_array){gguf, find_array(gguf, key)};
}

bool tern_gguf_string_at(tern_gguf_array array, size_t index, tern_gguf_string *out) {
    const tern_gguf_entry *entry = array.entry;
    if (!entry || entry->elem != TERN_GGUF_STRING || index >= entry->count) return false;
    *out = load_string(array.gguf->map + entry->string_at[index]);
    return true;
}

bool tern_gguf_f64_at(tern_gguf_array array, size_t index, double *out) {
    const tern_gguf_entry *entry = array.entry;
    if (!entry || index >= entry->count) return false;
    const uint8_t *data = entry->data + index * tern_gguf_value_size(entry->elem);
    if (entry->elem == TERN_GGUF_BOOL) {
        *out = *data != 0 ? 1 : 0;
        return true;
    }
    return load_number(entry->elem, data, out);
}

bool tern_gguf_array_string(const tern_gguf *gguf, const char *key, size_t index, tern_gguf_string *out) {
    return tern_gguf_string_at(tern_gguf_find_array(gguf, key), index, out);
}

bool tern_gguf_array_f64(const tern_gguf *gguf, const char *key, size_t index, double *out) {
    return tern_gguf_f64_at(tern_gguf_find_array(gguf, key), index, out);
}
