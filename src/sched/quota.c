// SPDX-License-Identifier: MIT
// Finds the cgroup of this process and reads the CPU quotas on the way from it up to the mount.
//
//   /proc/self/cgroup      "0::/a/b" (v2) or "4:cpu,cpuacct:/a/b" (v1): the process's path in its hierarchy
//   /proc/self/mountinfo   which path of the hierarchy is mounted where: "... /a /sys/fs/cgroup ... - cgroup2 ..."
//   /sys/fs/cgroup/b/cpu.max, /sys/fs/cgroup/cpu.max, ...
#include "sched/quota.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 4096, PATH_MAX_BYTES = 4096, CPU_MILLIS = 1000 };

// ---- lines and words --------------------------------------------------------------------------------------------------

static FILE *open_file(const char *root, const char *path) {
    char name[PATH_MAX_BYTES];
    const int n = snprintf(name, sizeof name, "%s%s", root, path);
    return n < 0 || (size_t)n >= sizeof name ? NULL : fopen(name, "re");
}

// The next line that fits, without its end; longer ones are skipped. False at the end of the file.
static bool next_line(FILE *file, char line[LINE_MAX_BYTES]) {
    while (fgets(line, LINE_MAX_BYTES, file)) {
        const size_t n = strcspn(line, "\n");
        if (line[n] == '\n' || feof(file)) {
            line[n] = '\0';
            return true;
        }
        for (int c = 0; c != '\n' && c != EOF;) c = fgetc(file);
    }
    return false;
}

// Cuts the word up to `end` off *text; NULL if there is none.
static char *cut(char **text, char end) {
    char *word = *text, *stop = word ? strchr(word, end) : NULL;
    *text = stop ? stop + 1 : NULL;
    if (stop) *stop = '\0';
    return word;
}

static bool lists(const char *words, const char *word) {
    const size_t n = strlen(word);
    for (; words; words = strchr(words, ',') ? strchr(words, ',') + 1 : NULL) {
        if (strncmp(words, word, n) == 0 && (words[n] == ',' || words[n] == '\0')) return true;
    }
    return false;
}

// A positive decimal number and nothing else.
static bool parse_number(const char *text, long long *number) {
    char *end;
    errno = 0;
    *number = strtoll(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *number > 0;
}

// mountinfo writes space, tab, line feed and backslash as \040, \011, \012 and \134.
static void unescape(char *text) {
    char *out = text;
    for (; *text; text++) {
        char digits[4] = "";
        if (text[0] == '\\') (void)snprintf(digits, sizeof digits, "%s", text + 1);
        const bool octal = strspn(digits, "01234567") == 3;
        *out++ = octal ? (char)strtol(digits, NULL, 8) : *text;
        if (octal) text += 3;
    }
    *out = '\0';
}

// ---- one cgroup ---------------------------------------------------------------------------------------------------------

static int smaller_quota(int a, int b) { return a == 0 || (b != 0 && b < a) ? b : a; }

static int millis_of(const char *quota, const char *period) {
    long long q, p;
    if (!quota || !period || !parse_number(quota, &q) || !parse_number(period, &p)) return 0;
    if (q > LLONG_MAX / CPU_MILLIS) return 0;
    const long long millis = q * CPU_MILLIS / p;
    return millis < 1 ? 1 : millis > INT_MAX ? 0 : (int)millis;
}

static bool read_first_line(const char *root, const char *folder, const char *name, char line[LINE_MAX_BYTES]) {
    char path[PATH_MAX_BYTES];
    const int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = n < 0 || (size_t)n >= sizeof path ? NULL : open_file(root, path);
    if (!file) return false;
    const bool ok = next_line(file, line);
    (void)fclose(file);
    return ok;
}

// "200000 100000", or "max 100000": no quota.
static int quota_v2(const char *root, const char *folder) {
    char line[LINE_MAX_BYTES], *rest = line;
    if (!read_first_line(root, folder, "cpu.max", line)) return 0;
    const char *quota = cut(&rest, ' ');
    return millis_of(quota, rest);
}

// A quota of -1: none.
static int quota_v1(const char *root, const char *folder) {
    char quota[LINE_MAX_BYTES], period[LINE_MAX_BYTES];
    if (!read_first_line(root, folder, "cpu.cfs_quota_us", quota)) return 0;
    if (!read_first_line(root, folder, "cpu.cfs_period_us", period)) return 0;
    return millis_of(quota, period);
}

// ---- the way up -----------------------------------------------------------------------------------------------------------

typedef struct hierarchy {
    bool v2;
    char path[PATH_MAX_BYTES];  // of the process, e.g. "/a/b"
    char mount[PATH_MAX_BYTES]; // where the hierarchy is mounted
    size_t mounted;             // length of the part of `path` that is the mount's own root
} hierarchy;

static bool copy_path(char out[PATH_MAX_BYTES], const char *path) {
    const size_t n = strlen(path);
    // "/..": the process is outside of what its cgroup namespace shows; then the mount's root is what is known of it.
    if (path[0] != '/' || n >= PATH_MAX_BYTES || strstr(path, "/..")) return false;
    memcpy(out, path, n + 1);
    if (n == 1) out[0] = '\0'; // "/"
    return true;
}

// "4:cpu,cpuacct:/a/b" with v1's cpu controller, or "0::/a/b".
static bool find_path(hierarchy *h, const char *root) {
    FILE *file = open_file(root, "/proc/self/cgroup");
    if (!file) return false;
    char line[LINE_MAX_BYTES];
    bool found = false;
    while (!found && next_line(file, line)) {
        char *path = line;
        const char *number = cut(&path, ':'), *controllers = cut(&path, ':');
        if (!controllers || !path) continue;
        found = h->v2 ? strcmp(number, "0") == 0 && !*controllers : lists(controllers, "cpu");
        if (found && !copy_path(h->path, path)) h->path[0] = '\0';
    }
    (void)fclose(file);
    return found;
}

// How much of the process's path the root of a mount covers; false if the process is not below it.
static bool covers(const char *path, const char *root_of_mount, size_t *length) {
    const size_t n = strlen(root_of_mount);
    *length = 0;
    if (n == 1 || path[0] == '\0') return true; // the whole hierarchy; or nothing is known of the process's place in it
    if (strncmp(path, root_of_mount, n) != 0 || (path[n] != '/' && path[n] != '\0')) return false;
    *length = n;
    return true;
}

// "ID PARENT DEVICE ROOT MOUNT OPTIONS [TAGS...] - TYPE SOURCE SUPER_OPTIONS"
static bool read_mount(hierarchy *h, char *line) {
    char *second = strstr(line, " - ");
    if (!second) return false;
    *second = '\0';
    second += strlen(" - ");
    const char *type = cut(&second, ' ');
    cut(&second, ' ');
    if (!second || strcmp(type, h->v2 ? "cgroup2" : "cgroup") != 0 || !(h->v2 || lists(second, "cpu"))) return false;
    for (int i = 0; i < 3; i++) cut(&line, ' ');
    char *root_of_mount = cut(&line, ' '), *mount = cut(&line, ' ');
    if (!root_of_mount || !mount) return false;
    unescape(root_of_mount);
    unescape(mount);
    return root_of_mount[0] == '/' && copy_path(h->mount, mount) && covers(h->path, root_of_mount, &h->mounted);
}

static bool find_mount(hierarchy *h, const char *root) {
    FILE *file = open_file(root, "/proc/self/mountinfo");
    if (!file) return false;
    char line[LINE_MAX_BYTES];
    bool found = false;
    while (!found && next_line(file, line)) found = read_mount(h, line);
    (void)fclose(file);
    return found;
}

static int quota_of(hierarchy *h, const char *root) {
    if (!find_path(h, root) || !find_mount(h, root)) return 0;
    char *below = h->path + h->mounted; // "/b": shortened from its end until nothing is left
    int quota = 0;
    for (;;) {
        char folder[2 * PATH_MAX_BYTES];
        (void)snprintf(folder, sizeof folder, "%s%s", h->mount, below);
        quota = smaller_quota(quota, h->v2 ? quota_v2(root, folder) : quota_v1(root, folder));
        char *last = strrchr(below, '/');
        if (!last) return quota;
        *last = '\0';
    }
}

int tern_quota_millis(const char *root) {
    hierarchy h = {.v2 = true};
    const int v2 = quota_of(&h, root);
    h = (hierarchy){.v2 = false};
    return smaller_quota(v2, quota_of(&h, root));
}
