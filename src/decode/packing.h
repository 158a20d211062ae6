// SPDX-License-Identifier: MIT
// A packed file being put together: who owns packed weights or bytes adds them by name, in the order in which a token reads
// them.
#ifndef TERN_DECODE_PACKING_H
#define TERN_DECODE_PACKING_H

#include "decode/model.h"

enum {
    TERN_PROJECTIONS = 7,       // of a layer: q, k, v, o, gate, up, down
    TERN_HEAD_SECTIONS_MAX = 16 // of all parts of a head
};

typedef struct tern_packing tern_packing;

// Both keep pointers until the file is written. Names are unique, and shorter than TERN_PACKED_NAME_MAX. The reader finds them
// with tern_packed_weights and tern_packed_find.
tern_status tern_packing_add_weights(tern_packing *packing, const char *name, const tern_weights *w);
tern_status tern_packing_add_bytes(tern_packing *packing, const char *name, const void *bytes, size_t size);

// "blk.3.q": the name of a layer's projection, the `part`-th in the order above.
void tern_projection_section(char *name, size_t layer, size_t part); // TERN_PACKED_NAME_MAX bytes

// Adds what the head has packed (head.c).
tern_status tern_head_pack(tern_packing *packing, const tern_model *m);

#endif
