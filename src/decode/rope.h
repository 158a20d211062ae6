// SPDX-License-Identifier: MIT
// The angular frequencies of rotary position embedding, with the scalings that stretch a context beyond its training.
#ifndef TERN_DECODE_ROPE_H
#define TERN_DECODE_ROPE_H

#include "base/base.h"

// Tensors that divide the frequencies: of Llama 3; LONGROPE's, of sessions within the original context and beyond it.
#define TERN_ROPE_FACTORS "rope_freqs.weight"
#define TERN_ROPE_SHORT_FACTORS "rope_factors_short.weight"
#define TERN_ROPE_LONG_FACTORS "rope_factors_long.weight"

typedef enum tern_rope_kind {
    TERN_ROPE_PLAIN,
    TERN_ROPE_LINEAR,  // every frequency divided by factor (kaiokendev, "SuperHOT")
    TERN_ROPE_YARN,    // low frequencies divided, high ones kept, a ramp between (Peng et al., YaRN, arXiv:2309.00071)
    TERN_ROPE_LONGROPE // each frequency divided by a factor of its own (Ding et al., LongRoPE, arXiv:2402.13753)
} tern_rope_kind;

typedef struct tern_rope_params {
    tern_rope_kind kind;
    uint32_t dim;       // elements of a head that are rotated; even
    float base;         // of the frequencies: base^(-2i / dim)
    float factor;       // LINEAR, YARN: of the context, > 0
    float original_ctx; // YARN, LONGROPE: tokens of the training before it was stretched
    float beta_fast,
        beta_slow;     // YARN: turns within original_ctx from which frequencies are kept, or up to which they are divided
    float attn_factor; // of cos and sin, on top of what YARN itself asks for
} tern_rope_params;

// freq[dim / 2]: the angle of pair i at position p is p * freq[i]. factors[dim / 2] divides each (rope_freqs, as Llama 3 has
// them, or LONGROPE's), NULL: none. *magnitude: what cos and sin are multiplied with. False if a frequency is not finite.
bool tern_rope_frequencies(float *freq, float *magnitude, const tern_rope_params *params, const float *factors);

#endif
