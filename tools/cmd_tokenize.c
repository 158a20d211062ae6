// SPDX-License-Identifier: MIT
// tern tokenize: the token ids of a text, and the bytes that each stands for.
#include "cli.h"
#include "utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tokenize_options {
    cli_options base;
    const char *text;
    bool special, no_bos, ids_only;
} tokenize_options;

enum { KEY_SPECIAL = CLI_KEY_OWN, KEY_NO_BOS, KEY_IDS };

static error_t parse(int key, char *arg, struct argp_state *state) {
    tokenize_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->child_inputs[1] = &options->base;
        return 0;
    case 'p':
        options->text = arg;
        return 0;
    case KEY_SPECIAL:
        options->special = true;
        return 0;
    case KEY_NO_BOS:
        options->no_bos = true;
        return 0;
    case KEY_IDS:
        options->ids_only = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"prompt", 'p', "TEXT", 0, "Text to take apart (default: read stdin to its end)", 1},
    {"special", KEY_SPECIAL, NULL, 0, "Read text such as <|im_start|> as the special token of that name", 1},
    {"no-bos", KEY_NO_BOS, NULL, 0, "Do not begin with the model's beginning-of-text token", 1},
    {"ids", KEY_IDS, NULL, 0, "Print the ids only, on one line", 1},
    {0}};
static const struct argp_child children[] = {{&cli_model_argp, 0, NULL, 0}, {&cli_machine_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {.options = own_options,
                                 .parser = parse,
                                 .children = children,
                                 .doc = "Shows the tokens of a text: one line for each, its id and its bytes.\v"
                                        "Examples:\n"
                                        "  tern tokenize -m model.gguf -p 'Hello, world'\n"
                                        "  tern tokenize -m model.gguf --ids <book.txt | wc -w\n"
                                        "\n" CLI_ENVIRONMENT};

// A token's bytes as text between quotes; control characters, and bytes of a part of a character, as escapes.
static void print_piece(const char *bytes, size_t size) {
    const bool text = utf8_valid(bytes, size);
    enum { DELETE = 0x7F };
    (void)putchar('"');
    for (size_t i = 0; i < size; i++) {
        const unsigned char c = (unsigned char)bytes[i];
        if (c == '"' || c == '\\') {
            (void)printf("\\%c", c);
        } else if (c == '\n') {
            (void)fputs("\\n", stdout);
        } else if (c < ' ' || c == DELETE || (c > DELETE && !text)) {
            (void)printf("\\x%02X", c);
        } else {
            (void)putchar(c);
        }
    }
    (void)puts("\"");
}

static int show(const tokenize_options *options, tern_context *ctx, const tern_model *model, const int32_t *tokens, size_t n) {
    json_t *ids = json_array(), *pieces = json_array();
    int rc = CLI_OK;
    for (size_t i = 0; i < n && rc == CLI_OK; i++) {
        const char *bytes = NULL;
        size_t size = 0;
        const tern_status status = tern_token_bytes(model, tokens[i], 1, &bytes, &size);
        if (status != TERN_OK) {
            rc = cli_fail_status(ctx, status);
        } else if (options->base.json) {
            char *piece = utf8_clean(bytes, size);
            (void)json_array_append_new(ids, json_integer(tokens[i]));
            (void)json_array_append_new(pieces, json_string(piece ? piece : ""));
            free(piece);
        } else if (options->ids_only) {
            (void)printf("%s%d", i ? " " : "", (int)tokens[i]);
        } else {
            (void)printf("%7d  ", (int)tokens[i]);
            print_piece(bytes, size);
        }
    }
    if (rc == CLI_OK && options->base.json) {
        return cli_print_json(json_pack("{s:s, s:I, s:o, s:o}", "schema", "tern.tokenize/1", "count", (json_int_t)n, "ids", ids,
                                        "pieces", pieces));
    }
    json_decref(ids);
    json_decref(pieces);
    if (rc == CLI_OK && options->ids_only) (void)putchar('\n');
    return rc == CLI_OK ? cli_flush() : rc;
}

int cmd_tokenize(int argc, char **argv) {
    tokenize_options options = {.text = NULL};
    cli_parse(&argp, argc, argv, &options);
    if (!options.base.model) cli_usage("tokenize needs a model: -m FILE");
    char *read = NULL;
    const char *text = options.text;
    size_t size = text ? strlen(text) : 0;
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    int32_t *tokens = NULL;
    size_t n = 0;
    int rc = cli_open_context(&options.base, &ctx);
    if (rc == CLI_OK) rc = cli_open_model(&options.base, ctx, &model);
    if (rc == CLI_OK && !text) {
        rc = cli_read_text(NULL, &read, &size);
        text = read;
    }
    const tern_tokenize_params params = {
        .struct_size = sizeof params, .parse_special = options.special, .add_bos = !options.no_bos};
    if (rc == CLI_OK && size == 0) rc = cli_fail("the text is empty; give one with -p or on stdin");
    if (rc == CLI_OK) rc = cli_tokenize(ctx, model, text, size, &params, &tokens, &n);
    if (rc == CLI_OK) rc = show(&options, ctx, model, tokens, n);
    free(tokens);
    free(read);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
    return rc;
}
