// SPDX-License-Identifier: MIT
// oneDNN's INT8 matrix product with weights in the order it prefers; tools/kernel_worker.py builds this and never links it into
// Tern.
#include <oneapi/dnnl/dnnl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ARGS = 3 };

typedef struct peer_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, y, *w; // w: n_copies of them
    int n_copies;
    size_t weight_bytes;
    const char *implementation;
} peer_onednn;

static int memory(peer_onednn *p, const dnnl_memory_desc_t *desc, dnnl_memory_t *out) {
    return dnnl_memory_create(out, desc, p->engine, DNNL_MEMORY_ALLOCATE) == dnnl_success;
}

// Copies n bytes into a memory of plain order.
static int fill(dnnl_memory_t to, const void *from, size_t n) {
    void *data = NULL;
    if (dnnl_memory_get_data_handle(to, &data) != dnnl_success) return 0;
    memcpy(data, from, n);
    return 1;
}

static int reorder(peer_onednn *p, dnnl_memory_t from, dnnl_memory_t to) {
    const dnnl_memory_desc_t *from_desc, *to_desc;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    if (dnnl_memory_get_memory_desc(from, &from_desc) != dnnl_success) return 0;
    if (dnnl_memory_get_memory_desc(to, &to_desc) != dnnl_success) return 0;
    if (dnnl_reorder_primitive_desc_create(&desc, from_desc, p->engine, to_desc, p->engine, NULL) != dnnl_success) return 0;
    int done = dnnl_primitive_create(&primitive, desc) == dnnl_success;
    if (done) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
        done = dnnl_primitive_execute(primitive, p->stream, 2, args) == dnnl_success &&
               dnnl_stream_wait(p->stream) == dnnl_success;
        (void)dnnl_primitive_destroy(primitive);
    }
    (void)dnnl_primitive_desc_destroy(desc);
    return done;
}

// x[m][k] (int8, or uint8 where x_unsigned) times w[n][k]^T to int32, with n_copies of the weights. NULL: not supported.
peer_onednn *peer_onednn_create(const void *x, const int8_t *w, int x_unsigned, int64_t m, int64_t n, int64_t k, int n_copies) {
    peer_onednn *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    const dnnl_dims_t x_dims = {m, k}, w_dims = {k, n}, y_dims = {m, n}, w_strides = {1, k};
    const dnnl_data_type_t x_type = x_unsigned ? dnnl_u8 : dnnl_s8;
    dnnl_memory_desc_t x_desc, any, plain, y_desc;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t primitive;
    if (dnnl_engine_create(&p->engine, dnnl_cpu, 0) != dnnl_success) return NULL;
    if (dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags) != dnnl_success) return NULL;
    (void)dnnl_memory_desc_init_by_tag(&x_desc, 2, x_dims, x_type, dnnl_ab);
    (void)dnnl_memory_desc_init_by_tag(&any, 2, w_dims, dnnl_s8, dnnl_format_tag_any);
    (void)dnnl_memory_desc_init_by_strides(&plain, 2, w_dims, dnnl_s8, w_strides);
    (void)dnnl_memory_desc_init_by_tag(&y_desc, 2, y_dims, dnnl_s32, dnnl_ab);
    if (dnnl_matmul_desc_init(&desc, &x_desc, &any, NULL, &y_desc) != dnnl_success) return NULL;
    if (dnnl_primitive_desc_create(&primitive, &desc, NULL, p->engine, NULL) != dnnl_success) return NULL;
    if (dnnl_primitive_create(&p->primitive, primitive) != dnnl_success) return NULL;
    (void)dnnl_primitive_desc_query(primitive, dnnl_query_impl_info_str, 0, &p->implementation);
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(primitive, dnnl_query_weights_md, 0);
    p->weight_bytes = dnnl_memory_desc_get_size(packed);
    dnnl_memory_t given;
    p->w = calloc((size_t)n_copies, sizeof(dnnl_memory_t));
    int done = p->w && memory(p, &plain, &given) && fill(given, w, (size_t)(n * k)) && memory(p, &x_desc, &p->x) &&
               fill(p->x, x, (size_t)(m * k)) && memory(p, &y_desc, &p->y);
    for (; done && p->n_copies < n_copies; p->n_copies++)
        done = memory(p, packed, &p->w[p->n_copies]) && reorder(p, given, p->w[p->n_copies]);
    return done ? p : NULL;
}

// One product with each copy. Returns nonzero when all went well.
int peer_onednn_run(peer_onednn *p, int n_copies) {
    int done = 1;
    for (int c = 0; c < n_copies; c++) {
        const dnnl_exec_arg_t args[ARGS] = {
            {DNNL_ARG_SRC, p->x}, {DNNL_ARG_WEIGHTS, p->w[c % p->n_copies]}, {DNNL_ARG_DST, p->y}};
        done &= dnnl_primitive_execute(p->primitive, p->stream, ARGS, args) == dnnl_success;
    }
    return done & (dnnl_stream_wait(p->stream) == dnnl_success);
}

const int32_t *peer_onednn_result(peer_onednn *p) {
    void *data = NULL;
    return dnnl_memory_get_data_handle(p->y, &data) == dnnl_success ? data : NULL;
}
size_t peer_onednn_bytes(const peer_onednn *p) { return p->weight_bytes; }
const char *peer_onednn_implementation(const peer_onednn *p) { return p->implementation; }

void peer_onednn_destroy(peer_onednn *p) {
    for (int c = 0; c < p->n_copies; c++) (void)dnnl_memory_destroy(p->w[c]);
    (void)dnnl_memory_destroy(p->x);
    (void)dnnl_memory_destroy(p->y);
    (void)dnnl_primitive_destroy(p->primitive);
    (void)dnnl_stream_destroy(p->stream);
    (void)dnnl_engine_destroy(p->engine);
    free(p->w);
    free(p);
}
