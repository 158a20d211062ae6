// SPDX-License-Identifier: MIT
// Names of status codes, and the version of the library.
#include "base/base.h"

#define TEXT(x) #x
#define EXPANDED_TEXT(x) TEXT(x)

const char *tern_status_string(tern_status status) {
    switch (status) {
    case TERN_OK:
        return "ok";
    case TERN_ERR_ARG:
        return "invalid argument";
    case TERN_ERR_MEMORY:
        return "out of memory";
    case TERN_ERR_UNSUPPORTED:
        return "not supported";
    case TERN_ERR_FORMAT:
        return "damaged or unexpected file";
    case TERN_ERR_IO:
        return "file operation failed";
    case TERN_ERR_CPU:
        return "instruction set not available";
    case TERN_ERR_THREADS:
        return "threads could not be created";
    case TERN_ERR_FULL:
        return "context is full";
    case TERN_ERR_STATE:
        return "call out of order";
    case TERN_ERR_CANCELLED:
        return "cancelled";
    }
    return "unknown status";
}

const char *tern_version(void) {
    return EXPANDED_TEXT(TERN_VERSION_MAJOR) "." EXPANDED_TEXT(TERN_VERSION_MINOR) "." EXPANDED_TEXT(TERN_VERSION_PATCH);
}
