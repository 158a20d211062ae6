// SPDX-License-Identifier: MIT
// Calls each mad_gemm variant that this CPU has with trits and with four-level codes: every byte of M2, every tile, and every
// narrow sum driven to its bound, against one plain int32 loop over the weights.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guard_buffer.h"
#include "kernel_variants.h"
#include "matmul/pack_ternary.h"

typedef enum x_pattern { X_RANDOM, X_MIN, X_MAX, X_PATTERNS } x_pattern;
typedef enum w_pattern { W_RANDOM, W_LEAST, W_LARGEST, W_EVERY_BYTE } w_pattern;

enum { TRITS = 3, LEVELS = 4, ACC_GAP = 16, SENTINEL = 0x5A5A5A5A, X_SUMS_STRIDE = 3 };

// Rows 0 .. levels^4 - 1 hold every byte that `levels` codes can make, in every byte of a group.
static int8_t every_byte(size_t row, size_t k, size_t levels) {
    size_t digit = row;
    for (size_t part = k % TERN_M2_GROUP_K / 4; part > 0; part--) digit /= levels;
    return (int8_t)((int)(digit % levels) - 1);
}

static void check(tern_mad_gemm_fn *fn, size_t levels, size_t n, size_t m, size_t k, x_pattern xp, w_pattern wp) {
    if (!test_takes_case(next_random())) return;
    int8_t *w = malloc(n * k);
    assert_non_null(w);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < k; j++)
            w[i * k + j] = wp == W_LEAST        ? (int8_t)-1
                           : wp == W_LARGEST    ? (int8_t)(levels - 2)
                           : wp == W_EVERY_BYTE ? every_byte(i, j, levels)
                                                : (int8_t)((int)random_below(levels) - 1);
    tern_gemm_args args = {.n = tern_round_up(n, TERN_M2_PANEL), .m = m, .k = k, .four_level = levels == LEVELS};
    args.ld_acc = args.n + ACC_GAP;
    args.ldx = tern_round_up(k, TERN_X_ALIGN);
    args.ld_x_sums = X_SUMS_STRIDE;
    uint8_t *packed = guard_buffer(GUARD_W, tern_m2_bytes(args.n, k));
    tern_pack_ternary(TERN_LAYOUT_M2, packed, w, k, args.n, 0, n, args.n, k);
    args.packed = packed;
    int8_t *x = guard_buffer(GUARD_X, (m - 1) * args.ldx + tern_round_up(k, TERN_M2_GROUP_K));
    int32_t *sums = guard_buffer(GUARD_SUMS, ((m - 1) * X_SUMS_STRIDE + 1) * sizeof *sums);
    for (size_t t = 0; t < m; t++)
        for (size_t j = 0; j < k; j++) {
            const int8_t value = xp == X_MIN ? INT8_MIN : xp == X_MAX ? INT8_MAX : (int8_t)(next_random() & 0xFF);
            x[t * args.ldx + j] = value;
            sums[t * X_SUMS_STRIDE] += value;
            args.x_has_min |= value == INT8_MIN;
        }
    args.x = x;
    args.x_sums = sums;
    const size_t written = (m - 1) * args.ld_acc + args.n;
    args.acc = guard_buffer(GUARD_OUT, written * sizeof *args.acc);
    for (size_t i = 0; i < written; i++) args.acc[i] = SENTINEL;
    fn(&args);
    for (size_t t = 0; t < m; t++)
        for (size_t i = 0; i < args.ld_acc && t * args.ld_acc + i < written; i++) {
            int32_t expected = i < args.n ? 0 : SENTINEL;
            if (i < n)
                for (size_t j = 0; j < k; j++) expected += w[i * k + j] * x[t * args.ldx + j];
            if (args.acc[t * args.ld_acc + i] != expected)
                fail_msg(
                    "%s: %zu levels, n %zu, m %zu, k %zu, patterns %d %d: token %zu, feature %zu is %d, not %d (seed %llu)",
                    running, levels, n, m, k, (int)xp, (int)wp, t, i, args.acc[t * args.ld_acc + i], expected,
                    (unsigned long long)random_seed);
        }
    free(w);
}

static void every_byte_of_a_group_multiplies_exactly(void **unused) {
    (void)unused;
    static const size_t rows[] = {[TRITS] = 81, [LEVELS] = 256};
    FOR_EACH_VARIANT(mad_gemm, fn) {
        test_begin_group();
        for (size_t levels = TRITS; levels <= LEVELS; levels++)
            for (size_t m = 1; m <= 7; m++)
                for (size_t k = 1; k <= 4 * TERN_M2_GROUP_K + 1; k += 7)
                    check(fn, levels, rows[levels], m, k, X_RANDOM, W_EVERY_BYTE);
    }
}

// Sums of int16 pairs are widened every 16 groups of trits, 10 groups of four-level codes, or parts of that: at every depth up
// to twice 16 groups, with activations and codes at their extremes, each sum reaches the largest magnitude that it can hold.
static void narrow_sums_reach_their_bounds_exactly(void **unused) {
    (void)unused;
    enum { DEPTHS = 2 * 16 * TERN_M2_GROUP_K + 1 };
    static const size_t tokens[] = {1, 2, 3, 5, 6, 13}; // every way of summing
    FOR_EACH_VARIANT(mad_gemm, fn) {
        test_begin_group();
        for (size_t levels = TRITS; levels <= LEVELS; levels++)
            for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
                for (size_t k = 1; k <= DEPTHS; k += k % TERN_M2_GROUP_K == 0 || k % TERN_M2_GROUP_K == 15 ? 1 : 7)
                    for (int xp = X_MIN; xp <= X_MAX; xp++)
                        for (int wp = W_LEAST; wp <= W_LARGEST; wp++)
                            check(fn, levels, TERN_M2_PANEL, tokens[i], k, (x_pattern)xp, (w_pattern)wp);
    }
}

static void every_number_of_tokens_is_exact(void **unused) {
    (void)unused;
    enum { TOKENS = 41 }; // twice the 16 up to which weights are read in one stream, and a tile of 6 more
    static const struct {
        size_t n, k;
    } sizes[] = {{1, 67}, {33, 272}, {48, 1041}}; // one group too many for 16 groups, and for 64
    FOR_EACH_VARIANT(mad_gemm, fn) {
        test_begin_group();
        for (size_t levels = TRITS; levels <= LEVELS; levels++)
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
                for (size_t m = 1; m <= TOKENS; m++) check(fn, levels, sizes[i].n, m, sizes[i].k, X_RANDOM, W_RANDOM);
    }
}

// A K-chunk of decoded codes is 64 groups deep.
static void every_depth_around_whole_chunks_is_exact(void **unused) {
    (void)unused;
    enum { CHUNK = 64 * TERN_M2_GROUP_K, AROUND = 17 };
    FOR_EACH_VARIANT(mad_gemm, fn) {
        test_begin_group();
        for (size_t levels = TRITS; levels <= LEVELS; levels++)
            for (size_t chunks = 1; chunks <= 2; chunks++)
                for (size_t k = chunks * CHUNK - AROUND; k <= chunks * CHUNK + AROUND; k++) {
                    check(fn, levels, 5, 7, k, X_RANDOM, W_RANDOM);
                    check(fn, levels, 17, 19, k, X_MIN, W_LARGEST);
                }
    }
}

static void the_greatest_depth_is_exact(void **unused) {
    (void)unused;
    enum { K_MAX = 131071 };
    FOR_EACH_VARIANT(mad_gemm, fn) {
        test_begin_group();
        for (size_t m = 1; m <= 8; m++)
            for (int xp = X_RANDOM; xp < X_PATTERNS; xp++) check(fn, LEVELS, 2, m, K_MAX, (x_pattern)xp, W_LARGEST);
    }
}

static void four_levels_are_exact_for_a_hundred_thousand_random_problems(void **unused) {
    (void)unused;
    enum { CASES = 100000, N_BITS = 8, M_BITS = 5, K_BITS = 10 };
    FOR_EACH_VARIANT(mad_gemm, gemm) {
        test_begin_group();
        for (size_t i = 0; i < CASES; i++)
            check(gemm, LEVELS, random_size(N_BITS), random_size(M_BITS), random_size(K_BITS),
                  (x_pattern)random_below(X_PATTERNS), random_below(2) ? W_RANDOM : (w_pattern)random_below(W_EVERY_BYTE + 1));
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_of_a_group_multiplies_exactly),
        cmocka_unit_test(narrow_sums_reach_their_bounds_exactly),
        cmocka_unit_test(every_number_of_tokens_is_exact),
        cmocka_unit_test(every_depth_around_whole_chunks_is_exact),
        cmocka_unit_test(the_greatest_depth_is_exact),
    };
    const struct CMUnitTest long_tests[] = {
        cmocka_unit_test(four_levels_are_exact_for_a_hundred_thousand_random_problems),
    };
    if (argc > 1 && strcmp(argv[1], "long") == 0) return cmocka_run_group_tests(long_tests, start_kernel_test, NULL);
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
