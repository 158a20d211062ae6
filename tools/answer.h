// SPDX-License-Identifier: MIT
// A model writing: prompt in, text out as it comes, and the times of that. For generate and chat.
#ifndef TERN_TOOLS_ANSWER_H
#define TERN_TOOLS_ANSWER_H

#include "sampling.h"
#include "text_stream.h"
#include "trace_file.h"

// A session and what it holds: tokens[0 .. n_tokens). Those behind tern_session_length are not decoded yet.
typedef struct answer {
    tern_context *ctx;
    tern_model *model;
    tern_session *session;
    tern_sampler *sampler;
    const sampling_options *options;
    size_t n_ctx, n_vocab;
    int32_t *tokens; // [n_ctx + 1]: the last one may be said, and have no room
    size_t n_tokens;
    bool stream;       // text goes to stdout as it comes
    trace_file *trace; // or NULL
    size_t trace_steps;

    // Of the last prompt and its text
    text_stream text;
    const char *stop;   // why it ended: end, length, context, stop (a stop string), interrupt, timeout
    size_t n_prompt;    // tokens read
    size_t n_generated; // tokens of the text; the token that ends it not counted
    size_t n_drafted, n_accepted;
    double prefill_s; // prompt in, logits out
    double first_ms;  // prompt in, first token out
    double sample_s;  // choosing tokens
    double *step_ms;  // [max_steps], of each decode step
    size_t n_steps, max_steps;

    int32_t draft[SAMPLING_MAX_DRAFT + 1]; // the last token, which is certain, and guesses
    float *logits;                         // [options->n_draft + 1][n_vocab], with guesses
} answer;

// All fail with an error line and CLI_FAILED. ctx, model and options must live until answer_close, which takes one that was not
// opened, or not wholly, as well.
int answer_open(answer *a, tern_context *ctx, tern_model *model, const sampling_options *options, size_t n_ctx,
                tern_kv_type kv);
void answer_close(answer *a);

// Reads n more tokens, n_tokens + n <= n_ctx. Interrupted, or past the deadline of the session, it forgets them again and sets
// stop; else stop is NULL.
int answer_read(answer *a, const int32_t *tokens, size_t n);
// Writes text until something stops it. Only after an answer_read that was not stopped.
int answer_write(answer *a);
// The same in steps, of an answer without guesses: takes the next token out of the logits, which took step_ms to make; nothing
// is decoded. And what answer_write would stop for before a step: "interrupt", "timeout", or NULL.
int answer_take(answer *a, double step_ms);
const char *answer_stopped(const answer *a);
// `to`, which holds nothing yet, goes on from the n tokens that `from` has just read.
int answer_fork(answer *to, const answer *from, size_t n);
// Tokens that still have room.
size_t answer_room(const answer *a);
// Reads these tokens, n <= n_ctx, in place of all that the session holds; the text goes on behind them, with another
// answer_write. Interrupted it sets stop, and leaves the rest of them to the next read.
int answer_replace(answer *a, const int32_t *tokens, size_t n);
// Forgets everything.
void answer_reset(answer *a);

#endif
