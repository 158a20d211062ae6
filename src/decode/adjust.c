// SPDX-License-Identifier: MIT
// Changes of logits before a token is chosen: biases, and the repetition penalty over a ring of the last tokens.
#include "decode/adjust.h"

#include <math.h>
#include <string.h>

enum { DEFAULT_LAST = 64, LAST_MAX = 1 << 20 };

struct tern_adjust {
    const tern_allocator *allocator;
    size_t n_vocab;
    float *logits; // [n_vocab], changed
    tern_logit_bias *biases;
    size_t n_biases;
    float penalty; // 1: none
    int32_t *said; // [n_last], a ring
    size_t n_last;
    uint64_t n_said;  // ever; the latest is said[(n_said - 1) % n_last]
    uint32_t *counts; // [n_vocab], how often a token is in the ring
};

// ---- Creation -----------------------------------------------------------------------------------------------

static tern_status check(const tern_sampler_params *params, size_t n_vocab, tern_error *err) {
    if (!(params->repeat_penalty >= 0.0f && params->repeat_penalty < INFINITY)) {
        return tern_fail(err, TERN_ERR_ARG, "repeat_penalty = %g is not a finite number from 0 up; 0 or 1 is off, 1.1 is usual",
                         (double)params->repeat_penalty);
    }
    if (params->repeat_last > LAST_MAX)
        return tern_fail(err, TERN_ERR_ARG, "repeat_last = %u is more than %d", params->repeat_last, LAST_MAX);
    if (params->n_biases > 0 && !params->biases) return tern_fail(err, TERN_ERR_ARG, "biases is NULL");
    for (size_t i = 0; i < params->n_biases; i++) {
        const tern_logit_bias b = params->biases[i];
        if (b.token < 0 || (size_t)b.token >= n_vocab)
            return tern_fail(err, TERN_ERR_ARG, "the bias of token %d: the vocabulary has tokens 0..%zu", b.token, n_vocab - 1);
        if (!(b.bias < INFINITY)) // NaN, too
            return tern_fail(err, TERN_ERR_ARG, "the bias of token %d is %g; give a finite number, or -INFINITY to ban it",
                             b.token, (double)b.bias);
    }
    return TERN_OK;
}

static bool allocate(tern_adjust *a) {
    a->logits = tern_alloc(a->allocator, a->n_vocab, sizeof *a->logits);
    if (a->n_biases) a->biases = tern_alloc(a->allocator, a->n_biases, sizeof *a->biases);
    if (a->n_last) a->said = tern_alloc(a->allocator, a->n_last, sizeof *a->said);
    if (a->n_last) a->counts = tern_alloc(a->allocator, a->n_vocab, sizeof *a->counts);
    return a->logits && (a->biases || !a->n_biases) && ((a->said && a->counts) || !a->n_last);
}

tern_status tern_adjust_create(tern_adjust **out, const tern_sampler_params *params, size_t n_vocab,
                               const tern_allocator *allocator, tern_error *err) {
    *out = NULL;
    const tern_status status = check(params, n_vocab, err);
    if (status != TERN_OK) return status;
    const bool penal = params->repeat_penalty != 0.0f && params->repeat_penalty != 1.0f;
    if (!penal && params->n_biases == 0) return TERN_OK;
    tern_adjust *a = tern_alloc(allocator, 1, sizeof *a);
    if (!a) return tern_fail(err, TERN_ERR_MEMORY, "no memory for a sampler");
    *a = (tern_adjust){.allocator = allocator, .n_vocab = n_vocab, .n_biases = params->n_biases, .penalty = 1.0f};
    if (penal) {
        a->penalty = params->repeat_penalty;
        a->n_last = params->repeat_last ? params->repeat_last : DEFAULT_LAST;
    }
    if (!allocate(a)) {
        tern_adjust_destroy(a);
        return tern_fail(err, TERN_ERR_MEMORY, "no memory to adjust the logits of %zu tokens", n_vocab);
    }
    if (a->n_biases) memcpy(a->biases, params->biases, a->n_biases * sizeof *a->biases);
    tern_adjust_forget(a);
    *out = a;
    return TERN_OK;
}

static void release(const tern_adjust *a, void *memory, size_t n, size_t size) {
    if (memory) tern_free(a->allocator, memory, n, size);
}

void tern_adjust_destroy(tern_adjust *a) {
    if (!a) return;
    release(a, a->logits, a->n_vocab, sizeof *a->logits);
    release(a, a->biases, a->n_biases, sizeof *a->biases);
    release(a, a->said, a->n_last, sizeof *a->said);
    release(a, a->counts, a->n_vocab, sizeof *a->counts);
    tern_free(a->allocator, a, 1, sizeof *a);
}

// ---- Use ----------------------------------------------------------------------------------------------------

void tern_adjust_forget(tern_adjust *a) {
    a->n_said = 0;
    if (a->counts) memset(a->counts, 0, a->n_vocab * sizeof *a->counts);
}

void tern_adjust_accept(tern_adjust *a, int32_t token) {
    if (a->n_last == 0) return;
    int32_t *place = &a->said[a->n_said % a->n_last];
    if (a->n_said >= a->n_last) a->counts[*place]--;
    *place = token;
    a->counts[token]++;
    a->n_said++;
}

const float *tern_adjust_apply(tern_adjust *a, const float *logits) {
    memcpy(a->logits, logits, a->n_vocab * sizeof *logits);
    for (size_t i = 0; i < a->n_biases; i++) a->logits[a->biases[i].token] += a->biases[i].bias;
    if (a->n_last == 0) return a->logits;
    // The order of the tokens does not matter: the changes do not depend on each other.
    const size_t n = a->n_said < a->n_last ? (size_t)a->n_said : a->n_last;
    for (size_t i = 0; i < n; i++) {
        const int32_t token = a->said[i];
        bool done = false; // for a token that was said more than once
        for (size_t k = 0; a->counts[token] > 1 && k < i && !done; k++) done = a->said[k] == token;
        if (done) continue;
        float *logit = &a->logits[token];
        *logit = *logit > 0.0f ? *logit / a->penalty : *logit * a->penalty;
    }
    return a->logits;
}
