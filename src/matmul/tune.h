// SPDX-License-Identifier: MIT
// A context's tuning table: found, read once, kept.
#ifndef TERN_MATMUL_TUNE_H
#define TERN_MATMUL_TUNE_H

#include "cpu/tune_table.h"

enum { TERN_TUNE_PATH_MAX = 1024 };

typedef struct tern_tuning {
    char path[TERN_TUNE_PATH_MAX]; // "" if there is to be no table
    tern_tune_key key;
    tern_tune_table *table; // NULL if none was read
} tern_tuning;

// choice: a path or "off"; NULL: a file in the user's cache folder, if there is one. A table that cannot be used is a warning.
// Fails only for want of memory.
tern_status tern_tuning_read(tern_tuning *tuning, const char *choice, const tern_allocator *allocator, tern_error *warning,
                             tern_error *err);
void tern_tuning_release(tern_tuning *tuning, const tern_allocator *allocator);

#endif
