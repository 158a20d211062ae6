// SPDX-License-Identifier: MIT
// LUT product of T5 with AVX-512 VBMI: five trits a byte, 128-entry lookups, one forward stream of weights.
#include <immintrin.h>

#include "compiler.h"
#include "kernels.h"

enum {
    VECTOR = 64,                            // features of a vector
    BLOCK_VECTORS = TERN_T5_BLOCK / VECTOR, // one token: 8 vectors * 2 planes = 16 sums
    PAIR_VECTORS = BLOCK_VECTORS / 2,       // two tokens: 4 vectors * 2 planes * 2 = 16 sums
    TOKENS = 4,                             // tokens that share one pass over the slab: a block's codes stay in L1 meanwhile
    PLANE = TERN_T5_TABLE_BYTES / 2,
    PREFETCH = 4096,
    // |value| <= 128 per trit, or 127 where no activation is -128; that times these stays within int16: 32640, 32766. The
    // larger one takes a whole K-slice of 256.
    SPILL_K = 255,
    SPILL_K_NO_MIN = 258
};

// 64 codes. gcc would rather load them again for each use than copy a register: three loads where one is free.
static inline __m512i load_once(const uint8_t *codes) {
    __m512i v = _mm512_load_si512(codes);
    TERN_IN_PLACE(__asm__ volatile("" : "+v"(v)), );
    return v;
}

// Byte f of the result: entry codes[f] & 127 of the 128 in first and second. The result takes the place of the codes.
static inline __m512i lookup(__m512i first, __m512i codes, __m512i second) {
    TERN_IN_PLACE(__asm__ volatile("vpermi2b %2, %1, %0"
                                   : "+v"(codes)
                                   : "v"(first), "v"(second)),
                  codes = _mm512_permutex2var_epi8(first, codes, second));
    return codes;
}

// *sum += part, or -= part where negative, bytes.
static inline void add_signed(__m512i *sum, __m512i part, __mmask64 negative) {
    const __m512i value = _mm512_mask_sub_epi8(part, negative, _mm512_setzero_si512(), part);
    TERN_IN_PLACE(__asm__ volatile("vpaddb %1, %0, %0" : "+v"(*sum) : "v"(value)), *sum = _mm512_add_epi8(*sum, value));
}

// sums (+)= lo + 36 * hi of 64 features: the octets of features 0, 2, 4, 6, then the octets 1, 3, 5, 7. kept: sums that count,
// all or none.
static inline void add_tile(int16_t *sums, __mmask32 kept, __m512i lo, __m512i hi) {
    const __m512i weights = _mm512_set1_epi16(1 | TERN_T5_STEP << 8);
    const __m512i even = _mm512_maddubs_epi16(weights, _mm512_unpacklo_epi8(lo, hi));
    const __m512i odd = _mm512_maddubs_epi16(weights, _mm512_unpackhi_epi8(lo, hi));
    _mm512_store_si512(sums, _mm512_add_epi16(_mm512_maskz_loadu_epi16(kept, sums), even));
    int16_t *second = sums + VECTOR / 2;
    _mm512_store_si512(second, _mm512_add_epi16(_mm512_maskz_loadu_epi16(kept, second), odd));
}

// One K-tile of one block: `codes` has `rows` byte rows, `stride` apart.
typedef struct tile {
    const uint8_t *codes;
    size_t rows, stride;
    const int8_t *tables; // of the first token
    size_t ld_tables;
    __mmask32 kept; // see add_tile
} tile;

// `vectors` vectors of features for `tokens` tokens, whose sums are TERN_SLAB_MAX apart.
static inline __attribute__((always_inline)) void block(int16_t *restrict sums, tile a, const size_t vectors,
                                                        const size_t tokens) {
    // byte f: sums of the planes for feature f. Both planes lie within -18..18, so 7 groups stay within int8: 126.
    __m512i lo[2][BLOCK_VECTORS], hi[2][BLOCK_VECTORS];
    const size_t lag =
        tokens == 1 ? 2 : 1; // vectors whose lookups are under way before the sums of the first: what registers allow
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) lo[t][v] = hi[t][v] = _mm512_setzero_si512();
    }
    TERN_NO_UNROLL
    for (size_t r = 0; r < a.rows; r++) {
        TERN_COST_LOOP("T5 rows", vectors * VECTOR, tokens, TERN_T5_TRITS);
        __m512i lo0[2], lo1[2], hi0[2], hi1[2]; // entries 0..63 and 64..127 of each plane
        TERN_UNROLL
        for (size_t t = 0; t < tokens; t++) {
            const int8_t *table = a.tables + t * a.ld_tables;
            lo0[t] = _mm512_load_si512(table), lo1[t] = _mm512_load_si512(table + VECTOR);
            hi0[t] = _mm512_load_si512(table + PLANE), hi1[t] = _mm512_load_si512(table + PLANE + VECTOR);
        }
        __m512i lo_part[2][BLOCK_VECTORS], hi_part[2][BLOCK_VECTORS];
        __mmask64 negative[BLOCK_VECTORS]; // bit f: the code of feature f is
        TERN_UNROLL
        for (size_t i = 0; i < vectors + lag; i++) {
            if (i < vectors) {
                _mm_prefetch((const char *)a.codes + i * VECTOR + PREFETCH, _MM_HINT_T0);
                const __m512i code = load_once(a.codes + i * VECTOR); // byte f: code of feature f
                negative[i] = _mm512_movepi8_mask(code);
                TERN_UNROLL
                for (size_t t = 0; t < tokens; t++) {
                    lo_part[t][i] = lookup(lo0[t], code, lo1[t]);
                    hi_part[t][i] = lookup(hi0[t], code, hi1[t]);
                }
            }
            if (i >= lag) {
                const size_t v = i - lag;
                TERN_UNROLL
                for (size_t t = 0; t < tokens; t++) {
                    add_signed(&lo[t][v], lo_part[t][v], negative[v]);
                    add_signed(&hi[t][v], hi_part[t][v], negative[v]);
                }
            }
        }
        a.tables += TERN_T5_TABLE_BYTES;
        a.codes += a.stride;
    }
    TERN_UNROLL
    for (size_t t = 0; t < tokens; t++) {
        TERN_UNROLL
        for (size_t v = 0; v < vectors; v++) add_tile(sums + t * TERN_SLAB_MAX + v * VECTOR, a.kept, lo[t][v], hi[t][v]);
    }
}

static void block_one(int16_t *restrict sums, tile a) {
    switch (a.stride / VECTOR) {
    case BLOCK_VECTORS:
        block(sums, a, BLOCK_VECTORS, 1);
        break;
    case BLOCK_VECTORS / 2:
        block(sums, a, BLOCK_VECTORS / 2, 1);
        break;
    case BLOCK_VECTORS / 4:
        block(sums, a, BLOCK_VECTORS / 4, 1);
        break;
    default:
        block(sums, a, 1, 1);
        break;
    }
}

// Two tokens; the widest block in two halves.
static void block_two(int16_t *restrict sums, tile a) {
    tile half = a;
    switch (a.stride / VECTOR) {
    case BLOCK_VECTORS:
        block(sums, a, PAIR_VECTORS, 2);
        half.codes += PAIR_VECTORS * VECTOR;
        block(sums + PAIR_VECTORS * VECTOR, half, PAIR_VECTORS, 2);
        break;
    case BLOCK_VECTORS / 2:
        block(sums, a, PAIR_VECTORS, 2);
        break;
    case BLOCK_VECTORS / 4:
        block(sums, a, PAIR_VECTORS / 2, 2);
        break;
    default:
        block(sums, a, 1, 2);
        break;
    }
}

// Quadwords (four features) of both halves of 64 sums, 0..7 and 8..15, in natural order of features 0..31 and 32..63.
_Alignas(64) static const uint64_t natural[2][8] = {{0, 1, 8, 9, 2, 3, 10, 11}, {4, 5, 12, 13, 6, 7, 14, 15}};

// Moves the int16 sums of n features to acc, in natural order; adds unless this is the first time.
static void spill(int32_t *restrict acc, const int16_t *restrict sums, size_t n, int first_time) {
    const __m512i order[2] = {_mm512_load_si512(natural[0]), _mm512_load_si512(natural[1])};
    const __mmask16 kept = first_time ? 0 : 0xFFFF;
    for (size_t f = 0; f < n; f += VECTOR) {
        const __m512i even = _mm512_load_si512(sums + f), odd = _mm512_load_si512(sums + f + VECTOR / 2);
        for (size_t h = 0; h < 2; h++) {
            const __m512i half = _mm512_permutex2var_epi64(even, order[h], odd);
            const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(half));
            const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(half, 1));
            int32_t *out = acc + f + h * VECTOR / 2;
            _mm512_store_si512(out, _mm512_add_epi32(_mm512_maskz_loadu_epi32(kept, out), low));
            _mm512_store_si512(out + 16, _mm512_add_epi32(_mm512_maskz_loadu_epi32(kept, out + 16), high));
        }
    }
}

// Tokens t0 .. t0 + tokens - 1.
static void pass(const tern_gemm_args *args, size_t t0, size_t tokens) {
    _Alignas(64) int16_t sums[TOKENS * TERN_SLAB_MAX]; // token t at t * TERN_SLAB_MAX
    const size_t n = args->n, rows = tern_t5_rows(args->k), spill_k = args->x_has_min ? SPILL_K : SPILL_K_NO_MIN;
    const uint8_t *codes = args->packed;
    size_t first = 0; // first byte row in sums; those before it are in acc
    for (size_t row = 0, end; row < rows; row = end) {
        end = row + TERN_T5_TILE_ROWS < rows ? row + TERN_T5_TILE_ROWS : rows;
        tile a = {.rows = end - row, .ld_tables = args->ld_tables, .kept = row == first ? 0 : 0xFFFFFFFF};
        for (size_t f = 0; f < n; f += a.stride) {
            a.stride = tern_slab_block(n - f, TERN_T5_BLOCK);
            a.codes = codes;
            for (size_t t = 0; t < tokens; t += 2) {
                a.tables = args->tables + (t0 + t) * args->ld_tables + row * TERN_T5_TABLE_BYTES;
                if (t + 1 < tokens)
                    block_two(sums + t * TERN_SLAB_MAX + f, a);
                else
                    block_one(sums + t * TERN_SLAB_MAX + f, a);
            }
            codes += a.rows * a.stride;
        }
        const size_t next = end + TERN_T5_TILE_ROWS < rows ? (end + TERN_T5_TILE_ROWS) * TERN_T5_TRITS : args->k;
        if (end < rows && next - first * TERN_T5_TRITS <= spill_k) continue;
        for (size_t t = 0; t < tokens; t++) spill(args->acc + (t0 + t) * args->ld_acc, sums + t * TERN_SLAB_MAX, n, first == 0);
        first = end;
    }
}

void tern_lut_gemm_t5_avx512vbmi(const tern_gemm_args *args) {
    for (size_t t = 0; t < args->m; t += TOKENS) pass(args, t, args->m - t < TOKENS ? args->m - t : TOKENS);
}
