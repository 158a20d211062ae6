// SPDX-License-Identifier: MIT
// The inside of a model and a session: hyperparameters, packed layers, work buffers, KV cache.
#ifndef TERN_DECODE_MODEL_H
#define TERN_DECODE_MODEL_H

#include "base/arena.h"
#include "decode/arch.h"
#include "decode/kv.h"
#include "decode/rope.h"
#include "decode/tokenizer.h"
#include "format/blocks.h"
#include "format/gguf.h"
#include "matmul/product.h"
#include "tern/decode.h"

enum {
    TERN_BATCH_TOKENS = 512,    // longest slice of a batch that runs as one forward
    TERN_HEAD_ROWS = 16,        // sessions whose logits are computed together
    TERN_FORWARD_STAGES = 1024, // capacity of the forward's region; a deeper model runs it in parts
    TERN_FORWARD_ARG_BYTES = 512 * 1024
};

typedef struct tern_hyper {
    const tern_arch *arch;
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab, n_ctx;
    float rms_eps;
    tern_rope_params rope;
} tern_hyper;

// A projection: its weights, and what is added to its output.
typedef struct tern_linear {
    tern_weights *w;
    const float *bias; // [n], or NULL
} tern_linear;

typedef struct tern_layer {
    const float *attn_norm, *ffn_norm;
    const float *attn_sub_norm, *ffn_sub_norm; // as the architecture has them, or NULL
    const float *q_norm, *k_norm;              //
    tern_linear q, k, v, o, gate, up, down;
} tern_layer;

// The rotations of a context: LONGROPE has other frequencies for sessions longer than the original context.
typedef struct tern_rope_table {
    const float *freq; // [rope.dim / 2]
    float magnitude;
} tern_rope_table;

// The output head: packed, or as it lies in the file.
typedef struct tern_head {
    tern_weights *w;              // NULL: exact
    uint32_t *order;              // column j of w meets element order[j] of the hidden state; NULL: j
    const float *norm;            // the last norm's weights in that order
    struct tern_screen *screen;   // of w in the layout I8S32 (screen.h), or NULL
    const tern_block_type *exact; // of rows; NULL: packed
    const uint8_t *rows;
    uint64_t bytes;     // that one token reads
    const char *layout; // of w, or the name of the rows' type; static
} tern_head;

// Buffers of one forward over up to TERN_BATCH_TOKENS tokens; every row has its natural length.
typedef struct tern_buffers {
    float *x;                  // residual stream [tokens][n_embd]
    float *h;                  // normalised rows [tokens][n_embd]
    float *q, *k, *v;          // [tokens][heads * head_dim]
    int8_t *q_codes;           // of q, where keys are INT8: [tokens][n_heads][tern_round_up(head_dim, TERN_X_ALIGN)]
    float *q_scales;           // [tokens][n_heads]
    int32_t *q_sums;           // of the codes [tokens][n_heads]
    float *att;                // [tokens][n_heads * head_dim]
    float *gate, *up;          // [tokens][n_ff]
    float *cos_sin;            // rotation of each token's position [tokens][rope.dim]: cos, sin of pair 0, 1, ...
    float *logits;             // [TERN_HEAD_ROWS][n_vocab], when several sessions ask at once
    float *head_rows;          // scratch of the exact head, or nothing (head.h)
    struct tern_row *rows;     // [tokens]
    tern_stage *stages;        // storage of the region
    unsigned char *stage_args; //
} tern_buffers;

// Where one token of the batch belongs.
typedef struct tern_row {
    tern_session *session;
    size_t position;
    int32_t token;
    float *logits; // where those after this token go, or NULL
    size_t top;    // how many of the largest are needed; 0: all
} tern_row;

struct tern_model {
    tern_context *ctx;
    struct tern_packed *packed; // the file, where it is a packed one, or NULL
    tern_gguf *gguf;            // the file, or the part of a packed one
    tern_form form;             // as they were asked for, or as the packed file has them
    tern_head_form head_form;   //
    size_t act_block;           //
    tern_tokenizer *tokenizer;
    tern_hyper hyper;
    const tern_gguf_tensor *token_embd;
    const tern_block_type *embd_type;
    tern_layer *layers;
    const float *output_norm;
    tern_head head;
    tern_arena weight_memory; // all packed matrices: small ones share huge pages, and a token reads them in one direction
    tern_allocator weight_allocator;
    float *floats; // all norm vectors, biases and rope frequencies
    size_t n_floats;
    tern_rope_table rope, long_rope; // long_rope: of sessions of more than long_from tokens
    size_t long_from;
    tern_activations *act;
    tern_buffers buf;
    void *buf_memory;
    size_t buf_bytes;
    char *architecture, *name; // NUL-terminated copies of arch_size and name_size bytes
    size_t arch_size, name_size;
    uint64_t n_params, bytes_per_token;
    double packed_weights; // n * k over all matrices
    size_t n_ternary, n_int8;
    atomic_bool save_cancelled; // pack.c
};

struct tern_session {
    tern_model *model;
    size_t n_ctx, length;
    size_t pending; // tokens of the batch being checked
    size_t before;  // length before that batch
    bool has_logits;
    bool restored; // its first keys and values come from a file
    size_t top;                  // tern_session_set_top
    atomic_bool cancelled;       // stop.c
    _Atomic int64_t deadline_ns; // of CLOCK_MONOTONIC; INT64_MAX: none
    tern_kv kv;
    int32_t *tokens; // [n_ctx], of which the first `length` count
    float *logits;   // [n_vocab]
    // Partial sums of a long context, one token's: [blocks of TERN_ATTN_BLOCK keys][n_heads], block_acc [..][head_dim]
    float *block_acc, *block_most, *block_total;
    size_t n_sums; // blocks * n_heads
};

static inline size_t tern_kv_width(const tern_hyper *h) { return (size_t)h->n_kv_heads * h->head_dim; }
static inline size_t tern_q_codes(const tern_hyper *h) { return tern_round_up(h->head_dim, TERN_X_ALIGN); } // of a head
static inline size_t tern_q_width(const tern_hyper *h) { return (size_t)h->n_heads * h->head_dim; }

// Hyperparameters of a supported architecture, all checked. Errors name the key.
tern_status tern_hyper_read(tern_hyper *hyper, const tern_gguf *gguf, tern_error *err);

// One forward over rows[0..n-1] of model->buf, n <= TERN_BATCH_TOKENS: fills the KV caches and the logits that rows want.
tern_status tern_forward(tern_model *model, size_t n);

#endif
