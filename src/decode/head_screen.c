// SPDX-License-Identifier: MIT
// A screened head in the forward pass: learning from the first hidden states, then bounds, threshold and the rows that stay.
#include "decode/head_screen.h"

#include "decode/screen.h"

tern_status tern_head_screen_create(tern_loader *ld) {
    tern_head *head = &ld->m->head;
    if (head->w->layout != TERN_LAYOUT_I8S32) return TERN_OK; // a block per row: too short to be worth it
    head->screen = tern_screen_create(ld->ctx, head->w);
    return head->screen ? TERN_OK : tern_fail(&ld->ctx->error, TERN_ERR_MEMORY, "out of memory for the screened head");
}

typedef struct screen_args {
    const tern_pass *f;
    tern_screen *screen;
    size_t n_tiles;
} screen_args;

// ---- learning -------------------------------------------------------------------------------------------------------

typedef struct sample_args {
    const tern_pass *f;
    tern_screen *screen;
    size_t n_samples;
} sample_args;

// Evenly among the rows of the pass.
static void sample_tile(void *arg, size_t tile) {
    (void)tile;
    const sample_args *a = arg;
    const tern_model *m = a->f->m;
    const size_t k = a->f->h->n_embd;
    for (size_t i = 0; i < a->n_samples; i++) {
        const float *x = m->buf.x + i * a->f->n / a->n_samples * k;
        TERN_KERNEL(a->f->kernels, rmsnorm, TERN_LAYOUT_NONE)
        (tern_screen_sample(a->screen), x, m->output_norm, k, a->f->h->rms_eps);
        tern_screen_add_sample(a->screen);
    }
}

static void directions_tile(void *arg, size_t tile) {
    (void)tile;
    const screen_args *a = arg;
    tern_screen_find_directions(a->screen, a->f->kernels);
}

static void marks_tile(void *arg, size_t tile) {
    const screen_args *a = arg;
    const size_t panels = a->f->m->head.w->n_units;
    tern_screen_mark(a->screen, a->f->kernels, tern_line_cut(panels, a->n_tiles, tile),
                     tern_line_cut(panels, a->n_tiles, tile + 1));
}

static void ready_tile(void *arg, size_t tile) {
    (void)tile;
    tern_screen_set_ready(((const screen_args *)arg)->screen);
}

static size_t tiles_of(const tern_pass *f, size_t per_worker) {
    const size_t panels = f->m->head.w->n_units, tiles = per_worker * (size_t)f->m->ctx->threads;
    const size_t most = panels < TERN_SCREEN_TILES_MAX ? panels : TERN_SCREEN_TILES_MAX;
    return tiles < most ? tiles : most;
}

void tern_head_screen_learn(tern_pass *f) {
    enum { MARK_TILES_PER_WORKER = 16 };
    tern_screen *screen = f->m->head.screen;
    if (!screen) return;
    const size_t wanted = tern_screen_wanted(screen);
    if (wanted == 0) return;
    const sample_args sample = {f, screen, wanted < f->n ? wanted : f->n};
    tern_region_add(&f->region, "head: sample", sample_tile, &sample, sizeof sample, 1);
    if (!tern_screen_learns(screen, sample.n_samples)) return;
    const screen_args args = {f, screen, tiles_of(f, MARK_TILES_PER_WORKER)};
    tern_region_add(&f->region, "head: directions", directions_tile, &args, sizeof args, 1);
    tern_region_add(&f->region, "head: marks", marks_tile, &args, sizeof args, args.n_tiles);
    tern_region_add(&f->region, "head: ready", ready_tile, &args, sizeof args, 1);
}

// ---- a token ----------------------------------------------------------------------------------------------------------

typedef struct token_args {
    const tern_kernels *kernels;
    tern_screen *screen;
    tern_act_view view;
    float *logits;
    size_t top, n_tiles;
} token_args;

static void begin_tile(void *arg, size_t tile) {
    (void)tile;
    const token_args *a = arg;
    tern_screen_begin(a->screen, a->kernels, &a->view, a->top, a->n_tiles);
}

static void first_bound_tile(void *arg, size_t tile) {
    const token_args *a = arg;
    tern_screen_bound(a->screen, a->kernels, a->logits, TERN_SCREEN_FIRST_PART, tile);
}

static void first_decide_tile(void *arg, size_t tile) {
    (void)tile;
    const token_args *a = arg;
    tern_screen_decide(a->screen, a->kernels, a->logits, TERN_SCREEN_FIRST_PART);
}

static void bound_tile(void *arg, size_t tile) {
    const token_args *a = arg;
    tern_screen_bound(a->screen, a->kernels, a->logits, TERN_SCREEN_REST, tile);
}

static void decide_tile(void *arg, size_t tile) {
    (void)tile;
    const token_args *a = arg;
    tern_screen_decide(a->screen, a->kernels, a->logits, TERN_SCREEN_REST);
}

static void finish_tile(void *arg, size_t tile) {
    const token_args *a = arg;
    tern_screen_finish(a->screen, a->kernels, a->logits, tile);
}

bool tern_head_screen_add(tern_pass *f, tern_input input, size_t top, float *logits) {
    enum { TILES_PER_WORKER = 8 };
    tern_screen *screen = f->m->head.screen;
    if (!screen || top == 0 || top > TERN_SCREEN_TOP_MAX || !tern_screen_pays(screen)) return false;
    token_args args = {f->kernels, screen, {0}, logits, top, tiles_of(f, TILES_PER_WORKER)};
    args.view = tern_input_add(f, 1, f->h->n_embd, input, tern_weights_act_block(f->m->head.w));
    tern_region_add(&f->region, "head: token", begin_tile, &args, sizeof args, 1);
    const size_t first = tern_screen_part_tiles(args.n_tiles, TERN_SCREEN_FIRST_PART), rest = args.n_tiles - first;
    tern_region_add(&f->region, "head: first bounds", first_bound_tile, &args, sizeof args, first);
    tern_region_add(&f->region, "head: first threshold", first_decide_tile, &args, sizeof args, 1);
    tern_region_add(&f->region, "head: bounds", bound_tile, &args, sizeof args, rest);
    tern_region_add(&f->region, "head: threshold", decide_tile, &args, sizeof args, 1);
    tern_region_add(&f->region, "head: rows", finish_tile, &args, sizeof args, args.n_tiles);
    return true;
}
