// SPDX-License-Identifier: MIT
// Calls that no caller should make, and calls that run out of memory at every point: refused, nothing leaked, outputs alone.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "failing_heap.h"
#include "tern/diagnostics.h"
#include "tern/matmul.h"

enum {
    N = 70,
    K = 112,
    BLOCK = 48,
    TOKENS = 66,
    ATTEMPTS_MAX = 200
}; // the last slice is 16 deep; no panel, slab or chunk of tokens is full

// ---- memory --------------------------------------------------------------------------------------------------------

enum { SHIFT = 4 }; // room for the last test to start later
static int8_t trits[N * K + SHIFT];
static int8_t x[TOKENS * K + SHIFT];
static float x_scales[TOKENS * ((K + 31) / 32)];
static float scales[N * ((K + 31) / 32)];

typedef struct job {
    tern_form form;
    size_t scale_block;
    bool ternary;
} job;

static tern_status multiply(tern_context *ctx, job j, float *y, size_t *act_block) {
    const tern_weights_params params = {.struct_size = sizeof params, .form = j.form};
    tern_weights *w = NULL;
    tern_activations *a = NULL;
    tern_status status = j.ternary ? tern_weights_from_trits(ctx, &w, trits, scales, j.scale_block, N, K, K, &params)
                                   : tern_weights_from_s8(ctx, &w, trits, scales, j.scale_block, N, K, K, &params);
    if (status != TERN_OK) assert_null(w);
    tern_weights_info info = {.struct_size = sizeof info};
    if (status == TERN_OK) status = tern_weights_get_info(ctx, w, &info);
    *act_block = info.act_block ? info.act_block : K;
    if (status == TERN_OK) status = tern_activations_create(ctx, &a, TOKENS, K);
    if (status == TERN_OK) status = tern_activations_set_s8(ctx, a, x, x_scales, TOKENS, K, K, info.act_block);
    int8_t back[N * K];
    if (status == TERN_OK) status = tern_weights_unpack(ctx, w, back, K);
    if (status == TERN_OK) assert_memory_equal(back, trits, sizeof back);
    if (status == TERN_OK) status = tern_matmul_f32(ctx, w, a, y, N, NULL);
    tern_activations_destroy(a);
    tern_weights_destroy(w);
    return status;
}

static void every_allocation_of_a_product_may_fail_and_none_is_leaked(void **unused) {
    (void)unused;
    const job jobs[] = {{TERN_FORM_LUT, BLOCK, true}, {TERN_FORM_MAD, BLOCK, true}, {TERN_FORM_LUT, K, true},
                        {TERN_FORM_MAD, 0, true},     {TERN_FORM_AUTO, 32, false},  {TERN_FORM_AUTO, K, false}};
    heap h = {.allowed = SIZE_MAX};
    tern_context *ctx = context_on(&h, 2);
    const size_t live = h.live, bytes = h.bytes;
    float y[TOKENS * N];
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        tern_status status = TERN_ERR_MEMORY;
        size_t act_block = K;
        for (size_t allowed = 0; status != TERN_OK; allowed++) {
            assert_in_range(allowed, 0, ATTEMPTS_MAX);
            h.allowed = allowed;
            memset(y, 0x5A, sizeof y);
            status = multiply(ctx, jobs[i], y, &act_block);
            assert_int_equal(h.live, live);
            assert_int_equal(h.bytes, bytes);
            if (status == TERN_OK) continue;
            assert_int_equal(status, TERN_ERR_MEMORY);
            assert_true(allowed > 0 || *tern_context_error(ctx));
            for (size_t b = 0; b < sizeof y; b++)
                if (((unsigned char *)y)[b] != 0x5A) fail_msg("byte %zu of the output was written", b);
        }
        for (size_t t = 0; t < TOKENS; t++)
            for (size_t n = 0; n < N; n++) {
                double want = 0;
                const size_t blocks = jobs[i].scale_block ? (K + jobs[i].scale_block - 1) / jobs[i].scale_block : 0;
                for (size_t k = 0; k < K; k++) {
                    const double w_scale = (double)scales[blocks ? n * blocks + k / jobs[i].scale_block : 0];
                    const double x_scale = (double)x_scales[t * ((K + act_block - 1) / act_block) + k / act_block];
                    want += (double)x[t * K + k] * x_scale * trits[n * K + k] * w_scale;
                }
                assert_true(fabs(want - (double)y[t * N + n]) <= 1e-3 * (1 + fabs(want)));
            }
    }
    h.allowed = SIZE_MAX;
    tern_context_destroy(ctx);
    assert_int_equal(h.live, 0);
    assert_int_equal(h.bytes, 0);
    assert_false(h.wrong);
}

// Weights in two forms with row sums and a plan of them, to outputs y[2][N].
static tern_status plan_and_run(tern_context *ctx, float *y) {
    enum { M = 2 };
    const tern_weights_params params = {.struct_size = sizeof params,
                                        .form = TERN_FORM_LUT,
                                        .row_sums = 1,
                                        .many_tokens = TOKENS,
                                        .many_tokens_form = TERN_FORM_MAD};
    tern_weights *w[2] = {NULL, NULL};
    tern_plan *plan = NULL;
    tern_status status = tern_weights_from_trits(ctx, &w[0], trits, scales, BLOCK, N, K, K, &params);
    if (status == TERN_OK) status = tern_weights_from_trits(ctx, &w[1], trits, scales, 0, N, K, K, &params);
    const tern_plan_params plan_params = {
        .struct_size = sizeof plan_params, .weights = (const tern_weights *const *)w, .n_weights = 2, .max_m = TOKENS};
    if (status == TERN_OK) status = tern_plan_create(ctx, &plan, &plan_params);
    if (status != TERN_OK) assert_null(plan);
    static float in[M * K];
    const tern_plan_input input = {.struct_size = sizeof input, .x = in, .ldx = K, .m = M};
    const tern_plan_output outputs[2] = {{.struct_size = sizeof *outputs, .y = y, .ldy = N},
                                         {.struct_size = sizeof *outputs, .y = y + M * N, .ldy = N}};
    if (status == TERN_OK) status = tern_plan_run(plan, &input, outputs);
    tern_plan_destroy(plan);
    tern_weights_destroy(w[0]);
    tern_weights_destroy(w[1]);
    return status;
}

static void every_allocation_of_a_plan_may_fail_and_none_is_leaked(void **unused) {
    (void)unused;
    heap h = {.allowed = SIZE_MAX};
    tern_context *ctx = context_on(&h, 2);
    const size_t live = h.live, bytes = h.bytes;
    tern_status status = TERN_ERR_MEMORY;
    for (size_t allowed = 0; status != TERN_OK; allowed++) {
        assert_in_range(allowed, 0, ATTEMPTS_MAX);
        h.allowed = allowed;
        static float y[4 * N];
        status = plan_and_run(ctx, y);
        assert_int_equal(h.live, live);
        assert_int_equal(h.bytes, bytes);
        if (status != TERN_OK) assert_int_equal(status, TERN_ERR_MEMORY);
    }
    h.allowed = SIZE_MAX;
    tern_context_destroy(ctx);
    assert_int_equal(h.live, 0);
    assert_false(h.wrong);
}

static void sizes_beyond_the_address_space_are_out_of_memory(void **unused) {
    (void)unused;
    heap h = {.allowed = SIZE_MAX};
    tern_context *ctx = context_on(&h, 1);
    const size_t live = h.live;
    const size_t huge[] = {SIZE_MAX, SIZE_MAX - 63, SIZE_MAX / K, SIZE_MAX / 2 + 1, (size_t)1 << 58};
    tern_weights *w = NULL;
    tern_activations *a = NULL;
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        for (int form = TERN_FORM_AUTO; form <= TERN_FORM_MAD; form++) {
            const tern_weights_params params = {.struct_size = sizeof params, .form = (tern_form)form};
            assert_int_equal(tern_weights_from_trits(ctx, &w, trits, scales, 0, huge[i], K, K, &params), TERN_ERR_MEMORY);
        }
        assert_int_equal(tern_weights_from_s8(ctx, &w, trits, scales, 0, huge[i], K, K, NULL), TERN_ERR_MEMORY);
        assert_int_equal(tern_activations_create(ctx, &a, huge[i], TERN_K_MAX), TERN_ERR_MEMORY);
        assert_int_equal(h.live, live);
    }
    assert_null(w);
    assert_null(a);
    tern_context_destroy(ctx);
}

// ---- NULL, and structs that were never set -----------------------------------------------------------------------------

static void null_never_crashes(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(NULL, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    assert_string_equal(tern_context_error(NULL), "");
    assert_int_equal(tern_context_threads(NULL), 0);
    assert_int_equal(tern_run_region(NULL, NULL, 0), TERN_ERR_ARG);
    assert_int_equal(tern_get_cpu_info(NULL, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_get_topology_info(NULL, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_get_topology_info(ctx, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_worker_cpu(NULL, 0), -1);
    assert_int_equal(tern_variant_get(NULL, 0, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_variant_get(ctx, 0, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_force_variant(NULL, NULL), TERN_ERR_ARG);
    assert_null(tern_stage_variant(NULL, "quantize"));
    assert_int_equal(tern_get_worker_counters(NULL, 0, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_get_worker_counters(ctx, 0, NULL), TERN_ERR_ARG);
    double seconds;
    assert_int_equal(tern_read_probe_create(NULL, NULL, 0), TERN_ERR_ARG);
    assert_int_equal(tern_read_probe_create(ctx, NULL, 1 << 20), TERN_ERR_ARG);
    assert_int_equal(tern_read_probe_sweep(NULL, NULL, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_read_probe_sweep(ctx, NULL, &seconds), TERN_ERR_ARG);
    assert_int_equal(tern_int8_peak(NULL, NULL, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_int8_peak(ctx, NULL, &seconds), TERN_ERR_ARG);

    tern_weights *w = NULL;
    tern_activations *a = NULL;
    const float one = 1;
    float y;
    assert_int_equal(tern_weights_from_trits(NULL, &w, trits, &one, 0, 1, 1, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_trits(ctx, NULL, trits, &one, 0, 1, 1, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_trits(ctx, &w, NULL, &one, 0, 1, 1, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_trits(ctx, &w, trits, NULL, 0, 1, 1, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_s8(ctx, &w, trits, NULL, 0, 1, 1, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_f32_int8(ctx, &w, NULL, 1, 1, 1, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_f32_ternary(NULL, &w, &one, 1, 1, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_gguf(NULL, &w, 0, &one, 4, 1, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_gguf(ctx, &w, 0, NULL, 4, 1, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_get_info(NULL, NULL, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_unpack(ctx, NULL, NULL, 0), TERN_ERR_ARG);
    assert_int_equal(tern_activations_create(NULL, &a, 1, 1), TERN_ERR_ARG);
    assert_int_equal(tern_activations_create(ctx, NULL, 1, 1), TERN_ERR_ARG);
    assert_int_equal(tern_activations_set_f32(ctx, NULL, &one, 1, 1, 1, 0), TERN_ERR_ARG);
    assert_int_equal(tern_activations_set_s8(NULL, NULL, trits, NULL, 1, 1, 1, 0), TERN_ERR_ARG);
    assert_int_equal(tern_matmul_f32(NULL, NULL, NULL, NULL, 0, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_matmul_f32(ctx, NULL, NULL, &y, 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_matmul_s32(ctx, NULL, NULL, NULL, 1), TERN_ERR_ARG);
    tern_weights_destroy(NULL);
    tern_activations_destroy(NULL);
    tern_read_probe_destroy(NULL);
    assert_null(w);
    assert_null(a);
    tern_context_destroy(ctx);
}

static void an_uninitialized_struct_size_is_refused(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    tern_context_params params;
    memset(&params, 0xA5, sizeof params);
    assert_int_equal(tern_context_create(&ctx, &params), TERN_ERR_ARG);
    assert_null(ctx);
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    tern_cpu_info info;
    memset(&info, 0xA5, sizeof info);
    assert_int_equal(tern_get_cpu_info(ctx, &info), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "struct_size"));
    tern_context_destroy(ctx);
}

static void a_message_is_one_line_whatever_it_quotes(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    assert_int_equal(tern_force_variant(ctx, "a\nb\r\x1b[31m\x7f\xc3\xa4"), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "a?b??[31m?\xc3\xa4"));
    char *name = malloc(2 * TERN_ERROR_MAX);
    assert_non_null(name);
    memset(name, 'n', 2 * TERN_ERROR_MAX - 1);
    name[2 * TERN_ERROR_MAX - 1] = '\0';
    assert_int_equal(tern_force_variant(ctx, name), TERN_ERR_ARG);
    assert_int_equal(strlen(tern_context_error(ctx)), TERN_ERROR_MAX - 1);
    free(name);
    tern_context_destroy(ctx);
}

// ---- values ------------------------------------------------------------------------------------------------------------

// The scale of such weights has no finite inverse.
static void weights_too_small_for_a_scale_become_zero(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    const float tiny[4] = {0, 1e-39f, -1e-40f, 1e-45f};
    int8_t codes[4];
    for (int ternary = 0; ternary < 2; ternary++) {
        tern_weights *w = NULL;
        assert_int_equal(ternary ? tern_weights_from_f32_ternary(ctx, &w, tiny, 1, 4, 4, NULL)
                                 : tern_weights_from_f32_int8(ctx, &w, tiny, 4, 1, 4, 4, NULL),
                         TERN_OK);
        memset(codes, 9, sizeof codes);
        assert_int_equal(tern_weights_unpack(ctx, w, codes, 4), TERN_OK);
        for (size_t i = 0; i < 4; i++) assert_int_equal(codes[i], 0);
        tern_weights_destroy(w);
    }
    tern_context_destroy(ctx);
}

// One tern_activations through layouts, depths, blocks and batches whose tables must not be taken for each other's.
static void kept_tables_never_serve_another_batch(void **unused) {
    (void)unused;
    tern_context *ctx = NULL;
    assert_int_equal(tern_context_create(&ctx, NULL), TERN_OK);
    const tern_weights_params lut = {.struct_size = sizeof lut, .form = TERN_FORM_LUT};
    const size_t depths[] = {K, BLOCK, K - 1};
    tern_activations *a = NULL;
    assert_int_equal(tern_activations_create(ctx, &a, TOKENS, K), TERN_OK);
    for (size_t round = 0; round < 24; round++) {
        const size_t k = depths[round / 8], m = round % 4 == 3 ? 9 : 2; // neighbours mostly agree in all but values
        const size_t from = round % (SHIFT + 1);
        tern_weights *w = NULL, *other = NULL;
        assert_int_equal(tern_weights_from_trits(ctx, &w, trits + from, scales, 0, N - 1, k, K, &lut), TERN_OK);
        assert_int_equal(tern_weights_from_trits(ctx, &other, trits, scales, 0, N, k, K, &lut), TERN_OK);
        assert_int_equal(tern_activations_set_s8(ctx, a, x + from, NULL, m, k, K, 0), TERN_OK);
        for (int again = 0; again < 2; again++) {
            int32_t y[TOKENS * N], want[TOKENS * N];
            assert_int_equal(tern_matmul_s32(ctx, again ? other : w, a, y, N), TERN_OK);
            tern_oracle_s32(want, again ? trits : trits + from, x + from, m, again ? N : N - 1, k, N, K, K);
            for (size_t t = 0; t < m; t++)
                for (size_t n = 0; n < (again ? N : N - 1); n++) assert_int_equal(y[t * N + n], want[t * N + n]);
        }
        tern_weights_destroy(w);
        tern_weights_destroy(other);
    }
    tern_activations_destroy(a);
    tern_context_destroy(ctx);
}

static int fill(void **unused) {
    (void)unused;
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof trits; i++) trits[i] = (int8_t)((seed = seed * 1664525u + 1013904223u) >> 16) % 2;
    for (size_t i = 0; i < sizeof x; i++) x[i] = (int8_t)((seed = seed * 1664525u + 1013904223u) >> 16);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) scales[i] = (float)(1 + i % 7) / 8; // exact in float16
    for (size_t i = 0; i < sizeof x_scales / sizeof *x_scales; i++) x_scales[i] = (float)(1 + i % 11) / 16;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_of_a_product_may_fail_and_none_is_leaked),
        cmocka_unit_test(every_allocation_of_a_plan_may_fail_and_none_is_leaked),
        cmocka_unit_test(sizes_beyond_the_address_space_are_out_of_memory),
        cmocka_unit_test(null_never_crashes),
        cmocka_unit_test(an_uninitialized_struct_size_is_refused),
        cmocka_unit_test(a_message_is_one_line_whatever_it_quotes),
        cmocka_unit_test(weights_too_small_for_a_scale_become_zero),
        cmocka_unit_test(kept_tables_never_serve_another_batch),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
