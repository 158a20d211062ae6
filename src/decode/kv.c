// SPDX-License-Identifier: MIT
// The KV cache: memory of each part, and how a key and a value are written into it.
#include "decode/kv.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/base.h"

// ---- memory -------------------------------------------------------------------------------------------------------

static void touch(unsigned char *memory, size_t bytes) {
    enum { PAGE = 4096 };
    for (size_t i = 0; i < bytes; i += PAGE) ((volatile unsigned char *)memory)[i] = 0;
}

static bool make_part(tern_kv *kv, tern_kv_part_id id, const tern_allocator *allocator, size_t positions, size_t unit_positions,
                      size_t unit_bytes) {
    tern_kv_part *p = &kv->parts[id];
    size_t bytes;
    p->unit_positions = unit_positions;
    p->unit_bytes = unit_bytes;
    if (!tern_mul_size(tern_ceil_div(positions, unit_positions), unit_bytes, &p->run_bytes) ||
        !tern_mul_size(p->run_bytes, kv->n_runs, &bytes))
        return false;
    p->data = tern_alloc(allocator, kv->n_runs, p->run_bytes);
    if (p->data) touch(p->data, bytes);
    return p->data != NULL;
}

bool tern_kv_create(tern_kv *kv, const tern_allocator *allocator, tern_kv_type type, size_t positions, size_t n_layers,
                    size_t n_heads, size_t head_dim) {
    *kv = (tern_kv){.type = type, .n_heads = n_heads, .n_runs = n_layers * n_heads, .head_dim = head_dim};
    if (type == TERN_KV_F16)
        return make_part(kv, TERN_KV_KEYS, allocator, positions, TERN_ATTN_PANEL,
                         TERN_ATTN_PANEL * head_dim * sizeof(uint16_t)) &&
               make_part(kv, TERN_KV_VALUES, allocator, positions, 1, head_dim * sizeof(uint16_t));
    const size_t whole = tern_round_up(positions, TERN_ATTN_BLOCK), block = tern_kv_block_bytes(head_dim);
    return make_part(kv, TERN_KV_KEYS, allocator, whole, TERN_ATTN_BLOCK, block) &&
           make_part(kv, TERN_KV_VALUES, allocator, whole, TERN_ATTN_BLOCK, block) &&
           make_part(kv, TERN_KV_KEY_SCALES, allocator, whole, 1, sizeof(float)) &&
           make_part(kv, TERN_KV_VALUE_SCALES, allocator, whole, 1, sizeof(float));
}

void tern_kv_destroy(tern_kv *kv, const tern_allocator *allocator) {
    for (size_t i = 0; i < TERN_KV_PARTS; i++) tern_free(allocator, kv->parts[i].data, kv->n_runs, kv->parts[i].run_bytes);
}

// ---- writing ------------------------------------------------------------------------------------------------------

static const float FLOOR = 1e-30f; // as for blocks of activations (docs/numerics.md): scales are positive

bool tern_kv_quantize(const tern_kernels *kernels, int8_t *codes, float *scale, int32_t *sum, const float *x, size_t head_dim) {
    return TERN_KERNEL(kernels, quantize, TERN_LAYOUT_NONE)(codes, scale, sum, x, head_dim, head_dim, FLOOR) == 0;
}

bool tern_kv_quantize_query(int8_t *codes, float *scale, int32_t *sum, const float *q, size_t head_dim) {
    static const float largest_code = 127;
    static const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer, halves to even
    float top = FLOOR;
    bool finite = true;
    for (size_t d = 0; d < head_dim; d += 2) {
        const float pair = fabsf(q[d]) + (d + 1 < head_dim ? fabsf(q[d + 1]) : 0);
        finite &= pair <= FLT_MAX; // not of a NaN
        if (pair > top) top = pair;
    }
    if (!finite) return false;
    const float inverse = largest_code / top;
    *scale = top / largest_code;
    int32_t all = 0;
    for (size_t d = 0; d < head_dim; d++) {
        const int32_t code = (int32_t)((q[d] * inverse + magic) - magic);
        codes[d] = (int8_t)code;
        all += code;
    }
    *sum = all;
    memset(codes + head_dim, 0, tern_kv_dims(head_dim) - head_dim);
    return true;
}

// Keys are features of an I8 panel and values its depth: four bytes of a key, single bytes of a value stand together.
static void put_key_codes(int8_t *block, size_t key, const int8_t *codes, size_t dims) {
    for (size_t d = 0; d < dims; d += TERN_I8_GROUP_K) memcpy(block + tern_i8_at(key, d, dims), codes + d, TERN_I8_GROUP_K);
}

static void put_value_codes(int8_t *block, size_t key, const int8_t *codes, size_t dims) {
    for (size_t d = 0; d < dims; d++) block[tern_i8_at(d, key, TERN_ATTN_BLOCK)] = codes[d];
}

static void put_key_halves(uint16_t *panel, size_t key, const uint16_t *halves, size_t head_dim) {
    for (size_t d = 0; d < head_dim; d++) panel[tern_key_at(key, d, head_dim)] = halves[d];
}

static bool put_int8(const tern_kv *kv, const tern_kernels *kernels, size_t layer, size_t head, size_t position,
                     const float *key, const float *value) {
    _Alignas(TERN_X_ALIGN) int8_t codes[TERN_HEAD_DIM_MAX];
    const size_t dims = tern_kv_dims(kv->head_dim), in_block = position % TERN_ATTN_BLOCK;
    int32_t sum;
    float *key_scale = tern_kv_at(kv, TERN_KV_KEY_SCALES, layer, head, position);
    float *value_scale = tern_kv_at(kv, TERN_KV_VALUE_SCALES, layer, head, position);
    const bool key_finite = tern_kv_quantize(kernels, codes, key_scale, &sum, key, kv->head_dim);
    put_key_codes(tern_kv_at(kv, TERN_KV_KEYS, layer, head, position), in_block, codes, dims);
    const bool value_finite = tern_kv_quantize(kernels, codes, value_scale, &sum, value, kv->head_dim);
    put_value_codes(tern_kv_at(kv, TERN_KV_VALUES, layer, head, position), in_block, codes, dims);
    return key_finite && value_finite;
}

bool tern_kv_put(const tern_kv *kv, const tern_kernels *kernels, size_t layer, size_t head, size_t position, const float *key,
                 const float *value) {
    if (kv->type == TERN_KV_INT8) return put_int8(kv, kernels, layer, head, position, key, value);
    uint16_t halves[TERN_HEAD_DIM_MAX];
    TERN_KERNEL(kernels, to_half, TERN_LAYOUT_NONE)(halves, key, kv->head_dim);
    put_key_halves(tern_kv_at(kv, TERN_KV_KEYS, layer, head, position), position % TERN_ATTN_PANEL, halves, kv->head_dim);
    TERN_KERNEL(kernels, to_half, TERN_LAYOUT_NONE)
    (tern_kv_at(kv, TERN_KV_VALUES, layer, head, position), value, kv->head_dim);
    return true;
}

static void clear_halves(const tern_kv *kv, size_t run, size_t length) {
    static const uint16_t zeros[TERN_HEAD_DIM_MAX] = {0};
    uint16_t *panel = tern_kv_at(kv, TERN_KV_KEYS, 0, run, length);
    for (size_t i = length % TERN_ATTN_PANEL; i < TERN_ATTN_PANEL; i++) put_key_halves(panel, i, zeros, kv->head_dim);
}

static void clear_codes(const tern_kv *kv, size_t run, size_t length) {
    static const int8_t zeros[TERN_HEAD_DIM_MAX] = {0};
    const size_t dims = tern_kv_dims(kv->head_dim);
    int8_t *keys = tern_kv_at(kv, TERN_KV_KEYS, 0, run, length), *values = tern_kv_at(kv, TERN_KV_VALUES, 0, run, length);
    for (size_t i = length % TERN_ATTN_BLOCK; i < TERN_ATTN_BLOCK; i++) {
        put_key_codes(keys, i, zeros, dims);
        put_value_codes(values, i, zeros, dims);
    }
}

void tern_kv_clear_behind(const tern_kv *kv, size_t length) {
    if (length % kv->parts[TERN_KV_KEYS].unit_positions == 0) return; // values stand in units of as many or of one
    for (size_t run = 0; run < kv->n_runs; run++) (kv->type == TERN_KV_INT8 ? clear_codes : clear_halves)(kv, run, length);
}
