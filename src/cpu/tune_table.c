// SPDX-License-Identifier: MIT
// Reads and writes the text of a tuning table: a strict grammar, every line and number bounded.
#include "cpu/tune_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tern/matmul.h"

static const char magic[] = "tern-tune ";
static const char header[] = "tern-tune 1\n# n k scale_block m residency layout million_multiply_adds_per_second\n";
static const char *const residencies[] = {"dram", "cache"}; // [cached]

enum {
    N_MAX = 1 << 28,
    M_MAX = 1 << 20,
    SCALE_STEP = 16, // block scales come in multiples of this
    LAYOUT_NAME_MAX = 16
};

tern_tune_key tern_tune_key_of(const tern_cpu *cpu, tern_tier tier, int threads) {
    tern_tune_key key = {.tier = tier, .threads = threads};
    snprintf(key.version, sizeof key.version, "%s", tern_version());
    snprintf(key.cpu, sizeof key.cpu, "%s", cpu->model);
    for (char *c = key.cpu; *c; c++)
        if (*c < ' ' || *c > '~') *c = '?';
    for (size_t n = strlen(key.cpu); n > 0 && key.cpu[n - 1] == ' '; n--) key.cpu[n - 1] = '\0';
    if (!key.cpu[0]) snprintf(key.cpu, sizeof key.cpu, "unknown");
    return key;
}

bool tern_tune_is_ours(const char *text, size_t size) {
    return size == 0 || (size >= sizeof magic - 1 && memcmp(text, magic, sizeof magic - 1) == 0);
}

// ---- lines and words ---------------------------------------------------------------------------------------------

// What is left of a text. Each function below takes something off its front, or returns false.
typedef struct cursor {
    const char *at, *end;
} cursor;

// A line of printable characters, without its newline.
static bool take_line(cursor *text, cursor *line) {
    const size_t left = (size_t)(text->end - text->at);
    const char *newline = memchr(text->at, '\n', left < TERN_TUNE_LINE_MAX ? left : TERN_TUNE_LINE_MAX);
    if (!newline) return false;
    for (const char *c = text->at; c < newline; c++)
        if (*c < ' ' || *c > '~') return false;
    *line = (cursor){text->at, newline};
    text->at = newline + 1;
    return true;
}

static bool take_text(cursor *line, const char *text) {
    const size_t n = strlen(text);
    if ((size_t)(line->end - line->at) < n || memcmp(line->at, text, n) != 0) return false;
    line->at += n;
    return true;
}

// A word and, unless it is the last one, the blank between it and the next.
static bool take_word(cursor *line, char *word, size_t room) {
    size_t n = 0;
    while (line->at + n < line->end && line->at[n] != ' ') n++;
    if (n == 0 || n >= room) return false;
    memcpy(word, line->at, n);
    word[n] = '\0';
    line->at += n;
    return line->at == line->end || (take_text(line, " ") && line->at < line->end);
}

static bool take_number(cursor *line, size_t min, size_t max, size_t *value) {
    char word[sizeof "4294967295"];
    if (!take_word(line, word, sizeof word) || (word[0] == '0' && word[1])) return false;
    size_t v = 0; // ten digits fit
    for (const char *c = word; *c; c++) {
        if (*c < '0' || *c > '9') return false;
        v = v * 10 + (size_t)(*c - '0');
    }
    *value = v;
    return v >= min && v <= max;
}

// ---- rows and sections -------------------------------------------------------------------------------------------

typedef struct parsed_row {
    tern_tune_row row;
    char layout[LAYOUT_NAME_MAX]; // another version's layouts may be unknown here
} parsed_row;

static bool parse_row(cursor line, parsed_row *out) {
    tern_tune_row *row = &out->row;
    char residency[sizeof "cache"];
    size_t speed;
    *out = (parsed_row){.row = {.layout = TERN_LAYOUT_NONE}};
    if (!take_number(&line, 1, N_MAX, &row->n) || !take_number(&line, 1, TERN_K_MAX, &row->k) ||
        !take_number(&line, 0, row->k, &row->scale_block) || row->scale_block % SCALE_STEP != 0 ||
        !take_number(&line, 1, M_MAX, &row->m) || !take_word(&line, residency, sizeof residency) ||
        !take_word(&line, out->layout, sizeof out->layout) || !take_number(&line, 1, TERN_TUNE_SPEED_MAX, &speed) ||
        line.at != line.end)
        return false;
    row->speed = (uint32_t)speed;
    row->cached = strcmp(residency, residencies[true]) == 0;
    return row->cached || strcmp(residency, residencies[false]) == 0;
}

static bool parse_machine(cursor line, tern_tune_key *key) {
    char tier[sizeof "avx512vnni"];
    size_t threads;
    memset(key, 0, sizeof *key);
    if (!take_text(&line, "machine ") || !take_word(&line, tier, sizeof tier) || !tern_tier_parse(tier, &key->tier) ||
        !take_number(&line, 1, TERN_THREADS_MAX, &threads) || !take_word(&line, key->version, sizeof key->version))
        return false;
    key->threads = (int)threads;
    const size_t n = (size_t)(line.end - line.at);
    if (n == 0 || n >= sizeof key->cpu) return false;
    memcpy(key->cpu, line.at, n);
    return true;
}

// One section: its machine, its text from `machine` on, and the rows in it.
typedef struct section {
    tern_tune_key key;
    cursor all, rows;
    size_t n_rows;
} section;

typedef bool section_fn(void *arg, const section *s);

// Calls fn for each section of a file that is well-formed to its last byte; stops where fn returns false. Returns false where
// the file is not well-formed, perhaps after some calls.
static bool each_section(const char *text, size_t size, section_fn *fn, void *arg) {
    cursor rest = {text, text + size}, line = {NULL, NULL};
    if (size > TERN_TUNE_BYTES_MAX || !take_text(&rest, header)) return false;
    section s = {.n_rows = 0};
    bool open = false;
    for (size_t lines = 2;; lines++) {
        const char *start = rest.at;
        if (!take_line(&rest, &line)) return false;
        cursor words = line;
        const bool end = take_text(&words, "end "), machine = !end && line.at < line.end && *line.at == 'm';
        if (end || machine) {
            s.all.end = s.rows.end = start;
            if (open && !fn(arg, &s)) return true;
        }
        if (end) {
            size_t count;
            return take_number(&words, 0, TERN_TUNE_BYTES_MAX, &count) && words.at == words.end && count == lines &&
                   rest.at == rest.end;
        }
        parsed_row row;
        if (machine) {
            if (!parse_machine(line, &s.key)) return false;
            s.all.at = start;
            s.rows.at = rest.at;
            s.n_rows = 0;
            open = true;
        } else if (!open || !parse_row(line, &row) || ++s.n_rows > TERN_TUNE_ROWS_MAX) {
            return false;
        }
    }
}

// ---- reading -------------------------------------------------------------------------------------------------------

typedef struct search {
    const tern_tune_key *key;
    section best; // of this machine; n_rows 0: none yet
    bool found, same_version, same_cpu, same_machine;
    char version[TERN_TUNE_VERSION_MAX]; // of a section of this CPU and another version
} search;

static bool visit(void *arg, const section *s) {
    search *find = arg;
    const bool cpu = strcmp(s->key.cpu, find->key->cpu) == 0, version = strcmp(s->key.version, find->key->version) == 0;
    if (cpu && !version) memcpy(find->version, s->key.version, sizeof find->version);
    find->same_cpu |= cpu;
    find->same_machine |= cpu && version;
    if (!cpu || !version || s->key.tier != find->key->tier) return true;
    const int wanted = find->key->threads, distance = abs(s->key.threads - wanted);
    if (find->found && distance >= abs(find->best.key.threads - wanted)) return true;
    find->found = true;
    find->best = *s;
    return true;
}

static bool read_rows(const section *s, tern_tune_table *table, tern_error *why) {
    cursor rest = s->rows, line;
    while (rest.at < rest.end && take_line(&rest, &line)) {
        parsed_row parsed;
        if (!parse_row(line, &parsed)) return false; // each_section has seen this line
        if (!tern_layout_parse(parsed.layout, &parsed.row.layout)) {
            tern_error_set(why, "it speaks of a layout \"%s\" that this library does not have", parsed.layout);
            return false;
        }
        table->rows[table->n++] = parsed.row;
    }
    return true;
}

tern_tune_verdict tern_tune_parse(const char *text, size_t size, const tern_tune_key *key, tern_tune_table *table,
                                  tern_error *why) {
    table->n = 0;
    table->threads = 0;
    search find = {.key = key};
    if (!each_section(text, size, visit, &find)) {
        tern_error_set(why, "it is damaged, or not a tuning table");
        return TERN_TUNE_DAMAGED;
    }
    if (find.found && !read_rows(&find.best, table, why)) {
        table->n = 0;
        return TERN_TUNE_STALE;
    }
    table->threads = find.best.key.threads;
    if (find.found) return TERN_TUNE_FOUND;
    if (find.same_machine) return TERN_TUNE_NONE;
    if (find.same_cpu)
        tern_error_set(why, "it was measured with version %s, and this is %s", find.version, key->version);
    else
        tern_error_set(why, "it was measured on another CPU, and this is %s", key->cpu);
    return TERN_TUNE_STALE;
}

// ---- writing -------------------------------------------------------------------------------------------------------

typedef struct output {
    const tern_tune_key *key;
    char *text;
    size_t used, room, lines;
    bool full;
} output;

static void put(output *out, const char *bytes, size_t n) {
    if (out->full || out->room - out->used < n) {
        out->full = true;
        return;
    }
    memcpy(out->text + out->used, bytes, n);
    out->used += n;
    for (size_t i = 0; i < n; i++) out->lines += bytes[i] == '\n';
}

static void put_line(output *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put_line(output *out, const char *format, ...) {
    char line[TERN_TUNE_LINE_MAX];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof line)
        out->full = true;
    else
        put(out, line, (size_t)n);
}

static bool keep_others(void *arg, const section *s) {
    output *out = arg;
    const bool own = strcmp(s->key.cpu, out->key->cpu) == 0 && s->key.tier == out->key->tier;
    // Another version's figures of this machine are replaced, too: they would only be refused.
    const bool replaced = own && (s->key.threads == out->key->threads || strcmp(s->key.version, out->key->version) != 0);
    if (!replaced) put(out, s->all.at, (size_t)(s->all.end - s->all.at));
    return true;
}

static bool count_section(void *arg, const section *s) {
    (void)s;
    ++*(size_t *)arg;
    return true;
}

size_t tern_tune_format(char *text, size_t room, const tern_tune_key *key, const tern_tune_row *rows, size_t n_rows,
                        const char *old, size_t old_size) {
    output out = {.key = key, .text = text, .room = room < TERN_TUNE_BYTES_MAX ? room : TERN_TUNE_BYTES_MAX};
    put(&out, header, sizeof header - 1);
    put_line(&out, "machine %s %d %s %s\n", tern_tier_name(key->tier), key->threads, key->version, key->cpu);
    for (size_t i = 0; i < n_rows; i++) {
        const tern_tune_row *r = &rows[i];
        put_line(&out, "%zu %zu %zu %zu %s %s %u\n", r->n, r->k, r->scale_block, r->m, residencies[r->cached],
                 tern_layout_name(r->layout), r->speed);
    }
    size_t sections = 0; // a damaged file is left out whole
    if (old && each_section(old, old_size, count_section, &sections)) (void)each_section(old, old_size, keep_others, &out);
    put_line(&out, "end %zu\n", out.lines);
    return out.full ? 0 : out.used;
}
