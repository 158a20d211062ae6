// SPDX-License-Identifier: MIT
// The tokenizer: ids equal an independent implementation's, every byte string survives, damaged metadata is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "decode/bpe.h"
#include "decode/byte_level.h"
#include "decode/tokenizer.h"
#include "vocab_file.h"

#define TOKENS "tokenizer.ggml.tokens"
#define TYPES "tokenizer.ggml.token_type"
#define MERGES "tokenizer.ggml.merges"

static const char *const pre_names[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};
enum { N_PRE = 4 };

static uint64_t random_state;
static uint32_t random_below(uint32_t limit) { // splitmix64
    uint64_t z = random_state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)(((z ^ z >> 31) >> 32) * limit >> 32);
}

static int set_seed(void **state) {
    (void)state;
    const char *given = getenv("TERN_TEST_SEED");
    random_state = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    print_message("TERN_TEST_SEED=%llu\n", (unsigned long long)random_state);
    return 0;
}

// ---- A vocabulary made by hand: token b is byte b, then what the merges make, then special tokens -------------------

static const char *const hand_merges[] = {"h e",       "l l", "he ll", "hell o", "Ġ w", "a a", "aa aa",
                                          "aaaa aaaa", "Ġ Ġ", "ĠĠ ĠĠ", "r l",    "Ġ 1", "1 2", "Ã ©"};
enum {
    N_HAND_MERGES = sizeof hand_merges / sizeof hand_merges[0],
    HE = TERN_BYTES,
    LL,
    HELL,
    HELLO,
    SPACE_W,
    AA,
    A4,
    A8,
    SPACE2,
    SPACE4,
    RL,
    SPACE_1,
    ONE_TWO,
    E_ACUTE,
    IM_START,
    IM_END,
    IM,
    TOOL,
    UNKNOWN,
    NO_MERGE,
    N_HAND_TOKENS
};
static const struct {
    const char *text;
    tern_token_type type;
} hand_specials[] = {{"<|im_start|>", TERN_TOKEN_CONTROL}, {"<|im_end|>", TERN_TOKEN_CONTROL}, {"<|im", TERN_TOKEN_CONTROL},
                     {"[TOOL]", TERN_TOKEN_USER_DEFINED},  {"<unk>", TERN_TOKEN_UNKNOWN},      {"xyz", TERN_TOKEN_NORMAL}};
enum { N_HAND_SPECIALS = N_HAND_TOKENS - IM_START };

static void put_hand_token(vocab_file *file, size_t id) {
    char text[64];
    size_t n = 0;
    if (id < TERN_BYTES) {
        n = tern_byte_text((uint8_t)id, text);
    } else if (id < IM_START) {
        for (const char *c = hand_merges[id - TERN_BYTES]; *c; c++) {
            if (*c != ' ') text[n++] = *c;
        }
    } else {
        n = strlen(hand_specials[id - IM_START].text);
        memcpy(text, hand_specials[id - IM_START].text, n);
    }
    vocab_put_text(file, text, n);
}

static void put_hand_tokens(vocab_file *file) {
    vocab_key_array(file, TOKENS, TERN_GGUF_STRING, N_HAND_TOKENS);
    for (size_t id = 0; id < N_HAND_TOKENS; id++) put_hand_token(file, id);
}

static void put_hand_types(vocab_file *file) {
    vocab_key_array(file, TYPES, TERN_GGUF_I32, N_HAND_TOKENS);
    for (size_t id = 0; id < N_HAND_TOKENS; id++) {
        vocab_put_u32(file, (uint32_t)(id < IM_START ? TERN_TOKEN_NORMAL : hand_specials[id - IM_START].type));
    }
}

static void put_hand_merges(vocab_file *file) {
    vocab_key_array(file, MERGES, TERN_GGUF_STRING, N_HAND_MERGES);
    for (size_t i = 0; i < N_HAND_MERGES; i++) vocab_put_text(file, hand_merges[i], strlen(hand_merges[i]));
}

static void put_hand_vocabulary(vocab_file *file, const char *pre) {
    vocab_key_string(file, "tokenizer.ggml.model", "gpt2");
    vocab_key_string(file, "tokenizer.ggml.pre", pre);
    put_hand_tokens(file);
    put_hand_types(file);
    put_hand_merges(file);
    vocab_key_u32(file, "tokenizer.ggml.bos_token_id", IM_START);
}

typedef struct loaded {
    tern_gguf *gguf;
    tern_tokenizer *tok;
} loaded;

static loaded load_file(vocab_file *file) {
    tern_error err = {""};
    loaded l = {vocab_open(file, &err), NULL};
    if (!l.gguf || tern_tokenizer_create(&l.tok, l.gguf, &tern_default_allocator, &err) != TERN_OK) fail_msg("%s", err.text);
    return l;
}

static loaded load_hand(const char *pre) {
    vocab_file file = {.n = 0};
    put_hand_vocabulary(&file, pre);
    vocab_key_bool(&file, "tokenizer.ggml.add_bos_token", false);
    return load_file(&file);
}

static void unload(loaded *l) {
    tern_tokenizer_destroy(l->tok);
    tern_gguf_close(l->gguf);
}

typedef struct ids {
    int32_t *data;
    size_t n;
} ids;

static ids encode(const tern_tokenizer *tok, const char *text, size_t size, bool special) {
    ids out = {malloc((size + 1) * sizeof(int32_t)), 0};
    assert_non_null(out.data);
    assert_int_equal(tern_tokenizer_encode(tok, text, size, special, false, out.data, size + 1, &out.n), TERN_OK);
    return out;
}

static void expect_ids(const tern_tokenizer *tok, const char *text, bool special, const int32_t *expected, size_t n) {
    ids got = encode(tok, text, strlen(text), special);
    assert_int_equal(got.n, n);
    assert_memory_equal(got.data, expected, n * sizeof *expected);
    free(got.data);
}
#define EXPECT_IDS(tok, text, special, ...)                                                                                    \
    expect_ids(tok, text, special, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void expect_round_trip(const tern_tokenizer *tok, const char *text, size_t size, bool special) {
    ids got = encode(tok, text, size, special);
    size_t at = 0;
    for (size_t i = 0; i < got.n; i++) {
        const char *bytes;
        size_t n;
        assert_int_equal(tern_tokenizer_bytes(tok, got.data[i], true, &bytes, &n), TERN_OK);
        assert_true(n <= size - at);
        assert_memory_equal(bytes, text + at, n);
        at += n;
    }
    assert_int_equal(at, size);
    free(got.data);
}

// ---- Against an independent implementation ------------------------------------------------------------------------

typedef struct fixture {
    char *text; // of the whole file; lines are cut in place
    char **lines;
    size_t n;
} fixture;

static fixture read_fixture(const char *path) {
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

static size_t count_lines(const fixture *f, char kind) {
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) n += f->lines[i][0] == kind;
    return n;
}

static loaded load_fixture(const fixture *f, const char *pre) {
    vocab_file file = {.n = 0};
    vocab_key_string(&file, "tokenizer.ggml.model", "gpt2");
    vocab_key_string(&file, "tokenizer.ggml.pre", pre);
    vocab_key_bool(&file, "tokenizer.ggml.add_bos_token", false);
    vocab_key_array(&file, TOKENS, TERN_GGUF_STRING, count_lines(f, 'T'));
    for (size_t i = 0; i < f->n; i++) { // "T 1 text"
        if (f->lines[i][0] == 'T') vocab_put_text(&file, f->lines[i] + 4, strlen(f->lines[i] + 4));
    }
    vocab_key_array(&file, TYPES, TERN_GGUF_I32, count_lines(f, 'T'));
    for (size_t i = 0; i < f->n; i++) {
        if (f->lines[i][0] == 'T') vocab_put_u32(&file, (uint32_t)(f->lines[i][2] - '0'));
    }
    vocab_key_array(&file, MERGES, TERN_GGUF_STRING, count_lines(f, 'M'));
    for (size_t i = 0; i < f->n; i++) { // "M left right"
        if (f->lines[i][0] == 'M') vocab_put_text(&file, f->lines[i] + 2, strlen(f->lines[i] + 2));
    }
    return load_file(&file);
}

// "S 6869" -> "hi", in place.
static size_t decode_hex(const char *hex, char *out) {
    size_t n = 0;
    for (; hex[2 * n]; n++) {
        const char pair[3] = {hex[2 * n], hex[2 * n + 1], '\0'};
        out[n] = (char)strtoul(pair, NULL, 16);
    }
    return n;
}

// False and a message if the ids are not those of the "I" line.
static bool same_ids(const ids *got, const char *line, const char *pre, const char *hex) {
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

static void ids_equal_those_of_the_reference_for_every_pre_tokenizer(void **state) {
    (void)state;
    const char *given = getenv("TERN_TOKENIZER_FIXTURE");
    fixture f = read_fixture(given ? given : TERN_TEST_DATA "/tokenizer.txt");
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
            expect_round_trip(l.tok, text, size, true);
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

// ---- Known ids ------------------------------------------------------------------------------------------------------

static void merges_go_by_rank_and_stay_within_words(void **state) {
    (void)state;
    loaded l = load_hand("gpt-2");
    EXPECT_IDS(l.tok, "hello", false, HELLO);
    EXPECT_IDS(l.tok, "hello world", false, HELLO, SPACE_W, 'o', RL, 'd');
    EXPECT_IDS(l.tok, "hell", false, HELL);
    EXPECT_IDS(l.tok, "hel", false, HE, 'l');
    EXPECT_IDS(l.tok, "aaaaaaa", false, A4, AA, 'a');
    EXPECT_IDS(l.tok, "\u00e9", false, E_ACUTE);
    EXPECT_IDS(l.tok, "     w", false, SPACE4, SPACE_W);
    unload(&l);
}

static void digits_are_grouped_as_the_family_does(void **state) {
    (void)state;
    loaded smollm = load_hand("smollm"), gpt2 = load_hand("gpt-2"), llama = load_hand("llama-bpe"), qwen = load_hand("qwen2");
    EXPECT_IDS(smollm.tok, "1212", false, '1', '2', '1', '2');
    EXPECT_IDS(gpt2.tok, "1212", false, ONE_TWO, ONE_TWO);
    EXPECT_IDS(llama.tok, "1212", false, ONE_TWO, '1', '2');
    EXPECT_IDS(qwen.tok, "1212", false, '1', '2', '1', '2');
    // Only the pattern of GPT-2 joins a space with the number behind it; in smollm a number ends a run of spaces.
    EXPECT_IDS(smollm.tok, "  1", false, SPACE2, '1');
    EXPECT_IDS(gpt2.tok, "  1", false, ' ', SPACE_1);
    EXPECT_IDS(llama.tok, "  1", false, ' ', ' ', '1');
    EXPECT_IDS(qwen.tok, "  1", false, ' ', ' ', '1');
    unload(&smollm);
    unload(&gpt2);
    unload(&llama);
    unload(&qwen);
}

static void a_whole_word_token_needs_no_merges_in_llama_3_only(void **state) {
    (void)state;
    for (size_t i = 0; i < N_PRE; i++) {
        loaded l = load_hand(pre_names[i]);
        if (strcmp(pre_names[i], "llama-bpe") == 0) {
            EXPECT_IDS(l.tok, "xyz", false, NO_MERGE);
        } else {
            EXPECT_IDS(l.tok, "xyz", false, 'x', 'y', 'z');
        }
        unload(&l);
    }
}

static void empty_text_has_no_tokens(void **state) {
    (void)state;
    loaded l = load_hand("smollm");
    size_t n = 99;
    assert_int_equal(tern_tokenizer_encode(l.tok, "", 0, true, true, NULL, 0, &n), TERN_OK);
    assert_int_equal(n, 0);
    assert_int_equal(tern_tokenizer_encode(l.tok, NULL, 0, true, true, NULL, 0, &n), TERN_OK);
    unload(&l);
}

// ---- Special tokens -----------------------------------------------------------------------------------------------------

static void special_tokens_are_matched_longest_first(void **state) {
    (void)state;
    loaded l = load_hand("smollm");
    EXPECT_IDS(l.tok, "<|im_start|>he<|im_end|>", true, IM_START, HE, IM_END);
    EXPECT_IDS(l.tok, "<|im_start|", true, IM, '_', 's', 't', 'a', 'r', 't', '|');
    EXPECT_IDS(l.tok, "<<|im", true, '<', IM);
    unload(&l);
}

static void control_tokens_need_parse_special_and_user_defined_ones_do_not(void **state) {
    (void)state;
    loaded l = load_hand("qwen2");
    EXPECT_IDS(l.tok, "<|im", false, '<', '|', 'i', 'm');
    EXPECT_IDS(l.tok, "<unk>", false, '<', 'u', 'n', 'k', '>');
    EXPECT_IDS(l.tok, "<unk>", true, UNKNOWN);
    EXPECT_IDS(l.tok, "he[TOOL]he", false, HE, TOOL, HE);
    unload(&l);
}

static void bytes_of_control_tokens_are_hidden_unless_asked_for(void **state) {
    (void)state;
    loaded l = load_hand("smollm");
    const char *bytes;
    size_t n;
    assert_int_equal(tern_tokenizer_bytes(l.tok, IM_START, false, &bytes, &n), TERN_OK);
    assert_int_equal(n, 0);
    assert_int_equal(tern_tokenizer_bytes(l.tok, IM_START, true, &bytes, &n), TERN_OK);
    assert_int_equal(n, strlen("<|im_start|>"));
    assert_memory_equal(bytes, "<|im_start|>", n);
    assert_int_equal(tern_tokenizer_bytes(l.tok, TOOL, false, &bytes, &n), TERN_OK);
    assert_int_equal(n, strlen("[TOOL]"));
    assert_int_equal(tern_tokenizer_bytes(l.tok, SPACE_W, false, &bytes, &n), TERN_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(bytes, " w", n);
    assert_int_equal(tern_tokenizer_bytes(l.tok, -1, true, &bytes, &n), TERN_ERR_ARG);
    assert_int_equal(tern_tokenizer_bytes(l.tok, N_HAND_TOKENS, true, &bytes, &n), TERN_ERR_ARG);
    unload(&l);
}

static void eos_eot_and_end_of_turn_are_ends(void **state) {
    (void)state;
    vocab_file file = {.n = 0};
    put_hand_vocabulary(&file, "smollm");
    vocab_key_u32(&file, "tokenizer.ggml.eos_token_id", HELLO);
    vocab_key_u32(&file, "tokenizer.ggml.eot_token_id", TOOL);
    loaded l = load_file(&file);
    for (int32_t id = -1; id <= N_HAND_TOKENS; id++) {
        assert_int_equal(tern_tokenizer_is_end(l.tok, id), id == HELLO || id == TOOL || id == IM_END);
    }
    assert_int_equal(tern_tokenizer_find(l.tok, "<|im_end|>"), IM_END);
    assert_int_equal(tern_tokenizer_find(l.tok, "<|im_end|"), -1);
    assert_string_equal(tern_tokenizer_name(l.tok), "gpt2/smollm");
    assert_int_equal(tern_tokenizer_vocab(l.tok), N_HAND_TOKENS);
    unload(&l);
}

static void bos_comes_first_where_file_and_caller_ask_for_it(void **state) {
    (void)state;
    for (int asked = 0; asked < 2; asked++) {
        for (int wanted = 0; wanted < 2; wanted++) {
            vocab_file file = {.n = 0};
            put_hand_vocabulary(&file, "smollm");
            vocab_key_bool(&file, "tokenizer.ggml.add_bos_token", asked);
            loaded l = load_file(&file);
            int32_t out[2] = {-1, -1};
            size_t n;
            assert_int_equal(tern_tokenizer_encode(l.tok, "he", 2, false, wanted, out, 2, &n), TERN_OK);
            assert_int_equal(n, asked && wanted ? 2 : 1);
            assert_int_equal(out[0], asked && wanted ? IM_START : HE);
            unload(&l);
        }
    }
}

static void bos_default_is_that_of_the_family(void **state) {
    (void)state;
    for (size_t i = 0; i < N_PRE; i++) {
        vocab_file file = {.n = 0};
        put_hand_vocabulary(&file, pre_names[i]);
        loaded l = load_file(&file);
        size_t n;
        int32_t out[2];
        assert_int_equal(tern_tokenizer_encode(l.tok, "he", 2, false, true, out, 2, &n), TERN_OK);
        assert_int_equal(n, strcmp(pre_names[i], "llama-bpe") == 0 ? 2 : 1);
        unload(&l);
    }
}

// ---- Nothing is lost ------------------------------------------------------------------------------------------------------

static void every_single_byte_is_its_own_token(void **state) {
    (void)state;
    for (size_t i = 0; i < N_PRE; i++) {
        loaded l = load_hand(pre_names[i]);
        for (int byte = 0; byte < TERN_BYTES; byte++) {
            const char c = (char)byte;
            ids got = encode(l.tok, &c, 1, true);
            assert_int_equal(got.n, 1);
            assert_int_equal(got.data[0], byte);
            free(got.data);
            expect_round_trip(l.tok, &c, 1, true);
        }
        unload(&l);
    }
}

static void random_bytes_and_damaged_utf8_survive(void **state) {
    (void)state;
    enum { ROUNDS = 4000, MAX_SIZE = 200 };
    // Pieces that are one byte away from valid: overlong, surrogate, too large, cut short.
    static const char *const pieces[] = {
        "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80", "\xE4\xB8",  "\xF0\x9F\x98", "\xC3",
        "\x80",     "\xFF\xFE",     "\xEF\xBF\xBF", "\u00e9",           "\U0001F600",       "hello",     "  ",           "\r\n",
        "'s",       "123",          "<|im_start|>", "\u180e",           "\u2028",           "\U0010FFFF"};
    for (size_t i = 0; i < N_PRE; i++) {
        loaded l = load_hand(pre_names[i]);
        for (int round = 0; round < ROUNDS; round++) {
            char text[MAX_SIZE];
            size_t n = 0;
            const size_t size = random_below(MAX_SIZE);
            while (n < size) {
                const char *piece = pieces[random_below(sizeof pieces / sizeof pieces[0])];
                if (random_below(2) == 0 && n + strlen(piece) <= size) {
                    memcpy(text + n, piece, strlen(piece));
                    n += strlen(piece);
                } else {
                    text[n++] = (char)random_below(TERN_BYTES);
                }
            }
            expect_round_trip(l.tok, text, n, round & 1);
        }
        unload(&l);
    }
}

static void invalid_bytes_do_not_change_the_words_around_them(void **state) {
    (void)state;
    loaded l = load_hand("gpt-2");
    EXPECT_IDS(l.tok,
               "hello\xFF"
               "hello",
               false, HELLO, 0xFF, HELLO);
    EXPECT_IDS(l.tok, "\xE4\xB8hello\xC3", false, 0xE4, 0xB8, HELLO, 0xC3);
    EXPECT_IDS(l.tok, "\xC3(", false, 0xC3, '(');
    unload(&l);
}

static void long_runs_of_one_character_are_encoded(void **state) {
    (void)state;
    enum { SIZE = 1 << 18 }; // a quadratic step anywhere would take minutes
    static const char *const runs[] = {"a", " ", "\n", "1", "!", "\xFF", "\x80", "'", "\u00e9", " \n", "'s ", "<", "a "};
    char *text = malloc(SIZE + 8);
    assert_non_null(text);
    for (size_t i = 0; i < N_PRE; i++) {
        loaded l = load_hand(pre_names[i]);
        for (size_t r = 0; r < sizeof runs / sizeof runs[0]; r++) {
            size_t n = 0;
            for (; n < SIZE; n += strlen(runs[r])) memcpy(text + n, runs[r], strlen(runs[r]));
            expect_round_trip(l.tok, text, n, true);
        }
        memset(text, 'a', SIZE);
        ids got = encode(l.tok, text, SIZE, false);
        assert_int_equal(got.n, SIZE / 8);
        for (size_t k = 0; k < got.n; k++) assert_int_equal(got.data[k], A8);
        free(got.data);
        unload(&l);
    }
    free(text);
}

static void short_and_long_words_merge_alike(void **state) {
    (void)state;
    loaded l = load_hand("gpt-2");
    tern_vocab vocab;
    tern_bpe bpe;
    assert_int_equal(tern_vocab_load(&vocab, l.gguf, &tern_default_allocator, NULL), TERN_OK);
    assert_int_equal(tern_bpe_load(&bpe, &vocab, l.gguf, &tern_default_allocator, NULL), TERN_OK);
    const char letters[] = "hello aaw";
    for (int round = 0; round < 20000; round++) {
        int32_t scan[TERN_BPE_SHORT], heap[TERN_BPE_SHORT];
        uint64_t scratch[8 * TERN_BPE_SHORT];
        const size_t n = random_below(TERN_BPE_SHORT + 1);
        assert_true(tern_bpe_scratch_bytes(n) <= sizeof scratch);
        for (size_t i = 0; i < n; i++) scan[i] = heap[i] = letters[random_below(sizeof letters - 1)];
        const size_t n_scan = tern_bpe_merge_short(&bpe, scan, n);
        assert_int_equal(n_scan, tern_bpe_merge_long(&bpe, heap, n, scratch));
        assert_memory_equal(scan, heap, n_scan * sizeof *scan);
    }
    tern_bpe_free(&bpe);
    tern_vocab_free(&vocab);
    unload(&l);
}

static void too_small_a_buffer_reports_the_need_and_is_not_overrun(void **state) {
    (void)state;
    loaded l = load_hand("smollm");
    int32_t out[4] = {-7, -7, -7, -7};
    size_t n = 0;
    assert_int_equal(tern_tokenizer_encode(l.tok, "hello world", 11, false, false, out, 3, &n), TERN_ERR_ARG);
    assert_int_equal(n, 5);
    assert_int_equal(out[3], -7);
    n = 0;
    assert_int_equal(tern_tokenizer_encode(l.tok, "hello world", 11, false, false, NULL, 0, &n), TERN_ERR_ARG);
    assert_int_equal(n, 5);
    n = 42;
    assert_int_equal(tern_tokenizer_encode(l.tok, NULL, 3, false, false, out, 4, &n), TERN_ERR_ARG);
    assert_int_equal(n, 42);
    unload(&l);
}

// ---- Damaged metadata -------------------------------------------------------------------------------------------------------

// Expects that creation fails with this status and a message that holds `part`.
static void expect_refusal(vocab_file *file, tern_status status, const char *part) {
    tern_error err = {""};
    tern_gguf *gguf = vocab_open(file, &err);
    if (!gguf) fail_msg("%s", err.text);
    tern_tokenizer *tok = NULL;
    assert_int_equal(tern_tokenizer_create(&tok, gguf, &tern_default_allocator, &err), status);
    assert_null(tok);
    if (!strstr(err.text, part)) fail_msg("'%s' does not mention '%s'", err.text, part);
    tern_gguf_close(gguf);
}

// The keys of the hand-made vocabulary, one of which a test replaces or leaves out.
enum part { MODEL, PRE, TOKEN_LIST, TYPE_LIST, MERGE_LIST };
static vocab_file without(enum part left_out) {
    vocab_file file = {.n = 0};
    if (left_out != MODEL) vocab_key_string(&file, "tokenizer.ggml.model", "gpt2");
    if (left_out != PRE) vocab_key_string(&file, "tokenizer.ggml.pre", "smollm");
    if (left_out != TOKEN_LIST) put_hand_tokens(&file);
    if (left_out != TYPE_LIST) put_hand_types(&file);
    if (left_out != MERGE_LIST) put_hand_merges(&file);
    return file;
}

static void missing_keys_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        enum part part;
        tern_status status;
        const char *key;
    } cases[] = {{MODEL, TERN_ERR_FORMAT, "tokenizer.ggml.model"},
                 {PRE, TERN_ERR_UNSUPPORTED, "smollm, gpt-2, llama-bpe, qwen2"},
                 {TOKEN_LIST, TERN_ERR_FORMAT, TOKENS},
                 {TYPE_LIST, TERN_ERR_FORMAT, TYPES},
                 {MERGE_LIST, TERN_ERR_FORMAT, MERGES}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vocab_file file = without(cases[i].part);
        expect_refusal(&file, cases[i].status, cases[i].key);
    }
}

static void keys_of_another_type_are_refused_by_name(void **state) {
    (void)state;
    static const char *const keys[] = {"tokenizer.ggml.model", "tokenizer.ggml.pre", TOKENS, TYPES, MERGES};
    for (int part = MODEL; part <= MERGE_LIST; part++) {
        vocab_file file = without((enum part)part);
        vocab_key_u32(&file, keys[part], 1);
        expect_refusal(&file, TERN_ERR_FORMAT, keys[part]);
    }
    static const enum part lists[] = {TOKEN_LIST, MERGE_LIST};
    for (size_t i = 0; i < 2; i++) { // numbers where strings belong
        vocab_file file = without(lists[i]);
        vocab_key_array(&file, keys[lists[i]], TERN_GGUF_U32, 1);
        vocab_put_u32(&file, 0);
        expect_refusal(&file, TERN_ERR_FORMAT, keys[lists[i]]);
    }
    static const char *const ids_of[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                         "tokenizer.ggml.eot_token_id", "tokenizer.ggml.add_bos_token"};
    for (size_t i = 0; i < sizeof ids_of / sizeof ids_of[0]; i++) {
        vocab_file file = {.n = 0};
        put_hand_vocabulary(&file, "smollm");
        vocab_key_string(&file, ids_of[i], "1");
        // The hand-made vocabulary has a BOS already, and a key twice is the container's matter.
        if (i == 0) {
            free(file.data);
            file = without(PRE);
            vocab_key_string(&file, "tokenizer.ggml.pre", "smollm");
            vocab_key_string(&file, ids_of[i], "1");
        }
        expect_refusal(&file, TERN_ERR_FORMAT, ids_of[i]);
    }
}

static void token_ids_out_of_range_are_refused_by_name(void **state) {
    (void)state;
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id"};
    static const uint32_t bad[] = {N_HAND_TOKENS, UINT32_MAX};
    for (size_t i = 0; i < 6; i++) {
        vocab_file file = without(PRE);
        vocab_key_string(&file, "tokenizer.ggml.pre", "qwen2");
        vocab_key_u32(&file, keys[i / 2], bad[i % 2]);
        expect_refusal(&file, TERN_ERR_FORMAT, keys[i / 2]);
    }
}

static void unknown_models_and_pre_tokenizers_are_unsupported(void **state) {
    (void)state;
    vocab_file file = without(MODEL);
    vocab_key_string(&file, "tokenizer.ggml.model", "llama");
    expect_refusal(&file, TERN_ERR_UNSUPPORTED, "'llama'");
    static const char *const pre[] = {"default", "tekken", "", "smollm2", "\x1b[2J"};
    for (size_t i = 0; i < sizeof pre / sizeof pre[0]; i++) {
        file = without(PRE);
        vocab_key_string(&file, "tokenizer.ggml.pre", pre[i]);
        expect_refusal(&file, TERN_ERR_UNSUPPORTED, "known are smollm, gpt-2, llama-bpe, qwen2");
    }
}

static void a_bitnet_model_without_a_pre_tokenizer_uses_that_of_llama_3(void **state) {
    (void)state;
    vocab_file file = without(PRE);
    vocab_key_string(&file, "general.architecture", "bitnet-b1.58");
    vocab_key_u32(&file, "tokenizer.ggml.bos_token_id", IM_START);
    loaded l = load_file(&file);
    assert_string_equal(tern_tokenizer_name(l.tok), "gpt2/llama-bpe");
    unload(&l);
}

static void other_names_of_llama_3_are_known(void **state) {
    (void)state;
    static const char *const names[] = {"llama3", "llama-v3", "llama-bpe", "falcon3"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        loaded l = load_hand(names[i]);
        assert_string_equal(tern_tokenizer_name(l.tok), "gpt2/llama-bpe");
        unload(&l);
    }
}

static void prompts_that_begin_with_a_bos_the_file_lacks_are_refused(void **state) {
    (void)state;
    vocab_file file = without(MODEL);
    vocab_key_string(&file, "tokenizer.ggml.model", "gpt2");
    vocab_key_bool(&file, "tokenizer.ggml.add_bos_token", true);
    expect_refusal(&file, TERN_ERR_FORMAT, "tokenizer.ggml.bos_token_id");
}

static void merges_outside_the_vocabulary_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"h ee", "ee h", "z z", "he", "he ", " he", "", " ", "h  e", "h e"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        vocab_file file = without(MERGE_LIST);
        vocab_key_array(&file, MERGES, TERN_GGUF_STRING, 2);
        vocab_put_text(&file, "h e", 3); // so that the last case repeats it
        vocab_put_text(&file, bad[i], strlen(bad[i]));
        expect_refusal(&file, TERN_ERR_FORMAT, MERGES "[1]");
    }
}

static void duplicate_tokens_are_refused(void **state) {
    (void)state;
    vocab_file file = without(TOKEN_LIST);
    vocab_key_array(&file, TOKENS, TERN_GGUF_STRING, N_HAND_TOKENS);
    for (size_t id = 0; id < N_HAND_TOKENS; id++) put_hand_token(&file, id == 70 ? 65 : id);
    expect_refusal(&file, TERN_ERR_FORMAT, "tokens 65 and 70");
}

static void token_types_must_be_one_known_type_per_token(void **state) {
    (void)state;
    static const struct {
        uint64_t count;
        uint32_t last;
    } cases[] = {
        {N_HAND_TOKENS, 0}, {N_HAND_TOKENS, 7}, {N_HAND_TOKENS, UINT32_MAX}, {N_HAND_TOKENS - 1, 1}, {N_HAND_TOKENS + 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vocab_file file = without(TYPE_LIST);
        vocab_key_array(&file, TYPES, TERN_GGUF_I32, cases[i].count);
        for (uint64_t id = 0; id < cases[i].count; id++) vocab_put_u32(&file, id + 1 < cases[i].count ? 1 : cases[i].last);
        expect_refusal(&file, TERN_ERR_FORMAT, TYPES);
    }
}

static void a_byte_the_vocabulary_lacks_is_an_error_not_a_loss(void **state) {
    (void)state;
    vocab_file file = without(TOKEN_LIST);
    vocab_key_array(&file, TOKENS, TERN_GGUF_STRING, N_HAND_TOKENS);
    for (size_t id = 0; id < N_HAND_TOKENS; id++) {
        if (id == 0xFF) {
            vocab_put_text(&file, "qqq", 3);
        } else {
            put_hand_token(&file, id);
        }
    }
    loaded l = load_file(&file);
    int32_t out[8];
    size_t n = 42;
    assert_int_equal(tern_tokenizer_encode(l.tok, "a\xFF", 2, false, false, out, 8, &n), TERN_ERR_UNSUPPORTED);
    assert_int_equal(n, 42);
    assert_int_equal(tern_tokenizer_encode(l.tok, "a\xFE", 2, false, false, out, 8, &n), TERN_OK);
    unload(&l);
}

static void tokens_outside_the_byte_alphabet_stand_for_their_text(void **state) {
    (void)state;
    static const char *const odd[] = {"a b", "\u4e16", "x\xFF", "\xC3", "\u0144", "\xC0\xAB", ""};
    vocab_file file = without(TOKEN_LIST);
    vocab_key_array(&file, TOKENS, TERN_GGUF_STRING, N_HAND_TOKENS);
    for (size_t id = 0; id < N_HAND_TOKENS; id++) {
        if (id < sizeof odd / sizeof odd[0]) {
            vocab_put_text(&file, odd[id], strlen(odd[id]));
        } else {
            put_hand_token(&file, id);
        }
    }
    loaded l = load_file(&file);
    for (size_t id = 0; id < sizeof odd / sizeof odd[0]; id++) {
        const char *bytes;
        size_t n;
        assert_int_equal(tern_tokenizer_bytes(l.tok, (int32_t)id, false, &bytes, &n), TERN_OK);
        assert_int_equal(n, strlen(odd[id]));
        assert_memory_equal(bytes, odd[id], n);
    }
    unload(&l);
}

// ---- Memory
// -------------------------------------------------------------------------------------------------------------------

typedef struct budget {
    size_t left; // allocations before the next one fails
    size_t live;
} budget;

static void *budget_alloc(void *user, size_t size, size_t align) {
    budget *b = user;
    if (b->left == 0) return NULL;
    b->left--;
    void *ptr = tern_default_allocator.alloc(NULL, size, align);
    b->live += ptr != NULL;
    return ptr;
}

static void budget_free(void *user, void *ptr, size_t size) {
    ((budget *)user)->live--;
    tern_default_allocator.free(NULL, ptr, size);
}

static void creation_without_memory_fails_cleanly_at_every_allocation(void **state) {
    (void)state;
    loaded l = load_hand("qwen2");
    tern_status status = TERN_ERR_MEMORY;
    size_t allowed = 0;
    for (; status != TERN_OK; allowed++) {
        budget b = {.left = allowed};
        const tern_allocator allocator = {budget_alloc, budget_free, &b};
        tern_tokenizer *tok = NULL;
        status = tern_tokenizer_create(&tok, l.gguf, &allocator, NULL);
        if (status == TERN_OK) {
            EXPECT_IDS(tok, "hello", false, HELLO);
            tern_tokenizer_destroy(tok);
        } else {
            assert_null(tok);
        }
        assert_int_equal(b.live, 0);
        assert_true(allowed < 1000);
    }
    assert_true(allowed > 5);
    unload(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_those_of_the_reference_for_every_pre_tokenizer),
        cmocka_unit_test(merges_go_by_rank_and_stay_within_words),
        cmocka_unit_test(digits_are_grouped_as_the_family_does),
        cmocka_unit_test(a_whole_word_token_needs_no_merges_in_llama_3_only),
        cmocka_unit_test(empty_text_has_no_tokens),
        cmocka_unit_test(special_tokens_are_matched_longest_first),
        cmocka_unit_test(control_tokens_need_parse_special_and_user_defined_ones_do_not),
        cmocka_unit_test(bytes_of_control_tokens_are_hidden_unless_asked_for),
        cmocka_unit_test(eos_eot_and_end_of_turn_are_ends),
        cmocka_unit_test(bos_comes_first_where_file_and_caller_ask_for_it),
        cmocka_unit_test(bos_default_is_that_of_the_family),
        cmocka_unit_test(every_single_byte_is_its_own_token),
        cmocka_unit_test(random_bytes_and_damaged_utf8_survive),
        cmocka_unit_test(invalid_bytes_do_not_change_the_words_around_them),
        cmocka_unit_test(long_runs_of_one_character_are_encoded),
        cmocka_unit_test(short_and_long_words_merge_alike),
        cmocka_unit_test(too_small_a_buffer_reports_the_need_and_is_not_overrun),
        cmocka_unit_test(missing_keys_are_refused_by_name),
        cmocka_unit_test(keys_of_another_type_are_refused_by_name),
        cmocka_unit_test(token_ids_out_of_range_are_refused_by_name),
        cmocka_unit_test(unknown_models_and_pre_tokenizers_are_unsupported),
        cmocka_unit_test(a_bitnet_model_without_a_pre_tokenizer_uses_that_of_llama_3),
        cmocka_unit_test(other_names_of_llama_3_are_known),
        cmocka_unit_test(prompts_that_begin_with_a_bos_the_file_lacks_are_refused),
        cmocka_unit_test(merges_outside_the_vocabulary_are_refused),
        cmocka_unit_test(duplicate_tokens_are_refused),
        cmocka_unit_test(token_types_must_be_one_known_type_per_token),
        cmocka_unit_test(a_byte_the_vocabulary_lacks_is_an_error_not_a_loss),
        cmocka_unit_test(tokens_outside_the_byte_alphabet_stand_for_their_text),
        cmocka_unit_test(creation_without_memory_fails_cleanly_at_every_allocation),
    };
    return cmocka_run_group_tests(tests, set_seed, NULL);
}
