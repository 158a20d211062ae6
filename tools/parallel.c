// SPDX-License-Identifier: MIT
// Several answers to one prompt, written at once.
#include "parallel.h"

#include <stdlib.h>

#include "interrupt.h"

int parallel_open(parallel *p, tern_context *ctx, tern_model *model, const sampling_options *options, size_t n_ctx,
                  tern_kv_type kv, size_t n) {
    *p = (parallel){.ctx = ctx,
                    .model = model,
                    .answers = calloc(n, sizeof *p->answers),
                    .options = calloc(n, sizeof *p->options),
                    .sessions = calloc(n, sizeof *p->sessions),
                    .batch = calloc(n, sizeof *p->batch)};
    if (!p->answers || !p->options || !p->sessions || !p->batch) return cli_fail("no memory for %zu answers; ask for fewer", n);
    for (p->n = 0; p->n < n;) {
        sampling_options *own = &p->options[p->n];
        answer *a = &p->answers[p->n];
        *own = *options;
        own->params.seed += p->n++;
        const int rc = answer_open(a, ctx, model, own, n_ctx, kv);
        if (rc != CLI_OK) return rc;
        p->sessions[p->n - 1] = a->session;
    }
    interrupt_cancels(p->sessions, n);
    return CLI_OK;
}

void parallel_close(parallel *p) {
    interrupt_cancels(NULL, 0);
    for (size_t i = 0; i < p->n; i++) answer_close(&p->answers[i]);
    free(p->answers);
    free(p->options);
    free(p->sessions);
    free(p->batch);
}

int parallel_read(parallel *p, const int32_t *tokens, size_t n) {
    int rc = answer_read(&p->answers[0], tokens, n);
    for (size_t i = 1; rc == CLI_OK && i < p->n; i++) rc = answer_fork(&p->answers[i], &p->answers[0], n);
    return rc;
}

// One token of every answer that goes on, out of the logits there are; then the batch of them, decoded.
static int step(parallel *p, int32_t *tokens, double *step_ms, parallel_done_fn *done, void *user, size_t *left) {
    static const double ms = 1e3;
    *left = 0;
    for (size_t i = 0; i < p->n; i++) {
        answer *a = &p->answers[i];
        if (a->stop) continue;
        int rc = answer_take(a, *step_ms);
        if (rc == CLI_OK && a->stop) rc = done(user, p, i);
        if (rc != CLI_OK) return rc;
        if (a->stop) continue;
        tokens[*left] = a->tokens[a->n_tokens - 1];
        p->batch[(*left)++] = a->session;
    }
    if (*left == 0) return CLI_OK;
    const double begin = cli_seconds();
    const tern_status status = tern_decode_batch(p->model, p->batch, tokens, *left);
    *step_ms = (cli_seconds() - begin) * ms;
    if (p->n_steps == 0) p->begin_s = begin;
    if (status == TERN_OK) {
        p->n_steps++;
        p->n_decoded += *left;
    }
    return status == TERN_OK || status == TERN_ERR_CANCELLED ? CLI_OK : cli_fail_status(p->ctx, status);
}

static const char *stop_of_all(const parallel *p) {
    for (size_t i = 0; i < p->n; i++)
        if (!p->answers[i].stop && answer_stopped(&p->answers[i])) return answer_stopped(&p->answers[i]);
    return NULL;
}

int parallel_write(parallel *p, parallel_done_fn *done, void *user) {
    int32_t *tokens = calloc(p->n, sizeof *tokens);
    if (!tokens) return cli_fail("no memory for %zu answers; ask for fewer", p->n);
    size_t left = p->n;
    double step_ms = 0;
    int rc = CLI_OK;
    for (size_t i = 0; rc == CLI_OK && i < p->n; i++)
        if (p->answers[i].stop) rc = done(user, p, i); // while the prompt was read
    const char *stop = stop_of_all(p);
    while (rc == CLI_OK && left > 0 && !stop) {
        rc = step(p, tokens, &step_ms, done, user, &left);
        stop = stop_of_all(p);
    }
    p->seconds = cli_seconds() - p->begin_s;
    for (size_t i = 0; rc == CLI_OK && i < p->n; i++) {
        if (p->answers[i].stop) continue;
        p->answers[i].stop = stop;
        rc = done(user, p, i);
    }
    free(tokens);
    return rc;
}
