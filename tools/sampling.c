// SPDX-License-Identifier: MIT
// Options of an answer that generate and chat share.
#include "sampling.h"

// Keys apart from those of any command.
enum { KEY_CTX = 0x400, KEY_TEMP, KEY_TOP_K, KEY_TOP_P, KEY_MIN_P, KEY_SEED, KEY_DRAFT };

static error_t parse(int key, char *arg, struct argp_state *state) {
    static const double max_temperature = 100;
    sampling_options *o = state->input;
    switch (key) {
    case 'n':
        o->n_predict = (size_t)cli_integer("-n", arg, 1, SAMPLING_MAX_TOKENS);
        return 0;
    case KEY_CTX:
        o->n_ctx = (size_t)cli_integer("--ctx", arg, 1, SAMPLING_MAX_TOKENS);
        return 0;
    case KEY_DRAFT:
        o->n_draft = (size_t)cli_integer("--draft", arg, 0, SAMPLING_MAX_DRAFT);
        return 0;
    case KEY_TEMP:
        o->params.temperature = (float)cli_real("--temp", arg, 0, max_temperature);
        return 0;
    case KEY_TOP_K:
        o->params.top_k = (uint32_t)cli_integer("--top-k", arg, 0, INT32_MAX);
        return 0;
    case KEY_TOP_P:
        o->params.top_p = (float)cli_real("--top-p", arg, 0, 1);
        return 0;
    case KEY_MIN_P:
        o->params.min_p = (float)cli_real("--min-p", arg, 0, 1);
        return 0;
    case KEY_SEED:
        o->params.seed = (uint64_t)cli_integer("--seed", arg, 0, INT64_MAX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option options[] = {
    {"predict", 'n', "N", 0, "Stop after N tokens at the latest (default: 128; in a chat, where the context is full)", 0},
    {"ctx", KEY_CTX, "N", 0,
     "Tokens that prompts and answers may take together (default: as many as are needed; in a chat 4096, or the model's "
     "context "
     "if that is less)",
     1},
    {"draft", KEY_DRAFT, "N", 0,
     "Guess up to N tokens from an earlier place of the text, and check them together: the same text, faster where it repeats "
     "itself (default: 0, no guesses)",
     1},
    {"temp", KEY_TEMP, "T", 0, "Sampling temperature; 0, the default, always takes the most likely token", 1},
    {"top-k", KEY_TOP_K, "K", 0, "Sample among the K most likely tokens (default: 0, all)", 1},
    {"top-p", KEY_TOP_P, "P", 0, "Sample among the most likely tokens that make up probability P (default: 0, all)", 1},
    {"min-p", KEY_MIN_P, "P", 0, "Sample among tokens at least P times as likely as the likeliest (default: 0, all)", 1},
    {"seed", KEY_SEED, "S", 0, "Seed of the sampling: same seed, same text (default: 0)", 1},
    {0}};
const struct argp sampling_argp = {.options = options, .parser = parse};
