// SPDX-License-Identifier: MIT
// The GGUF reader on damaged and hostile files: each is refused with a message, or reads within the file; none crashes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "gguf_builder.h"
#include "gguf_walk.h"

static const char *const keys[] = {
    "general.architecture", "general.alignment", "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "f64", "flag", "q", "norm"};
enum { N_KEYS = sizeof keys / sizeof keys[0] };

// A small file with every kind of field.
static void put_model(builder *b) {
    put_header(b, 3, 6, 6);
    put_key(b, "general.architecture", TERN_GGUF_STRING), put_string(b, "llama");
    put_u32_entry(b, "general.alignment", BUILDER_ALIGNMENT);
    put_array(b, "tokenizer.ggml.tokens", TERN_GGUF_STRING, 4);
    put_string(b, "a"), put_string(b, "bc"), put_string(b, ""), put_string(b, "<|im_end|>");
    put_array(b, "tokenizer.ggml.scores", TERN_GGUF_F32, 4);
    put_data(b, 4 * sizeof(float));
    put_key(b, "f64", TERN_GGUF_F64), put_u64(b, 0x3ff0000000000000);
    put_key(b, "flag", TERN_GGUF_BOOL), put_u8(b, 1);
    put_tensor(b, "q", TERN_GGML_Q8_0, 32, 2, 0);
    put_tensor(b, "norm", TERN_GGML_F32, 8, 0, 96);
    put_tensor(b, "trits", TERN_GGML_TQ1_0, 256, 1, 128);
    put_tensor(b, "signs", TERN_GGML_Q1_0, 128, 1, 192);
    put_tensor(b, "levels", TERN_GGML_Q2_0, 256, 8, 224); // 576 bytes: blocks of 64
    put_tensor(b, "nibbles", TERN_GGML_Q4_K, 256, 1, 800);
    put_padding(b, BUILDER_ALIGNMENT);
    put_data(b, 800 + 144);
}

// The bytes must be refused with this status and a message that contains all of `part`.
static void expect_refused_bytes(const void *bytes, size_t size, tern_status status, const char *part) {
    tern_gguf *gguf = NULL;
    tern_error err = {{0}};
    const tern_status got = open_bytes(&gguf, bytes, size, &tern_default_allocator, &err);
    if (got != status || !strstr(err.text, part)) {
        fail_msg("status %d (expected %d), message \"%s\" (expected to contain \"%s\")", got, status, err.text, part);
    }
    assert_null(gguf);
    assert_non_null(strstr(err.text, "/proc/self/fd/")); // the message names the file
    assert_null(strchr(err.text, '\n'));
}
static void expect_refused(builder *b, tern_status status, const char *part) {
    expect_refused_bytes(b->data, b->size, status, part);
    builder_free(b);
}

// ---- Files ------------------------------------------------------------------------------------------------

static void expect_refused_path(const char *path, tern_status status, const char *part) {
    tern_gguf *gguf = NULL;
    tern_error err = {{0}};
    assert_int_equal(tern_gguf_open(&gguf, path, &tern_default_allocator, &err), status);
    assert_null(gguf);
    assert_non_null(strstr(err.text, path));
    if (!strstr(err.text, part)) fail_msg("\"%s\" lacks \"%s\"", err.text, part);
}

static void a_missing_file_a_folder_and_a_pipe_are_refused(void **state) {
    (void)state;
    char fifo[] = "/tmp/tern_test_gguf_XXXXXX";
    expect_refused_path("/nonexistent/model.gguf", TERN_ERR_IO, "No such file");
    expect_refused_path("/tmp", TERN_ERR_IO, "not a regular file");
    assert_non_null(mkdtemp(fifo));
    char path[sizeof fifo + sizeof "/pipe"];
    (void)snprintf(path, sizeof path, "%s/pipe", fifo);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refused_path(path, TERN_ERR_IO, "not a regular file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(fifo), 0);
}

static void an_empty_file_and_other_formats_are_refused(void **state) {
    (void)state;
    expect_refused_bytes("", 0, TERN_ERR_FORMAT, "empty");
    expect_refused_bytes("G", 1, TERN_ERR_FORMAT, "not a GGUF file");
    expect_refused_bytes("GGML....................", 24, TERN_ERR_FORMAT, "not a GGUF file");
    expect_refused_bytes("GGUF\3\0\0\0", 8, TERN_ERR_FORMAT, "too few");
}

static void other_versions_and_big_endian_files_are_unsupported(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 1, 0, 0);
    expect_refused(&b, TERN_ERR_UNSUPPORTED, "GGUF version 1, Tern reads versions 2 and 3");
    put_header(&b, 4, 0, 0);
    expect_refused(&b, TERN_ERR_UNSUPPORTED, "GGUF version 4");
    put_header(&b, 0x03000000, 0, 0);
    expect_refused(&b, TERN_ERR_UNSUPPORTED, "big-endian");
}

static void a_file_cut_at_any_byte_is_refused(void **state) {
    (void)state;
    builder b = {0};
    put_model(&b);
    for (size_t size = 0; size < b.size; size++) expect_refused_bytes(b.data, size, TERN_ERR_FORMAT, "");
    tern_gguf *gguf = NULL;
    tern_error err;
    assert_int_equal(open_bytes(&gguf, b.data, b.size, &tern_default_allocator, &err), TERN_OK); // and whole it is good
    assert_int_not_equal(walk_gguf(gguf, keys, N_KEYS), 0);
    tern_gguf_close(gguf);
    builder_free(&b);
}

// ---- Counts and lengths -----------------------------------------------------------------------------------

static void absurd_counts_are_refused(void **state) {
    (void)state;
    static const uint64_t counts[] = {1, 1 << 16, 1 << 20, (uint64_t)1 << 32, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        builder b = {0};
        put_header(&b, 3, counts[i], 0);
        put_data(&b, 20);
        expect_refused(&b, TERN_ERR_FORMAT, "tensors (limit");
        put_header(&b, 3, 0, counts[i]);
        put_data(&b, 13);
        expect_refused(&b, TERN_ERR_FORMAT, "metadata keys (limit");
    }
}

static void counts_above_the_limits_are_refused_however_long_the_file(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 0, (1 << 16) + 1);
    put_data(&b, 2 << 20);
    expect_refused(&b, TERN_ERR_FORMAT, "metadata keys (limit 65536");
    put_header(&b, 3, (1 << 18) + 1, 0);
    put_data(&b, 8 << 20);
    expect_refused(&b, TERN_ERR_FORMAT, "tensors (limit 262144");
}

static void strings_longer_than_the_file_are_refused(void **state) {
    (void)state;
    static const uint64_t lengths[] = {100, (uint64_t)1 << 31, (uint64_t)1 << 32, INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        builder b = {0};
        put_header(&b, 3, 0, 1); // a key
        put_u64(&b, lengths[i]), put_data(&b, 32);
        expect_refused(&b, TERN_ERR_FORMAT, "metadata key 1 of 1 runs past the end");
        put_header(&b, 3, 0, 1); // a value
        put_key(&b, "name", TERN_GGUF_STRING), put_u64(&b, lengths[i]), put_data(&b, 32);
        expect_refused(&b, TERN_ERR_FORMAT, "metadata key name runs past the end");
        put_header(&b, 3, 0, 1); // an element
        put_array(&b, "tokens", TERN_GGUF_STRING, 2), put_string(&b, "a"), put_u64(&b, lengths[i]), put_data(&b, 32);
        expect_refused(&b, TERN_ERR_FORMAT, "metadata key tokens runs past the end");
        put_header(&b, 3, 1, 0); // a tensor's name
        put_u64(&b, lengths[i]), put_data(&b, 32);
        expect_refused(&b, TERN_ERR_FORMAT, "tensor 1 of 1");
    }
}

static const uint8_t value_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}; // by tern_gguf_type; 0: string and array

static void arrays_longer_than_the_file_are_refused(void **state) {
    (void)state;
    enum { DATA = 64 };
    for (uint32_t type = TERN_GGUF_U8; type <= TERN_GGUF_F64; type++) {
        if (!value_bytes[type]) continue;
        const uint64_t fitting = DATA / value_bytes[type];
        const uint64_t counts[] = {fitting + 1,       DATA,      DATA + 1,  (uint64_t)1 << 32, (uint64_t)1 << 61,
                                   (uint64_t)1 << 62, INT64_MAX, UINT64_MAX};
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            if (counts[i] <= fitting) continue;
            builder b = {0};
            put_header(&b, 3, 0, 1);
            put_array(&b, "values", (tern_gguf_type)type, counts[i]);
            put_data(&b, DATA);
            expect_refused(&b, TERN_ERR_FORMAT, "metadata key values runs past the end");
        }
    }
}

static void a_false_string_count_is_refused_before_memory_is_taken(void **state) {
    (void)state;
    static const uint64_t counts[] = {9, 64, (uint64_t)1 << 40, (uint64_t)1 << 60, (uint64_t)1 << 61, UINT64_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        builder b = {0};
        put_header(&b, 3, 0, 1);
        put_array(&b, "tokens", TERN_GGUF_STRING, counts[i]);
        for (size_t n = 0; n < 8; n++) put_string(&b, "");
        expect_refused(&b, TERN_ERR_FORMAT, "metadata key tokens runs past the end");
    }
}

static void a_value_cut_at_the_very_end_is_refused(void **state) {
    (void)state;
    for (uint32_t type = TERN_GGUF_U8; type <= TERN_GGUF_F64; type++) {
        if (!value_bytes[type]) continue;
        builder b = {0};
        put_header(&b, 3, 0, 1);
        put_key(&b, "last", (tern_gguf_type)type);
        put_data(&b, value_bytes[type] - 1U);
        expect_refused(&b, TERN_ERR_FORMAT, "metadata key last runs past the end");
    }
}

// ---- Metadata ---------------------------------------------------------------------------------------------

static void undefined_value_types_and_nested_arrays_are_refused(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 0, 1);
    put_string(&b, "key"), put_u32(&b, 13), put_data(&b, 8);
    expect_refused(&b, TERN_ERR_FORMAT, "metadata key key has a value of type 13");
    put_header(&b, 3, 0, 1);
    put_array(&b, "key", (tern_gguf_type)99, 1), put_data(&b, 8);
    expect_refused(&b, TERN_ERR_FORMAT, "value of type 99");
    put_header(&b, 3, 0, 1);
    put_array(&b, "key", TERN_GGUF_ARRAY, 1), put_data(&b, 32);
    expect_refused(&b, TERN_ERR_UNSUPPORTED, "metadata key key is an array of arrays");
}

static void duplicate_and_empty_names_are_refused(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 0, 2);
    put_u32_entry(&b, "twin", 1), put_u32_entry(&b, "twin", 2);
    expect_refused(&b, TERN_ERR_FORMAT, "metadata key twin occurs twice");
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "twin", TERN_GGML_F32, 4, 0, 0), put_tensor(&b, "twin", TERN_GGML_F32, 4, 0, 32), put_data(&b, 96);
    expect_refused(&b, TERN_ERR_FORMAT, "tensor twin occurs twice");
    put_header(&b, 3, 0, 1);
    put_u32_entry(&b, "", 1), put_data(&b, 8);
    expect_refused(&b, TERN_ERR_FORMAT, "empty name");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "", TERN_GGML_F32, 4, 0, 0), put_data(&b, 96);
    expect_refused(&b, TERN_ERR_FORMAT, "no name");
}

static void bad_alignments_are_refused(void **state) {
    (void)state;
    static const uint32_t bad[] = {0, 1, 4, 24, 33, 0xffffffff};
    builder b = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_header(&b, 3, 0, 1);
        put_u32_entry(&b, "general.alignment", bad[i]);
        expect_refused(&b, TERN_ERR_FORMAT, "metadata key general.alignment is");
    }
    put_header(&b, 3, 0, 1);
    put_key(&b, "general.alignment", TERN_GGUF_STRING), put_string(&b, "32");
    expect_refused(&b, TERN_ERR_FORMAT, "not a 32-bit number");
    put_header(&b, 3, 0, 1);
    put_key(&b, "general.alignment", TERN_GGUF_U64), put_u64(&b, (uint64_t)1 << 63);
    expect_refused(&b, TERN_ERR_FORMAT, "not a 32-bit number");
}

static void an_alignment_beyond_the_file_is_refused_where_there_is_a_tensor(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 1, 1);
    put_u32_entry(&b, "general.alignment", 1U << 31);
    put_tensor(&b, "t", TERN_GGML_F32, 4, 0, 0);
    put_data(&b, 256);
    expect_refused(&b, TERN_ERR_FORMAT, "tensor t (16 bytes at 0) ends past the tensor data (0 bytes)");
}

static void hostile_names_are_shortened_and_made_printable(void **state) {
    (void)state;
    char name[400];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    memcpy(name, "\n\033[31m\t", 7);
    builder b = {0};
    put_header(&b, 3, 0, 1);
    put_array(&b, name, TERN_GGUF_ARRAY, 1), put_data(&b, 32);
    expect_refused(&b, TERN_ERR_UNSUPPORTED, "metadata key ??[31m?xxx");
}

// ---- Tensors ----------------------------------------------------------------------------------------------

// A file with one tensor of these fields and 1024 bytes of data.
static void expect_refused_tensor(uint32_t type, uint64_t k, uint64_t rows, uint64_t offset, const char *part) {
    builder b = {0};
    put_header(&b, 3, 1, 0);
    put_string(&b, "blk.0.attn_q.weight");
    put_u32(&b, 2);
    put_u64(&b, k), put_u64(&b, rows);
    put_u32(&b, type);
    put_u64(&b, offset);
    put_padding(&b, BUILDER_ALIGNMENT);
    put_data(&b, 1024);
    char want[200];
    (void)snprintf(want, sizeof want, "tensor blk.0.attn_q.weight %s", part);
    expect_refused(&b, TERN_ERR_FORMAT, want);
}

static void tensors_that_leave_the_file_are_refused(void **state) {
    (void)state;
    expect_refused_tensor(TERN_GGML_F32, 257, 1, 0, "(1028 bytes at 0) ends past the tensor data (1024 bytes)");
    expect_refused_tensor(TERN_GGML_F32, 128, 2, 32, "(1024 bytes at 32) ends past");
    expect_refused_tensor(TERN_GGML_F32, 1, 1, 1024, "(4 bytes at 1024) ends past");
    expect_refused_tensor(TERN_GGML_F32, 1, 1, UINT64_MAX - 31, "(4 bytes at 18446744073709551584) ends past");
    expect_refused_tensor(TERN_GGML_F32, 1, 1, (uint64_t)1 << 63, "(4 bytes at 9223372036854775808) ends past");
    // 4 * 2147483647 * 2147483649 = 2^64 - 4 bytes: the end wraps to 28
    expect_refused_tensor(TERN_GGML_F32, 2147483647, 2147483649, 32, "(18446744073709551612 bytes at 32) ends past");
    expect_refused_tensor(7777, 1, 1, 1024, "(0 bytes at 1024) ends past");
    expect_refused_tensor(38, 1, 1, (uint64_t)1 << 40, "(0 bytes at");
}

static void tensors_off_the_alignment_are_refused(void **state) {
    (void)state;
    expect_refused_tensor(TERN_GGML_F32, 1, 1, 4, "is at offset 4, not a multiple of the alignment 32");
    expect_refused_tensor(TERN_GGML_F32, 1, 1, UINT64_MAX, "is at offset");
}

static void tensors_that_share_bytes_are_refused(void **state) {
    (void)state;
    enum { SECOND_AT = 64 }; // within the 96 bytes of the first
    static const uint64_t starts[] = {0, BUILDER_ALIGNMENT, SECOND_AT};
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        builder b = {.size = 0};
        put_header(&b, 3, 2, 0);
        put_tensor(&b, "first", TERN_GGML_F32, 24, 0, 0);
        put_tensor(&b, "second", TERN_GGML_Q2_0, 64, 1, starts[i]);
        put_padding(&b, BUILDER_ALIGNMENT);
        put_data(&b, 128);
        expect_refused(&b, TERN_ERR_FORMAT, "tensor first overlaps another");
    }
}

static void impossible_dimensions_are_refused(void **state) {
    (void)state;
    const uint64_t most = (uint64_t)1 << 40;
    expect_refused_tensor(TERN_GGML_F32, 0, 1, 0, "has dimension 0 of 0, outside");
    expect_refused_tensor(TERN_GGML_F32, 1, 0, 0, "has dimension 1 of 0, outside");
    expect_refused_tensor(TERN_GGML_F32, most + 1, 1, 0, "has dimension 0 of 1099511627777, outside");
    expect_refused_tensor(TERN_GGML_F32, 1, UINT64_MAX, 0, "has dimension 1 of 18446744073709551615, outside");
    expect_refused_tensor(TERN_GGML_F32, most, most, 0, "has a size beyond 64 bits");
    expect_refused_tensor(TERN_GGML_TQ1_0, most, most, 0, "has a size beyond 64 bits");
    expect_refused_tensor(TERN_GGML_F32, most, (uint64_t)1 << 22, 0, "has a size beyond 64 bits"); // exactly 2^64 bytes
    expect_refused_tensor(TERN_GGML_F32, most, 1, 0, "(4398046511104 bytes at 0) ends past");
    expect_refused_tensor(TERN_GGML_Q8_0, 33, 1, 0, "has rows of 33 elements, not a multiple of the block of type Q8_0 (8)");
    expect_refused_tensor(TERN_GGML_Q1_0, 64, 1, 0, "has rows of 64 elements, not a multiple of the block of type Q1_0 (41)");
    expect_refused_tensor(TERN_GGML_Q4_K, 32, 1, 0, "has rows of 32 elements, not a multiple of the block of type Q4_K (12)");
    expect_refused_tensor(TERN_GGML_Q4_K, most, most, 0, "has a size beyond 64 bits");
    expect_refused_tensor(TERN_GGML_TQ2_0, 576, 1, 0,
                          "has rows of 576 elements, not a multiple of the block of type TQ2_0 (35)");
}

static void more_than_four_dimensions_are_refused(void **state) {
    (void)state;
    static const uint32_t counts[] = {5, 0x80000000, 0xffffffff};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        builder b = {0};
        put_header(&b, 3, 1, 0);
        put_string(&b, "t"), put_u32(&b, counts[i]), put_data(&b, 512);
        expect_refused(&b, TERN_ERR_FORMAT, "dimensions, more than 4");
    }
}

// ---- Random damage ----------------------------------------------------------------------------------------

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

// Either status is right for random damage; what counts is that opened files read inside themselves and refusals say why.
static bool open_and_walk(const uint8_t *bytes, size_t size) {
    tern_gguf *gguf = NULL;
    tern_error err = {{0}};
    if (open_bytes(&gguf, bytes, size, &tern_default_allocator, &err) == TERN_OK) {
        assert_int_not_equal(walk_gguf(gguf, keys, N_KEYS), 0);
        tern_gguf_close(gguf);
        return true;
    }
    assert_null(gguf);
    assert_int_not_equal(strlen(err.text), 0);
    return false;
}

static void random_byte_changes_never_crash_the_reader(void **state) {
    (void)state;
    enum { ROUNDS = 4000, CHANGES_MAX = 8 };
    uint64_t rng = 0x9e3779b97f4a7c15;
    print_message("seed %llx\n", (unsigned long long)rng);
    builder b = {0};
    put_model(&b);
    uint8_t *copy = malloc(b.size);
    assert_non_null(copy);
    size_t refused = 0;
    for (size_t round = 0; round < ROUNDS; round++) {
        memcpy(copy, b.data, b.size);
        for (size_t n = 1 + next_random(&rng) % CHANGES_MAX; n > 0; n--) {
            copy[next_random(&rng) % b.size] = (uint8_t)next_random(&rng);
        }
        const size_t size = round % 4 == 0 ? 1 + next_random(&rng) % b.size : b.size;
        refused += !open_and_walk(copy, size);
    }
    assert_in_range(refused, ROUNDS / 4, ROUNDS - 1); // cut files are all refused, a change in the data is not
    free(copy);
    builder_free(&b);
}

static void extreme_values_in_every_field_never_crash_the_reader(void **state) {
    (void)state;
    static const uint64_t extremes[] = {
        0, 1, 0x7f, 0xff, 0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, (uint64_t)1 << 63, UINT64_MAX};
    static const size_t widths[] = {1, 4, 8};
    builder b = {0};
    put_model(&b);
    uint8_t *copy = malloc(b.size);
    assert_non_null(copy);
    size_t opened = 0;
    for (size_t at = 0; at + sizeof(uint64_t) <= b.size; at++) {
        for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++) {
            memcpy(copy, b.data, b.size);
            memcpy(copy + at, &extremes[i], widths[(at + i) % 3]);
            opened += open_and_walk(copy, b.size);
        }
    }
    assert_int_not_equal(opened, 0);
    free(copy);
    builder_free(&b);
}

// ---- Memory -----------------------------------------------------------------------------------------------

typedef struct counting {
    size_t calls, fail_at; // fail_at 0: never
    size_t live_bytes;
} counting;

static void *counting_alloc(void *user, size_t size, size_t align) {
    counting *c = user;
    if (++c->calls == c->fail_at) return NULL;
    c->live_bytes += size;
    return aligned_alloc(align, (size + align - 1) & ~(align - 1));
}
static void counting_free(void *user, void *ptr, size_t size) {
    counting *c = user;
    c->live_bytes -= size;
    free(ptr);
}

static void all_memory_comes_from_the_given_allocator_and_goes_back(void **state) {
    (void)state;
    builder b = {0};
    put_model(&b);
    counting c = {0};
    const tern_allocator allocator = {counting_alloc, counting_free, &c};
    tern_gguf *gguf = NULL;
    tern_error err = {{0}};
    assert_int_equal(open_bytes(&gguf, b.data, b.size, &allocator, &err), TERN_OK);
    assert_int_not_equal(c.live_bytes, 0);
    tern_gguf_close(gguf);
    assert_int_equal(c.live_bytes, 0);

    const size_t calls = c.calls;
    for (size_t fail_at = 1; fail_at <= calls; fail_at++) {
        c = (counting){.fail_at = fail_at};
        gguf = NULL;
        assert_int_equal(open_bytes(&gguf, b.data, b.size, &allocator, &err), TERN_ERR_MEMORY);
        assert_null(gguf);
        assert_non_null(strstr(err.text, "no memory"));
        assert_int_equal(c.live_bytes, 0);
    }
    tern_gguf_close(NULL);
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_file_a_folder_and_a_pipe_are_refused),
        cmocka_unit_test(an_empty_file_and_other_formats_are_refused),
        cmocka_unit_test(other_versions_and_big_endian_files_are_unsupported),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(absurd_counts_are_refused),
        cmocka_unit_test(counts_above_the_limits_are_refused_however_long_the_file),
        cmocka_unit_test(strings_longer_than_the_file_are_refused),
        cmocka_unit_test(arrays_longer_than_the_file_are_refused),
        cmocka_unit_test(a_false_string_count_is_refused_before_memory_is_taken),
        cmocka_unit_test(a_value_cut_at_the_very_end_is_refused),
        cmocka_unit_test(undefined_value_types_and_nested_arrays_are_refused),
        cmocka_unit_test(duplicate_and_empty_names_are_refused),
        cmocka_unit_test(bad_alignments_are_refused),
        cmocka_unit_test(an_alignment_beyond_the_file_is_refused_where_there_is_a_tensor),
        cmocka_unit_test(hostile_names_are_shortened_and_made_printable),
        cmocka_unit_test(tensors_that_leave_the_file_are_refused),
        cmocka_unit_test(tensors_off_the_alignment_are_refused),
        cmocka_unit_test(tensors_that_share_bytes_are_refused),
        cmocka_unit_test(impossible_dimensions_are_refused),
        cmocka_unit_test(more_than_four_dimensions_are_refused),
        cmocka_unit_test(random_byte_changes_never_crash_the_reader),
        cmocka_unit_test(extreme_values_in_every_field_never_crash_the_reader),
        cmocka_unit_test(all_memory_comes_from_the_given_allocator_and_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
