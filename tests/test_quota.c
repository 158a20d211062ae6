// SPDX-License-Identifier: MIT
// CPU quotas of cgroups, read from folders of made-up files: both versions, containers' views of them, and damaged files.
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "sched/quota.h"
#include "test_random.h"

static char root[] = "/tmp/tern-quota-XXXXXX";

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static int fresh_root(void **state) {
    (void)state;
    memcpy(root + sizeof root - 7, "XXXXXX", 6);
    return mkdtemp(root) ? 0 : -1;
}

static int drop_root(void **state) {
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

// Writes root/path, making its folders.
static void put(const char *path, const char *contents) {
    char name[8192];
    snprintf(name, sizeof name, "%s%s", root, path);
    for (char *slash = name + strlen(root); (slash = strchr(slash + 1, '/')) != NULL;) {
        *slash = '\0';
        mkdir(name, 0700);
        *slash = '/';
    }
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    fputs(contents, file);
    assert_int_equal(fclose(file), 0);
}

static void expect(int millis) { assert_int_equal(tern_quota_millis(root), millis); }

static void put_v2(const char *path_of_process, const char *root_of_mount) {
    char line[512];
    snprintf(line, sizeof line, "0::%s\n", path_of_process);
    put("/proc/self/cgroup", line);
    snprintf(line, sizeof line,
             "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
             "30 22 0:26 %s /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate\n",
             root_of_mount);
    put("/proc/self/mountinfo", line);
}

// ---- version 2 -------------------------------------------------------------------------------------------------------

static void no_files_are_no_quota(void **state) {
    (void)state;
    expect(0);
    put_v2("/", "/"); // a mount, but no cpu.max: the root cgroup has none
    expect(0);
}

static void the_quota_of_the_process_itself_counts(void **state) {
    (void)state;
    put_v2("/a/b", "/");
    put("/sys/fs/cgroup/a/b/cpu.max", "200000 100000\n");
    expect(2000);
    put("/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
    expect(2500);
    put("/sys/fs/cgroup/a/b/cpu.max", "10000 100000"); // no end of line
    expect(100);
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    expect(0);
}

static void the_smallest_quota_of_the_ancestors_counts(void **state) {
    (void)state;
    put_v2("/a/b/c", "/");
    put("/sys/fs/cgroup/a/cpu.max", "150000 50000\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/b/c/cpu.max", "400000 100000\n");
    expect(3000);
    put("/sys/fs/cgroup/a/b/cpu.max", "100000 100000\n");
    expect(1000);
    put("/sys/fs/cgroup/cpu.max", "1 100000\n"); // less than a thousandth
    expect(1);
}

static void a_container_sees_its_own_cgroup_at_the_mount(void **state) {
    (void)state;
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    put_v2("/", "/"); // a namespace of its own
    expect(2000);
    put_v2("/docker/0123", "/docker/0123"); // the host's names, but only its own cgroup is mounted
    expect(2000);
    put_v2("/docker/0123/child", "/docker/0123");
    put("/sys/fs/cgroup/child/cpu.max", "50000 100000\n");
    expect(500);
    put_v2("/../other", "/"); // outside of its namespace
    expect(2000);
    put_v2("/docker/01234", "/docker/0123"); // another container's mount
    expect(0);
}

// ---- version 1 -------------------------------------------------------------------------------------------------------

static void put_v1(const char *path_of_process, const char *root_of_mount) {
    char line[512];
    snprintf(line, sizeof line, "11:cpuset:/\n4:cpu,cpuacct:%s\n1:name=systemd:/x\n0::/x\n", path_of_process);
    put("/proc/self/cgroup", line);
    snprintf(line, sizeof line,
             "31 22 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
             "33 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
             "34 31 0:30 %s /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu\n"
             "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
             root_of_mount);
    put("/proc/self/mountinfo", line);
}

static void version_1_has_quota_and_period_in_two_files(void **state) {
    (void)state;
    put_v1("/a/b", "/");
    put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "300000\n");
    expect(0);
    put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
    expect(3000);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    expect(1500);
    put_v1("/docker/0123", "/docker/0123");
    expect(0);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
    expect(500);
}

static void where_both_versions_limit_the_smaller_counts(void **state) {
    (void)state;
    put_v1("/a", "/");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "300000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/unified/x/cpu.max", "200000 100000\n");
    expect(2000);
    put("/sys/fs/cgroup/unified/x/cpu.max", "400000 100000\n");
    expect(3000);
}

// ---- what is not to be trusted ------------------------------------------------------------------------------------------

static void damaged_quotas_are_none(void **state) {
    (void)state;
    put_v2("/a", "/");
    static const char *const damaged[] = {"",
                                          "\n",
                                          "200000",
                                          "200000 ",
                                          " 200000 100000",
                                          "200000 100000 1",
                                          "200000\t100000",
                                          "-200000 100000",
                                          "+200000 100000",
                                          "200000 -1",
                                          "200000 0",
                                          "0 100000",
                                          "0x30d40 100000",
                                          "200000.5 100000",
                                          "2e5 100000",
                                          "max",
                                          "9223372036854775807 1",
                                          "9223372036854775808 1",
                                          "99999999999999999999999 100000",
                                          "200000 99999999999999999999999",
                                          "200000 100000x",
                                          "9000000000000 1"};
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        put("/sys/fs/cgroup/a/cpu.max", damaged[i]);
        expect(0);
    }
    put("/sys/fs/cgroup/a/cpu.max", "2147483 1\n");
    expect(2147483000);
}

static void damaged_tables_are_no_quota(void **state) {
    (void)state;
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "100000 100000\n");
    static const char *const cgroups[] = {"", "0", "0:", "0::", "0::a", "::/a", "1::/a", "0:cpux:/a", "cpu", "\n\n:\n"};
    for (size_t i = 0; i < sizeof cgroups / sizeof cgroups[0]; i++) {
        put_v2("/a", "/");
        put("/proc/self/cgroup", cgroups[i]);
        const int millis = tern_quota_millis(root);
        assert_true(millis == 0 || millis == 2000); // at most that of the mount's root
    }
    static const char *const mounts[] = {"",
                                         " - \n",
                                         " - cgroup2\n",
                                         " - cgroup2 cgroup2\n",
                                         "30 22 0:26 - cgroup2 cgroup2 rw\n",
                                         "30 22 0:26 / - cgroup2 cgroup2 rw\n",
                                         "30 22 0:26 / sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
                                         "30 22 0:26 / /sys/fs/../fs/cgroup rw - cgroup2 cgroup2 rw\n",
                                         "30 22 0:26  /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
                                         "30 22 0:26 / /sys/fs/cgroup rw - cgroup22 cgroup2 rw\n",
                                         "30 22 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw,cpuset\n"};
    put_v2("/a", "/");
    for (size_t i = 0; i < sizeof mounts / sizeof mounts[0]; i++) {
        put("/proc/self/mountinfo", mounts[i]);
        expect(0);
    }
}

static void paths_do_not_lead_out_of_the_mount(void **state) {
    (void)state;
    put("/sys/secret/cpu.max", "100000 100000\n");
    put_v2("/../../secret", "/");
    expect(0);
    put_v2("/a/../../../secret", "/");
    expect(0);
}

static void long_lines_are_skipped_and_the_rest_is_read(void **state) {
    (void)state;
    enum { LONG = 100000 };
    static char table[LONG + 512];
    memset(table, 'x', LONG);
    snprintf(table + LONG, 512, " - overlay overlay rw\n30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put_v2("/a", "/");
    put("/proc/self/mountinfo", table);
    put("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    expect(2000);
    snprintf(table + LONG, 512, "\n0::/a\n");
    put("/proc/self/cgroup", table);
    expect(2000);
    memcpy(table, "0::/", 4); // a path longer than any
    table[LONG] = '\0';
    put("/proc/self/cgroup", table);
    expect(0);
    for (int i = 4; i < LONG; i += 2) table[i] = '/'; // as deep as a line allows
    table[4000] = '\0';
    put("/proc/self/cgroup", table);
    expect(0);
}

static void damage(char *text) {
    static const char bytes[] = "/:. ,-\\\n\t0179acpu\xff";
    const size_t n = strlen(text), times = random_below(4);
    for (size_t i = 0; i < times; i++) text[random_below(n)] = bytes[random_below(sizeof bytes - 1)];
    if (random_below(8) == 0) text[random_below(n)] = '\0';
}

static void random_damage_gives_a_quota_or_none(void **state) {
    (void)state;
    for (int i = 0; i < 300; i++) {
        char cgroup[] = "4:cpu,cpuacct:/a/b\n0::/a/b\n", quota[] = "200000 100000\n", v1_quota[] = "150000\n";
        char mounts[] = "34 31 0:30 /a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuacct,cpu\n"
                        "30 22 0:26 / /sys/fs/cg\\137 rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        char *const texts[] = {cgroup, mounts, quota, v1_quota};
        if (i > 0) damage(texts[random_below(4)]);
        put("/proc/self/cgroup", cgroup);
        put("/proc/self/mountinfo", mounts);
        put("/sys/fs/cg_/a/b/cpu.max", quota);
        put("/sys/fs/cgroup/cpu/b/cpu.cfs_quota_us", v1_quota);
        put("/sys/fs/cgroup/cpu/b/cpu.cfs_period_us", "100000\n");
        if (i == 0) expect(1500);
        assert_true(tern_quota_millis(root) >= 0);
    }
}

static void a_mount_point_may_hold_spaces(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/a:b\n");
    put("/proc/self/mountinfo", "30 22 0:26 / /my\\040groups\\134 rw - cgroup2 none rw\n");
    put("/my groups\\/a:b/cpu.max", "200000 100000\n");
    expect(2000);
}

static void this_system_can_be_asked(void **state) {
    (void)state;
    assert_true(tern_quota_millis("") >= 0);
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, fresh_root, drop_root)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(no_files_are_no_quota),
        IN_A_FOLDER(the_quota_of_the_process_itself_counts),
        IN_A_FOLDER(the_smallest_quota_of_the_ancestors_counts),
        IN_A_FOLDER(a_container_sees_its_own_cgroup_at_the_mount),
        IN_A_FOLDER(version_1_has_quota_and_period_in_two_files),
        IN_A_FOLDER(where_both_versions_limit_the_smaller_counts),
        IN_A_FOLDER(damaged_quotas_are_none),
        IN_A_FOLDER(damaged_tables_are_no_quota),
        IN_A_FOLDER(paths_do_not_lead_out_of_the_mount),
        IN_A_FOLDER(long_lines_are_skipped_and_the_rest_is_read),
        IN_A_FOLDER(random_damage_gives_a_quota_or_none),
        IN_A_FOLDER(a_mount_point_may_hold_spaces),
        cmocka_unit_test(this_system_can_be_asked),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
