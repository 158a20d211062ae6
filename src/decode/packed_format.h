// SPDX-License-Identifier: MIT
// The bytes of a packed model file (.tern), as they lie there: little-endian, no padding.
//
//   header                                                    one page
//   index: sections, then the checksum of each chunk          from TERN_PACKED_INDEX_AT on
//   a GGUF file within the file: all metadata of the source, its norms, biases and factors, and the rows of embeddings
//   data: sections, each from a page on, in the order in which a token reads them
//
// The GGUF part and the data begin at multiples of TERN_PACKED_CHUNK. Chunk i is the bytes from gguf_offset + i *
// TERN_PACKED_CHUNK on; the last one may be short. docs/data_flow.md tells what is verified when.
#ifndef TERN_DECODE_PACKED_FORMAT_H
#define TERN_DECODE_PACKED_FORMAT_H

#include "matmul/stored.h"

#define TERN_PACKED_MAGIC "TERNPACK" // 8 bytes without its NUL
#define TERN_PACKED_MANY ".many"     // behind the name of a weight: its second form
enum {
    TERN_PACKED_VERSION = 1, // another one is refused: changes with this file, with a layout and with tern_stored_form
    TERN_PACKED_MAGIC_BYTES = 8,
    TERN_PACKED_NAME_MAX = 48,
    TERN_PACKED_WORD_MAX = 16,
    TERN_PACKED_INDEX_AT = 4096,
    TERN_PACKED_ALIGN = 4096,       // of sections
    TERN_PACKED_CHUNK = 256 * 1024, // is copied and then verified from L2
    TERN_PACKED_SECTIONS_MAX = 1 << 16
};

typedef struct tern_packed_header {
    char magic[TERN_PACKED_MAGIC_BYTES];
    uint32_t version;
    uint32_t threads; // of the context that packed it
    uint64_t file_bytes, index_bytes, index_sum, n_sections;
    uint64_t gguf_offset, gguf_bytes;
    uint64_t small_bytes; // of the GGUF part before the rows of embeddings: verified at each start
    uint64_t data_offset, data_bytes;
    uint64_t n_params;
    uint32_t head;                           // tern_head_form that was asked for
    uint16_t form, act_block;                // tern_form, and blocks of activations
    char tier[TERN_PACKED_WORD_MAX];         // of the context that packed it
    char tern_version[TERN_PACKED_WORD_MAX]; //
    uint64_t header_sum;                     // of what stands before it
} tern_packed_header;
_Static_assert(sizeof(tern_packed_header) == 144, "the header has no padding");

// A form of packed weights, or, where the form has no layout, bytes of the name's owner.
typedef struct tern_packed_section {
    char name[TERN_PACKED_NAME_MAX]; // filled up with zeros
    uint64_t offset, bytes;          // within the data
    uint64_t many_from;              // of a second form; else 0
    tern_stored_form form;
} tern_packed_section;
_Static_assert(sizeof(tern_packed_section) == 128, "a section has no padding");

#endif
