// SPDX-License-Identifier: MIT
// Names and block sizes of the ggml tensor types that occur in files, also of those that Tern does not read.
#ifndef TERN_FORMAT_GGML_TYPES_H
#define TERN_FORMAT_GGML_TYPES_H

#include "base/base.h"

typedef struct tern_ggml_type {
    uint32_t id;
    uint16_t block_elems;
    uint16_t block_bytes; // 0: the size cannot be told from the id (a retired id, one that forks reuse, or a size per tensor)
    const char *name;
    const char *convert_to; // the type to advise when Tern does not read this one
} tern_ggml_type;

// NULL for an id not seen in any known file.
const tern_ggml_type *tern_ggml_type_find(uint32_t id);

#endif
