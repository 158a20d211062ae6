// SPDX-License-Identifier: MIT
// The output head. INT8, 6-bit and 4-bit heads are packed weights; the exact one is read as it lies in the file, rows of
// float32 and float16 by a kernel of their own, rows of other types through float32.
#include "decode/head.h"

#include <math.h>
#include <string.h>

#include "decode/head_order.h"
#include "decode/head_screen.h"
#include "decode/packed.h"
#include "decode/packing.h"

enum { TILES_PER_WORKER = 16 }; // of the exact form

// ---- loading ------------------------------------------------------------------------------------------------------------

static size_t exact_tiles(const tern_context *ctx) { return TILES_PER_WORKER * (size_t)ctx->threads; }

static bool has_kernel(const tern_block_type *type) { return type->id == TERN_GGML_F16 || type->id == TERN_GGML_F32; }

// Rows without a kernel become float32 in scratch of their tile, one at a time.
size_t tern_head_scratch(const tern_model *m) {
    return m->head.exact && !has_kernel(m->head.exact) ? exact_tiles(m->ctx) * m->hyper.n_embd : 0;
}

typedef struct scan_args {
    const tern_model *m;
    const uint8_t *rows;
    float *scratch;
    size_t n_tiles;
    atomic_bool damaged;
} scan_args;

static void scan_tile(void *arg, size_t tile) {
    scan_args *a = arg;
    const size_t n = a->m->hyper.n_vocab, k = a->m->hyper.n_embd, end = tern_line_cut(n, a->n_tiles, tile + 1);
    float *row = a->scratch + tile * k;
    bool finite = true;
    for (size_t i = tern_line_cut(n, a->n_tiles, tile); i < end; i++) {
        tern_row_to_f32(a->m->head.exact, row, a->rows, i, n, k);
        for (size_t j = 0; j < k; j++) finite &= isfinite(row[j]) != 0;
    }
    if (!finite) atomic_store_explicit(&a->damaged, true, memory_order_relaxed); // relaxed: read after the region
}

// Packing refuses what is not finite; rows that stay in the file are looked at for the same reason.
static tern_status load_exact(tern_loader *ld, const tern_gguf_tensor *t) {
    tern_model *m = ld->m;
    const size_t n = m->hyper.n_vocab, k = m->hyper.n_embd;
    m->head.exact = tern_block_type_of(t->type, k, n, t->size);
    m->head.rows = t->data;
    m->head.bytes = t->size;
    m->head.layout = m->head.exact->name;
    m->bytes_per_token += t->size;
    m->packed_weights += (double)n * (double)k;
    if (m->packed) return TERN_OK; // looked at when it was packed
    scan_args args = {.m = m, .rows = t->data, .n_tiles = exact_tiles(ld->ctx)};
    args.scratch = tern_alloc(&ld->ctx->allocator, args.n_tiles * k, sizeof *args.scratch);
    if (!args.scratch) return tern_fail(&ld->ctx->error, TERN_ERR_MEMORY, "out of memory");
    const tern_stage stage = {.fn = scan_tile, .arg = &args, .n_tiles = args.n_tiles, .name = "check head"};
    const tern_status status = tern_context_run(ld->ctx, &stage, 1);
    tern_free(&ld->ctx->allocator, args.scratch, args.n_tiles * k, sizeof *args.scratch);
    if (status != TERN_OK) return status;
    if (atomic_load_explicit(&args.damaged, memory_order_relaxed))
        return tern_fail(&ld->ctx->error, TERN_ERR_FORMAT,
                         "%s: tensor %.*s holds a NaN or an infinity; convert the model again", tern_gguf_path(m->gguf),
                         (int)t->name.size, t->name.data);
    return TERN_OK;
}

// Facts of head.w.
static void describe(tern_head *head) {
    head->bytes = tern_weights_bytes(head->w);
    head->layout = tern_layout_name(head->w->layout);
}

static const char section[] = "head", order_section[] = "head.order";

// The order in which a 6-bit head was packed.
static tern_status load_packed_order(tern_loader *ld) {
    const tern_packed *packed = ld->m->packed;
    const tern_packed_section *s = tern_packed_find(packed, order_section);
    if (!s || s->bytes != ld->m->hyper.n_embd * sizeof *ld->m->head.order)
        return tern_packed_refuse(ld->ctx, packed, TERN_ERR_FORMAT, "%s is missing or of another size", order_section);
    const tern_status status = tern_head_take_order(ld, tern_packed_mapped(packed, s));
    if (status != TERN_ERR_FORMAT) return status;
    return tern_packed_refuse(ld->ctx, packed, status, "%s is damaged: it is no order of the columns", order_section);
}

tern_status tern_head_load_packed(tern_loader *ld) {
    tern_model *m = ld->m;
    tern_status status = tern_load_packed(ld, section, m->hyper.n_vocab, m->hyper.n_embd, &m->head.w);
    if (status != TERN_OK) return status;
    describe(&m->head);
    m->head.norm = m->output_norm;
    if (m->head_form == TERN_HEAD_SCREENED) return tern_head_screen_create(ld);
    return m->head.w->layout == TERN_LAYOUT_I6B32 ? load_packed_order(ld) : TERN_OK;
}

tern_status tern_head_pack(tern_packing *packing, const tern_model *m) {
    if (!m->head.w) return TERN_OK;
    const tern_status status = tern_packing_add_weights(packing, section, m->head.w);
    if (status != TERN_OK || !m->head.order) return status;
    return tern_packing_add_bytes(packing, order_section, m->head.order, m->hyper.n_embd * sizeof *m->head.order);
}

// What AUTO makes of the tensor: codes of fewer than 6 bits stay as they are.
static tern_recode choose(const tern_block_type *type) {
    return type->to_u4 || (type->to_codes && type->levels != TERN_LEVELS_MANY) ? TERN_RECODE_NONE : TERN_RECODE_INT6;
}

tern_status tern_head_load(tern_loader *ld, const tern_gguf_tensor *t) {
    static const tern_recode recodes[] = {[TERN_HEAD_INT8] = TERN_RECODE_INT8,
                                          [TERN_HEAD_INT4] = TERN_RECODE_INT4,
                                          [TERN_HEAD_INT6] = TERN_RECODE_INT6,
                                          [TERN_HEAD_SCREENED] = TERN_RECODE_INT8_SPLIT};
    tern_model *m = ld->m;
    const size_t n = m->hyper.n_vocab, k = m->hyper.n_embd;
    const tern_head_form form = m->head_form;
    if (form == TERN_HEAD_EXACT) return load_exact(ld, t);
    tern_rows rows = {.n = n, .k = k, .count = n};
    rows.recode = form == TERN_HEAD_AUTO ? choose(tern_block_type_of(t->type, k, n, t->size)) : recodes[form];
    m->head.norm = m->output_norm;
    tern_status status = rows.recode == TERN_RECODE_INT6 ? tern_head_find_order(ld, t) : TERN_OK;
    rows.order = m->head.order;
    if (status == TERN_OK) status = tern_load_rows(ld, t, &rows, &m->head.w);
    if (status != TERN_OK) return status;
    describe(&m->head);
    return form == TERN_HEAD_SCREENED ? tern_head_screen_create(ld) : TERN_OK;
}

// ---- the exact form -----------------------------------------------------------------------------------------------------

typedef struct exact_args {
    const tern_pass *f;
    float *logits; // [count][n_vocab]
    size_t count, n_tiles;
} exact_args;

static void exact_tile(void *arg, size_t tile) {
    const exact_args *a = arg;
    const tern_model *m = a->f->m;
    const tern_block_type *type = m->head.exact;
    const size_t n = m->hyper.n_vocab, k = m->hyper.n_embd;
    const size_t begin = tern_line_cut(n, a->n_tiles, tile), end = tern_line_cut(n, a->n_tiles, tile + 1);
    tern_dot_args dot = {.y = a->logits + begin,
                         .ldy = n,
                         .x = m->buf.h,
                         .ldx = k,
                         .rows = m->head.rows + begin * tern_row_bytes(type, k),
                         .n = end - begin,
                         .m = a->count,
                         .k = k};
    if (type->id == TERN_GGML_F16) {
        TERN_KERNEL(a->f->kernels, dot_f16, TERN_LAYOUT_NONE)(&dot);
        return;
    }
    if (type->id == TERN_GGML_F32) {
        TERN_KERNEL(a->f->kernels, dot_f32, TERN_LAYOUT_NONE)(&dot);
        return;
    }
    float *row = m->buf.head_rows + tile * k;
    dot.rows = row;
    dot.n = 1;
    for (size_t i = begin; i < end; i++, dot.y++) {
        tern_row_to_f32(type, row, m->head.rows, i, n, k);
        TERN_KERNEL(a->f->kernels, dot_f32, TERN_LAYOUT_NONE)(&dot);
    }
}

static void add_exact(tern_pass *f, size_t count, tern_input input, float *logits) {
    const exact_args args = {f, logits, count, exact_tiles(f->m->ctx)};
    tern_rows_add(f, count, f->h->n_embd, input);
    tern_region_add(&f->region, "head", exact_tile, &args, sizeof args, args.n_tiles);
}

// ---- logits of the rows that want them ----------------------------------------------------------------------------------

typedef struct copy_args {
    float *to;
    const float *from;
    size_t count;
} copy_args;

static void copy_tile(void *arg, size_t tile) {
    (void)tile;
    const copy_args *c = arg;
    memcpy(c->to, c->from, c->count * sizeof *c->to);
}

static void copy(tern_pass *f, float *target, const float *from, size_t count) {
    const copy_args args = {target, from, count};
    tern_region_add(&f->region, "copy rows", copy_tile, &args, sizeof args, 1);
}

// Rows buf.x[0..count-1] to logits[count][n_vocab]. top: of one row, as in tern_row.
static void add_product(tern_pass *f, size_t count, size_t top, float *logits) {
    const tern_model *m = f->m;
    if (m->head.exact) {
        add_exact(f, count, tern_input_normed(f, m->buf.x, m->output_norm, m->buf.h), logits);
        return;
    }
    tern_input input = tern_input_normed(f, m->buf.x, m->head.norm, m->buf.h);
    input.row.order = m->head.order;
    if (count == 1 && tern_head_screen_add(f, input, top, logits)) return;
    const tern_product product = {.w = m->head.w, .y = logits, .ldy = f->h->n_vocab, .name = "head"};
    tern_linear_add(f, count, f->h->n_embd, input, &product, 1);
}

void tern_head_add(tern_pass *f) {
    const tern_model *m = f->m;
    const size_t d = f->h->n_embd, vocab = f->h->n_vocab;
    const tern_row *rows = m->buf.rows;
    tern_head_screen_learn(f);
    for (size_t t = 0; t < f->n;) {
        const tern_row *wanted[TERN_HEAD_ROWS];
        size_t count = 0;
        for (; t < f->n && count < TERN_HEAD_ROWS; t++)
            if (rows[t].logits) {
                if (count != t) copy(f, m->buf.x + count * d, m->buf.x + t * d, d); // count < t: rows before it are done with
                wanted[count++] = &rows[t];
            }
        if (count == 0) return;
        float *logits = count == 1 ? wanted[0]->logits : m->buf.logits;
        add_product(f, count, wanted[0]->top, logits);
        if (count > 1)
            for (size_t i = 0; i < count; i++) copy(f, wanted[i]->logits, logits + i * vocab, vocab);
    }
}
