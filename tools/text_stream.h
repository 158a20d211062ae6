// SPDX-License-Identifier: MIT
// The text of an answer as its tokens come: what can be shown already, and where a stop string ends it.
#ifndef TERN_TOOLS_TEXT_STREAM_H
#define TERN_TOOLS_TEXT_STREAM_H

#include <stdbool.h>
#include <stddef.h>

typedef struct text_stream {
    const char *const *stops; // n_stops strings, none of them empty
    size_t n_stops;
    char *text; // all bytes so far, up to the stop string
    size_t size, room;
    size_t shown; // of them handed out
    bool stopped; // a stop string came: nothing is added any more
} text_stream;

// Adds bytes. false: no memory.
bool text_stream_add(text_stream *s, const char *bytes, size_t size);

// The bytes to show next, *size of them: whole characters only, and none that may be the beginning of a stop string. With
// `all`, because no more will be added, everything.
const char *text_stream_take(text_stream *s, bool all, size_t *size);

void text_stream_clear(text_stream *s); // for the next answer; the memory is kept
void text_stream_free(text_stream *s);

#endif
