// SPDX-License-Identifier: MIT
// Multiply and fold, as wyhash does it, in four independent lanes: a 64 x 64-bit product per 16 bytes, whose halves are xored.
#include "base/checksum.h"

#include <string.h>

enum { LANES = 4, LANE_BYTES = 16, BLOCK_BYTES = LANES * LANE_BYTES };

// Odd constants with about as many ones as zeros (from wyhash).
static const uint64_t keys[LANES] = {UINT64_C(0xA0761D6478BD642F), UINT64_C(0xE7037ED1A0B428DB), UINT64_C(0x8EBC6AF09C88C6E3),
                                     UINT64_C(0x589965CC75374CC3)};

static uint64_t fold(uint64_t a, uint64_t b) {
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static void add_block(uint64_t lanes[LANES], const uint8_t *block) {
    for (size_t i = 0; i < LANES; i++) {
        uint64_t a, b;
        memcpy(&a, block + i * LANE_BYTES, sizeof a);
        memcpy(&b, block + i * LANE_BYTES + sizeof a, sizeof b);
        lanes[i] = fold(a ^ keys[i], b ^ lanes[i]);
    }
}

uint64_t tern_checksum(const void *data, size_t bytes) {
    const uint8_t *p = data;
    uint64_t lanes[LANES];
    memcpy(lanes, keys, sizeof lanes);
    size_t left = bytes;
    for (; left >= BLOCK_BYTES; left -= BLOCK_BYTES, p += BLOCK_BYTES) add_block(lanes, p);
    uint8_t last[BLOCK_BYTES] = {0};
    if (left) memcpy(last, p, left);
    add_block(lanes, last);
    uint64_t sum = bytes; // so that zeros at the end count
    for (size_t i = 0; i < LANES; i++) sum = fold(sum ^ keys[i], lanes[i] ^ keys[LANES - 1 - i]);
    return sum;
}
