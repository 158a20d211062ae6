// SPDX-License-Identifier: MIT
// INT8 attention, called without the library around it: bit for bit as a scalar loop written from the contract, with unreadable
// pages around every buffer, and close to attention in float64.
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

#include "guard_buffer.h"
#include "kernel_variants.h"

enum {
    QUERIES = TERN_ATTN_INT8_QUERIES,
    DIM_MAX = TERN_HEAD_DIM_MAX,
    BLOCK = TERN_ATTN_BLOCK,
    LANES = 16,
    CODE_MAX = 127,
    PAIR_MAX = 128,
    WEIGHTS_MAX = 248
};

// A block as rows of codes, and one output for each way to compute it.
typedef struct attention_case {
    size_t n_queries, n_keys, head_dim;
    int8_t q[QUERIES][DIM_MAX], keys[BLOCK][DIM_MAX], values[BLOCK][DIM_MAX];
    float q_scales[QUERIES], key_scales[BLOCK], value_scales[BLOCK], scale;
} attention_case;

typedef struct sums {
    float acc[QUERIES][DIM_MAX], most[QUERIES], total[QUERIES];
} sums;

// ---- the oracle ---------------------------------------------------------------------------------------------------

// The exponential of docs/numerics.md, one number at a time.
static float exponential_of(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float n = (float)lrintf(x * 1.44269504088896341f);
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    return ldexpf(p, (int)n);
}

// Element j belongs to lane j % 16; lanes are added 8, 4, 2, 1 apart.
static float sum_in_lanes(const float *x, size_t n) {
    float lane[LANES] = {0};
    for (size_t j = 0; j < n; j++) lane[j % LANES] += x[j];
    for (size_t apart = LANES / 2; apart > 0; apart /= 2)
        for (size_t i = 0; i < apart; i++) lane[i] = lane[i] + lane[i + apart];
    return lane[0];
}

// The largest sum of the eight of 16 weights that meet in a lane, as kernels.h has it.
static float largest_of_eight(const float *w, size_t n) {
    float largest = 0;
    for (size_t run = 0; run < n; run += LANES)
        for (size_t pair = 0; pair < 4; pair += 2) {
            float sum[2];
            for (size_t i = 0; i < 2; i++) {
                float four[4];
                for (size_t k = 0; k < 4; k++) four[k] = run + 4 * k + pair + i < n ? w[run + 4 * k + pair + i] : 0;
                sum[i] = (four[0] + four[2]) + (four[1] + four[3]);
            }
            largest = fmaxf(largest, sum[0] + sum[1]);
        }
    return largest;
}

static void attend_by_contract(sums *out, const attention_case *c) {
    for (size_t i = 0; i < c->n_queries; i++) {
        float s[BLOCK], w[BLOCK];
        out->most[i] = -INFINITY;
        for (size_t j = 0; j < c->n_keys; j++) {
            int32_t dot = 0;
            for (size_t d = 0; d < c->head_dim; d++) dot += c->q[i][d] * c->keys[j][d];
            s[j] = (float)dot * (c->q_scales[i] * c->scale) * c->key_scales[j];
            out->most[i] = fmaxf(out->most[i], s[j]);
        }
        for (size_t j = 0; j < c->n_keys; j++) s[j] = exponential_of(s[j] - out->most[i]);
        out->total[i] = sum_in_lanes(s, c->n_keys);
        for (size_t j = 0; j < c->n_keys; j++) w[j] = s[j] * c->value_scales[j];
        const float top = largest_of_eight(w, c->n_keys);
        int32_t sum[DIM_MAX] = {0};
        for (size_t j = 0; j < c->n_keys; j++) {
            const long p = lrintf(w[j] * ((float)WEIGHTS_MAX / top));
            assert_in_range(p, 0, WEIGHTS_MAX);
            for (size_t d = 0; d < c->head_dim; d++) sum[d] += (int32_t)p * c->values[j][d];
        }
        for (size_t d = 0; d < c->head_dim; d++) out->acc[i][d] = (float)sum[d] * (top / (float)WEIGHTS_MAX);
    }
}

// ---- a variant ----------------------------------------------------------------------------------------------------

static int8_t random_code(void) { return (int8_t)((int)random_below(2 * CODE_MAX + 1) - CODE_MAX); }

// Codes of a query, the magnitudes of neighbours within PAIR_MAX.
static void random_query(int8_t *q, size_t head_dim) {
    for (size_t d = 0; d < head_dim; d += 2) {
        const int first = random_code(), rest = PAIR_MAX - abs(first);
        q[d] = (int8_t)first;
        if (d + 1 < head_dim) q[d + 1] = (int8_t)((int)random_below((size_t)(2 * rest + 1)) - rest);
    }
}

// Panels of 16 features, four k of each in turn. What is no key of the case holds anything.
static int8_t *pack_keys(const attention_case *c, size_t dims) {
    int8_t *block = guard_buffer(GUARD_W, BLOCK * dims), *to = block;
    for (size_t panel = 0; panel < BLOCK; panel += LANES)
        for (size_t d0 = 0; d0 < dims; d0 += 4)
            for (size_t j = panel; j < panel + LANES; j++)
                for (size_t d = d0; d < d0 + 4; d++)
                    *to++ = d >= c->head_dim ? 0 : j < c->n_keys ? c->keys[j][d] : random_code();
    return block;
}

static int8_t *pack_values(const attention_case *c, size_t dims) {
    int8_t *block = guard_buffer(GUARD_TABLES, BLOCK * dims), *to = block;
    for (size_t panel = 0; panel < dims; panel += LANES)
        for (size_t j0 = 0; j0 < BLOCK; j0 += 4)
            for (size_t d = panel; d < panel + LANES; d++)
                for (size_t j = j0; j < j0 + 4; j++)
                    *to++ = d >= c->head_dim ? 0 : j < c->n_keys ? c->values[j][d] : random_code();
    return block;
}

static float *pack_scales(guard_slot slot, const float *scales, size_t n) {
    float *to = guard_buffer(slot, BLOCK * sizeof *to);
    for (size_t j = 0; j < BLOCK; j++) to[j] = j < n ? scales[j] : NAN;
    return to;
}

static void attend(sums *out, const attention_case *c, tern_attention_int8_fn *attention) {
    const size_t dims = tern_kv_dims(c->head_dim), ld_q = dims + random_below(3) * 5;
    int8_t *q = guard_buffer(GUARD_X, (c->n_queries - 1) * ld_q + dims);
    int32_t q_sums[QUERIES] = {0};
    for (size_t i = 0; i < c->n_queries; i++)
        for (size_t d = 0; d < c->head_dim; d++) {
            q[i * ld_q + d] = c->q[i][d];
            q_sums[i] += c->q[i][d];
        }
    float *acc = guard_buffer(GUARD_OUT, c->n_queries * c->head_dim * sizeof *acc);
    const tern_attention_int8_args args = {.acc = acc,
                                           .ld_acc = c->head_dim,
                                           .most = out->most,
                                           .total = out->total,
                                           .q = q,
                                           .ld_q = ld_q,
                                           .q_scales = c->q_scales,
                                           .q_sums = q_sums,
                                           .n_queries = c->n_queries,
                                           .keys = pack_keys(c, dims),
                                           .values = pack_values(c, dims),
                                           .next_keys = q, // any address
                                           .key_scales = pack_scales(GUARD_SCALES, c->key_scales, c->n_keys),
                                           .value_scales = pack_scales(GUARD_BIAS, c->value_scales, c->n_keys),
                                           .n_keys = c->n_keys,
                                           .head_dim = c->head_dim,
                                           .scale = c->scale};
    attention(&args);
    for (size_t i = 0; i < c->n_queries; i++) memcpy(out->acc[i], acc + i * c->head_dim, c->head_dim * sizeof(float));
}

static void check(const attention_case *c) {
    static sums want, got;
    attend_by_contract(&want, c);
    FOR_EACH_VARIANT(attention_int8, attention) {
        attend(&got, c, attention);
        for (size_t i = 0; i < c->n_queries; i++)
            if (memcmp(got.acc[i], want.acc[i], c->head_dim * sizeof(float)) || got.most[i] != want.most[i] ||
                got.total[i] != want.total[i])
                fail_msg("%s differs from the contract: %zu queries, %zu keys, head_dim %zu, query %zu", running, c->n_queries,
                         c->n_keys, c->head_dim, i);
    }
}

// ---- cases --------------------------------------------------------------------------------------------------------

static attention_case *random_case(size_t n_queries, size_t n_keys, size_t head_dim, float spread) {
    static attention_case c;
    c.n_queries = n_queries;
    c.n_keys = n_keys;
    c.head_dim = head_dim;
    c.scale = 1.0f / sqrtf((float)head_dim);
    for (size_t i = 0; i < n_queries; i++) {
        c.q_scales[i] = spread * (1.5f + random_float()) / (float)CODE_MAX;
        random_query(c.q[i], head_dim);
    }
    for (size_t j = 0; j < n_keys; j++) {
        c.key_scales[j] = (1.5f + random_float()) / (float)CODE_MAX;
        c.value_scales[j] = (1.5f + random_float()) / (float)CODE_MAX;
        for (size_t d = 0; d < head_dim; d++) {
            c.keys[j][d] = random_code();
            c.values[j][d] = random_code();
        }
    }
    return &c;
}

static void variants_equal_the_contract_for_every_size(void **unused) {
    (void)unused;
    for (size_t head_dim = 1; head_dim <= DIM_MAX; head_dim++)
        check(random_case(1 + head_dim % QUERIES, 1 + random_below(BLOCK), head_dim, 1.0f));
    for (size_t n_keys = 1; n_keys <= BLOCK; n_keys++)
        for (size_t n_queries = 1; n_queries <= QUERIES; n_queries++)
            check(random_case(n_queries, n_keys, n_keys % 3 ? 64 : 37, n_keys % 2 ? 0.1f : 8.0f));
}

// Codes as large as they can be, of either sign: pairs of a query that are (64, 64), (1, 127) or (127, 1), and weights that are
// all the same, or one of each eight that meet alone: the widest sums.
static void extreme_codes_are_exact(void **unused) {
    (void)unused;
    static const int8_t pairs[][2] = {{64, 64}, {1, CODE_MAX}, {CODE_MAX, 1}};
    for (int signs = 0; signs < 8; signs++)
        for (size_t shape = 0; shape < sizeof pairs / sizeof *pairs; shape++) {
            attention_case *c = random_case(QUERIES, BLOCK, DIM_MAX, 1.0f);
            for (size_t i = 0; i < QUERIES; i++)
                for (size_t d = 0; d < DIM_MAX; d++)
                    c->q[i][d] = (int8_t)(signs & 1 ? -pairs[shape][d % 2] : pairs[shape][d % 2]);
            for (size_t j = 0; j < BLOCK; j++) {
                memset(c->keys[j], signs & 2 ? -CODE_MAX : CODE_MAX, DIM_MAX);
                memset(c->values[j], signs & 4 ? -CODE_MAX : CODE_MAX, DIM_MAX);
                c->key_scales[j] = c->value_scales[j] = 1.0f / (float)CODE_MAX;
                if (shape > 0 && j % LANES != shape) c->value_scales[j] *= 1e-6f;
            }
            check(c);
        }
}

// Weights that all round up: codes of eight that meet add up to more than WEIGHTS_MAX.
static void weights_that_round_up_are_exact(void **unused) {
    (void)unused;
    for (size_t n = 1; n <= BLOCK; n += 5) {
        attention_case *c = random_case(QUERIES, n, 128, 1.0f);
        for (size_t i = 0; i < QUERIES; i++) memset(c->q[i], 0, DIM_MAX);
        for (size_t j = 0; j < n; j++) {
            memset(c->values[j], n % 2 ? CODE_MAX : -CODE_MAX, DIM_MAX);
            c->value_scales[j] = j % LANES == 0 ? WEIGHTS_MAX - 7 * 30.6f : 30.6f + 1e-3f * random_float();
        }
        check(c);
    }
}

// Weights that are all alike become WEIGHTS_MAX / 8 each, an integer: nothing is lost but in the last float operations.
static void weights_that_are_alike_lose_nothing(void **unused) {
    (void)unused;
    attention_case *c = random_case(QUERIES, BLOCK, 128, 1.0f);
    for (size_t i = 0; i < QUERIES; i++) memset(c->q[i], 0, DIM_MAX);
    for (size_t j = 0; j < BLOCK; j++) c->value_scales[j] = 0.01f;
    static sums got;
    FOR_EACH_VARIANT(attention_int8, attention) {
        attend(&got, c, attention);
        for (size_t d = 0; d < c->head_dim; d++) {
            int32_t sum = 0;
            for (size_t j = 0; j < BLOCK; j++) sum += c->values[j][d];
            const float mean = 0.01f * (float)sum;
            for (size_t i = 0; i < QUERIES; i++) assert_true(fabsf(got.acc[i][d] - mean) <= 1e-6f * fabsf(mean));
        }
    }
}

// Scales as small and as far apart as quantizing makes them: rows of zeros, and large rows beside them.
static void scales_far_apart_are_exact(void **unused) {
    (void)unused;
    const float scales[] = {1e-30f / (float)CODE_MAX, 1e-6f, 1.0f, 500.0f};
    for (size_t n = 1; n < 40; n++) {
        attention_case *c = random_case(1 + n % QUERIES, n, 64, 1.0f);
        for (size_t j = 0; j < n; j++) {
            c->key_scales[j] = scales[random_below(4)];
            c->value_scales[j] = scales[random_below(4)];
        }
        check(c);
    }
}

static void sums_are_near_attention_in_float64(void **unused) {
    (void)unused;
    const attention_case *c = random_case(QUERIES, BLOCK, 128, 1.0f);
    static sums got;
    FOR_EACH_VARIANT(attention_int8, attention) {
        attend(&got, c, attention);
        for (size_t i = 0; i < QUERIES; i++) {
            double w[BLOCK], total = 0, exact[DIM_MAX] = {0}, largest = 0;
            for (size_t j = 0; j < BLOCK; j++) {
                double dot = 0;
                for (size_t d = 0; d < c->head_dim; d++) dot += (double)c->q[i][d] * (double)c->keys[j][d];
                w[j] = exp(dot * (double)c->q_scales[i] * (double)c->scale * (double)c->key_scales[j] - (double)got.most[i]);
                total += w[j];
                largest = fmax(largest, w[j] * (double)c->value_scales[j]);
                for (size_t d = 0; d < c->head_dim; d++)
                    exact[d] += w[j] * (double)c->value_scales[j] * (double)c->values[j][d];
            }
            assert_true(fabs(total - (double)got.total[i]) < 1e-4 * total);
            // A weight is off by up to half a step, at most 8 largest / WEIGHTS_MAX / 2; errors of 256 of them add up as a
            // random walk: 8 sigma.
            const double error = 8 * sqrt(BLOCK / 12.0) * 8 * largest / WEIGHTS_MAX * CODE_MAX;
            for (size_t d = 0; d < c->head_dim; d++) assert_true(fabs(exact[d] - (double)got.acc[i][d]) < error);
        }
    }
}

// A saved session is untrusted: scales may be negative, infinite or NaN, and codes -128. Nonsense comes of it, within the
// buffers.
static void forged_scales_and_codes_do_no_harm(void **unused) {
    (void)unused;
    static const float forged[] = {-3e5f, -1, -1e-6f, 0, -1e30f, 1e30f, 1e-40f, INFINITY, -INFINITY, NAN};
    static sums got;
    enum { ROUNDS = 300, ONES = 8, KINDS = sizeof forged / sizeof *forged };
    for (size_t round = 0; round < ROUNDS; round++) {
        attention_case *c = random_case(1 + round % QUERIES, 1 + random_below(BLOCK), 1 + random_below(DIM_MAX), 1.0f);
        const size_t kinds = 1 + round % KINDS;
        for (size_t j = 0; j < c->n_keys; j++) {
            if (round % 3) c->key_scales[j] = forged[random_below(kinds)];
            c->value_scales[j] = (random_below(ONES) ? 1 : forged[random_below(kinds)]) * (1 + random_float());
            for (size_t d = 0; d < c->head_dim; d += 1 + random_below(4)) c->keys[j][d] = c->values[j][d] = INT8_MIN;
        }
        FOR_EACH_VARIANT(attention_int8, attention) attend(&got, c, attention);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variants_equal_the_contract_for_every_size),
        cmocka_unit_test(extreme_codes_are_exact),
        cmocka_unit_test(weights_that_round_up_are_exact),
        cmocka_unit_test(weights_that_are_alike_lose_nothing),
        cmocka_unit_test(scales_far_apart_are_exact),
        cmocka_unit_test(sums_are_near_attention_in_float64),
        cmocka_unit_test(forged_scales_and_codes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
