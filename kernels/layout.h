// SPDX-License-Identifier: MIT
// Every packed byte format: diagram, size formula, padding. Layouts are named apart from the ISA: each has a scalar reader.
//
// Common rules. Rows (features) are padded to the layout's panel with zero weights; K is padded with zero weights.
// All packed buffers are 64-byte aligned. A tensor with ternary block scales is packed one K-slice after the other,
// each slice like a matrix of its own depth.
#ifndef TERN_KERNELS_LAYOUT_H
#define TERN_KERNELS_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

typedef enum tern_layout {
    TERN_LAYOUT_NONE,  // stages that read no packed weights
    TERN_LAYOUT_T5,    // five trits per byte, 1.6 bits per weight: table lookup
    TERN_LAYOUT_T2N,   // two trits per nibble, 2 bits per weight: table lookup with byte shuffles
    TERN_LAYOUT_T3,    // three trits per nibble plus a sign bit, 1.72 bits per weight: the same, where memory binds
    TERN_LAYOUT_B1,    // four signs per nibble, 1 bit per weight: table lookup of binary weights
    TERN_LAYOUT_M2,    // 2-bit codes, four k per byte: multiply-add
    TERN_LAYOUT_I8,    // int8, four k per 32-bit lane
    TERN_LAYOUT_I8B32, // the same in 64-deep groups that carry float16 scales per 32
    TERN_LAYOUT_I4B32, // 4-bit codes less 8, float16 scale per 32 (GGUF Q4_0)
    TERN_LAYOUT_I4M32, // 4-bit codes, float16 scale and min per 32 (GGUF Q4_1)
    TERN_LAYOUT_I4K,   // 4-bit codes, 6-bit scale and min per 32 under float16 ones per 256 (GGUF Q4_K)
    TERN_LAYOUT_I6B32, // 6-bit codes, the first k 8-bit ones, 8-bit scales per 32 under a float32 one per feature
    TERN_LAYOUT_I8S32, // I8B32's codes and scales by rows, high nibbles apart from low ones: a screened head
    TERN_LAYOUT_COUNT
} tern_layout;

static inline size_t tern_ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }
static inline size_t tern_round_up(size_t a, size_t b) { return tern_ceil_div(a, b) * b; }

// Quantized activation rows are zero-padded to a multiple of this, and 64-byte aligned.
enum { TERN_X_ALIGN = 64 };

// ---- slabs (T5, T2N, T3, B1) -----------------------------------------------------------------------------------
// LUT layouts keep K outermost, so that the tables of a few groups stay in L1 while all features of a slab use them:
//
//   slab (<= TERN_SLAB_MAX features) > K-tile (a fixed number of byte rows) > block of features > byte row > features
//
// The features of a slab are cut into blocks of the layout's widest block and then of halves of it (T5: 512, 256, 128, 64;
// T2N: 128, 64; T3: 64), so that every block is a power-of-two number of vectors. The last K-tile may have fewer byte rows.
// Every slab but the last of a matrix has the same number of features, a multiple of 64. One slab is one tile of work.
enum { TERN_SLAB_ALIGN = 64, TERN_SLAB_MAX = 2048 };

// Width of the block that starts `left` features before the end of the slab.
static inline size_t tern_slab_block(size_t left, size_t widest) {
    while (widest > left) widest /= 2;
    return widest;
}
// Offset of byte row `row` of feature f in a slab of n_padded features and `rows` byte rows.
static inline size_t tern_slab_offset(size_t n_padded, size_t rows, size_t tile_rows, size_t widest, size_t row, size_t f) {
    const size_t tile0 = row - row % tile_rows, in_tile = rows - tile0 < tile_rows ? rows - tile0 : tile_rows;
    size_t f0 = f - f % widest, width = tern_slab_block(n_padded - f0, widest); // first feature and width of the block of f
    while (f >= f0 + width) {
        f0 += width;
        width = tern_slab_block(n_padded - f0, width);
    }
    return tile0 * n_padded + f0 * in_tile + (row - tile0) * width + (f - f0);
}

// ---- T5 -------------------------------------------------------------------------------------------------
// Byte row g of a feature: v = sum_j t[5g + j] * 3^j, |v| <= 121, stored as (v < 0) << 7 | |v|. Zero is 0x00.
// Table of group g: 256 bytes. For entry e = 0..121, value(e) = lo + 36 * hi; hi is value / 36 to the nearest, halves towards zero:
// both planes lie within -18..18, so that a byte holds the sum of a K-tile: 7 * 18 = 126.
//   bytes 0..127: lo[e]; bytes 128..255: hi[e]; entries 122..127 are 0.
enum { TERN_T5_TRITS = 5, TERN_T5_ENTRIES = 122, TERN_T5_TABLE_BYTES = 256, TERN_T5_TILE_ROWS = 7, TERN_T5_BLOCK = 512, TERN_T5_SIGN = 0x80, TERN_T5_STEP = 36 };
static inline size_t tern_t5_rows(size_t k) { return tern_ceil_div(k, TERN_T5_TRITS); }
static inline size_t tern_t5_table_bytes(size_t k) { return tern_t5_rows(k) * TERN_T5_TABLE_BYTES; }
static inline size_t tern_t5_bytes(size_t n_padded, size_t k) { return n_padded * tern_t5_rows(k); } // n_padded: multiple of 64

// ---- T2N ------------------------------------------------------------------------------------------------
// Byte row b of a feature holds k = 4b .. 4b + 3: low nibble = (t[4b] + 1) + 3 * (t[4b + 1] + 1), high nibble = the same of
// t[4b + 2], t[4b + 3]. Zero is 0x44. Table of a byte row: 64 bytes, two groups (low nibble first) of 32:
//   bytes 0..15: lo[e]; bytes 16..31: hi[e]; value(e) = lo + 24 * hi, lo in -12..11, e = 0..8; entries 9..15 are 0.
enum { TERN_T2N_TRITS = 4, TERN_T2N_TABLE_BYTES = 64, TERN_T2N_TILE_ROWS = 5, TERN_T2N_BLOCK = 128, TERN_T2N_ZERO = 0x44, TERN_T2N_ENTRIES = 9, TERN_T2N_STEP = 24 };
static inline size_t tern_t2n_rows(size_t k) { return tern_ceil_div(k, TERN_T2N_TRITS); }
static inline size_t tern_t2n_table_bytes(size_t k) { return tern_t2n_rows(k) * TERN_T2N_TABLE_BYTES; }
static inline size_t tern_t2n_bytes(size_t n_padded, size_t k) { return n_padded * tern_t2n_rows(k); }

// ---- T3 -------------------------------------------------------------------------------------------------
// Groups of three trits, v = t[3g] + 3 t[3g + 1] + 9 t[3g + 2], |v| <= 13: a nibble |v| and a sign bit. A K-tile holds 14 groups
// (42 k) in 9 byte rows: two rows of signs, then seven rows of nibbles; row 2 + i holds group 2i (low nibble) and 2i + 1 (high):
//
//   byte row 0:     bit 7 - i = (v of group 2i < 0), i = 0..6; bit 0 = 1      shifted left i times, the byte's sign is that of
//   byte row 1:     bit 7 - i = (v of group 2i + 1 < 0);       bit 0 = 1      group i, and the byte is never 0 (vpsignb)
//   byte row 2 + i: |v| of group 2i | |v| of group 2i + 1 << 4
//
// The last K-tile has its two rows of signs and only as many rows of nibbles as its groups need. A zero weight: 0x01, 0x01, 0x00.
// Table of a pair of groups: 64 bytes, two groups of 32: bytes 0..15: lo[e]; bytes 16..31: hi[e]; value(e) = lo + 31 * hi with
// lo in -15..15, e = 0..13; entries 14, 15 are 0.
enum { TERN_T3_TRITS = 3, TERN_T3_PAIR_K = 6, TERN_T3_SIGN_ROWS = 2, TERN_T3_TILE_PAIRS = 7, TERN_T3_TILE_ROWS = 9, TERN_T3_TILE_K = 42, TERN_T3_TABLE_BYTES = 64, TERN_T3_BLOCK = 64, TERN_T3_ENTRIES = 14, TERN_T3_STEP = 31, TERN_T3_SIGN = 0x80, TERN_T3_POSITIVE = 0x01 };
static inline size_t tern_t3_pairs(size_t k) { return tern_ceil_div(k, TERN_T3_PAIR_K); } // table rows
static inline size_t tern_t3_rows(size_t k) {
    return tern_ceil_div(k, TERN_T3_TILE_K) * TERN_T3_SIGN_ROWS + tern_t3_pairs(k); // a K-tile is a whole number of pairs
}
static inline size_t tern_t3_table_bytes(size_t k) { return tern_t3_pairs(k) * TERN_T3_TABLE_BYTES; }
static inline size_t tern_t3_bytes(size_t n_padded, size_t k) { return n_padded * tern_t3_rows(k); }

// ---- B1 -------------------------------------------------------------------------------------------------
// Binary weights, -1 or +1. Byte row b of a feature holds k = 8b .. 8b + 7: bit j of the low nibble is (w[8b + j] > 0), j = 0..3,
// the high nibble the same of w[8b + 4 + j]. There is no zero weight: features past the last one have any result, and k past the
// last one counts nothing because its activations are 0. Slabs, K-tiles, blocks and tables are those of T2N: a table's value is
// value(e) = lo + 24 * hi = floor((sum of +-x) / 2), e = 0..15, so that |value| <= 256 although |sum| <= 512; see kernels/lut_b1.h.
enum { TERN_B1_SIGNS = 8, TERN_B1_TABLE_BYTES = TERN_T2N_TABLE_BYTES };
static inline size_t tern_b1_rows(size_t k) { return tern_ceil_div(k, TERN_B1_SIGNS); }
static inline size_t tern_b1_table_bytes(size_t k) { return tern_b1_rows(k) * TERN_B1_TABLE_BYTES; }
static inline size_t tern_b1_bytes(size_t n_padded, size_t k) { return n_padded * tern_b1_rows(k); }

// ---- M2 -------------------------------------------------------------------------------------------------
// Panel of 16 features, then groups of 16 k; a group is 64 bytes: byte 4f + j (feature f = 0..15, j = 0..3) holds the codes
// c = t + 1 of k = 16g + 4p + j at bits 2p, p = 0..3; c = 3 is the weight +2 of four-level codes. Zero is 0x55. Masks 0x03 << 2p
// feed a dot product of four bytes directly.
enum { TERN_M2_PANEL = 16, TERN_M2_GROUP_K = 16, TERN_M2_GROUP_BYTES = 64, TERN_M2_ZERO = 0x55 };
static inline size_t tern_m2_groups(size_t k) { return tern_ceil_div(k, TERN_M2_GROUP_K); }
static inline size_t tern_m2_bytes(size_t n_padded, size_t k) { return n_padded / TERN_M2_PANEL * tern_m2_groups(k) * TERN_M2_GROUP_BYTES; }

// ---- I8 -------------------------------------------------------------------------------------------------
// Panel of 16 features, then groups of 4 k; a group is 64 bytes: byte 4f + j = code of feature f, k = 4g + j.
enum { TERN_I8_PANEL = 16, TERN_I8_GROUP_K = 4, TERN_I8_GROUP_BYTES = 64 };
static inline size_t tern_i8_groups(size_t k) { return tern_ceil_div(k, TERN_I8_GROUP_K); }
static inline size_t tern_i8_bytes(size_t n_padded, size_t k) { return n_padded / TERN_I8_PANEL * tern_i8_groups(k) * TERN_I8_GROUP_BYTES; }

// ---- keys and values of attention ------------------------------------------------------------------------
// The context is cut into blocks of 256 keys. INT8 codes of a block of one head, its head_dim padded with zeros to `dims`:
//   keys:   I8 with keys as features, dims deep: the scores of 16 keys stand in 16 lanes
//   values: I8 with dims as features, 256 keys deep: sums over the keys stand in 16 lanes
// Each key and each value has a float32 scale of its own, max|x| / 127.
// float16: keys in panels of 16, [panel][head_dim][16], values [key][head_dim].
enum { TERN_ATTN_BLOCK = 256, TERN_ATTN_PANEL = 16 };
// Element of (key, d) in a run of panels.
static inline size_t tern_key_at(size_t key, size_t d, size_t head_dim) {
    return (key / TERN_ATTN_PANEL * head_dim + d) * TERN_ATTN_PANEL + key % TERN_ATTN_PANEL;
}
static inline size_t tern_kv_dims(size_t head_dim) { return tern_round_up(head_dim, TERN_I8_PANEL); }
static inline size_t tern_kv_block_bytes(size_t head_dim) { return TERN_ATTN_BLOCK * tern_kv_dims(head_dim); }
// Byte of (feature, k) in panels that are `depth` deep.
static inline size_t tern_i8_at(size_t feature, size_t k, size_t depth) {
    return feature / TERN_I8_PANEL * TERN_I8_PANEL * depth + k / TERN_I8_GROUP_K * TERN_I8_GROUP_BYTES +
           feature % TERN_I8_PANEL * TERN_I8_GROUP_K + k % TERN_I8_GROUP_K;
}

// ---- I8B32 ----------------------------------------------------------------------------------------------
// Panel of 16 features, then super-groups of 64 k (two scale blocks of 32); a super-group is 1088 bytes = 17 cache lines:
//   32 bytes: float16 scales of features 0..15, block 0;  32 bytes: the same, block 1;
//   16 x 64 bytes: I8 groups (4 k each), 8 of block 0, then 8 of block 1.
enum { TERN_I8B_PANEL = 16, TERN_I8B_BLOCK = 32, TERN_I8B_SUPER_K = 64, TERN_I8B_SUPER_BYTES = 1088, TERN_I8B_CODES = 64 };
static inline size_t tern_i8b_supers(size_t k) { return tern_ceil_div(k, TERN_I8B_SUPER_K); }
static inline size_t tern_i8b_bytes(size_t n_padded, size_t k) { return n_padded / TERN_I8B_PANEL * tern_i8b_supers(k) * TERN_I8B_SUPER_BYTES; }

// ---- I4B32, I4M32, I4K ----------------------------------------------------------------------------------
// Panel of 16 features, then supers of 64 k (I4K: 256 k). A super is a head of scales, then 256 bytes of codes per block of 32:
// line p = 0..3 of a block is 64 bytes, byte 4f + j = code of feature f: low nibble k = 8p + j, high nibble k = 8p + 4 + j.
// Codes are 0..15. What a code c of block b is worth:
//   I4B32: d * (c - 8); head 64 bytes:      float16 d[block 0..1][feature]
//   I4M32: d * c + m;   head 128 bytes:     float16 d[block 0..1][feature], then m the same
//   I4K:   (D * s) * c + (M * t);           float16 D[feature], M[feature], then for each pair of blocks 48 bytes that hold the
//          head 256 bytes                   6-bit s, t of blocks e (even) and o (odd) in three vectors over the features:
//                                           s_e | t_o[0..1] << 6,   s_o | t_o[2..3] << 6,   t_e | t_o[4..5] << 6
// Zero bytes are padding. I4K needs k to be a multiple of 256.
enum { TERN_I4_PANEL = 16, TERN_I4_BLOCK = 32, TERN_I4_BLOCK_BYTES = 256, TERN_I4_LINE_BYTES = 64, TERN_I4_LINE_K = 8, TERN_I4_ZERO = 8, TERN_I4_CODE_MAX = 15 };
enum { TERN_I4_SUPER_K = 64, TERN_I4B_HEAD = 64, TERN_I4M_HEAD = 128, TERN_I4M_MINS = 64 };
enum { TERN_I4K_SUPER_K = 256, TERN_I4K_HEAD = 256, TERN_I4K_MINS = 32, TERN_I4K_PAIRS = 64, TERN_I4K_PAIR_BYTES = 48, TERN_I4K_SIX_MAX = 63 };
static inline size_t tern_i4_super_k(tern_layout layout) { return layout == TERN_LAYOUT_I4K ? TERN_I4K_SUPER_K : TERN_I4_SUPER_K; }
static inline size_t tern_i4_head(tern_layout layout) {
    return layout == TERN_LAYOUT_I4K ? TERN_I4K_HEAD : layout == TERN_LAYOUT_I4M32 ? TERN_I4M_HEAD : TERN_I4B_HEAD;
}
static inline size_t tern_i4_super_bytes(tern_layout layout) {
    return tern_i4_head(layout) + tern_i4_super_k(layout) / TERN_I4_BLOCK * TERN_I4_BLOCK_BYTES;
}
static inline size_t tern_i4_panel_bytes(tern_layout layout, size_t k) {
    return tern_ceil_div(k, tern_i4_super_k(layout)) * tern_i4_super_bytes(layout);
}
static inline size_t tern_i4b_bytes(size_t n_padded, size_t k) { return n_padded / TERN_I4_PANEL * tern_i4_panel_bytes(TERN_LAYOUT_I4B32, k); }
static inline size_t tern_i4m_bytes(size_t n_padded, size_t k) { return n_padded / TERN_I4_PANEL * tern_i4_panel_bytes(TERN_LAYOUT_I4M32, k); }
static inline size_t tern_i4k_bytes(size_t n_padded, size_t k) { return n_padded / TERN_I4_PANEL * tern_i4_panel_bytes(TERN_LAYOUT_I4K, k); }

// ---- I6B32 ----------------------------------------------------------------------------------------------
// Panel of 16 features: a head of 64 bytes, float32 D[feature], then supers of 64 k (two scale blocks of 32). The first
// tern_i6_wide_supers(k) of them hold codes of 8 bits, for the k that matter most, the others codes of 6 bits. A super begins
// with 32 bytes, s[block 0..1][feature]; a code c of block b is worth (D * s_b) * c. Then the codes:
//   8 bits, -127..127: 16 x 64 bytes, I8 groups (4 k each), 8 of block 0, then 8 of block 1;
//   6 bits, u = c + 32 = 1..63: 3 x 64 bytes for each 16 k. Byte 4f + j of line i = 0..2 holds u of feature f, k = 4i + j, in its
//           low six bits, and on top bits 2i and 2i + 1 of u of k = 12 + j.
// Zero bytes are padding: of features by s = 0, of k by activations of 0. Panels and supers are 32-byte aligned.
enum { TERN_I6_PANEL = 16, TERN_I6_BLOCK = 32, TERN_I6_SUPER_K = 64, TERN_I6_HEAD = 64, TERN_I6_SCALES = 32 };
enum { TERN_I6_BLOCK_BYTES = 384, TERN_I6_LINE_BYTES = 64, TERN_I6_LINES = 3, TERN_I6_LINES_K = 16, TERN_I6_WIDE_BLOCK_BYTES = 512 };
enum { TERN_I6_ZERO = 32, TERN_I6_CODE_MAX = 31, TERN_I6_WIDE_MAX = 127, TERN_I6_SCALE_MAX = 255, TERN_I6_WIDE_SHARE = 16 };
enum { TERN_I6_SUPER_BYTES = TERN_I6_SCALES + 2 * TERN_I6_BLOCK_BYTES, TERN_I6_WIDE_BYTES = TERN_I6_SCALES + 2 * TERN_I6_WIDE_BLOCK_BYTES };
static inline size_t tern_i6_supers(size_t k) { return tern_ceil_div(k, TERN_I6_SUPER_K); }
static inline size_t tern_i6_wide_supers(size_t k) { return tern_ceil_div(k, TERN_I6_WIDE_SHARE * TERN_I6_SUPER_K); }
// Offset of super s in its panel; of the end, with s = tern_i6_supers(k).
static inline size_t tern_i6_super_at(size_t k, size_t s) {
    const size_t wide = tern_i6_wide_supers(k);
    return TERN_I6_HEAD + s * TERN_I6_SUPER_BYTES + (s < wide ? s : wide) * (TERN_I6_WIDE_BYTES - TERN_I6_SUPER_BYTES);
}
static inline size_t tern_i6_panel_bytes(size_t k) { return tern_i6_super_at(k, tern_i6_supers(k)); }
static inline size_t tern_i6_bytes(size_t n_padded, size_t k) { return n_padded / TERN_I6_PANEL * tern_i6_panel_bytes(k); }

// ---- I8S32 ----------------------------------------------------------------------------------------------
// Panel of 64 features: their upper rows, then their lower rows, so that a reader of the upper ones alone meets runs of many
// pages. u = c + 128 = 0..255 of a code c; float16 scales per 32, and supers of 64 k (two blocks):
//   upper row: 4 bytes of scales for each super, then 32 bytes for each: byte j holds u >> 4 of k = j (low nibble) and k = 32 + j
//   lower row:                                        32 bytes for each: the same of u & 15
// Zero bytes are padding: of features by scales of 0, of k by activations of 0.
enum { TERN_I8S_PANEL = 64, TERN_I8S_BLOCK = 32, TERN_I8S_SUPER_K = 64, TERN_I8S_SCALES = 4, TERN_I8S_CODES = 32, TERN_I8S_ZERO = 128 };
static inline size_t tern_i8s_supers(size_t k) { return tern_ceil_div(k, TERN_I8S_SUPER_K); }
static inline size_t tern_i8s_upper_bytes(size_t k) { return tern_i8s_supers(k) * (TERN_I8S_SCALES + TERN_I8S_CODES); }
static inline size_t tern_i8s_lower_bytes(size_t k) { return tern_i8s_supers(k) * TERN_I8S_CODES; }
static inline size_t tern_i8s_panel_bytes(size_t k) { return TERN_I8S_PANEL * (tern_i8s_upper_bytes(k) + tern_i8s_lower_bytes(k)); }
static inline size_t tern_i8s_bytes(size_t n_padded, size_t k) { return n_padded / TERN_I8S_PANEL * tern_i8s_panel_bytes(k); }
// Where the rows of feature i begin.
static inline size_t tern_i8s_upper_at(size_t i, size_t k) {
    return i / TERN_I8S_PANEL * tern_i8s_panel_bytes(k) + i % TERN_I8S_PANEL * tern_i8s_upper_bytes(k);
}
static inline size_t tern_i8s_lower_at(size_t i, size_t k) {
    return i / TERN_I8S_PANEL * tern_i8s_panel_bytes(k) + TERN_I8S_PANEL * tern_i8s_upper_bytes(k) + i % TERN_I8S_PANEL * tern_i8s_lower_bytes(k);
}

// Marks: what a screened head keeps of the low nibbles of 8 features. 16 bytes of codes for each, then the upper 16 bits of
// float32 step[8] and norm[8] (src/decode/screen.h has their meaning).
enum { TERN_SCREEN_DIRECTIONS = 16, TERN_SCREEN_GROUP = 8, TERN_SCREEN_STEPS = 128, TERN_SCREEN_NORMS = 144, TERN_SCREEN_GROUP_BYTES = 160 };

#endif
