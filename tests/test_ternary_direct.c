// SPDX-License-Identifier: MIT
// Calls each lut_build, lut_gemm and mad_gemm variant that this CPU has, without the library around it: against one plain int32
// loop over the trits, with unreadable pages around every buffer.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guard_buffer.h"
#include "kernel_variants.h"
#include "matmul/pack_ternary.h"
#include "matmul/weights.h"

static const variant *next_gemm(size_t *at) {
    test_begin_group();
    return next_variant(at, TERN_STAGE_lut_gemm, TERN_STAGE_mad_gemm);
}

// ---- layouts -----------------------------------------------------------------------------------------------------

// The scalar table builder of a layout.
static tern_lut_build_fn *scalar_build(tern_layout layout) {
    for (size_t v = 0; v < N_VARIANTS; v++) {
        if (variants[v].stage == TERN_STAGE_lut_build && variants[v].tier == TERN_TIER_SCALAR && variants[v].layout == layout)
            return (tern_lut_build_fn *)variants[v].fn;
    }
    fail_msg("layout %d has no scalar lut_build", (int)layout);
    return NULL;
}

// ---- values ----------------------------------------------------------------------------------------------------------

// The edges drive the byte sums of LUT kernels to their bounds, with trits all of one sign: every group's value is lo + step *
// hi with the largest |lo| and hi: 252 = -12 + 24 * 11 (T2N), 357 = -15 + 31 * 12 (T3).
typedef enum x_pattern { X_RANDOM, X_MIN, X_LOW, X_MAX, X_ALTERNATING, X_T2N_EDGE, X_T3_EDGE, X_PATTERNS } x_pattern;
typedef enum w_pattern { W_RANDOM, W_ONES, W_MINUS_ONES, W_MATCHED, W_OPPOSED, W_EVERY_CODE, W_PATTERNS } w_pattern;

static int8_t x_value(x_pattern pattern, size_t k) {
    switch (pattern) {
    case X_MIN:
        return INT8_MIN;
    case X_LOW:
        return -INT8_MAX;
    case X_MAX:
        return INT8_MAX;
    case X_ALTERNATING:
        return k % 2 ? INT8_MAX : INT8_MIN;
    case X_T2N_EDGE:
        return 252 / 2;
    case X_T3_EDGE:
        return 357 / 3;
    default:
        return (int8_t)(next_random() & 0xFF);
    }
}

static const size_t pow3[] = {1, 3, 9, 27, 81};

// Trit j of row i: digit j / stride % period of i in base 3, so that 3^period rows hold every value of `period` trits that lie
// `stride` apart, wherever a layout keeps them together in a byte or a nibble.
typedef struct code_grid {
    size_t stride, period;
} code_grid;
static const code_grid code_grids[] = {{1, 2}, {1, 3}, {1, 4}, {1, 5}, {1, 6}, {4, 4}};
static code_grid grid = {1, 5}; // of W_EVERY_CODE

static size_t grid_codes(void) {
    size_t codes = 1;
    for (size_t i = 0; i < grid.period; i++) codes *= 3;
    return codes;
}
static int8_t every_code(size_t i, size_t j) {
    for (size_t digit = j / grid.stride % grid.period; digit > 0; digit--) i /= 3;
    return (int8_t)((int)(i % 3) - 1);
}

// One problem: n x k trits, m x k activations, and the answer.
typedef struct problem {
    size_t n, m, k;
    int8_t *w, *x;
    int32_t *expected;
} problem;

static problem make_problem(size_t n, size_t m, size_t k, x_pattern xp, w_pattern wp) {
    problem p = {n, m, k, malloc(n * k), malloc(m * k), malloc(n * m * sizeof(int32_t))};
    assert_true(p.w && p.x && p.expected);
    for (size_t t = 0; t < m; t++)
        for (size_t j = 0; j < k; j++) p.x[t * k + j] = x_value(xp, j + t);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < k; j++) {
            const int8_t sign = p.x[j] < 0 ? -1 : 1;
            p.w[i * k + j] = wp == W_ONES         ? (int8_t)1
                             : wp == W_MINUS_ONES ? (int8_t)-1
                             : wp == W_MATCHED    ? sign
                             : wp == W_OPPOSED    ? (int8_t)-sign
                             : wp == W_EVERY_CODE ? every_code(i, j)
                                                  : (int8_t)((int)(next_random() % 3) - 1);
        }
    for (size_t t = 0; t < m; t++)
        for (size_t i = 0; i < n; i++) {
            int32_t sum = 0;
            for (size_t j = 0; j < k; j++) sum += p.w[i * k + j] * p.x[t * k + j];
            p.expected[t * n + i] = sum;
        }
    return p;
}
static void free_problem(problem p) {
    free(p.w);
    free(p.x);
    free(p.expected);
}

static void plain_loop_agrees_with_float64(void **unused) {
    (void)unused;
    static const size_t depths[] = {1, 7, 64, 1000, 131071};
    for (size_t d = 0; d < sizeof depths / sizeof depths[0]; d++)
        for (int xp = 0; xp < X_PATTERNS; xp++)
            for (int wp = 0; wp < W_PATTERNS; wp++) {
                const problem p = make_problem(3, 2, depths[d], (x_pattern)xp, (w_pattern)wp);
                for (size_t t = 0; t < p.m; t++)
                    for (size_t i = 0; i < p.n; i++) {
                        double plus = 0, minus = 0; // exact: far below 2^53
                        for (size_t j = 0; j < p.k; j++) {
                            if (p.w[i * p.k + j] > 0) plus += (double)p.x[t * p.k + j];
                            if (p.w[i * p.k + j] < 0) minus += (double)p.x[t * p.k + j];
                        }
                        assert_true(plus - minus == (double)p.expected[t * p.n + i]);
                    }
                free_problem(p);
            }
}

// ---- products ----------------------------------------------------------------------------------------------------------

enum { SENTINEL = 0x5A5A5A5A, ACC_GAP = 16, X_SUMS_STRIDE = 3, TABLES_GAP = 64 };

// What a variant may touch: every buffer touches an unreadable page. Valid until the next call.
static tern_gemm_args make_args(const problem *p, tern_layout layout) {
    const tern_layout_traits *traits = tern_layout_get(layout);
    const size_t n = tern_round_up(p->n, traits->row_align), k = p->k;
    tern_gemm_args args = {.n = n, .m = p->m, .k = k, .ld_acc = n + ACC_GAP};
    args.acc = guard_buffer(GUARD_OUT, tern_round_up(((p->m - 1) * args.ld_acc + n) * sizeof(int32_t), 64));
    uint8_t *packed = guard_buffer(GUARD_W, traits->bytes(n, k));
    tern_pack_ternary(layout, packed, p->w, k, n, 0, p->n, n, k);
    args.packed = packed;
    args.x_has_min = memchr(p->x, (unsigned char)INT8_MIN, p->m * k) != NULL;
    if (!traits->table_bytes) {
        args.ldx = tern_round_up(k, TERN_X_ALIGN);
        int8_t *x = guard_buffer(GUARD_X, (p->m - 1) * args.ldx + tern_round_up(k, TERN_M2_GROUP_K));
        args.ld_x_sums = X_SUMS_STRIDE;
        int32_t *sums = guard_buffer(GUARD_SUMS, ((p->m - 1) * X_SUMS_STRIDE + 1) * sizeof(int32_t));
        for (size_t t = 0; t < p->m; t++) {
            memcpy(x + t * args.ldx, p->x + t * k, k);
            for (size_t j = 0; j < k; j++) sums[t * X_SUMS_STRIDE] += p->x[t * k + j];
        }
        args.x = x;
        args.x_sums = sums;
    } else {
        const size_t rows = traits->table_rows(k), bytes = rows * traits->table_bytes;
        args.ld_tables = bytes + TABLES_GAP;
        int8_t *tables = guard_buffer(GUARD_TABLES, (p->m - 1) * args.ld_tables + bytes);
        for (size_t t = 0; t < p->m; t++) scalar_build(layout)(tables + t * args.ld_tables, p->x + t * k, k, 0, rows);
        args.tables = tables;
    }
    return args;
}

// Runs one variant on one problem and compares all it wrote, and that it wrote nothing else.
static void check_product(const variant *v, size_t n, size_t m, size_t k, x_pattern xp, w_pattern wp) {
    if (!test_takes_case(next_random())) return;
    const problem p = make_problem(n, m, k, xp, wp);
    const tern_gemm_args args = make_args(&p, v->layout);
    int32_t *acc = args.acc;
    const size_t total = (m - 1) * args.ld_acc + args.n;
    for (size_t i = 0; i < total; i++) acc[i] = SENTINEL;
    ((tern_gemm_fn *)v->fn)(&args);
    for (size_t t = 0; t < m; t++)
        for (size_t i = 0; i < args.ld_acc && t * args.ld_acc + i < total; i++) {
            const int32_t expected = i < n ? p.expected[t * n + i] : i < args.n ? 0 : SENTINEL;
            if (acc[t * args.ld_acc + i] != expected)
                fail_msg("%s: n %zu, m %zu, k %zu, patterns %d %d: token %zu, feature %zu is %d, not %d (seed %llu)", running,
                         n, m, k, (int)xp, (int)wp, t, i, acc[t * args.ld_acc + i], expected, (unsigned long long)random_seed);
        }
    free_problem(p);
}

// Twice the largest tiles of any kernel, plus one: blocks of 512 features (T5; panels: 128), 16 tokens, and depths of one int16
// spill: 48 byte rows of 5 trits (T5), 60 of 4 (T2N), 42 of 6 (T3), 64 of 4 (M2).
enum { N_SWEEP_SLAB = 2 * 512 + 1, N_SWEEP_PANEL = 2 * 128 + 1, M_SWEEP = 2 * 16 + 1, K_SWEEP = 2 * 256 + 1 };

typedef struct others {
    size_t a, b;
} others;

// One dimension from 1 to twice the largest tile against three pairs of the others. step: 1, or more for a sample of slab
// widths.
static void sweep_features(size_t slab_step) {
    static const others m_k[] = {{1, 33}, {2, 245}, {3, 97}};
    size_t checked = 0;
    for (size_t at = 0; next_gemm(&at); checked++) {
        const variant *v = &variants[at - 1];
        const bool slab = tern_layout_get(v->layout)->table_bytes != 0;
        const size_t step = slab ? slab_step : 1, last = slab ? N_SWEEP_SLAB : N_SWEEP_PANEL;
        for (size_t i = 0; i < 3; i++) {
            for (size_t n = 1; n <= last; n += step) check_product(v, n, m_k[i].a, m_k[i].b, X_RANDOM, W_RANDOM);
            check_product(v, TERN_SLAB_MAX, m_k[i].a, m_k[i].b, X_RANDOM, W_RANDOM);
        }
    }
    assert_true(checked > 0);
}

static void products_are_exact_for_many_numbers_of_features(void **unused) {
    (void)unused;
    sweep_features(61);
}
static void products_are_exact_for_every_number_of_features(void **unused) {
    (void)unused;
    sweep_features(1);
}

static void products_are_exact_for_every_number_of_tokens(void **unused) {
    (void)unused;
    static const others n_k[] = {{1, 67}, {130, 31}, {704, 241}, {80, 2065}};
    size_t checked = 0;
    for (size_t at = 0; next_gemm(&at); checked++)
        for (size_t i = 0; i < sizeof n_k / sizeof n_k[0]; i++)
            for (size_t m = 1; m <= M_SWEEP; m++) check_product(&variants[at - 1], n_k[i].a, m, n_k[i].b, X_RANDOM, W_RANDOM);
    assert_true(checked > 0);
}

static void products_are_exact_for_every_depth(void **unused) {
    (void)unused;
    static const others n_m[] = {{64, 1}, {20, 3}, {192, 2}};
    size_t checked = 0;
    for (size_t at = 0; next_gemm(&at); checked++)
        for (size_t i = 0; i < 3; i++)
            for (size_t k = 1; k <= K_SWEEP; k++) check_product(&variants[at - 1], n_m[i].a, n_m[i].b, k, X_RANDOM, W_RANDOM);
    assert_true(checked > 0);
}

static void products_are_exact_for_a_hundred_thousand_random_problems(void **unused) {
    (void)unused;
    enum { CASES = 100000, N_BITS = 8, M_BITS = 5, K_BITS = 10 };
    size_t checked = 0;
    for (size_t at = 0; next_gemm(&at); checked++)
        for (size_t i = 0; i < CASES; i++) {
            grid = code_grids[random_below(sizeof code_grids / sizeof *code_grids)];
            check_product(&variants[at - 1], random_size(N_BITS), random_size(M_BITS), random_size(K_BITS),
                          (x_pattern)random_below(X_PATTERNS),
                          random_below(2) ? W_RANDOM : (w_pattern)random_below(W_PATTERNS));
        }
    assert_true(checked > 0);
}

static void products_are_exact_for_extreme_values(void **unused) {
    (void)unused;
    static const size_t depths[] = {1, 16, 30, 240, 255, 256, 258, 480, 700, 2560};
    size_t checked = 0;
    for (size_t at = 0; next_gemm(&at); checked++)
        for (int xp = 0; xp < X_PATTERNS; xp++)
            for (int wp = 0; wp < W_PATTERNS; wp++)
                for (size_t d = 0; d < sizeof depths / sizeof depths[0]; d++)
                    for (size_t m = 1; m <= 5; m += 2)
                        check_product(&variants[at - 1], 64, m, depths[d], (x_pattern)xp, (w_pattern)wp);
    assert_true(checked > 0);
}

static void products_are_exact_for_every_code(void **unused) {
    (void)unused;
    size_t checked = 0;
    for (size_t at = 0; next_gemm(&at); checked++)
        for (size_t g = 0; g < sizeof code_grids / sizeof *code_grids; g++)
            for (size_t k = 1; k <= 65; k += 4)
                for (size_t m = 1; m <= 4; m++) {
                    grid = code_grids[g];
                    check_product(&variants[at - 1], grid_codes(), m, k, X_RANDOM, W_EVERY_CODE);
                }
    assert_true(checked > 0);
}

static void products_are_exact_at_the_greatest_depth(void **unused) {
    (void)unused;
    enum { K_MAX = 131071 };
    static const w_pattern w[] = {W_RANDOM, W_ONES, W_MINUS_ONES, W_MATCHED, W_OPPOSED};
    size_t checked = 0;
    for (size_t at = 0; next_gemm(&at); checked++)
        for (int xp = 0; xp < X_PATTERNS; xp++)
            for (size_t i = 0; i < sizeof w / sizeof w[0]; i++)
                check_product(&variants[at - 1], 2, i == 0 ? 4 : 1, K_MAX, (x_pattern)xp, w[i]);
    assert_true(checked > 0);
}

// ---- tables --------------------------------------------------------------------------------------------------------------

static int32_t dot(const int8_t *q, size_t k, size_t first, size_t trits, size_t code) {
    int32_t sum = 0;
    for (size_t j = 0; j < trits; j++)
        if (first + j < k) sum += ((int32_t)(code / pow3[j] % 3) - 1) * q[first + j];
    return sum;
}

static void scalar_tables_hold_every_partial_product(void **unused) {
    (void)unused;
    enum { K = 43, T5_HALF = 121, T3_HALF = 13 }; // entry e of T5, T3 in digits 0..2: e + 121, e + 13
    for (int xp = 0; xp < X_PATTERNS; xp++)
        for (size_t k = 1; k <= K; k++) {
            int8_t q[K], tables[TERN_T5_TABLE_BYTES * K];
            for (size_t j = 0; j < k; j++) q[j] = x_value((x_pattern)xp, j);
            tern_lut_build_t5_scalar(tables, q, k, 0, tern_t5_rows(k));
            for (size_t r = 0; r < tern_t5_rows(k); r++)
                for (size_t e = 0; e < 128; e++) {
                    const int8_t lo = tables[r * 256 + e], hi = tables[r * 256 + 128 + e];
                    assert_in_range(lo + 18, 0, 36);
                    assert_in_range(hi + 18, 0, 36);
                    assert_int_equal(lo + 36 * hi, e <= T5_HALF ? dot(q, k, 5 * r, 5, e + T5_HALF) : 0);
                }
            tern_lut_build_t2n_scalar(tables, q, k, 0, tern_t2n_rows(k));
            for (size_t group = 0; group < 2 * tern_t2n_rows(k); group++)
                for (size_t e = 0; e < 16; e++) {
                    const int8_t lo = tables[group * 32 + e], hi = tables[group * 32 + 16 + e];
                    assert_in_range(lo + 12, 0, 23);
                    assert_int_equal(lo + 24 * hi, e < 9 ? dot(q, k, 2 * group, 2, e) : 0);
                }
            tern_lut_build_t3_scalar(tables, q, k, 0, tern_t3_pairs(k));
            for (size_t group = 0; group < 2 * tern_t3_pairs(k); group++)
                for (size_t e = 0; e < 16; e++) {
                    const int8_t lo = tables[group * 32 + e], hi = tables[group * 32 + 16 + e];
                    assert_in_range(lo + 15, 0, 30);
                    assert_in_range(hi + 12, 0, 24);
                    assert_int_equal(lo + 31 * hi, e < 14 ? dot(q, k, 3 * group, 3, e + T3_HALF) : 0);
                }
        }
}

static void tables_match_scalar_for_every_range_of_rows(void **unused) {
    (void)unused;
    size_t checked = 0;
    for (size_t at = 0; next_variant(&at, TERN_STAGE_lut_build, TERN_STAGE_lut_build); checked++) {
        const variant *v = &variants[at - 1];
        for (size_t k = 1; k <= 330; k++)
            for (int xp = 0; xp < X_PATTERNS; xp++) {
                const tern_layout_traits *traits = tern_layout_get(v->layout);
                const size_t rows = traits->table_rows(k), bytes = rows * traits->table_bytes;
                int8_t *q = guard_buffer(GUARD_X, k), *tables = guard_buffer(GUARD_TABLES, bytes);
                int8_t *expected = guard_buffer(GUARD_OUT, bytes);
                for (size_t j = 0; j < k; j++) q[j] = x_value((x_pattern)xp, j);
                const bool all = k % 2;
                const size_t row0 = all ? 0 : random_below(rows + 1), row1 = all ? rows : row0 + random_below(rows - row0 + 1);
                memset(tables, 0x77, bytes);
                memset(expected, 0x77, bytes);
                scalar_build(v->layout)(expected, q, k, row0, row1);
                ((tern_lut_build_fn *)v->fn)(tables, q, k, row0, row1);
                if (memcmp(tables, expected, bytes) != 0)
                    fail_msg("%s: k %zu, rows %zu..%zu, pattern %d differ from scalar (seed %llu)", running, k, row0, row1, xp,
                             (unsigned long long)random_seed);
            }
    }
    assert_true(checked > 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_loop_agrees_with_float64),
        cmocka_unit_test(scalar_tables_hold_every_partial_product),
        cmocka_unit_test(tables_match_scalar_for_every_range_of_rows),
        cmocka_unit_test(products_are_exact_for_many_numbers_of_features),
        cmocka_unit_test(products_are_exact_for_every_number_of_tokens),
        cmocka_unit_test(products_are_exact_for_every_depth),
        cmocka_unit_test(products_are_exact_for_extreme_values),
        cmocka_unit_test(products_are_exact_for_every_code),
        cmocka_unit_test(products_are_exact_at_the_greatest_depth),
    };
    const struct CMUnitTest long_tests[] = {
        cmocka_unit_test(products_are_exact_for_every_number_of_features),
        cmocka_unit_test(products_are_exact_for_a_hundred_thousand_random_problems),
    };
    if (argc > 1 && strcmp(argv[1], "long") == 0) return cmocka_run_group_tests(long_tests, start_kernel_test, NULL);
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
