// SPDX-License-Identifier: MIT
// Multiply-add product of M2 with AVX2: 16 features x 1..6 tokens in registers; the codes of a panel are decoded once per
// K-chunk.
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "compiler.h"
#include "kernels.h"

enum {
    HALF = 8,                       // features of a vector: 32 bytes of a group
    HALF_BYTES = 32,                //
    LANE = 4,                       // consecutive k of a feature in a 32-bit lane
    PARTS = TERN_M2_GROUP_K / LANE, // codes in a byte
    PREFETCH = 2048                 // Zen 3, from DRAM: 512 and 8192 are slower by a tenth, none at all by a quarter
};

static inline __m256i load(const void *p) { return _mm256_load_si256((const __m256i *)p); }
static inline void store(void *p, __m256i v) { _mm256_store_si256((__m256i *)p, v); }
// Every 32-bit lane holds the four activations at p.
static inline __m256i load_lane(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}
// Minus the sum of the activations of token t, in every lane: codes are t + 1.
static inline __m256i minus_x_sum(const tern_gemm_args *args, size_t t) {
    return _mm256_set1_epi32(-args->x_sums[t * args->ld_x_sums]);
}
// *sum += the dot products of `codes` (unsigned) and `four` (signed), pairs of k as int16. The addition is asm, because both
// gcc and clang regroup additions that they see, and then run out of registers for the sums.
static inline void add_dots(__m256i *sum, __m256i codes, __m256i four) {
    const __m256i dots = _mm256_maddubs_epi16(codes, four);
    __asm__ volatile("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(dots));
}
// total + the int16 pairs of sum.
static inline __m256i widen(__m256i total, __m256i sum) {
    return _mm256_add_epi32(total, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}

// ---- one or two tokens ------------------------------------------------------------------------------------------------
// Two of the four parts of a byte are masked where they lie and so scaled by 4: five operations decode a vector instead of
// seven. Two panels are taken together, as two forward streams come from DRAM faster than one; with one token they also share
// the broadcast activations, with two there are no registers left for that, and the panels take turns.

enum {
    // A scaled pair is 4 (c0 x0 + c1 x1): in -2048..2032 for c <= 2, in -3072..3048 for c <= 3. An int16 sum holds 16 or 10 of
    // them, and a group adds two. Divided by 4 they join the plain pairs: 4 * 16 * 512 = 2^15 and 4 * 10 * 768 just fit.
    SCALED_GROUPS_3 = 16 / 2,
    SCALED_GROUPS_4 = 10 / 2,
    FEW_TOKENS = 2,
    FEW_PANELS = 2,
    STREAM_GROUPS_MIN = 17 // shallower slices are over before a second stream begins
};

// A few panels at the same group. Sums of the groups so far are in memory: they would take registers from those of a run.
typedef struct few_panels {
    const uint8_t *group; // of the first panel
    size_t apart;         // bytes to the next panel
    const int8_t *x;
    size_t ldx;
    int32_t *acc; // of the first panel
    size_t acc_apart, ld_acc;
} few_panels;

// One group of one panel. The activations of one token are in `kept` for all vectors of codes, which come one after the other;
// those of two are loaded for a pair of vectors.
static inline __attribute__((always_inline)) void few_group(__m256i plain[FEW_TOKENS][2], __m256i scaled[FEW_TOKENS][2],
                                                            const uint8_t *group, const int8_t *x, size_t ldx,
                                                            const __m256i kept[PARTS], const size_t tokens) {
    const __m256i mask1 = _mm256_set1_epi8(0x03), mask4 = _mm256_set1_epi8(0x0C);
    const size_t together = tokens;
    _mm_prefetch((const char *)group + PREFETCH, _MM_HINT_T0);
    TERN_UNROLL
    for (size_t h0 = 0; h0 < 2; h0 += together) {
        __m256i codes[2], code[2];
        TERN_UNROLL
        for (size_t h = h0; h < h0 + together; h++) {
            codes[h] = load(group + h * HALF_BYTES);
            if (together == 1) TERN_LOADED(codes[h]);
        }
        TERN_UNROLL
        for (size_t p = 0; p < PARTS; p++) {
            TERN_UNROLL
            for (size_t h = h0; h < h0 + together; h++) {
                if (p == PARTS / 2) codes[h] = _mm256_srli_epi16(codes[h], 4);
                code[h] = _mm256_and_si256(codes[h], p % 2 ? mask4 : mask1);
            }
            TERN_UNROLL
            for (size_t t = 0; t < tokens; t++) {
                const __m256i four = tokens == 1 ? kept[p] : load_lane(x + t * ldx + p * LANE);
                TERN_UNROLL
                for (size_t h = h0; h < h0 + together; h++) add_dots(p % 2 ? &scaled[t][h] : &plain[t][h], code[h], four);
            }
        }
    }
}

// Adds n groups, as many as int16 sums hold. panels * tokens <= 2.
static inline __attribute__((always_inline)) void few_run(const few_panels *p, size_t n, const size_t panels,
                                                          const size_t tokens) {
    const uint8_t *group = p->group, *end = group + n * TERN_M2_GROUP_BYTES;
    const int8_t *x = p->x;
    const size_t ldx = p->ldx, apart = p->apart;
    __m256i plain[FEW_PANELS][FEW_TOKENS][2], scaled[FEW_PANELS][FEW_TOKENS][2]; // int16 pairs, features 0..7 and 8..15
    TERN_UNROLL
    for (size_t i = 0; i < panels; i++) {
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            TERN_UNROLL
            for (size_t h = 0; h < 2; h++) plain[i][t][h] = scaled[i][t][h] = _mm256_setzero_si256();
        }
    }
    TERN_NO_UNROLL
    do {
        TERN_COST_LOOP("M2 groups, scaled", panels * TERN_M2_PANEL, tokens, TERN_M2_GROUP_K);
        __m256i kept[PARTS];
        if (tokens == 1) {
            TERN_UNROLL
            for (size_t q = 0; q < PARTS; q++) kept[q] = load_lane(x + q * LANE);
            TERN_IN_ORDER(kept[0], kept[1]);
            TERN_IN_ORDER(kept[2], kept[3]);
        }
        TERN_UNROLL
        for (size_t i = 0; i < panels; i++) few_group(plain[i], scaled[i], group + (i ? apart : 0), x, ldx, kept, tokens);
        group += TERN_M2_GROUP_BYTES;
        x += TERN_M2_GROUP_K;
    } while (group != end);
    TERN_UNROLL
    for (size_t i = 0; i < panels; i++) {
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            TERN_UNROLL
            for (size_t h = 0; h < 2; h++) {
                int32_t *to = p->acc + i * p->acc_apart + t * p->ld_acc + h * HALF;
                store(to, widen(load(to), _mm256_add_epi16(plain[i][t][h], _mm256_srai_epi16(scaled[i][t][h], 2))));
            }
        }
    }
    __asm__ volatile("" : : : "memory"); // and there they are
}

// The panels of features f and f + step, or the first of them alone.
static inline __attribute__((always_inline)) void few_panels_all(const tern_gemm_args *args, size_t f, size_t step,
                                                                 const size_t panels, const size_t tokens) {
    const size_t groups = tern_m2_groups(args->k), panel_bytes = groups * TERN_M2_GROUP_BYTES;
    const size_t spill = args->four_level ? SCALED_GROUPS_4 : SCALED_GROUPS_3;
    few_panels p = {.group = args->packed + f / TERN_M2_PANEL * panel_bytes,
                    .apart = step / TERN_M2_PANEL * panel_bytes,
                    .x = args->x,
                    .ldx = args->ldx,
                    .acc = args->acc + f,
                    .acc_apart = step,
                    .ld_acc = args->ld_acc};
    for (size_t i = 0; i < panels; i++)
        for (size_t t = 0; t < tokens; t++)
            for (size_t h = 0; h < 2; h++) store(p.acc + i * step + t * p.ld_acc + h * HALF, minus_x_sum(args, t));
    for (size_t left = groups, n; left > 0; left -= n) {
        n = left < spill ? left : spill;
        if (tokens == 1) {
            few_run(&p, n, panels, 1);
        } else {
            for (size_t i = 0; i < panels; i++) {
                few_panels one = p;
                one.group += i * p.apart;
                one.acc += i * step;
                few_run(&one, n, 1, tokens);
            }
        }
        p.group += n * TERN_M2_GROUP_BYTES;
        p.x += n * TERN_M2_GROUP_K;
    }
}

static inline __attribute__((always_inline)) void few_tokens(const tern_gemm_args *args, const size_t tokens) {
    const size_t panels = args->n / TERN_M2_PANEL, pairs = panels / FEW_PANELS * TERN_M2_PANEL;
    if (tern_m2_groups(args->k) < STREAM_GROUPS_MIN) {
        for (size_t f = 0; f < 2 * pairs; f += 2 * TERN_M2_PANEL) few_panels_all(args, f, TERN_M2_PANEL, FEW_PANELS, tokens);
    } else {
        for (size_t f = 0; f < pairs; f += TERN_M2_PANEL) few_panels_all(args, f, pairs, FEW_PANELS, tokens);
    }
    if (2 * pairs < args->n) few_panels_all(args, 2 * pairs, 0, 1, tokens);
}

// Functions of their own: else gcc allots registers differently in the loops of more tokens.
static __attribute__((noinline)) void one_token(const tern_gemm_args *args) { few_tokens(args, 1); }
static __attribute__((noinline)) void two_tokens(const tern_gemm_args *args) { few_tokens(args, 2); }

// ---- more tokens ------------------------------------------------------------------------------------------------------

enum {
    // A pair is c0 x0 + c1 x1: in -512..508 for c <= 2, in -768..762 for c <= 3. A group adds four: 4 * 16 * 512 = 2^15 and
    // 4 * 10 * 768 just fit an int16 sum.
    GROUPS_3 = 16,
    GROUPS_4 = 10,
    TILE_TOKENS = 6,    // 6 tokens * 2 vectors = 12 sums; 2 code vectors, 1 of activations, 1 product
    KEPT_GROUPS = 64,   // decoded codes of a K-chunk of one panel: 16 KiB
    STREAM_TOKENS = 16, // up to here the activations of a K-chunk are small: weights are read in one forward stream
    STEP_BYTES = TERN_M2_PANEL * LANE
};

// Where a tile gets its codes from: a step is 64 bytes, byte 4f + j of step s = code of feature f, k = 4s + j.
typedef enum source {
    PACKED,      // groups of 4 steps, decoded on the way
    PACKED_KEEP, // the same, and stored for the next tiles
    KEPT
} source;

// 16 features x `tokens` tokens x n groups.
typedef struct tile_args {
    const tern_gemm_args *args;
    const uint8_t *group;
    uint8_t *codes;
    const int8_t *x; // of the first token
    int32_t *acc;    // the same
    size_t token;    // first token
    size_t n;
    size_t ahead; // bytes from a group to the one that will be needed after some time
    bool first;   // acc is not yet written
} tile_args;

static inline __attribute__((always_inline)) void tile(const tile_args *a, const size_t tokens, const source from) {
    const __m256i mask = _mm256_set1_epi8(0x03);
    const size_t ldx = a->args->ldx, ld_acc = a->args->ld_acc, ahead = a->ahead;
    const size_t spill = a->args->four_level ? GROUPS_4 : GROUPS_3;
    const int8_t *x = a->x;
    const uint8_t *group = a->group;
    uint8_t *codes = a->codes;
    __m256i total[TILE_TOKENS][2]; // int32, features 0..7 and 8..15
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        const int32_t *acc = a->acc + t * ld_acc;
        total[t][0] = a->first ? minus_x_sum(a->args, a->token + t) : load(acc);
        total[t][1] = a->first ? total[t][0] : load(acc + HALF);
    }
    for (size_t left = a->n, n; left > 0; left -= n) {
        n = left < spill ? left : spill;
        __m256i sum[TILE_TOKENS][2]; // int16 pairs
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
        TERN_NO_UNROLL
        for (size_t g = 0; g < n; g++) {
            if (from == PACKED) TERN_COST_LOOP("M2 groups", TERN_M2_PANEL, tokens, TERN_M2_GROUP_K);
            if (from == PACKED_KEEP) TERN_COST_LOOP("M2 groups, kept", TERN_M2_PANEL, tokens, TERN_M2_GROUP_K);
            if (from == KEPT) TERN_COST_LOOP("kept codes", TERN_M2_PANEL, tokens, TERN_M2_GROUP_K);
            if (from != KEPT) _mm_prefetch((const char *)group + ahead, _MM_HINT_T0);
            TERN_UNROLL
            for (size_t p = 0; p < PARTS; p++) {
                __m256i code0, code1;
                if (from == KEPT) {
                    code0 = load(codes + p * STEP_BYTES);
                    code1 = load(codes + p * STEP_BYTES + HALF_BYTES);
                } else {
                    code0 = _mm256_and_si256(_mm256_srli_epi16(load(group), 2 * (int)p), mask);
                    code1 = _mm256_and_si256(_mm256_srli_epi16(load(group + HALF_BYTES), 2 * (int)p), mask);
                }
                if (from == PACKED_KEEP) {
                    store(codes + p * STEP_BYTES, code0);
                    store(codes + p * STEP_BYTES + HALF_BYTES, code1);
                }
                TERN_UNROLL
                for (size_t t = 0; t < tokens; t++) {
                    const __m256i four = load_lane(x + t * ldx + p * LANE);
                    add_dots(&sum[t][0], code0, four);
                    add_dots(&sum[t][1], code1, four);
                }
            }
            group += TERN_M2_GROUP_BYTES, codes += PARTS * STEP_BYTES, x += TERN_M2_GROUP_K;
        }
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            total[t][0] = widen(total[t][0], sum[t][0]);
            total[t][1] = widen(total[t][1], sum[t][1]);
        }
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        store(a->acc + t * ld_acc, total[t][0]);
        store(a->acc + t * ld_acc + HALF, total[t][1]);
    }
}

#define TILE_CASE(tokens, from)                                                                                                \
    case tokens:                                                                                                               \
        tile(a, tokens, from);                                                                                                 \
        break;

static void tile_packed(const tile_args *a, size_t tokens) {
    switch (tokens) {
        TILE_CASE(3, PACKED)
        TILE_CASE(4, PACKED)
        TILE_CASE(5, PACKED)
    }
}
static void tile_keep(const tile_args *a, size_t tokens) {
    switch (tokens) {
        TILE_CASE(3, PACKED_KEEP)
        TILE_CASE(4, PACKED_KEEP)
        TILE_CASE(5, PACKED_KEEP)
    }
}
static void tile_kept(const tile_args *a, size_t tokens) {
    switch (tokens) {
        TILE_CASE(3, KEPT)
        TILE_CASE(4, KEPT)
        TILE_CASE(5, KEPT)
        TILE_CASE(6, KEPT)
    }
}

// One panel for all tokens, groups g .. g + n - 1.
static void panel_chunk(const tern_gemm_args *args, size_t f, size_t g, size_t n, size_t ahead) {
    _Alignas(64) uint8_t codes[KEPT_GROUPS * PARTS * STEP_BYTES];
    const size_t panel = f / TERN_M2_PANEL * tern_m2_groups(args->k);
    tile_args a = {.args = args,
                   .group = args->packed + (panel + g) * TERN_M2_GROUP_BYTES,
                   .codes = codes,
                   .n = n,
                   .ahead = ahead,
                   .first = g == 0};
    const size_t tiles = args->m / TILE_TOKENS + 1; // so the first has one token less than fit: decoding takes registers
    for (size_t i = 0; i < tiles; i++) {
        const size_t end = (i + 1) * args->m / tiles, tokens = end - a.token;
        a.x = args->x + a.token * args->ldx + g * TERN_M2_GROUP_K;
        a.acc = args->acc + a.token * args->ld_acc + f;
        if (tiles == 1)
            tile_packed(&a, tokens);
        else if (i == 0)
            tile_keep(&a, tokens);
        else
            tile_kept(&a, tokens);
        a.token = end;
    }
}

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

void tern_mad_gemm_m2_avx2(const tern_gemm_args *args) {
    const size_t groups = tern_m2_groups(args->k), panel_bytes = groups * TERN_M2_GROUP_BYTES;
    if (args->m == 1) {
        one_token(args);
        return;
    }
    if (args->m == 2) {
        two_tokens(args);
        return;
    }
    const bool stream = args->m <= STREAM_TOKENS;
    const size_t block = stream ? TERN_M2_PANEL : args->n;
    const size_t depth = args->m < TILE_TOKENS ? groups : KEPT_GROUPS;
    for (size_t f0 = 0; f0 < args->n; f0 += block)
        for (size_t g = 0; g < groups; g += depth)
            for (size_t f = f0; f < f0 + block; f += TERN_M2_PANEL)
                panel_chunk(args, f, g, min_size(depth, groups - g), stream ? PREFETCH : panel_bytes);
}
