// SPDX-License-Identifier: MIT
// Packed model files: opening, checking, and taking weights out of them.
#ifndef TERN_DECODE_PACKED_H
#define TERN_DECODE_PACKED_H

#include "decode/packed_format.h"
#include "format/name_index.h"
#include "tern/decode.h"

typedef struct tern_packed {
    tern_allocator allocator;
    const char *path; // of the caller of tern_packed_open
    int fd;
    const uint8_t *map;
    size_t map_bytes;
    tern_packed_header header;
    const tern_packed_section *sections; // in the mapping
    const uint64_t *sums;                // of chunks, in the mapping
    tern_name_index names;
    uint8_t *memory; // data of TERN_LOAD_COPY, or NULL
} tern_packed;

// *packed is NULL, and nothing else happens, where the file does not begin as a packed one (or cannot be read). Header, index
// and the small part of the GGUF are verified. path outlives *packed. Errors: IO, FORMAT, UNSUPPORTED (another version),
// MEMORY.
tern_status tern_packed_open(tern_context *ctx, tern_packed **packed, const char *path);
void tern_packed_close(tern_packed *packed);

// Room for a copy of the data, which tern_packed_copy fills, with the workers of ctx, and verifies. Between the two weights can
// be made over it, and bound to the nodes of their workers.
tern_status tern_packed_reserve(tern_context *ctx, tern_packed *packed);
tern_status tern_packed_copy(tern_context *ctx, tern_packed *packed, tern_progress_fn progress, void *user);
// Maps the pages of the data now, with the workers of ctx, instead of one fault at a time.
tern_status tern_packed_touch(tern_context *ctx, const tern_packed *packed);
// Verifies every byte of the file.
tern_status tern_packed_verify(tern_context *ctx, const tern_packed *packed);

const tern_packed_section *tern_packed_find(const tern_packed *packed, const char *name); // NULL: none
void *tern_packed_bytes(const tern_packed *packed, const tern_packed_section *section);
// The same in the mapping, also before tern_packed_copy.
const void *tern_packed_mapped(const tern_packed *packed, const tern_packed_section *section);

// The weight of that name, which must be n x k. Errors name the file, the section and the remedy.
tern_status tern_packed_weights(tern_context *ctx, const tern_packed *p, const char *name, size_t n, size_t k,
                                const tern_allocator *allocator, tern_weights **out);

// Fails with "FILE: CAUSE" and how to pack again.
tern_status tern_packed_refuse(tern_context *ctx, const tern_packed *packed, tern_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
