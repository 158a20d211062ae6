// SPDX-License-Identifier: MIT
// The type of each kernel stage, with its full contract. A variant is a function of one of these types in variants.inc.
//
// Kernels trust their contract: no malloc, no globals, no I/O, no threads. Integers are exact; floats follow one written order
// (docs/numerics.md), so that every variant of a stage returns bit-identical results.
#ifndef TERN_KERNELS_KERNELS_H
#define TERN_KERNELS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "layout.h"

typedef enum tern_tier {
    TERN_TIER_SCALAR,     // baseline x86-64 (SSE2)
    TERN_TIER_AVX2,       // AVX2 + FMA + BMI1/2 + F16C
    TERN_TIER_AVX512,     // + AVX-512 F, BW, DQ, VL
    TERN_TIER_AVX512VNNI, // + VNNI
    TERN_TIER_AVX512VBMI, // + VBMI
    TERN_TIER_COUNT
} tern_tier;

// ---- quantize: one row of activations to int8 -------------------------------------------------------------
// For each block b of `block` elements (the last may be shorter): a = max(max|x|, floor), scale[b] = a / 127,
// q = round_half_even(x * (127 / a)), which lies within -127..127, sums[b] = sum of q over the block; all 0 if a < 2^-120.
// q: 64-byte aligned, tern_round_up(k, 64) bytes are written, zeros past k. x: any alignment, exactly k floats are read.
// block: a multiple of 16, or >= k. Returns 0, or 1 if some x is NaN or infinite (outputs are then unspecified).
typedef int tern_quantize_fn(int8_t *restrict q, float *restrict scale, int32_t *restrict sums, const float *restrict x, size_t k,
                             size_t block, float floor);
// The same of float16 and of bfloat16 elements, which are widened first; their bits are given.
typedef int tern_quantize_half_fn(int8_t *restrict q, float *restrict scale, int32_t *restrict sums, const uint16_t *restrict x,
                                  size_t k, size_t block, float floor);
typedef tern_quantize_half_fn tern_quantize_f16_fn;
typedef tern_quantize_half_fn tern_quantize_bf16_fn;

// ---- lut_build: tables of partial dot products --------------------------------------------------------------
// For one K-slice of one token: q[0..k) (any alignment; exactly k bytes are read), zeros past k.
// tables: 64-byte aligned, tern_<layout>_table_bytes(k) bytes are written.
// tern_lut_build of rows [row0, row1) only: table r lies at tables + r * TABLE_BYTES.
typedef void tern_lut_build_fn(int8_t *restrict tables, const int8_t *restrict q, size_t k, size_t row0, size_t row1);

// ---- lut_gemm, sign_gemm (table lookup of binary weights), mad_gemm, int8_gemm: exact int32 -------------------------------------------------------------
// acc[t * ld_acc + i] = sum over k of x[t][k] * code[i][k], for tokens t = 0..m-1 and the n features of this tile.
typedef struct tern_gemm_args {
    int32_t *acc;          // 64-byte aligned; ld_acc a multiple of 16, >= n; written, never read
    size_t ld_acc;         //
    const uint8_t *packed; // first byte of the slab (LUT) or of the first panel (MAD, INT8) of one K-slice
    size_t n, m, k;        // n: a multiple of the panel (LUT: the slab's features, a multiple of 64, <= TERN_SLAB_MAX); m, k >= 1
    const int8_t *x;       // MAD, INT8: rows of the K-slice, 16-byte aligned, ldx a multiple of 64;
    size_t ldx;            //   zero up to the layout's padding of k, readable up to tern_round_up(k, 16)
    const int8_t *tables;  // LUT: tables of token t at tables + t * ld_tables, 64-byte aligned
    size_t ld_tables;
    const int32_t *x_sums; // MAD, INT8: sum of x over the K-slice of token t at x_sums[t * ld_x_sums]
    size_t ld_x_sums;      //
    int x_has_min;         // some x may be -128 (kernels that negate x must then take their exact path)
    int four_level;        // MAD: some code may be 3 (weight +2); 0: all weights are trits, and narrow sums hold more of them
} tern_gemm_args;
typedef void tern_gemm_fn(const tern_gemm_args *args);

// ---- int8_gemm_b32: block-scaled on both sides, float32 ------------------------------------------------------
// y[t][i] = sum over blocks b in ascending order of: y = y + (float)s * (dw * da), each operation rounded on its own
// (no fma), starting from +0; s = exact int32 dot product of block b, dw = float16 scale of the weight, da = x_scales.
typedef struct tern_gemm_b32_args {
    float *y;              // 64-byte aligned; ld_y a multiple of 16, >= n; written, never read
    size_t ld_y;           //
    const uint8_t *packed; // first panel of the tile
    size_t n, m, k;        // n a multiple of TERN_I8B_PANEL; m, k >= 1
    const int8_t *x;       // 64-byte aligned, ldx a multiple of 64; readable and zero up to tern_round_up(k, 64)
    size_t ldx;
    const float *x_scales; // [t * ld_x_blocks + b]; readable for 2 * tern_i8b_supers(k) blocks (0 past the last)
    const int32_t *x_sums; // the same shape: sum of x over block b
    size_t ld_x_blocks;
} tern_gemm_b32_args;
typedef void tern_gemm_b32_fn(const tern_gemm_b32_args *args);

// ---- int4_gemm_b32: 4-bit codes, block-scaled on both sides, float32 ------------------------------------------
// The same arguments and result for the layouts I4B32, I4M32 and I4K, n a multiple of TERN_I4_PANEL. With s = exact int32 dot
// product of block b with the stored codes 0..15 and X = x_sums of block b:
//   I4B32: y = y + (float)(s - 8 * X) * (d * da)               what int8_gemm_b32 gives for the codes less 8
//   I4M32: y = fma(fma(d, (float)s, m * (float)X), da, y)
//   I4K:   the same with d = D * s_b, m = M * t_b
// each other operation rounded on its own, blocks in ascending order, starting from +0.
typedef tern_gemm_b32_fn tern_int4_gemm_b32_fn;

// ---- int6_gemm_b32: 6-bit and 8-bit codes, block-scaled on both sides, float32 ---------------------------------
// The arguments and the result of int8_gemm_b32 with dw = D * s_b, for the layout I6B32; n a multiple of TERN_I6_PANEL.
typedef tern_gemm_b32_fn tern_int6_gemm_b32_fn;

// ---- split_gemm_b32: the same of I8S32 ------------------------------------------------------------------------------
// The arguments and the bits of int8_gemm_b32, n a multiple of TERN_I8S_PANEL.
typedef tern_gemm_b32_fn tern_split_gemm_b32_fn;

// The same of one token and the features rows[0 .. n - 1]: y[i] is that of feature rows[i].
typedef struct tern_screen_rows_args {
    float *y;              // [n], any alignment
    const uint8_t *packed; // panel of feature 0
    const uint32_t *rows; // [n], n >= 1
    size_t n, k;
    const int8_t *x; // as in tern_gemm_b32_args
    const float *x_scales;
    const int32_t *x_sums;
} tern_screen_rows_args;
typedef void tern_screen_rows_fn(const tern_screen_rows_args *args);

// ---- screen, screen_project: products with one half of I8S32's codes --------------------------------------------------
// Half a product of a feature with x, whose blocks have scales da[b] and shifts z[b]: with s_b = exact sum over the nibbles of
// block b times x, and dw_b the weight's scale, lane l = 0..7 is, over the blocks b = l, l + 8, .. in ascending order,
//   y = y + ((float)s_b + z_b) * (dw_b * da_b)        from +0; z_b a multiple of 2^-5, so that the first sum is exact
// Lanes are added so: ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)). No fma.
typedef struct tern_half_token {
    const int8_t *x;    // 32-byte aligned; readable and zero up to tern_round_up(k, 64)
    const float *scales; // da and z, readable and 0 up to a multiple of 8 blocks
    const float *shifts; //
} tern_half_token;

// middle[i] = half product of the high nibbles, to whose lanes is added
//   (float)(code_i[2l] * along[2l] + code_i[2l + 1] * along[2l + 1]) * (step_i * along_scale)
// upper[i] = middle[i] + (norm_i * rest + (step_i * spread + least)),   with code, step and norm of the marks.
typedef struct tern_screen_args {
    float *middle, *upper; // [n]
    const uint8_t *packed; // first panel
    const uint8_t *marks;  // of its first feature
    size_t n, k;           // n a multiple of TERN_I8S_PANEL
    tern_half_token token;
    const int16_t *along; // [TERN_SCREEN_DIRECTIONS], within -32767..32767
    float along_scale, rest, spread, least;
} tern_screen_args;
typedef void tern_screen_fn(const tern_screen_args *args);

// y[i * TERN_SCREEN_DIRECTIONS + d] = half product of the low nibbles with direction d.
typedef struct tern_screen_project_args {
    float *y;
    const uint8_t *packed; // first panel
    size_t n, k;           // n a multiple of TERN_I8S_PANEL
    tern_half_token directions[TERN_SCREEN_DIRECTIONS];
} tern_screen_project_args;
typedef void tern_screen_project_fn(const tern_screen_project_args *args);

// ---- epilogue: exact sums to scaled outputs -------------------------------------------------------------------
// For tokens t = 0..m-1 and features i = 0..n-1, each operation rounded on its own (no fma), in this order:
//   v = (float)acc[t][i] * (x_scale[t] * w_scale[i])       acc NULL: left out
//   v = value[t][i] + v                                    value NULL: left out; acc NULL: v = value[t][i]
//   v = v + bias[i];  v = v + residual[t][i]               where given
//   y[t][i] = v rounded to y's type, to nearest even
// Element-wise: any cut of n and m gives the same bits. acc, value and the scales are readable up to tern_round_up(n, 16);
// bias, residual and y are touched at i < n only. y may be value, or residual of the same type.
typedef enum tern_scale_kind {
    TERN_SCALE_UNIFORM, // one float32 for all features
    TERN_SCALE_F32,     // [n]
    TERN_SCALE_F16      // [n], IEEE half
} tern_scale_kind;
typedef enum tern_float_type { TERN_FLOAT_F32, TERN_FLOAT_F16, TERN_FLOAT_BF16 } tern_float_type;
typedef struct tern_epilogue_args {
    void *y; // of y_type; any alignment of that type
    size_t ldy;
    tern_float_type y_type;
    size_t n, m;
    const int32_t *acc; // or NULL; acc or value is given
    size_t ld_acc;
    const float *value; // sums of the K-slices before this one, or NULL
    size_t ld_value;
    const float *x_scales; // x_scales[t * ld_x_scales]; with acc only
    size_t ld_x_scales;
    const void *w_scales; // as scale_kind says; with acc only
    tern_scale_kind scale_kind;
    const float *bias;     // or NULL
    const float *residual; // or NULL
    size_t ld_residual;
} tern_epilogue_args;
typedef void tern_epilogue_fn(const tern_epilogue_args *args);

// ---- vector stages: float32, 16 virtual lanes -----------------------------------------------------------------
// Lane l takes elements l, l + 16, l + 32, ...; lanes are added in a fixed tree (8, 4, 2, 1 apart). No fma but in attention.
// Any alignment unless said otherwise; y may be x.

// y = x * (1 / sqrt(mean(x^2) + eps)) * w
typedef void tern_rmsnorm_fn(float *y, const float *x, const float *w, size_t n, float eps);
// y = a * sigmoid(a) * b   (SwiGLU)
typedef void tern_silu_mul_fn(float *y, const float *a, const float *b, size_t n);
// y = max(a, 0)^2 * b   (the gate of BitNet b1.58)
typedef void tern_relu2_mul_fn(float *y, const float *a, const float *b, size_t n);

// Attention of queries that share keys and values (heads of a group, tokens of a text) over one block of them, for online
// softmax. Of query i, which sees the first n_keys:
//   most = max_j s_ij, total = sum_j e^(s_ij - most), acc[d] = sum_j e^(s_ij - most) v_j[d], with s_ij = (q_i.k_j) * scale.
// q_i.k_j is summed with d ascending and acc[d] with j ascending, from +0, one fused multiply-add for each term; total over the
// 16 lanes. The context is cut into fixed blocks of TERN_ATTN_BLOCK keys from its start, the last one shorter, and blocks are
// merged in their order, so the result does not depend on threads, on M, or on how the context was filled.
enum { TERN_ATTN_QUERIES = 12, TERN_HEAD_DIM_MAX = 256 };
typedef struct tern_attention_query {
    const float *q;    // [head_dim]
    float *acc;        // [head_dim], written
    size_t n_keys;     // 1 .. TERN_ATTN_BLOCK
    float most, total; // written
} tern_attention_query;
typedef struct tern_attention_args {
    tern_attention_query *queries;
    size_t n_queries;       // 1 .. TERN_ATTN_QUERIES
    const uint16_t *keys;   // float16 panels (layout.h), whole ones readable; what stands behind n_keys is not used
    const uint16_t *values; // float16 [key][head_dim], readable for the largest n_keys; finite where another query sees them
    size_t head_dim;        // 1 .. TERN_HEAD_DIM_MAX
    float scale;
} tern_attention_args;
typedef void tern_attention_fn(const tern_attention_args *args);
// Adds a block to what was merged before it; at first acc = 0, *most = -infinity, *total = 0. The result is acc / *total.
typedef void tern_attention_merge_fn(float *acc, float *most, float *total, const float *block_acc, float block_most,
                                     float block_total, size_t head_dim);

// The same over INT8 keys and values, in integers (layout.h has their order).
//   s_ij = (float)(q_i.k_j) * (q_scales[i] * scale) * key_scales[j], the dot product exact
//   most[i], total[i] as above; w_ij = e^(s_ij - most[i]) * value_scales[j]
//   p_ij = round_half_even(w_ij * (248 / W)), W = the largest sum of 8 weights that meet in one 16-bit lane of AVX2: of a run of
//          16 keys j those whose j mod 4 is 0 or 1, or the others. The sum is a tree: j and j + 8, then + 4, then + 1.
//   acc[i * ld_acc + d] = (float)(sum_j p_ij v_j[d]) * (W / 248), the sum exact: at most 32 * 252 * 127 < 2^24
// So 8 codes p add up to at most 248 + 8 / 2, and their products with values, to at most 252 * 127 = 32004, fit 16 bits.
enum { TERN_ATTN_INT8_QUERIES = 4 };
typedef struct tern_attention_int8_args {
    float *acc; // [n_queries][ld_acc]
    size_t ld_acc;
    float *most, *total;   // [n_queries]
    const int8_t *q;       // [n_queries][ld_q], zeros from head_dim to tern_kv_dims(head_dim); |q[2d]| + |q[2d + 1]| <= 128
    size_t ld_q;           //
    const float *q_scales; // [n_queries]
    const int32_t *q_sums; // [n_queries]: sums of the codes
    size_t n_queries;      // 1 .. TERN_ATTN_INT8_QUERIES
    const int8_t *keys, *values; // a block each, 64-byte aligned, codes within -127..127; what stands behind n_keys is not used
    const int8_t *next_keys;     // of the block that is read next: fetched ahead, never read: any address but NULL
    const float *key_scales, *value_scales; // [TERN_ATTN_BLOCK], > 0 for each key
    size_t n_keys;                          // 1 .. TERN_ATTN_BLOCK
    size_t head_dim;                        // 1 .. TERN_HEAD_DIM_MAX
    float scale;
} tern_attention_int8_args;
typedef void tern_attention_int8_fn(const tern_attention_int8_args *args);

// y = x as float16, rounded to nearest even; what float16 cannot hold becomes +-65504, a NaN stays one.
typedef void tern_to_half_fn(uint16_t *y, const float *x, size_t n);

// Dot products of float32 vectors with rows of float32 or float16: y[t * ldy + i] = sum_k x[t * ldx + k] * row_i[k] for t < m,
// i < n. Row i begins at rows + i * k elements, of any alignment. The bits do not depend on n and m.
typedef struct tern_dot_args {
    float *y;
    size_t ldy;
    const float *x;
    size_t ldx;
    const void *rows;
    size_t n, m, k;
} tern_dot_args;
typedef void tern_dot_fn(const tern_dot_args *args);
typedef tern_dot_fn tern_dot_f32_fn;
typedef tern_dot_fn tern_dot_f16_fn;

// Sum of the 64-bit words of a read-only sweep, for the bandwidth probe: bytes a multiple of 256, 64-byte aligned.
typedef uint64_t tern_read_sweep_fn(const void *p, size_t bytes);
// `iterations` rounds of independent register-only INT8 multiply-adds; returns the number of multiply-adds done.
typedef uint64_t tern_int8_peak_fn(uint64_t iterations);

// ---- variants -------------------------------------------------------------------------------------------------

#define TERN_STAGES(X) \
    X(quantize) X(quantize_f16) X(quantize_bf16) X(lut_build) X(lut_gemm) X(sign_gemm) X(mad_gemm) X(int8_gemm) X(int8_gemm_b32) X(int4_gemm_b32) X(int6_gemm_b32) \
    X(split_gemm_b32) X(screen_rows) X(screen) X(screen_project) \
    X(epilogue) X(rmsnorm) X(silu_mul) X(relu2_mul) X(attention) X(attention_int8) X(attention_merge) X(to_half) X(dot_f32) X(dot_f16) X(read_sweep) X(int8_peak)

typedef enum tern_stage_id {
#define TERN_STAGE_ENUM(stage) TERN_STAGE_##stage,
    TERN_STAGES(TERN_STAGE_ENUM)
#undef TERN_STAGE_ENUM
    TERN_STAGE_COUNT
} tern_stage_id;

typedef tern_gemm_fn tern_lut_gemm_fn;
typedef tern_gemm_fn tern_sign_gemm_fn;
typedef tern_gemm_fn tern_mad_gemm_fn;
typedef tern_gemm_fn tern_int8_gemm_fn;
typedef tern_gemm_b32_fn tern_int8_gemm_b32_fn;

#define TERN_VARIANT(stage, TIER, LAYOUT, symbol) tern_##stage##_fn symbol;
#include "variants.inc"
#undef TERN_VARIANT

#endif
