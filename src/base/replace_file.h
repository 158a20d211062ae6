// SPDX-License-Identifier: MIT
// A file that appears whole or not at all.
#ifndef TERN_BASE_REPLACE_FILE_H
#define TERN_BASE_REPLACE_FILE_H

#include <sys/stat.h>

#include "base/base.h"

// All bytes of the file, and no sync: false, with errno, where that fails.
typedef bool tern_write_file_fn(void *arg, int fd);

// Writes a file beside `path`, with this mode less the umask, syncs it and gives it the name, in place of what had it: who has the
// old file open or mapped keeps that one, and no reader sees a part of the new one. False, with errno: nothing has changed, and
// nothing is left. Errors to show are the caller's, who knows what the file is.
bool tern_replace_file(const char *path, mode_t mode, const tern_allocator *allocator, tern_write_file_fn *write, void *arg);

// Writes all of it at the file's offset. False, with errno.
bool tern_write_all(int fd, const void *bytes, size_t size);

#endif
