// SPDX-License-Identifier: MIT
// The keys and values of a session, of every layer and head, in float16 or INT8.
#ifndef TERN_DECODE_KV_H
#define TERN_DECODE_KV_H

#include "cpu/dispatch.h"
#include "tern/decode.h"

typedef enum tern_kv_part_id {
    TERN_KV_KEYS,       // float16 panels or INT8 blocks (kernels/layout.h)
    TERN_KV_VALUES,     // float16 [head_dim] of each position, or INT8 blocks
    TERN_KV_KEY_SCALES, // INT8 only: a float32 of each position
    TERN_KV_VALUE_SCALES,
    TERN_KV_PARTS
} tern_kv_part_id;

// One array: a run of memory for each layer and head, [layer][kv head]. A run is units, each of which holds some positions.
typedef struct tern_kv_part {
    unsigned char *data; // NULL: the type has no such part; all else is then 0
    size_t unit_positions, unit_bytes, run_bytes;
} tern_kv_part;

typedef struct tern_kv {
    tern_kv_type type;
    size_t n_heads, n_runs, head_dim; // n_runs: n_layers * n_heads
    tern_kv_part parts[TERN_KV_PARTS];
} tern_kv;

// Room for `positions` of n_layers * n_heads heads, all of it touched, so that decoding neither grows the process nor meets
// page faults. False: no memory; tern_kv_destroy is then still wanted.
bool tern_kv_create(tern_kv *kv, const tern_allocator *allocator, tern_kv_type type, size_t positions, size_t n_layers,
                    size_t n_heads, size_t head_dim);
void tern_kv_destroy(tern_kv *kv, const tern_allocator *allocator);

// Where a position stands in a part; of panels and blocks the first of a unit.
static inline void *tern_kv_at(const tern_kv *kv, tern_kv_part_id part, size_t layer, size_t head, size_t position) {
    const tern_kv_part *p = &kv->parts[part];
    return p->data + (layer * kv->n_heads + head) * p->run_bytes + position / p->unit_positions * p->unit_bytes;
}

// Bytes from the start of a run that hold its first `positions`.
static inline size_t tern_kv_used(const tern_kv_part *part, size_t positions) {
    return tern_ceil_div(positions, part->unit_positions) * part->unit_bytes;
}

// Writes a key and a value of head_dim floats. What is kept depends on these alone, not on their neighbours or on what stood
// there. False: a NaN or an infinity (INT8; float16 keeps a NaN).
bool tern_kv_put(const tern_kv *kv, const tern_kernels *kernels, size_t layer, size_t head, size_t position, const float *key,
                 const float *value);

// Forgets what stands from `length` on in units that hold positions before it.
void tern_kv_clear_behind(const tern_kv *kv, size_t length);

// Codes of a row of head_dim floats, and zeros up to a multiple of TERN_X_ALIGN; as `quantize` in kernels.h, in one block.
bool tern_kv_quantize(const tern_kernels *kernels, int8_t *codes, float *scale, int32_t *sum, const float *x, size_t head_dim);

// Codes of a query for INT8 attention (kernels.h), and zeros up to tern_kv_dims(head_dim): two neighbours 2d and 2d + 1 meet in
// a 16-bit lane, so it is their largest sum of magnitudes that becomes 127, and is at most 128 when both are rounded. False: a
// NaN, an infinity, or neighbours that add up to one; nothing is written then.
bool tern_kv_quantize_query(int8_t *codes, float *scale, int32_t *sum, const float *q, size_t head_dim);

#endif
