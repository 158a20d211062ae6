// SPDX-License-Identifier: MIT
// Codes of queries: the bound on neighbours that the 16-bit sums of INT8 attention rest on, for values at ties and at the
// bound.
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "decode/kv.h"
#include "test_random.h"

enum { CODE_MAX = 127, PAIR_MAX = 128, ROOM = TERN_HEAD_DIM_MAX + TERN_I8_PANEL, UNTOUCHED = 99 };

typedef enum query_kind { ANY, ONE_MAGNITUDE, TIES, TIES_THAT_ADD_UP, ONE_ALONE, TINY, HUGE_ONES, QUERY_KINDS } query_kind;

// Element d of a query whose largest sum of neighbours is about CODE_MAX * unit.
static float element(query_kind kind, size_t d, const float *before, float unit) {
    const float sign = random_below(2) ? 1.0f : -1.0f, tie = (float)random_below(CODE_MAX) + 0.5f;
    switch (kind) {
    case ONE_MAGNITUDE:
        return sign * unit * CODE_MAX / 2; // 63.5, twice
    case TIES:
        return sign * unit * tie / 2;
    case TIES_THAT_ADD_UP:
        return sign * (d % 2 ? unit * CODE_MAX - fabsf(before[d - 1]) : unit * tie);
    case ONE_ALONE:
        return d == 1 ? sign * unit : 0;
    case TINY:
        return random_float() * FLT_MIN;
    case HUGE_ONES:
        return random_float() * FLT_MAX / 2;
    default:
        return random_float() * unit;
    }
}

static void check_codes(const float *q, size_t head_dim) {
    int8_t codes[ROOM];
    float scale = 0;
    int32_t sum = 0, all = 0;
    memset(codes, UNTOUCHED, sizeof codes);
    assert_true(tern_kv_quantize_query(codes, &scale, &sum, q, head_dim));
    const size_t dims = tern_kv_dims(head_dim);
    assert_true(scale > 0 && isfinite(scale));
    for (size_t d = 0; d < head_dim; d++) {
        assert_in_range(abs(codes[d]), 0, CODE_MAX);
        assert_true(fabs((double)codes[d] * (double)scale - (double)q[d]) <= (double)scale * (0.5 + 1e-4));
        all += codes[d];
    }
    for (size_t d = head_dim; d < dims; d++) assert_int_equal(codes[d], 0);
    for (size_t d = 0; d < dims; d += 2) assert_in_range(abs(codes[d]) + abs(codes[d + 1]), 0, PAIR_MAX);
    for (size_t d = dims; d < ROOM; d++) assert_int_equal(codes[d], UNTOUCHED);
    assert_int_equal(sum, all);
}

static void neighbours_add_up_to_128_at_most(void **unused) {
    (void)unused;
    enum { ROUNDS = 40 };
    float q[TERN_HEAD_DIM_MAX];
    for (query_kind kind = 0; kind < QUERY_KINDS; kind++)
        for (size_t head_dim = 1; head_dim <= TERN_HEAD_DIM_MAX; head_dim += 1 + random_below(9))
            for (int round = 0; round < ROUNDS; round++) {
                const float unit = ldexpf(1 + random_float() / 2, (int)random_below(80) - 40);
                for (size_t d = 0; d < head_dim; d++) q[d] = element(kind, d, q, unit);
                check_codes(q, head_dim);
            }
}

static void what_is_not_finite_is_refused_and_writes_nothing(void **unused) {
    (void)unused;
    enum { HEAD_DIM = 5 };
    const float bad[][HEAD_DIM] = {{0, NAN, 0, 0, 0}, {0, 0, -INFINITY, 0, 0}, {0, 0, 0, 0, NAN}, {0, 0, FLT_MAX, -FLT_MAX, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int8_t codes[ROOM] = {0};
        float scale = UNTOUCHED;
        int32_t sum = UNTOUCHED;
        assert_false(tern_kv_quantize_query(codes, &scale, &sum, bad[i], HEAD_DIM));
        assert_true(scale == UNTOUCHED && sum == UNTOUCHED);
        for (size_t d = 0; d < ROOM; d++) assert_int_equal(codes[d], 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_add_up_to_128_at_most),
        cmocka_unit_test(what_is_not_finite_is_refused_and_writes_nothing),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
