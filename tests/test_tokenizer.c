// SPDX-License-Identifier: MIT
// The tokenizer: ids equal an independent implementation's, and every byte string survives.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hand_vocab.h"
#include "test_random.h"
#include "tokenizer_fixture.h"

// ---- Against an independent implementation ------------------------------------------------------------------------

static void ids_equal_those_of_the_reference_for_every_pre_tokenizer(void **state) {
    (void)state;
    const char *given = getenv("TERN_TOKENIZER_FIXTURE");
    expect_reference_ids(given ? given : TERN_TEST_DATA "/tokenizer.txt");
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
    assert_int_equal(tern_vocab_load(&vocab, l.gguf, TERN_TEXT_BYTE_LEVEL, &tern_default_allocator, NULL), TERN_OK);
    assert_int_equal(tern_bpe_load(&bpe, &vocab, l.gguf, &tern_default_allocator, NULL), TERN_OK);
    const char letters[] = "hello aaw";
    for (int round = 0; round < 20000; round++) {
        int32_t scan[TERN_BPE_SHORT], heap[TERN_BPE_SHORT];
        uint64_t scratch[8 * TERN_BPE_SHORT];
        const size_t n = random_below(TERN_BPE_SHORT + 1);
        assert_true(tern_bpe_scratch_bytes(n) <= sizeof scratch);
        for (size_t i = 0; i < n; i++) scan[i] = heap[i] = letters[random_below(sizeof letters - 1)];
        const size_t n_scan = tern_bpe_merge_short(&bpe, scan, n);
        assert_int_equal(n_scan, tern_bpe_merge_long(&bpe, heap, n, 1, scratch));
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
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
