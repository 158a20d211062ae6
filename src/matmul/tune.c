// SPDX-License-Identifier: MIT
// The tuning table as a file: where it lies, reading it without trust, replacing it at once.
#include "tern/tune.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/replace_file.h"
#include "matmul/context.h"

// ---- where it lies -------------------------------------------------------------------------------------------------

static bool fill_path(char *path, const char *folder, const char *file) {
    const int n = snprintf(path, TERN_TUNE_PATH_MAX, "%s%s", folder, file);
    if (n > 0 && n < TERN_TUNE_PATH_MAX) return true;
    path[0] = '\0';
    return false;
}

// Returns whether the caller or the user named the file, so that its absence is worth a warning.
static bool find_path(tern_tuning *tuning, const char *choice, tern_error *warning) {
    if (choice) {
        if (strcmp(choice, "off") == 0) return false;
        if (!fill_path(tuning->path, choice, ""))
            tern_error_set(warning, "the path of the tuning table is empty, or longer than %d bytes; it is ignored",
                           TERN_TUNE_PATH_MAX - 1);
        return true;
    }
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && cache[0] == '/') // the XDG specification ignores relative folders
        (void)fill_path(tuning->path, cache, "/tern/tune.txt");
    else if (home && home[0] == '/')
        (void)fill_path(tuning->path, home, "/.cache/tern/tune.txt");
    return false;
}

// ---- reading -------------------------------------------------------------------------------------------------------

typedef struct file_text {
    char *bytes; // TERN_TUNE_BYTES_MAX + 1 of room
    size_t size;
} file_text;

static bool read_all(int fd, file_text *text) {
    text->size = 0;
    for (;;) {
        const ssize_t n = read(fd, text->bytes + text->size, TERN_TUNE_BYTES_MAX + 1 - text->size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        if (n == 0) return true;
        text->size += (size_t)n;
        if (text->size > TERN_TUNE_BYTES_MAX) return errno = EFBIG, false;
    }
}

// errno tells why not.
static bool read_file(const char *path, file_text *text) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); // a pipe or terminal must not hold us up
    if (fd < 0) return false;
    struct stat st;
    bool ok = fstat(fd, &st) == 0;
    if (ok && !S_ISREG(st.st_mode)) ok = false, errno = S_ISDIR(st.st_mode) ? EISDIR : ENOTSUP;
    ok = ok && read_all(fd, text);
    const int error = errno;
    (void)close(fd);
    errno = error;
    return ok;
}

static const char *reason(int error) { return error == ENOTSUP ? "not a regular file" : strerror(error); }

static tern_status read_table(tern_tuning *tuning, bool named, const tern_allocator *allocator, tern_error *warning,
                              tern_error *err) {
    file_text text = {tern_alloc(allocator, TERN_TUNE_BYTES_MAX + 1, 1), 0};
    tern_tune_table *table = tern_alloc(allocator, 1, sizeof *table);
    tern_error why = {""};
    tern_status status = TERN_OK;
    tern_tune_verdict verdict = TERN_TUNE_NONE;
    if (!text.bytes || !table)
        status = tern_fail(err, TERN_ERR_MEMORY, "no memory to read the tuning table");
    else if (read_file(tuning->path, &text))
        verdict = tern_tune_parse(text.bytes, text.size, &tuning->key, table, &why);
    else if (named || (errno != ENOENT && errno != ENOTDIR))
        tern_error_set(&why, "%s", reason(errno));
    if (why.text[0])
        tern_error_set(warning, "the tuning table %s is ignored: %s; run tern tune, or set TERN_TUNE=off", tuning->path,
                       why.text);
    tern_free(allocator, text.bytes, TERN_TUNE_BYTES_MAX + 1, 1);
    if (status == TERN_OK && verdict == TERN_TUNE_FOUND)
        tuning->table = table;
    else
        tern_free(allocator, table, 1, sizeof *table);
    return status;
}

tern_status tern_tuning_read(tern_tuning *tuning, const char *choice, const tern_allocator *allocator, tern_error *warning,
                             tern_error *err) {
    const bool named = find_path(tuning, choice, warning);
    struct stat st;
    // Mostly there is no file: then this costs one system call.
    if (!tuning->path[0] || (!named && stat(tuning->path, &st) != 0)) return TERN_OK;
    return read_table(tuning, named, allocator, warning, err);
}

void tern_tuning_release(tern_tuning *tuning, const tern_allocator *allocator) {
    tern_free(allocator, tuning->table, 1, sizeof *tuning->table);
    tuning->table = NULL;
}

// ---- what a context read -------------------------------------------------------------------------------------------

static const double million = 1e6;

const char *tern_tune_path(const tern_context *ctx) { return ctx ? ctx->tune.path : ""; }
size_t tern_tune_count(const tern_context *ctx) { return ctx && ctx->tune.table ? ctx->tune.table->n : 0; }

tern_status tern_tune_get(tern_context *ctx, size_t index, tern_tune_result *result) {
    if (!ctx) return TERN_ERR_ARG;
    if (index >= tern_tune_count(ctx))
        return tern_fail(&ctx->error, TERN_ERR_ARG, "tuning result %zu does not exist; there are %zu", index,
                         tern_tune_count(ctx));
    const tern_tune_row *r = &ctx->tune.table->rows[index];
    const tern_tune_result full = {.n = r->n,
                                   .k = r->k,
                                   .scale_block = r->scale_block,
                                   .m = r->m,
                                   .cached = r->cached,
                                   .layout = tern_layout_name(r->layout),
                                   .multiply_adds_per_second = (double)r->speed * million};
    return tern_info_write(result, &full, sizeof full, "tern_tune_result", &ctx->error);
}

// ---- saving --------------------------------------------------------------------------------------------------------

static tern_status row_from_result(tern_context *ctx, const tern_tune_result *given, tern_tune_row *row) {
    tern_tune_result r;
    const tern_status status = tern_params_read(&r, sizeof r, given, "tern_tune_result", &ctx->error);
    if (status != TERN_OK) return status;
    const double speed = r.multiply_adds_per_second / million;
    *row = (tern_tune_row){r.n, r.k, r.scale_block, r.m, r.cached != 0, TERN_LAYOUT_NONE, 0};
    if (!r.layout || !tern_layout_parse(r.layout, &row->layout))
        return tern_fail(&ctx->error, TERN_ERR_ARG, "\"%s\" is not a layout; tern_variant_get lists them",
                         r.layout ? r.layout : "(none)");
    if (!isfinite(speed) || speed < 0 || speed > TERN_TUNE_SPEED_MAX)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "%g multiply-adds per second is not a speed", r.multiply_adds_per_second);
    row->speed = speed < 1 ? 1 : (uint32_t)lrint(speed);
    return TERN_OK;
}

static bool same_case(const tern_tune_row *a, const tern_tune_row *b) {
    return a->n == b->n && a->k == b->k && a->scale_block == b->scale_block && a->m == b->m && a->cached == b->cached;
}

// Appends those rows of the file that are of this machine and number of threads, and of no case that is in rows[0..n) already.
static void keep_older(const tern_context *ctx, const file_text *old, tern_tune_table *scratch, tern_tune_table *rows) {
    const size_t n = rows->n;
    if (tern_tune_parse(old->bytes, old->size, &ctx->tune.key, scratch, NULL) != TERN_TUNE_FOUND ||
        scratch->threads != ctx->threads)
        return;
    for (size_t i = 0; i < scratch->n && rows->n < TERN_TUNE_ROWS_MAX; i++) {
        bool replaced = false;
        for (size_t j = 0; j < n && !replaced; j++) replaced = same_case(&scratch->rows[i], &rows->rows[j]);
        if (!replaced) rows->rows[rows->n++] = scratch->rows[i];
    }
}

// Makes every folder above the file; those that exist are left as they are.
static bool make_folders(const char *path) {
    char folder[TERN_TUNE_PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, S_IRWXU) != 0 && errno != EEXIST) return false; // private, as XDG asks for
        *slash = '/';
    }
    return true;
}

static bool write_text(void *arg, int fd) {
    const file_text *text = arg;
    return tern_write_all(fd, text->bytes, text->size);
}

// Private, as the folder. Other processes may be reading the old one.
static bool replace(const tern_context *ctx, file_text text) {
    return make_folders(ctx->tune.path) &&
           tern_replace_file(ctx->tune.path, S_IRUSR | S_IWUSR, &ctx->allocator, write_text, &text);
}

// Reads what is to be replaced or removed; nothing, where there is no file. TERN_TUNE may name anything, a model or /dev/null:
// what is there and is no tuning table stays as it is.
static tern_status read_own(tern_context *ctx, file_text *old) {
    old->size = 0;
    if (!read_file(ctx->tune.path, old) && errno != EFBIG) {
        old->size = 0;
        if (errno == ENOENT || errno == ENOTDIR) return TERN_OK;
        return tern_fail(&ctx->error, TERN_ERR_IO, "%s: cannot read: %s; give another place with TERN_TUNE", ctx->tune.path,
                         reason(errno));
    }
    if (tern_tune_is_ours(old->bytes, old->size)) return TERN_OK;
    return tern_fail(&ctx->error, TERN_ERR_IO, "%s is not a tuning table and stays as it is; give another place with TERN_TUNE",
                     ctx->tune.path);
}

static tern_status no_path(tern_context *ctx) {
    return tern_fail(&ctx->error, TERN_ERR_STATE, "there is no file for tuning results: TERN_TUNE is off, or HOME is not set");
}

typedef struct save_memory {
    tern_tune_table rows, older;
    char old[TERN_TUNE_BYTES_MAX + 1], text[TERN_TUNE_BYTES_MAX];
} save_memory;

static tern_status save(tern_context *ctx, const tern_tune_result *results, size_t n, save_memory *m) {
    tern_status status = TERN_OK;
    for (size_t i = 0; i < n && status == TERN_OK; i++) {
        const tern_tune_result *result = (const void *)((const char *)results + i * results->struct_size);
        status = row_from_result(ctx, result, &m->rows.rows[m->rows.n++]);
    }
    if (status != TERN_OK) return status;
    file_text old = {m->old, 0};
    status = read_own(ctx, &old);
    if (status != TERN_OK) return status;
    keep_older(ctx, &old, &m->older, &m->rows);
    const size_t size = tern_tune_format(m->text, sizeof m->text, &ctx->tune.key, m->rows.rows, m->rows.n, old.bytes, old.size);
    // What is written is read back by the same rules, so that no value out of range gets into a file.
    if (size == 0 || tern_tune_parse(m->text, size, &ctx->tune.key, &m->older, &ctx->error) != TERN_TUNE_FOUND)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "a tuning result is out of range, or there are too many for one file");
    if (replace(ctx, (file_text){m->text, size})) return TERN_OK;
    return tern_fail(&ctx->error, TERN_ERR_IO, "%s: cannot write: %s; give another place with TERN_TUNE", ctx->tune.path,
                     strerror(errno));
}

tern_status tern_tune_save(tern_context *ctx, const tern_tune_result *results, size_t n) {
    if (!ctx) return TERN_ERR_ARG;
    if (!results || n == 0 || n > TERN_TUNE_ROWS_MAX)
        return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_tune_save takes 1 to %d results", TERN_TUNE_ROWS_MAX);
    if (!ctx->tune.path[0]) return no_path(ctx);
    save_memory *m = tern_alloc(&ctx->allocator, 1, sizeof *m);
    if (!m) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "no memory to write the tuning table");
    const tern_status status = save(ctx, results, n, m);
    tern_free(&ctx->allocator, m, 1, sizeof *m);
    return status;
}

tern_status tern_tune_clear(tern_context *ctx) {
    if (!ctx) return TERN_ERR_ARG;
    if (!ctx->tune.path[0]) return no_path(ctx);
    file_text old = {tern_alloc(&ctx->allocator, TERN_TUNE_BYTES_MAX + 1, 1), 0};
    if (!old.bytes) return tern_fail(&ctx->error, TERN_ERR_MEMORY, "no memory to read the tuning table");
    const tern_status status = read_own(ctx, &old);
    tern_free(&ctx->allocator, old.bytes, TERN_TUNE_BYTES_MAX + 1, 1);
    if (status != TERN_OK) return status;
    if (unlink(ctx->tune.path) == 0 || errno == ENOENT || errno == ENOTDIR) return TERN_OK;
    return tern_fail(&ctx->error, TERN_ERR_IO, "%s: cannot remove: %s", ctx->tune.path, strerror(errno));
}
