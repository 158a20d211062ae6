// SPDX-License-Identifier: MIT
// A file that appears whole or not at all: the old one stays until the new one is there, a failure changes and leaves nothing.
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/replace_file.h"

enum { ROOM = 512 };
static char folder[] = "/tmp/tern-replace-XXXXXX", path[ROOM];

// What a write does, and what it finds at `path` meanwhile.
typedef struct job {
    const char *text;
    int error; // 0: it succeeds
    bool there;
    mode_t mode;
} job;

static bool write_job(void *arg, int fd) {
    job *j = arg;
    struct stat st;
    j->there = access(path, F_OK) == 0;
    assert_int_equal(fstat(fd, &st), 0);
    j->mode = st.st_mode & (S_IRWXU | S_IRWXG | S_IRWXO);
    if (!tern_write_all(fd, j->text, strlen(j->text))) return false;
    errno = j->error;
    return j->error == 0;
}

static bool replace(job *j, mode_t mode) { return tern_replace_file(path, mode, &tern_default_allocator, write_job, j); }

static void expect_text(const char *want) {
    char text[ROOM] = {0};
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    (void)fread(text, 1, sizeof text - 1, f);
    (void)fclose(f);
    assert_string_equal(text, want);
}

static size_t files(void) {
    DIR *d = opendir(folder);
    assert_non_null(d);
    size_t n = 0;
    for (const struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

static void a_new_file_has_its_name_only_when_it_is_whole(void **unused) {
    (void)unused;
    job j = {.text = "all of it"};
    assert_true(replace(&j, S_IRUSR | S_IWUSR));
    assert_false(j.there);
    expect_text("all of it");
    assert_int_equal(files(), 1);
    assert_int_equal(remove(path), 0);
}

static void who_has_the_old_file_open_keeps_it(void **unused) {
    (void)unused;
    job old = {.text = "old"}, new = {.text = "new"};
    assert_true(replace(&old, S_IRUSR | S_IWUSR));
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_true(replace(&new, S_IRUSR | S_IWUSR));
    assert_true(new.there);
    char text[4] = {0};
    assert_int_equal(fread(text, 1, 3, f), 3);
    (void)fclose(f);
    assert_string_equal(text, "old");
    expect_text("new");
    assert_int_equal(remove(path), 0);
}

static void a_write_that_fails_changes_and_leaves_nothing_and_keeps_its_errno(void **unused) {
    (void)unused;
    job old = {.text = "old"}, full = {.text = "half of", .error = ENOSPC}, cancelled = {.text = "", .error = ECANCELED};
    assert_true(replace(&old, S_IRUSR | S_IWUSR));
    assert_false(replace(&full, S_IRUSR | S_IWUSR));
    assert_int_equal(errno, ENOSPC);
    assert_false(replace(&cancelled, S_IRUSR | S_IWUSR));
    assert_int_equal(errno, ECANCELED);
    expect_text("old");
    assert_int_equal(files(), 1);
    assert_int_equal(remove(path), 0);
}

static void the_mode_is_less_the_umask(void **unused) {
    (void)unused;
    job j = {.text = "x"};
    const mode_t mask = umask(S_IWGRP | S_IRWXO);
    assert_true(replace(&j, S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH));
    (void)umask(mask);
    assert_int_equal(j.mode, S_IRUSR | S_IWUSR | S_IRGRP);
    assert_int_equal(remove(path), 0);
}

static void a_name_may_be_as_long_as_names_can_be(void **unused) {
    (void)unused;
    char before[ROOM], *name;
    memcpy(before, path, sizeof before);
    name = path + strlen(folder) + 1;
    memset(name, 'x', NAME_MAX);
    name[NAME_MAX] = '\0';
    job j = {.text = "x"};
    assert_true(replace(&j, S_IRUSR | S_IWUSR));
    expect_text("x");
    assert_int_equal(remove(path), 0);
    memset(name, 'x', NAME_MAX + 1);
    name[NAME_MAX + 1] = '\0';
    assert_false(replace(&j, S_IRUSR | S_IWUSR));
    assert_int_equal(errno, ENAMETOOLONG);
    assert_int_equal(files(), 0);
    memcpy(path, before, sizeof before);
}

static void a_folder_that_is_not_there_is_an_error_before_anything_is_written(void **unused) {
    (void)unused;
    job j = {.text = "x", .mode = 1};
    assert_false(tern_replace_file("/missing/folder/x", S_IRUSR, &tern_default_allocator, write_job, &j));
    assert_int_equal(errno, ENOENT);
    assert_int_equal(j.mode, 1);
}

static int set_up(void **unused) {
    (void)unused;
    if (!mkdtemp(folder)) return -1;
    (void)snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}
static int tear_down(void **unused) {
    (void)unused;
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_file_has_its_name_only_when_it_is_whole),
        cmocka_unit_test(who_has_the_old_file_open_keeps_it),
        cmocka_unit_test(a_write_that_fails_changes_and_leaves_nothing_and_keeps_its_errno),
        cmocka_unit_test(the_mode_is_less_the_umask),
        cmocka_unit_test(a_name_may_be_as_long_as_names_can_be),
        cmocka_unit_test(a_folder_that_is_not_there_is_an_error_before_anything_is_written),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
