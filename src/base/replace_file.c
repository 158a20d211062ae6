// SPDX-License-Identifier: MIT
// A temporary file in the same folder, renamed.
#include "base/replace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { NAME_ROOM = 48 };

bool tern_write_all(int fd, const void *bytes, size_t size) {
    for (const unsigned char *from = bytes; size > 0;) {
        const ssize_t n = write(fd, from, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        from += n;
        size -= (size_t)n;
    }
    return true;
}

// A file beside `path` that did not exist; its name, of which the folder stands in `name`, does not depend on that of `path`,
// which may be as long as names can be. mkostemp would make one for its owner alone, and the umask, which belongs to all
// threads of the process, cannot be asked for without changing it.
static int create_beside(char *name, size_t folder, mode_t mode) {
    enum { TRIES = 8 }; // names that somebody guessed, or left: of 2^64
    for (int i = 0; i < TRIES; i++) {
        uint64_t random;
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) return -1;
        (void)snprintf(name + folder, NAME_ROOM, "tern-%016" PRIx64 ".partial", random);
        const int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

// Closes in every case, and keeps the first errno.
static bool sync_and_close(int fd, bool written) {
    const bool synced = written && fsync(fd) == 0;
    const int error = errno;
    const bool closed = close(fd) == 0;
    if (!synced) errno = error; // else it is that of close, if any
    return synced && closed;
}

bool tern_replace_file(const char *path, mode_t mode, const tern_allocator *allocator, tern_write_file_fn *write, void *arg) {
    const char *slash = strrchr(path, '/');
    const size_t folder = slash ? (size_t)(slash - path) + 1 : 0, room = folder + NAME_ROOM;
    char *name = tern_alloc(allocator, room, 1);
    if (!name) {
        errno = ENOMEM;
        return false;
    }
    memcpy(name, path, folder);
    const int fd = create_beside(name, folder, mode);
    const bool ok = fd >= 0 && sync_and_close(fd, write(arg, fd)) && rename(name, path) == 0;
    const int error = errno;
    if (fd >= 0 && !ok) (void)unlink(name);
    tern_free(allocator, name, room, 1);
    errno = error;
    return ok;
}
