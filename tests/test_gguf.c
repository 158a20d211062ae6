// SPDX-License-Identifier: MIT
// The GGUF reader on good files: what they hold comes out, by name and by index.
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gguf_builder.h"

static tern_gguf *open_good(const builder *b) {
    tern_gguf *gguf = NULL;
    tern_error err = {{0}};
    if (open_bytes(&gguf, b->data, b->size, &tern_default_allocator, &err) != TERN_OK) fail_msg("%s", err.text);
    assert_non_null(gguf);
    return gguf;
}

static void expect_text(tern_gguf_string got, const char *want) {
    assert_int_equal(got.size, strlen(want));
    assert_memory_equal(got.data, want, got.size);
}

// ---- Metadata ---------------------------------------------------------------------------------------------

static void put_scalars(builder *b) {
    const int16_t i16 = -300;
    const float f32 = 0.1F;
    const double f64 = -1e300;
    put_key(b, "u8", TERN_GGUF_U8), put_u8(b, 200);
    put_key(b, "i8", TERN_GGUF_I8), put_u8(b, (uint8_t)-100);
    put_key(b, "u16", TERN_GGUF_U16), put(b, &(uint16_t){60000}, 2);
    put_key(b, "i16", TERN_GGUF_I16), put(b, &i16, sizeof i16);
    put_key(b, "u32", TERN_GGUF_U32), put_u32(b, UINT32_MAX);
    put_key(b, "i32", TERN_GGUF_I32), put_u32(b, (uint32_t)-7);
    put_key(b, "i32_up", TERN_GGUF_I32), put_u32(b, 7);
    put_key(b, "f32", TERN_GGUF_F32), put(b, &f32, sizeof f32);
    put_key(b, "yes", TERN_GGUF_BOOL), put_u8(b, 1);
    put_key(b, "no", TERN_GGUF_BOOL), put_u8(b, 0);
    put_key(b, "text", TERN_GGUF_STRING), put_string(b, "llama");
    put_key(b, "empty", TERN_GGUF_STRING), put_string(b, "");
    put_key(b, "u64", TERN_GGUF_U64), put_u64(b, UINT64_MAX);
    put_key(b, "i64", TERN_GGUF_I64), put_u64(b, (uint64_t)INT64_MIN);
    put_key(b, "f64", TERN_GGUF_F64), put(b, &f64, sizeof f64);
}
enum { N_SCALARS = 15 };

static void integers_of_any_width_convert_where_the_value_fits(void **state) {
    (void)state;
    static const struct {
        const char *key;
        uint64_t value;
    } fitting[] = {{"u8", 200}, {"u16", 60000}, {"u32", UINT32_MAX}, {"i32_up", 7}, {"u64", UINT64_MAX}};
    static const char *const refused[] = {"i8", "i16", "i32", "i64", "f32", "f64", "yes", "text", "absent"};
    builder b = {0};
    put_header(&b, 3, 0, N_SCALARS);
    put_scalars(&b);
    tern_gguf *gguf = open_good(&b);
    for (size_t i = 0; i < sizeof fitting / sizeof fitting[0]; i++) {
        uint64_t value = 0;
        assert_true(tern_gguf_get_u64(gguf, fitting[i].key, &value));
        assert_int_equal(value, fitting[i].value);
    }
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        uint64_t value = 12345;
        assert_false(tern_gguf_get_u64(gguf, refused[i], &value));
        assert_int_equal(value, 12345);
    }
    tern_gguf_close(gguf);
    builder_free(&b);
}

static void every_number_is_readable_as_a_double(void **state) {
    (void)state;
    static const struct {
        const char *key;
        double value;
    } numbers[] = {{"u8", 200},           {"i8", -100},   {"u16", 60000},        {"i16", -300},
                   {"u32", 4294967295.0}, {"i32", -7},    {"f32", (double)0.1F}, {"u64", 18446744073709551616.0},
                   {"i64", -0x1p63},      {"f64", -1e300}};
    builder b = {0};
    put_header(&b, 3, 0, N_SCALARS);
    put_scalars(&b);
    tern_gguf *gguf = open_good(&b);
    double value = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        assert_true(tern_gguf_get_f64(gguf, numbers[i].key, &value));
        assert_true(value == numbers[i].value);
    }
    value = 3;
    assert_false(tern_gguf_get_f64(gguf, "yes", &value));
    assert_false(tern_gguf_get_f64(gguf, "text", &value));
    assert_true(value == 3);
    tern_gguf_close(gguf);
    builder_free(&b);
}

static void booleans_and_strings_come_out_as_written(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 0, N_SCALARS);
    put_scalars(&b);
    tern_gguf *gguf = open_good(&b);
    bool flag = false;
    tern_gguf_string s = {0};
    assert_true(tern_gguf_get_bool(gguf, "yes", &flag) && flag);
    assert_true(tern_gguf_get_bool(gguf, "no", &flag) && !flag);
    assert_false(tern_gguf_get_bool(gguf, "u8", &flag));
    assert_true(tern_gguf_get_string(gguf, "text", &s));
    expect_text(s, "llama");
    assert_true(tern_gguf_get_string(gguf, "empty", &s));
    expect_text(s, "");
    assert_false(tern_gguf_get_string(gguf, "u8", &s));
    assert_true(tern_gguf_has(gguf, "text"));
    assert_false(tern_gguf_has(gguf, "tex"));
    assert_false(tern_gguf_has(gguf, ""));
    tern_gguf_close(gguf);
    builder_free(&b);
}

static void arrays_give_their_elements_one_at_a_time(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 0, 4);
    put_array(&b, "tokens", TERN_GGUF_STRING, 3);
    put_string(&b, "a"), put_string(&b, ""), put_string(&b, "long token");
    put_array(&b, "types", TERN_GGUF_I32, 2);
    put_u32(&b, (uint32_t)-1), put_u32(&b, 5);
    put_array(&b, "flags", TERN_GGUF_BOOL, 2);
    put_u8(&b, 0), put_u8(&b, 1);
    put_array(&b, "none", TERN_GGUF_F32, 0);
    tern_gguf *gguf = open_good(&b);

    tern_gguf_type type;
    size_t count;
    tern_gguf_string s;
    double v;
    assert_true(tern_gguf_get_array(gguf, "tokens", &type, &count));
    assert_int_equal(type, TERN_GGUF_STRING);
    assert_int_equal(count, 3);
    assert_true(tern_gguf_array_string(gguf, "tokens", 2, &s));
    expect_text(s, "long token");
    assert_true(tern_gguf_array_string(gguf, "tokens", 1, &s));
    expect_text(s, "");
    assert_false(tern_gguf_array_string(gguf, "tokens", 3, &s));
    assert_false(tern_gguf_array_f64(gguf, "tokens", 0, &v));

    assert_true(tern_gguf_array_f64(gguf, "types", 0, &v) && v == -1);
    assert_true(tern_gguf_array_f64(gguf, "types", 1, &v) && v == 5);
    assert_false(tern_gguf_array_f64(gguf, "types", 2, &v));
    assert_false(tern_gguf_array_string(gguf, "types", 0, &s));
    assert_true(tern_gguf_array_f64(gguf, "flags", 0, &v) && v == 0);
    assert_true(tern_gguf_array_f64(gguf, "flags", 1, &v) && v == 1);

    assert_true(tern_gguf_get_array(gguf, "none", &type, &count));
    assert_int_equal(count, 0);
    assert_false(tern_gguf_array_f64(gguf, "none", 0, &v));
    assert_false(tern_gguf_get_array(gguf, "absent", &type, &count));
    tern_gguf_close(gguf);
    builder_free(&b);
}

// ---- Tensors ----------------------------------------------------------------------------------------------

static void tensors_have_their_dims_sizes_and_data(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "norm", TERN_GGML_F32, 5, 0, 96);
    put_tensor(&b, "q", TERN_GGML_Q8_0, 32, 2, 0);
    put_padding(&b, BUILDER_ALIGNMENT);
    const size_t start = b.size;
    put_data(&b, 96 + 5 * sizeof(float));
    tern_gguf *gguf = open_good(&b);

    assert_int_equal(tern_gguf_tensor_count(gguf), 2);
    assert_int_equal(tern_gguf_file_size(gguf), b.size);
    const tern_gguf_tensor *norm = tern_gguf_find_tensor(gguf, "norm");
    const tern_gguf_tensor *q = tern_gguf_find_tensor(gguf, "q");
    assert_ptr_equal(norm, tern_gguf_tensor_at(gguf, 0));
    assert_ptr_equal(q, tern_gguf_tensor_at(gguf, 1));
    assert_null(tern_gguf_tensor_at(gguf, 2));
    assert_null(tern_gguf_find_tensor(gguf, "k"));
    expect_text(q->name, "q");
    assert_int_equal(norm->n_dims, 1);
    assert_int_equal(norm->dims[0], 5);
    assert_int_equal(norm->dims[1], 1);
    assert_int_equal(norm->size, 5 * sizeof(float));
    assert_int_equal(q->dims[0], 32);
    assert_int_equal(q->dims[1], 2);
    assert_int_equal(q->dims[3], 1);
    assert_int_equal(q->size, 2 * 34);
    assert_memory_equal(q->data, b.data + start, q->size);
    assert_memory_equal(norm->data, b.data + start + 96, norm->size);
    tern_gguf_close(gguf);
    builder_free(&b);
}

static void the_alignment_key_moves_the_data(void **state) {
    (void)state;
    enum { ALIGNMENT = 512 };
    builder b = {0};
    put_header(&b, 3, 1, 1);
    put_u32_entry(&b, "general.alignment", ALIGNMENT);
    put_tensor(&b, "t", TERN_GGML_F16, 3, 0, ALIGNMENT);
    put_padding(&b, ALIGNMENT);
    put_data(&b, ALIGNMENT + 6);
    tern_gguf *gguf = open_good(&b);
    assert_memory_equal(tern_gguf_find_tensor(gguf, "t")->data, b.data + b.size - 6, 6);
    tern_gguf_close(gguf);
    builder_free(&b);
}

static void version_2_is_read_too(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 2, 0, 1);
    put_u32_entry(&b, "k", 9);
    tern_gguf *gguf = open_good(&b);
    uint64_t value = 0;
    assert_true(tern_gguf_get_u64(gguf, "k", &value));
    assert_int_equal(value, 9);
    tern_gguf_close(gguf);
    builder_free(&b);
}

static void each_of_many_names_is_found(void **state) {
    (void)state;
    enum { N = 5000 };
    char name[32];
    builder b = {0};
    put_header(&b, 3, N, N);
    for (uint32_t i = 0; i < N; i++) {
        (void)snprintf(name, sizeof name, "key.%u", (unsigned)i);
        put_u32_entry(&b, name, i);
    }
    for (uint32_t i = 0; i < N; i++) {
        (void)snprintf(name, sizeof name, "blk.%u.ffn_up.weight", (unsigned)i);
        put_tensor(&b, name, TERN_GGML_F32, 1, 0, (uint64_t)i * BUILDER_ALIGNMENT);
    }
    put_padding(&b, BUILDER_ALIGNMENT);
    put_data(&b, N * BUILDER_ALIGNMENT);
    tern_gguf *gguf = open_good(&b);
    for (uint32_t i = 0; i < N; i++) {
        uint64_t value = N;
        (void)snprintf(name, sizeof name, "key.%u", (unsigned)i);
        assert_true(tern_gguf_get_u64(gguf, name, &value));
        assert_int_equal(value, i);
        (void)snprintf(name, sizeof name, "blk.%u.ffn_up.weight", (unsigned)i);
        assert_ptr_equal(tern_gguf_find_tensor(gguf, name), tern_gguf_tensor_at(gguf, i));
        (void)snprintf(name, sizeof name, "blk.%u.ffn_up.weigh", (unsigned)i);
        assert_null(tern_gguf_find_tensor(gguf, name));
    }
    tern_gguf_close(gguf);
    builder_free(&b);
}

// ---- Types that Tern does not read ------------------------------------------------------------------------

static void expect_refused_type(uint32_t id, const char *message_part) {
    builder b = {0};
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "blk.3.ffn_up.weight", id, 256, 1, 0);
    put_padding(&b, BUILDER_ALIGNMENT);
    put_data(&b, 2048);
    tern_gguf *gguf = open_good(&b);
    const tern_block_type *type = NULL;
    tern_error err = {{0}};
    const tern_gguf_tensor *tensor = tern_gguf_tensor_at(gguf, 0);
    assert_int_equal(tern_gguf_tensor_type(gguf, tensor, &type, &err), TERN_ERR_UNSUPPORTED);
    assert_null(type);
    if (!strstr(err.text, message_part)) fail_msg("\"%s\" lacks \"%s\"", err.text, message_part);
    tern_gguf_close(gguf);
    builder_free(&b);
}

static void a_type_that_is_not_read_is_refused_at_use_and_names_the_fix(void **state) {
    (void)state;
    expect_refused_type(38, ": tensor blk.3.ffn_up.weight has type TL1 (38), which Tern does not read; convert it to TQ2_0");
    expect_refused_type(39, "MXFP4 or TL2 (39), which Tern does not read; convert it to Q8_0 (MXFP4) or TQ2_0 (TL2)");
    expect_refused_type(10, "Q2_K (10), which Tern does not read; convert it to Q8_0");
    expect_refused_type(7777, "unknown (7777)");
}

static void a_type_of_unknown_size_has_size_0(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "known", 12, 256, 2, 0);
    put_tensor(&b, "unknown", 7777, 256, 2, 288);
    put_padding(&b, BUILDER_ALIGNMENT);
    put_data(&b, 288 + 256);
    tern_gguf *gguf = open_good(&b);
    assert_int_equal(tern_gguf_find_tensor(gguf, "known")->size, 288);
    assert_int_equal(tern_gguf_find_tensor(gguf, "unknown")->size, 0);
    assert_memory_equal(tern_gguf_find_tensor(gguf, "unknown")->data, b.data + b.size - 256, 256);
    tern_gguf_close(gguf);
    builder_free(&b);
}

static void a_readable_type_comes_with_its_decoder(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "t", TERN_GGML_TQ2_0, 256, 0, 0);
    put_padding(&b, BUILDER_ALIGNMENT);
    put_data(&b, 66);
    tern_gguf *gguf = open_good(&b);
    const tern_block_type *type = NULL;
    tern_error err;
    assert_int_equal(tern_gguf_tensor_type(gguf, tern_gguf_tensor_at(gguf, 0), &type, &err), TERN_OK);
    assert_ptr_equal(type, tern_block_type_find(TERN_GGML_TQ2_0));
    tern_gguf_close(gguf);
    builder_free(&b);
}

// A file with two Q2_0 tensors of k x rows, in blocks of `bytes` for `elems`, and one behind them unless they are last.
static tern_gguf *open_q2_0(builder *b, uint64_t k, uint64_t rows, size_t elems, size_t bytes, bool last) {
    const size_t size = k / elems * rows * bytes,
                 padded = (size + BUILDER_ALIGNMENT - 1) / BUILDER_ALIGNMENT * BUILDER_ALIGNMENT;
    put_header(b, 3, last ? 2 : 3, 0);
    put_tensor(b, "b", TERN_GGML_Q2_0, k, rows, padded); // in any order
    put_tensor(b, "a", TERN_GGML_Q2_0, k, rows, 0);
    if (!last) put_tensor(b, "c", TERN_GGML_F32, 1, 0, 2 * padded);
    put_padding(b, BUILDER_ALIGNMENT);
    put_data(b, last ? padded + size : 2 * padded + sizeof(float));
    return open_good(b);
}

static void q2_0_has_the_block_size_that_fits_the_places_of_its_tensors(void **state) {
    (void)state;
    static const struct { size_t elems, bytes; } blocks[] = {{64, 18}, {128, 34}};
    for (size_t i = 0; i < 2; i++)
        for (int last = 0; last <= 1; last++) {
            builder b = {0};
            tern_gguf *gguf = open_q2_0(&b, 256, 33, blocks[i].elems, blocks[i].bytes, last);
            for (size_t t = 0; t < 2; t++) {
                const tern_gguf_tensor *tensor = tern_gguf_tensor_at(gguf, t);
                const tern_block_type *type = NULL;
                tern_error err;
                assert_int_equal(tern_gguf_tensor_type(gguf, tensor, &type, &err), TERN_OK);
                assert_int_equal(tensor->size, 256 / blocks[i].elems * 33 * blocks[i].bytes);
                assert_int_equal(type->block_elems, blocks[i].elems);
                assert_int_equal(type->block_bytes, blocks[i].bytes);
            }
            tern_gguf_close(gguf);
            builder_free(&b);
        }
}

static void q2_0_of_which_both_or_no_block_sizes_fit_is_refused_at_use(void **state) {
    (void)state;
    static const struct {
        size_t k, rows, elems, bytes;
    } files[] = {
        {128, 1, 64, 18},  // 36 bytes or 34: both padded to 64
        {256, 33, 64, 20}, // no block is that large
        {96, 64, 32, 18},  // a row is no whole number of blocks
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        builder b = {0};
        tern_gguf *gguf = open_q2_0(&b, files[i].k, files[i].rows, files[i].elems, files[i].bytes, false);
        const tern_block_type *type = NULL;
        tern_error err = {{0}};
        assert_int_equal(tern_gguf_tensor_at(gguf, 0)->size, 0);
        assert_int_equal(tern_gguf_tensor_type(gguf, tern_gguf_tensor_at(gguf, 0), &type, &err), TERN_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.text, "Q2_0 (42), and its place in the file does not tell the size of its blocks"));
        tern_gguf_close(gguf);
        builder_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_any_width_convert_where_the_value_fits),
        cmocka_unit_test(every_number_is_readable_as_a_double),
        cmocka_unit_test(booleans_and_strings_come_out_as_written),
        cmocka_unit_test(arrays_give_their_elements_one_at_a_time),
        cmocka_unit_test(tensors_have_their_dims_sizes_and_data),
        cmocka_unit_test(the_alignment_key_moves_the_data),
        cmocka_unit_test(version_2_is_read_too),
        cmocka_unit_test(each_of_many_names_is_found),
        cmocka_unit_test(a_type_that_is_not_read_is_refused_at_use_and_names_the_fix),
        cmocka_unit_test(a_type_of_unknown_size_has_size_0),
        cmocka_unit_test(a_readable_type_comes_with_its_decoder),
        cmocka_unit_test(q2_0_has_the_block_size_that_fits_the_places_of_its_tensors),
        cmocka_unit_test(q2_0_of_which_both_or_no_block_sizes_fit_is_refused_at_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
