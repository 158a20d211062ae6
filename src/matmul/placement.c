// SPDX-License-Identifier: MIT
// From shares of units to ranges of bytes to pages of a node.
#include "matmul/placement.h"

// Codes of the units before `unit` in a slice end here.
static uint8_t *codes_at(const tern_weights *w, size_t slice, size_t unit) {
    if (unit < w->n_units) return tern_unit_codes(w, slice, unit);
    return tern_unit_codes(w, slice, 0) + w->traits->bytes(w->n_padded, tern_slice_depth(w, slice));
}

void tern_placement_each(const tern_weights *w, const tern_sharing *sharing, const tern_worker_place *workers,
                         tern_node_range_fn *fn, void *user) {
    for (size_t slice = 0; slice < w->n_slices; slice++) {
        for (size_t i = 0, end; i < sharing->n; i = end) {
            for (end = i + 1; end < sharing->n && workers[end].node == workers[i].node;) end++;
            uint8_t *first = codes_at(w, slice, tern_sharing_first(sharing, w->n_units, i));
            const uint8_t *last = codes_at(w, slice, tern_sharing_first(sharing, w->n_units, end));
            if (last > first) fn(user, (tern_node_range){first, (size_t)(last - first), workers[i].node});
        }
    }
}

// A page belongs to one node, and a huge page is split where two nodes meet in it. Long ranges therefore meet at the nearest
// huge page: at most an eighth of them is then remote. Short ones meet where they meet: a remote line costs more than a small
// page.
enum { HUGE_PAGE = 2 << 20, LONG_RANGE = 4 * HUGE_PAGE };

typedef struct binding {
    const tern_context *ctx;
    const tern_weights *w;
} binding;

// Offset of the nearest huge page's start, within the weight.
static size_t nearest_huge_page(const tern_weights *w, size_t at) {
    if (at == 0 || at == w->packed_bytes) return at;
    const size_t past = ((uintptr_t)w->packed + at) % HUGE_PAGE;
    if (past < HUGE_PAGE / 2) return past < at ? at - past : 0;
    return at + (HUGE_PAGE - past) < w->packed_bytes ? at + (HUGE_PAGE - past) : w->packed_bytes;
}

static void bind(void *user, tern_node_range range) {
    const binding *b = user;
    size_t first = (size_t)(range.first - b->w->packed), last = first + range.bytes;
    if (range.bytes >= LONG_RANGE) {
        first = nearest_huge_page(b->w, first);
        last = nearest_huge_page(b->w, last);
    }
    // A wish: what cannot be bound lies where it is first touched, which is the same node where packing is undisturbed.
    (void)tern_numa_bind(b->ctx->numa, b->w->packed + first, last - first, range.node);
}

void tern_placement_bind(const tern_context *ctx, const tern_weights *w) {
    if (!ctx->numa || !ctx->pool) return; // one node, or threads of the caller, of which nothing is known
    const tern_sharing sharing = tern_context_sharing(ctx);
    binding b = {ctx, w};
    tern_placement_each(w, &sharing, ctx->placement.workers, bind, &b);
}
