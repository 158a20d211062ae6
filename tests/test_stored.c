// SPDX-License-Identifier: MIT
// Packed weights as a file keeps them: an image between guard pages multiplies with the bits of its original, and whatever a
// description says, it is refused or no kernel leaves the image.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "guard_alloc.h"
#include "matmul/stored.h"
#include "test_random.h"
#include "test_scale.h"

enum { N_MAX = 1200, K_MAX = 768, M = 3, DAMAGES = 3000 };

static tern_context *ctx;
static unsigned guards;
static const tern_allocator guarded = {guard_alloc, guard_free, &guards};

static int8_t codes[N_MAX * K_MAX], q[M * K_MAX];
static float scales[N_MAX * (K_MAX / 16 + 1)], y_want[M * N_MAX], y_got[M * N_MAX];

typedef struct kind {
    const char *name;
    tern_status (*make)(tern_weights **w, const struct kind *kind, size_t n, size_t k);
    size_t block; // SIZE_MAX: k
    int least, most;
    tern_form form;
} kind;

static size_t block_of(const kind *t, size_t k) { return t->block == SIZE_MAX ? k : t->block; }

static void fill_codes(const kind *t, size_t n, size_t k) {
    for (size_t i = 0; i < n * k; i++) codes[i] = (int8_t)(t->least + (int)random_below((size_t)(t->most - t->least + 1)));
    for (size_t i = 0; i < n * (k / 16 + 1); i++) scales[i] = 0.01f + random_float() * random_float();
}

static tern_weights_params params_of(const kind *t) {
    return (tern_weights_params){.struct_size = sizeof(tern_weights_params), .form = t->form};
}
static tern_status from_trits(tern_weights **w, const kind *t, size_t n, size_t k) {
    const tern_weights_params p = params_of(t);
    return tern_weights_from_trits(ctx, w, codes, scales, block_of(t, k), n, k, k, &p);
}
static tern_status from_act_blocks(tern_weights **w, const kind *t, size_t n, size_t k) {
    tern_weights_params p = params_of(t);
    p.act_block = 32;
    return tern_weights_from_trits(ctx, w, codes, scales, block_of(t, k), n, k, k, &p);
}
static tern_status from_two_forms(tern_weights **w, const kind *t, size_t n, size_t k) {
    tern_weights_params p = params_of(t);
    p.many_tokens = 2;
    p.many_tokens_form = TERN_FORM_MAD;
    return tern_weights_from_trits(ctx, w, codes, scales, block_of(t, k), n, k, k, &p);
}
static tern_status from_q2(tern_weights **w, const kind *t, size_t n, size_t k) {
    return tern_weights_from_q2(ctx, w, codes, scales, block_of(t, k), n, k, k, NULL);
}
static tern_status from_signs(tern_weights **w, const kind *t, size_t n, size_t k) {
    for (size_t i = 0; i < n * k; i++) codes[i] |= 1;
    return tern_weights_from_signs(ctx, w, codes, scales, block_of(t, k), n, k, k, NULL);
}
static tern_status from_s8(tern_weights **w, const kind *t, size_t n, size_t k) {
    return tern_weights_from_s8(ctx, w, codes, scales, block_of(t, k), n, k, k, NULL);
}
static tern_status from_u4(tern_weights **w, const kind *t, size_t n, size_t k) {
    return tern_weights_from_u4(ctx, w, (const uint8_t *)codes, scales, t->least ? NULL : scales, n, k, k, NULL);
}

static tern_status from_int6(tern_weights **w, const kind *t, size_t n, size_t k) {
    static float x[N_MAX * K_MAX];
    (void)t;
    for (size_t i = 0; i < n * k; i++) x[i] = (float)codes[i] * scales[i / k];
    return tern_weights_from_f32_int6(ctx, w, x, n, k, k, NULL);
}

static const kind kinds[] = {
    {"trits", from_trits, 0, -1, 1, TERN_FORM_MAD},
    {"trits, tables", from_trits, 0, -1, 1, TERN_FORM_LUT},
    {"trits per row", from_trits, SIZE_MAX, -1, 1, TERN_FORM_LUT},
    {"trits per 64", from_trits, 64, -1, 1, TERN_FORM_MAD},
    {"trits per 16, tables", from_trits, 16, -1, 1, TERN_FORM_LUT},
    {"trits, activations per 32", from_act_blocks, 0, -1, 1, TERN_FORM_MAD},
    {"trits per row, activations per 32, tables", from_act_blocks, SIZE_MAX, -1, 1, TERN_FORM_LUT},
    {"trits per 64, activations per 32", from_act_blocks, 64, -1, 1, TERN_FORM_MAD},
    {"trits in two forms", from_two_forms, 0, -1, 1, TERN_FORM_LUT},
    {"four levels", from_q2, 64, -1, 2, TERN_FORM_AUTO},
    {"signs", from_signs, SIZE_MAX, -1, 0, TERN_FORM_AUTO},
    {"int8", from_s8, 0, -128, 127, TERN_FORM_AUTO},
    {"int8 per row", from_s8, SIZE_MAX, -128, 127, TERN_FORM_AUTO},
    {"int8 per 32", from_s8, 32, -128, 127, TERN_FORM_AUTO},
    {"4 bits", from_u4, 32, 1, 15, TERN_FORM_AUTO},
    {"4 bits with mins", from_u4, 32, 0, 15, TERN_FORM_AUTO},
    {"6 bits", from_int6, 32, -127, 127, TERN_FORM_AUTO},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static void multiply(const tern_weights *w, float *y) {
    tern_activations *a = NULL;
    const size_t k = w->k;
    assert_int_equal(tern_activations_create(ctx, &a, M, k), TERN_OK);
    assert_int_equal(tern_activations_set_s8(ctx, a, q, NULL, M, k, k, tern_weights_act_block(w)), TERN_OK);
    if (tern_matmul_f32(ctx, w, a, y, w->n, NULL) != TERN_OK) fail_msg("%s", tern_context_error(ctx));
    tern_activations_destroy(a);
}

// A file's image of a form. Freed by free_image.
static void *image_of(const tern_weights *w, size_t *bytes) {
    assert_true(tern_stored_bytes(w, bytes));
    uint8_t *image = tern_alloc(&guarded, *bytes, 1);
    assert_non_null(image);
    memcpy(image, w->packed, w->packed_bytes);
    if (w->n_scales) memcpy(image + tern_stored_scales_at(w), w->scales, w->n_scales * tern_scale_bytes(w));
    return image;
}

static void stored_weights_multiply_with_the_same_bits(void **unused) {
    (void)unused;
    const size_t shapes[][2] = {{1, 1}, {5, 33}, {150, 768}, {1200, 300}};
    for (size_t i = 0; i < N_KINDS; i++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            const size_t n = shapes[s][0], k = shapes[s][1];
            fill_codes(&kinds[i], n, k);
            for (size_t j = 0; j < sizeof q; j++) q[j] = (int8_t)next_random();
            tern_weights *w = NULL, *back = NULL, *many = NULL;
            if (kinds[i].make(&w, &kinds[i], n, k) != TERN_OK) fail_msg("%s: %s", kinds[i].name, tern_context_error(ctx));
            tern_stored_form form;
            size_t bytes, many_bytes = 0;
            void *many_image = NULL, *image = image_of(w, &bytes);
            tern_stored_describe(&form, w);
            if (tern_stored_open(ctx, &back, &form, image, bytes, &guarded) != TERN_OK)
                fail_msg("%s: %s", kinds[i].name, tern_context_error(ctx));
            if (w->many) {
                many_image = image_of(w->many, &many_bytes);
                tern_stored_describe(&form, w->many);
                assert_int_equal(tern_stored_open(ctx, &many, &form, many_image, many_bytes, &guarded), TERN_OK);
                assert_int_equal(tern_stored_join(ctx, back, many, w->many_from), TERN_OK);
            }
            multiply(w, y_want);
            multiply(back, y_got);
            if (memcmp(y_got, y_want, M * n * sizeof *y_got) != 0) fail_msg("%s, %zu x %zu", kinds[i].name, n, k);
            tern_weights_destroy(back);
            tern_free(&guarded, image, bytes, 1);
            tern_free(&guarded, many_image, many_bytes, 1);
            tern_weights_destroy(w);
        }
}

// One field becomes another value, near the right one or anything.
static void damage(tern_stored_form *f) {
    static const char *const layouts[] = {"t5",    "t2n",   "t3",  "b1",    "m2", "i8", "i8b32",
                                          "i4b32", "i4m32", "i4k", "i6b32", "",   "t5x"};
    uint64_t *const numbers[] = {&f->n, &f->k, &f->unit_rows, &f->scale_block};
    uint64_t *number = numbers[random_below(4)];
    switch (random_below(7)) {
    case 0:
        memset(f->layout, 0, sizeof f->layout);
        strcpy(f->layout, layouts[random_below(sizeof layouts / sizeof *layouts)]);
        break;
    case 1:
        f->scale_kind = (uint16_t)random_below(4);
        break;
    case 2:
        f->codes = (uint32_t)random_below(4);
        break;
    case 3:
        *number += next_random() % 257 - 128; // wraps
        break;
    case 4:
        f->act_block = (uint16_t)(random_below(40) * 16);
        break;
    case 5:
        *number = next_random() >> random_below(64);
        break;
    default:
        ((uint8_t *)f)[random_below(sizeof *f)] ^= (uint8_t)(1 + random_below(255));
    }
}

static void damaged_descriptions_are_refused_or_stay_within_their_image(void **unused) {
    (void)unused;
    size_t refused = 0, rounds = 0;
    test_begin_group();
    for (size_t i = 0; i < DAMAGES; i++) {
        if (!test_takes_case(next_random())) continue;
        rounds++;
        const kind *t = &kinds[random_below(N_KINDS)];
        const size_t n = random_size(8), k = random_size(8);
        fill_codes(t, n, k);
        tern_weights *w = NULL, *back = NULL;
        assert_int_equal(t->make(&w, t, n, k), TERN_OK);
        tern_stored_form form;
        tern_stored_describe(&form, w);
        size_t bytes;
        void *image = image_of(w, &bytes);
        damage(&form);
        const tern_status status = tern_stored_open(ctx, &back, &form, image, bytes, &guarded);
        if (status == TERN_OK && back->n <= N_MAX && back->k <= K_MAX)
            multiply(back, y_got);
        else if (status != TERN_OK && status != TERN_ERR_FORMAT && status != TERN_ERR_UNSUPPORTED)
            fail_msg("status %d", (int)status);
        refused += status != TERN_OK;
        tern_weights_destroy(back);
        tern_weights_destroy(w);
        tern_free(&guarded, image, bytes, 1);
    }
    print_message("%zu of %zu damaged descriptions were refused\n", refused, rounds);
    assert_true(refused > rounds / 2);
}

static void layouts_without_vector_kernels_are_refused_by_name(void **unused) {
    (void)unused;
    tern_context *other = NULL;
    const tern_context_params params = {.struct_size = sizeof params, .threads = 1, .isa = "avx2"};
    if (tern_context_create(&other, &params) != TERN_OK) return; // a machine without AVX2 has one tier only
    uint8_t *image = tern_alloc(&guarded, 64 * 8 + 4, 1);
    const tern_stored_form form = {.layout = "t5", .n = 64, .k = 40, .unit_rows = 64, .codes = TERN_STORED_TRITS};
    tern_weights *w = NULL;
    assert_int_equal(tern_stored_open(other, &w, &form, image, 64 * 8 + 4, &guarded), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(tern_context_error(other), "t5"));
    assert_non_null(strstr(tern_context_error(other), "avx2"));
    tern_free(&guarded, image, 64 * 8 + 4, 1);
    tern_context_destroy(other);
}

static void slabs_for_fewer_threads_are_refused(void **unused) {
    (void)unused;
    tern_context *four = NULL;
    const tern_context_params params = {.struct_size = sizeof params, .threads = 4};
    assert_int_equal(tern_context_create(&four, &params), TERN_OK);
    fill_codes(&kinds[1], 1024, 64);
    tern_weights *w = NULL, *back = NULL;
    assert_int_equal(from_trits(&w, &kinds[1], 1024, 64), TERN_OK); // by ctx, which has one thread
    tern_stored_form form;
    tern_stored_describe(&form, w);
    size_t bytes;
    void *image = image_of(w, &bytes);
    if (w->n_units < 4) {
        assert_int_equal(tern_stored_open(four, &back, &form, image, bytes, &guarded), TERN_ERR_UNSUPPORTED);
        assert_non_null(strstr(tern_context_error(four), "threads"));
    }
    tern_free(&guarded, image, bytes, 1);
    tern_weights_destroy(w);
    tern_context_destroy(four);
}

static int set_up(void **state) {
    const tern_context_params params = {.struct_size = sizeof params, .threads = 1};
    return start_random(state) || tern_context_create(&ctx, &params) != TERN_OK;
}
static int tear_down(void **unused) {
    (void)unused;
    tern_context_destroy(ctx);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stored_weights_multiply_with_the_same_bits),
        cmocka_unit_test(damaged_descriptions_are_refused_or_stay_within_their_image),
        cmocka_unit_test(layouts_without_vector_kernels_are_refused_by_name),
        cmocka_unit_test(slabs_for_fewer_threads_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
