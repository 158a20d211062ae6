// SPDX-License-Identifier: MIT
// The byte-level alphabet of GPT-2: visible Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and up.
#include "decode/byte_level.h"

enum {
    FIRST_LETTER = 0x100, // of the bytes that are not visible, in order of the bytes
    LOW_HIDDEN = 0x21,    // bytes 0x00..0x20
    MID_FIRST = 0x7F,     // bytes 0x7F..0xA0
    MID_HIDDEN = 0xA1 - MID_FIRST,
    SOFT_HYPHEN = 0xAD,
    SOFT_HYPHEN_LETTER = FIRST_LETTER + LOW_HIDDEN + MID_HIDDEN
};

static bool stands_for_itself(uint32_t code) {
    return code >= LOW_HIDDEN && code < TERN_BYTES && !(code >= MID_FIRST && code < MID_FIRST + MID_HIDDEN) &&
           code != SOFT_HYPHEN;
}

static uint32_t letter_of_byte(uint8_t byte) {
    if (stands_for_itself(byte)) return byte;
    if (byte < LOW_HIDDEN) return FIRST_LETTER + (uint32_t)byte;
    if (byte == SOFT_HYPHEN) return SOFT_HYPHEN_LETTER;
    return FIRST_LETTER + LOW_HIDDEN + (uint32_t)byte - MID_FIRST;
}

static int byte_of_letter(uint32_t code) {
    if (stands_for_itself(code)) return (int)code;
    if (code < FIRST_LETTER || code > SOFT_HYPHEN_LETTER) return -1;
    if (code == SOFT_HYPHEN_LETTER) return SOFT_HYPHEN;
    const int index = (int)code - FIRST_LETTER;
    return index < LOW_HIDDEN ? index : index - LOW_HIDDEN + MID_FIRST;
}

size_t tern_byte_text(uint8_t byte, char text[TERN_BYTE_TEXT_MAX]) {
    const uint32_t code = letter_of_byte(byte);
    if (code < 0x80) {
        text[0] = (char)code;
        return 1;
    }
    text[0] = (char)(0xC0 | code >> 6);
    text[1] = (char)(0x80 | (code & 0x3F));
    return 2;
}

bool tern_byte_decode(const char *text, size_t size, char *out, size_t *n) {
    size_t count = 0;
    for (size_t i = 0; i < size;) {
        const uint8_t lead = (uint8_t)text[i];
        uint32_t code = lead;
        if (lead < 0x80) {
            i += 1;
        } else {
            // Letters past ASCII take two bytes of UTF-8; a longer sequence cannot be one.
            if ((lead & 0xE0) != 0xC0 || i + 1 >= size || ((uint8_t)text[i + 1] & 0xC0) != 0x80) return false;
            code = (lead & 0x1Fu) << 6 | ((uint8_t)text[i + 1] & 0x3Fu);
            if (code < 0x80) return false; // an overlong form
            i += 2;
        }
        const int byte = byte_of_letter(code);
        if (byte < 0) return false;
        out[count++] = (char)byte;
    }
    *n = count;
    return true;
}
