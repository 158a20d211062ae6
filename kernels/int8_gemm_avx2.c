// SPDX-License-Identifier: MIT
// INT8 products for AVX2: tiles of 16 features by up to 4 tokens, features in lanes, four k per 32-bit lane.
#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#include "compiler.h"

#define TILE_INLINE static inline __attribute__((always_inline))
// A tile is a function of its own, with constant tokens and widened: so gcc 12 keeps its sums in registers.
#define TILE_OWN static __attribute__((noinline))

enum {
    HALF = 8, // features of one ymm, half a panel
    HALF_BYTES = HALF * TERN_I8_GROUP_K,
    HALVES = TERN_I8_PANEL / HALF,
    TOKENS = 4, // of the widest tile: its 8 sums and 5 working vectors fit the 16 registers
    SUMS = HALVES * TOKENS,
    CHUNK_GROUPS = 256, // K is cut so that a panel's chunk of weights (16 KB) stays in L1 while all tokens pass
    CHUNK_SUPERS = CHUNK_GROUPS * TERN_I8_GROUP_K / TERN_I8B_SUPER_K,
    PREFETCH_BYTES = TERN_I8B_SUPER_BYTES
};

// Four activations of one token in every 32-bit lane.
TILE_INLINE __m256i broadcast_four(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

// sum[h * tokens + t] += products of `groups` >= 1 groups of 4 k. w: first group of a panel; x: tokens ldx
// apart. Each 32-bit lane holds one feature. `tokens` is a constant after inlining. Fast path, for x > -128: |w|
// (as u8) times x with the sign of w. |pair of products| <= 2 * 128 * 127 = 32512 fits int16.
TILE_INLINE void add_signed(__m256i sum[SUMS], const uint8_t *w, const int8_t *x, size_t ldx, size_t groups, size_t tokens) {
    const __m256i ones = _mm256_set1_epi16(1);
    TERN_NO_UNROLL
    do {
        for (size_t h = 0; h < HALVES; h++) {
            const __m256i code = _mm256_load_si256((const __m256i *)(w + h * HALF_BYTES)), magnitude = _mm256_abs_epi8(code);
            for (size_t t = 0; t < tokens; t++) {
                const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(broadcast_four(x + t * ldx), code));
                sum[h * tokens + t] = _mm256_add_epi32(sum[h * tokens + t], _mm256_madd_epi16(pairs, ones));
            }
        }
        // One token waits for memory (past the end the prefetch does nothing): Zen 3 reads 1/4 faster from DRAM with it.
        if (tokens == 1) _mm_prefetch((const char *)(w + PREFETCH_BYTES), _MM_HINT_T0);
        w += TERN_I8_GROUP_BYTES;
        x += TERN_I8_GROUP_K;
        for (size_t i = 0; i < HALVES * tokens; i++) __asm__("" : "+x"(sum[i])); // keeps gcc 12 from copying them for the exit
    } while (--groups);
}

// Exact path, for any x: even and odd k apart, both sides widened to int16.
TILE_INLINE void add_widened(__m256i sum[SUMS], const uint8_t *w, const int8_t *x, size_t ldx, size_t groups, size_t tokens) {
    TERN_NO_UNROLL
    do {
        for (size_t h = 0; h < HALVES; h++) {
            // int16 lanes: k = 0, 2 and k = 1, 3 of each feature
            const __m256i code = _mm256_load_si256((const __m256i *)(w + h * HALF_BYTES));
            const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(code, 8), 8), odd = _mm256_srai_epi16(code, 8);
            for (size_t t = 0; t < tokens; t++) {
                const __m256i four = broadcast_four(x + t * ldx);
                const __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8), x_odd = _mm256_srai_epi16(four, 8);
                const __m256i products = _mm256_add_epi32(_mm256_madd_epi16(even, x_even), _mm256_madd_epi16(odd, x_odd));
                sum[h * tokens + t] = _mm256_add_epi32(sum[h * tokens + t], products);
            }
        }
        w += TERN_I8_GROUP_BYTES;
        x += TERN_I8_GROUP_K;
        for (size_t i = 0; i < HALVES * tokens; i++) __asm__("" : "+x"(sum[i])); // keeps gcc 12 from copying them for the exit
    } while (--groups);
}

TILE_INLINE void add_groups(__m256i sum[SUMS], const uint8_t *w, const int8_t *x, size_t ldx, size_t groups, size_t tokens,
                            int widened) {
    if (widened)
        add_widened(sum, w, x, ldx, groups, tokens);
    else
        add_signed(sum, w, x, ldx, groups, tokens);
}

// ---- int8_gemm ---------------------------------------------------------------------------------------------

// One tile of one chunk of K: acc (+)= sums; first: acc is written without being read.
typedef void s32_tile_fn(int32_t *acc, size_t ld_acc, const uint8_t *w, const int8_t *x, size_t ldx, size_t groups, int first);

TILE_INLINE void s32_tile(int32_t *acc, size_t ld_acc, const uint8_t *w, const int8_t *x, size_t ldx, size_t groups, int first,
                          size_t tokens, int widened) {
    __m256i sum[SUMS];
    for (size_t h = 0; h < HALVES; h++) {
        for (size_t t = 0; t < tokens; t++)
            sum[h * tokens + t] =
                first ? _mm256_setzero_si256() : _mm256_load_si256((const __m256i *)(acc + t * ld_acc + h * HALF));
    }
    add_groups(sum, w, x, ldx, groups, tokens, widened);
    for (size_t h = 0; h < HALVES; h++) {
        for (size_t t = 0; t < tokens; t++) _mm256_store_si256((__m256i *)(acc + t * ld_acc + h * HALF), sum[h * tokens + t]);
    }
}

#define S32_TILE(name, tokens, widened)                                                                                        \
    TILE_OWN void name(int32_t *acc, size_t ld_acc, const uint8_t *w, const int8_t *x, size_t ldx, size_t groups, int first) { \
        s32_tile(acc, ld_acc, w, x, ldx, groups, first, tokens, widened);                                                      \
    }
S32_TILE(s32_4, 4, 0)
S32_TILE(s32_2, 2, 0)
S32_TILE(s32_1, 1, 0)
S32_TILE(s32_widened_2, 2, 1)
S32_TILE(s32_widened_1, 1, 1)

// Widest first; the last takes one token.
typedef struct s32_tile_entry {
    size_t tokens;
    s32_tile_fn *run;
} s32_tile_entry;
static const s32_tile_entry s32_signed_tiles[] = {{4, s32_4}, {2, s32_2}, {1, s32_1}};
static const s32_tile_entry s32_widened_tiles[] = {{2, s32_widened_2}, {1, s32_widened_1}};

void tern_int8_gemm_avx2(const tern_gemm_args *args) {
    const size_t groups = tern_i8_groups(args->k);
    for (size_t i = 0; i < args->n; i += TERN_I8_PANEL) {
        const uint8_t *panel = args->packed + i * groups * TERN_I8_GROUP_K;
        for (size_t g = 0; g < groups; g += CHUNK_GROUPS) {
            const size_t chunk = groups - g < CHUNK_GROUPS ? groups - g : CHUNK_GROUPS;
            const s32_tile_entry *tile = args->x_has_min ? s32_widened_tiles : s32_signed_tiles;
            for (size_t t = 0; t < args->m; t += tile->tokens) {
                while (tile->tokens > args->m - t) tile++;
                tile->run(args->acc + t * args->ld_acc + i, args->ld_acc, panel + g * TERN_I8_GROUP_BYTES,
                          args->x + t * args->ldx + g * TERN_I8_GROUP_K, args->ldx, chunk, g == 0);
            }
        }
    }
}

// ---- int8_gemm_b32 -----------------------------------------------------------------------------------------

enum {
    BLOCKS = TERN_I8B_SUPER_K / TERN_I8B_BLOCK,
    BLOCK_GROUPS = TERN_I8B_BLOCK / TERN_I8_GROUP_K,
    BLOCK_BYTES = BLOCK_GROUPS * TERN_I8_GROUP_BYTES,
    SCALE_BYTES = 2,
    SCALES_STEP = TERN_I8B_PANEL * SCALE_BYTES
};

// One tile of one chunk of K: y (+)= (float)s * (dw * da) block after block; y stays in L1
// between blocks. first: y is written without being read.
typedef void b32_tile_fn(float *y, size_t ld_y, const uint8_t *super, const int8_t *x, size_t ldx, const float *x_scales,
                         size_t ld_x_blocks, size_t supers, int first);

TILE_INLINE void b32_tile(float *y, size_t ld_y, const uint8_t *super, const int8_t *x, size_t ldx, const float *x_scales,
                          size_t ld_x_blocks, size_t supers, int first, size_t tokens, int widened) {
    if (first) {
        for (size_t t = 0; t < tokens; t++) {
            for (size_t h = 0; h < HALVES; h++) _mm256_store_ps(y + t * ld_y + h * HALF, _mm256_setzero_ps());
        }
    }
    const uint8_t *scales = super, *codes = super + TERN_I8B_CODES;
    for (size_t b = 0; b < supers * BLOCKS; b++) {
        __m256i sum[SUMS];
        for (size_t h = 0; h < HALVES; h++) {
            for (size_t t = 0; t < tokens; t++) sum[h * tokens + t] = _mm256_setzero_si256();
        }
        add_groups(sum, codes, x + b * TERN_I8B_BLOCK, ldx, BLOCK_GROUPS, tokens, widened);
        for (size_t h = 0; h < HALVES; h++) {
            const __m256 dw = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(scales + h * HALF * SCALE_BYTES)));
            for (size_t t = 0; t < tokens; t++) {
                const __m256 both = _mm256_mul_ps(dw, _mm256_broadcast_ss(x_scales + t * ld_x_blocks + b));
                const __m256 term = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[h * tokens + t]), both);
                float *to = y + t * ld_y + h * HALF;
                _mm256_store_ps(to, _mm256_add_ps(_mm256_load_ps(to), term));
            }
        }
        // Block 1 of a super-group follows block 0; its end is the next super-group's scales.
        const size_t last = b % BLOCKS;
        scales += last ? TERN_I8B_SUPER_BYTES - SCALES_STEP : SCALES_STEP;
        codes += BLOCK_BYTES + last * TERN_I8B_CODES;
    }
}

#define B32_TILE(name, tokens, widened)                                                                                        \
    TILE_OWN void name(float *y, size_t ld_y, const uint8_t *super, const int8_t *x, size_t ldx, const float *x_scales,        \
                       size_t ld_x_blocks, size_t supers, int first) {                                                         \
        b32_tile(y, ld_y, super, x, ldx, x_scales, ld_x_blocks, supers, first, tokens, widened);                               \
    }
B32_TILE(b32_4, 4, 0)
B32_TILE(b32_2, 2, 0)
B32_TILE(b32_1, 1, 0)
B32_TILE(b32_widened_2, 2, 1)
B32_TILE(b32_widened_1, 1, 1)

typedef struct b32_tile_entry {
    size_t tokens;
    b32_tile_fn *run;
} b32_tile_entry;
static const b32_tile_entry b32_signed_tiles[] = {{4, b32_4}, {2, b32_2}, {1, b32_1}};
static const b32_tile_entry b32_widened_tiles[] = {{2, b32_widened_2}, {1, b32_widened_1}};

void tern_int8_gemm_b32_avx2(const tern_gemm_b32_args *args) {
    const size_t supers = tern_i8b_supers(args->k);
    for (size_t i = 0; i < args->n; i += TERN_I8B_PANEL) {
        const uint8_t *panel = args->packed + i / TERN_I8B_PANEL * supers * TERN_I8B_SUPER_BYTES;
        for (size_t s = 0; s < supers; s += CHUNK_SUPERS) {
            const size_t chunk = supers - s < CHUNK_SUPERS ? supers - s : CHUNK_SUPERS;
            const b32_tile_entry *tile = args->x_has_min ? b32_widened_tiles : b32_signed_tiles;
            for (size_t t = 0; t < args->m; t += tile->tokens) {
                while (tile->tokens > args->m - t) tile++;
                tile->run(args->y + t * args->ld_y + i, args->ld_y, panel + s * TERN_I8B_SUPER_BYTES,
                          args->x + t * args->ldx + s * TERN_I8B_SUPER_K, args->ldx,
                          args->x_scales + t * args->ld_x_blocks + s * BLOCKS, args->ld_x_blocks, chunk, s == 0);
            }
        }
    }
}
