// SPDX-License-Identifier: MIT
// Opens packed model files. They are untrusted: every offset and size is checked before it is used.
#include "decode/packed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "matmul/placement.h"

// ---- errors -------------------------------------------------------------------------------------------------------------

// What a file says of itself, for a message.
static const char *word(const char text[TERN_PACKED_WORD_MAX], char out[TERN_PACKED_WORD_MAX]) {
    memcpy(out, text, TERN_PACKED_WORD_MAX);
    out[TERN_PACKED_WORD_MAX - 1] = '\0';
    return out[0] ? out : "?";
}

tern_status tern_packed_refuse(tern_context *ctx, const tern_packed *p, tern_status status, const char *format, ...) {
    enum { PATH_SHOWN = 200, CAUSE_MAX = 200 };
    char cause[CAUSE_MAX], tier[TERN_PACKED_WORD_MAX], version[TERN_PACKED_WORD_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(cause, sizeof cause, format, args);
    va_end(args);
    const size_t length = strlen(p->path);
    return tern_fail(&ctx->error, status, "%s%s: %s; packed by tern %s for %s and %u threads: run tern pack again here",
                     length > PATH_SHOWN ? "..." : "", p->path + (length > PATH_SHOWN ? length - PATH_SHOWN : 0), cause,
                     word(p->header.tern_version, version), word(p->header.tier, tier), p->header.threads);
}

static tern_status fail_damaged(tern_context *ctx, const tern_packed *p, const char *what) {
    return tern_packed_refuse(ctx, p, TERN_ERR_FORMAT, "the packed file is damaged or cut short (%s)", what);
}

// ---- opening ------------------------------------------------------------------------------------------------------------

static bool begins_as_packed(int fd) {
    char magic[TERN_PACKED_MAGIC_BYTES];
    return pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic && memcmp(magic, TERN_PACKED_MAGIC, sizeof magic) == 0;
}

static tern_status map_file(tern_context *ctx, tern_packed *p) {
    struct stat st;
    if (fstat(p->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return tern_fail(&ctx->error, TERN_ERR_IO, "%s: not a regular file", p->path);
    if ((uint64_t)st.st_size < TERN_PACKED_INDEX_AT) return fail_damaged(ctx, p, "its header");
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, p->fd, 0);
    if (map == MAP_FAILED) return tern_fail(&ctx->error, TERN_ERR_IO, "%s: cannot map it: %s", p->path, strerror(errno));
    p->map = map;
    p->map_bytes = (size_t)st.st_size;
    return TERN_OK;
}

static size_t chunk_count(const tern_packed_header *h) {
    return tern_ceil_div((size_t)(h->file_bytes - h->gguf_offset), TERN_PACKED_CHUNK);
}

// Others print it.
static bool is_word(const char text[TERN_PACKED_WORD_MAX]) {
    const size_t n = strnlen(text, TERN_PACKED_WORD_MAX);
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~') return false;
    return n > 0 && n < TERN_PACKED_WORD_MAX;
}

static tern_status read_header(tern_context *ctx, tern_packed *p) {
    tern_packed_header *h = &p->header;
    memcpy(h, p->map, sizeof *h);
    if (h->version != TERN_PACKED_VERSION)
        return tern_packed_refuse(ctx, p, TERN_ERR_UNSUPPORTED, "a packed file of format %u, and this Tern reads format %d",
                                  h->version, TERN_PACKED_VERSION);
    if (h->header_sum != tern_checksum(h, offsetof(tern_packed_header, header_sum))) return fail_damaged(ctx, p, "its header");
    const uint64_t size = p->map_bytes, chunk = TERN_PACKED_CHUNK;
    if (h->file_bytes != size) return fail_damaged(ctx, p, "its size");
    // Each comparison uses only what those before it have bounded by the size of a mapping.
    if (h->gguf_offset > size || h->gguf_offset % chunk != 0 || h->gguf_bytes == 0 || h->gguf_bytes > size - h->gguf_offset ||
        h->small_bytes > h->gguf_bytes || h->data_offset > size || h->data_offset % chunk != 0 ||
        h->data_offset < h->gguf_offset + h->gguf_bytes || h->data_bytes != size - h->data_offset ||
        h->n_sections > TERN_PACKED_SECTIONS_MAX || h->gguf_offset < TERN_PACKED_INDEX_AT ||
        h->index_bytes > h->gguf_offset - TERN_PACKED_INDEX_AT ||
        h->index_bytes != h->n_sections * sizeof(tern_packed_section) + chunk_count(h) * sizeof(uint64_t))
        return fail_damaged(ctx, p, "its header");
    return is_word(h->tier) && is_word(h->tern_version) ? TERN_OK : fail_damaged(ctx, p, "its header");
}

static tern_status read_index(tern_context *ctx, tern_packed *p) {
    const tern_packed_header *h = &p->header;
    const uint8_t *index = p->map + TERN_PACKED_INDEX_AT;
    if (h->index_sum != tern_checksum(index, (size_t)h->index_bytes)) return fail_damaged(ctx, p, "its index");
    p->sections = (const tern_packed_section *)(const void *)index;
    p->sums = (const uint64_t *)(const void *)(index + h->n_sections * sizeof *p->sections);
    if (h->n_sections && !tern_name_index_create(&p->names, (size_t)h->n_sections, &p->allocator))
        return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < h->n_sections; i++) {
        const tern_packed_section *s = &p->sections[i];
        const tern_gguf_string name = {s->name, strnlen(s->name, sizeof s->name)};
        if (name.size == 0 || name.size == sizeof s->name || s->offset % TERN_PACKED_ALIGN != 0 || s->offset > h->data_bytes ||
            s->bytes > h->data_bytes - s->offset || !tern_name_index_insert(&p->names, name, (uint32_t)i))
            return fail_damaged(ctx, p, "its index");
    }
    return TERN_OK;
}

// ---- checksums and copies -----------------------------------------------------------------------------------------------

typedef struct chunk_job {
    tern_packed *p;
    size_t first, n; // chunks
    bool copy;
    atomic_size_t bad;     // a chunk that is not as it was written, or SIZE_MAX
    atomic_int read_errno; // of a read that failed
} chunk_job;

// Fills the chunk's place in the copy. False: it cannot be read.
static bool read_chunk(chunk_job *job, uint8_t *to, uint64_t offset, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = pread(job->p->fd, to + done, bytes - done, (off_t)(offset + done));
        if (n > 0) {
            done += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            // relaxed: read after the region
            atomic_store_explicit(&job->read_errno, n == 0 ? EIO : errno, memory_order_relaxed);
            return false;
        }
    }
    return true;
}

static void chunk_tile(void *arg, size_t tile) {
    chunk_job *job = arg;
    const tern_packed_header *h = &job->p->header;
    const size_t chunk = job->first + tile;
    const uint64_t offset = h->gguf_offset + (uint64_t)chunk * TERN_PACKED_CHUNK;
    const size_t bytes = h->file_bytes - offset < TERN_PACKED_CHUNK ? (size_t)(h->file_bytes - offset) : TERN_PACKED_CHUNK;
    const uint8_t *at = job->p->map + offset;
    if (job->copy) {
        uint8_t *to = job->p->memory + (offset - h->data_offset);
        if (!read_chunk(job, to, offset, bytes)) return;
        at = to;
    }
    // relaxed: read after the region; any bad chunk will do
    if (tern_checksum(at, bytes) != job->p->sums[chunk]) atomic_store_explicit(&job->bad, chunk, memory_order_relaxed);
}

// The first section that has bytes of the chunk, or what the chunk is else.
static const char *chunk_name(const tern_packed *p, size_t chunk) {
    const tern_packed_header *h = &p->header;
    const uint64_t offset = h->gguf_offset + (uint64_t)chunk * TERN_PACKED_CHUNK;
    for (size_t i = 0; offset >= h->data_offset && i < h->n_sections; i++)
        if (h->data_offset + p->sections[i].offset + p->sections[i].bytes > offset) return p->sections[i].name;
    return offset < h->gguf_offset + h->small_bytes ? "metadata" : "token_embd.weight";
}

static tern_status run_chunks(tern_context *ctx, tern_packed *p, size_t first, size_t n, bool copy) {
    chunk_job job = {.p = p, .first = first, .n = n, .copy = copy, .bad = SIZE_MAX};
    const tern_stage stage = {.fn = chunk_tile, .arg = &job, .n_tiles = n, .name = copy ? "copy weights" : "verify"};
    const tern_status status = tern_context_run(ctx, &stage, 1);
    if (status != TERN_OK) return status;
    const int error = atomic_load_explicit(&job.read_errno, memory_order_relaxed); // relaxed: the region is over
    if (error) return tern_fail(&ctx->error, TERN_ERR_IO, "%s: cannot read it: %s", p->path, strerror(error));
    const size_t bad = atomic_load_explicit(&job.bad, memory_order_relaxed);
    return bad == SIZE_MAX ? TERN_OK : fail_damaged(ctx, p, chunk_name(p, bad));
}

tern_status tern_packed_verify(tern_context *ctx, const tern_packed *p) {
    return run_chunks(ctx, (tern_packed *)(uintptr_t)p, 0, chunk_count(&p->header), false); // which changes nothing
}

tern_status tern_packed_reserve(tern_context *ctx, tern_packed *p) {
    p->memory = tern_alloc(&p->allocator, (size_t)p->header.data_bytes, 1);
    if (p->memory || p->header.data_bytes == 0) return TERN_OK;
    return tern_fail(&ctx->error, TERN_ERR_MEMORY, "%s: out of memory for %llu bytes of weights", p->path,
                     (unsigned long long)p->header.data_bytes);
}

tern_status tern_packed_copy(tern_context *ctx, tern_packed *p, tern_progress_fn progress, void *user) {
    enum { STEP = 256 }; // chunks between two calls of progress: 64 MiB
    const tern_packed_header *h = &p->header;
    const size_t end = chunk_count(h);
    tern_status status = TERN_OK;
    for (size_t at = (size_t)(h->data_offset - h->gguf_offset) / TERN_PACKED_CHUNK; status == TERN_OK && at < end;) {
        const size_t n = end - at < STEP ? end - at : STEP;
        status = run_chunks(ctx, p, at, n, true);
        at += n;
        const uint64_t done = h->gguf_offset + (uint64_t)at * TERN_PACKED_CHUNK;
        if (status == TERN_OK && progress)
            progress(user, (done < h->file_bytes ? done : h->file_bytes) - h->data_offset, h->data_bytes);
    }
    return status;
}

// ---- pages --------------------------------------------------------------------------------------------------------------

static void touch_tile(void *arg, size_t tile) {
    enum { PAGE = 4096 };
    const tern_packed *p = arg;
    const uint64_t offset = p->header.data_offset + (uint64_t)tile * TERN_PACKED_CHUNK;
    const size_t bytes =
        p->header.file_bytes - offset < TERN_PACKED_CHUNK ? (size_t)(p->header.file_bytes - offset) : TERN_PACKED_CHUNK;
    const volatile uint8_t *at = p->map + offset;
    for (size_t i = 0; i < bytes; i += PAGE) (void)at[i];
}

tern_status tern_packed_touch(tern_context *ctx, const tern_packed *p) {
    const tern_stage stage = {.fn = touch_tile,
                              .arg = (void *)(uintptr_t)p, // which changes nothing
                              .n_tiles = tern_ceil_div((size_t)p->header.data_bytes, TERN_PACKED_CHUNK),
                              .name = "touch weights"};
    return tern_context_run(ctx, &stage, 1);
}

// ---- open and close -----------------------------------------------------------------------------------------------------

tern_status tern_packed_open(tern_context *ctx, tern_packed **packed, const char *path) {
    *packed = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // O_NONBLOCK: a named pipe is not waited for
    if (fd < 0 || !begins_as_packed(fd)) {
        if (fd >= 0) (void)close(fd);
        return TERN_OK; // who reads GGUF files says what is wrong
    }
    tern_packed *p = tern_alloc(&ctx->allocator, 1, sizeof *p);
    if (!p) {
        (void)close(fd);
        return tern_fail(&ctx->error, TERN_ERR_MEMORY, "out of memory");
    }
    p->allocator = ctx->allocator;
    p->path = path;
    p->fd = fd;
    tern_status status = map_file(ctx, p);
    if (status == TERN_OK) status = read_header(ctx, p);
    if (status == TERN_OK) status = read_index(ctx, p);
    if (status == TERN_OK)
        status = run_chunks(ctx, p, 0, tern_ceil_div((size_t)p->header.small_bytes, TERN_PACKED_CHUNK), false);
    if (status != TERN_OK) {
        tern_packed_close(p);
        return status;
    }
    *packed = p;
    return TERN_OK;
}

void tern_packed_close(tern_packed *p) {
    if (!p) return;
    const tern_allocator allocator = p->allocator;
    tern_name_index_destroy(&p->names, &allocator);
    tern_free(&allocator, p->memory, (size_t)p->header.data_bytes, 1);
    if (p->map) (void)munmap((void *)(uintptr_t)p->map, p->map_bytes);
    (void)close(p->fd);
    tern_free(&allocator, p, 1, sizeof *p);
}

// ---- sections -----------------------------------------------------------------------------------------------------------

const tern_packed_section *tern_packed_find(const tern_packed *p, const char *name) {
    if (p->header.n_sections == 0) return NULL;
    const uint32_t at = tern_name_index_find(&p->names, name, strlen(name));
    return at == TERN_NAME_ABSENT ? NULL : &p->sections[at];
}

void *tern_packed_bytes(const tern_packed *p, const tern_packed_section *section) {
    uint8_t *data = p->memory ? p->memory : (uint8_t *)(uintptr_t)(p->map + p->header.data_offset); // weights are only read
    return data + section->offset;
}

const void *tern_packed_mapped(const tern_packed *p, const tern_packed_section *section) {
    return p->map + p->header.data_offset + section->offset;
}

static tern_status open_form(tern_context *ctx, const tern_packed *p, const tern_packed_section *s,
                             const tern_allocator *allocator, tern_weights **w) {
    const tern_status status = tern_stored_open(ctx, w, &s->form, tern_packed_bytes(p, s), (size_t)s->bytes, allocator);
    if (status == TERN_OK && p->memory) tern_placement_bind(ctx, *w); // before the copy touches it
    if (status == TERN_OK || status == TERN_ERR_MEMORY) return status;
    const tern_error cause = ctx->error;
    return tern_packed_refuse(ctx, p, status, "%s: %.150s", s->name, cause.text);
}

tern_status tern_packed_weights(tern_context *ctx, const tern_packed *p, const char *name, size_t n, size_t k,
                                const tern_allocator *allocator, tern_weights **out) {
    const tern_packed_section *s = tern_packed_find(p, name);
    if (!s) return fail_damaged(ctx, p, name);
    if (s->form.n != n || s->form.k != k)
        return tern_packed_refuse(ctx, p, TERN_ERR_FORMAT, "%s is %llu x %llu, but the model's metadata asks for %zu x %zu",
                                  name, (unsigned long long)s->form.n, (unsigned long long)s->form.k, n, k);
    tern_weights *w = NULL, *many = NULL;
    tern_status status = open_form(ctx, p, s, allocator, &w);
    char many_name[TERN_PACKED_NAME_MAX + sizeof TERN_PACKED_MANY];
    (void)snprintf(many_name, sizeof many_name, "%s" TERN_PACKED_MANY, name);
    const tern_packed_section *second = tern_packed_find(p, many_name);
    if (status == TERN_OK && second) {
        status = open_form(ctx, p, second, allocator, &many);
        if (status == TERN_OK && tern_stored_join(ctx, w, many, (size_t)second->many_from) != TERN_OK) {
            tern_weights_destroy(many);
            status = fail_damaged(ctx, p, many_name);
        }
    }
    if (status != TERN_OK) {
        tern_weights_destroy(w);
        return status;
    }
    *out = w;
    return TERN_OK;
}
