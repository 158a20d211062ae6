// SPDX-License-Identifier: MIT
// Calls every accessor on an opened GGUF and touches every byte they point at, so that a sanitizer or the MMU sees a bad range.
#ifndef TERN_TESTS_GGUF_WALK_H
#define TERN_TESTS_GGUF_WALK_H

#include <string.h>

#include "format/blocks.h"
#include "format/gguf.h"

static inline uint64_t walk_string(tern_gguf_string s) {
    uint64_t sum = 0;
    for (size_t i = 0; i < s.size; i++) sum += (uint8_t)s.data[i];
    return sum;
}

static inline uint64_t walk_tensor(const tern_gguf *gguf, const tern_gguf_tensor *t) {
    enum { SAMPLES = 64 };
    const uint8_t *data = t->data;
    const tern_block_type *type;
    tern_error err;
    uint64_t sum = walk_string(t->name) + data[0];
    for (size_t i = 0; i < t->size; i += t->size / SAMPLES + 1) sum += data[i];
    if (t->size) sum += data[t->size - 1];
    if (tern_gguf_tensor_type(gguf, t, &type, &err) == TERN_OK) {
        float row[256];
        size_t bytes;
        sum += t->size / type->block_bytes;
        if (t->dims[0] >= type->block_elems && tern_matrix_bytes(type, 1, type->block_elems, &bytes) && t->size >= bytes) {
            tern_row_to_f32(type, row, data, 0, 1, type->block_elems);
            sum += row[0] > 0;
        }
    }
    return sum;
}

static inline uint64_t walk_key(const tern_gguf *gguf, const char *key) {
    uint64_t sum = tern_gguf_has(gguf, key);
    uint64_t u = 0;
    double f = 0;
    bool flag = false;
    tern_gguf_string s = {0};
    tern_gguf_type type = TERN_GGUF_U8;
    size_t count = 0;
    if (tern_gguf_get_u64(gguf, key, &u)) sum += u;
    if (tern_gguf_get_f64(gguf, key, &f)) sum += f > 0;
    if (tern_gguf_get_bool(gguf, key, &flag)) sum += flag;
    if (tern_gguf_get_string(gguf, key, &s)) sum += walk_string(s);
    if (tern_gguf_get_array(gguf, key, &type, &count)) sum += type;
    for (size_t i = 0; i < count; i++) {
        if (tern_gguf_array_string(gguf, key, i, &s)) sum += walk_string(s);
        if (tern_gguf_array_f64(gguf, key, i, &f)) sum += f > 0;
    }
    return sum;
}

// keys: those that the caller knows to look for. Returns a number that depends on all that was read.
static inline uint64_t walk_gguf(const tern_gguf *gguf, const char *const keys[], size_t n_keys) {
    uint64_t sum = tern_gguf_file_size(gguf) + strlen(tern_gguf_path(gguf));
    for (size_t i = 0; i < tern_gguf_tensor_count(gguf); i++) sum += walk_tensor(gguf, tern_gguf_tensor_at(gguf, i));
    for (size_t i = 0; i < n_keys; i++) {
        sum += walk_key(gguf, keys[i]);
        sum += tern_gguf_find_tensor(gguf, keys[i]) != NULL;
    }
    return sum;
}

#endif
