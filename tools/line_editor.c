// SPDX-License-Identifier: MIT
// Lines that a user types. libedit edits them; the bytes come through this file, which also waits for Ctrl-C and resizes, and
// knows a paste by the marks that terminals put around it (mode 2004, bracketed paste).
#include "line_editor.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "interrupt.h"

enum { READ_BYTES = 4096, HISTORY_LINES = 1000, ESCAPE_WAIT_MS = 50 };
enum { TAB_SYMBOL = 0x2409, NEWLINE_SYMBOL = 0x240A, SYMBOL_BYTES = 3 };
enum { BYTE_END = -1, BYTE_INTERRUPTED = -2 };
static const char paste_begin[] = "\033[200~", paste_end[] = "\033[201~";
enum { PASTE_MARK = sizeof paste_begin - 1 };

struct line_editor {
    int wake;
    unsigned char bytes[READ_BYTES]; // read, but used only up to `at`
    size_t at, end;
    EditLine *edit; // NULL: plain lines
    History *history;
    const char *prompt;
    bool pasting;
    bool interrupted;
    char *line; // plain lines, and text taken from libedit
    size_t room;
};

// ---- Bytes --------------------------------------------------------------------------------------------------

static size_t waiting(const line_editor *e) { return e->end - e->at; }

// Reads what is there, behind what is waiting. false: nothing came, because stdin ended (*ended) or ms milliseconds passed, or
// Ctrl-C (interrupted() tells).
static bool read_more(line_editor *e, int ms, bool *ended) {
    memmove(e->bytes, e->bytes + e->at, waiting(e));
    e->end -= e->at;
    e->at = 0;
    for (;;) {
        struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = e->wake, .events = POLLIN}};
        const int ready = poll(fds, 2, ms);
        if (interrupted()) return false;
        if (fds[1].revents) interrupt_forget(); // a resize, then
        if (e->edit && resized()) {
            el_resize(e->edit);
            (void)fputs("\r\033[J", stdout); // libedit draws the line from where the cursor is
            (void)el_set(e->edit, EL_REFRESH);
        }
        if (ready == 0) return false;
        if (ready < 0 || !fds[0].revents) continue; // a signal
        const ssize_t n = read(STDIN_FILENO, e->bytes + e->end, sizeof e->bytes - e->end);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        *ended = n <= 0;
        e->end += n > 0 ? (size_t)n : 0;
        return n > 0;
    }
}

static int next_byte(line_editor *e) {
    bool ended = false;
    if (waiting(e) == 0 && !read_more(e, -1, &ended)) return interrupted() ? BYTE_INTERRUPTED : BYTE_END;
    return e->bytes[e->at++];
}

// Whether a mark stands next. What may be the beginning of one waits a moment for the rest: nobody types that fast.
static bool take_mark(line_editor *e, const char *mark) {
    bool ended = false;
    while (waiting(e) < PASTE_MARK) {
        if (memcmp(e->bytes + e->at, mark, waiting(e)) != 0 || !read_more(e, ESCAPE_WAIT_MS, &ended)) return false;
    }
    if (memcmp(e->bytes + e->at, mark, PASTE_MARK) != 0) return false;
    e->at += PASTE_MARK;
    return true;
}

// ---- Characters for libedit ---------------------------------------------------------------------------------

// The rest of a character of UTF-8; what is none becomes U+FFFD.
static wchar_t decode_rest(line_editor *e, int first) {
    static const wchar_t replacement = 0xFFFD;
    mbstate_t state = {0};
    wchar_t c;
    for (int byte = first; byte >= 0; byte = next_byte(e)) {
        const char one = (char)byte;
        const size_t n = mbrtowc(&c, &one, 1, &state);
        if (n == (size_t)-1) return replacement;
        if (n != (size_t)-2) return c;
    }
    return replacement;
}

// A pasted newline or tab is text, not a key. libedit edits one row, so there the symbols of these stand for them. Other
// control characters of a paste are dropped: 0.
static wchar_t pasted(wchar_t c) {
    if (c == '\n' || c == '\r') return NEWLINE_SYMBOL; // terminals send the latter
    if (c == '\t') return TAB_SYMBOL;
    return c < ' ' ? 0 : c;
}

static int give_character(EditLine *edit, wchar_t *c) {
    line_editor *e;
    if (el_get(edit, EL_CLIENTDATA, &e) != 0) return -1;
    for (*c = 0; *c == 0;) {
        const int byte = next_byte(e);
        if (byte < 0) {
            e->interrupted = byte == BYTE_INTERRUPTED;
            return e->interrupted ? -1 : 0;
        }
        e->at--; // it may be the first of a mark
        if (byte == paste_begin[0] && take_mark(e, e->pasting ? paste_end : paste_begin)) {
            e->pasting = !e->pasting;
            continue;
        }
        e->at++;
        *c = decode_rest(e, byte);
        if (e->pasting) *c = pasted(*c);
    }
    return 1;
}

static char *give_prompt(EditLine *edit) {
    line_editor *e;
    static char none[] = "";
    return el_get(edit, EL_CLIENTDATA, &e) == 0 ? (char *)(uintptr_t)e->prompt : none;
}

// ---- Lines --------------------------------------------------------------------------------------------------

static bool grow(line_editor *e, size_t size) {
    if (size <= e->room) return true;
    char *larger = realloc(e->line, 2 * size);
    if (!larger) return false;
    e->line = larger;
    e->room = 2 * size;
    return true;
}

static void set_paste_marks(bool on) {
    (void)fputs(on ? "\033[?2004h" : "\033[?2004l", stdout);
    (void)fflush(stdout);
}

// The symbols become what they stand for. Returns the size of the copy.
static size_t copy_text(char *out, const char *line, size_t size) {
    static const char tab[] = "\u2409", newline[] = "\u240A";
    size_t n = 0;
    for (size_t at = 0; at < size; n++) {
        const bool fits = size - at >= SYMBOL_BYTES;
        const bool is_tab = fits && memcmp(line + at, tab, SYMBOL_BYTES) == 0;
        const bool is_newline = fits && memcmp(line + at, newline, SYMBOL_BYTES) == 0;
        out[n] = is_tab ? '\t' : is_newline ? '\n' : line[at];
        at += is_tab || is_newline ? SYMBOL_BYTES : 1;
    }
    return n;
}

static line_result read_edited(line_editor *e, const char *prompt, const char **text, size_t *size) {
    int n = 0;
    HistEvent event;
    e->prompt = prompt;
    e->interrupted = false;
    if (resized()) el_resize(e->edit); // while an answer came: there is no line to draw anew
    set_paste_marks(true);
    (void)el_set(e->edit, EL_PREP_TERM, 1); // before the prompt asks for keys
    const char *line = el_gets(e->edit, &n);
    set_paste_marks(false);
    if (!line || n <= 0) {
        (void)putchar('\n');
        e->pasting = false;
        return e->interrupted ? LINE_INTERRUPTED : LINE_END;
    }
    if (n > 1) (void)history(e->history, &event, H_ENTER, line);
    if (!grow(e, (size_t)n)) return LINE_NO_MEMORY;
    *text = e->line;
    *size = copy_text(e->line, line, (size_t)n - (line[n - 1] == '\n'));
    return LINE_TEXT;
}

static line_result read_plain(line_editor *e, const char **text, size_t *size) {
    size_t n = 0;
    int byte;
    while ((byte = next_byte(e)) >= 0 && byte != '\n') {
        if (!grow(e, n + 1)) return LINE_NO_MEMORY;
        e->line[n++] = (char)byte;
    }
    if (byte == BYTE_INTERRUPTED) return LINE_INTERRUPTED;
    if (byte == BYTE_END && n == 0) return LINE_END;
    *text = n ? e->line : "";
    *size = n - (n > 0 && e->line[n - 1] == '\r');
    return LINE_TEXT;
}

line_result line_editor_read(line_editor *e, const char *prompt, const char **text, size_t *size) {
    return e->edit ? read_edited(e, prompt, text, size) : read_plain(e, text, size);
}

// ---- Opening ------------------------------------------------------------------------------------------------

static bool open_edit(line_editor *e) {
    HistEvent event;
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0) (void)setlocale(LC_CTYPE, "C.UTF-8");
    e->history = history_init();
    e->edit = el_init("tern", stdin, stdout, stderr);
    if (!e->history || !e->edit) return false;
    (void)history(e->history, &event, H_SETSIZE, HISTORY_LINES);
    (void)el_set(e->edit, EL_CLIENTDATA, e);
    (void)el_set(e->edit, EL_EDITOR, "emacs");
    (void)el_set(e->edit, EL_HIST, history, e->history);
    (void)el_set(e->edit, EL_PROMPT, give_prompt);
    (void)el_set(e->edit, EL_GETCFN, give_character);
    return true;
}

line_editor *line_editor_open(int wake) {
    line_editor *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->wake = wake;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || open_edit(e)) return e;
    line_editor_close(e);
    return NULL;
}

void line_editor_close(line_editor *e) {
    if (!e) return;
    if (e->edit) el_end(e->edit);
    if (e->history) history_end(e->history);
    free(e->line);
    free(e);
}

bool line_editor_is_terminal(const line_editor *e) { return e->edit != NULL; }
