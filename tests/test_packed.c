// SPDX-License-Identifier: MIT
// Packed models: the same logits as from the GGUF file, used in the file's pages and copied; damaged and foreign files are
// refused with what to do, or decode without leaving their bytes.
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "decode/packed_format.h"
#include "tern/decode.h"
#include "tern/diagnostics.h"
#include "test_random.h"
#include "test_scale.h"

enum { PROMPT = 20, STEPS = 4, CTX = 64, VOCAB_MAX = 512, FLIPS = 400, PATH_MAX_TEST = 128 };

static char folder[] = "/tmp/tern-packed-XXXXXX";
static char packed_path[PATH_MAX_TEST]; // of tiny-tq2_0, by one thread
static unsigned char *good;
static size_t good_size;

static const char *in_folder(const char *name, char path[PATH_MAX_TEST]) {
    (void)snprintf(path, PATH_MAX_TEST, "%s/%s", folder, name);
    return path;
}

static tern_context *context_of(const char *tier, int threads) {
    tern_context *ctx = NULL;
    const tern_context_params params = {.struct_size = sizeof params, .isa = tier, .threads = threads, .tune = "off"};
    const tern_status status = tern_context_create(&ctx, &params);
    if (status != TERN_ERR_CPU) assert_int_equal(status, TERN_OK);
    return ctx; // NULL: a CPU without that tier
}

// Logits after a prompt and of some steps, all of them.
static tern_status decode(tern_context *ctx, const char *path, const tern_model_params *params, float *logits) {
    tern_model *model = NULL;
    tern_session *session = NULL;
    tern_status status = tern_model_load(ctx, &model, path, params);
    tern_model_info info = {.struct_size = sizeof info};
    const tern_session_params sp = {.struct_size = sizeof sp, .n_ctx = CTX};
    if (status == TERN_OK) status = tern_session_create(model, &session, &sp);
    if (status == TERN_OK) status = tern_model_get_info(model, &info);
    int32_t tokens[PROMPT + STEPS];
    for (int i = 0; i < PROMPT + STEPS; i++) tokens[i] = (i * 31 + 5) % 300;
    if (status == TERN_OK && info.n_vocab <= VOCAB_MAX) {
        status = tern_decode_logits(model, session, tokens, PROMPT, logits, VOCAB_MAX);
        for (size_t i = PROMPT; status == TERN_OK && i < PROMPT + STEPS; i++)
            status = tern_decode_logits(model, session, tokens + i, 1, logits + i * VOCAB_MAX, VOCAB_MAX);
    }
    tern_session_destroy(session);
    tern_model_destroy(model);
    return status;
}

static void save(tern_context *ctx, const char *from, const char *to, const tern_model_params *params) {
    tern_model *model = NULL;
    if (tern_model_load(ctx, &model, from, params) != TERN_OK || tern_model_save(model, to) != TERN_OK)
        fail_msg("%s: %s", from, tern_context_error(ctx));
    tern_model_destroy(model);
}

// ---- the same bits ------------------------------------------------------------------------------------------------------

static float want[(PROMPT + STEPS) * VOCAB_MAX], got[(PROMPT + STEPS) * VOCAB_MAX];

static void check_same(tern_context *ctx, const char *name, const tern_model_params *params) {
    char from[PATH_MAX_TEST], to[PATH_MAX_TEST];
    (void)snprintf(from, sizeof from, "%s/%s.gguf", TERN_TEST_MODELS, name);
    save(ctx, from, in_folder("same.tern", to), params);
    assert_int_equal(tern_packed_check(ctx, to), TERN_OK);
    memset(want, 0, sizeof want);
    if (decode(ctx, from, params, want) != TERN_OK) fail_msg("%s: %s", name, tern_context_error(ctx));
    for (int load = TERN_LOAD_AUTO; load <= TERN_LOAD_COPY; load++) {
        tern_model_params p = params ? *params : (tern_model_params){.struct_size = sizeof p};
        p.load = (tern_load)load;
        memset(got, 0, sizeof got);
        if (decode(ctx, to, &p, got) != TERN_OK) fail_msg("%s: %s", name, tern_context_error(ctx));
        if (memcmp(got, want, sizeof got) != 0) fail_msg("%s with load %d differs", name, load);
    }
    memset(got, 0, sizeof got);
    if (decode(ctx, to, NULL, got) != TERN_OK) fail_msg("%s: %s", name, tern_context_error(ctx));
    if (memcmp(got, want, sizeof got) != 0) fail_msg("%s does not keep its forms", name);
}

static void packed_models_have_the_same_logits(void **unused) {
    (void)unused;
    static const char *const models[] = {"tiny-tq2_0",  "tiny-gqa-q8_0", "tiny-head-f16", "tiny-head-f32",
                                         "tiny-scales", "tiny-fused",    "tiny-biases"};
    static const char *const tiers[] = {"scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi"};
    for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++)
        for (int threads = 1; threads <= 2; threads++) {
            tern_context *ctx = context_of(tiers[t], threads);
            for (size_t i = 0; ctx && i < sizeof models / sizeof *models; i++) {
                const tern_model_params lut = {.struct_size = sizeof lut, .form = TERN_FORM_LUT};
                check_same(ctx, models[i], NULL);
                if (i == 0) check_same(ctx, models[i], &lut);
                const tern_model_params blocks = {.struct_size = sizeof blocks, .act_block = 64};
                if (i < 2) check_same(ctx, models[i], &blocks);
            }
            tern_context_destroy(ctx);
        }
}

static void every_form_of_the_head_is_kept(void **unused) {
    (void)unused;
    tern_context *ctx = context_of(NULL, 2);
    for (int head = TERN_HEAD_EXACT; head <= TERN_HEAD_INT6; head++) {
        const tern_model_params p = {.struct_size = sizeof p, .head = (tern_head_form)head};
        check_same(ctx, "tiny-head-f16", &p); // a matrix of its own
        check_same(ctx, "tiny-scales", &p);   // tied
    }
    tern_context_destroy(ctx);
}

static void the_facts_of_a_model_survive(void **unused) {
    (void)unused;
    tern_context *ctx = context_of(NULL, 1);
    tern_model *model = NULL, *packed = NULL;
    assert_int_equal(tern_model_load(ctx, &model, TERN_TEST_MODELS "/tiny-tq2_0.gguf", NULL), TERN_OK);
    assert_int_equal(tern_model_load(ctx, &packed, packed_path, NULL), TERN_OK);
    tern_model_info a = {.struct_size = sizeof a}, b = {.struct_size = sizeof b};
    assert_int_equal(tern_model_get_info(model, &a), TERN_OK);
    assert_int_equal(tern_model_get_info(packed, &b), TERN_OK);
    assert_string_equal(a.name, b.name);
    assert_string_equal(a.head, b.head);
    assert_true(a.n_params == b.n_params && a.bytes_per_token == b.bytes_per_token && a.n_ternary == b.n_ternary);
    assert_true(b.file_bytes == good_size);
    assert_null(a.packed_tier);
    assert_string_not_equal(b.packed_tier, "");
    assert_int_equal(b.packed_threads, 1);
    size_t n_ternary = 0;
    tern_tensor_info t = {.struct_size = sizeof t};
    for (size_t i = 0; tern_model_get_tensor(packed, i, &t) == TERN_OK; i++)
        n_ternary += t.name_size > 4 && memcmp(t.name, "blk.", 4) == 0 && t.n_dims == 2;
    assert_int_equal(n_ternary, a.n_ternary);
    tern_model_destroy(packed);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
}

// ---- files that are not as they were written ------------------------------------------------------------------------------

static tern_context *one; // of one thread
static char bad_path[PATH_MAX_TEST];

static void write_file(const char *path, const unsigned char *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

// Decodes what may be anything. A refusal names the file.
static tern_status try_bytes(const unsigned char *bytes, size_t size, tern_load load) {
    const tern_model_params p = {.struct_size = sizeof p, .load = load};
    write_file(bad_path, bytes, size);
    const tern_status status = decode(one, bad_path, &p, got);
    if (status != TERN_OK) {
        const char *message = tern_context_error(one);
        if (!strstr(message, bad_path) || strchr(message, '\n'))
            if (status != TERN_ERR_FORMAT || !strstr(message, "NaN")) fail_msg("status %d: \"%s\"", (int)status, message);
    }
    return status;
}

static void expect_refusal(const unsigned char *bytes, size_t size, tern_load load, tern_status status, const char *says) {
    assert_int_equal(try_bytes(bytes, size, load), status);
    if (!strstr(tern_context_error(one), says)) fail_msg("\"%s\" does not say \"%s\"", tern_context_error(one), says);
}

static unsigned char *copy_of_good(void) {
    unsigned char *bad = malloc(good_size);
    assert_non_null(bad);
    memcpy(bad, good, good_size);
    return bad;
}

// Makes the checksums of header and index true again, wherever the header says that they are.
static void sign(unsigned char *bytes) {
    tern_packed_header h;
    memcpy(&h, bytes, sizeof h);
    if (h.index_bytes <= good_size - TERN_PACKED_INDEX_AT)
        h.index_sum = tern_checksum(bytes + TERN_PACKED_INDEX_AT, (size_t)h.index_bytes);
    h.header_sum = tern_checksum(&h, offsetof(tern_packed_header, header_sum));
    memcpy(bytes, &h, sizeof h);
}

static void truncated_files_are_refused(void **unused) {
    (void)unused;
    for (size_t i = 0; i < 80; i++) {
        const size_t size = i < 20 ? i : i < 40 ? good_size - 1 - (i - 20) * 1000 : random_below(good_size);
        assert_int_not_equal(try_bytes(good, size, i % 2 ? TERN_LOAD_MAP : TERN_LOAD_COPY), TERN_OK);
    }
}

static void each_flipped_byte_is_found_where_it_is_promised(void **unused) {
    (void)unused;
    tern_packed_header h;
    memcpy(&h, good, sizeof h);
    unsigned char *bad = copy_of_good();
    const size_t always[][2] = {{TERN_PACKED_MAGIC_BYTES, sizeof h},
                                {TERN_PACKED_INDEX_AT, TERN_PACKED_INDEX_AT + (size_t)h.index_bytes},
                                {(size_t)h.gguf_offset, (size_t)(h.gguf_offset + h.small_bytes)},
                                {(size_t)h.gguf_offset, good_size}}; // the last one: by copying or verifying
    test_begin_group();
    for (size_t i = 0; i < FLIPS; i++) {
        const size_t *range = always[i % 4];
        const size_t at = range[0] + random_below(range[1] - range[0]);
        if (!test_takes_case(next_random())) continue;
        bad[at] ^= (unsigned char)(1 + random_below(255));
        const tern_status status = try_bytes(bad, good_size, TERN_LOAD_MAP);
        if (i % 4 < 3) assert_int_not_equal(status, TERN_OK);
        assert_int_not_equal(tern_packed_check(one, bad_path), TERN_OK);
        if (at >= h.data_offset) expect_refusal(bad, good_size, TERN_LOAD_COPY, TERN_ERR_FORMAT, "tern pack");
        bad[at] = good[at];
    }
    free(bad);
}

static void damaged_weights_are_named(void **unused) {
    (void)unused;
    tern_packed_header h;
    memcpy(&h, good, sizeof h);
    unsigned char *bad = copy_of_good();
    bad[h.data_offset] ^= 1;
    expect_refusal(bad, good_size, TERN_LOAD_COPY, TERN_ERR_FORMAT, "blk.0.q");
    assert_int_equal(tern_packed_check(one, bad_path), TERN_ERR_FORMAT);
    assert_non_null(strstr(tern_context_error(one), "blk.0.q"));
    free(bad);
}

// Headers, sections and GGUF parts that lie, with checksums that are right.
static void lies_with_true_checksums_never_leave_the_file(void **unused) {
    (void)unused;
    tern_packed_header h;
    memcpy(&h, good, sizeof h);
    unsigned char *bad = copy_of_good();
    size_t refused = 0, rounds = 0;
    test_begin_group();
    for (size_t i = 0; i < FLIPS; i++) {
        if (!test_takes_case(next_random())) continue;
        rounds++;
        const size_t sections = (size_t)h.n_sections * sizeof(tern_packed_section);
        const size_t at = i % 3 == 0   ? TERN_PACKED_MAGIC_BYTES + random_below(sizeof h - TERN_PACKED_MAGIC_BYTES)
                          : i % 3 == 1 ? TERN_PACKED_INDEX_AT + random_below(sections)
                                       : (size_t)h.gguf_offset + random_below((size_t)h.small_bytes);
        memcpy(bad, good, good_size);
        bad[at] = (unsigned char)(random_below(2) ? next_random() : bad[at] ^ (1u << random_below(8)));
        const size_t chunk = i % 3 == 2 ? (at - (size_t)h.gguf_offset) / TERN_PACKED_CHUNK : 0;
        const size_t start = (size_t)h.gguf_offset + chunk * TERN_PACKED_CHUNK;
        const size_t left = good_size - start;
        const uint64_t sum = tern_checksum(bad + start, left < TERN_PACKED_CHUNK ? left : TERN_PACKED_CHUNK);
        memcpy(bad + TERN_PACKED_INDEX_AT + sections + chunk * sizeof sum, &sum, sizeof sum);
        sign(bad);
        refused += try_bytes(bad, good_size, i % 2 ? TERN_LOAD_MAP : TERN_LOAD_COPY) != TERN_OK;
    }
    print_message("%zu of %zu lying files were refused\n", refused, rounds);
    free(bad);
}

static size_t section_at(const unsigned char *bytes, const char *name) {
    tern_packed_header h;
    tern_packed_section s;
    memcpy(&h, bytes, sizeof h);
    for (size_t i = 0; i < h.n_sections; i++) {
        memcpy(&s, bytes + TERN_PACKED_INDEX_AT + i * sizeof s, sizeof s);
        if (strcmp(s.name, name) == 0) return (size_t)(h.data_offset + s.offset);
    }
    fail_msg("no section %s", name);
    return 0;
}

// Mapped weights are not verified.
static void an_order_of_the_head_that_is_none_is_refused(void **unused) {
    (void)unused;
    const size_t at = section_at(good, "head.order");
    unsigned char *bad = copy_of_good();
    const uint32_t far = 1U << 20;
    memcpy(bad + at, &far, sizeof far);
    expect_refusal(bad, good_size, TERN_LOAD_MAP, TERN_ERR_FORMAT, "head.order");
    memcpy(bad + at, good + at + sizeof far, sizeof far); // one column twice
    expect_refusal(bad, good_size, TERN_LOAD_MAP, TERN_ERR_FORMAT, "head.order");
    free(bad);
}

// They are printed.
static void names_of_tier_and_version_are_words(void **unused) {
    (void)unused;
    static const char *const texts[] = {"a tier of 16 byt", "0123456789abcdef", "\033[2J", ""};
    unsigned char *bad = copy_of_good();
    tern_packed_header h;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        memcpy(&h, good, sizeof h);
        (void)memset(i % 2 ? h.tier : h.tern_version, 0, TERN_PACKED_WORD_MAX);
        memcpy(i % 2 ? h.tier : h.tern_version, texts[i], strlen(texts[i]));
        memcpy(bad, &h, sizeof h);
        sign(bad);
        expect_refusal(bad, good_size, TERN_LOAD_AUTO, TERN_ERR_FORMAT, "its header");
    }
    free(bad);
}

static void other_formats_tiers_and_forms_are_refused_with_the_remedy(void **unused) {
    (void)unused;
    tern_packed_header h;
    unsigned char *bad = copy_of_good();
    memcpy(&h, good, sizeof h);
    h.version = TERN_PACKED_VERSION + 1;
    memcpy(bad, &h, sizeof h);
    sign(bad);
    expect_refusal(bad, good_size, TERN_LOAD_AUTO, TERN_ERR_UNSUPPORTED, "tern pack");
    // Where the layout of a matrix has no vector kernels: the message says which tier the file is for.
    tern_context *avx2 = context_of("avx2", 1);
    memcpy(&h, good, sizeof h);
    memcpy(h.tier, "avx512vbmi", sizeof "avx512vbmi");
    tern_packed_section s;
    memcpy(bad, &h, sizeof h);
    memcpy(&s, bad + TERN_PACKED_INDEX_AT, sizeof s);
    memcpy(s.form.layout, "t5\0\0", 4);
    s.form.unit_rows = 64;
    memcpy(bad + TERN_PACKED_INDEX_AT, &s, sizeof s);
    sign(bad);
    write_file(bad_path, bad, good_size);
    if (avx2) {
        assert_int_equal(decode(avx2, bad_path, NULL, got), TERN_ERR_UNSUPPORTED);
        assert_non_null(strstr(tern_context_error(avx2), "avx512vbmi"));
        assert_non_null(strstr(tern_context_error(avx2), "tern pack"));
    }
    tern_context_destroy(avx2);
    const tern_model_params head = {.struct_size = sizeof head, .head = TERN_HEAD_INT4},
                            form = {.struct_size = sizeof form, .form = TERN_FORM_LUT};
    assert_int_equal(decode(one, packed_path, &head, got), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(tern_context_error(one), "int4"));
    assert_int_equal(decode(one, packed_path, &form, got), TERN_ERR_UNSUPPORTED);
    const tern_model_params blocks = {.struct_size = sizeof blocks, .act_block = 64},
                            others = {.struct_size = sizeof others, .act_block = 32},
                            none = {.struct_size = sizeof none, .act_block = 48};
    assert_int_equal(decode(one, packed_path, &blocks, got), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(tern_context_error(one), "act-block 64"));
    assert_int_equal(decode(one, packed_path, &none, got), TERN_ERR_ARG);
    save(one, TERN_TEST_MODELS "/tiny-tq2_0.gguf", bad_path, &blocks);
    assert_int_equal(decode(one, bad_path, &others, got), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(tern_context_error(one), "tern pack"));
    assert_int_equal(decode(one, bad_path, NULL, got), TERN_OK); // as it was packed
    free(bad);
}

static void only_packed_models_are_mapped(void **unused) {
    (void)unused;
    const tern_model_params map = {.struct_size = sizeof map, .load = TERN_LOAD_MAP},
                            copy = {.struct_size = sizeof copy, .load = TERN_LOAD_COPY};
    assert_int_equal(decode(one, TERN_TEST_MODELS "/tiny-tq2_0.gguf", &map, got), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(tern_context_error(one), "tern pack"));
    assert_int_equal(decode(one, TERN_TEST_MODELS "/tiny-tq2_0.gguf", &copy, got), TERN_OK);
    assert_int_equal(tern_packed_check(one, TERN_TEST_MODELS "/tiny-tq2_0.gguf"), TERN_ERR_FORMAT);
}

// ---- writing --------------------------------------------------------------------------------------------------------------

static bool is_empty(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_nlink == 2 && rmdir(path) == 0 && mkdir(path, 0700) == 0;
}

static void a_file_that_cannot_be_written_leaves_nothing(void **unused) {
    (void)unused;
    char own[PATH_MAX_TEST], path[2 * PATH_MAX_TEST];
    assert_int_equal(mkdir(in_folder("full", own), 0700), 0);
    (void)snprintf(path, sizeof path, "%s/x.tern", own);
    tern_model *model = NULL;
    assert_int_equal(tern_model_load(one, &model, TERN_TEST_MODELS "/tiny-tq2_0.gguf", NULL), TERN_OK);
    assert_int_equal(tern_model_save(model, "/missing/folder/x.tern"), TERN_ERR_IO);
    assert_non_null(strstr(tern_context_error(one), "/missing/folder/x.tern"));
    // A limit of the file's size stands for a full disk.
    struct rlimit old, less;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    less = old;
    less.rlim_cur = 300000;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &less), 0);
    const tern_status status = tern_model_save(model, path);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, TERN_ERR_IO);
    assert_non_null(strstr(tern_context_error(one), path));
    assert_true(is_empty(own));
    const mode_t mask = umask(S_IWGRP | S_IRWXO);
    assert_int_equal(tern_model_save(model, path), TERN_OK);
    assert_int_equal(tern_model_save(model, path), TERN_OK); // a packed file is replaced
    assert_int_equal(umask(mask), S_IWGRP | S_IRWXO);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & (S_IRWXU | S_IRWXG | S_IRWXO), S_IRUSR | S_IWUSR | S_IRGRP); // as other programs' files
    tern_model_destroy(model);
    assert_int_equal(remove(path), 0);
    assert_true(is_empty(own));
}

static void what_is_no_packed_file_is_not_overwritten(void **unused) {
    (void)unused;
    char path[PATH_MAX_TEST];
    write_file(in_folder("mine.gguf", path), (const unsigned char *)"GGUF, or anything", 17);
    tern_model *model = NULL;
    assert_int_equal(tern_model_load(one, &model, TERN_TEST_MODELS "/tiny-tq2_0.gguf", NULL), TERN_OK);
    assert_int_equal(tern_model_save(model, path), TERN_ERR_IO);
    assert_int_equal(tern_model_save(model, "/dev/null"), TERN_ERR_IO);
    tern_model_destroy(model);
    assert_int_equal(tern_model_load(one, &model, packed_path, NULL), TERN_OK);
    assert_int_equal(tern_model_save(model, in_folder("again.tern", path)), TERN_ERR_UNSUPPORTED);
    tern_model_destroy(model);
}

static void a_cancelled_save_leaves_nothing(void **unused) {
    (void)unused;
    char own[PATH_MAX_TEST], path[2 * PATH_MAX_TEST];
    assert_int_equal(mkdir(in_folder("cancelled", own), 0700), 0);
    (void)snprintf(path, sizeof path, "%s/x.tern", own);
    tern_model *model = NULL;
    assert_int_equal(tern_model_load(one, &model, TERN_TEST_MODELS "/tiny-tq2_0.gguf", NULL), TERN_OK);
    tern_model_cancel_save(NULL);
    tern_model_cancel_save(model);
    assert_int_equal(tern_model_save(model, path), TERN_ERR_CANCELLED);
    assert_non_null(strstr(tern_context_error(one), path));
    tern_model_destroy(model);
    assert_true(is_empty(own));
}

static void a_target_can_be_checked_before_there_is_a_model(void **unused) {
    (void)unused;
    char path[PATH_MAX_TEST];
    assert_int_equal(tern_model_save_check(one, in_folder("new.tern", path)), TERN_OK);
    assert_int_equal(tern_model_save_check(one, packed_path), TERN_OK); // which may be replaced
    assert_int_equal(tern_model_save_check(one, "/missing/folder/x.tern"), TERN_ERR_IO);
    assert_non_null(strstr(tern_context_error(one), "/missing/folder/x.tern"));
    assert_int_equal(tern_model_save_check(one, TERN_TEST_MODELS "/tiny-tq2_0.gguf"), TERN_ERR_IO);
    assert_non_null(strstr(tern_context_error(one), "another name"));
    assert_int_equal(tern_model_save_check(one, folder), TERN_ERR_IO);
    char name[NAME_MAX + 2] = {0}; // which is not there, whatever its name would be
    memset(name, 'x', sizeof name - 1);
    assert_int_equal(tern_model_save_check(one, name), TERN_ERR_IO);
    assert_null(strstr(tern_context_error(one), "is there"));
    assert_int_equal(tern_model_save_check(one, ""), TERN_ERR_ARG);
    assert_int_equal(tern_model_save_check(one, NULL), TERN_ERR_ARG);
    assert_int_equal(tern_model_save_check(NULL, packed_path), TERN_ERR_ARG);
}

static int set_up(void **state) {
    if (start_random(state) || !mkdtemp(folder)) return -1;
    one = context_of(NULL, 1);
    in_folder("bad.tern", bad_path);
    save(one, TERN_TEST_MODELS "/tiny-tq2_0.gguf", in_folder("good.tern", packed_path), NULL);
    FILE *f = fopen(packed_path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) return -1;
    good_size = (size_t)ftell(f);
    rewind(f);
    good = malloc(good_size);
    return good && fread(good, 1, good_size, f) == good_size && fclose(f) == 0 ? 0 : -1;
}

static int tear_down(void **unused) {
    (void)unused;
    static const char *const names[] = {"bad.tern", "good.tern", "same.tern", "mine.gguf", "full", "cancelled"};
    tern_context_destroy(one);
    free(good);
    char path[PATH_MAX_TEST];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) (void)remove(in_folder(names[i], path));
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_models_have_the_same_logits),
        cmocka_unit_test(every_form_of_the_head_is_kept),
        cmocka_unit_test(the_facts_of_a_model_survive),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(each_flipped_byte_is_found_where_it_is_promised),
        cmocka_unit_test(damaged_weights_are_named),
        cmocka_unit_test(lies_with_true_checksums_never_leave_the_file),
        cmocka_unit_test(an_order_of_the_head_that_is_none_is_refused),
        cmocka_unit_test(names_of_tier_and_version_are_words),
        cmocka_unit_test(other_formats_tiers_and_forms_are_refused_with_the_remedy),
        cmocka_unit_test(only_packed_models_are_mapped),
        cmocka_unit_test(a_file_that_cannot_be_written_leaves_nothing),
        cmocka_unit_test(what_is_no_packed_file_is_not_overwritten),
        cmocka_unit_test(a_cancelled_save_leaves_nothing),
        cmocka_unit_test(a_target_can_be_checked_before_there_is_a_model),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
