// SPDX-License-Identifier: MIT
// The tokenizer refuses damaged metadata by name, and fails cleanly without memory.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hand_vocab.h"

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
    vocab_key_string(&file, "tokenizer.ggml.model", "t5");
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

static void tokens_without_text_may_occur_several_times(void **state) {
    (void)state;
    vocab_file file = without(TOKEN_LIST);
    vocab_key_array(&file, TOKENS, TERN_GGUF_STRING, N_HAND_TOKENS);
    for (size_t id = 0; id < N_HAND_TOKENS; id++) {
        if (id == TOOL || id == NO_MERGE)
            vocab_put_text(&file, "", 0);
        else
            put_hand_token(&file, id);
    }
    loaded l = load_file(&file);
    ids got = encode(l.tok, "he", 2, true);
    assert_int_equal(got.n, 1);
    assert_int_equal(got.data[0], HE);
    const char *bytes;
    size_t size = 1;
    assert_int_equal(tern_tokenizer_bytes(l.tok, TOOL, true, &bytes, &size), TERN_OK);
    assert_int_equal(size, 0);
    assert_int_equal(tern_tokenizer_find(l.tok, ""), -1);
    free(got.data);
    unload(&l);
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

// ---- Memory ------------------------------------------------------------------------------------------------------------

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
        cmocka_unit_test(missing_keys_are_refused_by_name),
        cmocka_unit_test(keys_of_another_type_are_refused_by_name),
        cmocka_unit_test(token_ids_out_of_range_are_refused_by_name),
        cmocka_unit_test(unknown_models_and_pre_tokenizers_are_unsupported),
        cmocka_unit_test(a_bitnet_model_without_a_pre_tokenizer_uses_that_of_llama_3),
        cmocka_unit_test(other_names_of_llama_3_are_known),
        cmocka_unit_test(prompts_that_begin_with_a_bos_the_file_lacks_are_refused),
        cmocka_unit_test(merges_outside_the_vocabulary_are_refused),
        cmocka_unit_test(duplicate_tokens_are_refused),
        cmocka_unit_test(tokens_without_text_may_occur_several_times),
        cmocka_unit_test(token_types_must_be_one_known_type_per_token),
        cmocka_unit_test(a_byte_the_vocabulary_lacks_is_an_error_not_a_loss),
        cmocka_unit_test(tokens_outside_the_byte_alphabet_stand_for_their_text),
        cmocka_unit_test(creation_without_memory_fails_cleanly_at_every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
