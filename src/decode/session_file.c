// SPDX-License-Identifier: MIT
// A session's tokens, keys and values in a file, for going on later without reading the prompt again.
//
//   header | checksums of the tokens and of each run | tokens | runs: part by part, [layer][kv head], as in memory
//
// Little-endian, no padding. A run is what tern_kv_used says of a part. The file is untrusted: sizes follow from the session
// and the number of tokens alone, and whatever the codes and scales are, kernels stay in their buffers.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/replace_file.h"
#include "decode/fingerprint.h"

#define MAGIC "TERNSESS" // 8 bytes without its NUL
enum { MAGIC_BYTES = 8, VERSION = 3, SUFFIX_MAX = 16 };

typedef struct file_header {
    char magic[MAGIC_BYTES];
    uint32_t version; // another one is refused: changes with this file, with the layout of keys and values, and with their bits
    uint16_t kv;      // tern_kv_type
    uint16_t act_block; // of the model, on which keys and values depend
    uint64_t fingerprint;
    uint32_t long_rope; // nonzero: keys are rotated with the frequencies of long contexts
    uint32_t n_tokens;
    uint64_t file_bytes;
    uint64_t sums_sum; // checksum of the checksums
    uint64_t header_sum;
} file_header;
_Static_assert(sizeof(file_header) == 56, "the header has no padding");

// A file and the session that it is of, or is to be of.
typedef struct session_file {
    tern_session *s;
    tern_error *err;
    const char *path;
    int fd;
    file_header header;
    uint64_t *sums; // [n_sums]: of the tokens, then of each run
    size_t n_sums;
    unsigned char *scratch; // restoring more than the context holds: for the largest piece of the file; else NULL
    size_t scratch_bytes;
} session_file;

// ---- what both ways share -----------------------------------------------------------------------------------------

static tern_status fail_system(const session_file *f, const char *what) {
    const int error = errno;
    return tern_fail(f->err, error == ENOMEM ? TERN_ERR_MEMORY : TERN_ERR_IO,
                     "cannot %s %s: %s; give another file, or make room", what, f->path, strerror(error));
}

static tern_status fail_damaged(const session_file *f) {
    return tern_fail(f->err, TERN_ERR_FORMAT, "%s is damaged; delete it, and it is made again", f->path);
}

static bool long_rope(const tern_session *s) { return s->n_ctx > s->model->long_from; }

// What the header of a file with the session's state says. Checksums apart.
static file_header make_header(const tern_session *s, size_t n_tokens, size_t n_sums) {
    size_t bytes = sizeof(file_header) + n_tokens * sizeof(int32_t) + n_sums * sizeof(uint64_t);
    for (size_t i = 0; i < TERN_KV_PARTS; i++)
        if (s->kv.parts[i].data) bytes += s->kv.n_runs * tern_kv_used(&s->kv.parts[i], n_tokens);
    file_header h = {.version = VERSION,
                     .kv = (uint16_t)s->kv.type,
                     .act_block = (uint16_t)s->model->act_block,
                     .fingerprint = tern_model_fingerprint(s->model),
                     .long_rope = long_rope(s),
                     .n_tokens = (uint32_t)n_tokens,
                     .file_bytes = bytes};
    memcpy(h.magic, MAGIC, MAGIC_BYTES);
    return h;
}

static size_t count_sums(const tern_session *s) {
    size_t n = 1; // the tokens
    for (size_t i = 0; i < TERN_KV_PARTS; i++) n += s->kv.parts[i].data ? s->kv.n_runs : 0;
    return n;
}

// Visits each run of the first n_tokens positions, in the order of the file; stops where `visit` returns false.
typedef bool run_fn(session_file *f, size_t index, unsigned char *run, size_t bytes);
static bool for_each_run(session_file *f, size_t n_tokens, run_fn *visit) {
    size_t index = 1;
    for (size_t i = 0; i < TERN_KV_PARTS; i++) {
        const tern_kv_part *part = &f->s->kv.parts[i];
        for (size_t run = 0; part->data && run < f->s->kv.n_runs; run++)
            if (!visit(f, index++, part->data + run * part->run_bytes, tern_kv_used(part, n_tokens))) return false;
    }
    return true;
}

static bool begin(session_file *f, tern_session *s, const char *path) {
    *f = (session_file){.s = s, .err = &s->model->ctx->error, .path = path, .fd = -1, .n_sums = count_sums(s)};
    f->sums = tern_alloc(&s->model->ctx->allocator, f->n_sums, sizeof *f->sums);
    if (!f->sums) errno = ENOMEM;
    return f->sums != NULL;
}

static void end(session_file *f) {
    if (f->fd >= 0) (void)close(f->fd);
    tern_free(&f->s->model->ctx->allocator, f->sums, f->n_sums, sizeof *f->sums);
    tern_free(&f->s->model->ctx->allocator, f->scratch, f->scratch_bytes, 1);
}

// ---- saving -------------------------------------------------------------------------------------------------------

static bool sum_run(session_file *f, size_t index, unsigned char *run, size_t bytes) {
    f->sums[index] = tern_checksum(run, bytes);
    return true;
}

static bool write_run(session_file *f, size_t index, unsigned char *run, size_t bytes) {
    (void)index;
    return tern_write_all(f->fd, run, bytes);
}

static bool write_file(void *arg, int fd) {
    session_file *f = arg;
    tern_session *s = f->s;
    const size_t token_bytes = s->length * sizeof *s->tokens;
    tern_kv_clear_behind(&s->kv, s->length); // what was forgotten is nobody's business
    f->sums[0] = tern_checksum(s->tokens, token_bytes);
    (void)for_each_run(f, s->length, sum_run);
    f->header = make_header(s, s->length, f->n_sums);
    f->header.sums_sum = tern_checksum(f->sums, f->n_sums * sizeof *f->sums);
    f->header.header_sum = tern_checksum(&f->header, offsetof(file_header, header_sum));
    f->fd = fd;
    const bool ok = tern_write_all(fd, &f->header, sizeof f->header) &&
                    tern_write_all(fd, f->sums, f->n_sums * sizeof *f->sums) && tern_write_all(fd, s->tokens, token_bytes) &&
                    for_each_run(f, s->length, write_run);
    f->fd = -1; // which is its creator's
    return ok;
}

// Somebody may have mixed up two names: only a saved session, or nothing, is replaced.
static tern_status check_replaceable(const session_file *f) {
    char magic[MAGIC_BYTES];
    const int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return errno == ENOENT ? TERN_OK : fail_system(f, "write");
    const bool ours = read(fd, magic, sizeof magic) == (ssize_t)sizeof magic && memcmp(magic, MAGIC, sizeof magic) == 0;
    (void)close(fd);
    if (ours) return TERN_OK;
    return tern_fail(f->err, TERN_ERR_IO, "%s is there, is no saved session and stays as it is; give another name", f->path);
}

tern_status tern_session_save(tern_session *session, const char *path) {
    if (!session) return TERN_ERR_ARG;
    const tern_allocator *allocator = &session->model->ctx->allocator;
    tern_error *err = &session->model->ctx->error;
    if (!path || !*path) return tern_fail(err, TERN_ERR_ARG, "tern_session_save needs a path");
    session_file f;
    const bool ready = begin(&f, session, path);
    tern_status status = ready ? check_replaceable(&f) : fail_system(&f, "write");
    // Readable by its owner alone: it holds what was said.
    if (status == TERN_OK && !tern_replace_file(path, S_IRUSR | S_IWUSR, allocator, write_file, &f))
        status = fail_system(&f, "write");
    end(&f);
    return status;
}

// ---- restoring ----------------------------------------------------------------------------------------------------

// False with errno 0 where the file ends before.
static bool read_all(int fd, void *data, size_t bytes) {
    for (unsigned char *p = data; bytes > 0;) {
        const ssize_t n = read(fd, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = 0;
        if (n <= 0) return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

static tern_status fail_read(const session_file *f) { return errno ? fail_system(f, "read") : fail_damaged(f); }

static const char *kv_name(uint32_t type) { return type == TERN_KV_F16 ? "f16" : type == TERN_KV_INT8 ? "int8" : "other"; }

enum { BLOCK_NAME_MAX = 24 };
static const char *block_name(size_t act_block, char name[BLOCK_NAME_MAX]) {
    (void)snprintf(name, BLOCK_NAME_MAX, act_block ? "%zu" : "auto", act_block);
    return name;
}

static tern_status check_header(session_file *f) {
    char names[2][BLOCK_NAME_MAX];
    const file_header *h = &f->header;
    const tern_session *s = f->s;
    if (memcmp(h->magic, MAGIC, MAGIC_BYTES) != 0)
        return tern_fail(f->err, TERN_ERR_FORMAT, "%s is no saved session; give the name of one", f->path);
    if (h->version != VERSION)
        return tern_fail(f->err, TERN_ERR_UNSUPPORTED,
                         "%s was saved in version %u of the format, this library has %d; delete it", f->path, h->version,
                         VERSION);
    if (h->header_sum != tern_checksum(h, offsetof(file_header, header_sum))) return fail_damaged(f);
    if (h->kv != s->kv.type)
        return tern_fail(f->err, TERN_ERR_UNSUPPORTED,
                         "%s holds %s keys and values, the session has %s; choose those, or another file", f->path,
                         kv_name(h->kv), kv_name(s->kv.type));
    if (h->act_block != s->model->act_block)
        return tern_fail(
            f->err, TERN_ERR_UNSUPPORTED,
            "%s was saved with act-block %s, the model was loaded with %s; load it with that, or choose another file", f->path,
            block_name(h->act_block, names[0]), block_name(s->model->act_block, names[1]));
    const file_header own = make_header(s, h->n_tokens, f->n_sums);
    if (h->fingerprint != own.fingerprint)
        return tern_fail(f->err, TERN_ERR_UNSUPPORTED, "%s is of another model than %s; delete it or give another name",
                         f->path, tern_gguf_path(s->model->gguf));
    if (h->n_tokens > s->model->hyper.n_ctx) return fail_damaged(f); // no session holds as many
    if (h->long_rope != own.long_rope)
        return tern_fail(
            f->err, TERN_ERR_UNSUPPORTED,
            "%s is of a context of more than %zu tokens or of at most that many, and the session is not, so that their keys "
            "differ; delete it, or choose such a context",
            f->path, s->model->long_from);
    struct stat st;
    if (fstat(f->fd, &st) != 0) return fail_system(f, "read");
    return h->file_bytes == own.file_bytes && (uint64_t)st.st_size == own.file_bytes ? TERN_OK : fail_damaged(f);
}

static bool tokens_exist(const tern_session *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s->tokens[i] < 0 || (uint32_t)s->tokens[i] >= s->model->hyper.n_vocab) return false;
    return true;
}

// Reads a piece of the file, of which the first `keep` bytes are wanted, and verifies all of it.
static bool read_piece(session_file *f, void *to, size_t bytes, size_t keep, uint64_t sum) {
    unsigned char *whole = keep < bytes ? f->scratch : to;
    if (!read_all(f->fd, whole, bytes)) return false;
    errno = 0;
    if (tern_checksum(whole, bytes) != sum) return false;
    if (keep < bytes) memcpy(to, whole, keep);
    return true;
}

static bool read_runs(session_file *f, size_t kept) {
    size_t index = 1;
    for (size_t i = 0; i < TERN_KV_PARTS; i++) {
        const tern_kv_part *part = &f->s->kv.parts[i];
        if (!part->data) continue;
        const size_t bytes = tern_kv_used(part, f->header.n_tokens), keep = tern_kv_used(part, kept);
        for (size_t run = 0; run < f->s->kv.n_runs; run++, index++)
            if (!read_piece(f, part->data + run * part->run_bytes, bytes, keep, f->sums[index])) return false;
    }
    return true;
}

static bool make_scratch(session_file *f) {
    f->scratch_bytes = f->header.n_tokens * sizeof(int32_t);
    for (size_t i = 0; i < TERN_KV_PARTS; i++) {
        if (!f->s->kv.parts[i].data) continue;
        const size_t bytes = tern_kv_used(&f->s->kv.parts[i], f->header.n_tokens);
        if (bytes > f->scratch_bytes) f->scratch_bytes = bytes;
    }
    f->scratch = tern_alloc(&f->s->model->ctx->allocator, f->scratch_bytes, 1);
    if (!f->scratch) errno = ENOMEM;
    return f->scratch != NULL;
}

// From here on the session holds nothing, until all of it is read.
static tern_status read_state(session_file *f) {
    tern_session *s = f->s;
    const size_t n = f->header.n_tokens, kept = n < s->n_ctx ? n : s->n_ctx, token = sizeof *s->tokens;
    const size_t sums_bytes = f->n_sums * sizeof *f->sums;
    if (kept < n && !make_scratch(f)) return fail_system(f, "read");
    tern_session_reset(s);
    if (!read_all(f->fd, f->sums, sums_bytes)) return fail_read(f);
    if (tern_checksum(f->sums, sums_bytes) != f->header.sums_sum) return fail_damaged(f);
    if (!read_piece(f, s->tokens, n * token, kept * token, f->sums[0])) return fail_read(f);
    if (!tokens_exist(s, kept)) return fail_damaged(f);
    if (!read_runs(f, kept)) return fail_read(f);
    s->length = kept;
    s->restored = true;
    return TERN_OK;
}

tern_status tern_session_restore(tern_session *session, const char *path) {
    if (!session) return TERN_ERR_ARG;
    if (!path || !*path) return tern_fail(&session->model->ctx->error, TERN_ERR_ARG, "tern_session_restore needs a path");
    session_file f;
    tern_status status = begin(&f, session, path) ? TERN_OK : fail_system(&f, "read");
    if (status == TERN_OK) {
        f.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); // a pipe must not hang
        if (f.fd < 0)
            status = fail_system(&f, "open");
        else if (!read_all(f.fd, &f.header, sizeof f.header))
            status = errno ? fail_system(&f, "read")
                           : tern_fail(f.err, TERN_ERR_FORMAT, "%s is no saved session; give the name of one", path);
        else
            status = check_header(&f);
    }
    if (status == TERN_OK) status = read_state(&f);
    end(&f);
    return status;
}
