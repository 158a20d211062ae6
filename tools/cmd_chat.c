// SPDX-License-Identifier: MIT
// tern chat: a conversation with a model, turn by turn.
#include "answer.h"
#include "interrupt.h"
#include "line_editor.h"
#include "speeds.h"
#include "turns.h"
#include "utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chat_options {
    answer_options common;
    const char *system, *format;
    bool shift;
} chat_options;

enum { DEFAULT_CTX = 4096 };
enum { KEY_SYSTEM = CLI_KEY_OWN, KEY_FORMAT, KEY_SHIFT };

static error_t parse(int key, char *arg, struct argp_state *state) {
    chat_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->common;
        return 0;
    case KEY_SYSTEM:
        o->system = arg;
        return 0;
    case KEY_FORMAT:
        o->format = arg;
        return 0;
    case KEY_SHIFT:
        o->shift = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"system", KEY_SYSTEM, "TEXT", 0, "System message (default: that of the model's template, if it has one)", 0},
    {"format", KEY_FORMAT, "NAME", 0,
     "Chat format: chatml, llama3, bitnet, mistral, zephyr or phi3 (default: that of the model's template)", 0},
    {"context-shift", KEY_SHIFT, NULL, 0, "Where the context is full, forget the oldest turns and go on", 1},
    {0}};
static const struct argp_child children[] = {{&answer_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {.options = own_options,
                                 .parser = parse,
                                 .children = children,
                                 .doc =
                                     "Talks with a model. Each line is a message; commands begin with a slash, and /help lists "
                                     "them. Where stdin is no terminal its lines are the messages.\v"
                                     "Examples:\n"
                                     "  tern chat -m model.gguf\n"
                                     "  tern chat -m model.gguf --system 'Answer in one sentence.' --temp 0.7 --top-p 0.9\n"
                                     "  tern chat -m model.gguf <questions.txt >answers.txt\n"
                                     "\n"
                                     "Ctrl-C stops the answer, not the program; Ctrl-D on an empty line ends it.\n"
                                     "\n" CLI_ENVIRONMENT};

static const char help[] = "  /reset         forget the conversation\n"
                           "  /system TEXT   new system message, and forget the conversation; without TEXT the model's own\n"
                           "  /help          this list\n"
                           "  /quit          end, as Ctrl-D does\n"
                           "  //...          a message that begins with a slash\n"
                           "A line that ends in a backslash goes on in the next one. Pasted lines are one message.\n"
                           "Ctrl-C stops an answer. The keys are those of Emacs; Up and Down fetch earlier lines.\n";

typedef struct chat {
    const chat_options *options;
    answer answer;
    turns turns; // of what the answer's session holds
    line_editor *editor;
    char *system; // or NULL: the template's own
    char *message;
    size_t size, room; // of message
    bool done;
} chat;

// ---- One message --------------------------------------------------------------------------------------------

// What people are told beside the answers.
static void note(const chat *c, const char *text) {
    (void)fflush(stdout);
    if (line_editor_is_terminal(c->editor)) (void)fprintf(stderr, "[%s]\n", text);
}

static int report_json(chat *c) {
    answer *a = &c->answer;
    const speeds s = speeds_measure(a);
    char *text = utf8_clean(a->text.text, a->text.size);
    if (!text) return cli_fail("no memory for the text as JSON; ask for fewer tokens with -n");
    json_t *object = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "schema", "tern.chat/1", "text", text,
                               "stop", a->stop, "prompt_tokens", (json_int_t)a->n_prompt, "generated_tokens",
                               (json_int_t)a->n_generated, "context_tokens", (json_int_t)(a->n_ctx - answer_room(a)),
                               "context_size", (json_int_t)a->n_ctx, "prefill_tok_per_s", cli_real_json(s.prefill),
                               "decode_tok_per_s", cli_real_json(s.decode), "first_token_ms", cli_real_json(s.first_ms));
    free(text);
    return cli_print_json(object);
}

static int report_text(chat *c) {
    const answer *a = &c->answer;
    if (a->text.size == 0 || a->text.text[a->text.size - 1] != '\n') (void)putchar('\n');
    if (strcmp(a->stop, "interrupt") == 0) note(c, a->n_generated ? "stopped" : "stopped; the message is forgotten");
    if (strcmp(a->stop, "context") == 0)
        cli_error(
            "the context of %zu tokens is full, so the answer ends here; /reset begins anew, or start with %sa larger --ctx",
            a->n_ctx, c->options->shift ? "" : "--context-shift or ");
    if (line_editor_is_terminal(c->editor)) (void)putchar('\n');
    return cli_flush();
}

static tern_chat_turn turn_of(const chat *c, const char *text, size_t size) {
    return (tern_chat_turn){.struct_size = sizeof(tern_chat_turn),
                            .format = c->options->format,
                            .system = c->system,
                            .system_size = c->system ? strlen(c->system) : 0,
                            .user = text,
                            .user_size = size,
                            .follows = c->answer.n_tokens > 0};
}

static void begin_anew(chat *c) {
    answer_reset(&c->answer);
    turns_clear(&c->turns);
}

// With --context-shift: forgets the oldest turns, so that `need` more tokens have room. False: that is not enough.
static int shift(chat *c, size_t need, bool *done) {
    const tern_chat_turn first = turn_of(c, NULL, 0);
    size_t dropped = 0;
    const int rc =
        c->options->shift ? turns_forget(&c->turns, &c->answer, &c->options->common.base, &first, need, &dropped) : CLI_OK;
    *done = dropped > 0;
    if (dropped > 0) note(c, "the context is full: the oldest turns are forgotten");
    return rc;
}

// The tokens of a message, and room for them and one of the answer.
static int prepare(chat *c, const char *text, size_t size, int32_t **tokens, size_t *n) {
    answer *a = &c->answer;
    tern_chat_turn turn = turn_of(c, text, size);
    int rc = cli_tokenize_turn(&c->options->common.base, a->ctx, a->model, &turn, tokens, n);
    bool fits = rc == CLI_OK && *n < answer_room(a);
    if (rc == CLI_OK && !fits) rc = shift(c, *n + 1, &fits);
    if (rc != CLI_OK || fits || !c->options->shift || c->turns.n == 0) return rc;
    int32_t *alone = NULL; // not even the last turn has room beside the message
    size_t n_alone = 0;
    turn.follows = 0;
    rc = cli_tokenize_turn(&c->options->common.base, a->ctx, a->model, &turn, &alone, &n_alone);
    if (rc != CLI_OK || n_alone >= a->n_ctx) { // nor has the message by itself: nothing is forgotten for it
        free(alone);
        return rc;
    }
    begin_anew(c);
    note(c, "the context is full: all turns are forgotten");
    free(*tokens);
    *tokens = alone;
    *n = n_alone;
    return CLI_OK;
}

static int write_answer(chat *c) {
    bool goes_on = true;
    int rc = CLI_OK;
    while (rc == CLI_OK && goes_on) {
        rc = answer_write(&c->answer);
        goes_on = false;
        if (rc == CLI_OK && strcmp(c->answer.stop, "context") == 0) rc = shift(c, 1, &goes_on);
        goes_on = goes_on && !c->answer.stop; // or it was interrupted
    }
    return rc;
}

static int say(chat *c, const char *text, size_t size) {
    answer *a = &c->answer;
    int32_t *tokens = NULL;
    size_t n = 0;
    a->stop = NULL;
    int rc = prepare(c, text, size, &tokens, &n);
    if (rc == CLI_OK && n >= answer_room(a)) { // one token of the answer needs room as well
        rc =
            cli_fail("the message has %zu tokens, and %zu of the context's %zu are left; /reset begins anew, or start with %sa "
                     "larger --ctx",
                     n, answer_room(a), a->n_ctx, c->options->shift ? "" : "--context-shift or ");
        free(tokens);
        return line_editor_is_terminal(c->editor) ? CLI_OK : rc; // nobody is there to reset it
    }
    if (rc == CLI_OK) rc = answer_read(a, tokens, n);
    free(tokens);
    if (rc == CLI_OK && !a->stop) rc = turns_add(&c->turns, a, text, size);
    if (rc == CLI_OK && !a->stop) rc = write_answer(c);
    if (rc != CLI_OK) return rc;
    return c->options->common.base.json ? report_json(c) : report_text(c);
}

// ---- Commands -----------------------------------------------------------------------------------------------

static int set_system(chat *c, const char *text) {
    char *copy = *text ? strdup(text) : NULL;
    if (*text && !copy) return cli_fail("no memory for the system message; give a shorter one");
    free(c->system);
    c->system = copy;
    begin_anew(c);
    note(c, copy ? "new system message; the conversation begins anew"
                 : "the model's own system message; the conversation begins anew");
    return CLI_OK;
}

static int run_command(chat *c, const char *line) {
    static const char system[] = "/system ";
    if (strcmp(line, "/quit") == 0) {
        c->done = true;
    } else if (strcmp(line, "/help") == 0) {
        (void)fputs(help, stderr);
    } else if (strcmp(line, "/reset") == 0) {
        begin_anew(c);
        note(c, "the conversation begins anew");
    } else if (strcmp(line, "/system") == 0) {
        return set_system(c, "");
    } else if (strncmp(line, system, sizeof system - 1) == 0) {
        return set_system(c, line + sizeof system - 1);
    } else {
        cli_error("%s: unknown command; /help lists them, and // begins a message with a slash", line);
        return line_editor_is_terminal(c->editor) ? CLI_OK : CLI_FAILED;
    }
    return CLI_OK;
}

// ---- Lines --------------------------------------------------------------------------------------------------

static bool add_to_message(chat *c, const char *text, size_t size) {
    if (c->size + size + 1 > c->room) {
        const size_t room = 2 * (c->size + size + 1);
        char *larger = realloc(c->message, room);
        if (!larger) return false;
        c->message = larger;
        c->room = room;
    }
    if (size) memcpy(c->message + c->size, text, size);
    c->size += size;
    c->message[c->size] = '\0';
    return true;
}

// The next message: a line, and those after it as long as one ends in a backslash.
static line_result read_message(chat *c) {
    bool more = true;
    c->size = 0;
    for (bool first = true; more; first = false) {
        const char *text;
        size_t size;
        const line_result result = line_editor_read(c->editor, first ? "> " : ". ", &text, &size);
        if (result == LINE_END && !first) break;
        if (result != LINE_TEXT) return result;
        more = size > 0 && text[size - 1] == '\\';
        if (!add_to_message(c, text, size - more) || (more && !add_to_message(c, "\n", 1))) return LINE_NO_MEMORY;
    }
    return LINE_TEXT;
}

static int take_message(chat *c) {
    static const char blanks[] = " \t\r\n";
    if (strspn(c->message, blanks) == c->size) return CLI_OK; // nothing said
    if (c->message[0] == '/' && c->message[1] != '/') {
        while (strchr(blanks, c->message[c->size - 1])) c->message[--c->size] = '\0'; // which do not show
        return run_command(c, c->message);
    }
    const size_t slash = c->message[0] == '/'; // of two, one is to be said
    return say(c, c->message + slash, c->size - slash);
}

static int converse(chat *c) {
    while (!c->done) {
        const line_result result = read_message(c);
        if (result == LINE_NO_MEMORY) return cli_fail("no memory for the message; give a shorter one");
        if (result == LINE_END) return CLI_OK;
        if (result == LINE_INTERRUPTED && !line_editor_is_terminal(c->editor)) return CLI_INTERRUPTED;
        if (result == LINE_INTERRUPTED) note(c, "Ctrl-D or /quit ends the program");
        const int rc = result == LINE_TEXT ? take_message(c) : CLI_OK; // a Ctrl-C behind the line stops it at once
        if (rc != CLI_OK) return rc;
        if (interrupted() && !line_editor_is_terminal(c->editor)) return CLI_INTERRUPTED;
        interrupt_forget();
    }
    return CLI_OK;
}

// ---- Putting it together ------------------------------------------------------------------------------------

static int choose_context(const chat_options *o, tern_context *ctx, const tern_model *model, size_t *n_ctx) {
    tern_model_info info = {.struct_size = sizeof info};
    const tern_status status = tern_model_get_info(model, &info);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    const size_t most = info.n_ctx_train;
    if (o->common.sampling.n_ctx > most)
        return cli_fail("--ctx %zu: the model was trained on %zu tokens; give at most that", o->common.sampling.n_ctx, most);
    *n_ctx = o->common.sampling.n_ctx ? o->common.sampling.n_ctx : most < DEFAULT_CTX ? most : DEFAULT_CTX;
    return CLI_OK;
}

// Fails before the first message where the model cannot chat.
static int check_format(const chat_options *o, tern_context *ctx, const tern_model *model) {
    const tern_chat_turn turn = {.struct_size = sizeof turn, .format = o->format};
    int32_t *tokens = NULL;
    size_t n;
    if (o->format && tern_chat_tokenize(model, &turn, NULL, 0, &n) == TERN_ERR_UNSUPPORTED)
        return cli_fail(
            "--format %s: unknown, or the model lacks its tokens; give chatml, llama3, bitnet, mistral, zephyr or phi3",
            o->format);
    if (!o->format && !tern_chat_format_name(model))
        return cli_fail("%s: the model has no chat template that tern knows; name one with --format, or use tern generate",
                        o->common.base.model);
    const int rc = cli_tokenize_turn(&o->common.base, ctx, model, &turn, &tokens, &n);
    free(tokens);
    return rc;
}

static int run_chat(const chat_options *o, tern_context *ctx, tern_model *model) {
    chat c = {.options = o};
    size_t n_ctx = 0;
    int rc = check_format(o, ctx, model);
    if (rc == CLI_OK) rc = choose_context(o, ctx, model, &n_ctx);
    if (rc == CLI_OK) rc = answer_open(&c.answer, ctx, model, &o->common.sampling, n_ctx, o->common.base.kv);
    if (rc == CLI_OK) {
        c.answer.stream = !o->common.base.json;
        c.system = o->system ? strdup(o->system) : NULL;
        c.editor = line_editor_open(interrupt_watch_always());
        if (!c.editor || (o->system && !c.system)) rc = cli_fail("no memory to read messages");
    }
    if (rc == CLI_OK) {
        note(&c, "/help lists the commands; Ctrl-C stops an answer, Ctrl-D ends");
        rc = converse(&c);
    }
    line_editor_close(c.editor);
    turns_free(&c.turns);
    answer_close(&c.answer);
    free(c.message);
    free(c.system);
    return rc;
}

int cmd_chat(int argc, char **argv) {
    chat_options o = {.common.sampling.params.struct_size = sizeof o.common.sampling.params};
    cli_parse(&argp, argc, argv, &o);
    if (!o.common.base.model) cli_usage("chat needs a model: -m FILE");
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    int rc = cli_open_context(&o.common.base, &ctx);
    if (rc == CLI_OK) rc = cli_open_model(&o.common.base, ctx, &model);
    if (rc == CLI_OK) rc = run_chat(&o, ctx, model);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
    return rc;
}
