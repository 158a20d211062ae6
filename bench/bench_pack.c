// SPDX-License-Identifier: MIT
// Packing of weights from a file's blocks: pack/<type>/<form>/<shape>. All threads; huge_pages: the share of the packed bytes
// that lie on huge pages.
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_shim.h"

enum { N = 4096, K = 4096, BLOCK = 256, CODE_BYTES = 64, BLOCK_BYTES = CODE_BYTES + 2, TQ2_0 = 35, ONE_F16 = 0x3C00 };

typedef struct pack_case {
    tern_context *ctx;
    tern_form form;
} pack_case;

static unsigned char *blocks; // N x K in TQ2_0: 2-bit codes 0..2, then a float16 scale of one

static int make_blocks(void) {
    if (blocks) return 1;
    const size_t bytes = (size_t)N * K / BLOCK * BLOCK_BYTES;
    blocks = malloc(bytes);
    if (!blocks) return 0;
    for (size_t i = 0; i < bytes; i++) {
        const unsigned random = (unsigned)((i * 0x9E3779B97F4A7C15u) >> 56);
        blocks[i] = (unsigned char)(random & ~(random >> 1 & 0x55)); // code 3 becomes 2
    }
    const unsigned short one = ONE_F16;
    for (size_t b = 0; b < bytes; b += BLOCK_BYTES) memcpy(blocks + b + CODE_BYTES, &one, sizeof one);
    return 1;
}

static void run_pack(bench_state *state, const void *arg) {
    const pack_case *c = arg;
    const tern_weights_params params = {.struct_size = sizeof params, .form = c->form};
    tern_weights_info info = {.struct_size = sizeof info};
    if (!make_blocks()) {
        bench_fail(state, "no memory for the data");
        return;
    }
    while (bench_next(state)) {
        tern_weights *w = NULL;
        const double start = bench_seconds();
        const tern_status status =
            tern_weights_from_gguf(c->ctx, &w, TQ2_0, blocks, (size_t)N * K / BLOCK * BLOCK_BYTES, N, K, &params);
        bench_add_time(state, bench_seconds() - start);
        if (status != TERN_OK || tern_weights_get_info(c->ctx, w, &info) != TERN_OK) {
            bench_fail(state, tern_context_error(c->ctx));
            return;
        }
        tern_weights_destroy(w);
    }
    bench_value(state, "weights_per_iteration", (double)N * K);
    bench_bytes_per_iteration(state, (double)info.bytes);
    bench_value(state, "bits_per_weight", info.bits_per_weight);
    bench_value(state, "huge_pages", (double)info.huge_page_bytes / (double)info.bytes);
}

void bench_register_pack(tern_context *ctx) {
    static pack_case cases[] = {{NULL, TERN_FORM_LUT}, {NULL, TERN_FORM_MAD}};
    static const char *const names[] = {"pack/tq2_0/lut/n4096_k4096", "pack/tq2_0/mad/n4096_k4096"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cases[i].ctx = ctx;
        bench_register(names[i], run_pack, &cases[i], BENCH_CLOCK_MANUAL);
    }
}

void bench_release_pack(void) { free(blocks); }
