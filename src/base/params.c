// SPDX-License-Identifier: MIT
// Versioned structs of the public API: read from callers, and written to them, of any age.
#include <string.h>

#include "base/base.h"

// No struct of the API comes near this; more is an uninitialized size, and using it would reach past the caller's struct.
enum { STRUCT_SIZE_MAX = 1 << 16 };

static tern_status read_size(size_t *size, const void *s, const char *what, tern_error *err) {
    memcpy(size, s, sizeof *size);
    if (*size < sizeof *size || *size > STRUCT_SIZE_MAX)
        return tern_fail(err, TERN_ERR_ARG, "%s.struct_size is not set: use sizeof(%s)", what, what);
    return TERN_OK;
}

tern_status tern_params_read(void *out, size_t out_size, const void *params, const char *what, tern_error *err) {
    memset(out, 0, out_size);
    if (!params) return TERN_OK;
    size_t size;
    const tern_status status = read_size(&size, params, what, err);
    if (status != TERN_OK) return status;
    memcpy(out, params, size < out_size ? size : out_size);
    const unsigned char *bytes = params;
    for (size_t i = out_size; i < size; i++) {
        if (bytes[i] == 0) continue;
        return tern_fail(err, TERN_ERR_UNSUPPORTED,
                         "%s has a field at byte %zu that this library (version %s) does not know; update it", what, i,
                         tern_version());
    }
    return TERN_OK;
}

tern_status tern_info_write(void *info, const void *full, size_t full_size, const char *what, tern_error *err) {
    if (!info) return tern_fail(err, TERN_ERR_ARG, "%s is NULL", what);
    size_t size;
    const tern_status status = read_size(&size, info, what, err);
    if (status != TERN_OK) return status;
    memset(info, 0, size);
    memcpy(info, full, size < full_size ? size : full_size);
    memcpy(info, &size, sizeof size);
    return TERN_OK;
}
