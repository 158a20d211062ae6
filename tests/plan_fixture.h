// SPDX-License-Identifier: MIT
// What tests of plans share: contexts whose allocations are counted and guarded, weights of every kind, batches of every type.
// For one source file of a test.
#ifndef TERN_TESTS_PLAN_FIXTURE_H
#define TERN_TESTS_PLAN_FIXTURE_H

#include <stdint.h>

#include "format/blocks.h"
#include "guard_alloc.h"
#include "tern/diagnostics.h"
#include "test_random.h"

enum { K = 328, M_MAX = 37, KINDS = 7, N_MAX = 200 };

// ---- contexts whose allocations are counted and guarded ------------------------------------------------------------

static size_t allocations;
static unsigned guard_counter;

static inline void *counting_alloc(void *user, size_t size, size_t align) {
    allocations++;
    return guard_alloc(user, size, align);
}

static inline tern_context *create_context(int threads, const char *isa) {
    const tern_allocator allocator = {counting_alloc, guard_free, &guard_counter};
    const tern_context_params params = {
        .struct_size = sizeof params, .threads = threads, .isa = isa, .allocator = &allocator, .no_pinning = 1};
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, &params), TERN_OK);
    return ctx;
}

// ---- weights of every kind -----------------------------------------------------------------------------------------

static int8_t codes[N_MAX * K];
static float block_scales[N_MAX * (K / 16 + 1)];

// Kinds 0..3 have act_block 0.
static inline tern_weights *make_weights(tern_context *ctx, int kind, size_t n, bool row_sums) {
    const bool ternary = kind != 2 && kind != 3 && kind != 6;
    for (size_t i = 0; i < n * K; i++) codes[i] = (int8_t)(ternary ? (int)random_below(3) - 1 : (int)random_below(256) - 128);
    for (size_t i = 0; i < sizeof block_scales / sizeof *block_scales; i++)
        block_scales[i] = (float)(1 + random_below(500)) / 512;
    const size_t blocks[KINDS] = {0, 0, 0, K, 64, 128, 32};
    const tern_weights_params params = {.struct_size = sizeof params,
                                        .form = kind == 0 || kind == 4 ? TERN_FORM_LUT : TERN_FORM_MAD,
                                        .row_sums = row_sums,
                                        .many_tokens =
                                            random_below(3) ? 1 + random_below(12) : 0, // a second form: the other one
                                        .many_tokens_form = kind == 0 || kind == 4 ? TERN_FORM_MAD : TERN_FORM_LUT};
    tern_weights *w = NULL;
    assert_int_equal(ternary ? tern_weights_from_trits(ctx, &w, codes, block_scales, blocks[kind], n, K, K, &params)
                             : tern_weights_from_s8(ctx, &w, codes, block_scales, blocks[kind], n, K, K, &params),
                     TERN_OK);
    return w;
}

static inline size_t act_block(tern_context *ctx, const tern_weights *w) {
    tern_weights_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
    return info.act_block;
}

// ---- a batch of every type -----------------------------------------------------------------------------------------

static union {
    float f32[M_MAX * K];
    uint16_t half[M_MAX * K];
    int8_t s8[M_MAX * K];
    uint8_t u8[M_MAX * K];
} x;
static float x_scales[M_MAX * (K / 16 + 1)];
static uint8_t zero_points[M_MAX];

static inline void make_input(tern_type type) {
    for (size_t i = 0; i < (size_t)M_MAX * K; i++) {
        const float v = random_float() * 4.0f;
        if (type == TERN_TYPE_F32) x.f32[i] = v;
        if (type == TERN_TYPE_F16) x.half[i] = tern_f32_to_f16(v);
        if (type == TERN_TYPE_BF16) x.half[i] = (uint16_t)(0x3F00 + (next_random() & 0x80FF));
        if (type >= TERN_TYPE_S8) x.u8[i] = (uint8_t)next_random();
    }
    for (size_t i = 0; i < sizeof x_scales / sizeof *x_scales; i++) x_scales[i] = (float)(1 + random_below(99)) / 128;
    for (size_t i = 0; i < M_MAX; i++) zero_points[i] = (uint8_t)(i % 3 ? next_random() : i % 2 ? 0 : 255);
}

static inline void set_activations(tern_context *ctx, tern_activations *a, tern_type type, size_t m, size_t block,
                                   bool shifted) {
    tern_status status = TERN_ERR_ARG;
    if (type == TERN_TYPE_F32) status = tern_activations_set_f32(ctx, a, x.f32, m, K, K, block);
    if (type == TERN_TYPE_F16) status = tern_activations_set_f16(ctx, a, x.half, m, K, K, block);
    if (type == TERN_TYPE_BF16) status = tern_activations_set_bf16(ctx, a, x.half, m, K, K, block);
    if (type == TERN_TYPE_S8) status = tern_activations_set_s8(ctx, a, x.s8, x_scales, m, K, K, block);
    if (type == TERN_TYPE_U8)
        status = tern_activations_set_u8(ctx, a, x.u8, x_scales, shifted ? zero_points : NULL, m, K, K, block);
    assert_int_equal(status, TERN_OK);
}

#endif
