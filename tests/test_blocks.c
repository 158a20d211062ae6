// SPDX-License-Identifier: MIT
// Block decoders against the floats that the gguf package makes of the same bytes (gen_blocks.py), bit for bit.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/blocks.h"
#include "format/ggml_types.h"

static const struct {
    uint32_t id;
    size_t index; // of the types with this id
    const char *file;
} types[] = {{TERN_GGML_F32, 0, "F32"},       {TERN_GGML_F16, 0, "F16"},   {TERN_GGML_BF16, 0, "BF16"},
             {TERN_GGML_Q8_0, 0, "Q8_0"},     {TERN_GGML_Q4_0, 0, "Q4_0"}, {TERN_GGML_Q4_1, 0, "Q4_1"},
             {TERN_GGML_Q5_0, 0, "Q5_0"},     {TERN_GGML_Q5_1, 0, "Q5_1"}, {TERN_GGML_Q4_K, 0, "Q4_K"},
             {TERN_GGML_Q5_K, 0, "Q5_K"},     {TERN_GGML_Q6_K, 0, "Q6_K"}, {TERN_GGML_TQ1_0, 0, "TQ1_0"},
             {TERN_GGML_TQ2_0, 0, "TQ2_0"},   {TERN_GGML_I2_S, 0, "I2_S"}, {TERN_GGML_IQ1_BN, 0, "IQ1_BN"},
             {TERN_GGML_IQ2_BN, 0, "IQ2_BN"}, {TERN_GGML_Q1_0, 0, "Q1_0"}, {TERN_GGML_Q2_0, 0, "Q2_0"},
             {TERN_GGML_Q2_0, 1, "Q2_0_128"}};
enum { N_TYPES = sizeof types / sizeof types[0], ROW = 256 };

// A reference file; the caller frees it.
static void *load(const char *name, const char *suffix, size_t *size) {
    const char *folder = getenv("TERN_BLOCKS_DIR");
    char path[4096];
    if (!folder) fail_msg("TERN_BLOCKS_DIR is not set; run through ctest, or make the folder with tests/gen_blocks.py");
    (void)snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("cannot open %s", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long length = ftell(file);
    assert_true(length > 0);
    rewind(file);
    void *data = malloc((size_t)length);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)length, file), (size_t)length);
    (void)fclose(file);
    *size = (size_t)length;
    return data;
}

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

// A NaN that arithmetic or a conversion made has no agreed payload; any NaN then matches.
static void expect_same(const float *got, const float *want, size_t n, const tern_block_type *type) {
    const bool copied = type->id == TERN_GGML_F32 || type->id == TERN_GGML_BF16;
    for (size_t i = 0; i < n; i++) {
        if (bits_of(got[i]) == bits_of(want[i])) continue;
        if (!copied && isnan(got[i]) && isnan(want[i])) continue;
        fail_msg("%s element %zu: %08x (%g), the gguf package has %08x (%g)", type->name, i, (unsigned)bits_of(got[i]),
                 (double)got[i], (unsigned)bits_of(want[i]), (double)want[i]);
    }
}

// A type with its reference rows.
typedef struct reference {
    const tern_block_type *type;
    uint8_t *packed;
    float *floats; // [n][ROW]
    size_t n, row_bytes;
} reference;

static reference load_reference(size_t t) {
    reference r = {.type = tern_block_type_at(types[t].id, types[t].index)};
    assert_non_null(r.type);
    size_t packed_size, float_size, want;
    r.packed = load(types[t].file, ".packed", &packed_size);
    r.floats = load(types[t].file, ".f32", &float_size);
    r.n = float_size / (ROW * sizeof(float));
    r.row_bytes = tern_row_bytes(r.type, ROW);
    assert_int_equal(float_size, r.n * ROW * sizeof(float));
    assert_true(tern_matrix_bytes(r.type, r.n, ROW, &want));
    assert_int_equal(packed_size, want);
    return r;
}

static void free_reference(reference *r) {
    free(r->floats);
    free(r->packed);
}

static void floats_equal_those_of_an_independent_decoder(void **state) {
    (void)state;
    for (size_t t = 0; t < N_TYPES; t++) {
        reference r = load_reference(t);
        for (size_t row = 0; row < r.n; row++) {
            float got[ROW];
            tern_row_to_f32(r.type, got, r.packed, row, r.n, ROW);
            expect_same(got, r.floats + row * ROW, ROW, r.type);
        }
        free_reference(&r);
    }
}

static void a_row_is_read_from_any_address_and_nothing_else_is_written(void **state) {
    (void)state;
    enum { GUARD = 8 };
    for (size_t t = 0; t < N_TYPES; t++) {
        reference r = load_reference(t);
        uint8_t *shifted = malloc(r.row_bytes + 1); // exactly the row, at an odd address: ASan sees a read past it
        float *aligned_out = malloc(ROW * sizeof(float));
        float *shifted_out = malloc((ROW + GUARD) * sizeof(float));
        assert_true(shifted && aligned_out && shifted_out);
        memcpy(shifted + 1, r.packed, r.row_bytes);
        for (size_t i = 0; i < GUARD; i++) shifted_out[ROW + i] = 42.0F;
        r.type->to_f32(aligned_out, r.packed, ROW);
        r.type->to_f32(shifted_out, shifted + 1, ROW);
        assert_memory_equal(aligned_out, shifted_out, ROW * sizeof(float));
        for (size_t i = 0; i < GUARD; i++) assert_true(shifted_out[ROW + i] == 42.0F);
        free(shifted_out);
        free(aligned_out);
        free(shifted);
        free_reference(&r);
    }
}

static void rows_of_any_whole_number_of_blocks_are_read(void **state) {
    (void)state;
    enum { GUARD = 8 };
    for (size_t t = 0; t < N_TYPES; t++) {
        reference r = load_reference(t);
        float whole[2 * ROW], part[2 * ROW + GUARD];
        // Without bytes that belong to a row or a matrix, two rows are one of twice the length.
        const size_t longest = r.type->row_head == 0 && r.n > 1 ? 2 * ROW : ROW;
        r.type->to_f32(whole, r.packed, ROW);
        if (longest > ROW) r.type->to_f32(whole + ROW, r.packed + r.row_bytes, ROW);
        for (size_t k = r.type->block_elems; k <= longest; k += r.type->block_elems) {
            const size_t bytes = tern_row_bytes(r.type, k);
            uint8_t *row = malloc(bytes); // no more than the row: ASan sees a read past it
            assert_non_null(row);
            memcpy(row, r.packed, bytes);
            for (size_t i = 0; i < GUARD; i++) part[k + i] = 42.0F;
            r.type->to_f32(part, row, k);
            assert_memory_equal(part, whole, k * sizeof *part);
            for (size_t i = 0; i < GUARD; i++) assert_true(part[k + i] == 42.0F);
            free(row);
        }
        free_reference(&r);
    }
}

// Its scale stands once, behind the matrix.
static void an_i2_s_scale_multiplies_every_code_whatever_it_is(void **state) {
    (void)state;
    static const uint32_t scales[] = {0,          0x80000000, 1,          0x80000001, 0x007fffff, 0x00800000, 0x3f800000,
                                      0xbf800000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000};
    enum { ROWS = 2, BYTES = ROWS * ROW / 4 };
    const tern_block_type *type = tern_block_type_find(TERN_GGML_I2_S);
    uint8_t matrix[BYTES + 32] = {0};
    for (size_t i = 0; i < BYTES; i++) matrix[i] = (uint8_t)(2 * i + i / 64); // rows of other bytes each
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        float scale;
        memcpy(&scale, &scales[s], sizeof scale);
        memcpy(matrix + BYTES, &scales[s], sizeof scale);
        for (size_t row = 0; row < ROWS; row++) {
            float got[ROW];
            tern_row_to_f32(type, got, matrix, row, ROWS, ROW);
            for (size_t i = 0; i < ROW; i++) { // run j of a block's 128 elements is in the bits 6 - 2 j of its 32 bytes
                const uint8_t byte = matrix[row * ROW / 4 + i / 128 * 32 + i % 32];
                const float want = scale * (float)((byte >> (6 - 2 * (i % 128 / 32)) & 3) - 1);
                assert_true(bits_of(got[i]) == bits_of(want) || (isnan(got[i]) && isnan(want)));
            }
        }
    }
}

// Is a row accepted exactly if it holds what the type allows, and is scale times code its float?
static void expect_codes(const reference *r, size_t row) {
    const tern_block_type *type = r->type;
    float want[ROW], scales[ROW / 32];
    int8_t codes[ROW];
    int largest = -128, zeros = 0;
    type->to_f32(want, r->packed + row * r->row_bytes, ROW);
    const bool accepted = type->to_codes(codes, scales, r->packed + row * r->row_bytes, ROW);
    for (size_t i = 0; i < ROW; i++) {
        const float value = scales[type->code_block ? i / type->code_block : 0] * (float)codes[i];
        assert_true(bits_of(value) == bits_of(want[i]) || (isnan(value) && isnan(want[i])));
        largest = codes[i] > largest ? codes[i] : largest;
        zeros += codes[i] == 0;
    }
    assert_int_equal(accepted, type->levels != TERN_LEVELS_TRITS || largest <= 1);
    if (type->levels == TERN_LEVELS_SIGNS) assert_true(zeros == 0 && largest <= 1);
    if (type->levels == TERN_LEVELS_FOUR) assert_true(largest <= 2);
}

static void codes_times_scales_are_the_floats_and_code_3_is_refused(void **state) {
    (void)state;
    size_t with_codes = 0;
    for (size_t t = 0; t < N_TYPES; t++) {
        reference r = load_reference(t);
        with_codes += r.type->to_codes != NULL;
        for (size_t row = 0; r.type->to_codes && row < r.n; row++) expect_codes(&r, row);
        free_reference(&r);
    }
    assert_int_equal(with_codes, 10); // Q8_0, Q5_0, TQ1_0, TQ2_0, I2_S, IQ1_BN, IQ2_BN, Q1_0, Q2_0 twice
}

// What a 4-bit code of a block is worth, from the scales that to_u4 gives.
static float u4_value(const tern_block_type *type, const float *scales, int code, size_t i) {
    switch (type->id) {
    case TERN_GGML_Q4_0:
        return scales[0] * (float)(code - 8);
    case TERN_GGML_Q4_1:
        return scales[0] * (float)code + scales[1];
    default: { // Q4_K
        const float scale = scales[0] * scales[2 + i / 32], min = scales[1] * scales[2 + 8 + i / 32];
        return scale * (float)code + min;
    }
    }
}

static void u4_codes_and_scales_are_worth_the_floats(void **state) {
    (void)state;
    size_t with_u4 = 0;
    for (size_t t = 0; t < N_TYPES; t++) {
        reference r = load_reference(t);
        const tern_block_type *type = r.type;
        with_u4 += type->to_u4 != NULL;
        for (size_t at = 0; type->to_u4 && at < r.n * r.row_bytes; at += type->block_bytes) {
            float want[ROW], scales[18];
            int8_t codes[ROW];
            type->to_f32(want, r.packed + at, type->block_elems);
            type->to_u4(codes, scales, r.packed + at, type->block_elems);
            for (size_t i = 0; i < type->block_elems; i++) {
                const float value = u4_value(type, scales, codes[i], i);
                assert_in_range(codes[i], 0, 15);
                assert_true(bits_of(value) == bits_of(want[i]) || (isnan(value) && isnan(want[i])));
            }
        }
        free_reference(&r);
    }
    assert_int_equal(with_u4, 3); // Q4_0, Q4_1, Q4_K
}

static void code_3_anywhere_in_a_row_refuses_the_row(void **state) {
    (void)state;
    enum { BLOCKS = 3, BLOCK_BYTES = 66, CODE_BYTES = 64, ALL_ZERO_TRITS = 0x55, ONE_CODE_3 = 0xd5 };
    const tern_block_type *type = tern_block_type_find(TERN_GGML_TQ2_0);
    uint8_t row[BLOCKS * BLOCK_BYTES];
    int8_t codes[BLOCKS * 256];
    float scales[BLOCKS];
    memset(row, ALL_ZERO_TRITS, sizeof row);
    assert_true(type->to_codes(codes, scales, row, sizeof codes));
    for (size_t block = 0; block < BLOCKS; block++) {
        for (size_t i = 0; i < CODE_BYTES; i++) {
            uint8_t *byte = &row[block * BLOCK_BYTES + i];
            *byte = ONE_CODE_3;
            assert_false(type->to_codes(codes, scales, row, sizeof codes));
            *byte = ALL_ZERO_TRITS;
        }
    }
}

static void every_tq1_0_byte_gives_trits(void **state) {
    (void)state;
    const tern_block_type *type = tern_block_type_find(TERN_GGML_TQ1_0);
    for (int byte = 0; byte < 256; byte++) {
        uint8_t block[54];
        int8_t trits[256];
        float scale;
        memset(block, byte, sizeof block);
        assert_true(type->to_codes(trits, &scale, block, sizeof trits));
        for (size_t i = 0; i < sizeof trits; i++) assert_in_range(trits[i] + 1, 0, 2);
    }
}

static void halves_round_as_numpy_rounds_them(void **state) {
    (void)state;
    size_t size;
    uint32_t *pairs = load("halves", ".bin", &size);
    for (size_t i = 0; i < size / sizeof *pairs; i += 2) {
        float value;
        memcpy(&value, &pairs[i], sizeof value);
        if (tern_f32_to_f16(value) != pairs[i + 1]) {
            fail_msg("%.9g: %04x, NumPy has %04x", (double)value, tern_f32_to_f16(value), (unsigned)pairs[i + 1]);
        }
    }
    free(pairs);
}

static void every_half_survives_the_way_to_float_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h <= UINT16_MAX; h++) {
        const float f = tern_f16_to_f32((uint16_t)h);
        if (isnan(f)) {
            assert_true(isnan(tern_f16_to_f32(tern_f32_to_f16(f))));
        } else {
            assert_int_equal(tern_f32_to_f16(f), h);
        }
    }
}

static void block_sizes_equal_those_of_the_gguf_package(void **state) {
    (void)state;
    enum { MXFP4 = 39 }; // the one id with two meanings, so without a size here
    struct {
        uint32_t id, elems, bytes;
        char name[16];
    } * rows;
    size_t size;
    rows = load("types", ".bin", &size);
    for (size_t i = 0; i < size / sizeof *rows; i++) {
        const tern_ggml_type *known = tern_ggml_type_find(rows[i].id);
        assert_non_null(known);
        if (rows[i].id == MXFP4) {
            assert_int_equal(known->block_bytes, 0);
            continue;
        }
        assert_string_equal(known->name, rows[i].name);
        if (known->block_bytes == 0) continue; // told by tern_block_type
        assert_int_equal(known->block_elems, rows[i].elems);
        assert_int_equal(known->block_bytes, rows[i].bytes);
        const tern_block_type *readable = tern_block_type_find(rows[i].id);
        if (!readable) continue;
        assert_string_equal(readable->name, rows[i].name);
        assert_int_equal(readable->block_elems, rows[i].elems);
        assert_int_equal(readable->block_bytes, rows[i].bytes);
    }
    free(rows);
}

static void type_names_tell_the_id_too(void **state) {
    (void)state;
    char buf[32];
    assert_string_equal(tern_ggml_type_name(TERN_GGML_Q8_0, buf), "Q8_0 (8)");
    assert_string_equal(tern_ggml_type_name(38, buf), "TL1 (38)");
    assert_string_equal(tern_ggml_type_name(39, buf), "MXFP4 or TL2 (39)");
    assert_string_equal(tern_ggml_type_name(UINT32_MAX, buf), "unknown (4294967295)");
    assert_null(tern_block_type_find(38));
    assert_null(tern_block_type_find(UINT32_MAX));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_equal_those_of_an_independent_decoder),
        cmocka_unit_test(a_row_is_read_from_any_address_and_nothing_else_is_written),
        cmocka_unit_test(rows_of_any_whole_number_of_blocks_are_read),
        cmocka_unit_test(an_i2_s_scale_multiplies_every_code_whatever_it_is),
        cmocka_unit_test(codes_times_scales_are_the_floats_and_code_3_is_refused),
        cmocka_unit_test(u4_codes_and_scales_are_worth_the_floats),
        cmocka_unit_test(code_3_anywhere_in_a_row_refuses_the_row),
        cmocka_unit_test(every_tq1_0_byte_gives_trits),
        cmocka_unit_test(halves_round_as_numpy_rounds_them),
        cmocka_unit_test(every_half_survives_the_way_to_float_and_back),
        cmocka_unit_test(block_sizes_equal_those_of_the_gguf_package),
        cmocka_unit_test(type_names_tell_the_id_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
