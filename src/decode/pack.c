// SPDX-License-Identifier: MIT
// Writes a loaded model as a packed file: the metadata and small tensors as they were, the weights as they lie in memory.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/replace_file.h"
#include "decode/model.h"
#include "decode/packed.h"
#include "decode/packing.h"

enum { FILE_MODE = 0666 }; // less the umask, as other programs' files

// ---- what goes into the file ----------------------------------------------------------------------------------------------

// Bytes that are there already: one or two pieces of a section, the second from a multiple of TERN_CACHE_LINE on.
typedef struct piece {
    const void *bytes[2];
    size_t size[2];
} piece;

struct tern_packing {
    tern_context *ctx;
    const tern_model *m;
    tern_packed_header header;
    tern_packed_section *sections;
    piece *pieces;
    size_t room; // of both
    const tern_gguf_tensor **kept;
    size_t n_kept;
    uint8_t *head; // of the GGUF part: header, metadata, tensor infos
    size_t head_room, head_bytes;
    uint8_t *chunk; // TERN_PACKED_CHUNK bytes of scratch
    uint64_t *sums; // of chunks
    size_t n_sums;
};

static tern_status fail_memory(const tern_packing *p) { return tern_fail(&p->ctx->error, TERN_ERR_MEMORY, "out of memory"); }

static tern_status add_section(tern_packing *p, const char *name, const tern_stored_form *form, size_t many_from, piece what) {
    if (p->header.n_sections == p->room || strlen(name) >= TERN_PACKED_NAME_MAX)
        return tern_fail(&p->ctx->error, TERN_ERR_UNSUPPORTED, "the model has more parts than a packed file holds");
    tern_packed_section *s = &p->sections[p->header.n_sections];
    p->pieces[p->header.n_sections++] = what;
    memcpy(s->name, name, strlen(name));
    s->many_from = many_from;
    if (form) s->form = *form;
    s->offset = tern_round_up((size_t)p->header.data_bytes, TERN_PACKED_ALIGN);
    s->bytes = what.size[1] ? tern_round_up(what.size[0], TERN_CACHE_LINE) + what.size[1] : what.size[0];
    p->header.data_bytes = s->offset + s->bytes;
    return TERN_OK;
}

tern_status tern_packing_add_bytes(tern_packing *p, const char *name, const void *bytes, size_t size) {
    return add_section(p, name, NULL, 0, (piece){{bytes, NULL}, {size, 0}});
}

static tern_status add_form(tern_packing *p, const char *name, const tern_weights *w, size_t many_from) {
    tern_stored_form form;
    tern_stored_describe(&form, w);
    // Weights without scales of their own are their codes, filled up to where scales would begin.
    const piece what = {{w->packed, w->scales}, {w->packed_bytes, w->n_scales * tern_scale_bytes(w)}};
    const tern_status status = add_section(p, name, &form, many_from, what);
    if (status != TERN_OK) return status;
    tern_packed_section *s = &p->sections[p->header.n_sections - 1];
    s->bytes = tern_stored_scales_at(w) + what.size[1];
    p->header.data_bytes = s->offset + s->bytes;
    return TERN_OK;
}

tern_status tern_packing_add_weights(tern_packing *p, const char *name, const tern_weights *w) {
    tern_status status = add_form(p, name, w, 0);
    char many[TERN_PACKED_NAME_MAX + sizeof TERN_PACKED_MANY];
    (void)snprintf(many, sizeof many, "%s" TERN_PACKED_MANY, name);
    if (status == TERN_OK && w->many) status = add_form(p, many, w->many, w->many_from);
    return status;
}

static tern_status add_layers(tern_packing *p) {
    for (size_t i = 0; i < p->m->hyper.n_layers; i++) {
        const tern_layer *l = &p->m->layers[i];
        const tern_weights *const weights[TERN_PROJECTIONS] = {l->q.w, l->k.w, l->v.w, l->o.w, l->gate.w, l->up.w, l->down.w};
        for (size_t k = 0; k < TERN_PROJECTIONS; k++) {
            char name[TERN_PACKED_NAME_MAX];
            tern_projection_section(name, i, k);
            const tern_status status = tern_packing_add_weights(p, name, weights[k]);
            if (status != TERN_OK) return status;
        }
    }
    return TERN_OK;
}

// ---- the GGUF part ----------------------------------------------------------------------------------------------------------

static bool ends_in(tern_gguf_string text, const char *end) {
    const size_t n = strlen(end);
    return text.size >= n && memcmp(text.data + text.size - n, end, n) == 0;
}

static bool is_read_in_place(const tern_packing *p, const tern_gguf_tensor *t) {
    return t == p->m->token_embd || t->data == p->m->head.rows;
}

// Norms, biases and factors; scales of matrices are among the packed ones. Then what is read where it lies.
static void list_kept(tern_packing *p) {
    const size_t n = tern_gguf_tensor_count(p->m->gguf);
    for (size_t i = 0; i < n; i++) {
        const tern_gguf_tensor *t = tern_gguf_tensor_at(p->m->gguf, i);
        if (t->n_dims == 1 && !ends_in(t->name, ".scale") && !is_read_in_place(p, t)) p->kept[p->n_kept++] = t;
    }
    for (size_t i = 0; i < n; i++) {
        const tern_gguf_tensor *t = tern_gguf_tensor_at(p->m->gguf, i);
        if (is_read_in_place(p, t)) p->kept[p->n_kept++] = t;
    }
}

static void put(tern_packing *p, const void *bytes, size_t size) {
    memcpy(p->head + p->head_bytes, bytes, size);
    p->head_bytes += size;
}
static void put_u32(tern_packing *p, uint32_t v) { put(p, &v, sizeof v); }
static void put_u64(tern_packing *p, uint64_t v) { put(p, &v, sizeof v); }

// Bytes of a tensor with the padding behind it.
static size_t padded_bytes(const tern_packing *p, const tern_gguf_tensor *t) {
    return tern_round_up(t->size, tern_gguf_alignment(p->m->gguf));
}

// Header, metadata and infos of the tensors that stay. Where the model's own parser found them, they fit memory.
static tern_status make_gguf(tern_packing *p) {
    enum { COUNT_AT = 8, INFO_BYTES_MAX = 8 + 4 + 4 * 8 + 4 + 8 };
    size_t metadata_bytes;
    const void *metadata = tern_gguf_metadata(p->m->gguf, &metadata_bytes);
    const size_t alignment = tern_gguf_alignment(p->m->gguf);
    p->head_room = metadata_bytes + alignment;
    for (size_t i = 0; i < p->n_kept; i++) p->head_room += INFO_BYTES_MAX + p->kept[i]->name.size;
    p->head = tern_alloc(&p->ctx->allocator, p->head_room, 1);
    if (!p->head) return fail_memory(p);
    put(p, metadata, metadata_bytes);
    const uint64_t count = p->n_kept;
    memcpy(p->head + COUNT_AT, &count, sizeof count);
    uint64_t offset = 0;
    bool small = true;
    for (size_t i = 0; i < p->n_kept; i++) {
        const tern_gguf_tensor *t = p->kept[i];
        if (small && is_read_in_place(p, t)) {
            small = false;
            p->header.small_bytes = offset; // the infos come on top
        }
        put_u64(p, t->name.size);
        put(p, t->name.data, t->name.size);
        put_u32(p, t->n_dims);
        for (size_t d = 0; d < t->n_dims; d++) put_u64(p, t->dims[d]);
        put_u32(p, t->type);
        put_u64(p, offset);
        offset += padded_bytes(p, t);
    }
    p->head_bytes = tern_round_up(p->head_bytes, alignment); // zeros already
    p->header.small_bytes += p->head_bytes;
    p->header.gguf_bytes = p->head_bytes + offset;
    return TERN_OK;
}

// ---- the header -------------------------------------------------------------------------------------------------------------

static tern_status make_header(tern_packing *p) {
    tern_packed_header *h = &p->header;
    memcpy(h->magic, TERN_PACKED_MAGIC, sizeof h->magic);
    h->version = TERN_PACKED_VERSION;
    h->threads = (uint32_t)p->ctx->threads;
    h->n_params = p->m->n_params;
    h->head = (uint32_t)p->m->head_form;
    h->form = (uint16_t)p->m->form;
    h->act_block = (uint16_t)p->m->act_block;
    (void)snprintf(h->tier, sizeof h->tier, "%s", tern_tier_name(p->ctx->kernels.tier));
    (void)snprintf(h->tern_version, sizeof h->tern_version, "%s", tern_version());
    // The checksums stand before what they are of, so their number decides where that begins, and not the other way round.
    const size_t gguf_room = tern_round_up((size_t)h->gguf_bytes, TERN_PACKED_CHUNK);
    p->n_sums = tern_ceil_div(gguf_room + (size_t)h->data_bytes, TERN_PACKED_CHUNK);
    h->index_bytes = h->n_sections * sizeof *p->sections + p->n_sums * sizeof *p->sums;
    h->gguf_offset = tern_round_up(TERN_PACKED_INDEX_AT + (size_t)h->index_bytes, TERN_PACKED_CHUNK);
    h->data_offset = h->gguf_offset + gguf_room;
    h->file_bytes = h->data_offset + h->data_bytes;
    p->sums = tern_alloc(&p->ctx->allocator, p->n_sums, sizeof *p->sums);
    return p->sums ? TERN_OK : fail_memory(p);
}

// ---- writing ------------------------------------------------------------------------------------------------------------

// The bytes from the GGUF part on, in order, a chunk at a time.
typedef struct stream {
    tern_packing *p;
    int fd;
    uint8_t *chunk;
    uint64_t at; // of the next byte in the file
    bool failed; // errno tells why
} stream;

static bool write_at(int fd, const void *bytes, size_t size, uint64_t offset) {
    const uint8_t *from = bytes;
    while (size) {
        const ssize_t n = pwrite(fd, from, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        from += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return true;
}

static bool is_cancelled(const tern_packing *p) {
    // relaxed: the word orders nothing else
    const bool cancelled = atomic_load_explicit(&p->m->save_cancelled, memory_order_relaxed);
    if (cancelled) errno = ECANCELED;
    return cancelled;
}

static void flush(stream *s) {
    const tern_packed_header *h = &s->p->header;
    const uint64_t past = s->at - h->gguf_offset;
    const size_t bytes = past % TERN_PACKED_CHUNK ? (size_t)(past % TERN_PACKED_CHUNK) : TERN_PACKED_CHUNK;
    s->p->sums[(past - 1) / TERN_PACKED_CHUNK] = tern_checksum(s->chunk, bytes);
    s->failed = is_cancelled(s->p) || !write_at(s->fd, s->chunk, bytes, s->at - bytes);
}

// bytes NULL: zeros. Does nothing once the stream has failed.
static void append(stream *s, const void *bytes, size_t size) {
    for (size_t done = 0; done < size && !s->failed;) {
        const size_t used = (size_t)((s->at - s->p->header.gguf_offset) % TERN_PACKED_CHUNK);
        const size_t n = size - done < TERN_PACKED_CHUNK - used ? size - done : TERN_PACKED_CHUNK - used;
        if (bytes)
            memcpy(s->chunk + used, (const uint8_t *)bytes + done, n);
        else
            memset(s->chunk + used, 0, n);
        s->at += n;
        done += n;
        if (used + n == TERN_PACKED_CHUNK) flush(s);
    }
}
static void append_to(stream *s, uint64_t offset) { append(s, NULL, (size_t)(offset - s->at)); }

// arg: a tern_packing.
static bool write_file(void *arg, int fd) {
    tern_packing *p = arg;
    tern_packed_header *h = &p->header;
    stream s = {.p = p, .fd = fd, .chunk = p->chunk, .at = h->gguf_offset};
    append(&s, p->head, p->head_bytes);
    for (size_t i = 0; i < p->n_kept; i++) {
        append(&s, p->kept[i]->data, p->kept[i]->size);
        append(&s, NULL, padded_bytes(p, p->kept[i]) - p->kept[i]->size);
    }
    for (size_t i = 0; i < h->n_sections && !s.failed; i++) {
        const uint64_t at = h->data_offset + p->sections[i].offset;
        append_to(&s, at);
        append(&s, p->pieces[i].bytes[0], p->pieces[i].size[0]);
        if (p->pieces[i].size[1]) append_to(&s, at + tern_round_up(p->pieces[i].size[0], TERN_CACHE_LINE));
        append(&s, p->pieces[i].bytes[1], p->pieces[i].size[1]);
        append_to(&s, at + p->sections[i].bytes);
    }
    append_to(&s, h->file_bytes);
    if (!s.failed && (s.at - h->gguf_offset) % TERN_PACKED_CHUNK) flush(&s);
    if (s.failed) return false;
    const size_t sections_bytes = h->n_sections * sizeof *p->sections;
    uint8_t *index = tern_alloc(&p->ctx->allocator, (size_t)h->index_bytes, 1);
    if (!index) {
        errno = ENOMEM;
        return false;
    }
    if (sections_bytes) memcpy(index, p->sections, sections_bytes);
    memcpy(index + sections_bytes, p->sums, p->n_sums * sizeof *p->sums);
    h->index_sum = tern_checksum(index, (size_t)h->index_bytes);
    h->header_sum = tern_checksum(h, offsetof(tern_packed_header, header_sum));
    const bool ok = write_at(fd, index, (size_t)h->index_bytes, TERN_PACKED_INDEX_AT) && write_at(fd, h, sizeof *h, 0);
    tern_free(&p->ctx->allocator, index, (size_t)h->index_bytes, 1);
    return ok;
}

// A process may have the old one mapped.
static tern_status write_packed(tern_packing *p, const char *path) {
    if (tern_replace_file(path, FILE_MODE, &p->ctx->allocator, write_file, p)) return TERN_OK;
    if (errno == ECANCELED) return tern_fail(&p->ctx->error, TERN_ERR_CANCELLED, "writing %s was cancelled", path);
    if (errno == ENOMEM) return fail_memory(p);
    return tern_fail(&p->ctx->error, TERN_ERR_IO, "cannot write %s: %s (%llu MB are needed)", path, strerror(errno),
                     (unsigned long long)(p->header.file_bytes / 1000000 + 1));
}

// ---- the target -----------------------------------------------------------------------------------------------------------

// Whether a file can be made beside `path`. errno tells why not.
static bool folder_is_writable(const tern_context *ctx, const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return access(".", W_OK | X_OK) == 0;
    const size_t size = (size_t)(slash - path) + sizeof "/";
    char *folder = tern_alloc(&ctx->allocator, size, 1);
    if (folder) memcpy(folder, path, size - 1);
    const bool ok = folder && access(folder, W_OK | X_OK) == 0;
    const int error = folder ? errno : ENOMEM;
    tern_free(&ctx->allocator, folder, size, 1);
    errno = error;
    return ok;
}

// Somebody may have mixed up the two names: only a packed file, or none, is replaced.
tern_status tern_model_save_check(tern_context *ctx, const char *path) {
    if (!ctx) return TERN_ERR_ARG;
    if (!path || !*path) return tern_fail(&ctx->error, TERN_ERR_ARG, "a packed model needs a path to be saved to; give one");
    if (!folder_is_writable(ctx, path))
        return tern_fail(&ctx->error, TERN_ERR_IO, "cannot write %s: %s; give a name in a folder that can be written", path,
                         strerror(errno));
    char magic[TERN_PACKED_MAGIC_BYTES];
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT) return TERN_OK;
    if (fd < 0) return tern_fail(&ctx->error, TERN_ERR_IO, "cannot write %s: %s; give another name", path, strerror(errno));
    const bool ours =
        read(fd, magic, sizeof magic) == (ssize_t)sizeof magic && memcmp(magic, TERN_PACKED_MAGIC, sizeof magic) == 0;
    (void)close(fd);
    if (ours) return TERN_OK;
    return tern_fail(&ctx->error, TERN_ERR_IO, "%s is there, is no packed model and stays as it is; give another name", path);
}

void tern_model_cancel_save(tern_model *m) {
    // relaxed: the word orders nothing else. Who cancels learns from the call's return that it has stopped.
    if (m) atomic_store_explicit(&m->save_cancelled, true, memory_order_relaxed);
}

// ---- the public call ----------------------------------------------------------------------------------------------------

static tern_status save(tern_packing *p, const char *path) {
    const tern_allocator *a = &p->ctx->allocator;
    p->room = p->m->hyper.n_layers * TERN_PROJECTIONS * 2 + TERN_HEAD_SECTIONS_MAX; // each in two forms at most
    p->sections = tern_alloc(a, p->room, sizeof *p->sections);
    p->pieces = tern_alloc(a, p->room, sizeof *p->pieces);
    p->kept = tern_alloc(a, tern_gguf_tensor_count(p->m->gguf), sizeof(void *));
    p->chunk = tern_alloc(a, TERN_PACKED_CHUNK, 1);
    tern_status status = p->sections && p->pieces && p->kept && p->chunk ? TERN_OK : fail_memory(p);
    if (status == TERN_OK) status = tern_model_save_check(p->ctx, path);
    if (status == TERN_OK) status = add_layers(p);
    if (status == TERN_OK) status = tern_head_pack(p, p->m);
    if (status != TERN_OK) return status;
    list_kept(p);
    status = make_gguf(p);
    if (status == TERN_OK) status = make_header(p);
    return status == TERN_OK ? write_packed(p, path) : status;
}

tern_status tern_model_save(const tern_model *m, const char *path) {
    if (!m) return TERN_ERR_ARG;
    tern_context *ctx = m->ctx;
    if (!path) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_model_save needs a path");
    if (m->packed)
        return tern_fail(&ctx->error, TERN_ERR_UNSUPPORTED, "the model is packed already; give the GGUF file it was made from");
    tern_packing p = {.ctx = ctx, .m = m};
    const tern_status status = save(&p, path);
    tern_free(&ctx->allocator, p.chunk, TERN_PACKED_CHUNK, 1);
    tern_free(&ctx->allocator, p.sums, p.n_sums, sizeof *p.sums);
    tern_free(&ctx->allocator, p.head, p.head_room, 1);
    tern_free(&ctx->allocator, (void *)p.kept, tern_gguf_tensor_count(m->gguf), sizeof(void *));
    tern_free(&ctx->allocator, p.pieces, p.room, sizeof *p.pieces);
    tern_free(&ctx->allocator, p.sections, p.room, sizeof *p.sections);
    return status;
}

tern_status tern_packed_check(tern_context *ctx, const char *path) {
    if (!ctx) return TERN_ERR_ARG;
    if (!path) return tern_fail(&ctx->error, TERN_ERR_ARG, "tern_packed_check needs a path");
    if (access(path, R_OK) != 0)
        return tern_fail(&ctx->error, TERN_ERR_IO, "cannot open %s: %s; check its path and permissions", path, strerror(errno));
    tern_packed *packed = NULL;
    tern_status status = tern_packed_open(ctx, &packed, path);
    if (status == TERN_OK && !packed)
        return tern_fail(&ctx->error, TERN_ERR_FORMAT, "%s is not a packed model; tern pack makes them", path);
    if (status == TERN_OK) status = tern_packed_verify(ctx, packed);
    tern_packed_close(packed);
    return status;
}
