// SPDX-License-Identifier: MIT
// Windows of a text for perplexity and comparison.
#include "windows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_CTX = 512,
    MIN_CTX = 3 /* one scored, one of context, and BOS */,
    MAX_CTX = 1 << 24,
    KEY_CTX = 0x300,
    KEY_STRIDE
}; // keys apart from those of any command

static error_t parse(int key, char *arg, struct argp_state *state) {
    windows_options *o = state->input;
    switch (key) {
    case 'f':
        o->file = arg;
        return 0;
    case KEY_CTX:
        o->ctx = (size_t)cli_integer("--ctx", arg, MIN_CTX, MAX_CTX);
        return 0;
    case KEY_STRIDE:
        o->stride = (size_t)cli_integer("--stride", arg, 1, MAX_CTX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option options[] = {
    {"file", 'f', "FILE", 0, "Text to predict (default: read stdin to its end)", 1},
    {"ctx", KEY_CTX, "N", 0, "Tokens of a window (default: 512, or the model's context if that is less)", 1},
    {"stride", KEY_STRIDE, "N", 0, "Tokens that each window adds to the one before (default: half a window)", 1},
    {0}};
const struct argp windows_argp = {.options = options, .parser = parse};

static int choose_sizes(windows *w, const windows_options *o, tern_context *ctx, const tern_model *model) {
    tern_model_info info = {.struct_size = sizeof info};
    const tern_status status = tern_model_get_info(model, &info);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    if (o->ctx > info.n_ctx_train)
        return cli_fail("--ctx %zu is longer than the model's context of %u tokens; give less", o->ctx, info.n_ctx_train);
    w->ctx = o->ctx ? o->ctx : info.n_ctx_train < DEFAULT_CTX ? info.n_ctx_train : DEFAULT_CTX;
    w->stride = o->stride ? o->stride : w->ctx / 2;
    if (w->stride == 0 || w->stride + 1 >= w->ctx)
        return cli_fail("--stride %zu leaves a window of %zu tokens no context; give less than %zu", w->stride, w->ctx,
                        w->ctx - 1);
    return CLI_OK;
}

// The token that the model puts before a text, if it does, is told by an encoding with and one without it.
static int read_tokens(windows *w, const char *text, size_t size, tern_context *ctx, const tern_model *model) {
    tern_tokenize_params params = {.struct_size = sizeof params};
    int32_t *with = NULL;
    size_t n_with = 0;
    int rc = cli_tokenize(ctx, model, text, size, &params, &w->tokens, &w->n);
    params.add_bos = 1;
    if (rc == CLI_OK) rc = cli_tokenize(ctx, model, text, size, &params, &with, &n_with);
    if (rc == CLI_OK && n_with < 2) rc = cli_fail("the text has %zu tokens; give a longer one with -f or on stdin", w->n);
    if (rc == CLI_OK) {
        w->n_bos = n_with - w->n;
        w->input = calloc(w->ctx, sizeof *w->input);
        if (!w->input)
            rc = cli_fail("no memory for a window of %zu tokens", w->ctx);
        else if (w->n_bos)
            w->input[0] = with[0];
    }
    free(with);
    return rc;
}

int windows_open(windows *w, const windows_options *o, tern_context *ctx, const tern_model *model) {
    *w = (windows){.n = 0};
    char *text = NULL;
    int rc = choose_sizes(w, o, ctx, model);
    if (rc == CLI_OK) rc = cli_read_text(o->file, &text, &w->bytes);
    if (rc == CLI_OK) rc = read_tokens(w, text, w->bytes, ctx, model);
    free(text);
    if (rc != CLI_OK) return rc;
    w->n_scored = w->n - (w->n_bos ? 0 : 1);
    const char *bytes;
    size_t first = 0;
    if (!w->n_bos && tern_token_bytes(model, w->tokens[0], 1, &bytes, &first) == TERN_OK) w->bytes -= first;
    return CLI_OK;
}

void windows_close(windows *w) {
    free(w->tokens);
    free(w->input);
}

bool windows_next(windows *w) {
    const size_t room = w->ctx - w->n_bos, left = w->n - w->end;
    if (left == 0) return false;
    const size_t added = w->end == 0 ? (left < room ? left : room) : left < w->stride ? left : w->stride;
    const size_t before = w->end < room - added ? w->end : room - added; // context
    memcpy(w->input + w->n_bos, w->tokens + w->end - before, (before + added) * sizeof *w->tokens);
    w->count = w->n_bos + before + added;
    w->scored = added < w->count ? added : w->count - 1; // nothing predicts the first token of all
    w->end += added;
    return true;
}

double windows_log_softmax(const float *logits, size_t n_vocab, size_t token) {
    double most = (double)logits[0], sum = 0;
    for (size_t i = 1; i < n_vocab; i++) most = fmax(most, (double)logits[i]);
    for (size_t i = 0; i < n_vocab; i++) sum += exp((double)logits[i] - most);
    return (double)logits[token] - most - log(sum);
}
