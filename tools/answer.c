// SPDX-License-Identifier: MIT
// A model writing: prompt in, text out as it comes, and the times of that.
#include "answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "draft.h"
#include "interrupt.h"

// A step has as many events as its stages have tiles and waits, some 1000 for each worker.
enum { TRACE_STEP_EVENTS = 1 << 12, TRACE_PROMPT_EVENTS = 1 << 14 };

// ---- Opening ------------------------------------------------------------------------------------------------

// How many of the largest logits decide the next token; 0: all. A bias or penalty may lift any other above them.
static size_t top_needed(const sampling_options *o) {
    const bool penalty = o->params.repeat_penalty != 0 && o->params.repeat_penalty != 1;
    if (penalty || o->params.n_biases) return 0;
    return o->params.temperature == 0 ? 1 : o->params.top_k;
}

int answer_open(answer *a, tern_context *ctx, tern_model *model, const sampling_options *options, size_t n_ctx,
                tern_kv_type kv) {
    *a = (answer){.ctx = ctx,
                  .model = model,
                  .options = options,
                  .n_ctx = n_ctx,
                  .text = {.stops = options->stops, .n_stops = options->n_stops}};
    tern_model_info info = {.struct_size = sizeof info};
    tern_status status = tern_model_get_info(model, &info);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    a->n_vocab = info.n_vocab;
    for (size_t i = 0; i < options->params.n_biases; i++)
        if (options->biases[i].token >= (int32_t)info.n_vocab)
            return cli_fail(
                "--logit-bias %d: the model has tokens 0..%u; give one of them (tern tokenize --ids tells those of a text)",
                options->biases[i].token, info.n_vocab - 1);
    a->tokens = calloc(n_ctx + 1, sizeof *a->tokens);
    a->max_steps = n_ctx + 1;
    a->step_ms = calloc(a->max_steps, sizeof *a->step_ms);
    if (options->n_draft) a->logits = malloc((options->n_draft + 1) * a->n_vocab * sizeof *a->logits);
    if (!a->tokens || !a->step_ms || (options->n_draft && !a->logits) || !text_stream_add(&a->text, "", 0))
        return cli_fail("no memory for %zu tokens; lower -n or --ctx", n_ctx);
    const tern_session_params session = {.struct_size = sizeof session, .n_ctx = n_ctx, .kv = kv};
    status = tern_session_create(model, &a->session, &session);
    tern_sampler_params params = options->params;
    params.biases = options->biases;
    if (status == TERN_OK) status = tern_sampler_create(model, &a->sampler, &params);
    if (status == TERN_OK) status = tern_session_set_top(a->session, top_needed(options));
    interrupt_cancels(&a->session, 1);
    return status == TERN_OK ? CLI_OK : cli_fail_status(ctx, status);
}

void answer_close(answer *a) {
    interrupt_cancels(NULL, 0);
    tern_sampler_destroy(a->sampler);
    tern_session_destroy(a->session);
    text_stream_free(&a->text);
    free(a->tokens);
    free(a->step_ms);
    free(a->logits);
}

void answer_reset(answer *a) {
    tern_session_reset(a->session);
    tern_sampler_forget(a->sampler);
    a->n_tokens = 0;
}

const char *answer_stopped(const answer *a) {
    const tern_stop stop = tern_session_stopped(a->session);
    if (interrupted() || stop == TERN_STOP_CANCELLED) return "interrupt";
    return stop == TERN_STOP_DEADLINE ? "timeout" : NULL;
}

// ---- Reading ------------------------------------------------------------------------------------------------

// Decodes tokens up to n_tokens in slices, so that the progress line is looked at now and then.
static int decode_tokens(answer *a) {
    enum { SLICE = 512 };
    tern_session *slots[SLICE];
    for (size_t i = 0; i < SLICE; i++) slots[i] = a->session;
    const double start = cli_seconds();
    const size_t from = tern_session_length(a->session), n = a->n_tokens - from;
    for (size_t done = 0; done < n && !answer_stopped(a);) {
        cli_progress("reading the prompt", start, (int)(100 * done / n));
        const size_t slice = n - done < SLICE ? n - done : SLICE;
        const tern_status status = tern_decode_batch(a->model, slots, a->tokens + from + done, slice);
        if (status != TERN_OK && status != TERN_ERR_CANCELLED) return cli_fail_status(a->ctx, status);
        done += slice; // or it was stopped
    }
    cli_progress("", start, -1);
    a->prefill_s = cli_seconds() - start;
    trace_mark(a->trace, start, start + a->prefill_s, "prompt of %zu tokens", n);
    return CLI_OK;
}

// Before reading on: the last token may be undecoded, or a wrong guess may stand in its place.
static tern_status forget_guesses(answer *a) {
    if (a->n_tokens == 0 || tern_session_length(a->session) < a->n_tokens) return TERN_OK;
    return tern_session_truncate(a->session, a->n_tokens - 1);
}

static void begin_answer(answer *a, size_t n_prompt) {
    text_stream_clear(&a->text);
    a->n_generated = a->n_drafted = a->n_accepted = a->n_steps = 0;
    a->first_ms = a->sample_s = 0;
    a->stop = NULL;
    a->n_prompt = n_prompt;
}

int answer_read(answer *a, const int32_t *tokens, size_t n) {
    begin_answer(a, n);
    tern_status status = forget_guesses(a);
    if (status != TERN_OK) return cli_fail_status(a->ctx, status);
    const size_t before = a->n_tokens, decoded = tern_session_length(a->session);
    memcpy(a->tokens + before, tokens, n * sizeof *tokens);
    a->n_tokens += n;
    int rc = trace_begin(a->trace, a->ctx, TRACE_PROMPT_EVENTS);
    if (rc == CLI_OK) rc = decode_tokens(a);
    if (rc != CLI_OK) return rc;
    if (tern_session_length(a->session) < a->n_tokens) {
        a->stop = answer_stopped(a);
        a->n_tokens = before;
        if (tern_session_length(a->session) > decoded) status = tern_session_truncate(a->session, decoded);
        if (status != TERN_OK) return cli_fail_status(a->ctx, status);
    }
    if (!a->stop) status = tern_sampler_accept(a->sampler, tokens, n);
    if (status != TERN_OK) return cli_fail_status(a->ctx, status);
    rc = trace_end(a->trace, a->ctx);
    return rc == CLI_OK ? trace_append(a->trace, a->ctx) : rc;
}

int answer_fork(answer *to, const answer *from, size_t n) {
    begin_answer(to, n);
    to->stop = from->stop;
    to->prefill_s = from->prefill_s;
    to->n_tokens = from->n_tokens;
    memcpy(to->tokens, from->tokens, from->n_tokens * sizeof *to->tokens);
    tern_status status = tern_session_copy(to->session, from->session);
    if (status == TERN_OK && !to->stop) status = tern_sampler_accept(to->sampler, to->tokens + to->n_tokens - n, n);
    return status == TERN_OK ? CLI_OK : cli_fail_status(to->ctx, status);
}

size_t answer_room(const answer *a) { return a->n_tokens < a->n_ctx ? a->n_ctx - a->n_tokens : 0; }

int answer_replace(answer *a, const int32_t *tokens, size_t n) {
    const size_t most = a->n_steps + a->n_ctx + 1; // the text may become longer than the context
    if (most > a->max_steps) {
        double *step_ms = realloc(a->step_ms, most * sizeof *step_ms);
        if (!step_ms) return cli_fail("no memory for a longer answer; /reset begins anew");
        a->step_ms = step_ms;
        a->max_steps = most;
    }
    tern_session_reset(a->session);
    memcpy(a->tokens, tokens, n * sizeof *tokens);
    a->n_tokens = n;
    const double prefill_s = a->prefill_s; // stays that of the message
    const int rc = decode_tokens(a);
    a->prefill_s = prefill_s;
    a->stop = tern_session_length(a->session) < n ? answer_stopped(a) : NULL;
    return rc;
}

// ---- Writing ------------------------------------------------------------------------------------------------

// Shows what is whole; with `all`, also an unfinished character at the end.
static int show_text(answer *a, bool all) {
    if (!a->stream) return CLI_OK;
    size_t size;
    const char *next = text_stream_take(&a->text, all, &size);
    if (size == 0) return CLI_OK;
    (void)fwrite(next, 1, size, stdout);
    return cli_flush();
}

// A token joins the text. Sets a->stop where the text ends with it; the token that ends an answer is no part of it.
static int take_token(answer *a, int32_t token) {
    if (tern_token_is_end(a->model, token)) {
        a->stop = "end";
        return CLI_OK;
    }
    const char *bytes = NULL;
    size_t size = 0;
    const tern_status status = tern_token_bytes(a->model, token, 0, &bytes, &size);
    if (status != TERN_OK) return cli_fail_status(a->ctx, status);
    if (!text_stream_add(&a->text, bytes, size)) return cli_fail("no memory for more text; ask for fewer tokens with -n");
    const bool room = a->n_tokens < a->n_ctx;
    a->tokens[a->n_tokens++] = token;
    a->n_generated++;
    if (a->text.stopped)
        a->stop = "stop";
    else if (a->n_generated == a->options->n_predict)
        a->stop = "length";
    else if (!room)
        a->stop = "context";
    return show_text(a, false);
}

// Samples the token behind each row of logits as long as the token before it was guessed right.
static int take_row_tokens(answer *a, const float *logits, size_t n_rows, double step_ms) {
    for (size_t i = 0; i < n_rows; i++) {
        int32_t token;
        const double asked = cli_seconds();
        const tern_status status = tern_sample_logits(a->sampler, logits + i * a->n_vocab, &token);
        if (status != TERN_OK) return cli_fail_status(a->ctx, status);
        trace_mark(a->trace, asked, cli_seconds(), "sample");
        const double sample_s = cli_seconds() - asked, ms = step_ms + sample_s * 1e3;
        a->sample_s += sample_s;
        if (a->first_ms == 0)
            a->first_ms = a->prefill_s * 1e3 + ms;
        else
            a->step_ms[a->n_steps++] = ms;
        step_ms = 0; // the tokens of one step come together
        const int rc = take_token(a, token);
        if (rc != CLI_OK || a->stop) return rc;
        if (i + 1 == n_rows || token != a->draft[i + 1]) return CLI_OK;
        a->n_accepted++;
    }
    return CLI_OK;
}

int answer_take(answer *a, double step_ms) { return take_row_tokens(a, tern_session_logits(a->session), 1, step_ms); }

// Decodes the last token, and guesses behind it. Sets how many rows of logits there are, and where.
static tern_status decode_step(answer *a, const float **logits, size_t *n_rows) {
    const size_t length = a->n_tokens - 1; // before the last token, which is not decoded yet
    size_t max = a->options->n_draft;
    if (max > a->n_ctx - a->n_tokens) max = a->n_ctx - a->n_tokens;
    if (a->options->n_predict && max > a->options->n_predict - a->n_generated - 1)
        max = a->options->n_predict - a->n_generated - 1; // no more can be of use
    a->draft[0] = a->tokens[length];
    const size_t guessed = max ? draft_tokens(a->tokens, a->n_tokens, a->draft + 1, max) : 0;
    tern_status status = TERN_OK;
    if (tern_session_length(a->session) > length) status = tern_session_truncate(a->session, length); // wrong guesses
    *n_rows = guessed + 1;
    a->n_drafted += guessed;
    if (status == TERN_OK && guessed == 0) {
        status = tern_decode_batch(a->model, &a->session, a->draft, 1);
        *logits = tern_session_logits(a->session);
    } else if (status == TERN_OK) {
        status = tern_decode_logits(a->model, a->session, a->draft, guessed + 1, a->logits, a->n_vocab);
        *logits = a->logits;
    }
    return status;
}

// A step since `begin` is done. Right guesses make several tokens of one.
static int trace_step(const answer *a, double begin) {
    trace_mark(a->trace, begin, cli_seconds(), "token %zu", a->n_generated + 1);
    return a->n_generated >= a->trace_steps ? trace_end(a->trace, a->ctx) : CLI_OK;
}

static int write_tokens(answer *a) {
    const float *logits = tern_session_logits(a->session);
    size_t n_rows = 1;
    double step_ms = 0;
    while (!(a->stop = answer_stopped(a))) {
        int rc = take_row_tokens(a, logits, n_rows, step_ms);
        if (rc != CLI_OK || a->stop) return rc;
        const double begin = cli_seconds();
        const tern_status status = decode_step(a, &logits, &n_rows);
        if (status == TERN_ERR_CANCELLED) continue; // to find out why
        if (status != TERN_OK) return cli_fail_status(a->ctx, status);
        step_ms = (cli_seconds() - begin) * 1e3;
        rc = trace_step(a, begin);
        if (rc != CLI_OK) return rc;
    }
    return CLI_OK;
}

int answer_write(answer *a) {
    int rc = a->trace_steps > 0 ? trace_begin(a->trace, a->ctx, a->trace_steps * TRACE_STEP_EVENTS) : CLI_OK;
    if (rc == CLI_OK) rc = write_tokens(a);
    const int shown = show_text(a, true);
    return rc == CLI_OK ? shown : rc;
}
