// SPDX-License-Identifier: MIT
// Every GEMM variant this CPU has, through the public API, against the oracle: exact integers for any shape and thread count.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "guard_alloc.h"
#include "tern/diagnostics.h"
#include "test_scale.h"

enum { MAX_VARIANTS = 64, N_CONTEXTS = 3, RANDOM_CASES = 10000 };

static const int thread_counts[N_CONTEXTS] = {1, 2, 5};
static tern_context *contexts[N_CONTEXTS];
static unsigned guard_counter;
static uint64_t state;

static uint64_t next_random(void) { // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1Dull;
}
static size_t random_below(size_t n) { return (size_t)(next_random() % n); }

// ---- one case ---------------------------------------------------------------------------------------------------

typedef enum fill { FILL_RANDOM, FILL_MIN, FILL_MAX, FILL_ALTERNATE, FILL_MATCH, FILL_ORDER } fill;

typedef struct shape {
    size_t m, n, k;
} shape;

static int8_t extreme_code(fill how, bool ternary, size_t n, size_t k) {
    const int8_t low = ternary ? -1 : INT8_MIN, high = ternary ? 1 : INT8_MAX;
    switch (how) {
    case FILL_MIN:
        return low;
    case FILL_MAX:
        return high;
    case FILL_ALTERNATE:
        return (n + k) % 2 ? low : high;
    case FILL_ORDER:
        return ternary ? (int8_t)((k / (size_t)pow(3, (double)(k % 5)) + n) % 3) - 1 : (int8_t)(n + k);
    default:
        return ternary ? (int8_t)random_below(3) - 1 : (int8_t)random_below(256);
    }
}

static int8_t extreme_x(fill how, size_t m, size_t k) {
    switch (how) {
    case FILL_MIN:
        return INT8_MIN;
    case FILL_MAX:
        return INT8_MAX;
    case FILL_ALTERNATE:
        return (m + k) % 2 ? INT8_MIN : INT8_MAX;
    default:
        return (int8_t)random_below(256);
    }
}

// Buffers end at an unmapped page.
static void *guarded(size_t size) {
    unsigned end = 0;
    return guard_alloc(&end, size, 1);
}
static void release(void *p, size_t size) { guard_free(NULL, p, size); }

static void check_case(const char *symbol, bool ternary, shape s, fill w_fill, fill x_fill, unsigned context_mask) {
    if (!test_takes_case(next_random())) return;
    int8_t *w = guarded(s.n * s.k), *x = guarded(s.m * s.k), *back = guarded(s.n * s.k);
    int32_t *want = guarded(s.m * s.n * 4), *got = guarded(s.m * s.n * 4);
    for (size_t i = 0; i < s.m; i++)
        for (size_t k = 0; k < s.k; k++) x[i * s.k + k] = extreme_x(x_fill, i, k);
    for (size_t n = 0; n < s.n; n++)
        for (size_t k = 0; k < s.k; k++)
            w[n * s.k + k] = w_fill == FILL_MATCH ? (int8_t)(x[k] < 0 ? (ternary ? -1 : INT8_MIN) : (ternary ? 1 : INT8_MAX))
                                                  : extreme_code(w_fill, ternary, n, k);
    tern_oracle_s32(want, w, x, s.m, s.n, s.k, s.n, s.k, s.k);
    const float one = 1.0f;
    for (int c = 0; c < N_CONTEXTS; c++) {
        if (!(context_mask >> c & 1)) continue;
        tern_context *ctx = contexts[c];
        tern_weights *packed = NULL;
        tern_activations *a = NULL;
        assert_int_equal(tern_force_variant(ctx, symbol), TERN_OK);
        assert_int_equal(ternary ? tern_weights_from_trits(ctx, &packed, w, &one, 0, s.n, s.k, s.k, NULL)
                                 : tern_weights_from_s8(ctx, &packed, w, &one, 0, s.n, s.k, s.k, NULL),
                         TERN_OK);
        assert_int_equal(tern_activations_create(ctx, &a, s.m, s.k), TERN_OK);
        assert_int_equal(tern_activations_set_s8(ctx, a, x, NULL, s.m, s.k, s.k, 0), TERN_OK);
        tern_weights_info info = {.struct_size = sizeof info};
        assert_int_equal(tern_weights_get_info(ctx, packed, &info), TERN_OK);
        assert_string_equal(info.kernel, symbol); // what ran is what was asked for
        memset(got, 0x5A, s.m * s.n * 4);
        assert_int_equal(tern_matmul_s32(ctx, packed, a, got, s.n), TERN_OK);
        if (memcmp(got, want, s.m * s.n * 4) != 0) {
            for (size_t i = 0; i < s.m * s.n; i++)
                if (got[i] != want[i])
                    fail_msg("%s, %d threads: m %zu n %zu k %zu fill %d/%d: y[%zu][%zu] = %d, oracle %d", symbol,
                             thread_counts[c], s.m, s.n, s.k, (int)w_fill, (int)x_fill, i / s.n, i % s.n, got[i], want[i]);
        }
        assert_int_equal(tern_weights_unpack(ctx, packed, back, s.k), TERN_OK);
        assert_memory_equal(back, w, s.n * s.k);
        tern_activations_destroy(a);
        tern_weights_destroy(packed);
        assert_int_equal(tern_force_variant(ctx, NULL), TERN_OK);
    }
    release(w, s.n * s.k);
    release(x, s.m * s.k);
    release(back, s.n * s.k);
    release(want, s.m * s.n * 4);
    release(got, s.m * s.n * 4);
}

// ---- over all variants --------------------------------------------------------------------------------------------

typedef void case_fn(const char *symbol, bool ternary);

static void each_variant(case_fn *fn) {
    size_t ran = 0;
    for (size_t i = 0; i < tern_variant_count(); i++) {
        tern_variant_info info = {.struct_size = sizeof info};
        assert_int_equal(tern_variant_get(contexts[0], i, &info), TERN_OK);
        const bool ternary = !strcmp(info.stage, "lut_gemm") || !strcmp(info.stage, "mad_gemm");
        if (!info.usable || (!ternary && strcmp(info.stage, "int8_gemm") != 0)) continue;
        test_begin_group();
        fn(info.symbol, ternary);
        ran++;
    }
    assert_true(ran >= 4); // scalar LUT in two layouts, scalar MAD, scalar INT8 exist on every machine
}

enum { ALL_CONTEXTS = (1 << N_CONTEXTS) - 1 };

static void sweep_dimensions(const char *symbol, bool ternary) {
    static const size_t others[][2] = {{1, 1}, {7, 63}, {130, 5}};
    for (size_t o = 0; o < sizeof others / sizeof *others; o++) {
        const size_t a = others[o][0], b = others[o][1];
        const unsigned one = 1u << o;
        for (size_t m = 1; m <= 33; m++) check_case(symbol, ternary, (shape){m, a, b}, FILL_RANDOM, FILL_RANDOM, one);
        for (size_t n = 1; n <= 257; n += n < 140 ? 1 : 13)
            check_case(symbol, ternary, (shape){a % 9 + 1, n, b}, FILL_RANDOM, FILL_RANDOM, one);
        for (size_t k = 1; k <= 257; k++) check_case(symbol, ternary, (shape){b % 9 + 1, a, k}, FILL_RANDOM, FILL_RANDOM, one);
    }
}

static void odd_shapes(const char *symbol, bool ternary) {
    static const shape shapes[] = {{1, 1, 1},     {1, 63, 7},   {3, 7, 63},    {1, 641, 2561}, {5, 641, 1023},
                                   {2, 2049, 96}, {17, 100, 1}, {70, 130, 65}, {1, 4100, 33}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_case(symbol, ternary, shapes[i], FILL_RANDOM, FILL_RANDOM, ALL_CONTEXTS);
}

static void extremes(const char *symbol, bool ternary) {
    static const fill w_fills[] = {FILL_MIN, FILL_MAX, FILL_ALTERNATE, FILL_MATCH, FILL_ORDER},
                      x_fills[] = {FILL_MIN, FILL_MAX, FILL_ALTERNATE, FILL_RANDOM};
    static const shape shapes[] = {{1, 65, 2560}, {3, 17, 4099}, {5, 129, 300}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t i = 0; i < sizeof w_fills / sizeof *w_fills; i++)
            for (size_t j = 0; j < sizeof x_fills / sizeof *x_fills; j++)
                check_case(symbol, ternary, shapes[s], w_fills[i], x_fills[j], 1u << (i + j) % N_CONTEXTS);
    // the deepest product there is: sums reach the ends of int32
    check_case(symbol, ternary, (shape){1, 3, TERN_K_MAX}, FILL_MIN, FILL_MIN, 1);
    check_case(symbol, ternary, (shape){2, 3, TERN_K_MAX}, FILL_MATCH, FILL_ALTERNATE, 1);
}

static void random_cases(const char *symbol, bool ternary) {
    for (size_t i = 0; i < RANDOM_CASES; i++) {
        // mostly small, sometimes one long side
        shape s = {1 + random_below(6), 1 + random_below(90), 1 + random_below(130)};
        if (i % 32 == 0) s.m = 1 + random_below(80);
        if (i % 16 == 1) s.n = 1 + random_below(1200);
        if (i % 16 == 2) s.k = 1 + random_below(3000);
        check_case(symbol, ternary, s, FILL_RANDOM, FILL_RANDOM, 1u << i % N_CONTEXTS);
    }
}

static void every_variant_matches_the_oracle_in_every_dimension(void **unused) {
    (void)unused;
    each_variant(sweep_dimensions);
}
static void every_variant_takes_odd_shapes_with_1_2_and_5_threads(void **unused) {
    (void)unused;
    each_variant(odd_shapes);
}
static void every_variant_is_exact_at_the_extremes(void **unused) {
    (void)unused;
    each_variant(extremes);
}
static void every_variant_matches_the_oracle_on_random_shapes(void **unused) {
    (void)unused;
    each_variant(random_cases);
}

// Every byte a T5, T2N or M2 layout can hold: 243 five-trit patterns against random activations, each in its own row.
static void patterns(const char *symbol, bool ternary) {
    if (!ternary) return;
    enum { N = 243, K = 20 };
    int8_t w[N * K], x[K];
    int32_t want[N], got[N];
    for (size_t n = 0; n < N; n++)
        for (size_t k = 0, code = n; k < K; k++) {
            w[n * K + k] = (int8_t)(code % 3) - 1;
            code = k % 5 == 4 ? n + k : code / 3;
        }
    for (size_t k = 0; k < K; k++) x[k] = extreme_x(FILL_RANDOM, 0, k);
    tern_oracle_s32(want, w, x, 1, N, K, N, K, K);
    const float one = 1.0f;
    tern_weights *packed = NULL;
    tern_activations *a = NULL;
    assert_int_equal(tern_force_variant(contexts[1], symbol), TERN_OK);
    assert_int_equal(tern_weights_from_trits(contexts[1], &packed, w, &one, 0, N, K, K, NULL), TERN_OK);
    assert_int_equal(tern_activations_create(contexts[1], &a, 1, K), TERN_OK);
    assert_int_equal(tern_activations_set_s8(contexts[1], a, x, NULL, 1, K, K, 0), TERN_OK);
    assert_int_equal(tern_matmul_s32(contexts[1], packed, a, got, N), TERN_OK);
    assert_memory_equal(got, want, sizeof got);
    tern_activations_destroy(a);
    tern_weights_destroy(packed);
    assert_int_equal(tern_force_variant(contexts[1], NULL), TERN_OK);
}
static void every_code_pattern_is_read_right(void **unused) {
    (void)unused;
    each_variant(patterns);
}

// ---- the oracle itself, and the float results -----------------------------------------------------------------------

static void the_oracle_agrees_with_a_float64_formula(void **unused) {
    (void)unused;
    enum { M = 5, N = 37, K = 1000 };
    static int8_t w[N * K], x[M * K];
    int32_t y[M * N];
    for (size_t i = 0; i < sizeof w; i++) w[i] = (int8_t)random_below(256);
    for (size_t i = 0; i < sizeof x; i++) x[i] = (int8_t)random_below(256);
    tern_oracle_s32(y, w, x, M, N, K, N, K, K);
    for (size_t m = 0; m < M; m++)
        for (size_t n = 0; n < N; n++) {
            // |a + b|^2 = |a|^2 + 2ab + |b|^2: the dot product by another road
            double sum = 0, a = 0, b = 0;
            for (size_t k = 0; k < K; k++) {
                const double p = x[m * K + k], q = w[n * K + k];
                sum += (p + q) * (p + q);
                a += p * p;
                b += q * q;
            }
            assert_true((double)y[m * N + n] == (sum - a - b) / 2);
        }
}

static void float_results_are_bit_identical_on_every_tier_and_thread_count(void **unused) {
    (void)unused;
    enum { M = 6, N = 70, K = 576 };
    static const char *const tiers[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};
    static float w[N * K], x[M * K], bias[N], residual[M * N], want[M * N], got[M * N];
    for (size_t i = 0; i < N * K; i++) w[i] = (float)((double)random_below(20001) / 10000 - 1);
    for (size_t i = 0; i < M * K; i++) x[i] = (float)((double)random_below(20001) / 1000 - 10);
    for (size_t i = 0; i < N; i++) bias[i] = (float)i;
    for (size_t i = 0; i < M * N; i++) residual[i] = (float)(i % 13);
    for (int kind = 0; kind < 3; kind++) { // int8 per 32, int8 per row, ternary
        bool have = false;
        double error = 0, norm = 0;
        for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++)
            for (int threads = 1; threads <= 3; threads++) {
                tern_context *ctx = NULL;
                const tern_context_params params = {.struct_size = sizeof params, .threads = threads, .isa = tiers[t]};
                const tern_status status = tern_context_create(&ctx, &params);
                if (status == TERN_ERR_CPU) continue; // this CPU has fewer tiers
                assert_int_equal(status, TERN_OK);
                tern_weights *packed = NULL;
                tern_activations *a = NULL;
                assert_int_equal(kind == 2 ? tern_weights_from_f32_ternary(ctx, &packed, w, N, K, K, NULL)
                                           : tern_weights_from_f32_int8(ctx, &packed, w, kind ? K : 32, N, K, K, NULL),
                                 TERN_OK);
                tern_weights_info info = {.struct_size = sizeof info};
                assert_int_equal(tern_weights_get_info(ctx, packed, &info), TERN_OK);
                assert_int_equal(tern_activations_create(ctx, &a, M, K), TERN_OK);
                assert_int_equal(tern_activations_set_f32(ctx, a, x, M, K, K, info.act_block), TERN_OK);
                const tern_epilogue epilogue = {sizeof epilogue, bias, residual, N};
                assert_int_equal(tern_matmul_f32(ctx, packed, a, got, N, &epilogue), TERN_OK);
                if (!have) memcpy(want, got, sizeof want);
                have = true;
                assert_memory_equal(got, want, sizeof want);
                tern_activations_destroy(a);
                tern_weights_destroy(packed);
                tern_context_destroy(ctx);
            }
        assert_true(have);
        if (kind == 2) continue; // absmean rounds weights away; exactness of its integers is tested above
        for (size_t m = 0; m < M; m++)
            for (size_t n = 0; n < N; n++) {
                double y = 0;
                for (size_t k = 0; k < K; k++) y += (double)x[m * K + k] * (double)w[n * K + k];
                const double e = (double)want[m * N + n] - (y + (double)bias[n] + (double)residual[m * N + n]);
                error += e * e;
                norm += y * y;
            }
        assert_true(sqrt(error / norm) < 0.02); // int8 on both sides
    }
}

enum { BLOCK_M = 3, BLOCK_N = 67, BLOCK_K = 640, SCALE_BLOCK = 256, N_BLOCKS = 3 };
static struct {
    int8_t w[BLOCK_N * BLOCK_K];
    float scales[BLOCK_N * N_BLOCKS], x[BLOCK_M * BLOCK_K], first[BLOCK_M * BLOCK_N]; // first: what the first variant returned
    bool have_first;
} blocks;

static void block_scales(const char *symbol, bool ternary) {
    enum { M = BLOCK_M, N = BLOCK_N, K = BLOCK_K };
    if (!ternary) return;
    tern_context *ctx = contexts[1];
    tern_weights *packed = NULL;
    tern_activations *a = NULL;
    float got[M * N];
    int32_t ints[M * N];
    assert_int_equal(tern_force_variant(ctx, symbol), TERN_OK);
    assert_int_equal(tern_weights_from_trits(ctx, &packed, blocks.w, blocks.scales, SCALE_BLOCK, N, K, K, NULL), TERN_OK);
    assert_int_equal(tern_activations_create(ctx, &a, M, K), TERN_OK);
    assert_int_equal(tern_activations_set_f32(ctx, a, blocks.x, M, K, K, SCALE_BLOCK), TERN_OK);
    assert_int_equal(tern_matmul_f32(ctx, packed, a, got, N, NULL), TERN_OK);
    assert_int_equal(tern_matmul_s32(ctx, packed, a, ints, N), TERN_ERR_UNSUPPORTED);
    assert_int_equal(tern_force_variant(ctx, NULL), TERN_OK);
    for (size_t m = 0; m < M; m++)
        for (size_t n = 0; n < N; n++) {
            double y = 0, size = 0;
            for (size_t k = 0; k < K; k++) {
                const double part =
                    (double)blocks.x[m * K + k] * blocks.w[n * K + k] * (double)blocks.scales[n * N_BLOCKS + k / SCALE_BLOCK];
                y += part;
                size += part * part;
            }
            assert_true(fabs((double)got[m * N + n] - y) < 0.02 * sqrt(size) + 1e-6);
        }
    if (!blocks.have_first) memcpy(blocks.first, got, sizeof got);
    blocks.have_first = true;
    if (memcmp(got, blocks.first, sizeof got) != 0) fail_msg("%s: other bits than the first variant", symbol);
    tern_activations_destroy(a);
    tern_weights_destroy(packed);
}

static void block_scales_match_a_float64_formula_bit_for_bit_alike_in_every_ternary_variant(void **unused) {
    (void)unused;
    for (size_t i = 0; i < BLOCK_N * BLOCK_K; i++) blocks.w[i] = extreme_code(FILL_RANDOM, true, 0, 0);
    for (size_t i = 0; i < BLOCK_N * N_BLOCKS; i++) blocks.scales[i] = (float)(1 + random_below(100)) / 64;
    for (size_t i = 0; i < BLOCK_M * BLOCK_K; i++) blocks.x[i] = (float)((double)random_below(2001) / 1000 - 1);
    each_variant(block_scales);
}

// ---- where activations may lie --------------------------------------------------------------------------------------

typedef enum source { FROM_S8, FROM_U8, FROM_F32, FROM_F16, FROM_BF16, SOURCES } source;
static const size_t source_bytes[SOURCES] = {1, 1, 4, 2, 2};

static tern_status set_from(source from, tern_activations *a, const void *x, size_t m, size_t k, size_t ldx) {
    switch (from) {
    case FROM_S8:
        return tern_activations_set_s8(contexts[1], a, x, NULL, m, k, ldx, 0);
    case FROM_U8:
        return tern_activations_set_u8(contexts[1], a, x, NULL, NULL, m, k, ldx, 0);
    case FROM_F32:
        return tern_activations_set_f32(contexts[1], a, x, m, k, ldx, 0);
    case FROM_F16:
        return tern_activations_set_f16(contexts[1], a, x, m, k, ldx, 0);
    default:
        return tern_activations_set_bf16(contexts[1], a, x, m, k, ldx, 0);
    }
}

// Values that stand for finite numbers in every one of the types.
static void fill_values(unsigned char *x, size_t count, source from) {
    for (size_t i = 0; i < count; i++) {
        const float f32 = (float)((double)random_below(2001) / 1000 - 1);
        const uint16_t f16 = (uint16_t)(random_below(2) << 15 | random_below(0x7C00)),
                       bf16 = (uint16_t)(random_below(2) << 15 | (0x3F00 + random_below(0x100)));
        const unsigned char byte = (unsigned char)random_below(256);
        const void *value = from == FROM_F32    ? (const void *)&f32
                            : from == FROM_F16  ? &f16
                            : from == FROM_BF16 ? (const void *)&bf16
                                                : &byte;
        memcpy(x + i * source_bytes[from], value, source_bytes[from]);
    }
}

static void activations_may_lie_at_every_address_with_any_leading_dimension(void **unused) {
    (void)unused;
    enum { M = 2, N = 70, K = 101, LINE = 64, BYTES = 4 };
    static int8_t w[N * K];
    static unsigned char dense[M * K * BYTES] __attribute__((aligned(LINE)));
    const float one = 1.0f;
    for (size_t i = 0; i < sizeof w; i++) w[i] = extreme_code(FILL_RANDOM, true, 0, 0);
    tern_context *ctx = contexts[1];
    tern_weights *packed[2] = {NULL, NULL};
    tern_activations *a = NULL;
    for (int lut = 0; lut < 2; lut++) {
        const tern_weights_params params = {.struct_size = sizeof params, .form = lut ? TERN_FORM_LUT : TERN_FORM_MAD};
        assert_int_equal(tern_weights_from_trits(ctx, &packed[lut], w, &one, 0, N, K, K, &params), TERN_OK);
    }
    assert_int_equal(tern_activations_create(ctx, &a, M, K), TERN_OK);
    for (int from = 0; from < SOURCES; from++) {
        const size_t bytes = source_bytes[from];
        float want[M * N], got[M * N];
        fill_values(dense, (size_t)M * K, (source)from);
        assert_int_equal(set_from((source)from, a, dense, M, K, K), TERN_OK);
        assert_int_equal(tern_matmul_f32(ctx, packed[0], a, want, N, NULL), TERN_OK);
        // The last row ends at an unmapped page, so that each distance puts the first one at another place of its cache line.
        for (size_t ldx = K; ldx < K + LINE / bytes; ldx++) {
            const size_t size = (ldx + K) * bytes;
            unsigned char *x = guarded(size);
            memset(x, 0xFF, size); // a NaN between the rows: it must not be read
            for (size_t m = 0; m < M; m++) memcpy(x + m * ldx * bytes, dense + m * K * bytes, K * bytes);
            for (int lut = 0; lut < 2; lut++) {
                assert_int_equal(set_from((source)from, a, x, M, K, ldx), TERN_OK);
                assert_int_equal(tern_matmul_f32(ctx, packed[lut], a, got, N, NULL), TERN_OK);
                if (memcmp(got, want, sizeof got) != 0) fail_msg("type %d, ldx %zu", from, ldx);
            }
            release(x, size);
        }
    }
    tern_activations_destroy(a);
    tern_weights_destroy(packed[0]);
    tern_weights_destroy(packed[1]);
}

static void wrong_arguments_are_refused_and_leave_outputs_alone(void **unused) {
    (void)unused;
    tern_context *ctx = contexts[0];
    const int8_t bad[2] = {1, 2};
    const float one = 1.0f, nan_x[2] = {1.0f, NAN};
    tern_weights *w = NULL;
    tern_activations *a = NULL;
    int32_t y = 77;
    assert_int_equal(tern_weights_from_trits(ctx, &w, bad, &one, 0, 1, 2, 2, NULL), TERN_ERR_ARG);
    assert_null(w);
    assert_non_null(strstr(tern_context_error(ctx), "not a trit"));
    assert_int_equal(tern_weights_from_trits(ctx, &w, bad, &one, 0, 1, 0, 2, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_trits(ctx, &w, bad, &one, 0, 1, TERN_K_MAX + 1, TERN_K_MAX + 1, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_s8(ctx, &w, bad, &one, 5, 1, 2, 2, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_weights_from_s8(ctx, &w, bad, &one, 0, 1, 2, 2, NULL), TERN_OK);
    assert_int_equal(tern_activations_create(ctx, &a, 1, 4), TERN_OK);
    assert_int_equal(tern_matmul_s32(ctx, w, a, &y, 1), TERN_ERR_STATE);
    assert_int_equal(tern_activations_set_f32(ctx, a, nan_x, 1, 2, 2, 0), TERN_ERR_ARG);
    assert_int_equal(tern_activations_set_s8(ctx, a, (int8_t[]){1, 2, 3}, NULL, 1, 3, 3, 0), TERN_OK);
    assert_int_equal(tern_matmul_s32(ctx, w, a, &y, 1), TERN_ERR_ARG);
    assert_non_null(strstr(tern_context_error(ctx), "depths differ"));
    assert_int_equal(y, 77);
    tern_activations_destroy(a);
    tern_weights_destroy(w);
}

// ---- set-up -------------------------------------------------------------------------------------------------------

static int create_contexts(void **unused) {
    (void)unused;
    const char *given = getenv("TERN_TEST_SEED");
    state = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    if (state == 0) state = 1;
    print_message("TERN_TEST_SEED=%llu\n", (unsigned long long)state);
    const tern_allocator allocator = {guard_alloc, guard_free, &guard_counter};
    for (int i = 0; i < N_CONTEXTS; i++) {
        const tern_context_params params = {.struct_size = sizeof params, .threads = thread_counts[i], .allocator = &allocator};
        if (tern_context_create(&contexts[i], &params) != TERN_OK) return -1;
    }
    return 0;
}

static int destroy_contexts(void **unused) {
    (void)unused;
    for (int i = 0; i < N_CONTEXTS; i++) tern_context_destroy(contexts[i]);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oracle_agrees_with_a_float64_formula),
        cmocka_unit_test(every_code_pattern_is_read_right),
        cmocka_unit_test(every_variant_takes_odd_shapes_with_1_2_and_5_threads),
        cmocka_unit_test(every_variant_is_exact_at_the_extremes),
        cmocka_unit_test(every_variant_matches_the_oracle_in_every_dimension),
        cmocka_unit_test(every_variant_matches_the_oracle_on_random_shapes),
        cmocka_unit_test(float_results_are_bit_identical_on_every_tier_and_thread_count),
        cmocka_unit_test(block_scales_match_a_float64_formula_bit_for_bit_alike_in_every_ternary_variant),
        cmocka_unit_test(activations_may_lie_at_every_address_with_any_leading_dimension),
        cmocka_unit_test(wrong_arguments_are_refused_and_leave_outputs_alone),
    };
    return cmocka_run_group_tests(tests, create_contexts, destroy_contexts);
}
