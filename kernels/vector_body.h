// SPDX-License-Identifier: MIT
// rmsnorm, silu_mul and relu2_mul for the tier that includes this (see vector_types.h).

static inline TERN_VF_INLINE float sum_of_squares(const float *x, size_t n) {
    vf sum[PARTS] = {{0}};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t p = 0; p < PARTS; p++) {
            const vf v = load(x + i + p * WIDTH);
            sum[p] += v * v;
        }
    }
    if (i < n) {
        float tail[LANES] = {0};
        memcpy(tail, x + i, (n - i) * sizeof *x);
        for (size_t p = 0; p < PARTS; p++) {
            const vf v = load(tail + p * WIDTH);
            sum[p] += v * v;
        }
    }
    return fold_four(fold_lanes(sum));
}

void TERN_VF_NAME(rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps) {
    const float r = 1.0f / sqrtf(sum_of_squares(x, n) / (float)n + eps);
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(y + i, load(x + i) * r * load(w + i));
    for (; i < n; i++) y[i] = x[i] * r * w[i];
}

// a / (1 + e^-a) * b; e^-a is held within [e^-87, e^88], which moves the result by less than 1e-35 * |a * b|.
static inline TERN_VF_INLINE vf silu_mul(vf a, vf b) { return a / (1.0f + exponential(-a)) * b; }

void TERN_VF_NAME(silu_mul)(float *y, const float *a, const float *b, size_t n) {
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(y + i, silu_mul(load(a + i), load(b + i)));
    if (i < n) store_some(y + i, silu_mul(load_some(a + i, n - i), load_some(b + i, n - i)), n - i);
}

static inline TERN_VF_INLINE vf relu2_mul(vf a, vf b) {
    const vf positive = larger(splat(0.0f), a); // a NaN stays
    return positive * positive * b;
}

void TERN_VF_NAME(relu2_mul)(float *y, const float *a, const float *b, size_t n) {
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(y + i, relu2_mul(load(a + i), load(b + i)));
    if (i < n) store_some(y + i, relu2_mul(load_some(a + i, n - i), load_some(b + i, n - i)), n - i);
}
