// SPDX-License-Identifier: MIT
// Sampling: filters over an array of candidates, none of which allocates.
#include "decode/sample.h"

#include <math.h>
#include <string.h>

#include "decode/adjust.h"
#include "decode/random.h"

enum { NO_TOKEN = -1 };

// ---- Creation -----------------------------------------------------------------------------------------------

// false for NaN too
static bool is_fraction(float value) { return value >= 0.0f && value <= 1.0f; }

static tern_status check(const tern_sampler_params *params, size_t n_vocab, tern_error *err) {
    if (!(params->temperature >= 0.0f && params->temperature < INFINITY)) {
        return tern_fail(err, TERN_ERR_ARG, "temperature = %g is not a finite number from 0 up; 0 is greedy, 0.2..1.5 is usual",
                         (double)params->temperature);
    }
    if (!is_fraction(params->top_p)) {
        return tern_fail(err, TERN_ERR_ARG, "top_p = %g is outside 0..1; 0 or 1 turns it off", (double)params->top_p);
    }
    if (!is_fraction(params->min_p)) {
        return tern_fail(err, TERN_ERR_ARG, "min_p = %g is outside 0..1; 0 turns it off", (double)params->min_p);
    }
    if (n_vocab == 0 || n_vocab > INT32_MAX) {
        return tern_fail(err, TERN_ERR_ARG, "a vocabulary of %zu tokens is outside 1..%d", n_vocab, INT32_MAX);
    }
    return TERN_OK;
}

tern_status tern_sample_init(tern_sample_state *state, const tern_sampler_params *params, size_t n_vocab,
                             const tern_allocator *allocator, tern_error *err) {
    const tern_status status = check(params, n_vocab, err);
    if (status != TERN_OK) return status;
    tern_adjust *adjust = NULL;
    const tern_status adjusted = tern_adjust_create(&adjust, params, n_vocab, allocator, err);
    if (adjusted != TERN_OK) return adjusted;
    tern_candidate *candidates = tern_alloc(allocator, n_vocab, sizeof *candidates);
    if (!candidates) {
        tern_adjust_destroy(adjust);
        return tern_fail(err, TERN_ERR_MEMORY, "no memory to sample from %zu tokens", n_vocab);
    }
    *state = (tern_sample_state){
        .params = *params, .n_vocab = n_vocab, .candidates = candidates, .adjust = adjust, .allocator = allocator};
    state->params.biases = NULL; // the caller's; the copy is in adjust
    tern_random_seed(state->random, params->seed);
    return TERN_OK;
}

void tern_sample_free(tern_sample_state *state) {
    tern_adjust_destroy(state->adjust);
    state->adjust = NULL;
    if (!state->candidates) return;
    tern_free(state->allocator, state->candidates, state->n_vocab, sizeof *state->candidates);
    state->candidates = NULL;
}

// ---- Order and heaps ----------------------------------------------------------------------------------------

// The one order of candidates: a comes before b. Total, because ids differ.
static bool before(tern_candidate a, tern_candidate b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }
static bool after(tern_candidate a, tern_candidate b) { return before(b, a); }

// Moves heap[0] down to its place in a heap whose root `wins` over every other entry.
static inline void sift_down(tern_candidate *heap, size_t n, size_t root, bool (*wins)(tern_candidate, tern_candidate)) {
    const tern_candidate moving = heap[root];
    for (size_t child = 2 * root + 1; child < n; child = 2 * root + 1) {
        if (child + 1 < n && wins(heap[child + 1], heap[child])) child++;
        if (!wins(heap[child], moving)) break;
        heap[root] = heap[child];
        root = child;
    }
    heap[root] = moving;
}

static inline void make_heap(tern_candidate *heap, size_t n, bool (*wins)(tern_candidate, tern_candidate)) {
    for (size_t i = n / 2; i-- > 0;) sift_down(heap, n, i, wins);
}

// ---- Steps: each takes and returns the number of candidates, which stand at the front of the array ---------------

static int32_t greedy(const float *logits, size_t n) {
    int32_t best = NO_TOKEN;
    for (size_t i = 0; i < n; i++) {
        if (logits[i] > -INFINITY && (best == NO_TOKEN || logits[i] > logits[best])) best = (int32_t)i; // NaN compares false
    }
    return best == NO_TOKEN || logits[best] == INFINITY ? NO_TOKEN : best;
}

static size_t all_candidates(tern_candidate *out, const float *logits, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (logits[i] > -INFINITY) out[count++] = (tern_candidate){.logit = logits[i], .id = (int32_t)i};
    }
    return count;
}

// The first k form a heap with the last of them (in the order above) at its root; each better one replaces the root. Then they
// are put in order, so that what is drawn does not depend on the others, of which a screened head leaves few.
static size_t keep_top_k(tern_candidate *candidates, size_t n, size_t k) {
    if (n < k) return n;
    make_heap(candidates, k, after);
    for (size_t i = k; i < n; i++) {
        if (!before(candidates[i], candidates[0])) continue;
        candidates[0] = candidates[i];
        sift_down(candidates, k, 0, after);
    }
    for (size_t left = k; left > 1;) {
        const tern_candidate last = candidates[0];
        candidates[0] = candidates[--left];
        sift_down(candidates, left, 0, after);
        candidates[left] = last;
    }
    return k;
}

// exp(x) for x <= 0 in plain double arithmetic, so that every CPU gives the same bits (libm's differs with FMA).
// x = k ln 2 + r with |r| <= ln 2 / 2, and the Taylor series of degree 13 has an error below 2^-57 there.
static double exponential(double x) {
    enum { DEGREE = 13, EXPONENT_BIAS = 1023, MANTISSA_BITS = 52 };
    const double smallest = -708.0; // below, 2^k would be subnormal; such a weight is never drawn
    const double per_ln2 = 0x1.71547652b82fep+0, ln2_high = 0x1.62e42fefa3800p-1, ln2_low = 0x1.ef35793c76730p-45;
    if (!(x >= smallest)) return 0.0;
    const int64_t k = (int64_t)(x * per_ln2 - 0.5); // truncation rounds to nearest, as x <= 0
    const double r =
        (x - (double)k * ln2_high) - (double)k * ln2_low; // the first product is exact: ln2_high ends in 11 zero bits
    double sum = 1.0;
    for (int i = DEGREE; i > 0; i--) sum = 1.0 + sum * r / (double)i;
    const uint64_t bits = (uint64_t)(k + EXPONENT_BIAS) << MANTISSA_BITS;
    double power;
    memcpy(&power, &bits, sizeof power);
    return sum * power;
}

static void set_weights(tern_candidate *candidates, size_t n, float temperature) {
    float highest = -INFINITY;
    for (size_t i = 0; i < n; i++) highest = candidates[i].logit > highest ? candidates[i].logit : highest;
    for (size_t i = 0; i < n; i++) {
        candidates[i].weight = exponential(((double)candidates[i].logit - (double)highest) / (double)temperature);
    }
}

static double sum_of_weights(const tern_candidate *candidates, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += candidates[i].weight;
    return sum;
}

// Takes candidates from a heap in order until they reach the share; they gather at the end of the array, the last one first,
// and reversing the array puts them in front in order.
static size_t keep_top_p(tern_candidate *candidates, size_t n, float top_p) {
    const double wanted = (double)top_p * sum_of_weights(candidates, n);
    make_heap(candidates, n, before);
    double reached = 0.0;
    size_t left = n; // candidates[0..left) is the heap
    while (left > 0 && (left == n || reached < wanted)) {
        const tern_candidate top = candidates[0];
        candidates[0] = candidates[--left];
        if (left > 1) sift_down(candidates, left, 0, before);
        candidates[left] = top;
        reached += top.weight;
    }
    for (size_t front = 0, back = n - 1; front < back; front++, back--) {
        const tern_candidate swapped = candidates[front];
        candidates[front] = candidates[back];
        candidates[back] = swapped;
    }
    return n - left;
}

// The highest weight is 1, so min_p itself is the threshold.
static size_t keep_min_p(tern_candidate *candidates, size_t n, float min_p) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (candidates[i].weight >= (double)min_p) candidates[kept++] = candidates[i];
    }
    return kept;
}

static int32_t draw(const tern_candidate *candidates, size_t n, double unit) {
    const double target = unit * sum_of_weights(candidates, n);
    double passed = 0.0;
    int32_t chosen = NO_TOKEN;
    for (size_t i = 0; i < n; i++) {
        if (candidates[i].weight == 0.0) continue;
        chosen = candidates[i].id; // the last one stands if rounding lets the target reach the whole sum
        passed += candidates[i].weight;
        if (target < passed) break;
    }
    return chosen;
}

void tern_sample_accept(tern_sample_state *state, const int32_t *tokens, size_t n) {
    for (size_t i = 0; state->adjust && i < n; i++) tern_adjust_accept(state->adjust, tokens[i]);
}

void tern_sample_forget(tern_sample_state *state) {
    if (state->adjust) tern_adjust_forget(state->adjust);
}

static int32_t choose(tern_sample_state *state, const float *logits) {
    const tern_sampler_params *params = &state->params;
    const int32_t best = greedy(logits, state->n_vocab);
    if (best == NO_TOKEN || params->temperature == 0.0f) return best;
    tern_candidate *candidates = state->candidates;
    size_t n = all_candidates(candidates, logits, state->n_vocab);
    if (params->top_k > 0) n = keep_top_k(candidates, n, params->top_k);
    set_weights(candidates, n, params->temperature);
    if (params->top_p > 0.0f && params->top_p < 1.0f) n = keep_top_p(candidates, n, params->top_p);
    if (params->min_p > 0.0f) n = keep_min_p(candidates, n, params->min_p);
    return draw(candidates, n, tern_random_unit(state->random));
}

int32_t tern_sample_next(tern_sample_state *state, const float *logits) {
    const int32_t id = choose(state, state->adjust ? tern_adjust_apply(state->adjust, logits) : logits);
    if (id != NO_TOKEN) tern_sample_accept(state, &id, 1);
    return id;
}
