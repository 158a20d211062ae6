// SPDX-License-Identifier: MIT
// Blocks of activations that are asked for (tern_weights_params.act_block): every layout, shape and number of tokens has the
// bits of the sum over blocks as docs/numerics.md writes it, in no more bytes of scales; what makes no sense is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "matmul/build.h"
#include "tern/diagnostics.h"
#include "test_random.h"

enum { N = 330, K_MAX = 650, M_MAX = 70 };

static tern_context *ctx;
static int8_t codes[N * K_MAX], q[M_MAX * K_MAX];
static float w_scales[N * (K_MAX / 16 + 1)], x_scales[M_MAX * (K_MAX / 16 + 1)], y[M_MAX * N];

typedef tern_status make_fn(tern_context *ctx, tern_weights **w, const int8_t *codes, const float *scales, size_t scale_block,
                            size_t n, size_t k, size_t ldw, const tern_weights_params *params);

typedef struct kind {
    const char *name;
    make_fn *make;
    int least, step, levels;
    tern_form form;
    size_t many_tokens;
} kind;

static const kind kinds[] = {
    {"trits, tables", tern_weights_from_trits, -1, 1, 3, TERN_FORM_LUT, 0},
    {"trits, multiply-add", tern_weights_from_trits, -1, 1, 3, TERN_FORM_MAD, 0},
    {"trits in two forms", tern_weights_from_trits, -1, 1, 3, TERN_FORM_LUT, 3},
    {"signs", tern_weights_from_signs, -1, 2, 2, TERN_FORM_AUTO, 0},
    {"four levels", tern_weights_from_q2, -1, 1, 4, TERN_FORM_AUTO, 0},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

static void fill(const kind *t, size_t k) {
    for (size_t i = 0; i < N * k; i++) codes[i] = (int8_t)(t->least + t->step * (int)random_below((size_t)t->levels));
    for (size_t i = 0; i < sizeof q; i++) q[i] = (int8_t)next_random();
    for (size_t i = 0; i < sizeof w_scales / sizeof *w_scales; i++) w_scales[i] = 0.01f + random_float() * random_float();
    for (size_t i = 0; i < sizeof x_scales / sizeof *x_scales; i++) x_scales[i] = 0.01f + random_float() * random_float();
}

// One output, in the written order of float operations.
static float expected(size_t m, size_t n, size_t k, size_t scale_block, size_t block) {
    const size_t per_row = scale_block ? (k + scale_block - 1) / scale_block : 0, blocks = (k + block - 1) / block;
    float sum = 0;
    for (size_t b = 0; b < blocks; b++) {
        int32_t part = 0;
        for (size_t i = b * block; i < min_size((b + 1) * block, k); i++) part += q[m * k + i] * codes[n * k + i];
        const float w_scale = w_scales[scale_block ? n * per_row + b * block / scale_block : 0];
        const float scaled = (float)part * (x_scales[m * blocks + b] * w_scale);
        sum = b ? sum + scaled : scaled;
    }
    return sum;
}

static tern_weights_params params_of(const kind *t, size_t act_block) {
    return (tern_weights_params){
        .struct_size = sizeof(tern_weights_params), .form = t->form, .many_tokens = t->many_tokens, .act_block = act_block};
}

static tern_weights *make(const kind *t, size_t k, size_t scale_block, size_t act_block) {
    const tern_weights_params p = params_of(t, act_block);
    tern_weights *w = NULL;
    if (t->make(ctx, &w, codes, w_scales, scale_block, N, k, k, &p) != TERN_OK)
        fail_msg("%s: %s", t->name, tern_context_error(ctx));
    return w;
}

static void check_product(const kind *t, const tern_weights *w, size_t k, size_t scale_block, size_t block, size_t m) {
    tern_activations *a = NULL;
    assert_int_equal(tern_activations_create(ctx, &a, m, k), TERN_OK);
    assert_int_equal(tern_activations_set_s8(ctx, a, q, x_scales, m, k, k, block), TERN_OK);
    if (tern_matmul_f32(ctx, w, a, y, N, NULL) != TERN_OK) fail_msg("%s: %s", t->name, tern_context_error(ctx));
    for (size_t i = 0; i < m; i++)
        for (size_t n = 0; n < N; n += 7) {
            const float want = expected(i, n, k, scale_block, block);
            if (memcmp(&y[i * N + n], &want, sizeof want) != 0)
                fail_msg("%s, k %zu, scales per %zu, activations per %zu, %zu tokens: y[%zu][%zu] = %g, not %g", t->name, k,
                         scale_block, block, m, i, n, (double)y[i * N + n], (double)want);
        }
    tern_activations_destroy(a);
}

static tern_weights_info info_of(const tern_weights *w) {
    tern_weights_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
    return info;
}

static void check_kind(const kind *t, size_t k, size_t scale_block) {
    static const size_t asked[] = {16, 32, 48, 64, 256}, tokens[] = {1, 3, M_MAX};
    fill(t, k);
    for (size_t b = 0; b < sizeof asked / sizeof *asked; b++) {
        const size_t whole = scale_block ? min_size(scale_block, k) : k, block = min_size(asked[b], whole);
        if (whole < k && whole % block) continue; // refused
        tern_weights *w = make(t, k, scale_block, asked[b]);
        const tern_weights_info info = info_of(w);
        assert_int_equal(info.act_block, block < k ? block : 0);
        assert_int_equal(info.scale_block, scale_block && scale_block < k ? scale_block : scale_block ? k : 0);
        for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) check_product(t, w, k, scale_block, block, tokens[i]);
        tern_weights_destroy(w);
    }
}

static void every_layout_scales_each_block_of_activations(void **unused) {
    (void)unused;
    static const char *const tiers[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};
    static const size_t depths[] = {5, 64, 100, 650};
    for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++) {
        const tern_context_params params = {.struct_size = sizeof params, .isa = tiers[i], .threads = (int)(i % 2) + 1};
        if (tern_context_create(&ctx, &params) != TERN_OK) continue; // a CPU without that tier
        for (size_t t = 0; t < N_KINDS; t++)
            for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
                check_kind(&kinds[t], depths[d], 0);
                check_kind(&kinds[t], depths[d], depths[d]);
                check_kind(&kinds[t], depths[d], 192);
            }
        tern_context_destroy(ctx);
    }
}

static void blocks_of_activations_cost_no_bytes(void **unused) {
    (void)unused;
    const kind *mad = &kinds[1];
    fill(mad, 512);
    static const size_t scale_blocks[] = {0, 512, 256};
    for (size_t i = 0; i < sizeof scale_blocks / sizeof *scale_blocks; i++) {
        tern_weights *plain = make(mad, 512, scale_blocks[i], 0), *w = make(mad, 512, scale_blocks[i], 32);
        assert_int_equal(info_of(w).bytes, info_of(plain).bytes);
        tern_weights_destroy(plain);
        tern_weights_destroy(w);
    }
}

static void codes_come_back_as_they_were(void **unused) {
    (void)unused;
    static int8_t back[N * K_MAX];
    for (size_t t = 0; t < N_KINDS; t++) {
        fill(&kinds[t], K_MAX);
        tern_weights *w = make(&kinds[t], K_MAX, 0, 64);
        assert_int_equal(tern_weights_unpack(ctx, w, back, K_MAX), TERN_OK);
        assert_memory_equal(back, codes, sizeof codes);
        tern_weights_destroy(w);
    }
}

// As a `.scale` tensor of a model does.
static void a_uniform_scale_can_still_be_multiplied(void **unused) {
    (void)unused;
    for (size_t t = 0; t < N_KINDS; t++) {
        fill(&kinds[t], 320);
        tern_weights *w = make(&kinds[t], 320, 0, 64);
        assert_true(tern_weights_rescale(w, 0.5f));
        w_scales[0] *= 0.5f;
        check_product(&kinds[t], w, 320, 0, 64, 1);
        check_product(&kinds[t], w, 320, 0, 64, M_MAX);
        tern_weights_destroy(w);
    }
}

static void weights_that_cannot_have_such_blocks_are_refused(void **unused) {
    (void)unused;
    static const struct {
        make_fn *make;
        size_t scale_block, act_block;
        tern_status status;
        const char *says;
    } cases[] = {
        {tern_weights_from_trits, 0, 40, TERN_ERR_ARG, "multiple of 16"},
        {tern_weights_from_trits, 256, 96, TERN_ERR_ARG, "does not divide"},
        {tern_weights_from_s8, 0, 64, TERN_ERR_UNSUPPORTED, "scale_block = 32"},
        {tern_weights_from_s8, 512, 64, TERN_ERR_UNSUPPORTED, "whole rows"},
        {tern_weights_from_s8, 32, 16, TERN_ERR_UNSUPPORTED, "blocks of 32"},
        {tern_weights_from_s8, 32, 64, TERN_OK, ""}, // which has smaller ones
        {tern_weights_from_trits, 64, 96, TERN_OK, ""},
        {tern_weights_from_s8, 0, 512, TERN_OK, ""}, // a whole row
    };
    fill(&kinds[0], 512);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const tern_weights_params p = {.struct_size = sizeof p, .act_block = cases[i].act_block};
        tern_weights *w = NULL;
        assert_int_equal(cases[i].make(ctx, &w, codes, w_scales, cases[i].scale_block, N, 512, 512, &p), cases[i].status);
        if (cases[i].status == TERN_OK) {
            assert_true(info_of(w).act_block <= cases[i].scale_block);
        } else if (!strstr(tern_context_error(ctx), cases[i].says)) {
            fail_msg("\"%s\" does not say \"%s\"", tern_context_error(ctx), cases[i].says);
        }
        tern_weights_destroy(w);
    }
}

static void integer_results_are_refused_as_of_other_block_scales(void **unused) {
    (void)unused;
    static int32_t sums[N];
    fill(&kinds[1], 512);
    tern_weights *w = make(&kinds[1], 512, 0, 64);
    tern_activations *a = NULL;
    assert_int_equal(tern_activations_create(ctx, &a, 1, 512), TERN_OK);
    assert_int_equal(tern_activations_set_s8(ctx, a, q, NULL, 1, 512, 512, 64), TERN_OK);
    assert_int_equal(tern_matmul_s32(ctx, w, a, sums, N), TERN_ERR_UNSUPPORTED);
    tern_activations_destroy(a);
    tern_weights_destroy(w);
}

static int make_context(void **unused) {
    (void)unused;
    return tern_context_create(&ctx, NULL);
}
static int drop_context(void **unused) {
    (void)unused;
    tern_context_destroy(ctx);
    return 0;
}

#define WITH_CONTEXT(test) cmocka_unit_test_setup_teardown(test, make_context, drop_context)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_scales_each_block_of_activations),
        WITH_CONTEXT(blocks_of_activations_cost_no_bytes),
        WITH_CONTEXT(codes_come_back_as_they_were),
        WITH_CONTEXT(a_uniform_scale_can_still_be_multiplied),
        WITH_CONTEXT(weights_that_cannot_have_such_blocks_are_refused),
        WITH_CONTEXT(integer_results_are_refused_as_of_other_block_scales),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
