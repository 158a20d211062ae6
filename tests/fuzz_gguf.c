// SPDX-License-Identifier: MIT
// libFuzzer target: any bytes as a GGUF file are refused, or read within themselves.
#include "gguf_builder.h"
#include "gguf_walk.h"

static const char *const keys[] = {"general.architecture", "general.alignment", "tokenizer.ggml.tokens", "f64", "q", "a", "t"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tern_gguf *gguf = NULL;
    tern_error err = {{0}};
    if (open_bytes(&gguf, data, size, &tern_default_allocator, &err) == TERN_OK) {
        assert(walk_gguf(gguf, keys, sizeof keys / sizeof keys[0]) != 0);
        tern_gguf_close(gguf);
    } else {
        assert(gguf == NULL && err.text[0] != '\0');
    }
    return 0;
}
