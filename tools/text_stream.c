// SPDX-License-Identifier: MIT
// The text of an answer as its tokens come: what can be shown already, and where a stop string ends it.
#include "text_stream.h"

#include <stdlib.h>
#include <string.h>

#include "utf8.h"

static bool grow(text_stream *s, size_t size) {
    enum { FIRST_ROOM = 4096 };
    if (s->text && s->room - s->size >= size) return true;
    const size_t room = 2 * (s->size + size) + FIRST_ROOM;
    char *larger = realloc(s->text, room);
    if (!larger) return false;
    s->text = larger;
    s->room = room;
    return true;
}

// Cuts the text where the first stop string in it begins. Those before `from` were looked for already.
static void cut_at_stop(text_stream *s, size_t from) {
    size_t first = s->size;
    for (size_t i = 0; i < s->n_stops; i++) {
        const size_t length = strlen(s->stops[i]);
        const size_t start = from > length - 1 ? from - (length - 1) : 0; // it may have begun in earlier tokens
        const char *at = memmem(s->text + start, s->size - start, s->stops[i], length);
        if (!at) continue;
        s->stopped = true;
        if ((size_t)(at - s->text) < first) first = (size_t)(at - s->text);
    }
    s->size = first;
}

bool text_stream_add(text_stream *s, const char *bytes, size_t size) {
    if (s->stopped) return true;
    if (!grow(s, size)) return false;
    const size_t from = s->size;
    if (size) memcpy(s->text + s->size, bytes, size);
    s->size += size;
    cut_at_stop(s, from);
    return true;
}

// How many bytes at the end may be the beginning of a stop string.
static size_t held_back(const text_stream *s) {
    size_t most = 0;
    for (size_t i = 0; i < s->n_stops; i++) {
        const size_t left = s->size - s->shown, length = strlen(s->stops[i]);
        for (size_t n = length - 1 < left ? length - 1 : left; n > most; n--) {
            if (memcmp(s->text + s->size - n, s->stops[i], n) == 0) most = n;
        }
    }
    return most;
}

const char *text_stream_take(text_stream *s, bool all, size_t *size) {
    const char *next = s->text + s->shown;
    *size = 0;
    if (s->size == s->shown) return next;
    size_t ready = s->size - s->shown;
    if (!all && !s->stopped) ready = utf8_ready(next, ready - held_back(s));
    s->shown += ready;
    *size = ready;
    return next;
}

void text_stream_clear(text_stream *s) {
    s->size = s->shown = 0;
    s->stopped = false;
}

void text_stream_free(text_stream *s) { free(s->text); }
