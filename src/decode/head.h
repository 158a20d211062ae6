// SPDX-License-Identifier: MIT
// The output head: its forms, and the logits of the rows that want them.
#ifndef TERN_DECODE_HEAD_H
#define TERN_DECODE_HEAD_H

#include "decode/linear.h"
#include "decode/loader.h"

// Puts the matrix t [n_vocab][n_embd] into the form that the loader's parameters ask for.
tern_status tern_head_load(tern_loader *ld, const tern_gguf_tensor *t);

// The same out of a packed file, for the forms that are packed.
tern_status tern_head_load_packed(tern_loader *ld);

// Floats of scratch that the exact form needs (tern_buffers.head_rows).
size_t tern_head_scratch(const tern_model *m);

// Appends the last norm and the head, for the rows of f->m->buf that want logits.
void tern_head_add(tern_pass *f);

#endif
