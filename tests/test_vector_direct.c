// SPDX-License-Identifier: MIT
// Calls each variant of the vector stages and probes that this CPU has, without the library around it: bit for bit against the
// scalar variant, with unreadable pages around every buffer; and the scalar variants against float64 formulas.
#include <float.h>
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

#include "format/blocks.h"
#include "guard_buffer.h"
#include "kernel_variants.h"

enum { VECTOR_N_MAX = 200 };

static float *random_vector(guard_slot slot, size_t n, float magnitude) {
    float *v = guard_buffer(slot, n * sizeof(float));
    for (size_t i = 0; i < n; i++) v[i] = random_float() * magnitude;
    return v;
}

static void rmsnorm_variants_match_scalar_and_float64(void **unused) {
    (void)unused;
    for (size_t n = 1; n <= VECTOR_N_MAX; n++) {
        float *x = random_vector(GUARD_X, n, 3.0f), *w = random_vector(GUARD_W, n, 2.0f);
        float *y = guard_buffer(GUARD_OUT, n * sizeof(float));
        float want[VECTOR_N_MAX];
        tern_rmsnorm_scalar(want, x, w, n, 1e-5f);
        double squares = 0;
        for (size_t i = 0; i < n; i++) squares += pow((double)x[i], 2);
        for (size_t i = 0; i < n; i++) {
            const double exact = (double)x[i] / sqrt(squares / (double)n + 1e-5) * (double)w[i];
            if (fabs(exact - (double)want[i]) > 2e-6 * fabs(exact)) fail_msg("scalar rmsnorm: n %zu, y[%zu]", n, i);
        }
        FOR_EACH_VARIANT(rmsnorm, rmsnorm) {
            rmsnorm(y, x, w, n, 1e-5f);
            if (memcmp(y, want, n * sizeof(float))) fail_msg("%s differs from scalar: n %zu", running, n);
            memcpy(y, x, n * sizeof(float));
            rmsnorm(y, y, w, n, 1e-5f); // in place
            if (memcmp(y, want, n * sizeof(float))) fail_msg("%s differs in place: n %zu", running, n);
        }
    }
}

static void silu_mul_variants_match_scalar_and_float64(void **unused) {
    (void)unused;
    const float magnitudes[] = {1e-30f, 1.0f, 30.0f, 1e4f, 1e30f};
    for (size_t n = 1; n <= VECTOR_N_MAX; n++) {
        float *a = random_vector(GUARD_X, n, magnitudes[n % 5]), *b = random_vector(GUARD_W, n, 2.0f);
        float *y = guard_buffer(GUARD_OUT, n * sizeof(float));
        float want[VECTOR_N_MAX];
        tern_silu_mul_scalar(want, a, b, n);
        for (size_t i = 0; i < n; i++) {
            const double av = (double)a[i], bv = (double)b[i], exact = av / (1 + exp(-av)) * bv;
            if (fabs(exact - (double)want[i]) > 1e-6 * fabs(exact) + 1e-35 * fabs(av * bv) + 1e-44)
                fail_msg("scalar silu_mul: n %zu, y[%zu] = %g instead of %g", n, i, (double)want[i], exact);
        }
        FOR_EACH_VARIANT(silu_mul, silu_mul) {
            silu_mul(y, a, b, n);
            if (memcmp(y, want, n * sizeof(float))) fail_msg("%s differs from scalar: n %zu", running, n);
            memcpy(y, a, n * sizeof(float));
            silu_mul(y, y, b, n); // in place
            if (memcmp(y, want, n * sizeof(float))) fail_msg("%s differs in place: n %zu", running, n);
        }
    }
}

static void relu2_mul_variants_match_scalar_and_float64(void **unused) {
    (void)unused;
    const float magnitudes[] = {1e-10f, 1.0f, 30.0f, 1e4f, 1e18f};
    for (size_t n = 1; n <= VECTOR_N_MAX; n++) {
        float *a = random_vector(GUARD_X, n, magnitudes[n % 5]), *b = random_vector(GUARD_W, n, 2.0f);
        float *y = guard_buffer(GUARD_OUT, n * sizeof(float));
        float want[VECTOR_N_MAX];
        tern_relu2_mul_scalar(want, a, b, n);
        for (size_t i = 0; i < n; i++) {
            const double av = fmax((double)a[i], 0), exact = av * av * (double)b[i];
            if (fabs(exact) < (double)FLT_MAX && fabs(exact - (double)want[i]) > 1e-6 * fabs(exact) + 1e-37)
                fail_msg("scalar relu2_mul: n %zu, y[%zu] = %g instead of %g", n, i, (double)want[i], exact);
        }
        FOR_EACH_VARIANT(relu2_mul, relu2_mul) {
            relu2_mul(y, a, b, n);
            if (memcmp(y, want, n * sizeof(float))) fail_msg("%s differs from scalar: n %zu", running, n);
            memcpy(y, a, n * sizeof(float));
            relu2_mul(y, y, b, n); // in place
            if (memcmp(y, want, n * sizeof(float))) fail_msg("%s differs in place: n %zu", running, n);
        }
    }
}

static void attention_exact(double *out, const float *q, const uint16_t *keys, const uint16_t *values, size_t n_keys,
                            size_t head_dim, double scale) {
    double *scores = malloc(n_keys * sizeof *scores), most = -INFINITY, total = 0;
    assert_non_null(scores);
    for (size_t j = 0; j < n_keys; j++) {
        scores[j] = 0;
        for (size_t d = 0; d < head_dim; d++)
            scores[j] += (double)q[d] * (double)tern_f16_to_f32(keys[j * head_dim + d]) * scale;
        most = fmax(most, scores[j]);
    }
    memset(out, 0, head_dim * sizeof *out);
    for (size_t j = 0; j < n_keys; j++) {
        const double weight = exp(scores[j] - most);
        total += weight;
        for (size_t d = 0; d < head_dim; d++) out[d] += weight * (double)tern_f16_to_f32(values[j * head_dim + d]);
    }
    for (size_t d = 0; d < head_dim; d++) out[d] /= total;
    free(scores);
}

// The whole context: blocks in order, then the division. Query i sees all keys but the last i * fewer.
typedef struct attention_case {
    const float *q;
    size_t ld_q, n_queries, n_keys, fewer, head_dim;
    const uint16_t *keys, *values; // [key][head_dim]
    float scale;
} attention_case;

static size_t keys_seen(const attention_case *c, size_t query) { return c->n_keys - query * c->fewer; }

// A block of keys as kernels read it; what stands behind its last key is not used.
static uint16_t *panels_of(const uint16_t *keys, size_t n_keys, size_t head_dim) {
    const size_t elements = tern_round_up(n_keys, TERN_ATTN_PANEL) * head_dim;
    uint16_t *panels = guard_buffer(GUARD_TABLES, elements * sizeof *panels);
    memset(panels, 0xff, elements * sizeof *panels); // NaNs
    for (size_t j = 0; j < n_keys; j++)
        for (size_t d = 0; d < head_dim; d++) panels[tern_key_at(j, d, head_dim)] = keys[j * head_dim + d];
    return panels;
}

static void attend(float *out, const attention_case *c, tern_attention_fn *attention, tern_attention_merge_fn *merge) {
    float most[TERN_ATTN_QUERIES], total[TERN_ATTN_QUERIES];
    float *sums = guard_buffer(GUARD_OUT, c->n_queries * c->head_dim * sizeof(float));
    memset(out, 0, c->n_queries * c->head_dim * sizeof *out);
    for (size_t i = 0; i < c->n_queries; i++) most[i] = -INFINITY, total[i] = 0;
    for (size_t first = 0; first < c->n_keys; first += TERN_ATTN_BLOCK) {
        const size_t left = c->n_keys - first, here = left < TERN_ATTN_BLOCK ? left : TERN_ATTN_BLOCK;
        tern_attention_query queries[TERN_ATTN_QUERIES];
        size_t n = 0; // those that see nothing of the block are the last ones
        for (; n < c->n_queries && keys_seen(c, n) > first; n++)
            queries[n] = (tern_attention_query){.q = c->q + n * c->ld_q,
                                                .acc = sums + n * c->head_dim,
                                                .n_keys = keys_seen(c, n) - first < here ? keys_seen(c, n) - first : here};
        const tern_attention_args args = {.queries = queries,
                                          .n_queries = n,
                                          .keys = panels_of(c->keys + first * c->head_dim, here, c->head_dim),
                                          .values = c->values + first * c->head_dim,
                                          .head_dim = c->head_dim,
                                          .scale = c->scale};
        attention(&args);
        for (size_t i = 0; i < n; i++)
            merge(out + i * c->head_dim, &most[i], &total[i], sums + i * c->head_dim, queries[i].most, queries[i].total,
                  c->head_dim);
    }
    for (size_t i = 0; i < c->n_queries; i++)
        for (size_t d = 0; d < c->head_dim; d++) out[i * c->head_dim + d] /= total[i];
}

static uint16_t *random_halves(guard_slot place, size_t n, float magnitude) {
    uint16_t *halves = guard_buffer(place, n * sizeof *halves);
    for (size_t i = 0; i < n; i++) halves[i] = tern_f32_to_f16(random_float() * magnitude);
    return halves;
}

static void check_attention(size_t n_queries, size_t n_keys, size_t head_dim, float magnitude) {
    const size_t fewer = n_keys > n_queries ? random_below(2) : 0; // 1: a token each
    const size_t ld_q = head_dim + random_below(3) * 5;
    const attention_case c = {.q = random_vector(GUARD_X, (n_queries - 1) * ld_q + head_dim, magnitude),
                              .ld_q = ld_q,
                              .n_queries = n_queries,
                              .n_keys = n_keys,
                              .fewer = fewer,
                              .head_dim = head_dim,
                              .keys = random_halves(GUARD_W, n_keys * head_dim, 2.0f),
                              .values = random_halves(GUARD_SCALES, n_keys * head_dim, 1.0f),
                              .scale = 1.0f / sqrtf((float)head_dim)};
    static float want[TERN_ATTN_QUERIES * TERN_HEAD_DIM_MAX], got[TERN_ATTN_QUERIES * TERN_HEAD_DIM_MAX];
    double exact[TERN_HEAD_DIM_MAX];
    attend(want, &c, tern_attention_scalar, tern_attention_merge_scalar);
    for (size_t i = 0; i < n_queries; i++) {
        attention_exact(exact, c.q + i * ld_q, c.keys, c.values, keys_seen(&c, i), head_dim, (double)c.scale);
        for (size_t d = 0; d < head_dim; d++) {
            // Scores of magnitude s carry a rounding error of about s * 2^-24 * sqrt(head_dim); values are at most 1.
            const double y = (double)want[i * head_dim + d];
            if (fabs(exact[d] - y) > 2e-6 + 4e-6 * (double)magnitude)
                fail_msg("scalar attention: %zu keys, head_dim %zu, query %zu, out[%zu] = %g instead of %g", n_keys, head_dim,
                         i, d, y, exact[d]);
        }
        attention_case one = c; // a query alone has the same bits as among others
        one.q += i * ld_q;
        one.n_queries = 1;
        one.n_keys = keys_seen(&c, i);
        attend(got, &one, tern_attention_scalar, tern_attention_merge_scalar);
        assert_memory_equal(got, want + i * head_dim, head_dim * sizeof(float));
    }
    FOR_EACH_VARIANT(attention, attention) {
        attend(got, &c, attention, tern_attention_merge_scalar);
        if (memcmp(got, want, n_queries * head_dim * sizeof(float)))
            fail_msg("%s differs from scalar: %zu queries, %zu keys, head_dim %zu", running, n_queries, n_keys, head_dim);
    }
    FOR_EACH_VARIANT(attention_merge, merge) {
        attend(got, &c, tern_attention_scalar, merge);
        if (memcmp(got, want, n_queries * head_dim * sizeof(float)))
            fail_msg("%s differs from scalar: %zu keys, head_dim %zu", running, n_keys, head_dim);
    }
}

static void attention_variants_match_scalar_and_float64(void **unused) {
    (void)unused;
    for (size_t head_dim = 1; head_dim <= TERN_HEAD_DIM_MAX; head_dim++)
        check_attention(1 + head_dim % TERN_ATTN_QUERIES, 1 + random_below(40), head_dim, 1.0f);
    for (size_t n_keys = 1; n_keys <= 70; n_keys++) check_attention(1 + n_keys % TERN_ATTN_QUERIES, n_keys, 64, 8.0f);
    const size_t around_blocks[] = {255, 256, 257, 511, 512, 513, 770, 1500};
    for (size_t i = 0; i < sizeof around_blocks / sizeof around_blocks[0]; i++) {
        check_attention(1, around_blocks[i], 64, 1.0f);
        check_attention(3, around_blocks[i], 63, 30.0f);
        check_attention(TERN_ATTN_QUERIES, around_blocks[i], 64, 4.0f);
    }
}

// Equal keys give the mean value.
static void attention_of_equal_keys_is_the_mean_of_the_values(void **unused) {
    (void)unused;
    enum { KEYS = 300, DIM = 48 };
    static uint16_t keys[KEYS * DIM], values[KEYS * DIM];
    static float q[DIM], out[DIM];
    for (size_t d = 0; d < DIM; d++) q[d] = (float)d * 0.01f;
    for (size_t i = 0; i < KEYS * DIM; i++) {
        keys[i] = tern_f32_to_f16(q[i % DIM]);
        values[i] = tern_f32_to_f16((float)(i / DIM));
    }
    const attention_case c = {q, DIM, 1, KEYS, 0, DIM, keys, values, 0.125f};
    FOR_EACH_VARIANT(attention, attention) {
        attend(out, &c, attention, tern_attention_merge_scalar);
        for (size_t d = 0; d < DIM; d++) assert_true(fabsf(out[d] - (KEYS - 1) / 2.0f) < 1e-3f);
    }
}

static void to_half_variants_round_to_even_and_saturate(void **unused) {
    (void)unused;
    for (size_t n = 1; n <= VECTOR_N_MAX; n++) {
        const float magnitudes[] = {1e-6f, 1.0f, 65504.0f, 1e30f};
        float *x = random_vector(GUARD_X, n, magnitudes[n % 4]);
        if (n % 5 == 0) x[n / 2] = NAN;
        if (n % 7 == 0) x[0] = -INFINITY;
        uint16_t *y = guard_buffer(GUARD_OUT, n * sizeof *y);
        FOR_EACH_VARIANT(to_half, to_half) {
            to_half(y, x, n);
            for (size_t i = 0; i < n; i++) {
                const float inside = x[i] > 65504.0f ? 65504.0f : x[i] < -65504.0f ? -65504.0f : x[i];
                const uint16_t want = tern_f32_to_f16(inside);
                if (isnan(x[i]) ? !isnan(tern_f16_to_f32(y[i])) : y[i] != want)
                    fail_msg("%s: %g became %04x instead of %04x", running, (double)x[i], y[i], want);
            }
        }
    }
}

// want: in float64; sizes: the magnitude of its terms. x and rows end where an unreadable page begins.
static void check_dot(tern_stage_id stage, size_t n, size_t m, size_t k) {
    const bool half = stage == TERN_STAGE_dot_f16;
    const size_t ldx = k + random_below(2) * 3, ldy = n + random_below(2) * 5;
    const float *x = random_vector(GUARD_X, (m - 1) * ldx + k, 2.0f);
    const void *rows = half ? (const void *)random_halves(GUARD_W, n * k, 3.0f) : random_vector(GUARD_W, n * k, 3.0f);
    const size_t outputs = (m - 1) * ldy + n;
    float *want = malloc(outputs * sizeof *want), *y = guard_buffer(GUARD_OUT, outputs * sizeof *y);
    assert_non_null(want);
    tern_dot_args args = {want, ldy, x, ldx, rows, n, m, k};
    memset(want, 0, outputs * sizeof *want);
    (half ? tern_dot_f16_scalar : tern_dot_f32_scalar)(&args);
    for (size_t t = 0; t < m; t++)
        for (size_t i = 0; i < n; i++) {
            double exact = 0, size = 0;
            for (size_t j = 0; j < k; j++) {
                const double w = half ? (double)tern_f16_to_f32(((const uint16_t *)rows)[i * k + j])
                                      : (double)((const float *)rows)[i * k + j];
                exact += (double)x[t * ldx + j] * w;
                size += fabs((double)x[t * ldx + j] * w);
            }
            if (fabs((double)want[t * ldy + i] - exact) > size * (double)(k / 16 + 6) * 0x1p-23)
                fail_msg("scalar %s: k %zu, y[%zu][%zu] = %g instead of %g", half ? "dot_f16" : "dot_f32", k, t, i,
                         (double)want[t * ldy + i], exact);
        }
    args.y = y;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        tern_dot_fn *dot = (tern_dot_fn *)use_variant(v, stage);
        if (!dot) continue;
        memset(y, 0, outputs * sizeof *y);
        dot(&args);
        if (memcmp(y, want, outputs * sizeof *y)) fail_msg("%s differs from scalar: n %zu, m %zu, k %zu", running, n, m, k);
    }
    free(want);
}

static void dot_variants_match_scalar_and_float64(void **unused) {
    (void)unused;
    for (size_t k = 1; k <= VECTOR_N_MAX; k++) {
        check_dot(TERN_STAGE_dot_f32, 1 + k % 4, 1 + k % 6, k);
        check_dot(TERN_STAGE_dot_f16, 1 + k % 4, 1 + k % 6, k);
    }
    check_dot(TERN_STAGE_dot_f16, 3, 5, 2560);
    check_dot(TERN_STAGE_dot_f32, 3, 5, 2560);
}

// ---- probes ------------------------------------------------------------------------------------------------------

static void read_sweep_reads_exactly_the_given_bytes(void **unused) {
    (void)unused;
    enum { MOST = 4096 + 256, STEP = 256 };
    uint64_t *words = guard_buffer(GUARD_X, MOST);
    for (size_t i = 0; i < MOST / 8; i++) words[i] = next_random();
    FOR_EACH_VARIANT(read_sweep, sweep) {
        for (size_t bytes = STEP; bytes <= MOST; bytes += STEP) {
            const uint64_t *from = words + (MOST - bytes) / 8;
            uint64_t want = 0;
            for (size_t i = 0; i < bytes / 8; i++) want += from[i];
            if (sweep(from, bytes) != want) fail_msg("%s: wrong sum of %zu bytes", running, bytes);
        }
    }
}

static void int8_peak_counts_in_proportion_to_its_rounds(void **unused) {
    (void)unused;
    FOR_EACH_VARIANT(int8_peak, peak) {
        const uint64_t one = peak(1);
        assert_true(one > 0);
        assert_int_equal(peak(10), 10 * one);
        assert_int_equal(peak(0), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm_variants_match_scalar_and_float64),
        cmocka_unit_test(silu_mul_variants_match_scalar_and_float64),
        cmocka_unit_test(relu2_mul_variants_match_scalar_and_float64),
        cmocka_unit_test(attention_variants_match_scalar_and_float64),
        cmocka_unit_test(to_half_variants_round_to_even_and_saturate),
        cmocka_unit_test(dot_variants_match_scalar_and_float64),
        cmocka_unit_test(attention_of_equal_keys_is_the_mean_of_the_values),
        cmocka_unit_test(read_sweep_reads_exactly_the_given_bytes),
        cmocka_unit_test(int8_peak_counts_in_proportion_to_its_rounds),
    };
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
