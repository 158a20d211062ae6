// SPDX-License-Identifier: MIT
// SentencePiece tokenizers: ids equal the package's, bytes that are no text survive, and damaged vocabularies are refused.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "test_random.h"
#include "tokenizer_fixture.h"

static void ids_equal_those_of_sentencepiece(void **state) {
    (void)state;
    const char *given = getenv("TERN_SPM_FIXTURE");
    expect_reference_ids(given ? given : TERN_TEST_DATA "/tokenizer_spm.txt");
}

// ---- A vocabulary made by hand: 3 special tokens, 256 bytes, then pieces ------------------------------------------

enum { UNK, BOS, EOS, BYTE_0, PIECE_0 = BYTE_0 + TERN_BYTES };
static const struct {
    const char *text;
    tern_token_type type;
    float score;
} pieces[] = {
    {"\u2581", TERN_TOKEN_NORMAL, -9},  {"a", TERN_TOKEN_NORMAL, -9},        {"b", TERN_TOKEN_NORMAL, -9},
    {"ab", TERN_TOKEN_NORMAL, -2},      {"\u2581a", TERN_TOKEN_NORMAL, -1},  {"ba", TERN_TOKEN_NORMAL, -2},
    {"\u00e9b", TERN_TOKEN_NORMAL, -3}, {"<t>", TERN_TOKEN_USER_DEFINED, 0}, {"<c>", TERN_TOKEN_CONTROL, 0},
};
enum { SPACE = PIECE_0, A, B, AB, SPACE_A, BA, E_B, USER, CONTROL, N_TOKENS, N_PIECES = N_TOKENS - PIECE_0 };

static void put_vocabulary(vocab_file *file, size_t n_bytes, size_t n_scores, float first_score) {
    vocab_key_string(file, "tokenizer.ggml.model", "llama");
    vocab_key_u32(file, "tokenizer.ggml.bos_token_id", BOS);
    vocab_key_u32(file, "tokenizer.ggml.eos_token_id", EOS);
    vocab_key_array(file, TOKENS, TERN_GGUF_STRING, N_TOKENS);
    static const char *const first[] = {"<unk>", "<s>", "</s>"};
    for (size_t i = 0; i < BYTE_0; i++) vocab_put_text(file, first[i], strlen(first[i]));
    for (unsigned byte = 0; byte < TERN_BYTES; byte++) {
        char text[16];
        (void)snprintf(text, sizeof text, byte < n_bytes ? "<0x%02X>" : "no byte %u", byte);
        vocab_put_text(file, text, strlen(text));
    }
    for (size_t i = 0; i < N_PIECES; i++) vocab_put_text(file, pieces[i].text, strlen(pieces[i].text));
    vocab_key_array(file, TYPES, TERN_GGUF_I32, N_TOKENS);
    for (uint32_t i = 0; i < N_TOKENS; i++)
        vocab_put_u32(file, i == UNK               ? TERN_TOKEN_UNKNOWN
                            : i < BYTE_0           ? TERN_TOKEN_CONTROL
                            : i >= PIECE_0         ? (uint32_t)pieces[i - PIECE_0].type
                            : i - BYTE_0 < n_bytes ? TERN_TOKEN_BYTE
                                                   : TERN_TOKEN_CONTROL);
    vocab_key_array(file, SCORES, TERN_GGUF_F32, n_scores);
    for (size_t i = 0; i < n_scores; i++) {
        const float score = i < PIECE_0 ? first_score : pieces[i - PIECE_0].score;
        vocab_put(file, &score, sizeof score);
    }
}

static loaded load_spm(bool space_prefix) {
    vocab_file file = {.n = 0};
    put_vocabulary(&file, TERN_BYTES, N_TOKENS, 0);
    vocab_key_bool(&file, "tokenizer.ggml.add_space_prefix", space_prefix);
    return load_file(&file);
}

static void the_highest_score_merges_first_and_the_leftmost_of_equals(void **state) {
    (void)state;
    loaded l = load_spm(true), bare = load_spm(false);
    EXPECT_IDS(l.tok, "ab", false, SPACE_A, B);
    EXPECT_IDS(bare.tok, "ab", false, AB);
    EXPECT_IDS(bare.tok, "aba", false, AB, A); // "ab" and "ba" score alike
    EXPECT_IDS(bare.tok, "bab", false, BA, B);
    EXPECT_IDS(bare.tok, " a", false, SPACE_A);
    EXPECT_IDS(bare.tok, "\u2581a", false, SPACE_A);
    EXPECT_IDS(bare.tok, "\u00e9b", false, E_B); // of a character that is no token
    EXPECT_IDS(bare.tok, "\u00e9", false, BYTE_0 + 0xC3, BYTE_0 + 0xA9);
    EXPECT_IDS(bare.tok, "\xff\xc3", false, BYTE_0 + 0xFF, BYTE_0 + 0xC3); // no UTF-8
    EXPECT_IDS(bare.tok, "<s>", false, BYTE_0 + '<', BYTE_0 + 's', BYTE_0 + '>');
    unload(&l);
    unload(&bare);
}

static void a_space_is_added_at_the_start_and_after_control_tokens(void **state) {
    (void)state;
    loaded l = load_spm(true);
    EXPECT_IDS(l.tok, "<t>a", false, SPACE, USER, A);
    EXPECT_IDS(l.tok, "a<t>a", false, SPACE_A, USER, A);
    EXPECT_IDS(l.tok, "<c>a<c><c>a", true, CONTROL, SPACE_A, CONTROL, CONTROL, SPACE_A);
    EXPECT_IDS(l.tok, "a<c>", true, SPACE_A, CONTROL);
    ids empty = encode(l.tok, "", 0, false);
    assert_int_equal(empty.n, 0);
    free(empty.data);
    unload(&l);
}

static void bos_is_added_unless_the_file_says_otherwise(void **state) {
    (void)state;
    loaded l = load_spm(true);
    int32_t got[4];
    size_t n;
    assert_int_equal(tern_tokenizer_encode(l.tok, "a", 1, false, true, got, 4, &n), TERN_OK);
    assert_int_equal(n, 2);
    assert_int_equal(got[0], BOS);
    assert_true(tern_tokenizer_is_end(l.tok, EOS));
    assert_string_equal(tern_tokenizer_name(l.tok), "llama");
    unload(&l);
}

static void random_bytes_survive(void **state) {
    (void)state;
    loaded l = load_spm(false);
    for (int round = 0; round < 2000; round++) {
        char text[96];
        const size_t n = random_below(sizeof text);
        for (size_t i = 0; i < n; i++)
            text[i] = (char)(random_below(3) ? "ab \xc3\xa9<t>"[random_below(8)] : (int)random_below(256));
        expect_round_trip(l.tok, text, n, false);
    }
    unload(&l);
}

static void a_byte_without_a_token_is_refused_and_not_lost(void **state) {
    (void)state;
    vocab_file file = {.n = 0};
    put_vocabulary(&file, 0x80, N_TOKENS, 0);
    loaded l = load_file(&file);
    int32_t got[8];
    size_t n;
    assert_int_equal(tern_tokenizer_encode(l.tok, "\u00e9", 2, false, false, got, 8, &n), TERN_ERR_UNSUPPORTED);
    unload(&l);
}

static void damaged_scores_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t n_scores;
        float first;
        const char *message;
    } cases[] = {{N_TOKENS - 1, 0, "must be an array of"}, {N_TOKENS, NAN, "scores[0] is not a finite number"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vocab_file file = {.n = 0};
        put_vocabulary(&file, TERN_BYTES, cases[i].n_scores, cases[i].first);
        tern_error err = {""};
        tern_gguf *gguf = vocab_open(&file, &err);
        assert_non_null(gguf);
        tern_tokenizer *tok = NULL;
        assert_int_equal(tern_tokenizer_create(&tok, gguf, &tern_default_allocator, &err), TERN_ERR_FORMAT);
        assert_non_null(strstr(err.text, cases[i].message));
        tern_gguf_close(gguf);
    }
}

// Every way of cutting a token in two is looked up, so one of a megabyte would take hours.
static void a_token_longer_than_any_that_is_trained_is_refused(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE);
    assert_non_null(text);
    memset(text, 'a', SIZE);
    vocab_file file = {.n = 0};
    vocab_key_string(&file, "tokenizer.ggml.model", "llama");
    vocab_key_array(&file, TOKENS, TERN_GGUF_STRING, 2);
    vocab_put_text(&file, "<s>", 3);
    vocab_put_text(&file, text, SIZE);
    vocab_key_array(&file, TYPES, TERN_GGUF_I32, 2);
    vocab_put_u32(&file, TERN_TOKEN_CONTROL);
    vocab_put_u32(&file, TERN_TOKEN_NORMAL);
    vocab_key_array(&file, SCORES, TERN_GGUF_F32, 2);
    for (int i = 0; i < 2; i++) vocab_put_u32(&file, 0);
    tern_error err = {""};
    tern_gguf *gguf = vocab_open(&file, &err);
    assert_non_null(gguf);
    tern_tokenizer *tok = NULL;
    assert_int_equal(tern_tokenizer_create(&tok, gguf, &tern_default_allocator, &err), TERN_ERR_FORMAT);
    assert_non_null(strstr(err.text, "tokens[1] has 1048576 bytes"));
    tern_gguf_close(gguf);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_those_of_sentencepiece),
        cmocka_unit_test(the_highest_score_merges_first_and_the_leftmost_of_equals),
        cmocka_unit_test(a_space_is_added_at_the_start_and_after_control_tokens),
        cmocka_unit_test(bos_is_added_unless_the_file_says_otherwise),
        cmocka_unit_test(random_bytes_survive),
        cmocka_unit_test(a_byte_without_a_token_is_refused_and_not_lost),
        cmocka_unit_test(damaged_scores_are_refused),
        cmocka_unit_test(a_token_longer_than_any_that_is_trained_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
