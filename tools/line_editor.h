// SPDX-License-Identifier: MIT
// Lines that a user types: edited with libedit on a terminal, plain where stdin is a file or a pipe.
#ifndef TERN_TOOLS_LINE_EDITOR_H
#define TERN_TOOLS_LINE_EDITOR_H

#include <stdbool.h>
#include <stddef.h>

typedef struct line_editor line_editor;

typedef enum line_result { LINE_TEXT, LINE_END, LINE_INTERRUPTED, LINE_NO_MEMORY } line_result;

// wake: descriptor of interrupt_watch_always. NULL: no memory. Sets the locale's characters to UTF-8.
line_editor *line_editor_open(int wake);
void line_editor_close(line_editor *e);
bool line_editor_is_terminal(const line_editor *e); // stdin and stdout are

// The next line without its newline, valid until the next call, and its size. On a terminal a pasted text is one line, whose
// newlines are part of it (shown as U+240A, and its tabs as U+2409), and what was typed stays in a history.
line_result line_editor_read(line_editor *e, const char *prompt, const char **text, size_t *size);

#endif
