// SPDX-License-Identifier: MIT
// Sessions in files: what is restored goes on with the same bits; damaged, stale and foreign files are refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "decode_rig.h"
#include "test_random.h"

enum { CTX = 320, STEPS = 5, PATH_ROOM = 256 };
enum { DENSE = 256, STEP = 512 }; // of damage: every byte of the header, checksums and tokens, then some
static const tern_kv_type types[] = {TERN_KV_F16, TERN_KV_INT8};
enum { N_TYPES = 2 };

static char path[PATH_ROOM], folder[] = "/tmp/tern-session-XXXXXX";

static void set_up(rig *r, const char *file, tern_kv_type kv) {
    rig_open(r, file, 1);
    r->sessions[0] = new_session(r->model, kv, CTX);
}

static void check_same(const rig *r, const tern_session *a, const tern_session *b) {
    assert_int_equal(tern_session_length(a), tern_session_length(b));
    assert_memory_equal(tern_session_tokens(a), tern_session_tokens(b), tern_session_length(a) * sizeof(int32_t));
    assert_memory_equal(tern_session_logits(a), tern_session_logits(b), r->n_vocab * sizeof(float));
}

// ---- files --------------------------------------------------------------------------------------------------------

static unsigned char *read_file(size_t *size) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    *size = (size_t)st.st_size;
    unsigned char *bytes = malloc(*size);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, f), *size);
    (void)fclose(f);
    return bytes;
}

static void write_file(const unsigned char *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void refused(rig *r, tern_session *s, tern_status status, const char *remedy) {
    assert_int_equal(tern_session_restore(s, path), status);
    const char *message = tern_context_error(r->ctx);
    if (!strstr(message, path) || !strstr(message, remedy)) fail_msg("'%s' lacks the file's name or '%s'", message, remedy);
}

// ---- tests --------------------------------------------------------------------------------------------------------

static void a_restored_session_goes_on_with_the_same_bits(void **unused) {
    (void)unused;
    const size_t lengths[] = {1, 255, 256, 300};
    for (size_t m = 0; m < N_MODELS; m++)
        for (size_t t = 0; t < N_TYPES; t++) {
            rig r, later;
            set_up(&r, models[m], types[t]);
            append(&r, r.sessions[0], 0, CTX); // what is forgotten is not in the file, and does not come back
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                set_up(&later, models[m], types[t]);     // as in another process
                append(&later, later.sessions[0], 0, 7); // to be replaced
                tern_session_reset(r.sessions[0]);
                append(&r, r.sessions[0], 0, lengths[i]);
                assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
                if (tern_session_restore(later.sessions[0], path) != TERN_OK) fail_msg("%s", tern_context_error(later.ctx));
                assert_int_equal(tern_session_length(later.sessions[0]), lengths[i]);
                assert_null(tern_session_logits(later.sessions[0]));
                for (size_t j = 0; j < STEPS; j++) {
                    append(&r, r.sessions[0], 0, 1);
                    append(&later, later.sessions[0], 0, 1);
                    check_same(&r, r.sessions[0], later.sessions[0]);
                }
                rig_close(&later);
            }
            rig_close(&r);
        }
}

static void a_shorter_context_takes_the_first_tokens(void **unused) {
    (void)unused;
    for (size_t t = 0; t < N_TYPES; t++) {
        rig r;
        set_up(&r, models[1], types[t]);
        append(&r, r.sessions[0], 0, 300);
        assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
        const size_t sizes[] = {40, 256, 280};
        for (size_t i = 0; i < 3; i++) {
            tern_session *small = new_session(r.model, types[t], sizes[i]);
            assert_int_equal(tern_session_restore(small, path), TERN_OK);
            assert_int_equal(tern_session_length(small), sizes[i]);
            assert_int_equal(tern_session_truncate(small, sizes[i] - 3), TERN_OK);
            assert_int_equal(tern_session_truncate(r.sessions[0], sizes[i] - 3), TERN_OK);
            append(&r, small, 0, 3);
            append(&r, r.sessions[0], 0, 3);
            check_same(&r, r.sessions[0], small);
            tern_session_destroy(small);
            append(&r, r.sessions[0], 0, 300 - sizes[i]);
        }
        rig_close(&r);
    }
}

static void forgotten_tokens_are_not_in_the_file(void **unused) {
    (void)unused;
    for (size_t t = 0; t < N_TYPES; t++) {
        rig r;
        size_t size[2];
        unsigned char *bytes[2];
        for (size_t i = 0; i < 2; i++) {
            set_up(&r, models[1], types[t]);
            append(&r, r.sessions[0], 0, i ? 290 : 270);
            assert_int_equal(tern_session_truncate(r.sessions[0], 261), TERN_OK);
            assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
            bytes[i] = read_file(&size[i]);
            rig_close(&r);
        }
        assert_int_equal(size[0], size[1]);
        assert_memory_equal(bytes[0], bytes[1], size[0]);
        free(bytes[0]);
        free(bytes[1]);
    }
}

static void damaged_files_are_refused(void **unused) {
    (void)unused;
    for (size_t t = 0; t < N_TYPES; t++) {
        rig r;
        set_up(&r, models[0], types[t]);
        append(&r, r.sessions[0], 0, 9);
        assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
        size_t size;
        unsigned char *whole = read_file(&size), *bytes = malloc(size + 1);
        assert_non_null(bytes);
        for (size_t cut = 0; cut < size; cut += cut < DENSE ? 1 : 1 + random_below(STEP)) { // shortened
            write_file(whole, cut);
            refused(&r, r.sessions[0], TERN_ERR_FORMAT, cut < 56 ? "give the name of one" : "delete it");
        }
        for (size_t i = 0; i < size; i += i < DENSE ? 1 : 1 + random_below(STEP)) { // one byte is another
            memcpy(bytes, whole, size);
            bytes[i] ^= (unsigned char)(1 + random_below(255));
            write_file(bytes, size);
            const tern_status status = tern_session_restore(r.sessions[0], path);
            if (status != TERN_ERR_FORMAT && status != TERN_ERR_UNSUPPORTED) fail_msg("byte %zu: status %d", i, (int)status);
        }
        memcpy(bytes, whole, size);
        bytes[size] = 0;
        write_file(bytes, size + 1); // longer
        refused(&r, r.sessions[0], TERN_ERR_FORMAT, "delete it");
        assert_int_equal(tern_session_length(r.sessions[0]), 0); // and the session is still good
        append(&r, r.sessions[0], 0, 9);
        free(bytes);
        free(whole);
        rig_close(&r);
    }
}

// Offsets of the header's fields, which a hostile file has with right checksums.
enum { AT_VERSION = 8, AT_KV = 12, AT_FINGERPRINT = 16, AT_ROPE = 24, AT_TOKENS = 28, AT_BYTES = 32, AT_SUM = 48 };

static void a_hostile_header_with_a_right_checksum_is_refused(void **unused) {
    (void)unused;
    rig r;
    set_up(&r, models[0], TERN_KV_F16);
    append(&r, r.sessions[0], 0, 9);
    assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
    size_t size;
    unsigned char *whole = read_file(&size), *bytes = malloc(size);
    assert_non_null(bytes);
    const uint32_t counts[] = {0, 8, 10, 1 << 16, UINT32_MAX};
    const struct {
        size_t at;
        tern_status status;
    } fields[] = {{AT_VERSION, TERN_ERR_UNSUPPORTED}, {AT_KV, TERN_ERR_UNSUPPORTED}, {AT_FINGERPRINT, TERN_ERR_UNSUPPORTED},
                  {AT_ROPE, TERN_ERR_UNSUPPORTED},    {AT_TOKENS, TERN_ERR_FORMAT},  {AT_BYTES, TERN_ERR_FORMAT}};
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            memcpy(bytes, whole, size);
            memcpy(bytes + fields[f].at, &counts[i], sizeof counts[i]);
            const uint64_t sum = tern_checksum(bytes, AT_SUM);
            memcpy(bytes + AT_SUM, &sum, sizeof sum);
            if (memcmp(bytes, whole, size) == 0) continue; // the field was that
            write_file(bytes, size);
            assert_int_equal(tern_session_restore(r.sessions[0], path), fields[f].status);
        }
    free(bytes);
    free(whole);
    rig_close(&r);
}

// Random codes and scales, NaN and infinities among them, under right checksums: the bits of any forgery. What comes of them
// is nonsense or FORMAT, and stays within its buffers.
static void hostile_keys_and_values_with_right_checksums_do_no_harm(void **unused) {
    (void)unused;
    enum { LENGTH = 9, HEADER = 56, BLOCK = 256, AT_SUMS = 40, PARTS = 4 };
    rig r;
    set_up(&r, models[0], TERN_KV_INT8);
    append(&r, r.sessions[0], 0, LENGTH);
    assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
    tern_model_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_model_get_info(r.model, &info), TERN_OK);
    size_t size;
    unsigned char *bytes = read_file(&size);
    const size_t runs = (size_t)info.n_layers * info.n_kv_heads, codes = (size_t)BLOCK * info.head_dim;
    const size_t run_bytes[PARTS] = {codes, codes, LENGTH * sizeof(float), LENGTH * sizeof(float)};
    const size_t n_sums = 1 + PARTS * runs;
    uint64_t *sums = malloc(n_sums * sizeof *sums);
    assert_non_null(sums);
    memcpy(sums, bytes + HEADER, n_sums * sizeof *sums);
    size_t at = HEADER + n_sums * sizeof *sums + LENGTH * sizeof(int32_t), index = 1;
    for (size_t part = 0; part < PARTS; part++)
        for (size_t run = 0; run < runs; run++, at += run_bytes[part]) {
            for (size_t i = 0; i < run_bytes[part]; i++) bytes[at + i] = (unsigned char)random_below(256);
            sums[index++] = tern_checksum(bytes + at, run_bytes[part]);
        }
    assert_int_equal(at, size);
    memcpy(bytes + HEADER, sums, n_sums * sizeof *sums);
    uint64_t sum = tern_checksum(sums, n_sums * sizeof *sums);
    memcpy(bytes + AT_SUMS, &sum, sizeof sum);
    sum = tern_checksum(bytes, AT_SUM);
    memcpy(bytes + AT_SUM, &sum, sizeof sum);
    write_file(bytes, size);
    if (tern_session_restore(r.sessions[0], path) != TERN_OK) fail_msg("%s", tern_context_error(r.ctx));
    const int32_t token = token_at(&r, 0, LENGTH);
    const tern_status status = tern_decode_batch(r.model, &r.sessions[0], &token, 1);
    assert_true(status == TERN_OK || status == TERN_ERR_FORMAT);
    if (status != TERN_OK) assert_non_null(strstr(tern_context_error(r.ctx), "saved session"));
    free(sums);
    free(bytes);
    rig_close(&r);
}

static void files_of_another_model_or_type_are_refused_and_change_nothing(void **unused) {
    (void)unused;
    rig r, other;
    set_up(&r, models[0], TERN_KV_F16);
    set_up(&other, models[1], TERN_KV_F16);
    append(&r, r.sessions[0], 0, 20);
    append(&other, other.sessions[0], 0, 3);
    assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
    refused(&other, other.sessions[0], TERN_ERR_UNSUPPORTED, "another model");
    assert_int_equal(tern_session_length(other.sessions[0]), 3);
    assert_non_null(tern_session_logits(other.sessions[0]));
    tern_session *int8 = new_session(r.model, TERN_KV_INT8, CTX);
    refused(&r, int8, TERN_ERR_UNSUPPORTED, "int8");
    tern_session_destroy(int8);
    rig_close(&other);
    rig_close(&r);
}

static void a_file_of_another_model_with_more_tokens_is_not_called_damaged(void **unused) {
    (void)unused;
    enum { PIECES = 2 }; // of CTX tokens: more than the other model's context has
    rig r, other;
    set_up(&r, TERN_TEST_MODELS "/tiny-long.gguf", TERN_KV_F16);
    set_up(&other, models[0], TERN_KV_F16);
    tern_session *many = new_session(r.model, TERN_KV_F16, PIECES * CTX);
    for (size_t i = 0; i < PIECES; i++) append(&r, many, 0, CTX);
    assert_int_equal(tern_session_save(many, path), TERN_OK);
    refused(&other, other.sessions[0], TERN_ERR_UNSUPPORTED, "another model");
    tern_session_destroy(many);
    rig_close(&other);
    rig_close(&r);
}

static void the_form_of_the_head_makes_no_other_model(void **unused) {
    (void)unused;
    rig r;
    set_up(&r, models[1], TERN_KV_F16);
    append(&r, r.sessions[0], 0, 5);
    assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
    const tern_head_form forms[] = {TERN_HEAD_EXACT, TERN_HEAD_INT8, TERN_HEAD_INT4, TERN_HEAD_INT6};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const tern_model_params params = {.struct_size = sizeof params, .head = forms[i]};
        tern_model *model = NULL;
        assert_int_equal(tern_model_load(r.ctx, &model, models[1], &params), TERN_OK);
        tern_session *s = new_session(model, TERN_KV_F16, CTX);
        if (tern_session_restore(s, path) != TERN_OK) fail_msg("form %zu: %s", i, tern_context_error(r.ctx));
        tern_session_destroy(s);
        tern_model_destroy(model);
    }
    rig_close(&r);
}

// Keys and values depend on it, the model's file does not.
static void files_of_another_act_block_are_refused_with_its_name(void **unused) {
    (void)unused;
    rig r;
    set_up(&r, models[0], TERN_KV_F16);
    append(&r, r.sessions[0], 0, 5);
    assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
    const tern_model_params params = {.struct_size = sizeof params, .act_block = 64};
    rig other = {.ctx = r.ctx};
    assert_int_equal(tern_model_load(r.ctx, &other.model, models[0], &params), TERN_OK);
    tern_session *s = new_session(other.model, TERN_KV_F16, CTX);
    refused(&other, s, TERN_ERR_UNSUPPORTED, "act-block auto");
    other.n_vocab = r.n_vocab;
    append(&other, s, 0, 5);
    assert_int_equal(tern_session_save(s, path), TERN_OK);
    refused(&r, r.sessions[0], TERN_ERR_UNSUPPORTED, "act-block 64");
    tern_session_reset(s);
    assert_int_equal(tern_session_restore(s, path), TERN_OK);
    tern_session_destroy(s);
    tern_model_destroy(other.model);
    rig_close(&r);
}

// A model with LongRoPE, and its bytes with another factor on the rotated keys.
static void keys_that_are_rotated_otherwise_are_refused(void **unused) {
    (void)unused;
    enum { SHORT = 64, KEY_ROOM = 4, SMALLER = 0x3F000000 }; // a key's name is followed by its type; 0.5f
    static const char longrope[] = TERN_TEST_MODELS "/tiny-fused.gguf", key[] = "rope.scaling.attn_factor";
    rig r, other;
    set_up(&r, longrope, TERN_KV_F16);
    tern_session *small = new_session(r.model, TERN_KV_F16, SHORT);
    append(&r, small, 0, 5);
    assert_int_equal(tern_session_save(small, path), TERN_OK);
    refused(&r, r.sessions[0], TERN_ERR_UNSUPPORTED, "delete it, or choose such a context");

    char saved[PATH_ROOM], changed[PATH_ROOM];
    (void)snprintf(saved, sizeof saved, "%s", path);
    (void)snprintf(changed, sizeof changed, "%s/model", folder);
    (void)snprintf(path, sizeof path, "%s", longrope);
    size_t size, at = 0;
    unsigned char *bytes = read_file(&size);
    while (at + sizeof key < size && memcmp(bytes + at, key, sizeof key - 1) != 0) at++;
    assert_true(at + sizeof key < size);
    const uint32_t factor = SMALLER;
    memcpy(bytes + at + sizeof key - 1 + KEY_ROOM, &factor, sizeof factor);
    (void)snprintf(path, sizeof path, "%s", changed);
    write_file(bytes, size);
    free(bytes);
    (void)snprintf(path, sizeof path, "%s", saved);
    set_up(&other, changed, TERN_KV_F16);
    tern_session *otherwise = new_session(other.model, TERN_KV_F16, SHORT);
    refused(&other, otherwise, TERN_ERR_UNSUPPORTED, "another model");
    tern_session_destroy(otherwise);
    tern_session_destroy(small);
    rig_close(&other);
    rig_close(&r);
    assert_int_equal(unlink(changed), 0);
}

static void only_a_saved_session_is_replaced(void **unused) {
    (void)unused;
    rig r;
    set_up(&r, models[0], TERN_KV_F16);
    append(&r, r.sessions[0], 0, 2);
    assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & (S_IRWXG | S_IRWXO), 0);
    append(&r, r.sessions[0], 0, 2);
    assert_int_equal(tern_session_save(r.sessions[0], path), TERN_OK);
    char below[PATH_ROOM]; // where no file can be
    (void)snprintf(below, sizeof below, "%.200s/file", path);
    assert_int_equal(tern_session_save(r.sessions[0], below), TERN_ERR_IO);
    assert_non_null(strstr(tern_context_error(r.ctx), "Not a directory"));
    write_file((const unsigned char *)"my only copy", 12);
    assert_int_equal(tern_session_save(r.sessions[0], path), TERN_ERR_IO);
    refused(&r, r.sessions[0], TERN_ERR_FORMAT, "no saved session");
    assert_int_equal(tern_session_length(r.sessions[0]), 4); // as it was
    size_t size;
    unsigned char *bytes = read_file(&size);
    assert_int_equal(size, 12);
    free(bytes);
    assert_int_equal(unlink(path), 0);
    refused(&r, r.sessions[0], TERN_ERR_IO, "No such file");
    assert_int_equal(tern_session_save(r.sessions[0], folder), TERN_ERR_IO);
    assert_int_equal(tern_session_restore(r.sessions[0], folder), TERN_ERR_IO);
    assert_int_equal(tern_session_save(r.sessions[0], "/nowhere/at/all"), TERN_ERR_IO);
    assert_int_equal(tern_session_save(NULL, path), TERN_ERR_ARG);
    assert_int_equal(tern_session_save(r.sessions[0], NULL), TERN_ERR_ARG);
    assert_int_equal(tern_session_restore(NULL, path), TERN_ERR_ARG);
    assert_int_equal(tern_session_restore(r.sessions[0], ""), TERN_ERR_ARG);
    assert_null(tern_session_tokens(NULL));
    rig_close(&r);
}

static int make_folder(void **state) {
    if (start_random(state) != 0 || !mkdtemp(folder)) return -1;
    (void)snprintf(path, sizeof path, "%s/session", folder);
    return 0;
}

static int remove_folder(void **unused) {
    (void)unused;
    (void)unlink(path);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restored_session_goes_on_with_the_same_bits),
        cmocka_unit_test(a_shorter_context_takes_the_first_tokens),
        cmocka_unit_test(forgotten_tokens_are_not_in_the_file),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(a_hostile_header_with_a_right_checksum_is_refused),
        cmocka_unit_test(hostile_keys_and_values_with_right_checksums_do_no_harm),
        cmocka_unit_test(files_of_another_model_or_type_are_refused_and_change_nothing),
        cmocka_unit_test(a_file_of_another_model_with_more_tokens_is_not_called_damaged),
        cmocka_unit_test(the_form_of_the_head_makes_no_other_model),
        cmocka_unit_test(files_of_another_act_block_are_refused_with_its_name),
        cmocka_unit_test(keys_that_are_rotated_otherwise_are_refused),
        cmocka_unit_test(only_a_saved_session_is_replaced),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
