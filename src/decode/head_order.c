// SPDX-License-Identifier: MIT
// The order of columns in a 6-bit head.
#include "decode/head_order.h"

#include <math.h>
#include <string.h>

enum { SAMPLED_ROWS = 4096 }; // of the matrix, evenly spread

// Heap sort of order[] by falling weight, then rising index: in place, and the same everywhere.
static bool comes_first(const float *weight, uint32_t a, uint32_t b) {
    return weight[a] > weight[b] || (weight[a] == weight[b] && a < b);
}

static void sift(uint32_t *order, const float *weight, size_t root, size_t n) {
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && comes_first(weight, order[child], order[child + 1])) child++; // the later one rises
        if (!comes_first(weight, order[root], order[child])) return;
        const uint32_t swap = order[root];
        order[root] = order[child];
        order[child] = swap;
    }
}

void tern_order_columns(uint32_t *order, const float *weight, size_t k) {
    for (size_t j = 0; j < k; j++) order[j] = (uint32_t)j;
    for (size_t root = k / 2; root-- > 0;) sift(order, weight, root, k);
    for (size_t n = k; n-- > 1;) {
        const uint32_t last = order[0];
        order[0] = order[n];
        order[n] = last;
        sift(order, weight, 0, n);
    }
}

// Sum of squares of each column over a sample of rows, times the square of the norm's weight. A value that is not finite weighs
// nothing here; packing refuses it. row: k floats.
static void weigh(float *weight, float *row, const tern_block_type *type, const tern_gguf_tensor *t, size_t n, size_t k,
                  const float *norm) {
    const size_t step = n > SAMPLED_ROWS ? n / SAMPLED_ROWS : 1;
    memset(weight, 0, k * sizeof *weight);
    for (size_t i = 0; i < n; i += step) {
        tern_row_to_f32(type, row, t->data, i, n, k);
        for (size_t j = 0; j < k; j++) weight[j] += row[j] * row[j];
    }
    for (size_t j = 0; j < k; j++) {
        weight[j] *= norm[j] * norm[j];
        if (!isfinite(weight[j])) weight[j] = 0;
    }
}

// Whether each column is named once. seen: k zeros.
static bool names_each(bool *seen, const uint32_t *order, size_t k) {
    for (size_t j = 0; j < k; j++) {
        if (order[j] >= k || seen[order[j]]) return false;
        seen[order[j]] = true;
    }
    return true;
}

tern_status tern_head_take_order(tern_loader *ld, const uint32_t *order) {
    tern_model *m = ld->m;
    const tern_allocator *allocator = &ld->ctx->allocator;
    const size_t k = m->hyper.n_embd;
    bool *seen = tern_alloc(allocator, k, sizeof *seen);
    m->head.order = tern_alloc(allocator, k, sizeof *m->head.order);
    const bool room = seen && m->head.order;
    if (room) memcpy(m->head.order, order, k * sizeof *order); // the copy is checked: the file may change
    const bool right = room && names_each(seen, m->head.order, k);
    tern_free(allocator, seen, k, sizeof *seen);
    if (!room) return tern_fail(&ld->ctx->error, TERN_ERR_MEMORY, "out of memory");
    if (!right) return tern_fail(&ld->ctx->error, TERN_ERR_FORMAT, "the head's columns are not each named once");
    float *norm = m->floats + ld->floats_used;
    ld->floats_used += k;
    for (size_t j = 0; j < k; j++) norm[j] = m->output_norm[m->head.order[j]];
    m->head.norm = norm;
    return TERN_OK;
}

tern_status tern_head_find_order(tern_loader *ld, const tern_gguf_tensor *t) {
    const size_t n = ld->m->hyper.n_vocab, k = ld->m->hyper.n_embd;
    float *work = tern_alloc(&ld->ctx->allocator, 2 * k, sizeof *work);
    uint32_t *order = tern_alloc(&ld->ctx->allocator, k, sizeof *order);
    tern_status status = TERN_ERR_MEMORY;
    if (work && order) {
        weigh(work, work + k, tern_block_type_of(t->type, k, n, t->size), t, n, k, ld->m->output_norm);
        tern_order_columns(order, work, k);
        status = tern_head_take_order(ld, order);
    } else {
        (void)tern_fail(&ld->ctx->error, status, "out of memory");
    }
    tern_free(&ld->ctx->allocator, order, k, sizeof *order);
    tern_free(&ld->ctx->allocator, work, 2 * k, sizeof *work);
    return status;
}
