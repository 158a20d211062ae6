// SPDX-License-Identifier: MIT
// Packing against the diagrams of layout.h, walked in storage order, and exact round trips.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "matmul/pack_int8.h"
#include "matmul/pack_ternary.h"

static uint64_t rng = 20240607;
static uint64_t next_random(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void *new_bytes(size_t n) {
    void *p = malloc(n);
    if (!p) abort();
    return p;
}

static int8_t *random_trits(size_t n) {
    int8_t *t = new_bytes(n);
    for (size_t i = 0; i < n; i++) t[i] = (int8_t)((int)(next_random() % 3) - 1);
    return t;
}

static const size_t depths[] = {1,  2,  3,  4,  5,  6,  15, 16, 17, 20,  29,  30,  31,
                                42, 43, 63, 64, 79, 80, 81, 84, 85, 160, 163, 257, 401};
static const size_t slabs[] = {64, 128, 192, 256, 448, 512, 576, 960, 1024, 1088};
enum { N_DEPTHS = sizeof depths / sizeof depths[0], N_SLABS = sizeof slabs / sizeof slabs[0], N_MAX = 1088, K_MAX = 401 };

static int8_t trit_at(const int8_t *t, size_t n, size_t k, size_t i, size_t j) { return i < n && j < k ? t[i * k + j] : 0; }

static uint8_t t5_code(const int8_t *t, size_t n, size_t k, size_t i, size_t g) {
    int v = 0, power = 1;
    for (size_t j = 0; j < 5; j++, power *= 3) v += power * trit_at(t, n, k, i, 5 * g + j);
    return (uint8_t)(v < 0 ? 128 - v : v);
}

static uint8_t t2n_code(const int8_t *t, size_t n, size_t k, size_t i, size_t b) {
    int d[4];
    for (size_t j = 0; j < 4; j++) d[j] = trit_at(t, n, k, i, 4 * b + j) + 1;
    return (uint8_t)(d[0] + 3 * d[1] + 16 * (d[2] + 3 * d[3]));
}

static int t3_value(const int8_t *t, size_t n, size_t k, size_t i, size_t g) {
    return trit_at(t, n, k, i, 3 * g) + 3 * trit_at(t, n, k, i, 3 * g + 1) + 9 * trit_at(t, n, k, i, 3 * g + 2);
}

// Byte row r of 9 in K-tile r / 9: signs of the even groups, of the odd groups, then pairs of groups.
static uint8_t t3_code(const int8_t *t, size_t n, size_t k, size_t i, size_t r) {
    const size_t tile_group = r / 9 * 14, in_tile = r % 9;
    if (in_tile >= 2) {
        const size_t g = tile_group + 2 * (in_tile - 2);
        return (uint8_t)(abs(t3_value(t, n, k, i, g)) | abs(t3_value(t, n, k, i, g + 1)) << 4);
    }
    int signs = 1;
    for (size_t p = 0; p < 7; p++)
        if (t3_value(t, n, k, i, tile_group + 2 * p + in_tile) < 0) signs |= 0x80 >> p;
    return (uint8_t)signs;
}

typedef struct slab_layout {
    tern_layout layout;
    size_t tile_rows, block;
    size_t (*rows)(size_t k), (*bytes)(size_t n_padded, size_t k);
    uint8_t (*code)(const int8_t *t, size_t n, size_t k, size_t i, size_t r);
} slab_layout;

// Walks slab > K-tile > block > byte row > feature, as the diagram says.
static void expect_slab(const slab_layout *l, const uint8_t *p, const int8_t *t, size_t n, size_t n_padded, size_t k) {
    const size_t rows = l->rows(k);
    for (size_t tile = 0; tile < rows; tile += l->tile_rows) {
        size_t f0 = 0, width = l->block;
        while (f0 < n_padded) {
            while (f0 + width > n_padded) width /= 2;
            for (size_t r = tile; r < rows && r < tile + l->tile_rows; r++)
                for (size_t f = f0; f < f0 + width; f++) assert_int_equal(*p++, l->code(t, n, k, f, r));
            f0 += width;
        }
    }
}

static void slabs_follow_their_diagram_and_unpack_exactly(void **state) {
    (void)state;
    static const slab_layout layouts[] = {{TERN_LAYOUT_T5, 7, 512, tern_t5_rows, tern_t5_bytes, t5_code},
                                          {TERN_LAYOUT_T2N, 5, 128, tern_t2n_rows, tern_t2n_bytes, t2n_code},
                                          {TERN_LAYOUT_T3, 9, 64, tern_t3_rows, tern_t3_bytes, t3_code}};
    for (const slab_layout *l = layouts; l < layouts + sizeof layouts / sizeof layouts[0]; l++)
        for (size_t s = 0; s < N_SLABS; s++)
            for (size_t d = 0; d < N_DEPTHS; d++) {
                const size_t n_padded = slabs[s], k = depths[d], n = n_padded - next_random() % 64;
                const size_t bytes = l->bytes(n_padded, k);
                int8_t *t = random_trits(n * k), *back = new_bytes(n_padded * (k + 3));
                uint8_t *packed = new_bytes(bytes);
                memset(packed, 0xEE, bytes);
                // Three calls on ranges of strips in no order.
                const size_t cut[] = {0, n_padded / 3 / 16 * 16, n_padded / 2 / 16 * 16, n_padded}, order[] = {1, 0, 2};
                for (size_t c = 0; c < 3; c++) {
                    const size_t from = cut[order[c]], to = cut[order[c] + 1], given = n <= from ? 0 : (n < to ? n : to) - from;
                    tern_pack_ternary(l->layout, packed, given ? t + from * k : NULL, k, n_padded, from, given, to - from, k);
                }
                expect_slab(l, packed, t, n, n_padded, k);
                memset(back, 7, n_padded * (k + 3));
                tern_unpack_ternary(l->layout, back, k + 3, packed, n_padded, 0, n_padded, k);
                for (size_t i = 0; i < n_padded; i++) {
                    for (size_t j = 0; j < k; j++) assert_int_equal(back[i * (k + 3) + j], trit_at(t, n, k, i, j));
                    for (size_t j = k; j < k + 3; j++) assert_int_equal(back[i * (k + 3) + j], 7);
                }
                free(t);
                free(back);
                free(packed);
            }
}

static void m2_panels_follow_their_diagram_and_unpack_exactly(void **state) {
    (void)state;
    for (size_t d = 0; d < N_DEPTHS; d++)
        for (size_t n = 1; n <= 70; n += 3) {
            const size_t k = depths[d], n_padded = (n + 15) / 16 * 16, groups = (k + 15) / 16;
            int8_t *t = random_trits(n * k), back[K_MAX];
            uint8_t *packed = new_bytes(tern_m2_bytes(n_padded, k));
            tern_pack_ternary(TERN_LAYOUT_M2, packed, t, k, 0, 0, n, n_padded, k);
            const uint8_t *p = packed;
            for (size_t panel = 0; panel < n_padded; panel += 16)
                for (size_t g = 0; g < groups; g++)
                    for (size_t f = panel; f < panel + 16; f++)
                        for (size_t j = 0; j < 4; j++) {
                            int byte = 0;
                            for (size_t q = 0; q < 4; q++) byte |= (trit_at(t, n, k, f, 16 * g + 4 * q + j) + 1) << (2 * q);
                            assert_int_equal(*p++, byte);
                        }
            for (size_t i = 0; i < n; i++) {
                tern_unpack_ternary(TERN_LAYOUT_M2, back, 0, packed, 0, i, 1, k);
                assert_memory_equal(back, t + i * k, k);
            }
            free(t);
            free(packed);
        }
}

static void int8_panels_follow_their_diagram_and_unpack_exactly(void **state) {
    (void)state;
    for (size_t d = 0; d < N_DEPTHS; d++)
        for (size_t n = 1; n <= 50; n += 3) {
            const size_t k = depths[d], n_padded = (n + 15) / 16 * 16, blocks = (k + 31) / 32;
            int8_t *c = new_bytes(n * k), back[K_MAX];
            uint16_t *scales = new_bytes(n * blocks * sizeof *scales), scales_back[K_MAX];
            uint8_t *plain = new_bytes(tern_i8_bytes(n_padded, k)), *scaled = new_bytes(tern_i8b_bytes(n_padded, k));
            for (size_t i = 0; i < n * k; i++) c[i] = (int8_t)next_random();
            for (size_t i = 0; i < n * blocks; i++) scales[i] = (uint16_t)next_random();
            tern_pack_i8(plain, c, k, 0, n, n_padded, k);
            tern_pack_i8b32(scaled, c, k, scales, blocks, 0, n, n_padded, k);
            const uint8_t *p = plain;
            for (size_t panel = 0; panel < n_padded; panel += 16)
                for (size_t g = 0; g < (k + 3) / 4; g++)
                    for (size_t f = panel; f < panel + 16; f++)
                        for (size_t j = 4 * g; j < 4 * g + 4; j++) assert_int_equal((int8_t)*p++, trit_at(c, n, k, f, j));
            p = scaled;
            for (size_t panel = 0; panel < n_padded; panel += 16)
                for (size_t s = 0; s < (k + 63) / 64; s++) {
                    for (size_t b = 2 * s; b < 2 * s + 2; b++)
                        for (size_t f = panel; f < panel + 16; f++, p += 2) {
                            const uint16_t expected = f < n && b < blocks ? scales[f * blocks + b] : 0;
                            assert_memory_equal(p, &expected, sizeof expected);
                        }
                    for (size_t g = 16 * s; g < 16 * s + 16; g++)
                        for (size_t f = panel; f < panel + 16; f++)
                            for (size_t j = 4 * g; j < 4 * g + 4; j++) assert_int_equal((int8_t)*p++, trit_at(c, n, k, f, j));
                }
            for (size_t i = 0; i < n; i++) {
                tern_unpack_i8(back, 0, plain, i, 1, k);
                assert_memory_equal(back, c + i * k, k);
                tern_unpack_i8b32(back, 0, scales_back, 0, scaled, i, 1, k);
                assert_memory_equal(back, c + i * k, k);
                assert_memory_equal(scales_back, scales + i * blocks, blocks * sizeof *scales);
            }
            free(c);
            free(scales);
            free(plain);
            free(scaled);
        }
}

int main(void) {
    printf("seed %llu\n", (unsigned long long)rng);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slabs_follow_their_diagram_and_unpack_exactly),
        cmocka_unit_test(m2_panels_follow_their_diagram_and_unpack_exactly),
        cmocka_unit_test(int8_panels_follow_their_diagram_and_unpack_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
