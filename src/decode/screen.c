// SPDX-License-Identifier: MIT
// Marks, bounds and threshold of a screened head. screen.h has the proof.
#include "decode/screen.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "decode/principal.h"
#include "format/blocks.h"

enum {
    DIRECTIONS = TERN_SCREEN_DIRECTIONS,
    PANEL = TERN_I8S_PANEL,
    LANES = 8, // blocks of scales come in eights
    GROUP = TERN_SCREEN_GROUP,
    REFINED = TERN_SCREEN_TOP_MAX + GROUP, // rows that the threshold is taken from, at most
    ROWS_AT_ONCE = 256,
    MANY = 4, // more than 1 / MANY of the rows stay: plain products are cheaper
    TURN = 8, // tiles, of which the first FIRST are in the first part
    FIRST = 3,
    CODE_MAX = 127
};

// What a tile found: the rows whose logits look largest, by the middle of what they may be.
typedef struct candidates {
    float middle[REFINED];
    uint32_t rows[REFINED];
    size_t n, least; // least: the smallest of these
} candidates;

struct tern_screen {
    const tern_weights *w;
    size_t k, blocks; // blocks: of scales, a multiple of LANES
    bool learned, ready;
    // Directions: values[d * k] = codes[d * ld] * their scale, and what half products need of them.
    int8_t *codes;
    float *values, *scales, *shifts;
    float longest;         // of the directions' lengths
    atomic_uint most_norm; // of the rows' |e|: the upper half of its float32. Relaxed: tiles raise it, later stages read it
    size_t ld;
    uint8_t *marks;
    float *samples; // [TERN_SCREEN_SAMPLES][k]
    float *work;    // of principal.h
    size_t n_samples;
    // The token.
    const int8_t *x;
    const float *x_scales;
    const int32_t *x_sums;
    float *x_values, *half_scales, *half_shifts;
    int16_t along[DIRECTIONS];
    tern_screen_args bound;   // all that is the same for each tile
    size_t top, tiles, asked; // asked: candidates of each tile
    float threshold;
    bool given_up; // the token
    candidates found[TERN_SCREEN_TILES_MAX];
    uint64_t tokens, paused, tokens_given_up;
    uint64_t panels;                     // that bounds were made of
    uint64_t judged_tokens, judged_rows; // tokens and rows when the last token was judged
    unsigned pause, pause_left;          // tokens
    atomic_uint_fast64_t rows;           // relaxed adds: a counter, read between regions
    size_t memory_bytes;
    void *memory;
};

// ---- memory ---------------------------------------------------------------------------------------------------------

static void *carve(unsigned char *base, size_t *used, size_t bytes) {
    void *p = base ? base + *used : NULL;
    *used += tern_round_up(bytes, TERN_CACHE_LINE);
    return p;
}

static size_t carve_all(tern_screen *s, unsigned char *base) {
    const size_t f = sizeof(float);
    size_t used = 0;
    s->codes = carve(base, &used, DIRECTIONS * s->ld);
    s->values = carve(base, &used, DIRECTIONS * s->k * f);
    s->scales = carve(base, &used, DIRECTIONS * s->blocks * f);
    s->shifts = carve(base, &used, DIRECTIONS * s->blocks * f);
    s->marks = carve(base, &used, s->w->n_padded / GROUP * TERN_SCREEN_GROUP_BYTES);
    s->samples = carve(base, &used, TERN_SCREEN_SAMPLES * s->k * f);
    s->work = carve(base, &used, tern_principal_work(DIRECTIONS, TERN_SCREEN_SAMPLES) * f);
    s->x_values = carve(base, &used, s->k * f);
    s->half_scales = carve(base, &used, s->blocks * f);
    s->half_shifts = carve(base, &used, s->blocks * f);
    return used;
}

tern_screen *tern_screen_create(const tern_context *ctx, const tern_weights *w) {
    tern_screen *s = tern_alloc(&ctx->allocator, 1, sizeof *s);
    if (!s) return NULL;
    s->w = w;
    s->k = w->k;
    s->ld = tern_round_up(w->k, TERN_X_ALIGN);
    s->blocks = tern_round_up(tern_i8s_supers(w->k) * TERN_I8S_SUPER_K / TERN_I8S_BLOCK, LANES);
    s->memory_bytes = carve_all(s, NULL);
    s->memory = tern_alloc(&ctx->allocator, s->memory_bytes, 1);
    if (!s->memory) {
        tern_screen_destroy(s, &ctx->allocator);
        return NULL;
    }
    memset(s->memory, 0, s->memory_bytes);
    (void)carve_all(s, s->memory);
    atomic_init(&s->rows, 0);
    atomic_init(&s->most_norm, 0);
    return s;
}

void tern_screen_destroy(tern_screen *s, const tern_allocator *allocator) {
    if (!s) return;
    tern_free(allocator, s->memory, s->memory_bytes, 1);
    tern_free(allocator, s, 1, sizeof *s);
}

// ---- directions -------------------------------------------------------------------------------------------------------

size_t tern_screen_wanted(const tern_screen *s) { return TERN_SCREEN_SAMPLES - s->n_samples; }
bool tern_screen_learns(const tern_screen *s, size_t more) {
    const size_t n = s->n_samples + more;
    return (s->n_samples < TERN_SCREEN_FIRST && n >= TERN_SCREEN_FIRST) || (more > 0 && n == TERN_SCREEN_SAMPLES);
}
float *tern_screen_sample(tern_screen *s) { return s->samples + s->n_samples * s->k; }
void tern_screen_add_sample(tern_screen *s) { s->n_samples++; }

static double length_of(const float *x, size_t n) { return sqrt(tern_principal_dot(x, x, n)); }

// Direction d as codes; its values become what these are worth.
static void set_direction(tern_screen *s, const tern_kernels *kernels, size_t d) {
    static const float low_zero = 7.5F;
    float *values = s->values + d * s->k, scale;
    int8_t *codes = s->codes + d * s->ld;
    int32_t sum;
    (void)TERN_KERNEL(kernels, quantize, TERN_LAYOUT_NONE)(codes, &scale, &sum, values, s->k, s->ld, 0);
    for (size_t j = 0; j < s->k; j++) values[j] = (float)codes[j] * scale;
    const float length = (float)length_of(values, s->k);
    if (length > s->longest) s->longest = length;
    for (size_t b = 0; b < s->blocks; b++) {
        int32_t block_sum = 0;
        for (size_t j = b * TERN_I8S_BLOCK; j < (b + 1) * TERN_I8S_BLOCK && j < s->k; j++) block_sum += codes[j];
        const bool there = b * TERN_I8S_BLOCK < s->k;
        s->scales[d * s->blocks + b] = there ? scale : 0;
        s->shifts[d * s->blocks + b] = there ? -low_zero * (float)block_sum : 0;
    }
}

bool tern_screen_find_directions(tern_screen *s, const tern_kernels *kernels) {
    for (size_t i = 0; i < s->n_samples * s->k; i++)
        if (!isfinite(s->samples[i])) {
            s->n_samples = 0;
            return false;
        }
    s->ready = false; // the marks are of other directions
    atomic_store_explicit(&s->most_norm, 0, memory_order_relaxed);
    tern_principal_directions(kernels, s->values, DIRECTIONS, s->samples, s->n_samples, s->k, s->work);
    s->longest = 0;
    for (size_t d = 0; d < DIRECTIONS; d++) set_direction(s, kernels, d);
    s->learned = true;
    return true;
}

// The upper half of the smallest such float32 that is not below v >= 0.
static uint16_t upper_half(double v) {
    enum { UPPER = 16 };
    static const double most = 0x1p127;
    const float f = v < most ? (float)v * (1 + 0x1p-22F) + 0x1p-140F : INFINITY; // above v, whatever its rounding; NaN too
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (bits << UPPER && isfinite(f)) bits += 1U << UPPER;
    return (uint16_t)(bits >> UPPER);
}

static float widen(uint16_t upper) {
    enum { UPPER = 16 };
    const uint32_t bits = (uint32_t)upper << UPPER;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

// |e| of a row.
static double rest_length(const tern_screen *s, size_t row) {
    enum { NIBBLE = 4, LOW = 15 };
    static const double quarter = 0.25;
    const uint8_t *upper = s->w->packed + tern_i8s_upper_at(row, s->k), *low = s->w->packed + tern_i8s_lower_at(row, s->k);
    double sum = 0;
    for (size_t b = 0; b * TERN_I8S_BLOCK < s->k; b++) {
        const uint8_t *nibbles = low + b / 2 * TERN_I8S_CODES;
        const unsigned shift = b % 2 ? NIBBLE : 0;
        const size_t left = s->k - b * TERN_I8S_BLOCK, n = left < TERN_I8S_BLOCK ? left : TERN_I8S_BLOCK;
        int32_t squares = 0; // of 2 l - 15
        for (size_t j = 0; j < n; j++) {
            const int32_t twice = 2 * (int32_t)(nibbles[j] >> shift & LOW) - LOW;
            squares += twice * twice;
        }
        uint16_t half;
        memcpy(&half, upper + b * sizeof half, sizeof half);
        const double scale = (double)tern_f16_to_f32(half);
        sum += scale * scale * quarter * (double)squares;
    }
    return sqrt(sum);
}

// Its |e|, as marked.
static uint16_t mark_row(tern_screen *s, size_t row, const float p[DIRECTIONS]) {
    uint8_t *group = s->marks + row / GROUP * TERN_SCREEN_GROUP_BYTES;
    int8_t *codes = (int8_t *)group + row % GROUP * DIRECTIONS;
    double most = 0;
    for (size_t d = 0; d < DIRECTIONS; d++) most = fabs((double)p[d]) <= most ? most : fabs((double)p[d]); // NaN stays
    const uint16_t step = upper_half(most / CODE_MAX), norm = upper_half(rest_length(s, row));
    const double value = (double)widen(step);
    for (size_t d = 0; d < DIRECTIONS; d++) {
        const double code = isfinite(value) ? rint((double)p[d] / value) : 0; // |code| <= 127
        codes[d] = (int8_t)code;
    }
    memcpy(group + TERN_SCREEN_STEPS + row % GROUP * sizeof step, &step, sizeof step);
    memcpy(group + TERN_SCREEN_NORMS + row % GROUP * sizeof norm, &norm, sizeof norm);
    return norm;
}

void tern_screen_set_ready(tern_screen *s) { s->ready = s->learned; }

void tern_screen_mark(tern_screen *s, const tern_kernels *kernels, size_t first, size_t end) {
    float y[PANEL][DIRECTIONS];
    tern_screen_project_args args = {.y = y[0], .n = PANEL, .k = s->k};
    for (size_t d = 0; d < DIRECTIONS; d++)
        args.directions[d] = (tern_half_token){s->codes + d * s->ld, s->scales + d * s->blocks, s->shifts + d * s->blocks};
    unsigned most = 0; // halves of floats that are not negative are in their order
    for (size_t panel = first; panel < end; panel++) {
        args.packed = s->w->packed + panel * tern_i8s_panel_bytes(s->k);
        TERN_KERNEL(kernels, screen_project, TERN_LAYOUT_I8S32)(&args);
        for (size_t i = 0; i < PANEL; i++) {
            const unsigned norm = mark_row(s, panel * PANEL + i, y[i]);
            if (norm > most) most = norm;
        }
    }
    unsigned before = atomic_load_explicit(&s->most_norm, memory_order_relaxed);
    while (before < most &&
           !atomic_compare_exchange_weak_explicit(&s->most_norm, &before, most, memory_order_relaxed, memory_order_relaxed))
        continue;
}

// ---- whether it pays ------------------------------------------------------------------------------------------------------

bool tern_screen_pays(tern_screen *s) {
    enum { PAUSE_MAX = 64 };
    if (!s->ready) return false;
    const uint64_t rows = atomic_load_explicit(&s->rows, memory_order_relaxed);
    if (s->tokens > s->judged_tokens) {
        const bool many = rows - s->judged_rows > s->w->n / MANY * (s->tokens - s->judged_tokens);
        s->pause = !many ? 0 : s->pause == 0 ? 1 : s->pause < PAUSE_MAX ? 2 * s->pause : PAUSE_MAX;
        s->pause_left = s->pause;
        s->judged_tokens = s->tokens;
        s->judged_rows = rows;
    }
    if (s->pause_left == 0) return true;
    s->pause_left--;
    s->paused++;
    return false;
}

// ---- a token ------------------------------------------------------------------------------------------------------------

// The coefficients as codes: any are right, and |r| is that of these.
static void set_along(tern_screen *s, const float along[DIRECTIONS]) {
    float most = 0;
    for (size_t d = 0; d < DIRECTIONS; d++) most = fmaxf(most, fabsf(along[d]));
    const float scale = most / INT16_MAX;
    const bool usable = isfinite(most) && scale >= FLT_MIN;
    for (size_t d = 0; d < DIRECTIONS; d++)
        s->along[d] = usable ? (int16_t)rintf(fmaxf(-INT16_MAX, fminf(along[d] / scale, INT16_MAX))) : 0;
    s->bound.along_scale = usable ? scale : 0;
    s->bound.along = s->along;
}

// rest, spread and least of the bound, for along = a and x = x_values.
static void set_slack(tern_screen *s) {
    static const double unit = 0x1p-24, high_terms = 2 * 16 * (15 + 7.53125), all_terms = 2 * 128, low_terms = 2 * (15 + 7.5);
    static const double vectors = 0x1p-18;  // roundings of |r|, of its elements and of a_d u_d: 40 of them
    static const double more = 1 + 0x1p-10; // squares of roundings, and those of this function
    static const double limit = 0x1p126;
    static const float tiny = 0x1p-90F;
    const size_t k = s->k;
    float *x = s->x_values;
    const double length = length_of(x, k);
    double spread = 0;
    for (size_t d = 0; d < DIRECTIONS; d++) {
        const float *u = s->values + d * k, a = (float)s->along[d] * s->bound.along_scale;
        spread += fabs((double)a);
        for (size_t j = 0; j < k; j++) x[j] -= a * u[j];
    }
    enum { ROUNDINGS = 32 }; // of a term beside those of its blocks: lanes, projections, sums of lanes and of bounds
    const double roundings = ((double)s->blocks + ROUNDINGS) * unit;
    const double rest = length_of(x, k) + (vectors + roundings * (high_terms + all_terms)) * length +
                        (vectors + roundings * low_terms) * spread * (double)s->longest;
    const double most_norm = (double)widen((uint16_t)atomic_load_explicit(&s->most_norm, memory_order_relaxed));
    // Half as many terms again as any sum here has: those below this cannot overflow on their way.
    const bool safe = 2 * (high_terms + all_terms) * most_norm * length < limit;
    s->bound.rest = safe ? (float)(rest * more) : INFINITY;
    s->bound.spread = (float)(spread / 2 * more);
    s->bound.least = tiny;
}

void tern_screen_begin(tern_screen *s, const tern_kernels *kernels, const tern_act_view *view, size_t top, size_t tiles) {
    static const float high = 16, high_zero = 7.53125F; // 241/32
    const size_t k = s->k;
    s->x = view->q;
    s->x_scales = view->scales;
    s->x_sums = view->sums;
    for (size_t b = 0; b < s->blocks; b++) {
        const bool there = b * TERN_I8S_BLOCK < k;
        s->half_scales[b] = there ? high * view->scales[b] : 0;
        s->half_shifts[b] = there ? -high_zero * (float)view->sums[b] : 0; // a multiple of 2^-5
    }
    for (size_t j = 0; j < k; j++) s->x_values[j] = (float)view->q[j] * view->scales[j / TERN_I8S_BLOCK];
    float along[DIRECTIONS];
    const tern_dot_args dot = {
        .y = along, .ldy = DIRECTIONS, .x = s->x_values, .ldx = k, .rows = s->values, .n = DIRECTIONS, .m = 1, .k = k};
    TERN_KERNEL(kernels, dot_f32, TERN_LAYOUT_NONE)(&dot);
    set_along(s, along);
    set_slack(s);
    s->bound.token = (tern_half_token){view->q, s->half_scales, s->half_shifts};
    s->bound.n = PANEL;
    s->bound.k = k;
    s->top = top;
    s->tiles = tiles;
    s->asked = tern_round_up(top, GROUP); // as many as are computed at once
    s->given_up = false;
    for (size_t tile = 0; tile < tiles; tile++) s->found[tile].n = 0;
}

size_t tern_screen_part_tiles(size_t tiles, tern_screen_part part) {
    const size_t over = tiles % TURN, first = tiles / TURN * FIRST + (over < FIRST ? over : FIRST);
    return part == TERN_SCREEN_FIRST_PART ? first : tiles - first;
}

static size_t tile_of(tern_screen_part part, size_t i) {
    enum { OTHERS = TURN - FIRST };
    return part == TERN_SCREEN_FIRST_PART ? i / FIRST * TURN + i % FIRST : i / OTHERS * TURN + FIRST + i % OTHERS;
}

typedef struct span {
    size_t first, end;
} span;
static span panels_of(const tern_screen *s, size_t tile) {
    const size_t panels = s->w->n_padded / PANEL;
    return (span){tern_line_cut(panels, s->tiles, tile), tern_line_cut(panels, s->tiles, tile + 1)};
}
static span rows_of(const tern_screen *s, size_t tile) {
    const span panels = panels_of(s, tile);
    return (span){panels.first * PANEL, panels.end * PANEL < s->w->n ? panels.end * PANEL : s->w->n};
}

static void set_least(candidates *c) {
    c->least = 0;
    for (size_t i = 1; i < c->n; i++)
        if (c->middle[i] < c->middle[c->least]) c->least = i;
}

static void consider(candidates *c, size_t asked, float middle, size_t row) {
    if (c->n == asked && !(middle > c->middle[c->least])) return;
    if (isnan(middle)) return;
    const size_t at = c->n < asked ? c->n++ : c->least;
    c->middle[at] = middle;
    c->rows[at] = (uint32_t)row;
    set_least(c);
}

// Whether a row of n is a candidate; without branches, as hardly any is.
static bool some_enter(const candidates *c, size_t asked, const float *middle, size_t n) {
    if (c->n < asked) return true;
    const float least = c->middle[c->least];
    int some = 0;
    for (size_t i = 0; i < n; i++) some |= middle[i] > least;
    return some;
}

void tern_screen_bound(tern_screen *s, const tern_kernels *kernels, float *y, tern_screen_part part, size_t i) {
    const size_t tile = tile_of(part, i);
    const span panels = panels_of(s, tile), rows = rows_of(s, tile);
    if (s->given_up) { // bounds as well, and no row is below the threshold
        for (size_t row = rows.first; row < rows.end; row++) y[row] = INFINITY;
        return;
    }
    candidates *found = &s->found[tile];
    for (size_t panel = panels.first; panel < panels.end; panel++) {
        float bounds[PANEL], middle[PANEL];
        tern_screen_args args = s->bound;
        args.middle = middle;
        args.upper = bounds;
        args.packed = s->w->packed + panel * tern_i8s_panel_bytes(s->k);
        args.marks = s->marks + panel * (PANEL / GROUP) * TERN_SCREEN_GROUP_BYTES;
        TERN_KERNEL(kernels, screen, TERN_LAYOUT_I8S32)(&args);
        const size_t row0 = panel * PANEL, kept = rows.end - row0 < PANEL ? rows.end - row0 : PANEL;
        memcpy(y + row0, bounds, kept * sizeof *y);
        if (!some_enter(found, s->asked, middle, kept)) continue;
        for (size_t r = 0; r < kept; r++) consider(found, s->asked, middle[r], row0 + r);
    }
}

static void compute_rows(const tern_screen *s, const tern_kernels *kernels, float *y, const uint32_t *rows, size_t n) {
    const tern_screen_rows_args args = {.y = y,
                                        .packed = s->w->packed,
                                        .rows = rows,
                                        .n = n,
                                        .k = s->k,
                                        .x = s->x,
                                        .x_scales = s->x_scales,
                                        .x_sums = s->x_sums};
    if (n) TERN_KERNEL(kernels, screen_rows, TERN_LAYOUT_I8S32)(&args);
}

// The top-th largest of n numbers, which change their places; -INFINITY with a NaN among them.
static float top_of(float *y, size_t n, size_t top) {
    assert(0 < top && top <= n);
    for (size_t i = 0; i < n; i++)
        if (isnan(y[i])) return -INFINITY;
    for (size_t i = 0; i < top; i++) {
        size_t best = i;
        for (size_t j = i + 1; j < n; j++)
            if (y[j] > y[best]) best = j;
        const float swap = y[i];
        y[i] = y[best];
        y[best] = swap;
    }
    return y[top - 1];
}

// Whether too many rows of the first part stay.
static bool too_many_stay(const tern_screen *s, const float *y) {
    size_t rows = 0, stay = 0;
    for (size_t i = 0; i < tern_screen_part_tiles(s->tiles, TERN_SCREEN_FIRST_PART); i++) {
        const span tile = rows_of(s, tile_of(TERN_SCREEN_FIRST_PART, i));
        for (size_t row = tile.first; row < tile.end; row++) stay += !(y[row] < s->threshold);
        rows += tile.end - tile.first;
    }
    return stay > rows / MANY;
}

void tern_screen_decide(tern_screen *s, const tern_kernels *kernels, const float *y, tern_screen_part part) {
    if (s->given_up) return; // the threshold of the first part is one of all rows, too
    for (size_t i = 0; i < tern_screen_part_tiles(s->tiles, part); i++) {
        const span panels = panels_of(s, tile_of(part, i));
        s->panels += panels.end - panels.first;
    }
    candidates all = {.n = 0};
    for (size_t tile = 0; tile < s->tiles; tile++)
        for (size_t i = 0; i < s->found[tile].n; i++)
            consider(&all, s->asked, s->found[tile].middle[i], s->found[tile].rows[i]);
    float logits[REFINED];
    compute_rows(s, kernels, logits, all.rows, all.n);
    s->threshold = all.n < s->top ? -INFINITY : top_of(logits, all.n, s->top);
    (void)atomic_fetch_add_explicit(&s->rows, all.n, memory_order_relaxed);
    if (part == TERN_SCREEN_FIRST_PART) {
        s->tokens++;
        s->given_up = too_many_stay(s, y);
        s->tokens_given_up += s->given_up;
    }
}

static void compute_survivors(const tern_screen *s, const tern_kernels *kernels, float *y, const uint32_t *rows, size_t n) {
    float logits[ROWS_AT_ONCE + PANEL];
    compute_rows(s, kernels, logits, rows, n);
    for (size_t i = 0; i < n; i++) y[rows[i]] = logits[i];
}

// Rows that stay, of up to PANEL from row0 on; the others become -INFINITY.
static size_t drop_rows(float *y, size_t row0, size_t n, float threshold, uint32_t *rows) {
    int some = 0; // without branches, as in most panels none stays
    for (size_t i = 0; i < n; i++) some |= !(y[row0 + i] < threshold);
    size_t stay = 0;
    for (size_t i = row0; i < row0 + n; i++) {
        if (some && !(y[i] < threshold)) // a NaN stays
            rows[stay++] = (uint32_t)i;
        else
            y[i] = -INFINITY;
    }
    return stay;
}

void tern_screen_finish(tern_screen *s, const tern_kernels *kernels, float *y, size_t tile) {
    const span all = rows_of(s, tile);
    uint32_t rows[ROWS_AT_ONCE + PANEL];
    size_t waiting = 0, survivors = 0;
    for (size_t row0 = all.first; row0 < all.end; row0 += PANEL) {
        const size_t left = all.end - row0;
        waiting += drop_rows(y, row0, left < PANEL ? left : PANEL, s->threshold, rows + waiting);
        if (waiting < ROWS_AT_ONCE) continue;
        compute_survivors(s, kernels, y, rows, waiting);
        survivors += waiting;
        waiting = 0;
    }
    compute_survivors(s, kernels, y, rows, waiting);
    // relaxed: a counter, read between regions
    (void)atomic_fetch_add_explicit(&s->rows, survivors + waiting, memory_order_relaxed);
}

// ---- facts --------------------------------------------------------------------------------------------------------------

tern_screen_counts tern_screen_count(const tern_screen *s) {
    const size_t panel = PANEL * tern_i8s_upper_bytes(s->k) + PANEL / GROUP * TERN_SCREEN_GROUP_BYTES;
    const size_t row = tern_i8s_upper_bytes(s->k) + tern_i8s_lower_bytes(s->k);
    const uint64_t rows = atomic_load_explicit(&s->rows, memory_order_relaxed);
    return (tern_screen_counts){s->tokens, rows, s->panels * panel + rows * row, s->tokens_given_up, s->paused};
}
