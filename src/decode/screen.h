// SPDX-License-Identifier: MIT
// A screened head: which rows of an INT8 head may hold one of the k largest logits, from the high nibbles of its codes alone.
//
// A code is c = 16 (h - 241/32) + (l - 15/2) with its nibbles h and l, exactly. So with the scales dw of a row and the
// activations x = da q of a token, in real numbers,
//
//     logit = sum dw 16 (h - 241/32) x  +  e.x      with the row's e = dw (l - 15/2)
//
// The first sum reads the high nibbles. Of the second, let u_d be any 16 vectors, a_d any numbers, r = x - sum a_d u_d:
//
//     e.x = sum a_d (e.u_d) + e.r,                  |e.r| <= |e| |r|   (Cauchy and Schwarz)
//
// The row's marks hold |e|, rounded up, and p_d = e.u_d as codes of 8 bits times a step, so that |p_d - e.u_d| <= step / 2. So
//
//     logit <= sum dw 16 (h - 241/32) x + sum a_d p_d + |e| |r| + step sum |a_d| / 2
//
// which holds for every choice of u and a: they only decide how close it is. Hidden states of a model lie near few directions,
// so u are the principal ones of the states it met first, and a = u.x.
//
// Rounding. Each |l - 15/2| is at least 1/2, so |e| >= S / 2 with S^2 = sum of dw^2 over the k of the row; and a sum of terms
// dw v x with |v| <= V has absolute terms of at most V S |x| <= 2 V |e| |x|, in any order and any grouping. With n roundings on
// the way of each term, the sum of high nibbles is off by at most n u 2 * 16 (15 + 241/32) |e| |x|, the logit itself, which the
// INT8 head sums in float32 as well, by n u 2 * 128 |e| |x|, a projection by n u 2 (15 + 15/2) |e| |u_d|, u = 2^-24; all this
// is added to |r|. Products below 2^-126 lose 2^-149 and 2^19 times that in a block: TINY covers it. Where a sum might
// overflow, the bounds are infinite. What is infinite or NaN is never below a threshold, so its row stays.
//
// The k-th largest of some exact logits is the threshold t: a row whose bound is below t is below k others. What stays is
// computed from all its bits, and is what the INT8 head gives, to the last one.
#ifndef TERN_DECODE_SCREEN_H
#define TERN_DECODE_SCREEN_H

#include "matmul/activations.h"

enum {
    TERN_SCREEN_TOP_MAX = 64,  // larger k: all logits
    TERN_SCREEN_FIRST = 64,    // hidden states from which directions are found first,
    TERN_SCREEN_SAMPLES = 256, // and better ones
    TERN_SCREEN_TILES_MAX = 256
};

typedef struct tern_screen tern_screen;

// Not thread-safe but where it says so; for one token at a time. w: a weight in the layout I8S32, which outlives it. All memory
// is allocated and touched here.
tern_screen *tern_screen_create(const tern_context *ctx, const tern_weights *w);
void tern_screen_destroy(tern_screen *s, const tern_allocator *allocator);

// ---- directions: twice --------------------------------------------------------------------------------------------

// Samples that are still wanted; 0: all are there.
size_t tern_screen_wanted(const tern_screen *s);
// Where the next sample of k floats is put, and that it was.
float *tern_screen_sample(tern_screen *s);
void tern_screen_add_sample(tern_screen *s);
// Whether so many more samples are enough to find directions, first or better ones.
bool tern_screen_learns(const tern_screen *s, size_t more);
// The directions of the samples that are there. False, and the samples are forgotten: some were not finite.
// Directions found before stay then.
bool tern_screen_find_directions(tern_screen *s, const tern_kernels *kernels);
// Then the marks of panels first .. end - 1, from any thread; and when all have them, that they are there.
void tern_screen_mark(tern_screen *s, const tern_kernels *kernels, size_t first, size_t end);
void tern_screen_set_ready(tern_screen *s);

// ---- a token, in this order -------------------------------------------------------------------------------------------

// Before each token: whether to screen it. False without marks, and for one token, then 2, 4, .. 64 after each that had to
// compute more than a quarter of its rows: plain products are cheaper then.
bool tern_screen_pays(tern_screen *s);
// Row 0 of the view is the token; top: 1 .. TERN_SCREEN_TOP_MAX logits are asked for; tiles: into which the panels are cut by
// tern_line_cut, at most TERN_SCREEN_TILES_MAX.
void tern_screen_begin(tern_screen *s, const tern_kernels *kernels, const tern_act_view *view, size_t top, size_t tiles);

// Bounds are made in two parts, so that a token is given up early in which too many rows stay: of each 8 tiles 3 are the first
// part, for whose rows alone there is a threshold then, lower than that of all. Where more than a quarter of them stay, the
// rest gets no bounds, and all its rows are computed.
typedef enum tern_screen_part { TERN_SCREEN_FIRST_PART, TERN_SCREEN_REST, TERN_SCREEN_PARTS } tern_screen_part;
// Tiles of a part of so many.
size_t tern_screen_part_tiles(size_t tiles, tern_screen_part part);
// Bounds of the rows of tile i of the part, into y[n]. From any thread.
void tern_screen_bound(tern_screen *s, const tern_kernels *kernels, float *y, tern_screen_part part, size_t i);
// After each part: the threshold, from a few exact logits; and after the first whether to give up.
void tern_screen_decide(tern_screen *s, const tern_kernels *kernels, const float *y, tern_screen_part part);
// Of all tiles: bounds below the threshold become -INFINITY, the others logits. From any thread.
void tern_screen_finish(tern_screen *s, const tern_kernels *kernels, float *y, size_t tile);

// ---- facts --------------------------------------------------------------------------------------------------------------

typedef struct tern_screen_counts {
    uint64_t tokens, rows; // screened tokens, and rows of theirs that were computed from all bits
    uint64_t bytes;        // that these tokens read
    uint64_t given_up;     // of the screened tokens
    uint64_t paused;       // tokens for which tern_screen_pays said no
} tern_screen_counts;
tern_screen_counts tern_screen_count(const tern_screen *s);

#endif
