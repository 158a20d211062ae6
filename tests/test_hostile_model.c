// SPDX-License-Identifier: MIT
// Randomly damaged model files through the public API: each is refused with a message that names the file, or decodes. What is wrong
// on purpose is test_bad_models.py's.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tern/decode.h"

enum { FLIPS = 500, HEADER = 12000 };

static tern_context *ctx;
static unsigned char *good;
static size_t good_size;
static char path[] = "/tmp/tern-hostile-XXXXXX";
static uint64_t state;

static size_t random_below(size_t n) { // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (size_t)((state * 0x2545F4914F6CDD1Dull >> 11) % n);
}

static void write_file(const unsigned char *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

// Loads the file and, if that works, writes a few tokens with it. Returns the status; a refusal must have named the file.
static tern_status try_file(void) {
    tern_model *model = NULL;
    tern_session *session = NULL;
    tern_status status = tern_model_load(ctx, &model, path, NULL);
    const tern_session_params sp = {.struct_size = sizeof sp, .n_ctx = 8};
    if (status == TERN_OK) status = tern_session_create(model, &session, &sp);
    if (status == TERN_OK) {
        const char text[] = "Hello <|im_start|> \xff world 123";
        int32_t tokens[64];
        size_t n = 0;
        const tern_tokenize_params tp = {sizeof tp, 1, 1};
        if (tern_tokenize(model, text, sizeof text - 1, &tp, tokens, 64, &n) != TERN_OK || n == 0) {
            n = 1;
            tokens[0] = 0;
        }
        for (size_t i = 0; i < n && i < 4 && status == TERN_OK; i++) {
            const char *bytes = NULL;
            size_t size = 0;
            (void)tern_token_bytes(model, tokens[i], 1, &bytes, &size);
            status = tern_decode_batch(model, &session, &tokens[i], 1);
        }
    }
    if (status != TERN_OK) {
        const char *message = tern_context_error(ctx);
        if (!*message || strchr(message, '\n')) fail_msg("status %d with the message \"%s\"", (int)status, message);
    } else {
        assert_non_null(tern_session_logits(session));
    }
    if (status == TERN_ERR_FORMAT || status == TERN_ERR_IO) assert_non_null(strstr(tern_context_error(ctx), path));
    tern_session_destroy(session);
    tern_model_destroy(model);
    return status;
}

static void the_untouched_model_decodes(void **unused) {
    (void)unused;
    write_file(good, good_size);
    assert_int_equal(try_file(), TERN_OK);
}

static void flipped_bytes_never_crash_hang_or_pass_in_silence(void **unused) {
    (void)unused;
    unsigned char *bad = malloc(good_size);
    assert_non_null(bad);
    size_t refused = 0;
    for (size_t i = 0; i < FLIPS; i++) {
        memcpy(bad, good, good_size);
        const size_t span = i % 4 ? HEADER : good_size; // metadata and tensor table hold most of what can go wrong
        for (size_t flips = 1 + random_below(3); flips > 0; flips--)
            bad[random_below(span)] ^= (unsigned char)(1 + random_below(255));
        write_file(bad, good_size);
        refused += try_file() != TERN_OK;
    }
    print_message("%zu of %d damaged files were refused\n", refused, FLIPS);
    assert_true(refused > FLIPS / 20);
    free(bad);
}

static void truncated_models_are_refused(void **unused) {
    (void)unused;
    for (size_t i = 0; i < 60; i++) {
        write_file(good, i < 20 ? i : random_below(good_size));
        assert_int_not_equal(try_file(), TERN_OK);
    }
}

static int set_up(void **unused) {
    (void)unused;
    const char *given = getenv("TERN_TEST_SEED");
    state = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    if (state == 0) state = 1;
    print_message("TERN_TEST_SEED=%llu\n", (unsigned long long)state);
    const int fd = mkstemp(path);
    if (fd < 0) return -1;
    FILE *f = fopen(TERN_TEST_MODELS "/tiny-tq2_0.gguf", "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) return -1;
    good_size = (size_t)ftell(f);
    rewind(f);
    good = malloc(good_size);
    if (!good || fread(good, 1, good_size, f) != good_size) return -1;
    fclose(f);
    const tern_context_params params = {.struct_size = sizeof params, .threads = 1};
    return tern_context_create(&ctx, &params) == TERN_OK ? 0 : -1;
}

static int tear_down(void **unused) {
    (void)unused;
    tern_context_destroy(ctx);
    free(good);
    return remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_untouched_model_decodes),
        cmocka_unit_test(flipped_bytes_never_crash_hang_or_pass_in_silence),
        cmocka_unit_test(truncated_models_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
