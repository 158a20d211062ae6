// SPDX-License-Identifier: MIT
// A chain of checksums over what was loaded and samples of what lies in the file.
#include "decode/fingerprint.h"

#include <string.h>

#include "base/checksum.h"
#include "decode/packed.h"

enum { SAMPLE_BYTES = 128, SAMPLES = 3 }; // of a tensor: at its start, in its middle, at its end

static void add(uint64_t *sum, const void *data, size_t bytes) {
    const uint64_t both[] = {*sum, tern_checksum(data, bytes)};
    *sum = tern_checksum(both, sizeof both);
}

static void add_tensor(uint64_t *sum, const tern_gguf_tensor *t) {
    add(sum, t->name.data, t->name.size);
    add(sum, &t->type, sizeof t->type);
    add(sum, t->dims, sizeof t->dims);
    const size_t bytes = t->size < SAMPLE_BYTES ? t->size : SAMPLE_BYTES;
    for (size_t i = 0; i < SAMPLES; i++) add(sum, (const uint8_t *)t->data + (t->size - bytes) / (SAMPLES - 1) * i, bytes);
}

static void add_rope(uint64_t *sum, const tern_rope_table *rope, size_t dim) {
    if (!rope->freq) return; // one table serves all contexts
    add(sum, rope->freq, dim / 2 * sizeof *rope->freq);
    add(sum, &rope->magnitude, sizeof rope->magnitude);
}

uint64_t tern_model_fingerprint(const tern_model *m) {
    const tern_hyper *h = &m->hyper;
    const uint32_t sizes[] = {h->n_layers, h->n_embd, h->n_ff, h->n_heads, h->n_kv_heads, h->head_dim, h->n_vocab};
    uint64_t sum = 0;
    add(&sum, m->architecture, strlen(m->architecture));
    add(&sum, sizes, sizeof sizes);
    add(&sum, &h->rms_eps, sizeof h->rms_eps);
    // Up to the last norm: behind it stand frequencies and what the form of the head has added, which is no part of the file.
    add(&sum, m->floats, (size_t)(m->output_norm + h->n_embd - m->floats) * sizeof *m->floats);
    add_rope(&sum, &m->rope, h->rope.dim);
    add_rope(&sum, &m->long_rope, h->rope.dim);
    add(&sum, &m->long_from, sizeof m->long_from);
    // The checksum of all checksums: a packed file has other bytes for other weights.
    if (m->packed) add(&sum, &m->packed->header.index_sum, sizeof m->packed->header.index_sum);
    for (size_t i = 0; i < tern_gguf_tensor_count(m->gguf); i++) add_tensor(&sum, tern_gguf_tensor_at(m->gguf, i));
    return sum;
}
