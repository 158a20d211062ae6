// SPDX-License-Identifier: MIT
// Options of an answer that generate and chat share.
#include "sampling.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// Keys apart from those of any command.
enum {
    KEY_CTX = 0x400,
    KEY_TEMP,
    KEY_TOP_K,
    KEY_TOP_P,
    KEY_MIN_P,
    KEY_SEED,
    KEY_DRAFT,
    KEY_STOP,
    KEY_BIAS,
    KEY_PENALTY,
    KEY_LAST
};

// "ID=VALUE"; -inf bans the token.
static tern_logit_bias read_bias(const char *text) {
    static const double most = 1000;
    char id[16];
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || !equals[1] || (size_t)(equals - text) >= sizeof id)
        cli_usage("--logit-bias %s: give ID=VALUE, e.g. 42=-1.5, or 42=-inf to ban token 42", text);
    (void)snprintf(id, sizeof id, "%.*s", (int)(equals - text), text);
    const int32_t token = (int32_t)cli_integer("--logit-bias", id, 0, INT32_MAX);
    if (strcmp(equals + 1, "-inf") == 0) return (tern_logit_bias){token, -INFINITY};
    return (tern_logit_bias){token, (float)cli_real("--logit-bias", equals + 1, -most, most)};
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    enum { MAX_LAST = 1 << 20 };
    static const double max_temperature = 100, min_penalty = 0.01, max_penalty = 100;
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
    case KEY_STOP:
        if (!*arg) cli_usage("--stop '': give a text that is not empty");
        if (o->n_stops == SAMPLING_MAX_STOPS) cli_usage("--stop %s: give at most %d of them", arg, SAMPLING_MAX_STOPS);
        o->stops[o->n_stops++] = arg;
        return 0;
    case KEY_BIAS:
        if (o->params.n_biases == SAMPLING_MAX_BIASES) cli_usage("--logit-bias %s: give at most %d", arg, SAMPLING_MAX_BIASES);
        o->biases[o->params.n_biases++] = read_bias(arg);
        return 0;
    case KEY_PENALTY:
        o->params.repeat_penalty = (float)cli_real("--repeat-penalty", arg, min_penalty, max_penalty);
        return 0;
    case KEY_LAST:
        o->params.repeat_last = (uint32_t)cli_integer("--repeat-last", arg, 1, MAX_LAST);
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
    {"stop", KEY_STOP, "TEXT", 0, "Stop where the answer would say TEXT, which is not shown; may be given several times", 0},
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
    {"repeat-penalty", KEY_PENALTY, "R", 0,
     "Make tokens of the last part of the text less likely: 1, the default, is off, 1.1 usual", 1},
    {"repeat-last", KEY_LAST, "N", 0, "How many tokens that part has (default: 64)", 1},
    {"logit-bias", KEY_BIAS, "ID=VALUE", 0, "Add VALUE to the logit of token ID; -inf bans it. May be given several times", 1},
    {"seed", KEY_SEED, "S", 0, "Seed of the sampling: same seed, same text (default: 0)", 1},
    {0}};
static const struct argp sampling_argp = {.options = options, .parser = parse};

static const struct argp_child children[] = {{&sampling_argp, 0, NULL, 0}, // first: its input is another one than theirs
                                             {&cli_model_argp, 0, NULL, 0},
                                             {&cli_kernel_argp, 0, NULL, 0},
                                             {&cli_head_argp, 0, NULL, 0},
                                             {&cli_load_argp, 0, NULL, 0},
                                             {&cli_kv_argp, 0, NULL, 0},
                                             {&cli_machine_argp, 0, NULL, 0},
                                             {0}};

static error_t share(int key, char *arg, struct argp_state *state) {
    (void)arg;
    answer_options *o = state->input;
    if (key != ARGP_KEY_INIT) return ARGP_ERR_UNKNOWN;
    state->child_inputs[0] = &o->sampling;
    for (size_t i = 1; children[i].argp; i++) state->child_inputs[i] = &o->base;
    return 0;
}
const struct argp answer_argp = {.parser = share, .children = children};
