// SPDX-License-Identifier: MIT
// Calls each quantize, INT8 and vector variant that this CPU has, without the library around it: bit for bit against the scalar
// variant, with unreadable pages right behind every buffer; and the scalar variants against independent 64-bit formulas.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpu_tiers.h"
#include "kernels/kernels.h"
#include "test_scale.h"

// ---- variants under test -------------------------------------------------------------------------------------

typedef void any_fn(void);
typedef struct variant {
    tern_stage_id stage;
    tern_tier tier;
    const char *symbol;
    any_fn *fn;
} variant;

static const variant variants[] = {
#define TERN_VARIANT(stage, TIER, LAYOUT, symbol) {TERN_STAGE_##stage, TERN_TIER_##TIER, #symbol, (any_fn *)symbol},
#include "kernels/variants.inc"
#undef TERN_VARIANT
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

// Loops over the variants of a stage that this CPU can run; `function` is each in turn.
#define FOR_EACH_VARIANT(stage_name, function)                                                                                 \
    for (size_t v_ = 0; v_ < N_VARIANTS; v_++)                                                                                 \
        for (tern_##stage_name##_fn *function = (tern_##stage_name##_fn *)use_variant(v_, TERN_STAGE_##stage_name); function;  \
             function = NULL)

static const char *running = ""; // symbol of the variant under test, for messages

// The function of variant v, or NULL if it is of another stage or this CPU cannot run it.
static any_fn *use_variant(size_t v, tern_stage_id stage) {
    if (variants[v].stage != stage || !test_cpu_has_tier(variants[v].tier)) return NULL;
    running = variants[v].symbol;
    return variants[v].fn;
}

// ---- buffers that end at an unreadable page ----------------------------------------------------------------

typedef enum guarded { GUARDED_X, GUARDED_W, GUARDED_SCALES, GUARDED_SUMS, GUARDED_OUT, GUARDED_COUNT } guarded;

// Zeroed memory of `size` bytes, right behind which an unreadable page begins; valid until the next call for the same buffer.
static void *guard_alloc(guarded buffer, size_t size) {
    enum { CAPACITY = 4 << 20 }; // touched only where used
    static char *end[GUARDED_COUNT];
    if (!end[buffer]) {
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        char *map = mmap(NULL, CAPACITY + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        assert_true(map != MAP_FAILED);
        assert_int_equal(mprotect(map + CAPACITY, page, PROT_NONE), 0);
        end[buffer] = map + CAPACITY;
    }
    assert_true(size <= CAPACITY);
    return memset(end[buffer] - size, 0, size);
}

// ---- random values ---------------------------------------------------------------------------------------------

static uint64_t seed, state;

static uint64_t next_random(void) { // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static size_t random_below(size_t n) { return (size_t)(next_random() % n); }
static float random_float(void) { return (float)((double)next_random() / 0x1p64 * 2.0 - 1.0); }

static int start(void **unused) {
    (void)unused;
    const char *given = getenv("TERN_TEST_SEED");
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    state = seed;
    print_message("TERN_TEST_SEED=%llu; not run on this CPU:", (unsigned long long)seed);
    for (size_t v = 0; v < N_VARIANTS; v++) {
        if (!test_cpu_has_tier(variants[v].tier)) print_message(" %s", variants[v].symbol);
    }
    print_message("\n");
    return 0;
}

// ---- quantize ------------------------------------------------------------------------------------------------

enum { QUANTIZE_K_MAX = 261 };

typedef enum float_pattern { ORDINARY, ZEROS, TIES, TINY, HUGE_VALUES, SPREAD, FLOAT_PATTERNS } float_pattern;

static void fill_floats(float *x, size_t k, float_pattern pattern) {
    for (size_t i = 0; i < k; i++) {
        switch (pattern) {
        case ZEROS:
            x[i] = i % 2 ? 0.0f : -0.0f;
            break;
        case TIES:
            x[i] = i == 0 ? 127.0f : (float)((int)random_below(253) - 126) + 0.5f;
            break;
        case TINY:
            x[i] = random_float() * 1e-40f;
            break;
        case HUGE_VALUES:
            x[i] = random_below(2) ? 3.4028235e38f : -3.4028235e38f;
            break;
        case SPREAD:
            x[i] = ldexpf(random_float(), (int)random_below(80) - 40);
            break;
        default:
            x[i] = random_float();
            break;
        }
    }
}

typedef struct quantized {
    int8_t q[TERN_X_ALIGN * 5] __attribute__((aligned(64)));
    float scale[QUANTIZE_K_MAX];
    int32_t sums[QUANTIZE_K_MAX];
} quantized;

static const size_t quantize_blocks[] = {16, 32, 48, 64, 256, QUANTIZE_K_MAX + 100};

static void quantize_variants_match_scalar_bit_for_bit(void **unused) {
    (void)unused;
    size_t checked = 0;
    FOR_EACH_VARIANT(quantize, quantize) {
        for (size_t k = 1; k <= QUANTIZE_K_MAX; k++) {
            float *input = guard_alloc(GUARDED_X, k * sizeof(float));
            const size_t padded = tern_round_up(k, TERN_X_ALIGN);
            int8_t *codes = guard_alloc(GUARDED_W, padded);
            for (size_t b = 0; b < sizeof quantize_blocks / sizeof quantize_blocks[0]; b++) {
                const size_t block = quantize_blocks[b], n_blocks = tern_ceil_div(k, block);
                fill_floats(input, k, (float_pattern)((k + b) % FLOAT_PATTERNS));
                static quantized want;
                memset(&want, 0x55, sizeof want);
                assert_int_equal(tern_quantize_scalar(want.q, want.scale, want.sums, input, k, block, 1e-5f), 0);
                float *scale = guard_alloc(GUARDED_SCALES, n_blocks * sizeof(float));
                int32_t *sums = guard_alloc(GUARDED_SUMS, n_blocks * sizeof(int32_t));
                memset(codes, 0x55, padded);
                assert_int_equal(quantize(codes, scale, sums, input, k, block, 1e-5f), 0);
                if (memcmp(codes, want.q, padded) || memcmp(scale, want.scale, n_blocks * sizeof(float)) ||
                    memcmp(sums, want.sums, n_blocks * sizeof(int32_t)))
                    fail_msg("%s differs from scalar: k %zu, block %zu", running, k, block);
                checked++;
            }
        }
    }
    assert_true(checked > 0);
}

static void quantize_reports_every_nan_and_infinity(void **unused) {
    (void)unused;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    FOR_EACH_VARIANT(quantize, quantize) {
        for (size_t k = 1; k <= 70; k++) {
            for (size_t at = 0; at < k; at++) {
                quantized out;
                float x[70];
                fill_floats(x, k, ORDINARY);
                assert_int_equal(quantize(out.q, out.scale, out.sums, x, k, 32, 1e-5f), 0);
                x[at] = bad[(k + at) % 4];
                if (quantize(out.q, out.scale, out.sums, x, k, 32, 1e-5f) != 1)
                    fail_msg("%s accepts %f at %zu of %zu", running, (double)x[at], at, k);
            }
        }
    }
}

static void scalar_quantize_rounds_x_over_scale_to_the_nearest_code(void **unused) {
    (void)unused;
    static quantized out;
    float x[QUANTIZE_K_MAX];
    for (size_t k = 1; k <= QUANTIZE_K_MAX; k++) {
        for (size_t b = 0; b < sizeof quantize_blocks / sizeof quantize_blocks[0]; b++) {
            const size_t block = quantize_blocks[b];
            const float floor_value = 1e-5f;
            fill_floats(x, k, (float_pattern)((k + b) % FLOAT_PATTERNS));
            assert_int_equal(tern_quantize_scalar(out.q, out.scale, out.sums, x, k, block, floor_value), 0);
            for (size_t start = 0; start < k; start += block) {
                const size_t end = start + block < k ? start + block : k;
                double most = (double)floor_value;
                for (size_t i = start; i < end; i++) most = fmax(most, fabs((double)x[i]));
                // A double division rounded to float is the correctly rounded float division.
                assert_true(out.scale[start / block] == (float)(most / 127.0));
                int64_t sum = 0;
                for (size_t i = start; i < end; i++) {
                    const double exact = (double)x[i] * 127.0 / most;
                    // Two float roundings move a product of at most 127 by less than 2e-5.
                    if (fabs(exact - out.q[i]) > 0.5 + 2e-5)
                        fail_msg("k %zu, block %zu: q[%zu] = %d for %f", k, block, i, out.q[i], exact);
                    sum += out.q[i];
                }
                assert_int_equal(sum, out.sums[start / block]);
            }
            for (size_t i = k; i < tern_round_up(k, TERN_X_ALIGN); i++) assert_int_equal(out.q[i], 0);
        }
    }
}

static void quantize_takes_ties_to_even(void **unused) {
    (void)unused;
    FOR_EACH_VARIANT(quantize, quantize) {
        quantized out;
        float x[17] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, -126.5f, 3.5f};
        const int8_t want[17] = {127, 0, 2, 2, 0, -2, -2, 126, -126, 4};
        assert_int_equal(quantize(out.q, out.scale, out.sums, x, 17, 32, 0.0f), 0);
        assert_memory_equal(out.q, want, sizeof want);
    }
}

static void quantize_gives_zeros_for_a_block_without_magnitude(void **unused) {
    (void)unused;
    FOR_EACH_VARIANT(quantize, quantize) {
        quantized out;
        float x[40] = {0};
        x[35] = 1e-44f; // 127 / x would overflow
        memset(&out, 0x55, sizeof out);
        assert_int_equal(quantize(out.q, out.scale, out.sums, x, 40, 32, 0.0f), 0);
        for (size_t i = 0; i < TERN_X_ALIGN; i++) assert_int_equal(out.q[i], 0);
        for (size_t b = 0; b < 2; b++) {
            assert_true(out.scale[b] == 0.0f);
            assert_int_equal(out.sums[b], 0);
        }
    }
}

// ---- INT8 products -------------------------------------------------------------------------------------------

typedef enum code_pattern { FULL_RANGE, NO_MIN_X, ALL_MIN, ALL_MAX, MIN_TIMES_MAX, MAX_TIMES_MIN, CODE_PATTERNS } code_pattern;

static int8_t weight_code(code_pattern pattern) {
    switch (pattern) {
    case ALL_MIN:
    case MIN_TIMES_MAX:
        return INT8_MIN;
    case ALL_MAX:
    case MAX_TIMES_MIN:
        return INT8_MAX;
    default:
        return (int8_t)(random_below(8) ? random_below(256) - 128 : random_below(2) * 255 - 128);
    }
}
static int8_t x_code(code_pattern pattern) {
    switch (pattern) {
    case ALL_MIN:
    case MAX_TIMES_MIN:
        return INT8_MIN;
    case ALL_MAX:
    case MIN_TIMES_MAX:
        return INT8_MAX;
    case NO_MIN_X:
        return (int8_t)(random_below(8) ? (int)random_below(255) - 127 : (int)random_below(2) * 254 - 127);
    default:
        return (int8_t)(random_below(8) ? random_below(256) - 128 : random_below(2) * 255 - 128);
    }
}

// One product: plain codes w[n][k], x[m][ldx] and what kernels take. Every buffer ends at an unreadable page.
typedef struct product {
    size_t n, m, k, ldx, blocks, ld_out;
    int has_min;
    int8_t *w, *x;
    uint8_t *packed;
    float *x_scales;
    int32_t *x_sums;
    void *out; // int32 or float32
} product;

enum { OUT_FILL = 0x5a };

static void fill_x(product *p, code_pattern pattern, size_t readable) {
    p->ldx = tern_round_up(p->k, TERN_X_ALIGN);
    // The last row ends at the guard page; readable: what the stage may read of it.
    p->x = guard_alloc(GUARDED_X, (p->m - 1) * p->ldx + readable);
    p->has_min = 0;
    for (size_t t = 0; t < p->m; t++) {
        for (size_t i = 0; i < p->k; i++) {
            const int8_t code = x_code(pattern);
            p->x[t * p->ldx + i] = code;
            p->has_min |= code == INT8_MIN;
        }
    }
}

static product make_product(size_t n, size_t m, size_t k, code_pattern pattern, bool block_scaled) {
    product p = {.n = n, .m = m, .k = k, .ld_out = n + 16};
    p.w = malloc(n * k);
    assert_non_null(p.w);
    for (size_t i = 0; i < n * k; i++) p.w[i] = weight_code(pattern);
    fill_x(&p, pattern, block_scaled ? tern_round_up(k, TERN_X_ALIGN) : tern_round_up(k, 16));
    p.blocks = block_scaled ? 2 * tern_i8b_supers(k) : 1;
    p.packed = guard_alloc(GUARDED_W, block_scaled ? tern_i8b_bytes(n, k) : tern_i8_bytes(n, k));
    p.x_scales = guard_alloc(GUARDED_SCALES, m * p.blocks * sizeof(float));
    p.x_sums = guard_alloc(GUARDED_SUMS, m * p.blocks * sizeof(int32_t));
    p.out = guard_alloc(GUARDED_OUT, ((m - 1) * p.ld_out + n) * sizeof(int32_t));
    memset(p.out, OUT_FILL, ((m - 1) * p.ld_out + n) * sizeof(int32_t));
    const size_t depth = block_scaled ? (size_t)TERN_I8B_BLOCK : k;
    for (size_t t = 0; t < m; t++) {
        for (size_t i = 0; i < k; i++) p.x_sums[t * p.blocks + i / depth] += p.x[t * p.ldx + i];
        for (size_t b = 0; b < tern_ceil_div(k, depth); b++) p.x_scales[t * p.blocks + b] = fabsf(random_float()) + 1e-4f;
    }
    return p;
}

static void free_product(product *p) { free(p->w); }

static void pack_i8(product *p) {
    uint8_t *packed = p->packed;
    const size_t groups = tern_ceil_div(p->k, 4);
    for (size_t i = 0; i < p->n; i++) {
        for (size_t j = 0; j < p->k; j++)
            packed[(i / 16 * groups + j / 4) * 64 + i % 16 * 4 + j % 4] = (uint8_t)p->w[i * p->k + j];
    }
}

// A random finite float16: mostly ordinary scales, sometimes subnormal or negative.
static uint16_t random_half(void) {
    const size_t kind = random_below(16);
    const uint16_t exponent = (uint16_t)(kind == 0 ? 0 : kind == 1 ? random_below(31) : 8 + random_below(8));
    return (uint16_t)(random_below(8) == 0 ? 0x8000 : 0) | (uint16_t)(exponent << 10) | (uint16_t)random_below(1024);
}
static double half_value(uint16_t h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h >> 15 ? -v : v;
}

// Packs p->w with random scales; scales[i * blocks + b] gets their values.
static void pack_i8b32(product *p, double *scales) {
    uint8_t *packed = p->packed;
    const size_t supers = tern_ceil_div(p->k, 64);
    for (size_t i = 0; i < p->n; i++) {
        uint8_t *panel = packed + i / 16 * supers * 1088;
        for (size_t b = 0; b < tern_ceil_div(p->k, 32); b++) {
            const uint16_t h = random_half();
            memcpy(panel + b / 2 * 1088 + b % 2 * 32 + i % 16 * 2, &h, sizeof h);
            scales[i * p->blocks + b] = half_value(h);
        }
        for (size_t j = 0; j < p->k; j++)
            panel[j / 64 * 1088 + 64 + j % 64 / 4 * 64 + i % 16 * 4 + j % 4] = (uint8_t)p->w[i * p->k + j];
    }
}

static int64_t dot(const product *p, size_t t, size_t i, size_t from, size_t to) {
    int64_t sum = 0;
    for (size_t j = from; j < to && j < p->k; j++) sum += (int64_t)p->x[t * p->ldx + j] * p->w[i * p->k + j];
    return sum;
}

// No byte between the rows of the output was written.
static void check_gaps(const product *p) {
    for (size_t t = 0; t + 1 < p->m; t++) {
        const uint8_t *gap = (uint8_t *)p->out + (t * p->ld_out + p->n) * sizeof(int32_t);
        for (size_t i = 0; i < (p->ld_out - p->n) * sizeof(int32_t); i++) assert_int_equal(gap[i], OUT_FILL);
    }
}

static void check_int8_gemm(size_t n, size_t m, size_t k, code_pattern pattern) {
    if (!test_takes_case(next_random())) return;
    product p = make_product(n, m, k, pattern, false);
    pack_i8(&p);
    int32_t *want = malloc(n * m * sizeof *want);
    assert_non_null(want);
    for (size_t t = 0; t < m; t++) {
        for (size_t i = 0; i < n; i++) want[t * n + i] = (int32_t)dot(&p, t, i, 0, k);
    }
    const tern_gemm_args args = {.acc = p.out,
                                 .ld_acc = p.ld_out,
                                 .packed = p.packed,
                                 .n = n,
                                 .m = m,
                                 .k = k,
                                 .x = p.x,
                                 .ldx = p.ldx,
                                 .x_sums = p.x_sums,
                                 .ld_x_sums = 1,
                                 .x_has_min = p.has_min};
    FOR_EACH_VARIANT(int8_gemm, gemm) {
        memset(p.out, OUT_FILL, ((m - 1) * p.ld_out + n) * sizeof(int32_t));
        gemm(&args);
        for (size_t t = 0; t < m; t++) {
            if (memcmp((int32_t *)p.out + t * p.ld_out, want + t * n, n * sizeof *want))
                fail_msg("%s: n %zu, m %zu, k %zu, pattern %d: token %zu is wrong", running, n, m, k, (int)pattern, t);
        }
        check_gaps(&p);
    }
    free(want);
    free_product(&p);
}

static void check_int8_gemm_b32(size_t n, size_t m, size_t k, code_pattern pattern) {
    if (!test_takes_case(next_random())) return;
    product p = make_product(n, m, k, pattern, true);
    double *scales = malloc(n * p.blocks * sizeof *scales);
    float *want = malloc(n * m * sizeof *want);
    assert_non_null(scales);
    assert_non_null(want);
    pack_i8b32(&p, scales);
    for (size_t t = 0; t < m; t++) {
        for (size_t i = 0; i < n; i++) {
            double exact = 0, magnitude = 0;
            float y = 0; // the contract's order, each operation rounded on its own
            for (size_t b = 0; b < tern_ceil_div(k, 32); b++) {
                const int64_t s = dot(&p, t, i, b * 32, b * 32 + 32);
                const float da = p.x_scales[t * p.blocks + b], dw = (float)scales[i * p.blocks + b];
                exact += (double)s * (double)dw * (double)da;
                magnitude += fabs((double)s * (double)dw * (double)da);
                const float both = dw * da;
                const float term = (float)s * both;
                y = y + term;
            }
            assert_true(fabs(exact - (double)y) <= magnitude * (double)(p.blocks + 2) * 0x1p-24 + 1e-37);
            want[t * n + i] = y;
        }
    }
    const tern_gemm_b32_args args = {.y = p.out,
                                     .ld_y = p.ld_out,
                                     .packed = p.packed,
                                     .n = n,
                                     .m = m,
                                     .k = k,
                                     .x = p.x,
                                     .ldx = p.ldx,
                                     .x_scales = p.x_scales,
                                     .x_sums = p.x_sums,
                                     .ld_x_blocks = p.blocks,
                                     .x_has_min = p.has_min};
    FOR_EACH_VARIANT(int8_gemm_b32, gemm) {
        memset(p.out, OUT_FILL, ((m - 1) * p.ld_out + n) * sizeof(float));
        gemm(&args);
        for (size_t t = 0; t < m; t++) {
            if (memcmp((float *)p.out + t * p.ld_out, want + t * n, n * sizeof *want))
                fail_msg("%s: n %zu, m %zu, k %zu, pattern %d: token %zu is wrong", running, n, m, k, (int)pattern, t);
        }
        check_gaps(&p);
    }
    free(want), free(scales);
    free_product(&p);
}

// m sweeps past twice the widest token tile, n past several panels, k past two super-groups; each against a few of the others.
static void sweep_int8(void (*check)(size_t n, size_t m, size_t k, code_pattern pattern)) {
    enum { M_SWEEP = 33, K_SWEEP = 261, FEW = 3 };
    test_begin_group();
    const size_t some_n[FEW] = {16, 32, 80}, some_m[FEW] = {1, 3, 9}, some_k[FEW] = {1, 37, 192};
    for (int pattern = 0; pattern < CODE_PATTERNS; pattern++) {
        for (size_t i = 0; i < FEW; i++) {
            for (size_t m = 1; m <= M_SWEEP; m++) check(some_n[i], m, some_k[(i + m) % FEW], (code_pattern)pattern);
            for (size_t n = 16; n <= 144; n += 16) check(n, some_m[i], some_k[(i + n / 16) % FEW], (code_pattern)pattern);
        }
        for (size_t k = 1; k <= K_SWEEP; k++) check(some_n[k % FEW], some_m[k / FEW % FEW], k, (code_pattern)pattern);
    }
    for (size_t i = 0; i < 300; i++)
        check(16 * (1 + random_below(5)), 1 + random_below(20), 1 + random_below(500),
              (code_pattern)random_below(CODE_PATTERNS));
}

static void int8_gemm_variants_equal_the_int64_formula(void **unused) {
    (void)unused;
    sweep_int8(check_int8_gemm);
}
static void int8_gemm_b32_variants_equal_the_written_float_order(void **unused) {
    (void)unused;
    sweep_int8(check_int8_gemm_b32);
}

static void int8_gemm_is_exact_at_the_largest_depth(void **unused) {
    (void)unused;
    enum { LARGEST_K = 131071 }; // TERN_K_MAX
    test_begin_group();
    for (int pattern = ALL_MIN; pattern < CODE_PATTERNS; pattern++) check_int8_gemm(16, 2, LARGEST_K, (code_pattern)pattern);
}

// ---- vector stages ---------------------------------------------------------------------------------------------

enum { VECTOR_N_MAX = 200 };

static float *random_vector(guarded buffer, size_t n, float magnitude) {
    float *v = guard_alloc(buffer, n * sizeof(float));
    for (size_t i = 0; i < n; i++) v[i] = random_float() * magnitude;
    return v;
}

static void rmsnorm_variants_match_scalar_and_float64(void **unused) {
    (void)unused;
    for (size_t n = 1; n <= VECTOR_N_MAX; n++) {
        float *x = random_vector(GUARDED_X, n, 3.0f), *w = random_vector(GUARDED_W, n, 2.0f);
        float *y = guard_alloc(GUARDED_OUT, n * sizeof(float));
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
        float *a = random_vector(GUARDED_X, n, magnitudes[n % 5]), *b = random_vector(GUARDED_W, n, 2.0f);
        float *y = guard_alloc(GUARDED_OUT, n * sizeof(float));
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
    float *q = random_vector(GUARDED_X, head_dim, magnitude), *keys = random_vector(GUARDED_W, floats, 2.0f);
    float *values = random_vector(GUARDED_SCALES, floats, 1.0f), *out = guard_alloc(GUARDED_OUT, head_dim * sizeof(float));
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
    uint64_t *words = guard_alloc(GUARDED_X, MOST);
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
        cmocka_unit_test(quantize_variants_match_scalar_bit_for_bit),
        cmocka_unit_test(quantize_reports_every_nan_and_infinity),
        cmocka_unit_test(scalar_quantize_rounds_x_over_scale_to_the_nearest_code),
        cmocka_unit_test(quantize_takes_ties_to_even),
        cmocka_unit_test(quantize_gives_zeros_for_a_block_without_magnitude),
        cmocka_unit_test(int8_gemm_variants_equal_the_int64_formula),
        cmocka_unit_test(int8_gemm_b32_variants_equal_the_written_float_order),
        cmocka_unit_test(int8_gemm_is_exact_at_the_largest_depth),
        cmocka_unit_test(rmsnorm_variants_match_scalar_and_float64),
        cmocka_unit_test(silu_mul_variants_match_scalar_and_float64),
        cmocka_unit_test(attention_variants_match_scalar_and_float64),
        cmocka_unit_test(attention_of_equal_keys_is_the_mean_of_the_values),
        cmocka_unit_test(read_sweep_reads_exactly_the_given_bytes),
        cmocka_unit_test(int8_peak_counts_in_proportion_to_its_rounds),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
