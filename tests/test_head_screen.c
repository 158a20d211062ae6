// SPDX-License-Identifier: MIT
// A screened head keeps every logit that may be among the k largest, with the INT8 head's bits, and drops only smaller ones: on
// random and hostile matrices and tokens, on every tier, and through whole models.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counted_heap.h"
#include "decode/screen.h"
#include "matmul/build.h"
#include "tern/decode.h"
#include "test_random.h"
#include "test_scale.h"

static const char *const tiers[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};
enum { N_TIERS = 5, BLOCK = 32, BLOCK_BYTES = 34, N_MAX = 700, K_MAX = 320, F32 = TERN_GGML_F32 };

// ---- one matrix, one token ---------------------------------------------------------------------------------------------

typedef enum matrix_kind {
    RANDOM_CODES,
    EXTREME_CODES, // -128 and 127
    EQUAL_ROWS,
    TWO_ROWS_IN_TURN,
    ONE_HOT_ROWS,
    ZERO_SCALES,   // in some rows
    UNLIKE_SCALES, // from subnormal to large, of both signs
    LOW_NIBBLES,   // rows that differ in what the screen does not read
    FLOATS,        // quantized when packed; k of any size
    MATRIX_KINDS
} matrix_kind;
typedef enum token_kind { RANDOM_X, ONE_HOT_X, ZERO_X, LIKE_A_ROW, LIKE_A_SAMPLE, TINY_X, HUGE_X, TOKEN_KINDS } token_kind;
typedef enum sample_kind { RANDOM_SAMPLES, EQUAL_SAMPLES, ZERO_SAMPLES, FEW_DIRECTIONS, SAMPLE_KINDS } sample_kind;

static uint16_t half_of(float v) { return tern_f32_to_f16(v); }

static int8_t code_of(matrix_kind kind, size_t i, size_t j, size_t k) {
    switch (kind) {
    case EXTREME_CODES:
        return (int8_t)((int)random_below(2) * 255 - 128);
    case ONE_HOT_ROWS:
        return j == i % k ? INT8_MAX : 0;
    case LOW_NIBBLES:
        return (int8_t)(32 + (int)random_below(16));
    default:
        return (int8_t)((int)random_below(256) - 128);
    }
}

static float scale_of(matrix_kind kind, size_t i) {
    if (kind == ZERO_SCALES && i % 3 == 0) return 0;
    if (kind == UNLIKE_SCALES) return ldexpf(random_float(), (int)random_below(30) - 20);
    return 0.01F + 0.001F * random_float();
}

// Rows of Q8_0, or of floats.
static void fill_rows(uint8_t *rows, matrix_kind kind, size_t n, size_t k) {
    if (kind == FLOATS) {
        float *values = (float *)(void *)rows;
        for (size_t i = 0; i < n * k; i++) values[i] = random_float();
        return;
    }
    const size_t row_bytes = k / BLOCK * BLOCK_BYTES, unlike = kind == EQUAL_ROWS ? 1 : kind == TWO_ROWS_IN_TURN ? 2 : n;
    for (size_t i = 0; i < n; i++) {
        uint8_t *row = rows + i * row_bytes;
        if (i >= unlike) {
            memcpy(row, row - unlike * row_bytes, row_bytes);
            continue;
        }
        for (size_t j = 0; j < k; j++) {
            uint8_t *block = row + j / BLOCK * BLOCK_BYTES;
            if (j % BLOCK == 0) memcpy(block, &(uint16_t){half_of(scale_of(kind, i))}, sizeof(uint16_t));
            block[2 + j % BLOCK] = (uint8_t)code_of(kind, i, j, k);
        }
    }
}

static void fill_samples(tern_screen *s, sample_kind kind, float *last, size_t k) {
    static float bases[3][K_MAX];
    for (size_t j = 0; j < k; j++)
        for (size_t b = 0; b < 3; b++) bases[b][j] = random_float();
    while (tern_screen_wanted(s)) {
        float *x = tern_screen_sample(s);
        const float weights[3] = {5, random_float(), random_float()};
        for (size_t j = 0; j < k; j++)
            x[j] = kind == ZERO_SAMPLES    ? 0
                   : kind == EQUAL_SAMPLES ? bases[0][j]
                   : kind == FEW_DIRECTIONS
                       ? weights[0] * bases[0][j] + weights[1] * bases[1][j] + weights[2] * bases[2][j] + 0.1F * random_float()
                       : random_float();
        memcpy(last, x, k * sizeof *x);
        tern_screen_add_sample(s);
    }
}

static void fill_token(float *x, token_kind kind, const float *sample, const int8_t *row, size_t k) {
    for (size_t j = 0; j < k; j++) switch (kind) {
        case ONE_HOT_X:
            x[j] = j == k / 2 ? 3 : 0;
            break;
        case ZERO_X:
            x[j] = 0;
            break;
        case LIKE_A_ROW:
            x[j] = (float)row[j];
            break;
        case LIKE_A_SAMPLE:
            x[j] = sample[j] + 0.05F * random_float();
            break;
        case TINY_X:
            x[j] = 1e-34F * random_float();
            break;
        case HUGE_X:
            x[j] = 1e33F * random_float();
            break;
        default:
            x[j] = random_float();
        }
}

// Every logit has the bits of the INT8 head, or is -INFINITY and smaller than `top` others. The number of the latter.
static size_t check_logits(const float *got, const float *want, size_t n, size_t top, const char *what) {
    size_t dropped = 0;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&got[i], &want[i], sizeof *got) == 0) continue;
        if (got[i] != -INFINITY) fail_msg("%s: logit %zu is %g, not %g", what, i, (double)got[i], (double)want[i]);
        size_t above = 0;
        for (size_t j = 0; j < n; j++) above += want[j] > want[i];
        if (above < top) fail_msg("%s: logit %zu is among the %zu largest, and was dropped", what, i, top);
        dropped++;
    }
    return dropped;
}

static size_t screen_once(const tern_context *ctx, tern_screen *s, const tern_act_view *view, float *y, size_t top,
                          size_t tiles) {
    tern_screen_begin(s, &ctx->kernels, view, top, tiles);
    for (tern_screen_part part = 0; part < TERN_SCREEN_PARTS; part++) {
        for (size_t i = tern_screen_part_tiles(tiles, part); i-- > 0;) tern_screen_bound(s, &ctx->kernels, y, part, i);
        tern_screen_decide(s, &ctx->kernels, y, part);
    }
    for (size_t tile = tiles; tile-- > 0;) tern_screen_finish(s, &ctx->kernels, y, tile);
    return top;
}

typedef struct problem {
    size_t n, k;
    matrix_kind matrix;
    sample_kind samples;
} problem;

// Rows that were dropped, over all kinds of tokens.
static size_t check_problem(tern_context *ctx, const problem *p) {
    static uint8_t rows[N_MAX * K_MAX * sizeof(float)];
    static float x[K_MAX], want[N_MAX], got[N_MAX], sample[K_MAX];
    static int8_t codes[N_MAX * K_MAX];
    const size_t n = p->n, k = p->k;
    fill_rows(rows, p->matrix, n, k);
    const bool floats = p->matrix == FLOATS;
    const tern_blocks blocks = {.ggml_type = floats ? F32 : TERN_GGML_Q8_0,
                                .data = rows,
                                .size = floats ? n * k * sizeof(float) : n * (k / BLOCK) * BLOCK_BYTES,
                                .n = n,
                                .k = k};
    tern_weights *plain = NULL, *split = NULL;
    tern_activations *a = NULL;
    assert_int_equal(tern_weights_from_blocks(ctx, &plain, &blocks, TERN_RECODE_INT8, NULL, NULL), TERN_OK);
    assert_int_equal(tern_weights_from_blocks(ctx, &split, &blocks, TERN_RECODE_INT8_SPLIT, NULL, NULL), TERN_OK);
    assert_int_equal(split->layout, TERN_LAYOUT_I8S32);
    assert_int_equal(tern_activations_create(ctx, &a, 1, k), TERN_OK);
    assert_int_equal(tern_weights_unpack(ctx, split, codes, k), TERN_OK);
    tern_screen *s = tern_screen_create(ctx, split);
    assert_non_null(s);
    fill_samples(s, p->samples, sample, k);
    assert_true(tern_screen_find_directions(s, &ctx->kernels));
    tern_screen_mark(s, &ctx->kernels, 0, split->n_units);
    tern_screen_set_ready(s);
    size_t dropped = 0;
    for (token_kind kind = 0; kind < TOKEN_KINDS; kind++) {
        fill_token(x, kind, sample, codes + random_below(n) * k, k);
        assert_int_equal(tern_activations_set_f32(ctx, a, x, 1, k, k, BLOCK), TERN_OK);
        assert_int_equal(tern_matmul_f32(ctx, plain, a, want, n, NULL), TERN_OK);
        const size_t tops[] = {1, 5, n < TERN_SCREEN_TOP_MAX ? n : TERN_SCREEN_TOP_MAX, 1 + random_below(TERN_SCREEN_TOP_MAX)};
        for (size_t t = 0; t < sizeof tops / sizeof *tops; t++) {
            char what[200];
            (void)snprintf(what, sizeof what, "n %zu, k %zu, matrix %d, samples %d, token %d, top %zu, %s", n, k,
                           (int)p->matrix, (int)p->samples, (int)kind, tops[t], tern_tier_name(ctx->kernels.tier));
            (void)screen_once(ctx, s, &a->view, got, tops[t], 1 + random_below(split->n_units));
            dropped += check_logits(got, want, n, tops[t], what);
        }
    }
    tern_screen_destroy(s, &ctx->allocator);
    tern_activations_destroy(a);
    tern_weights_destroy(split);
    tern_weights_destroy(plain);
    return dropped;
}

static tern_context *open_tier(const char *tier, int threads) {
    tern_context *ctx = NULL;
    const tern_context_params cp = {.struct_size = sizeof cp, .threads = threads, .isa = tier};
    const tern_status status = tern_context_create(&ctx, &cp);
    assert_true(status == TERN_OK || status == TERN_ERR_CPU);
    return ctx;
}

static void nothing_that_may_win_is_dropped(void **unused) {
    (void)unused;
    for (size_t t = 0; t < N_TIERS; t++) {
        tern_context *ctx = open_tier(tiers[t], 1);
        if (!ctx) continue;
        test_begin_group();
        for (matrix_kind matrix = 0; matrix < MATRIX_KINDS; matrix++)
            for (sample_kind samples = 0; samples < SAMPLE_KINDS; samples++)
                for (size_t size = 0; size < 4; size++) {
                    if (!test_takes_case(next_random())) continue;
                    const size_t any_k = 33 + random_below(K_MAX - 32),
                                 k = matrix == FLOATS ? any_k : tern_round_up(any_k, BLOCK);
                    const size_t n = size == 0 ? 1 + random_below(9) : 1 + random_below(N_MAX);
                    const problem p = {n, k == BLOCK ? 2 * BLOCK : k, matrix, samples};
                    (void)check_problem(ctx, &p);
                }
        tern_context_destroy(ctx);
    }
}

static void states_near_few_directions_leave_few_rows(void **unused) {
    (void)unused;
    tern_context *ctx = open_tier(NULL, 1);
    const problem p = {N_MAX, K_MAX, RANDOM_CODES, FEW_DIRECTIONS};
    assert_true(check_problem(ctx, &p) > N_MAX); // of TOKEN_KINDS * 4 * N_MAX
    tern_context_destroy(ctx);
}

static void a_token_in_which_all_rows_stay_is_given_up_early(void **unused) {
    (void)unused;
    enum { N = 640, K = 320, TILES = 8 };
    static const double most_heads = 1.25; // where the marks of all rows and all of their bits were read: 1.57
    tern_context *ctx = open_tier(NULL, 1);
    static uint8_t rows[N * K / BLOCK * BLOCK_BYTES];
    static float x[K], want[N], got[N];
    const tern_blocks blocks = {.ggml_type = TERN_GGML_Q8_0, .data = rows, .size = sizeof rows, .n = N, .k = K};
    tern_weights *plain = NULL, *split = NULL;
    tern_activations *a = NULL;
    fill_rows(rows, LOW_NIBBLES, N, K);
    assert_int_equal(tern_weights_from_blocks(ctx, &plain, &blocks, TERN_RECODE_INT8, NULL, NULL), TERN_OK);
    assert_int_equal(tern_weights_from_blocks(ctx, &split, &blocks, TERN_RECODE_INT8_SPLIT, NULL, NULL), TERN_OK);
    assert_int_equal(tern_activations_create(ctx, &a, 1, K), TERN_OK);
    tern_screen *s = tern_screen_create(ctx, split);
    assert_non_null(s);
    fill_samples(s, RANDOM_SAMPLES, x, K);
    assert_true(tern_screen_find_directions(s, &ctx->kernels));
    tern_screen_mark(s, &ctx->kernels, 0, split->n_units);
    tern_screen_set_ready(s);
    assert_true(tern_screen_pays(s));
    fill_token(x, RANDOM_X, NULL, NULL, K);
    assert_int_equal(tern_activations_set_f32(ctx, a, x, 1, K, K, BLOCK), TERN_OK);
    assert_int_equal(tern_matmul_f32(ctx, plain, a, want, N, NULL), TERN_OK);
    (void)screen_once(ctx, s, &a->view, got, 1, TILES);
    (void)check_logits(got, want, N, 1, "given up");
    const tern_screen_counts counts = tern_screen_count(s);
    assert_int_equal(counts.given_up, 1);
    assert_true((double)counts.bytes <= most_heads * (double)tern_weights_bytes(plain));
    assert_false(tern_screen_pays(s));
    tern_screen_destroy(s, &ctx->allocator);
    tern_activations_destroy(a);
    tern_weights_destroy(split);
    tern_weights_destroy(plain);
    tern_context_destroy(ctx);
}

static void samples_that_are_not_finite_are_forgotten(void **unused) {
    (void)unused;
    tern_context *ctx = open_tier(NULL, 1);
    static uint8_t rows[64 * 2 * BLOCK_BYTES];
    static float sample[64];
    const tern_blocks blocks = {.ggml_type = TERN_GGML_Q8_0, .data = rows, .size = sizeof rows, .n = 64, .k = 64};
    tern_weights *w = NULL;
    assert_int_equal(tern_weights_from_blocks(ctx, &w, &blocks, TERN_RECODE_INT8_SPLIT, NULL, NULL), TERN_OK);
    tern_screen *s = tern_screen_create(ctx, w);
    assert_non_null(s);
    fill_samples(s, RANDOM_SAMPLES, sample, 64);
    tern_screen_sample(s)[-1] = NAN;
    assert_false(tern_screen_find_directions(s, &ctx->kernels));
    tern_screen_set_ready(s);
    assert_false(tern_screen_pays(s));
    assert_int_equal(tern_screen_wanted(s), TERN_SCREEN_SAMPLES);
    tern_screen_destroy(s, &ctx->allocator);
    tern_weights_destroy(w);
    tern_context_destroy(ctx);
}

// ---- whole models -------------------------------------------------------------------------------------------------------

enum { PROMPT = 70, STEPS = 24, CTX = 128, VOCAB_MAX = 1024 };

typedef struct rig {
    tern_context *ctx;
    tern_model *model;
    tern_session *session;
    size_t n_vocab;
} rig;

static void open_model(rig *r, const char *path, tern_head_form head, int threads, tern_kv_type kv) {
    *r = (rig){0};
    const tern_context_params cp = {.struct_size = sizeof cp, .threads = threads, .allocator = &counted};
    const tern_model_params mp = {.struct_size = sizeof mp, .head = head};
    const tern_session_params sp = {.struct_size = sizeof sp, .n_ctx = CTX, .kv = kv};
    tern_model_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_context_create(&r->ctx, &cp), TERN_OK);
    if (tern_model_load(r->ctx, &r->model, path, &mp) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
    assert_int_equal(tern_model_get_info(r->model, &info), TERN_OK);
    assert_true(info.n_vocab <= VOCAB_MAX);
    r->n_vocab = info.n_vocab;
    assert_int_equal(tern_session_create(r->model, &r->session, &sp), TERN_OK);
}

static void close_model(rig *r) {
    tern_session_destroy(r->session);
    tern_model_destroy(r->model);
    tern_context_destroy(r->ctx);
}

static void decode(rig *r, const int32_t *tokens, size_t n) {
    tern_session *sessions[PROMPT];
    for (size_t i = 0; i < n; i++) sessions[i] = r->session;
    if (tern_decode_batch(r->model, sessions, tokens, n) != TERN_OK) fail_msg("%s", tern_context_error(r->ctx));
}

static int32_t greedy(const rig *r) {
    const float *logits = tern_session_logits(r->session);
    int32_t best = 0;
    for (size_t i = 1; i < r->n_vocab; i++)
        if (logits[i] > logits[best]) best = (int32_t)i;
    return best;
}

static const char *const models[] = {TERN_TEST_MODELS "/tiny-gqa-q8_0.gguf", TERN_TEST_MODELS "/tiny-head-f16.gguf",
                                     TERN_TEST_MODELS "/tiny-head-f32.gguf"};

static void compare_models(const char *path, int threads, size_t top) {
    rig plain, screened;
    open_model(&plain, path, TERN_HEAD_INT8, 1, TERN_KV_F16);
    open_model(&screened, path, TERN_HEAD_SCREENED, threads, TERN_KV_F16);
    assert_int_equal(tern_session_set_top(screened.session, top), TERN_OK);
    int32_t tokens[PROMPT];
    for (size_t i = 0; i < PROMPT; i++) tokens[i] = (int32_t)((i * 7919 + 13) % plain.n_vocab);
    size_t before = 0, dropped = 0;
    for (size_t step = 0; step < STEPS; step++) {
        const size_t n = step == 0 ? PROMPT : 1;
        decode(&plain, tokens, n);
        allocations = 0;
        counting = true;
        decode(&screened, tokens, n);
        counting = false;
        assert_int_equal(allocations, 0); // not even where directions are found
        dropped +=
            check_logits(tern_session_logits(screened.session), tern_session_logits(plain.session), plain.n_vocab, top, path);
        assert_int_equal(greedy(&screened), greedy(&plain));
        tokens[0] = greedy(&plain);
        tern_screen_info info = {.struct_size = sizeof info};
        assert_int_equal(tern_model_get_screen(screened.model, &info), TERN_OK);
        assert_int_equal(info.tokens + info.paused, top ? step : 0); // the prompt itself is learned from
        assert_true(info.bytes >= before);
        before = info.bytes;
    }
    assert_true((dropped > 0) == (top > 0));
    tern_screen_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_model_get_screen(plain.model, &info), TERN_ERR_UNSUPPORTED);
    close_model(&plain);
    close_model(&screened);
}

static void models_give_the_tokens_of_the_int8_head(void **unused) {
    (void)unused;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++)
        for (int threads = 1; threads <= 5; threads += threads == 1 ? 1 : 3)
            for (size_t top = 0; top <= 5; top += top ? 4 : 1) compare_models(models[m], threads, top);
    assert_int_equal(live_bytes, 0);
}

static void short_prompts_are_learned_from_token_by_token(void **unused) {
    (void)unused;
    rig r;
    open_model(&r, models[0], TERN_HEAD_SCREENED, 2, TERN_KV_F16);
    assert_int_equal(tern_session_set_top(r.session, 1), TERN_OK);
    for (int32_t i = 0; i < TERN_SCREEN_FIRST + 3; i++) {
        tern_screen_info info = {.struct_size = sizeof info};
        decode(&r, &i, 1);
        assert_int_equal(tern_model_get_screen(r.model, &info), TERN_OK);
        const size_t seen = (size_t)i + 1;
        assert_int_equal(info.tokens + info.paused, seen < TERN_SCREEN_FIRST ? 0 : seen - TERN_SCREEN_FIRST);
    }
    close_model(&r);
}

static void batches_and_decode_logits_get_all_logits(void **unused) {
    (void)unused;
    rig r;
    open_model(&r, models[0], TERN_HEAD_SCREENED, 2, TERN_KV_F16);
    tern_session *other = NULL;
    const tern_session_params sp = {.struct_size = sizeof sp, .n_ctx = CTX};
    assert_int_equal(tern_session_create(r.model, &other, &sp), TERN_OK);
    assert_int_equal(tern_session_set_top(r.session, 1), TERN_OK);
    assert_int_equal(tern_session_set_top(other, 1), TERN_OK);
    int32_t tokens[PROMPT] = {1, 2};
    decode(&r, tokens, PROMPT);
    tern_session *both[] = {r.session, other};
    assert_int_equal(tern_decode_batch(r.model, both, tokens, 2), TERN_OK);
    for (size_t i = 0; i < r.n_vocab; i++)
        assert_true(isfinite(tern_session_logits(r.session)[i]) && isfinite(tern_session_logits(other)[i]));
    static float logits[VOCAB_MAX];
    assert_int_equal(tern_decode_logits(r.model, r.session, tokens, 1, logits, r.n_vocab), TERN_OK);
    for (size_t i = 0; i < r.n_vocab; i++) assert_true(isfinite(logits[i]));
    assert_int_equal(tern_session_set_top(NULL, 1), TERN_ERR_ARG);
    tern_session_destroy(other);
    close_model(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_that_may_win_is_dropped),
        cmocka_unit_test(states_near_few_directions_leave_few_rows),
        cmocka_unit_test(a_token_in_which_all_rows_stay_is_given_up_early),
        cmocka_unit_test(samples_that_are_not_finite_are_forgotten),
        cmocka_unit_test(models_give_the_tokens_of_the_int8_head),
        cmocka_unit_test(short_prompts_are_learned_from_token_by_token),
        cmocka_unit_test(batches_and_decode_logits_get_all_logits),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
