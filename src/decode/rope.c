// SPDX-License-Identifier: MIT
// Every scaling comes down to one table of frequencies, computed once in float64.
#include "decode/rope.h"

#include <math.h>

// The pair that turns `turns` times within the original context.
static double pair_of_turns(const tern_rope_params *p, double turns) {
    const double tau = 6.283185307179586;
    return (double)p->dim * log((double)p->original_ctx / (turns * tau)) / (2 * log((double)p->base));
}

static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

// 1 where a frequency is kept, 0 where it is divided.
static double yarn_keep(const tern_rope_params *p, size_t pair) {
    const double narrowest = 0.001; // of the ramp
    const double low = fmax(0, floor(pair_of_turns(p, (double)p->beta_fast)));
    const double high = fmin((double)p->dim - 1, ceil(pair_of_turns(p, (double)p->beta_slow)));
    return 1 - clamp(((double)pair - low) / fmax(narrowest, high - low), 0, 1);
}

static double yarn_magnitude(const tern_rope_params *p) {
    const double per_octave = 0.1;
    return p->factor > 1 ? 1 + per_octave * log((double)p->factor) : 1;
}

bool tern_rope_frequencies(float *freq, float *magnitude, const tern_rope_params *params, const float *factors) {
    bool finite = true;
    for (size_t i = 0; i < params->dim / 2; i++) {
        double f = pow((double)params->base, -2.0 * (double)i / (double)params->dim);
        if (factors) f /= (double)factors[i];
        if (params->kind == TERN_ROPE_LINEAR) f /= (double)params->factor;
        if (params->kind == TERN_ROPE_YARN) {
            const double keep = yarn_keep(params, i);
            f = f * keep + f / (double)params->factor * (1 - keep);
        }
        freq[i] = (float)f;
        finite = finite && isfinite(freq[i]);
    }
    const double own = params->kind == TERN_ROPE_YARN ? yarn_magnitude(params) : 1;
    *magnitude = (float)(own * (double)params->attn_factor);
    return finite && isfinite(*magnitude);
}
