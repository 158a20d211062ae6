// SPDX-License-Identifier: MIT
// One loaded model of llama.cpp or ik_llama.cpp (-DPEER_IK) behind functions that do not change with their structs, for
// tools/engine_worker.py.
#include <llama.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct peer_llama {
    struct llama_model *model;
    struct llama_context *context;
    int length; // tokens in the context
} peer_llama;

static void say_nothing(enum ggml_log_level level, const char *text, void *user) {
    (void)level;
    (void)text;
    (void)user;
}

void peer_llama_destroy(peer_llama *p) {
    if (p->context) llama_free(p->context);
#ifdef PEER_IK
    if (p->model) llama_free_model(p->model);
#else
    if (p->model) llama_model_free(p->model);
#endif
    free(p);
}

// NULL if the model cannot be loaded. `mapped`: weights stay in the page cache; else they are copied into memory.
peer_llama *peer_llama_create(const char *path, int threads, int context, int batch, bool flash, bool repack, bool mapped) {
    llama_log_set(say_nothing, NULL);
    llama_backend_init();
    struct llama_model_params model = llama_model_default_params();
    struct llama_context_params params = llama_context_default_params();
    model.n_gpu_layers = 0;
#ifdef PEER_IK
    model.use_mmap = mapped;
    model.use_thp = !mapped;
    model.repack_tensors = repack;
    model.flash_attn = flash;
    params.flash_attn = flash;
#else
    model.load_mode = mapped ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
    model.use_extra_bufts = repack;
    params.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
#endif
    params.n_ctx = (uint32_t)context;
    params.n_batch = params.n_ubatch = (uint32_t)batch;
    params.n_threads = params.n_threads_batch = threads;
    peer_llama *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->model = llama_model_load_from_file(path, model);
    p->context = p->model ? llama_init_from_model(p->model, params) : NULL;
    if (p->context) return p;
    peer_llama_destroy(p);
    return NULL;
}

int peer_llama_vocab(const peer_llama *p) { return llama_vocab_n_tokens(llama_model_get_vocab(p->model)); }

const char *peer_llama_features(void) { return llama_print_system_info(); }

void peer_llama_clear(peer_llama *p) {
#ifdef PEER_IK
    llama_kv_cache_clear(p->context);
#else
    llama_memory_clear(llama_get_memory(p->context), true);
#endif
    p->length = 0;
}

// The logits after the last token, or NULL.
const float *peer_llama_feed(peer_llama *p, int32_t *tokens, int n) {
#ifdef PEER_IK
    const struct llama_batch batch = llama_batch_get_one(tokens, n, p->length, 0);
#else
    const struct llama_batch batch = llama_batch_get_one(tokens, n);
#endif
    if (llama_decode(p->context, batch) != 0) return NULL;
    p->length += n;
    return llama_get_logits_ith(p->context, -1); // waits for the result
}
