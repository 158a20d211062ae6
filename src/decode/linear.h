// SPDX-License-Identifier: MIT
// A forward pass under construction, and its projections: rows are made and quantized, then multiplied.
#ifndef TERN_DECODE_LINEAR_H
#define TERN_DECODE_LINEAR_H

#include "decode/model.h"

typedef struct tern_pass {
    tern_model *m;
    const tern_hyper *h;
    const tern_kernels *kernels;
    tern_region region;
    size_t n;       // tokens
    tern_stop stop; // why the region was stopped; written by a stage of one tile
} tern_pass;

// How a row of a projection's input is made: norm(gate(in, up)), either part or none; or norm(in[order]).
typedef struct tern_input_row {
    const tern_kernels *kernels;
    const float *in;       // rows of k
    const float *up;       // rows that the gate multiplies, or NULL: no gate
    const float *norm;     // weights of RMSNorm, or NULL
    const uint32_t *order; // element j is in[order[j]], norm[j] its weight; no gate. NULL: as they are
    tern_gate gate;
    float rms_eps;
} tern_input_row;

typedef struct tern_input {
    tern_input_row row;
    float *out; // where the element-wise steps write their rows; may be `in`
} tern_input;

tern_input tern_input_normed(const tern_pass *f, const float *x, const float *weight, float *out);
tern_input tern_input_gated(const tern_pass *f, const float *gate, const float *up, const float *sub_norm, float *out);

enum { TERN_SHARED_INPUT_MAX = 3 }; // Q, K and V share one

// Appends the products of one input of tokens rows of k. Each activation block that the weights ask for is quantized once.
void tern_linear_add(tern_pass *f, size_t tokens, size_t k, tern_input input, const tern_product *products, size_t n_products);

// Appends the stage that makes and quantizes rows; the view holds until the next one is begun.
tern_act_view tern_input_add(tern_pass *f, size_t tokens, size_t k, tern_input input, size_t block);

// Appends the stage that makes rows without quantizing them, into input.out. A NaN or an infinity is noted as in quantizing.
void tern_rows_add(tern_pass *f, size_t tokens, size_t k, tern_input input);

#endif
