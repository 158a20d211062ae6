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

static void attention_exact(double *out, const float *q, const float *keys, const float *values, size_t stride, size_t n_keys,
                            size_t head_dim, double scale) {
    double *scores = malloc(n_keys * sizeof *scores), most = -INFINITY, total = 0;
    assert_non_null(scores);
    for (size_t j = 0; j < n_keys; j++) {
        scores[j] = 0;
        for (size_t d = 0; d < head_dim; d++) scores[j] += (double)q[d] * (double)keys[j * stride + d] * scale;
        most = fmax(most, scores[j]);
    }
    memset(out, 0, head_dim * sizeof *out);
    for (size_t j = 0; j < n_keys; j++) {
        const double weight = exp(scores[j] - most);
        total += weight;
        for (size_t d = 0; d < head_dim; d++) out[d] += weight * (double)values[j * stride + d];
    }
    for (size_t d = 0; d < head_dim; d++) out[d] /= total;
    free(scores);
}

static void check_attention(size_t n_keys, size_t head_dim, float magnitude) {
    const size_t stride = head_dim + random_below(3) * 5, floats = (n_keys - 1) * stride + head_dim;
    float *q = random_vector(GUARD_X, head_dim, magnitude), *keys = random_vector(GUARD_W, floats, 2.0f);
    float *values = random_vector(GUARD_SCALES, floats, 1.0f), *out = guard_buffer(GUARD_OUT, head_dim * sizeof(float));
    const float scale = 1.0f / sqrtf((float)head_dim);
    float want[TERN_HEAD_DIM_MAX];
    double exact[TERN_HEAD_DIM_MAX];
    tern_attention_scalar(want, q, keys, values, stride, n_keys, head_dim, scale);
    attention_exact(exact, q, keys, values, stride, n_keys, head_dim, (double)scale);
    for (size_t d = 0; d < head_dim; d++) {
        // Scores of magnitude s carry a rounding error of about s * 2^-24 * sqrt(head_dim); values are at most 1.
        if (fabs(exact[d] - (double)want[d]) > 2e-6 + 4e-6 * (double)magnitude)
            fail_msg("scalar attention: %zu keys, head_dim %zu, out[%zu] = %g instead of %g", n_keys, head_dim, d,
                     (double)want[d], exact[d]);
    }
    FOR_EACH_VARIANT(attention, attention) {
        attention(out, q, keys, values, stride, n_keys, head_dim, scale);
        if (memcmp(out, want, head_dim * sizeof(float)))
            fail_msg("%s differs from scalar: %zu keys, head_dim %zu", running, n_keys, head_dim);
    }
}

static void attention_variants_match_scalar_and_float64(void **unused) {
    (void)unused;
    for (size_t head_dim = 1; head_dim <= TERN_HEAD_DIM_MAX; head_dim++) check_attention(1 + random_below(40), head_dim, 1.0f);
    for (size_t n_keys = 1; n_keys <= 70; n_keys++) check_attention(n_keys, 64, 8.0f);
    const size_t around_blocks[] = {255, 256, 257, 511, 512, 513, 770, 1500};
    for (size_t i = 0; i < sizeof around_blocks / sizeof around_blocks[0]; i++) {
        check_attention(around_blocks[i], 64, 1.0f);
        check_attention(around_blocks[i], 63, 30.0f);
    }
}

// Growing the context by keys that get no weight must leave the bits of earlier blocks alone; equal keys give the mean value.
static void attention_of_equal_keys_is_the_mean_of_the_values(void **unused) {
    (void)unused;
    enum { KEYS = 300, DIM = 48 };
    static float keys[KEYS * DIM], values[KEYS * DIM];
    for (size_t i = 0; i < KEYS * DIM; i++) {
        keys[i] = (float)(i % DIM) * 0.01f;
        values[i] = (float)(i / DIM);
    }
    float out[DIM];
    FOR_EACH_VARIANT(attention, attention) {
        attention(out, keys, keys, values, DIM, KEYS, DIM, 0.125f);
        for (size_t d = 0; d < DIM; d++) assert_true(fabsf(out[d] - (KEYS - 1) / 2.0f) < 1e-3f);
    }
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
        cmocka_unit_test(attention_of_equal_keys_is_the_mean_of_the_values),
        cmocka_unit_test(read_sweep_reads_exactly_the_given_bytes),
        cmocka_unit_test(int8_peak_counts_in_proportion_to_its_rounds),
    };
    return cmocka_run_group_tests(tests, start_kernel_test, NULL);
}
