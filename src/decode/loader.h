// SPDX-License-Identifier: MIT
// A model being loaded: what model.c gives to load_tensors.c.
#ifndef TERN_DECODE_LOADER_H
#define TERN_DECODE_LOADER_H

#include "decode/model.h"
#include "matmul/build.h"

typedef struct tern_loader {
    tern_context *ctx;
    tern_model *m;
    const tern_model_params *params;
    uint64_t done, total; // bytes of matrices packed
    size_t floats_used;
} tern_loader;

// Rows first .. first + count - 1 of a matrix of n rows of k, packed.
typedef struct tern_rows {
    size_t n, k, first, count;
    tern_recode recode;
    const uint32_t *order; // of tern_blocks
} tern_rows;
tern_status tern_load_rows(tern_loader *ld, const tern_gguf_tensor *t, const tern_rows *rows, tern_weights **out);

// The weight of that name (tern_packing_add_weights) out of the packed file.
tern_status tern_load_packed(tern_loader *ld, const char *name, size_t n, size_t k, tern_weights **out);

// Floats that norms, biases and frequencies take: those of the file's vectors, each of which is loaded once, so that no more is
// allocated than the file accounts for.
size_t tern_loader_floats(const tern_gguf *gguf, const tern_hyper *h);

// Refuses tensors that change the maths and that the forward pass would ignore.
tern_status tern_load_check_names(const tern_loader *ld);
tern_status tern_load_embedding(tern_loader *ld);
tern_status tern_load_layers(tern_loader *ld);
tern_status tern_load_head(tern_loader *ld); // the last norm and the output matrix, tied or not
tern_status tern_load_rope(tern_loader *ld);

#endif
