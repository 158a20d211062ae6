// SPDX-License-Identifier: MIT
// Chooses the next token from logits: greedy, or a draw after top-k, temperature, top-p and min-p. Knows no model or session.
#ifndef TERN_DECODE_SAMPLE_H
#define TERN_DECODE_SAMPLE_H

#include "base/base.h"
#include "tern/decode.h"

typedef struct tern_candidate {
    double weight; // exp((logit - highest) / temperature): 1 for the most probable, 0 for one that cannot be drawn
    float logit;
    int32_t id;
} tern_candidate;

typedef struct tern_sample_state {
    tern_sampler_params params;
    size_t n_vocab;
    tern_candidate *candidates; // [n_vocab]
    uint64_t random[4];         // xoshiro256**
    struct tern_adjust *adjust; // biases and penalty; NULL: none
    const tern_allocator *allocator;
} tern_sample_state;

// params: all fields count (struct_size does not). The one allocation is made here. Errors: ARG, MEMORY.
tern_status tern_sample_init(tern_sample_state *state, const tern_sampler_params *params, size_t n_vocab,
                             const tern_allocator *allocator, tern_error *err);
void tern_sample_free(tern_sample_state *state);

// Tokens that were said, for the repetition penalty. Each is below n_vocab.
void tern_sample_accept(tern_sample_state *state, const int32_t *tokens, size_t n);
void tern_sample_forget(tern_sample_state *state);

// The next token from logits [n_vocab]. NaN and -infinity are never chosen; -1 if nothing else is there or if a logit is
// +infinity, which both mean that the model computed nonsense.
//
// Same params, same seed, same logits: same tokens, on every CPU. Arithmetic is double in a written order and calls no libm
// function. The steps:
//   bias, penalty   as adjust.h tells
//   temperature 0   the highest logit, the lowest id among equals; the seed does not matter
//   top-k           keeps the k highest (ties: lower ids first)
//   temperature     weights exp((logit - highest) / temperature)
//   top-p           keeps the fewest most probable tokens whose weights reach top_p of the sum
//   min-p           keeps the tokens with at least min_p times the weight of the most probable
//   draw            one number in [0, 1) from xoshiro256**, seeded through splitmix64; after top-k (of as many tokens or more)
//                   or top-p the most probable tokens take its lowest part, else the lowest ids
// So with top-k the tokens do not change where logits below the k-th are -infinity instead.
int32_t tern_sample_next(tern_sample_state *state, const float *logits);

#endif
