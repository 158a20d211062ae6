// SPDX-License-Identifier: MIT
// The tuning table: its grammar against damage, the file, and what a context makes of it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpu/tune_table.h"
#include "tern/diagnostics.h"
#include "tern/tune.h"
#include "test_random.h"

// ---- the text ------------------------------------------------------------------------------------------------------

static const tern_tune_key here = {TERN_TIER_AVX2, 2, "0.1.0", "Synthetic CPU @ 2 GHz"};
static tern_tune_table table;
static tern_error why;

static tern_tune_verdict parse(const char *text, size_t size) {
    why.text[0] = '\0';
    return tern_tune_parse(text, size, &here, &table, &why);
}

#define HEADER "tern-tune 1\n# n k scale_block m residency layout million_multiply_adds_per_second\n"
#define MACHINE "machine avx2 2 0.1.0 Synthetic CPU @ 2 GHz\n"
#define ROW "4096 4096 0 1 dram m2 35210\n"

static tern_tune_verdict parse_text(const char *text) { return parse(text, strlen(text)); }

static void a_table_is_read_as_it_was_written(void **state) {
    (void)state;
    static const tern_tune_row rows[] = {{4096, 11008, 0, 1, false, TERN_LAYOUT_M2, 35210},
                                         {1, 131071, 256, 512, true, TERN_LAYOUT_T2N, 1},
                                         {268435456, 1, 0, 1048576, true, TERN_LAYOUT_T5, 1000000000}};
    char text[1024];
    const size_t size = tern_tune_format(text, sizeof text, &here, rows, 3, NULL, 0);
    assert_true(size > 0);
    assert_int_equal(parse(text, size), TERN_TUNE_FOUND);
    assert_int_equal(table.n, 3);
    for (size_t i = 0; i < 3; i++) {
        const tern_tune_row *r = &table.rows[i], *w = &rows[i];
        assert_true(r->n == w->n && r->k == w->k && r->scale_block == w->scale_block && r->m == w->m);
        assert_true(r->cached == w->cached && r->layout == w->layout && r->speed == w->speed);
    }
    assert_int_equal(tern_tune_format(text, size - 1, &here, rows, 3, NULL, 0), 0); // no room
}

static void the_format_is_the_documented_one(void **state) {
    (void)state;
    assert_int_equal(parse_text(HEADER MACHINE ROW "end 4\n"), TERN_TUNE_FOUND);
    assert_int_equal(table.n, 1);
    assert_int_equal(table.threads, 2);
}

static void every_cut_and_every_changed_byte_is_damage_or_another_valid_table(void **state) {
    (void)state;
    static const char text[] = HEADER MACHINE ROW "576 1536 256 512 cache t5 9\nend 5\n";
    const size_t size = sizeof text - 1;
    assert_int_equal(parse(text, size), TERN_TUNE_FOUND);
    for (size_t n = 0; n < size; n++) {
        char *cut = malloc(n + 1); // exact, so that a sanitizer sees a read past the end
        assert_non_null(cut);
        memcpy(cut, text, n);
        assert_int_equal(parse(cut, n), TERN_TUNE_DAMAGED);
        assert_int_equal(table.n, 0);
        assert_true(why.text[0]);
        free(cut);
    }
    for (size_t at = 0; at < size; at++)
        for (int byte = 0; byte < 256; byte++) {
            char changed[sizeof text];
            memcpy(changed, text, sizeof text);
            changed[at] = (char)byte;
            const tern_tune_verdict verdict = parse(changed, size);
            assert_true(verdict == TERN_TUNE_FOUND || table.n == 0);
            for (size_t i = 0; i < table.n; i++) {
                const tern_tune_row *r = &table.rows[i];
                assert_true(r->n >= 1 && r->k >= 1 && r->k <= TERN_K_MAX && r->m >= 1 && r->scale_block <= r->k);
                assert_true(r->layout > TERN_LAYOUT_NONE && r->layout < TERN_LAYOUT_COUNT && r->speed >= 1);
            }
        }
}

static void random_edits_are_survived(void **state) {
    (void)state;
    static const char text[] = HEADER MACHINE ROW ROW "machine scalar 1 0.1.0 x\n" ROW "end 7\n";
    for (int i = 0; i < 20000; i++) {
        const size_t size = sizeof text - 1, from = random_below(size), to = random_below(size), n = random_below(size - from);
        char *edited = malloc(size + n);
        assert_non_null(edited);
        memcpy(edited, text, to);
        memcpy(edited + to, text + from, n); // some part of it once more
        memcpy(edited + to + n, text + to, size - to);
        const tern_tune_verdict verdict = parse(edited, size + n);
        assert_true(n == 0 || verdict != TERN_TUNE_NONE);
        free(edited);
    }
}

static void what_is_not_a_number_in_range_is_damage(void **state) {
    (void)state;
    static const char *const rows[] = {
        "",
        "4096 4096 0 1 dram m2",
        "4096 4096 0 1 dram m2 5 5",
        "0 4096 0 1 dram m2 5",
        "4096 0 0 1 dram m2 5",
        "4096 131072 0 1 dram m2 5",
        "4096 4096 8 1 dram m2 5",
        "4096 256 512 1 dram m2 5",
        "4096 4096 0 0 dram m2 5",
        "4096 4096 0 1 disk m2 5",
        "4096 4096 0 1 dram m2 0",
        "4096 4096 0 1 dram m2 1000000001",
        "4096 4096 0 1 dram m2 99999999999999999999999",
        "04096 4096 0 1 dram m2 5",
        "+4096 4096 0 1 dram m2 5",
        "-1 4096 0 1 dram m2 5",
        "0x10 4096 0 1 dram m2 5",
        "4096  4096 0 1 dram m2 5",
        " 4096 4096 0 1 dram m2 5",
        "4096 4096 0 1 dram m2 5 ",
        "4096 4096 0 1 dram m2 5\r",
        "4096 4096 0 1 dram averyverylonglayout 5",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[512];
        snprintf(text, sizeof text, HEADER MACHINE "%s\nend 4\n", rows[i]);
        if (parse_text(text) != TERN_TUNE_DAMAGED) fail_msg("accepted: %s", rows[i]);
    }
    static const char *const files[] = {
        "",
        "\n",
        "tern-tune 2\n",
        HEADER ROW "end 3\n",
        HEADER MACHINE ROW,
        HEADER MACHINE ROW "end 3\n",
        HEADER MACHINE ROW "end 4\n\n",
        HEADER MACHINE ROW "end 4\nend 4\n",
        HEADER "machine mmx 2 0.1.0 x\nend 3\n",
        HEADER "machine avx2 0 0.1.0 x\nend 3\n",
        HEADER "machine avx2 1025 0.1.0 x\nend 3\n",
        HEADER "machine avx2 2 0.1.0\nend 3\n",
        HEADER "machine avx2 2 0.1.0 \nend 3\n",
        HEADER "machine avx2 2 0.1.0-a-very-long-version-name x\nend 3\n",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (parse_text(files[i]) != TERN_TUNE_DAMAGED) fail_msg("accepted: %s", files[i]);
    static char large[TERN_TUNE_BYTES_MAX + 1];
    memset(large, ' ', sizeof large);
    memcpy(large, HEADER, sizeof HEADER - 1);
    assert_int_equal(parse(large, sizeof large), TERN_TUNE_DAMAGED);
}

static void tables_of_other_machines_and_versions_are_stale_and_say_why(void **state) {
    (void)state;
    assert_int_equal(parse_text(HEADER "machine avx2 2 0.1.0 Another CPU\n" ROW "end 4\n"), TERN_TUNE_STALE);
    assert_non_null(strstr(why.text, "another CPU"));
    assert_int_equal(parse_text(HEADER "machine avx2 2 0.0.9 Synthetic CPU @ 2 GHz\n" ROW "end 4\n"), TERN_TUNE_STALE);
    assert_non_null(strstr(why.text, "0.0.9"));
    assert_int_equal(parse_text(HEADER MACHINE "4096 4096 0 1 dram t99 5\nend 4\n"), TERN_TUNE_STALE);
    assert_non_null(strstr(why.text, "t99"));
    assert_int_equal(table.n, 0);
}

static void another_tier_of_this_machine_is_no_fault(void **state) {
    (void)state;
    assert_int_equal(parse_text(HEADER "machine scalar 2 0.1.0 Synthetic CPU @ 2 GHz\n" ROW "end 4\n"), TERN_TUNE_NONE);
    assert_string_equal(why.text, "");
}

static void the_nearest_number_of_threads_serves(void **state) {
    (void)state;
    assert_int_equal(parse_text(HEADER "machine avx2 8 0.1.0 Synthetic CPU @ 2 GHz\n4096 4096 0 1 dram t5 5\n"
                                       "machine avx2 1 0.1.0 Synthetic CPU @ 2 GHz\n4096 4096 0 1 dram t2n 5\nend 6\n"),
                     TERN_TUNE_FOUND);
    assert_int_equal(table.threads, 1);
    assert_int_equal(table.rows[0].layout, TERN_LAYOUT_T2N);
}

static void writing_keeps_the_sections_of_other_machines(void **state) {
    (void)state;
    static const char others[] =
        "machine avx512vbmi 64 0.1.0 Another CPU\n1 1 0 1 dram t5 7\n"
        "machine scalar 2 0.1.0 Synthetic CPU @ 2 GHz\n" ROW "machine avx2 1 0.1.0 Synthetic CPU @ 2 GHz\n" ROW;
    char old[1024], text[1024];
    snprintf(old, sizeof old, HEADER "%smachine avx2 4 0.0.9 Synthetic CPU @ 2 GHz\n" ROW MACHINE ROW "end 12\n", others);
    assert_int_equal(parse_text(old), TERN_TUNE_FOUND);
    const tern_tune_row row = {64, 64, 0, 1, false, TERN_LAYOUT_M2, 3};
    const size_t size = tern_tune_format(text, sizeof text, &here, &row, 1, old, strlen(old));
    char want[1024];
    snprintf(want, sizeof want, HEADER MACHINE "64 64 0 1 dram m2 3\n%send 10\n", others);
    assert_int_equal(size, strlen(want));
    assert_memory_equal(text, want, size);
    const size_t alone = tern_tune_format(text, sizeof text, &here, &row, 1, old, strlen(old) - 1); // damaged: nothing kept
    text[alone] = '\0';
    assert_string_equal(text, HEADER MACHINE "64 64 0 1 dram m2 3\nend 4\n");
}

static void a_brand_string_becomes_one_line(void **state) {
    (void)state;
    tern_cpu cpu = {.model = "A\nB\x80 C  "};
    assert_string_equal(tern_tune_key_of(&cpu, TERN_TIER_SCALAR, 1).cpu, "A?B? C");
    cpu.model[0] = '\0';
    assert_string_equal(tern_tune_key_of(&cpu, TERN_TIER_SCALAR, 1).cpu, "unknown");
}

// ---- the file, and contexts ----------------------------------------------------------------------------------------

static char folder[] = "/tmp/tern_test_tune_XXXXXX", file[256];

static int make_folder(void **state) {
    assert_non_null(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/cache/deep/tune.txt", folder);
    return start_random(state);
}
static int remove_folder(void **unused) {
    (void)unused;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static tern_context *context(const char *tune) {
    tern_context *ctx = NULL;
    const tern_context_params params = {.struct_size = sizeof params, .threads = 1, .tune = tune};
    assert_int_equal(tern_context_create(&ctx, &params), TERN_OK);
    return ctx;
}

static void write_file(const char *text) {
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

// The layout that a 64 x 64 weight gets in this context.
static const char *layout_in(tern_context *ctx) {
    enum { N = 64 };
    static const int8_t trits[N * N];
    const float one = 1;
    tern_weights *w = NULL;
    tern_weights_info info = {.struct_size = sizeof info};
    assert_int_equal(tern_weights_from_trits(ctx, &w, trits, &one, 0, N, N, N, NULL), TERN_OK);
    assert_int_equal(tern_weights_get_info(ctx, w, &info), TERN_OK);
    tern_weights_destroy(w);
    return info.layout;
}

static const tern_tune_result fast_t2n[] = {
    {sizeof(tern_tune_result), 64, 64, 0, 1, 0, "t2n", 5e9},
    {sizeof(tern_tune_result), 64, 64, 0, 1, 0, "m2", 4e9},
};

static void what_is_saved_chooses_the_layouts_of_the_next_context(void **state) {
    (void)state;
    tern_context *ctx = context(file);
    assert_non_null(strstr(tern_context_warning(ctx), "No such file")); // it was asked for by name
    assert_string_equal(tern_tune_path(ctx), file);
    assert_int_equal(tern_tune_save(ctx, fast_t2n, 2), TERN_OK);
    assert_int_equal(tern_tune_count(ctx), 0); // read once, at creation
    tern_context *next = context(file);
    assert_string_equal(tern_context_warning(next), "");
    assert_int_equal(tern_tune_count(next), 2);
    tern_tune_result r = {.struct_size = sizeof r};
    assert_int_equal(tern_tune_get(next, 0, &r), TERN_OK);
    assert_true(r.n == 64 && r.k == 64 && r.m == 1 && !r.cached && r.multiply_adds_per_second == 5e9);
    assert_string_equal(r.layout, "t2n");
    assert_int_equal(tern_tune_get(next, 2, &r), TERN_ERR_ARG);
    assert_string_equal(layout_in(next), "t2n");

    const tern_tune_result slow_t2n[] = {{sizeof(tern_tune_result), 64, 64, 0, 1, 0, "t2n", 3e9},
                                         {sizeof(tern_tune_result), 64, 64, 0, 1, 0, "m2", 4e9},
                                         {sizeof(tern_tune_result), 64, 64, 0, 8, 1, "m2", 4e9}};
    assert_int_equal(tern_tune_save(next, slow_t2n + 2, 1), TERN_OK); // another case: the older ones stay
    tern_context *third = context(file);
    assert_int_equal(tern_tune_count(third), 3);
    assert_int_equal(tern_tune_save(next, slow_t2n, 2), TERN_OK);
    tern_context *fourth = context(file);
    assert_int_equal(tern_tune_count(fourth), 3);
    assert_string_equal(layout_in(fourth), "m2");
    assert_int_equal(tern_tune_clear(fourth), TERN_OK);
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(tern_tune_clear(fourth), TERN_OK);
    tern_context_destroy(ctx);
    tern_context_destroy(next);
    tern_context_destroy(third);
    tern_context_destroy(fourth);
}

static void a_damaged_table_is_ignored_with_one_warning(void **state) {
    (void)state;
    tern_context *plain = context("off");
    const char *built_in = layout_in(plain);
    tern_context *writer = context(file);
    assert_int_equal(tern_tune_save(writer, fast_t2n, 2), TERN_OK);
    write_file("tern-tune 1\ngarbage\x01\n");
    tern_context *ctx = context(file);
    assert_non_null(strstr(tern_context_warning(ctx), "damaged"));
    assert_non_null(strstr(tern_context_warning(ctx), file));
    assert_null(strchr(tern_context_warning(ctx), '\n'));
    assert_string_equal(tern_context_error(ctx), "");
    assert_string_equal(layout_in(ctx), built_in);
    assert_int_equal(tern_tune_save(ctx, fast_t2n, 2), TERN_OK); // replaces it
    tern_context *healed = context(file);
    assert_string_equal(tern_context_warning(healed), "");
    assert_int_equal(tern_tune_count(healed), 2);
    tern_context_destroy(plain);
    tern_context_destroy(writer);
    tern_context_destroy(ctx);
    tern_context_destroy(healed);
}

static void folders_pipes_and_long_files_are_ignored_with_a_warning(void **state) {
    (void)state;
    tern_context *ctx = context(folder);
    assert_non_null(strstr(tern_context_warning(ctx), "directory"));
    tern_context_destroy(ctx);
    char pipe_path[300];
    snprintf(pipe_path, sizeof pipe_path, "%s/pipe", folder);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    ctx = context(pipe_path); // does not wait for a writer
    assert_non_null(strstr(tern_context_warning(ctx), "not a regular file"));
    tern_context_destroy(ctx);
    assert_int_equal(truncate(file, TERN_TUNE_BYTES_MAX + 1), 0);
    ctx = context(file);
    assert_non_null(strstr(tern_context_warning(ctx), "large"));
    tern_context_destroy(ctx);
    char long_path[2000];
    memset(long_path, 'a', sizeof long_path);
    long_path[sizeof long_path - 1] = '\0';
    ctx = context(long_path);
    assert_non_null(strstr(tern_context_warning(ctx), "longer"));
    assert_string_equal(tern_tune_path(ctx), "");
    tern_context_destroy(ctx);
}

static void the_place_comes_from_the_parameter_then_tern_tune_then_the_cache_folder(void **state) {
    (void)state;
    char home_file[300];
    assert_int_equal(setenv("TERN_TUNE", file, 1), 0);
    assert_int_equal(setenv("HOME", folder, 1), 0);
    assert_int_equal(unsetenv("XDG_CACHE_HOME"), 0);
    tern_context *ctx = context("off");
    assert_string_equal(tern_tune_path(ctx), "");
    assert_int_equal(tern_tune_save(ctx, fast_t2n, 2), TERN_ERR_STATE);
    assert_int_equal(tern_tune_clear(ctx), TERN_ERR_STATE);
    tern_context_destroy(ctx);
    ctx = context(NULL);
    assert_string_equal(tern_tune_path(ctx), file);
    tern_context_destroy(ctx);
    assert_int_equal(setenv("TERN_TUNE", "off", 1), 0);
    ctx = context(NULL);
    assert_string_equal(tern_tune_path(ctx), "");
    tern_context_destroy(ctx);
    assert_int_equal(setenv("TERN_TUNE", "", 1), 0); // as if unset
    ctx = context(NULL);
    snprintf(home_file, sizeof home_file, "%s/.cache/tern/tune.txt", folder);
    assert_string_equal(tern_tune_path(ctx), home_file);
    assert_string_equal(tern_context_warning(ctx), ""); // nobody asked for it: its absence is no news
    assert_int_equal(access(home_file, F_OK), -1);      // and nothing was made
    tern_context_destroy(ctx);
    assert_int_equal(setenv("XDG_CACHE_HOME", "relative", 1), 0);
    ctx = context(NULL);
    assert_string_equal(tern_tune_path(ctx), home_file);
    tern_context_destroy(ctx);
    assert_int_equal(setenv("XDG_CACHE_HOME", "/nowhere", 1), 0);
    ctx = context(NULL);
    assert_string_equal(tern_tune_path(ctx), "/nowhere/tern/tune.txt");
    assert_string_equal(tern_context_warning(ctx), "");
    tern_context_destroy(ctx);
    assert_int_equal(unsetenv("TERN_TUNE"), 0);
}

static void a_result_that_makes_no_sense_is_refused_and_the_file_stays(void **state) {
    (void)state;
    tern_context *ctx = context(file);
    assert_int_equal(tern_tune_save(ctx, fast_t2n, 2), TERN_OK);
    const tern_tune_result good = fast_t2n[0];
    tern_tune_result bad[9];
    for (size_t i = 0; i < 9; i++) bad[i] = good;
    bad[0].n = 0;
    bad[1].k = TERN_K_MAX + 1;
    bad[2].m = 0;
    bad[3].scale_block = 7;
    bad[4].layout = "t99";
    bad[5].layout = NULL;
    bad[6].multiply_adds_per_second = -1;
    bad[7].multiply_adds_per_second = 1e300;
    bad[8].struct_size = 0;
    for (size_t i = 0; i < 9; i++) {
        if (tern_tune_save(ctx, &bad[i], 1) != TERN_ERR_ARG) fail_msg("case %zu was accepted", i);
        assert_true(tern_context_error(ctx)[0]);
    }
    assert_int_equal(tern_tune_save(ctx, NULL, 1), TERN_ERR_ARG);
    assert_int_equal(tern_tune_save(ctx, &good, 0), TERN_ERR_ARG);
    assert_int_equal(tern_tune_save(NULL, &good, 1), TERN_ERR_ARG);
    tern_context *next = context(file);
    assert_int_equal(tern_tune_count(next), 2);
    tern_context_destroy(next);
    tern_context_destroy(ctx);
}

static void a_folder_that_cannot_be_written_is_an_io_error(void **state) {
    (void)state;
    char below_a_file[300];
    snprintf(below_a_file, sizeof below_a_file, "%s/below/tune.txt", file);
    tern_context *ctx = context(below_a_file);
    assert_int_equal(tern_tune_save(ctx, fast_t2n, 2), TERN_ERR_IO);
    assert_non_null(strstr(tern_context_error(ctx), below_a_file));
    tern_context_destroy(ctx);
}

// What the file holds is neither replaced nor removed.
static void expect_untouched(const char *path) {
    tern_context *ctx = context(path);
    assert_true(tern_context_warning(ctx)[0]);
    assert_int_equal(tern_tune_save(ctx, fast_t2n, 2), TERN_ERR_IO);
    assert_non_null(strstr(tern_context_error(ctx), path));
    assert_int_equal(tern_tune_clear(ctx), TERN_ERR_IO);
    assert_non_null(strstr(tern_context_error(ctx), "TERN_TUNE"));
    tern_context_destroy(ctx);
}

static void what_is_no_tuning_table_is_neither_replaced_nor_removed(void **state) {
    (void)state;
    char path[300], text[16];
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    for (int large = 0; large <= 1; large++) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs("GGUF", f) >= 0);
        assert_int_equal(fclose(f), 0);
        if (large) assert_int_equal(truncate(path, 2 * TERN_TUNE_BYTES_MAX), 0);
        expect_untouched(path);
        f = fopen(path, "r");
        assert_non_null(f);
        assert_int_equal(fread(text, 1, 4, f), 4);
        assert_memory_equal(text, "GGUF", 4);
        assert_int_equal(fclose(f), 0);
    }
    struct stat st;
    snprintf(path, sizeof path, "%s/pipe2", folder); // as /dev/null would be
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_untouched(path);
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    expect_untouched(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_read_as_it_was_written),
        cmocka_unit_test(the_format_is_the_documented_one),
        cmocka_unit_test(every_cut_and_every_changed_byte_is_damage_or_another_valid_table),
        cmocka_unit_test(random_edits_are_survived),
        cmocka_unit_test(what_is_not_a_number_in_range_is_damage),
        cmocka_unit_test(tables_of_other_machines_and_versions_are_stale_and_say_why),
        cmocka_unit_test(another_tier_of_this_machine_is_no_fault),
        cmocka_unit_test(the_nearest_number_of_threads_serves),
        cmocka_unit_test(writing_keeps_the_sections_of_other_machines),
        cmocka_unit_test(a_brand_string_becomes_one_line),
        cmocka_unit_test(what_is_saved_chooses_the_layouts_of_the_next_context),
        cmocka_unit_test(a_damaged_table_is_ignored_with_one_warning),
        cmocka_unit_test(folders_pipes_and_long_files_are_ignored_with_a_warning),
        cmocka_unit_test(the_place_comes_from_the_parameter_then_tern_tune_then_the_cache_folder),
        cmocka_unit_test(a_result_that_makes_no_sense_is_refused_and_the_file_stays),
        cmocka_unit_test(a_folder_that_cannot_be_written_is_an_io_error),
        cmocka_unit_test(what_is_no_tuning_table_is_neither_replaced_nor_removed),
    };
    return cmocka_run_group_tests_name("tune", tests, make_folder, remove_folder);
}
