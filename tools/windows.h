// SPDX-License-Identifier: MIT
// A text in strided windows: every token but the first is predicted once, with at least a stride of context where there is one.
#ifndef TERN_TOOLS_WINDOWS_H
#define TERN_TOOLS_WINDOWS_H

#include "cli.h"

// Options of the commands that read a text in windows. A command's struct begins with this.
typedef struct windows_options {
    cli_options base;
    const char *file;   // NULL: stdin
    size_t ctx, stride; // tokens; 0: the default
} windows_options;
extern const struct argp windows_argp; // -f, --ctx, --stride

typedef struct windows {
    int32_t *tokens; // of the text
    size_t n;
    size_t n_bos;       // tokens that the model puts before a text, and each window begins with: 0 or 1
    size_t ctx, stride; // as used
    size_t bytes;       // of the tokens that are predicted: without BOS, all but the first
    size_t n_scored;    // how many those are
    // The window at hand: its input, of which the last `scored` tokens are predicted by what stands before them.
    int32_t *input;
    size_t count, scored;
    size_t end; // tokens of the text up to its end
} windows;

// Reads and tokenizes the text. The context is at most n_ctx_train; a text of fewer than two tokens is an error.
int windows_open(windows *w, const windows_options *options, tern_context *ctx, const tern_model *model);
void windows_close(windows *w);
bool windows_next(windows *w); // false at the end

// log of the softmax of logits at `token`, in float64.
double windows_log_softmax(const float *logits, size_t n_vocab, size_t token);

#endif
