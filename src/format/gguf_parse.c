// SPDX-License-Identifier: MIT
// GGUF header, metadata and tensor infos out of untrusted bytes: nothing is used before it was checked against the file.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "format/blocks.h"
#include "format/ggml_types.h"
#include "format/gguf_file.h"

enum {
    MAGIC_BYTES = 4,
    HEADER_BYTES = 24,    // magic, version, tensor count, key count
    LENGTH_BYTES = 8,     // length field of a string
    ENTRY_MIN_BYTES = 14, // key length, one byte of key, type, one byte of value
    TENSOR_MIN_BYTES = 25 // name length, one byte of name, n_dims, type, offset
};
static const char damaged[] = "the file is truncated or damaged, get it again";

typedef struct parser {
    tern_gguf *gguf;
    tern_error *err;
    size_t at; // next byte; at <= gguf->size always
} parser;

// ---- Reading ----------------------------------------------------------------------------------------------

static size_t left(const parser *p) { return p->gguf->size - p->at; }

static bool read_bytes(parser *p, void *out, size_t size) {
    if (left(p) < size) return false;
    memcpy(out, p->gguf->map + p->at, size);
    p->at += size;
    return true;
}

static bool read_u32(parser *p, uint32_t *out) { return read_bytes(p, out, sizeof *out); }
static bool read_u64(parser *p, uint64_t *out) { return read_bytes(p, out, sizeof *out); }

static bool read_string(parser *p, tern_gguf_string *out) {
    uint64_t size;
    if (!read_u64(p, &size) || size > left(p)) return false;
    *out = (tern_gguf_string){(const char *)p->gguf->map + p->at, (size_t)size};
    p->at += (size_t)size;
    return true;
}

// `what` is "metadata key" or "tensor".
static tern_status fail_end(const parser *p, const char *what, tern_gguf_string name) {
    char quoted[TERN_GGUF_QUOTE_MAX];
    return tern_gguf_fail(p->gguf->path, p->err, TERN_ERR_FORMAT, "%s %s runs past the end of the file (%zu bytes): %s", what,
                          tern_gguf_quote(name, quoted), p->gguf->size, damaged);
}

// ---- Header -----------------------------------------------------------------------------------------------

static tern_status parse_version(const parser *p, uint32_t version) {
    enum { OLDEST = 2, NEWEST = 3, SWAPPED_MAX = 1 << 16 };
    if (version >= OLDEST && version <= NEWEST) return TERN_OK;
    const uint32_t swapped = __builtin_bswap32(version);
    if (version >= SWAPPED_MAX && swapped < SWAPPED_MAX) {
        return tern_gguf_fail(
            p->gguf->path, p->err, TERN_ERR_UNSUPPORTED,
            "a big-endian GGUF file (version %" PRIu32 "), which Tern does not read; convert it to little-endian", swapped);
    }
    return tern_gguf_fail(p->gguf->path, p->err, TERN_ERR_UNSUPPORTED,
                          "GGUF version %" PRIu32 ", Tern reads versions %d and %d; convert the model again", version, OLDEST,
                          NEWEST);
}

static tern_status parse_header(parser *p, uint64_t *n_tensors, uint64_t *n_entries) {
    const char *path = p->gguf->path;
    const uint8_t *map = p->gguf->map;
    uint32_t version;
    if (p->gguf->size < MAGIC_BYTES || memcmp(map, "GGUF", MAGIC_BYTES) != 0) {
        return tern_gguf_fail(
            path, p->err, TERN_ERR_FORMAT,
            "not a GGUF file: it does not begin with \"GGUF\"; get the model as .gguf, or convert it with llama.cpp");
    }
    p->at = MAGIC_BYTES;
    if (p->gguf->size < HEADER_BYTES || !read_u32(p, &version) || !read_u64(p, n_tensors) || !read_u64(p, n_entries)) {
        return tern_gguf_fail(path, p->err, TERN_ERR_FORMAT, "%zu bytes are too few for a GGUF header: %s", p->gguf->size,
                              damaged);
    }
    const tern_status status = parse_version(p, version);
    if (status != TERN_OK) return status;
    if (*n_entries > TERN_GGUF_KEYS_MAX || *n_entries > left(p) / ENTRY_MIN_BYTES) {
        return tern_gguf_fail(path, p->err, TERN_ERR_FORMAT,
                              "it claims %" PRIu64 " metadata keys (limit %d, file of %zu bytes): %s", *n_entries,
                              TERN_GGUF_KEYS_MAX, p->gguf->size, damaged);
    }
    if (*n_tensors > TERN_GGUF_TENSORS_MAX || *n_tensors > left(p) / TENSOR_MIN_BYTES) {
        return tern_gguf_fail(path, p->err, TERN_ERR_FORMAT, "it claims %" PRIu64 " tensors (limit %d, file of %zu bytes): %s",
                              *n_tensors, TERN_GGUF_TENSORS_MAX, p->gguf->size, damaged);
    }
    return TERN_OK;
}

// ---- Metadata ---------------------------------------------------------------------------------------------

static tern_status fail_value_type(const parser *p, const tern_gguf_entry *entry, uint32_t type) {
    char quoted[TERN_GGUF_QUOTE_MAX];
    return tern_gguf_fail(p->gguf->path, p->err, TERN_ERR_FORMAT,
                          "metadata key %s has a value of type %" PRIu32 ", which GGUF does not define: %s",
                          tern_gguf_quote(entry->key, quoted), type, damaged);
}

// The index of an array of strings, so that any element is found in one step.
static tern_status parse_string_array(parser *p, tern_gguf_entry *entry) {
    // Every string takes at least its length field, so the index is never larger than the file.
    if (entry->count > left(p) / LENGTH_BYTES) return fail_end(p, "metadata key", entry->key);
    if (entry->count == 0) return TERN_OK;
    entry->string_at = tern_alloc(&p->gguf->allocator, entry->count, sizeof *entry->string_at);
    if (!entry->string_at) {
        return tern_gguf_fail(p->gguf->path, p->err, TERN_ERR_MEMORY, "no memory for an index of %zu strings", entry->count);
    }
    for (size_t i = 0; i < entry->count; i++) {
        tern_gguf_string element;
        entry->string_at[i] = p->at;
        if (!read_string(p, &element)) return fail_end(p, "metadata key", entry->key);
    }
    return TERN_OK;
}

static tern_status parse_array(parser *p, tern_gguf_entry *entry) {
    uint32_t elem;
    uint64_t count;
    size_t bytes;
    if (!read_u32(p, &elem) || !read_u64(p, &count)) return fail_end(p, "metadata key", entry->key);
    if (elem > TERN_GGUF_F64) return fail_value_type(p, entry, elem);
    if (elem == TERN_GGUF_ARRAY) {
        char quoted[TERN_GGUF_QUOTE_MAX];
        return tern_gguf_fail(p->gguf->path, p->err, TERN_ERR_UNSUPPORTED,
                              "metadata key %s is an array of arrays, which Tern does not read; remove the key",
                              tern_gguf_quote(entry->key, quoted));
    }
    entry->elem = (tern_gguf_type)elem;
    entry->count = (size_t)count;
    entry->data = p->gguf->map + p->at;
    if (elem == TERN_GGUF_STRING) return parse_string_array(p, entry);
    if (!tern_mul_size(entry->count, tern_gguf_value_size(entry->elem), &bytes) || bytes > left(p)) {
        return fail_end(p, "metadata key", entry->key);
    }
    p->at += bytes;
    return TERN_OK;
}

static tern_status parse_value(parser *p, tern_gguf_entry *entry, uint32_t type) {
    if (type > TERN_GGUF_F64) return fail_value_type(p, entry, type);
    entry->type = (tern_gguf_type)type;
    entry->data = p->gguf->map + p->at;
    if (type == TERN_GGUF_ARRAY) return parse_array(p, entry);
    if (type == TERN_GGUF_STRING) {
        tern_gguf_string value;
        return read_string(p, &value) ? TERN_OK : fail_end(p, "metadata key", entry->key);
    }
    const size_t bytes = tern_gguf_value_size(entry->type);
    if (bytes > left(p)) return fail_end(p, "metadata key", entry->key);
    p->at += bytes;
    return TERN_OK;
}

static tern_status parse_entry(parser *p, size_t index) {
    tern_gguf *gguf = p->gguf;
    tern_gguf_entry *entry = &gguf->entries[index];
    char quoted[TERN_GGUF_QUOTE_MAX];
    uint32_t type;
    if (!read_string(p, &entry->key) || !read_u32(p, &type)) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT,
                              "metadata key %zu of %zu runs past the end of the file (%zu bytes): %s", index + 1,
                              gguf->n_entries, gguf->size, damaged);
    }
    if (entry->key.size == 0) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT, "metadata key %zu of %zu has an empty name: %s", index + 1,
                              gguf->n_entries, damaged);
    }
    const tern_status status = parse_value(p, entry, type);
    if (status != TERN_OK) return status;
    if (!tern_name_index_insert(&gguf->entry_index, entry->key, (uint32_t)index)) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT, "metadata key %s occurs twice; remove one",
                              tern_gguf_quote(entry->key, quoted));
    }
    return TERN_OK;
}

static tern_status parse_metadata(parser *p, size_t n_entries) {
    tern_gguf *gguf = p->gguf;
    if (n_entries == 0) return TERN_OK;
    gguf->entries = tern_alloc(&gguf->allocator, n_entries, sizeof *gguf->entries);
    if (gguf->entries) gguf->n_entries = n_entries;
    if (!gguf->entries || !tern_name_index_create(&gguf->entry_index, n_entries, &gguf->allocator)) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_MEMORY, "no memory for %zu metadata keys", n_entries);
    }
    for (size_t i = 0; i < n_entries; i++) {
        const tern_status status = parse_entry(p, i);
        if (status != TERN_OK) return status;
    }
    return TERN_OK;
}

static tern_status find_alignment(const parser *p, uint64_t *alignment) {
    static const char key[] = "general.alignment";
    *alignment = TERN_GGUF_ALIGNMENT_DEFAULT;
    if (!tern_gguf_has(p->gguf, key)) return TERN_OK;
    if (!tern_gguf_get_u64(p->gguf, key, alignment) || *alignment > UINT32_MAX) {
        return tern_gguf_fail(p->gguf->path, p->err, TERN_ERR_FORMAT, "metadata key %s is not a 32-bit number: %s", key,
                              damaged);
    }
    if (*alignment < TERN_GGUF_ALIGNMENT_MIN || (*alignment & (*alignment - 1)) != 0) {
        return tern_gguf_fail(p->gguf->path, p->err, TERN_ERR_FORMAT,
                              "metadata key %s is %" PRIu64 ", not a power of two of at least %d: %s", key, *alignment,
                              TERN_GGUF_ALIGNMENT_MIN, damaged);
    }
    return TERN_OK;
}

// ---- Tensors ----------------------------------------------------------------------------------------------

// Exact bytes of a tensor in blocks of this size. False: more than size_t holds.
static bool tensor_bytes(const tern_gguf_tensor *tensor, size_t block_elems, size_t block_bytes, size_t *bytes) {
    size_t total = (size_t)(tensor->dims[0] / block_elems);
    if (!tern_mul_size(total, block_bytes, &total)) return false;
    for (size_t i = 1; i < tensor->n_dims; i++) {
        if (!tern_mul_size(total, (size_t)tensor->dims[i], &total)) return false;
    }
    *bytes = total;
    return true;
}

// The same for a type whose rows or matrices have parts beside blocks.
static bool matrix_bytes(const tern_gguf_tensor *tensor, const tern_block_type *type, size_t *bytes) {
    size_t rows = 1;
    for (size_t i = 1; i < tensor->n_dims; i++) {
        if (!tern_mul_size(rows, (size_t)tensor->dims[i], &rows)) return false;
    }
    return tern_matrix_bytes(type, rows, (size_t)tensor->dims[0], bytes);
}

static tern_status parse_dims(parser *p, tern_gguf_tensor *tensor, const char *name) {
    for (size_t i = 0; i < sizeof tensor->dims / sizeof tensor->dims[0]; i++) tensor->dims[i] = 1;
    for (size_t i = 0; i < tensor->n_dims; i++) {
        if (!read_u64(p, &tensor->dims[i])) return fail_end(p, "tensor", tensor->name);
        if (tensor->dims[i] == 0 || tensor->dims[i] > TERN_GGUF_DIM_MAX) {
            return tern_gguf_fail(p->gguf->path, p->err, TERN_ERR_FORMAT,
                                  "tensor %s has dimension %zu of %" PRIu64 ", outside 1..2^40: %s", name, i, tensor->dims[i],
                                  damaged);
        }
    }
    return TERN_OK;
}

// Reads one tensor info; *offset is its place behind the start of the data section, yet unchecked.
static tern_status parse_tensor_info(parser *p, size_t index, uint64_t *offset) {
    tern_gguf *gguf = p->gguf;
    tern_gguf_tensor *tensor = &gguf->tensors[index];
    char name[TERN_GGUF_QUOTE_MAX];
    char type_name[32];
    if (!read_string(p, &tensor->name) || tensor->name.size == 0 || !read_u32(p, &tensor->n_dims)) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT,
                              "tensor %zu of %zu has no name or runs past the end of the file: %s", index + 1, gguf->n_tensors,
                              damaged);
    }
    tern_gguf_quote(tensor->name, name);
    if (tensor->n_dims > sizeof tensor->dims / sizeof tensor->dims[0]) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT, "tensor %s has %" PRIu32 " dimensions, more than 4: %s",
                              name, tensor->n_dims, damaged);
    }
    const tern_status status = parse_dims(p, tensor, name);
    if (status != TERN_OK) return status;
    if (!read_u32(p, &tensor->type) || !read_u64(p, offset)) return fail_end(p, "tensor", tensor->name);

    // Else the id does not tell the size, and tensor->size stays 0: unknown types, and those with two sizes of blocks.
    const tern_ggml_type *known = tern_ggml_type_find(tensor->type);
    const tern_block_type *read = tern_block_type_at(tensor->type, 1) ? NULL : tern_block_type_find(tensor->type);
    const size_t block_elems = read ? read->block_elems : known ? known->block_elems : 0;
    if (block_elems != 0 && tensor->dims[0] % block_elems != 0) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT,
                              "tensor %s has rows of %" PRIu64 " elements, not a multiple of the block of type %s: %s", name,
                              tensor->dims[0], tern_ggml_type_name(tensor->type, type_name), damaged);
    }
    if (block_elems != 0 && !(read ? matrix_bytes(tensor, read, &tensor->size)
                                   : tensor_bytes(tensor, block_elems, known->block_bytes, &tensor->size))) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT, "tensor %s has a size beyond 64 bits: %s", name, damaged);
    }
    if (!tern_name_index_insert(&gguf->tensor_index, tensor->name, (uint32_t)index)) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT, "tensor %s occurs twice; remove one", name);
    }
    return TERN_OK;
}

// Sets tensor->data once its whole range is known to lie in the file.
static tern_status place_tensor(const parser *p, tern_gguf_tensor *tensor, uint64_t offset, uint64_t data_start,
                                uint64_t alignment) {
    char name[TERN_GGUF_QUOTE_MAX];
    const tern_gguf *gguf = p->gguf;
    if (offset % alignment != 0) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT,
                              "tensor %s is at offset %" PRIu64 ", not a multiple of the alignment %" PRIu64 ": %s",
                              tern_gguf_quote(tensor->name, name), offset, alignment, damaged);
    }
    const uint64_t section = data_start <= gguf->size ? gguf->size - data_start : 0;
    if (offset >= section || tensor->size > section - offset) {
        return tern_gguf_fail(gguf->path, p->err, TERN_ERR_FORMAT,
                              "tensor %s (%zu bytes at %" PRIu64 ") ends past the tensor data (%" PRIu64 " bytes): %s",
                              tern_gguf_quote(tensor->name, name), tensor->size, offset, section, damaged);
    }
    tensor->data = gguf->map + data_start + offset;
    return TERN_OK;
}

// ---- Q2_0, whose id names two block sizes -----------------------------------------------------------------

// Where tensors lie in the data section.
typedef struct data_map {
    const uint64_t *starts; // sorted
    size_t n;
    uint64_t section, alignment; // section: bytes of all data
    const uint8_t *data;
} data_map;

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Bytes from a tensor's start to the next start behind it, or to the end of the data. 0 where another tensor starts there too.
static uint64_t room_of(const data_map *map, const tern_gguf_tensor *tensor) {
    const uint64_t start = (uint64_t)((const uint8_t *)tensor->data - map->data);
    size_t low = 0, high = map->n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (map->starts[middle] > start)
            high = middle;
        else
            low = middle + 1;
    }
    if (low > 1 && map->starts[low - 2] == start) return 0;
    return (low < map->n ? map->starts[low] : map->section) - start;
}

// Whether each Q2_0 tensor fills its room, but for padding, in blocks of this size.
static bool all_fit(const tern_gguf *gguf, const data_map *map, const tern_block_type *type) {
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const tern_gguf_tensor *tensor = &gguf->tensors[i];
        if (tensor->type != TERN_GGML_Q2_0) continue;
        const uint64_t room = room_of(map, tensor);
        size_t bytes;
        if (tensor->dims[0] % type->block_elems != 0 || !tensor_bytes(tensor, type->block_elems, type->block_bytes, &bytes) ||
            bytes > room || room - bytes >= map->alignment)
            return false;
    }
    return true;
}

// Gives the Q2_0 tensors of a file their size, if exactly one size of blocks fits them all; else it stays 0.
static void size_q2_0(tern_gguf *gguf, const data_map *map) {
    const tern_block_type *fitting = NULL, *type;
    for (size_t i = 0; (type = tern_block_type_at(TERN_GGML_Q2_0, i)) != NULL; i++) {
        if (!all_fit(gguf, map, type)) continue;
        if (fitting) return;
        fitting = type;
    }
    for (size_t i = 0; fitting && i < gguf->n_tensors; i++) {
        tern_gguf_tensor *tensor = &gguf->tensors[i];
        if (tensor->type == TERN_GGML_Q2_0)
            (void)tensor_bytes(tensor, fitting->block_elems, fitting->block_bytes, &tensor->size);
    }
}

// ---- Overlaps ---------------------------------------------------------------------------------------------

// Tensors of known size never share bytes: a file in which they do would give one matrix the weights of another.
static tern_status check_rooms(const parser *p, const data_map *map) {
    for (size_t i = 0; i < p->gguf->n_tensors; i++) {
        const tern_gguf_tensor *tensor = &p->gguf->tensors[i];
        char name[TERN_GGUF_QUOTE_MAX];
        if (tensor->size > room_of(map, tensor))
            return tern_gguf_fail(p->gguf->path, p->err, TERN_ERR_FORMAT, "tensor %s overlaps another tensor: %s",
                                  tern_gguf_quote(tensor->name, name), damaged);
    }
    return TERN_OK;
}

// ---- All tensors ------------------------------------------------------------------------------------------

static tern_status parse_tensors(parser *p, size_t n_tensors, uint64_t alignment) {
    tern_gguf *gguf = p->gguf;
    if (n_tensors == 0) return TERN_OK;
    gguf->tensors = tern_alloc(&gguf->allocator, n_tensors, sizeof *gguf->tensors);
    if (gguf->tensors) gguf->n_tensors = n_tensors;
    uint64_t *offsets = tern_alloc(&gguf->allocator, n_tensors, sizeof *offsets);
    tern_status status = TERN_OK;
    if (!gguf->tensors || !offsets || !tern_name_index_create(&gguf->tensor_index, n_tensors, &gguf->allocator)) {
        status = tern_gguf_fail(gguf->path, p->err, TERN_ERR_MEMORY, "no memory for %zu tensors", n_tensors);
    }
    for (size_t i = 0; status == TERN_OK && i < n_tensors; i++) status = parse_tensor_info(p, i, &offsets[i]);
    // p->at <= the size of a mapping and alignment < 2^32, so the sum cannot wrap.
    const uint64_t data_start = ((uint64_t)p->at + alignment - 1) & ~(alignment - 1);
    for (size_t i = 0; status == TERN_OK && i < n_tensors; i++) {
        status = place_tensor(p, &gguf->tensors[i], offsets[i], data_start, alignment);
    }
    if (status == TERN_OK) {
        qsort(offsets, n_tensors, sizeof *offsets, by_value);
        const data_map map = {offsets, n_tensors, gguf->size - data_start, alignment, gguf->map + data_start};
        size_q2_0(gguf, &map);
        status = check_rooms(p, &map);
    }
    tern_free(&gguf->allocator, offsets, n_tensors, sizeof *offsets);
    return status;
}

tern_status tern_gguf_parse(tern_gguf *gguf, tern_error *err) {
    parser p = {.gguf = gguf, .err = err};
    uint64_t n_tensors = 0;
    uint64_t n_entries = 0;
    uint64_t alignment = TERN_GGUF_ALIGNMENT_DEFAULT;
    tern_status status = parse_header(&p, &n_tensors, &n_entries);
    if (status == TERN_OK) status = parse_metadata(&p, (size_t)n_entries);
    if (status == TERN_OK) status = find_alignment(&p, &alignment);
    gguf->metadata_bytes = p.at;
    gguf->alignment = (size_t)alignment;
    if (status == TERN_OK) status = parse_tensors(&p, (size_t)n_tensors, alignment);
    return status;
}
