// SPDX-License-Identifier: MIT
// The product: pack weights once, quantize activations once, multiply many times.
//
//   tern_weights  (immutable, shareable)  x  tern_activations (int8 rows + scales)  ->  int32 (exact) or float32
#ifndef TERN_MATMUL_H
#define TERN_MATMUL_H

#include "tern.h"

#ifdef __cplusplus
extern "C" {
#endif

// The largest depth whose INT8 sums fit int32: 131071 * 128 * 128 < 2^31.
#define TERN_K_MAX 131071
// The same for INT8 weights and u8 activations with any zero point: 65793 * 255 * 128 < 2^31.
#define TERN_K_MAX_U8 65793

// Element types of activations and outputs. F16 is IEEE half and BF16 bfloat16, both as bits in uint16_t.
typedef enum tern_type {
    TERN_TYPE_F32 = 0,
    TERN_TYPE_F16 = 1,
    TERN_TYPE_BF16 = 2,
    TERN_TYPE_S8 = 3, // activations only
    TERN_TYPE_U8 = 4, // activations only
    TERN_TYPE_S32 = 5 // outputs only: exact sums, not scaled
} tern_type;

// ---- Weights ------------------------------------------------------------------------------------------

// Packed, immutable weights W[N][K]. May be used by several contexts and threads at once; destroy after the last use.
// Float activations of a weight are quantized over its act_block (tern_weights_info). docs/engines.md: which call for what.
typedef struct tern_weights tern_weights;

// Which family of kernels multiplies ternary weights.
typedef enum tern_form {
    TERN_FORM_AUTO = 0, // the fastest for this shape: by the tuning table (tune.h), else by built-in rules
    TERN_FORM_LUT = 1,  // table lookup: tables of partial dot products built from the activations (T-MAC)
    TERN_FORM_MAD = 2   // multiply-add on 2-bit codes
} tern_form;

typedef struct tern_weights_params {
    size_t struct_size;
    tern_form form;    // ternary weights only
    size_t expect_m;   // tokens of most products, for the choice of a layout; 0: not known, one or many
    int expect_cached; // nonzero: the weight is likely to be in cache when it is used (all weights together fit); for the choice
    int row_sums;      // nonzero: keep the sum of each row's codes, which u8 activations with a zero point other than 128 need
                       // (4 bytes per row and scale block). Not with INT8 per 32; INT8 weights then have k <= TERN_K_MAX_U8
    // A slice of the source, for tensor parallelism; the weight is then n_rows x depth. What depends on the whole matrix (the
    // scale of from_f32_*, whether equal scales are folded into one) is taken from the whole source, so slices along N glue to the
    // rows of the whole weight and slices along K add up to it.
    size_t first_row, n_rows; // n_rows 0: all from first_row on
    size_t first_k, depth;    // depth 0: all from first_k on. first_k is the start of a scale block
                              // (Q4_K: of a block of 256, and depth is a multiple of it)
    // Ternary weights: also keep the codes in the layout that is chosen for products of many_tokens tokens, and use it for as many
    // and more (in plans: for as many as the largest many_tokens of its weights). 0, or the same layout: none. Its bytes are
    // reported apart.
    size_t many_tokens;
    tern_form many_tokens_form;
    size_t act_block; // activations of the products get a scale for each act_block elements of a row, where the weight would have
                      // larger blocks of them, or whole rows: 0 (none smaller), or a multiple of 16 that divides larger blocks
                      // of scales. More exact and slower, with the same bytes. INT8, 6-bit and 4-bit weights per 32 stay with 32
} tern_weights_params;

// Ternary weights. trits[n * ldw + k] in {-1, 0, +1}; ldw >= k. The real weight is trit * scale.
//   scale_block = 0: scales[0] for the whole matrix. scale_block = k: scales[n] per row.
//   Otherwise scale_block is a multiple of 16 (the last block of a row may be shorter) and
//   scales[n * ceil(k / scale_block) + b] belongs to block b of row n. Equal scales are folded into one.
// n >= 1, 1 <= k <= TERN_K_MAX. Nothing is kept of trits and scales. Errors: ARG (names the row of a value that is not a trit), MEMORY.
TERN_API tern_status tern_weights_from_trits(tern_context *ctx, tern_weights **w, const int8_t *trits, const float *scales,
                                             size_t scale_block, size_t n, size_t k, size_t ldw, const tern_weights_params *params);

// Binary weights: as tern_weights_from_trits, with signs[n * ldw + k] in {-1, +1} (GGUF Q1_0). They are packed in one bit and
// multiplied by table lookup, or, with TERN_FORM_MAD, as ternary weights. Errors: ARG, MEMORY.
TERN_API tern_status tern_weights_from_signs(tern_context *ctx, tern_weights **w, const int8_t *signs, const float *scales,
                                             size_t scale_block, size_t n, size_t k, size_t ldw, const tern_weights_params *params);

// Four-level weights: as tern_weights_from_trits, with codes[n * ldw + k] in {-1, 0, +1, +2} (GGUF Q2_0). They are packed in two
// bits and multiplied in the multiply-add form; without a +2 among them they are ternary weights. Errors: ARG,
// UNSUPPORTED (TERN_FORM_LUT asked for where there is a +2), MEMORY.
TERN_API tern_status tern_weights_from_q2(tern_context *ctx, tern_weights **w, const int8_t *codes, const float *scales,
                                          size_t scale_block, size_t n, size_t k, size_t ldw, const tern_weights_params *params);

// INT8 weights, the full range -128..127. scale_block as above, but only 0, k or 32 (GGUF Q8_0's block; scales are then
// rounded to float16). Errors: ARG, MEMORY.
TERN_API tern_status tern_weights_from_s8(tern_context *ctx, tern_weights **w, const int8_t *q, const float *scales,
                                          size_t scale_block, size_t n, size_t k, size_t ldw, const tern_weights_params *params);

// 4-bit weights in blocks of 32: codes q[n * ldw + k] in 0..15, one per byte; scales[n * ceil(k / 32) + b] and, unless NULL, mins
// of the same shape, belong to block b of row n and are rounded to float16. The real weight is scale * q + min, without mins
// scale * (q - 8). Nothing is kept of the arrays. Errors: ARG (a code above 15, a scale that is not finite in float16), MEMORY.
TERN_API tern_status tern_weights_from_u4(tern_context *ctx, tern_weights **w, const uint8_t *q, const float *scales, const float *mins,
                                          size_t n, size_t k, size_t ldw, const tern_weights_params *params);

// Quantizes float32 weights. Ternary: absmean (BitNet b1.58): scale = mean|w|, trit = clamp(round(w / scale), -1, 1), one scale
// for the matrix. INT8: absmax per row (scale_block = k) or per 32 (scale_block = 32). Errors: ARG (non-finite value), MEMORY.
TERN_API tern_status tern_weights_from_f32_ternary(tern_context *ctx, tern_weights **w, const float *x, size_t n, size_t k,
                                                   size_t ldw, const tern_weights_params *params);
TERN_API tern_status tern_weights_from_f32_int8(tern_context *ctx, tern_weights **w, const float *x, size_t scale_block, size_t n,
                                                size_t k, size_t ldw, const tern_weights_params *params);

// Quantizes float32 weights to 6 bits with scales per 32, of which the first ceil(k / 1024) * 64 columns keep 8 bits (6.3 to 6.6
// bits per weight for k of 512 and more): put the columns first that meet the largest activations. Scales are searched for the
// least squared error. Slices are along N only. Errors: ARG (non-finite value), UNSUPPORTED (a slice of k), MEMORY.
TERN_API tern_status tern_weights_from_f32_int6(tern_context *ctx, tern_weights **w, const float *x, size_t n, size_t k, size_t ldw,
                                                const tern_weights_params *params);

// Rows in a GGUF block type (ggml_type: the id in the file). size is the byte size of the data and must be exact.
// TQ1_0, TQ2_0, I2_S (of bitnet.cpp on x86; its ARM files look the same, and are not), IQ1_BN and IQ2_BN become ternary, Q1_0
// binary, Q2_0 four-level (ternary where it holds no +2; blocks of 64, or of 128 as older files have under the same id: size
// tells), Q8_0 and Q5_0 INT8 per 32, Q4_0, Q4_1, Q4_K 4-bit per 32, all exactly; Q5_1, Q5_K, Q6_K, F16, BF16, F32 are
// re-quantized to INT8 per 32. Rows and matrices include their own scales: IQ*_BN rows begin with one, I2_S data ends with 32
// bytes that hold one.
// k must be a multiple of the type's block. Errors: ARG, UNSUPPORTED (type), FORMAT (values that no writer makes), MEMORY.
TERN_API tern_status tern_weights_from_gguf(tern_context *ctx, tern_weights **w, uint32_t ggml_type, const void *data, size_t size,
                                            size_t n, size_t k, const tern_weights_params *params);
TERN_API void tern_weights_destroy(tern_weights *w);

typedef struct tern_weights_info {
    size_t struct_size;
    size_t n, k;
    size_t bytes;           // of packed codes, scales and corrections: what one product reads
    double bits_per_weight; // bytes * 8 / (n * k)
    size_t scale_block;     // 0: one scale; k: per row; else per block
    size_t act_block;       // the activation block this weight needs: 0 (one scale per token), scale_block, or what was asked for
    const char *layout;     // name of the byte layout (kernels/layout.h), e.g. "t5"; static
    const char *kernel;     // symbol of the variant that this context runs on it, e.g. "tern_lut_gemm_t5_avx512vbmi"; static
    size_t huge_page_bytes; // of the packed codes of the first form: how many lie on huge pages now, as /proc/self/smaps tells
                            // (a mapping used in part counts with its share); 0 if unknown, or for less than 64 KiB
    size_t row_sums_bytes;  // kept beside bytes, and read only with u8 activations
    size_t many_bytes;      // of the second form; 0: there is none
    const char *many_layout, *many_kernel; // of the second form, or NULL
} tern_weights_info;
TERN_API tern_status tern_weights_get_info(tern_context *ctx, const tern_weights *w, tern_weights_info *info);

// Exact inverse of packing: the integer codes (trits, int8, or 0..15) as they were given or found, into codes[n * ld + k]. ld >= k.
TERN_API tern_status tern_weights_unpack(tern_context *ctx, const tern_weights *w, int8_t *codes, size_t ld);

// ---- Activations --------------------------------------------------------------------------------------

// Quantized activations of up to max_m tokens of depth up to max_k, and the forms that kernels derive from them.
// All memory is allocated at creation. Belongs to one context; not thread-safe.
typedef struct tern_activations tern_activations;

TERN_API tern_status tern_activations_create(tern_context *ctx, tern_activations **a, size_t max_m, size_t max_k);
TERN_API void tern_activations_destroy(tern_activations *a);

// Quantizes x[m * ldx + k] to int8: s = 127 / max(absmax, floor), q = clamp(round_half_even(x * s), -128, 127), over blocks of
// `block` elements of each row (0: the whole row, as BitNet models were trained; else the weight's act_block). float16 and
// bfloat16 give the codes of the same values in float32.
// Errors: ARG (sizes above max, ldx < k, a NaN or infinity in x).
TERN_API tern_status tern_activations_set_f32(tern_context *ctx, tern_activations *a, const float *x, size_t m, size_t k, size_t ldx,
                                              size_t block);
TERN_API tern_status tern_activations_set_f16(tern_context *ctx, tern_activations *a, const uint16_t *x, size_t m, size_t k,
                                              size_t ldx, size_t block);
TERN_API tern_status tern_activations_set_bf16(tern_context *ctx, tern_activations *a, const uint16_t *x, size_t m, size_t k,
                                               size_t ldx, size_t block);

// Takes ready int8 values with scales[m * n_blocks + b] (x = q * scale; NULL: all 1).
TERN_API tern_status tern_activations_set_s8(tern_context *ctx, tern_activations *a, const int8_t *q, const float *scales, size_t m,
                                             size_t k, size_t ldx, size_t block);

// Takes ready uint8 values: x = (q - zero_points[m]) * scale, exactly, for any zero point (NULL: all 128, the only one for
// which the weights need no row_sums). Products of INT8 weights are sums of (q - zero_point) * code: -255..255 times -128..127.
TERN_API tern_status tern_activations_set_u8(tern_context *ctx, tern_activations *a, const uint8_t *q, const float *scales,
                                             const uint8_t *zero_points, size_t m, size_t k, size_t ldx, size_t block);

// ---- Products -----------------------------------------------------------------------------------------

// y[m * ldy + n] = sum_k q[m][k] * code[n][k], exact (u8 activations: q - zero point). Errors: ARG (k differs, ldy < n),
// UNSUPPORTED (block-scaled weights; a zero point for which the weights keep no row_sums).
TERN_API tern_status tern_matmul_s32(tern_context *ctx, const tern_weights *w, tern_activations *a, int32_t *y, size_t ldy);

typedef struct tern_epilogue {
    size_t struct_size;
    const float *bias;     // [n] or NULL: added after scaling
    const float *residual; // [m][ld_residual] or NULL: added last; may be y itself
    size_t ld_residual;
} tern_epilogue;

// y = scaled product (+ bias)(+ residual), float32; the order of float operations is fixed (docs/numerics.md), so results are
// bit-identical for every tier, tile and thread count. Errors: ARG (k, ldy, or the activations' block differs from act_block).
TERN_API tern_status tern_matmul_f32(tern_context *ctx, const tern_weights *w, tern_activations *a, float *y, size_t ldy,
                                     const tern_epilogue *epilogue);

// ---- Plans --------------------------------------------------------------------------------------------

// One batch of activations times one or several weights (Q, K and V; gate and up; the experts of a token), from float or integer
// activations to outputs: quantizing, tables, products and epilogues in one region. All memory is there before the first run.
// A plan belongs to its context; the weights outlive it.
typedef struct tern_plan tern_plan;

enum { TERN_PLAN_M_MAX = 1 << 24 };

typedef struct tern_plan_params {
    size_t struct_size;
    const tern_weights *const *weights; // [n_weights], all of one k; the array is copied
    size_t n_weights;                   // >= 1
    size_t max_m;                       // tokens of a run, at most (TERN_PLAN_M_MAX); 0: 1
    tern_type x_type;                   // F32, F16, BF16, S8 or U8 (S8 and U8: all weights need the same act_block)
    tern_type y_type;                   // F32, F16, BF16, or S32 (weights without block scales)
    size_t max_parts;                   // parts that share the work of tern_prepare_part and tern_matmul_part, at most
                                        // (more may be called: they do nothing); 0: the context's threads
    void *workspace;                    // 64-byte aligned, of the caller, used by this plan alone while it runs; NULL: the
    size_t workspace_bytes;             //   plan allocates its own. At least tern_plan_workspace_bytes
} tern_plan_params;

// Bytes of scratch that a plan with these parameters needs (workspace and workspace_bytes are not looked at). A multiple of 64.
// Errors: as tern_plan_create.
TERN_API tern_status tern_plan_workspace_bytes(tern_context *ctx, const tern_plan_params *params, size_t *bytes);

// Errors: ARG (no weights, depths that differ, types, a workspace that is too small or not aligned), MEMORY,
// UNSUPPORTED (S32 of block-scaled weights), CPU (no kernel of the context's tier reads a weight's layout).
TERN_API tern_status tern_plan_create(tern_context *ctx, tern_plan **plan, const tern_plan_params *params);
TERN_API void tern_plan_destroy(tern_plan *plan);

// A batch. x[t * ldx + i] of the plan's x_type, t < m, i < k. Each weight quantizes float activations over its own act_block.
typedef struct tern_plan_input {
    size_t struct_size;
    const void *x;
    size_t ldx;                 // in elements; >= k
    size_t m;                   // 1..max_m
    const float *scales;        // S8, U8: [m][ceil(k / act_block)], or [m] where that is 0: x = q * scale; NULL: all 1
    const uint8_t *zero_points; // U8: one per token, x = (q - zero point) * scale; NULL: all 128
} tern_plan_input;

// Where the product with one weight goes. y[t * ldy + i] of the plan's y_type, i < n. Outputs must not overlap.
typedef struct tern_plan_output {
    size_t struct_size; // the same in all elements of an array
    void *y;
    size_t ldy;            // in elements; >= n
    const float *bias;     // [n] or NULL: added after scaling. Not with S32
    const float *residual; // [m][ld_residual] or NULL: added last; may be y itself if that is F32. Not with S32
    size_t ld_residual;
} tern_plan_output;

// outputs[i] belongs to weights[i]. One region, no allocation; the bits of tern_matmul_f32 and tern_matmul_s32. Not thread-safe.
// Errors: ARG (sizes; a NaN or infinity in x or in scales, which is met on the way: the outputs are then written, and not valid),
// STATE (inside a region), UNSUPPORTED (a zero point without row_sums).
TERN_API tern_status tern_plan_run(tern_plan *plan, const tern_plan_input *input, const tern_plan_output *outputs);

// The same as stages for a region of the caller's (tern_run_region), before, between and after stages of its own and of other
// plans: all the products of a token then cost one wake-up. Writes stages[0 .. *n_stages - 1]: for a few tokens one or two for each
// activation block and one for each layout of the weights. Stages, x and the outputs belong to the run until the region has
// returned; until then the plan takes no other. Products that need one another's outputs stand in order. Errors: as
// tern_plan_run, but for NaN and infinity, which tern_plan_check tells after the region; ARG if max_stages is too small.
TERN_API tern_status tern_plan_stages(tern_plan *plan, const tern_plan_input *input, const tern_plan_output *outputs,
                                      tern_stage *stages, size_t max_stages, size_t *n_stages);
// ARG if the last run met a NaN or an infinity: its outputs are not valid.
TERN_API tern_status tern_plan_check(const tern_plan *plan);

// The same for engines whose own threads stand in a region already. Each of nth >= 1 threads, which may be any threads, calls
//   tern_prepare_part(plan, input, ith, nth);          ith = 0..nth-1: quantizes and builds tables
//   the engine's barrier
//   tern_matmul_part(plan, input->m, outputs, ith, nth);
// and another barrier before the plan is prepared again (docs/engines.md has a program). Nothing in either call waits, locks or
// allocates; results have the bits of tern_plan_run. nth may differ from run to run, not between the two calls. The threads need
// 256 KiB of stack. Such an engine makes its context with a parallel_for and the number of its threads, so that Tern starts none
// and weights are laid out for as many. Status: as tern_plan_run, but without a message, and STATE for products of another m than
// was prepared; a part sees errors of its own tokens only, so an engine that cannot trust x combines the statuses at its barrier.
TERN_API tern_status tern_prepare_part(tern_plan *plan, const tern_plan_input *input, size_t ith, size_t nth);
TERN_API tern_status tern_matmul_part(tern_plan *plan, size_t m, const tern_plan_output *outputs, size_t ith, size_t nth);

#ifdef __cplusplus
}
#endif
#endif
