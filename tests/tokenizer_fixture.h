// SPDX-License-Identifier: MIT
// Token ids computed by an independent implementation (check_tokenizer.py tells the format), and the comparison with Tern's.
#ifndef TERN_TESTS_TOKENIZER_FIXTURE_H
#define TERN_TESTS_TOKENIZER_FIXTURE_H

#include "hand_vocab.h"

typedef struct fixture {
    char *text; // of the whole file; lines are cut in place
    char **lines;
    size_t n;
} fixture;

static inline fixture read_fixture(const char *path) {
    FILE *in = fopen(path, "rb");
    if (!in) fail_msg("cannot open %s", path);
    fseek(in, 0, SEEK_END);
    const size_t size = (size_t)ftell(in);
    rewind(in);
    fixture f = {.text = malloc(size + 1)};
    assert_non_null(f.text);
    assert_int_equal(fread(f.text, 1, size, in), size);
    f.text[size] = '\0';
    fclose(in);
    size_t n = 0;
    for (const char *c = f.text; *c; c++) n += *c == '\n';
    f.lines = malloc((n + 1) * sizeof *f.lines);
    assert_non_null(f.lines);
    for (char *line = f.text; *line;) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        f.lines[f.n++] = line;
        line = end + 1;
    }
    return f;
}

static inline size_t count_lines(const fixture *f, char kind) {
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) n += f->lines[i][0] == kind;
    return n;
}

static inline loaded load_fixture(const fixture *f, const char *pre) {
    vocab_file file = {.n = 0};
    const bool bare = strcmp(pre, "spm-bare") == 0, spm = bare || strcmp(pre, "spm") == 0; // bare: no space before the text
    vocab_key_string(&file, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    if (!spm) vocab_key_string(&file, "tokenizer.ggml.pre", pre);
    vocab_key_bool(&file, "tokenizer.ggml.add_bos_token", false);
    if (bare) vocab_key_bool(&file, "tokenizer.ggml.add_space_prefix", false);
    vocab_key_array(&file, TOKENS, TERN_GGUF_STRING, count_lines(f, 'T'));
    for (size_t i = 0; i < f->n; i++) { // "T 1 text"
        if (f->lines[i][0] == 'T') vocab_put_text(&file, f->lines[i] + 4, strlen(f->lines[i] + 4));
    }
    vocab_key_array(&file, TYPES, TERN_GGUF_I32, count_lines(f, 'T'));
    for (size_t i = 0; i < f->n; i++) {
        if (f->lines[i][0] == 'T') vocab_put_u32(&file, (uint32_t)(f->lines[i][2] - '0'));
    }
    if (spm) {
        vocab_key_array(&file, SCORES, TERN_GGUF_F32, count_lines(f, 'R'));
        for (size_t i = 0; i < f->n; i++) { // "R score"
            if (f->lines[i][0] != 'R') continue;
            const float score = strtof(f->lines[i] + 2, NULL);
            vocab_put(&file, &score, sizeof score);
        }
    } else {
        vocab_key_array(&file, MERGES, TERN_GGUF_STRING, count_lines(f, 'M'));
        for (size_t i = 0; i < f->n; i++) { // "M left right"
            if (f->lines[i][0] == 'M') vocab_put_text(&file, f->lines[i] + 2, strlen(f->lines[i] + 2));
        }
    }
    return load_file(&file);
}

// "S 6869" -> "hi", in place.
static inline size_t decode_hex(const char *hex, char *out) {
    size_t n = 0;
    for (; hex[2 * n]; n++) {
        const char pair[3] = {hex[2 * n], hex[2 * n + 1], '\0'};
        out[n] = (char)strtoul(pair, NULL, 16);
    }
    return n;
}

// False and a message if the ids are not those of the "I" line.
static inline bool same_ids(const ids *got, const char *line, const char *pre, const char *hex) {
    char *at = (char *)(uintptr_t)line + 1;
    bool same = true;
    size_t n = 0;
    for (; *at; n++) {
        while (*at == ' ') at++;
        if (!*at) break;
        const long id = strtol(at, &at, 10);
        same = same && n < got->n && got->data[n] == id;
    }
    same = same && n == got->n;
    if (!same) {
        print_error("%s, string %s\n  expected%s\n  got     ", pre, hex, line + 1);
        for (size_t i = 0; i < got->n; i++) print_error(" %d", got->data[i]);
        print_error("\n");
    }
    return same;
}

// Every string of the fixture, with every pre-tokenizer it names.
static inline void expect_reference_ids(const char *path) {
    fixture f = read_fixture(path);
    assert_int_equal(count_lines(&f, 'P'), 1);
    size_t compared = 0, wrong = 0, pre_index = 0;
    char *names = NULL;
    for (size_t i = 0; i < f.n; i++) {
        if (f.lines[i][0] == 'P') names = f.lines[i] + 1;
    }
    for (char *save = NULL, *pre = strtok_r(names, " ", &save); pre; pre = strtok_r(NULL, " ", &save), pre_index++) {
        loaded l = load_fixture(&f, pre);
        for (size_t i = 0; i < f.n; i++) {
            if (f.lines[i][0] != 'S') continue;
            const char *hex = f.lines[i] + 2;
            char *text = malloc(strlen(hex) / 2 + 1);
            assert_non_null(text);
            const size_t size = decode_hex(hex, text);
            ids got = encode(l.tok, text, size, true);
            compared++;
            wrong += !same_ids(&got, f.lines[i + 1 + pre_index], pre, hex);
            if (strncmp(pre, "spm", strlen("spm")) != 0) expect_round_trip(l.tok, text, size, true);
            free(got.data);
            free(text);
        }
        unload(&l);
    }
    print_message("%zu strings compared, %zu differ\n", compared, wrong);
    assert_true(compared > 0);
    assert_int_equal(wrong, 0);
    free(f.lines);
    free(f.text);
}

#endif
