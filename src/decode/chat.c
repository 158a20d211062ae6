// SPDX-License-Identifier: MIT
// Chat formats: a table of the markers, and the choice among them by a model's template and tokens.
#include "decode/chat.h"

#include <assert.h>
#include <string.h>

#define KEY_TEMPLATE "tokenizer.chat_template"

enum { MARKS_MAX = 3, CHATML = 0 };

struct tern_chat_format {
    const char *name;
    const char *holds[MARKS_MAX], *lacks[MARKS_MAX]; // by these its templates are known,
    const char *alias;                               // or by this
    const char *tokens[MARKS_MAX];                   // the vocabulary must have them
    const char *system, *user, *answer;              // begin a message; system NULL: it goes before the user's first text
    const char *user_end;                            // NULL: as every message ends
    const char *end, *next;                          // end every message; end NULL: the model's eos token
    bool trim;                                       // templates that cut white space off the user's text
};

static const tern_chat_format formats[] = {
    [CHATML] = {.name = "chatml", // SmolLM2, Qwen
                .holds = {"<|im_start|>"},
                .tokens = {"<|im_start|>", "<|im_end|>"},
                .system = "<|im_start|>system\n",
                .user = "<|im_start|>user\n",
                .answer = "<|im_start|>assistant\n",
                .end = "<|im_end|>",
                .next = "\n"},
    {.name = "llama3",
     .holds = {"<|start_header_id|>", "<|eot_id|>"},
     .tokens = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
     .system = "<|start_header_id|>system<|end_header_id|>\n\n",
     .user = "<|start_header_id|>user<|end_header_id|>\n\n",
     .answer = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .end = "<|eot_id|>",
     .next = "",
     .trim = true},
    {.name = "bitnet", // BitNet b1.58 2B-4T
     .holds = {"capitalize", "<|eot_id|>"},
     .alias = "BITNETAssistant: ", // in Microsoft's GGUF file, unlike the format that it was trained with
     .tokens = {"<|eot_id|>"},
     .system = "System: ",
     .user = "User: ",
     .answer = "Assistant: ",
     .end = "<|eot_id|>",
     .next = "",
     .trim = true},
    {.name = "mistral",
     .holds = {"[INST]", "[/INST]"},
     .lacks = {"<<SYS>>", "[SYSTEM_PROMPT]"}, // Llama 2 and later Mistral models set the system message apart
     .user = "[INST]",
     .answer = "",
     .user_end = "[/INST]",
     .next = ""},
    {.name = "phi3",
     .holds = {"<|user|>", "<|assistant|>", "<|end|>"},
     .tokens = {"<|user|>", "<|assistant|>", "<|end|>"},
     .system = "<|system|>\n",
     .user = "<|user|>\n",
     .answer = "<|assistant|>\n",
     .end = "<|end|>",
     .next = "\n"},
    {.name = "zephyr", // TinyLlama
     .holds = {"<|user|>", "<|assistant|>", "['content'] + eos_token"},
     .lacks = {"['content'] + '\n'", "['content'] + '\\n'"}, // Falcon 3 ends only answers with eos
     .system = "<|system|>\n",
     .user = "<|user|>\n",
     .answer = "<|assistant|>\n",
     .next = "\n"},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

// ---- Which format -------------------------------------------------------------------------------------------

static const char *find_text(tern_gguf_string in, const char *text) { return memmem(in.data, in.size, text, strlen(text)); }

static bool is_template_of(tern_gguf_string template, const tern_chat_format *f) {
    if (f->alias && find_text(template, f->alias)) return true;
    for (size_t i = 0; i < MARKS_MAX; i++) {
        if (f->holds[i] && !find_text(template, f->holds[i])) return false;
        if (f->lacks[i] && find_text(template, f->lacks[i])) return false;
    }
    return true;
}

static bool has_tokens_of(const tern_tokenizer *tok, const tern_chat_format *f) {
    for (size_t i = 0; i < MARKS_MAX; i++) {
        if (f->tokens[i] && tern_tokenizer_find(tok, f->tokens[i]) < 0) return false;
    }
    return f->end || tern_tokenizer_eos(tok) >= 0;
}

const tern_chat_format *tern_chat_find(const tern_gguf *gguf, const tern_tokenizer *tok, const char *name) {
    tern_gguf_string template;
    if (!name && !tern_gguf_get_string(gguf, KEY_TEMPLATE, &template)) return NULL;
    for (size_t i = 0; i < N_FORMATS; i++) {
        const tern_chat_format *f = &formats[i];
        if (name ? strcmp(name, f->name) == 0 : is_template_of(template, f)) return has_tokens_of(tok, f) ? f : NULL;
    }
    return NULL;
}

const char *tern_chat_name(const tern_chat_format *format) { return format->name; }

// ---- The parts of a turn ------------------------------------------------------------------------------------

typedef struct part_list {
    tern_text_part *parts;
    size_t n;
} part_list;

static void add(part_list *list, const char *data, size_t size, bool special) {
    assert(list->n < TERN_CHAT_PARTS);
    if (size) list->parts[list->n++] = (tern_text_part){data, size, special};
}

static void add_marker(part_list *list, const char *text) { add(list, text, strlen(text), true); }

static void add_text(part_list *list, const tern_chat_format *f, const char *text, size_t size) {
    static const char white[] = " \t\n\v\f\r";
    while (f->trim && size > 0 && memchr(white, text[0], sizeof white - 1)) text++, size--;
    while (f->trim && size > 0 && memchr(white, text[size - 1], sizeof white - 1)) size--;
    add(list, text, size, false);
}

static void add_end(part_list *list, const tern_chat_format *f, const tern_tokenizer *tok) {
    const char *eos = "";
    size_t size = 0;
    if (f->end) {
        add_marker(list, f->end);
    } else if (tern_tokenizer_bytes(tok, tern_tokenizer_eos(tok), true, &eos, &size) == TERN_OK) {
        add(list, eos, size, true);
    }
    add_marker(list, f->next);
}

// Templates of the mistral format differ in the spaces around [INST] and [/INST]: those of the model's own template, else the
// given ones.
static void add_spaced(part_list *list, tern_gguf_string template, const char *marker, const char *before, const char *after) {
    const char *at = find_text(template, marker), *end = at ? at + strlen(marker) : NULL;
    if (at && at > template.data) before = at[-1] == ' ' ? " " : "";
    if (at && end < template.data + template.size) after = *end == ' ' ? " " : "";
    add_marker(list, before);
    add_marker(list, marker);
    add_marker(list, after);
}

// The literal system message from `text`, behind the role, to the next <|im_end|>; empty where it is computed.
static tern_gguf_string literal_system(const char *text, const char *end_of_template) {
    static const char im_end[] = "<|im_end|>";
    const tern_gguf_string none = {"", 0};
    if (text < end_of_template && *text == '\n')
        text++;
    else if (end_of_template - text >= 2 && text[0] == '\\' && text[1] == 'n')
        text += 2;
    else
        return none;
    const char *end = memmem(text, (size_t)(end_of_template - text), im_end, sizeof im_end - 1);
    if (!end) return none;
    const size_t size = (size_t)(end - text);
    for (size_t i = 0; i < size; i++) {
        if (strchr("'\"{\\", text[i])) return none;
    }
    return (tern_gguf_string){text, size};
}

// The system message that a ChatML template itself writes when none is given (SmolLM2 and Qwen2 have one as a plain literal).
static tern_gguf_string default_system(tern_gguf_string template) {
    static const char role[] = "<|im_start|>system";
    const char *end = template.data + template.size;
    tern_gguf_string found = {"", 0};
    for (const char *at = template.data; found.size == 0; at += sizeof role - 1) {
        at = memmem(at, (size_t)(end - at), role, sizeof role - 1);
        if (!at) break;
        found = literal_system(at + sizeof role - 1, end);
    }
    return found;
}

static void add_system(part_list *list, const tern_chat_format *f, const tern_tokenizer *tok, tern_gguf_string system) {
    if (system.size == 0 || !f->system) return;
    add_marker(list, f->system);
    add_text(list, f, system.data, system.size);
    add_end(list, f, tok);
}

static void add_user(part_list *list, const tern_chat_format *f, const tern_tokenizer *tok, tern_gguf_string template,
                     tern_gguf_string system, const tern_chat_turn *turn) {
    if (!f->user_end) {
        add_marker(list, f->user);
        add_text(list, f, turn->user, turn->user_size);
        add_end(list, f, tok);
        return;
    }
    if (turn->follows && find_text(template, "eos_token + ' '")) add_marker(list, " ");
    add_spaced(list, template, f->user, "", " ");
    add_text(list, f, system.data, system.size);
    add_marker(list, system.size ? "\n\n" : "");
    add_text(list, f, turn->user, turn->user_size);
    add_spaced(list, template, f->user_end, " ", "");
}

size_t tern_chat_parts(const tern_chat_format *f, const tern_gguf *gguf, const tern_tokenizer *tok, const tern_chat_turn *turn,
                       tern_text_part parts[TERN_CHAT_PARTS]) {
    part_list list = {parts, 0};
    tern_gguf_string template = {"", 0}, system = {"", 0};
    (void)tern_gguf_get_string(gguf, KEY_TEMPLATE, &template); // none: as if it were empty
    if (turn->follows) {
        add_end(&list, f, tok);
    } else if (turn->system) {
        system = (tern_gguf_string){turn->system, turn->system_size};
    } else if (f == &formats[CHATML]) {
        system = default_system(template);
    }
    add_system(&list, f, tok, system);
    add_user(&list, f, tok, template, system, turn);
    add_marker(&list, f->answer);
    return list.n;
}
