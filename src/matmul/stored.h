// SPDX-License-Identifier: MIT
// Packed weights as they lie in a file: the description of a form, its image, and weights made over one without packing.
#ifndef TERN_MATMUL_STORED_H
#define TERN_MATMUL_STORED_H

#include "matmul/weights.h"

// Limits of what is read back; a matrix of more features does not occur.
enum { TERN_STORED_LAYOUT_MAX = 16, TERN_STORED_N_MAX = 1 << 30 };

// One form, as in the file: little-endian, no padding. The rest of tern_weights follows from these.
typedef struct tern_stored_form {
    char layout[TERN_STORED_LAYOUT_MAX]; // its name, filled up with zeros
    uint64_t n, k;
    uint64_t unit_rows; // of slabs; 0: the layout has panels
    uint64_t scale_block;
    uint16_t scale_kind;
    uint16_t act_block; // of activations, where it makes slices; else 0
    uint32_t codes;     // tern_stored_codes
} tern_stored_form;
_Static_assert(sizeof(tern_stored_form) == 56, "a description has no padding");

typedef enum tern_stored_codes { TERN_STORED_TRITS, TERN_STORED_FOUR_LEVEL, TERN_STORED_MANY } tern_stored_codes;

// One form of w (w->many is another); w keeps no row sums.
void tern_stored_describe(tern_stored_form *form, const tern_weights *w);

// An image is the codes and then the scales, each from a multiple of TERN_CACHE_LINE on. False: the form has row sums, or an
// image does not fit size_t.
bool tern_stored_bytes(const tern_weights *w, size_t *bytes);
size_t tern_stored_scales_at(const tern_weights *w); // offset of the scales

// A weight over an image, which stays the caller's and outlives it. Nothing of the description is trusted; of the image nothing
// is read, and no byte in it makes a kernel read elsewhere. The weight itself comes from `allocator`. Errors, without the name
// of the file: FORMAT (damaged), UNSUPPORTED (layouts that are unknown, slow on the context's tier, or for fewer threads),
// MEMORY.
tern_status tern_stored_open(tern_context *ctx, tern_weights **out, const tern_stored_form *form, void *image,
                             size_t image_bytes, const tern_allocator *allocator);

// Makes `many` the form of w for products of many_from tokens and more; w owns it. Errors: FORMAT (they are not one weight).
tern_status tern_stored_join(tern_context *ctx, tern_weights *w, tern_weights *many, size_t many_from);

#endif
